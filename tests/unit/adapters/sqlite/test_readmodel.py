import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from sqlite3 import Connection, OperationalError

import pytest

from otocod.adapters.sqlite.readmodel import (
    BracketAmbiguous,
    BracketNotFound,
    alarms,
    events,
    find_bracket,
    lately_closed,
    list_brackets,
    open_readonly,
    show_bracket,
    status_summary,
)
from otocod.adapters.sqlite.store import SqliteStore
from otocod.domain.brackets import BracketState, Outcome
from otocod.domain.ids import AccountNumber, BracketId
from otocod.domain.orders import OrderState
from otocod.ports.store import Alarm, Change
from tests.support.state_file import fresh_state
from tests.support.stored_records import START_US, accepted, change, changes_of_life, entry_filled, life


def commit(path: Path, *changes: Change) -> None:
    async def run() -> None:
        store = await SqliteStore.open(path)
        try:
            await asyncio.gather(*(store.commit(each) for each in changes))
        finally:
            await store.close()

    asyncio.run(run())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return fresh_state(tmp_path)


@pytest.fixture
def reader(path: Path) -> Iterator[Connection]:
    with closing(open_readonly(path)) as connection:
        yield connection


def test_show_has_the_shape_of_the_contract(path: Path, reader: Connection) -> None:
    commit(path, *changes_of_life())
    entry, target, stop = (order.external_identifier for order in life()[-1].orders)
    assert show_bracket(reader, accepted().bracket_id) == {
        "bracket_id": accepted().bracket_id,
        "client_ref": "ref-1",
        "account": "5WT00001",
        "state": "CLOSED",
        "outcome": "TARGET_FILLED",
        "attention": None,
        "protection": "native-oco",
        "quantity": 1,
        "entry_net_price": "-0.85",
        "exit_net_price": "0.40",
        "unprotected_s": 0.004,
        "tags": {"desk": "vol", "note": "“quoted” \\ ünïcode"},
        "orders": [
            {
                "role": "entry",
                "external_identifier": entry,
                "broker_order_id": "9007199254740994",
                "status": "Filled",
                "quantity": 1,
                "filled_quantity": 1,
                "net_fill_price": "-0.85",
            },
            {
                "role": "target",
                "external_identifier": target,
                "broker_order_id": "9007199254740995",
                "status": "Filled",
                "quantity": 1,
                "filled_quantity": 1,
                "net_fill_price": "0.40",
            },
            {
                "role": "stop",
                "external_identifier": stop,
                "broker_order_id": None,
                "status": "CANCELLED",
                "quantity": 1,
                "filled_quantity": 0,
                "net_fill_price": None,
            },
        ],
        "history": [
            {"at": "2026-09-21T14:13:20.123457Z", "event": "BracketAccepted", "from": None, "to": "PENDING_ENTRY"},
            {
                "at": "2026-09-21T14:13:20.123458Z",
                "event": "EntryFilled",
                "from": "PENDING_ENTRY",
                "to": "ENTRY_FILLED",
            },
            {
                "at": "2026-09-21T14:13:20.123459Z",
                "event": "ProtectionConfirmed",
                "from": "ENTRY_FILLED",
                "to": "EXITS_LIVE",
            },
            {"at": "2026-09-21T14:13:20.123460Z", "event": "TargetFilled", "from": "EXITS_LIVE", "to": "CLOSED"},
        ],
    }


def test_history_leaves_out_what_changed_no_state_and_events_do_not(path: Path, reader: Connection) -> None:
    first = accepted()
    second = replace(first, attention="look", version=1)
    commit(path, change(None, first), change(first, second, journal=()))
    assert [row["event"] for row in show_bracket(reader, first.bracket_id)["history"]] == ["BracketAccepted"]
    rows = events(reader, first.bracket_id)
    assert [(row["seq"], row["event"]) for row in rows] == [(1, "BracketAccepted"), (2, "TimeReached")]
    assert rows[1]["payload"][0]["told"] == [{"event": "TimeReached", "fields": {}}]


