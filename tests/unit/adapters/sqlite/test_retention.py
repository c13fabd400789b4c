"""Journals of brackets that closed long ago: in the archive first, then out of state.db, and found all the same."""

import asyncio
import multiprocessing
import os
import signal
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from otocod.adapters.sqlite import archive, readmodel
from otocod.adapters.sqlite.archive import ArchiveFailed, digest_of, rows_in
from otocod.adapters.sqlite.readmodel import open_readonly
from otocod.adapters.sqlite.retention import Pruned, archive_journals, months_before_us
from otocod.adapters.sqlite.store import SqliteStore
from otocod.audit import audit_database
from otocod.ports.store import Change, JournalArchived, StoreFailed
from tests.support.state_file import fresh_state
from tests.support.stored_records import START_US, accepted, change, changes_of_life

DAY_US = 86_400_000_000
NOW_US = START_US + 800 * DAY_US
NAME = "journal-2026.db"  # the year of START_US


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return fresh_state(tmp_path)


async def with_store(path: Path, *changes: Change) -> None:
    store = await SqliteStore.open(path)
    try:
        for each in changes:
            await store.commit(each)
    finally:
        await store.close()


async def prune(path: Path, closed_before_us: int = NOW_US) -> Pruned:
    store = await SqliteStore.open(path)
    try:
        return await archive_journals(store, path, closed_before_us=closed_before_us, now_us=NOW_US)
    finally:
        await store.close()


def looked_at(path: Path, look: Callable[[sqlite3.Connection], Any]) -> Any:
    with closing(open_readonly(path)) as connection:
        return look(connection)


def everything(path: Path, bracket_id: str) -> Any:
    """What an operator is shown of a bracket, but for where its journal is."""

    def look(connection: sqlite3.Connection) -> Any:
        shown = readmodel.show_bracket(connection, bracket_id)
        shown.pop("archived", None)
        return shown, readmodel.events(connection, bracket_id), readmodel.recording(connection, bracket_id)

    return looked_at(path, look)


def journal_of(path: Path, bracket_id: str) -> int:
    count = "SELECT count(*) FROM journal WHERE bracket_id = ?"
    return int(looked_at(path, lambda connection: connection.execute(count, (bracket_id,)).fetchone()[0]))


async def test_journal_leaves_and_everything_else_of_the_bracket_stays(path: Path) -> None:
    await with_store(path, *changes_of_life(1), *changes_of_life(2)[:1])
    gone, stays = accepted(1).bracket_id, accepted(2).bracket_id
    before = everything(path, gone)
    tables = ("brackets", "orders", "external_identifiers", "fills", "accepted_rows")

    def rest(connection: sqlite3.Connection) -> Any:
        return [list(map(tuple, connection.execute(f"SELECT * FROM {table}"))) for table in tables]  # noqa: S608

    kept = looked_at(path, rest)
    assert await prune(path) == Pruned(1, 4, (NAME,))
    assert (journal_of(path, gone), journal_of(path, stays)) == (0, 1)
    assert looked_at(path, rest) == kept
    assert everything(path, gone) == before
    assert list(audit_database(path)) == []
    assert looked_at(path, lambda connection: list(archive.problems(connection))) == []


async def test_archive_and_its_directory_are_closed_to_others(path: Path) -> None:
    await with_store(path, *changes_of_life())
    before = os.umask(0)
    try:
        await prune(path)
    finally:
        os.umask(before)
    file = path.parent / "archive" / NAME
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o750
    assert sorted(each.name for each in file.parent.iterdir()) == [NAME]


async def test_brackets_that_closed_later_that_are_open_or_that_need_a_look_stay(path: Path) -> None:
    last = changes_of_life(3)[-1]
    noticed = replace(last.after, attention="look", version=last.after.version + 1)
    await with_store(
        path, *changes_of_life(1), *changes_of_life(2)[:3], *changes_of_life(3), change(last.after, noticed)
    )
    assert await prune(path, closed_before_us=START_US) == Pruned(0, 0, ())
    assert (await prune(path)).brackets == 1
    assert journal_of(path, accepted(3).bracket_id) == 5


