"""`python -m tests.simulation --seeds 1..1000`: many seeds on all cores; `--seed N --trace`: one, told line by line.

`--slice` is what CI runs: the first thousand seeds, whose failure is this tree's, then fresh ones until the time is up,
whose failure is told and is a finding.
"""

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
from contextlib import suppress
from functools import partial
from random import SystemRandom
from types import FrameType

from tests.simulation.naive import Count, compare
from tests.simulation.plan import FAULT_CLASSES, SQLITE_EVERY
from tests.simulation.runner import Verdict, run_seed, shrink

_SEED_LIMIT_S = 20  # of the processor's time; a seed takes a twentieth of a second
_TELL_EVERY_S = 30.0
_FIXED = range(1, 1_001)
_SLICE_S = 180.0


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
    # In order, so that a run that is broken off can be continued.
    with multiprocessing.get_context("fork").Pool(jobs, _leave_interrupts, maxtasksperchild=500) as pool:
        yield from pool.imap(work, seeds, chunksize=8)


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _until(verdicts: Iterator[Verdict], ends_s: float) -> Iterator[Verdict]:
    """Ctrl-C and the end of the time end it early, and what was done is summed up."""
    with suppress(KeyboardInterrupt):
        for verdict in verdicts:
            yield verdict
            if time.monotonic() >= ends_s:
                return


def _run_many(
    seeds: range, jobs: int, off: frozenset[str], twice: bool, stop_after: int, limit_s: float = float("inf")
) -> int:
    started_s = told_s = time.monotonic()
    failed: list[Verdict] = []
    brackets = filled = done = 0
    virtual_s = 0.0
    classes: Counter[str] = Counter()
    for verdict in _until(_verdicts(seeds, jobs, off, twice), started_s + limit_s):
        done += 1
        if time.monotonic() - told_s >= _TELL_EVERY_S:
            told_s = time.monotonic()
            rate = brackets / (told_s - started_s)
            print(
                f"... {done} of {len(seeds)} seeds, {brackets} brackets, {rate:.0f}/s, {len(failed)} failed", flush=True
            )
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
    if done < len(seeds) and limit_s == float("inf"):
        print(f"broken off: go on with --seeds {seeds[done]}..{seeds[-1]}")
    return 1 if failed else 0


def _run_slice(jobs: int) -> int:
    """Ends within its time whatever the machine; the fresh seeds are told before they run."""
    started_s = time.monotonic()
    print(f"fixed seeds {_FIXED[0]}..{_FIXED[-1]}", flush=True)
    status = _run_many(_FIXED, jobs, frozenset(), False, 20, _SLICE_S)
    left_s = started_s + _SLICE_S - time.monotonic()
    if left_s > 1.0:
        first = SystemRandom().randrange(10_000_000, 1_000_000_000)
        print(f"fresh seeds from {first} on", flush=True)
        _run_many(range(first, first + 1_000_000), jobs, frozenset(), False, 20, left_s)
    return status


def _run_naive(seeds: range, jobs: int, off: frozenset[str]) -> int:
    started_s = time.monotonic()
    naive, ours = Count(), Count()
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for one, other in pool.imap_unordered(partial(compare, off=off), seeds, chunksize=8):
            naive.join(one)
            ours.join(other)
    print(f"{len(seeds)} seeds in {time.monotonic() - started_s:.1f} s, each once with the loop and once with otocod")
    print(naive.line("naive loop"))
    print(ours.line("otocod"))
    return 0


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
    parser.add_argument("--slice", action="store_true", help="fixed seeds, then fresh ones, three minutes in all")
    parser.add_argument(
        "--naive", action="store_true", help="the loop people write by hand beside otocod, counted alike"
    )
    parser.add_argument("--stop-after", type=int, default=20, help="so many failing seeds end the run")
    given = parser.parse_args()
    # A command that a dying daemon had made and not begun is not awaited by anybody.
    warnings.filterwarnings("ignore", message="coroutine 'SimBroker", category=RuntimeWarning)
    off = frozenset(name for name in given.off.split(",") if name)
    if unknown := off - FAULT_CLASSES.keys():
        parser.error(f"no such class: {', '.join(sorted(unknown))}")
    if given.seed is not None:
        return _run_one(given.seed, off, traced=given.trace, shrunk=given.shrink)
    if given.slice:
        return _run_slice(given.jobs)
    if given.seeds is None:
        parser.error("--seeds a..b or --seed N")
    if given.naive:
        return _run_naive(given.seeds, given.jobs, off)
    return _run_many(given.seeds, given.jobs, off, given.twice, given.stop_after)


if __name__ == "__main__":
    sys.exit(main())
