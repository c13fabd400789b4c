"""What only the store on a real file can do: group commits, and failures of the file."""

import asyncio
import resource
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Select, event
from sqlalchemy.dialects import sqlite

from otocod.adapters.sqlite import engine as engine_module
from otocod.adapters.sqlite import readmodel
from otocod.adapters.sqlite import store as store_module
from otocod.adapters.sqlite.check import NotFit, stored_epoch
from otocod.adapters.sqlite.codec import to_json
from otocod.adapters.sqlite.engine import ChangeRejected, DiskFailed, FailureKind, kind_of_failure
from otocod.adapters.sqlite.store import SqliteStore
from otocod.domain.ids import BracketId, BrokerOrderId, RequestId
from otocod.domain.orders import BrokerStatus, OrderReport
from otocod.ports.store import AcceptedRow, Alarm, Setting
from tests.support.state_file import fresh_state
from tests.support.stored_records import accepted, change, changes_of_life, entry_filled, life


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return fresh_state(tmp_path)


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(path)
    try:
        yield opened
    finally:
        await opened.close()


async def count_commits(store: SqliteStore) -> list[str]:
    """Every COMMIT of the writing connection from here on."""
    seen: list[str] = []

    def note(statement: str) -> None:
        if statement == "COMMIT":
            seen.append(statement)

    await store._driver.run(lambda connection: connection.set_trace_callback(note))
    return seen


async def test_changes_that_wait_go_together_in_one_transaction(store: SqliteStore) -> None:
    commits = await count_commits(store)
    await asyncio.gather(*(store.commit(change(None, accepted(n))) for n in range(50)))
    assert len(commits) == 1


async def test_a_commit_is_on_the_main_pragmas(store: SqliteStore) -> None:
    def pragmas(connection: sqlite3.Connection) -> dict[str, object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "wal_autocheckpoint", "trusted_schema")
        return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    assert await store._driver.run(pragmas) == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 5000,
        "wal_autocheckpoint": 0,
        "trusted_schema": 0,
    }


async def test_a_transaction_begins_immediate(store: SqliteStore, path: Path) -> None:
    def look(connection: sqlite3.Connection) -> bool:
        """In the middle of a transaction that has written nothing yet."""
        assert connection.in_transaction
        with (
            closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("BEGIN IMMEDIATE")
        return True

    async with store._connection.begin():
        assert await store._driver.run(look)
    assert await store._driver.run(store_module._in_transaction, look)


async def test_a_transaction_that_fails_is_rolled_back_and_the_next_one_begins(store: SqliteStore) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO settings (name, value) VALUES ('half', 'done')")
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        await store._driver.run(store_module._in_transaction, fail)
    await store.commit(Setting("next", "yes"))
    assert await store.settings() == {"next": "yes"}


async def test_keys_asked_for_in_one_moment_are_one_query(store: SqliteStore) -> None:
    await asyncio.gather(*(store.commit(change(None, accepted(n))) for n in range(3)))
    queries: list[str] = []

    def note(*arguments: Any) -> None:
        if "client_ref" in arguments[2]:
            queries.append(arguments[2])

    event.listen(store._reader.sync_engine, "before_cursor_execute", note)
    found = await asyncio.gather(*(store.bracket_of_ref(f"ref-{n}") for n in (0, 1, 2, 7, 1)))
    assert [None if each is None else each[0] for each in found] == [
        accepted(0).bracket_id,
        accepted(1).bracket_id,
        accepted(2).bracket_id,
        None,
        accepted(1).bracket_id,
    ]
    assert len(queries) == 1


async def test_a_change_that_nobody_waits_for_is_written_a_moment_later_and_never_after_one_that_is(
    store: SqliteStore,
) -> None:
    commits = await count_commits(store)
    first, *later = changes_of_life()
    await store.commit(first)
    beside = store.commit(replace(later[0], is_awaited=False))
    assert not beside.done()
    await store.commit(later[1])
    assert beside.done()
    assert len(commits) == 2
    await asyncio.wait_for(store.commit(replace(later[2], is_awaited=False)), 5)
    assert len(commits) == 3


async def test_one_bad_change_in_a_group_fails_alone_and_the_rest_is_one_commit(store: SqliteStore) -> None:
    commits = await count_commits(store)
    stolen = replace(accepted(3), client_ref="ref-1")
    futures = [store.commit(change(None, bracket)) for bracket in (accepted(1), accepted(2), stolen, accepted(4))]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), type(None), ChangeRejected, type(None)]
    assert "client_ref" in str(results[2])
    assert len(commits) == 1


