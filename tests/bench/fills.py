"""From fill to wire: the daemon beside the bare relay and the `tastytrade` package, fill by fill, in one run.

The clients take turns, so a machine that is slower for a while is slower for all of them. One client's fills are 60 ms
and more apart: brackets do not fill all at once, and a processor that has slept in between is the true case.
"""

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import wire
from tests.bench.figures import Figure, p50, p99
from tests.bench.plan import Plan, Trade
from tests.bench.processes import BenchDaemon, Client, Syncs, build_shim
from tests.bench.stub import Arrival, StubBroker

STEP_S = 0.022
_LEAST_SPACING_S = 0.06
_SLOWER_US = 5_000
_RECIPE_TRADES = 40


@dataclass
class Contender:
    """One client with a broker of its own, and what was measured of it; times in µs."""

    name: str
    broker: StubBroker
    entry_ids: list[int] = field(default_factory=list)
    exits_us: list[list[float]] = field(default_factory=list)  # by round
    cancel_us: list[list[float]] = field(default_factory=list)
    back_to_back_us: list[list[float]] = field(default_factory=list)
    windows_ns: list[tuple[int, int]] = field(default_factory=list)  # fill to last exit
    close: Callable[[], Awaitable[None]] | None = None

    @property
    def all_exits_us(self) -> list[float]:
        return [sample for each in self.exits_us for sample in each]

    async def fill_entry(self, place: int) -> tuple[float, list[Arrival]]:
        self.broker.arrivals.clear()
        at_ns = await self.broker.tell_fill(self.broker.orders[self.entry_ids[place]])
        arrivals = list(await self.broker.arrived(2))
        last_ns = max(arrival.at_ns for arrival in arrivals)
        self.windows_ns.append((at_ns, last_ns))
        return (last_ns - at_ns) / 1_000, arrivals

    async def fill_target(self, exits: Sequence[Arrival]) -> float:
        orders = [self.broker.orders[arrival.order_id] for arrival in exits]
        target = next(order for order in orders if order["order-type"] == "Limit")
        self.broker.arrivals.clear()
        at_ns = await self.broker.tell_fill(target)
        (cancel,) = await self.broker.arrived(1)
        assert cancel.method == "DELETE"
        return (cancel.at_ns - at_ns) / 1_000


async def with_client(module: str, directory: Path, count: int, poll_s: float = 5.0) -> Contender:
    broker = StubBroker()
    await broker.start()
    orders = [broker.place(wire.entry_body(number)) for number in range(count)]
    trades = [Trade(order["id"], wire.target_body(n), wire.stop_body(n)) for n, order in enumerate(orders)]
    client = Client(module, broker, directory)
    await client.start(Plan(broker.api_url, broker.streamer_url, trades, poll_s))

    async def close() -> None:
        await client.close()
        await broker.close()

    return Contender(module, broker, [order["id"] for order in orders], close=close)


async def with_daemon(
    name: str, directory: Path, count: int, *, preload: dict[str, str] | None = None, first: int = 0
) -> tuple[Contender, BenchDaemon]:
    """A daemon with `count` brackets whose entries work."""
    broker = StubBroker()
    await broker.start()
    daemon = BenchDaemon(broker, directory / name, preload=preload)
    await daemon.ready()
    contender = Contender(name, broker)

    async def close() -> None:
        await daemon.ended()
        await broker.close()

    contender.close = close
    await open_brackets(contender, daemon, count, first)
    return contender, daemon


async def open_brackets(contender: Contender, daemon: BenchDaemon, count: int, first: int = 0) -> None:
    broker = contender.broker
    broker.arrivals.clear()
    numbers = range(first, first + count)
    requests = [(f"bench-{number}", wire.request(number)) for number in numbers]
    await asyncio.to_thread(daemon.submit_all, requests)
    by_symbol = {arrival.symbol: arrival.order_id for arrival in await broker.arrived(count, timeout_s=120)}
    contender.entry_ids += [by_symbol[wire.symbols(number)[0]] for number in numbers]
    # What is still being written about the acceptance is not part of a fill.
    await asyncio.sleep(0.5)


async def spaced_round(contenders: Sequence[Contender], places: range) -> None:
    """Entries and then targets of `places`, one contender after the other, each fill of one at least 60 ms apart."""
    step_s = max(STEP_S, _LEAST_SPACING_S / len(contenders))
    samples: dict[str, tuple[list[float], list[float]]] = {each.name: ([], []) for each in contenders}
    gc.collect()
    for place in places:
        exits = {}
        for each in contenders:
            until = time.monotonic() + step_s
            sample, exits[each.name] = await each.fill_entry(place)
            samples[each.name][0].append(sample)
            await asyncio.sleep(max(0.0, until - time.monotonic()))
        for each in contenders:
            until = time.monotonic() + step_s
            samples[each.name][1].append(await each.fill_target(exits[each.name]))
            await asyncio.sleep(max(0.0, until - time.monotonic()))
    for each in contenders:
        each.exits_us.append(samples[each.name][0])
        each.cancel_us.append(samples[each.name][1])


async def back_to_back_round(contenders: Sequence[Contender], places: range) -> None:
    """The next fill as soon as both exits of the one before have arrived."""
    for each in contenders:
        each.back_to_back_us.append([(await each.fill_entry(place))[0] for place in places])
        await asyncio.sleep(0.3)


def round_medians(samples: Sequence[Sequence[float]]) -> list[float]:
    return [p50(each) for each in samples]


def compared(key: str, ours: Sequence[Sequence[float]], floor: Sequence[Sequence[float]], note: str = "") -> Figure:
    """Medians of the rounds; the ratio of each round is the spread."""
    value, other = round_medians(ours), round_medians(floor)
    return Figure(key, p50(value), p50(other), note, [a / b for a, b in zip(value, other, strict=True)])


