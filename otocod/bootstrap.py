"""The composition root: which adapter serves which port, and the process around the engine. It alone knows them all."""

import asyncio
import json
import os
import random
import resource
import signal
import socket
import sqlite3
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.exc import DBAPIError

from otocod import __version__, config, logs
from otocod.adapters import holding, metrics
from otocod.adapters.admin import AdminSocket
from otocod.adapters.alerts import routes as alert_routes
from otocod.adapters.alerts.channels import channels_of
from otocod.adapters.alerts.deadman import DeadMan
from otocod.adapters.alerts.dispatcher import Dispatcher, QuietHours
from otocod.adapters.clock import SystemClock
from otocod.adapters.collector import Collector
from otocod.adapters.doctor import Surroundings, alert_checks, check, surroundings_checks
from otocod.adapters.metrics import Metrics, MetricsPort, ObservedStore
from otocod.adapters.queue import landlock
from otocod.adapters.queue.requests import QueueRequests
from otocod.adapters.queue.worker import QueueAlarm
from otocod.adapters.sqlite.archive import ArchiveFailed
from otocod.adapters.sqlite.check import NotFit
from otocod.adapters.sqlite.engine import DiskFailed, FailureKind
from otocod.adapters.sqlite.migrate import SchemaTooNew, WrongIdentity
from otocod.adapters.sqlite.reading import SqliteReadModel
from otocod.adapters.sqlite.readmodel import at_text
from otocod.adapters.sqlite.retention import Pruned, archive_journals, months_before_us
from otocod.adapters.sqlite.store import SqliteStore
from otocod.adapters.sqlite.usage import past_requests, usage_since
from otocod.adapters.systemd import notify, notify_reloading, watchdog_interval_s
from otocod.adapters.tastytrade.auth import Authenticator, LoginFailures, Secrets, TokenService
from otocod.adapters.tastytrade.http import Timeouts, Transport
from otocod.adapters.tastytrade.quotestream import DxLinkQuotes
from otocod.adapters.tastytrade.quotetokens import QuoteTokens
from otocod.adapters.tastytrade.reading import Reader
from otocod.adapters.tastytrade.rest import TastytradeBroker
from otocod.adapters.tastytrade.sessions import BrokerSessions
from otocod.adapters.tastytrade.streamer import StreamerTimes, TastytradeStreamer
from otocod.adapters.tastytrade.streamer_symbols import StreamerSymbols
from otocod.adapters.web.entry import Door, TokenUnusable, token_in
from otocod.adapters.web.page import Place, WebPage
from otocod.adapters.zones import is_zone, zone_offsets
from otocod.config import AlertSettings, Environment, LimitSettings, Loaded, Settings, config_path
from otocod.domain.brackets import OnDoubleExit, OnUnprotectable, Policy
from otocod.domain.ids import BracketId
from otocod.engine.board import Board
from otocod.engine.health import Health, engine_checks
from otocod.engine.limits import DAY_US, RiskLimits
from otocod.engine.operator import OperatorService
from otocod.engine.supervisor import EngineSettings, LockLost, Supervisor, accounts_of
from otocod.ports.admin import AdminFailed, JsonList, JsonObject
from otocod.ports.store import Alarm, BracketChange, Setting, Store, StoreFailed

log = logs.get_log(__name__)

EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, EXIT_RUNNING, EXIT_CONFIGURATION = 0, 1, 4, 75, 78
_LOGIN_FAILURES = "login_failures"
_WARM_EVERY_S = 30.0
# Of the 10 s that a stop may take: for alarms that the disk did not take and that would be lost with the process.
_FLUSH_S = 1.0
# Other programs may hold the queue file.
_TRIM_LIMIT_S = 600.0


