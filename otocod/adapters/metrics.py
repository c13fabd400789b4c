"""Figures for Prometheus, as text on the admin socket and, if wanted, on a port of loopback.

Most are read from the engine's memory when somebody asks, so they cost nothing in between. What cannot be read later is
counted where it has just been: after an answer of the broker, after a commit. Nothing here is between a fill and the
exits. No label holds an account, a symbol or an identifier.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from otocod import __version__
from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.ids import AccountNumber, BracketId, ExternalIdentifier
from otocod.domain.orders import OrderState
from otocod.domain.specs import Role
from otocod.engine.executor import Answered
from otocod.engine.halts import HaltLevel
from otocod.engine.supervisor import Supervisor
from otocod.logs import get_log
from otocod.ports.requests import RequestAnswer
from otocod.ports.store import BracketChange, Capability, Change, Store

log = get_log(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECOND_US = 1_000_000
LOOPBACK = "127.0.0.1"
_SLICE = 100  # brackets counted before the loop may turn
# From a local exchange to a broker that hangs.
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# Alerts' figures: (channel, delivered, failed tries in a row).
AlertFigures = Callable[[], Iterable[tuple[str, int, int]]]


@dataclass(slots=True)
class _Count:
    """Over the open brackets at one moment, or nearly: they may change while they are counted."""

    by_state: dict[tuple[str], int] = field(
        default_factory=lambda: {(state.value,): 0 for state in BracketState if state is not BracketState.CLOSED}
    )
    unknown: int = 0
    attention: int = 0
    frozen: int = 0
    unprotected: int = 0
    longest_us: int = 0

    def add(self, bracket: Bracket, now_us: int) -> None:
        self.by_state[(bracket.state.value,)] += 1
        self.unknown += sum(order.state is OrderState.UNKNOWN for order in bracket.orders)
        self.attention += bracket.attention is not None
        self.frozen += bracket.is_frozen
        if bracket.unprotected_since_us is not None:
            self.unprotected += 1
            self.longest_us = max(self.longest_us, now_us - bracket.unprotected_since_us)


class Metrics(Collector):
    """One for the process. `supervisor` is given once it is made."""

    def __init__(self, *, environment: str, alerts: AlertFigures, alarms: Callable[[], dict[str, int]]) -> None:
        self._environment = environment
        self._alerts = alerts
        self._alarms = alarms
        self.supervisor: Supervisor | None = None
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside each counter, which nobody looks at
        self._registry = CollectorRegistry(auto_describe=False)
        self._commands = Counter(
            "otocod_broker_commands",
            "Orders and cancels sent to the broker, by kind, role and outcome",
            ("kind", "role", "outcome"),
            registry=self._registry,
        )
        self._requests = Counter(
            "otocod_requests", "Rows of the queue that were answered", ("outcome",), registry=self._registry
        )
        self._reaction = Histogram(
            "otocod_exit_reaction_seconds",
            "From knowing that the entry is done to handing the first exits to the connection",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._answered = Histogram(
            "otocod_exit_answered_seconds",
            "From knowing that the entry is done to the broker's answer to the first exits",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._unprotected = Histogram(
            "otocod_unprotected_seconds",
            "Stretches for which a position was without the protection it was asked for",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._closed = Counter(
            "otocod_brackets_closed", "Brackets that were closed, by outcome", ("outcome",), registry=self._registry
        )
        self._count = _Count()
        self._registry.register(self)

    async def text(self) -> bytes:
        """In slices: there may be thousands of brackets, and a fill must not wait for whoever looks at figures."""
        if self.supervisor is not None:
            count = _Count()
            brackets = self.supervisor.mailboxes.open_brackets()
            for start in range(0, len(brackets), _SLICE):
                now_us = self.supervisor.clock.now_us()
                for bracket in brackets[start : start + _SLICE]:
                    count.add(bracket, now_us)
                await asyncio.sleep(0)
            self._count = count
        return generate_latest(self._registry)

    # Counted as it happens.

    def answered(self, answered: Answered) -> None:
        """The executor's hook: the broker has answered, or has not."""
        outcome = type(answered.outcome).__name__.lower()
        self._commands.labels(answered.kind, answered.role.value, outcome).inc()
        if answered.kind != "submit" or answered.role is Role.ENTRY or not _are_first_exits(answered):
            return
        since_us = answered.bracket.exits_allowed_us
        if since_us is not None:
            self._reaction.observe(max(answered.posted_us - since_us, 0) / SECOND_US)
            self._answered.observe(max(answered.answered_us - since_us, 0) / SECOND_US)

    def committed(self, change: BracketChange) -> None:
        """A decision is on disk."""
        before, after = change.before, change.after
        if before is None:
            return
        if after.unprotected_us > before.unprotected_us:
            self._unprotected.observe((after.unprotected_us - before.unprotected_us) / SECOND_US)
        if after.state is BracketState.CLOSED and before.state is not BracketState.CLOSED:
            self._closed.labels("" if after.outcome is None else after.outcome.value).inc()

    def request_answered(self, answers: Sequence[RequestAnswer]) -> None:
        for answer in answers:
            self._requests.labels("rejected" if answer.bracket_id is None else "accepted").inc()

    # Read when asked.

    def collect(self) -> Iterable[Metric]:
        yield _gauge_by("otocod_info", "Always 1", ("version", "environment"), {(__version__, self._environment): 1})
        yield _counter_by("otocod_alarms", "Alarms raised since the start, by name", ("code",), _keyed(self._alarms()))
        figures = list(self._alerts())
        yield _counter_by(
            "otocod_alerts_delivered",
            "Alerts delivered since the start",
            ("channel",),
            {(channel,): sent for channel, sent, _ in figures},
        )
        yield _gauge_by(
            "otocod_alert_failures",
            "Failed tries in a row of a channel; 0 when the last message was taken",
            ("channel",),
            {(channel,): failed for channel, _, failed in figures},
        )
        if self.supervisor is not None:
            yield from _of_engine(self.supervisor, self._count)