async def test_a_change_that_cannot_be_encoded_fails_alone(store: SqliteStore) -> None:
    unencodable = replace(accepted(1), attention="lone \ud800 surrogate")
    results = await asyncio.gather(
        *(store.commit(change(None, bracket)) for bracket in (unencodable, accepted(2))), return_exceptions=True
    )
    assert isinstance(results[0], ChangeRejected)
    assert [bracket.client_ref for bracket in await store.load_open()] == ["ref-2"]


@pytest.mark.covers("F91")
async def test_a_foreign_lock_fails_the_group_after_a_bounded_wait_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pragmas = tuple((name, "1" if name == "busy_timeout" else value) for name, value in engine_module.WRITER_PRAGMAS)
    monkeypatch.setattr(engine_module, "WRITER_PRAGMAS", pragmas)
    store = await SqliteStore.open(path)
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as intruder:
            intruder.execute("BEGIN IMMEDIATE")
            with pytest.raises(DiskFailed) as failed:
                await store.commit(Setting("a", "1"))
            assert failed.value.kind is FailureKind.BUSY
            intruder.execute("ROLLBACK")
        await store.commit(Setting("a", "2"))
        assert await store.settings() == {"a": "2"}
    finally:
        await store.close()


async def limit_pages(store: SqliteStore, pages: int) -> None:
    await store._driver.run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchall())


@pytest.mark.covers("F92")
async def test_a_full_disk_fails_the_group_frees_the_reserve_and_later_commits_succeed(
    store: SqliteStore, path: Path
) -> None:
    assert path.with_name("state.db-reserve").exists()
    await limit_pages(store, 1)
    futures = [store.commit(Alarm(1, "code", "x" * 10_000)), store.commit(change(None, accepted()))]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [getattr(result, "kind", None) for result in results] == [FailureKind.FULL] * 2
    assert not path.with_name("state.db-reserve").exists()
    assert (store.failure, store.has_reserve) == (None, False)
    await limit_pages(store, 1_000_000)
    await store.commit(change(None, accepted()))
    assert await store.load_open() == (accepted(),)
    assert await store.restore_reserve()


@pytest.mark.covers("F92")
async def test_on_the_freed_reserve_brackets_go_on_and_new_ones_wait_for_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    store = await SqliteStore.open(path, on_disk_full=lambda: told.append("full"))
    first, second, third = accepted(1), accepted(2), entry_filled(accepted(1))
    try:
        await store.commit(change(None, first))
        fail_once(monkeypatch, sqlite3.SQLITE_FULL)
        monkeypatch.setattr(store_module, "make_reserve", lambda _path: False)
        results = await asyncio.gather(
            store.commit(change(None, second)), store.commit(change(first, third)), return_exceptions=True
        )
        assert (getattr(results[0], "kind", None), results[1], told) == (FailureKind.FULL, None, ["full"])
        with pytest.raises(DiskFailed):
            await store.commit(change(None, second))
        assert not path.with_name("state.db-reserve").exists()
        monkeypatch.setattr(store_module, "make_reserve", lambda _path: True)
        await store.commit(change(None, second))
        assert await store.load_open() == (third, second)
        assert store.has_reserve
    finally:
        await store.close()


