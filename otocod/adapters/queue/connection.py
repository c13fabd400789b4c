"""One hardened SQLite connection to the queue file, and the few statements the daemon runs on it.

The file's content may have been written byte by byte by somebody who means harm: the connection runs nothing that
comes from the file (triggers, views, expressions of other schemas), and every statement ends after a bounded number
of steps, because a crafted b-tree may visit the same pages without end.
"""

import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Final
from urllib.parse import quote

from otocod.adapters.queue import schema
from otocod.adapters.queue.rows import (
    ACCOUNT_MAX_BYTES,
    CLIENT_REF_MAX_BYTES,
    CREATED_AT_MAX_BYTES,
    REQUEST_MAX_BYTES,
    Answer,
    AnswerResult,
    RawColumn,
    RawRow,
    storable_reason,
)

FILE_MAX_BYTES: Final = 64 * 1024 * 1024

# A file of 64 MiB holds at most some two million rows; to pass over one takes about ten steps.
_STEPS_MAX: Final = 40_000_000
_STEPS_A_CHECK: Final = 20_000

_LIMITS: Final = (
    # No honest record is longer than its file. A smaller limit would let one long row end every scan.
    (sqlite3.SQLITE_LIMIT_LENGTH, FILE_MAX_BYTES),
    (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 16_384),
    (sqlite3.SQLITE_LIMIT_COLUMN, 32),
    (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 50),
    (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 4),
    (sqlite3.SQLITE_LIMIT_VDBE_OP, 25_000),
    (sqlite3.SQLITE_LIMIT_FUNCTION_ARG, 8),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
    (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 64),
    (sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32),
    (sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 1),
    (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
)

_PRAGMAS: Final = (
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",  # finds malformed pages when they are read, not when they are used
    "PRAGMA mmap_size=0",  # a mapped file that somebody truncates kills the process with SIGBUS
    "PRAGMA temp_store=MEMORY",  # the confined thread has no directory for temporary files
    "PRAGMA cache_spill=OFF",  # a spill takes the exclusive lock in mid-transaction
    "PRAGMA synchronous=FULL",
)

_READABLE_TABLES: Final = frozenset({schema.TABLE, "sqlite_master", "sqlite_schema"})
_UPDATED_COLUMNS: Final = frozenset({"status", "reason", "bracket_id", "handled_at"})
# Written only to mend a row whose columns hold what a STRICT table forbids; see _MEND.
_MENDED_COLUMNS: Final = frozenset({"client_ref", "account", "request", "created_at"})
_FUNCTIONS: Final = frozenset({"typeof", "substr", "coalesce"})
_PRAGMAS_ALLOWED: Final = frozenset({"data_version", "schema_version", "encoding", "journal_mode"})

_BUSY_CODES: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_TROUBLE_CODES: Final = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOLFS,
    }
)

# CAST to BLOB, so that a NUL, bad UTF-8 or another storage class is seen as it is instead of ending the query.
_SCAN: Final = f"""
    SELECT id,
           typeof(client_ref), substr(CAST(client_ref AS BLOB), 1, {CLIENT_REF_MAX_BYTES + 1}),
           typeof(account),    substr(CAST(account AS BLOB), 1, {ACCOUNT_MAX_BYTES + 1}),
           typeof(request),    substr(CAST(request AS BLOB), 1, {REQUEST_MAX_BYTES + 1}),
           typeof(created_at), substr(CAST(created_at AS BLOB), 1, {CREATED_AT_MAX_BYTES + 1})
      FROM bracket_requests
     WHERE id >= ? AND status = 'NEW'
     ORDER BY id
     LIMIT ?
"""  # noqa: S608 - whole numbers of this package, nothing from outside

_ANSWER: Final = """
    UPDATE bracket_requests SET status = ?, reason = ?, bracket_id = ?, handled_at = ?
     WHERE id = ? AND client_ref = ? AND status = 'NEW'
"""

# The same for a row whose client_ref cannot be given as text: found by the bytes it was read with.
_ANSWER_BY_BYTES: Final = f"""
    UPDATE bracket_requests SET status = ?, reason = ?, bracket_id = ?, handled_at = ?
     WHERE id = ? AND substr(CAST(client_ref AS BLOB), 1, {CLIENT_REF_MAX_BYTES + 1}) IS ? AND status = 'NEW'
"""  # noqa: S608

