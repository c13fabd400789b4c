"""state.db as the migrations make it, upgraded, refused, killed half-way, and from an installed wheel."""

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from textwrap import dedent

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from otocod.adapters.sqlite import migrate
from otocod.adapters.sqlite.check import NotFit, integrity_check
from otocod.adapters.sqlite.migrate import (
    SchemaTooNew,
    WrongIdentity,
    alembic_config,
    check_identity,
    current_revision,
    migration_engine,
    upgrade,
)
from otocod.adapters.sqlite.store import SqliteStore
from otocod.adapters.sqlite.tables import metadata
from tests.support.state_file import fresh_state
from tests.support.stored_records import ACCOUNT, accepted, change, changes_of_life

ROOT = Path(migrate.__file__).parents[3]

NEXT_REVISION = '''
"""One more column."""
import os
import signal
import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

def upgrade() -> None:
    op.add_column("alarms", sa.Column("severity", sa.Text()))
    if os.environ.get("KILL_HALF_WAY"):
        os.kill(os.getpid(), signal.SIGKILL)
'''


@pytest.fixture
def newer_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's place in an installed wheel of a later release, with one more revision."""
    (tmp_path / "present").mkdir()
    fresh_state(tmp_path / "present")  # its template must be of this release, whichever test comes first
    package = tmp_path / "site" / "otocod"
    shutil.copytree(ROOT / "migrations", package / "_migrations", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", package / "_migrations" / "alembic.ini")
    (package / "_migrations" / "versions" / "0004_next.py").write_text(NEXT_REVISION)
    monkeypatch.setattr(migrate, "__file__", str(package / "adapters" / "sqlite" / "migrate.py"))
    return package


def schema(path: Path) -> dict[tuple[str, str], list[str]]:
    """(type, name) -> the lines of its SQL, sorted: the order of constraints means nothing."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    lines = {
        (kind, name): sorted(line.strip().rstrip(",") for line in sql.splitlines() if line.strip())
        for kind, name, sql in rows
    }
    return {key: value for key, value in lines.items() if "alembic_version" not in key[1]}


def test_migrations_make_what_the_tables_say(tmp_path: Path) -> None:
    migrated, declared = tmp_path / "migrated.db", tmp_path / "declared.db"
    upgrade(migrated)
    engine = create_engine(f"sqlite:///{declared}")
    metadata.create_all(engine)
    engine.dispose()
    assert schema(migrated) == schema(declared)
    engine = migration_engine(migrated)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_there_is_one_head_and_each_revision_says_why() -> None:
    script = ScriptDirectory.from_config(alembic_config())
    assert len(script.get_heads()) == 1
    for revision in script.walk_revisions():
        assert revision.doc


def test_every_table_is_strict(tmp_path: Path) -> None:
    upgrade(tmp_path / "state.db")
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        rows = connection.execute("SELECT name, strict FROM pragma_table_list WHERE type = 'table' AND schema = 'main'")
        loose = {name for name, strict in rows if not strict}
    assert loose == {"alembic_version", "sqlite_schema", "sqlite_sequence"}


def test_a_new_file_and_its_directory_are_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "state.db"
    before = os.umask(0)
    try:
        assert upgrade(path) is None
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_upgrading_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    upgrade(path)
    before = path.read_bytes()
    assert upgrade(path) is None
    assert path.read_bytes() == before
    assert current_revision(path) == "0003"


@pytest.mark.covers("F102")
async def test_an_older_file_is_upgraded_after_a_backup_and_keeps_everything(tmp_path: Path, newer_code: Path) -> None:
    path = fresh_state(tmp_path)
    await commit(path, 3)
    saved = upgrade(path)
    assert saved is not None
    assert (current_revision(saved), current_revision(path)) == ("0003", "0004")
    assert integrity_check(path) == integrity_check(saved) == ()
    for file in (path, saved):
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("SELECT count(*) FROM journal").fetchone() == (3,)


async def commit(path: Path, steps: int) -> None:
    store = await SqliteStore.open(path)
    try:
        for step in changes_of_life()[:steps]:
            await store.commit(step)
    finally:
        await store.close()


@pytest.mark.covers("F102")
def test_a_newer_schema_is_refused_and_left_alone(
    tmp_path: Path, newer_code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    upgrade(path)
    before = path.read_bytes()
    monkeypatch.undo()
    with pytest.raises(SchemaTooNew, match="0004"):
        upgrade(path)
    assert path.read_bytes() == before


@pytest.mark.covers("F102")
def test_an_upgrade_that_is_killed_has_not_happened(tmp_path: Path, newer_code: Path) -> None:
    path = fresh_state(tmp_path)
    before = schema(path)
    code = dedent(
        f"""
        from pathlib import Path
        from otocod.adapters.sqlite import migrate
        migrate.__file__ = {str(migrate.__file__)!r}
        migrate.upgrade(Path({str(path)!r}))
        """
    )
    environment = {**os.environ, "KILL_HALF_WAY": "1", "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=30)
    assert killed.returncode == -signal.SIGKILL
    assert current_revision(path) == "0003"
    assert schema(path) == before
    upgrade(path)
    assert current_revision(path) == "0004"


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(NotFit, match="recipes"):
        upgrade(path)


def test_the_environment_is_remembered_and_another_refused(tmp_path: Path) -> None:
    path = fresh_state(tmp_path)
    check_identity(path, environment="paper", accounts=["A"])
    check_identity(path, environment="paper", accounts=["A"])
    with pytest.raises(WrongIdentity, match="belongs to environment paper"):
        check_identity(path, environment="production", accounts=["A"])


async def test_an_account_may_go_only_when_none_of_its_brackets_is_open(tmp_path: Path) -> None:
    path = fresh_state(tmp_path)
    await commit(path, 3)
    check_identity(path, environment="paper", accounts=[ACCOUNT])
    with pytest.raises(WrongIdentity, match=ACCOUNT):
        check_identity(path, environment="paper", accounts=["other"])
    check_identity(path, environment="paper", accounts=["other", ACCOUNT])
    store = await SqliteStore.open(path)
    try:
        await store.commit(change(changes_of_life()[2].after, changes_of_life()[3].after))
        remembered = await store.settings()
    finally:
        await store.close()
    assert remembered == {"environment": "paper", "accounts": f'["{ACCOUNT}", "other"]'}
    check_identity(path, environment="paper", accounts=["other"])


async def test_every_reason_of_a_wrong_identity_is_given_at_once(tmp_path: Path) -> None:
    path = fresh_state(tmp_path)
    check_identity(path, environment="paper", accounts=[ACCOUNT])
    store = await SqliteStore.open(path)
    try:
        await store.commit(change(None, accepted()))
    finally:
        await store.close()
    with pytest.raises(WrongIdentity) as wrong:
        check_identity(path, environment="sandbox", accounts=[])
    assert len(wrong.value.reasons) == 2