def _are_first_exits(answered: Answered) -> bool:
    """Not a repeat, a swap or a close: no exit was intended before these."""
    names = {member.external_identifier for member in answered.members}
    exits = answered.bracket.exits
    ours = [order.intended_at_us for order in exits if order.external_identifier in names]
    return bool(ours) and all(order.intended_at_us >= min(ours) for order in exits)


def _of_engine(supervisor: Supervisor, count: _Count) -> Iterable[Metric]:
    now_us = supervisor.clock.now_us()
    yield _gauge("otocod_ready", "1 once reconciled with the broker", int(supervisor.is_ready))
    yield _gauge_by(
        "otocod_halt_level",
        "1 at the level of halt that is in force",
        ("level",),
        {(level.value,): int(level is supervisor.halts.level) for level in HaltLevel},
    )
    yield from _of_brackets(count)
    oldest_us = supervisor.intake.oldest_waiting_us
    yield _gauge("otocod_queue_waiting", "Requests that wait in the queue", supervisor.intake.waiting)
    yield _gauge("otocod_queue_age_seconds", "Age of the oldest of them", _age_s(now_us, oldest_us) or 0.0)
    yield from _age(
        "otocod_reconcile_age_seconds",
        "Since the last complete comparison with the broker",
        now_us,
        supervisor.reconciler.last_completed_us,
    )
    yield _gauge("otocod_streamer_up", "1 while the account streamer is healthy", int(supervisor.streamer.is_healthy))
    yield from _age(
        "otocod_streamer_age_seconds",
        "Since the last message of the account streamer",
        now_us,
        supervisor.streamer.last_message_us,
    )
    yield _gauge(
        "otocod_clock_offset_seconds",
        "The broker's clock less ours; known to the second",
        supervisor.reconciler.clock_offset_us / SECOND_US,
    )
    yield _gauge("otocod_orders_today", "Orders sent in this day of UTC", supervisor.risk.orders_today)
    yield _gauge(
        "otocod_risk_today_dollars",
        "What the brackets entered in this day of UTC can lose at most",
        float(supervisor.risk.risk_today),
    )


