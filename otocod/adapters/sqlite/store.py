"""The Store port on SQLite: one writer task, one writing connection, one transaction for everything queued.

The task owns the connection and is never cancelled: a cancelled commit would leave nobody who knows whether it took
place. It ends when the store is closed, after the last change handed over, and lets go of the file itself.

A failure is either the file's or one change's. A change that is refused is found by writing the group again, each
change in a SAVEPOINT of its own; the others are committed. A full disk or a foreign lock fails the group and nothing
else. After a failed read, write or sync nothing is believed any more: the store refuses everything until it is opened
anew, because a second sync that succeeds says nothing about the pages that the first one lost.
"""

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from sqlalchemy import Select, literal_column, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from otocod.adapters.sqlite import tables
from otocod.adapters.sqlite.check import EPOCH_SETTING, free_reserve, make_reserve, require_unlost, write_mark
from otocod.adapters.sqlite.codec import (
    PUT_SETTING,
    Row,
    Statement,
    StoredRow,
    Value,
    bracket_from_rows,
    capability_from_row,
    order_from_row,
    rows_from_change,
)
from otocod.adapters.sqlite.engine import (
    WRITER_BEGIN,
    ChangeRejected,
    DiskFailed,
    DriverConnection,
    FailureKind,
    kind_of_failure,
    reader_engine,
    writer_engine,
)
from otocod.adapters.sqlite.tables import IdStatus
from otocod.domain.brackets import Bracket
from otocod.domain.ids import AccountNumber, BracketId, ExternalIdentifier
from otocod.domain.orders import Order
from otocod.domain.specs import Role
from otocod.ports.store import BracketChange, Capability, Change, StoreFailed

T = TypeVar("T")

# Bounds the time that one transaction takes and what one failure sets back.
MAX_CHANGES_PER_COMMIT = 500
# The WAL is checkpointed when the writer is idle and this many rows were written; at the second figure in any case.
CHECKPOINT_ROWS_IDLE = 2_000
CHECKPOINT_ROWS_BUSY = 50_000
# A change that nobody waits for lies beside orders that are leaving: encoding and writing it at once would take the
# processor and the interpreter from them. Measured: 1.7 times as long from the fill to the wire, 1.2 times with this.
BESIDE_DELAY_S = 0.002
# Each waits BUSY_TIMEOUT_MS in the driver.
BUSY_TRIES = 3

_b, _o, _ids = tables.brackets, tables.orders, tables.external_identifiers
# Literals, as in the partial indexes: SQLite cannot know what a parameter will be.
_is_open = _b.c.state != literal_column("'CLOSED'")
_is_unused = _ids.c.status.in_([literal_column(f"'{status}'") for status in (IdStatus.STAGED, IdStatus.SUSPECT)])

_orders = select(_o).order_by(_o.c.bracket_id, _o.c.position)
_unused = select(_ids).where(_is_unused).order_by(_ids.c.bracket_id, _ids.c.position)
OPEN_BRACKETS = select(_b).where(_is_open).order_by(_b.c.created_at_us, _b.c.bracket_id)
# Not joins: SQLite would begin with the larger table, where closed brackets gather for years.
_open_ids = select(_b.c.bracket_id).where(_is_open)
OPEN_ORDERS = _orders.where(_o.c.bracket_id.in_(_open_ids))
OPEN_UNUSED = _unused.where(_ids.c.bracket_id.in_(_open_ids))
_EPOCH_QUERY = "SELECT value FROM settings WHERE name = ?"


class _Item(NamedTuple):
    is_acceptance: bool
    rows: list[Row]
    future: "asyncio.Future[None]"


_FoundRefs = dict[str, tuple[BracketId, AccountNumber, str]]


@dataclass(slots=True)
class _RefLookup:
    refs: set[str]
    task: "asyncio.Task[_FoundRefs] | None" = None


class _GroupRefused(Exception):
    """One of the changes is bad, and which one is not known."""


class _WrongRowCount(Exception):
    """A statement changed more or fewer rows than it was given: a stale version, an id of another bracket."""


