"""Everything that somebody who may write the queue directory can put there."""

import asyncio
import os
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from otocod.adapters.queue import landlock, schema
from otocod.adapters.queue.connection import FILE_MAX_BYTES, QueueConnection
from otocod.adapters.queue.file import QueueFile
from otocod.adapters.queue.rows import AnswerResult
from otocod.adapters.queue.worker import AlarmKind, QueueAlarm, Settings

from .conftest import PATIENCE_S, Bench, accepted, until

TRIGGER = "CREATE TRIGGER t AFTER UPDATE ON bracket_requests BEGIN DELETE FROM bracket_requests; END"

pytestmark = pytest.mark.skipif(not landlock.is_available(), reason="this kernel has no Landlock")


def make(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def make_symlink(path: Path) -> None:
    outside = path.parent.parent / "outside.db"
    make(outside, schema.DDL)
    path.symlink_to(outside)


def make_hard_link(path: Path) -> None:
    outside = path.parent.parent / "outside.db"
    make(outside, schema.DDL)
    path.hardlink_to(outside)


def make_oversized(path: Path) -> None:
    make(path, schema.DDL)
    os.truncate(path, FILE_MAX_BYTES + 1)


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "trigger": (lambda path: make(path, schema.DDL, TRIGGER), "'trigger' named 't'"),
    "view": (lambda path: make(path, schema.DDL, "CREATE VIEW v AS SELECT 1"), "'view' named 'v'"),
    "other table": (lambda path: make(path, "CREATE TABLE x (y)"), "has no table bracket_requests"),
    "view for table": (lambda path: make(path, "CREATE VIEW bracket_requests AS SELECT 1"), "has no table"),
    "lax table": (lambda path: make(path, schema.DDL.replace(" STRICT", "")), "not the published one"),
    "utf-16": (lambda path: make(path, "PRAGMA encoding='UTF-16le'", schema.DDL), "UTF-16le"),
    "wal": (lambda path: make(path, "PRAGMA journal_mode=WAL", schema.DDL), "WAL mode"),
    "text": (lambda path: path.write_bytes(b"hello" * 1000), "not an SQLite database"),
    "short": (lambda path: path.write_bytes(b"SQLite"), "not an SQLite database"),
    "symlink": (make_symlink, "a symbolic link"),
    "dangling": (lambda path: path.symlink_to("nowhere"), "a symbolic link"),
    "hard link": (make_hard_link, "2 links"),
    "fifo": (lambda path: os.mkfifo(path), "a FIFO"),
    "directory": (lambda path: path.mkdir(), "a directory"),
    "oversized": (make_oversized, "larger than"),
}


@pytest.mark.covers("F120", "F125")
@pytest.mark.parametrize("name", UNFIT)
async def test_an_unfit_file_is_moved_aside_and_a_new_one_works(bench: Bench, name: str) -> None:
    put, says = UNFIT[name]
    put(bench.path)
    outside = bench.path.parent.parent / "outside.db"
    content = outside.read_bytes() if outside.exists() else b""
    await bench.reader.start()
    alarm = await bench.alarm(AlarmKind.MOVED_ASIDE)
    assert says in alarm.text
    assert len([entry for entry in bench.aside() if not entry.endswith(("-wal", "-shm"))]) == 1
    await bench.works()
    if content:
        assert outside.read_bytes() == content
    assert bench.alarms.empty()


@pytest.mark.covers("F120", "F125")
@pytest.mark.parametrize("name", UNFIT)
async def test_a_file_that_becomes_unfit_while_it_is_read_is_replaced_too(bench: Bench, name: str) -> None:
    """The file in use is renamed away and the unfit one put in its place: to the reader one moment."""
    await bench.reader.start()
    await bench.works("before")
    unfit = bench.path.parent / "prepared" / "queue.db"
    unfit.parent.mkdir()
    UNFIT[name][0](unfit)
    if unfit.is_dir():
        bench.path.unlink()
    unfit.rename(bench.path)
    texts = [(await bench.alarm(AlarmKind.MOVED_ASIDE)).text]
    while UNFIT[name][1] not in texts[-1]:
        texts.append((await bench.alarm(AlarmKind.MOVED_ASIDE)).text)
    await bench.works("after")


