"""Connections to state.db: pragmas, who begins a transaction, and what an error of the driver means.

One connection writes. Readers are read-only connections, which cannot checkpoint: SQLite before 3.51.3 can corrupt a
WAL that several connections write and checkpoint at once, and two connections of which one only reads are safe.
"""

import sqlite3
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

import aiosqlite
from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from otocod.ports.store import StoreFailed

T = TypeVar("T")

BUSY_TIMEOUT_MS = 5_000

_PRAGMAS = (
    # Nobody else writes, so a wait is somebody's mistake; it may be a short one, such as a person's own SQL.
    ("busy_timeout", str(BUSY_TIMEOUT_MS)),
    # SQLite does not enforce them unless told, for each connection.
    ("foreign_keys", "ON"),
    # The file's own triggers may call built-in functions only.
    ("trusted_schema", "OFF"),
    # No second place to fill up or to leave data in.
    ("temp_store", "MEMORY"),
    # Damage of a page is noticed when it is read, not when it is believed.
    ("cell_size_check", "ON"),
)
WRITER_PRAGMAS = (
    *_PRAGMAS,
    # Readers never wait for the writer, and a commit is one sync of one file.
    ("journal_mode", "WAL"),
    # NORMAL would lose acknowledged commits with the power.
    ("synchronous", "FULL"),
    # The store checkpoints by itself: SQLite ignores errors of an automatic checkpoint, a failed sync among them.
    ("wal_autocheckpoint", "0"),
    # After a burst the WAL shrinks again.
    ("journal_size_limit", str(64 * 1024 * 1024)),
    # 64 MiB; identifiers are random, so inserts touch pages all over.
    ("cache_size", str(-64 * 1024)),
)
READER_PRAGMAS = (*_PRAGMAS, ("query_only", "ON"))


class FailureKind(StrEnum):
    FULL = "full"  # no space: nothing of the group was written, later commits may succeed
    BUSY = "busy"  # another connection holds the write lock; as FULL
    IO = "io"  # read, write or sync failed: what is on disk is not known, and never will be by asking again
    CORRUPT = "corrupt"
    FENCED = "fenced"  # another daemon has opened the file since
    REJECTED = "rejected"  # this change alone is at fault
    CLOSED = "closed"

    @property
    def is_final(self) -> bool:
        """Whether the store takes nothing more until it is opened again."""
        return self in (FailureKind.IO, FailureKind.CORRUPT, FailureKind.FENCED, FailureKind.CLOSED)


class DiskFailed(StoreFailed):
    """The file, not the change, is at fault. `kind` says whether another try may ever succeed."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(f"{kind.value}: {detail}")
        self.kind = kind
        self.detail = detail
        self.is_final = kind.is_final
        self.is_fenced = kind is FailureKind.FENCED


class ChangeRejected(StoreFailed):
    """One change alone was refused, by a constraint or for what it holds; the others of its group are on disk."""

    kind = FailureKind.REJECTED
    is_of_change = True


_KIND_OF_CODE = {
    sqlite3.SQLITE_FULL: FailureKind.FULL,
    sqlite3.SQLITE_BUSY: FailureKind.BUSY,
    sqlite3.SQLITE_LOCKED: FailureKind.BUSY,
    sqlite3.SQLITE_IOERR: FailureKind.IO,
    # A file system that goes read-only does so because of an error beneath.
    sqlite3.SQLITE_READONLY: FailureKind.IO,
    sqlite3.SQLITE_CANTOPEN: FailureKind.IO,
    sqlite3.SQLITE_CORRUPT: FailureKind.CORRUPT,
    sqlite3.SQLITE_NOTADB: FailureKind.CORRUPT,
}


def kind_of_failure(error: BaseException) -> FailureKind | None:
    """What a driver's error says about the file; None: it is not about the file."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(origin, "sqlite_errorcode", None)
    if not isinstance(code, int):
        # A text column that holds no text: the driver itself finds that, and has no code for it.
        return FailureKind.CORRUPT if "Could not decode to UTF-8" in str(origin) else None
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:
        # The index of the WAL could not grow: a full disk, found before anything was written.
        return FailureKind.FULL
    return _KIND_OF_CODE.get(code & 0xFF)


class DriverConnection(aiosqlite.Connection):
    """The driver's connection, with one thing more: a function of ours on its thread, in one hop there and back.

    A group of changes is a dozen statements; each by itself would be three hops between threads.
    """

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """`function(connection, *arguments)`, which must not keep the connection."""
        return cast(T, await self._execute(function, self._conn, *arguments))  # type: ignore[no-untyped-call]


WRITER_BEGIN = "BEGIN IMMEDIATE"


def writer_engine(path: Path) -> AsyncEngine:
    """One connection. Transactions begin IMMEDIATE: upgrading a read lock later can fail at once, without a wait."""
    uri = f"file:{quote(str(path))}?mode=rw"

    async def connect() -> DriverConnection:
        connection = DriverConnection(partial(sqlite3.connect, uri, uri=True), iter_chunk_size=64)
        await connection
        return connection

    engine = create_async_engine("sqlite+aiosqlite://", async_creator=connect, poolclass=StaticPool)
    own_transactions(engine.sync_engine, begin=WRITER_BEGIN, pragmas=WRITER_PRAGMAS)
    return engine


def reader_engine(path: Path) -> AsyncEngine:
    """An engine of one read-only connection. Each transaction sees one moment of the file."""
    url = URL.create("sqlite+aiosqlite", database=f"file:{quote(str(path))}", query={"mode": "ro", "uri": "true"})
    engine = create_async_engine(url, pool_size=1, max_overflow=0)
    own_transactions(engine.sync_engine, begin="BEGIN", pragmas=READER_PRAGMAS)
    return engine


def own_transactions(engine: Engine, *, begin: str, pragmas: tuple[tuple[str, str], ...]) -> None:
    """Switches the driver's implicit BEGIN off and issues ours; sets the pragmas of every new connection."""

    @event.listens_for(engine, "connect")
    def _connected(dbapi_connection: Any, _record: object) -> None:
        # The driver would begin late, DEFERRED, and not before DDL.
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        try:
            for name, value in pragmas:
                cursor.execute(f"PRAGMA {name} = {value}")
        finally:
            cursor.close()

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)
