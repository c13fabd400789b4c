"""The loop that people write by hand, under the same faults as the daemon, and a count that judges both alike.

The loop: submit the entry; every five seconds ask for it; once it has filled, submit a target and a stop; when one of
them has filled, cancel the other. A request that fails is told to a log and tried again five seconds later. It is
better than many: what it has been told is on disk at once, so that a restart goes on where it was.

The count reads the exchange's log and its orders alone. It finds the orders of a bracket by their symbols, which no two
brackets of a run share, and leaves out what a person did. Both run at a broker that reserves nothing: under the
reservation the second exit is refused until the first has filled, and then opens a position, even on a quiet day.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otocod.adapters.clock import SystemClock
from otocod.paper.errors import Refused as PaperRefused
from otocod.ports.broker import Confirmed, Outcome, ReadFailed
from tests.simulation.broker import SimBroker, report_of
from tests.simulation.loop import SECOND_US
from tests.simulation.plan import Plan, plan_from_seed
from tests.simulation.scenarios import Scenario
from tests.simulation.world import ACCOUNT, Life, World

if TYPE_CHECKING:
    from otocod.ports.requests import QueuedRequest

Json = dict[str, Any]
# A person at the platform, the end of the options, or the broker on its own account may undo any protection; a proxy
# may double any request. What then becomes of a position says little of the program that had cared for it.
NOT_COMPARED = frozenset(
    {
        "hand_cancels",
        "hand_edits",
        "hand_closes",
        "hours",
        "foreign_orders",
        "operator",
        "second_daemon",
        "broker_ends",
        "both_exits",
        "late_fills",
        "cancel_race",
        "doubled",
        "refusals",
        "odd_rules",
    }
)
KINDS = ("doubled", "reversed", "bare", "unprotected", "left working")
_TERMINAL = frozenset({"Filled", "Cancelled", "Expired", "Rejected", "Removed", "Partially Removed"})
_TELLING = frozenset({"accepted", "status", "fill"})
_POLL_S = 5.0
_SETTLES_S = 120.0
_BARE_US = 30 * SECOND_US


class _Failed(Exception):
    """What a hand-written loop catches, whatever it was."""


class _Client(SimBroker):
    """The simulated way to the broker, for bodies written by hand."""

    async def place(self, body: Json) -> int:
        def act() -> Any:
            return self._exchange.submit(ACCOUNT, body, now_us=self._world.now_us)

        placed: list[int] = []

        def read(answer: Any) -> Outcome:
            placed.append(answer["order"]["id"])
            return Confirmed((report_of(answer["order"]),))

        if not isinstance(await self._command("submit", (), act, read), Confirmed):
            raise _Failed
        return placed[-1]

    async def status(self, order_id: int) -> str:
        try:
            order: Json = await self._read("order", lambda: dict(self._exchange.order(ACCOUNT, order_id)))
        except (ReadFailed, PaperRefused) as error:
            raise _Failed from error
        return str(order["status"])

    async def take_back(self, order_id: int) -> None:
        def act() -> Any:
            return self._exchange.cancel(ACCOUNT, order_id, now_us=self._world.now_us)

        if not isinstance(
            await self._command("cancel", (), act, lambda answer: Confirmed((report_of(answer),))), Confirmed
        ):
            raise _Failed


class _NoStream:
    def frame(self, kind: str, data: Json) -> None:
        pass

    def go_down(self, why: str, *, unnoticed_s: float = 0.0) -> None:
        pass


class NaiveLife:
    """One run of the loop. To the world it is the daemon, with all its parts."""

    halt_reason = quotes = None
    is_ready = False

    def __init__(self, world: "NaiveWorld", number: int) -> None:
        self.number = number
        self.is_dead = self.is_killed = False
        self.clock = SystemClock(wall_ns=world.wall_ns, steady_ns=lambda: world.loop.now_us * 1000)
        self.streamer = _NoStream()
        self.supervisor = self.intake = self.scheduler = self
        self._world = world
        self._client = _Client(world, self)  # type: ignore[arg-type]
        self._tasks: list[asyncio.Task[None]] = []
        self.take(world.new_rows())

    def take(self, rows: "Sequence[QueuedRequest]") -> None:
        for row in rows:
            scenario = next(each for each in self._world.scenarios if each.client_ref == row.client_ref)
            if not any(task.get_name() == row.client_ref for task in self._tasks):
                task = self._world.loop.create_task(self._care_for(scenario), name=row.client_ref)
                self._tasks.append(task)

    def stop(self) -> None:
        if not self.is_dead:
            self.crash()
            self._world.life_ended(self)  # type: ignore[arg-type]

    def crash(self) -> None:
        self.is_dead = self.is_killed = True
        for task in self._tasks:
            task.cancel()

    async def _care_for(self, scenario: Scenario) -> None:
        told = self._world.told.setdefault(scenario.client_ref, {})
        while True:
            try:
                if await self._step(scenario, told):
                    return
            except _Failed:
                pass
            await asyncio.sleep(_POLL_S)

    async def _step(self, scenario: Scenario, told: dict[str, int]) -> bool:
        """Whether there is nothing left to do."""
        if "entry" not in told:
            told["entry"] = await self._client.place(_entry(scenario))
            return False
        exits = [kind for kind in ("target", "stop") if kind in scenario.request]
        if any(kind not in told for kind in exits):
            status = await self._client.status(told["entry"])
            if status != "Filled":
                return status in _TERMINAL
            for kind in exits:
                if kind not in told:
                    told[kind] = await self._client.place(_exit(scenario, kind))
            return False
        for kind in exits:
            if await self._client.status(told[kind]) == "Filled":
                for other in exits:
                    if other != kind:
                        await self._client.take_back(told[other])
                return True
        return False


def _entry(scenario: Scenario) -> Json:
    return dict(scenario.request["entry"])


def _exit(scenario: Scenario, kind: str) -> Json:
    """As far from the entry as the requests with prices have it."""
    target, trigger, limit = ("0.40", "1.70", "1.90") if scenario.is_credit else ("1.80", "0.60", "0.45")
    if scenario.request["entry"]["legs"][0]["instrument-type"] == "Equity":
        target, trigger, limit = "18.00", "6.00", "4.50"
    legs = [
        leg | {"action": "Sell to Close" if leg["action"].startswith("Buy") else "Buy to Close"}
        for leg in scenario.request["entry"]["legs"]
    ]
    body: Json = {"time-in-force": "GTC", "legs": legs, "price-effect": "Debit" if scenario.is_credit else "Credit"}
    if kind == "target":
        return body | {"order-type": "Limit", "price": target}
    return body | {"order-type": "Stop Limit", "price": limit, "stop-trigger": trigger}


class NaiveWorld(World):
    """`told`: what the loop's file says of each bracket: the broker's number of each order it was told of."""

    def __init__(self, plan: Plan) -> None:
        self.told: dict[str, dict[str, int]] = {}
        super().__init__(plan, keeps_hash=False)

    def _new_life(self, number: int) -> Life:
        return NaiveLife(self, number)  # type: ignore[return-value]

    def _settle(self) -> None:
        self._pass(_SETTLES_S)


@dataclass
class Count:
    brackets: int = 0  # whose entry filled
    violated: int = 0
    told: int = 0  # of the violated: a person was told
    kinds: Counter[str] = field(default_factory=Counter)

    def join(self, other: "Count") -> None:
        self.brackets += other.brackets
        self.violated += other.violated
        self.told += other.told
        self.kinds += other.kinds

    def line(self, name: str) -> str:
        share = 100 * self.violated / max(self.brackets, 1)
        kinds = ", ".join(f"{self.kinds[kind]} {kind}" for kind in KINDS)
        silent = self.violated - self.told
        return (
            f"{name}: {self.violated} of {self.brackets} filled brackets violated ({share:.2f} %): {kinds};"
            f" {silent} of them without anybody being told"
        )


def compare(seed: int, off: frozenset[str] = frozenset()) -> tuple[Count, Count]:
    """The loop and the daemon, each alone with the same faults, on the same market."""
    off |= NOT_COMPARED
    naive = NaiveWorld(plan_from_seed(seed, off=off))
    ours = World(plan_from_seed(seed, off=off), keeps_hash=False)
    for world in (naive, ours):
        world.rules.patch({"reservation": False})
        world.run()
    marked = {bracket["client_ref"] for bracket in ours.dump()["brackets"] if bracket["attention"]}
    return count(naive, frozenset()), count(ours, marked)


def count(world: World, told: "frozenset[str] | set[str]") -> Count:
    found = Count()
    for scenario in world.scenarios:
        kinds = violations(world, scenario)
        if kinds is None:
            continue
        found.brackets += 1
        found.kinds.update(kinds)
        if kinds:
            found.violated += 1
            found.told += scenario.client_ref in told
    return found


def violations(world: World, scenario: Scenario) -> set[str] | None:
    """None if the entry never filled."""
    symbols = {leg.symbol for leg in scenario.legs}
    by_hand = {e["order-id"] for e in world.exchange.log if e["event"] == "accepted" and e.get("by") == "user"}
    orders = {
        order["id"]: order
        for order in world.exchange.exchange_view()
        if order["id"] not in by_hand and symbols.issuperset(leg["symbol"] for leg in order["legs"])
    }
    # By what is bought and sold: of an exit that comes too late the broker makes an order that opens.
    side = {leg["symbol"]: leg["action"].split()[0] for leg in scenario.request["entry"]["legs"]}
    opening = {n for n, o in orders.items() if o["legs"][0]["action"].split()[0] == side[o["legs"][0]["symbol"]]}
    if not any(leg["fills"] for n in opening for leg in orders[n]["legs"]):
        return None
    course = _Course(world, orders, opening)
    found = set()
    if any(course.most[leg["symbol"]] > leg["quantity"] for leg in scenario.request["entry"]["legs"]):
        found.add("doubled")
    if any(course.least[symbol] < 0 for symbol in symbols):
        found.add("reversed")
    is_open = any(quantity > 0 for quantity in course.net.values())
    has_exit = any(orders[n]["status"] not in _TERMINAL for n in orders.keys() - opening)
    if is_open and not has_exit:
        found.add("unprotected")
    if has_exit and not is_open:
        found.add("left working")
    if course.longest_bare_us > _BARE_US:
        found.add("bare")
    return found


class _Course:
    """A bracket's position as the log tells it: what was open of each leg, the most and the least of it, and the
    longest stretch with something open and no order at work."""

    def __init__(self, world: World, orders: dict[int, Json], opening: set[int]) -> None:
        self.net: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.least: Counter[str] = Counter()
        self.longest_bare_us = 0
        status: dict[int, str] = {}
        since_us: int | None = None
        told = [e for e in world.exchange.log if e.get("order-id") in orders and e["event"] in _TELLING]
        for entry in [*told, {"event": "end", "at_us": world.now_us}]:
            if since_us is not None:
                self.longest_bare_us = max(self.longest_bare_us, entry["at_us"] - since_us)
            if entry["event"] == "fill":
                self._filled(entry["symbol"], entry["quantity"] * (1 if entry["order-id"] in opening else -1))
            elif entry["event"] != "end":
                status[entry["order-id"]] = entry["status"] or "Received"
            is_bare = any(quantity > 0 for quantity in self.net.values()) and _TERMINAL.issuperset(status.values())
            if not is_bare:
                since_us = None
            elif since_us is None:
                since_us = entry["at_us"]

    def _filled(self, symbol: str, quantity: int) -> None:
        self.net[symbol] += quantity
        self.most[symbol] = max(self.most[symbol], self.net[symbol])
        self.least[symbol] = min(self.least[symbol], self.net[symbol])
