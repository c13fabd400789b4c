"""One seed: an exchange, a disk, a daemon that lives, dies and lives again, and everything that goes wrong around them.

Two times. The loop's is the world's and never lies. The daemon's wall clock may be stepped; it reads it through the
real clock adapter.
"""

import asyncio
import hashlib
import io
import json
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import otocod.logs
from otocod.adapters.clock import SystemClock
from otocod.adapters.zones import zone_offsets
from otocod.domain.brackets import OnDoubleExit, OnUnprotectable, Policy
from otocod.domain.commands import Member
from otocod.domain.ids import AccountNumber, BracketId, RequestId
from otocod.engine.supervisor import EngineSettings, LockLost, Supervisor
from otocod.paper.exchange import Exchange
from otocod.paper.rules import Rules
from otocod.ports.requests import QueuedRequest, RequestAnswer
from otocod.ports.store import Alarm, BracketChange, Change, StoreFailed
from tests.simulation.broker import SimBroker
from tests.simulation.disk import Disk, DiskFront, describe, plain_bracket, plain_journal
from tests.simulation.hours import Day, SimSessions, draw_days, draw_time_exits
from tests.simulation.loop import SECOND_US, VirtualLoop
from tests.simulation.meddling import Meddler, draw_rules
from tests.simulation.plan import Plan
from tests.simulation.quotes import SimQuoteFeed
from tests.simulation.scenarios import Scenario, as_shares, draw_scenario
from tests.simulation.sqlite_disk import SqliteFront, SqliteTwin
from tests.simulation.streamer import SimStreamer

T = TypeVar("T")
START_US = 1_795_446_000_000_000  # 2026-11-23, a Monday, 15:00 UTC
ACCOUNT = AccountNumber("5WT00001")
# What the daemon itself says of errors of its own. A store that fails and the end that follows are the world's doing.
_EXPECTED_ERRORS = frozenset({"store_failed", "task_failed", "acceptance_failed", "clean_stop_not_recorded"})
# Of these an answer may arrive some seconds after the faults have stopped.
_SLOW = frozenset({"store_slow", "slow"})
_SLOW_S = 20.0
_SETTLES_WITHIN_S = 300.0  # longer than any window of the daemon
_LOOKS_EVERY_S = 5.0
_MOST_POSTS = 150  # orders one bracket may send in the minutes of a run; a runaway sends thousands


class _Sink(io.TextIOBase):
    """Where the daemon's log lines of level error go."""

    world: "World | None" = None

    def write(self, line: str) -> int:
        if self.world is not None:
            self.world.logged(line)
        return len(line)


_SINK = _Sink()


class Life:
    """One run of the daemon, from start to crash or orderly end."""

    quotes: SimQuoteFeed | None = None

    def __init__(self, world: "World", number: int) -> None:
        self.number = number
        self.is_dead = False
        self.is_killed = False
        self._world = world
        self.clock = SystemClock(wall_ns=world.wall_ns, steady_ns=lambda: world.loop.now_us * 1000)
        self.broker = SimBroker(world, self)
        self.streamer = SimStreamer(world, self)
        self.quotes: SimQuoteFeed | None = SimQuoteFeed(world, self)
        twin = world.sqlite
        self.disk = DiskFront(world, self) if twin is None else SqliteFront(world, self, twin)
        self.supervisor = Supervisor(
            settings=world.settings,
            broker=self.broker,
            streamer=self.streamer,
            store=self.disk,
            clock=self.clock,
            notifier=self,
            queue=self,
            make_id=world.make_id,
            drain_broker=self.broker.drain,
            on_ready=lambda: world.life_is_ready(number),
            feed=self.quotes,
            sessions=SimSessions(world, world.days, START_US) if world.days else None,
            zone_offsets=zone_offsets if world.days else None,
            holds_lock=lambda: self not in world.ousted,
        )
        self.task = world.loop.create_task(self.supervisor.run(), name=f"life-{number}")
        self.task.add_done_callback(self._ended)
        self.supervisor.intake.take(world.new_rows())

    def alarm(self, alarm: Alarm) -> None:
        self._world.alarmed(alarm, self.number)

    def answer(self, answers: Sequence[RequestAnswer]) -> None:
        self._world.later(0.005, self._write_back, tuple(answers))

    def _write_back(self, answers: tuple[RequestAnswer, ...]) -> None:
        if not self.is_killed:
            self._world.answered(answers)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if self.is_dead:
            return
        error = None if task.cancelled() else task.exception()
        self.is_dead = True
        if error is not None and not isinstance(error, StoreFailed | LockLost):
            self._world.violation(f"D2 the daemon ended: {error!r}")
        self._world.trace("life", f"{self.number} ended {error!r}" if error else f"{self.number} stopped in order")
        self._world.life_ended(self)

    def crash(self) -> None:
        """Nothing of it runs any more. What it had handed to the system may still happen."""
        self.is_dead = self.is_killed = True
        self.disk.crash()
        self.supervisor.scheduler.stop()
        self.supervisor.mailboxes.stop()


