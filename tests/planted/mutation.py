"""`python -m tests.planted.mutation`: mutants of the core against its own tests.

A survivor is a change that no unit or property test of the core notices. Some change nothing, some are noticed by the
simulation alone; docs/planted-bugs.md goes through them. A long campaign: a mutant takes one to four seconds.
"""

import argparse
import io
import os
import signal
import sys
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from random import Random
from types import FrameType

# Imported before the processes part, so that not each of them has to.
import hypothesis  # noqa: F401
import msgspec  # noqa: F401
import pytest
import structlog  # noqa: F401
import transitions  # noqa: F401

from tests.planted.mutants import Mutant, mutants_of
from tests.planted.planting import ROOT, in_fresh_process, plant

CORE = ("learning", "entering", "protecting", "finishing", "orders", "reconcile", "turn", "decide", "machine")
# The quick ones first: the first failure ends a mutant.
_UNIT = (
    "orders",
    "reconcile",
    "learning",
    "entering",
    "protecting",
    "finishing",
    "invariants",
    "acceptance",
    "decide_life",
)
_LIMIT_S = 60.0  # of the processor's time; the tests take a few seconds


@dataclass(frozen=True)
class Judged:
    mutant: Mutant
    end: str  # killed, survived, time


class _TookTooLong(Exception):
    pass


def _give_up(_signal: int, _frame: FrameType | None) -> None:
    raise _TookTooLong


def _tests() -> list[str]:
    units = [*_UNIT, *sorted(_own_tests() - set(_UNIT))]
    return [*(f"tests/unit/domain/test_{name}.py" for name in units), "tests/property/test_merge.py"]


def _own_tests() -> set[str]:
    """Files that were written for survivors, and the machine's."""
    found = {path.stem.removeprefix("test_") for path in (ROOT / "tests/unit/domain").glob("test_*_edges.py")}
    return found | {"machine"}


def judge(mutant: Mutant) -> Judged:
    planted = plant(mutant.file, mutant.text)
    signal.signal(signal.SIGVTALRM, _give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, _LIMIT_S)
    os.chdir(ROOT)
    arguments = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--assert=plain", "--tb=no"]
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            code = pytest.main([*arguments, *_tests()])
    except _TookTooLong:
        return Judged(mutant, "time")
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    if not planted.is_used:
        raise RuntimeError(f"no test imports {mutant.file}")
    return Judged(mutant, "survived" if code == 0 else "killed")


def _chosen(modules: list[str], sample: int, seed: int) -> list[Mutant]:
    files = [f"otocod/domain/{name}.py" for name in modules]
    every = [mutant for file in files for mutant in mutants_of(file, (ROOT / file).read_text())]
    if sample >= len(every):
        return every
    chosen = set(Random(seed).sample(range(len(every)), sample))
    return [mutant for place, mutant in enumerate(every) if place in chosen]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.planted.mutation", description=__doc__)
    parser.add_argument("--module", action="append", choices=CORE, help="may be given several times; all if left out")
    parser.add_argument("--sample", type=int, default=1_000_000, help="so many of all mutants, drawn by --seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="no mutant is begun after so many seconds")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=2)
    given = parser.parse_args()
    mutants = _chosen(given.module or list(CORE), given.sample, given.seed)
    Random(given.seed).shuffle(mutants)  # a run that is cut short has then seen a fair part
    started_s = time.monotonic()
    ends: Counter[str] = Counter()
    survivors: list[Mutant] = []
    for judged in in_fresh_process(judge, mutants, jobs=given.jobs):
        ends[judged.end] += 1
        if judged.end == "survived":
            survivors.append(judged.mutant)
            print(_line(judged.mutant), flush=True)
        if time.monotonic() - started_s > given.limit_s:
            break
    done = sum(ends.values())
    print(
        f"{done} mutants in {time.monotonic() - started_s:.0f} s: {', '.join(f'{n} {end}' for end, n in ends.items())}"
    )
    for mutant in sorted(survivors, key=lambda mutant: (mutant.file, mutant.line)):
        print(_line(mutant))
    return 0


def _line(mutant: Mutant) -> str:
    return f"{mutant.file}:{mutant.line}: {mutant.change}: {mutant.before}"


if __name__ == "__main__":
    sys.exit(main())
