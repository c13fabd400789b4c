"""The brackets of the demonstration: what each asks for, and how it is to end."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

# Half of each leg's bid and ask.
HALF = Decimal("0.01")
CREDIT, DEBIT = "Credit", "Debit"
UNDERLYINGS = ("AAPL", "SPY", "TSLA")


@dataclass(frozen=True, slots=True)
class LegPlan:
    """One leg of a spread. `mid`: where its quote stands, except the first leg's, which carries the spread's value."""

    right: str  # C or P
    strike: Decimal
    is_bought: bool
    mid: Decimal


@dataclass(frozen=True, slots=True)
class Plan:
    """One row for the queue. Prices are unsigned, for one unit of the spread."""

    name: str  # also the client_ref
    underlying: str
    shown: str  # the spread in a trader's words
    legs: tuple[LegPlan, ...]
    effect: str  # of the entry
    entry: Decimal
    target: Decimal
    trigger: Decimal
    stop_limit: Decimal
    protection: str
    is_ending: str  # the outcome it must have, or REJECTED
    in_force: str  # the protection that must be in force at the end
    quantity: int = 1
    flaw: bool = False
    rest: str | None = None  # in `watched`: the exit that rests
    trail: str | None = None  # how far the stop stays behind the best price
    after_s: int | None = None  # closed by the clock so long after the fill

    @property
    def is_credit(self) -> bool:
        return self.effect == CREDIT

    @property
    def slack(self) -> Decimal:
        """From the spread's middle to its natural price."""
        return HALF * len(self.legs)

    # Values of the spread's middle at which things happen: the natural price, on the side that trades, just past the
    # level. A credit spread is opened below its middle and bought back above it; a debit spread the other way round.

    @property
    def at_start(self) -> Decimal:
        return self.entry + Decimal("0.12") * (-1 if self.is_credit else 1)

    @property
    def at_entry(self) -> Decimal:
        return self.entry + self.slack * (1 if self.is_credit else -1)

    @property
    def at_target(self) -> Decimal:
        return self.target - self.slack * (1 if self.is_credit else -1)

    @property
    def at_stop(self) -> Decimal:
        past = Decimal("0.02") - self.slack
        return self.trigger + (past if self.is_credit else -past)

    def symbols(self, expirations: Mapping[str, str]) -> tuple[str, ...]:
        """The legs' OCC symbols. expirations: yymmdd by underlying."""
        return tuple(
            f"{self.underlying:<6}{expirations[self.underlying]}{leg.right}{int(leg.strike * 1000):08d}"
            for leg in self.legs
        )

    def quotes(self, value: Decimal) -> tuple[tuple[Decimal, Decimal], ...]:
        """(bid, ask) of each leg so that the spread's middle is `value`."""
        signs = [1 if leg.is_bought != self.is_credit else -1 for leg in self.legs]
        others = sum((sign * leg.mid for sign, leg in zip(signs[1:], self.legs[1:], strict=True)), Decimal(0))
        mids = [signs[0] * (value - others), *(leg.mid for leg in self.legs[1:])]
        return tuple((mid - HALF, mid + HALF) for mid in mids)

    def request(self, expirations: Mapping[str, str]) -> str:
        """The text for the queue."""
        leaving = DEBIT if self.is_credit else CREDIT
        request: dict[str, object] = {
            "version": 1,
            "entry": {
                "time-in-force": "Day",
                "order-type": "Limit",
                "price": str(self.entry),
                "price-effect": self.effect,
                "legs": [
                    {
                        "instrument-type": "Equity Option",
                        "symbol": symbol,
                        "quantity": self.quantity,
                        "action": "Buy to Open" if leg.is_bought else "Sell to Open",
                    }
                    for symbol, leg in zip(self.symbols(expirations), self.legs, strict=True)
                ],
            },
            "target": {"price": str(self.target), "price-effect": leaving},
            "stop": {"trigger": str(self.trigger), "price": str(self.stop_limit), "price-effect": leaving},
            "protection": self.protection,
            "tags": {"demo": self.name},
        }
        if self.rest is not None:
            request["rest"] = self.rest
        if self.trail is not None:
            stop = request["stop"]
            assert isinstance(stop, dict)
            stop["trail"] = {"distance": self.trail, "least-move": "0.05"}
        if self.after_s is not None:
            request["time-exits"] = [{"after-s": self.after_s}]
        if self.flaw:
            # What a tired person writes: a target on the wrong side, a misspelt key, a leg that closes.
            request["target"] = {"price": "1.40", "price-effect": leaving}
            request["partial-entri"] = {"grace-s": 30}
            entry = request["entry"]
            assert isinstance(entry, dict)
            entry["legs"][0]["action"] = "Sell to Close"
        return json.dumps(request)


