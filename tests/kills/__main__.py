"""`python -m tests.kills --kills 20000 [--jobs 2] [--seed S]`: real SIGKILLs, counted and judged.

Each job is a process with a paper broker, a fork server and its share of the stories. Exit status 1 if anything was
violated; what failed is printed with the one command that repeats its draws, and its directory is kept.
"""

import argparse
import multiprocessing
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tests.kills.campaign import Tally, run_share
from tests.kills.story import Shape

KILLS_A_STORY = 60
WARDS_A_STORY = 28
# Spreads of the paper broker's chain, of which each story borrows its own.
SPREADS = 720


def main() -> int:
    arguments = _parser().parse_args()
    shape = Shape(arguments.kills_a_story, arguments.wards_a_story)
    at_once = min(arguments.at_once, SPREADS // shape.wards)
    stories = -(-arguments.kills // shape.kills)
    seeds = arguments.story or [f"{arguments.seed}/{number}" for number in range(stories)]
    print(f"seed {arguments.seed}: {len(seeds)} stories of {shape.kills} kills and {shape.wards} brackets")
    base = Path(tempfile.mkdtemp(prefix="k"))
    started_s = time.monotonic()
    shares = [seeds[job :: arguments.jobs] for job in range(arguments.jobs) if seeds[job :: arguments.jobs]]
    tally = Tally()
    work = partial(run_share, base=base, shape=shape, at_once=at_once)
    with ProcessPoolExecutor(len(shares), mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in pool.map(work, range(len(shares)), shares):
            tally.join(done)
    _report(tally, time.monotonic() - started_s, arguments)
    if not tally.failures:
        shutil.rmtree(base)
    return 1 if tally.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20_000, help="at least so many (default 20000)")
    parser.add_argument("--jobs", type=int, default=2, help="processes, each with a paper broker (default 2)")
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(1 << 32)), help="default: a fresh one")
    parser.add_argument("--story", action="append", help="only this one, as a failure prints it; may be repeated")
    parser.add_argument("--at-once", type=int, default=30, help="data directories at once, in each job (default 30)")
    parser.add_argument("--kills-a-story", type=int, default=KILLS_A_STORY)
    parser.add_argument("--wards-a-story", type=int, default=WARDS_A_STORY, help="brackets in each data directory")
    return parser


def _report(tally: Tally, took_s: float, arguments: argparse.Namespace) -> None:
    kills = tally.kills.total()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"\n{'killed at':<24}{'starting':>10}{'ready':>10}")
    for where in sorted({where for where, _ in tally.kills}):
        print(f"{where:<24}{tally.kills[where, 'starting']:>10}{tally.kills[where, 'ready']:>10}")
    print(f"\nbrackets by outcome: {_counts(tally.outcomes)}\nattention: {_counts(tally.attention)}")
    print(
        f"{kills} kills in {took_s:.0f} s ({kills / took_s:.1f}/s, {(used.ru_utime + used.ru_stime) / kills * 1000:.0f}"
        f" ms of processor time each), {tally.clean_stops} clean stops, {tally.brackets} brackets in {tally.stories}"
        f" directories, {len(tally.failures)} directories with violations"
    )
    for seed, directory, violations in tally.failures:
        print(f"\n{directory}: python -m tests.kills --jobs 1 --story {seed}", end=" ")
        print(f"--kills-a-story {arguments.kills_a_story} --wards-a-story {arguments.wards_a_story}")
        for text in violations:
            print(f"  {text}")


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())


if __name__ == "__main__":
    sys.exit(main())
