"""Snapping and exits for any price: on the safe side, within one increment, never on the wrong side of 0."""

import json
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otocod.domain.exits import close_spec, exit_specs, trigger_net_price
from otocod.domain.prices import (
    PENNY_GRID,
    SHARES_GRID,
    SINGLE_OPTION_GRID,
    SPX_SINGLE_GRID,
    SPX_SPREAD_GRID,
    PriceGrid,
    is_on_grid,
    snap_down,
    snap_up,
)
from otocod.domain.request import BracketRequest, parse_request

GRIDS = [PENNY_GRID, SHARES_GRID, SINGLE_OPTION_GRID, SPX_SINGLE_GRID, SPX_SPREAD_GRID]
prices = st.decimals(min_value=-100_000, max_value=100_000, places=12)
cents = st.integers(min_value=1, max_value=249).map(lambda number: Decimal(number) / 100)
percents = st.integers(min_value=1, max_value=9_999).map(lambda number: Decimal(number) / 10)
EXACT = Decimal("1E-12")
# The machine is shared: the time one example takes says nothing.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.covers("F112")
@UNHURRIED
@given(price=prices, grid=st.sampled_from(GRIDS))
def test_snap_stays_within_one_increment_and_on_its_side(price: Decimal, grid: PriceGrid) -> None:
    down, up = snap_down(price, grid), snap_up(price, grid)
    assert down <= price <= up
    widest = max(tick for _, tick in grid.bands)
    assert price - down < widest
    assert up - price < widest
    assert is_on_grid(down, grid) and is_on_grid(up, grid)
    assert (down == up) == is_on_grid(price, grid)


@UNHURRIED
@given(price=prices, grid=st.sampled_from(GRIDS))
def test_nothing_on_the_grid_lies_between_the_two_neighbours(price: Decimal, grid: PriceGrid) -> None:
    down, up = snap_down(price, grid), snap_up(price, grid)
    between = (down + up) / 2
    assert down == up or not is_on_grid(between, grid)
    assert snap_up(down, grid) == down and snap_down(up, grid) == up


def vertical(is_credit: bool, target: Decimal, stop: Decimal, offset: Decimal | None) -> BracketRequest:
    symbols = ("AAPL  261218C00155000", "AAPL  261218C00157500")
    actions = ("Sell to Open", "Buy to Open") if is_credit else ("Buy to Open", "Sell to Open")
    legs = [
        {"instrument-type": "Equity Option", "symbol": symbol, "quantity": 1, "action": action}
        for symbol, action in zip(symbols, actions, strict=True)
    ]
    effect = "Credit" if is_credit else "Debit"
    entry = {"time-in-force": "Day", "order-type": "Limit", "price": "1", "price-effect": effect, "legs": legs}
    stop_part = {"loss-percent": str(stop)} | ({} if offset is None else {"limit-offset": str(offset)})
    request = {"version": 1, "entry": entry, "target": {"profit-percent": str(target)}, "stop": stop_part}
    return parse_request(
        json.dumps(request), account="A", accounts=["A"], created_at_us=0, now_us=0, today=date(2026, 11, 23)
    )


@pytest.mark.covers("F112", "F113", "F114")
@settings(UNHURRIED, max_examples=200)
@given(
    is_credit=st.booleans(),
    magnitude=cents,
    percent=percents,
    offset=st.none() | cents,
    grid=st.sampled_from([PENNY_GRID, SPX_SINGLE_GRID, SPX_SPREAD_GRID]),
)
def test_exits_of_a_vertical_obey_the_rounding_laws(
    is_credit: bool, magnitude: Decimal, percent: Decimal, offset: Decimal | None, grid: PriceGrid
) -> None:
    profit = min(percent, Decimal(100)) if is_credit else percent
    loss = percent if is_credit else min(percent, Decimal(99))
    entry = -magnitude if is_credit else magnitude
    request = vertical(is_credit, profit, loss, offset)
    exits = exit_specs(request, entry_net_price=entry, units=1, grid=grid)
    assert exits.target is not None and exits.stop is not None
    target, limit, trigger = exits.target.net_price, exits.stop.net_price, trigger_net_price(exits.stop)
    assert target is not None and limit is not None and trigger is not None
    width = Decimal("2.5")
    side = 1 if is_credit else -1  # a credit is bought back, a debit is sold
    for price in (target, trigger, limit):
        assert is_on_grid(price, grid)
        assert 0 < price * side <= width
    exact_target = -entry - magnitude * profit / 100
    exact_trigger = -entry + magnitude * loss / 100
    # The smallest increment stands for what is nearer to 0 than a price can be, the width for what is past it.
    if abs(exact_target) >= grid.smallest and abs(exact_target) <= width:
        assert target <= exact_target + EXACT
        assert exact_target - target < Decimal("0.1")
    if abs(exact_trigger) >= grid.smallest:
        assert trigger <= exact_trigger + EXACT or trigger == -(width - grid.smallest)
    assert limit >= trigger
    assert trigger * side < width


@UNHURRIED
@given(net_price=prices, is_credit=st.booleans())
def test_close_is_marketable_at_the_price_asked_and_can_be_sent(net_price: Decimal, is_credit: bool) -> None:
    request = vertical(is_credit, Decimal(50), Decimal(50), None)
    price = close_spec(request, units=1, net_price=net_price).net_price
    assert price is not None
    assert is_on_grid(price, PENNY_GRID)
    assert price > 0 if is_credit else price < 0
    assert price >= net_price - EXACT or price == -PENNY_GRID.smallest