@pytest.mark.covers("F120")
@pytest.mark.parametrize("statement", [TRIGGER, "CREATE VIEW v AS SELECT 1", "PRAGMA journal_mode=WAL"])
async def test_a_change_of_the_schema_or_journal_while_running_is_met_before_anything_runs(
    bench: Bench, statement: str
) -> None:
    await bench.reader.start()
    bench.insert("one")
    row = await bench.row()
    # The reader may move the file away under a producer that is still opening its write-ahead log.
    with suppress(sqlite3.OperationalError):
        bench.execute(statement)
    future = bench.reader.answer([accepted(row)])
    await bench.alarm(AlarmKind.MOVED_ASIDE)
    assert await asyncio.wait_for(future, PATIENCE_S) == (AnswerResult.GONE,)
    await bench.works("after")


async def test_a_vacuum_or_analyze_by_a_producer_keeps_the_file(bench: Bench) -> None:
    await bench.reader.start()
    await bench.works("one")
    bench.execute("ANALYZE")
    bench.execute("VACUUM")
    await bench.works("two")
    assert (bench.aside(), bench.alarms.empty()) == ([], True)


async def test_a_file_removed_while_running_is_made_again(bench: Bench) -> None:
    await bench.reader.start()
    await bench.works("one")
    bench.path.unlink()
    await bench.alarm(AlarmKind.MOVED_ASIDE)
    await bench.works("two")


async def test_rows_handed_over_from_a_lost_file_take_no_room_from_those_of_the_next(bench: Bench) -> None:
    await bench.new_reader(Settings(open_rows_max=2)).start()
    bench.insert("one")
    bench.insert("two")
    assert {(await bench.row()).client_ref for _ in range(2)} == {"one", "two"}
    bench.path.unlink()
    await bench.alarm(AlarmKind.MOVED_ASIDE)
    bench.execute("INSERT INTO bracket_requests (id, client_ref, account, request) VALUES (9, 'three', 'a', '{}')")
    assert (await bench.row()).client_ref == "three"


def put_fifo(path: Path) -> None:
    os.mkfifo(path)


def put_symlink(path: Path) -> None:
    path.symlink_to(path.parent.parent / "precious")


def put_hard_link(path: Path) -> None:
    path.hardlink_to(path.parent.parent / "precious")


@pytest.mark.covers("F125")
@pytest.mark.parametrize("put", [put_fifo, put_symlink, put_hard_link])
@pytest.mark.parametrize("suffix", ["-journal", "-wal"])
async def test_what_stands_in_the_place_of_a_journal_is_moved_aside_and_the_rows_stay(
    bench: Bench, put: Callable[[Path], None], suffix: str
) -> None:
    precious = bench.path.parent.parent / "precious"
    precious.write_bytes(b"\xd9\xd5\x05\xf9 kept" * 100)
    await bench.reader.start()
    bench.insert("one")
    await bench.row()
    stray = bench.path.with_name("queue.db" + suffix)
    while not bench.aside():
        # Put there in the instant between a check and SQLite's own open(), it is a journal that rolls nothing back:
        # SQLite removes that name without a word. So it is put again until a check has seen it.
        put(stray)
        await until(lambda: not os.path.lexists(stray))
    alarm = await bench.alarm(AlarmKind.MOVED_ASIDE)
    assert f"queue.db{suffix} moved aside" in alarm.text
    bench.insert("two")
    assert (await bench.row()).client_ref == "two"
    assert precious.read_bytes() == b"\xd9\xd5\x05\xf9 kept" * 100
    assert bench.rows.empty()


@pytest.mark.covers("F125")
@pytest.mark.parametrize("freed_by", ["watch", "stop"])
async def test_a_fifo_that_slips_in_after_the_check_does_not_hold_the_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, freed_by: str
) -> None:
    await bench.reader.start()
    await bench.works("one")
    blind = threading.Event()
    real = QueueFile._check_sidecars
    monkeypatch.setattr(QueueFile, "_check_sidecars", lambda file: None if blind.is_set() else real(file))
    blind.set()
    journal = bench.path.with_name("queue.db-journal")
    os.mkfifo(journal)
    assert bench.reader._worker is not None
    worker = bench.reader._worker
    # No turn takes a tenth of a second: one that does stands in open().
    await until(lambda: worker.turn_began_at is not None and time.monotonic() - worker.turn_began_at > 0.1)
    blind.clear()
    if freed_by == "watch":
        alarm = await bench.alarm(AlarmKind.MOVED_ASIDE)
        assert "a FIFO" in alarm.text
        await bench.works("two")
    assert await bench.reader.stop()


def put_super_journal(path: Path, names: Path) -> None:
    """A hot rollback journal of no pages whose trailer names a super-journal, as the file format describes it."""
    pages = path.stat().st_size // 4096
    header = bytes.fromhex("d9d505f920a163d7") + struct.pack(">5I", 0, 1, pages, 512, 4096)
    name = os.fsencode(names)
    page_of_the_lock = 0x40000000 // 4096 + 1
    trailer = struct.pack(">I", page_of_the_lock) + name + struct.pack(">II", len(name), sum(name)) + header[:8]
    path.with_name(path.name + "-journal").write_bytes(header.ljust(512, b"\0") + trailer)


