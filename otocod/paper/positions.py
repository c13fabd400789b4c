"""One account: cash, the truth of its positions, the broker's record of them (which may lag), the ledger."""

from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from otocod.paper import margin, wire
from otocod.paper.rules import Rules
from otocod.paper.sessions import expires_at_us, utc_day
from otocod.paper.symbols import FUTURE, Instrument

ZERO = Decimal(0)
Group = tuple[str, date | None]
_BUCKETS = ("long-equity-value", "short-equity-value", "long-derivative-value", "short-derivative-value")


@dataclass(slots=True)
class Position:
    """The record of one symbol; `quantity` is signed, long positive."""

    instrument: Instrument
    quantity: int = 0
    average_price: Decimal = ZERO
    realized: Decimal = ZERO  # cash, of this day
    created_us: int = 0
    updated_us: int = 0

    def apply(self, change: int, price: Decimal, now_us: int) -> None:
        """Add signed contracts at a price; what reduces the position realizes, what crosses zero opens anew."""
        held = self.quantity
        if held == 0 or (held > 0) == (change > 0):
            total = abs(held) + abs(change)
            self.average_price = (self.average_price * abs(held) + price * abs(change)) / total
            if held == 0:
                self.created_us = now_us
        else:
            closed = min(abs(change), abs(held))
            gain = (price - self.average_price) * closed * (1 if held > 0 else -1)
            self.realized += gain * self.instrument.multiplier
            if abs(change) > abs(held):
                self.average_price = price
                self.created_us = now_us
        self.quantity = held + change
        self.updated_us = now_us


@dataclass
class Account:
    number: str
    cash: Decimal
    opened_us: int
    truth: dict[str, int] = field(default_factory=dict)  # signed contracts by symbol, without lag
    record: dict[str, Position] = field(default_factory=dict)  # open positions
    closed: dict[str, Position] = field(default_factory=dict)  # what was open today
    ledger: list[dict[str, Any]] = field(default_factory=list)
    # Kept up to date by change, so that a balance costs the same with one position as with thousands.
    requirement: Decimal = ZERO  # margin of the open positions
    worth: dict[str, Decimal] = field(default_factory=lambda: dict.fromkeys(_BUCKETS, ZERO))
    _groups: dict[Group, dict[str, Position]] = field(default_factory=dict)
    _group_margin: dict[Group, Decimal] = field(default_factory=dict)
    _valued: dict[str, tuple[str, Decimal]] = field(default_factory=dict)  # bucket and share in `worth`, by symbol

    def recorded(self, symbol: str) -> int:
        position = self.record.get(symbol)
        return 0 if position is None else position.quantity

    def apply_to_record(self, instrument: Instrument, change: int, price: Decimal, now_us: int) -> Position:
        symbol = instrument.symbol
        position = self.record.get(symbol) or self.closed.pop(symbol, None) or Position(instrument)
        position.apply(change, price, now_us)
        group = _group(instrument)
        members = self._groups.setdefault(group, {})
        if position.quantity:
            self.record[symbol] = members[symbol] = position
        else:
            self.record.pop(symbol, None)
            members.pop(symbol, None)
            self.closed[symbol] = position
        needed = margin.requirement((p.instrument, p.quantity) for p in members.values())
        self.requirement += needed - self._group_margin.get(group, ZERO)
        self._group_margin[group] = needed
        self.revalue(symbol, price)
        return position

    def revalue(self, symbol: str, mark: Decimal) -> None:
        """Price a symbol anew; without a position it is worth nothing."""
        bucket, amount = self._valued.pop(symbol, ("", ZERO))
        if bucket:
            self.worth[bucket] -= amount
        position = self.record.get(symbol)
        if position is None or position.instrument.instrument_type == FUTURE:
            return
        kind = "derivative" if position.instrument.is_option else "equity"
        bucket = f"{'long' if position.quantity > 0 else 'short'}-{kind}-value"
        amount = mark * abs(position.quantity) * position.instrument.multiplier
        self._valued[symbol] = (bucket, amount)
        self.worth[bucket] += amount

    def buying_power(self) -> Decimal:
        return self.cash - self.requirement

    def requirement_change(self, changes: list[tuple[Instrument, int]]) -> Decimal:
        """By how much signed changes of positions would change the margin; nothing is changed."""
        total = ZERO
        groups: dict[Group, list[tuple[Instrument, int]]] = {}
        for instrument, change in changes:
            groups.setdefault(_group(instrument), []).append((instrument, change))
        for group, parts in groups.items():
            held = {p.instrument.symbol: (p.instrument, p.quantity) for p in self._groups.get(group, {}).values()}
            for instrument, change in parts:
                held[instrument.symbol] = (instrument, held.get(instrument.symbol, (instrument, 0))[1] + change)
            total += margin.requirement(held.values()) - self._group_margin.get(group, ZERO)
        return total


def _group(instrument: Instrument) -> Group:
    """Positions that are margined together."""
    return instrument.underlying, instrument.expiration