class Wire:
    """The main figures. `rounds` in all, halved over two starts of every process."""

    def __init__(self, directory: Path, rounds: int, fills_a_round: int, back_to_back: int) -> None:
        self._directory = directory
        self._rounds = rounds
        self._fills = fills_a_round
        self._back_to_back = back_to_back
        self._shim = build_shim(directory)
        self._kept: dict[str, list[Contender]] = {}
        self._syncs_in_between = 0
        self._syncs_in_all = 0
        self._recipe_us: list[float] = []
        self.samples: dict[str, list[float]] = {}

    async def run(self) -> list[Figure]:
        starts = 2 if self._rounds > 1 else 1
        for start in range(starts):
            rounds = self._rounds // starts + (start < self._rounds % starts)
            directory = self._directory / f"start{start}"
            directory.mkdir()
            await self._one_start(directory, rounds)
        return self._figures()

    def _preload(self, directory: Path, name: str, delay_us: int) -> tuple[dict[str, str], Syncs | None]:
        if self._shim is None:
            return {}, None
        syncs = Syncs(directory / f"{name}.syncs")
        variables = {"LD_PRELOAD": str(self._shim), "BENCH_SYNCS": str(syncs.path)}
        return variables | {"BENCH_SYNC_DELAY_US": str(delay_us)}, syncs

    async def _one_start(self, directory: Path, rounds: int) -> None:
        count = rounds * (self._fills + self._back_to_back)
        preload, syncs = self._preload(directory, "otocod", 0)
        contenders = [await with_client("relay", directory, count)]
        daemon, _ = await with_daemon("otocod", directory, count, preload=preload)
        contenders.append(daemon)
        if syncs is not None:
            slow, _ = await with_daemon(
                "slow", directory, count, preload=self._preload(directory, "slow", _SLOWER_US)[0]
            )
            contenders.append(slow)
        contenders.append(await with_client("sdk", directory, count))
        recipe = await with_client("recipe", directory, _RECIPE_TRADES)
        polling = asyncio.create_task(self._recipe_fills(recipe, rounds * self._fills * 2 * STEP_S * len(contenders)))
        try:
            spaced = rounds * self._fills
            for number in range(rounds):
                await spaced_round(contenders, range(number * self._fills, (number + 1) * self._fills))
            if syncs is not None:
                self._syncs_in_all += syncs.count
                self._syncs_in_between += sum(syncs.between(*window) for window in daemon.windows_ns)
            for number in range(rounds):
                first = spaced + number * self._back_to_back
                await back_to_back_round(contenders[:2], range(first, first + self._back_to_back))
            await polling
        finally:
            polling.cancel()
            for each in (*contenders, recipe):
                assert each.close is not None
                await each.close()
            if syncs is not None:
                syncs.close()
        for each in contenders:
            self._kept.setdefault(each.name, []).append(each)

    async def _recipe_fills(self, recipe: Contender, within_s: float) -> None:
        """Fills at moments that have nothing to do with when it looks."""
        draw = random.Random(5)
        waits = sorted(draw.uniform(0, max(within_s - 6, 1)) for _ in recipe.entry_ids)
        symbols = {order_id: recipe.broker.orders[order_id]["legs"][0]["symbol"] for order_id in recipe.entry_ids}
        told: dict[str, int] = {}
        before = 0.0
        for wait, order_id in zip(waits, recipe.entry_ids, strict=True):
            await asyncio.sleep(wait - before)
            before = wait
            told[symbols[order_id]] = await recipe.broker.tell_fill(recipe.broker.orders[order_id])
        arrivals = await recipe.broker.arrived(2 * len(told), timeout_s=30)
        last = {arrival.symbol: arrival.at_ns for arrival in arrivals}
        self._recipe_us += [(last[symbol] - at_ns) / 1_000 for symbol, at_ns in told.items()]

    def _all(self, name: str) -> Contender:
        found = Contender(name, StubBroker())
        for each in self._kept.get(name, ()):
            found.exits_us += each.exits_us
            found.cancel_us += each.cancel_us
            found.back_to_back_us += each.back_to_back_us
        return found

    def _figures(self) -> list[Figure]:
        relay, daemon, slow, sdk = (self._all(name) for name in ("relay", "otocod", "slow", "sdk"))
        self.samples = {each.name: each.all_exits_us for each in (relay, daemon, slow, sdk)}
        self.samples["recipe"] = self._recipe_us
        self.samples["relay_cancel"] = [sample for each in relay.cancel_us for sample in each]
        self.samples["otocod_cancel"] = [sample for each in daemon.cancel_us for sample in each]
        fills = len(daemon.all_exits_us)
        tails = [p99(samples) for samples in daemon.exits_us]
        found = [
            compared("fill_to_exits_p50", daemon.exits_us, relay.exits_us, f"{fills} fills"),
            Figure("fill_to_exits_p99", p99(daemon.all_exits_us), p99(relay.all_exits_us), f"{fills} fills", tails),
            compared("fill_to_cancel_p50", daemon.cancel_us, relay.cancel_us),
            compared("back_to_back_p50", daemon.back_to_back_us, relay.back_to_back_us),
            compared("against_sdk", daemon.exits_us, sdk.exits_us),
            Figure("against_recipe", p50(daemon.all_exits_us), p50(self._recipe_us)),
        ]
        if not slow.exits_us:
            return [*found, Figure("syncs", None, note="no C compiler"), Figure("slow_syncs", None)]
        return [
            *found,
            Figure("syncs", float(self._syncs_in_between), note=f"{self._syncs_in_all} syncs in the run"),
            compared("slow_syncs", slow.exits_us, daemon.exits_us),
        ]