class SqliteStore:
    """See the Store port. Called from the event loop that opened it. A read sees what is committed when it begins."""

    def __init__(
        self,
        path: Path,
        *,
        writer: AsyncEngine,
        reader: AsyncEngine,
        connection: AsyncConnection,
        driver: DriverConnection,
        on_disk_full: Callable[[], None] | None,
    ) -> None:
        """For `open` only. `driver` is what `connection`, the one of `writer`, stands on."""
        self._path = path
        self._writer = writer
        self._reader = reader
        self._connection = connection
        self._driver = driver
        self._epoch = 0
        self._queue: list[tuple[Change, asyncio.Future[None]]] = []
        self._in_flight: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._has_started = asyncio.Event()
        self._is_closing = False
        self._failure: DiskFailed | None = None
        self._has_reserve = False
        self._is_on_reserve = False
        self._on_disk_full = on_disk_full
        self._rows_since_checkpoint = 0
        self._task: asyncio.Task[None] | None = None
        self._next_lookup: _RefLookup | None = None

    @classmethod
    async def open(cls, path: Path, *, on_disk_full: Callable[[], None] | None = None) -> "SqliteStore":
        """Opens a file of the present schema. Raises NotFit if commits were taken away from it, or DiskFailed.

        `on_disk_full` is called when the reserve has just been freed: from then on acceptances fail with FULL, and
        everything else goes on, until there is room to set the reserve aside again.
        """
        writer, reader = writer_engine(path), reader_engine(path)
        try:
            with _disk_errors():
                connection = await writer.connect()
                driver = (await connection.get_raw_connection()).driver_connection
                store = cls(
                    path,
                    writer=writer,
                    reader=reader,
                    connection=connection,
                    driver=cast(DriverConnection, driver),
                    on_disk_full=on_disk_full,
                )
                await store._begin_epoch(is_opening=True)
            await store.restore_reserve()
        except BaseException:
            await reader.dispose()
            await writer.dispose()
            raise
        store._task = asyncio.create_task(store._write_until_closed(), name="store-writer")
        # A task that is cancelled before its first step never reaches its `finally`.
        await store._has_started.wait()
        return store

    def commit(self, change: Change) -> "asyncio.Future[None]":
        future = asyncio.get_running_loop().create_future()
        if self._failure is not None:
            future.set_exception(DiskFailed(self._failure.kind, self._failure.detail))
        elif self._is_closing:
            future.set_exception(DiskFailed(FailureKind.CLOSED, "the store is closing"))
        else:
            self._queue.append((change, future))
            if isinstance(change, BracketChange) and not change.is_awaited:
                asyncio.get_running_loop().call_later(BESIDE_DELAY_S, self._wake.set)
            else:
                self._wake.set()
        return future

    async def load_open(self) -> tuple[Bracket, ...]:
        return await self._brackets(OPEN_BRACKETS, OPEN_ORDERS, OPEN_UNUSED)

    async def bracket(self, bracket_id: BracketId) -> Bracket | None:
        found = await self._brackets(
            select(_b).where(_b.c.bracket_id == bracket_id),
            _orders.where(_o.c.bracket_id == bracket_id),
            _unused.where(_ids.c.bracket_id == bracket_id),
        )
        return found[0] if found else None

    async def bracket_of(self, external_identifier: ExternalIdentifier) -> BracketId | None:
        rows = await self._rows(select(_ids.c.bracket_id).where(_ids.c.external_identifier == external_identifier))
        return BracketId(rows[0]["bracket_id"]) if rows else None

    async def bracket_of_ref(self, client_ref: str) -> tuple[BracketId, AccountNumber, str] | None:
        """What is asked for in one turn of the loop is one query."""
        lookup = self._next_lookup
        if lookup is None:
            lookup = self._next_lookup = _RefLookup(set())
            lookup.task = asyncio.get_running_loop().create_task(self._look_up(lookup), name="refs")
        lookup.refs.add(client_ref)
        assert lookup.task is not None
        return (await asyncio.shield(lookup.task)).get(client_ref)

    async def _look_up(self, lookup: "_RefLookup") -> "_FoundRefs":
        self._next_lookup = None
        columns = (_b.c.client_ref, _b.c.bracket_id, _b.c.account, _b.c.request_text)
        rows = await self._rows(select(*columns).where(_b.c.client_ref.in_(sorted(lookup.refs))))
        return {
            row["client_ref"]: (BracketId(row["bracket_id"]), AccountNumber(row["account"]), row["request_text"])
            for row in rows
        }

    async def settings(self) -> dict[str, str]:
        rows = await self._rows(select(tables.settings).where(tables.settings.c.name != EPOCH_SETTING))
        return {row["name"]: row["value"] for row in rows}

    async def capabilities(self) -> Sequence[Capability]:
        table = tables.capabilities
        rows = await self._rows(select(table).order_by(table.c.account, table.c.product, table.c.protection))
        return tuple(capability_from_row(row) for row in rows)

    async def close(self) -> None:
        self._is_closing = True
        self._wake.set()
        if self._task is not None:
            # A caller that is cancelled here leaves the writer to finish by itself.
            await asyncio.shield(self._task)

    async def answers(self) -> None:
        """Returns once the writer's thread has come round, behind whatever it is at; at once if the store has failed
        or is closing. Never returns while that thread hangs.
        """
        if self._failure is None and not self._is_closing:
            # The driver's word for a connection that has been closed meanwhile.
            with suppress(ValueError):
                await self._driver.run(_come_round)

    @property
    def failure(self) -> FailureKind | None:
        """Why the store takes nothing more; None while it works. A full disk is no such reason."""
        return None if self._failure is None else self._failure.kind

    @property
    def has_reserve(self) -> bool:
        """False from the moment a full disk took the reserve: no acceptances, and somebody must make room."""
        return self._has_reserve

    async def restore_reserve(self) -> bool:
        """Sets the reserve aside again if there is ample room; whether it is there now."""
        self._has_reserve = await asyncio.to_thread(make_reserve, self._path)
        self._is_on_reserve = self._is_on_reserve and not self._has_reserve
        return self._has_reserve

    async def _brackets(self, brackets: Select[Any], orders: Select[Any], unused: Select[Any]) -> tuple[Bracket, ...]:
        async with self._reading() as connection:
            bracket_rows = (await connection.execute(brackets)).mappings().all()
            order_rows = (await connection.execute(orders)).mappings().all()
            unused_rows = (await connection.execute(unused)).mappings().all()
        try:
            return _brackets_from_rows(bracket_rows, order_rows, unused_rows)
        # What the codec raises over a record that it did not write. SQLite's own check does not look into texts.
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise DiskFailed(FailureKind.CORRUPT, f"a bracket's record cannot be read ({error!r})") from error

    async def _rows(self, statement: Select[Any]) -> Sequence[StoredRow]:
        async with self._reading() as connection:
            rows: Sequence[StoredRow] = (await connection.execute(statement)).mappings().all()
        return rows

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        with _disk_errors():
            async with self._reader.connect() as connection:
                yield connection

    async def _write_until_closed(self) -> None:
        self._has_started.set()
        try:
            while not (self._is_closing and not self._queue):
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    batch, self._queue = self._queue[:MAX_CHANGES_PER_COMMIT], self._queue[MAX_CHANGES_PER_COMMIT:]
                    self._in_flight = [future for _, future in batch]
                    await self._commit(batch)
                    await self._checkpoint_if(self._rows_since_checkpoint >= CHECKPOINT_ROWS_BUSY)
                await self._checkpoint_if(self._rows_since_checkpoint >= CHECKPOINT_ROWS_IDLE)
        except BaseException as error:
            # Somebody cancelled the one task that may not be: what was under way may or may not be on disk.
            self._failure = self._failure or DiskFailed(FailureKind.IO, f"the writer ended: {error!r}")
            raise
        finally:
            self._abandon(FailureKind.CLOSED if self._failure is None else self._failure.kind)
            await self._let_go()

    def _abandon(self, kind: FailureKind) -> None:
        futures = [*self._in_flight, *(future for _, future in self._queue)]
        self._queue.clear()
        self._is_closing = True
        for future in futures:
            if not future.done():
                future.set_exception(DiskFailed(kind, "the store was closed before the change was known to be on disk"))

    async def _let_go(self) -> None:
        try:
            await self._reader.dispose()
            await self._connection.close()
        finally:
            # A connection of the driver that is left open keeps a thread, and the interpreter, alive.
            await self._writer.dispose()

    async def _commit(self, batch: Iterable[tuple[Change, "asyncio.Future[None]"]]) -> None:
        items = _encoded(batch)
        if self._is_on_reserve and not await self.restore_reserve():
            items = self._without_acceptances(items)
        write = self._write_together
        busy_tries = 0
        while items:
            try:
                verdicts = await write(items)
            except _GroupRefused:
                write = self._write_apart
            except DiskFailed as failure:
                busy_tries += failure.kind is FailureKind.BUSY
                if failure.kind is FailureKind.BUSY and busy_tries < BUSY_TRIES:
                    continue
                if failure.kind is FailureKind.FULL and await self._go_on_reserve():
                    items = self._without_acceptances(items)
                    continue
                self._fail(items, failure)
                return
            else:
                _settle(items, verdicts)
                self._rows_since_checkpoint += sum(len(item.rows) for item in items)
                return

    async def _go_on_reserve(self) -> bool:
        """Frees the reserve; whether that made room."""
        if not self._has_reserve:
            return False
        self._has_reserve = False
        self._is_on_reserve = True
        if self._on_disk_full is not None:
            self._on_disk_full()
        return await asyncio.to_thread(free_reserve, self._path)

    def _without_acceptances(self, items: Sequence[_Item]) -> list[_Item]:
        """The reserve is for the brackets there are: new ones are refused until there is room for it again."""
        self._fail((item for item in items if item.is_acceptance), DiskFailed(FailureKind.FULL, "the disk is full"))
        return [item for item in items if not item.is_acceptance]

    def _fail(self, items: Iterable[_Item], failure: DiskFailed) -> None:
        waiting = [item.future for item in items]
        if failure.kind.is_final:
            self._failure = failure
            waiting += [future for _, future in self._queue]
            self._queue.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(DiskFailed(failure.kind, failure.detail))

    async def _write_together(self, items: Sequence[_Item]) -> Sequence[ChangeRejected | None]:
        rows = [row for item in items for row in item.rows]
        try:
            with _disk_errors():
                await self._driver.run(_in_transaction, _run_fenced, self._epoch, rows)
        except DiskFailed:
            raise
        except Exception as error:
            raise _GroupRefused from error
        return [None] * len(items)

    async def _write_apart(self, items: Sequence[_Item]) -> Sequence[ChangeRejected | None]:
        rows_of_items = [item.rows for item in items]
        try:
            with _disk_errors():
                return await self._driver.run(_in_transaction, _run_each_in_savepoint, self._epoch, rows_of_items)
        except DiskFailed:
            raise
        except Exception as error:
            # Not a change's fault, and not an error the file is known by: nothing can be said about it.
            raise DiskFailed(FailureKind.IO, repr(error)) from error

    async def _checkpoint_if(self, is_due: bool) -> None:
        if not is_due or self._failure is not None:
            return
        try:
            with _disk_errors():
                await self._driver.run(_checkpoint)
                await self._begin_epoch()
        except DiskFailed as failure:
            if failure.kind.is_final:
                self._fail((), failure)
        else:
            self._rows_since_checkpoint = 0

    async def _begin_epoch(self, *, is_opening: bool = False) -> None:
        """One more epoch, into the WAL and then into the mark beside the file: a WAL that is lost is always missed."""
        async with self._connection.begin():
            present = await self._driver.run(_stored_epoch)
            if is_opening:
                require_unlost(self._path, present)
            elif present != self._epoch:
                raise _fenced()
            await self._driver.run(_run, [(PUT_SETTING, (EPOCH_SETTING, str(present + 1)))])
        self._epoch = present + 1
        try:
            await asyncio.to_thread(write_mark, self._path, self._epoch)
        except OSError:
            # No room, most likely. The older mark stays and only notices less.
            return


