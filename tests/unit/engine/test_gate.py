"""The last gate looks at the order that is about to leave, whatever the reasons for it."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from otocod.domain.brackets import Bracket
from otocod.domain.commands import Member
from otocod.domain.ids import AccountNumber
from otocod.domain.orders import Order
from otocod.domain.specs import Action, OrderSpec, Role
from otocod.domain.spreads import surplus_legs
from otocod.engine.gate import MAX_QUANTITY, LastGate, Limits, places_of
from tests.support.stored_records import ACCOUNT, START_US, accepted, entry_filled, spread

MINUTE_US = 60_000_000


def gate(**limits: int) -> LastGate:
    made = Limits(frozenset({ACCOUNT}), limits.get("orders_per_minute", 120), limits.get("orders_per_bracket", 12))
    return LastGate(made)


def entering() -> Bracket:
    return accepted()


def exiting() -> Bracket:
    """The entry filled, target and stop on their way."""
    return entry_filled(accepted())


def member_of(bracket: Bracket, role: Role) -> Member:
    order = bracket.orders_of(role)[-1]
    return Member(order.external_identifier, role, order.spec)


def with_spec(bracket: Bracket, role: Role, change: Callable[[OrderSpec], OrderSpec]) -> tuple[Bracket, Member]:
    """The bracket decided on a wrong order: record and body agree, so only the rule itself can object."""
    order: Order = bracket.orders_of(role)[-1]
    changed = bracket.with_order(replace(order, spec=change(order.spec)))
    return changed, member_of(changed, role)


def leg_quantity(quantity: int) -> Callable[[OrderSpec], OrderSpec]:
    return lambda spec: replace(spec, legs=tuple(replace(leg, quantity=quantity) for leg in spec.legs))


def test_entry_and_exits_as_decided_may_leave() -> None:
    assert gate().check(entering(), [member_of(entering(), Role.ENTRY)]) == ()
    bracket = exiting()
    assert gate().check(bracket, [member_of(bracket, Role.TARGET), member_of(bracket, Role.STOP)]) == ()


@pytest.mark.covers("F15")
def test_identifier_that_was_posted_is_never_posted_again() -> None:
    bracket, doorkeeper = exiting(), gate()
    stop = member_of(bracket, Role.STOP)
    doorkeeper.note_posted(bracket, [stop], START_US)
    assert doorkeeper.check(bracket, [stop]) == ("its identifier was posted before",)


def test_identifier_that_was_proved_not_sent_may_go_again() -> None:
    bracket, doorkeeper = exiting(), gate()
    stop = member_of(bracket, Role.STOP)
    doorkeeper.note_posted(bracket, [stop], START_US)
    doorkeeper.note_not_sent([stop])
    assert doorkeeper.check(bracket, [stop]) == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda member: replace(member, spec=replace(member.spec, net_price=Decimal("1.95"))),
        lambda member: replace(member, role=Role.TARGET),
        lambda member: replace(member, external_identifier="never-decided"),
    ],
)
def test_body_that_is_not_what_was_decided_does_not_leave(change: Callable[[Member], Member]) -> None:
    bracket = exiting()
    assert "its body is not what was decided" in gate().check(bracket, [change(member_of(bracket, Role.STOP))])


def test_exit_without_the_strict_flag_does_not_leave() -> None:
    bracket, stop = with_spec(exiting(), Role.STOP, lambda spec: replace(spec, strict=False))
    (reason,) = gate().check(bracket, [stop])
    assert "strict" in reason


def test_exit_larger_than_the_open_quantity_does_not_leave() -> None:
    bracket, stop = with_spec(exiting(), Role.STOP, leg_quantity(2))
    reasons = gate().check(bracket, [stop])
    assert len(reasons) == 2
    assert all("it closes 2 of" in reason and "of which 1 are open" in reason for reason in reasons)


def test_exit_before_the_entry_has_filled_does_not_leave() -> None:
    filled = exiting()
    unfilled = replace(filled, orders=(entering().orders[0], *filled.orders[1:]))
    reasons = gate().check(unfilled, [member_of(unfilled, Role.STOP)])
    assert all("of which 0 are open" in reason for reason in reasons) and len(reasons) == 2


def test_exits_that_hang_on_their_entry_may_leave_with_it() -> None:
    """In an OTOCO the children are bounded by what the entry asks for, since nothing has filled yet."""
    filled = exiting()
    group = filled.orders[0].external_identifier
    entry = replace(entering().orders[0], group=group)
    bracket = replace(filled, orders=(entry, *(replace(order, group=group) for order in filled.orders[1:])))
    members = [member_of(bracket, role) for role in (Role.ENTRY, Role.TARGET, Role.STOP)]
    assert gate().check(bracket, members) == ()
    larger, stop = with_spec(bracket, Role.STOP, leg_quantity(2))
    assert any("it closes 2" in reason for reason in gate().check(larger, [stop]))


def test_exit_that_opens_does_not_leave() -> None:
    def opening(spec: OrderSpec) -> OrderSpec:
        return replace(spec, legs=(replace(spec.legs[0], action=Action.SELL_TO_OPEN), spec.legs[1]))

    bracket, stop = with_spec(exiting(), Role.STOP, opening)
    (reason,) = gate().check(bracket, [stop])
    assert "opens" in reason


def test_too_many_legs_sizes_and_prices_out_of_bounds_do_not_leave() -> None:
    bracket, entry = with_spec(entering(), Role.ENTRY, lambda spec: replace(spec, legs=spec.legs * 3))
    assert "it has 6 legs" in gate().check(bracket, [entry])
    for quantity in (0, -1, MAX_QUANTITY + 1):
        bracket, entry = with_spec(entering(), Role.ENTRY, leg_quantity(quantity))
        assert "a leg's quantity is out of bounds" in gate().check(bracket, [entry])
    bracket, entry = with_spec(entering(), Role.ENTRY, lambda spec: replace(spec, net_price=Decimal(-100_001)))
    assert gate().check(bracket, [entry]) == ("its price is out of bounds",)


def test_account_that_is_not_configured_does_not_leave() -> None:
    bracket = replace(entering(), account=AccountNumber("5WT99999"))
    assert gate().check(bracket, [member_of(bracket, Role.ENTRY)]) == ("the account is not configured",)


def test_halt_stops_entries_and_not_exits() -> None:
    doorkeeper = gate()
    doorkeeper.is_halted = True
    assert doorkeeper.check(entering(), [member_of(entering(), Role.ENTRY)]) == ("new entries are halted",)
    bracket = exiting()
    assert doorkeeper.check(bracket, [member_of(bracket, Role.STOP)]) == ()


def test_every_reason_is_told_at_once() -> None:
    bracket, stop = with_spec(exiting(), Role.STOP, lambda spec: replace(leg_quantity(2)(spec), strict=False))
    assert len(gate().check(bracket, [stop])) == 3


@pytest.mark.covers("F122")
def test_ceiling_binds_entries_for_a_minute_and_protection_never() -> None:
    doorkeeper, bracket = gate(orders_per_minute=2), exiting()
    stop, target = member_of(bracket, Role.STOP), member_of(bracket, Role.TARGET)
    doorkeeper.note_posted(bracket, [stop], START_US)
    assert doorkeeper.has_room(START_US)
    doorkeeper.note_posted(bracket, [target], START_US + 1)
    assert not doorkeeper.has_room(START_US + 1)
    assert not doorkeeper.has_room(START_US + MINUTE_US - 1)
    assert doorkeeper.has_room(START_US + MINUTE_US)
    fresh = replace(stop, external_identifier=bracket.staged[0][1])
    assert "ceiling" not in "".join(doorkeeper.check(bracket, [fresh]))


def test_ceiling_counts_the_entries_that_are_promised_and_not_sent_yet() -> None:
    doorkeeper = gate(orders_per_minute=3)
    assert doorkeeper.has_room(START_US, promised=2)
    assert not doorkeeper.has_room(START_US, promised=3)


@pytest.mark.covers("F122")
def test_group_of_an_entry_has_its_place_and_one_for_the_entry_that_follows_a_refused_group() -> None:
    doorkeeper = gate(orders_per_minute=5)
    group = accepted()
    entry = group.orders[0]
    name = entry.external_identifier
    exits = [
        replace(order, external_identifier=group.staged[-n][1], group=name)
        for n, order in enumerate(exiting().exits, 1)
    ]
    group = replace(group, orders=(replace(entry, group=name), *exits))
    members = [Member(order.external_identifier, order.role, order.spec) for order in group.orders]
    assert doorkeeper.has_room(START_US, promised=1, wanted=places_of(3))
    assert not doorkeeper.has_room(START_US, promised=2, wanted=places_of(3))
    doorkeeper.note_posted(group, members, START_US)
    assert doorkeeper.has_room(START_US)
    assert not doorkeeper.has_room(START_US, wanted=2)
    again = replace(entry, external_identifier=group.staged[0][1])
    alone = Member(again.external_identifier, Role.ENTRY, again.spec)
    doorkeeper.note_posted(replace(group, orders=(*group.orders, again)), [alone], START_US)
    assert doorkeeper.has_room(START_US), "its place was kept"
    assert doorkeeper.posted_count == 4


def test_group_that_the_ceiling_has_no_room_for_at_all_leaves_when_nothing_else_has() -> None:
    doorkeeper, bracket = gate(orders_per_minute=2), exiting()
    assert doorkeeper.has_room(START_US, wanted=places_of(3))
    doorkeeper.note_posted(bracket, [member_of(bracket, Role.STOP)], START_US)
    assert not doorkeeper.has_room(START_US, wanted=places_of(3))


@pytest.mark.covers("F122")
def test_protection_beyond_the_ceiling_of_its_bracket_is_spaced_and_never_dropped() -> None:
    doorkeeper, bracket = gate(orders_per_bracket=1), exiting()
    stop, target = member_of(bracket, Role.STOP), member_of(bracket, Role.TARGET)
    assert doorkeeper.spacing_s(bracket, [stop], START_US) == 0
    doorkeeper.note_posted(bracket, [stop], START_US)
    assert doorkeeper.spacing_s(bracket, [target], START_US) > 0
    assert doorkeeper.check(bracket, [target]) == ()
    assert doorkeeper.spacing_s(entry_filled(accepted(2)), [target], START_US) == 0, "another bracket's ceiling"
    assert doorkeeper.spacing_s(bracket, [target], START_US + 24 * 60 * MINUTE_US) == 0, "another session"


@pytest.mark.covers("F122")
def test_protection_beyond_the_orders_of_a_minute_is_spaced() -> None:
    doorkeeper, bracket = gate(orders_per_minute=1), exiting()
    doorkeeper.note_posted(bracket, [member_of(bracket, Role.STOP)], START_US)
    other = entry_filled(accepted(2))
    assert doorkeeper.spacing_s(other, [member_of(other, Role.STOP)], START_US) > 0
    assert doorkeeper.spacing_s(other, [member_of(other, Role.STOP)], START_US + MINUTE_US) == 0


@pytest.mark.covers("F122")
def test_orders_beyond_the_ceiling_leave_one_behind_the_other() -> None:
    doorkeeper, bracket = gate(orders_per_minute=1), exiting()
    stop = member_of(bracket, Role.STOP)
    doorkeeper.note_posted(bracket, [stop], START_US)
    assert [doorkeeper.spacing_s(bracket, [stop], START_US) for _ in range(3)] == [1.0, 2.0, 3.0]


def test_close_on_the_side_of_the_entry_leaves_only_for_what_is_surplus() -> None:
    def backwards(spec: OrderSpec) -> OrderSpec:
        return replace(spec, legs=surplus_legs(spread(1), 1))

    bracket, stop = with_spec(exiting(), Role.STOP, backwards)
    order = next(order for order in bracket.orders if order.external_identifier == stop.external_identifier)
    close = replace(stop, role=Role.CLOSE)
    without = bracket.with_order(replace(order, role=Role.CLOSE))
    assert any("of which -1 are open" in reason for reason in gate().check(without, [close]))