def fail_once(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    real, calls = store_module._run_fenced, iter(range(1000))
    error = sqlite3.OperationalError("played")
    error.sqlite_errorcode = code

    def fail_first(connection: sqlite3.Connection, epoch: int, rows: Any) -> None:
        if next(calls) == 0:
            raise error
        real(connection, epoch, rows)

    monkeypatch.setattr(store_module, "_run_fenced", fail_first)


@pytest.mark.covers("F93")
async def test_after_an_io_error_nothing_is_taken_any_more_even_when_the_disk_recovers(
    store: SqliteStore, path: Path
) -> None:
    await store.commit(change(None, accepted(1)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file that may not grow: write() fails in the kernel, with an error that SQLite cannot tell from a bad disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name("state.db-wal").stat().st_size, hard))
    try:
        futures = [store.commit(change(None, accepted(n))) for n in (2, 3)]
        results = await asyncio.gather(*futures, return_exceptions=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [getattr(result, "kind", None) for result in results] == [FailureKind.IO] * 2
    assert all(getattr(result, "is_final", False) for result in results)
    assert store.failure is FailureKind.IO
    with pytest.raises(DiskFailed):
        await store.commit(Setting("later", "1"))
    assert [bracket.client_ref for bracket in await store.load_open()] == ["ref-1"]


@pytest.mark.covers("F93")
async def test_a_failed_sync_of_a_checkpoint_is_not_overlooked(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed_sync = sqlite3.OperationalError("disk I/O error")
    failed_sync.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC

    def fail(_connection: sqlite3.Connection) -> None:
        raise failed_sync

    monkeypatch.setattr(store_module, "_checkpoint", fail)
    monkeypatch.setattr(store_module, "CHECKPOINT_ROWS_BUSY", 1)
    await store.commit(Setting("a", "1"))
    with pytest.raises(DiskFailed, match="io"):
        await store.commit(Setting("b", "1"))


@pytest.mark.covers("F93", "F94")
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, FailureKind.FULL),
        (sqlite3.SQLITE_IOERR_SHMSIZE, FailureKind.FULL),
        (sqlite3.SQLITE_IOERR_FSYNC, FailureKind.IO),
        (sqlite3.SQLITE_IOERR_WRITE, FailureKind.IO),
        (sqlite3.SQLITE_READONLY, FailureKind.IO),
        (sqlite3.SQLITE_CORRUPT_INDEX, FailureKind.CORRUPT),
        (sqlite3.SQLITE_NOTADB, FailureKind.CORRUPT),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, FailureKind.BUSY),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, None),
    ],
)
def test_codes_of_the_driver_are_told_apart(code: int, kind: FailureKind | None) -> None:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code
    assert kind_of_failure(error) is kind


def damage_all_but_the_first_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))


@pytest.mark.covers("F94")
async def test_a_damaged_page_is_reported_as_corrupt(path: Path) -> None:
    store = await SqliteStore.open(path)
    await asyncio.gather(*(store.commit(change(None, accepted(n))) for n in range(50)))
    await store.close()
    damage_all_but_the_first_page(path)
    with pytest.raises(DiskFailed) as failed:
        await SqliteStore.open(path)
    assert failed.value.kind is FailureKind.CORRUPT