async def test_what_comes_after_the_archive_is_told_behind_it_and_follows_later(path: Path) -> None:
    await with_store(path, *changes_of_life())
    bracket = changes_of_life()[-1].after
    await prune(path)
    late = replace(bracket, unprotected_us=9, version=bracket.version + 1)
    await with_store(path, change(bracket, late, journal=()))
    seqs = [row["seq"] for row in looked_at(path, lambda c: readmodel.events(c, bracket.bracket_id))]
    assert seqs == [1, 2, 3, 4, 5]
    assert journal_of(path, bracket.bracket_id) == 1
    before = everything(path, bracket.bracket_id)
    assert await prune(path) == Pruned(1, 1, (NAME,))
    assert everything(path, bracket.bracket_id) == before
    assert looked_at(path, lambda connection: list(archive.problems(connection))) == []


async def test_pages_of_events_go_on_across_the_archive(path: Path) -> None:
    await with_store(path, *changes_of_life(1), *changes_of_life(2))
    first = accepted(1).bracket_id
    everything_of = looked_at(path, lambda c: readmodel.events(c, first))
    await prune(path)
    with closing(open_readonly(path)) as connection:
        pages = readmodel.events(connection, first, limit=3)
        pages += readmodel.events(connection, first, after_seq=pages[-1]["seq"], limit=3)
    assert pages == everything_of


async def test_bracket_without_its_archive_is_shown_with_what_is_left_and_checked_as_missing(path: Path) -> None:
    await with_store(path, *changes_of_life())
    await prune(path)
    bracket_id = accepted().bracket_id
    (path.parent / "archive" / NAME).rename(path.parent / "elsewhere.db")
    shown = looked_at(path, lambda c: readmodel.show_bracket(c, bracket_id))
    assert shown["archived"] == {"file": str(path.parent / "archive" / NAME), "is_there": False}
    assert (shown["state"], shown["history"]) == ("CLOSED", [])
    (problem,) = looked_at(path, lambda c: list(archive.problems(c)))
    assert "is not there" in problem
    assert list(audit_database(path)) == [], "what cannot be judged is no violation"


async def test_archive_that_was_changed_is_found_by_its_check_and_nothing_more_is_put_into_it(path: Path) -> None:
    await with_store(path, *changes_of_life())
    await prune(path)
    file = path.parent / "archive" / NAME
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE journal SET detail = 'another story'")
        connection.commit()
    (problem,) = looked_at(path, lambda c: list(archive.problems(c)))
    assert "another journal of bracket" in problem


async def test_archive_with_another_row_of_that_number_is_no_copy_and_nothing_leaves(path: Path) -> None:
    await with_store(path, *changes_of_life())
    bracket_id = accepted().bracket_id
    with closing(open_readonly(path)) as state:
        archive.copy_journal(state, bracket_id, path.parent / "archive" / NAME)
    with closing(sqlite3.connect(path.parent / "archive" / NAME)) as connection:
        connection.execute("UPDATE journal SET detail = 'another story' WHERE seq = 2")
        connection.commit()
    with pytest.raises(ArchiveFailed, match="another row 2"):
        await prune(path)
    assert journal_of(path, bracket_id) == 4


