"""Changes of status that are not fills, and what is said of them."""

from otocod.paper.orders import CANCELLED, REJECTED, Order
from otocod.paper.state import State


def set_status(state: State, order: Order, status: str) -> None:
    """Note and say a status that is not an end."""
    order.status = status
    state.note("status", order)
    state.touch(order)


def reject(state: State, order: Order, reason: str, by: str = "broker") -> None:
    order.reject_reason = reason
    end(state, order, REJECTED, by=by)


def end(state: State, order: Order, status: str, by: str = "broker", reason: str | None = None) -> None:
    """The order is over without a complete fill. What was linked to it reacts after it has been said."""
    order.status = status
    order.token += 1
    order.shown = None
    order.is_held = False
    order.terminal_us = state.now_us
    if status == CANCELLED:
        order.cancelled_us = state.now_us
    order.cancelled_units = order.remaining_units if status == CANCELLED else 0
    if by != "broker":
        order.cancel_user = True
    state.forget(order)
    state.note("status", order, by=by, reason=reason or order.reject_reason)
    state.touch(order)
    for listener in state.listeners:
        listener.ended(state, order)
