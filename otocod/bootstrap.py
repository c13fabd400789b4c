"""The composition root: which adapter serves which port, and the process around the engine. It alone knows them all."""

import asyncio
import errno
import fcntl
import gc
import json
import os
import resource
import signal
import sys
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from otocod import __version__, config, logs
from otocod.adapters.admin import AdminSocket
from otocod.adapters.clock import SystemClock
from otocod.adapters.queue import landlock
from otocod.adapters.queue.init import check_directory, init_queue
from otocod.adapters.queue.reader import QueueReader
from otocod.adapters.queue.rows import Answer, AnswerStatus, HandedRow, QueueRow
from otocod.adapters.queue.worker import QueueAlarm
from otocod.adapters.sqlite.check import NotFit, require_fit, sqlite_note
from otocod.adapters.sqlite.migrate import SchemaTooNew, WrongIdentity, check_identity, upgrade
from otocod.adapters.sqlite.reading import SqliteReadModel
from otocod.adapters.sqlite.store import SqliteStore
from otocod.adapters.systemd import notify, notify_reloading, watchdog_interval_s
from otocod.adapters.tastytrade.auth import Authenticator, LoginFailures, Secrets, TokenService
from otocod.adapters.tastytrade.http import Timeouts, Transport
from otocod.adapters.tastytrade.rest import TastytradeBroker
from otocod.adapters.tastytrade.streamer import StreamerTimes, TastytradeStreamer
from otocod.config import Loaded, Settings
from otocod.domain.brackets import OnDoubleExit, OnUnprotectable, Policy
from otocod.domain.ids import BracketId, RequestId
from otocod.engine.operator import OperatorService
from otocod.engine.supervisor import EngineSettings, Supervisor, accounts_of
from otocod.ports.admin import JsonList, JsonObject
from otocod.ports.requests import QueuedRequest, RequestAnswer, SpoiledRequest
from otocod.ports.store import Alarm, Setting, Store

log = logs.get_log(__name__)

EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, EXIT_RUNNING, EXIT_CONFIGURATION = 0, 1, 4, 75, 78
_LOGIN_FAILURES = "login_failures"
_WARM_EVERY_S = 30.0


class _AlreadyRunning(Exception):
    pass


def run(loaded: Loaded) -> int:
    """`otocod run`: returns the exit status. Everything that is wrong with the surroundings is said at once."""
    settings = loaded.settings
    os.umask(0o077)
    # A core file would hold the credentials.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logs.configure(
        settings.log_format,
        settings.log_level,
        secrets=(settings.client_secret.reveal(), settings.refresh_token.reveal()),
        accounts=settings.accounts,
    )
    for warning in loaded.warnings:
        log.warning("configuration_warning", told=warning)
    try:
        lock = _prepare(settings)
    except _AlreadyRunning:
        return _refuse(EXIT_RUNNING, (f"another otocod runs on {settings.data_dir}",))
    except SchemaTooNew as error:
        return _refuse(EXIT_REFUSED, (str(error),))
    except NotFit as error:
        return _refuse(EXIT_REFUSED, map(str, error.problems))
    except WrongIdentity as error:
        return _refuse(EXIT_REFUSED, error.reasons)
    except _QueueUnsafe as error:
        return _refuse(EXIT_REFUSED, error.refusals)
    except (OSError, ValueError) as error:
        return _refuse(EXIT_REFUSED, (f"{settings.data_dir}: {getattr(error, 'strerror', None) or error}",))
    try:
        return _run_loop(_Daemon(loaded).live)
    finally:
        os.close(lock)


def _refuse(status: int, reasons: Iterable[str]) -> int:
    for reason in reasons:
        log.error("start_refused", reason=reason)
    return status


class _QueueUnsafe(Exception):
    def __init__(self, refusals: Sequence[str]) -> None:
        super().__init__("\n".join(refusals))
        self.refusals = refusals


