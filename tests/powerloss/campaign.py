"""Crash images drawn from records, judged one by one."""

import random
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from tests.powerloss.images import Disk, Image, Style
from tests.powerloss.judge import Judge, put
from tests.powerloss.recorder import Operation
from tests.powerloss.workload import record, without_reserve


@dataclass(slots=True)
class Tally:
    images: int = 0
    distinct: int = 0
    operations: int = 0
    styles: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def join(self, other: "Tally") -> None:
        self.images += other.images
        self.distinct += other.distinct
        self.operations += other.operations
        self.styles += other.styles
        self.violations += other.violations


def try_images(seed: str, images: int, *, synchronous: str | None = None, keep: Path | None = None) -> Tally:
    """One record, and so many images of it at drawn moments. Images that are violated are put under `keep`.

    Every second record goes on from an image of an earlier one: power that is lost again after a recovery.
    """
    tally = Tally()
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=memory()) as name, without_reserve():
        place = Path(name)
        start: Image = {}
        first = 1
        if rng.random() < 0.5:
            before = _record(place / "before", start, rng, first, synchronous)
            start = _crashed(before, rng)
            first = 1_001
        operations = _record(place / "written", start, rng, first, synchronous)
        tally.operations = len(operations)
        judge = Judge(start, operations, place)
        moments = sorted(rng.randint(0, len(operations)) for _ in range(images))
        _judge_all(seed, start, operations, moments, judge, tally, keep)
    return tally


def _record(place: Path, start: Image, rng: random.Random, first: int, synchronous: str | None) -> list[Operation]:
    put(start, place)
    numbers = range(first, first + rng.randint(2, 16))
    return record(place, rng, numbers, openings=rng.randint(1, 3), synchronous=synchronous)


def _crashed(operations: list[Operation], rng: random.Random) -> Image:
    disk = Disk()
    for operation in operations[: rng.randint(0, len(operations))]:
        disk.apply(operation)
    return disk.image(rng.choice(tuple(Style)), rng)


def _judge_all(
    seed: str,
    start: Image,
    operations: list[Operation],
    moments: list[int],
    judge: Judge,
    tally: Tally,
    keep: Path | None,
) -> None:
    disk, done = Disk.of(start), 0
    seen: set[tuple[bytes, int]] = set()
    for number, moment in enumerate(moments):
        for operation in operations[done:moment]:
            disk.apply(operation)
        done = moment
        rng = random.Random(f"{seed}/{number}")
        style = rng.choice(tuple(Style))
        image = disk.image(style, rng)
        tally.images += 1
        tally.styles[style] += 1
        key = (_digest(image), moment)
        if key in seen:
            continue
        seen.add(key)
        tally.distinct += 1
        found = judge.violation(image, moment)
        if found is not None:
            tally.violations.append(_kept(keep, seed, image, f"after {moment} operations, {style}: {found}"))


def _digest(image: Image) -> bytes:
    digest = sha256()
    for name in sorted(image):
        digest.update(f"{name} {len(image[name])} ".encode())
        digest.update(image[name])
    return digest.digest()


def _kept(keep: Path | None, seed: str, image: Image, text: str) -> str:
    told = f"seed {seed}: {text}"
    if keep is None:
        return told
    place = keep / f"{seed.replace('/', '-')}-{_digest(image).hex()[:12]}"
    put(image, place)
    (place / "told").write_text(told)
    return f"{told} ({place})"


def memory() -> str | None:
    """Images need no disk of their own: what a disk may do to them has been done by then."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
