"""Protection: which exits go out, when they count as in force, and what their refusals and ends lead to."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from otocod.domain.brackets import BracketState as B
from otocod.domain.brackets import OnUnprotectable, Outcome
from otocod.domain.commands import (
    CancelComplex,
    CancelOrder,
    Command,
    FetchQuote,
    ReadComplex,
    ReadOrder,
    ReplaceOrder,
    SubmitComplex,
    SubmitOrder,
)
from otocod.domain.events import ChangeRequested, QuoteReported
from otocod.domain.ids import BrokerOrderId
from otocod.domain.orders import BrokerStatus as W
from otocod.domain.orders import Order, Refusal
from otocod.domain.orders import OrderState as S
from otocod.domain.protecting import wanted_roles
from otocod.domain.specs import Protection, Role
from tests.support.core import COMPLEX_ID, MARGIN, OPPOSITE, Core, report_of
from tests.support.desk import LONG, POLICY, SECOND_US, SHORT

PERCENT = {"target": {"profit-percent": "50"}, "stop": {"loss-percent": "100", "limit-offset": "0.20"}}
RESERVED = Refusal(422, ("cannot_close_against_more_than_existing_position",), "too much")
DECIMAL = Decimal


def refused_again_and_again(core: Core, seconds: float, refusal: Refusal = MARGIN) -> list[float]:
    """Refuses every exit as it is sent, and says when each was, in seconds from the first."""
    since_us = core.now_us
    at_s: list[float] = []
    end_us = core.now_us + round(seconds * SECOND_US)
    while core.now_us <= end_us:
        for submit in core.take(SubmitOrder):
            if submit.member.role in (Role.STOP, Role.TARGET):
                at_s.append((core.now_us - since_us) / SECOND_US)
                core.refuse(*core._orders([submit.member.external_identifier]), refusal=refusal)
            elif submit.member.role is Role.CLOSE:
                core.sent.append(submit)
                return at_s
        core.wait(0.25)
    return at_s


def sends(core: Core) -> list[Command]:
    """Whatever would put an order at the broker, since last asked."""
    return [*core.take(SubmitOrder), *core.take(SubmitComplex), *core.take(ReplaceOrder)]


def oco(status: W = W.LIVE) -> Core:
    core = Core(Protection.NATIVE_OCO)
    core.fill_entry()
    core.take(SubmitComplex)
    core.confirm(core.target, core.stop, status=status)
    return core


# What goes out.


@pytest.mark.covers("F24")
@pytest.mark.parametrize("mode", [Protection.UNLINKED, Protection.NATIVE_OCO, Protection.WATCHED])
def test_first_filled_message_with_one_legs_fills_sends_exits_for_the_whole_size_at_once(mode: Protection) -> None:
    core = Core(mode, quantity=3)
    core.confirm(core.entry)
    core.sent.clear()
    core.report(core.entry, W.FILLED, {SHORT: 3})
    members = [member for command in core.take(SubmitComplex) for member in command.members]
    members += [command.member for command in core.take(SubmitOrder)]
    assert {leg.quantity for member in members for leg in member.spec.legs} == {3}
    assert Role.STOP in {member.role for member in members}
    assert len(members) == (1 if mode is Protection.WATCHED else 2)


def test_exits_leave_at_once_on_ids_that_are_already_durable_the_stop_first() -> None:
    core = Core()
    staged = {name for _, name in core.bracket.staged}
    core.fill_entry()
    sent = core.take(SubmitOrder)[1:]
    assert [command.member.role for command in sent] == [Role.STOP, Role.TARGET]
    assert all(not command.after_commit and command.member.external_identifier in staged for command in sent)
    assert all(command.member.spec.strict for command in sent)


def test_ids_beyond_the_spares_wait_for_the_commit() -> None:
    core = Core(Protection.WATCHED)
    core.fill_entry()
    waits = []
    for _ in range(6):
        (command,) = [found for found in core.take(SubmitOrder) if found.member.role is Role.STOP]
        waits.append(command.after_commit)
        core.confirm(core.stop)
        core.report(core.stop, W.EXPIRED)
    assert waits == [False, False, False, False, True, False]


@pytest.mark.parametrize(
    ("left_out", "roles"), [({}, (Role.STOP,)), ({"target": None}, (Role.STOP,)), ({"stop": None}, (Role.TARGET,))]
)
def test_in_watched_the_stop_rests_or_what_there_is(left_out: dict[str, None], roles: tuple[Role, ...]) -> None:
    assert wanted_roles(replace(Core(changes=left_out).bracket, ladder=(Protection.WATCHED,))) == roles


# Prices from fills.


def percent(mode: Protection = Protection.UNLINKED) -> Core:
    core = Core(mode, changes=PERCENT)
    core.confirm(core.entry)
    core.sent.clear()
    core.report(core.entry, W.FILLED, {SHORT: 1})
    return core


@pytest.mark.covers("F24")
def test_percent_exits_wait_for_the_other_legs_fills_and_go_by_the_price_that_was_paid() -> None:
    core = percent()
    assert core.take(SubmitOrder) == []
    core.wait(0.2)
    core.report(core.entry, W.FILLED, 1)
    assert core.bracket.entry_net_price == DECIMAL("-0.85")
    assert (core.stop.spec.stop_trigger, core.target.spec.net_price) == (DECIMAL("1.70"), DECIMAL("0.42"))
    assert core.take(ReadOrder) == []


@pytest.mark.covers("F24")
def test_fills_that_do_not_come_are_read_after_300_ms_and_after_a_second_exits_go_by_the_limit() -> None:
    core = percent()
    core.wait(0.299)
    assert core.take(ReadOrder) == []
    core.wait(0.001)
    assert {command.broker_order_id for command in core.take(ReadOrder)} == {core.entry.broker_order_id}
    core.wait(0.699)
    assert core.take(SubmitOrder) == []
    core.wait(0.001)
    assert [command.member.role for command in core.take(SubmitOrder)] == [Role.STOP, Role.TARGET]
    core.confirm(core.stop)
    core.confirm(core.target)
    core.wait(5)
    assert core.bracket.state is B.EXITS_LIVE
    assert core.journal.count("FillsMissing") == 1


def better_fills(core: Core) -> None:
    """The entry was sold for 0.90, not for its limit of 0.85."""
    report = report_of(core.entry.spec, core.id_of(core.entry), W.FILLED, 1)
    short, long = report.legs
    fills = tuple(replace(fill, price=DECIMAL("1.10")) for fill in long.fills)
    core.report(core.entry, W.FILLED, legs=(short, replace(long, fills=fills)))


@pytest.mark.covers("F24")
def test_exits_sent_by_the_limit_are_corrected_by_replace_when_the_fills_come() -> None:
    core = percent()
    core.wait(1)
    core.confirm(core.stop)
    core.confirm(core.target)
    better_fills(core)
    moved: list[tuple[Role, Decimal | None]] = []
    for role in (Role.STOP, Role.TARGET):
        old, heir = core.bracket.orders_of(role)[-2:] if len(core.bracket.orders_of(role)) > 1 else (None, None)
        assert old is not None and heir is not None
        (command,) = core.take(ReplaceOrder)
        moved.append((command.member.role, command.member.spec.net_price))
        core.confirm(heir)
        core.report(old, W.CANCELLED)
    assert moved == [(Role.STOP, DECIMAL("2.00")), (Role.TARGET, DECIMAL("0.45"))]
    assert core.bracket.state is B.EXITS_LIVE


def test_members_of_a_group_sent_by_the_limit_stay_as_they_are() -> None:
    core = percent(Protection.NATIVE_OCO)
    core.wait(1)
    core.confirm(core.target, core.stop)
    better_fills(core)
    core.wait(5)
    assert core.take(ReplaceOrder) == []


# Unprotected.


def test_unprotected_time_is_measured_from_the_first_fill_and_its_limit_from_the_entrys_end() -> None:
    core = Core(quantity=2)
    core.confirm(core.entry)
    core.wait(1)
    core.report(core.entry, W.LIVE, 1)
    assert core.path == [B.PENDING_ENTRY, B.ENTRY_FILLED]
    core.wait(20)
    assert core.alarms == []
    core.report(core.entry, W.FILLED, 2)
    core.wait(4)
    assert core.alarms == []
    core.confirm_exits()
    assert core.bracket.state is B.EXITS_LIVE
    assert core.bracket.unprotected_us == 24 * SECOND_US
    assert core.bracket.unprotected_since_us is None


def test_exits_unconfirmed_for_longer_than_the_limit_are_an_alarm() -> None:
    core = Core()
    core.fill_entry()
    core.wait(4.9)
    assert core.alarms == []
    core.wait(0.2)
    assert core.alarms == ["unprotected_long"]


@pytest.mark.covers("F61")
def test_exit_that_stays_received_is_held_for_the_session_and_counts_after_five_seconds() -> None:
    core = Core()
    core.fill_entry()
    for order in (core.stop, core.target):
        core.confirm(order, status=W.RECEIVED)
    core.wait(4.9)
    assert core.bracket.state is B.ENTRY_FILLED
    core.wait(0.1)
    assert core.path[-1] is B.EXITS_LIVE


@pytest.mark.parametrize("status", [W.ROUTED, W.IN_FLIGHT, W.CONTINGENT, W.UNRECOGNISED])
def test_exit_that_is_not_working_is_no_protection(status: W) -> None:
    core = Core()
    core.fill_entry()
    for order in (core.stop, core.target):
        core.confirm(order, status=status)
    core.wait(60)
    assert core.bracket.state is B.ENTRY_FILLED


# Native groups.


def test_contingent_members_are_not_armed_until_the_container_was_read_and_it_is_read_again_after_30_s() -> None:
    core = oco(W.CONTINGENT)
    assert core.bracket.state is B.ENTRY_FILLED
    assert [command.complex_order_id for command in core.take(ReadComplex)] == [COMPLEX_ID]
    core.wait(1)
    assert len(core.take(ReadComplex)) == 1
    core.read_group(core.target, core.stop, status=W.CONTINGENT)
    assert core.path[-1] is B.EXITS_LIVE
    core.wait(29.9)
    assert core.take(ReadComplex) == []
    core.wait(0.1)
    assert len(core.take(ReadComplex)) == 1
    core.read_group(core.target, core.stop, status=W.CONTINGENT)
    core.wait(300)
    assert core.take(ReadComplex) == []


@pytest.mark.covers("F38")
def test_otoco_whose_entry_ended_part_filled_is_left_confirmed_and_followed_by_the_next_mode() -> None:
    core = Core(Protection.NATIVE_OTOCO, quantity=3)
    core.confirm(*core.bracket.orders, status=W.CONTINGENT)
    core.report(core.entry, W.CANCELLED, 2)
    (cancel,) = core.take(CancelComplex)
    assert cancel.after_commit
    assert core.take(SubmitComplex)[1:] == []
    core.report(core.target, W.CANCELLED)
    core.report(core.stop, W.CANCELLED)
    (again,) = core.take(SubmitComplex)
    assert core.bracket.protection is Protection.NATIVE_OCO
    assert {leg.quantity for member in again.members for leg in member.spec.legs} == {2}


@pytest.mark.covers("F11", "F51")
def test_refused_group_falls_to_the_stop_alone_on_an_id_not_used_before() -> None:
    core = Core(Protection.NATIVE_OCO)
    core.fill_entry()
    core.sent.clear()
    used = {order.external_identifier for order in core.bracket.orders}
    core.refuse(core.target, core.stop)
    (command,) = core.take(SubmitOrder)
    assert command.member.role is Role.STOP
    assert command.member.external_identifier not in used
    assert core.bracket.protection is Protection.WATCHED
    assert core.alarms == ["exit_alone"]


@pytest.mark.covers("F51")
def test_member_of_a_group_ended_by_the_broker_takes_the_group_away_and_a_new_one_follows() -> None:
    core = oco()
    core.report(core.stop, W.CANCELLED)
    # Most often such an end means that the mate has filled and nobody heard: it is read first.
    assert [read.external_identifier for read in core.take(ReadOrder)] == [core.target.external_identifier]
    assert core.take(CancelComplex) == []
    core.wait(1.1)
    assert len(core.take(CancelComplex)) == 1
    assert core.take(SubmitComplex) == []
    core.report(core.target, W.CANCELLED)
    assert len(core.take(SubmitComplex)) == 1
    assert core.bracket.rearms == 1


@pytest.mark.covers("F51")
@pytest.mark.parametrize("status", [W.CONTINGENT, W.LIVE])
def test_stop_left_of_a_broken_group_is_trusted_in_the_next_mode_only_if_it_works(status: W) -> None:
    """Contingent says nothing by itself, and of a container with a dead member nothing can be read."""
    core = oco(status)
    core.read_group(core.target, core.stop, status=status)
    core.bracket = core.bracket.changed({"rearms": 2})
    core.sent.clear()
    core.report(core.target, W.REMOVED)
    core.wait(1.1)
    assert core.bracket.protection is Protection.WATCHED
    if status is W.LIVE:
        assert core.take(CancelComplex) == []
        assert core.bracket.state is B.EXITS_LIVE
        return
    assert len(core.take(CancelComplex)) == 1
    assert core.take(SubmitOrder) == []
    core.report(core.stop, W.CANCELLED)
    (again,) = core.take(SubmitOrder)
    assert again.member.role is Role.STOP
    core.confirm_exits()
    core.report(core.stop, W.LIVE)
    core.restart(clean=True)
    core.report(core.stop, W.LIVE)
    assert core.bracket.state is B.EXITS_LIVE


# The ladder.


@pytest.mark.covers("F52")
def test_second_exit_refused_by_the_reservation_leaves_the_stop_alone_and_is_not_tried_again() -> None:
    core = Core()
    core.fill_entry()
    core.confirm(core.stop)
    core.sent.clear()
    core.refuse(core.target, refusal=RESERVED)
    core.wait(60)
    assert core.take(SubmitOrder) == []
    assert core.bracket.protection is Protection.WATCHED
    assert core.path[-1] is B.EXITS_LIVE


@pytest.mark.covers("F52")
def test_stop_refused_because_the_target_rests_takes_the_target_away_first() -> None:
    core = Core()
    core.fill_entry()
    core.confirm(core.target)
    core.sent.clear()
    core.refuse(core.stop, refusal=RESERVED)
    assert [command.external_identifier for command in core.take(CancelOrder)] == [core.target.external_identifier]
    assert core.take(SubmitOrder) == []
    core.report(core.target, W.CANCELLED)
    assert [command.member.role for command in core.take(SubmitOrder)] == [Role.STOP]


@pytest.mark.covers("F51", "F53")
@pytest.mark.parametrize("refusal", [MARGIN, OPPOSITE], ids=["margin", "opposite"])
def test_stop_refused_in_the_last_mode_is_tried_again_one_limit_apart_then_closed_at_the_natural_price(
    refusal: Refusal,
) -> None:
    core = Core(Protection.WATCHED)
    core.fill_entry()
    core.take(SubmitOrder)
    core.refuse(core.stop, refusal=refusal)
    since_us = core.now_us
    at_s = refused_again_and_again(core, 14.9, refusal)
    assert at_s == [5, 10]
    assert core.bracket.state is B.ENTRY_FILLED
    assert "unprotectable" not in core.alarms
    names = [order.external_identifier for order in core.bracket.orders_of(Role.STOP)]
    assert len(set(names)) == len(names)
    while core.bracket.close is None:
        refused_again_and_again(core, 0)
    assert 15 <= (core.now_us - since_us) / SECOND_US < 16
    assert core.alarms[-1] == "unprotectable"
    assert len(core.take(FetchQuote)) == 1
    core.tell(QuoteReported(DECIMAL("0.93")))
    (command,) = core.take(SubmitOrder)
    assert (command.member.role, command.member.spec.net_price) == (Role.CLOSE, DECIMAL("0.93"))
    core.confirm(core.last(Role.CLOSE))
    core.report(core.last(Role.CLOSE), W.FILLED, 1)
    assert core.bracket.outcome is Outcome.STOP_FILLED


@pytest.mark.covers("F51")
def test_stop_refused_in_every_mode_goes_down_the_whole_ladder_first() -> None:
    core = Core(Protection.NATIVE_OTOCO)
    core.refuse(*core.bracket.orders)
    core.fill_entry()
    core.refuse(core.target, core.stop)
    assert core.bracket.ladder == (Protection.WATCHED,)
    refused_again_and_again(core, 30)
    assert core.bracket.close is not None
    assert core.bracket.close.since_us - (core.bracket.exits_allowed_us or 0) >= 15 * SECOND_US


@pytest.mark.covers("F51")
def test_unprotectable_position_is_only_alarmed_where_the_policy_says_so() -> None:
    core = Core(Protection.WATCHED, policy=replace(POLICY, on_unprotectable=OnUnprotectable.ALERT))
    core.fill_entry()
    at_s = refused_again_and_again(core, 40)
    assert at_s == [0, 5, 10, 15, 20, 25, 30, 35, 40]
    assert core.bracket.close is None
    assert "unprotected" in core.alarms
    assert core.bracket.state is B.ENTRY_FILLED


@pytest.mark.covers("F51")
def test_stop_accepted_after_refusals_begins_the_count_anew() -> None:
    core = Core(Protection.WATCHED)
    core.fill_entry()
    assert refused_again_and_again(core, 9) == [0, 5]
    core.wait(1)
    core.confirm(core.stop)
    assert core.bracket.state is B.EXITS_LIVE
    core.wait(59)
    assert core.bracket.stop_refusals == 2, "one that is ended again at once has protected nothing"
    core.wait(2)
    assert core.bracket.stop_refusals == 0


# Ends of exits.


@pytest.mark.covers("F56")
@pytest.mark.parametrize("mode", [Protection.UNLINKED, Protection.NATIVE_OCO])
def test_expired_day_exits_are_sent_again_at_once_without_an_alarm(mode: Protection) -> None:
    core = Core(mode)
    core.go_live()
    before = {order.external_identifier for order in core.bracket.exits}
    for order in (core.stop, core.target):
        core.report(order, W.EXPIRED)
    again = core.live(Role.STOP, Role.TARGET)
    assert {order.role for order in again} == {Role.STOP, Role.TARGET}
    assert not before.intersection(order.external_identifier for order in again)
    assert core.alarms == []
    assert core.bracket.rearms == 0


@pytest.mark.covers("F51")
def test_stop_ended_by_the_broker_is_rearmed_at_once_then_after_a_second_then_the_ladder_moves() -> None:
    core = Core()
    core.go_live()
    for ended, pause_s in enumerate((0, 1), 1):
        core.sent.clear()
        core.report(core.stop, W.REJECTED, reject_reason="Session offline")
        assert core.bracket.rearms == ended
        core.wait(pause_s - 0.01 if pause_s else 0)
        assert bool(core.take(SubmitOrder)) is not bool(pause_s)
        core.wait(0.01)
        assert core.bracket.protection is Protection.UNLINKED
        core.confirm(core.stop)
    core.report(core.stop, W.REJECTED, reject_reason="Session offline")
    assert core.bracket.protection is Protection.WATCHED


@pytest.mark.covers("F51")
def test_stop_that_is_taken_and_ended_every_time_is_not_sent_as_fast_as_the_broker_can_end_it() -> None:
    core = Core()
    core.go_live()
    at_s = []
    for _ in range(200):
        core.report(core.stop, W.REJECTED)
        at_s += [core.now_us / SECOND_US for submit in core.take(SubmitOrder) if submit.member.role is Role.STOP]
        core.wait(0.02)
        at_s += [core.now_us / SECOND_US for submit in core.take(SubmitOrder) if submit.member.role is Role.STOP]
    assert max(sum(first <= later < first + 1 for later in at_s) for first in at_s) <= 4


@pytest.mark.covers("F67")
@pytest.mark.parametrize(
    ("policy", "check"),
    [
        ("hold", lambda core: core.bracket.is_held and core.take(SubmitOrder) == []),
        ("restore", lambda core: [sent.member.role for sent in core.take(SubmitOrder)] == [Role.STOP]),
        ("release", lambda core: core.bracket.outcome is Outcome.RELEASED and core.take(SubmitOrder) == []),
        ("flatten", lambda core: core.bracket.close is not None and core.take(SubmitOrder) == []),
    ],
)
def test_exit_cancelled_by_a_person_is_handled_by_the_policy_of_the_request(
    policy: str, check: Callable[[Core], bool]
) -> None:
    core = Core(changes={"on-outside-change": policy})
    core.go_live()
    core.sent.clear()
    core.report(core.stop, W.CANCELLED, cancelled_by="user-1")
    core.wait(10)
    assert check(core)
    assert "changed_outside" in core.alarms


@pytest.mark.covers("F54", "F55")
def test_part_filled_target_shrinks_its_unlinked_stop_to_what_is_open() -> None:
    core = Core(quantity=3)
    core.go_live()
    core.report(core.target, W.LIVE, 1)
    old = core.stop
    assert [command.external_identifier for command in core.take(CancelOrder)] == [old.external_identifier]
    assert core.bracket.state is B.EXITS_LIVE
    core.report(old, W.CANCELLED)
    (command,) = [sent for sent in core.take(SubmitOrder) if sent.member.role is Role.STOP]
    assert [leg.quantity for leg in command.member.spec.legs] == [2, 2]
    core.confirm(core.stop)
    assert core.path[-1] is B.EXITS_LIVE
    assert core.path.count(B.ENTRY_FILLED) == 1


# Moves.


def changed(mode: Protection) -> tuple[Core, Order, Order]:
    """The stop's trigger moved to 1.60: core, the stop as it was, the order that takes its place."""
    core = Core(mode)
    core.go_live()
    core.sent.clear()
    old = core.stop
    spec = replace(old.spec, stop_trigger=DECIMAL("1.60"), net_price=DECIMAL("1.80"))
    core.tell(ChangeRequested("operator", ((Role.STOP, spec),)))
    return core, old, core.stop


