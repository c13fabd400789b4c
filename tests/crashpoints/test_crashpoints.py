"""A slice of the crash points: every one of a few scenarios, and a sample that is another every day.

Method: a clean run of a scenario lists each call through a port; for each call, and each position of it, the same run
is made again and the process ends there. All of them are `python -m tests.crashpoints`, second crashes `--pairs`.
"""

from datetime import UTC, datetime
from random import Random

import pytest

from tests.crashpoints.points import Point, Position, point_from_text
from tests.crashpoints.runner import Verdict, all_points, recovery_points, run_story
from tests.crashpoints.scenarios import PAIRED, STORIES

pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")

_TODAY = datetime.now(UTC).date().toordinal()
_WHOLE = ("unlinked-target", "watched-stop")
_SAMPLED = 60
_SAMPLED_PAIRS = 30


def _failures(*verdicts: Verdict) -> dict[str, tuple[str, ...]]:
    return {verdict.command: verdict.violations for verdict in verdicts if verdict.violations}


@pytest.mark.parametrize("name", _WHOLE)
def test_crash_at_every_point_of_a_scenario_loses_and_doubles_nothing(name: str) -> None:
    assert _failures(*(run_story(name, [point]) for point in all_points(run_story(name)))) == {}


def test_every_scenario_undisturbed_ends_as_it_says() -> None:
    assert _failures(*(run_story(name) for name in sorted(STORIES))) == {}


def test_crash_at_points_drawn_for_the_day_loses_and_doubles_nothing() -> None:
    random = Random(f"crash {_TODAY}")
    failed: dict[str, tuple[str, ...]] = {}
    for _ in range(_SAMPLED // 4):
        name = random.choice(sorted(STORIES))
        points = random.sample(all_points(run_story(name)), 4)
        failed |= _failures(*(run_story(name, [point]) for point in points))
    assert failed == {}


def test_second_crash_in_the_recovery_from_the_first_loses_and_doubles_nothing() -> None:
    random = Random(f"pair {_TODAY}")
    failed: dict[str, tuple[str, ...]] = {}
    for _ in range(_SAMPLED_PAIRS // 5):
        name = random.choice(PAIRED)
        first = random.choice(all_points(run_story(name)))
        seconds = list(recovery_points(run_story(name, [first])))
        failed |= _failures(*(run_story(name, [first, second]) for second in random.sample(seconds, 5)))
    assert failed == {}


def test_scenarios_are_as_many_as_promised() -> None:
    assert len(STORIES) >= 60
    assert len(PAIRED) >= 10
    assert set(PAIRED) <= STORIES.keys()


def test_run_with_crashes_made_twice_gives_the_same_trace() -> None:
    points = [point_from_text("24:effect"), point_from_text("31:before")]
    first, again = (run_story("native-oco-target", points) for _ in range(2))
    assert first.violations == ()
    assert first.trace_hash == again.trace_hash


def test_crash_leaves_the_run_before_it_as_it_was() -> None:
    clean = run_story("unlinked-target")
    crashed = run_story("unlinked-target", [Point(30, Position.AFTER)])
    told = [(call.name, call.detail, call.at_us) for call in clean.calls[:30]]
    assert [(call.name, call.detail, call.at_us) for call in crashed.calls[:30]] == told


def test_positions_of_a_commit_and_of_a_post_mean_what_they_say() -> None:
    """On the acceptance of a bracket and the post of its entry, by the entries that the broker comes to see."""
    clean = run_story("native-oco-target")
    commit = next(call for call in clean.calls if "BracketAccepted" in call.detail)
    post = next(call for call in clean.calls if (call.name, call.detail) == ("broker.submit", "entry"))
    # Not written: the row is new to the next life, which accepts it. Written: posted by this life, or never.
    assert _entries_at_broker(commit.number, Position.BEFORE) == 1
    assert _entries_at_broker(commit.number, Position.EFFECT) == 0
    assert _entries_at_broker(post.number, Position.BEFORE) == 0
    for position in (Position.WIRE, Position.EFFECT, Position.AFTER):
        assert _entries_at_broker(post.number, position) == 1


def _entries_at_broker(call: int, position: Position) -> int:
    verdict = run_story("native-oco-target", [Point(call, position)], keeps_trace=True)
    assert verdict.violations == ()
    return sum(" exchange  accepted" in line and line.endswith("0.85 api") for line in verdict.lines)