def test_list_has_the_same_objects_without_orders_and_history(path: Path, reader: Connection) -> None:
    commit(path, *changes_of_life())
    shown = show_bracket(reader, accepted().bracket_id)
    assert list_brackets(reader) == [{key: shown[key] for key in shown if key not in ("orders", "history")}]


def test_list_filters_go_together_and_the_oldest_comes_first(path: Path, reader: Connection) -> None:
    other = replace(accepted(2), account=AccountNumber("5WT00002"), attention="look")
    commit(path, change(None, accepted(3)), *changes_of_life(1), change(None, other))

    def refs(**filters: object) -> list[str]:
        return [row["client_ref"] for row in list_brackets(reader, **filters)]  # type: ignore[arg-type]

    assert refs() == ["ref-1", "ref-2", "ref-3"]
    assert refs(open_only=True) == ["ref-2", "ref-3"]
    assert refs(state="CLOSED") == ["ref-1"]
    assert refs(account="5WT00002") == refs(attention=True) == ["ref-2"]
    assert refs(open_only=True, account="5WT00001") == ["ref-3"]
    assert refs(state="CLOSED", attention=True) == []


def test_a_running_unprotected_stretch_counts_up_to_now(path: Path, reader: Connection) -> None:
    first = accepted()
    running = replace(entry_filled(first), unprotected_us=1_000_000)
    commit(path, change(None, first), change(first, running))
    now_us = START_US + 5 + 2_500_000
    assert show_bracket(reader, first.bracket_id, now_us=now_us)["unprotected_s"] == 3.5
    assert list_brackets(reader, now_us=START_US - 9)[0]["unprotected_s"] == 1.0
    summary = status_summary(reader, now_us=now_us)
    assert (summary["longest_unprotected_s"], summary["longest_unprotected_bracket_id"]) == (3.5, first.bracket_id)


def test_orders_of_a_released_bracket_that_may_work_are_listed_as_handed_over(path: Path, reader: Connection) -> None:
    stages = life()
    released = replace(stages[2], state=BracketState.CLOSED, outcome=Outcome.RELEASED, version=3)
    commit(path, *changes_of_life()[:3], change(stages[2], released))
    orders = show_bracket(reader, released.bracket_id)["orders"]
    assert [order.get("handed_over") for order in orders] == [None, True, True]


def test_a_bracket_is_found_by_id_beginning_and_client_ref(path: Path, reader: Connection) -> None:
    ids = ["aa-1", "aa-1-2", "ab-3", "100%"]
    named = [replace(accepted(n), bracket_id=BracketId(name)) for n, name in enumerate(ids)]
    commit(path, *(change(None, bracket) for bracket in named))
    assert find_bracket(reader, "aa-1") == "aa-1"
    assert find_bracket(reader, "ab") == "ab-3"
    assert find_bracket(reader, "ref:ref-1") == "aa-1-2"
    with pytest.raises(BracketAmbiguous) as ambiguous:
        find_bracket(reader, "aa")
    assert ambiguous.value.candidates == ("aa-1", "aa-1-2")
    for nothing in ("", "zz", "%", "ref:", "ref:ref", "a_-3", "ref-1"):
        with pytest.raises(BracketNotFound):
            find_bracket(reader, nothing)


def test_events_are_read_on_from_a_number(path: Path, reader: Connection) -> None:
    commit(path, *changes_of_life(1), *changes_of_life(2))
    everything = events(reader)
    assert [row["seq"] for row in everything] == list(range(1, 9))
    assert events(reader, after_seq=3, limit=2) == everything[3:5]
    own = events(reader, accepted(2).bracket_id, after_seq=6)
    assert [row["bracket_id"] for row in own] == [accepted(2).bracket_id] * len(own)
    assert {"at", "from", "to", "detail"} <= set(own[0])


