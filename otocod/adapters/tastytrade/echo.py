"""Is this answer the answer to our request? A pool mix-up or a caching proxy could hand us another one's.

An answer that does not match leaves the outcome unknown; it is never taken for a refusal. What the broker may leave
out (the identifier's echo has not been seen on every kind of answer) does not count against it, as long as the rest
matches.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from otocod.adapters.tastytrade.errors import Unreadable
from otocod.adapters.tastytrade.parse import (
    ReadOrderMessage,
    codes_from_raw,
    complex_report_from_raw,
    id_from_wire,
    is_present,
    read_order,
    whole,
)
from otocod.adapters.tastytrade.schema import ComplexWire, EnvelopeWire, PlacedWire, tolerant
from otocod.domain.commands import Member
from otocod.domain.events import ComplexReport
from otocod.domain.ids import AccountNumber, BrokerOrderId, ComplexOrderId
from otocod.domain.orders import OrderReport
from otocod.domain.specs import Leg, OrderSpec, Role

# Ours, beside the broker's warning codes: the echo's leg says open where we said close, or the other way round.
ACTION_CHANGED = "otocod.action_changed"

_DRY_RUN_ID = "dry-run"


@dataclass(frozen=True, slots=True)
class Placed:
    """`reports` stand in the order of the members that were sent. `errors`: codes a dry run may carry in a 2xx."""

    reports: tuple[OrderReport, ...]
    warnings: tuple[str, ...]
    errors: tuple[str, ...] = ()
    complex_order_id: ComplexOrderId | None = None


def envelope_from_body(body: bytes) -> EnvelopeWire:
    try:
        return tolerant(EnvelopeWire, body)[0]
    except ValueError:
        raise Unreadable("the answer is not JSON") from None


def placed_order(body: bytes, account: AccountNumber, member: Member, *, is_dry_run: bool = False) -> Placed:
    """The answer to a POST of one order, which nests it under `order`. Raises Unreadable."""
    wire = _placed(body)
    message = _order(wire.order, is_dry_run=is_dry_run)
    changed = _check_order(message, account, member)
    return Placed((_report(message),), (*codes_from_raw(wire.warnings), *changed), codes_from_raw(wire.errors))


def placed_complex(
    body: bytes, account: AccountNumber, members: Sequence[Member], *, is_dry_run: bool = False
) -> Placed:
    """The answer to a POST of a complex order: `complex-order`, with the trigger and the others in it."""
    wire = _placed(body)
    try:
        container = tolerant(ComplexWire, wire.complex_order)[0]
    except ValueError:
        raise Unreadable("no complex order in the answer") from None
    if container.account_number is not None and container.account_number != account:
        raise Unreadable("the answer is about another account")
    raws = [*([container.trigger_order] if is_present(container.trigger_order) else []), *(container.orders or ())]
    messages = _in_order_of([_order(raw, is_dry_run=is_dry_run) for raw in raws], members)
    changed: list[str] = []
    for message, member in zip(messages, members, strict=True):
        changed.extend(_check_order(message, account, member))
    return Placed(
        reports=tuple(_report(message) for message in messages),
        warnings=(*codes_from_raw(wire.warnings), *dict.fromkeys(changed)),
        errors=codes_from_raw(wire.errors),
        complex_order_id=_complex_order_id(container, messages, is_dry_run=is_dry_run),
    )


def replaced_order(body: bytes, account: AccountNumber, old: BrokerOrderId, member: Member) -> Placed:
    """The answer to a PUT: the new order itself, unwrapped. It may carry the old identifier or the new one."""
    message = _order(envelope_from_body(body).data)
    report = _report(message)
    if report.broker_order_id == old:
        raise Unreadable("the answer shows the old order")
    if report.replaces is None and report.external_identifier != member.external_identifier:
        raise Unreadable("the answer does not say what it replaces")
    if report.replaces is not None and report.replaces != old:
        raise Unreadable("the answer is about another order")
    _check_account(message, account)
    _check_price(report, member.spec)
    # Quantities are not compared: what a replacement carries after a partial fill is not documented, and `replaces`
    # already proves whose it is.
    if report.legs and {leg.symbol for leg in report.legs} != {leg.symbol for leg in member.spec.legs}:
        raise Unreadable("the answer has other legs")
    return Placed((report,), ())


def replacement_dry_run(body: bytes, account: AccountNumber, member: Member) -> Placed:
    wire = _placed(body)
    message = _order(wire.order, is_dry_run=True)
    changed = _check_content(message, account, member.spec)
    return Placed((_report(message),), (*codes_from_raw(wire.warnings), *changed), codes_from_raw(wire.errors))


def one_order(body: bytes, account: AccountNumber, broker_order_id: BrokerOrderId) -> OrderReport:
    """The answer to a GET or DELETE of one order: the order itself."""
    message = _order(envelope_from_body(body).data)
    _check_account(message, account)
    report = _report(message)
    if report.broker_order_id != broker_order_id:
        raise Unreadable("the answer is about another order")
    return report


def one_complex(body: bytes, account: AccountNumber, complex_order_id: ComplexOrderId) -> ComplexReport:
    """The answer to a GET or DELETE of a complex order. A component that cannot be read fails the whole."""
    try:
        report, wire, damage = complex_report_from_raw(envelope_from_body(body).data)
    except ValueError:
        raise Unreadable("no complex order in the answer") from None
    if report is None or report.complex_order_id != complex_order_id:
        raise Unreadable("the answer is about another complex order")
    if wire.account_number is not None and wire.account_number != account:
        raise Unreadable("the answer is about another account")
    if "orders" in damage or "trigger-order" in damage:
        raise Unreadable("a component cannot be read")
    return report


def _placed(body: bytes) -> PlacedWire:
    try:
        return tolerant(PlacedWire, envelope_from_body(body).data)[0]
    except ValueError:
        raise Unreadable("no data in the answer") from None


def _order(raw: msgspec.Raw, *, is_dry_run: bool = False) -> ReadOrderMessage:
    try:
        return read_order(raw, id_if_absent=_DRY_RUN_ID if is_dry_run else None)
    except ValueError:
        raise Unreadable("no order in the answer") from None


def _report(message: ReadOrderMessage) -> OrderReport:
    if message.report is None:
        raise Unreadable("the order in the answer has no id")
    return message.report


def _complex_order_id(
    container: ComplexWire, messages: Sequence[ReadOrderMessage], *, is_dry_run: bool
) -> ComplexOrderId | None:
    own = id_from_wire(container.id)
    if own is not None or is_dry_run:
        return None if own is None else ComplexOrderId(own)
    # One report has it that the container's id is found on the orders only.
    named = {_report(message).complex_order_id for message in messages}
    if len(named) != 1 or None in named:
        raise Unreadable("the complex order has no id")
    return named.pop()


def _in_order_of(messages: list[ReadOrderMessage], members: Sequence[Member]) -> list[ReadOrderMessage]:
    if len(messages) != len(members):
        raise Unreadable("the answer has another number of orders")
    by_identifier = {_report(message).external_identifier: message for message in messages}
    if all(member.external_identifier in by_identifier for member in members):
        return [by_identifier[member.external_identifier] for member in members]
    return messages


def _check_order(message: ReadOrderMessage, account: AccountNumber, member: Member) -> tuple[str, ...]:
    echoed = _report(message).external_identifier
    if echoed is not None and echoed != member.external_identifier:
        raise Unreadable("the answer carries another identifier")
    changed = _check_content(message, account, member.spec)
    if not _report(message).legs and _size(message) is None:
        raise Unreadable("the answer has neither legs nor a size")
    # The one exit of a native group that has no identifier is told from the other by its type alone.
    if echoed is None and member.role is not Role.ENTRY and _report(message).order_type != member.spec.order_type:
        raise Unreadable("the answer has another order type")
    return changed


def _check_content(message: ReadOrderMessage, account: AccountNumber, spec: OrderSpec) -> tuple[str, ...]:
    _check_account(message, account)
    report = _report(message)
    if report.legs:
        sent = Counter((leg.symbol, leg.quantity) for leg in spec.legs)
        if sent != Counter((leg.symbol, leg.quantity) for leg in report.legs):
            raise Unreadable("the answer has other legs")
    elif (size := _size(message)) is not None and size != math.gcd(*(leg.quantity for leg in spec.legs)):
        raise Unreadable("the answer has another size")
    _check_price(report, spec)
    return _changed_actions(report, spec.legs)


def _check_price(report: OrderReport, spec: OrderSpec) -> None:
    if report.net_price is not None and spec.net_price is not None and report.net_price != spec.net_price:
        raise Unreadable("the answer has another price")


def _changed_actions(report: OrderReport, legs: Sequence[Leg]) -> tuple[str, ...]:
    """The broker turns a close without a position into an open. A changed side is no change but another order."""
    sent = {leg.symbol: leg.action for leg in legs}
    changed = [leg for leg in report.legs if leg.action is not None and leg.action is not sent[leg.symbol]]
    if any(leg.action is not None and leg.action.is_buy != sent[leg.symbol].is_buy for leg in changed):
        raise Unreadable("the answer has other sides")
    return (ACTION_CHANGED,) if changed else ()


def _check_account(message: ReadOrderMessage, account: AccountNumber) -> None:
    if message.wire.account_number is not None and message.wire.account_number != account:
        raise Unreadable("the answer is about another account")


def _size(message: ReadOrderMessage) -> int | None:
    return whole(message.wire.size)