def position_object(account: str, position: Position, mark: Decimal | None) -> dict[str, Any]:
    """The position as it is read and streamed; `quantity` is never negative. `cost-effect` is that of closing."""
    quantity = position.quantity
    found = position.instrument
    price = position.average_price if mark is None else mark
    day = utc_day(position.updated_us).isoformat()
    effect = "Credit" if quantity > 0 else "Debit" if quantity < 0 else "None"
    data: dict[str, Any] = {
        "account-number": account,
        "symbol": found.symbol,
        "instrument-type": found.instrument_type,
        "underlying-symbol": found.underlying,
        "quantity": abs(quantity),
        "quantity-direction": "Long" if quantity > 0 else "Short" if quantity < 0 else "Zero",
        "average-open-price": wire.decimal_text(round(position.average_price, 6)),
        "average-daily-market-close-price": wire.decimal_text(price),
        "average-yearly-market-close-price": wire.decimal_text(round(position.average_price, 6)),
        "close-price": wire.decimal_text(price),
        "cost-effect": effect,
        "multiplier": found.multiplier,
        "is-frozen": False,
        "is-suppressed": False,
        "restricted-quantity": 0,
        "realized-day-gain": wire.decimal_text(abs(round(position.realized, 4))),
        "realized-day-gain-effect": wire.effect_of(position.realized),
        "realized-day-gain-date": day,
        "realized-today": wire.decimal_text(abs(round(position.realized, 4))),
        "realized-today-effect": wire.effect_of(position.realized),
        "realized-today-date": day,
        "created-at": wire.iso(position.created_us),
        "updated-at": wire.iso(position.updated_us),
    }
    if found.expiration is not None:
        data["expires-at"] = wire.iso(expires_at_us(found.expiration))
    return data


_ZERO_BALANCES = (
    "long-futures-value",
    "short-futures-value",
    "long-futures-derivative-value",
    "short-futures-derivative-value",
    "futures-margin-requirement",
    "maintenance-call-value",
    "reg-t-call-value",
    "day-trading-call-value",
    "day-equity-call-value",
    "day-trade-excess",
    "long-cryptocurrency-value",
    "short-cryptocurrency-value",
    "cryptocurrency-margin-requirement",
    "unsettled-cryptocurrency-fiat-amount",
    "closed-loop-available-balance",
    "equity-offering-margin-requirement",
    "long-bond-value",
    "bond-margin-requirement",
    "futures-overnight-margin-requirement",
    "futures-intraday-margin-requirement",
    "pending-margin-interest",
    "pending-cash",
)


def balance_object(account: Account, now_us: int) -> dict[str, Any]:
    """The whole balance, the same over REST and the stream."""
    worth = account.worth
    net = account.cash + sum(amount if name.startswith("long") else -amount for name, amount in worth.items())
    requirement = account.requirement
    power = account.buying_power()
    amounts = {
        "cash-balance": account.cash,
        "net-liquidating-value": net,
        "margin-equity": net,
        "equity-buying-power": power,
        "derivative-buying-power": power,
        "day-trading-buying-power": power,
        "available-trading-funds": power,
        "cash-available-to-withdraw": max(power, ZERO),
        "effective-cryptocurrency-buying-power": power,
        "used-derivative-buying-power": requirement,
        "maintenance-requirement": requirement,
        "reg-t-margin-requirement": requirement,
        "maintenance-excess": net - requirement,
        **worth,
        "long-margineable-value": worth["long-equity-value"],
        "short-margineable-value": worth["short-equity-value"],
    }
    data: dict[str, Any] = {"account-number": account.number, "currency": "USD"}
    data.update((name, wire.decimal_text(round(amount, 4))) for name, amount in amounts.items())
    data.update(dict.fromkeys(_ZERO_BALANCES, "0.0"))
    data["pending-cash-effect"] = "None"
    data["snapshot-date"] = utc_day(now_us).isoformat()
    data["updated-at"] = wire.iso(now_us)
    return data


def trading_status_object(account: Account, rules: Rules, now_us: int) -> dict[str, Any]:
    state = rules.account_state
    off = (
        "is-in-margin-call",
        "is-pattern-day-trader",
        "are-far-otm-net-options-restricted",
        "is-aggregated-at-clearing",
        "is-cryptocurrency-enabled",
        "is-full-equity-margin-required",
        "is-futures-closing-only",
        "is-in-day-trade-equity-maintenance-call",
        "is-small-notional-futures-intra-day-enabled",
        "is-roll-the-day-forward-enabled",
        "is-equity-offering-enabled",
        "is-equity-offering-closing-only",
        "is-risk-reducing-only",
    )
    data: dict[str, Any] = {
        "account-number": account.number,
        "id": 1,
        "options-level": rules.options_level,
        "equities-margin-calculation-type": "REG_T",
        "fee-schedule-name": "default",
        "futures-margin-rate-multiplier": "1.0",
        "small-notional-futures-margin-rate-multiplier": "1.0",
        "day-trade-count": 0,
        "is-closed": state == "closed",
        "is-closing-only": state == "closing-only",
        "is-frozen": state == "frozen",
        "has-intraday-equities-margin": False,
        "is-futures-enabled": True,
        "is-futures-intra-day-enabled": True,
        "short-calls-enabled": rules.options_level == "No Restrictions",
        "updated-at": wire.iso(now_us),
    }
    data.update(dict.fromkeys(off, False))
    return data


def account_object(account: Account, rules: Rules) -> dict[str, Any]:
    """The account itself, as `GET /customers/me/accounts/{n}` answers and the listing nests."""
    opened = wire.iso(account.opened_us)
    return {
        "account-number": account.number,
        "external-id": f"P{account.number}",
        "opened-at": opened,
        "created-at": opened,
        "nickname": "Paper",
        "account-type-name": "Individual",
        "day-trader-status": False,
        "is-closed": rules.account_state == "closed",
        "is-firm-error": False,
        "is-firm-proprietary": False,
        "is-foreign": False,
        "is-futures-approved": True,
        "is-test-drive": False,
        "margin-or-cash": "Margin",
        "suitable-options-level": rules.options_level,
        "investment-objective": "SPECULATION",
    }
