"""What the exchange reads out of a symbol: underlying, expiry, strike, multiplier, price increments."""

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache

from otocod.paper.rules import Rules

EQUITY = "Equity"
EQUITY_OPTION = "Equity Option"
FUTURE = "Future"
FUTURE_OPTION = "Future Option"
CRYPTOCURRENCY = "Cryptocurrency"
INSTRUMENT_TYPES = frozenset({EQUITY, EQUITY_OPTION, FUTURE, FUTURE_OPTION, CRYPTOCURRENCY})

# Weekly roots of index options; the order object names the index itself as the underlying.
_ROOTS = {"SPXW": "SPX", "NDXP": "NDX", "RUTW": "RUT", "VIXW": "VIX", "XSPW": "XSP", "DJXW": "DJX"}
INDEXES = frozenset({"SPX", "NDX", "RUT", "VIX", "XSP", "DJX"})
_FUTURE_MULTIPLIERS = {"ES": 50, "MES": 5, "NQ": 20, "MNQ": 2, "RTY": 50, "CL": 1000, "GC": 100, "ZB": 1000, "ZN": 1000}

_OCC = re.compile(r"([A-Z0-9./]{1,6}) *(\d{6})([CP])(\d{8})")
_FUTURE = re.compile(r"/([A-Z0-9]{1,4})[FGHJKMNQUVXZ]\d{1,2}")
_FUTURE_OPTION = re.compile(r"\.(/([A-Z0-9]{1,4})[FGHJKMNQUVXZ]\d{1,2}) +\S+ +(\d{6})([CP])(\d+(?:\.\d+)?)")
_EQUITY = re.compile(r"[A-Z][A-Z0-9./]{0,9}")

CENT = Decimal("0.01")
NICKEL = Decimal("0.05")
DIME = Decimal("0.10")
THRESHOLD = Decimal("3.00")


@dataclass(frozen=True, slots=True)
class Instrument:
    symbol: str
    instrument_type: str
    root: str
    underlying: str
    multiplier: int
    expiration: date | None = None
    option_type: str = ""  # C, P or empty
    strike: Decimal = Decimal(0)

    @property
    def is_option(self) -> bool:
        return self.option_type != ""

    @property
    def underlying_type(self) -> str:
        """`Equity` for equity and index options, as the order object shows it."""
        if self.instrument_type in (FUTURE, FUTURE_OPTION):
            return FUTURE
        return EQUITY if self.instrument_type != CRYPTOCURRENCY else CRYPTOCURRENCY


@lru_cache(maxsize=8192)
def instrument(symbol: str, instrument_type: str) -> Instrument | None:
    """None when the symbol is not one of that type; an option symbol must be exactly as the broker writes it."""
    if instrument_type == EQUITY_OPTION:
        return _equity_option(symbol)
    if instrument_type == FUTURE_OPTION:
        return _future_option(symbol)
    if instrument_type == FUTURE:
        found = _FUTURE.fullmatch(symbol)
        return found and Instrument(symbol, FUTURE, found[1], symbol, _FUTURE_MULTIPLIERS.get(found[1], 100))
    if instrument_type == EQUITY and _EQUITY.fullmatch(symbol):
        return Instrument(symbol, EQUITY, symbol, symbol, 1)
    if instrument_type == CRYPTOCURRENCY and "/" in symbol:
        return Instrument(symbol, CRYPTOCURRENCY, symbol, symbol, 1)
    return None


@lru_cache(maxsize=8192)
def guess_type(symbol: str) -> str:
    """The instrument type by the form of the symbol alone, as quotes have no type."""
    if _equity_option(symbol):
        return EQUITY_OPTION
    if symbol.startswith("./"):
        return FUTURE_OPTION
    return FUTURE if symbol.startswith("/") else EQUITY


def _equity_option(symbol: str) -> Instrument | None:
    found = _OCC.fullmatch(symbol)
    if found is None or len(symbol) != 21:
        return None
    expiration = _expiration(found[2])
    if expiration is None:
        return None
    root = found[1]
    strike = Decimal(found[4]) / 1000
    return Instrument(symbol, EQUITY_OPTION, root, _ROOTS.get(root, root), 100, expiration, found[3], strike)


