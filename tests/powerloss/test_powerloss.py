"""The power goes at any moment of a store's life: what was acknowledged is there, whole, and the daemon starts.

A slice of `python -m tests.powerloss`. See `recorder` for what is recorded and how, `images` for what a disk may do.
"""

import random
import tempfile
from pathlib import Path

import pytest

from tests.powerloss.campaign import memory, try_images
from tests.powerloss.images import Disk, Style
from tests.powerloss.judge import Judge
from tests.powerloss.recorder import CannotRecord, Rename, Sync, SyncDirectory, Write, recording
from tests.powerloss.workload import STATE, record, without_reserve

FIXED = ("fixed/1", "fixed/2")
IMAGES = 20


@pytest.fixture(autouse=True)
def _can_record(tmp_path: Path) -> None:
    try:
        with recording(tmp_path):
            pass
    except CannotRecord as reason:
        pytest.skip(str(reason))


@pytest.mark.covers("F84", "F89", "F90")
@pytest.mark.parametrize("seed", (*FIXED, "fresh"))
def test_no_acknowledged_commit_is_lost_with_the_power(seed: str) -> None:
    drawn = seed if seed != "fresh" else f"fresh/{random.SystemRandom().randrange(1 << 32)}"
    print(f"seed {drawn}")
    tally = try_images(drawn, IMAGES)
    assert tally.violations == []
    assert tally.distinct > IMAGES // 2


@pytest.mark.parametrize("synchronous", ("OFF", "NORMAL"))
def test_a_lowered_synchronous_loses_acknowledged_commits(synchronous: str) -> None:
    """The proof that the images are as bad as disks are, and that the setting is what protects from them."""
    found = try_images("fixed/3", IMAGES, synchronous=synchronous).violations
    # Where the mark beside the database has survived, the start itself notices; elsewhere only the comparison does.
    assert len(found) >= IMAGES // 6, found


def test_the_power_is_lost_at_every_moment_of_the_first_start() -> None:
    """Nothing has been promised yet, so all that may be asked is that the daemon starts. While the new file is switched
    to WAL it has a journal, which no reader may roll back."""
    with tempfile.TemporaryDirectory(dir=memory()) as place, without_reserve():
        written = Path(place) / "written"
        written.mkdir()
        operations = record(written, random.Random(1), (1,), openings=1)
        is_wal = next(n for n, each in enumerate(operations) if isinstance(each, Write) and each.path.endswith("-wal"))
        judge = Judge({}, operations, Path(place))
        disk = Disk()
        rng, found, seen = random.Random(1), [], set()
        for moment, operation in enumerate(operations[: is_wal + 1], 1):
            disk.apply(operation)
            for style in (*Style, *Style, *Style):
                image = disk.image(style, rng)
                if tuple(sorted(image.items())) not in seen:
                    seen.add(tuple(sorted(image.items())))
                    found.append((moment, style, judge.violation(image, moment)))
    assert len(found) > 10
    assert [each for each in found if each[2] is not None] == []


def test_the_record_has_what_sqlite_and_otocod_write_and_sync(tmp_path: Path) -> None:
    with without_reserve():
        operations = record(tmp_path, random.Random(1), (1, 2))
    written = {each.path for each in operations if isinstance(each, Write)}
    assert {STATE, f"{STATE}-wal", f"{STATE}-mark.new"} <= written
    assert Rename(f"{STATE}-mark.new", f"{STATE}-mark") in operations
    assert {Sync(STATE), Sync(f"{STATE}-wal"), SyncDirectory()} <= set(operations)
    # With nothing lost, the record makes the very files that are there.
    disk = Disk()
    for operation in operations:
        disk.apply(operation)
    assert disk.whole() == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
