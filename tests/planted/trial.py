"""A planted bug against the simulation: seed after seed until the checker speaks. Runs in a process of its own."""

import re
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from types import FrameType

from tests.planted.bugs import Bug
from tests.planted.planting import ROOT, plant
from tests.simulation.plan import plan_from_seed

_SEED_LIMIT_S = 10.0  # of the processor's time; a seed takes a tenth of a second
# What a bug that was written badly raises. A mistake that a type checker would have seen proves nothing.
_MALFORMED = ("NameError", "UnboundLocalError", "TypeError", "AttributeError", "SyntaxError", "ImportError")
_RULE = re.compile(r"(?:^|: )(S\d+|L\d+|D\d+|W|F\d+) ")


class Malformed(Exception):
    """The substitution does not make a program that runs."""


@dataclass(frozen=True)
class Hunt:
    """One bug and the seeds it is tried on, both ends included; at most so many of those that its faults are on in."""

    bug: Bug
    first: int
    last: int
    most: int
    ignored: tuple[str, ...] = ()  # violations with these words count for nothing


@dataclass(frozen=True)
class Catch:
    bug: Bug
    seed: int | None  # the one that caught it; None: it survived all of them
    brackets: int  # simulated until then
    violations: tuple[str, ...]

    @property
    def rule(self) -> str:
        if not self.violations:
            return "-"
        found = _RULE.search(self.violations[0])
        return found.group(1) if found and _TookTooLong.__name__ not in self.violations[0] else "time"


class _TookTooLong(Exception):
    pass


def _give_up(_signal: int, _frame: FrameType | None) -> None:
    raise _TookTooLong


def substituted(bug: Bug) -> str:
    """The text of the bug's file with the bug in it."""
    text = (ROOT / bug.file).read_text()
    found = text.count(bug.old)
    if found != 1:
        raise Malformed(f"{bug.name}: its text is in {bug.file} {found} times, not once")
    return text.replace(bug.old, bug.new)


def hunt(task: Hunt) -> Catch:
    try:
        return _hunt(task)
    except Malformed as error:
        return Catch(task.bug, None, 0, (f"MALFORMED {error}",))


def _hunt(task: Hunt) -> Catch:
    planted = plant(task.bug.file, substituted(task.bug))
    brackets = 0
    for seed in islice(_seeds(task), task.most):
        violations, more = _judged(seed)
        violations = tuple(text for text in violations if not any(words in text for words in task.ignored))
        brackets += more
        if not planted.is_used:
            raise Malformed(f"{task.bug.name}: the simulation does not use {task.bug.file}")
        for text in violations:
            if any(name in text for name in _MALFORMED):
                raise Malformed(f"{task.bug.name}: {text}")
        if violations:
            return Catch(task.bug, seed, brackets, violations)
    return Catch(task.bug, None, brackets, ())


def _seeds(task: Hunt) -> Iterator[int]:
    for seed in range(task.first, task.last + 1):
        plan = plan_from_seed(seed)
        if all(plan.is_on(name) for name in task.bug.under):
            yield seed


def clean_violations(seed: int) -> tuple[int, tuple[str, ...]]:
    """What the checker says of the daemon as it is; empty, or the seed proves nothing about a planted bug."""
    return seed, _judged(seed)[0]


def _judged(seed: int) -> tuple[tuple[str, ...], int]:
    # Only now: the planted text must be in place before.
    from tests.simulation.checker import judge
    from tests.simulation.moments import WatchedWorld, moments

    warnings.filterwarnings("ignore", message="coroutine 'SimBroker", category=RuntimeWarning)
    signal.signal(signal.SIGVTALRM, _give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, _SEED_LIMIT_S, 1.0)
    try:
        world = WatchedWorld(plan_from_seed(seed))
        world.run()
        truth, dump = world.truth(), world.dump()
        found = [*world.violations, *judge(truth, dump), *moments(truth, dump, world.history)]
    except _TookTooLong:
        return (f"{_SEED_LIMIT_S:g} s of the processor were not enough",), 0
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return tuple(dict.fromkeys(found)), len(dump["brackets"])
