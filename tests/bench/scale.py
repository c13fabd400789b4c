"""What many brackets cost: while they stay open, when they fill together, when the daemon starts with them."""

import asyncio
import gc
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import msgspec

from tests.bench import bulk, wire
from tests.bench.figures import Figure, p50
from tests.bench.fills import Contender, compared, open_brackets, spaced_round, with_client
from tests.bench.processes import BenchDaemon, run_python, usage_of
from tests.bench.stub import StubBroker

_BURST_WAIT_S = 120.0
_LIVE_FIRST = 1  # the template's own bracket trades the vertical 0


async def growth(
    stock: bulk.Stock, directory: Path, sizes: tuple[int, ...], rounds: int, fills: int, idle_s: float
) -> list[Figure]:
    """The same fills in daemons that hold 10, 10,000 and 100,000 open brackets, turn by turn; and the idle cost."""
    template = await stock.template()
    contenders: list[Contender] = []
    daemons: list[BenchDaemon] = []
    found: list[Figure] = []
    try:
        for size in sizes:
            broker = StubBroker()
            await broker.start()
            await stock.copy(size, directory / str(size))
            bulk.serve_with(template, broker, size)
            daemon = BenchDaemon(broker, directory / str(size))
            daemons.append(daemon)
            await daemon.ready(300)
            contender = Contender(str(size), broker)
            contenders.append(contender)
            # The full listing that follows the stream's beginning is no part of a fill.
            await _until_quiet(broker)
            await _until_idle(daemon)
            if size == 10_000 and idle_s:
                found.append(await _idle(daemon, idle_s))
            await open_brackets(contender, daemon, rounds * fills, _LIVE_FIRST)
        for number in range(rounds):
            await spaced_round(contenders, range(number * fills, (number + 1) * fills))
    finally:
        for daemon in daemons:
            daemon.close()
        for contender in contenders:
            await contender.broker.close()
    base = contenders[0]
    for each in contenders[1:]:
        found.append(compared(f"open_{each.name}", each.exits_us, base.exits_us))
    return found


async def crowd(stock: bulk.Stock, directory: Path, few: int, many: int, fills: int, times: int) -> Figure:
    """The fill of an exit among very many open brackets, in one process; see `crowd`."""
    template = await stock.template()
    places = [await stock.data_dir(count) for count in (few, many)]
    target = next(order for order in template.orders if msgspec.json.decode(order)["price"] == "0.40")
    given = {
        "few": str(places[0] / "state.db"),
        "many": str(places[1] / "state.db"),
        "target": target.decode(),
        "mark": bulk.MARK,
        "counts": (few, many),
        "fills": fills,
    }
    path = directory / "crowd.json"
    path.write_bytes(msgspec.json.encode(given))
    runs = []
    for _ in range(times):
        done = await asyncio.to_thread(run_python, ["-m", "tests.bench.crowd", str(path)])
        runs.append(msgspec.json.decode(done.stdout, type=tuple[float, float]))
    ratios = [big / small for small, big in runs]
    note = f"{many:,} against {few:,}, from the frame to the request"
    return Figure("open_100000", p50([big for _, big in runs]), p50([small for small, _ in runs]), note, ratios)


async def _until_quiet(broker: StubBroker, quiet_s: float = 1.0) -> None:
    seen = -1
    while broker.requests != seen:
        seen = broker.requests
        await asyncio.sleep(quiet_s)


async def _until_idle(daemon: BenchDaemon, patience_s: float = 120.0) -> None:
    """Until it has used next to nothing for two seconds: what follows a listing of 30,000 orders takes its time."""
    ends = time.monotonic() + patience_s
    while time.monotonic() < ends:
        before = usage_of(daemon.pid).cpu_s
        await asyncio.sleep(2.0)
        if usage_of(daemon.pid).cpu_s - before < 0.04:
            return


async def _idle(daemon: BenchDaemon, seconds: float) -> Figure:
    before = usage_of(daemon.pid)
    began = time.monotonic()
    await asyncio.sleep(seconds)
    share = (usage_of(daemon.pid).cpu_s - before.cpu_s) / (time.monotonic() - began)
    return Figure("idle_cpu", 100 * share, note=f"over {seconds:.0f} s")


