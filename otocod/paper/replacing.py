"""Cancel-replace: the replacement exists at once and waits; the original is cancelled, then the replacement is routed.
In between no order works. A fill of the original in that window aborts the replacement."""

from collections.abc import Mapping
from typing import Any

from otocod.paper import complex_orders, filling, lifecycle
from otocod.paper.endings import end, set_status
from otocod.paper.errors import cannot_update, invalid
from otocod.paper.orders import (
    CANCEL_REQUESTED,
    CANCELLED,
    CONTINGENT,
    FILLED,
    LIVE,
    PRICED,
    RECEIVED,
    REJECTED,
    REPLACE_REQUESTED,
    WEB_SOURCE,
    Leg,
    Order,
    order_from_body,
)
from otocod.paper.preflight import Around, Verdict, check
from otocod.paper.state import State

_PASSED = ("source", "external-identifier", "advanced-instructions")


def draft(state: State, old: Order, body: Any, by: str) -> tuple[Order, Verdict]:
    """The replacement as it would be, checked as if the original were gone. Nothing is changed."""
    if not lifecycle.is_replaceable(old):
        raise cannot_update("the order could not be updated")
    if old.complex is not None and not state.rules.replace_members:
        raise cannot_update("orders of a complex order cannot be replaced")
    if not isinstance(body, Mapping):
        raise invalid([("order", "is not an object")])
    if by == "api" and state.rules.replace_requires_type:
        missing = [(name, "is missing") for name in ("order-type", "time-in-force") if not body.get(name)]
        if missing:
            raise invalid(missing)
    new = order_from_body(_merged(state, old, body, by), old.account, by)
    new.replaces = old
    new.is_held = old.is_held
    new.complex, new.tag = old.complex, old.tag
    return new, check(state, new, _around(old))


def _around(old: Order) -> Around:
    found = old.complex
    if found is None or found.trigger is None or old is found.trigger or not old.is_held:
        return Around(_group_ids(old))
    provided = {leg.symbol: leg.quantity * leg.sign for leg in found.trigger.legs}
    return Around(frozenset({old.id}), provided, is_child=True)


def _group_ids(old: Order) -> frozenset[int]:
    """The original and what counts once with it: of an OCO pair the sibling too."""
    if old.complex is None or not old.complex.is_pair_member(old):
        return frozenset({old.id})
    return frozenset(order.id for order in old.complex.components())


def _merged(state: State, old: Order, body: Mapping[str, Any], by: str) -> dict[str, Any]:
    """The request filled up from the original; without legs, its legs with what remains of them."""
    kind = body.get("order-type") or old.order_type
    merged: dict[str, Any] = {
        "order-type": kind,
        "time-in-force": body.get("time-in-force") or old.time_in_force,
        "gtc-date": body.get("gtc-date") or old.gtc_date,
        "legs": body.get("legs") or [_remaining(leg) for leg in old.legs if leg.remaining],
        "source": old.source if by != "user" else WEB_SOURCE,
        "advanced-instructions": {"strict-position-effect-validation": old.strict},
        "stop-trigger": body.get("stop-trigger") or old.stop_trigger,
        "price": body.get("price"),
        "price-effect": body.get("price-effect") or old.effect,
    }
    if merged["price"] is None and kind in PRICED:
        merged["price"] = old.price
    if state.rules.replacement_inherits_identifier:
        merged["external-identifier"] = old.external_identifier
    merged.update((name, body[name]) for name in _PASSED if body.get(name) is not None)
    return merged


def _remaining(leg: Leg) -> dict[str, Any]:
    return {
        "instrument-type": leg.instrument.instrument_type,
        "symbol": leg.symbol,
        "action": leg.action,
        "quantity": leg.remaining,
    }


def begin(state: State, old: Order, new: Order) -> None:
    """Accept a checked replacement."""
    state.add(new)
    old.replaced_by = new
    was_held = old.is_held
    new.is_held = True
    if old.complex is not None:
        complex_orders.replace_member(old.complex, old, new)
    state.note_accepted(new, "replace")
    set_status(state, new, CONTINGENT)
    if was_held or old.status == RECEIVED:
        _swap_unrouted(state, old, new, was_held)
        return
    new.waits_for_original = True
    old.token += 1
    if state.rules.replace_race == "cancel-wins":
        old.is_frozen = True
    set_status(state, old, REPLACE_REQUESTED)
    if state.rules.replace_race == "fill-wins":
        state.after(state.rules.replace_delay_ms // 2, filling.fill_anyway, old)
    state.after(state.rules.replace_delay_ms, _cancel_original, old, new)


def _swap_unrouted(state: State, old: Order, new: Order, was_held: bool) -> None:
    """An original that never left: the replacement takes its place at once."""
    old.edited = True
    end(state, old, CANCELLED)
    if not was_held:
        lifecycle.release(state, new)


def _cancel_original(state: State, old: Order, new: Order) -> None:
    if old.status != REPLACE_REQUESTED:
        return
    old.edited = True
    end(state, old, CANCELLED)
    if not new.is_terminal:
        # Counted from here, so that no other close slips in before it is routed.
        state.count(new)
        state.after(state.rules.replace_route_delay_ms, _route, new)


def _route(state: State, new: Order) -> None:
    if new.is_terminal or not new.is_held:
        return
    new.waits_for_original = False
    if new.complex is not None and new is not new.complex.trigger:
        complex_orders.arm(state, new)
    else:
        lifecycle.release(state, new)


def abort(state: State, old: Order, new: Order) -> None:
    """The replacement ends unrouted and the original is itself again."""
    if old.complex is not None:
        complex_orders.restore_member(old.complex, old, new)
    if not old.is_terminal:
        old.replaced_by = None
    status = state.rules.aborted_replacement_status
    if status == REJECTED:
        new.reject_reason = "The original order was filled"
    end(state, new, status)


class Replacements:
    """Listens to fills and ends of originals whose replacement waits, and of waiting replacements."""

    def filled(self, state: State, order: Order, units: int) -> None:
        new = order.replaced_by
        if new is None or new.is_terminal or not new.is_held or order.status == CANCELLED:
            return
        if order.status == FILLED:
            abort(state, order, new)
        elif units and state.rules.replace_partial == "abort":
            abort(state, order, new)
            set_status(state, order, LIVE)
        elif units:
            _shrink(state, new, order)

    def ended(self, state: State, order: Order) -> None:
        new = order.replaced_by
        if new is not None and not order.edited and not new.is_terminal and new.is_held:
            # The original was cancelled, rejected or expired by somebody: its replacement dies with it.
            end(state, new, CANCELLED, by="user" if order.cancel_user else "broker")
            return
        old = order.replaces
        if old is not None and old.status == REPLACE_REQUESTED and old.replaced_by is order:
            old.replaced_by = None
            if old.complex is not None:
                complex_orders.restore_member(old.complex, old, order)
            old.cancel_user = order.cancel_user
            set_status(state, old, CANCEL_REQUESTED)
            state.after(state.rules.cancel_delay_ms, lifecycle.confirm_cancel, old, "user")


def _shrink(state: State, new: Order, old: Order) -> None:
    """The original part-filled in the window: the replacement carries what remains."""
    for leg, original in zip(new.legs, old.legs, strict=False):
        if leg.symbol == original.symbol:
            leg.quantity = min(leg.quantity, original.remaining)
    new.settle_shape()
    state.touch(new)
