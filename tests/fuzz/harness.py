"""What all fuzz targets share: numbered cases, bounds on time, shrinking, and a report that says how to repeat.

A case is a function of its target, the seed and its number alone, so that any of a million can be had again by
itself. A target's `check` returns one word for what happened, which is counted, or raises: whatever it raises is a
failure, an AssertionError of its own like an exception of the code under test.
"""

import json
import os
import random
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

# Of processor time, for one case. A bound that a slow machine does not meet by accident, and that anything quadratic
# in 64 KiB does not keep.
CASE_LIMIT_S = 2.0
_MOST_FAILURES = 10  # different ones; a broken build fails a million times
_MOST_SHRINK_TRIES = 4_000
_SHRINK_S = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """`kind` says which of its entrances the target is to use, `content` what comes in there."""

    kind: str
    content: bytes

    def __repr__(self) -> str:
        return f"Case({self.kind!r}, {self.content!r})"


class Target(Protocol):
    """One per process; it may keep what is costly to make, but a check may not depend on the ones before it."""

    def case(self, rng: random.Random) -> Case: ...

    def check(self, case: Case) -> str: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Failure:
    number: int
    case: Case
    shrunk: Case
    error: str  # the traceback of the shrunk case
    signature: str


@dataclass(slots=True)
class Result:
    cases: int = 0
    seconds: float = 0.0  # of processor time
    slowest_s: float = 0.0
    words: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    peak_mib: int = 0

    def add(self, other: "Result") -> None:
        self.cases += other.cases
        self.seconds += other.seconds
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.words.update(other.words)
        known = {failure.signature for failure in self.failures}
        self.failures.extend(failure for failure in other.failures if failure.signature not in known)
        self.peak_mib = max(self.peak_mib, other.peak_mib)


def rng_of(seed: int, number: int) -> random.Random:
    return random.Random(seed << 40 | number)


def run(target: Target, seed: int, numbers: range, *, until_s: float | None = None) -> Result:
    """The cases `numbers` of `seed`; ends early once `until_s`, of the monotonic clock, has come."""
    result = Result()
    signatures: set[str] = set()
    for number in numbers:
        if until_s is not None and number % 16 == 0 and time.monotonic() >= until_s:
            break
        began_s = time.process_time()
        case = target.case(rng_of(seed, number))
        made_s = time.process_time()
        failure = None
        try:
            result.words[target.check(case)] += 1
        except Exception as error:
            failure = error
        ended_s = time.process_time()
        result.cases += 1
        result.seconds += ended_s - began_s
        result.slowest_s = max(result.slowest_s, ended_s - made_s)
        if failure is None and ended_s - made_s > CASE_LIMIT_S:
            failure = TooSlow(f"{ended_s - made_s:.1f} s of processor time for one case")
        if failure is not None:
            result.words["FAILED"] += 1
            signature = signature_of(failure)
            if signature not in signatures and len(signatures) < _MOST_FAILURES:
                signatures.add(signature)
                result.failures.append(_failure(target, number, case, failure))
    return result


class TooSlow(Exception):
    """A case that took more processor time than any may."""


def signature_of(error: BaseException) -> str:
    """Two failures with one signature are one fault: the kind of error, and the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    # Where a recursion happens to hit its bound says nothing.
    place = "" if isinstance(error, RecursionError) or not frames else f"{frames[-1].filename}:{frames[-1].lineno}"
    # Of two assertions on one line, what is said tells them apart; numbers and names in it do not.
    said = re.sub(r"[^a-zA-Z]+", " ", str(error))[:40] if isinstance(error, AssertionError) else ""
    return f"{type(error).__name__} {place} {said}"


def _failure(target: Target, number: int, case: Case, error: Exception) -> Failure:
    signature = signature_of(error)
    if isinstance(error, TooSlow):
        return Failure(number, case, case, str(error), signature)
    shrunk = shrink(case, lambda smaller: _fails_alike(target, smaller, signature))
    told = "".join(traceback.format_exception(error))
    try:
        target.check(shrunk)
    except Exception as again:
        told = "".join(traceback.format_exception(again))
    return Failure(number, case, shrunk, told, signature)


def _fails_alike(target: Target, case: Case, signature: str) -> bool:
    try:
        target.check(case)
    except Exception as error:
        return signature_of(error) == signature
    return False


def shrink(case: Case, fails: Callable[[Case], bool]) -> Case:
    """A smaller case that still `fails`: without members of its JSON or slices of its bytes, with plainer bytes."""
    tries = 0
    ends_s = time.monotonic() + _SHRINK_S
    progress = True
    while progress:
        progress = False
        for content in _smaller(case.content):
            tries += 1
            if tries > _MOST_SHRINK_TRIES or time.monotonic() > ends_s:
                return case
            smaller = replace(case, content=content)
            if fails(smaller):
                case = smaller
                progress = True
                break
    return case


def _smaller(content: bytes) -> Iterator[bytes]:
    yield from _without_members(content)
    size = len(content)
    while size:
        for start in range(0, len(content), size):
            yield content[:start] + content[start + size :]
        size //= 2
    for index, byte in enumerate(content):
        if not 0x20 <= byte < 0x7F:
            yield content[:index] + b"a" + content[index + 1 :]


def _without_members(content: bytes) -> Iterator[bytes]:
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return
    for path in paths_of(tree):
        copy = json.loads(content)
        node = copy
        for key in path[:-1]:
            node = node[key]
        del node[path[-1]]
        text = json.dumps(copy, separators=(",", ":")).encode()
        if len(text) < len(content):
            yield text


def paths_of(node: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Of every value below `node`, outer ones first."""
    items: Iterator[tuple[str | int, object]]
    if isinstance(node, dict):
        items = iter(node.items())
    elif isinstance(node, list):
        items = iter(enumerate(node))
    else:
        return []
    return [place for key, child in items for place in ((*path, key), *paths_of(child, (*path, key)))]


def fresh_seed() -> int:
    return int.from_bytes(os.urandom(3), "big")


def told(failure: Failure, target: str, seed: int) -> str:
    return "\n".join(
        (
            failure.error.rstrip(),
            f"shrunk: {failure.shrunk!r}",
            f"repeat: python -m tests.fuzz {target} --seed {seed} --case {failure.number}",
        )
    )
