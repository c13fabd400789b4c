"""Changed records are what `dataclasses.replace` would make, and what was derived stays only where it still holds."""

import uuid
from dataclasses import FrozenInstanceError, replace

import pytest

from otocod.domain.brackets import Bracket, made_id
from otocod.domain.ids import BracketId
from otocod.domain.orders import Order, OrderState
from otocod.domain.records import changed, forget_derived
from otocod.domain.specs import Role
from tests.support.stored_records import changes_of_life

LIFE = [change.after for change in changes_of_life()]


@pytest.mark.parametrize("bracket", LIFE, ids=lambda bracket: f"v{bracket.version}")
def test_a_changed_record_is_the_replaced_one_and_of_its_kind(bracket: Bracket) -> None:
    new = changed(bracket, {"attention": "look", "rearms": 7})
    assert new == replace(bracket, attention="look", rearms=7)
    assert type(new) is Bracket
    assert hash(new) == hash(replace(bracket, attention="look", rearms=7))


def test_an_identifier_is_the_name_based_uuid_of_its_bracket_role_and_number() -> None:
    name = BracketId("0199b1c0-0000-7000-8000-000000000001")
    for role in Role:
        for number in range(300):
            assert made_id(name, role, number) == str(uuid.uuid5(uuid.UUID(name), f"{role}/{number}"))


def test_what_was_derived_is_forgotten_and_worked_out_again() -> None:
    bracket = LIFE[-1]
    entries = bracket.entries
    assert bracket.__dict__
    forget_derived(bracket)
    assert not bracket.__dict__
    forget_derived(bracket)
    assert bracket.entries == entries


def test_a_changed_record_is_frozen_like_any_other() -> None:
    new = changed(LIFE[0], {"rearms": 7})
    with pytest.raises(FrozenInstanceError):
        new.rearms = 8  # type: ignore[misc]


def test_nothing_changed_is_the_record_itself() -> None:
    assert changed(LIFE[0], {"rearms": LIFE[0].rearms}) is LIFE[0]


def test_a_name_that_is_no_field_is_refused() -> None:
    with pytest.raises(KeyError):
        changed(LIFE[0], {"rearmed": 1})


def _derived_of(bracket: Bracket) -> tuple[object, ...]:
    return (
        bracket.size,
        bracket.entries,
        bracket.exits,
        bracket.entry_units,
        bracket.exit_units,
        bracket.open_by_leg,
        bracket.open_units,
        bracket.entry_net_price,
        bracket.unknown_orders,
    )


def _variants(bracket: Bracket) -> list[Order]:
    """Each order moved on, without its views, and one more of each role."""
    found: list[Order] = []
    for order in bracket.orders:
        found += [
            replace(order, state=OrderState.UNKNOWN),
            replace(order, views=()),
            replace(order, external_identifier=made_id(bracket.bracket_id, order.role, 90), views=()),
            replace(order, external_identifier=made_id(bracket.bracket_id, order.role, 91), role=Role.CLOSE),
        ]
    return found


@pytest.mark.parametrize("bracket", LIFE, ids=lambda bracket: f"v{bracket.version}")
def test_what_is_derived_after_an_order_changed_is_what_would_be_derived_anew(bracket: Bracket) -> None:
    for order in _variants(bracket):
        _derived_of(bracket)
        kept = bracket.with_order(order)
        assert _derived_of(kept) == _derived_of(replace(kept))