# An UPDATE of a STRICT table checks every column of the row, so a row that lies about its types cannot be answered
# before its columns are text.
_MEND: Final = f"""
    UPDATE bracket_requests
       SET client_ref = CAST(coalesce(client_ref, '') AS TEXT), account = CAST(coalesce(account, '') AS TEXT),
           request = CAST(coalesce(request, '') AS TEXT), created_at = CAST(coalesce(created_at, '') AS TEXT),
           status = ?, reason = ?, bracket_id = ?, handled_at = ?
     WHERE id = ? AND substr(CAST(client_ref AS BLOB), 1, {CLIENT_REF_MAX_BYTES + 1}) IS ? AND status = 'NEW'
"""  # noqa: S608


_TRIM: Final = """
    DELETE FROM bracket_requests WHERE id IN
        (SELECT id FROM bracket_requests WHERE status <> 'NEW' AND handled_at < ? ORDER BY id LIMIT ?)
"""


class Verdict(Enum):
    """What an SQLite error says about the queue file."""

    BUSY = "BUSY"  # somebody else holds a lock: look again
    TROUBLE = "TROUBLE"  # disk, descriptors, permissions: the file may be sound
    BAD_FILE = "BAD_FILE"  # corrupt or crafted


def verdict_from_error(error: sqlite3.Error) -> Verdict:
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if primary in _BUSY_CODES:
        return Verdict.BUSY
    if primary in _TROUBLE_CODES:
        return Verdict.TROUBLE
    return Verdict.BAD_FILE