def run(loaded: Loaded) -> int:
    """`otocod run`: returns the exit status. Everything that is wrong with the surroundings is said at once."""
    settings = loaded.settings
    os.umask(0o077)
    # A core file would hold the credentials.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logs.configure(
        settings.log_format,
        settings.log_level,
        secrets=settings.secrets,
        accounts=settings.accounts,
    )
    for warning in loaded.warnings:
        log.warning("configuration_warning", told=warning)
    try:
        lock = holding.prepare(settings)
    except holding.AlreadyRunning:
        return _refuse(EXIT_RUNNING, (f"another otocod runs on {settings.data_dir}",))
    except SchemaTooNew as error:
        return _refuse(EXIT_REFUSED, (str(error),))
    except NotFit as error:
        return _refuse(EXIT_REFUSED, map(str, error.problems))
    except WrongIdentity as error:
        return _refuse(EXIT_REFUSED, error.reasons)
    except holding.QueueUnsafe as error:
        return _refuse(EXIT_REFUSED, error.refusals)
    except (OSError, ValueError) as error:
        return _refuse(EXIT_REFUSED, (f"{settings.data_dir}: {getattr(error, 'strerror', None) or error}",))
    except (sqlite3.Error, DBAPIError) as error:
        return _refuse(EXIT_REFUSED, (_damaged(settings, getattr(error, "orig", None) or error),))
    try:
        return _run_loop(_Daemon(loaded, lock).live)
    except Exception as error:
        cause = _cause_of(error)
        if isinstance(cause, LockLost):
            return EXIT_RUNNING
        if not isinstance(cause, DiskFailed) or cause.kind is not FailureKind.CORRUPT:
            raise
        # Starting again would end here again: a status that systemd does not restart after.
        return _refuse(EXIT_REFUSED, (_damaged(settings, cause.detail),))
    finally:
        os.close(lock)


def _refuse(status: int, reasons: Iterable[str]) -> int:
    for reason in reasons:
        log.error("start_refused", reason=reason)
    return status


def _damaged(settings: Settings, what: object) -> str:
    return f"{settings.state_db} is damaged: {what}; restore a backup, then `otocod reconcile`"


def _cause_of(error: BaseException) -> DiskFailed | LockLost | None:
    """What a start is answered by, among what ended the daemon."""
    if isinstance(error, BaseExceptionGroup):
        found = [cause for inner in error.exceptions if (cause := _cause_of(inner)) is not None]
        return found[0] if found else None
    return error if isinstance(error, DiskFailed | LockLost) else None


