from decimal import Decimal

import pytest

from otocod.domain.prices import (
    PENNY_GRID,
    SHARES_GRID,
    SINGLE_OPTION_GRID,
    SPX_SINGLE_GRID,
    SPX_SPREAD_GRID,
    UNKNOWN_GRID,
    PriceError,
    PriceGrid,
    grid_for,
    grid_from_tick_sizes,
    is_on_grid,
    parse_decimal,
    parse_price,
    plain,
    snap_down,
    snap_up,
)
from otocod.domain.specs import Action, InstrumentType, Leg


def option(symbol: str, action: Action = Action.BUY_TO_OPEN) -> Leg:
    return Leg(InstrumentType.EQUITY_OPTION, symbol, action, 1)


@pytest.mark.covers("F112")
@pytest.mark.parametrize(
    ("grid", "price", "down", "up"),
    [
        (SPX_SINGLE_GRID, "2.96", "2.95", "3.00"),
        (SPX_SINGLE_GRID, "3.01", "3.00", "3.10"),
        (SPX_SINGLE_GRID, "3.00", "3.00", "3.00"),
        (SPX_SINGLE_GRID, "-0.41", "-0.45", "-0.40"),
        (SPX_SINGLE_GRID, "-3.01", "-3.10", "-3.00"),
        (SPX_SPREAD_GRID, "17.51", "17.50", "17.55"),
        (PENNY_GRID, "0.425", "0.42", "0.43"),
        (PENNY_GRID, "0", "0", "0"),
        (SHARES_GRID, "0.99995", "0.9999", "1"),
        (SHARES_GRID, "1.0001", "1.00", "1.01"),
    ],
)
def test_price_is_moved_to_its_neighbours_on_the_grid(grid: PriceGrid, price: str, down: str, up: str) -> None:
    assert snap_down(Decimal(price), grid) == Decimal(down)
    assert snap_up(Decimal(price), grid) == Decimal(up)


@pytest.mark.covers("F112")
@pytest.mark.parametrize(
    ("symbols", "grid"),
    [
        (["AAPL  261218C00155000"], SINGLE_OPTION_GRID),
        (["SPY   261218C00600000"], PENNY_GRID),
        (["QQQ   261218C00600000"], PENNY_GRID),
        (["IWM   261218C00200000"], PENNY_GRID),
        (["AAPL  261218C00155000", "AAPL  261218C00160000"], PENNY_GRID),
        (["SPXW  261218C06500000"], SPX_SINGLE_GRID),
        (["SPX   261218C06500000"], SPX_SINGLE_GRID),
        (["SPXW  261218C06500000", "SPXW  261218C06550000"], SPX_SPREAD_GRID),
    ],
)
def test_options_have_the_grid_of_their_product_and_leg_count(symbols: list[str], grid: PriceGrid) -> None:
    assert grid_for(tuple(option(symbol) for symbol in symbols)) == grid


def test_shares_have_cents_and_futures_no_grid_of_their_own() -> None:
    assert grid_for((Leg(InstrumentType.EQUITY, "AAPL", Action.BUY_TO_OPEN, 100),)) == SHARES_GRID
    assert grid_for((Leg(InstrumentType.FUTURE, "/ZBZ6", Action.BUY, 1),)) == UNKNOWN_GRID
    assert grid_for((Leg(InstrumentType.FUTURE_OPTION, "./ESZ6 EW4Z6 261224C6500", Action.BUY_TO_OPEN, 1),)) == (
        UNKNOWN_GRID
    )


def test_single_option_takes_a_penny_price_that_we_would_not_compute() -> None:
    """Whether AAPL is in the penny program is not known offline: 0.86 may be right, 0.85 is right in any case."""
    assert SINGLE_OPTION_GRID.takes(Decimal("0.86"))
    assert snap_up(Decimal("0.86"), SINGLE_OPTION_GRID) == Decimal("0.90")
    assert not is_on_grid(Decimal("0.86"), SINGLE_OPTION_GRID)
    assert not SINGLE_OPTION_GRID.takes(Decimal("3.02"))
    assert not SINGLE_OPTION_GRID.takes(Decimal("0.855"))


def test_increment_of_a_band_begins_at_its_end() -> None:
    assert SPX_SINGLE_GRID.tick_at(Decimal("2.99")) == Decimal("0.05")
    assert SPX_SINGLE_GRID.tick_at(Decimal("-3.00")) == Decimal("0.10")
    assert SINGLE_OPTION_GRID.given_tick_at(Decimal(3)) == Decimal("0.05")


def test_unknown_grid_takes_any_price_and_says_that_it_is_not_certain() -> None:
    assert UNKNOWN_GRID.takes(Decimal("110.015625"))
    assert not UNKNOWN_GRID.is_certain
    assert PENNY_GRID.is_certain


def test_grid_is_learned_from_the_tick_sizes_of_the_broker() -> None:
    grid = grid_from_tick_sizes([(Decimal("0.10"), None), (Decimal("0.05"), Decimal(3))])
    assert grid == SPX_SINGLE_GRID
    assert grid_from_tick_sizes([(Decimal("0.01"), None)]) == PENNY_GRID


@pytest.mark.parametrize(
    "tick_sizes",
    [
        [],
        [("0.05", "3")],
        [("0.05", None), ("0.10", None)],
        [("0", None)],
        [("-0.05", "3"), ("0.10", None)],
        [("0.05", "3"), ("0.03", "3"), ("0.10", None)],
        [("0.05", "3.02"), ("0.10", None)],  # 3.02 lies on neither increment
        [("0.05", "3.05"), ("0.10", None)],  # 3.05 would be snapped to and is no price of the upper band
    ],
)
def test_bands_that_do_not_meet_make_no_grid(tick_sizes: list[tuple[str, str | None]]) -> None:
    with pytest.raises(ValueError):
        grid_from_tick_sizes([(Decimal(tick), None if below is None else Decimal(below)) for tick, below in tick_sizes])


@pytest.mark.covers("F106")
@pytest.mark.parametrize(
    "text",
    [
        *("NaN", "Infinity", "-Infinity", "1e400", "1e-400", "1e999999999999", "0." + "0" * 20 + "1"),
        *("", " 1", "1 ", "1_000", "٣", "0x10", ".85", "1.", "0.85\n", "--1"),
        *("1" * 100_000, "1234567890.123456789012345678901"),
    ],
)
def test_what_is_no_sensible_number_is_refused_in_one_short_line(text: str) -> None:
    with pytest.raises(PriceError) as refused:
        parse_decimal(text)
    assert len(refused.value.reason) < 150
    assert refused.value.reason.isprintable()


@pytest.mark.parametrize("text", ["0", "0.00", "-0.85", "0e9", "1000000", "1e17"])
def test_price_is_above_zero_and_below_the_bound(text: str) -> None:
    with pytest.raises(PriceError):
        parse_price(text)


def test_numbers_are_exact_and_reach_no_wire_with_an_exponent() -> None:
    assert str(parse_price("0.40")) == "0.40"
    assert str(parse_price("1E2")) == "100"
    assert str(parse_price("8.5e-1")) == "0.85"
    assert parse_decimal("0.1") * 3 == Decimal("0.3")


def test_equal_numbers_have_one_text() -> None:
    assert {plain(Decimal(text)) for text in ("100", "1e2", "100.00")} == {"100"}
    assert {plain(Decimal(text)) for text in ("0", "-0.00", "0e5")} == {"0"}
