"""SIGKILL at named points and drawn moments, on real files and sockets: a slice of `python -m tests.kills`.

The slice ends with the last start: brackets may still be open, because an exit that may have been posted is waited out
for ten seconds and an entry for two minutes. The campaign waits.
"""

import asyncio
import random
import tempfile
from pathlib import Path

import pytest

from tests.kills.campaign import campaign
from tests.kills.points import LIFE_POINTS, START_POINTS, STOP_POINTS
from tests.kills.story import Shape

SLICE = Shape(kills=6, wards=3, first_wards=2, is_told_to_the_end=False)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.covers("F6", "F7", "F84", "F88", "F90")
def test_killed_again_and_again_nothing_is_damaged_lost_or_doubled() -> None:
    seeds = ["fixed/1", "fixed/2", f"fresh/{random.SystemRandom().randrange(1 << 32)}"]
    print(f"seeds {seeds}")
    with tempfile.TemporaryDirectory(prefix="k") as directory:
        tally = asyncio.run(campaign(Path(directory), seeds, SLICE, at_once=3))
    assert tally.failures == []
    assert tally.kills.total() >= SLICE.kills * len(seeds)
    points = {*START_POINTS, *LIFE_POINTS, *STOP_POINTS}
    assert sum(count for (where, _), count in tally.kills.items() if where in points) > 0