async def burst(directory: Path, count: int, starts: int) -> list[Figure]:
    """`count` entries fill at once: from the first frame to the last exit; and whether each exit came exactly once."""
    ours: list[list[float]] = []
    floor: list[list[float]] = []
    wrong = 0
    for start in range(starts):
        place = directory / f"burst{start}"
        place.mkdir()
        relay = await with_client("relay", place, count)
        floor.append([await _burst(relay)])
        assert relay.close is not None
        await relay.close()
        broker = StubBroker()
        await broker.start()
        daemon = BenchDaemon(broker, place / "otocod")
        await daemon.ready()
        contender = Contender("otocod", broker)
        await open_brackets(contender, daemon, count)
        await _until_quiet(broker, 0.5)
        ours.append([await _burst(contender)])
        await _until_quiet(broker, 0.5)
        wrong += _wrong(contender, count)
        await daemon.ended()
        await broker.close()
    figure = compared("burst", ours, floor, f"{count:,} fills")
    return [figure, Figure("burst_wrong", float(wrong))]


async def _burst(contender: Contender) -> float:
    broker = contender.broker
    broker.arrivals.clear()
    orders = [broker.orders[order_id] for order_id in contender.entry_ids]
    at_ns = await broker.tell_fills(orders)
    arrivals = await broker.arrived(2 * len(orders), _BURST_WAIT_S)
    return (max(arrival.at_ns for arrival in arrivals) - at_ns) / 1e6


def _wrong(contender: Contender, count: int) -> int:
    posts = [arrival for arrival in contender.broker.arrivals if arrival.method == "POST"]
    exits = Counter(arrival.symbol for arrival in posts)
    names = Counter(arrival.external_identifier for arrival in posts)
    misses = sum(abs(2 - number) for number in exits.values()) + 2 * (count - len(exits))
    return misses + sum(number - 1 for number in names.values())


async def acceptance(directory: Path, count: int) -> Figure:
    """Rows of one transaction in the queue until the last of them is an accepted bracket on disk."""
    broker = StubBroker()
    await broker.start()
    daemon = BenchDaemon(broker, directory / "acceptance")
    await daemon.ready()
    await asyncio.sleep(0.5)
    rows = [(f"bench-{number}", wire.request(number)) for number in range(count)]
    began = time.monotonic()
    await asyncio.to_thread(daemon.submit_all, rows)
    committed = time.monotonic()
    database = daemon.data_dir / "state.db"
    while _brackets_in(database) < count:
        assert time.monotonic() - began < 120, "acceptance takes too long"
        await asyncio.sleep(0.01)
    figure = Figure("acceptance", count / (time.monotonic() - committed), note=f"{count:,} at once")
    await daemon.ended()
    await broker.close()
    return figure


def _brackets_in(database: Path) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM brackets").fetchone()[0])


async def start(stock: bulk.Stock, directory: Path, brackets: int, orders: int, times: int) -> Figure:
    """From the process to `ready`, with a broker that lists `orders`."""
    template = await stock.template()
    broker = StubBroker()
    await broker.start()
    await stock.copy(brackets, directory / "start")
    bulk.serve_with(template, broker, brackets, padding=max(0, orders - 3 * brackets))
    daemon = BenchDaemon(broker, directory / "start")
    runs = []
    for _ in range(times):
        began = time.monotonic()
        await daemon.ready()
        runs.append(time.monotonic() - began)
        await daemon.ended()
    await broker.close()
    return Figure("start", p50(runs), note=f"{brackets:,} brackets, {orders:,} orders", runs=runs)


async def loading(stock: bulk.Stock, sizes: tuple[int, ...], times: int) -> list[Figure]:
    """Each measured in a process of its own, store and raw loop in turn."""
    found = []
    for size in sizes:
        data_dir = await stock.data_dir(size)
        # The largest take long and vary little.
        turns = times if size <= 10_000 else 1
        runs = [await asyncio.to_thread(_load, data_dir, way) for _ in range(turns) for way in ("raw", "store")]
        raw, ours = [run["ms"] for run in runs[::2]], [run["ms"] for run in runs[1::2]]
        ratios = [mine / other for mine, other in zip(ours, raw, strict=True)]
        found.append(Figure(f"load_{size}", p50(ours), p50(raw), runs=ratios))
        if size == 10_000:
            few = await stock.data_dir(1_000)
            run = await asyncio.to_thread(_load, few, "memory")
            found.append(Figure("bracket_bytes", run["bytes_a_bracket"]))
            found.append(Figure("longest_gc", p50([run["longest_gc_ms"] for run in runs[1::2]])))
    return found


def _load(data_dir: Path, way: str) -> dict[str, float]:
    gc.collect()
    found: dict[str, float] = msgspec.json.decode(
        run_python(["-m", "tests.bench.loading", str(data_dir / "state.db"), way]).stdout
    )
    return found