def _run_loop(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def places_of(settings: Settings, environ: Mapping[str, str]) -> Surroundings:
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    return Surroundings(
        data_dir=settings.data_dir,
        queue=settings.queue,
        socket=settings.socket,
        is_production=settings.environment is Environment.PRODUCTION,
        credentials=Path(credentials) if credentials else None,
        config=config_path(None, environ)[0],
    )


class _Daemon:
    def __init__(self, loaded: Loaded, lock: int) -> None:
        self.loaded = loaded
        self._lock = lock
        self.settings = loaded.settings
        self.clock = SystemClock()
        self.started_us = self.clock.now_us()
        self.store: SqliteStore | None = None
        self.auth: Authenticator | None = None
        self.supervisor: Supervisor | None = None
        self.alerts: Dispatcher | None = None
        self.queue: QueueRequests | None = None
        self.deadman: DeadMan | None = None
        self._warming: asyncio.Task[None] | None = None

    async def live(self) -> int:
        # From the first second to the last: before the store is open and while the broker is waited for, too. Were it
        # to fail, its silence would end the daemon.
        watchdog = asyncio.create_task(_watchdog(self._store_answers), name="watchdog")
        try:
            return await self._live()
        finally:
            watchdog.cancel()
            await asyncio.wait([watchdog])

    async def _store_answers(self) -> None:
        if self.store is not None:
            await self.store.answers()

    async def _live(self) -> int:
        settings = self.settings
        self.store = stored = await SqliteStore.open(settings.state_db, on_disk_full=self._disk_full)
        self.alerts = alerts = _dispatcher(settings, stored, self.clock)
        await alerts.open()
        figures = Metrics(
            environment=settings.environment.value, alerts=alerts.figures, alarms=lambda: dict(alerts.raised)
        )
        store = ObservedStore(stored, lambda change: self._committed(change, figures))
        transport = Transport(
            settings.api_url,
            self.clock,
            timeouts=Timeouts(answer_s=settings.request_timeout_s),
            accept_version=settings.accept_version,
        )
        self.auth = auth = await self._authenticator(store, transport)
        accounts = accounts_of(settings.accounts)
        broker = TastytradeBroker(transport, auth)
        streamer = TastytradeStreamer(
            settings.streamer_url,
            accounts,
            auth,
            self.clock,
            times=StreamerTimes(heartbeat_interval_s=settings.heartbeat_interval_s),
        )
        queue = QueueRequests(settings.queue, self.clock, self._queue_alarm, figures.request_answered)
        self.queue = queue
        self.supervisor = supervisor = Supervisor(
            settings=self._engine_settings(),
            broker=broker,
            streamer=streamer,
            store=store,
            clock=self.clock,
            notifier=alerts,
            queue=queue,
            make_id=_new_bracket_id,
            drain_broker=broker.drain,
            on_ready=lambda: self._ready(broker),
            feed=_quote_feed(transport, auth, self.clock),
            sessions=BrokerSessions(Reader(transport, auth), self.clock, settings.data_dir / "sessions.json"),
            zone_offsets=zone_offsets,
            is_zone=is_zone,
            holds_lock=partial(holding.is_file, settings.lock, os.fstat(self._lock)),
            past_requests=await asyncio.to_thread(past_requests, settings.state_db, accounts),
        )
        figures.supervisor = supervisor
        supervisor.executor.on_answered = figures.answered
        await self._load_usage(supervisor)
        self.deadman = deadman = self._dead_man(settings.alerts)
        reads = SqliteReadModel(settings.state_db, self.clock)
        service = OperatorService(supervisor, reads, self)
        admin = AdminSocket(
            service,
            settings.socket,
            (*metrics.routes(figures), *alert_routes.routes(alerts, deadman, settings.state_db, self.clock)),
        )
        port = MetricsPort(figures, settings.metrics.port) if settings.metrics.port else None
        page = self._web_page(service.board)
        self._catch_signals(supervisor)
        try:
            await admin.start()
            if page is not None:
                await page.start()
            if port is not None:
                await port.start()
            await queue.start(supervisor.intake.take)
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(alerts.run()),
                    group.create_task(self._health(supervisor, auth).run()),
                ]
                if deadman is not None:
                    beside.append(group.create_task(deadman.run()))
                if page is not None:
                    beside.append(group.create_task(service.board.run()))
                try:
                    await supervisor.run()
                finally:
                    await alerts.flush(_FLUSH_S)
                    for task in beside:
                        task.cancel()
        finally:
            notify("STOPPING=1")
            if self._warming is not None:
                self._warming.cancel()
            await queue.stop()
            await admin.stop()
            if port is not None:
                await port.stop()
            if page is not None:
                await page.stop()
            await alerts.close()
            if deadman is not None:
                await deadman.close()
            await auth.close()
            await transport.close()
            await store.close()
        log.info("stopped")
        return EXIT_DONE

    def _web_page(self, board: Board) -> WebPage | None:
        """None if none is wanted, or if its token cannot be had: that is no reason not to trade."""
        settings = self.settings.web
        if not settings.port:
            return None
        try:
            token = token_in(self.settings.web_token) if settings.token is None else settings.token.reveal()
        except (OSError, TokenUnusable) as error:
            log.error("web_failed", error=str(error))
            return None
        logs.hide(token)
        return WebPage(board, Door(token, time.monotonic), Place(settings.listen, settings.port, settings.hosts))

    async def _authenticator(self, store: Store, transport: Transport) -> Authenticator:
        remembered = (await store.settings()).get(_LOGIN_FAILURES)
        failures = LoginFailures(**json.loads(remembered)) if remembered else LoginFailures()
        secrets = Secrets(self.settings.client_secret.reveal(), self.settings.refresh_token.reveal())

        def keep(changed: LoginFailures) -> None:
            text = json.dumps({"count": changed.count, "last_us": changed.last_us})
            store.commit(Setting(_LOGIN_FAILURES, text))

        return Authenticator(TokenService(transport, secrets).fetch, self.clock, failures=failures, on_failures=keep)

    def _engine_settings(self) -> EngineSettings:
        settings = self.settings
        return EngineSettings(
            accounts=accounts_of(settings.accounts),
            reconcile_interval_s=settings.reconcile_interval_s,
            orders_per_minute=settings.orders_per_minute,
            orders_per_bracket=settings.orders_per_bracket,
            policy=_policy(settings),
            limits=_limits(settings.limits),
        )

    def _committed(self, change: BracketChange, figures: Metrics) -> None:
        figures.committed(change)
        if self.supervisor is not None:
            self.supervisor.risk.note_closed(change.after.bracket_id, change.after.outcome)

    async def _load_usage(self, supervisor: Supervisor) -> None:
        """Risk limits of a day hold over restarts."""
        day_began_us = self.clock.now_us() // DAY_US * DAY_US
        supervisor.risk.load(*await asyncio.to_thread(usage_since, self.settings.state_db, day_began_us))

    def _health(self, supervisor: Supervisor, auth: Authenticator) -> Health:
        def login_refused() -> str | None:
            return f"log-in refused {auth.failures.count} times" if auth.is_refused else None

        return Health(
            self.clock,
            supervisor.notifier,
            supervisor.mailboxes,
            supervisor.streamer,
            supervisor.reconciler,
            is_ready=lambda: supervisor.is_ready,
            login_refused=login_refused,
            streamer_dead_s=self.settings.alerts.streamer_dead_s,
        )

    def _dead_man(self, settings: AlertSettings) -> DeadMan | None:
        if settings.deadman_url is None:
            return None
        return DeadMan(settings.deadman_url.reveal(), settings.deadman_interval_s, self._silence)

    def _silence(self) -> str | None:
        """Why the outside watcher is to ring."""
        assert self.supervisor is not None and self.alerts is not None
        if not self.supervisor.is_ready:
            return f"not ready: waiting for {self.supervisor.waiting_for}"
        late = self.alerts.late(self.clock.now_us())
        return None if late is None else f"alerts do not arrive: {late}"

    def _ready(self, broker: TastytradeBroker) -> None:
        collector = Collector()
        collector.begin()
        logs.emit_ready(pid=os.getpid(), data_dir=str(self.settings.data_dir))
        notify("READY=1")
        self._warming = asyncio.get_running_loop().create_task(_keep_ready(broker, collector))

    def _queue_alarm(self, alarm: QueueAlarm) -> None:
        log.error("queue_alarm", told=alarm.text, kind=alarm.kind.value)
        self._alarm(f"queue_{alarm.kind.value.lower()}", alarm.text)

    def _disk_full(self) -> None:
        text = f"the disk of {self.settings.data_dir} is full: no new entries until there is room, exits go on"
        self._alarm("disk_full", text)

    def _alarm(self, code: str, text: str) -> None:
        if self.alerts is None:
            log.error("alarm", code=code, told=text, bracket_id=None)
        else:
            self.alerts.alarm(Alarm(self.clock.now_us(), code, text))

    def _catch_signals(self, supervisor: Supervisor) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.stop)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def _hang_up(self) -> None:
        notify_reloading()
        answer = self._reload()
        log.info("settings_reloaded", applied=answer["applied"], needs_restart=answer["needs_restart"])
        for problem in answer["problems"]:
            log.error("configuration_problem", told=problem)
        if self.auth is not None:
            self.auth.retry_now()
        if self.supervisor is not None:
            self.supervisor.look_now()
            if self.supervisor.is_ready:
                notify("READY=1")

    def _reload(self) -> JsonObject:
        try:
            fresh = config.load_settings(None, os.environ, on_terminal=sys.stderr.isatty())
        except config.ConfigInvalid as error:
            return {"applied": [], "needs_restart": [], "problems": list(error.problems)}
        reloaded = config.reload(self.settings, fresh.settings)
        self.settings = reloaded.settings
        if self.supervisor is not None:
            self.supervisor.policy = _policy(reloaded.settings)
            self.supervisor.risk.limits = _limits(reloaded.settings.limits)
            self.supervisor.reconciler.interval_s = reloaded.settings.reconcile_interval_s
        return {"applied": list(reloaded.applied), "needs_restart": list(reloaded.needs_restart), "problems": []}

    # engine.operator.Surroundings.

    def identity(self) -> JsonObject:
        return {
            "environment": self.settings.environment.value,
            "accounts": [logs.masked_account(account) for account in self.settings.accounts],
            "version": __version__,
            "pid": os.getpid(),
            "uptime_s": round((self.clock.now_us() - self.started_us) / 1_000_000, 1),
        }

    async def doctor(self) -> JsonList:
        assert self.supervisor is not None and self.auth is not None and self.alerts is not None
        now_us = self.clock.now_us()
        is_production = self.settings.environment is Environment.PRODUCTION
        return [
            *engine_checks(self.supervisor),
            _token_check(self.auth, now_us),
            _wall_clock_check(self.clock),
            *alert_checks(
                self.alerts.channels,
                has_deadman=self.deadman is not None,
                late=self.alerts.late(now_us),
                is_production=is_production,
            ),
            check(
                "confinement",
                landlock.is_available(),
                "Landlock" if landlock.is_available() else "no Landlock",
                "use a kernel with Landlock, or keep the queue private",
            ),
            *await asyncio.to_thread(surroundings_checks, places_of(self.settings, os.environ), os.environ),
        ]

    async def prune(self) -> JsonObject:
        retention, now_us = self.settings.retention, self.clock.now_us()
        closed_before_us = months_before_us(now_us, retention.journal_months) if retention.journal_months else None
        answered_before_us = now_us - retention.answers_days * DAY_US if retention.answers_days else None
        pruned = Pruned(0, 0, ()) if closed_before_us is None else await self._archive(closed_before_us, now_us)
        return {
            "closed_before": None if closed_before_us is None else at_text(closed_before_us),
            "brackets": pruned.brackets,
            "rows": pruned.rows,
            "archives": list(pruned.archives),
            "answered_before": None if answered_before_us is None else at_text(answered_before_us),
            "answers": 0 if answered_before_us is None else await self._trim(answered_before_us),
        }

    async def _archive(self, closed_before_us: int, now_us: int) -> Pruned:
        assert self.store is not None
        path = self.settings.state_db
        try:
            pruned = await archive_journals(self.store, path, closed_before_us=closed_before_us, now_us=now_us)
        except (ArchiveFailed, StoreFailed, sqlite3.Error, OSError) as error:
            raise AdminFailed(f"journals could not be archived, the rest stays in state.db: {error}") from None
        log.info("journals_archived", brackets=pruned.brackets, rows=pruned.rows, archives=pruned.archives)
        return pruned

    async def _trim(self, answered_before_us: int) -> int:
        assert self.queue is not None
        try:
            rows = await asyncio.wait_for(self.queue.trim(answered_before_us=answered_before_us), _TRIM_LIMIT_S)
        except TimeoutError:
            rows = None
        if rows is None:
            raise AdminFailed("the queue file was locked for too long: old answers stay until the next time")
        log.info("queue_trimmed", rows=rows)
        return rows

    async def reload(self) -> JsonObject:
        return self._reload()