def _vertical(right: str, near: str, far: str, *, is_credit: bool) -> tuple[LegPlan, ...]:
    """The nearer strike is sold for a credit, bought for a debit, and carries the value."""
    return (
        LegPlan(right, Decimal(near), not is_credit, Decimal(0)),
        LegPlan(right, Decimal(far), is_credit, Decimal("1.00")),
    )


def _prices(*texts: str) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    entry, target, trigger, stop_limit = (Decimal(text) for text in texts)
    return entry, target, trigger, stop_limit


def _plan(
    name: str,
    underlying: str,
    shown: str,
    legs: tuple[LegPlan, ...],
    effect: str,
    prices: tuple[Decimal, Decimal, Decimal, Decimal],
    protection: str,
    ending: str,
    in_force: str | None = None,
    *,
    quantity: int = 1,
    flaw: bool = False,
    rest: str | None = None,
    trail: str | None = None,
    after_s: int | None = None,
) -> Plan:
    force = in_force or protection
    return Plan(
        name, underlying, shown, legs, effect, *prices, protection, ending, force, quantity, flaw, rest, trail, after_s
    )


def plans() -> tuple[Plan, ...]:
    """In the order of the screen. No two share a symbol: the broker forbids opposite orders on one."""
    condor = (
        LegPlan("P", Decimal(650), False, Decimal(0)),
        LegPlan("P", Decimal(646), True, Decimal("0.50")),
        LegPlan("C", Decimal(710), False, Decimal("1.10")),
        LegPlan("C", Decimal(714), True, Decimal("0.60")),
    )
    return (
        _plan(
            "otoco-target", "AAPL", "260/262.5 call credit", _vertical("C", "260", "262.5", is_credit=True), CREDIT,
            _prices("0.85", "0.40", "1.70", "1.90"), "native-otoco", "TARGET_FILLED",
        ),
        _plan(
            "otoco-stop", "AAPL", "270/272.5 call credit", _vertical("C", "270", "272.5", is_credit=True), CREDIT,
            _prices("0.80", "0.35", "1.60", "1.80"), "native-otoco", "STOP_FILLED",
        ),
        _plan(
            "condor-target", "SPY", "646/650/710/714 iron condor", condor, CREDIT,
            _prices("1.20", "0.60", "2.40", "2.70"), "native-oco", "TARGET_FILLED", quantity=2,
        ),
        _plan(
            "debit-stop", "TSLA", "400/390 put debit", _vertical("P", "400", "390", is_credit=False), DEBIT,
            _prices("2.50", "3.75", "1.50", "1.30"), "native-oco", "STOP_FILLED",
        ),
        _plan(
            "killed", "TSLA", "350/345 put credit", _vertical("P", "350", "345", is_credit=True), CREDIT,
            _prices("1.50", "0.75", "2.95", "3.25"), "native-oco", "TARGET_FILLED",
        ),
        _plan(
            "watched-target", "AAPL", "230/227.5 put credit", _vertical("P", "230", "227.5", is_credit=True), CREDIT,
            _prices("0.95", "0.45", "1.80", "2.00"), "watched", "TARGET_FILLED",
        ),
        _plan(
            "watched-stop", "SPY", "630/626 put credit", _vertical("P", "630", "626", is_credit=True), CREDIT,
            _prices("1.10", "0.55", "2.20", "2.40"), "watched", "STOP_FILLED", rest="target",
        ),
        _plan(
            "trailing-stop", "SPY", "620/616 put credit", _vertical("P", "620", "616", is_credit=True), CREDIT,
            _prices("1.30", "0.40", "2.40", "2.60"), "watched", "STOP_FILLED", trail="0.30",
        ),
        _plan(
            "by-the-clock", "AAPL", "220/217.5 put credit", _vertical("P", "220", "217.5", is_credit=True), CREDIT,
            _prices("0.80", "0.35", "1.60", "1.80"), "watched", "TIME_EXIT", after_s=4,
        ),
        _plan(
            "cancelled", "TSLA", "450/455 call credit", _vertical("C", "450", "455", is_credit=True), CREDIT,
            _prices("2.00", "1.00", "3.50", "3.80"), "native-otoco", "ENTRY_NOT_FILLED",
        ),
        _plan(
            "flawed", "AAPL", "300/302.5 call credit", _vertical("C", "300", "302.5", is_credit=True), CREDIT,
            _prices("0.85", "0.40", "1.70", "1.90"), "auto", "REJECTED", flaw=True,
        ),
        _plan(
            "no-groups", "AAPL", "240/237.5 put credit", _vertical("P", "240", "237.5", is_credit=True), CREDIT,
            _prices("0.90", "0.45", "1.80", "2.00"), "auto", "CLOSED_BY_OPERATOR", "watched",
        ),
        _plan(
            "unlinked", "SPY", "640/636 put credit", _vertical("P", "640", "636", is_credit=True), CREDIT,
            _prices("1.00", "0.50", "2.00", "2.20"), "unlinked", "TARGET_FILLED",
        ),
    )  # fmt: skip
