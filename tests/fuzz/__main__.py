"""`python -m tests.fuzz TARGET --cases N --seed S [--jobs J]`, and `--case K` to have one case again by itself."""

import argparse
import sys
import time
from collections.abc import Sequence

from tests.fuzz.campaign import run_parts
from tests.fuzz.harness import Case, fresh_seed, rng_of, told
from tests.fuzz.targets import TARGETS


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=None, help="default: a fresh one, printed")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--case", type=int, default=None, help="this case alone")
    given = parser.parse_args(argv)
    seed = fresh_seed() if given.seed is None else given.seed
    if given.case is not None:
        return _one(given.target, seed, given.case)
    print(f"fuzz {given.target}: {given.cases} cases of seed {seed}, {given.jobs} at once", flush=True)
    began_s = time.monotonic()
    result = run_parts(given.target, seed, given.cases, given.jobs)
    wall_s = time.monotonic() - began_s
    for failure in result.failures:
        print(f"\n{told(failure, given.target, seed)}")
    rate = result.cases / max(result.seconds, 0.001)
    words = ", ".join(f"{word} {count}" for word, count in result.words.most_common())
    print(
        f"{result.cases} cases in {wall_s:.0f} s ({rate:.0f} a second of one core), "
        f"slowest {result.slowest_s * 1000:.0f} ms, memory at most {result.peak_mib} MiB: {words}"
    )
    print(f"{len(result.failures)} different failures" if result.failures else "no failures")
    return 1 if result.failures else 0


def _one(name: str, seed: int, number: int) -> int:
    target = TARGETS[name]()
    case: Case = target.case(rng_of(seed, number))
    print(repr(case))
    try:
        print(target.check(case))
    finally:
        target.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
