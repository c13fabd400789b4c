"""Risk limits: what new entries may add up to. They are asked when a request is about to become a bracket, and nowhere
else; an exit, a cancel and a close never meet them.

Money at risk is the most a position can lose, in dollars: the bound of its structure for option spreads that have one
(a short vertical: its width less the credit), else what its stop's limit would lose. A stop's limit can be jumped over,
so that second figure is a plan and no bound; where not even that can be computed, a limit on money refuses the request.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal

from otocod.domain.brackets import Bracket, Outcome
from otocod.domain.exits import exit_specs
from otocod.domain.ids import BracketId
from otocod.domain.request_types import BracketRequest
from otocod.domain.specs import InstrumentType
from otocod.domain.spreads import size_of, spread_of
from otocod.ports.clock import Clock

DAY_US = 24 * 3600 * 1_000_000
# Standard contracts. What has a multiplier of its own (futures, adjusted options) is not computed here.
_MULTIPLIERS = {InstrumentType.EQUITY_OPTION: 100, InstrumentType.EQUITY: 1}
_CONTRACTS = (InstrumentType.EQUITY_OPTION, InstrumentType.FUTURE_OPTION, InstrumentType.FUTURE)


@dataclass(frozen=True, slots=True)
class RiskLimits:
    """0 is no limit. Money in dollars; a day is one of UTC, which ends after the last American session."""

    open_brackets: int = 0
    open_contracts: int = 0
    risk_per_bracket: Decimal = Decimal(0)
    risk_per_day: Decimal = Decimal(0)
    orders_per_day: int = 0

    @property
    def is_any(self) -> bool:
        return bool(
            self.open_brackets
            or self.open_contracts
            or self.risk_per_bracket
            or self.risk_per_day
            or self.orders_per_day
        )


NO_LIMITS = RiskLimits()


@dataclass(frozen=True, slots=True)
class Verdict:
    """`refusals`: can never be accepted under these limits. `waits`: cannot be accepted now, by limit."""

    refusals: tuple[str, ...] = ()
    waits: tuple[tuple[str, str], ...] = ()  # (the limit's name, why)

    @property
    def is_free(self) -> bool:
        return not self.refusals and not self.waits


_FREE = Verdict()


class RiskDesk:
    """Keeps the day's figures and judges requests. `limits` may be replaced at any time: risk limits are live."""

    def __init__(
        self,
        limits: RiskLimits,
        clock: Clock,
        *,
        open_brackets: Callable[[], tuple[Bracket, ...]],
        posted: Callable[[], int],
        on_held: Callable[[str, str], None],
    ) -> None:
        """`posted`: orders sent since the start of this run. `on_held(limit, why)` is called the first time in a day
        that a limit holds an entry back.
        """
        self.limits = limits
        self._clock = clock
        self._open_brackets = open_brackets
        self._posted = posted
        self._on_held = on_held
        self._day = clock.now_us() // DAY_US
        self._risk: dict[BracketId, Decimal] = {}  # of brackets accepted today
        self._orders_before = 0  # of today, before this run; less what this run had sent when the day began
        self._told: set[str] = set()

    def load(self, orders: int, accepted: Iterable[tuple[BracketId, BracketRequest, Outcome | None]]) -> None:
        """What this day has had before this run: orders, and every bracket accepted."""
        self._new_day()
        self._orders_before += orders
        for bracket_id, request, outcome in accepted:
            if outcome is not Outcome.ENTRY_NOT_FILLED:
                self.note_accepted(bracket_id, request)

    def note_accepted(self, bracket_id: BracketId, request: BracketRequest) -> None:
        self._new_day()
        self._risk[bracket_id] = money_at_risk(request) or Decimal(0)

    def note_closed(self, bracket_id: BracketId, outcome: Outcome | None) -> None:
        """An entry that never filled has risked nothing."""
        if outcome is Outcome.ENTRY_NOT_FILLED:
            self._risk.pop(bracket_id, None)

    @property
    def orders_today(self) -> int:
        self._new_day()
        return self._orders_before + self._posted()

    @property
    def risk_today(self) -> Decimal:
        self._new_day()
        return sum(self._risk.values(), Decimal(0))

    def judge(self, request: BracketRequest, promised: int = 0) -> Verdict:
        """`promised`: orders that leave as soon as their acceptance is on disk."""
        limits = self.limits
        if not limits.is_any:
            return _FREE
        self._new_day()
        risk = money_at_risk(request)
        refusals = tuple(_refusals(limits, risk, contracts_of(request)))
        if refusals:
            return Verdict(refusals)
        waits = tuple(self._waits(request, risk or Decimal(0), promised))
        for name, why in waits:
            if name not in self._told:
                self._told.add(name)
                self._on_held(name, why)
        return Verdict((), waits) if waits else _FREE

    def _waits(self, request: BracketRequest, risk: Decimal, promised: int) -> Iterable[tuple[str, str]]:
        limits = self.limits
        present = self._open_brackets() if limits.open_brackets or limits.open_contracts else ()
        if limits.open_brackets and len(present) >= limits.open_brackets:
            yield (
                "open_brackets",
                f"{len(present)} brackets are open and limits.open_brackets is {limits.open_brackets}",
            )
        if limits.open_contracts:
            contracts, more = sum(contracts_of(bracket.request) for bracket in present), contracts_of(request)
            if contracts + more > limits.open_contracts:
                yield (
                    "open_contracts",
                    f"{contracts} contracts are open, this adds {more}, and limits.open_contracts is"
                    f" {limits.open_contracts}",
                )
        if limits.risk_per_day and self.risk_today + risk > limits.risk_per_day:
            yield (
                "risk_per_day",
                f"{self.risk_today} dollars are at risk by today's entries, this adds {risk},"
                f" and limits.risk_per_day is {limits.risk_per_day}",
            )
        orders = self.orders_today + promised
        if limits.orders_per_day and orders >= limits.orders_per_day:
            yield (
                "orders_per_day",
                f"{orders} orders were sent today and limits.orders_per_day is {limits.orders_per_day}",
            )

    def _new_day(self) -> None:
        day = self._clock.now_us() // DAY_US
        if day != self._day:
            self._day = day
            self._risk.clear()
            self._orders_before = -self._posted()
            self._told.clear()


