"""One bracket's story before it happens: the request, the prices it will see, and who meddles when."""

import json
from dataclasses import dataclass, field, replace
from decimal import Decimal
from random import Random
from typing import Any

HALF_SPREAD = Decimal("0.01")
_OTHER_MID = Decimal("2.00")
_EXPIRY = "261218"


@dataclass(frozen=True)
class Leg:
    symbol: str
    sign: int  # +1 bought, -1 sold to open
    ratio: int


@dataclass(frozen=True)
class Move:
    at_s: float
    level: str  # a key of `Scenario.levels`


@dataclass
class Scenario:
    """`value`: what the spread is worth, a credit for what was sold, a debit for what was bought."""

    number: int
    client_ref: str
    request: dict[str, Any]
    legs: tuple[Leg, ...]
    is_credit: bool
    units: int
    protection: str
    levels: dict[str, Decimal]
    submit_at_s: float
    moves: list[Move] = field(default_factory=list)

    @property
    def text(self) -> str:
        return json.dumps(self.request)

    def quotes(self, level: str) -> dict[str, tuple[Decimal, Decimal]]:
        value = self.levels[level]
        others = sum((leg.sign * leg.ratio * _OTHER_MID for leg in self.legs[1:]), Decimal(0))
        wanted = (-value if self.is_credit else value) - others
        first = wanted / (self.legs[0].sign * self.legs[0].ratio)
        mids = [first, *(_OTHER_MID for _ in self.legs[1:])]
        return {
            leg.symbol: (max(mid - HALF_SPREAD, Decimal(0)), max(mid, Decimal(0)) + HALF_SPREAD)
            for leg, mid in zip(self.legs, mids, strict=True)
        }


_SHAPES: dict[str, tuple[tuple[tuple[int, int], ...], bool]] = {
    # (sign, ratio) of each leg; whether it is sold for a credit
    "credit vertical": (((-1, 1), (1, 1)), True),
    "debit vertical": (((1, 1), (-1, 1)), False),
    "condor": (((-1, 1), (1, 1), (-1, 1), (1, 1)), True),
    "ratio": (((-1, 1), (1, 2)), True),
    "long option": (((1, 1),), False),
    "short option": (((-1, 1),), True),
}
_PROTECTIONS = ("auto", "auto", "native-otoco", "native-oco", "watched", "watched", "unlinked", "unlinked")


def draw_scenario(number: int, random: Random, active_s: float) -> Scenario:
    shape = random.choice(tuple(_SHAPES))
    pattern, is_credit = _SHAPES[shape]
    units = random.choice((1, 1, 2, 3, 5))
    legs = tuple(
        Leg(f"AAPL  {_EXPIRY}C{(100 + 20 * number + 5 * index) * 1000:08d}", sign, ratio)
        for index, (sign, ratio) in enumerate(pattern)
    )
    half = sum(leg.ratio for leg in legs) * HALF_SPREAD
    protection = random.choice(_PROTECTIONS)
    request, levels = _prices(is_credit, half, random, is_single=len(legs) == 1)
    request["entry"]["legs"] = [
        {
            "instrument-type": "Equity Option",
            "symbol": leg.symbol,
            "quantity": leg.ratio * units,
            "action": "Buy to Open" if leg.sign > 0 else "Sell to Open",
        }
        for leg in legs
    ]
    request["protection"] = protection
    if protection == "watched" and random.random() < 0.3:
        request["rest"] = "target"
    if random.random() < 0.15:
        del request[random.choice(("target", "stop"))]
        request.pop("rest", None)
        request["protection"] = "auto"
    request["on-outside-change"] = random.choice(("hold", "restore", "release", "flatten"))
    request["partial-entry"] = {"grace-s": random.choice((0, 2, 10))}
    submit_at_s = random.uniform(0, active_s * 0.4)
    # From a stream of its own, so that the seeds of before tell the same stories.
    if walks := _walks(request, Random(f"walks {submit_at_s}")):
        request["walk"] = walks
    found = Scenario(
        number, f"ref-{number}", request, legs, is_credit, units, protection, levels, round(submit_at_s, 3)
    )
    found.moves = _moves(random, submit_at_s, active_s)
    return found