def _of_brackets(count: _Count) -> Iterable[Metric]:
    yield _gauge_by("otocod_brackets", "Open brackets by state", ("state",), count.by_state)
    yield _gauge(
        "otocod_unknown_outcomes", "Orders of which it is not known whether the broker has them", count.unknown
    )
    yield _gauge("otocod_attention", "Open brackets that a person must look at", count.attention)
    yield _gauge("otocod_frozen", "Brackets that are frozen", count.frozen)
    yield _gauge("otocod_unprotected", "Positions that are without protection now", count.unprotected)
    longest_s = count.longest_us / SECOND_US
    yield _gauge("otocod_unprotected_longest_seconds", "And for how long the longest of them", longest_s)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


Labelled = Mapping[tuple[str], int] | Mapping[tuple[str, str], int]


def _gauge_by(name: str, text: str, labels: Sequence[str], values: Labelled) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _counter_by(name: str, text: str, labels: Sequence[str], values: Labelled) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _keyed(values: dict[str, int]) -> dict[tuple[str], int]:
    return {(key,): value for key, value in values.items()}


def _age_s(now_us: int, at_us: int | None) -> float | None:
    return None if at_us is None else max(now_us - at_us, 0) / SECOND_US


def _age(name: str, text: str, now_us: int, at_us: int | None) -> Iterable[Metric]:
    """Nothing rather than a false 0 while there is no such moment."""
    age_s = _age_s(now_us, at_us)
    if age_s is not None:
        yield _gauge(name, text, age_s)


class ObservedStore:
    """The store, with somebody who is told of each bracket's change once it is on disk. Implements Store."""

    def __init__(self, store: Store, on_committed: Callable[[BracketChange], None]) -> None:
        self._store = store
        self._on_committed = on_committed

    def commit(self, change: Change) -> "asyncio.Future[None]":
        future = self._store.commit(change)
        if isinstance(change, BracketChange):
            future.add_done_callback(lambda done: self._done(done, change))
        return future

    def _done(self, done: "asyncio.Future[None]", change: BracketChange) -> None:
        if not done.cancelled() and done.exception() is None:
            self._on_committed(change)

    async def load_open(self) -> tuple[Bracket, ...]:
        return await self._store.load_open()

    async def bracket(self, bracket_id: BracketId) -> Bracket | None:
        return await self._store.bracket(bracket_id)

    async def bracket_of(self, external_identifier: ExternalIdentifier) -> BracketId | None:
        return await self._store.bracket_of(external_identifier)

    async def bracket_of_ref(self, client_ref: str) -> tuple[BracketId, AccountNumber, str] | None:
        return await self._store.bracket_of_ref(client_ref)

    async def settings(self) -> dict[str, str]:
        return await self._store.settings()

    async def capabilities(self) -> Sequence[Capability]:
        return await self._store.capabilities()

    async def close(self) -> None:
        await self._store.close()


# Where they are served.


def routes(metrics: Metrics) -> tuple[web.RouteDef, ...]:
    async def show(request: web.Request) -> web.Response:
        return web.Response(body=await metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    return (web.get("/metrics", show),)


class MetricsPort:
    """`GET /metrics` on loopback, and nothing else: whoever reaches it can change nothing."""

    def __init__(self, metrics: Metrics, port: int) -> None:
        app = web.Application(middlewares=[_only_for_here])
        app.add_routes(routes(metrics))
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.2)
        self._port = port

    async def start(self) -> int:
        """The port. One that is taken is told in the log and stops nothing: 0 is the answer then."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, self._port, backlog=16)
        try:
            await site.start()
        except OSError as error:
            log.error("metrics_failed", port=self._port, error=error.strerror or str(error))
            return 0
        addresses = self._runner.addresses
        return int(addresses[0][1])

    async def stop(self) -> None:
        with contextlib.suppress(OSError):
            await self._runner.cleanup()


@web.middleware
async def _only_for_here(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """A page in a browser on this machine must not read them by a name that it has made to mean this address."""
    if request.url.host not in (LOOPBACK, "localhost"):
        raise web.HTTPForbidden(text="ask for 127.0.0.1\n")
    return await handler(request)