MODES = [Protection.UNLINKED, Protection.NATIVE_OCO]


def place(core: Core, old: Order, heir: Order, **fields: Any) -> None:
    """The broker carries the move out, the new order first and the gap between the two included."""
    core.report(heir, W.CONTINGENT, broker_order_id="800", replaces=old.broker_order_id, **fields)
    core.report(old, W.CANCELLED, replaced_by=BrokerOrderId("800"))
    core.wait(0.1)
    core.report(heir, W.LIVE, broker_order_id="800", replaces=old.broker_order_id, **fields)


@pytest.mark.parametrize("mode", MODES)
def test_change_moves_the_working_stop_by_a_replace_on_a_fresh_id_and_never_cancels_it(mode: Protection) -> None:
    core, old, heir = changed(mode)
    (command,) = core.take(ReplaceOrder)
    assert command.broker_order_id == old.broker_order_id
    assert command.member.external_identifier == heir.external_identifier != old.external_identifier
    assert command.member.spec.stop_trigger == DECIMAL("1.60")
    assert command.after_commit
    place(core, old, heir)
    core.wait(60)
    assert [*core.take(CancelOrder), *core.take(CancelComplex)] == []
    assert sends(core) == []
    assert core.path == [B.PENDING_ENTRY, B.ENTRY_FILLED, B.EXITS_LIVE]
    assert core.bracket.unprotected_us >= SECOND_US // 10
    assert core.alarms == []
    assert [order.spec.stop_trigger for order in core.live(Role.STOP)] == [DECIMAL("1.60")]