def _prepare(settings: Settings) -> int:
    """The directory, the lock, the databases; answers with the lock's descriptor, which is held for life."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
    settings.data_dir.chmod(0o750)
    lock = _take_lock(settings.lock)
    try:
        require_fit(settings.state_db)
        saved = upgrade(settings.state_db)
        if saved is not None:
            log.info("database_upgraded", backup=str(saved))
        check_identity(settings.state_db, environment=settings.environment.value, accounts=settings.accounts)
        if not os.path.lexists(settings.queue):
            # Whatever else stands there is compared, and moved aside, by the confined reader.
            init_queue(settings.queue, group=None)
        refusals = check_directory(settings.queue, _can_confine())
        if refusals:
            raise _QueueUnsafe(refusals)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _take_lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise _AlreadyRunning from None
        raise
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _can_confine() -> bool:
    return landlock.is_available()


def _run_loop(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


class _Daemon:
    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.settings = loaded.settings
        self.clock = SystemClock()
        self.started_us = self.clock.now_us()
        self.auth: Authenticator | None = None
        self.supervisor: Supervisor | None = None
        self._warming: asyncio.Task[None] | None = None

    async def live(self) -> int:
        settings = self.settings
        store = await SqliteStore.open(settings.state_db, on_disk_full=self._disk_full)
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
        queue = _Queue(settings.queue, self.clock, self._queue_alarm(store))
        self.supervisor = supervisor = Supervisor(
            settings=self._engine_settings(),
            broker=broker,
            streamer=streamer,
            store=store,
            clock=self.clock,
            notifier=_LoggedAlarms(store),
            queue=queue,
            make_id=_new_bracket_id,
            drain_broker=broker.drain,
            on_ready=lambda: self._ready(broker),
        )
        reads = SqliteReadModel(settings.state_db, self.clock)
        admin = AdminSocket(OperatorService(supervisor, reads, self), settings.socket)
        self._catch_signals(supervisor)
        try:
            await admin.start()
            await queue.start(supervisor.intake.take)
            async with asyncio.TaskGroup() as group:
                watchdog = group.create_task(_watchdog())
                await supervisor.run()
                watchdog.cancel()
        finally:
            notify("STOPPING=1")
            if self._warming is not None:
                self._warming.cancel()
            await queue.stop()
            await admin.stop()
            await auth.close()
            await transport.close()
            await store.close()
        log.info("stopped")
        return EXIT_DONE

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
        )

    def _ready(self, broker: TastytradeBroker) -> None:
        # What the start built stays for life; a collection in the middle of a fill should not walk through it.
        gc.collect()
        gc.freeze()
        logs.emit_ready(pid=os.getpid(), data_dir=str(self.settings.data_dir))
        notify("READY=1")
        self._warming = asyncio.get_running_loop().create_task(_keep_warm(broker))

    def _queue_alarm(self, store: Store) -> Callable[[QueueAlarm], None]:
        def tell(alarm: QueueAlarm) -> None:
            log.error("queue_alarm", told=alarm.text, kind=alarm.kind.value)
            store.commit(Alarm(self.clock.now_us(), f"queue_{alarm.kind.value.lower()}", alarm.text))

        return tell

    def _disk_full(self) -> None:
        text = f"the disk of {self.settings.data_dir} is full: no new entries until there is room, exits go on"
        log.error("alarm", code="disk_full", told=text, bracket_id=None)

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
        note = sqlite_note()
        supervisor = self.supervisor
        assert supervisor is not None
        offset_s = abs(self.clock.wall_offset_us) / 1_000_000
        broker_offset_s = abs(supervisor.reconciler.clock_offset_us) / 1_000_000
        streamer_ok = supervisor.streamer.is_healthy
        return [
            _check("ready", supervisor.is_ready, supervisor.waiting_for or "reconciled", "see `otocod status`"),
            _check("streamer", streamer_ok, "healthy" if streamer_ok else "silent or down", "it reconnects by itself"),
            _check(
                "log-in",
                supervisor.login_refused is None,
                supervisor.login_refused or "accepted",
                "check the credentials, then SIGHUP",
            ),
            _check("clock step", offset_s < 1, f"{offset_s:.3f} s off the wall clock", "check NTP"),
            _check("broker clock", broker_offset_s < 2, f"{broker_offset_s:.0f} s off the broker's", "check NTP"),
            _check("sqlite", True, note or "no known fault", ""),
            _check(
                "confinement",
                _can_confine(),
                "Landlock" if _can_confine() else "no Landlock",
                "use a kernel with Landlock, or keep the queue private",
            ),
        ]

    async def reload(self) -> JsonObject:
        return self._reload()


def _check(name: str, is_ok: bool, detail: str, remedy: str) -> JsonObject:
    return {"check": name, "ok": is_ok, "detail": detail, "remedy": "" if is_ok else remedy}


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


async def _watchdog() -> None:
    """Tells systemd that the loop turns. The broker's health is no reason to be restarted."""
    interval_s = watchdog_interval_s(os.environ)
    if interval_s is None:
        return
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)


async def _keep_warm(broker: TastytradeBroker) -> None:
    """An exit must not wait for a new connection: idle ones close after 50 s."""
    while True:
        await broker.warm()
        await asyncio.sleep(_WARM_EVERY_S)


class _LoggedAlarms:
    """Implements ports.notifier.Notifier: the log and the alarms table."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def alarm(self, alarm: Alarm) -> None:
        log.error("alarm", code=alarm.code, told=alarm.text, bracket_id=alarm.bracket_id)
        self._store.commit(alarm)


class _Queue:
    """Implements ports.requests.RequestQueue over the confined reader."""

    def __init__(self, path: Path, clock: SystemClock, on_alarm: Callable[[QueueAlarm], None]) -> None:
        self._take: Callable[[Sequence[QueuedRequest | SpoiledRequest]], None] | None = None
        self._reader = QueueReader(
            path,
            on_batch=self._batch,
            on_alarm=on_alarm,
            confine=landlock.confine_thread if _can_confine() else None,
            now_us=clock.now_us,
        )

    async def start(self, take: Callable[[Sequence[QueuedRequest | SpoiledRequest]], None]) -> None:
        self._take = take
        await self._reader.start()

    async def stop(self) -> None:
        await self._reader.stop()

    def _batch(self, rows: Sequence[HandedRow]) -> None:
        assert self._take is not None
        self._take([_request(row) for row in rows])

    def answer(self, answers: Sequence[RequestAnswer]) -> None:
        self._reader.answer([_answer(answer) for answer in answers])


def _request(row: HandedRow) -> QueuedRequest | SpoiledRequest:
    request_id = RequestId(row.id)
    if isinstance(row, QueueRow):
        return QueuedRequest(request_id, row.client_ref, row.account, row.request, row.created_at_us)
    return SpoiledRequest(request_id, row.client_ref, row.reasons)


def _answer(answer: RequestAnswer) -> Answer:
    status = AnswerStatus.REJECTED if answer.bracket_id is None else AnswerStatus.ACCEPTED
    reason = "\n".join(answer.reasons) or None
    return Answer(answer.request_id, answer.client_ref, status, reason, answer.bracket_id)