# What follows runs on the driver's thread.


def _come_round(_connection: sqlite3.Connection) -> None:
    return None


def _in_transaction(connection: sqlite3.Connection, work: Callable[..., T], *arguments: object) -> T:
    """A whole transaction in one hop between threads. Through the engine BEGIN and COMMIT are several each, and the
    loop, which may have orders to send, would do the switching.
    """
    connection.execute(WRITER_BEGIN)
    try:
        result = work(connection, *arguments)
        connection.execute("COMMIT")
    except BaseException:
        # Some failures have ended the transaction already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def _run_fenced(connection: sqlite3.Connection, epoch: int, rows: Iterable[Row]) -> None:
    # The lock file keeps a second daemon out; this holds even where somebody has removed the lock file.
    if _stored_epoch(connection) != epoch:
        raise _fenced()
    _run(connection, rows)


def _run_each_in_savepoint(
    connection: sqlite3.Connection, epoch: int, rows_of_items: Iterable[Iterable[Row]]
) -> list[ChangeRejected | None]:
    return [_run_in_savepoint(connection, epoch, rows) for rows in rows_of_items]


def _run_in_savepoint(connection: sqlite3.Connection, epoch: int, rows: Iterable[Row]) -> ChangeRejected | None:
    connection.execute("SAVEPOINT one_change")
    verdict = None
    try:
        _run_fenced(connection, epoch, rows)
    except Exception as error:
        # A failure of the file has ended the transaction, and the savepoint with it.
        if isinstance(error, DiskFailed) or kind_of_failure(error) is not None:
            raise
        connection.execute("ROLLBACK TO one_change")
        verdict = ChangeRejected(str(error))
        verdict.__cause__ = error
    connection.execute("RELEASE one_change")
    return verdict


