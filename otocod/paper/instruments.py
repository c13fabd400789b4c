"""What can be traded, as the instrument endpoints show it: chains made from the paper's own date.

The chains are only a shop window. Any well-formed, unexpired option symbol is tradable, so a test may use a strike
that is not listed; `equity_option` describes those too. All forms (nested, full, compact, single option, quote
stream) are made from the same `Listing`, so symbols agree everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

from otocod.paper import sessions, symbols
from otocod.paper.answers import Json
from otocod.paper.rules import Rules

WEEKS_LISTED = 6
MONTHS_LISTED = 4


@dataclass(frozen=True)
class Underlying:
    """A product with a chain. `spot` is where its seeded walk begins; strikes run from `low` to `high`."""

    symbol: str
    description: str
    spot: Decimal
    low: int
    high: int
    step: Decimal
    weekly_root: str
    monthly_root: str
    instrument_type: str = symbols.EQUITY
    is_etf: bool = False
    is_index: bool = False

    def strikes(self) -> Iterator[Decimal]:
        strike = Decimal(self.low)
        while strike <= self.high:
            yield strike
            strike += self.step


def _stock(
    symbol: str, description: str, spot: int, low: int, high: int, step: str, *, is_etf: bool = False
) -> Underlying:
    return Underlying(symbol, description, Decimal(spot), low, high, Decimal(step), symbol, symbol, is_etf=is_etf)


UNDERLYINGS: dict[str, Underlying] = {
    item.symbol: item
    for item in (
        _stock("AAPL", "Apple Inc. - Common Stock", 250, 150, 350, "2.5"),
        _stock("SPY", "SPDR S&P 500 ETF Trust", 680, 600, 760, "2", is_etf=True),
        _stock("TSLA", "Tesla, Inc. - Common Stock", 400, 300, 500, "5"),
        Underlying("SPX", "S&P 500 Index", Decimal(6800), 6300, 7300, Decimal(25), "SPXW", "SPX", is_index=True),
    )
}
FUTURE_CODE = "ES"
FUTURE_SPOT = Decimal(6800)
FUTURE_STRIKES = tuple(Decimal(strike) for strike in range(6500, 7101, 50))
_FUTURE_MONTHS = {3: "H", 6: "M", 9: "U", 12: "Z"}


@dataclass(frozen=True)
class Listing:
    """One expiration of one root."""

    underlying: Underlying
    root: str
    expiration: date
    expiration_type: str  # Regular or Weekly
    settlement_type: str  # AM or PM

    def symbol(self, strike: Decimal, option_type: str) -> str:
        return occ_symbol(self.root, self.expiration, option_type, strike)


def occ_symbol(root: str, expiration: date, option_type: str, strike: Decimal) -> str:
    return f"{root:<6}{expiration:%y%m%d}{option_type}{int(strike * 1000):08d}"


def iso(at_us: int) -> str:
    """The broker's spelling of an instant: milliseconds and `+00:00`."""
    return datetime.fromtimestamp(at_us / 1_000_000, UTC).isoformat(timespec="milliseconds")


def fridays(today: date) -> tuple[list[date], list[date]]:
    """Weekly expirations from tomorrow on, and the third Fridays of the coming months."""
    first = today + timedelta(days=1)
    first += timedelta(days=(4 - first.weekday()) % 7)
    weekly = [first + timedelta(weeks=week) for week in range(WEEKS_LISTED)]
    monthly: list[date] = []
    month = today.replace(day=1)
    while len(monthly) < MONTHS_LISTED:
        third = month + timedelta(days=(4 - month.weekday()) % 7 + 14)
        if third > today:
            monthly.append(third)
        month = (month + timedelta(days=32)).replace(day=1)
    return weekly, monthly


@lru_cache(maxsize=64)
def listings(name: str, today: date) -> tuple[Listing, ...]:
    """All expirations of an underlying by date; empty when the paper has no chain for it."""
    underlying = UNDERLYINGS.get(name)
    if underlying is None:
        return ()
    weekly, monthly = fridays(today)
    found = [
        # Index monthlies settle in the morning, everything else after the close.
        Listing(underlying, underlying.monthly_root, day, "Regular", "AM" if underlying.is_index else "PM")
        for day in monthly
    ]
    taken = set(monthly) if underlying.weekly_root == underlying.monthly_root else set()
    found += [Listing(underlying, underlying.weekly_root, day, "Weekly", "PM") for day in weekly if day not in taken]
    return tuple(sorted(found, key=lambda listing: (listing.root, listing.expiration)))