@pytest.mark.parametrize("mode", MODES)
def test_refused_move_keeps_the_stop_where_it_was_and_is_not_tried_again(mode: Protection) -> None:
    core, old, heir = changed(mode)
    core.take(ReplaceOrder)
    core.refuse(heir)
    assert core.alarms == ["move_refused"]
    assert core.bracket.state is B.EXITS_LIVE
    core.wait(60)
    assert sends(core) == []
    assert [order.external_identifier for order in core.live(Role.STOP)] == [old.external_identifier]
    assert core.live(Role.STOP)[0].state is S.WORKING
    core.report(old, W.EXPIRED)
    core.report(core.target, W.EXPIRED)
    assert core.stop.spec.stop_trigger == DECIMAL("1.70")


@pytest.mark.covers("F68")
def test_stop_that_a_person_moved_before_our_own_move_was_refused_is_cancelled_where_it_is_now() -> None:
    core, old, heir = changed(Protection.UNLINKED)
    core.take(ReplaceOrder)
    core.report(core.target, W.FILLED, 1)
    core.refuse(heir, refusal=Refusal(422, ("cannot_update_order",), "gone"))
    core.take(ReadOrder)
    core.report(old, W.CANCELLED, replaced_by=BrokerOrderId("555"))
    assert core.bracket.state is not B.CLOSED
    assert [command.broker_order_id for command in core.take(ReadOrder)] == ["555"]
    core.take(CancelOrder)
    core.report(old, W.LIVE, broker_order_id="555", replaces=old.broker_order_id)
    core.wait(2)
    assert {command.broker_order_id for command in core.take(CancelOrder)} == {"555"}
    core.report(old, W.CANCELLED, broker_order_id="555", replaces=old.broker_order_id)
    assert core.bracket.outcome is Outcome.TARGET_FILLED


