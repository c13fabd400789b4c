from datetime import date
from decimal import Decimal

import pytest

from otocod.domain.specs import InstrumentType
from otocod.domain.symbols import Instrument, Right, SymbolError, parse_symbol

OPTION = InstrumentType.EQUITY_OPTION
SHARES = InstrumentType.EQUITY
FUTURE = InstrumentType.FUTURE
FUTURE_OPTION = InstrumentType.FUTURE_OPTION


def test_occ_symbol_is_taken_apart() -> None:
    assert parse_symbol(OPTION, "AAPL  261218C00157500") == Instrument(
        instrument_type=OPTION,
        symbol="AAPL  261218C00157500",
        root="AAPL",
        underlying="AAPL",
        expires_on=date(2026, 12, 18),
        right=Right.CALL,
        strike=Decimal("157.5"),
    )


@pytest.mark.parametrize(
    ("symbol", "root", "underlying"),
    [
        ("SPXW  261218P06500000", "SPXW", "SPX"),
        ("SPX   261218P06500000", "SPX", "SPX"),
        ("NDXP  261218P06500000", "NDXP", "NDX"),
        ("RUTW  261218P06500000", "RUTW", "RUT"),
        ("VIXW  261216C00020000", "VIXW", "VIX"),
        ("AAPL1 261218C00155000", "AAPL1", "AAPL1"),
        ("BRKB  261218C00155000", "BRKB", "BRKB"),
        ("GOOGL1261218C00155000", "GOOGL1", "GOOGL1"),
    ],
)
def test_index_roots_share_an_underlying_and_adjusted_roots_stand_alone(
    symbol: str, root: str, underlying: str
) -> None:
    instrument = parse_symbol(OPTION, symbol)
    assert (instrument.root, instrument.underlying) == (root, underlying)


@pytest.mark.parametrize(
    "typed",
    [
        "AAPL261218C00155000",
        "AAPL 261218C00155000",
        "aapl  261218c00155000",
        ".AAPL261218C155",
        "AAPL  261218C155",
        " AAPL  261218C00155000",
    ],
)
def test_option_in_another_form_is_refused_with_the_right_form(typed: str) -> None:
    with pytest.raises(SymbolError) as refused:
        parse_symbol(OPTION, typed)
    assert "AAPL  261218C00155000" in refused.value.reason


@pytest.mark.parametrize(
    "symbol",
    [
        "",
        "AAPL",
        "AAPL  261318C00155000",  # no 13th month
        "AAPL  260231C00155000",
        "AAPL  261218X00155000",
        "AAPL  261218C00000000",
        "  AAPL261218C00155000",
        "AAPL  261218C0015500\n",
        "AAPL  ٢٦1218C00155000",
        "A" * 100_000,
    ],
)
def test_what_is_no_option_symbol_is_refused_in_one_short_line(symbol: str) -> None:
    with pytest.raises(SymbolError) as refused:
        parse_symbol(OPTION, symbol)
    assert len(refused.value.reason) < 250
    assert refused.value.reason.isprintable()


@pytest.mark.parametrize("symbol", ["AAPL", "BRK/B", "A", "BAC/PRL"])
def test_shares_are_their_own_underlying(symbol: str) -> None:
    instrument = parse_symbol(SHARES, symbol)
    assert (instrument.underlying, instrument.strike, instrument.expires_on) == (symbol, None, None)


@pytest.mark.parametrize(("typed", "right_form"), [("BRK.B", "BRK/B"), ("aapl", "AAPL"), (" SPY", "SPY")])
def test_shares_in_another_form_are_refused_with_the_right_form(typed: str, right_form: str) -> None:
    with pytest.raises(SymbolError, match=right_form):
        parse_symbol(SHARES, typed)


@pytest.mark.parametrize(
    ("symbol", "root"), [("/ESZ6", "/ES"), ("/6EH7", "/6E"), ("/M2KM26", "/M2K"), ("/ZBU6", "/ZB")]
)
def test_future_has_its_product_as_root(symbol: str, root: str) -> None:
    instrument = parse_symbol(FUTURE, symbol)
    assert (instrument.root, instrument.underlying, instrument.expires_on) == (root, symbol, None)


@pytest.mark.parametrize("symbol", ["ESZ6", "/ES", "/ESA6", "/esz6", "/ESZ6 "])
def test_what_is_no_future_is_refused(symbol: str) -> None:
    with pytest.raises(SymbolError):
        parse_symbol(FUTURE, symbol)


def test_futures_option_has_the_future_as_underlying() -> None:
    instrument = parse_symbol(FUTURE_OPTION, "./ESZ6 EW4Z6 261224C6500")
    assert instrument.underlying == "/ESZ6"
    assert instrument.root == "EW4"
    assert instrument.expires_on == date(2026, 12, 24)
    assert (instrument.right, instrument.strike) == (Right.CALL, Decimal(6500))


def test_futures_option_may_have_a_fractional_strike() -> None:
    assert parse_symbol(FUTURE_OPTION, "./6EZ6 EUUZ6 261204P1.085").strike == Decimal("1.085")


@pytest.mark.parametrize(
    "symbol", ["/ESZ6 EW4Z6 261224C6500", "./ESZ6", "./ESZ6EW4Z6261224C6500", "./ESZ6 EW4Z6 261324C1"]
)
def test_what_is_no_futures_option_is_refused(symbol: str) -> None:
    with pytest.raises(SymbolError):
        parse_symbol(FUTURE_OPTION, symbol)


def test_cryptocurrency_pair_is_read_so_that_it_can_be_refused_by_name() -> None:
    assert parse_symbol(InstrumentType.CRYPTOCURRENCY, "BTC/USD").root == "BTC"
    with pytest.raises(SymbolError):
        parse_symbol(InstrumentType.CRYPTOCURRENCY, "BTC")
