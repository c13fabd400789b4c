from dataclasses import replace
from decimal import Decimal

import pytest

from otocod.domain.quotes import SECOND_US, PriceBasis, QuoteFault, QuoteReason, SpreadQuote
from otocod.domain.watching import Watch, WatchPolicy, WatchSide, WatchState, next_look_us, observe
from tests.support.quotes import at_s, fault, quote

OLD_US = 60 * SECOND_US  # a quote that has long stood
STOP = Watch(WatchSide.AT_OR_ABOVE, Decimal("1.70"))
TARGET = Watch(WatchSide.AT_OR_BELOW, Decimal("0.40"))


class Run:
    """One watch, told of quotes one after the other."""

    def __init__(self, watch: Watch = STOP) -> None:
        self.watch = watch
        self.state = WatchState()

    def see(self, quote: SpreadQuote | QuoteFault, at_us: int | None = None) -> bool:
        now_us = at_us if at_us is not None else quote.at_us if isinstance(quote, SpreadQuote) else 0
        observed = observe(self.watch, self.state, quote, now_us)
        self.state = observed.state
        return observed.is_triggered


def test_stop_triggers_when_every_leg_was_told_twice_for_the_dwell_time() -> None:
    run = Run()
    assert not run.see(quote("1.75", at_s(0), 1, 2))
    assert not run.see(quote("1.80", at_s(0.5), 3, 4)), "K is reached, the dwell time is not"
    assert run.see(quote("1.85", at_s(1), 5, 6))
    assert run.state.triggered_us == at_s(1)


def test_trigger_is_said_once_and_never_taken_back() -> None:
    run = Run()
    assert [run.see(quote("1.80", at_s(second), 2 * second, 2 * second + 1)) for second in range(3)] == [
        False,
        True,
        False,
    ]
    before = run.state
    assert not run.see(quote("0.10", at_s(9), 50, 51))
    assert run.state == before


def test_lone_lie_does_not_trigger_while_the_other_leg_ticks() -> None:
    run = Run()
    run.see(quote("1.00", at_s(0), 1, 2, ages_us=(OLD_US, OLD_US)))
    lie_us = at_s(1)
    for tick in range(20):
        now_us = lie_us + tick * 100_000
        assert not run.see(quote("9.00", now_us, 3, 10 + tick, ages_us=(now_us - lie_us, 0)))
    assert not run.see(quote("1.00", at_s(3.1), 4, 40))
    assert run.state.run_since_us is not None or run.state.recent, "the true quote counts"


def test_quote_that_nobody_corrects_triggers_after_the_standing_time() -> None:
    run = Run()
    assert not run.see(quote("1.80", at_s(0), 7, 2, ages_us=(0, OLD_US)))
    looks = []
    for _ in range(3):
        look_us = next_look_us(run.watch, run.state)
        assert look_us is not None
        looks.append(run.see(quote("1.80", look_us, 7, 2, ages_us=(look_us - at_s(0), OLD_US))))
    assert looks == [False, False, True]
    assert run.state.triggered_us == at_s(3)


def test_looking_again_at_the_same_quotes_counts_once_in_a_sample() -> None:
    run = Run(replace(STOP, policy=WatchPolicy(needed=2, window=3, dwell_us=0, standing_us=0)))
    for step in range(9):
        assert not run.see(quote("1.80", at_s(step / 10), 1, 2))
    assert run.see(quote("1.80", at_s(1), 1, 2))