@pytest.mark.parametrize("mode", MODES)
def test_second_change_moves_what_the_first_one_made(mode: Protection) -> None:
    core, old, heir = changed(mode)
    core.take(ReplaceOrder)
    place(core, old, heir)
    spec = replace(heir.spec, stop_trigger=DECIMAL("1.50"))
    core.tell(ChangeRequested("operator", ((Role.STOP, spec),)))
    assert [command.broker_order_id for command in core.take(ReplaceOrder)] == ["800"]


@pytest.mark.covers("F1", "F59")
@pytest.mark.parametrize("mode", MODES)
def test_move_whose_answer_was_lost_is_found_by_its_identifier_or_by_the_chain(mode: Protection) -> None:
    core, old, heir = changed(mode)
    core.take(ReplaceOrder)
    core.lose(heir)
    assert core.stop.state is S.UNKNOWN
    place(core, old, heir, external_identifier=None)
    core.wait(60)
    assert core.bracket.state is B.EXITS_LIVE
    assert [order.external_identifier for order in core.live(Role.STOP)] == [heir.external_identifier]
    assert sends(core) == []


@pytest.mark.covers("F2", "F59")
@pytest.mark.parametrize("mode", MODES)
def test_move_that_never_arrived_is_given_up_after_its_window_and_the_old_stop_stands(mode: Protection) -> None:
    core, old, heir = changed(mode)
    core.take(ReplaceOrder)
    core.lose(heir)
    for _ in range(5):
        core.wait(2.5)
        core.sweep()
        assert core.bracket.state is B.EXITS_LIVE
    stood, gone = (order for order in core._orders([old.external_identifier, heir.external_identifier]))
    assert (stood.state, gone.state) == (S.WORKING, S.ABSENT)
    assert sends(core) == []