@pytest.mark.covers("F108", "F120", "F125")
async def test_a_journal_that_names_a_file_outside_has_it_deleted_without_confinement_and_not_with_it(
    bench: Bench, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    await bench.reader.start()
    await bench.reader.stop()

    put_super_journal(bench.path, precious)
    await bench.new_reader(confine=None).start()
    assert not precious.exists(), "the crafted journal is not what it should be: this test proves nothing"
    await bench.works("one")
    await bench.reader.stop()

    precious.write_text("kept")
    put_super_journal(bench.path, precious)
    await bench.new_reader().start()
    await bench.alarm(AlarmKind.TROUBLE)
    await bench.works("two")
    assert precious.read_text() == "kept"
    assert bench.aside() == []


@pytest.mark.covers("F120", "F125")
async def test_a_journal_that_can_never_be_opened_is_moved_aside_with_its_database(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a producer takes its permissions away. Root reads it all the same, so SQLite's refusal is played."""
    await bench.new_reader(Settings(cannot_open_limit_s=0.1)).start()
    await bench.works("one")
    journal = bench.path.with_name("queue.db-journal")
    real_harden, real_version = QueueConnection._harden, QueueConnection.data_version

    def refuse() -> None:
        if journal.exists():
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error

    def harden(connection: QueueConnection) -> None:
        refuse()
        real_harden(connection)

    def data_version(connection: QueueConnection) -> int:
        refuse()
        return real_version(connection)

    monkeypatch.setattr(QueueConnection, "_harden", harden)
    monkeypatch.setattr(QueueConnection, "data_version", data_version)
    journal.write_bytes(b"\xff" * 512)
    await bench.alarm(AlarmKind.TROUBLE)
    alarm = await bench.alarm(AlarmKind.MOVED_ASIDE)
    assert "journal cannot be opened" in alarm.text
    assert [name.endswith("-journal") for name in bench.aside()] == [False, True]
    await bench.works("two")


CRASHING_WRITER = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size=5")
connection.execute("INSERT INTO bracket_requests (client_ref, account, request) VALUES ('whole', 'a', '{}')")
connection.execute("BEGIN")
for number in range(50):
    sql = "INSERT INTO bracket_requests (client_ref, account, request) VALUES (?, 'a', ?)"
    connection.execute(sql, (f"half{number}", "x" * 4000))
os.kill(os.getpid(), 9)
"""


@pytest.mark.covers("F108")
async def test_the_journal_of_a_writer_that_crashed_is_rolled_back_and_its_commits_stay(bench: Bench) -> None:
    await bench.reader.start()
    await bench.reader.stop()
    crashing = await asyncio.create_subprocess_exec(sys.executable, "-c", CRASHING_WRITER, bench.path)
    assert await crashing.wait() == -9
    assert bench.path.with_name("queue.db-journal").stat().st_size > 0
    await bench.new_reader().start()
    assert (await bench.row()).client_ref == "whole"
    await bench.works("next")
    assert (bench.aside(), bench.alarms.empty()) == ([], True)


@pytest.mark.covers("F120")
async def test_pages_of_rubbish_have_the_file_moved_aside(bench: Bench) -> None:
    await bench.reader.start()
    await bench.works("one")
    await bench.reader.stop()
    for number in range(60):
        bench.insert(f"r{number}", "x" * 1000)
    content = bytearray(bench.path.read_bytes())
    for page in range(2, len(content) // 4096, 2):
        content[page * 4096 : page * 4096 + 512] = os.urandom(512)
    bench.path.write_bytes(content)
    await bench.new_reader().start()
    alarm: QueueAlarm = await bench.alarm(AlarmKind.MOVED_ASIDE)
    assert "cannot be read" in alarm.text
    while not bench.rows.empty():
        bench.rows.get_nowait()
    await bench.works("after")


@pytest.mark.covers("F125")
async def test_a_wake_that_is_a_link_or_directory_changes_nothing_outside(bench: Bench, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    precious.chmod(0o600)
    bench.path.with_name("wake").symlink_to(precious)
    await bench.reader.start()
    await bench.reader.stop()
    assert (precious.read_text(), precious.stat().st_mode & 0o777) == ("kept", 0o600)

    bench.path.with_name("wake").mkdir()
    await bench.new_reader().start()
    await bench.alarm(AlarmKind.TROUBLE)
    await bench.works("by polling")
