"""What is known of one order: a join of everything the broker said, in whatever order it was said."""

from dataclasses import replace
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest

from otocod.domain.ids import BrokerOrderId, ComplexOrderId, ExternalIdentifier, FillId
from otocod.domain.orders import BrokerStatus as W
from otocod.domain.orders import Fill, Order, OrderReport, OrderState, Refusal, join_all
from otocod.domain.specs import Role
from tests.support.core import parsed, report_of
from tests.support.desk import LONG, SHORT, START_US

SPEC = parsed(quantity=3).entry
ORDER = Order(ExternalIdentifier("x-1"), Role.ENTRY, SPEC, OrderState.IN_FLIGHT, START_US)
ENDS = [status for status in W if status.is_terminal]


def said(status: W, filled: int | dict[str, int] = 0, number: str = "10", **fields: Any) -> OrderReport:
    return report_of(SPEC, number, status, filled, **fields)


def known(*reports: OrderReport) -> Order:
    return join_all(ORDER, reports)


def each_order(*reports: OrderReport) -> list[Order]:
    return [join_all(ORDER, arranged) for arranged in permutations(reports)]


@pytest.mark.covers("F22")
def test_repeated_message_changes_nothing_not_even_the_object() -> None:
    report = said(W.LIVE, 1)
    once = ORDER.learn(report)
    assert once is not ORDER
    assert once.learn(report) is once


@pytest.mark.covers("F23")
def test_messages_in_any_order_give_the_same_knowledge() -> None:
    history = (
        said(W.ROUTED),
        said(W.LIVE),
        said(W.LIVE, 1),
        said(W.FILLED, {SHORT: 3, LONG: 1}),
        said(W.FILLED, 3),
    )
    assert len(set(each_order(*history))) == 1


@pytest.mark.covers("F23")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("stale", [status for status in W if not status.is_terminal])
def test_stale_message_does_not_bring_a_terminal_order_back(end: W, stale: W) -> None:
    for order in each_order(said(stale), said(end)):
        assert order.head is not None
        assert order.head.status is end


@pytest.mark.covers("F42")
@pytest.mark.parametrize("end", [status for status in ENDS if status is not W.FILLED])
def test_filled_wins_over_every_other_end(end: W) -> None:
    for order in each_order(said(end), said(W.FILLED, 3)):
        assert order.head is not None
        assert order.head.status is W.FILLED
        assert order.filled(SHORT) == 3


@pytest.mark.covers("F42")
def test_fills_that_come_after_cancelled_still_count() -> None:
    order = known(said(W.CANCELLED), said(W.CANCELLED, 2))
    assert (order.filled(SHORT), order.filled(LONG)) == (2, 2)
    assert order.head is not None
    assert order.head.status is W.CANCELLED


@pytest.mark.covers("F24")
def test_filled_with_one_legs_fills_means_every_leg_but_the_price_waits_for_all() -> None:
    first = known(said(W.FILLED, {SHORT: 3}))
    assert (first.filled(SHORT), first.filled(LONG)) == (3, 3)
    assert not first.has_all_fills
    assert first.learn(said(W.FILLED, 3)).has_all_fills


@pytest.mark.covers("F24", "F27")
def test_filled_whose_legs_could_not_be_read_is_still_filled() -> None:
    order = known(replace(said(W.FILLED), legs=()))
    assert order.has_any_fill
    assert (order.filled(SHORT), order.filled(LONG)) == (3, 3)
    assert not order.has_all_fills


def test_cancelled_whose_legs_could_not_be_read_has_no_fill() -> None:
    assert not known(replace(said(W.CANCELLED), legs=())).has_any_fill


@pytest.mark.covers("F25")
def test_later_message_with_fewer_fills_takes_none_away() -> None:
    full, empty = said(W.LIVE, 2), said(W.LIVE, 0)
    for order in each_order(full, empty):
        assert order.filled(SHORT) == 2
        assert len(order.fills) == 4


@pytest.mark.covers("F25")
def test_remaining_quantity_counts_fills_that_were_never_listed() -> None:
    order = known(said(W.LIVE, 2, with_fills=False))
    assert order.filled(LONG) == 2
    assert order.fills == ()


def test_leg_without_a_remaining_quantity_is_counted_by_its_fills() -> None:
    report = said(W.LIVE, 1)
    bare = replace(report, legs=tuple(replace(leg, remaining=None) for leg in report.legs))
    assert known(bare).filled(SHORT) == 1


@pytest.mark.parametrize("remaining", [9, 10**6])
def test_more_remaining_than_ordered_is_no_negative_fill(remaining: int) -> None:
    report = said(W.LIVE)
    odd = replace(report, legs=tuple(replace(leg, remaining=remaining) for leg in report.legs))
    assert known(odd).filled(SHORT) == 0


@pytest.mark.covers("F23", "F54")
def test_order_taken_down_by_the_broker_is_smaller_and_none_of_it_filled_in_any_order_of_messages() -> None:
    smaller = replace(SPEC, legs=tuple(replace(leg, quantity=2) for leg in SPEC.legs))
    for order in each_order(said(W.LIVE), report_of(smaller, "10", W.LIVE), said(W.LIVE)):
        assert (order.filled(SHORT), order.left(SHORT)) == (0, 2)
    for order in each_order(said(W.LIVE), report_of(smaller, "10", W.LIVE, 1), report_of(smaller, "10", W.FILLED, 2)):
        assert (order.filled(SHORT), order.left(SHORT)) == (2, 0)


