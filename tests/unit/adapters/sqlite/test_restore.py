"""Going on from a backup: the file says of itself that it is older, and nothing of what was there is lost."""

import asyncio
import os
import signal
import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path
from textwrap import dedent

import pytest

from otocod.adapters.sqlite.check import NotFit, backup, require_fit, stored_epoch
from otocod.adapters.sqlite.migrate import SchemaTooNew, check_identity, upgrade
from otocod.adapters.sqlite.restore import restore
from otocod.adapters.sqlite.store import SqliteStore
from otocod.engine.adoption import ADOPTION, ADOPTION_FROM_US, REQUESTS_FROM_US
from otocod.engine.halts import HALT, HALT_LEVEL
from otocod.engine.supervisor import CLEAN_STOP
from otocod.ports.store import Setting
from tests.support.state_file import fresh_state
from tests.support.stored_records import changes_of_life

NOW_US = 1_800_000_000_000_000


async def lived(path: Path, steps: slice) -> None:
    store = await SqliteStore.open(path)
    try:
        for change in changes_of_life()[steps]:
            await store.commit(change)
        await store.commit(Setting(CLEAN_STOP, "yes"))
    finally:
        await store.close()


async def opened_settings(path: Path) -> dict[str, str]:
    store = await SqliteStore.open(path)
    try:
        return await store.settings()
    finally:
        await store.close()


@pytest.mark.covers("F101", "F97")
async def test_backup_that_is_restored_opens_and_says_that_it_is_older(tmp_path: Path) -> None:
    path = fresh_state(tmp_path)
    await lived(path, slice(0, 1))
    saved = tmp_path / "saved.db"
    backup(path, saved)
    before = saved.read_bytes()
    await lived(path, slice(1, 3))
    with pytest.raises(NotFit, match="older than it has been"):
        (tmp_path / "other").mkdir(mode=0o750)
        copy = tmp_path / "other" / "state.db"
        backup(saved, copy)
        copy.with_name("state.db-mark").write_text(str(stored_epoch(path)))
        require_fit(copy)

    done = restore(path, saved, environment="paper", now_us=NOW_US)

    require_fit(path)
    settings = await opened_settings(path)
    assert settings[HALT_LEVEL] == "entries"
    assert settings[HALT] == settings[ADOPTION] != ""
    assert settings[CLEAN_STOP] == "no"
    assert settings[REQUESTS_FROM_US] == str(NOW_US)
    assert done.last_known_us is not None
    assert int(settings[ADOPTION_FROM_US]) < done.last_known_us
    assert saved.read_bytes() == before
    assert done.replaced is not None
    for file, entries in ((done.replaced, 3), (path, 1)):
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("SELECT count(*) FROM journal").fetchone() == (entries,)


@pytest.mark.covers("F101")
async def test_older_copy_that_is_in_place_already_is_only_marked(tmp_path: Path) -> None:
    path = fresh_state(tmp_path)
    await lived(path, slice(0, 1))
    path.with_name("state.db-mark").write_text("99\n")
    assert restore(path, path, environment="paper", now_us=NOW_US).replaced is None
    require_fit(path)
    assert (await opened_settings(path))[ADOPTION]


def test_empty_database_and_unreadable_mark_are_no_obstacle(tmp_path: Path) -> None:
    path = fresh_state(tmp_path)
    saved = tmp_path / "saved.db"
    backup(path, saved)
    path.with_name("state.db-mark").write_text("nonsense")
    assert restore(path, saved, environment="paper", now_us=NOW_US).last_known_us is None
    require_fit(path)


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def of_something_else(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")


def of_production(path: Path) -> None:
    check_identity(path, environment="production", accounts=["A"])


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()


@pytest.mark.covers("F94", "F102")
@pytest.mark.parametrize("spoil", [damaged, of_something_else, of_production, newer])
def test_backup_that_cannot_be_used_changes_nothing(tmp_path: Path, spoil: object) -> None:
    path = fresh_state(tmp_path)
    saved = tmp_path / "saved.db"
    upgrade(saved)
    assert callable(spoil)
    spoil(saved)
    before = path.read_bytes()
    with pytest.raises((NotFit, SchemaTooNew)):
        restore(path, saved, environment="paper", now_us=NOW_US)
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.glob("state.db*")) == ["state.db"]


@pytest.mark.covers("F101")
@pytest.mark.parametrize("moment", ["before the old file is put aside", "before the new file is in place"])
async def test_restore_that_is_killed_is_refused_or_has_not_happened_and_can_be_repeated(
    tmp_path: Path, moment: str
) -> None:
    path = fresh_state(tmp_path)
    await lived(path, slice(0, 2))
    saved = tmp_path / "saved.db"
    backup(path, saved)
    code = dedent(
        f"""
        import os, signal
        from pathlib import Path
        from otocod.adapters.sqlite import restore
        kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        if {moment!r} == "before the old file is put aside":
            restore._put_aside = kill
        else:
            put_aside = restore._put_aside
            restore._put_aside = lambda path: (put_aside(path), kill())
        restore.restore(Path({str(path)!r}), Path({str(saved)!r}), environment="paper", now_us={NOW_US})
        """
    )
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await killed.wait() == -signal.SIGKILL
    if path.exists():
        require_fit(path)
    else:
        with pytest.raises(NotFit, match="older than it has been"):
            require_fit(path)
    restore(path, saved, environment="paper", now_us=NOW_US)
    require_fit(path)
    assert (await opened_settings(path))[ADOPTION]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for another user")
def test_what_root_restores_belongs_to_whom_the_directory_belongs_to(tmp_path: Path) -> None:
    path = tmp_path / "data" / "state.db"
    backup_file = tmp_path / "backup.db"
    upgrade(backup_file)
    path.parent.mkdir(mode=0o750)
    os.chown(path.parent, 1234, 1235)
    restore(path, backup_file, environment="paper", now_us=1)
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 1235, 0o600)