def _refusals(limits: RiskLimits, risk: Decimal | None, contracts: int) -> Iterable[str]:
    """What no waiting would change."""
    if limits.open_contracts and contracts > limits.open_contracts:
        yield f"it has {contracts} contracts and limits.open_contracts is {limits.open_contracts}"
    if risk is None:
        if limits.risk_per_bracket or limits.risk_per_day:
            yield (
                "limits.risk_per_bracket or limits.risk_per_day is set, and what this bracket could lose cannot be"
                " computed: it needs an entry price, a product of known multiplier, and a bounded loss or a stop price"
            )
        return
    for name, limit in (("risk_per_bracket", limits.risk_per_bracket), ("risk_per_day", limits.risk_per_day)):
        if limit and risk > limit:
            yield f"it can lose {risk} dollars and limits.{name} is {limit}"


def contracts_of(request: BracketRequest) -> int:
    """Of all legs together; shares and coins are none."""
    return sum(leg.quantity for leg in request.entry.legs if leg.instrument_type in _CONTRACTS)


def money_at_risk(request: BracketRequest) -> Decimal | None:
    """Dollars, never negative; None when it is unbounded or cannot be computed."""
    legs = request.entry.legs
    multipliers = {_MULTIPLIERS.get(leg.instrument_type) for leg in legs}
    (multiplier,) = multipliers if len(multipliers) == 1 else (None,)
    entry_price = request.entry.net_price
    if multiplier is None or entry_price is None:
        return None
    if legs[0].instrument_type is InstrumentType.EQUITY_OPTION and any(
        instrument.root[-1:].isdigit() for instrument in spread_of(legs).instruments
    ):
        return None  # an adjusted option delivers something else than 100 shares
    loss = _structural_loss(request, entry_price)
    if loss is None:
        loss = _loss_at_stop(request, entry_price)
    return None if loss is None else max(loss, Decimal(0)) * multiplier * size_of(legs)


def _structural_loss(request: BracketRequest, entry_price: Decimal) -> Decimal | None:
    """Of one unit at expiry: what was paid, and what closing could cost at most."""
    spread = spread_of(request.entry.legs)
    if any(instrument.strike is None for instrument in spread.instruments):
        return None
    if spread.largest_debit_to_close is None:
        return None
    return entry_price + spread.largest_debit_to_close


def _loss_at_stop(request: BracketRequest, entry_price: Decimal) -> Decimal | None:
    stop = exit_specs(request, entry_net_price=entry_price, units=1).stop
    if stop is None:
        # Bought and without a stop: all of it.
        return entry_price if entry_price > 0 and spread_of(request.entry.legs).largest_debit_to_close == 0 else None
    if stop.net_price is not None:
        return entry_price + stop.net_price
    if stop.stop_trigger is None:
        return None
    return entry_price + (stop.stop_trigger if entry_price < 0 else -stop.stop_trigger)
