"""The real store on a real file, driven by the virtual loop: no threads, so that a seed has one trace.

The store runs as it is, its group commits, savepoints, epochs and reads among them; only the driver's thread is left
out. Beside it the model goes on, and whatever the two say differently is a violation: that is how the model, on which
all other seeds run, is held to be the database's equal. At the end the production audit reads the file, and every
journal in it is decided again.
"""

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import StaticPool

from otocod.adapters.sqlite import readmodel
from otocod.adapters.sqlite.engine import (
    READER_PRAGMAS,
    WRITER_PRAGMAS,
    DiskFailed,
    DriverConnection,
    FailureKind,
    own_transactions,
)
from otocod.adapters.sqlite.replay import replay
from otocod.adapters.sqlite.store import SqliteStore
from otocod.audit import BrokerLeg, BrokerOrder, audit
from otocod.domain.brackets import Bracket
from otocod.domain.ids import AccountNumber, BracketId, ExternalIdentifier
from otocod.ports.store import Capability, Change, StoreFailed
from tests.simulation.disk import DiskFront, end
from tests.support.state_file import fresh_state

if TYPE_CHECKING:
    from tests.simulation.world import Life, World

T = TypeVar("T")
_TERMINAL = frozenset({"Filled", "Cancelled", "Expired", "Rejected", "Removed", "Partially Removed"})
# What these do shows in the broker's record and is no fault of the daemon's; the checker knows how to judge it.
_BEYOND_AUDIT = frozenset(
    {"doubled", "late_fills", "both_exits", "late_acceptance", "hand_closes", "foreign_orders", "second_daemon"}
)
_IN_MEMORY = Path("/dev/shm")  # a directory of our own is made in it


class _InlineConnection:
    """Where the store awaits the driver's thread: done at once, on this one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[None]:
        with self._connection.begin():
            yield

    async def execute(self, statement: Any) -> Any:
        return self._connection.execute(statement)

    async def close(self) -> None:
        self._connection.close()


class _InlineDriver:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        return function(self._connection, *arguments)


class _InlineEngine:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[_InlineConnection]:
        with self._engine.connect() as connection:
            yield _InlineConnection(connection)

    async def dispose(self) -> None:
        self._engine.dispose()


def _engine(path: Path, mode: str, begin: str, pragmas: tuple[tuple[str, str], ...]) -> Engine:
    uri = f"file:{quote(str(path))}?mode={mode}"
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=StaticPool)
    own_transactions(engine, begin=begin, pragmas=pragmas)
    return engine


class SqliteTwin:
    """The file, which outlasts every run, and all connections ever made to it."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._directory = tempfile.TemporaryDirectory(dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None)
        self._path = fresh_state(Path(self._directory.name))
        self._engines: list[Engine] = []

    async def open(self) -> SqliteStore:
        """As `SqliteStore.open`, without threads."""
        writer = _engine(self._path, "rw", "BEGIN IMMEDIATE", WRITER_PRAGMAS)
        reader = _engine(self._path, "ro", "BEGIN", READER_PRAGMAS)
        self._engines += [writer, reader]
        connection = writer.connect()
        raw = cast(sqlite3.Connection, connection.connection.driver_connection)
        store = SqliteStore(
            self._path,
            writer=cast(AsyncEngine, _InlineEngine(writer)),
            reader=cast(AsyncEngine, _InlineEngine(reader)),
            connection=cast(AsyncConnection, _InlineConnection(connection)),
            driver=cast(DriverConnection, _InlineDriver(raw)),
            on_disk_full=None,
        )
        await store._begin_epoch(is_opening=True)
        await store.restore_reserve()
        store._task = asyncio.create_task(store._write_until_closed(), name="store-writer")
        await store._has_started.wait()
        return store

    def close(self) -> None:
        """The production audit judges what is left, and the file goes."""
        for engine in self._engines:
            with suppress(Exception):
                engine.dispose()
        world = self._world
        orders, positions = None, None
        if not _BEYOND_AUDIT.intersection(world.plan.rates):
            orders = [_as_listed(order) for order in world.exchange.exchange_view()]
            positions = {str(account): world.exchange.true_positions(account) for account in world.accounts}
        try:
            for found in audit(self._path, orders, positions, now_us=world.now_us).violations:
                if found.rule == "S4" and world.plan.is_on("late_fills"):
                    continue  # an exit that had ended has filled, with or without its entry: the broker's doing
                world.violation(f"D7 the audit finds {found.rule}: {found.text}")
            self._replay()
        finally:
            self._directory.cleanup()

    def _replay(self) -> None:
        """Every journal in the file leads to the record beside it."""
        with closing(readmodel.open_readonly(self._path)) as connection:
            for bracket in readmodel.list_brackets(connection):
                found = replay(readmodel.recording(connection, bracket["bracket_id"]))
                if not found.is_same or found.unrecorded:
                    what = found.difference or found.astray or found.unrecorded
                    self._world.violation(f"D8 the journal of {bracket['client_ref']} leads elsewhere: {what}")