def is_cannot_open(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(code, int) and code & 0xFF == sqlite3.SQLITE_CANTOPEN


class SchemaChanged(Exception):
    """Somebody changed the schema since it was compared; nothing was read or written."""


class QueueConnection:
    """A connection of the thread that makes it. Every method may raise sqlite3.Error; none waits for a lock.

    path: an existing file; it is never created here. interrupted: asked now and then while a statement runs;
    true ends it with an error.
    """

    def __init__(self, path: Path, *, interrupted: Callable[[], bool] = lambda: False) -> None:
        self._interrupted = interrupted
        self._checks_left = 0
        self._schema_version: int | None = None
        uri = f"file:{quote(str(path))}?mode=rw"
        self._connection = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, cached_statements=16)
        try:
            self._harden()
        except BaseException:
            self._connection.close()
            raise

    def _harden(self) -> None:
        connection = self._connection
        connection.text_factory = lambda content: content.decode("utf-8", "replace")
        for category, limit in _LIMITS:
            connection.setlimit(category, limit)
        connection.set_progress_handler(self._should_end, _STEPS_A_CHECK)
        self._begin_budget()
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        connection.set_authorizer(_authorize)

    def close(self) -> None:
        self._connection.close()

    def _begin_budget(self) -> None:
        self._checks_left = _STEPS_MAX // _STEPS_A_CHECK

    def _should_end(self) -> bool:
        self._checks_left -= 1
        return self._checks_left < 0 or self._interrupted()

    def create_table_if_empty(self) -> None:
        """Give a file of no tables the table; a file that has any is left as it is."""
        connection = self._connection
        self._begin_budget()
        connection.set_authorizer(None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                connection.execute(schema.DDL)
                connection.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={schema.USER_VERSION}")
            connection.execute("COMMIT")
        finally:
            self._roll_back()
            connection.set_authorizer(_authorize)

    def schema_differences(self) -> list[str]:
        """What sets the file apart from a queue; if nothing does, this schema is the one the other methods expect."""
        self._begin_budget()
        connection = self._connection
        try:
            connection.execute("BEGIN")
            version = self._pragma("schema_version")
            found = schema.differences(connection.execute("SELECT type, name, sql FROM sqlite_master LIMIT 20"))
            if (encoding := self._pragma("encoding")) != "UTF-8":
                found.append(f"its encoding is {encoding}, not UTF-8")
            if (mode := self._pragma("journal_mode")) != "delete":
                found.append(f"its journal mode is {mode}, not delete")
            connection.execute("COMMIT")
        finally:
            self._roll_back()
        if not found and isinstance(version, int):
            self._schema_version = version
        return found

    def data_version(self) -> int:
        """A number that differs from the last one when another connection has committed since."""
        self._begin_budget()
        value = self._pragma("data_version")
        assert isinstance(value, int)  # SQLite's own counter, not the file's content
        return value

    def scan(self, *, from_id: int, row_limit: int) -> list[RawRow]:
        """NEW rows with ids from `from_id` up, in id order."""
        self._begin_budget()
        connection = self._connection
        try:
            connection.execute("BEGIN")
            self._require_schema()
            fetched = connection.execute(_SCAN, (from_id, row_limit)).fetchall()
            connection.execute("COMMIT")
        finally:
            self._roll_back()
        rows = [RawRow(r[0], (r[1], r[2]), (r[3], r[4]), (r[5], r[6]), (r[7], r[8])) for r in fetched]
        if any(later.id <= row.id for row, later in pairwise(rows)):
            raise sqlite3.DatabaseError("row ids are out of order")
        return rows

    def write(self, answers: Sequence[tuple[Answer, RawColumn | None]], *, handled_at_us: int) -> list[AnswerResult]:
        """Answer rows in one transaction, durable on return; on any error nothing is written and no lock is held.

        answers: each with the row's client_ref as it was read, or None where that is the Answer's client_ref.
        """
        self._begin_budget()
        connection = self._connection
        handled_at = _text_from_us(handled_at_us)
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._require_schema()
            results = [self._write_one(answer, reference, handled_at) for answer, reference in answers]
            # While a COMMIT waits for readers no producer gets in, so it must not wait: with no busy timeout it
            # fails at once and the rollback below lets go.
            connection.execute("COMMIT")
        finally:
            self._roll_back()
        return results

    def trim(self, *, answered_before_us: int, row_limit: int) -> int:
        """Deletes rows that were answered before then, at most so many; how many. As `write` in all else."""
        self._begin_budget()
        connection = self._connection
        connection.set_authorizer(_authorize_trim)
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._require_schema()
            count = connection.execute(_TRIM, (_text_from_us(answered_before_us), row_limit)).rowcount
            connection.execute("COMMIT")
        finally:
            self._roll_back()
            connection.set_authorizer(_authorize)
        return count

    def _write_one(self, answer: Answer, reference: RawColumn | None, handled_at: str) -> AnswerResult:
        values = (answer.status.value, storable_reason(answer.reason), answer.bracket_id, handled_at, answer.id)
        try:
            if reference is None:
                count = self._connection.execute(_ANSWER, (*values, answer.client_ref)).rowcount
            else:
                count = self._connection.execute(_ANSWER_BY_BYTES, (*values, reference[1])).rowcount
        except sqlite3.IntegrityError:
            return self._mend(values, reference[1] if reference is not None else answer.client_ref.encode())
        return AnswerResult.WRITTEN if count else AnswerResult.GONE

    def _mend(self, values: tuple[str | int | None, ...], reference: bytes | None) -> AnswerResult:
        try:
            count = self._connection.execute(_MEND, (*values, reference)).rowcount
        except sqlite3.IntegrityError:
            return AnswerResult.NOT_WRITTEN
        return AnswerResult.WRITTEN if count else AnswerResult.GONE

    def _require_schema(self) -> None:
        if self._schema_version is None or self._pragma("schema_version") != self._schema_version:
            raise SchemaChanged

    def _pragma(self, name: str) -> object:
        row = self._connection.execute(f"PRAGMA {name}").fetchone()
        return row[0] if row else None

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _text_from_us(at_us: int) -> str:
    seconds, microseconds = divmod(at_us, 1_000_000)
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{microseconds // 1000:03d}Z"


def _authorize(action: int, first: str | None, second: str | None, database: str | None, origin: str | None) -> int:
    """SQLite's question before it compiles each part of a statement. origin: the trigger or view it comes from."""
    allowed = False
    if origin is not None:
        allowed = False
    elif action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_TRANSACTION):
        allowed = True
    elif action == sqlite3.SQLITE_READ:
        allowed = first in _READABLE_TABLES and database == "main"
    elif action == sqlite3.SQLITE_UPDATE:
        allowed = first == schema.TABLE and second in (_UPDATED_COLUMNS | _MENDED_COLUMNS) and database == "main"
    elif action == sqlite3.SQLITE_FUNCTION:
        allowed = second in _FUNCTIONS
    elif action == sqlite3.SQLITE_PRAGMA:
        allowed = first in _PRAGMAS_ALLOWED and second is None
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _authorize_trim(
    action: int, first: str | None, second: str | None, database: str | None, origin: str | None
) -> int:
    """As `_authorize`, for the one statement that takes rows away; never for what a trigger of the file would do."""
    if action == sqlite3.SQLITE_DELETE and (first, database, origin) == (schema.TABLE, "main", None):
        return sqlite3.SQLITE_OK
    return _authorize(action, first, second, database, origin)
