"""The second pair of eyes: what lasts too long is said, once, by whoever did not have to decide about it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.orders import OrderState
from otocod.domain.timing import ENTRY_WINDOW_US, STREAMLESS_WINDOW_US
from otocod.engine.health import Health, engine_checks, troubles_of
from tests.support.desk import POLICY, START_US
from tests.support.fakes import SECOND_US, Daemon, accepted, pass_s


def unknown(bracket: Bracket, index: int, since_us: int) -> Bracket:
    orders = list(bracket.orders)
    orders[index] = replace(orders[index], state=OrderState.UNKNOWN, unknown_since_us=since_us)
    return replace(bracket, orders=tuple(orders))


def codes(bracket: Bracket, after_s: float) -> list[str]:
    return [trouble.code for trouble in troubles_of(bracket, START_US + round(after_s * SECOND_US))]


def test_an_entry_s_unknown_outcome_is_said_past_its_window_and_not_before() -> None:
    bracket = unknown(accepted().bracket, 0, START_US)
    window_s = ENTRY_WINDOW_US / SECOND_US
    assert codes(bracket, window_s + 4) == []
    assert codes(bracket, window_s + 6) == ["unknown_outcome"]


def test_an_exit_s_unknown_outcome_is_said_sooner() -> None:
    bracket = unknown(accepted(protection="native-otoco").bracket, 1, START_US)
    assert codes(bracket, STREAMLESS_WINDOW_US / SECOND_US + 4) == []
    assert codes(bracket, STREAMLESS_WINDOW_US / SECOND_US + 6) == ["unknown_outcome"]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda bracket: replace(bracket, is_frozen=True), ["frozen"]),
        (lambda bracket: replace(bracket, is_frozen=True, state=BracketState.CLOSED), []),
        (
            lambda bracket: replace(bracket, unprotected_since_us=START_US, exits_allowed_us=START_US),
            ["unprotected_long"],
        ),
        (lambda bracket: replace(bracket, unprotected_since_us=START_US), []),
        (lambda bracket: bracket, []),
    ],
)
def test_what_is_wrong_with_a_bracket(change: Callable[[Bracket], Bracket], wanted: list[str]) -> None:
    assert codes(change(accepted().bracket), POLICY.unprotected_limit_us / SECOND_US + 2) == wanted


class Watched:
    """A daemon among fakes and the eyes on it."""

    def __init__(self, daemon: Daemon, dead_s: float = 60.0) -> None:
        self.daemon = daemon
        self.refused: str | None = None
        supervisor = daemon.supervisor
        self.health = Health(
            daemon.clock,
            daemon.notifier,
            supervisor.mailboxes,
            daemon.streamer,
            supervisor.reconciler,
            is_ready=lambda: supervisor.is_ready,
            login_refused=lambda: self.refused,
            streamer_dead_s=dead_s,
        )

    async def look_for(self, seconds: int) -> list[str]:
        """The codes raised while looking once a second."""
        before = len(self.daemon.notifier.codes)
        for _ in range(seconds):
            await pass_s(1)
            await self.health.look()
        return self.daemon.notifier.codes[before:]


@pytest.mark.covers("F28")
async def test_a_dead_streamer_is_said_once_and_again_only_after_it_was_back() -> None:
    daemon = await Daemon().start()
    watched = Watched(daemon, dead_s=10)
    assert await watched.look_for(20) == []
    daemon.streamer.drop()
    assert await watched.look_for(8) == []
    assert await watched.look_for(60) == ["streamer_dead"]
    daemon.streamer.connect()
    assert await watched.look_for(5) == []
    daemon.streamer.drop()
    assert await watched.look_for(12) == ["streamer_dead"]
    await daemon.stop()


async def test_a_streamer_that_comes_back_in_time_is_no_alarm() -> None:
    daemon = await Daemon().start()
    watched = Watched(daemon, dead_s=10)
    for _ in range(3):
        daemon.streamer.drop()
        assert await watched.look_for(8) == []
        daemon.streamer.connect()
        assert await watched.look_for(1) == []
    await daemon.stop()


@pytest.mark.covers("F78")
async def test_refused_log_in_a_stale_comparison_and_a_clock_that_is_off_are_said() -> None:
    daemon = await Daemon().start()
    watched = Watched(daemon)
    assert await watched.look_for(3) == []
    watched.refused = "log-in refused 2 times"
    daemon.supervisor.reconciler.last_completed_us = daemon.clock.now_us() - 301 * SECOND_US
    daemon.supervisor.reconciler.clock_offset_us = -3 * SECOND_US
    assert sorted(await watched.look_for(1)) == ["clock_drift", "login_refused", "reconcile_stale"]
    checks = {each["check"]: each for each in engine_checks(daemon.supervisor)}
    assert not checks["clock drift"]["ok"]
    assert "NTP" in checks["clock drift"]["remedy"]
    await daemon.stop()


async def test_a_frozen_bracket_among_many_is_found() -> None:
    daemon = await Daemon().start()
    bracket = await daemon.take(0)
    daemon.supervisor.mailboxes.brackets[bracket.bracket_id] = replace(bracket, is_frozen=True, attention="a bug")
    watched = Watched(daemon)
    assert await watched.look_for(5) == ["frozen"]
    (alarm,) = daemon.notifier.alarms
    assert (alarm.bracket_id, "a bug" in alarm.text) == (bracket.bracket_id, True)
    await daemon.stop()


async def test_engine_s_checks_say_what_is_wrong_and_what_to_do() -> None:
    daemon = Daemon()
    before = {each["check"]: each for each in engine_checks(daemon.supervisor)}
    assert not before["ready"]["ok"]
    assert before["ready"]["remedy"]
    await daemon.start()
    await daemon.protect(0)
    checks = {each["check"]: each for each in engine_checks(daemon.supervisor)}
    assert all(each["ok"] and not each["remedy"] for each in checks.values()), checks
    await daemon.supervisor.halt("drill")
    daemon.streamer.drop()
    checks = {each["check"]: each for each in engine_checks(daemon.supervisor)}
    assert "otocod resume" in checks["halt"]["remedy"]
    assert not checks["streamer"]["ok"]
    await daemon.stop()