def nested_chain(name: str, today: date, rules: Rules) -> list[Json]:
    by_root: dict[str, list[Listing]] = {}
    for listing in listings(name, today):
        by_root.setdefault(listing.root, []).append(listing)
    return [
        {
            "underlying-symbol": name,
            "root-symbol": root,
            "option-chain-type": "Standard",
            "shares-per-contract": 100,
            "tick-sizes": symbols.tick_sizes(name, rules),
            "expirations": [_nested_expiration(listing, today) for listing in of_root],
        }
        for root, of_root in by_root.items()
    ]


def _nested_expiration(listing: Listing, today: date) -> Json:
    strikes: list[Json] = []
    for strike in listing.underlying.strikes():
        call, put = listing.symbol(strike, "C"), listing.symbol(strike, "P")
        strikes.append(
            {
                "strike-price": str(strike),
                "call": call,
                "call-streamer-symbol": symbols.streamer_symbol(call),
                "put": put,
                "put-streamer-symbol": symbols.streamer_symbol(put),
            }
        )
    return {
        "expiration-type": listing.expiration_type,
        "expiration-date": listing.expiration.isoformat(),
        "days-to-expiration": (listing.expiration - today).days,
        "settlement-type": listing.settlement_type,
        "strikes": strikes,
    }


def full_chain(name: str, today: date) -> list[Json]:
    return [
        _option(listing, strike, option_type, today)
        for listing in listings(name, today)
        for strike in listing.underlying.strikes()
        for option_type in "CP"
    ]


def compact_chain(name: str, today: date) -> list[Json]:
    return [
        {
            "underlying-symbol": name,
            "root-symbol": listing.root,
            "option-chain-type": "Standard",
            "settlement-type": listing.settlement_type,
            "shares-per-contract": 100,
            "expiration-type": listing.expiration_type,
            "symbols": [listing.symbol(strike, kind) for strike in listing.underlying.strikes() for kind in "CP"],
        }
        for listing in listings(name, today)
    ]


def equity_option(symbol: str, today: date) -> Json | None:
    """Any well-formed unexpired symbol, listed or not."""
    found = symbols.instrument(symbol, symbols.EQUITY_OPTION)
    if found is None or found.expiration is None or found.expiration < today:
        return None
    weekly_settled = found.root == found.underlying and found.underlying in symbols.INDEXES
    underlying = UNDERLYINGS.get(found.underlying) or _stock(found.underlying, found.underlying, 100, 1, 1, "1")
    monthly = 15 <= found.expiration.day <= 21 and found.expiration.weekday() == 4
    listing = Listing(
        underlying, found.root, found.expiration, "Regular" if monthly else "Weekly", "AM" if weekly_settled else "PM"
    )
    return _option(listing, found.strike, found.option_type, today)


def _option(listing: Listing, strike: Decimal, option_type: str, today: date) -> Json:
    symbol = listing.symbol(strike, option_type)
    stops_at = iso(sessions.expires_at_us(listing.expiration))
    return {
        "symbol": symbol,
        "instrument-type": symbols.EQUITY_OPTION,
        "active": True,
        "strike-price": str(strike),
        "root-symbol": listing.root,
        "underlying-symbol": listing.underlying.symbol,
        "expiration-date": listing.expiration.isoformat(),
        "exercise-style": "European" if listing.underlying.is_index else "American",
        "shares-per-contract": 100,
        "option-type": option_type,
        "option-chain-type": "Standard",
        "expiration-type": listing.expiration_type,
        "settlement-type": listing.settlement_type,
        "stops-trading-at": stops_at,
        "market-time-instrument-collection": "Cash Settled Equity Option"
        if listing.underlying.is_index
        else "Equity Option",
        "days-to-expiration": (listing.expiration - today).days,
        "expires-at": stops_at,
        "is-closing-only": False,
        "streamer-symbol": symbols.streamer_symbol(symbol),
    }


def equity(symbol: str, rules: Rules) -> Json | None:
    found = symbols.instrument(symbol, symbols.EQUITY)
    if found is None:
        return None
    known = UNDERLYINGS.get(symbol)
    return {
        "id": sum(ord(letter) * 31**place for place, letter in enumerate(symbol)) % 1_000_000,
        "symbol": symbol,
        "instrument-type": symbols.EQUITY,
        "is-index": bool(known and known.is_index),
        "is-etf": bool(known and known.is_etf),
        "description": known.description if known else symbol,
        "lendability": "Easy To Borrow",
        "market-time-instrument-collection": "Equity",
        "listed-market": "XNAS",
        "is-closing-only": False,
        "is-options-closing-only": False,
        "active": True,
        "is-illiquid": False,
        "streamer-symbol": symbol,
        "tick-sizes": [{"value": "0.0001", "threshold": "1.0"}, {"value": "0.01"}],
        "option-tick-sizes": symbols.tick_sizes(symbol, rules),
    }


