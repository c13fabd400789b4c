"""Where quotes come from when nobody sets them by hand: a seeded walk, or a script.

The exchange holds the quotes; this module only makes new ones. The walk moves each underlying in steps drawn from the
seed; an option's price follows from its underlying, its strike and the days left by one simple formula. It is a
landscape to trade in, not a pricing model: floats are used for the shape, and only decimals on a grid of cents leave
this module.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

from otocod.paper import instruments, symbols

_CENT = Decimal("0.01")
_VOLATILITY = 0.30  # a year
_STEP = 0.0004  # of the price, standard deviation of one tick
MAX_SCRIPT_STEPS = 100_000


@dataclass(frozen=True, slots=True)
class MadeQuote:
    """A made quote."""

    bid: Decimal
    ask: Decimal


class Walk:
    """Prices of all underlyings; the same seed and number of ticks give the same prices."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"walk:{seed}")
        self._seed = seed
        self._spots: dict[str, float] = {name: float(item.spot) for name, item in instruments.UNDERLYINGS.items()}

    def tick(self) -> None:
        for name in self._spots:
            self._spots[name] *= 1 + self._random.gauss(0, _STEP)

    def spot(self, name: str) -> float:
        """An underlying without a chain starts at a price that depends on its name and the seed."""
        if name not in self._spots:
            future = name.startswith(f"/{instruments.FUTURE_CODE}")
            start = float(instruments.FUTURE_SPOT) if future else random.Random(f"{name}:{self._seed}").uniform(20, 400)
            self._spots[name] = start
        return self._spots[name]

    def quote(self, symbol: str, today: date) -> MadeQuote | None:
        """None for a symbol that is no instrument, or an option that has expired."""
        found = symbols.instrument(symbol, symbols.guess_type(symbol))
        if found is None or (found.expiration is not None and found.expiration < today):
            return None
        spot = self.spot(found.underlying)
        if found.expiration is None:
            middle = _cents(spot)
            return MadeQuote(middle - _CENT, middle + _CENT)
        value = option_value(spot, float(found.strike), (found.expiration - today).days, found.option_type)
        middle = max(_cents(value), Decimal("0.02"))
        half = max(_CENT, (middle * _CENT).quantize(_CENT, ROUND_HALF_EVEN))
        return MadeQuote(max(middle - half, Decimal(0)), middle + half)


def option_value(spot: float, strike: float, days: int, option_type: str) -> float:
    """Intrinsic value plus a bell of time value around the strike."""
    spread = max(spot * _VOLATILITY * math.sqrt(max(days, 0.2) / 365), 0.01)
    distance = (spot - strike) / spread
    intrinsic = max(spot - strike, 0.0) if option_type == "C" else max(strike - spot, 0.0)
    # The expected gain of a normal variable beyond a bound, so that prices are monotonic in the strike.
    tail = math.exp(-distance * distance / 2) / math.sqrt(2 * math.pi) - abs(distance) * 0.5 * math.erfc(
        abs(distance) / math.sqrt(2)
    )
    return intrinsic + spread * max(tail, 0.0)


def _cents(value: float) -> Decimal:
    return Decimal(repr(round(value, 2))).quantize(_CENT, ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class ScriptStep:
    """One scripted quote, `after_ms` after the script was started."""

    after_ms: int
    symbol: str
    bid: Decimal
    ask: Decimal


def parse_script(steps: object) -> list[ScriptStep]:
    """A list of `{after_ms, symbol, bid, ask}`. Raises ValueError with every problem, one a line."""
    if not isinstance(steps, list) or len(steps) > MAX_SCRIPT_STEPS:
        raise ValueError(f"the script must be a list of at most {MAX_SCRIPT_STEPS} steps")
    problems: list[str] = []
    parsed: list[ScriptStep] = []
    for place, step in enumerate(steps):
        where = f"step {place}"
        if not isinstance(step, Mapping) or set(step) != {"after_ms", "symbol", "bid", "ask"}:
            problems.append(f"{where}: must have after_ms, symbol, bid and ask, nothing else")
            continue
        after_ms, symbol = step["after_ms"], step["symbol"]
        if not isinstance(after_ms, int) or isinstance(after_ms, bool) or after_ms < 0:
            problems.append(f"{where}: after_ms must be a whole number, not negative")
        elif not isinstance(symbol, str) or symbols.instrument(symbol, symbols.guess_type(symbol)) is None:
            problems.append(f"{where}: {symbol!r} is no symbol")
        else:
            try:
                parsed.append(ScriptStep(after_ms, symbol, *parse_sides(step["bid"], step["ask"])))
            except ValueError as error:
                problems.append(f"{where}: {error}")
    if problems:
        raise ValueError("\n".join(problems))
    return sorted(parsed, key=lambda step: step.after_ms)


def parse_sides(bid: object, ask: object) -> tuple[Decimal, Decimal]:
    """Both sides of a quote from decimal strings or numbers. Crossed quotes are let through: markets show them."""
    sides = []
    for name, value in (("bid", bid), ("ask", ask)):
        if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
            raise ValueError(f"{name} must be a decimal string")
        try:
            side = Decimal(value)
        except InvalidOperation:
            raise ValueError(f"{name} must be a decimal string") from None
        if not side.is_finite() or side < 0:
            raise ValueError(f"{name} must be finite and not negative")
        sides.append(side)
    return sides[0], sides[1]
