"""The store as one run of the daemon sees it: commits take a moment, fail by plan, and die with the process.

What is durable lives in a `ModelStore` that outlasts every run; each run has a front of its own to it.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from otocod.adapters.sqlite.engine import DiskFailed, FailureKind
from otocod.adapters.sqlite.journal import names_told
from otocod.domain.brackets import Bracket
from otocod.domain.ids import AccountNumber, BracketId, ExternalIdentifier
from otocod.domain.orders import Order
from otocod.ports.store import Alarm, BracketChange, Capability, Change
from tests.support.model_store import ModelStore

if TYPE_CHECKING:
    from tests.simulation.world import Life, World

_READ_S = 0.000_4


class Disk(ModelStore):
    """`views_told`: what an order's record said of one at the broker, each time it changed: ids, status, filled."""

    def __init__(self) -> None:
        super().__init__()
        self.ids_ever: dict[str, str] = {}
        self.ids_since_us: dict[str, int] = {}
        self.views_told: list[tuple[str, str, int]] = []
        self.epoch = 0  # one more with each run that opens it; only the newest may write
        self._orders: dict[str, tuple[Order, ...]] = {}

    def write(self, change: Change, at_us: int = 0) -> None:
        """Raises StoreFailed if the rules of the database do not allow it."""
        failure = self._failure_of(change)
        if failure is not None:
            raise failure
        known = self._brackets.get(change.after.bracket_id) if isinstance(change, BracketChange) else None
        self._apply(change)
        self.committed.append(change)
        if isinstance(change, BracketChange):
            after = change.after
            is_same = known is not None and known.orders is after.orders
            if known is None or not is_same or (known.staged, known.suspects) != (after.staged, after.suspects):
                self._note_ids(after, at_us)
            if not is_same:
                self._note_views(after)

    def _note_ids(self, after: Bracket, at_us: int) -> None:
        names = [o.external_identifier for o in after.orders]
        names += [name for _, name in (*after.staged, *after.suspects)]
        for name in names:
            if name not in self.ids_ever:
                self.ids_ever[name] = after.bracket_id
                self.ids_since_us[name] = at_us

    def _note_views(self, after: Bracket) -> None:
        known = {id(order) for order in self._orders.get(after.bracket_id, ())}
        for order in after.orders:
            if id(order) not in known:
                self.views_told += [
                    (
                        f"{order.external_identifier[:8]}/{v.broker_order_id}",
                        str(v.status_text),
                        sum(f.quantity for leg in v.legs for f in leg.fills),
                    )
                    for v in order.views
                ]
        self._orders[after.bracket_id] = after.orders

    def brackets(self) -> tuple[Bracket, ...]:
        return tuple(self._brackets.values())


