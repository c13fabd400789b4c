"""`python -m tests.bench`: runs the groups of figures, prints the table, writes bench.json. It asserts nothing."""

import argparse
import gc
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from otocod import __version__
from tests.bench import plot, scale, small
from tests.bench.bulk import Stock
from tests.bench.figures import GOALS, Figure, table, write_json
from tests.bench.fills import Wire
from tests.bench.processes import ROOT

_PLOT = ROOT / "docs" / "img" / "fill-to-wire.svg"


@dataclass
class Size:
    """How much of everything: `rounds` halves over two starts."""

    rounds: int
    is_quick: bool
    stock: Stock
    samples: dict[str, list[float]] = field(default_factory=dict)

    def of(self, whole: int, quick: int) -> int:
        return quick if self.is_quick else whole


async def _fills(directory: Path, size: Size) -> list[Figure]:
    wire = Wire(directory, size.rounds, size.of(44, 4), size.of(20, 3))
    figures = await wire.run()
    size.samples |= wire.samples
    return figures


async def _growth(directory: Path, size: Size) -> list[Figure]:
    sizes = (10, 100) if size.is_quick else (10, 10_000)
    rounds, fills = size.of(6, 1), size.of(25, 4)
    figures = await scale.growth(size.stock, directory, sizes, rounds, fills, size.of(10, 0))
    return [figure for figure in figures if figure.key in GOALS]


async def _crowd(directory: Path, size: Size) -> list[Figure]:
    return [await scale.crowd(size.stock, directory, size.of(400, 20), size.of(100_000, 200), size.of(300, 10), 1)]


async def _burst(directory: Path, size: Size) -> list[Figure]:
    return await scale.burst(directory, size.of(1_000, 20), size.of(2, 1))


async def _acceptance(directory: Path, size: Size) -> list[Figure]:
    return [await scale.acceptance(directory, size.of(2_000, 20))]


async def _start(directory: Path, size: Size) -> list[Figure]:
    return [await scale.start(size.stock, directory, size.of(1_000, 10), size.of(10_000, 100), size.of(3, 1))]


async def _load(directory: Path, size: Size) -> list[Figure]:
    figures = await scale.loading(size.stock, (100,) if size.is_quick else (10_000, 100_000), size.of(3, 1))
    return [figure for figure in figures if figure.key in GOALS]


async def _queue(directory: Path, size: Size) -> list[Figure]:
    return await small.pickup(directory, size.of(100, 5))


async def _resident(directory: Path, size: Size) -> list[Figure]:
    return [await small.resident(directory)]


async def _cli(directory: Path, size: Size) -> list[Figure]:
    return await small.commands(directory, size.of(9, 1))


async def _watch(directory: Path, size: Size) -> list[Figure]:
    from tests.bench.watch import decisions

    return [decisions(1_000, size.of(50_000, 500))]


GROUPS: dict[str, Callable[[Path, Size], Awaitable[list[Figure]]]] = {
    "fills": _fills,
    "growth": _growth,
    "crowd": _crowd,
    "burst": _burst,
    "load": _load,
    "start": _start,
    "resident": _resident,
    "queue": _queue,
    "acceptance": _acceptance,
    "cli": _cli,
    "watch": _watch,
}


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="NAME", help=", ".join(GROUPS))
    parser.add_argument("--rounds", type=int, default=None, help="of the fills; 12 when left out")
    parser.add_argument("--quick", action="store_true", help="to see that it runs; its figures mean nothing")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    parser.add_argument("--plot", type=Path, nargs="?", const=_PLOT, default=None, metavar="FILE", help="as SVG")
    return parser.parse_args(arguments)


def _machine() -> dict[str, object]:
    model = ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "otocod": __version__,
        "load_before": os.getloadavg()[0],
    }


async def _run(names: list[str], size: Size) -> list[Figure]:
    gc.freeze()
    figures: list[Figure] = []
    for name in names:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as made:
            directory = Path(made)
            try:
                figures += await GROUPS[name](directory, size)
            except Exception:  # one group that fails must not cost the others
                traceback.print_exc()
        sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s\n")
    return figures


def main(arguments: list[str]) -> int:
    given = _arguments(arguments)
    names = given.only or list(GROUPS)
    machine = _machine()
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as kept:
        size = Size(given.rounds or (2 if given.quick else 12), given.quick, Stock(Path(kept)))
        figures = uvloop.run(_run(names, size))
    if not given.only:
        measured = {figure.key for figure in figures}
        figures += [Figure(key, None, note="not measured") for key in GOALS if key not in measured]
    order = list(GOALS)
    figures.sort(key=lambda figure: order.index(figure.key))
    print(table(figures))
    if given.json is not None:
        write_json(given.json, figures, size.samples, machine)
    if given.plot is not None and size.samples:
        plot.write(given.plot, size.samples)
    return 0 if figures and all(figure.value is not None or given.quick for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