def _token_check(auth: Authenticator, now_us: int) -> JsonObject:
    remedy = "check the two credentials at the broker, then `systemctl reload otocod`; do not try often: it locks"
    if auth.is_refused:
        return check("log-in", False, f"refused {auth.failures.count} times", remedy)
    if auth.token_ends_us is None:
        return check("log-in", False, "there is no token yet", "see whether the broker can be reached: otocod status")
    left_s = (auth.token_ends_us - now_us) / 1_000_000
    return check("log-in", left_s > 0, f"the token is good for {left_s:.0f} s and renewed before", remedy)


def _wall_clock_check(clock: SystemClock) -> JsonObject:
    offset_s = abs(clock.wall_offset_us) / 1_000_000
    return check(
        "clock step", offset_s < 1, f"{offset_s:.3f} s off the wall clock", "enable NTP: timedatectl set-ntp true"
    )


def _policy(settings: Settings) -> Policy:
    return Policy(
        unprotected_limit_us=int(settings.unprotected_limit_s * 1_000_000),
        on_unprotectable=OnUnprotectable(settings.on_unprotectable.value),
        on_double_exit=OnDoubleExit(settings.on_double_exit.value),
    )


def _new_bracket_id() -> BracketId:
    """A UUID that sorts by time: the milliseconds first, the rest random."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return BracketId(str(uuid.UUID(int=value)))


def _quote_feed(transport: Transport, auth: Authenticator, clock: SystemClock) -> DxLinkQuotes:
    reader = Reader(transport, auth)
    return DxLinkQuotes(
        QuoteTokens(reader, clock),
        StreamerSymbols(reader),
        clock,
        on_failure=lambda error: log.error("quotes_failed", error=repr(error)),
    )


async def _watchdog(store_answers: Callable[[], Awaitable[None]]) -> None:
    """Tells systemd that the loop turns and that the store's thread does. The broker's health is no reason to be
    restarted, nor is a store that has failed and says so: exits go on without it.
    """
    interval_s = watchdog_interval_s(os.environ)
    if interval_s is None:
        return
    while True:
        await store_answers()
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)


async def _keep_ready(broker: TastytradeBroker, collector: Collector) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_keep_warm(broker))
        group.create_task(collector.run())


async def _keep_warm(broker: TastytradeBroker) -> None:
    """An exit must not wait for a new connection: idle ones close after 50 s."""
    while True:
        await broker.warm()
        await asyncio.sleep(_WARM_EVERY_S)


def _dispatcher(settings: Settings, store: Store, clock: SystemClock) -> Dispatcher:
    alerts = settings.alerts
    hours = alerts.quiet_hours
    return Dispatcher(
        store,
        settings.state_db,
        clock,
        channels_of(alerts),
        host=socket.gethostname(),
        environment=settings.environment.value,
        repeat_s=alerts.repeat_s,
        quiet=None if hours is None else QuietHours(*hours, ZoneInfo(alerts.quiet_zone)),
        uniform=random.random,
    )


def _limits(settings: LimitSettings) -> RiskLimits:
    return RiskLimits(
        open_brackets=settings.open_brackets,
        open_contracts=settings.open_contracts,
        risk_per_bracket=settings.risk_per_bracket,
        risk_per_day=settings.risk_per_day,
        orders_per_day=settings.orders_per_day,
    )
