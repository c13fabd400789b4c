"""Both exits have filled: what the second one opened the wrong way is traded away, if the settings say so.

Only once every other order is terminal, so that nothing fills beside it. Positions are not asked: the order is strict,
so the broker itself refuses it where there is nothing to close. It stands at the natural price and is sent anew every
few seconds; what cannot be traded away is handed over to a person, who has been told from the first moment.
"""

from otocod.domain.brackets import Bracket, OnDoubleExit
from otocod.domain.commands import FetchQuote, Member, SubmitOrder
from otocod.domain.entering import request_cancel
from otocod.domain.exits import surplus_spec
from otocod.domain.orders import Order, OrderState
from otocod.domain.specs import Role
from otocod.domain.spreads import matched_units, surplus_legs
from otocod.domain.timing import CLOSE_STEP_US, CLOSE_TRIES_BEFORE_ALARM, QUOTE_RETRY_US
from otocod.domain.turn import Turn


def surplus_of(bracket: Bracket) -> dict[str, int]:
    """Quantity by leg symbol that is open the wrong way."""
    return {symbol: -quantity for symbol, quantity in bracket.open_by_leg.items() if quantity < 0}


def surplus_text(bracket: Bracket) -> str:
    legs = ", ".join(f"{quantity} of {symbol.strip()}" for symbol, quantity in sorted(surplus_of(bracket).items()))
    return f"both exits filled: a surplus of {legs} was opened the wrong way"


def is_surplus_traded(bracket: Bracket) -> bool:
    """Whether the end has to wait for a surplus that is being traded away."""
    return (
        bracket.policy.on_double_exit is OnDoubleExit.FLATTEN
        and not bracket.is_surplus_left
        and matched_units(bracket.request.entry.legs, surplus_of(bracket)) > 0
    )


def trade_surplus_away(turn: Turn) -> None:
    """For a flat bracket, each turn."""
    bracket = turn.bracket
    if not is_surplus_traded(bracket) or bracket.suspects:
        return
    if bracket.attention is None or "both exits filled" not in bracket.attention:
        turn.attend("double_exit", f"{surplus_text(bracket)}; trading it away")
    others = [order for order in bracket.orders if order not in bracket.surplus_closes]
    if any(not order.is_terminal for order in others):
        return
    closes = bracket.surplus_closes
    if closes and not closes[-1].is_terminal:
        _take_back_when_due(turn, closes[-1])
    elif closes and _has_failed(closes[-1]):
        _leave(turn, closes[-1].refusal.text if closes[-1].refusal is not None else closes[-1].status_text)
    elif len(closes) >= CLOSE_TRIES_BEFORE_ALARM:
        _leave(turn, f"not filled after {len(closes)} tries")
    else:
        _send(turn)


def _has_failed(order: Order) -> bool:
    """Refused, or ended by somebody else; one that we took back is sent anew."""
    return order.state not in (OrderState.FILLED, OrderState.ABSENT) and order.cancel_asked_us is None


def _leave(turn: Turn, why: str) -> None:
    turn.set(is_surplus_left=True)
    turn.attend("double_exit", f"the surplus could not be traded away ({why}): close it by hand")


def _take_back_when_due(turn: Turn, order: Order) -> None:
    if order.acknowledged_at_us is None:
        return
    due_us = order.acknowledged_at_us + CLOSE_STEP_US
    if turn.now_us < due_us:
        turn.wake(due_us)
    else:
        request_cancel(turn, order)


def _send(turn: Turn) -> None:
    bracket = turn.bracket
    legs = bracket.request.entry.legs
    if turn.natural is None:
        retry_at_us = bracket.retry_exits_at_us
        if retry_at_us is not None and turn.now_us < retry_at_us:
            turn.wake(retry_at_us)
            return
        turn.set(retry_exits_at_us=turn.now_us + QUOTE_RETRY_US)
        turn.wake(turn.now_us + QUOTE_RETRY_US)
        turn.ask(FetchQuote(surplus_legs(legs, 1)))
        return
    turn.set(retry_exits_at_us=None)
    spec = surplus_spec(bracket.request, units=matched_units(legs, surplus_of(bracket)), net_price=turn.natural)
    order, _ = turn.intend(Role.CLOSE, spec)
    # Nothing is protected by it, so it waits for the disk like everything that opens or moves.
    turn.ask(SubmitOrder(Member(order.external_identifier, Role.CLOSE, spec), after_commit=True))
