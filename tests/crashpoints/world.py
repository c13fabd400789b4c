"""The simulation's world with one story in it, in which a life of the daemon ends at the points asked for.

Without points the run is the clean one, and lists every call through a port. With points it is the same run up to the
first of them, to the microsecond; there everything in memory and everything unsynced is gone, the next life starts
`DOWN_S` later from what is durable, and the exchange goes on.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import tests.simulation.world as simulated
from otocod.domain.brackets import OnDoubleExit, OnUnprotectable, Policy
from otocod.domain.ids import BracketId, RequestId
from otocod.engine.operator import OperatorService
from otocod.engine.supervisor import EngineSettings
from otocod.paper.errors import Refused
from otocod.ports.admin import AdminRefused, BrokerUnreachable, JsonList, JsonObject, NoSuchBracket
from otocod.ports.requests import QueuedRequest, RequestAnswer
from otocod.ports.store import Alarm
from tests.crashpoints.points import Call, Point, Position
from tests.crashpoints.ports import CountedBroker, CountedDisk, CountedFeed, CountedStreamer
from tests.crashpoints.stories import Act, Fault, Reaction, Story
from tests.simulation.loop import SECOND_US
from tests.simulation.meddling import Meddler
from tests.simulation.plan import Plan
from tests.simulation.scenarios import Scenario
from tests.simulation.world import ACCOUNT, Life, World

Json = dict[str, Any]
DOWN_S = 0.2
SEED = 7
_TRY_AGAIN_S = 0.25
# Quicker than any commit, so that an answer that did not wait for one is seen.
_WRITE_BACK_S = 0.000_1
# Longer than any window of the daemon: an entry of unknown outcome is looked for over two minutes.
_SETTLED_BY_S = 420.0
_STEP_S = 5.0
# What has come right must stay right.
_WATCHED_S = 20.0
_TERMINAL = frozenset({"Filled", "Cancelled", "Expired", "Rejected", "Removed", "Partially Removed"})


def _no_feed(world: "CrashWorld", life: "CrashLife") -> None:
    """Without quotes nothing is watched, and the stop rests alone."""


class CrashLife(Life):
    """As the simulation's life, with ports that count."""

    broker: CountedBroker
    streamer: CountedStreamer

    def __init__(self, world: "CrashWorld", number: int) -> None:
        self._counted = world
        feed = CountedFeed if world.story.has_feed else _no_feed
        with patch.multiple(
            simulated,
            SimBroker=CountedBroker,
            SimStreamer=CountedStreamer,
            DiskFront=CountedDisk,
            SimQuoteFeed=feed,
        ):
            super().__init__(world, number)
        world.loop.call_soon(lambda: self.hand_over(world.open_rows()))

    def hand_over(self, rows: Sequence[QueuedRequest]) -> None:
        if self.is_dead or not rows:
            return
        call = self._counted.begin(self, "queue.take", f"{len(rows)} rows")
        if not self.is_dead:
            self.supervisor.intake.take(rows)
            self._counted.answered_call(self, call)

    def alarm(self, alarm: Alarm) -> None:
        if self.is_dead:
            return
        call = self._counted.begin(self, "notifier.alarm", alarm.code)
        if not self.is_dead:
            super().alarm(alarm)
            self._counted.answered_call(self, call)

    def answer(self, answers: Sequence[RequestAnswer]) -> None:
        if self.is_dead:
            return
        call = self._counted.begin(self, "queue.answer", f"{len(answers)} rows")
        if not self.is_dead:
            self._counted.later(_WRITE_BACK_S, self._write, tuple(answers), call)
            self._counted.answered_call(self, call)

    def _write(self, answers: tuple[RequestAnswer, ...], call: Call) -> None:
        if not self.is_killed:
            self._counted.answered(answers)
            self._counted.reached(self, call, Position.EFFECT)


@dataclass
class Errand:
    """One act in one run. `call`: an operator's command of it that is under way, or has been answered."""

    act: Act
    is_done: bool = False
    is_under_way: bool = False


class _Reads:
    """The read model's part that the operator's commands need."""

    def __init__(self, world: "CrashWorld") -> None:
        self._world = world

    async def find(self, named: str) -> BracketId:
        for bracket in self._world.disk.brackets():
            if bracket.client_ref == named:
                return bracket.bracket_id
        raise NoSuchBracket(named)

    async def bracket(self, bracket_id: BracketId) -> JsonObject:
        return {"bracket_id": bracket_id}

    async def lately_closed(self, limit: int) -> JsonList:
        raise NotImplementedError

    async def recording(self, bracket_id: BracketId) -> JsonObject:
        raise NotImplementedError

    async def summary(self) -> JsonObject:
        return {}

    async def brackets(self, filters: Any) -> JsonList:
        raise NotImplementedError

    async def events(self, bracket_id: Any, after_seq: int, limit: int) -> JsonList:
        raise NotImplementedError

    async def audit(self, broker_orders: Any, positions: Any) -> JsonObject:
        raise NotImplementedError

    async def backup(self, to: str) -> JsonObject:
        raise NotImplementedError


