"""Files of each earlier schema, as that release left them: upgraded whole, judged, gone on with, and killed half-way.

Method: the file is made by that revision's own migrations; its rows are what the release wrote, in the columns that its
tables had, with the journal's payload in its form of then. Kills are at every statement of the upgrade.
"""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory

from otocod.adapters.sqlite import migrate, readmodel
from otocod.adapters.sqlite.check import integrity_check
from otocod.adapters.sqlite.codec import rows_from_change
from otocod.adapters.sqlite.migrate import alembic_config, current_revision, migration_engine, upgrade
from otocod.adapters.sqlite.replay import replay
from otocod.adapters.sqlite.restore import restore
from otocod.adapters.sqlite.store import SqliteStore
from otocod.audit import audit_database
from otocod.domain.brackets import Bracket
from otocod.ports.store import Alarm, Capability, Change, Setting
from tests.support.state_file import fresh_state
from tests.support.stored_records import ACCOUNT, START_US, accepted, change, changes_of_life, life

ROOT = Path(migrate.__file__).parents[3]
HEAD = ScriptDirectory.from_config(alembic_config()).get_current_head() or ""
EARLIER = sorted(each.revision for each in ScriptDirectory.from_config(alembic_config()).walk_revisions())[:-1]
# Until then a journal held the events alone, and nothing of an acceptance.
_STEPS_SINCE = "0003"

# A life to its end, and one that goes on after the upgrade.
CHANGES: tuple[Change, ...] = (
    *changes_of_life(1),
    change(None, accepted(2)),
    Alarm(START_US, "frozen", "look", accepted(1).bracket_id),
    Setting("environment", "paper"),
    Capability(ACCOUNT, "spread", next(iter(accepted().ladder)), True, "accepted", START_US),
)