def test_the_summary_counts_states_unknown_outcomes_and_attention(path: Path, reader: Connection) -> None:
    unknown = replace(accepted(2), attention="look")
    unknown = replace(unknown, orders=(replace(unknown.orders[0], state=OrderState.UNKNOWN),))
    commit(path, *changes_of_life(1), change(None, unknown), change(None, accepted(3)))
    assert status_summary(reader) == {
        "brackets": {"CLOSED": 1, "PENDING_ENTRY": 2},
        "unknown_outcomes": 1,
        "attention": 1,
        "longest_unprotected_s": 0.0,
        "longest_unprotected_bracket_id": None,
    }


def test_alarms_come_oldest_first(path: Path, reader: Connection) -> None:
    commit(path, Alarm(START_US, "one", "first"), Alarm(START_US, "two", "second", BracketId("b")))
    assert [(row["seq"], row["code"], row["bracket_id"]) for row in alarms(reader)] == [
        (1, "one", None),
        (2, "two", "b"),
    ]
    assert [row["text"] for row in alarms(reader, after_seq=1)] == ["second"]


def test_a_missing_bracket_is_an_error_that_names_it(reader: Connection) -> None:
    with pytest.raises(BracketNotFound, match="nothing"):
        show_bracket(reader, "nothing")


def test_the_connection_cannot_write(reader: Connection) -> None:
    with pytest.raises(OperationalError, match="readonly"):
        reader.execute("DELETE FROM alarms")


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_readonly(tmp_path / "state.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("SELECT bracket_id FROM brackets WHERE client_ref = 'a'", "uq_brackets_client_ref|sqlite_autoindex_brackets"),
        ("SELECT bracket_id FROM brackets WHERE bracket_id >= 'a' AND bracket_id < 'b'", "PRIMARY KEY"),
        ("SELECT * FROM brackets WHERE 1 AND state <> 'CLOSED' ORDER BY created_at_us, bracket_id", "ix_brackets_open"),
        ("SELECT * FROM brackets WHERE attention IS NOT NULL", "ix_brackets_attention"),
        (
            "SELECT * FROM brackets WHERE attention IS NULL AND state = 'CLOSED' ORDER BY created_at_us DESC LIMIT 9",
            "ix_brackets_created_at_us",
        ),
        ("SELECT * FROM orders WHERE bracket_id = 'a' ORDER BY position", "sqlite_autoindex_orders_2"),
        ("SELECT * FROM journal WHERE bracket_id = 'a' AND seq > 1 ORDER BY seq", "ix_journal_bracket_id"),
        ("SELECT * FROM journal WHERE seq > 1 ORDER BY seq", "INTEGER PRIMARY KEY"),
        ("SELECT count(*) FROM orders WHERE state = 'UNKNOWN'", "ix_orders_unknown"),
    ],
)
def test_each_query_uses_its_index(reader: Connection, query: str, index: str) -> None:
    plan = " ".join(row[3] for row in reader.execute(f"EXPLAIN QUERY PLAN {query}"))
    assert any(name in plan for name in index.split("|"))
    assert "TEMP B-TREE" not in plan


def test_reading_needs_none_of_the_daemons_packages() -> None:
    code = (
        "import sys, json, otocod.adapters.sqlite.readmodel, otocod.adapters.sqlite.check;"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    heavy = {"sqlalchemy", "aiosqlite", "alembic", "msgspec", "pydantic", "asyncio", "aiohttp"}
    assert heavy & set(json.loads(answer.stdout)) == set()


def test_lately_closed_brackets_are_the_newest_and_first_those_to_be_looked_at(path: Path, reader: Connection) -> None:
    for number in (1, 2, 3):
        commit(path, *changes_of_life(number))
    last = life(1)[-1]
    commit(path, change(last, replace(last, attention="look", version=last.version + 1)), change(None, accepted(4)))
    found = lately_closed(reader, limit=2)
    assert [each["client_ref"] for each in found] == ["ref-1", "ref-3"]
    assert found[0]["closed_at"].endswith("Z")
    assert len(lately_closed(reader, limit=20)) == 3
