"""Each rule of the audit fires when one thing is broken, names it, and is silent on a sound database.

Goal: a checker that never fired is not believed. Method: the real store writes three brackets (one closed by its
target, one with both exits working, one whose entry is on its way); then one thing is broken by SQL, past every
constraint, and the audit is asked.
"""
# ruff: noqa: S608 - the names of tables and columns are words of this file

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from otocod.adapters.sqlite import migrate
from otocod.adapters.sqlite.store import SqliteStore
from otocod.audit import BrokerLeg, BrokerOrder, Violation, audit, audit_database, broker_order_from_json
from otocod.domain.brackets import Bracket
from otocod.domain.ids import AccountNumber, BrokerOrderId, FillId
from otocod.domain.orders import BrokerStatus, Fill, LegReport, Order, OrderReport, OrderState
from tests.support.stored_records import (
    ACCOUNT,
    LONG,
    SHORT,
    START_US,
    accepted,
    change,
    changes_of_life,
    entry_filled,
    protected,
)

NOW_US = START_US + 3_600_000_000
OTHER_ACCOUNT = AccountNumber("5WT00002")


def live_report(order: Order, broker_order_id: str) -> OrderReport:
    return OrderReport(
        broker_order_id=BrokerOrderId(broker_order_id),
        status=BrokerStatus.LIVE,
        status_text="Live",
        legs=tuple(LegReport(leg.symbol, leg.action, leg.quantity, leg.quantity) for leg in order.spec.legs),
        external_identifier=order.external_identifier,
        source="otocod/test",
    )


def working(before: Bracket) -> Bracket:
    """EXITS_LIVE, and the broker has shown both exits."""
    after = protected(before)
    entry, target, stop = after.orders
    return replace(after, orders=(entry, target.learn(live_report(target, "71")), stop.learn(live_report(stop, "72"))))


CLOSED, WORKING, PENDING = (
    accepted(1),
    working(entry_filled(accepted(2, account=OTHER_ACCOUNT))),
    accepted(3),
)
ENTRY, TARGET, STOP = WORKING.orders


async def write(path: Path) -> None:
    migrate.upgrade(path)
    first = accepted(2, account=OTHER_ACCOUNT)
    filled = entry_filled(first)
    changes = [*changes_of_life(1), change(None, first), change(first, filled), change(filled, WORKING)]
    store = await SqliteStore.open(path)
    for each in [*changes, change(None, PENDING)]:
        await store.commit(each)
    await store.close()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "state.db"
    asyncio.run(write(path))
    return path