def _as_listed(order: dict[str, Any]) -> BrokerOrder:
    legs = tuple(
        BrokerLeg(
            leg["symbol"],
            leg["action"],
            leg["quantity"],
            leg["quantity"] - leg["remaining-quantity"],
            tuple(fill["fill-id"] for fill in leg["fills"]),
        )
        for leg in order["legs"]
    )
    replaces = order.get("replaces-order-id")
    return BrokerOrder(
        account=order["account-number"],
        broker_order_id=str(order["id"]),
        status=order["status"],
        is_terminal=order["status"] in _TERMINAL,
        source=order.get("source"),
        external_identifier=order.get("external-identifier"),
        replaces=None if replaces is None else str(replaces),
        legs=legs,
    )


class SqliteFront(DiskFront):
    def __init__(self, world: "World", life: "Life", twin: SqliteTwin) -> None:
        super().__init__(world, life)
        self._twin = twin
        self._store: SqliteStore | None = None
        self._written: list[tuple[Change, asyncio.Future[None]]] = []  # handed to the store, its answer not yet heard

    async def _opened(self) -> SqliteStore:
        if self._store is None:
            self._store = await self._twin.open()
        return self._store

    def crash(self) -> None:
        """What the store has done is done, heard or not; the rest of the last group may be as well."""
        self._catch_up()
        store = self._store
        super().crash()
        if store is not None and store._task is not None:
            store._task.cancel()

    def _try_write(self, change: Change) -> Exception | None:
        """On the last group before a crash; with the real file it has either been synced by then or is lost."""
        return DiskFailed(FailureKind.IO, "lost with the process")

    def _flush(self) -> None:
        self._is_flushing = False
        if self._life.is_dead:
            return
        group, self._pending = self._pending, []
        failure = self._failure()
        for change, future in group:
            if failure is not None or self._store is None:
                self._settle(change, future, failure or DiskFailed(FailureKind.CLOSED, "not open"))
                continue
            inner = self._store.commit(change)
            self._written.append((change, inner))
            inner.add_done_callback(partial(self._heard, change, future))

    def _heard(self, change: Change, future: "asyncio.Future[None]", _: "asyncio.Future[None]") -> None:
        for known, inner in self._written:
            if known is change:
                error = self._compared(change, inner)
                self._written.remove((known, inner))
                if not self._life.is_dead:
                    self._settle(change, future, error)
                return

    def _catch_up(self) -> None:
        for change, inner in self._written:
            if inner.done():
                self._compared(change, inner)
        self._written.clear()

    def _compared(self, change: Change, inner: "asyncio.Future[None]") -> Exception | None:
        """The store's verdict, and the model's beside it."""
        error = None if inner.cancelled() else inner.exception()
        is_bad = isinstance(error, StoreFailed) and error.is_of_change
        if error is not None and not is_bad:
            return cast(Exception, error)
        model_error = super()._try_write(change)
        if (error is None) != (model_error is None):
            self._world.violation(f"D6 the database says {error}, its model {model_error}, of one change")
        return cast(Exception | None, error)

    def _settle(self, change: Change, future: "asyncio.Future[None]", error: Exception | None) -> None:
        self._world.committed(change, error)
        if not future.done():
            end(future, error)

    def _same(self, what: str, real: T, model: T) -> T:
        if real != model:
            self._world.violation(f"D6 {what} is {str(real)[:300]} on disk and {str(model)[:300]} in the model")
        return real

    async def load_open(self) -> tuple[Bracket, ...]:
        store = await self._opened()
        model = await super().load_open()
        return self._same("load_open", await store.load_open(), model)

    async def bracket(self, bracket_id: BracketId) -> Bracket | None:
        store = await self._opened()
        model = await super().bracket(bracket_id)
        return self._same("bracket", await store.bracket(bracket_id), model)

    async def bracket_of(self, external_identifier: ExternalIdentifier) -> BracketId | None:
        store = await self._opened()
        model = await super().bracket_of(external_identifier)
        return self._same("bracket_of", await store.bracket_of(external_identifier), model)

    async def bracket_of_ref(self, client_ref: str) -> tuple[BracketId, AccountNumber, str] | None:
        store = await self._opened()
        model = await super().bracket_of_ref(client_ref)
        return self._same("bracket_of_ref", await store.bracket_of_ref(client_ref), model)

    async def settings(self) -> dict[str, str]:
        store = await self._opened()
        model = await super().settings()
        return self._same("settings", await store.settings(), model)

    async def capabilities(self) -> Sequence[Capability]:
        store = await self._opened()
        model = tuple(await super().capabilities())
        return self._same("capabilities", tuple(await store.capabilities()), model)

    async def close(self) -> None:
        await super().close()
        if self._store is not None:
            await self._store.close()
