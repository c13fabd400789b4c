"""The daemon as a whole: start, readiness, stop.

Start: the files are open and belong to us alone -> subscribe and keep what the stream says -> list everything -> join
the listing to what we know, as one piece of news for each bracket -> let commands go -> let the stream in -> ready.
Nothing is sent before the listing is joined; a crash loop causes reads only.

Stop: intake, scheduler, executor (what is on the wire may finish), streamer, store. Working orders stay at the broker:
they are the protection while nobody is here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from otocod.domain.brackets import Bracket, Outcome, Policy
from otocod.domain.commands import Command, LearnCapability
from otocod.domain.events import DaemonRestarted, Event, TimeReached
from otocod.domain.ids import AccountNumber, BracketId
from otocod.domain.orders import OrderReport
from otocod.domain.request import COMMON_ZONES
from otocod.domain.time_exits import ZoneOffsets
from otocod.engine.adoption import Adoption
from otocod.engine.capabilities import Capabilities, Sample, product_of
from otocod.engine.executor import Executor
from otocod.engine.gate import LastGate, Limits
from otocod.engine.halts import HaltLevel, Halts
from otocod.engine.intake import Intake
from otocod.engine.limits import NO_LIMITS, RiskDesk, RiskLimits
from otocod.engine.mailbox import Mailboxes
from otocod.engine.positions import PositionWatch
from otocod.engine.quotewatch import QuoteWatch
from otocod.engine.reconciler import AccountReport, Reconciler
from otocod.engine.router import Router
from otocod.engine.scheduler import Scheduler
from otocod.engine.slots import Slots
from otocod.engine.timedesk import TimeDesk
from otocod.logs import get_log
from otocod.ports.broker import (
    Broker,
    LoginRefused,
    ReadFailed,
    StreamComplex,
    StreamDown,
    Streamer,
    StreamEvent,
    StreamOddity,
    StreamOrder,
    StreamPosition,
    StreamUp,
)
from otocod.ports.clock import Clock
from otocod.ports.notifier import Notifier
from otocod.ports.quotes import QuoteFeed, SessionSource
from otocod.ports.requests import RequestQueue
from otocod.ports.store import Alarm, Setting, Store, StoreFailed

log = get_log(__name__)

# Requests at once; two are for protection alone.
REQUEST_SLOTS = 8
PROTECTION_SLOTS = 2
STOP_LIMIT_S = 8.0
_ENDED_FIRST = frozenset({"intake", "reconciler", "halts", "quotes", "times", "probes", "rehearsals"})
# The start does not wait for a stream for ever: REST is the reference, the stream only makes it quick.
STREAM_PATIENCE_S = 5.0
_LOGIN_LOOK_S = 2.0
# A position whose message is ahead of the fill it belongs to is no news; after this it is.
_POSITION_SETTLES_S = 1.0

CLEAN_STOP = "clean_stop"


@dataclass(frozen=True, slots=True)
class EngineSettings:
    accounts: tuple[AccountNumber, ...]
    reconcile_interval_s: float
    orders_per_minute: int
    orders_per_bracket: int
    policy: Policy
    limits: RiskLimits = NO_LIMITS


class LockLost(Exception):
    """The data directory's lock is not ours any more; a new start finds out whose it is."""


