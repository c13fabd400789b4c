"""Rows as other programs write them into the queue, good and hostile, through the running daemon."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ACCOUNT, ENTRY, TARGET, Json, Pair, Spread, running, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running(tmp_path_factory.mktemp("requests"), orders_per_minute="10000") as pair:
        yield pair


def entry_of(spread: Spread, **changes: object) -> Json:
    entry: Json = spread.request()["entry"]
    return {key: value for key, value in (entry | changes).items() if value is not None}


def legs_of(spread: Spread, **first: object) -> list[Json]:
    legs: list[Json] = spread.request()["entry"]["legs"]
    return [legs[0] | {key.replace("_", "-"): value for key, value in first.items()}, legs[1]]


def hostile_rows(spread: Spread) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """name: (request, words of which each must be in the reasons)"""
    good = spread.request()
    expired = spread.short[:6] + "200117" + spread.short[12:]
    return {
        "no json": ("{", ("JSON",)),
        "empty": ("", ("JSON",)),
        "array": ("[]", ("object",)),
        "duplicate key": (json.dumps(good)[:-1] + ', "version": 1}', ("version",)),
        "no version": ({k: v for k, v in good.items() if k != "version"}, ("version",)),
        "version 2": (good | {"version": 2}, ("version",)),
        "unknown key": (good | {"targt": {}}, ("targt", "target")),
        "source": (good | {"entry": entry_of(spread, source="me")}, ("source",)),
        "external identifier": (good | {"entry": entry_of(spread, **{"external-identifier": "x"})}, ("external",)),
        "advanced": (good | {"entry": entry_of(spread, **{"advanced-instructions": {}})}, ("advanced",)),
        "closing leg": (good | {"entry": entry_of(spread, legs=legs_of(spread, action="Sell to Close"))}, ("lose",)),
        "market spread": (
            good | {"entry": entry_of(spread, **{"order-type": "Market", "price": None, "price-effect": None})},
            ("Market",),
        ),
        "bad symbol": (good | {"entry": entry_of(spread, legs=legs_of(spread, symbol="AAPL 1 C"))}, ("symbol",)),
        "same symbol": (good | {"entry": entry_of(spread, legs=legs_of(spread, symbol=spread.long))}, (spread.long,)),
        "two underlyings": (
            good | {"entry": entry_of(spread, legs=legs_of(spread, symbol="SPY   " + spread.short[6:]))},
            ("underlying",),
        ),
        "target worse": (good | {"target": {"price": "0.90", "price-effect": "Debit"}}, ("target",)),
        "stop better": (
            good | {"stop": {"trigger": "0.50", "price": "0.60", "price-effect": "Debit"}},
            ("stop",),
        ),
        "stop price": (good | {"stop": {"trigger": "1.70", "price": "1.60", "price-effect": "Debit"}}, ("stop",)),
        "profit above 100": (good | {"target": {"profit-percent": "101"}}, ("profit-percent",)),
        "off increment": (good | {"entry": entry_of(spread, price="0.855")}, ("price",)),
        "nan": (json.dumps(good).replace('"0.85"', "NaN"), ("NaN",)),
        "nan text": (good | {"entry": entry_of(spread, price="NaN")}, ("price",)),
        "infinity": (json.dumps(good).replace('"0.85"', "1e400"), ("price",)),
        "absurd size": (good | {"entry": entry_of(spread, legs=legs_of(spread, quantity=10**12))}, ("quantity",)),
        "fraction": (good | {"entry": entry_of(spread, legs=legs_of(spread, quantity=0.5))}, ("quantity",)),
        "expired": (good | {"entry": entry_of(spread, legs=legs_of(spread, symbol=expired))}, ("expired",)),
        "trigger beyond": (
            good | {"stop": {"trigger": "2.60", "price": "2.80", "price-effect": "Debit"}},
            ("trigger",),
        ),
        "trigger zero": (good | {"stop": {"trigger": "0", "price": "0", "price-effect": "Debit"}}, ("trigger",)),
        "no exits": ({k: v for k, v in good.items() if k not in ("target", "stop")}, ("target", "stop")),
        "five legs": (
            good | {"entry": entry_of(spread, legs=[*legs_of(spread), *legs_of(spread), *legs_of(spread)])},
            ("legs",),
        ),
        "not after": (good | {"not-after": "yesterday"}, ("not-after",)),
        "protection": (good | {"protection": "none"}, ("protection",)),
        "deep": ("[" * 30_000 + "]" * 30_000, ("",)),
        "nul": (json.dumps(good)[:-1] + ', "tags": {"a": "\\u0000"}}', ("",)),
        "lone surrogate": (json.dumps(good)[:-1] + ', "tags": {"a": "\\ud800"}}', ("",)),
        "too long": (json.dumps(good | {"tags": {"a": "x" * 70_000}}), ("65536",)),
        "several at once": (
            {"version": 1, "entry": entry_of(spread, price="NaN", source="me"), "targt": 1},
            ("price", "source", "targt"),
        ),
    }


@pytest.mark.covers("F106", "F109", "F113", "F114", "F115", "F116", "F117")
def test_every_refusal_is_answered_with_its_reasons_and_hurts_nothing_else(pair: Pair) -> None:
    spread = pair.paper.spread()
    rows = hostile_rows(spread)
    good = {f"good-{n}": pair.paper.spread() for n in range(3)}
    batch: list[tuple[str, object]] = [(name, request) for name, (request, _) in rows.items()]
    for place, (ref, other) in enumerate(good.items()):
        batch.insert(place * 10, (ref, other.request()))
    pair.daemon.submit_all(batch)
    for ref in good:
        assert pair.daemon.answered(ref)[0] == "ACCEPTED"
    wrong = {}
    for name, (_, words) in rows.items():
        status, reason, bracket_id = pair.daemon.answered(name)
        if (status, bracket_id) != ("REJECTED", None) or not reason or any(word not in reason for word in words):
            wrong[name] = (status, reason)
        elif not all(character.isprintable() for character in reason.replace("\n", "")):
            wrong[name] = ("control characters", reason)
    assert wrong == {}
    several = pair.daemon.row("several at once")[1]
    assert several is not None
    assert len(several.splitlines()) >= 3
    assert pair.paper.orders(spread) == []
    for ref, other in good.items():
        pair.paper.working(other)
        pair.paper.quote(other, ENTRY)
        pair.daemon.until_state(ref, "EXITS_LIVE")
        pair.paper.quote(other, TARGET)
        pair.daemon.until_state(ref, "CLOSED")
    pair.check_end()


def test_account_that_is_not_configured_is_refused(pair: Pair) -> None:
    pair.daemon.submit("account", pair.paper.spread().request(), account="5WT99999")
    status, reason, _ = pair.daemon.answered("account")
    assert status == "REJECTED"
    assert "account" in (reason or "")


@pytest.mark.covers("F71")
def test_entry_on_a_symbol_of_another_open_bracket_is_refused_and_names_it(pair: Pair) -> None:
    spread = pair.open_bracket("first-on-leg", "PENDING_ENTRY", protection="native-oco")
    first = pair.daemon.bracket("first-on-leg")
    pair.daemon.submit("second-on-leg", spread.request())
    status, reason, _ = pair.daemon.answered("second-on-leg")
    assert status == "REJECTED"
    assert first["bracket_id"] in (reason or "")
    assert len(pair.paper.orders(spread)) == 1


@pytest.mark.covers("F105")
def test_repeated_client_ref_answers_with_the_first_bracket_or_refuses_another_request(pair: Pair) -> None:
    spread = pair.open_bracket("again", "PENDING_ENTRY", protection="native-oco")
    first = pair.daemon.row("again")[2]
    assert first is not None

    def insert_again(request: Json) -> tuple[str, str | None, str | None]:
        # The table is the producers' own; one that lost its answer deletes the row and inserts it anew.
        with pair.daemon.queue() as connection:
            connection.execute("DELETE FROM bracket_requests WHERE client_ref = 'again'")
        pair.daemon.submit("again", request)
        return pair.daemon.answered("again")

    same = spread.request(protection="native-oco")
    reordered = dict(reversed(same.items()))
    assert insert_again(same) == ("ACCEPTED", None, first)
    assert insert_again(reordered) == ("ACCEPTED", None, first)
    status, reason, bracket_id = insert_again(same | {"tags": {"a": "b"}})
    assert (status, bracket_id) == ("REJECTED", None)
    assert "duplicate client_ref" in (reason or "")
    assert first in (reason or "")
    assert len(pair.paper.orders(spread)) == 1


@pytest.mark.covers("F107")
def test_row_edited_or_deleted_after_pickup_changes_nothing(pair: Pair) -> None:
    spread = pair.open_bracket("edited", "PENDING_ENTRY", protection="native-oco")
    with pair.daemon.queue() as connection:
        connection.execute("UPDATE bracket_requests SET request = '{}', account = 'X' WHERE client_ref = 'edited'")
    pair.paper.quote(spread, ENTRY)
    pair.daemon.until_state("edited", "EXITS_LIVE")
    with pair.daemon.queue() as connection:
        connection.execute("DELETE FROM bracket_requests WHERE client_ref = 'edited'")
    pair.paper.quote(spread, TARGET)
    until(lambda: pair.daemon.bracket("edited")["state"] == "CLOSED", "closed")
    assert len(pair.paper.orders(spread)) == 3


@pytest.mark.covers("F111")
def test_stale_rows_are_refused(pair: Pair) -> None:
    long_ago = (datetime.now(UTC) - timedelta(minutes=11)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    spread = pair.paper.spread()
    pair.daemon.submit("old", spread.request(), created_at=long_ago)
    past = (datetime.now(UTC) - timedelta(seconds=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    pair.daemon.submit("past", spread.request(not_after=past))
    for ref in ("old", "past"):
        status, reason, _ = pair.daemon.answered(ref)
        assert (ref, status) == (ref, "REJECTED")
        assert "not-after" in (reason or ""), reason
    assert pair.paper.orders(spread) == []


@pytest.mark.covers("F110")
def test_two_hundred_rows_at_once_are_each_answered_once(pair: Pair) -> None:
    """As many as the chain has strikes become brackets; the rest clash with them, and every one gets its answer."""
    spread = pair.paper.spread()
    rows: list[tuple[str, object]] = []
    spreads = [pair.paper.spread() for _ in range(60)]
    for n in range(200):
        kind = n % 4
        if kind == 0 and spreads:
            rows.append((f"many-{n}", spreads.pop().request()))
        elif kind == 1:
            rows.append((f"many-{n}", spread.request(tags={"n": str(n)})))
        else:
            rows.append((f"many-{n}", "{"))
    pair.daemon.submit_all(rows)
    until(lambda: all(pair.daemon.row(ref)[0] != "NEW" for ref, _ in rows), "every row to be answered", 30)
    with pair.daemon.queue() as connection:
        found = dict(
            connection.execute(
                "SELECT status, count(*) FROM bracket_requests WHERE client_ref LIKE 'many-%' GROUP BY status"
            ).fetchall()
        )
    assert found == {"ACCEPTED": 51, "REJECTED": 149}
    assert pair.paper.doubled() == []
    assert pair.paper.posted_again() == []


@pytest.mark.covers("F108", "F121")
def test_writer_that_holds_the_lock_delays_answers_and_its_rollback_leaves_nothing(pair: Pair) -> None:
    waiting = pair.paper.spread()
    insert = "INSERT INTO bracket_requests (client_ref, account, request) VALUES (?, ?, ?)"
    with pair.daemon.queue() as connection:
        connection.execute(insert, ("behind-lock", ACCOUNT, json.dumps(waiting.request())))
        connection.commit()
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute(insert, ("half", ACCOUNT, "{"))
        # Exits and entries go on: only the answer has to wait.
        spread = pair.paper.spread()
        assert pair.paper.orders(spread) == []
        connection.rollback()
    assert pair.daemon.answered("behind-lock")[0] == "ACCEPTED"
    with pair.daemon.queue() as connection:
        assert connection.execute("SELECT count(*) FROM bracket_requests WHERE client_ref = 'half'").fetchone() == (0,)


def test_datagram_of_any_content_wakes_the_reader(pair: Pair) -> None:
    wake = pair.daemon.data_dir / "queue" / "wake"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sender:
        for content in (b"", b"x" * 60_000, b"\x00\xff"):
            sender.sendto(content, str(wake))
        pair.daemon.submit("woken", pair.paper.spread().request())
        sender.sendto(b"look", str(wake))
    assert pair.daemon.answered("woken")[0] == "ACCEPTED"


@pytest.mark.covers("F111", "F79")
def test_rows_during_a_halt_stay_new_until_resumed_or_stale(tmp_path: Path) -> None:
    with running(tmp_path) as pair:
        pair.daemon.done("halt", "--reason", "lunch")
        early, late = pair.paper.spread(), pair.paper.spread()
        soon = (datetime.now(UTC) + timedelta(seconds=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
        pair.daemon.submit("goes-stale", early.request(not_after=soon))
        pair.daemon.submit("waits", late.request())
        pair.daemon.submit("wrong", "{")
        assert pair.daemon.answered("wrong")[0] == "REJECTED", "what is wrong is said at once, halted or not"
        assert pair.daemon.row("goes-stale")[0] == "NEW"
        status, reason, _ = pair.daemon.answered("goes-stale")
        assert status == "REJECTED"
        assert "stale" in (reason or "")
        assert pair.daemon.row("waits")[0] == "NEW"
        assert pair.paper.orders() == []
        pair.daemon.done("resume")
        assert pair.daemon.answered("waits")[0] == "ACCEPTED"
        pair.paper.working(late)