def made_by(revision: str, directory: Path) -> Path:
    """state.db as the release of this revision would have left it."""
    directory.mkdir(mode=0o750)
    present, path = fresh_state(directory), directory / "older.db"
    path.touch(0o600)
    engine = migration_engine(path)
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
    with closing(sqlite3.connect(present)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for each in CHANGES:
            for statement, values in sorted(rows_from_change(each), key=lambda row: row[0].rank):
                connection.execute(statement.sql, values)
        connection.commit()
        connection.execute("ATTACH ? AS older", (str(path),))
        for table, columns in tables_of(connection, "older").items():
            names = ", ".join(columns)
            connection.execute(f"INSERT INTO older.{table} ({names}) SELECT {names} FROM main.{table}")  # noqa: S608
        connection.commit()
    if revision < _STEPS_SINCE:
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("SELECT seq, payload_json FROM journal").fetchall()
            connection.execute("DROP TRIGGER journal_is_not_changed")
            connection.executemany(
                "UPDATE journal SET payload_json = ? WHERE seq = ?", [(events_of(text), seq) for seq, text in rows]
            )
            connection.execute(
                "CREATE TRIGGER journal_is_not_changed BEFORE UPDATE ON journal WHEN 1"
                " BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
            )
            connection.commit()
    for left in directory.glob("state.db*"):
        left.unlink()
    return path.rename(present)


def events_of(text: str) -> str:
    return json.dumps([told for step in json.loads(text) for told in step.get("told", ())])


def tables_of(connection: sqlite3.Connection, database: str) -> dict[str, list[str]]:
    """Tables that rows were put into, with their columns; what is referred to first."""
    names = ("brackets", "external_identifiers", "orders", "fills", "journal", "accepted_rows", "alarms")
    found: dict[str, list[str]] = {}
    for name in (*names, "capabilities", "settings"):
        columns = connection.execute(f"PRAGMA {database}.table_info({name})").fetchall()
        found[name] = [column[1] for column in columns]
    return found


def rows_of(path: Path) -> dict[str, list[dict[str, Any]]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return {
            table: [dict(row) for row in connection.execute(f"SELECT {', '.join(columns)} FROM {table}")]  # noqa: S608
            for table, columns in tables_of(connection, "main").items()
        }


@pytest.fixture(params=EARLIER)
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    yield made_by(request.param, tmp_path / "data")


@pytest.mark.covers("F102")
async def test_file_of_an_earlier_schema_is_upgraded_whole_and_gone_on_with(older: Path) -> None:
    before, revision = rows_of(older), current_revision(older)
    saved = upgrade(older)
    assert saved is not None
    assert (current_revision(saved), current_revision(older)) == (revision, HEAD)
    assert integrity_check(older) == ()
    after = rows_of(older)
    for table, rows in before.items():
        kept = [{name: row[name] for name in rows[0]} for row in after[table]]
        assert kept == rows, table
    assert list(audit_database(older)) == []
    store = await SqliteStore.open(older)
    try:
        assert await store.load_open() == (accepted(2),)
        assert await store.bracket(accepted(1).bracket_id) == life(1)[-1]
        for step in changes_of_life(2)[1:]:
            await store.commit(step)
        assert await store.bracket(accepted(2).bracket_id) == last_of(2)
    finally:
        await store.close()
    with closing(readmodel.open_readonly(older)) as connection:
        assert [row["to"] for row in readmodel.show_bracket(connection, accepted(1).bracket_id)["history"]] == [
            "PENDING_ENTRY",
            "ENTRY_FILLED",
            "EXITS_LIVE",
            "CLOSED",
        ]


def last_of(number: int) -> Bracket:
    return life(number)[-1]


def test_journal_of_an_earlier_form_is_told_and_said_not_to_be_replayable(tmp_path: Path) -> None:
    path = made_by(EARLIER[0], tmp_path / "data")
    upgrade(path)
    with closing(readmodel.open_readonly(path)) as connection:
        recording = readmodel.recording(connection, accepted(1).bracket_id)
        events = readmodel.events(connection, accepted(1).bracket_id)
    assert [event["event"] for event in events][:2] == ["BracketAccepted", "EntryFilled"]
    found = replay(recording)
    assert found.is_same
    assert found.unrecorded is not None


@pytest.mark.covers("F102")
def test_file_of_an_earlier_schema_may_be_the_backup_that_is_restored(older: Path) -> None:
    backup = older.with_name("state-20260101T000000Z.db")
    older.replace(backup)
    done = restore(older, backup, environment="paper", now_us=START_US + 9)
    assert done.last_known_us is not None
    upgrade(older)
    assert list(audit_database(older)) == []


_KILLS = """
import json, os, shutil, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from otocod.adapters.sqlite import migrate

original, directory = Path(sys.argv[1]), Path(sys.argv[2])
seen = 0
kill_at = None

@event.listens_for(Engine, "before_cursor_execute")
def count(connection, cursor, statement, parameters, context, many):
    global seen
    seen += 1
    if seen == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

whole = directory / "whole.db"
shutil.copy(original, whole)
migrate.upgrade(whole)
statements, ends = seen, []
for number in range(1, statements + 1):
    killed = directory / f"killed-{number}.db"
    shutil.copy(original, killed)
    child = os.fork()
    if child == 0:
        seen, kill_at = 0, number
        migrate.upgrade(killed)
        os._exit(0)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(ends))
"""


@pytest.mark.covers("F102")
def test_upgrade_killed_at_any_statement_has_not_happened_or_has_happened_whole(older: Path, tmp_path: Path) -> None:
    revision, before = current_revision(older), rows_of(older)
    killed_in = tmp_path / "killed"
    killed_in.mkdir(mode=0o750)
    done = subprocess.run(
        [sys.executable, "-c", dedent(_KILLS), str(older), str(killed_in)],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
        cwd=ROOT,
    )
    ends = json.loads(done.stdout)
    assert len(ends) > 8
    assert set(ends) == {-9}
    seen = set()
    for number in range(1, len(ends) + 1):
        killed = killed_in / f"killed-{number}.db"
        seen.add(current_revision(killed))
        assert rows_of(killed) == before
        upgrade(killed)
        assert current_revision(killed) == HEAD
        assert integrity_check(killed) == ()
        assert rows_of(killed) == before
    assert seen <= {revision, HEAD}
    assert revision in seen


def test_every_earlier_schema_is_made_here() -> None:
    assert EARLIER[0] == "0001"
    assert len(EARLIER) == int(HEAD) - 1
