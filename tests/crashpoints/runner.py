"""One run of a story, with or without crashes, and the points it has."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from tests.crashpoints.points import Call, Point
from tests.crashpoints.scenarios import STORIES
from tests.crashpoints.verdicts import EXPOSURE_A_START_S, exposure_s, violations
from tests.crashpoints.world import CrashWorld
from tests.simulation.loop import SECOND_US

# The second crash of a pair: from the start of the next life until so long after it was ready.
RECOVERY_MARGIN_US = SECOND_US


@dataclass(frozen=True)
class Verdict:
    story: str
    points: tuple[Point, ...]
    violations: tuple[str, ...]
    trace_hash: str
    calls: tuple[Call, ...]
    ready_at_us: dict[int, int]
    virtual_s: float
    real_s: float
    exposure_s: float  # the longest time a position stood without an exit at the exchange
    lines: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """What repeats this run."""
        points = " ".join(f"--point {point}" for point in self.points)
        return f"python -m tests.crashpoints --scenario {self.story} {points} --trace".replace("  ", " ")


def run_story(name: str, points: Sequence[Point] = (), *, keeps_trace: bool = False) -> Verdict:
    started_s = time.monotonic()
    world = CrashWorld(STORIES[name], points, keeps_trace=keeps_trace)
    world.run()
    for text in violations(world):
        world.violation(text)
    exposed_s = exposure_s(world)
    if points and exposed_s > clean_exposure_s(name) + EXPOSURE_A_START_S * (world.life_count - 1):
        world.violation(f"L2 a position stood without any exit for {exposed_s:.1f} s")
    return Verdict(
        story=name,
        points=tuple(points),
        violations=tuple(world.violations),
        trace_hash=world.trace_hash,
        calls=tuple(world.calls),
        ready_at_us=dict(world.ready_at_us),
        virtual_s=world.loop.time(),
        real_s=time.monotonic() - started_s,
        exposure_s=exposed_s,
        lines=tuple(world.lines or ()),
    )


@cache
def clean_exposure_s(name: str) -> float:
    return run_story(name).exposure_s


def all_points(clean: Verdict) -> list[Point]:
    """Every point of a clean run."""
    return [point for call in clean.calls for point in call.points]


def recovery_points(crashed: Verdict) -> Iterator[Point]:
    """Every point between the last crash of a run and the moment a little after the next life was ready."""
    number = crashed.calls[crashed.points[-1].call - 1].life + 1
    ready_us = crashed.ready_at_us.get(number)
    for call in crashed.calls:
        if call.life == number and (ready_us is None or call.at_us <= ready_us + RECOVERY_MARGIN_US):
            yield from call.points