def _walks(request: dict[str, Any], random: Random) -> dict[str, Any]:
    """Of the orders that may walk in this request, some."""
    stop = request.get("stop", {})
    walks: dict[str, Any] = {}
    is_watched = request["protection"] in ("auto", "watched") and request.get("rest") != "target"
    if is_watched and "target" in request and stop and random.random() < 0.3:
        walks["target"] = {"cap-offset": "0.05", "replaces": random.choice((2, 5)), "every-s": random.choice((2, 5))}
        walks["target"]["then"] = random.choice(("hold", "cancel", "marketable"))
    if ("price" in stop or "loss-percent" in stop) and random.random() < 0.4:
        walks["stop"] = {"cap-offset": random.choice(("0.20", "1.00")), "then": random.choice(("hold", "marketable"))}
    if random.random() < 0.3:
        walks["close"] = {"then": random.choice(("hold", "marketable")), "replaces": random.choice((2, 10))}
    for walk in walks.values():
        walk |= {"step": random.choice(("0.05", "0.10")), "start": random.choice(("mid", "mark", "natural", "width"))}
    return walks


def _prices(
    is_credit: bool, half: Decimal, random: Random, *, is_single: bool
) -> tuple[dict[str, Any], dict[str, Decimal]]:
    entry: dict[str, Any] = {"time-in-force": random.choice(("Day", "GTC")), "order-type": "Limit"}
    target: dict[str, Any]
    stop: dict[str, Any]
    if is_credit:
        entry |= {"price": "0.85", "price-effect": "Credit"}
        target, stop = (
            {"price": "0.40", "price-effect": "Debit"},
            {"trigger": "1.70", "price": "1.90", "price-effect": "Debit"},
        )
        percents = {"profit-percent": "50"}, {"loss-percent": "100", "limit-offset": "0.20"}
        levels = {
            "neutral": Decimal("0.83"),
            "fill": Decimal("0.85") + half,
            "target": Decimal("0.35") - half,
            "stop": Decimal("1.78") - half,
            "gap": Decimal("2.60"),
        }
    else:
        entry |= {"price": "1.20", "price-effect": "Debit"}
        target, stop = (
            {"price": "1.80", "price-effect": "Credit"},
            {"trigger": "0.60", "price": "0.45", "price-effect": "Credit"},
        )
        percents = {"profit-percent": "50"}, {"loss-percent": "50", "limit-offset": "0.15"}
        levels = {
            "neutral": Decimal("1.22"),
            "fill": Decimal("1.20") - half,
            "target": Decimal("1.90") + half,
            "stop": Decimal("0.52") + half,
            "gap": Decimal("0.20"),
        }
    if random.random() < 0.25:
        target, stop = percents
    elif is_single and random.random() < 0.3:
        stop = {"trigger": stop["trigger"]}
    for exit_ in (target, stop):
        if random.random() < 0.2:
            exit_["time-in-force"] = "Day"
    return {"version": 1, "entry": entry, "target": target, "stop": stop}, levels


def _moves(random: Random, submit_at_s: float, active_s: float) -> list[Move]:
    at_s = submit_at_s
    moves = []
    if random.random() < 0.9:
        # Often before the request: an entry that fills as it arrives.
        at_s += random.choice((-0.5, 0.05, 0.5, 5.0)) * random.uniform(0.2, 1.5)
        moves.append(Move(max(0.0, at_s), "fill"))
        at_s = max(at_s, submit_at_s)
    for _ in range(random.randint(0, 4)):
        at_s += random.choice((0.01, 0.3, 3.0, 15.0)) * random.uniform(0.3, 1.5)
        if at_s >= active_s:
            break
        moves.append(Move(at_s, random.choice(("neutral", "fill", "target", "stop", "target", "stop", "gap"))))
    return moves


_TICKERS = ("AAPL", "AMD", "AMZN", "MSFT", "NVDA")


def as_shares(found: Scenario, random: Random) -> Scenario:
    """Half of the time: the same story with shares of one company, one leg, bought.

    At ten times the prices of a debit: below a dollar the increments of shares are a matter of opinion.
    """
    if random.random() < 0.5:
        return found
    request, levels = _prices(False, HALF_SPREAD, random, is_single=True)
    for order in (request["entry"], request["target"], request["stop"]):
        order |= {key: str(Decimal(order[key]) * 10) for key in ("price", "trigger", "limit-offset") if key in order}
    leg = Leg(_TICKERS[found.number % len(_TICKERS)], 1, 1)
    units = random.choice((1, 10, 100))
    request["entry"]["legs"] = [
        {"instrument-type": "Equity", "symbol": leg.symbol, "quantity": units, "action": "Buy to Open"}
    ]
    if random.random() < 0.2:
        for key in ("price", "price-effect"):
            del request["entry"][key]
        request["entry"] |= {"order-type": "Market", "time-in-force": "Day"}
    for key in ("protection", "on-outside-change", "partial-entry"):
        request[key] = found.request[key]
    levels = {name: value * 10 for name, value in levels.items()}
    return replace(found, request=request, legs=(leg,), is_credit=False, units=units, levels=levels)