@pytest.mark.covers("F97")
async def test_a_state_whose_wal_was_lost_is_not_opened(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    await store.commit(change(None, accepted()))
    for name, kept in (("whole", ("", "-wal", "-mark")), ("lost", ("", "-mark"))):
        directory = tmp_path / name
        directory.mkdir(mode=0o750)
        for suffix in kept:
            (directory / f"state.db{suffix}").write_bytes(path.with_name(f"state.db{suffix}").read_bytes())
    with pytest.raises(NotFit, match="older than it has been"):
        await SqliteStore.open(tmp_path / "lost" / "state.db")
    survivor = await SqliteStore.open(tmp_path / "whole" / "state.db")
    try:
        assert await survivor.load_open() == (accepted(),)
    finally:
        await survivor.close()


@pytest.mark.covers("F97")
async def test_a_lost_wal_is_missed_after_a_checkpoint_too(
    store: SqliteStore, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CHECKPOINT_ROWS_BUSY", 1)
    await store.commit(Setting("a", "1"))
    monkeypatch.setattr(store_module, "CHECKPOINT_ROWS_BUSY", 1000)
    # Committed after the checkpoint that followed the first.
    await store.commit(Setting("a", "2"))
    directory = tmp_path / "lost"
    directory.mkdir(mode=0o750)
    for suffix in ("", "-mark"):
        (directory / f"state.db{suffix}").write_bytes(path.with_name(f"state.db{suffix}").read_bytes())
    with pytest.raises(NotFit, match="older than it has been"):
        await SqliteStore.open(directory / "state.db")


@pytest.mark.covers("F99")
async def test_a_store_that_another_has_opened_since_writes_nothing_more(store: SqliteStore, path: Path) -> None:
    second = await SqliteStore.open(path)
    try:
        with pytest.raises(DiskFailed) as failed:
            await store.commit(change(None, accepted()))
        assert failed.value.kind is FailureKind.FENCED
        assert await second.load_open() == ()
        await second.commit(change(None, accepted()))
    finally:
        await second.close()


@pytest.mark.covers("F98")
async def test_a_reader_cannot_checkpoint(store: SqliteStore, path: Path) -> None:
    await store.commit(change(None, accepted()))
    with closing(readmodel.open_readonly(path)) as reader, pytest.raises(sqlite3.OperationalError):
        reader.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.mark.covers("F104")
async def test_large_numbers_and_long_ids_are_kept_exactly(store: SqliteStore, path: Path) -> None:
    bracket = replace(accepted(), created_at_us=2**63 - 1)
    report = OrderReport(BrokerOrderId("9007199254740993"), BrokerStatus.LIVE, "Live")
    bracket = replace(bracket, orders=(bracket.orders[0].learn(report),))
    row = AcceptedRow(RequestId(2**63 - 1), bracket.client_ref, bracket.account, "{}")
    await store.commit(replace(change(None, bracket), row=row, at_us=2**53 + 1))
    assert await store.load_open() == (bracket,)
    with closing(readmodel.open_readonly(path)) as reader:
        shown = readmodel.show_bracket(reader, bracket.bracket_id)
        assert shown["orders"][0]["broker_order_id"] == "9007199254740993"
        assert reader.execute("SELECT request_id FROM accepted_rows").fetchone()[0] == 2**63 - 1


@pytest.mark.covers("F104")
async def test_a_number_beyond_64_bits_is_refused_alone(store: SqliteStore) -> None:
    results = await asyncio.gather(
        store.commit(Alarm(2**63, "code", "text")), store.commit(Setting("a", "1")), return_exceptions=True
    )
    assert isinstance(results[0], ChangeRejected)
    assert await store.settings() == {"a": "1"}


@pytest.mark.covers("F116")
async def test_sql_in_every_text_is_only_text(store: SqliteStore, path: Path) -> None:
    evil = "'); DROP TABLE orders; --\x00\" %s ? :a"
    bracket = replace(accepted(), client_ref=evil, attention=evil, bracket_id=BracketId(f"b{evil}"))
    await store.commit(change(None, bracket))
    await store.commit(Alarm(1, evil, evil, BracketId(evil)))
    await store.commit(Setting(evil, evil))
    assert await store.load_open() == (bracket,)
    assert (await store.bracket_of_ref(evil) or [None])[0] == bracket.bracket_id
    assert await store.settings() == {evil: evil}
    with closing(readmodel.open_readonly(path)) as reader:
        assert readmodel.find_bracket(reader, f"ref:{evil}") == bracket.bracket_id
        assert readmodel.list_brackets(reader, account=evil, state=evil) == []


async def test_the_journal_and_the_ids_cannot_be_changed_or_deleted(store: SqliteStore, path: Path) -> None:
    for step in changes_of_life():
        await store.commit(step)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in (
            "UPDATE journal SET event = 'x'",
            "DELETE FROM journal",
            "DELETE FROM external_identifiers",
            "UPDATE external_identifiers SET status = 'STAGED' WHERE status = 'DROPPED'",
            "UPDATE external_identifiers SET status = 'DROPPED' WHERE status = 'USED'",
            "DELETE FROM fills",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(statement)


async def test_every_accepted_row_is_copied_and_every_fill_has_a_row(store: SqliteStore, path: Path) -> None:
    for step in changes_of_life():
        await store.commit(step)
    with closing(readmodel.open_readonly(path)) as reader:
        row = reader.execute("SELECT request_id, client_ref, account, request FROM accepted_rows").fetchone()
        assert tuple(row) == (7, "ref-1", "5WT00001", '{"n":1}')
        fills = reader.execute("SELECT symbol, quantity, price FROM fills ORDER BY fill_id").fetchall()
    assert [row[2] for row in fills] == ["1.05", "0.2", "0.55", "0.15"]


def threads_left(before: set[threading.Thread]) -> list[threading.Thread]:
    """New threads that do not end, those of the loop's own executor excepted."""
    new = [thread for thread in set(threading.enumerate()) - before if "asyncio_" not in thread.name]
    for thread in new:
        thread.join(timeout=5)
    return [thread for thread in new if thread.is_alive()]


async def test_a_clean_close_leaves_one_file_and_no_thread(path: Path) -> None:
    before = set(threading.enumerate())
    store = await SqliteStore.open(path)
    await store.commit(change(None, accepted()))
    await store.close()
    assert threads_left(before) == []
    assert not path.with_name("state.db-wal").exists()
    assert stored_epoch(path) == 1


async def test_a_writer_that_is_cancelled_against_the_rules_fails_what_waits_and_lets_go(path: Path) -> None:
    before = set(threading.enumerate())
    store = await SqliteStore.open(path)
    future = store.commit(change(None, accepted()))
    assert store._task is not None
    store._task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await store.close()
    assert isinstance(future.exception(), DiskFailed)
    assert threads_left(before) == []


async def test_a_store_opened_again_knows_everything(path: Path) -> None:
    store = await SqliteStore.open(path)
    for step in changes_of_life(1)[:3]:
        await store.commit(step)
    await store.close()
    again = await SqliteStore.open(path)
    try:
        loaded = await again.load_open()
        assert loaded == (life(1)[2],)
        await again.commit(change(loaded[0], life(1)[3]))
        assert await again.load_open() == ()
    finally:
        await again.close()


def plan(connection: sqlite3.Connection, statement: Select[Any]) -> str:
    compiled = statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    return "\n".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {compiled}"))


@pytest.mark.parametrize(
    ("statement", "indexes"),
    [
        (store_module.OPEN_BRACKETS, ["ix_brackets_open"]),
        # The second index of orders that SQLite made by itself: UNIQUE (bracket_id, position).
        (store_module.OPEN_ORDERS, ["ix_brackets_open", "sqlite_autoindex_orders_2"]),
        (store_module.OPEN_UNUSED, ["ix_brackets_open", "ix_external_identifiers_unused"]),
    ],
)
def test_hot_queries_use_their_indexes(path: Path, statement: Select[Any], indexes: list[str]) -> None:
    with closing(readmodel.open_readonly(path)) as reader:
        shown = plan(reader, statement)
    assert "SCAN orders" not in shown
    assert "SCAN external_identifiers" not in shown
    for index in indexes:
        assert index in shown


async def test_what_is_equal_in_loaded_brackets_is_held_once_and_stays_what_it_was(store: SqliteStore) -> None:
    lives = [changes_of_life(number)[:3] for number in (1, 2)]
    for each in (*lives[0], *lives[1]):
        await store.commit(each)
    first, second = await store.load_open()
    assert (first, second) == (lives[0][-1].after, lives[1][-1].after)
    assert [to_json(order) for order in first.orders] == [to_json(order) for order in lives[0][-1].after.orders]
    held = [*first.request.entry.legs]
    for order in first.orders:
        held += order.spec.legs
        held += [leg for view in order.views for leg in view.legs]  # type: ignore[misc]
    assert len({id(leg.symbol) for leg in held}) == len({leg.symbol for leg in held}) < len(held)
    prices = [order.spec.net_price for bracket in (first, second) for order in bracket.orders]
    assert len({id(price) for price in prices}) == len({str(price) for price in prices}) < len(prices)
    assert first.policy is second.policy