class Database:
    """A copy to be broken. Constraints that would forbid it are taken away first: the audit must not rely on them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = sqlite3.connect(path, isolation_level=None)
        for (name,) in self._connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            self._connection.execute(f"DROP TRIGGER {name}")
        self._connection.execute("PRAGMA ignore_check_constraints = ON")

    def close(self) -> None:
        self._connection.close()

    def run(self, sql: str, *values: object) -> None:
        assert self._connection.execute(sql, values).rowcount != 0, "nothing was broken"

    def without_constraints(self, table: str) -> None:
        self._connection.executescript(
            f"CREATE TABLE copy AS SELECT * FROM {table}; DROP TABLE {table}; ALTER TABLE copy RENAME TO {table};"
        )

    def edit(self, order: Order, column: str, change_it: Callable[[Any], None]) -> None:
        """Changes a JSON column of an order in place."""
        query = f"SELECT {column} FROM orders WHERE external_identifier = ?"
        (text,) = self._connection.execute(query, (order.external_identifier,)).fetchone()
        value = json.loads(text)
        change_it(value)
        self.run(
            f"UPDATE orders SET {column} = ? WHERE external_identifier = ?",
            json.dumps(value),
            order.external_identifier,
        )

    def set_order(self, order: Order, column: str, value: object) -> None:
        self.run(f"UPDATE orders SET {column} = ? WHERE external_identifier = ?", value, order.external_identifier)

    def set_bracket(self, bracket: Bracket, column: str, value: object) -> None:
        self.run(f"UPDATE brackets SET {column} = ? WHERE bracket_id = ?", value, bracket.bracket_id)

    def journal(self, bracket: Bracket, from_state: str | None, to_state: str, **more: object) -> None:
        row = {"at_us": START_US + 50, "event": "Changed", "detail": "", "payload_json": None} | more
        self.run(
            "INSERT INTO journal (bracket_id, at_us, event, from_state, to_state, detail, payload_json)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(bracket.bracket_id, row["at_us"], row["event"], from_state, to_state, row["detail"], row["payload_json"]),
        )

    def fill(self, order: Order, *, units: int = 1) -> None:
        """Filled whole, in every place that says so."""
        prices = {SHORT: "0.55", LONG: "0.15"}

        def fill_view(views: Any) -> None:
            views[0]["status"] = views[0]["status_text"] = "Filled"
            for leg in views[0]["legs"]:
                one = {"fill_id": f"late:{leg['symbol']}", "quantity": units, "price": prices[leg["symbol"]]}
                leg["fills"], leg["remaining"], leg["quantity"] = [one], 0, units

        self.edit(order, "views_json", fill_view)
        for symbol, price in prices.items():
            values = order.external_identifier, f"late:{symbol}", symbol, units, price
            self.run("INSERT INTO fills VALUES (?, ?, ?, ?, ?, NULL)", *values)
        for column, value in (
            ("state", "FILLED"),
            ("status", "Filled"),
            ("filled_quantity", units),
            ("net_fill_price", "0.40"),
        ):
            self.set_order(order, column, value)

    def found(self, *, now_us: int = NOW_US) -> list[Violation]:
        return list(audit(self.path, None, None, now_us=now_us).violations)

    def rules(self, *, now_us: int = NOW_US) -> list[str]:
        return sorted({violation.rule for violation in self.found(now_us=now_us)})


@pytest.fixture
def database(sound: Path, tmp_path: Path) -> Iterator[Database]:
    path = tmp_path / "state.db"
    shutil.copyfile(sound, path)
    with closing(Database(path)) as opened:
        yield opened


def closed_orders() -> tuple[Order, ...]:
    return changes_of_life(1)[-1].after.orders


def test_sound_database_is_clean_and_the_report_says_what_was_looked_at(sound: Path) -> None:
    report = audit(sound, None, None, now_us=NOW_US)
    assert report.violations == ()
    assert not report.broker_asked
    assert report.checked == {
        "brackets": 3,
        "orders": 7,
        "fills": 6,
        "journal rows": 8,
        "still settling": 0,
    }
    assert audit_database(sound) == []


def test_audit_loads_nothing_of_the_daemons_decisions() -> None:
    code = "import otocod.audit, sys; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "otocod.audit.database" in loaded
    assert not [name for name in loaded if name.startswith(("otocod.domain", "otocod.engine", "otocod.ports"))]


def test_missing_file_is_an_error_and_no_clean_bill(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        audit_database(tmp_path / "state.db")


def test_unreadable_row_is_named_and_the_other_brackets_are_still_judged(database: Database) -> None:
    database.set_order(PENDING.orders[0], "spec_json", "{")
    database.set_order(TARGET, "spec_json", json.dumps({"legs": [], "strict": False}))
    found = database.found()
    assert [v.bracket_id for v in found if "cannot be read" in v.text] == [PENDING.bracket_id]
    assert "S7" in {violation.rule for violation in found}


# S3 to S8.


def test_two_brackets_of_one_client_ref_violate_s3(database: Database) -> None:
    database.without_constraints("brackets")
    database.set_bracket(WORKING, "client_ref", CLOSED.client_ref)
    found = {violation.rule: violation for violation in database.found()}
    assert found["S3"].text.startswith("client_ref ref-1 has 2 brackets")


def test_second_filled_entry_violates_s3(database: Database) -> None:
    database.set_order(TARGET, "role", "entry")
    database.run(
        "UPDATE external_identifiers SET role = 'entry' WHERE external_identifier = ?", TARGET.external_identifier
    )
    database.run("DROP INDEX uq_orders_one_filled_entry")
    database.fill(TARGET)
    assert "S3" in database.rules()


def test_exit_that_filled_before_any_entry_violates_s4(database: Database) -> None:
    database.set_order(ENTRY, "views_json", "[]")
    database.set_order(ENTRY, "state", "CANCELLED")
    database.fill(STOP)
    text = next(violation.text for violation in database.found() if violation.rule == "S4" and "stop" in violation.text)
    assert text == f"stop {STOP.external_identifier} has filled while no entry has filled"


def test_exit_that_works_while_the_entry_works_violates_s4(database: Database) -> None:
    database.set_order(ENTRY, "state", "WORKING")
    assert database.rules() == ["S4"]
    assert len(database.found()) == 2


@pytest.mark.parametrize(("word", "rules"), [("Contingent", []), ("Received", []), ("Live", ["S4"])])
def test_children_of_an_unfilled_trigger_do_not_count_until_they_act(
    database: Database, word: str, rules: list[str]
) -> None:
    def say(views: Any) -> None:
        views[0]["status"] = views[0]["status_text"] = word

    for order in (ENTRY, TARGET, STOP):
        database.set_order(order, "group_id", "group")
    database.set_order(ENTRY, "state", "WORKING")
    database.edit(TARGET, "views_json", say)
    database.edit(STOP, "views_json", say)
    assert [rule for rule in database.rules() if rule == "S4"] == rules


def test_exits_that_filled_more_than_the_entry_violate_s5(database: Database) -> None:
    database.fill(TARGET)
    database.fill(STOP)
    found = [violation for violation in database.found() if violation.rule == "S5"]
    assert {violation.bracket_id for violation in found} == {WORKING.bracket_id}
    assert found[0].text == "exits have filled 2 of AAPL  261218C00155000, entries 1: surplus not told of"


def test_orders_of_a_released_bracket_may_fill_beyond_its_entry(database: Database) -> None:
    database.fill(TARGET)
    database.fill(STOP)
    database.set_bracket(WORKING, "outcome", "RELEASED")
    assert "S5" not in database.rules()


@pytest.mark.parametrize("named_by", ["outcome", "attention", "journal"])
def test_surplus_that_a_person_was_told_of_is_no_violation_of_s5(database: Database, named_by: str) -> None:
    database.fill(TARGET)
    database.fill(STOP)
    told = "both exits filled: a surplus of 1 of AAPL was opened the wrong way"
    if named_by == "outcome":
        database.set_bracket(WORKING, "outcome", "DOUBLE_EXIT")
    elif named_by == "attention":
        database.set_bracket(WORKING, "attention", told)
    else:
        database.journal(WORKING, "EXITS_LIVE", "EXITS_LIVE", event="AttentionRaised", detail=told)
    assert "S5" not in database.rules()


@pytest.mark.parametrize(
    "told",
    [
        "a fill came after the bracket was closed: its position is not flat, look at it",
        "an exit has filled although the entry has not: what it opened is yours to close",
    ],
)
def test_surplus_told_of_as_a_late_fill_is_no_violation_of_s5(database: Database, told: str) -> None:
    """Found by the simulation: these are the words in which the daemon tells of it after the end."""
    database.fill(TARGET)
    database.fill(STOP)
    database.set_bracket(WORKING, "attention", told)
    assert "S5" not in database.rules()


def larger(spec: Any) -> None:
    for leg in spec["legs"]:
        leg["quantity"] = 2


def larger_there(views: Any) -> None:
    for view in views:
        for leg in view["legs"]:
            leg.update(quantity=2, remaining=2)


def test_exit_larger_than_the_open_position_violates_s6(database: Database) -> None:
    database.edit(STOP, "spec_json", larger)
    database.edit(STOP, "views_json", larger_there)
    database.set_order(STOP, "quantity", 2)
    found = database.found()
    assert {violation.rule for violation in found} == {"S6"}
    assert found[0].text == "stop orders still work 2 of it with 1 of AAPL  261218C00155000 open"


def test_member_of_a_group_that_the_broker_has_taken_down_works_for_what_is_left_of_it(database: Database) -> None:
    """Found by the simulation: the target had filled in part, and the audit counted the whole of the stop."""
    database.edit(STOP, "spec_json", larger)
    database.set_order(STOP, "quantity", 2)
    assert "S6" not in database.rules()
    database.set_order(STOP, "group_id", None)
    assert "S6" in database.rules()


def test_s6_leaves_out_what_is_unknown_what_has_just_changed_and_the_second_half_of_a_move(database: Database) -> None:
    database.edit(STOP, "spec_json", larger)
    database.edit(STOP, "views_json", larger_there)
    database.set_order(STOP, "quantity", 2)
    assert database.rules(now_us=START_US + 4_000_000) == []
    assert database.rules(now_us=START_US + 6_000_000) == ["S6"]
    database.set_order(STOP, "state", "UNKNOWN")
    assert database.rules() == []
    database.set_order(STOP, "state", "WORKING")
    database.set_order(STOP, "role", "target")
    database.run(
        "UPDATE external_identifiers SET role = 'target' WHERE external_identifier = ?", STOP.external_identifier
    )
    database.edit(STOP, "more_json", lambda more: more.update(replaces=TARGET.external_identifier))
    assert database.rules() == []


def test_bracket_that_only_looks_at_the_clock_is_judged_all_the_same(database: Database) -> None:
    database.edit(STOP, "spec_json", larger)
    database.edit(STOP, "views_json", larger_there)
    database.set_order(STOP, "quantity", 2)
    database.journal(WORKING, "EXITS_LIVE", "EXITS_LIVE", event="TimeReached", at_us=NOW_US)
    assert database.rules() == ["S6"]
    database.journal(WORKING, "EXITS_LIVE", "EXITS_LIVE", event="CancelRequested", at_us=NOW_US)
    assert database.rules() == []


def test_exit_without_the_strict_flag_violates_s7(database: Database) -> None:
    database.edit(TARGET, "spec_json", lambda spec: spec.update(strict=False))
    assert [violation.text for violation in database.found()] == [
        f"target {TARGET.external_identifier} was asked for without the strict flag"
    ]
    assert database.rules() == ["S7"]


@pytest.mark.parametrize("action", ["Sell to Open", "Buy to Open", "Sell to Close"])
def test_exit_that_does_not_close_violates_s7(database: Database, action: str) -> None:
    database.edit(STOP, "spec_json", lambda spec: spec["legs"][0].update(action=action))
    assert database.rules() == ["S7"]


def test_outright_future_is_closed_by_the_opposite_of_its_entry(database: Database) -> None:
    (text,) = database._connection.execute(
        "SELECT request_json FROM brackets WHERE bracket_id = ?", (PENDING.bracket_id,)
    ).fetchone()
    request = json.loads(text)
    request["rest"]["entry"]["legs"] = [{"symbol": "/ESZ6", "action": "Buy", "quantity": 1}]
    database.set_bracket(PENDING, "request_json", json.dumps(request))
    entry = PENDING.orders[0]
    database.edit(
        entry, "spec_json", lambda spec: spec.update(legs=[{"symbol": "/ESZ6", "action": "Sell", "quantity": 1}])
    )
    database.set_order(entry, "role", "stop")
    database.set_order(entry, "state", "ABSENT")
    assert "S7" not in {violation.rule for violation in database.found() if "does not close" in violation.text}
    database.edit(entry, "spec_json", lambda spec: spec["legs"][0].update(action="Buy"))
    assert "would Buy 1 /ESZ6, which does not close" in " ".join(violation.text for violation in database.found())


@pytest.mark.parametrize("state", ["WORKING", "UNKNOWN", "CANCEL_PENDING"])
def test_closed_with_an_order_that_is_not_over_violates_s8(database: Database, state: str) -> None:
    stop = closed_orders()[2]
    database.set_order(stop, "state", state)
    assert database.rules() == ["S8"]
    database.set_bracket(CLOSED, "outcome", "RELEASED")
    assert database.rules() == []


def test_closed_with_an_open_position_violates_s8(database: Database) -> None:
    target = closed_orders()[1]
    database.set_order(target, "role", "stop")
    database.run(
        "UPDATE external_identifiers SET role = 'stop' WHERE external_identifier = ?", target.external_identifier
    )
    assert [violation.text for violation in database.found()] == ["CLOSED as TARGET_FILLED without a fill of a target"]
    database.set_order(target, "views_json", "[]")
    database.run("DELETE FROM fills WHERE external_identifier = ?", target.external_identifier)
    texts = [violation.text for violation in database.found() if violation.rule == "S8"]
    assert "CLOSED as TARGET_FILLED with 1 of AAPL  261218C00155000 open by our fills" in texts


def test_closed_without_a_time_and_open_with_an_outcome_violate_s8(database: Database) -> None:
    database.set_bracket(CLOSED, "closed_at_us", None)
    database.set_bracket(WORKING, "outcome", "STOP_FILLED")
    found = database.found()
    assert {violation.bracket_id for violation in found if violation.rule == "S8"} == {
        CLOSED.bracket_id,
        WORKING.bracket_id,
    }


# S2, S10 to S12, S14, S15.


def test_two_orders_that_hold_one_broker_order_violate_s2_unless_they_are_one_move(database: Database) -> None:
    database.set_order(STOP, "broker_order_id", "71")
    assert database.rules() == ["S2", "record"]
    database.edit(STOP, "more_json", lambda more: more.update(replaces=TARGET.external_identifier))
    assert database.rules() == ["record"]


def test_terminal_order_with_a_live_broker_order_violates_s10(database: Database) -> None:
    database.set_order(STOP, "state", "CANCELLED")
    found = database.found()
    assert [(violation.rule, violation.bracket_id) for violation in found] == [("S10", WORKING.bracket_id)]
    assert "its broker order 72 Live" in found[0].text


def told(order: Order, status: str, fills: tuple[Fill, ...] = ()) -> str:
    """What the journal keeps of a report."""
    legs = [
        {"symbol": SHORT, "fills": [{"fill_id": fill.fill_id, "quantity": fill.quantity} for fill in fills]},
    ]
    report = {"broker_order_id": order.broker_order_id, "status": status, "legs": legs}
    return json.dumps([{"event": "OrderReported", "fields": {"report": report}}])


def test_terminal_status_that_was_told_and_forgotten_violates_s10(database: Database) -> None:
    database.journal(WORKING, "EXITS_LIVE", "EXITS_LIVE", payload_json=told(STOP, "Live"))
    assert database.rules() == []
    database.journal(WORKING, "EXITS_LIVE", "EXITS_LIVE", payload_json=told(STOP, "Cancelled"))
    assert [violation.text for violation in database.found()] == ["broker order 72 (stop) was Cancelled and is Live"]
    assert database.rules() == ["S10"]


def test_fill_that_was_told_and_is_not_stored_violates_s11(database: Database) -> None:
    lost = told(STOP, "Live", (Fill(FillId("f9"), 1, Decimal("0.55")),))
    database.journal(WORKING, "EXITS_LIVE", "EXITS_LIVE", payload_json=lost)
    assert database.rules() == ["S11"]


def test_used_identifier_without_an_order_violates_s11(database: Database) -> None:
    database.run("DELETE FROM orders WHERE external_identifier = ?", PENDING.orders[0].external_identifier)
    assert database.rules() == ["S11"]


@pytest.mark.parametrize("change_it", ["status = 'STAGED'", "role = 'stop'", f"bracket_id = '{WORKING.bracket_id}'"])
def test_order_whose_identifier_is_not_stored_as_its_own_violates_s12(database: Database, change_it: str) -> None:
    name = PENDING.orders[0].external_identifier
    database.run(f"UPDATE external_identifiers SET {change_it} WHERE external_identifier = ?", name)
    assert database.rules() == ["S12"]


def test_order_whose_identifier_was_never_stored_violates_s12(database: Database) -> None:
    database.run("DELETE FROM external_identifiers WHERE external_identifier = ?", STOP.external_identifier)
    assert database.rules() == ["S12"]


def test_foreign_order_held_as_ours_violates_s14_but_a_persons_edit_does_not(database: Database) -> None:
    database.edit(STOP, "views_json", lambda views: views[0].update(source="WB2;0.174.2"))
    assert database.rules() == ["S14"]
    database.edit(STOP, "views_json", lambda views: views[0].update(replaces="70"))
    assert database.rules() == []


@pytest.mark.parametrize(
    ("moves", "text"),
    [
        ([("EXITS_LIVE", "PENDING_ENTRY")], "no move that a bracket may make"),
        ([("EXITS_LIVE", "CLOSING"), ("CLOSING", "EXITS_LIVE")], "no move that a bracket may make"),
        ([("ENTRY_FILLED", "EXITS_LIVE")], "after EXITS_LIVE"),
        ([("EXITS_LIVE", "CLOSING")], "its history ends in CLOSING"),
        (
            [("EXITS_LIVE", "CLOSED"), ("CLOSED", "ENTRY_FILLED"), ("ENTRY_FILLED", "EXITS_LIVE")],
            "only ENTRY_NOT_FILLED",
        ),
    ],
)
def test_history_outside_the_table_violates_s15(database: Database, moves: list[tuple[str, str]], text: str) -> None:
    for from_state, to_state in moves:
        database.journal(WORKING, from_state, to_state)
    found = database.found()
    assert {violation.rule for violation in found} == {"S15"}
    assert any(text in violation.text for violation in found)


@pytest.mark.parametrize(
    "moves",
    [
        [("EXITS_LIVE", "ENTRY_FILLED"), ("ENTRY_FILLED", "EXITS_LIVE")],
        [("EXITS_LIVE", "CLOSING"), ("CLOSING", "ENTRY_FILLED"), ("ENTRY_FILLED", "EXITS_LIVE")],
        [("EXITS_LIVE", "EXITS_LIVE")],
    ],
)
def test_history_inside_the_table_is_clean(database: Database, moves: list[tuple[str, str]]) -> None:
    for from_state, to_state in moves:
        database.journal(WORKING, from_state, to_state)
    assert database.rules() == []


@pytest.mark.parametrize(("event", "rules"), [("EntryNotFilled", []), ("Released", ["S15"])])
def test_only_an_entry_not_filled_may_be_reopened(database: Database, event: str, rules: list[str]) -> None:
    database.run("DELETE FROM journal WHERE bracket_id = ?", WORKING.bracket_id)
    database.journal(WORKING, None, "PENDING_ENTRY")
    database.journal(WORKING, "PENDING_ENTRY", "CLOSED", event=event)
    database.journal(WORKING, "CLOSED", "ENTRY_FILLED", event="EntryFilledLate")
    database.journal(WORKING, "ENTRY_FILLED", "EXITS_LIVE")
    assert database.rules() == rules


def test_history_that_is_missing_or_begins_late_violates_s15(database: Database) -> None:
    database.run("DELETE FROM journal WHERE bracket_id = ?", PENDING.bracket_id)
    database.run("DELETE FROM journal WHERE bracket_id = ? AND from_state IS NULL", WORKING.bracket_id)
    texts = {violation.bracket_id: violation.text for violation in database.found()}
    assert texts[PENDING.bracket_id] == "it has no history"
    assert "its history begins EntryFilled: PENDING_ENTRY -> ENTRY_FILLED" in texts[WORKING.bracket_id]


# The database against itself.


def test_fills_and_views_that_differ_are_told(database: Database) -> None:
    name = ENTRY.external_identifier
    database.run("UPDATE fills SET price = '1.06' WHERE external_identifier = ? AND symbol = ?", name, SHORT)
    database.run("DELETE FROM fills WHERE external_identifier = ? AND symbol = ?", name, LONG)
    database.run("INSERT INTO fills VALUES (?, 'f9', ?, 1, '1', NULL)", name, SHORT)
    texts = [violation.text for violation in database.found()]
    assert len(texts) == 3
    assert any("1 at 1.06 in the table of fills, 1 at 1.05 in the order" in text for text in texts)
    assert any("is missing in the table of fills" in text for text in texts)
    assert any("fill f9 of AAPL  261218C00155000 is in the table of fills, not in" in text for text in texts)
    assert database.rules() == ["record"]


def test_net_prices_that_fills_do_not_make_are_told(database: Database) -> None:
    database.set_order(ENTRY, "net_fill_price", "-0.86")
    database.set_bracket(WORKING, "entry_net_price", None)
    database.set_bracket(CLOSED, "exit_net_price", "-0.40")
    texts = sorted(violation.text for violation in database.found())
    assert texts == [
        f"entry {ENTRY.external_identifier} is stored at a net price of -0.86, its fills make -0.85",
        "entry_net_price has no net price, its fills make -0.85",
        "exit_net_price is stored at a net price of -0.40, its fills make 0.40",
    ]


@pytest.mark.parametrize(
    ("column", "value"), [("filled_quantity", 0), ("quantity", 2), ("broker_order_id", None), ("broker_order_id", "1")]
)
def test_columns_that_the_record_does_not_bear_out_are_told(database: Database, column: str, value: object) -> None:
    database.set_order(ENTRY, column, value)
    assert database.rules() == ["record"]


def test_state_that_the_fills_do_not_bear_out_is_told(database: Database) -> None:
    database.set_bracket(WORKING, "state", "PENDING_ENTRY")
    assert "PENDING_ENTRY although an entry has filled" in [violation.text for violation in database.found()]


def test_bracket_without_its_accepted_row_is_told(database: Database) -> None:
    database.run("DELETE FROM accepted_rows WHERE bracket_id = ?", PENDING.bracket_id)
    database.run("UPDATE accepted_rows SET account = 'X' WHERE bracket_id = ?", WORKING.bracket_id)
    assert {violation.bracket_id for violation in database.found()} == {PENDING.bracket_id, WORKING.bracket_id}
    assert database.rules() == ["record"]


# Against the broker's record.


def at_broker(bracket: Bracket, order: Order, **changes: Any) -> BrokerOrder:
    """The order as the broker shows it, in agreement with our record unless changed."""
    (view,) = order.views
    legs = tuple(
        BrokerLeg(
            leg.symbol,
            next(asked.action.value for asked in order.spec.legs if asked.symbol == leg.symbol),
            leg.quantity,
            leg.filled_by_fills,
            tuple(fill.fill_id for fill in leg.fills),
        )
        for leg in view.legs
    )
    shown = BrokerOrder(
        account=bracket.account,
        broker_order_id=view.broker_order_id,
        external_identifier=order.external_identifier,
        source="otocod/test",
        status=view.status_text,
        is_terminal=view.status.is_terminal,
        legs=legs,
    )
    return replace(shown, **changes)


def listing() -> list[BrokerOrder]:
    ended = changes_of_life(1)[-1].after
    return [
        *(at_broker(ended, order) for order in ended.orders if order.views),
        *(at_broker(WORKING, order) for order in WORKING.orders),
        BrokerOrder("5WT00001", "900", None, "WB2;0.174.2", "Live", False, legs=(BrokerLeg("AAPL", "Buy", 1, 0),)),
    ]


def in_listing(order: Order, **changes: Any) -> list[BrokerOrder]:
    """The sound listing with one order changed."""
    return [
        replace(each, **changes) if each.external_identifier == order.external_identifier else each
        for each in listing()
    ]


POSITIONS: dict[str, dict[str, int]] = {ACCOUNT: {"AAPL": 100}, OTHER_ACCOUNT: {SHORT: -1, LONG: 1}}


def against(path: Path, orders: list[BrokerOrder], now_us: int = NOW_US) -> list[Violation]:
    report = audit(path, orders, POSITIONS, now_us=now_us)
    assert report.broker_asked
    assert report.checked["broker orders"] == len(orders)
    return list(report.violations)


def rules_against(path: Path, orders: list[BrokerOrder], now_us: int = NOW_US) -> list[str]:
    return sorted({violation.rule for violation in against(path, orders, now_us)})


def test_sound_record_of_the_broker_is_clean(sound: Path) -> None:
    assert against(sound, listing()) == []
    # What a shorter listing does not hold is not judged by it.
    assert against(sound, []) == []


def test_broker_order_reads_the_daemons_plain_form() -> None:
    order = at_broker(WORKING, ENTRY)
    plain = {name: getattr(order, name) for name in order.__slots__}
    plain["legs"] = [{name: getattr(leg, name) for name in leg.__slots__} for leg in order.legs]
    assert broker_order_from_json(json.loads(json.dumps(plain))) == order


def stray(**changes: Any) -> BrokerOrder:
    return replace(BrokerOrder("5WT00001", "901", "never-made", "otocod/1.0", "Live", False), **changes)


def test_working_order_of_ours_that_is_not_in_the_database_violates_s1(sound: Path) -> None:
    (found,) = against(sound, [*listing(), stray()])
    assert (found.rule, found.bracket_id) == ("S1", None)
    assert found.text == (
        "broker order 901 (Live, account 5WT00001) has source otocod/1.0 and identifier never-made, which is not in"
        " state.db"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"is_terminal": True, "status": "Cancelled"},
        {"source": "somebody else"},
        {"source": None},
        {"external_identifier": PENDING.orders[0].external_identifier},
        {"external_identifier": None, "replaces": "71", "account": OTHER_ACCOUNT},
    ],
)
def test_orders_that_are_over_foreign_known_or_of_a_known_chain_do_not_violate_s1(
    sound: Path, changes: dict[str, Any]
) -> None:
    assert "S1" not in rules_against(sound, [*listing(), stray(**changes)])


def test_identifier_in_another_account_than_its_bracket_violates_s1(sound: Path) -> None:
    order = stray(external_identifier=PENDING.orders[0].external_identifier, account=OTHER_ACCOUNT)
    assert "S1" in rules_against(sound, [*listing(), order])


def test_identifier_that_is_twice_at_the_broker_violates_s2(sound: Path) -> None:
    again = at_broker(WORKING, STOP, broker_order_id="73", status="Cancelled", is_terminal=True)
    (found,) = against(sound, [*listing(), again])
    assert (found.rule, found.bracket_id) == ("S2", WORKING.bracket_id)
    assert found.text == f"identifier {STOP.external_identifier} is at the broker 2 times: 72 Live, 73 Cancelled"


def test_chain_of_replacements_counts_as_one_for_s2(sound: Path) -> None:
    orders = in_listing(STOP, status="Cancelled", is_terminal=True, replaced_by="74")
    # The order between them, 73, is not in the listing.
    orders.append(at_broker(WORKING, STOP, broker_order_id="74", replaces="72"))
    assert rules_against(sound, orders) == []


def test_exit_fills_that_only_the_broker_knows_violate_s5(sound: Path) -> None:
    ended = {TARGET.external_identifier, STOP.external_identifier}
    orders = [
        replace(each, status="Filled", is_terminal=True) if each.external_identifier in ended else each
        for each in listing()
    ]
    found = against(sound, orders)
    assert {violation.rule for violation in found} == {"S5"}
    assert "exits have filled 2 of AAPL  261218C00155000, entries 1; by ours 0 and 1" in found[0].text


def test_exit_larger_at_the_broker_than_what_is_open_violates_s6(sound: Path) -> None:
    legs = tuple(replace(leg, quantity=3) for leg in at_broker(WORKING, STOP).legs)
    found = against(sound, in_listing(STOP, legs=legs))
    assert {violation.rule for violation in found} == {"S6"}
    assert found[0].text == "at the broker stop orders still work 3 of AAPL  261218C00155000 with 1 open"


def test_exit_that_opens_at_the_broker_violates_s7(sound: Path) -> None:
    legs = tuple(replace(leg, action="Buy to Open") for leg in at_broker(WORKING, STOP).legs)
    assert rules_against(sound, in_listing(STOP, legs=legs)) == ["S7"]


def test_fill_that_the_broker_does_not_have_violates_s9(sound: Path) -> None:
    legs = tuple(replace(leg, fill_ids=("other",)) for leg in at_broker(WORKING, ENTRY).legs)
    found = against(sound, in_listing(ENTRY, legs=legs))
    assert {violation.rule for violation in found} == {"S9"}
    assert "fill 1:AAPL  261218C00155000 (1 of AAPL  261218C00155000 at 1.05) of entry" in found[0].text


def test_more_filled_by_our_record_than_by_the_brokers_violates_s9_once_it_has_settled(sound: Path) -> None:
    legs = tuple(replace(leg, filled=0) for leg in at_broker(WORKING, ENTRY).legs)
    orders = in_listing(ENTRY, legs=legs, status="Cancelled")
    assert rules_against(sound, orders) == ["S9"]
    assert rules_against(sound, orders, START_US + 4_000_000) == []


@pytest.mark.parametrize(("found", "rules"), [(-1, []), (-3, []), (0, ["S9"]), (1, ["S9"])])
def test_position_smaller_than_our_fills_violates_s9(sound: Path, found: int, rules: list[str]) -> None:
    positions: dict[str, dict[str, int]] = {OTHER_ACCOUNT: {SHORT: found, LONG: 1}}
    report = audit(sound, listing(), positions, now_us=NOW_US)
    assert sorted({violation.rule for violation in report.violations}) == rules


def test_position_that_a_person_was_told_of_is_no_violation(database: Database) -> None:
    positions: dict[str, dict[str, int]] = {OTHER_ACCOUNT: {}}
    assert audit(database.path, [], positions, now_us=NOW_US).violations
    database.set_bracket(WORKING, "is_held", 1)
    assert not audit(database.path, [], positions, now_us=NOW_US).violations


def test_order_that_is_over_here_and_not_at_the_broker_violates_s10(sound: Path) -> None:
    stop = closed_orders()[2]
    assert stop.state is OrderState.CANCELLED
    order = stray(external_identifier=stop.external_identifier)
    found = against(sound, [*listing(), order])
    assert [violation.text for violation in found if violation.rule == "S10"] == [
        f"stop {stop.external_identifier} is CANCELLED here, broker order 901 (Live, account 5WT00001) is not over"
    ]


def test_order_sent_with_an_identifier_that_was_dropped_violates_s12(database: Database) -> None:
    database.run(
        "UPDATE external_identifiers SET status = 'DROPPED' WHERE external_identifier = ?", STOP.external_identifier
    )
    found = [violation.text for violation in against(database.path, listing()) if "was sent with" in violation.text]
    assert found == [
        f"broker order 72 (Live, account {OTHER_ACCOUNT}) was sent with {STOP.external_identifier}, stored as DROPPED"
    ]


def test_order_of_ours_that_replaces_a_foreign_one_violates_s14(sound: Path) -> None:
    order = stray(broker_order_id="901", replaces="900", is_terminal=True, status="Cancelled")
    (found,) = against(sound, [*listing(), order])
    assert found.rule == "S14"
    assert "replaces broker order 900 (Live, account 5WT00001) with source WB2;0.174.2" in found.text


def test_foreign_order_that_our_record_holds_violates_s14(sound: Path) -> None:
    orders = in_listing(STOP, source="WB2;0.174.2", external_identifier=None)
    assert rules_against(sound, orders) == ["S14"]


def test_order_of_ours_edited_by_a_person_and_moved_again_is_still_ours(sound: Path) -> None:
    orders = in_listing(STOP, status="Cancelled", is_terminal=True, replaced_by="73")
    legs = at_broker(WORKING, STOP).legs
    orders += [
        BrokerOrder(OTHER_ACCOUNT, "73", None, "WB2;0.174.2", "Cancelled", True, "72", "74", legs),
        BrokerOrder(OTHER_ACCOUNT, "74", STOP.external_identifier, "otocod/test", "Live", False, "73", None, legs),
    ]
    assert rules_against(sound, orders) == []
