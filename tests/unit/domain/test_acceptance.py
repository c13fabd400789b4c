"""From a request to a bracket: what is on disk before anything is sent, and in which form the entry leaves."""

from collections import Counter

import pytest

from otocod.domain.acceptance import has_absolute_exits, ladder_for
from otocod.domain.brackets import BracketState as B
from otocod.domain.commands import SubmitComplex, SubmitOrder
from otocod.domain.orders import OrderState as S
from otocod.domain.specs import OrderType, Protection, Role
from tests.support.core import Core, parsed
from tests.support.desk import NATIVE, SHORT

OTOCO, OCO = Protection.NATIVE_OTOCO, Protection.NATIVE_OCO
WATCHED, UNLINKED, AUTO = Protection.WATCHED, Protection.UNLINKED, Protection.AUTO
PERCENT = {"target": {"profit-percent": "50"}, "stop": {"loss-percent": "100", "limit-offset": "0.20"}}
NOTHING: frozenset[Protection] = frozenset()


@pytest.mark.parametrize(
    ("asked", "proved", "ladder"),
    [
        (AUTO, NATIVE, (OTOCO, OCO, WATCHED)),
        (AUTO, {OCO}, (OCO, WATCHED)),
        (AUTO, NOTHING, (WATCHED,)),
        (OTOCO, NOTHING, (OTOCO, OCO, WATCHED)),
        (OCO, NOTHING, (OCO, WATCHED)),
        (WATCHED, NATIVE, (WATCHED,)),
        (UNLINKED, NATIVE, (UNLINKED, WATCHED)),
    ],
)
def test_ladder_is_the_mode_asked_for_and_what_may_follow_it(
    asked: Protection, proved: frozenset[Protection], ladder: tuple[Protection, ...]
) -> None:
    assert ladder_for(parsed(protection=asked.value), frozenset(proved)) == ladder


def test_auto_with_exits_that_hang_on_the_fill_prefers_the_group_after_the_fill() -> None:
    request = parsed(protection="auto", **PERCENT)
    assert not has_absolute_exits(request)
    assert ladder_for(request, NATIVE) == (OCO, WATCHED)


@pytest.mark.parametrize("left_out", ["target", "stop"])
@pytest.mark.parametrize("asked", [AUTO, OTOCO, OCO])
def test_one_exit_alone_needs_no_group(asked: Protection, left_out: str) -> None:
    request = parsed(protection=asked.value, **{left_out: None})
    assert not NATIVE.intersection(ladder_for(request, NATIVE))


def test_market_entry_is_no_trigger_of_a_group() -> None:
    legs = [{"instrument-type": "Equity Option", "symbol": SHORT, "quantity": 1, "action": "Buy to Open"}]
    request = parsed(
        protection="native-otoco",
        entry={"time-in-force": "Day", "order-type": "Market", "legs": legs},
        target={"price": "4.00", "price-effect": "Credit"},
        stop={"trigger": "1.00", "price": "0.90", "price-effect": "Credit"},
    )
    assert request.entry.order_type is OrderType.MARKET
    assert ladder_for(request, NATIVE) == (OCO, WATCHED)


@pytest.mark.parametrize("mode", [OCO, WATCHED, UNLINKED])
def test_entry_alone_waits_for_the_commit(mode: Protection) -> None:
    core = Core(mode)
    (command,) = core.take(SubmitOrder)
    assert command.after_commit
    assert command.member.role is Role.ENTRY
    assert command.member.spec == core.bracket.request.entry
    assert core.entry.state is S.IN_FLIGHT
    assert core.bracket.state is B.PENDING_ENTRY
    assert core.bracket.version == 1


def test_otoco_leaves_as_one_group_entry_first_then_target_then_stop_after_the_commit() -> None:
    core = Core(OTOCO)
    (command,) = core.take(SubmitComplex)
    assert command.after_commit
    assert command.kind == "OTOCO"
    assert [member.role for member in command.members] == [Role.ENTRY, Role.TARGET, Role.STOP]
    assert {order.group for order in core.bracket.orders} == {core.entry.external_identifier}
    assert all(member.spec.strict for member in command.members[1:])


@pytest.mark.parametrize("mode", [OTOCO, OCO])
def test_every_role_has_four_ids_made_with_the_acceptance_and_no_two_are_equal(mode: Protection) -> None:
    core = Core(mode)
    used = [(order.role, order.external_identifier) for order in core.bracket.orders]
    every = [*used, *core.bracket.staged]
    assert Counter(role for role, _ in every) == dict.fromkeys(Role, 4)
    assert len({name for _, name in every}) == len(every)


def test_same_bracket_accepted_again_makes_the_same_ids() -> None:
    assert Core().bracket == Core().bracket


def test_journal_begins_with_the_acceptance_from_nothing() -> None:
    core = Core()
    assert core.journal == ["BracketAccepted"]
    assert core.path == [B.PENDING_ENTRY]


def test_target_that_walks_is_watched_for_whatever_the_account_takes() -> None:
    request = parsed(walk={"target": {"step": "0.01", "replaces": 5}})
    assert ladder_for(request, NATIVE) == (WATCHED,)
    assert ladder_for(parsed(walk={"stop": {"step": "0.05"}}), NATIVE) == (OTOCO, OCO, WATCHED)
