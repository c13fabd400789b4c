"""Going on from an older state.db, so that nothing is sent that the lost one may have sent already.

The file says of itself that it is older: entries stay halted, rows of the queue from before are rejected, no identifier
that it has staged is believed to be unused, until a person has looked and said `otocod reconcile --adopt`. Blocking;
with the lock held and nothing else open on the file.
"""

import contextlib
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from alembic.script import ScriptDirectory
from alembic.util import CommandError

from otocod.adapters.sqlite.check import (
    EPOCH_SETTING,
    NotFit,
    Problem,
    backup,
    give_to_owner,
    integrity_check,
    marked_epoch,
    stored_epoch,
    stored_revision,
)
from otocod.adapters.sqlite.codec import PUT_SETTING
from otocod.adapters.sqlite.migrate import ENVIRONMENT_SETTING, SchemaTooNew, alembic_config
from otocod.adapters.sqlite.readmodel import open_readonly
from otocod.engine.adoption import ADOPTION, ADOPTION_FROM_US, REQUESTS_FROM_US
from otocod.engine.halts import HALT, HALT_BY, HALT_LEVEL, HaltLevel
from otocod.engine.supervisor import CLEAN_STOP

# Clocks of two machines, and what was on its way when the backup was made.
_MARGIN_US = 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class Restored:
    last_known_us: int | None  # the newest entry of its journal
    replaced: Path | None  # where the state that was there is now


def restore(path: Path, source: Path, *, environment: str, now_us: int) -> Restored:
    """Puts a copy of `source` in the place of `path`, whose former files are kept beside it. `source` may be `path`
    itself: then it is only marked as older. Killed, it can be repeated.

    Raises NotFit for a damaged file or one of another environment, SchemaTooNew for one of a newer release.
    """
    _require_usable(source, environment)
    if source.resolve() == path.resolve():
        return Restored(_mark_as_older(path, path, now_us), None)
    new = path.with_name(f"{path.name}.restoring")
    new.unlink(missing_ok=True)
    backup(source, new)
    give_to_owner(new)
    last_us = _mark_as_older(new, path, now_us)
    replaced = _put_aside(path)
    new.replace(path)
    return Restored(last_us, replaced)


def _require_usable(source: Path, environment: str) -> None:
    damage = integrity_check(source)
    if damage:
        raise NotFit(tuple(Problem(f"{source} is damaged: {line}; take another backup") for line in damage))
    revision = stored_revision(source)
    if revision is None:
        raise NotFit((Problem(f"{source} is no state database of otocod"),))
    with closing(open_readonly(source)) as connection:
        query = "SELECT value FROM settings WHERE name = ?"
        row = connection.execute(query, (ENVIRONMENT_SETTING,)).fetchone()
    try:
        ScriptDirectory.from_config(alembic_config()).get_revision(revision)
    except CommandError as error:
        raise SchemaTooNew(source, revision) from error
    if row is not None and row[0] != environment:
        raise NotFit((Problem(f"{source} belongs to environment {row[0]}, and the settings say {environment}"),))


def _mark_as_older(file: Path, path: Path, now_us: int) -> int | None:
    """In one transaction; the epoch is raised to what `path` has reached, which a copy is behind by its nature."""
    epoch = max(stored_epoch(file) or 0, marked_epoch(path))
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        # All of the journal may have left for archives.
        newest = "SELECT coalesce(max(at_us), (SELECT max(closed_at_us) FROM brackets)) FROM journal"
        last_us: int | None = connection.execute(newest).fetchone()[0]
        for name, value in _settings(last_us, now_us).items():
            connection.execute(PUT_SETTING.sql, (name, value))
        connection.execute(PUT_SETTING.sql, (EPOCH_SETTING, str(epoch)))
        connection.execute("COMMIT")
    return last_us


def _settings(last_us: int | None, now_us: int) -> Mapping[str, str]:
    when = "nobody knows when" if last_us is None else datetime.fromtimestamp(last_us // 1_000_000, UTC).isoformat()
    why = f"the database was restored; the last that it knows is of {when}"
    return {
        HALT: why,
        HALT_LEVEL: HaltLevel.ENTRIES.value,
        HALT_BY: "otocod db restore",
        ADOPTION: why,
        ADOPTION_FROM_US: "" if last_us is None else str(last_us - _MARGIN_US),
        REQUESTS_FROM_US: str(now_us),
        # What it has staged may have been posted since, whatever it says of its last stop.
        CLEAN_STOP: "no",
    }


def _put_aside(path: Path) -> Path | None:
    """SQLite finds a -wal by the name of its database, so all keep their endings."""
    if not path.exists():
        return None
    aside = path.with_name(f"{path.name}.replaced-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside
