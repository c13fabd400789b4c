"""Journals of brackets that closed long ago: one file a year beside state.db, `archive/journal-2026.db`.

A journal is copied and checked first, durably, and only then leaves state.db (`retention`). Killed in between it is in
both, and the next run copies the same rows again, which changes nothing. Standard library only: `show` reads it.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

Row = Mapping[str, Any]

_COLUMNS = ("seq", "bracket_id", "at_us", "event", "from_state", "to_state", "detail", "payload_json")
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM journal WHERE bracket_id = ?"  # noqa: S608 - names of columns, above
_TABLE = (
    "CREATE TABLE IF NOT EXISTS journal (bracket_id TEXT NOT NULL, seq INTEGER NOT NULL, at_us INTEGER NOT NULL,"
    " event TEXT NOT NULL, from_state TEXT, to_state TEXT NOT NULL, detail TEXT NOT NULL, payload_json TEXT,"
    " PRIMARY KEY (bracket_id, seq)) STRICT"
)
_DIRECTORY_MODE = 0o750
# What copying may take is never the last of the disk: exits need it more.
_LEAST_ROOM_BYTES = 64 * 1024 * 1024


class ArchiveFailed(Exception):
    """A journal could not be copied, or the copy is not what was to be copied. Nothing has left state.db."""


@dataclass(frozen=True, slots=True)
class Copied:
    """`seqs`: the rows of state.db that are in the archive now. `rows` and `digest`: all of the bracket in there."""

    archive: str
    seqs: tuple[int, ...]
    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class Archived:
    """Where state.db says that a bracket's journal is."""

    path: Path
    rows: int
    digest: str

    @property
    def is_there(self) -> bool:
        return self.path.exists()


def directory_of(state_db: Path) -> Path:
    return state_db.with_name("archive")


def name_for(closed_at_us: int) -> str:
    return f"journal-{datetime.fromtimestamp(closed_at_us // 1_000_000, UTC):%Y}.db"


def copy_journal(state: sqlite3.Connection, bracket_id: str, archive: Path) -> Copied:
    """Copies what state.db has of a journal, durable and compared when it returns. Raises ArchiveFailed."""
    state.row_factory = sqlite3.Row
    rows = [dict(row) for row in state.execute(f"{_SELECT} ORDER BY seq", (bracket_id,))]
    try:
        _require_room(archive, rows)
        with _writing(archive) as connection:
            connection.executemany(
                f"INSERT OR IGNORE INTO journal ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})",  # noqa: S608
                [tuple(row[name] for name in _COLUMNS) for row in rows],
            )
        kept = rows_in(archive, bracket_id)
    except (OSError, sqlite3.Error) as error:
        raise ArchiveFailed(f"{archive}: {error}") from error
    known = {row["seq"]: row for row in kept}
    for row in rows:
        if known.get(row["seq"]) != row:
            raise ArchiveFailed(
                f"{archive} has another row {row['seq']} of bracket {bracket_id} than state.db: move that file away"
            )
    return Copied(archive.name, tuple(row["seq"] for row in rows), len(kept), digest_of(kept))


def _require_room(archive: Path, rows: Sequence[Row]) -> None:
    if not archive.parent.exists():
        archive.parent.mkdir()
        archive.parent.chmod(_DIRECTORY_MODE)
    space = os.statvfs(archive.parent)
    needed = 4 * sum(len(row["payload_json"] or "") + len(row["detail"]) for row in rows) + _LEAST_ROOM_BYTES
    if space.f_bavail * space.f_frsize < needed:
        raise ArchiveFailed(f"{archive.parent} has less than {needed >> 20} MiB left: make room first")


@contextmanager
def _writing(archive: Path) -> Iterator[sqlite3.Connection]:
    """One transaction that is on disk, with the file's name, when it ends well."""
    with suppress(FileExistsError):
        # The file's mode before SQLite sees it, whatever the umask.
        os.close(os.open(archive, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    with closing(sqlite3.connect(_uri(archive, "rw"), uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_TABLE)
        yield connection
        connection.execute("COMMIT")
    descriptor = os.open(archive.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _uri(path: Path, mode: str) -> str:
    return f"file:{quote(str(path))}?mode={mode}"


def rows_in(archive: Path, bracket_id: str) -> list[dict[str, Any]]:
    """A bracket's rows in order, read anew from the file. Raises sqlite3.Error."""
    with closing(sqlite3.connect(_uri(archive, "ro"), uri=True, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        return [dict(row) for row in connection.execute(f"{_SELECT} ORDER BY seq", (bracket_id,))]


def digest_of(rows: Iterable[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row[name] for name in _COLUMNS], ensure_ascii=False).encode())
    return digest.hexdigest()


def archived(state: sqlite3.Connection, bracket_id: str) -> Archived | None:
    """Where a bracket's journal is, if it has left state.db."""
    if not _knows_archives(state):
        return None
    row = state.execute(
        "SELECT archive, rows, digest FROM archived_journals WHERE bracket_id = ?", (bracket_id,)
    ).fetchone()
    return None if row is None else Archived(_directory(state) / Path(row[0]).name, row[1], row[2])


def _knows_archives(state: sqlite3.Connection) -> bool:
    """A file of an earlier schema, read before the upgrade, has none."""
    return state.execute("SELECT 1 FROM sqlite_schema WHERE name = 'archived_journals'").fetchone() is not None


def _directory(state: sqlite3.Connection) -> Path:
    return directory_of(Path(state.execute("PRAGMA database_list").fetchone()[2]))


def problems(state: sqlite3.Connection) -> Iterator[str]:
    """What is wrong with the archives that state.db names, one line each."""
    if not _knows_archives(state):
        return
    directory = _directory(state)
    for (name,) in state.execute("SELECT DISTINCT archive FROM archived_journals ORDER BY archive").fetchall():
        archive = directory / Path(name).name
        if not archive.exists():
            yield f"{archive} is not there: journals of closed brackets are in it; put it back"
            continue
        try:
            yield from _damage_of(state, archive)
        except sqlite3.Error as error:
            yield f"{archive} cannot be read ({error}): put a copy of it back"


def _damage_of(state: sqlite3.Connection, archive: Path) -> Iterator[str]:
    query = "SELECT bracket_id, digest FROM archived_journals WHERE archive = ? ORDER BY bracket_id"
    for bracket_id, digest in state.execute(query, (archive.name,)).fetchall():
        if digest_of(rows_in(archive, bracket_id)) != digest:
            yield f"{archive} has another journal of bracket {bracket_id} than was put there: put a copy of it back"
