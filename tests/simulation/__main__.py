"""`python -m tests.simulation --seeds 1..1000`: many seeds on all cores; `--seed N --trace`: one, told line by line."""

import argparse
import gc
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import partial
from types import FrameType

from tests.simulation.plan import FAULT_CLASSES, SQLITE_EVERY
from tests.simulation.runner import Verdict, run_seed, shrink

_SEED_LIMIT_S = 20  # of the processor's time; a seed takes a tenth of a second


class _TookTooLong(KeyboardInterrupt):
    """Of this kind because a loop's callbacks let nothing else through."""


def _give_up(_signal: int, _frame: FrameType | None) -> None:
    raise _TookTooLong


def _bounded(seed: int, off: frozenset[str], twice: bool) -> Verdict:
    signal.signal(signal.SIGVTALRM, _give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, _SEED_LIMIT_S, 1.0)
    try:
        verdict = run_seed(seed, off=off, keeps_hash=twice)
        if twice and run_seed(seed, off=off).trace_hash != verdict.trace_hash:
            return _failed(seed, "two runs of this seed differ")
        return verdict
    except _TookTooLong:
        return _failed(seed, f"{_SEED_LIMIT_S} s of the processor were not enough")
    except Exception as error:
        return _failed(seed, f"the simulation itself failed: {error!r}")
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _prepare() -> None:
    """Everything that lasts is made before the first seed and left out of collections, which are made seldom."""
    run_seed(SQLITE_EVERY)
    run_seed(1)
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def _failed(seed: int, why: str) -> Verdict:
    return Verdict(seed, (why,), "", 0, 0, (), 0.0, 0.0)


def _command(seed: int, off: frozenset[str]) -> str:
    return f"python -m tests.simulation --seed {seed}" + (f" --off {','.join(sorted(off))}" if off else "") + " --trace"


def _verdicts(seeds: range, jobs: int, off: frozenset[str], twice: bool) -> Iterator[Verdict]:
    work = partial(_bounded, off=off, twice=twice)
    _prepare()
    if jobs == 1:
        yield from map(work, seeds)
        return
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=500) as pool:
        yield from pool.imap_unordered(work, seeds, chunksize=8)


def _run_many(seeds: range, jobs: int, off: frozenset[str], twice: bool, stop_after: int) -> int:
    started_s = time.monotonic()
    failed: list[Verdict] = []
    brackets = filled = done = 0
    virtual_s = 0.0
    classes: Counter[str] = Counter()
    for verdict in _verdicts(seeds, jobs, off, twice):
        done += 1
        brackets += verdict.brackets
        filled += verdict.filled
        virtual_s += verdict.virtual_s
        classes.update(verdict.classes)
        if verdict.violations:
            failed.append(verdict)
            print(f"seed {verdict.seed}: {verdict.violations[0]}", flush=True)
            print(f"    {_command(verdict.seed, off)}", flush=True)
            if len(failed) >= stop_after:
                break
    real_s = time.monotonic() - started_s
    unseen = [name for name in FAULT_CLASSES if not classes[name] and name not in off]
    print(
        f"{done} seeds, {brackets} brackets ({filled} filled), {virtual_s / 3600:.1f} virtual hours in {real_s:.1f} s,"
        f" {brackets / max(real_s, 0.001):.0f} brackets/s, {len(classes)} classes of fault; {len(failed)} seeds failed"
    )
    if unseen and done >= 100:
        print(f"classes never on: {', '.join(unseen)}")
    return 1 if failed else 0


def _run_one(seed: int, off: frozenset[str], *, traced: bool, shrunk: bool) -> int:
    if shrunk:
        verdict, off = shrink(seed, off=off)
        print(f"still on: {', '.join(verdict.classes) or 'nothing'}")
        print(f"repeat: {_command(seed, off)}")
    else:
        verdict = run_seed(seed, off=off, keeps_trace=traced)
        print(*verdict.lines, sep="\n")
        print(f"on: {', '.join(verdict.classes)}")
    print(f"trace {verdict.trace_hash[:16]}, {verdict.real_s:.2f} s")
    for text in verdict.violations:
        print(f"VIOLATION {text}")
    return 1 if verdict.violations else 0


def _range(text: str) -> range:
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=_range, help="a..b, both included")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--off", default="", help="classes of fault to switch off, with commas")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--shrink", action="store_true")
    parser.add_argument("--twice", action="store_true", help="each seed twice: the traces must be the same")
    parser.add_argument("--stop-after", type=int, default=20, help="so many failing seeds end the run")
    given = parser.parse_args()
    # A command that a dying daemon had made and not begun is not awaited by anybody.
    warnings.filterwarnings("ignore", message="coroutine 'SimBroker", category=RuntimeWarning)
    off = frozenset(name for name in given.off.split(",") if name)
    if unknown := off - FAULT_CLASSES.keys():
        parser.error(f"no such class: {', '.join(sorted(unknown))}")
    if given.seed is not None:
        return _run_one(given.seed, off, traced=given.trace, shrunk=given.shrink)
    if given.seeds is None:
        parser.error("--seeds a..b or --seed N")
    return _run_many(given.seeds, given.jobs, off, given.twice, given.stop_after)


if __name__ == "__main__":
    sys.exit(main())