class World:
    def __init__(self, plan: Plan, *, keeps_trace: bool = False, keeps_hash: bool = True) -> None:
        self.plan = plan
        self.loop = VirtualLoop()
        self.loop.on_error = self._loop_failed
        self.accounts = (ACCOUNT,)
        self.disk = Disk()
        self.violations: list[str] = []
        self.lines: list[str] | None = [] if keeps_trace else None
        self._hash = hashlib.sha256() if keeps_hash or keeps_trace else None
        # Whether anybody reads the trace: its lines cost more to write than much of what they tell of.
        self.is_traced = self._hash is not None
        self.is_calm = False
        self.is_outage = False
        self.is_disk_full = False
        self.is_market_closed = False
        self.is_token_dead = False  # the next request finds out, and fetches another
        self.is_login_refused = False
        self._wall_offset_us = 0
        self._once: set[str] = set()
        self.rules: Rules = draw_rules(plan)
        self.exchange = Exchange(rules=self.rules, seed=plan.seed, now_us=START_US, accounts=self.accounts)
        random = plan.random("settings")
        self.settings = EngineSettings(
            accounts=self.accounts,
            reconcile_interval_s=random.choice((3.0, 10.0, 15.0)),
            orders_per_minute=random.choice((10, 60, 600)),
            orders_per_bracket=random.choice((10, 200, 200)),
            policy=Policy(
                random.choice((2, 5, 5)) * SECOND_US,
                random.choice((OnUnprotectable.CLOSE, OnUnprotectable.ALERT)),
                random.choice((OnDoubleExit.ALERT, OnDoubleExit.FLATTEN)),
            ),
        )
        self.scenarios: list[Scenario] = [
            draw_scenario(number, plan.random(f"bracket-{number}"), plan.active_s) for number in range(plan.brackets)
        ]
        if plan.is_on("shares"):
            self.scenarios = [as_shares(found, plan.random(f"shares-{found.number}")) for found in self.scenarios]
        self.days: tuple[Day, ...] = ()
        if plan.is_on("hours"):
            self.days = draw_days(plan.random("days"), plan.active_s)
            for found in self.scenarios:
                if plan.random("time-exits").random() < 0.5:
                    found.request["time-exits"] = draw_time_exits(plan.random("time-exits"))
        self.rows: dict[str, QueuedRequest] = {}
        self.row_answers: dict[str, RequestAnswer] = {}
        self.posts: list[dict[str, Any]] = []
        self.doubled: set[str] = set()
        self.late: set[str] = set()  # accepted after the window in which a lost exit is waited for
        self.alarms: list[dict[str, Any]] = []
        self.operated: list[dict[str, Any]] = []  # what an operator asked of a bracket, and when
        self.acknowledged: dict[str, int] = {}  # the newest version of each bracket that a commit was acknowledged for
        self.strikes_at_us: list[int] = []  # when anything went wrong that an ordinary day does not have
        self.lives: list[dict[str, Any]] = []
        self.requests: Counter[int] = Counter()  # commands and reads, by second
        self.calm_at_us: int | None = None
        self._expected_us = 0
        self._posted: set[str] = set()
        self._ids = plan.random("ids")
        self._log_seen = 0
        self._due_handle: asyncio.TimerHandle | None = None
        self._due_us: int | None = None
        self._lives = 0
        self.life: Life | None = None
        self.ousted: list[Life] = []  # that another one was started beside
        self.sqlite = SqliteTwin(self) if plan.is_on_sqlite else None
        self._resumes_in_s = 0.0
        self.meddler = Meddler(self)

    # Time and chance.

    @property
    def now_us(self) -> int:
        """The exchange's clock."""
        return START_US + self.loop.now_us

    def wall_ns(self) -> int:
        return (START_US + self.loop.now_us + self._wall_offset_us) * 1000

    def step_clock(self, by_s: float) -> None:
        self.struck()
        self.trace("clock", f"steps by {by_s:+.1f} s")
        self._wall_offset_us += int(by_s * SECOND_US)

    def later(self, delay_s: float, step: Callable[..., None], *args: Any) -> asyncio.TimerHandle:
        return self.loop.call_later(max(delay_s, 0.0), step, *args)

    def expect(self, delay_s: float) -> None:
        """Something arrives so much later, whatever happens meanwhile: the run is not over before."""
        self._expected_us = max(self._expected_us, self.loop.now_us + int(delay_s * SECOND_US))

    def strikes(self, name: str) -> bool:
        if self.is_calm or not self.plan.strikes(name):
            return False
        self.struck()
        return True

    def struck(self) -> None:
        self.strikes_at_us.append(self.loop.now_us)

    def strikes_once(self, name: str) -> bool:
        """For faults that end a run: at most once, and rarely at any one moment."""
        if self.is_calm or name in self._once or not self.plan.is_on(name):
            return False
        if self.plan.random(name).random() < 0.02:
            self._once.add(name)
            self.struck()
            return True
        return False

    def survives_crash(self) -> bool:
        """Whether a request that was being written when the process died reaches the broker."""
        return self.plan.random("crash").random() < 0.6

    def make_id(self) -> BracketId:
        return BracketId(str(uuid.UUID(int=self._ids.getrandbits(128), version=4)))

    # Telling.

    def trace(self, kind: str, text: str) -> None:
        if self._hash is None:
            return
        line = f"{self.loop.now_us / SECOND_US:11.6f} {kind:9} {text}"
        self._hash.update(line.encode())
        if self.lines is not None:
            self.lines.append(line)

    @property
    def trace_hash(self) -> str:
        return "" if self._hash is None else self._hash.hexdigest()

    def violation(self, text: str) -> None:
        if text not in self.violations:
            self.trace("VIOLATION", text)
            self.violations.append(text)

    def logged(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"event": line}
        if entry.get("level") != "error" or entry.get("event") in _EXPECTED_ERRORS or self._is_dead():
            return
        told = {
            k: v for k, v in entry.items() if k not in ("at", "level", "logger", "event", "bracket_id", "exception")
        }
        last = str(entry.get("exception", "")).strip().splitlines()
        self.violation(
            f"D1 the daemon reports a bug of its own: {entry.get('event')} {told} {last[-1] if last else ''}"
        )
        if self.lines is not None:
            self.lines.extend(last)

    def alarmed(self, alarm: Alarm, life: int = 0) -> None:
        self.trace("alarm", f"{alarm.code} {alarm.text[:160]}")
        self.alarms.append(
            {
                "at_us": self.loop.now_us,
                "life": life,
                "code": alarm.code,
                "text": alarm.text,
                "bracket_id": alarm.bracket_id,
            }
        )
        is_shared = alarm.code == "stranger" and any(known["is_ousted"] for known in self.lives)
        if alarm.code in ("stranger", "order_denied", "rehearsal_differed") and not is_shared:
            self.violation(f"D3 alarm {alarm.code}: {alarm.text}")

    def _loop_failed(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, AssertionError | Exception) and "never retrieved" not in str(context.get("message")):
            self.violation(f"D2 a callback of the daemon raised {error!r}: {context.get('message')}")

    def _is_dead(self) -> bool:
        return self.life is None or self.life.is_killed

    def present_lives(self) -> list[Life]:
        """Those that run; more than one only after the lock was stolen."""
        return [life for life in (*self.ousted, self.life) if life is not None and not life.is_dead]

    # The exchange.

    def act(self, call: Callable[[], T]) -> T:
        """Everything that touches the exchange goes through here: its messages leave, its next moment is planned."""
        try:
            self.exchange.advance(self.now_us)
            return call()
        finally:
            self._look_at_exchange()

    def _look_at_exchange(self) -> None:
        log = self.exchange.log
        while self._log_seen < len(log):
            entry = log[self._log_seen]
            self._log_seen += 1
            if self.is_traced and entry["event"] in ("accepted", "fill", "status"):
                name = (entry.get("external-identifier") or "")[:8]
                what = f"{entry['event']} {entry.get('order-id')} {entry.get('status')} {name}"
                more = (str(entry[key]) for key in ("symbol", "quantity", "price", "by") if entry.get(key) is not None)
                self.trace("exchange", " ".join((what, *more)))
            self.meddler.saw(entry)
        for notice in self.exchange.drain():
            if notice.type in ("Order", "ComplexOrder", "CurrentPosition"):
                for life in (*self.ousted, self.life) if self.ousted else (self.life,):
                    if life is not None:
                        life.streamer.frame(notice.type, notice.data)
        due_us = self.exchange.next_due_us()
        if due_us != self._due_us:
            if self._due_handle is not None:
                self._due_handle.cancel()
            self._due_us = due_us
            self._due_handle = None if due_us is None else self.loop.call_at((due_us - START_US) / SECOND_US, self._due)

    def _due(self) -> None:
        self._due_us = self._due_handle = None
        self.act(lambda: None)

    # What the daemon does, seen from outside.

    def posted(self, kind: str, members: tuple[Member, ...], life: int = 0) -> None:
        for member in members:
            name = str(member.external_identifier)
            self.posts.append(
                {
                    "id": name,
                    "at_us": self.loop.now_us,
                    "kind": kind,
                    "role": str(member.role),
                    "life": life,
                    "with": str(members[0].external_identifier),
                }
            )
            if name in self._posted:
                self.violation(f"S2 {member.role} {name[:8]} is posted a second time")
            self._posted.add(name)
            owner = self.disk.ids_ever.get(name)
            if owner is None:
                self.violation(f"S12 {member.role} {name[:8]} is posted and its id is not on disk")
        if len(self.posts) > _MOST_POSTS * self.plan.brackets:
            self.violation("F122 a runaway: too many orders")

    def requested(self) -> None:
        """One request of the daemon's, whatever becomes of it."""
        self.requests[self.loop.now_us // SECOND_US] += 1

    def note_late(self, members: tuple[Member, ...]) -> None:
        self.late.update(str(member.external_identifier) for member in members)

    def note_doubled(self, members: tuple[Member, ...]) -> None:
        self.doubled.update(str(member.external_identifier) for member in members)

    def committed(self, change: Change, error: Exception | None) -> None:
        if self.is_traced:
            self.trace("disk", f"{describe(change)}" + (f"  FAILED {error}" if error else ""))
        if error is None and isinstance(change, BracketChange):
            self.acknowledged[str(change.after.bracket_id)] = change.after.version
        if error is not None and isinstance(change, BracketChange) and getattr(error, "is_of_change", False):
            self.violation(f"D4 the database rejects a record: {error}")

    # The queue.

    def new_rows(self) -> list[QueuedRequest]:
        return [row for request_id, row in self.rows.items() if request_id not in self.row_answers]

    def insert_row(self, scenario: Scenario, text: str | None = None) -> None:
        request_id = RequestId(len(self.rows) + 1)
        row = QueuedRequest(request_id, scenario.client_ref, ACCOUNT, text or scenario.text, self.wall_ns() // 1000)
        self.rows[request_id] = row  # type: ignore[index]
        self.trace("queue", f"row {request_id} {row.client_ref} {scenario.protection}")
        for life in self.present_lives():
            life.supervisor.intake.take([row])

    def answered(self, answers: Sequence[RequestAnswer]) -> None:
        for answer in answers:
            self.trace("queue", f"answer {answer.request_id} {answer.bracket_id} {answer.reasons}")
            self.row_answers.setdefault(answer.request_id, answer)  # type: ignore[arg-type]

    # Lives.

    def start_life(self) -> None:
        if self.life is not None and not self.life.is_dead:
            return
        self._lives += 1
        self.trace("life", f"{self._lives} starts")
        self.lives.append(
            {
                "number": self._lives,
                "started_us": self.loop.now_us,
                "ready_us": None,
                "ended_us": None,
                "is_ousted": False,
            }
        )
        self.life = self._new_life(self._lives)

    def _new_life(self, number: int) -> Life:
        return Life(self, number)

    def life_is_ready(self, number: int) -> None:
        self.trace("life", f"{number} is ready")
        self.lives[number - 1]["ready_us"] = self.loop.now_us

    def _note_end(self, life: Life) -> None:
        self.struck()
        if self.lives:
            self.lives[life.number - 1]["ended_us"] = self.loop.now_us

    def steal_lock(self) -> None:
        """Somebody removes the lock file and starts a second daemon. What keeps them apart is the database's epoch."""
        if self.life is None or self.life.is_dead or self.ousted:
            return
        self.struck()
        self.trace("life", f"the lock of {self.life.number} is stolen")
        self.lives[self.life.number - 1]["is_ousted"] = True
        self.ousted.append(self.life)
        self.life = None
        self.start_life()

    def crash(self, down_s: float) -> None:
        if self.life is None or self.life.is_dead:
            return
        for life in self.present_lives():  # the machine, not one process
            self.trace("life", f"{life.number} is killed")
            life.crash()
            self._note_end(life)
        self.ousted.clear()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.later(down_s, self.start_life)
        self.meddler.crashed(down_s)

    def stop_in_order(self, down_s: float) -> None:
        if self.life is None or self.life.is_dead:
            return
        self._resumes_in_s = down_s
        self.life.supervisor.stop()

    def life_ended(self, life: Life) -> None:
        self._note_end(life)
        if life in self.ousted:
            self.ousted.remove(life)
            return
        self.later(max(self._resumes_in_s, 1.0), self.start_life)
        self._resumes_in_s = 0.0

    # The run.

    def run(self) -> None:
        """Raises nothing of the daemon's: whatever goes wrong is a violation."""
        _SINK.world = self
        otocod.logs.configure("json", "error", stream=_SINK)  # type: ignore[arg-type]
        asyncio.set_event_loop(None)
        try:
            self._plan_market()
            self.meddler.plan()
            self.start_life()
            self._pass(self.plan.active_s)
            self._calm_down()
            self._settle()
        except Exception as error:
            self.violation(f"D5 the run broke off: {error!r}")
            if self.lines is not None:
                import traceback

                self.lines.extend(traceback.format_exc().splitlines())
        finally:
            _SINK.world = None
            self._close()

    def _plan_market(self) -> None:
        for scenario in self.scenarios:
            self.set_level(scenario, "neutral")
            self.later(scenario.submit_at_s, self.insert_row, scenario)
            for move in scenario.moves:
                self.later(move.at_s, self.set_level, scenario, move.level)

    def set_level(self, scenario: Scenario, level: str) -> None:
        self.trace("market", f"{scenario.client_ref} at {level}")
        quotes = scenario.quotes(level)
        self.act(lambda: self.exchange.set_quotes(quotes, now_us=self.now_us))
        for life in self.present_lives():
            if life.quotes is not None:
                life.quotes.moved(quotes)

    def _pass(self, seconds: float) -> None:
        async def pause() -> None:
            await done

        done: asyncio.Future[None] = self.loop.create_future()
        self.loop.call_later(seconds, done.set_result, None)
        self.loop.run_until_complete(done)

    def _calm_down(self) -> None:
        self.trace("calm", "faults stop")
        self.is_calm = True
        self.calm_at_us = self.loop.now_us
        self.is_outage = self.is_disk_full = self.is_token_dead = self.is_login_refused = False
        self.meddler.calm()
        self._resume()
        for scenario in self.scenarios:
            self.set_level(scenario, "neutral")

    def _resume(self) -> None:
        """An operator has looked into what made the daemon halt."""
        for life in self.present_lives():
            if life.supervisor.halt_reason is not None:
                self.trace("operator", "resume")
                life.supervisor.resume()

    def _settle(self) -> None:
        """Until nothing is left to wait for."""
        from tests.simulation.checker import liveness

        # What is still on its way arrives, and one sweep sees it.
        slow_s = _SLOW_S if _SLOW.intersection(self.plan.rates) else 0.0
        self._pass(max(self._expected_us - self.loop.now_us, 0) / SECOND_US)
        self._pass(slow_s + self.settings.reconcile_interval_s + 8.0)
        ends_us = self.loop.now_us + int(_SETTLES_WITHIN_S * SECOND_US)
        while self.loop.now_us < ends_us:
            self._resume()
            if not liveness(self.truth(), self.dump()):
                self._pass(1.0)
                if not liveness(self.truth(), self.dump()):
                    return
            self._pass(_LOOKS_EVERY_S)

    def _close(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        for life in (*self.ousted, self.life):
            if life is not None:
                life.is_dead = life.is_killed = True
                life.supervisor.scheduler.stop()
        with suppress(Exception):
            self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()
        if self.sqlite is not None:
            self.sqlite.close()

    # For the checker.

    def truth(self) -> dict[str, Any]:
        return {
            "log": self.exchange.log,
            "orders": self.exchange.exchange_view(),
            "positions": self.exchange.true_positions(self.accounts[0]),
            "posts": self.posts,
            "doubled": sorted(self.doubled),
            "late": sorted(self.late),
            "strikes_at_us": self.strikes_at_us,
            "lives": self.lives,
            "alarms": self.alarms,
            "operated": self.operated,
            "acknowledged": self.acknowledged,
            "requests": self.requests,
            "start_us": START_US,
            "calm_at_us": self.calm_at_us,
            "end_us": self.loop.now_us,
            "orders_per_minute": self.settings.orders_per_minute,
            "orders_per_bracket": self.settings.orders_per_bracket,
            "classes": list(self.plan.classes),
            "latency_ms": self.plan.latency_ms,
            "unprotected_limit_us": self.settings.policy.unprotected_limit_us,
            "late_fills": self.plan.is_on("late_fills"),
            "both_may_fill": self.plan.is_on("both_exits") or self.plan.is_on("late_fills"),
            "rows": {
                str(request_id): {
                    "client_ref": row.client_ref,
                    "answer": None
                    if (answer := self.row_answers.get(request_id)) is None
                    else {"bracket_id": answer.bracket_id, "reasons": list(answer.reasons)},
                }
                for request_id, row in self.rows.items()
            },
        }

    def dump(self) -> dict[str, Any]:
        return {
            "brackets": [plain_bracket(bracket) for bracket in self.disk.brackets()],
            "ids": dict(self.disk.ids_ever),
            "ids_since_us": self.disk.ids_since_us,
            "views": self.disk.views_told,
            "journal": plain_journal(self.disk.committed),
        }