@pytest.mark.covers("F23", "F43")
def test_two_versions_of_one_fill_give_the_same_knowledge_in_both_orders() -> None:
    report = said(W.LIVE, 1)
    fill = Fill(FillId(f"10-{SHORT.strip()}-0"), 1, Decimal("2.05"), None)
    other = replace(report, legs=(replace(report.legs[0], fills=(fill,)), report.legs[1]))
    first, second = each_order(report, other)
    assert first == second
    assert len(first.fills) == 2


@pytest.mark.covers("F59", "F68")
def test_replacement_chain_is_one_order_in_any_order_of_messages() -> None:
    old = said(W.CANCELLED, 1, replaced_by=BrokerOrderId("11"))
    new = said(W.LIVE, number="11", replaces=BrokerOrderId("10"))
    for order in each_order(said(W.LIVE, 1), old, new):
        assert order.broker_order_id == "11"
        assert len(order.heads) == 1
        assert order.filled(SHORT) == 1
        assert order.status_text == "Live"


@pytest.mark.covers("F59")
@pytest.mark.parametrize("link", ["replaces", "replaced_by"])
def test_chain_is_followed_whichever_end_names_the_other(link: str) -> None:
    old = said(W.CANCELLED, replaced_by=BrokerOrderId("11") if link == "replaced_by" else None)
    new = said(W.LIVE, number="11", replaces=BrokerOrderId("10") if link == "replaces" else None)
    for order in each_order(old, new):
        assert [view.broker_order_id for view in order.heads] == ["11"]


def test_replacement_for_the_rest_brings_the_chain_to_the_whole_quantity() -> None:
    rest = replace(SPEC, legs=tuple(replace(leg, quantity=2) for leg in SPEC.legs))
    order = known(
        said(W.CANCELLED, 1, replaced_by=BrokerOrderId("11")),
        report_of(rest, "11", W.FILLED, 2, replaces=BrokerOrderId("10")),
    )
    assert (order.filled(SHORT), order.filled(LONG)) == (3, 3)
    assert order.has_all_fills


@pytest.mark.covers("F24", "F59")
def test_filled_replacement_whose_legs_could_not_be_read_brings_no_more_than_the_whole_quantity() -> None:
    order = known(
        said(W.CANCELLED, 1, replaced_by=BrokerOrderId("11")),
        said(W.FILLED, number="11", replaces=BrokerOrderId("10"), legs=()),
    )
    assert (order.filled(SHORT), order.filled(LONG)) == (3, 3)


@pytest.mark.covers("F59")
def test_fill_repeated_by_the_replacement_counts_once() -> None:
    old = said(W.CANCELLED, 1, replaced_by=BrokerOrderId("11"))
    repeating = replace(
        said(W.LIVE, number="11", replaces=BrokerOrderId("10")),
        legs=old.legs,
    )
    for order in each_order(old, repeating):
        assert order.filled(SHORT) == 1


@pytest.mark.covers("F24", "F59")
def test_filled_original_speaks_for_the_order_whose_replacement_was_aborted() -> None:
    for order in each_order(
        said(W.FILLED, {SHORT: 3}, replaced_by=BrokerOrderId("11")),
        said(W.REJECTED, number="11", replaces=BrokerOrderId("10")),
    ):
        assert order.status_text == "Filled"
        assert (order.filled(SHORT), order.filled(LONG)) == (3, 3)


@pytest.mark.covers("F25", "F59")
def test_fill_known_by_its_remaining_quantity_alone_is_not_forgotten_when_the_order_is_replaced() -> None:
    order = known(said(W.LIVE, 1, with_fills=False))
    assert order.filled(SHORT) == 1
    assert order.learn(said(W.LIVE, number="11", replaces=BrokerOrderId("10"))).filled(SHORT) == 1


@pytest.mark.covers("F15")
def test_two_unlinked_orders_with_one_identifier_are_two_heads_and_a_working_one_speaks() -> None:
    for order in each_order(said(W.LIVE, number="9"), said(W.CANCELLED, number="10")):
        assert [view.broker_order_id for view in order.heads] == ["9", "10"]
        assert order.broker_order_id == "9"


@pytest.mark.covers("F15")
def test_order_is_not_over_while_its_double_works() -> None:
    order = replace(known(said(W.FILLED, 3), said(W.LIVE, number="11")), state=OrderState.FILLED)
    assert not order.is_terminal
    assert order.learn(said(W.CANCELLED, number="11")).is_terminal


@pytest.mark.covers("F16")
def test_doubles_that_both_filled_count_twice() -> None:
    assert known(said(W.FILLED, 3), said(W.FILLED, 3, number="11")).filled(SHORT) == 6


def test_age_goes_by_number_not_by_text() -> None:
    order = known(said(W.LIVE, number="10"), said(W.LIVE, number="9"))
    assert order.broker_order_id == "9"


@pytest.mark.covers("F27")
def test_status_we_do_not_know_is_no_end_and_hides_none() -> None:
    strange = said(W.UNRECOGNISED, status_text="Remove Pending")
    assert not strange.status.is_terminal
    assert known(strange).status_text == "Remove Pending"
    for order in each_order(strange, said(W.LIVE)):
        assert order.status_text == "Live"


def test_container_once_known_is_kept() -> None:
    order = known(said(W.LIVE, complex_order_id=ComplexOrderId("7")), said(W.FILLED, 3))
    assert order.complex_order_id == "7"


def test_status_is_ours_until_the_broker_has_one() -> None:
    assert ORDER.status_text == "IN_FLIGHT"
    assert ORDER.broker_order_id is None
    assert not ORDER.has_any_fill
    assert known(said(W.CONTINGENT)).status_text == "Contingent"


def test_refusal_names_its_codes_or_its_status() -> None:
    assert Refusal(422, ("a", "b"), "no").text == "a, b: no"
    assert Refusal(400, (), "no").text == "400: no"
