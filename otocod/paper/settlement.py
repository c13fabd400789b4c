"""What the clearing house does to a position: it expires, is assigned, exercised or settled in cash.

The option goes as a row of the ledger that is no trade; an option on shares or on a future leaves its underlying
behind, one on an index leaves cash.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from otocod.paper import wire
from otocod.paper.errors import Refused, not_found
from otocod.paper.filling import ledger_entry, move_position
from otocod.paper.positions import Account
from otocod.paper.state import State
from otocod.paper.symbols import FUTURE, FUTURE_OPTION, INDEXES, Instrument, guess_type, instrument

EXPIRATION, ASSIGNMENT, EXERCISE = "expiration", "assignment", "exercise"
WAYS = (EXPIRATION, ASSIGNMENT, EXERCISE)


@dataclass(frozen=True, slots=True)
class Settling:
    symbol: str
    how: str  # one of WAYS
    quantity: int | None  # all of it if None
    index_price: Decimal | None  # at which an index option settles


def settle(state: State, account: Account, settling: Settling) -> None:
    """Raises Refused: no such option position, more than there is, the wrong side, or an index without a price."""
    found = instrument(settling.symbol, guess_type(settling.symbol))
    held = account.truth.get(settling.symbol, 0)
    if found is None or not found.is_option or not held:
        raise not_found(f"Option position in {settling.symbol}")
    quantity = abs(held) if settling.quantity is None else settling.quantity
    _check(settling, held, quantity)
    sign = 1 if held > 0 else -1
    cash = _cash(found, settling, sign * quantity)
    move_position(state, account, found, -sign * quantity, Decimal(0), None)
    row = ledger_entry(state, account, found, "Receive Deliver", _sub_type(found, settling.how), state.now_us)
    row |= {"quantity": str(quantity), "description": f"Removal of option due to {settling.how}"}
    if cash is not None:
        account.cash += cash
        for name in ("value", "net-value"):
            row |= {name: wire.decimal_text(abs(cash)), f"{name}-effect": wire.effect_of(cash)}
    elif settling.how != EXPIRATION:
        _deliver(state, account, found, sign * quantity)
    state.note("position-settled", account=account.number, symbol=found.symbol, how=settling.how, quantity=quantity)


def _check(settling: Settling, held: int, quantity: int) -> None:
    if quantity > abs(held):
        raise Refused(422, "invalid_quantity", f"{abs(held)} of {settling.symbol} are held")
    if settling.how == (ASSIGNMENT if held > 0 else EXERCISE):
        raise Refused(422, "wrong_side", "short options are assigned, long ones exercised")


def _sub_type(found: Instrument, how: str) -> str:
    is_cash = how != EXPIRATION and found.underlying in INDEXES
    return f"Cash Settled {how.title()}" if is_cash else how.title()


def _cash(found: Instrument, settling: Settling, signed: int) -> Decimal | None:
    """What an index option pays (a short one: costs); None for all others."""
    if settling.how == EXPIRATION or found.underlying not in INDEXES:
        return None
    if settling.index_price is None:
        raise Refused(422, "price_required", f"{found.underlying} settles in cash: give the index's price")
    inside = settling.index_price - found.strike
    return max(Decimal(0), inside if found.option_type == "C" else -inside) * signed * found.multiplier


def _deliver(state: State, account: Account, found: Instrument, signed: int) -> None:
    """A call brings the underlying to its long side at the strike, a put takes it."""
    is_future = found.instrument_type == FUTURE_OPTION
    kind = FUTURE if is_future else found.underlying_type
    underlying = instrument(found.underlying, kind)
    assert underlying is not None
    change = (signed if found.option_type == "C" else -signed) * (1 if is_future else found.multiplier)
    move_position(state, account, underlying, change, found.strike, None)
    if not is_future:
        account.cash -= change * found.strike
    action = "Buy to Open" if change > 0 else "Sell to Open"
    row: dict[str, Any] = ledger_entry(state, account, underlying, "Receive Deliver", action, state.now_us)
    row |= {"action": action, "quantity": str(abs(change)), "price": wire.decimal_text(found.strike)}
