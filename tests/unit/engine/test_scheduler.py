"""Deadlines come due once, in order, however often they were moved, and by the clock, not by the loop's timers."""

import asyncio

from otocod.domain.ids import BracketId
from otocod.engine.scheduler import Scheduler
from tests.support.fakes import START_US, LoopClock, ManualClock, pass_s

SECOND_US = 1_000_000
A, B, C = BracketId("a"), BracketId("b"), BracketId("c")


class Desk:
    def __init__(self) -> None:
        self.clock = LoopClock()
        self.due: list[tuple[BracketId, float]] = []
        self.scheduler = Scheduler(self.clock, self.look)
        self.scheduler.start()

    def look(self, bracket_id: BracketId) -> None:
        self.due.append((bracket_id, (self.clock.now_us() - START_US) / SECOND_US))

    def set(self, bracket_id: BracketId, at_s: float | None) -> None:
        self.scheduler.set(bracket_id, None if at_s is None else START_US + round(at_s * SECOND_US))


async def test_deadlines_come_due_in_order_each_at_its_time() -> None:
    desk = Desk()
    desk.set(B, 2)
    desk.set(A, 1)
    desk.set(C, 3)
    await pass_s(5)
    assert desk.due == [(A, 1.0), (B, 2.0), (C, 3.0)]


async def test_deadlines_of_one_moment_all_come_due() -> None:
    desk = Desk()
    for bracket_id in (C, A, B):
        desk.set(bracket_id, 1)
    await pass_s(1)
    assert {bracket_id for bracket_id, _ in desk.due} == {A, B, C}


async def test_deadline_that_was_moved_comes_due_at_its_new_time_alone() -> None:
    desk = Desk()
    desk.set(A, 1)
    desk.set(A, 3)
    desk.set(B, 4)
    desk.set(B, 2)
    await pass_s(10)
    assert desk.due == [(B, 2.0), (A, 3.0)]


async def test_deadline_that_was_removed_does_not_come_due() -> None:
    desk = Desk()
    desk.set(A, 1)
    desk.set(B, 2)
    desk.set(A, None)
    await pass_s(5)
    assert desk.due == [(B, 2.0)]


async def test_deadline_that_was_removed_and_set_again_comes_due_once() -> None:
    desk = Desk()
    desk.set(A, 1)
    desk.set(A, None)
    desk.set(A, 1)
    await pass_s(5)
    assert desk.due == [(A, 1.0)]


async def test_deadline_in_the_past_comes_due_at_once() -> None:
    desk = Desk()
    desk.set(A, -5)
    await pass_s(0.001)
    assert [bracket_id for bracket_id, _ in desk.due] == [A]


async def test_deadline_may_be_set_from_the_look_that_the_last_one_caused() -> None:
    desk = Desk()

    def again(bracket_id: BracketId) -> None:
        desk.look(bracket_id)
        if len(desk.due) < 3:
            desk.set(bracket_id, len(desk.due) + 1)

    desk.scheduler._on_due = again
    desk.set(A, 1)
    await pass_s(5)
    assert desk.due == [(A, 1.0), (A, 2.0), (A, 3.0)]


async def test_clock_that_runs_ahead_of_the_loops_timers_is_noticed_within_fifteen_seconds() -> None:
    """A machine that was suspended: an hour has passed, and the timers have stood still meanwhile."""
    desk = Desk()
    desk.set(A, 3600)
    await pass_s(20)
    assert desk.due == []
    desk.clock.ahead_us = 3600 * SECOND_US
    await pass_s(15)
    assert [bracket_id for bracket_id, _ in desk.due] == [A]


async def test_clock_that_runs_behind_the_loops_timers_is_not_overtaken() -> None:
    clock = ManualClock(START_US)
    due: list[BracketId] = []
    scheduler = Scheduler(clock, due.append)
    scheduler.start()
    scheduler.set(A, START_US + SECOND_US)
    clock.advance_s(0.9)
    await pass_s(1.5)
    assert due == []
    clock.advance_s(0.1)
    await pass_s(1)
    assert due == [A]
    scheduler.stop()


async def test_nothing_comes_due_before_start_or_after_stop() -> None:
    clock = LoopClock()
    due: list[BracketId] = []
    scheduler = Scheduler(clock, due.append)
    scheduler.set(A, START_US + SECOND_US)
    await pass_s(2)
    assert due == []
    scheduler.start()
    await pass_s(0.001)
    assert due == [A]
    scheduler.set(B, START_US + 3 * SECOND_US)
    scheduler.stop()
    scheduler.stop()
    await pass_s(5)
    assert due == [A]
    assert asyncio.get_running_loop().time() > 5
