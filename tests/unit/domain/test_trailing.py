from decimal import Decimal

import pytest

from otocod.domain.prices import PENNY_GRID, SPX_SPREAD_GRID, PriceGrid
from otocod.domain.quotes import PriceBasis, QuoteReason
from otocod.domain.trailing import (
    Amount,
    HeldPrice,
    StopLevel,
    StopRules,
    Tier,
    Trail,
    TrailKind,
    advance,
    hold,
    is_worth_moving,
    price_at_profit,
    profit,
)
from tests.support.quotes import at_s, fault, quote

SOLD, BOUGHT = Decimal("-0.85"), Decimal("1.20")


def amount(text: str) -> Amount:
    """`0.20` is money, `50%` of the entry."""
    return Amount(Decimal(text.removesuffix("%")), is_percent=text.endswith("%"))


def distance(text: str, after: str | None = None) -> StopRules:
    after_amount = None if after is None else amount(after)
    return StopRules(Trail(TrailKind.DISTANCE, distance=amount(text), after=after_amount))


def give_back(percent: int, after: str | None = None) -> StopRules:
    trail = Trail(
        TrailKind.GIVE_BACK, give_back_percent=Decimal(percent), after=None if after is None else amount(after)
    )
    return StopRules(trail)


def tiers(*pairs: tuple[str, str]) -> StopRules:
    return StopRules(tiers=tuple(Tier(amount(reached), amount(kept)) for reached, kept in pairs))


def levels(
    rules: StopRules, entry: Decimal, *prices: str, first: str | None = None, grid: PriceGrid = PENNY_GRID
) -> list[str | None]:
    """The stop's level after each price that held."""
    state = StopLevel(level=None if first is None else Decimal(first))
    found = []
    for price in prices:
        state = advance(rules, state, Decimal(price), entry, grid)
        found.append(None if state.level is None else str(state.level))
    return found


def test_profit_and_its_price_undo_each_other() -> None:
    assert profit(SOLD, Decimal("0.40")) == Decimal("0.45")
    assert profit(BOUGHT, Decimal("-1.80")) == Decimal("0.60")
    assert price_at_profit(BOUGHT, Decimal("0.60")) == Decimal("-1.80")


def test_trail_follows_the_best_price_at_its_distance_and_never_goes_back() -> None:
    assert levels(distance("0.20"), SOLD, "0.85", "0.60", "0.75", "0.40") == ["1.05", "0.80", "0.80", "0.60"]


def test_trail_of_a_debit_is_the_same_with_the_sign_turned() -> None:
    assert levels(distance("0.20"), BOUGHT, "-1.20", "-1.80", "-1.50") == ["-1.00", "-1.60", "-1.60"]


def test_trail_by_percent_of_the_entry() -> None:
    assert levels(distance("20%"), SOLD, "0.60") == ["0.77"]
    assert levels(distance("50%"), BOUGHT, "-1.80") == ["-1.20"]


def test_giving_back_half_of_the_peak_begins_with_a_profit() -> None:
    assert levels(give_back(50), SOLD, "0.90", "0.85", "0.45") == [None, None, "0.65"]
    assert levels(give_back(50), BOUGHT, "-1.00", "-2.00", "-1.70") == [None, "-1.60", "-1.60"]


def test_trail_waits_for_the_profit_it_begins_at() -> None:
    assert levels(distance("0.10", after="50%"), SOLD, "0.60", "0.43", "0.42") == [None, None, "0.52"]


def test_own_stop_stays_until_something_is_tighter() -> None:
    assert levels(distance("1.00"), SOLD, "0.85", "0.60", first="1.70") == ["1.70", "1.60"]


def test_break_even_and_tiers_move_the_stop_in_turn() -> None:
    rules = tiers(("25%", "0%"), ("50%", "25%"), ("0.60", "0.40"))
    assert levels(rules, SOLD, "0.70", "0.60", "0.50", "0.42", "0.24", "0.80", first="1.70") == [
        "1.70",
        "0.85",
        "0.85",
        "0.63",
        "0.45",
        "0.45",
    ]


def test_tightest_of_trail_and_tiers_wins() -> None:
    rules = StopRules(distance("0.40").trail, tiers(("25%", "0%")).tiers)
    assert levels(rules, SOLD, "0.60", "0.30") == ["0.85", "0.70"]


