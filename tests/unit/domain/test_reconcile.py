"""Whose is it? By the chain, the echo, the broker's id, and last by the place in the container."""

from dataclasses import replace
from decimal import Decimal

import pytest

from otocod.domain.events import ChangeRequested
from otocod.domain.ids import BrokerOrderId, ComplexOrderId, ExternalIdentifier
from otocod.domain.orders import BrokerStatus as W
from otocod.domain.orders import Order, OrderReport
from otocod.domain.reconcile import attribute, spec_from_report
from otocod.domain.specs import OrderType, Protection, Role
from tests.support.core import COMPLEX_ID, Core, parsed, report_of


def seen(order: Order, number: str, **fields: object) -> OrderReport:
    return replace(report_of(order.spec, number, W.LIVE), **fields)  # type: ignore[arg-type]


def moving() -> tuple[Core, Order, Order]:
    """A bracket whose stop is being moved: the stop that works, and its heir that has not been seen."""
    core = Core()
    core.go_live()
    old = core.stop
    spec = replace(old.spec, stop_trigger=Decimal("1.60"), net_price=Decimal("1.80"))
    core.tell(ChangeRequested("operator", ((Role.STOP, spec),)))
    heir = core.stop
    assert heir.replaces == old.external_identifier
    return core, old, heir


def test_echo_names_the_order() -> None:
    core = Core()
    report = seen(core.entry, "77", external_identifier=core.entry.external_identifier)
    assert attribute(core.bracket, report) == core.entry.external_identifier


@pytest.mark.covers("F45")
def test_id_that_is_only_staged_is_ours() -> None:
    core = Core()
    name = next(name for role, name in core.bracket.staged if role is Role.STOP)
    assert attribute(core.bracket, seen(core.entry, "77", external_identifier=name)) == name


def test_known_broker_id_names_the_order_without_an_echo() -> None:
    core = Core()
    core.confirm(core.entry)
    report = seen(core.entry, core.entry.broker_order_id or "")
    assert attribute(core.bracket, report) == core.entry.external_identifier


@pytest.mark.covers("F75")
@pytest.mark.parametrize("echo", [None, ExternalIdentifier("somebody-else")])
def test_order_of_another_is_nobodys(echo: ExternalIdentifier | None) -> None:
    core = Core()
    core.confirm(core.entry)
    assert attribute(core.bracket, seen(core.entry, "77", external_identifier=echo)) is None


@pytest.mark.covers("F59")
@pytest.mark.parametrize("echo", ["own", "inherited", "none"])
def test_replacement_of_an_order_that_we_move_is_the_move_whatever_identifier_it_shows(echo: str) -> None:
    core, old, heir = moving()
    shown = {"own": heir.external_identifier, "inherited": old.external_identifier, "none": None}[echo]
    report = seen(heir, "88", replaces=old.broker_order_id, external_identifier=shown)
    assert attribute(core.bracket, report) == heir.external_identifier


@pytest.mark.covers("F68")
@pytest.mark.parametrize("echo", ["inherited", "none", "foreign"])
def test_replacement_that_we_did_not_ask_for_belongs_to_the_order_it_replaces(echo: str) -> None:
    core = Core()
    core.go_live()
    stop = core.stop
    shown = {"inherited": stop.external_identifier, "none": None, "foreign": ExternalIdentifier("web")}[echo]
    report = seen(stop, "88", replaces=stop.broker_order_id, external_identifier=shown)
    assert attribute(core.bracket, report) == stop.external_identifier


def test_report_of_the_old_order_stays_with_the_old_order_during_a_move() -> None:
    core, old, _ = moving()
    report = seen(old, old.broker_order_id or "", replaced_by=BrokerOrderId("88"))
    assert attribute(core.bracket, report) == old.external_identifier


def test_component_without_echo_is_known_by_container_kind_and_legs() -> None:
    core = Core(Protection.NATIVE_OTOCO)
    for order in core.bracket.orders:
        # The container's id is known, its components' are not: the answer was cut short.
        core.bracket = core.bracket.with_order(replace(order, complex_order_id=COMPLEX_ID))
    for number, order in enumerate((core.target, core.stop)):
        report = seen(order, f"3{number}", complex_order_id=COMPLEX_ID)
        assert attribute(core.bracket, report) == order.external_identifier
    wrong = ComplexOrderId("1")
    assert attribute(core.bracket, seen(core.stop, "33", complex_order_id=wrong)) is None
    smaller = replace(core.stop.spec, legs=tuple(replace(leg, quantity=9) for leg in core.stop.spec.legs))
    other_legs = replace(report_of(smaller, "33", W.LIVE), complex_order_id=COMPLEX_ID)
    assert attribute(core.bracket, other_legs) is None


def test_spec_read_off_a_report_is_the_one_that_was_sent() -> None:
    core = Core()
    core.go_live()
    spec = spec_from_report(core.bracket, report_of(core.stop.spec, "1", W.LIVE))
    assert spec == core.stop.spec
    assert spec.order_type is OrderType.STOP_LIMIT


def test_spec_read_off_a_report_leaves_out_legs_that_are_not_the_brackets() -> None:
    core = Core()
    strange = parsed().entry
    legs = (replace(strange.legs[0], symbol="XYZ   261218C00155000"), strange.legs[1])
    spec = spec_from_report(core.bracket, report_of(replace(strange, legs=legs), "1", W.LIVE))
    assert [leg.symbol for leg in spec.legs] == [strange.legs[1].symbol]
    assert spec.strict
