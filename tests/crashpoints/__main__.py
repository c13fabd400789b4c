"""`python -m tests.crashpoints`: every crash point of every scenario; `--pairs`: second ones in the recovery too.

`--scenario NAME --point 17:after [--point 30:before] --trace` is one run, told line by line; without `--point` it is
the clean run, and `--list` prints its calls.
"""

import argparse
import hashlib
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import TypeVar

from tests.crashpoints.points import Point, point_from_text
from tests.crashpoints.runner import Verdict, all_points, clean_exposure_s, recovery_points, run_story
from tests.crashpoints.scenarios import PAIRED, STORIES

W = TypeVar("W")
_RUN_LIMIT_S = 30  # of the processor's time; a run takes a fiftieth of a second
_TOLD_A_STORY = 3  # failures of one scenario told in full


class _TookTooLong(Exception):
    pass


@dataclass
class Tally:
    """What came of some runs of one story."""

    story: str
    points: int = 0  # first points enumerated
    runs: int = 0
    pairs: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)  # (violation, command)
    digest: int = 0  # of all traces; the order does not matter
    exposure_s: float = 0.0  # the longest time without an exit that crashes added to the clean run's

    def add(self, verdict: Verdict) -> None:
        self.runs += 1
        self.failed.extend((text, verdict.command) for text in verdict.violations[:1])
        if verdict.points and verdict.calls:
            self.exposure_s = max(self.exposure_s, verdict.exposure_s - clean_exposure_s(self.story))
        told = f"{verdict.command} {verdict.trace_hash}".encode()
        self.digest ^= int.from_bytes(hashlib.sha256(told).digest()[:8], "big")

    def join(self, other: "Tally") -> None:
        self.points += other.points
        self.runs += other.runs
        self.pairs += other.pairs
        self.failed += other.failed
        self.digest ^= other.digest
        self.exposure_s = max(self.exposure_s, other.exposure_s)


def _give_up(_signal: int, _frame: FrameType | None) -> None:
    raise _TookTooLong


def _run(story: str, points: Sequence[Point]) -> Verdict:
    signal.signal(signal.SIGVTALRM, _give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, _RUN_LIMIT_S, 1.0)
    try:
        return run_story(story, points)
    except Exception as error:
        return Verdict(story, tuple(points), (f"the run itself failed: {error!r}",), "", (), {}, 0.0, 0.0, 0.0)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _clean(story: str) -> tuple[Verdict, list[Point]]:
    verdict = _run(story, ())
    return verdict, all_points(verdict)


def _single(work: tuple[str, tuple[Point, ...]]) -> Tally:
    """Some first crashes of one story."""
    story, points = work
    tally = Tally(story, points=len(points))
    for point in points:
        tally.add(_run(story, (point,)))
    return tally


def _paired(work: tuple[str, Point]) -> Tally:
    """One first crash, and every second one in the recovery from it."""
    story, first = work
    tally = Tally(story)
    crashed = _run(story, (first,))
    for second in recovery_points(crashed):
        tally.add(_run(story, (first, second)))
        tally.pairs += 1
    return tally


def _spread(work: Callable[[W], Tally], parts: Iterable[W], jobs: int) -> Iterator[Tally]:
    if jobs == 1:
        yield from map(work, parts)
        return
    with multiprocessing.get_context("fork").Pool(jobs, _leave_interrupts, maxtasksperchild=200) as pool:
        yield from pool.imap_unordered(work, parts)


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _batches(story: str, points: Sequence[Point], size: int = 32) -> Iterator[tuple[str, tuple[Point, ...]]]:
    for first in range(0, len(points), size):
        yield story, tuple(points[first : first + size])


class _Campaign:
    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self.tallies: dict[str, Tally] = {}

    def take(self, tally: Tally) -> None:
        known = self.tallies.setdefault(tally.story, Tally(tally.story))
        for text, command in tally.failed[: max(_TOLD_A_STORY - len(known.failed), 0)]:
            print(f"{tally.story}: {text}\n    {command}", flush=True)
        known.join(tally)

    def run(self, stories: Sequence[str], paired: Sequence[str]) -> int:
        """Ctrl-C ends it early, and what was done is summed up."""
        started_s = time.monotonic()
        try:
            self._enumerate(stories, paired)
            is_whole = True
        except KeyboardInterrupt:
            print("broken off: not every point was tried")
            is_whole = False
        self._sum_up(len(paired), time.monotonic() - started_s)
        return 0 if is_whole and not any(tally.failed for tally in self.tallies.values()) else 1

    def _enumerate(self, stories: Sequence[str], paired: Sequence[str]) -> None:
        points = {}
        for story in stories:
            verdict, points[story] = _clean(story)
            clean = Tally(story)
            clean.add(verdict)
            self.take(clean)
        for tally in _spread(_single, [batch for s in stories for batch in _batches(s, points[s])], self._jobs):
            self.take(tally)
        for tally in _spread(_paired, [(s, point) for s in paired for point in points[s]], self._jobs):
            self.take(tally)

    def _sum_up(self, paired: int, real_s: float) -> None:
        tallies = self.tallies.values()
        runs, failed = sum(t.runs for t in tallies), sum(len(t.failed) for t in tallies)
        digest = 0
        for tally in tallies:
            digest ^= tally.digest
            if len(tally.failed) > _TOLD_A_STORY:
                print(f"{tally.story}: {len(tally.failed)} runs failed in all")
        pairs = sum(t.pairs for t in tallies)
        print(
            f"{len(tallies)} scenarios, {sum(t.points for t in tallies)} crash points"
            + (f", {pairs} pairs over {paired} scenarios" if paired else "")
            + f", {runs} runs in {real_s:.1f} s ({runs / max(real_s, 0.001):.0f}/s), {failed} violations;"
            f" at most {max((t.exposure_s for t in tallies), default=0.0):.1f} s more without an exit than undisturbed;"
            f" digest {digest:016x}"
        )


def _tell_one(story: str, points: Sequence[Point], *, traced: bool, listed: bool) -> int:
    verdict = run_story(story, points, keeps_trace=traced)
    if traced:
        print(*verdict.lines, sep="\n")
    if listed:
        print(*verdict.calls, sep="\n")
    print(f"{story}: {len(verdict.calls)} calls, {len(all_points(verdict))} points, trace {verdict.trace_hash[:16]}")
    for text in verdict.violations:
        print(f"VIOLATION {text}")
    return 1 if verdict.violations else 0


def main() -> int:
    # A life that dies leaves its requests unsent.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    parser = argparse.ArgumentParser(prog="python -m tests.crashpoints", description=__doc__)
    parser.add_argument("--scenario", action="append", choices=STORIES, metavar="NAME", help="may be repeated")
    parser.add_argument("--point", action="append", type=point_from_text, default=[], metavar="CALL:POSITION")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--pairs", action="store_true", help="second crashes as well")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--list", action="store_true", help="the calls of one run; without --scenario, the scenarios")
    given = parser.parse_args()
    stories = given.scenario or list(STORIES)
    if given.list and not given.scenario:
        print(*STORIES, sep="\n")
        return 0
    if given.point or given.trace or given.list:
        if len(stories) != 1:
            parser.error("--point, --trace and --list want one --scenario")
        return _tell_one(stories[0], given.point, traced=given.trace, listed=given.list)
    paired = [story for story in stories if given.scenario or story in PAIRED] if given.pairs else []
    return _Campaign(given.jobs).run(stories, paired)


if __name__ == "__main__":
    sys.exit(main())