def test_slow_leg_of_a_fast_spread_does_not_hold_the_stop_back() -> None:
    """One leg ticks ten times a second, the other every two: its second quote in the run is what was waited for."""
    run = Run()
    seen = []
    for tick in range(40):
        slow_us = tick // 20 * 20 * 100_000
        now_us = at_s(0) + tick * 100_000
        seen.append(run.see(quote("1.80", now_us, 100 + tick, tick // 20, ages_us=(0, now_us - at_s(0) - slow_us))))
    assert seen.index(True) == 20


@pytest.mark.parametrize("reason", [reason for reason in QuoteReason if reason.is_gap])
def test_gap_empties_the_watch(reason: QuoteReason) -> None:
    run = Run()
    run.see(quote("1.80", at_s(0), 1, 2))
    run.see(fault(reason), at_s(0.5))
    assert run.state.recent == () and run.state.run_since_us is None
    assert not run.see(quote("1.80", at_s(1), 3, 4))
    assert run.see(quote("1.80", at_s(2), 5, 6))


@pytest.mark.parametrize("reason", [reason for reason in QuoteReason if not reason.is_gap])
def test_bad_quote_never_triggers_and_only_suspends(reason: QuoteReason) -> None:
    run = Run()
    run.see(quote("1.80", at_s(0), 1, 2))
    run.see(quote("1.80", at_s(0.5), 3, 4))
    assert not run.see(fault(reason), at_s(2))
    assert next_look_us(run.watch, run.state) is None
    assert run.see(quote("1.80", at_s(2.1), 5, 6))


def test_bad_quotes_that_last_empty_the_watch() -> None:
    run = Run()
    run.see(quote("1.80", at_s(0), 1, 2))
    run.see(fault(QuoteReason.CROSSED), at_s(1))
    run.see(fault(QuoteReason.TOO_WIDE), at_s(6))
    assert run.state.recent == ()
    assert run.state.fault is QuoteReason.TOO_WIDE


def test_another_connection_begins_anew() -> None:
    run = Run()
    run.see(quote("1.80", at_s(0), 1, 2))
    assert not run.see(replace(quote("1.80", at_s(2), 3, 4), generation=2))
    assert run.state.run_since_us == at_s(2)


def test_one_contradiction_in_the_window_is_borne_and_two_end_the_run() -> None:
    run = Run()
    prices = ("1.80", "1.60", "1.80")
    seen = [run.see(quote(price, at_s(second), 2 * second, 2 * second + 1)) for second, price in enumerate(prices)]
    assert not any(seen), "the legs have been told once only since the contradiction"
    assert run.see(quote("1.80", at_s(2.2), 90, 91))
    other = Run()
    for second, price in enumerate(("1.80", "1.60", "1.60", "1.80")):
        other.see(quote(price, at_s(second), 2 * second, 2 * second + 1))
    assert other.state.run_since_us == at_s(3)


@pytest.mark.parametrize(
    ("basis", "triggers"), [(PriceBasis.NATURAL, True), (PriceBasis.MID, False), (PriceBasis.MARK, False)]
)
def test_watch_looks_at_the_price_it_was_told_to(basis: PriceBasis, triggers: bool) -> None:
    run = Run(replace(STOP, basis=basis))
    assert [run.see(quote("1.70", at_s(second), second, second)) for second in range(3)] == [False, triggers, False]


def test_target_triggers_below_its_level() -> None:
    run = Run(TARGET)
    assert not run.see(quote("0.41", at_s(0), 1, 1))
    assert not run.see(quote("0.40", at_s(1), 2, 2))
    assert run.see(quote("0.38", at_s(2), 3, 3))


def test_health_needs_a_good_quote_and_no_fault_for_longer_than_the_patience() -> None:
    run = Run()
    patience_us = 5 * SECOND_US
    assert not run.state.is_healthy(at_s(0), patience_us)
    run.see(quote("1.00", at_s(0), 1, 1))
    assert run.state.is_healthy(at_s(100), patience_us), "whoever asks has looked, and found no fault"
    run.see(fault(QuoteReason.CROSSED), at_s(101))
    assert run.state.is_healthy(at_s(105.9), patience_us)
    assert not run.state.is_healthy(at_s(106), patience_us)


@pytest.mark.parametrize("changes", [{"needed": 1}, {"needed": 4}, {"window": 21}, {"dwell_us": -1}, {"sample_us": 0}])
def test_policy_by_which_one_quote_could_trigger_is_a_bug(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="watch"):
        WatchPolicy(**changes)
