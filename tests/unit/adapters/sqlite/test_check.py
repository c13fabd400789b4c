import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from otocod.adapters.sqlite import check
from otocod.adapters.sqlite.check import (
    NotFit,
    backup,
    free_reserve,
    integrity_check,
    make_reserve,
    network_file_system,
    quick_check,
    require_fit,
    sqlite_note,
    startup_problems,
    write_mark,
)
from otocod.adapters.sqlite.restore import restore
from otocod.adapters.sqlite.store import SqliteStore
from tests.support.state_file import fresh_state
from tests.support.stored_records import accepted, change, changes_of_life


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return fresh_state(tmp_path)


def texts(path: Path) -> str:
    return "\n".join(str(problem) for problem in startup_problems(path))


def test_a_new_file_and_one_that_is_yet_to_be_made_are_fit(path: Path, tmp_path: Path) -> None:
    require_fit(path)
    require_fit(tmp_path / "deeper" / "still" / "state.db")


@pytest.mark.covers("F95")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700])
def test_a_file_open_to_others_is_refused_with_the_mending_command(path: Path, mode: int) -> None:
    path.chmod(mode)
    assert f"chmod 0600 {path}" in texts(path)


@pytest.mark.covers("F95")
@pytest.mark.parametrize("mode", [0o755, 0o770, 0o751])
def test_a_directory_open_to_others_is_refused_with_the_mending_command(path: Path, mode: int) -> None:
    path.parent.chmod(mode)
    assert f"chmod 0750 {path.parent}" in texts(path)


@pytest.mark.covers("F95")
def test_a_link_in_place_of_the_file_is_refused(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "other.db"
    link.symlink_to(path)
    assert "not a regular file" in texts(link)


@pytest.mark.covers("F95")
def test_a_read_only_file_system_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(path)
    read_only = os.statvfs_result((*real[:8], real.f_flag | os.ST_RDONLY, *real[9:]))
    monkeypatch.setattr(os, "statvfs", lambda _path: read_only)
    assert "read-only" in texts(path)


@pytest.mark.covers("F95")
def test_a_directory_that_cannot_be_written_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write everywhere, so the answer of the system is played.
    monkeypatch.setattr(os, "access", lambda name, mode: Path(name) != path.parent)
    assert "cannot be written by user" in texts(path)


@pytest.mark.covers("F96")
@pytest.mark.parametrize(("magic", "name"), [(0x6969, "NFS"), (0xFF534D42, "CIFS"), (0x65735546, "FUSE")])
def test_a_network_file_system_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, magic: int, name: str) -> None:
    monkeypatch.setattr(check, "_file_system_magic", lambda _path: magic)
    assert name in texts(path)


@pytest.mark.covers("F96")
def test_the_kernel_is_asked_for_the_file_system(path: Path) -> None:
    assert check._file_system_magic(Path("/proc")) == 0x9FA0
    assert network_file_system(path) is None
    with pytest.raises(FileNotFoundError):
        check._file_system_magic(path.parent / "nothing")


@pytest.mark.covers("F94")
def test_damage_is_found_and_refused(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 8192)
    assert quick_check(path)
    assert integrity_check(path)
    with pytest.raises(NotFit, match="damaged"):
        require_fit(path)


@pytest.mark.covers("F94")
def test_a_journal_left_by_a_crash_is_rolled_back_and_the_file_is_fit(path: Path, tmp_path: Path) -> None:
    """A new file has one for a moment, while it is switched to WAL. No reader may roll it back."""
    crashed = tmp_path / "crashed"
    crashed.mkdir(mode=0o750)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE spilled (content BLOB)")
        connection.executemany("INSERT INTO spilled VALUES (randomblob(?))", [(3_000,)] * 50)
        for part in (path, path.with_name("state.db-journal")):
            (crashed / part.name).write_bytes(part.read_bytes())
            (crashed / part.name).chmod(0o600)
    assert "damaged" in texts(crashed / "state.db")
    require_fit(crashed / "state.db")
    assert not (crashed / "state.db-journal").exists()
    with closing(sqlite3.connect(crashed / "state.db")) as connection:
        assert not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'spilled'").fetchall()


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database, and long enough to look like one" * 100)
    with pytest.raises(NotFit, match="not a database"):
        require_fit(path)


@pytest.mark.covers("F94")
def test_a_row_that_refers_to_nothing_is_found_by_the_integrity_check(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO fills VALUES ('no order', 'f', 's', 1, '1', NULL)")
        connection.commit()
    assert quick_check(path) == ()
    assert "fills" in integrity_check(path)[0]


@pytest.mark.covers("F97")
def test_a_file_behind_its_mark_is_refused_until_it_is_restored(path: Path) -> None:
    write_mark(path, 3)
    with pytest.raises(NotFit, match="older than it has been") as refused:
        require_fit(path)
    assert refused.value.problems[0].mend == f"otocod db restore {path}"
    restore(path, path, environment="paper", now_us=5)
    require_fit(path)


@pytest.mark.covers("F97")
def test_a_file_that_is_gone_beside_its_mark_is_refused(path: Path) -> None:
    write_mark(path, 1)
    path.unlink()
    with pytest.raises(NotFit, match="older than it has been"):
        require_fit(path)


@pytest.mark.covers("F97")
async def test_a_backup_of_a_file_in_use_is_one_whole_file(path: Path, tmp_path: Path) -> None:
    store = await SqliteStore.open(path)
    try:
        for step in changes_of_life()[:3]:
            await store.commit(step)
        copy = tmp_path / "copies" / "state.db"
        copy.parent.mkdir(mode=0o750)
        backup(path, copy)
        await store.commit(change(None, accepted(2)))
    finally:
        await store.close()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert list(copy.parent.iterdir()) == [copy]
    restored = await SqliteStore.open(copy)
    try:
        assert await restored.load_open() == (changes_of_life()[2].after,)
    finally:
        await restored.close()


def test_a_backup_never_overwrites(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        backup(path, path)
    assert path.read_bytes() == before


def test_a_backup_that_fails_leaves_nothing(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        backup(path, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


@pytest.mark.covers("F98")
@pytest.mark.parametrize(
    ("version", "is_noted"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
    ],
)
def test_versions_that_can_corrupt_a_shared_wal_are_noted(version: tuple[int, int, int], is_noted: bool) -> None:
    assert (sqlite_note(version) is not None) == is_noted


@pytest.mark.covers("F92")
def test_the_reserve_takes_real_space_and_gives_it_back(path: Path) -> None:
    assert make_reserve(path, 1024 * 1024)
    reserve = path.with_name("state.db-reserve")
    assert reserve.stat().st_blocks * 512 >= 1024 * 1024
    assert make_reserve(path, 1024 * 1024)
    assert free_reserve(path)
    assert not reserve.exists()
    assert not free_reserve(path)


@pytest.mark.covers("F92")
def test_the_reserve_does_not_take_the_last_space(path: Path) -> None:
    assert not make_reserve(path, 2**60)
    assert not path.with_name("state.db-reserve").exists()
