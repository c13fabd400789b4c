"""A clock of two hands: wall and steady."""

import asyncio

import pytest

from otocod.adapters.clock import SystemClock

SECOND_NS = 1_000_000_000
START_NS = 1_795_446_072 * SECOND_NS


class Hands:
    def __init__(self) -> None:
        self.wall = START_NS
        self.steady = 5 * SECOND_NS

    def advance(self, ns: int) -> None:
        self.wall += ns
        self.steady += ns

    def clock(self) -> SystemClock:
        return SystemClock(wall_ns=lambda: self.wall, steady_ns=lambda: self.steady)


def test_starts_at_wall_time_and_follows_the_steady_hand() -> None:
    hands = Hands()
    clock = hands.clock()
    assert clock.now_us() == START_NS // 1_000
    hands.advance(250_000_000)
    assert clock.now_us() == START_NS // 1_000 + 250_000


@pytest.mark.covers("F82")
@pytest.mark.parametrize("jump_s", [86_400, -86_400, 2, -2])
def test_a_step_of_the_wall_clock_changes_no_duration_by_more_than_500_ppm(jump_s: int) -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall += jump_s * SECOND_NS
    before_us = clock.now_us()
    for _ in range(100):
        hands.advance(SECOND_NS)
        now_us = clock.now_us()
        assert 999_500 <= now_us - before_us <= 1_000_500
        before_us = now_us


@pytest.mark.covers("F82")
@pytest.mark.parametrize("step_ms", [20, -20])
def test_a_small_error_is_slewed_away_and_not_overshot(step_ms: int) -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall += step_ms * 1_000_000
    for _ in range(60):
        hands.advance(SECOND_NS)
        clock.now_us()
    assert clock.now_us() == hands.wall // 1_000
    hands.advance(3_600 * SECOND_NS)  # a long time without a look
    assert clock.now_us() == hands.wall // 1_000


def test_never_goes_back_while_slewing_backwards() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall -= 3_600 * SECOND_NS
    readings = []
    for _ in range(5_000):
        hands.advance(1_700_000)
        readings.append(clock.now_us())
    assert readings == sorted(readings)
    assert len(set(readings)) == len(readings)


@pytest.mark.covers("F82")
def test_suspension_counts_as_time() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.advance(7_200 * SECOND_NS)
    assert clock.now_us() == START_NS // 1_000 + 7_200_000_000


def test_wall_offset_tells_a_step() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall += 90 * SECOND_NS
    assert clock.wall_offset_us == 90_000_000


async def test_sleep_until_is_never_early_and_returns_at_once_when_late() -> None:
    clock = SystemClock()
    at_us = clock.now_us() + 20_000
    await asyncio.wait_for(clock.sleep_until(at_us), 5)
    assert clock.now_us() >= at_us
    await asyncio.wait_for(clock.sleep_until(at_us - 10_000_000), 1)
