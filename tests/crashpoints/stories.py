"""What a scenario of the crash points is made of: brackets, a market, people, faults, and how it must end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.simulation.scenarios import HALF_SPREAD, Leg, Move, Scenario

if TYPE_CHECKING:
    from tests.crashpoints.world import CrashWorld, Errand

_EXPIRY = "261218"
_SHAPES: dict[str, tuple[tuple[tuple[int, int], ...], bool]] = {
    # (sign, ratio) of each leg; whether it is sold for a credit
    "credit vertical": (((-1, 1), (1, 1)), True),
    "debit vertical": (((1, 1), (-1, 1)), False),
    "condor": (((-1, 1), (1, 1), (-1, 1), (1, 1)), True),
    "ratio": (((-1, 1), (1, 2)), True),
    "long option": (((1, 1),), False),
    "short option": (((-1, 1),), True),
}


@dataclass(frozen=True)
class Act:
    """Something a person or the market does at `at_s`, or as soon after it as it can be done.

    `perform` answers whether it is done; if not, it is called again a quarter of a second later.
    """

    at_s: float
    name: str
    perform: Callable[["CrashWorld", "Errand"], bool]


@dataclass(frozen=True)
class Fault:
    """A fault of the simulation by its name, for the next `times` things that match `on` (a regular expression)."""

    name: str
    on: str
    times: int = 1
    skip: int = 0


@dataclass(frozen=True)
class Reaction:
    """What the market does `delay_s` after an order of `kind` has come to `status`; once."""

    kind: str  # "entry", "stop" or "limit"
    status: str
    perform: Callable[["CrashWorld", int], None]
    delay_s: float = 0.0


@dataclass(frozen=True)
class Ending:
    """How a bracket ends: an outcome, else a state, REJECTED for a row that became none.

    `clean`: in the undisturbed run. After a crash also: ENTRY_NOT_FILLED if its entry never reached the exchange, and
    what `filled` and `unfilled` say for an entry with and without a fill.
    """

    clean: str
    filled: tuple[str, ...] = ()
    unfilled: tuple[str, ...] = ()


@dataclass(frozen=True)
class Story:
    name: str
    brackets: tuple[Scenario, ...]
    endings: tuple[Ending, ...]  # one for each bracket
    active_s: float  # market and people are done by then
    acts: tuple[Act, ...] = ()
    faults: tuple[Fault, ...] = ()
    reactions: tuple[Reaction, ...] = ()
    rules: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    # How the rows of a client_ref are answered, "rejected" or "accepted" each, in the order of their ids.
    rows: dict[str, tuple[str, ...]] = field(default_factory=dict)
    both_may_fill: bool = False
    has_feed: bool = False  # quotes, so that an exit can be watched


def bracket(
    shape: str = "credit vertical",
    *,
    number: int = 0,
    units: int = 1,
    protection: str = "auto",
    percent: bool = False,
    only: str | None = None,
    market_stop: bool = False,
    tif: str = "Day",
    exit_tif: str | None = None,
    rest: str | None = None,
    walk: dict[str, Any] | None = None,
    outside: str = "hold",
    grace_s: int = 2,
    at_s: float = 0.6,
    moves: Sequence[tuple[float, str]] = (),
    strikes_from: int | None = None,
) -> Scenario:
    """`only`: the one exit it has. `strikes_from`: the number of the bracket whose legs it shares."""
    pattern, is_credit = _SHAPES[shape]
    first = number if strikes_from is None else strikes_from
    legs = tuple(
        Leg(f"AAPL  {_EXPIRY}C{(100 + 20 * first + 5 * index) * 1000:08d}", sign, ratio)
        for index, (sign, ratio) in enumerate(pattern)
    )
    half = sum(leg.ratio for leg in legs) * HALF_SPREAD
    request, levels = _credit(half) if is_credit else _debit(half)
    if percent:
        request["target"] = {"profit-percent": "50"}
        request["stop"] = {"loss-percent": "100" if is_credit else "50", "limit-offset": "0.20"}
    if market_stop:
        request["stop"] = {"trigger": request["stop"]["trigger"]}
    for name in ("target", "stop"):
        if exit_tif is not None:
            request[name]["time-in-force"] = exit_tif
        if only is not None and name != only:
            del request[name]
    request["entry"]["time-in-force"] = tif
    request["entry"]["legs"] = [
        {
            "instrument-type": "Equity Option",
            "symbol": leg.symbol,
            "quantity": leg.ratio * units,
            "action": "Buy to Open" if leg.sign > 0 else "Sell to Open",
        }
        for leg in legs
    ]
    request |= {"protection": protection, "on-outside-change": outside, "partial-entry": {"grace-s": grace_s}}
    if rest is not None:
        request["rest"] = rest
    if walk is not None:
        request["walk"] = walk
    found = Scenario(number, f"ref-{number}", request, legs, is_credit, units, protection, levels, at_s)
    found.moves = [Move(when_s, level) for when_s, level in moves]
    return found


def _credit(half: Decimal) -> tuple[dict[str, Any], dict[str, Decimal]]:
    request = {
        "version": 1,
        "entry": {"order-type": "Limit", "price": "0.85", "price-effect": "Credit"},
        "target": {"price": "0.40", "price-effect": "Debit"},
        "stop": {"trigger": "1.70", "price": "1.90", "price-effect": "Debit"},
    }
    levels = {
        "neutral": Decimal("0.83"),
        "fill": Decimal("0.85") + half,
        "target": Decimal("0.35") - half,
        "stop": Decimal("1.78") - half,
        "gap": Decimal("2.60"),
    }
    return request, levels


def _debit(half: Decimal) -> tuple[dict[str, Any], dict[str, Decimal]]:
    request = {
        "version": 1,
        "entry": {"order-type": "Limit", "price": "1.20", "price-effect": "Debit"},
        "target": {"price": "1.80", "price-effect": "Credit"},
        "stop": {"trigger": "0.60", "price": "0.45", "price-effect": "Credit"},
    }
    levels = {
        "neutral": Decimal("1.22"),
        "fill": Decimal("1.20") - half,
        "target": Decimal("1.90") + half,
        "stop": Decimal("0.52") + half,
        "gap": Decimal("0.20"),
    }
    return request, levels
