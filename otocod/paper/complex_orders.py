"""OCO, OTO and OTOCO: what one member's fill or end does to the others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from otocod.paper import filling, lifecycle, wire
from otocod.paper.endings import end, set_status
from otocod.paper.errors import cannot_update, invalid
from otocod.paper.orders import (
    CANCELLED,
    CONTINGENT,
    FILLED,
    LIMIT,
    STOPS,
    Order,
    order_from_body,
)
from otocod.paper.preflight import Around, Verdict, check, is_immediate
from otocod.paper.state import State

OCO = "OCO"
OTO = "OTO"
OTOCO = "OTOCO"
TYPES = (OCO, OTO, OTOCO)
_CHILD_TAGS = {OCO: "OCO::order", OTO: "OTO::order", OTOCO: "OTOCO::oco-1-order"}


@dataclass(slots=True, eq=False, repr=False)
class ComplexOrder:
    account: str
    type: str
    trigger: Order | None
    orders: list[Order]
    source: str | None = None
    id: int = 0
    terminal_us: int = 0
    related: list[Order] = field(default_factory=list)  # members that have been replaced

    def __repr__(self) -> str:
        return f"<ComplexOrder {self.id} {self.type} {self.components()}>"

    def is_pair_member(self, order: Order) -> bool:
        """True for the exits that cancel each other; their quantity counts once."""
        return self.type != OTO and order is not self.trigger

    def components(self) -> list[Order]:
        return ([] if self.trigger is None else [self.trigger]) + self.orders


def complex_from_body(body: Any, account: str, by: str) -> ComplexOrder:
    """A draft without ids. Refused 400 on a body that is no complex order."""
    if not isinstance(body, Mapping):
        raise invalid([("complex-order", "is not an object")])
    problems: list[tuple[str, str]] = []
    kind = body.get("type")
    given = body.get("orders")
    if kind not in TYPES:
        problems.append(("type", "does not have a valid value"))
    if not isinstance(given, list) or not 1 <= len(given) <= 3 or (kind in (OCO, OTOCO) and len(given) != 2):
        problems.append(("orders", "has the wrong number of entries"))
    if kind in (OTO, OTOCO) and not isinstance(body.get("trigger-order"), Mapping):
        problems.append(("trigger-order", "is missing"))
    if problems or not isinstance(given, list) or not isinstance(kind, str):
        raise invalid(problems)
    trigger = None if kind == OCO else order_from_body(body["trigger-order"], account, by)
    orders = [order_from_body(entry, account, by) for entry in given]
    source = body.get("source")
    found = ComplexOrder(account, kind, trigger, orders, source if isinstance(source, str) else None)
    for index, order in enumerate(found.components()):
        order.complex = found
        order.preflight_id = index
        order.tag = f"{kind}::trigger-order" if order is trigger else _CHILD_TAGS[kind]
        order.source = order.source or found.source
        order.status = CONTINGENT
        order.is_held = order is not trigger and kind != OCO
    return found


def check_complex(state: State, found: ComplexOrder) -> list[tuple[str | None, Verdict]]:
    """Preflight of the whole; verdicts by preflight id, the first also carries what concerns the group."""
    provided: dict[str, int] = {}
    if found.trigger is not None:
        for leg in found.trigger.legs:
            provided[leg.symbol] = provided.get(leg.symbol, 0) + leg.quantity * leg.sign
    verdicts: list[tuple[str | None, Verdict]] = []
    for order in found.components():
        around = Around(provided=provided, is_child=True) if order.is_held else Around()
        verdicts.append((str(order.preflight_id), check(state, order, around)))
    verdicts[0][1].errors[:0] = _group_errors(state, found)
    return verdicts


def _group_errors(state: State, found: ComplexOrder) -> list[tuple[str, str]]:
    rules, errors = state.rules, []
    allowed = {OCO: rules.native_oco_spreads, OTOCO: rules.native_otoco_spreads, OTO: True}[found.type]
    if not allowed and any(len(order.legs) > 1 for order in found.components()):
        text = f"{found.type} orders are not supported for multi-leg orders."
        errors.append(("multi_leg_complex_order_not_supported", text))
    if found.type == OTO:
        return errors
    kinds = [order.order_type for order in found.orders]
    if rules.oco_pair_rule and not (kinds.count(LIMIT) == 1 and sum(kind in STOPS for kind in kinds) == 1):
        text = "An OCO pair must be one Limit and one Stop or Stop Limit order."
        errors.append(("invalid_oco_order_type_combo", text))
    if rules.invalid_oco_price and found.type == OCO and any(is_immediate(state, order) for order in found.orders):
        errors.append(("invalid_oco_price", "An order of the OCO would execute immediately."))
    if found.type == OCO and any(not leg.is_closing for order in found.orders for leg in order.legs):
        errors.append(("invalid_oco_order", "Both orders of an OCO must close a position."))
    return errors


def accept_complex(state: State, found: ComplexOrder) -> None:
    """Ids, first messages; then the trigger, or both members of an OCO, are on their way."""
    found.id = state.next_complex_id
    state.next_complex_id += 1
    state.complexes[found.id] = found
    for order in found.components():
        state.add(order)
    for order in found.components():
        state.note_accepted(order, "submit-complex")
        set_status(state, order, CONTINGENT)
        if not order.is_held:
            state.count(order)
    say(state, found)
    if found.trigger is not None:
        lifecycle.release(state, found.trigger)
        return
    for order in found.orders:
        order.is_held = True
        state.after(state.rules.status_step_ms, arm, order)


def arm(state: State, order: Order) -> None:
    if order.is_terminal or not order.is_held:
        return
    if state.rules.armed_status == CONTINGENT:
        state.note("armed", order)
        lifecycle.arm_contingent(state, order)
    else:
        lifecycle.release(state, order)


def cancel_complex(state: State, found: ComplexOrder, by: str) -> None:
    """Cancel what is not terminal: routed members through Cancel Requested, held ones at once."""
    living = [order for order in found.components() if not order.is_terminal]
    if not living:
        raise cannot_update("the complex order could not be cancelled")
    for order in living:
        if not order.is_terminal:
            lifecycle.request_cancel(state, order, by)


def cancel_member(state: State, order: Order, found: ComplexOrder, by: str) -> None:
    """DELETE of one component by its own id, as far as the rule allows it."""
    mode = state.rules.member_cancel
    if by == "api" and mode == "refuse":
        raise cannot_update()
    lifecycle.request_cancel(state, order, by)
    sibling = _sibling(found, order)
    if mode == "both" and sibling is not None and not sibling.is_terminal:
        lifecycle.request_cancel(state, sibling, by)


def replace_member(found: ComplexOrder, old: Order, new: Order) -> None:
    """The replacement takes the original's place; the original becomes a related order."""
    new.complex, new.tag, new.preflight_id = found, old.tag, old.preflight_id
    found.related.append(old)
    if found.trigger is old:
        found.trigger = new
    else:
        found.orders[found.orders.index(old)] = new