async def test_nothing_is_copied_where_the_disk_is_nearly_full(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await with_store(path, *changes_of_life())
    real = os.statvfs

    def nearly_full(of: Any) -> Any:
        found = real(of)
        return os.statvfs_result((*found[:4], 1, *found[5:]))

    monkeypatch.setattr(os, "statvfs", nearly_full)
    with closing(open_readonly(path)) as state, pytest.raises(ArchiveFailed, match="make room"):
        archive.copy_journal(state, accepted().bracket_id, path.parent / "archive" / NAME)
    assert not (path.parent / "archive" / NAME).exists()


async def test_journal_that_is_in_no_archive_cannot_be_deleted(path: Path) -> None:
    await with_store(path, *changes_of_life(1), *changes_of_life(2))
    await prune(path)
    late = changes_of_life(1)[-1].after
    await with_store(path, change(late, replace(late, unprotected_us=9, version=late.version + 1), journal=()))
    with closing(sqlite3.connect(path)) as connection:
        for which in ("bracket_id IS NOT NULL", "seq = 9"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(f"DELETE FROM journal WHERE {which}")  # noqa: S608


async def test_change_that_would_delete_what_is_not_there_any_more_is_refused_whole(path: Path) -> None:
    await with_store(path, *changes_of_life())
    archived = JournalArchived(accepted().bracket_id, NAME, (1, 2, 99), 3, "digest", NOW_US)
    with pytest.raises(StoreFailed):
        await with_store(path, archived)
    assert journal_of(path, accepted().bracket_id) == 4
    assert looked_at(path, lambda c: c.execute("SELECT count(*) FROM archived_journals").fetchone()[0]) == 0


# Killed at each point between the copy and the end.


class _Killed(SqliteStore):
    """Ends its process at the moment when the archive is durable and state.db does not know of it yet."""

    def commit(self, change: Change) -> "asyncio.Future[None]":
        if isinstance(change, JournalArchived):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().commit(change)


def _prune_killed(path: Path) -> None:
    async def go() -> None:
        store = await _Killed.open(path)
        await archive_journals(store, path, closed_before_us=NOW_US, now_us=NOW_US)

    asyncio.run(go())


def test_killed_between_the_archive_and_the_deletion_nothing_is_lost_and_the_next_run_ends_it(path: Path) -> None:
    asyncio.run(with_store(path, *changes_of_life(1), *changes_of_life(2)))
    first = accepted(1).bracket_id
    before = everything(path, first)
    process = multiprocessing.get_context("spawn").Process(target=_prune_killed, args=(path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    names = (first, accepted(2).bracket_id)
    assert sum(len(rows_in(path.parent / "archive" / NAME, name)) for name in names) == 4, "one copy was durable"
    assert [journal_of(path, name) for name in names] == [4, 4], "and nothing had left yet"
    assert everything(path, first) == before
    assert asyncio.run(prune(path)) == Pruned(2, 8, (NAME,))
    assert everything(path, first) == before
    assert asyncio.run(prune(path)) == Pruned(0, 0, ())


async def test_older_backup_in_its_place_has_its_rows_archived_once_more_and_they_are_the_same(path: Path) -> None:
    from otocod.adapters.sqlite.check import backup

    await with_store(path, *changes_of_life())
    backup(path, path.parent / "backup.db")
    before = everything(path, accepted().bracket_id)
    await prune(path)
    for suffix in ("-wal", "-shm", ".mark"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    for mark in path.parent.glob("state.db?*"):
        mark.unlink()
    (path.parent / "backup.db").replace(path)
    assert await prune(path) == Pruned(1, 4, (NAME,))
    assert everything(path, accepted().bracket_id) == before


@pytest.mark.parametrize(
    ("now", "months", "then"),
    [
        ("2026-12-01T04:05:06", 1, "2026-11-01T04:05:06"),
        ("2026-12-01T04:05:06", 24, "2024-12-01T04:05:06"),
        ("2026-03-31T00:00:00", 1, "2026-02-28T00:00:00"),
        ("2028-03-30T00:00:00", 1, "2028-02-29T00:00:00"),
        ("2028-02-29T00:00:00", 12, "2027-02-28T00:00:00"),
    ],
)
def test_months_are_the_calendars(now: str, months: int, then: str) -> None:
    def us(text: str) -> int:
        return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000

    assert months_before_us(us(now), months) == us(then)


def test_digest_hangs_on_every_column_and_the_order() -> None:
    rows = [{"seq": 1, "bracket_id": "b", "at_us": 1, "event": "e", "from_state": None, "to_state": "t"}]
    full = [row | {"detail": "d", "payload_json": None} for row in rows]
    other = [full[0] | {"payload_json": "[]"}]
    assert len({digest_of(full), digest_of(other), digest_of(full + other), digest_of(other + full)}) == 4
