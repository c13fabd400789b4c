"""A record that must not exist is named by the rule it breaks; one that may is not blamed."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from otocod.domain.brackets import Bracket, BracketState, Outcome
from otocod.domain.invariants import violations_of
from otocod.domain.orders import BrokerStatus as W
from otocod.domain.orders import Order, OrderState
from otocod.domain.specs import OrderSpec, Protection, Role
from tests.support.core import Core, report_of


def alive() -> Bracket:
    core = Core()
    core.go_live()
    return core.bracket


def stop_of(bracket: Bracket) -> Order:
    return bracket.orders_of(Role.STOP)[-1]


def with_stop_as(bracket: Bracket, change: Callable[[OrderSpec], OrderSpec]) -> Bracket:
    stop = stop_of(bracket)
    return bracket.with_order(replace(stop, spec=change(stop.spec)))


def test_identifier_of_two_orders() -> None:
    bracket = alive()
    twice = replace(bracket, orders=(*bracket.orders, bracket.orders[-1]))
    assert violations_of(twice) == ("S2: an external identifier is used by two orders",)


@pytest.mark.parametrize("kind", ["staged", "suspects"])
def test_used_identifier_waiting_to_be_used_again(kind: str) -> None:
    bracket = alive()
    again = replace(bracket, **{kind: ((Role.STOP, stop_of(bracket).external_identifier),)})  # type: ignore[arg-type]
    assert violations_of(again) == ("S2: a used external identifier is staged to be used again",)


def test_second_entry_with_a_fill() -> None:
    bracket = alive()
    entry = bracket.entries[0]
    other = replace(entry, external_identifier=bracket.staged[0][1], views=())
    other = other.learn(report_of(entry.spec, "900", W.FILLED, 1))
    doubled = replace(bracket, orders=(*bracket.orders, other), staged=())
    assert violations_of(doubled) == ("S3: two entries of one bracket have filled",)


def test_exit_without_a_filled_entry() -> None:
    bracket = alive()
    entry = bracket.entries[0]
    unfilled = bracket.with_order(replace(entry, views=(), state=OrderState.WORKING))
    # What the broker has shown may be an earlier run's doing, and the word of the fill still on its way.
    assert violations_of(unfilled) == ()
    unshown = tuple(order if order is entry else replace(order, views=()) for order in unfilled.orders)
    found = violations_of(replace(unfilled, orders=unshown))
    assert len(found) == 2
    assert all(text.startswith("S4: the ") for text in found)


def test_children_of_the_entrys_own_group_may_stand_before_its_fill() -> None:
    assert violations_of(Core(Protection.NATIVE_OTOCO).bracket) == ()


def test_members_of_another_group_may_not_stand_before_the_entrys_fill() -> None:
    bracket = Core(Protection.NATIVE_OTOCO).bracket
    stop = stop_of(bracket)
    other = bracket.with_order(replace(stop, group=stop.external_identifier))
    assert [text[:3] for text in violations_of(other)] == ["S4:"]


def test_exit_that_is_not_strict() -> None:
    found = violations_of(with_stop_as(alive(), lambda spec: replace(spec, strict=False)))
    assert [text for text in found if "is not strict" in text and text.startswith("S7: the stop")] == list(found) != []


def test_exit_that_opens() -> None:
    bracket = alive()
    found = violations_of(with_stop_as(bracket, lambda spec: replace(spec, legs=bracket.request.entry.legs)))
    assert [text for text in found if text.endswith(" opens") and text.startswith("S7: the stop")] == list(found) != []


def test_closed_without_a_time() -> None:
    closed = replace(alive(), state=BracketState.CLOSED, outcome=Outcome.STOP_FILLED)
    assert violations_of(closed) == ("S8: closed without a time",)


def test_closed_with_an_unknown_outcome() -> None:
    bracket = alive()
    closed = replace(bracket, state=BracketState.CLOSED, outcome=Outcome.STOP_FILLED, closed_at_us=1)
    assert violations_of(closed) == ()
    unknown = closed.with_order(replace(stop_of(bracket), state=OrderState.UNKNOWN))
    assert violations_of(unknown) == ("S8: closed with an unknown outcome",)


def test_released_bracket_may_leave_anything_behind() -> None:
    bracket = alive()
    released = replace(bracket, state=BracketState.CLOSED, outcome=Outcome.RELEASED, closed_at_us=1)
    assert violations_of(released.with_order(replace(stop_of(bracket), state=OrderState.UNKNOWN))) == ()