def test_level_is_rounded_to_act_earlier_yet_not_at_the_best_price() -> None:
    assert levels(distance("0.12"), SOLD, "0.60", grid=SPX_SPREAD_GRID) == ["0.70"]
    assert levels(distance("0.02"), SOLD, "0.60", grid=SPX_SPREAD_GRID) == ["0.65"]


@pytest.mark.parametrize(("best", "level"), [("-0.10", "-0.01"), ("-0.01", "0.01"), ("-0.05", "-0.01")])
def test_level_is_never_0(best: str, level: str) -> None:
    rules = distance(str(-Decimal(best)))
    assert levels(rules, Decimal("0.50"), best) == [level]


def test_nothing_held_changes_nothing() -> None:
    state = StopLevel(Decimal("0.60"), Decimal("0.80"))
    assert advance(distance("0.20"), state, None, SOLD, PENNY_GRID) is state


def test_resting_stop_moves_only_for_enough() -> None:
    assert is_worth_moving(Decimal("0.80"), Decimal("0.75"), Decimal("0.05"))
    assert not is_worth_moving(Decimal("0.80"), Decimal("0.76"), Decimal("0.05"))
    assert not is_worth_moving(Decimal("0.80"), Decimal("0.90"), Decimal("0.05"))


# The price that has held.


class Held:
    def __init__(self) -> None:
        self.state = HeldPrice()

    def see(self, mid: str, second: float) -> str | None:
        spread = quote(Decimal(mid) + Decimal("0.05"), at_s(second), 1, width="0.10")
        self.state, price = hold(self.state, spread, at_s(second), basis=PriceBasis.MID)
        return None if price is None else str(price)


def test_price_has_held_after_the_window() -> None:
    held = Held()
    assert [held.see("0.60", second) for second in (0, 1, 2.9, 3)] == [None, None, None, "0.60"]


def test_better_price_holds_only_once_the_worse_one_has_left_the_window() -> None:
    held = Held()
    for second in range(5):
        held.see("0.60", second)
    assert held.see("0.50", 5) == "0.60"
    assert held.see("0.50", 7.5) == "0.60"
    assert held.see("0.50", 8.5) == "0.50"


def test_lone_lie_never_becomes_a_best_price_and_a_worse_price_counts_at_once() -> None:
    held = Held()
    for second in range(5):
        held.see("0.60", second)
    assert held.see("0.01", 5) == "0.60"
    assert {held.see("0.60", 5 + tick / 10) for tick in range(1, 80)} == {"0.60"}
    assert held.see("0.90", 14) == "0.90"


def test_lie_after_a_long_quiet_is_held_against_the_price_that_stood() -> None:
    held = Held()
    for second in (0, 3):
        held.see("0.60", second)
    assert held.see("0.01", 600) == "0.60"
    assert held.see("0.60", 602) == "0.60"


@pytest.mark.parametrize("reason", list(QuoteReason))
def test_gap_empties_the_window_and_another_fault_only_hides_it(reason: QuoteReason) -> None:
    held = Held()
    for second in range(5):
        held.see("0.60", second)
    held.state, price = hold(held.state, fault(reason), at_s(5))
    assert price is None
    assert held.see("0.60", 5.5) == (None if reason.is_gap else "0.60")


def test_window_is_bounded_however_many_quotes_come() -> None:
    held = Held()
    for tick in range(5_000):
        held.see("0.60", tick / 100)
    assert len(held.state.buckets) <= 9


@pytest.mark.parametrize(
    "make",
    [
        lambda: Trail(TrailKind.DISTANCE),
        lambda: Trail(TrailKind.DISTANCE, distance=amount("0")),
        lambda: Trail(TrailKind.GIVE_BACK),
        lambda: Trail(TrailKind.GIVE_BACK, give_back_percent=Decimal(101)),
        lambda: Trail(TrailKind.DISTANCE, distance=amount("1"), after=amount("-1")),
        lambda: Tier(amount("0"), amount("0")),
    ],
)
def test_rule_without_sense_is_a_bug(make: object) -> None:
    with pytest.raises(ValueError, match=r"trail|peak|tier"):
        make()  # type: ignore[operator]