def front_future(today: date) -> tuple[str, date]:
    """The symbol and last day of the quarterly future that comes first."""
    month = today.replace(day=1)
    while True:
        third = month + timedelta(days=(4 - month.weekday()) % 7 + 14)
        if month.month in _FUTURE_MONTHS and third > today:
            return f"/{FUTURE_CODE}{_FUTURE_MONTHS[month.month]}{month.year % 10}", third
        month = (month + timedelta(days=32)).replace(day=1)


def future(symbol: str, today: date) -> Json | None:
    front, last_day = front_future(today)
    if symbol != front:
        return None
    stops_at = iso(sessions.expires_at_us(last_day))
    return {
        "symbol": symbol,
        "product-code": FUTURE_CODE,
        "instrument-type": symbols.FUTURE,
        "contract-size": "50.0",
        "tick-size": "0.25",
        "notional-multiplier": "50.0",
        "display-factor": "0.01",
        "last-trade-date": last_day.isoformat(),
        "expiration-date": last_day.isoformat(),
        "active": True,
        "active-month": True,
        "next-active-month": False,
        "is-closing-only": False,
        "is-tradeable": True,
        "stops-trading-at": stops_at,
        "expires-at": stops_at,
        "product-group": "CME_ES",
        "exchange": "CME",
        "streamer-exchange-code": "XCME",
        "streamer-symbol": symbols.streamer_symbol(symbol),
        "back-month-first-calendar-symbol": False,
        "tick-sizes": [{"value": "0.25"}],
        "option-tick-sizes": [{"value": "0.05", "threshold": "10.0"}, {"value": "0.25"}],
        "spread-tick-sizes": [{"value": "0.05"}],
    }


def future_option(symbol: str, today: date) -> Json | None:
    """One option on a future; any that is well-formed and not expired, as with equity options."""
    found = symbols.instrument(symbol, symbols.FUTURE_OPTION)
    if found is None or found.expiration is None or found.expiration < today:
        return None
    stops_at = iso(sessions.expires_at_us(found.expiration))
    return {
        "symbol": symbol,
        "underlying-symbol": found.underlying,
        "product-code": found.root,
        "root-symbol": f"/{found.root}",
        "expiration-date": found.expiration.isoformat(),
        "strike-price": str(found.strike),
        "option-type": found.option_type,
        "exchange": "CME",
        "exchange-symbol": symbol,
        "streamer-symbol": symbols.streamer_symbol(symbol),
        "exercise-style": "European",
        "settlement-type": "Future",
        "is-closing-only": False,
        "active": True,
        "days-to-expiration": (found.expiration - today).days,
        "multiplier": "1.0",
        "stops-trading-at": stops_at,
        "expires-at": stops_at,
    }


def future_option_symbol(future_symbol: str, expiration: date, option_type: str, strike: Decimal) -> str:
    return f".{future_symbol} {future_symbol[1:]} {expiration:%y%m%d}{option_type}{strike:f}"


def future_chain(code: str, today: date) -> Json | None:
    """The nested form; one future with one expiration."""
    if code.lstrip("/") != FUTURE_CODE:
        return None
    symbol, day = front_future(today)
    stops_at = iso(sessions.expires_at_us(day))
    days = (day - today).days
    strikes = []
    for strike in FUTURE_STRIKES:
        call, put = (future_option_symbol(symbol, day, kind, strike) for kind in "CP")
        strikes.append(
            {
                "strike-price": str(strike),
                "call": call,
                "call-streamer-symbol": symbols.streamer_symbol(call),
                "put": put,
                "put-streamer-symbol": symbols.streamer_symbol(put),
            }
        )
    dates: Json = {
        "root-symbol": f"/{FUTURE_CODE}",
        "days-to-expiration": days,
        "expiration-date": day.isoformat(),
        "expires-at": stops_at,
        "stops-trading-at": stops_at,
    }
    expiration: Json = {
        **dates,
        "notional-value": "0.5",
        "underlying-symbol": symbol,
        "strike-factor": "1.0",
        "option-root-symbol": FUTURE_CODE,
        "asset": FUTURE_CODE,
        "expiration-type": "Regular",
        "display-factor": "0.01",
        "option-contract-symbol": symbol[1:],
        "settlement-type": "Future",
        "tick-sizes": [{"value": "0.05", "threshold": "10.0"}, {"value": "0.25"}],
        "strikes": strikes,
    }
    return {
        "futures": [{**dates, "symbol": symbol, "active-month": True, "next-active-month": False}],
        "option-chains": [
            {
                "underlying-symbol": f"/{FUTURE_CODE}",
                "root-symbol": f"/{FUTURE_CODE}",
                "exercise-style": "European",
                "expirations": [expiration],
            }
        ],
    }
