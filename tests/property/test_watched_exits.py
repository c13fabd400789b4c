"""Quotes, watches, walks and trails for any market: no trigger on a lie, always on the grid, never looser, and the same
for credits and debits."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from otocod.domain.prices import (
    PENNY_GRID,
    SHARES_GRID,
    SINGLE_OPTION_GRID,
    SPX_SINGLE_GRID,
    SPX_SPREAD_GRID,
    PriceGrid,
    is_on_grid,
)
from otocod.domain.quotes import (
    FeedState,
    LegQuote,
    PriceBasis,
    QuoteFault,
    QuotePolicy,
    QuoteReason,
    SpreadQuote,
    spread_quote,
)
from otocod.domain.specs import Action, InstrumentType, Leg
from otocod.domain.trailing import Amount, HeldPrice, StopLevel, StopRules, Tier, Trail, TrailKind, advance, hold
from otocod.domain.walking import (
    FinalAction,
    Limits,
    Send,
    Stay,
    Walk,
    WalkStart,
    WalkState,
    accepted,
    next_price,
)
from otocod.domain.watching import Watch, WatchPolicy, WatchSide, WatchState, next_look_us, observe
from tests.support.quotes import START_US, at_s, fault, quote

GRIDS = [PENNY_GRID, SHARES_GRID, SINGLE_OPTION_GRID, SPX_SINGLE_GRID, SPX_SPREAD_GRID]
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
cents = st.integers(min_value=1, max_value=900).map(lambda number: Decimal(number) / 100)
signed = st.integers(min_value=-900, max_value=900).map(lambda number: Decimal(number) / 100)
NO_LIMITS = QuotePolicy(
    leg_width_floor=Decimal(10_000), spread_width_floor=Decimal(10_000), zero_bid_max_ask=Decimal(10_000)
)
FEED = FeedState(is_up=True, generation=1, heard_us=START_US)


@st.composite
def markets(draw: st.DrawFn) -> tuple[tuple[Leg, ...], dict[str, LegQuote]]:
    """One to four legs to close, each with a quote that is no lie."""
    legs, book = [], {}
    for index in range(draw(st.integers(1, 4))):
        symbol = f"AAPL  261218C{155_000 + 2_500 * index:08d}"
        action = draw(st.sampled_from((Action.BUY_TO_CLOSE, Action.SELL_TO_CLOSE)))
        legs.append(Leg(InstrumentType.EQUITY_OPTION, symbol, action, draw(st.integers(1, 3))))
        bid = draw(cents)
        book[symbol] = LegQuote(bid, bid + draw(cents), None, None, START_US, sequence=index, generation=1)
    return tuple(legs), book


def turned(legs: tuple[Leg, ...]) -> tuple[Leg, ...]:
    """The order of somebody who does the opposite."""
    actions = {Action.BUY_TO_CLOSE: Action.SELL_TO_CLOSE, Action.SELL_TO_CLOSE: Action.BUY_TO_CLOSE}
    return tuple(replace(leg, action=actions[leg.action]) for leg in legs)


@UNHURRIED
@given(market=markets())
def test_order_and_its_opposite_see_one_spread_from_both_sides(
    market: tuple[tuple[Leg, ...], dict[str, LegQuote]],
) -> None:
    legs, book = market
    one = spread_quote(legs, book, FEED, START_US, policy=NO_LIMITS)
    other = spread_quote(turned(legs), book, FEED, START_US, policy=NO_LIMITS)
    assert isinstance(one, SpreadQuote) and isinstance(other, SpreadQuote)
    assert (one.natural, one.far, one.mid, one.mark) == (-other.far, -other.natural, -other.mid, -other.mark)
    assert one.far <= one.mid <= one.natural
    assert one.far <= one.mark <= one.natural


numbers = st.one_of(st.none(), st.decimals(allow_nan=True, allow_infinity=True), cents)


@UNHURRIED
@given(market=markets(), place=st.integers(0, 3), bid=numbers, ask=numbers)
def test_whatever_a_leg_says_the_answer_is_a_fault_or_a_price_between_sane_sides(
    market: tuple[tuple[Leg, ...], dict[str, LegQuote]], place: int, bid: Decimal | None, ask: Decimal | None
) -> None:
    legs, book = market
    symbol = legs[place % len(legs)].symbol
    book[symbol] = replace(book[symbol], bid=bid, ask=ask)
    found = spread_quote(legs, book, FEED, START_US)
    if isinstance(found, SpreadQuote):
        assert bid is not None and ask is not None
        assert 0 <= bid <= ask and ask > 0
        assert found.natural.is_finite() and found.far.is_finite()
        assert found.far <= found.natural


# Watches.

policies = st.builds(
    lambda needed, more, dwell, standing: WatchPolicy(
        needed=needed, window=needed + more, dwell_us=dwell, standing_us=standing
    ),
    st.integers(2, 4),
    st.integers(0, 3),
    st.integers(0, 2_000_000),
    st.integers(2_000_000, 5_000_000),
)
steps = st.lists(
    st.tuples(st.integers(1_000, 900_000), st.sampled_from(["lie leg ticks", "other leg ticks", "bad", "gap", "look"])),
    max_size=40,
)


@pytest.mark.parametrize("side", list(WatchSide))
@UNHURRIED
@given(policy=policies, steps=steps, lie_at=st.integers(0, 39))
def test_lone_lie_that_is_corrected_in_time_never_triggers(
    side: WatchSide, policy: WatchPolicy, steps: list[tuple[int, str]], lie_at: int
) -> None:
    """Two legs whose true price never comes near the level; once, one leg lies until its next quote, or until the
    standing time ends."""
    sign = 1 if side is WatchSide.AT_OR_ABOVE else -1
    watch = Watch(side, Decimal(sign), PriceBasis.NATURAL, policy)
    truth, lie = Decimal(0), Decimal(9 * sign)
    state, now_us = WatchState(), at_s(0)
    sequences, told_us = [1, 2], [now_us, now_us]
    lying_since_us: int | None = None
    for index, (elapsed_us, what) in enumerate(steps):
        now_us += elapsed_us
        if lying_since_us is not None and now_us - lying_since_us >= policy.standing_us:
            what, now_us = "lie leg ticks", lying_since_us + policy.standing_us - 1
        leg = 0 if what == "lie leg ticks" else 1
        if what.endswith("ticks"):
            sequences[leg], told_us[leg] = max(sequences) + 1, now_us
            if leg == 0:
                lying_since_us = now_us if index == lie_at else None
        price = truth if lying_since_us is None else lie
        ages = (now_us - told_us[0], now_us - told_us[1])
        seen: SpreadQuote | QuoteFault = quote(price, now_us, sequences[0], sequences[1], ages_us=ages)
        if what in ("bad", "gap"):
            seen = fault(QuoteReason.CROSSED if what == "bad" else QuoteReason.FEED_DOWN)
        observed = observe(watch, state, seen, now_us)
        assert not observed.is_triggered
        state = observed.state
        assert len(state.recent) <= policy.window


@UNHURRIED
@given(policy=policies, faults=st.lists(st.tuples(st.integers(0, 40), st.sampled_from(QuoteReason)), max_size=20))
def test_no_trigger_ever_comes_of_a_fault(policy: WatchPolicy, faults: list[tuple[int, QuoteReason]]) -> None:
    watch = Watch(WatchSide.AT_OR_ABOVE, Decimal(1), PriceBasis.MID, policy)
    state = WatchState()
    at = dict(faults)
    for step in range(41):
        now_us = at_s(step / 2)
        seen = fault(at[step]) if step in at else quote("2", now_us, 2 * step, 2 * step + 1)
        observed = observe(watch, state, seen, now_us)
        assert not (observed.is_triggered and step in at)
        state = observed.state


@pytest.mark.parametrize("side", list(WatchSide))
@UNHURRIED
@given(policy=policies, quiet=st.booleans())
def test_true_move_triggers_within_the_times_of_the_policy(side: WatchSide, policy: WatchPolicy, quiet: bool) -> None:
    """Whether the legs go on ticking or fall silent at the new price: a stop that never comes is no stop."""
    price = Decimal(2 if side is WatchSide.AT_OR_ABOVE else -2)
    watch = Watch(side, price / 2, PriceBasis.NATURAL, policy)
    state, now_us = WatchState(), at_s(0)
    latest_us = now_us + max(policy.dwell_us, policy.standing_us, policy.window * policy.sample_us) + policy.sample_us
    step = 0
    while state.triggered_us is None:
        told_us = at_s(0) if quiet else now_us
        sequences = (1, 2) if quiet else (2 * step, 2 * step + 1)
        seen = quote(price, now_us, *sequences, ages_us=(now_us - told_us, now_us - told_us))
        state = observe(watch, state, seen, now_us).state
        step += 1
        if state.triggered_us is None:
            look_us = next_look_us(watch, state)
            assert look_us is not None
            now_us = max(look_us, now_us + 1) if quiet else now_us + 200_000
    assert state.triggered_us <= latest_us


# Walks.

walks = st.builds(
    Walk,
    start=st.sampled_from(WalkStart),
    step=st.integers(1, 60).map(lambda number: Decimal(number) / 100),
    interval_us=st.just(1_000_000),
    final=st.sampled_from(FinalAction),
    max_replaces=st.integers(0, 12),
    width_percent=st.integers(0, 100).map(Decimal),
)


@UNHURRIED
@given(
    walk=walks,
    grid=st.sampled_from(GRIDS),
    cap=st.none() | signed,
    bound=st.none() | signed,
    naturals=st.lists(st.tuples(signed, cents, st.booleans()), min_size=1, max_size=30),
)
def test_walk_is_on_the_grid_rises_and_keeps_its_ends_and_budget(
    walk: Walk,
    grid: PriceGrid,
    cap: Decimal | None,
    bound: Decimal | None,
    naturals: list[tuple[Decimal, Decimal, bool]],
) -> None:
    state, now_us = WalkState(), at_s(0)
    limits = Limits(cap=cap, bound=bound)
    before_cap = 0
    for natural, width, is_missing in naturals:
        seen = None if is_missing else quote(natural, now_us, 1, width=str(width))
        had = state.price
        state, move = next_price(walk, state, seen, now_us, grid=grid, limits=limits)
        state = accepted(state, now_us)
        now_us += walk.interval_us
        if not isinstance(move, Send):
            assert state.price == had
            continue
        assert is_on_grid(move.price, grid) and move.price != 0
        if had is not None:
            assert move.price > had
        # An end between 0 and an increment is taken as the last price before it.
        assert bound is None or move.price <= bound or move.price == -grid.smallest
        if walk.final is not FinalAction.MARKETABLE:
            before_cap += had is not None
            assert cap is None or move.price <= cap or move.price == -grid.smallest
        if had is not None and seen is not None and move.price != grid.smallest:
            assert move.price <= seen.natural + max(tick for _, tick in grid.bands)
    assert before_cap <= walk.max_replaces


@UNHURRIED
@given(walk=walks, natural=signed, width=cents, cap=signed)
def test_walk_ends_for_every_market(walk: Walk, natural: Decimal, width: Decimal, cap: Decimal) -> None:
    walk = replace(walk, final=FinalAction.HOLD)
    assume(natural >= cap)  # else it is marketable before its end, and the exchange ends it
    state, now_us = WalkState(), at_s(0)
    for _ in range(walk.max_replaces + 3):
        seen = quote(natural, now_us, 1, width=str(width))
        state, move = next_price(walk, state, seen, now_us, grid=PENNY_GRID, limits=Limits(cap=cap))
        state = accepted(state, now_us)
        now_us += walk.interval_us
        if isinstance(move, Stay):
            return
    raise AssertionError("the walk goes on for ever")


# Trails.

amounts = st.builds(Amount, st.integers(1, 300).map(lambda number: Decimal(number) / 100), st.just(False)) | st.builds(
    Amount, st.integers(1, 150).map(Decimal), st.just(True)
)
trails = st.builds(Trail, st.just(TrailKind.DISTANCE), distance=amounts, after=st.none() | amounts) | st.builds(
    Trail,
    st.just(TrailKind.GIVE_BACK),
    give_back_percent=st.integers(1, 100).map(Decimal),
    after=st.none() | amounts,
)
rules = st.builds(
    StopRules,
    trail=st.none() | trails,
    tiers=st.lists(st.builds(Tier, reached=amounts, kept=amounts), max_size=3).map(tuple),
)


@UNHURRIED
@given(
    rules=rules,
    entry=signed.filter(lambda price: price != 0),
    grid=st.sampled_from(GRIDS),
    first=st.none() | signed,
    prices=st.lists(st.none() | signed, max_size=25),
)
def test_stop_never_loosens_and_never_stands_at_the_best_price(
    rules: StopRules, entry: Decimal, grid: PriceGrid, first: Decimal | None, prices: list[Decimal | None]
) -> None:
    state = StopLevel(level=first)
    for price in prices:
        before, state = state, advance(rules, state, price, entry, grid)
        if before.level is not None:
            assert state.level is not None and state.level <= before.level
        if state.level is not None and state.level != first:
            assert is_on_grid(state.level, grid) and state.level != 0
            assert state.best is not None and state.level > state.best
        if before.best is not None:
            assert state.best is not None and state.best <= before.best


@UNHURRIED
@given(distance=cents, entry=cents, moves=st.lists(signed, min_size=1, max_size=15))
def test_trail_is_the_same_for_a_credit_and_a_debit_of_one_profit(
    distance: Decimal, entry: Decimal, moves: list[Decimal]
) -> None:
    """Away from 0, which a stop steps around, the level of both keeps the same profit."""
    far = Decimal(50)
    rules = StopRules(Trail(TrailKind.DISTANCE, distance=Amount(distance)))
    credit, debit = -(entry + far), entry + far
    sold = bought = StopLevel()
    for move in moves:
        sold = advance(rules, sold, -credit - move, credit, PENNY_GRID)
        bought = advance(rules, bought, -debit - move, debit, PENNY_GRID)
    assert sold.level is not None and bought.level is not None
    assert sold.level + credit == bought.level + debit


@UNHURRIED
@given(
    truth=st.lists(st.tuples(st.integers(1_000, 1_500_000), cents), min_size=1, max_size=30), lie_at=st.integers(0, 29)
)
def test_lone_lie_never_becomes_the_price_that_held(truth: list[tuple[int, Decimal]], lie_at: int) -> None:
    """Told between true quotes at most a second and a half apart, so that it never stands for the whole window."""
    state, now_us = HeldPrice(), at_s(0)
    lie = Decimal("0.001")
    for index, (elapsed_us, price) in enumerate(truth):
        now_us += elapsed_us
        seen = quote(lie if index == lie_at else price, now_us, index, width="0")
        state, held = hold(state, seen, now_us, basis=PriceBasis.NATURAL)
        assert held is None or held > lie
