"""Symbols in the form the broker takes in an order, taken apart.

Four forms: an equity option is the 21 characters of OCC (`AAPL  261218C00155000`: root padded right with spaces
to 6, yymmdd, C or P, strike times 1000 in 8 digits); shares are `AAPL` or `BRK/B`; a future is `/ESZ6`; a futures
option is `./ESZ6 EW4Z6 261224C6500`, not of fixed width. The streamer's forms (`.AAPL261218C155`) are not accepted:
what looks like one is refused with the order form spelled out.
"""

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import assert_never

from otocod.domain.specs import InstrumentType
from otocod.domain.text import shown


class Right(StrEnum):
    CALL = "C"
    PUT = "P"


class SymbolError(ValueError):
    """A symbol that is not in the broker's order form; `reason` is one line and says the right form where known."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Instrument:
    """What a symbol says by itself; nothing here was asked of the broker."""

    instrument_type: InstrumentType
    symbol: str
    root: str  # SPXW, AAPL1 (adjusted), BRK/B, /ES, EW4 (the option's own root for a futures option)
    underlying: str  # what must be one for all legs: SPX for SPXW; /ESZ6 for a future and for an option on it
    expires_on: date | None = None  # the date in an option's symbol; a future's symbol names only a month
    right: Right | None = None
    strike: Decimal | None = None


# Weekly and PM-settled roots that settle on the same index as the plain root.
_UNDERLYING_OF_ROOT = {"SPXW": "SPX", "NDXP": "NDX", "RUTW": "RUT", "VIXW": "VIX"}
_SYMBOL_MAX_CHARACTERS = 40
_MONTHS = "FGHJKMNQUVXZ"

_OCC = re.compile(r"(?P<root>[A-Z0-9]{1,6}) *(?P<day>[0-9]{6})(?P<right>[CP])(?P<strike>[0-9]{8})")
_TYPED_OPTION = re.compile(
    r"\.?(?P<root>[A-Z][A-Z0-9]{0,5}?)\s*(?P<day>[0-9]{6})(?P<right>[CP])(?P<strike>[0-9]{1,8}(?:\.[0-9]{1,3})?)"
)
_EQUITY = re.compile(r"[A-Z][A-Z0-9]{0,7}(?:/[A-Z]{1,3})?")
_FUTURE = re.compile(rf"(?P<root>/[A-Z0-9]{{1,4}}?)[{_MONTHS}][0-9]{{1,2}}")
_FUTURE_OPTION = re.compile(
    rf"\.(?P<future>/[A-Z0-9]{{1,4}}?[{_MONTHS}][0-9]{{1,2}}) +(?P<root>[A-Z0-9]{{1,5}}?)[{_MONTHS}][0-9]{{1,2}} +"
    r"(?P<day>[0-9]{6})(?P<right>[CP])(?P<strike>[0-9]{1,7}(?:\.[0-9]{1,7})?)"
)
_CRYPTOCURRENCY = re.compile(r"(?P<root>[A-Z0-9]{2,8})/[A-Z]{3,4}")


# Every decision asks for those of its legs; so many different ones are remembered.
@lru_cache(maxsize=8192)
def parse_symbol(instrument_type: InstrumentType, symbol: str) -> Instrument:
    """Take an order symbol apart; raises SymbolError. Whether the contract exists only the broker knows."""
    if len(symbol) > _SYMBOL_MAX_CHARACTERS:
        raise SymbolError(f"{shown(symbol)} is too long for a symbol")
    match instrument_type:
        case InstrumentType.EQUITY_OPTION:
            return _parse_equity_option(symbol)
        case InstrumentType.EQUITY:
            return _parse_equity(symbol)
        case InstrumentType.FUTURE:
            return _parse_future(symbol)
        case InstrumentType.FUTURE_OPTION:
            return _parse_future_option(symbol)
        case InstrumentType.CRYPTOCURRENCY:
            return _parse_cryptocurrency(symbol)
        case _:
            assert_never(instrument_type)


def _parse_equity_option(symbol: str) -> Instrument:
    found = _OCC.fullmatch(symbol)
    if found is None or len(symbol) != 21:
        raise SymbolError(_not_occ(symbol))
    strike = Decimal(int(found["strike"])) / 1000
    if strike == 0:
        raise SymbolError(f"{shown(symbol)} has a strike of 0")
    root = found["root"]
    return Instrument(
        instrument_type=InstrumentType.EQUITY_OPTION,
        symbol=symbol,
        root=root,
        underlying=_UNDERLYING_OF_ROOT.get(root, root),
        expires_on=_expiry(symbol, found["day"]),
        right=Right(found["right"]),
        strike=strike,
    )


def _not_occ(symbol: str) -> str:
    """Why `symbol` is no OCC symbol, with the right form when what was meant is plain."""
    form = "its 21 characters are the root padded with spaces to 6, yymmdd, C or P, and strike x 1000 in 8 digits"
    typed = _TYPED_OPTION.fullmatch(symbol.strip().upper())
    if typed is None:
        return f"{shown(symbol)} is no option symbol: {form}"
    strike = typed["strike"]
    thousandths = int(strike) if len(strike) == 8 and strike.isdigit() else int(Decimal(strike) * 1000)
    right_form = f"{typed['root']:<6}{typed['day']}{typed['right']}{thousandths:08d}"
    if len(right_form) != 21:
        return f"{shown(symbol)} is no option symbol: {form}"
    return f"{shown(symbol)} is not in order form: write {shown(right_form)}"


def _parse_equity(symbol: str) -> Instrument:
    if _EQUITY.fullmatch(symbol) is None:
        meant = symbol.strip().upper().replace(".", "/")
        remedy = f"write {shown(meant)}" if _EQUITY.fullmatch(meant) else "write it like AAPL or BRK/B"
        raise SymbolError(f"{shown(symbol)} is no share symbol: {remedy}")
    return Instrument(InstrumentType.EQUITY, symbol, root=symbol, underlying=symbol)


def _parse_future(symbol: str) -> Instrument:
    found = _FUTURE.fullmatch(symbol)
    if found is None:
        meant = "/" + symbol.strip().upper().lstrip("/")
        remedy = f"write {shown(meant)}" if _FUTURE.fullmatch(meant) else "write it like /ESZ6"
        raise SymbolError(f"{shown(symbol)} is no future: {remedy}")
    return Instrument(InstrumentType.FUTURE, symbol, root=found["root"], underlying=symbol)


def _parse_future_option(symbol: str) -> Instrument:
    found = _FUTURE_OPTION.fullmatch(symbol)
    if found is None:
        raise SymbolError(f"{shown(symbol)} is no futures option: write it like ./ESZ6 EW4Z6 261224C6500")
    strike = Decimal(found["strike"])
    if strike == 0:
        raise SymbolError(f"{shown(symbol)} has a strike of 0")
    return Instrument(
        instrument_type=InstrumentType.FUTURE_OPTION,
        symbol=symbol,
        root=found["root"],
        underlying=found["future"],
        expires_on=_expiry(symbol, found["day"]),
        right=Right(found["right"]),
        strike=strike,
    )


def _parse_cryptocurrency(symbol: str) -> Instrument:
    found = _CRYPTOCURRENCY.fullmatch(symbol)
    if found is None:
        raise SymbolError(f"{shown(symbol)} is no cryptocurrency pair: write it like BTC/USD")
    return Instrument(InstrumentType.CRYPTOCURRENCY, symbol, root=found["root"], underlying=symbol)


def _expiry(symbol: str, yymmdd: str) -> date:
    try:
        return date(2000 + int(yymmdd[:2]), int(yymmdd[2:4]), int(yymmdd[4:]))
    except ValueError:
        raise SymbolError(f"{shown(symbol)} holds {yymmdd}, which is no day in the form yymmdd") from None