@pytest.mark.covers("F59")
@pytest.mark.parametrize("end", [W.REJECTED, W.CANCELLED])
@pytest.mark.parametrize("mode", MODES)
def test_fill_during_a_move_aborts_it_and_closes_the_bracket(mode: Protection, end: W) -> None:
    core, old, heir = changed(mode)
    core.report(heir, W.CONTINGENT, broker_order_id="800", replaces=old.broker_order_id)
    core.report(old, W.FILLED, {SHORT: 1, LONG: 0}, replaced_by=BrokerOrderId("800"))
    core.report(heir, end, broker_order_id="800", replaces=old.broker_order_id)
    core.report(core.target, W.CANCELLED)
    assert core.bracket.state is B.CLOSED
    assert core.bracket.outcome is Outcome.STOP_FILLED


NO_POSITION = Refusal(422, ("preflight_check_failure", "closing_with_no_position"), "no position")


def test_group_refused_because_the_broker_does_not_see_the_position_yet_goes_again_in_the_same_mode() -> None:
    core = Core(Protection.NATIVE_OCO)
    core.fill_entry()
    core.take(SubmitComplex)
    core.refuse(core.target, core.stop, refusal=NO_POSITION)
    assert core.take(SubmitComplex) == []
    core.wait(1.1)
    assert len(core.take(SubmitComplex)) == 1
    assert core.bracket.protection is Protection.NATIVE_OCO


def test_position_that_is_never_seen_goes_down_the_ladder() -> None:
    core = Core(Protection.NATIVE_OCO)
    core.fill_entry()
    for _ in range(4):
        core.take(SubmitComplex)
        core.refuse(core.target, core.stop, refusal=NO_POSITION)
        core.wait(1.1)
    assert core.bracket.protection is Protection.WATCHED


def test_exits_that_are_taken_and_ended_at_once_again_and_again_end_in_a_close() -> None:
    core = Core(Protection.WATCHED)
    core.fill_entry()
    for _ in range(60):
        for submit in core.take(SubmitOrder):
            if submit.member.role is Role.CLOSE:
                return
            core.confirm(*core._orders([submit.member.external_identifier]))
            core.wait(2)
            core.report(core.stop, W.CANCELLED)
        core.wait(1)
        core.tell(QuoteReported(DECIMAL("0.90")))
    raise AssertionError("it was never closed")