class _Surroundings:
    def identity(self) -> JsonObject:
        return {}

    async def doctor(self) -> JsonList:
        return []

    async def prune(self) -> JsonObject:
        return {}

    async def reload(self) -> JsonObject:
        return {}


class _Reactions(Meddler):
    """Instead of the simulation's chance: what the story says of orders that come to a status."""

    def __init__(self, world: "CrashWorld", reactions: Sequence[Reaction]) -> None:
        super().__init__(world)
        self._counted = world
        self._left = list(reactions)

    def saw(self, entry: Json) -> None:
        if entry["event"] != "status":
            return
        order_id = entry["order-id"]
        for reaction in self._left:
            if entry["status"] == reaction.status and self._counted.kind_of(str(order_id)) == reaction.kind:
                self._left.remove(reaction)
                self._counted.later(reaction.delay_s, self._react, reaction, order_id)
                return

    def _react(self, reaction: Reaction, order_id: int) -> None:
        self._counted.struck()
        self._counted.trace("market", f"reacts to {reaction.kind} {order_id} {reaction.status}")
        with suppress(Refused):
            reaction.perform(self._counted, order_id)


@dataclass
class _FaultLeft:
    fault: Fault
    seen: int = 0
    struck: int = 0


class CrashWorld(World):
    life: CrashLife | None

    def __init__(self, story: Story, points: Sequence[Point] = (), *, keeps_trace: bool = False) -> None:
        plan = Plan(SEED, {}, len(story.brackets), story.active_s, latency_ms=10.0)
        self.story = story
        self.calls: list[Call] = []
        self.present = ""  # what is being done, for the faults
        self.ready_at_us: dict[int, int] = {}
        self.points_left = list(points)
        self.act_errors: list[str] = []
        self._faults = [_FaultLeft(fault) for fault in story.faults]
        super().__init__(plan, keeps_trace=keeps_trace)
        self.rules.patch({"reservation": True, "status_step_ms": 1, **story.rules})
        values: dict[str, Any] = {
            "reconcile_interval_s": 15.0,
            "orders_per_minute": 120,
            "orders_per_bracket": 200,
            "on_unprotectable": OnUnprotectable.CLOSE,
            "on_double_exit": OnDoubleExit.ALERT,
        } | story.settings
        policy = Policy(5 * SECOND_US, values.pop("on_unprotectable"), values.pop("on_double_exit"))
        self.settings = EngineSettings(accounts=self.accounts, policy=policy, **values)
        self.scenarios = list(story.brackets)
        self.meddler = _Reactions(self, story.reactions)
        self.errands = [Errand(act) for act in story.acts]

    # Points.

    def begin(self, life: CrashLife, name: str, detail: str = "") -> Call:
        """A call is about to be made. The life may be dead when this returns."""
        call = Call(len(self.calls) + 1, life.number, name, detail, self.loop.now_us)
        self.calls.append(call)
        self.trace("call", f"{call.number} {name} {detail}")
        self.reached(life, call, Position.BEFORE)
        return call

    def reached(self, life: CrashLife, call: Call, position: Position) -> None:
        if life.is_dead or position in call.reached:
            return
        call.reached.append(position)
        if self.points_left and self.points_left[0] == Point(call.number, position):
            del self.points_left[0]
            self.trace("point", f"{call.number}:{position}")
            self.crash(DOWN_S)

    def answered_call(self, life: CrashLife, call: Call) -> None:
        """The answer is there; what the daemon does with it in this step comes before the point."""
        self.loop.call_soon(self.reached, life, call, Position.AFTER)

    # Faults.

    def strikes(self, name: str) -> bool:
        for left in self._faults:
            fault = left.fault
            if fault.name != name or left.struck >= fault.times or not re.search(fault.on, self.present):
                continue
            left.seen += 1
            if left.seen > fault.skip:
                left.struck += 1
                self.struck()
                return True
        return False

    def strikes_once(self, name: str) -> bool:
        return self.strikes(name)

    def survives_crash(self) -> bool:
        """A request that had left is on its way. That it never left is the point before it."""
        return True

    # The market and people.

    def kind_of(self, order_id: str) -> str:
        """entry, stop or limit; nothing for what is not an order."""
        if not order_id.isdecimal():
            return ""
        try:
            return _kind(self.exchange.exchange_order(int(order_id)))
        except Refused:
            return "group"

    def living(self, number: int, kind: str) -> Json | None:
        """The newest order of a bracket's legs that is not terminal."""
        symbols = {leg.symbol for leg in self.scenarios[number].legs}
        for order in reversed(self.exchange.exchange_view()):
            is_its = {leg["symbol"] for leg in order["legs"]} <= symbols
            if is_its and order["status"] not in _TERMINAL and _kind(order) == kind:
                return order
        return None

    def _plan_market(self) -> None:
        super()._plan_market()
        for errand in self.errands:
            self.later(errand.act.at_s, self._attempt, errand)

    def _attempt(self, errand: Errand) -> None:
        with suppress(Refused):
            if not errand.is_under_way and errand.act.perform(self, errand):
                self.struck()
                self.trace("act", errand.act.name)
                errand.is_done = True
        if not errand.is_done:
            self.later(_TRY_AGAIN_S, self._attempt, errand)

    def ask_operator(
        self, errand: Errand, name: str, ask: Callable[[OperatorService], Coroutine[Any, Any, JsonObject]]
    ) -> None:
        """An operator's command, given to the life that is. Without an answer it is given again."""
        life = self.life
        if life is None or life.is_dead:
            return
        errand.is_under_way = True
        self.loop.create_task(self._operate(life, errand, name, ask), name="operator").add_done_callback(
            lambda task: self._operated(task, errand, name)
        )

    async def _operate(
        self,
        life: CrashLife,
        errand: Errand,
        name: str,
        ask: Callable[[OperatorService], Coroutine[Any, Any, JsonObject]],
    ) -> None:
        call = self.begin(life, f"admin.{name}")
        if life.is_dead:
            return
        try:
            await ask(OperatorService(life.supervisor, _Reads(self), _Surroundings()))
        except (NoSuchBracket, BrokerUnreachable):
            return
        except AdminRefused as refused:
            self.trace("operator", f"{name}: {refused}")
        self.reached(life, call, Position.EFFECT)
        if not life.is_dead:
            errand.is_done = True
            self.answered_call(life, call)

    def _operated(self, task: "asyncio.Task[None]", errand: Errand, name: str) -> None:
        errand.is_under_way = False
        if not task.cancelled() and task.exception() is not None:
            self.violation(f"D2 the operator's {name} raised {task.exception()!r}")

    # The queue.

    def new_rows(self) -> list[QueuedRequest]:
        """None: a life is handed its rows in a step of its own, which is a point."""
        return []

    def open_rows(self) -> list[QueuedRequest]:
        return super().new_rows()

    def insert_row(self, scenario: Scenario, text: str | None = None) -> None:
        self.insert(scenario.client_ref, text or scenario.text)

    def insert(self, client_ref: str, text: str, account: str = ACCOUNT) -> None:
        request_id = RequestId(len(self.rows) + 1)
        row = QueuedRequest(request_id, client_ref, account, text, self.wall_ns() // 1000)
        self.rows[request_id] = row  # type: ignore[index]
        self.trace("queue", f"row {request_id} {client_ref}")
        if self.life is not None and not self.life.is_dead:
            self.life.hand_over([row])

    # Lives.

    def start_life(self) -> None:
        with patch.object(simulated, "Life", CrashLife):
            super().start_life()

    def life_is_ready(self, number: int) -> None:
        super().life_is_ready(number)
        self.ready_at_us[number] = self.loop.now_us

    @property
    def life_count(self) -> int:
        return self._lives

    # The end.

    def _calm_down(self) -> None:
        self.trace("calm", "the story is over")
        self.calm_at_us = self.loop.now_us

    def _settle(self) -> None:
        """Until all is as it should be and stays so."""
        from tests.crashpoints.verdicts import shortfalls

        good_since_s: float | None = None
        while self.loop.time() < self.story.active_s + _SETTLED_BY_S:
            self._pass(_STEP_S)
            waits = [errand.act.name for errand in self.errands if not errand.is_done]
            if waits or shortfalls(self):
                good_since_s = None
                continue
            good_since_s = self.loop.time() if good_since_s is None else good_since_s
            if self.loop.time() >= good_since_s + _WATCHED_S:
                return

    def truth(self) -> Json:
        told = super().truth()
        told["both_may_fill"] = told["both_may_fill"] or self.story.both_may_fill
        return told


def _kind(order: Json) -> str:
    if not order["legs"][0]["action"].endswith("Close"):
        return "entry"
    return "stop" if order["order-type"].startswith("Stop") else "limit"