def restore_member(found: ComplexOrder, old: Order, new: Order) -> None:
    """The replacement was aborted: the original is the member again."""
    if old not in found.related:
        return
    found.related.remove(old)
    found.related.append(new)
    if found.trigger is new:
        found.trigger = old
    else:
        found.orders[found.orders.index(new)] = old


def _sibling(found: ComplexOrder, order: Order) -> Order | None:
    if not found.is_pair_member(order) or order not in found.orders:
        return None
    return next((other for other in found.orders if other is not order), None)


class Groups:
    """Listens to fills and ends of members."""

    def filled(self, state: State, order: Order, units: int) -> None:
        found = order.complex
        if found is None:
            return
        if order is found.trigger:
            if order.status == FILLED:
                state.after(state.rules.arm_delay_ms, _arm_children, found)
            return
        sibling = _sibling(found, order)
        if sibling is not None and not sibling.is_terminal:
            if order.status == FILLED:
                _end_sibling(state, sibling)
            elif units and state.rules.oco_partial == "reduce-sibling":
                _reduce(state, sibling, units)
        _finish(state, found)

    def ended(self, state: State, order: Order) -> None:
        found = order.complex
        if found is None or order in found.related:
            return
        if order is found.trigger:
            self._trigger_ended(state, found, order)
        elif not order.cancel_user and state.rules.member_end == "cancel-sibling":
            sibling = _sibling(found, order)
            if sibling is not None and not sibling.is_terminal and sibling.status != FILLED:
                end(state, sibling, CANCELLED)
        _finish(state, found)

    def _trigger_ended(self, state: State, found: ComplexOrder, trigger: Order) -> None:
        if trigger.has_fills and state.rules.partial_trigger_end == "stay-contingent":
            return
        for child in found.orders:
            if not child.is_terminal:
                end(state, child, CANCELLED)


def _arm_children(state: State, found: ComplexOrder) -> None:
    for child in found.orders:
        arm(state, child)


def _end_sibling(state: State, sibling: Order) -> None:
    rules = state.rules
    if rules.oco_race == "safe":
        sibling.is_frozen = True
        if sibling.waits_for_original and sibling.replaces is not None:
            sibling.replaces.is_frozen = True  # which is the one that could still fill
    elif rules.oco_race == "both-fill":
        state.after(rules.oco_cancel_delay_ms // 2, filling.fill_anyway, sibling)
    state.after(rules.oco_cancel_delay_ms, _cancel_sibling, sibling)


def _cancel_sibling(state: State, sibling: Order) -> None:
    if not sibling.is_terminal:
        end(state, sibling, CANCELLED)


def _reduce(state: State, sibling: Order, units: int) -> None:
    """The sibling shrinks by what its pair has filled, never below what it has filled itself."""
    units = min(units, sibling.remaining_units)
    if units == sibling.remaining_units:
        _end_sibling(state, sibling)
        return
    for leg in sibling.legs:
        leg.quantity -= leg.ratio * units
    sibling.size -= units
    state.note("reduced", sibling, size=sibling.size)
    state.touch(sibling)


def _finish(state: State, found: ComplexOrder) -> None:
    if found.terminal_us == 0 and all(order.is_terminal for order in found.components()):
        found.terminal_us = state.now_us
        say(state, found)


def say(state: State, found: ComplexOrder) -> None:
    state.say(found.account, "ComplexOrder", complex_object(found))


def complex_object(found: ComplexOrder) -> dict[str, Any]:
    """The container with its components in full; it has no status of its own."""
    data: dict[str, Any] = {}
    if found.id:
        data["id"] = found.id
    data["account-number"] = found.account
    data["type"] = found.type
    if found.source is not None:
        data["source"] = found.source
    if found.terminal_us:
        data["terminal-at"] = wire.iso(found.terminal_us)
    if found.trigger is not None:
        data["trigger-order"] = wire.order_object(found.trigger)
    data["orders"] = [wire.order_object(order) for order in found.orders]
    data["related-orders"] = [_related_object(order) for order in found.related]
    return data


def _related_object(order: Order) -> dict[str, str]:
    """All values are text here."""
    data = {"id": str(order.id), "complex-order-tag": order.tag or "", "status": order.status}
    if order.complex is not None:
        data["complex-order-id"] = str(order.complex.id)
    if order.replaces is not None:
        data["replaces-order-id"] = str(order.replaces.id)
    if order.replaced_by is not None:
        data["replacing-order-id"] = str(order.replaced_by.id)
    return data