class DiskFront:
    """Implements the Store port for one life of the daemon."""

    def __init__(self, world: "World", life: "Life") -> None:
        self._world = world
        self._life = life
        self._disk = world.disk
        self._disk.epoch += 1
        self._epoch = self._disk.epoch
        self._pending: list[tuple[Change, asyncio.Future[None]]] = []
        self._is_flushing = False
        self._final: DiskFailed | None = None

    def commit(self, change: Change) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = self._world.loop.create_future()
        if self._life.is_dead:
            return future
        self._pending.append((change, future))
        if not self._is_flushing:
            self._is_flushing = True
            self._world.later(self._delay_s(), self._flush)
        return future

    def _delay_s(self) -> float:
        random = self._world.plan.random("disk")
        if self._world.strikes("store_slow"):
            return random.uniform(0.05, 3.0)
        return random.uniform(0.000_2, 0.004)

    def crash(self) -> None:
        """The last group may have reached the disk without anybody having been told."""
        is_ours = self._final is None and self._epoch == self._disk.epoch
        if self._pending and is_ours and self._world.plan.random("disk").random() < 0.4:
            self._world.trace("disk", "the last commit was written, unacknowledged")
            for change, _ in self._pending:
                self._try_write(change)
        self._pending.clear()

    def _try_write(self, change: Change) -> Exception | None:
        try:
            self._disk.write(change, self._world.loop.now_us)
        except Exception as error:
            return error
        return None

    def _flush(self) -> None:
        self._is_flushing = False
        if self._life.is_dead:
            return
        group, self._pending = self._pending, []
        failure = self._failure()
        for change, future in group:
            error = failure or self._try_write(change)
            self._world.committed(change, error)
            if not future.done():
                end(future, error)

    def _failure(self) -> DiskFailed | None:
        if self._final is None and self._epoch != self._disk.epoch:
            self._final = DiskFailed(FailureKind.FENCED, "simulated: another daemon has opened it since")
        if self._final is None and self._world.strikes_once("store_dies"):
            self._final = DiskFailed(FailureKind.IO, "simulated sync failure")
        if self._final is not None:
            return DiskFailed(self._final.kind, self._final.detail)
        if self._world.is_disk_full:
            return DiskFailed(FailureKind.FULL, "simulated full disk")
        return None

    async def _read(self) -> None:
        await asyncio.sleep(_READ_S)

    async def load_open(self) -> tuple[Bracket, ...]:
        await self._read()
        return await self._disk.load_open()

    async def bracket(self, bracket_id: BracketId) -> Bracket | None:
        await self._read()
        return await self._disk.bracket(bracket_id)

    async def bracket_of(self, external_identifier: ExternalIdentifier) -> BracketId | None:
        await self._read()
        return await self._disk.bracket_of(external_identifier)

    async def bracket_of_ref(self, client_ref: str) -> tuple[BracketId, AccountNumber, str] | None:
        await self._read()
        return await self._disk.bracket_of_ref(client_ref)

    async def settings(self) -> dict[str, str]:
        await self._read()
        return await self._disk.settings()

    async def capabilities(self) -> Sequence[Capability]:
        await self._read()
        return await self._disk.capabilities()

    async def close(self) -> None:
        while self._pending and not self._life.is_dead:  # noqa: ASYNC110  # virtual time, and the flush is planned
            await asyncio.sleep(0.001)
        self._final = self._final or DiskFailed(FailureKind.CLOSED, "the store is closed")


def end(future: "asyncio.Future[None]", error: Exception | None) -> None:
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        future.exception()  # whoever asks will be told; nobody has to


def plain_bracket(bracket: Bracket) -> dict[str, Any]:
    """A record as the checker reads it: text and numbers, no types of the daemon."""
    return {
        "bracket_id": str(bracket.bracket_id),
        "client_ref": bracket.client_ref,
        "version": bracket.version,
        "state": str(bracket.state),
        "outcome": None if bracket.outcome is None else str(bracket.outcome),
        "attention": bracket.attention,
        "is_frozen": bracket.is_frozen,
        "is_held": bracket.is_held,
        "protection": str(bracket.protection),
        "rest": str(bracket.rest or bracket.request.rest),
        "wants_stop": bracket.request.stop is not None,
        "wants_target": bracket.request.target is not None,
        "unprotected_us": bracket.unprotected_us,
        "is_unprotected": bracket.unprotected_since_us is not None,
        "legs": {leg.symbol: leg.quantity for leg in bracket.request.entry.legs},
        "size": bracket.size,
        "orders": [
            {
                "role": str(order.role),
                "external_identifier": str(order.external_identifier),
                "broker_order_ids": [str(view.broker_order_id) for view in order.views],
                "broker_statuses": [str(view.status_text) for view in order.views],
                "state": str(order.state),
                "group": order.group,
                "replaces": order.replaces,
                "fills": [
                    (str(fill.fill_id), leg.symbol, fill.quantity)
                    for view in order.views
                    for leg in view.legs
                    for fill in leg.fills
                ],
            }
            for order in bracket.orders
        ],
        "staged": [str(name) for _, name in (*bracket.staged, *bracket.suspects)],
    }


def plain_journal(committed: Sequence[Change]) -> list[dict[str, Any]]:
    """Every line of the journal that became durable, in order."""
    return [
        {
            "bracket_id": str(change.after.bracket_id),
            "event": entry.event,
            "from": None if entry.from_state is None else str(entry.from_state),
            "to": str(entry.to_state),
            "detail": entry.detail,
        }
        for change in committed
        if isinstance(change, BracketChange)
        for entry in change.journal
    ]


def describe(change: Change) -> str:
    match change:
        case BracketChange():
            lines = "; ".join(
                f"{entry.event}"
                + (f" -> {entry.to_state}" if entry.from_state != entry.to_state else "")
                + (f" ({entry.detail})" if entry.detail else "")
                for entry in change.journal
            )
            return f"{change.after.client_ref} v{change.after.version} {lines or names_told(change.steps)}"
        case Alarm():
            return f"alarm {change.code}"
        case _:
            return repr(change)
