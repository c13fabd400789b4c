"""What was believed of a bracket's orders at each step of its journal, beside what the broker's own record says.

The belief is the record that the journal's decisions lead to (`adapters.sqlite.replay`). The broker's record is read
when somebody asks; it dates an order's arrival, its fills and its last change, so it tells of earlier moments too.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from otocod.domain.brackets import Bracket
from otocod.domain.orders import ADOPTED, Order, OrderState
from otocod.domain.spreads import matched_units, size_of

# Two clocks, and the way there and back: what is nearer to a step than this says nothing about which came first.
_MARGIN_US = 1_000_000
# The broker dates its answers in whole seconds, so a smaller distance of the clocks is none.
_OFFSET_US = 2_000_000


@dataclass(frozen=True, slots=True)
class Truth:
    """One order as the broker has it. Times are ours, in microseconds."""

    broker_order_id: str
    status: str
    is_terminal: bool
    received_us: int | None
    changed_us: int | None  # last
    fills: tuple[tuple[str, int, int | None], ...]  # symbol, quantity, when

    def filled(self, order: Order, at_us: int | None = None) -> int:
        """Units filled by then, or by now."""
        legs = order.spec.legs
        found = {leg.symbol: 0 for leg in legs}
        for symbol, quantity, filled_us in self.fills:
            when = filled_us or self.changed_us or 0
            if symbol in found and (at_us is None or when <= at_us):
                found[symbol] += quantity
        return matched_units(legs, found)

    def was_there(self, at_us: int) -> bool:
        return self.received_us is None or self.received_us <= at_us

    def had_ended(self, at_us: int) -> bool:
        return self.is_terminal and (self.changed_us or 0) <= at_us


def truths_from(answer: Mapping[str, Any], offset_us: int) -> dict[str, list[Truth]]:
    """By external identifier. `offset_us`: the broker's clock minus ours."""
    offset_us = offset_us if abs(offset_us) >= _OFFSET_US else 0
    found: dict[str, list[Truth]] = {}
    for each in answer["orders"]:
        if each["status"] is None:
            continue
        fills = tuple((symbol, quantity, _ours(at_us, offset_us)) for symbol, quantity, at_us in each["fills"])
        truth = Truth(
            broker_order_id=each["broker_order_id"],
            status=each["status"],
            is_terminal=each["is_terminal"],
            received_us=_ours(each["received_us"], offset_us),
            changed_us=_ours(each["changed_us"], offset_us),
            fills=fills,
        )
        found.setdefault(each["external_identifier"], []).append(truth)
    return found


def _ours(at_us: int | None, offset_us: int) -> int | None:
    return None if at_us is None else at_us - offset_us


def beliefs_of(bracket: Bracket, before: Bracket | None) -> list[str]:
    """Its orders in a few words each: those that are not over, that filled, or that changed since `before`."""
    return [
        f"{order.role} {order.state} {_filled(order)}/{size_of(order.spec.legs)}"
        for order in _worth_telling(bracket, before)
    ]


def truths_of(bracket: Bracket, before: Bracket | None, truths: Mapping[str, Sequence[Truth]], at_us: int) -> list[str]:
    """The same orders as the broker had them then."""
    return [_truth_text(order, truths, at_us) for order in _worth_telling(bracket, before)]


def differences(
    bracket: Bracket, before: Bracket | None, truths: Mapping[str, Sequence[Truth]], at_us: int
) -> list[str]:
    """Where belief and broker were apart, by more than what clocks and wires explain."""
    return [text for order in _worth_telling(bracket, before) for text in _apart(order, truths, at_us)]


def _worth_telling(bracket: Bracket, before: Bracket | None) -> Iterator[Order]:
    for order in bracket.orders:
        if any(view.status_text == ADOPTED for view in order.views):
            continue  # no order of ours opened the position
        old = None if before is None else before.order(order.external_identifier)
        is_changed = old is None or (old.state, _filled(old)) != (order.state, _filled(order))
        if is_changed or not order.is_terminal or _filled(order):
            yield order


def _filled(order: Order) -> int:
    legs = order.spec.legs
    return matched_units(legs, {leg.symbol: order.filled(leg.symbol) for leg in legs})


def _truth_text(order: Order, truths: Mapping[str, Sequence[Truth]], at_us: int) -> str:
    there = [truth for truth in truths.get(order.external_identifier, ()) if truth.was_there(at_us)]
    if not there:
        return f"{order.role} not there"
    filled, units = sum(truth.filled(order, at_us) for truth in there), size_of(order.spec.legs)
    ended = [truth for truth in there if truth.had_ended(at_us)]
    if len(ended) < len(there):
        return f"{order.role} there {filled}/{units}"
    last = ended[-1]
    return f"{order.role} {last.status} {filled}/{units}{_since(last)}"


def _since(truth: Truth) -> str:
    times = [at_us for _, _, at_us in truth.fills if at_us is not None]
    at_us = max(times) if truth.status == "Filled" and times else truth.changed_us
    if at_us is None:
        return ""
    at = datetime.fromtimestamp(at_us // 1_000_000, UTC)
    return f" at {at:%H:%M:%S}.{at_us % 1_000_000 // 1000:03d}"


def _apart(order: Order, truths: Mapping[str, Sequence[Truth]], at_us: int) -> Iterator[str]:
    known = truths.get(order.external_identifier, ())
    believed, units = _filled(order), size_of(order.spec.legs)
    ahead = sum(truth.filled(order, at_us - _MARGIN_US) for truth in known)
    behind = sum(truth.filled(order, at_us + _MARGIN_US) for truth in known)
    if ahead > believed:
        yield f"{order.role}: the broker had {ahead} of {units} filled, and {believed} were known here"
    elif behind < believed:
        yield f"{order.role}: {believed} of {units} were believed filled, and the broker's record has {behind}"
    elif known and not order.is_terminal and all(truth.had_ended(at_us - _MARGIN_US) for truth in known):
        yield f"{order.role}: it was {known[-1].status} at the broker, which was not known here"
    elif order.is_terminal and any(truth.was_there(at_us - _MARGIN_US) for truth in known):
        if not all(truth.had_ended(at_us + _MARGIN_US) for truth in known):
            yield f"{order.role}: it was believed {order.state}, and the broker had not ended it"
    elif order.state is OrderState.WORKING and not any(truth.was_there(at_us + _MARGIN_US) for truth in known):
        yield f"{order.role}: it was believed to work, and the broker's record does not have it"


def unread(answer: Mapping[str, Any]) -> Iterable[str]:
    """Orders that the broker did not show, in words."""
    for each in answer["orders"]:
        if each["status"] is None:
            yield f"{each['role']} {each['broker_order_id']}: the broker does not have it (any more)"