def _run(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Each statement once, with all its rows in the order given. Raises _WrongRowCount."""
    rows_of: dict[Statement, list[tuple[Value, ...]]] = {}
    for statement, values in rows:
        rows_of.setdefault(statement, []).append(values)
    for statement in sorted(rows_of, key=lambda statement: statement.rank):
        given = rows_of[statement]
        changed = connection.executemany(statement.sql, given).rowcount
        if changed != len(given):
            raise _WrongRowCount(f"{changed} of {len(given)} rows changed by: {statement.sql.split(' SET ')[0]}")


def _stored_epoch(connection: sqlite3.Connection) -> int:
    row = connection.execute(_EPOCH_QUERY, (EPOCH_SETTING,)).fetchone()
    return 0 if row is None else int(row[0])


def _checkpoint(connection: sqlite3.Connection) -> None:
    # PASSIVE: readers are not waited for; what they hold back goes with the next one.
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _fenced() -> DiskFailed:
    return DiskFailed(FailureKind.FENCED, "another process has opened state.db for writing since")


def _encoded(batch: Iterable[tuple[Change, "asyncio.Future[None]"]]) -> list[_Item]:
    items = []
    for change, future in batch:
        try:
            is_acceptance = isinstance(change, BracketChange) and change.before is None
            items.append(_Item(is_acceptance, rows_from_change(change), future))
        except Exception as error:
            if not future.done():
                rejected = ChangeRejected(f"cannot be stored: {error!r}")
                rejected.__cause__ = error
                future.set_exception(rejected)
    return items


def _settle(items: Iterable[_Item], verdicts: Iterable[StoreFailed | None]) -> None:
    for item, verdict in zip(items, verdicts, strict=True):
        if item.future.done():
            continue  # the caller no longer waits; the change is on disk all the same
        if verdict is None:
            item.future.set_result(None)
        else:
            item.future.set_exception(verdict)


def _brackets_from_rows(
    bracket_rows: Sequence[StoredRow], order_rows: Sequence[StoredRow], unused_rows: Sequence[StoredRow]
) -> tuple[Bracket, ...]:
    orders_of: dict[str, list[Order]] = defaultdict(list)
    for row in order_rows:
        orders_of[row["bracket_id"]].append(order_from_row(row))
    unused_of: dict[str, list[tuple[Role, ExternalIdentifier, IdStatus]]] = defaultdict(list)
    for row in unused_rows:
        name = ExternalIdentifier(row["external_identifier"])
        unused_of[row["bracket_id"]].append((Role(row["role"]), name, IdStatus(row["status"])))
    return tuple(
        bracket_from_rows(row, orders_of[row["bracket_id"]], unused_of[row["bracket_id"]]) for row in bracket_rows
    )


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Turns errors of the file into DiskFailed and lets the others through."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        kind = kind_of_failure(error)
        if kind is None:
            raise
        detail = str(error.orig) if isinstance(error, DBAPIError) else str(error)
        raise DiskFailed(kind, detail) from error
    except UnicodeDecodeError as error:
        # What should have been the driver's own error: it cannot put a text that is none into words.
        raise DiskFailed(FailureKind.CORRUPT, str(error)) from error