def _future_option(symbol: str) -> Instrument | None:
    found = _FUTURE_OPTION.fullmatch(symbol)
    expiration = _expiration(found[3]) if found else None
    if found is None or expiration is None:
        return None
    multiplier = _FUTURE_MULTIPLIERS.get(found[2], 100)
    return Instrument(symbol, FUTURE_OPTION, found[2], found[1], multiplier, expiration, found[4], Decimal(found[5]))


def _expiration(digits: str) -> date | None:
    try:
        return date(2000 + int(digits[:2]), int(digits[2:4]), int(digits[4:]))
    except ValueError:
        return None


_STREAMER_OPTION = re.compile(r"\.([A-Z0-9]{1,5}?)(\d{6})([CP])(\d{1,5}(?:\.\d{1,3})?)")
_DATED = re.compile(r"(/?[A-Z0-9]+[FGHJKMNQUVXZ])(\d{1,2})")
_EXCHANGE = "XCME"
_order_forms: dict[str, str] = {}  # of streamer symbols that do not say their order form by themselves


@lru_cache(maxsize=8192)
def streamer_symbol(symbol: str) -> str:
    """How the quote stream calls it: `AAPL  261218C00297500` is `.AAPL261218C297.5`, `/ESZ6` is `/ESZ26:XCME` and
    `./ESZ6 EW4Z6 261224C6500` is `./EW4Z26C6500:XCME`. Shares keep their symbol."""
    option = _equity_option(symbol)
    if option is not None and option.expiration is not None:
        return f".{option.root}{option.expiration:%y%m%d}{option.option_type}{option.strike.normalize():f}"
    name = symbol
    found = instrument(symbol, guess_type(symbol))
    if found is not None and found.instrument_type == FUTURE:
        name = f"{_two_digits(symbol)}:{_EXCHANGE}"
    elif found is not None and found.instrument_type == FUTURE_OPTION:
        contract = symbol.split()[1]
        name = f"./{_two_digits(contract)}{found.option_type}{found.strike.normalize():f}:{_EXCHANGE}"
    _order_forms[name] = symbol
    return name


def order_symbol(name: str) -> str:
    """The other way round; a name whose order form was never asked for stands for itself."""
    found = _STREAMER_OPTION.fullmatch(name)
    if found is None:
        return _order_forms.get(name, name)
    return f"{found[1]:<6}{found[2]}{found[3]}{round(Decimal(found[4]) * 1000):08d}"


def _two_digits(contract: str) -> str:
    """`/ESZ6` with the year in two digits; of this decade, since nothing of the last one trades."""
    found = _DATED.fullmatch(contract)
    return contract if found is None or len(found[2]) == 2 else f"{found[1]}2{found[2]}"


def tick_sizes(underlying: str, rules: Rules) -> list[dict[str, str]]:
    """The chain's `tick-sizes` of single options: `value` below `threshold`, the entry without one above."""
    if underlying in rules.cent_underlyings:
        return [{"value": "0.01"}]
    if underlying in rules.penny_underlyings:
        return [{"value": "0.01", "threshold": "3.0"}, {"value": "0.05"}]
    return [{"value": "0.05", "threshold": "3.0"}, {"value": "0.1"}]


def increment(found: Instrument, legs: int, price: Decimal, rules: Rules) -> Decimal | None:
    """The price grid of an order at this price; None where the product's grid is not known."""
    if found.instrument_type == EQUITY:
        return CENT
    if found.instrument_type != EQUITY_OPTION:
        return None
    if legs > 1:
        return NICKEL if found.underlying == "SPX" else CENT
    if found.underlying in rules.cent_underlyings:
        return CENT
    low, high = (CENT, NICKEL) if found.underlying in rules.penny_underlyings else (NICKEL, DIME)
    return low if price < THRESHOLD else high
