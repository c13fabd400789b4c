"""What a producer does, for `otocod submit` and `otocod queue list`: standard library only, quick to import.

The file is as hostile to whoever submits as it is to the daemon (a journal put beside it may have a file of the
submitter's deleted), so here too it is opened on a thread confined to its directory, where the kernel can do that.
"""

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from otocod.adapters.queue import landlock, wake

_BUSY_TIMEOUT_S: Final = 5.0
_COLUMNS: Final = "id, client_ref, account, request, status, reason, bracket_id, created_at, handled_at"

_T = TypeVar("_T")


class QueueUnusableError(Exception):
    """There is no queue file, or what is there must not be opened; the text says what to do."""


class DuplicateClientRefError(Exception):
    """The queue already holds a row with this client_ref; nothing was inserted."""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row as the file has it; text from outside, not yet fit for a terminal."""

    id: int
    client_ref: str
    account: str
    request: str
    status: str
    reason: str | None
    bracket_id: str | None
    created_at: str
    handled_at: str | None


def submit_row(
    path: Path, *, client_ref: str, account: str, request: str, busy_timeout_s: float = _BUSY_TIMEOUT_S
) -> int:
    """Insert a request and wake the daemon; the row's id. The row is durable on return, whether a daemon runs or not.

    Raises DuplicateClientRefError, QueueUnusableError; sqlite3.OperationalError if others hold the file for longer than
    `busy_timeout_s`.
    """

    def insert(connection: sqlite3.Connection) -> int:
        try:
            cursor = connection.execute(
                "INSERT INTO bracket_requests (client_ref, account, request) VALUES (?, ?, ?)",
                (client_ref, account, request),
            )
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                raise DuplicateClientRefError(f"the queue already has a row {client_ref!r}") from error
            raise
        return int(cursor.lastrowid or 0)

    row_id = _with_connection(path, insert, busy_timeout_s)
    directory_fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        wake.send(directory_fd)
    finally:
        os.close(directory_fd)
    return row_id


def rows(
    path: Path, *, status: str | None = None, limit: int = 1000, busy_timeout_s: float = _BUSY_TIMEOUT_S
) -> list[StoredRow]:
    """The newest rows, at most `limit`, oldest of them first; all of them or those of one status."""

    def select(connection: sqlite3.Connection) -> list[StoredRow]:
        found = connection.execute(
            f"SELECT {_COLUMNS} FROM bracket_requests WHERE ?1 IS NULL OR status = ?1 ORDER BY id DESC LIMIT ?2",  # noqa: S608
            (status, limit),
        )
        return [StoredRow(*values) for values in found][::-1]

    return _with_connection(path, select, busy_timeout_s)


def row(path: Path, client_ref: str, *, busy_timeout_s: float = _BUSY_TIMEOUT_S) -> StoredRow | None:
    """The row with this key, if there is one."""

    def select(connection: sqlite3.Connection) -> StoredRow | None:
        values = connection.execute(
            f"SELECT {_COLUMNS} FROM bracket_requests WHERE client_ref = ?",  # noqa: S608
            (client_ref,),
        ).fetchone()
        return None if values is None else StoredRow(*values)

    return _with_connection(path, select, busy_timeout_s)


def _with_connection(path: Path, work: Callable[[sqlite3.Connection], _T], busy_timeout_s: float) -> _T:
    path = path.absolute()
    confine = landlock.is_available()
    _check(path, confine)

    def confined() -> _T:
        with closing(_connect(path, busy_timeout_s)) as connection:
            return work(connection)

    return landlock.run_confined(path.parent, confined) if confine else confined()


def _check(path: Path, confine: bool) -> None:
    try:
        status = path.lstat()
        directory = path.parent.stat()
    except FileNotFoundError:
        raise QueueUnusableError(f"there is no queue at {path}; make one with: otocod queue init") from None
    except PermissionError:
        raise QueueUnusableError(f"{path} cannot be reached: you are not in the submitters' group") from None
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise QueueUnusableError(f"{path} is not a regular file with one link")
    for suffix in ("-journal", "-wal"):
        beside = path.with_name(path.name + suffix)
        # lstat: opening a FIFO in the journal's place would wait for ever.
        if os.path.lexists(beside) and not stat.S_ISREG(beside.lstat().st_mode):
            raise QueueUnusableError(f"{beside} is not a regular file")
    if not confine and os.geteuid() == 0 and directory.st_mode & 0o022:
        raise QueueUnusableError(f"{path} may be written by others; without Landlock root does not open it")


def _connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    uri = f"file:{quote(str(path))}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=busy_timeout_s, isolation_level=None)
    connection.text_factory = lambda content: content.decode("utf-8", "replace")
    for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    return connection