class Supervisor:
    """One daemon. `run` lives until `stop` is called; the parts are public for the admin service."""

    def __init__(
        self,
        *,
        settings: EngineSettings,
        broker: Broker,
        streamer: Streamer,
        store: Store,
        clock: Clock,
        notifier: Notifier,
        queue: RequestQueue,
        make_id: Callable[[], BracketId],
        drain_broker: Callable[[float], Awaitable[bool]],
        on_ready: Callable[[], None],
        feed: QuoteFeed | None = None,
        sessions: SessionSource | None = None,
        zone_offsets: Callable[[str, int, int], ZoneOffsets] | None = None,
        is_zone: Callable[[str], bool] = COMMON_ZONES.__contains__,
        holds_lock: Callable[[], bool] = lambda: True,
        past_requests: Sequence[Sample] = (),
    ) -> None:
        """`past_requests`: the newest first; what the account takes is asked again with them."""
        self._past_requests = past_requests
        self.settings = settings
        self.policy = settings.policy
        self.broker = broker
        self.streamer = streamer
        self.store = store
        self.clock = clock
        self.notifier = notifier
        self._drain_broker = drain_broker
        self._on_ready = on_ready
        self.gate = LastGate(
            Limits(frozenset(settings.accounts), settings.orders_per_minute, settings.orders_per_bracket)
        )
        self.slots = Slots(REQUEST_SLOTS, reserved=PROTECTION_SLOTS)
        self.scheduler = Scheduler(clock, self._due)
        # Without a feed nothing is watched: the stop rests alone, and says so.
        self.quotes = None if feed is None else QuoteWatch(feed, clock, deliver=self.tell)
        self.times: TimeDesk | None = None
        self.mailboxes = Mailboxes(
            store,
            clock,
            run_command=self._run_command,
            set_deadline=self.scheduler.set,
            on_changed=self._bracket_changed,
            on_forgotten=self._bracket_forgotten,
            on_closed=self._bracket_closed,
            on_store_failure=self._store_failed,
            on_store_recovery=self._store_recovered,
        )
        if sessions is not None and zone_offsets is not None:
            self.times = TimeDesk(
                sessions,
                clock,
                zone_offsets=zone_offsets,
                open_brackets=self.mailboxes.open_brackets,
                deliver=self.tell,
                broker_clock_offset_us=lambda: self.reconciler.clock_offset_us,
            )
        self.adoption = Adoption(store, broker, clock)
        self.router = Router(self.mailboxes, store, on_stranger=self._stranger)
        self.positions = PositionWatch(broker, self.mailboxes, self.slots, clock)
        self.reconciler = Reconciler(
            broker,
            clock,
            self.mailboxes,
            self.router,
            self.slots,
            self.positions,
            accounts=settings.accounts,
            interval_s=settings.reconcile_interval_s,
            is_stream_healthy=lambda: self.streamer.is_healthy,
        )
        self.halts = Halts(
            store,
            clock,
            self.gate,
            open_brackets=self.mailboxes.open_brackets,
            tell=self.tell,
            look_again=lambda: self.intake.look_again(),
        )
        self.risk = RiskDesk(
            settings.limits,
            clock,
            open_brackets=self.mailboxes.open_brackets,
            posted=lambda: self.gate.posted_count,
            on_held=self._held_by_limit,
        )
        self.capabilities = Capabilities(broker, clock, store, self.slots)
        self.executor = Executor(
            broker,
            clock,
            self.gate,
            self.slots,
            notifier,
            deliver=self.mailboxes.deliver,
            route_report=self.router.route,
            price_of=lambda bracket, legs: None if self.quotes is None else self.quotes.price_of(bracket, legs),
            ask_sweep=self.reconciler.ask,
            learn_capability=self._learn_capability,
            holds_lock=holds_lock,
            on_lock_lost=self._lock_lost,
        )
        self.intake = Intake(
            self.mailboxes,
            store,
            clock,
            self.gate,
            self.capabilities,
            queue,
            accounts=settings.accounts,
            policy=lambda: self.policy,
            make_id=make_id,
            is_open=self._takes_requests,
            risk=self.risk,
            broker_clock_offset_us=lambda: self.reconciler.clock_offset_us,
            is_zone=is_zone,
            requests_from_us=lambda: self.adoption.requests_from_us,
        )
        self.is_zone = is_zone
        self.make_id = make_id
        self.is_ready = False
        self.is_stopping = False
        self.login_refused: str | None = None
        self.waiting_for = "the database"
        self._disk_alarm: str | None = None
        self._buffer: list[StreamEvent] | None = []
        self._stream_spoke = asyncio.Event()
        self._look_now = asyncio.Event()
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    # Life.

    async def run(self) -> None:
        """Returns after an orderly stop; raises what ended a task that must not end."""
        start = self._spawn(self._start(), "start")
        await self._stop.wait()
        await self._shut_down(start)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """May be called at any time, and twice."""
        self.is_stopping = True
        self._stop.set()

    def look_now(self) -> None:
        """An operator has looked (SIGHUP): do not wait out a refused log-in."""
        self._look_now.set()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        # A loop of the daemon that has died does half the work: better to end, and be started again whole.
        self._failure = task.exception()
        log.error("task_failed", task=task.get_name(), error=repr(self._failure))
        self.stop()

    async def _start(self) -> None:
        settings = await self.store.settings()
        is_clean = settings.get(CLEAN_STOP) == "yes"
        self.halts.load(settings)
        self.adoption.load(settings)
        self.mailboxes.load(await self.store.load_open())
        await self.capabilities.load()
        self._spawn(self.streamer.run(self._stream_event), "streamer")
        await self._wait_for_stream()
        self.waiting_for = "the broker's orders"
        reports = await self._first_reports()
        restarted = DaemonRestarted(is_clean=is_clean)
        for report in reports:
            self.reconciler.merge(report, restarted)
        await self.router.settle()
        # Nothing of this run has left yet; from here on a stop that is not orderly must be taken for one.
        await self.store.commit(Setting(CLEAN_STOP, "no"))
        self.scheduler.start()
        self.executor.release()
        self._let_stream_in()
        self._spawn(self.reconciler.run(), "reconciler")
        self._spawn(self.intake.run(), "intake")
        if self.quotes is not None:
            self._spawn(self.quotes.run(), "quotes")
        if self.times is not None:
            self._spawn(self.times.run(), "times")
        self._spawn(self.halts.run(), "halts")
        self._spawn(self.mailboxes.rehearsals.run(), "rehearsals")
        if self._past_requests:
            self._spawn(self.capabilities.run(self._past_requests), "probes")
        self.reconciler.last_completed_us = self.clock.now_us()
        self.is_ready = True
        self.waiting_for = ""
        log.info("reconciled", brackets=len(self.mailboxes.brackets), orders=sum(map(_listed, reports)))
        self._on_ready()
        self.intake.look_again()

    async def _wait_for_stream(self) -> None:
        self.waiting_for = "the account streamer"
        try:
            async with asyncio.timeout(STREAM_PATIENCE_S):
                await self._stream_spoke.wait()
        except TimeoutError:
            log.warning("stream_late", told="starting by REST alone")

    async def _first_reports(self) -> tuple[AccountReport, ...]:
        while True:
            try:
                reports = await self.reconciler.first_reports()
            except LoginRefused as refused:
                if self.login_refused is None:
                    self.notifier.alarm(Alarm(self.clock.now_us(), "login_refused", str(refused)))
                self.login_refused = str(refused)
                # The authenticator knows when the next try is due; asking it is free.
                await self._pause(_LOGIN_LOOK_S)
                continue
            self.login_refused = None
            return reports

    async def _pause(self, seconds: float) -> None:
        self._look_now.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._look_now.wait()
        except TimeoutError:
            return

    async def _shut_down(self, start: "asyncio.Task[None]") -> None:
        self.is_stopping = True
        was_ready = self.is_ready
        self.is_ready = False
        self.scheduler.stop()
        for task in list(self._tasks):
            if task is start or task.get_name() in _ENDED_FIRST:
                task.cancel()
        is_drained = await self._drain(STOP_LIMIT_S)
        is_drained = await self._drain_broker(1.0) and is_drained
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=1.0)
        # The stream may have said something last, and an exit may have left because of it.
        is_drained = await self._drain(1.0) and is_drained
        self.mailboxes.stop()
        if was_ready and is_drained and self._failure is None and self._disk_alarm is None:
            await self._record_clean_stop()
        await self.store.close()

    async def _drain(self, timeout_s: float) -> bool:
        """Requests and commits in turn, for each may be followed by the other; whether nothing was left."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + timeout_s
        while True:
            await self.executor.drain(max(0.0, ends_s - loop.time()))
            is_saved = await self.mailboxes.settle(max(0.0, ends_s - loop.time()))
            if is_saved and self.executor.is_idle:
                return True
            if loop.time() >= ends_s:
                return False

    async def _record_clean_stop(self) -> None:
        try:
            await self.store.commit(Setting(CLEAN_STOP, "yes"))
        except StoreFailed as error:
            # The next start takes every staged id for possibly posted, which is slower and safe.
            log.error("store_failed", error=str(error))

    # What the parts ask of each other.

    def _run_command(self, bracket: Bracket, command: Command) -> None:
        self.executor.run(bracket, command)

    def _bracket_changed(self, bracket: Bracket) -> None:
        if self.quotes is not None:
            self.quotes.bracket_changed(bracket)
        if self.times is not None:
            self.times.bracket_changed(bracket)

    def _bracket_forgotten(self, bracket_id: BracketId) -> None:
        if self.quotes is not None:
            self.quotes.forget(bracket_id)
        if self.times is not None:
            self.times.forget(bracket_id)

    def _bracket_closed(self, bracket: Bracket) -> None:
        if bracket.outcome is not Outcome.RELEASED:
            self.reconciler.look_at_ended(bracket)

    def _due(self, bracket_id: BracketId) -> None:
        self.tell(bracket_id, TimeReached())

    def tell(self, bracket_id: BracketId, *events: Event) -> Bracket | None:
        return self.mailboxes.deliver(bracket_id, *events)

    def _learn_capability(self, bracket: Bracket, command: LearnCapability) -> None:
        self.capabilities.learn(
            bracket.account,
            product_of(bracket.request),
            command.protection,
            is_accepted=command.is_accepted,
            evidence=command.evidence,
        )

    @property
    def halt_reason(self) -> str | None:
        return self.halts.reason

    def halt(self, reason: str, level: HaltLevel = HaltLevel.ENTRIES, by: str = "otocod") -> "asyncio.Future[None]":
        """In force from this moment on, and after a restart too. Exits are managed as ever."""
        return self.halts.halt(reason, level, by)

    def resume(self, by: str = "otocod") -> "asyncio.Future[None]":
        return self.halts.resume(by)

    def _takes_requests(self) -> bool:
        is_able = self.is_ready and not self.is_stopping and self._disk_alarm is None
        return is_able and not self.halts.stops_intake

    def _held_by_limit(self, limit: str, why: str) -> None:
        self.notifier.alarm(Alarm(self.clock.now_us(), "limit_reached", f"new entries wait: {why}"))

    def _stranger(self, report: OrderReport) -> None:
        """An order with our source works at the broker and our database does not know it."""
        if self.adoption.why is not None or self.adoption.is_adopted(report):
            return
        text = (
            f"order {report.broker_order_id} carries our source and is not in this database: another daemon on this"
            " account, or a database restored from a backup. New entries are halted; find out, then `otocod reconcile"
            " --adopt` and `otocod resume`"
        )
        self.adoption.need(text)
        self.notifier.alarm(Alarm(self.clock.now_us(), "stranger", text))
        self.halt(text).add_done_callback(self._halt_kept)

    def _halt_kept(self, done: "asyncio.Future[None]") -> None:
        """If it is another daemon on this very database, the commit is where we learn that it is no longer ours."""
        error = None if done.cancelled() else done.exception()
        if isinstance(error, StoreFailed):
            self._store_failed(error)

    def _store_failed(self, error: StoreFailed) -> None:
        if self._disk_alarm is None:
            text = f"the database refused a change ({error}): no new entries, exits go on, trying again"
            self._disk_alarm = text
            self.notifier.alarm(Alarm(self.clock.now_us(), "store_failed", text))
            log.error("store_failed", error=str(error))
        if error.is_fenced:
            # Two that act on one record would send everything twice.
            self.executor.cease()
        if error.is_final:
            # Nothing that was committed since can be believed: end, and begin from what is on disk.
            self._failure = error
            self.stop()

    def _lock_lost(self) -> None:
        text = "the lock file was removed or replaced: another daemon may manage these brackets, nothing more is sent"
        self.notifier.alarm(Alarm(self.clock.now_us(), "lock_lost", text))
        self._failure = LockLost(text)
        self.stop()

    def _store_recovered(self) -> None:
        self._disk_alarm = None
        log.info("store_recovered")
        self.intake.look_again()

    # The stream.

    def _let_stream_in(self) -> None:
        buffered, self._buffer = self._buffer, None
        for event in buffered or ():
            self._stream_event(event)

    def _stream_event(self, event: StreamEvent) -> None:
        if isinstance(event, StreamUp | StreamDown):
            # Down is an answer as well: REST says why.
            self._stream_spoke.set()
        if self._buffer is not None:
            self._buffer.append(event)
            return
        match event:
            case StreamOrder():
                self.router.route(event.report)
            case StreamComplex():
                self.router.route_complex(event.report)
            case StreamUp():
                log.info("stream_up", generation=event.generation)
                self.reconciler.ask_all()
            case StreamDown():
                log.warning("stream_down", generation=event.generation, why=event.why)
            case StreamOddity():
                self._oddity(event)
            case StreamPosition():
                if self.positions.streamed(event.account, event.position):
                    # Most often the message is ahead of the fill that it belongs to.
                    self.reconciler.look_again(event.account, _POSITION_SETTLES_S)
            case _:
                assert_never(event)

    def _oddity(self, event: StreamOddity) -> None:
        log.warning("stream_oddity", why=event.why)
        if event.account is not None and event.broker_order_id is not None:
            self._spawn(self._read_odd(event.account, event), "read-odd")

    async def _read_odd(self, account: AccountNumber, event: StreamOddity) -> None:
        assert event.broker_order_id is not None
        try:
            self.router.route(await self.broker.read_order(account, event.broker_order_id))
        except ReadFailed as error:
            log.warning("read_failed", what=f"order/{event.broker_order_id}", error=str(error))


def _listed(report: AccountReport) -> int:
    return len(report.listing.reports)


def accounts_of(names: Sequence[str]) -> tuple[AccountNumber, ...]:
    return tuple(AccountNumber(name) for name in names)
