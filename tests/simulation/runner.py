"""Seeds in, verdicts out."""

import gc
import time
from dataclasses import dataclass

from tests.simulation.checker import judge
from tests.simulation.plan import plan_from_seed
from tests.simulation.timing import timing
from tests.simulation.world import World


@dataclass(frozen=True)
class Verdict:
    seed: int
    violations: tuple[str, ...]
    trace_hash: str
    brackets: int
    filled: int  # brackets whose entry filled, so that there was something to protect
    classes: tuple[str, ...]
    virtual_s: float
    real_s: float
    lines: tuple[str, ...] = ()


def run_seed(
    seed: int,
    *,
    off: frozenset[str] = frozenset(),
    only: frozenset[str] | None = None,
    keeps_trace: bool = False,
    keeps_hash: bool = True,
) -> Verdict:
    """`keeps_hash`: without it the run is the same and the trace is not written, which saves a twentieth."""
    started_s = time.monotonic()
    plan = plan_from_seed(seed, off=off, only=only)
    world = World(plan, keeps_trace=keeps_trace, keeps_hash=keeps_hash)
    world.run()
    dump = world.dump()
    truth = world.truth()
    for text in (*judge(truth, dump), *timing(truth, dump)):
        world.violation(text)
    return Verdict(
        seed=seed,
        violations=tuple(world.violations),
        trace_hash=world.trace_hash,
        brackets=len(dump["brackets"]),
        filled=sum(any(order["fills"] for order in bracket["orders"]) for bracket in dump["brackets"]),
        classes=plan.classes,
        virtual_s=world.loop.time(),
        real_s=time.monotonic() - started_s,
        lines=tuple(world.lines or ()),
    )


def shrink(seed: int, *, off: frozenset[str] = frozenset()) -> tuple[Verdict, frozenset[str]]:
    """Classes switched off one after the other while the run still fails; and which those are."""
    verdict = run_seed(seed, off=off)
    if not verdict.violations:
        return verdict, off
    for name in verdict.classes:
        without = run_seed(seed, off=off | {name})
        if without.violations:
            verdict, off = without, off | {name}
    gc.collect()
    return verdict, off
