"""The entry from sent to terminal; outcomes that are not known; doubles; cancels until the broker confirms them."""

from decimal import Decimal

import pytest

from otocod.domain.brackets import BracketState as B
from otocod.domain.brackets import Outcome
from otocod.domain.commands import CancelComplex, CancelOrder, ReadOrder, SubmitComplex, SubmitOrder, Sweep
from otocod.domain.events import AttentionAcknowledged, DaemonRestarted, EntryCancelRequested, SweepCompleted
from otocod.domain.orders import BrokerStatus as W
from otocod.domain.orders import OrderState as S
from otocod.domain.specs import Protection, Role
from tests.support.core import Core
from tests.support.desk import LONG, SECOND_US, SHORT

MINUTE_US = 60 * SECOND_US


def seconds_of(core: Core) -> float:
    return (core.now_us - core.bracket.created_at_us) / SECOND_US


# Refused, not sent.


@pytest.mark.covers("F11")
def test_entry_of_a_refused_otoco_goes_alone_on_the_next_id_after_the_commit() -> None:
    core = Core(Protection.NATIVE_OTOCO)
    first = core.entry
    next_id = next(name for role, name in core.bracket.staged if role is Role.ENTRY)
    core.refuse(*core.bracket.orders)
    (command,) = core.take(SubmitOrder)
    assert command.member.external_identifier == next_id != first.external_identifier
    assert command.after_commit
    assert core.bracket.protection is Protection.NATIVE_OCO
    assert core.bracket.state is B.PENDING_ENTRY
    assert {order.state for order in core.bracket.orders} == {S.REJECTED, S.IN_FLIGHT}


def test_entry_of_a_refused_otoco_that_is_not_wanted_any_more_does_not_go_again() -> None:
    core = Core(Protection.NATIVE_OTOCO)
    core.tell(EntryCancelRequested("operator"))
    core.refuse(*core.bracket.orders)
    assert core.take(SubmitOrder) == []
    assert core.bracket.outcome is Outcome.ENTRY_NOT_FILLED


@pytest.mark.covers("F8", "F12", "F13")
def test_entry_proved_unsent_goes_again_on_its_own_id_with_growing_pauses() -> None:
    core = Core()
    name = core.entry.external_identifier
    core.take(SubmitOrder)
    at_s = []
    for _ in range(7):
        core.not_sent(core.entry)
        before = core.now_us
        while not (sent := core.take(SubmitOrder)):
            core.wait(0.05)
        assert [command.member.external_identifier for command in sent] == [name]
        at_s.append((core.now_us - before) / SECOND_US)
    assert at_s == [0.25, 0.5, 1, 2, 4, 5, 5]


@pytest.mark.covers("F8", "F111")
def test_entry_proved_unsent_is_given_up_at_its_not_after_and_never_sent_later() -> None:
    core = Core(changes={"not-after": "2026-11-23T15:00:10Z"})
    last_s = 0.0
    while core.bracket.state is not B.CLOSED:
        if core.take(SubmitOrder):
            last_s = seconds_of(core)
            core.not_sent(core.entry)
        core.wait(0.05)
    assert 5 < last_s < 10 <= seconds_of(core) < 11
    assert core.bracket.outcome is Outcome.ENTRY_NOT_FILLED
    assert core.entry.state is S.ABSENT


@pytest.mark.covers("F111")
def test_entry_whose_next_try_falls_on_its_not_after_is_not_sent() -> None:
    core = Core(changes={"not-after": "2026-11-23T15:00:00.250Z"})
    core.take(SubmitOrder)
    core.not_sent(core.entry)
    assert core.entry.retry_at_us == core.bracket.request.not_after_us
    core.wait(1)
    assert core.take(SubmitOrder) == []
    assert core.bracket.outcome is Outcome.ENTRY_NOT_FILLED


def test_group_proved_unsent_goes_again_whole_on_its_own_ids() -> None:
    core = Core(Protection.NATIVE_OTOCO)
    (first,) = core.take(SubmitComplex)
    core.not_sent(*core.bracket.orders)
    core.wait(1)
    (again,) = core.take(SubmitComplex)
    assert again.members == first.members


def test_entry_waiting_to_be_sent_again_is_given_up_on_request() -> None:
    core = Core()
    core.take(SubmitOrder)
    core.not_sent(core.entry)
    core.tell(EntryCancelRequested("operator"))
    core.wait(30)
    assert core.take(SubmitOrder) == []
    assert core.bracket.outcome is Outcome.ENTRY_NOT_FILLED


# Outcomes not known.


def is_given_up(core: Core) -> bool:
    assert core.entry.state in (S.UNKNOWN, S.ABSENT)
    return core.entry.state is S.ABSENT


def listed(core: Core, times: int, apart_s: float, *, is_stream_healthy: bool = True) -> None:
    for _ in range(times):
        core.wait(apart_s)
        core.sweep(is_stream_healthy=is_stream_healthy)


@pytest.mark.covers("F2", "F33")
def test_entry_is_absent_after_three_listings_of_which_one_began_after_its_window() -> None:
    core = Core()
    core.lose(core.entry)
    listed(core, 5, 23)
    assert not is_given_up(core)
    core.wait(4)
    core.sweep()
    assert not is_given_up(core)
    core.wait(1)
    core.sweep()
    assert is_given_up(core)
    assert core.bracket.outcome is Outcome.ENTRY_NOT_FILLED
    assert "entry_given_up" in core.alarms


@pytest.mark.covers("F33")
def test_two_listings_prove_nothing_however_late() -> None:
    core = Core()
    core.lose(core.entry)
    listed(core, 2, 200)
    assert not is_given_up(core)
    core.sweep()
    assert is_given_up(core)


@pytest.mark.covers("F32", "F33")
def test_listing_that_reaches_back_too_little_is_not_the_one_after_the_window() -> None:
    core = Core()
    core.lose(core.entry)
    listed(core, 3, 10)
    core.wait(100)
    core.sweep(from_us=core.now_us)
    assert not is_given_up(core)
    core.sweep()
    assert is_given_up(core)


@pytest.mark.covers("F33")
def test_listing_begun_inside_the_window_and_ended_after_it_is_not_the_one_after_it() -> None:
    core = Core()
    core.lose(core.entry)
    listed(core, 3, 10)
    core.wait(100)
    core.sweep(started_us=(core.entry.unknown_since_us or 0) + 119 * SECOND_US)
    assert not is_given_up(core)


def lost_stop() -> Core:
    core = Core()
    core.fill_entry()
    core.confirm(core.target)
    core.take(SubmitOrder)
    core.lose(core.stop)
    return core


@pytest.mark.covers("F2", "F26")
@pytest.mark.parametrize(("is_healthy", "listings", "window_s"), [(True, 3, 10), (False, 5, 20)])
def test_lost_exit_goes_again_on_the_next_id_after_its_window_longer_without_a_stream(
    is_healthy: bool, listings: int, window_s: int
) -> None:
    core = lost_stop()
    lost = core.stop
    listed(core, listings - 1, (window_s - 1) / (listings - 1), is_stream_healthy=is_healthy)
    core.wait(0.9)
    core.sweep(is_stream_healthy=is_healthy)
    assert core.take(SubmitOrder) == []
    core.wait(0.1)
    core.sweep(is_stream_healthy=is_healthy)
    (command,) = core.take(SubmitOrder)
    assert command.member.role is Role.STOP
    assert command.member.external_identifier != lost.external_identifier
    # It rests on the verdict "absent", which must not be forgotten.
    assert command.after_commit


@pytest.mark.covers("F33")
def test_without_a_stream_four_listings_over_the_window_prove_nothing() -> None:
    core = lost_stop()
    listed(core, 4, 10, is_stream_healthy=False)
    assert core.take(SubmitOrder) == []


@pytest.mark.covers("F1")
def test_lost_exit_that_turns_up_is_adopted_and_nothing_goes_again() -> None:
    core = lost_stop()
    listed(core, 2, 3)
    core.report(core.stop, W.LIVE)
    listed(core, 5, 10)
    assert core.bracket.state is B.EXITS_LIVE
    assert core.take(SubmitOrder) == []


@pytest.mark.covers("F2")
def test_listings_are_asked_for_over_the_window_and_after_its_end_and_not_all_the_time() -> None:
    core = lost_stop()
    asked_s = []
    since_us = core.now_us
    while core.last(Role.STOP).state is S.UNKNOWN:
        if core.take(Sweep):
            asked_s.append((core.now_us - since_us) / SECOND_US)
            core.sweep()
        if core.bracket.wake_at_us is not None and core.last(Role.STOP).state is S.UNKNOWN:
            core.wait((core.bracket.wake_at_us - core.now_us) / SECOND_US)
    assert 3 <= len(asked_s) <= 6
    assert asked_s[-1] >= 10


def test_sweep_asked_for_reaches_back_ten_minutes_before_the_intent() -> None:
    core = lost_stop()
    assert [sweep.from_us for sweep in core.take(Sweep)] == [core.stop.intended_at_us - 10 * MINUTE_US]


# Suspects.


def restarted(*, was_filled: bool, fill_s: int = -1) -> Core:
    """An entry that works, or has filled while we were away, and exits that the last run may have posted."""
    core = Core()
    core.confirm(core.entry)
    core.take(SubmitOrder)
    core.now_us += SECOND_US
    core.tell(DaemonRestarted(is_clean=False))
    if was_filled:
        core.fill_entry(fill_at_us=core.now_us + fill_s * SECOND_US)
    core.sweep()
    return core


@pytest.mark.covers("F5", "F6", "F44")
def test_suspects_of_an_unclean_stop_hold_every_exit_back_until_their_absence_is_proved() -> None:
    core = restarted(was_filled=True)
    suspected = {name for _, name in core.bracket.suspects}
    listed(core, 3, 3)
    assert core.take(SubmitOrder) == []
    assert core.bracket.state is B.ENTRY_FILLED
    core.wait(1)
    core.sweep()
    sent = core.take(SubmitOrder)
    assert [command.member.role for command in sent] == [Role.STOP, Role.TARGET]
    assert not suspected.intersection(command.member.external_identifier for command in sent)
    assert core.bracket.suspects == ()


@pytest.mark.covers("F44", "F82")
def test_suspects_stay_if_the_entry_was_found_filled_though_its_time_says_later() -> None:
    core = restarted(was_filled=True, fill_s=2)
    assert core.bracket.suspects
    assert core.take(SubmitOrder) == []


@pytest.mark.covers("F44")
def test_suspects_are_cleared_at_once_if_the_entry_fills_after_the_restart() -> None:
    core = restarted(was_filled=False)
    core.wait(1)
    core.fill_entry()
    assert core.bracket.suspects == ()
    assert [command.member.role for command in core.take(SubmitOrder)] == [Role.STOP, Role.TARGET]


@pytest.mark.covers("F44")
def test_suspects_stay_if_the_entry_filled_before_the_restart_though_the_listing_did_not_know() -> None:
    core = restarted(was_filled=False)
    core.wait(1)
    core.fill_entry(fill_at_us=core.now_us - 2 * SECOND_US)
    assert core.bracket.suspects
    assert core.take(SubmitOrder) == []


def test_suspects_need_a_listing_that_reaches_back_to_the_acceptance() -> None:
    core = restarted(was_filled=True)
    for _ in range(5):
        core.wait(5)
        core.tell(SweepCompleted(core.now_us, core.bracket.created_at_us - 10 * MINUTE_US + 1, True))
    assert core.take(SubmitOrder) == []


# Partial fills, grace, ratio.


@pytest.mark.covers("F37")
def test_part_filled_entry_is_cancelled_when_its_grace_ends_and_not_before() -> None:
    core = Core(quantity=3, changes={"partial-entry": {"grace-s": 10}})
    core.confirm(core.entry)
    core.wait(1)
    core.report(core.entry, W.LIVE, 1)
    core.wait(5)
    core.report(core.entry, W.LIVE, 2)
    core.wait(4.9)
    assert core.take(CancelOrder) == []
    core.wait(0.2)
    assert [command.external_identifier for command in core.take(CancelOrder)] == [core.entry.external_identifier]
    assert core.bracket.orders_of(Role.STOP) == ()


@pytest.mark.covers("F38", "F41")
@pytest.mark.parametrize("end", [W.CANCELLED, W.EXPIRED, W.REMOVED])
def test_entry_that_ends_part_filled_is_protected_for_exactly_what_filled(end: W) -> None:
    core = Core(quantity=3)
    core.confirm(core.entry)
    core.report(core.entry, end, 2)
    assert [leg.quantity for order in core.bracket.exits for leg in order.spec.legs] == [2, 2, 2, 2]


@pytest.mark.covers("F37", "F41")
def test_cancel_of_a_part_filled_entry_by_the_operator_protects_what_filled() -> None:
    core = Core(quantity=3)
    core.confirm(core.entry)
    core.report(core.entry, W.LIVE, 1)
    core.tell(EntryCancelRequested("operator"))
    assert len(core.take(CancelOrder)) == 1
    core.report(core.entry, W.CANCELLED, 1)
    assert [leg.quantity for leg in core.stop.spec.legs] == [1, 1]


@pytest.mark.covers("F39")
def test_uneven_legs_freeze_and_only_whole_units_are_protected() -> None:
    core = Core(quantity=3)
    core.confirm(core.entry)
    core.report(core.entry, W.CANCELLED, {SHORT: 2, LONG: 1})
    assert [leg.quantity for leg in core.stop.spec.legs] == [1, 1]
    core.wait(3)
    assert core.bracket.is_frozen
    assert core.alarms.count("legs_uneven") == 1


@pytest.mark.covers("F39")
def test_uneven_legs_are_read_again_before_a_person_is_told() -> None:
    core = Core(quantity=3)
    core.confirm(core.entry)
    core.report(core.entry, W.CANCELLED, {SHORT: 2, LONG: 1})
    core.wait(2.9)
    assert {command.external_identifier for command in core.take(ReadOrder)} == {core.entry.external_identifier}
    assert "legs_uneven" not in core.alarms
    core.report(core.entry, W.CANCELLED, 2)
    core.confirm_exits()
    core.wait(10)
    assert not core.bracket.is_frozen
    assert core.alarms == []
    assert sum(order.spec.legs[0].quantity for order in core.live(Role.STOP)) == 2


@pytest.mark.covers("F39", "F42")
def test_late_fill_of_one_leg_has_the_entry_read_and_is_told_if_it_stays_alone() -> None:
    """The stream tells a fill leg by leg; the other leg's message may be lost, or there may be no other fill."""
    core = Core(quantity=3)
    core.confirm(core.entry)
    core.report(core.entry, W.CANCELLED, 2)
    core.confirm_exits()
    core.wait(60)
    core.take(ReadOrder)
    core.report(core.entry, W.CANCELLED, {SHORT: 3, LONG: 2})
    core.wait(0.3)
    assert [command.external_identifier for command in core.take(ReadOrder)] == [core.entry.external_identifier]
    core.wait(2.7)
    assert core.bracket.is_frozen
    assert "2 whole units" in (core.bracket.attention or "")
    core.wait(60)
    assert core.alarms == ["legs_uneven"]
    assert len(core.take(ReadOrder)) < 12
    core.report(core.entry, W.CANCELLED, {SHORT: 3, LONG: 2}, broker_order_id="900")
    core.wait(0.3)
    assert len(core.take(ReadOrder)) == 1  # looked for anew, however long ago the last search ended


@pytest.mark.covers("F39", "F42")
def test_late_fill_whose_other_leg_is_found_by_the_reading_is_protected() -> None:
    core = Core(quantity=3)
    core.confirm(core.entry)
    core.report(core.entry, W.CANCELLED, 2)
    core.confirm_exits()
    core.wait(60)
    core.report(core.entry, W.CANCELLED, {SHORT: 3, LONG: 2})
    core.report(core.entry, W.CANCELLED, 3)
    core.confirm_exits()
    assert not core.bracket.is_frozen
    assert sum(order.spec.legs[0].quantity for order in core.live(Role.STOP)) == 3
    assert core.bracket.state is B.EXITS_LIVE


@pytest.mark.covers("F42")
@pytest.mark.parametrize(("after_s", "is_told"), [(0.5, False), (60, True)])
def test_fill_long_after_the_end_of_the_entry_is_protected_and_told(after_s: float, is_told: bool) -> None:
    core = Core(quantity=3)
    core.confirm(core.entry)
    core.report(core.entry, W.CANCELLED, 2)
    core.confirm_exits()
    core.wait(after_s)
    core.report(core.entry, W.CANCELLED, 3)
    core.confirm_exits()
    assert sum(order.spec.legs[0].quantity for order in core.live(Role.STOP)) == 3
    assert (core.alarms == ["entry_filled_late"]) is is_told


@pytest.mark.covers("F39")
def test_legs_that_a_later_fill_puts_in_ratio_are_told_once_and_the_old_word_is_taken_back() -> None:
    core = Core(quantity=3)
    core.confirm(core.entry)
    core.report(core.entry, W.CANCELLED, {SHORT: 2, LONG: 1})
    core.confirm_exits()
    core.wait(20)
    core.tell(AttentionAcknowledged("operator"))
    core.wait(20)
    assert {core.bracket.attention} == {None}  # told, and acknowledged: not said again
    core.report(core.entry, W.CANCELLED, 2)
    assert "in ratio after all: all 2 units" in (core.bracket.attention or "")
    assert core.alarms == ["legs_uneven", "legs_uneven"]


@pytest.mark.covers("F39")
def test_exits_of_whole_units_go_by_the_entrys_limit_where_uneven_legs_have_no_price() -> None:
    core = Core(quantity=3, changes={"stop": {"loss-percent": "100", "limit-offset": "0.20"}})
    core.confirm(core.entry)
    core.report(core.entry, W.CANCELLED, {SHORT: 2, LONG: 1})
    core.wait(1.5)
    assert core.stop.spec.stop_trigger == Decimal("1.70")
    core.confirm_exits()
    core.wait(20)
    version = core.bracket.version
    core.wait(600)
    assert core.bracket.version == version  # nothing is left to wait for


@pytest.mark.covers("F39")
def test_one_leg_filled_alone_is_never_called_protected() -> None:
    core = Core()
    core.confirm(core.entry)
    core.report(core.entry, W.CANCELLED, {SHORT: 1})
    core.wait(6)
    assert core.bracket.state is B.ENTRY_FILLED
    assert core.bracket.is_frozen
    assert core.bracket.exits == ()
    assert core.alarms == ["legs_uneven", "unprotected_long"]


@pytest.mark.covers("F40")
@pytest.mark.parametrize("end", [W.REJECTED, W.EXPIRED, W.CANCELLED, W.REMOVED, W.PARTIALLY_REMOVED])
def test_entry_that_ends_without_a_fill_closes_the_bracket(end: W) -> None:
    core = Core()
    core.confirm(core.entry)
    core.report(core.entry, end)
    assert core.bracket.outcome is Outcome.ENTRY_NOT_FILLED
    assert ("entry_refused" in core.alarms) is (end is W.REJECTED)


# Doubles.


@pytest.mark.covers("F15")
@pytest.mark.parametrize("first", ["9", "10"])
def test_of_two_working_orders_with_one_identifier_the_oldest_stays_and_the_cancel_repeats(first: str) -> None:
    core = Core()
    for number in (first, "10" if first == "9" else "9"):
        core.report(core.entry, W.LIVE, broker_order_id=number)
    assert [command.broker_order_id for command in core.take(CancelOrder)] == ["10"]
    assert core.alarms == ["order_doubled"]
    core.wait(2)
    assert [command.broker_order_id for command in core.take(CancelOrder)] == ["10"]
    core.report(core.entry, W.CANCELLED, broker_order_id="10")
    core.wait(10)
    assert core.take(CancelOrder) == []
    assert core.entry.broker_order_id == "9"


@pytest.mark.covers("F15")
def test_only_one_of_two_that_works_is_never_cancelled() -> None:
    core = Core()
    core.report(core.entry, W.LIVE, broker_order_id="10")
    core.report(core.entry, W.REJECTED, broker_order_id="9")
    core.wait(10)
    assert core.take(CancelOrder) == []


@pytest.mark.covers("F15", "F16")
def test_double_that_works_beside_a_filled_entry_goes_and_exits_wait_for_its_end() -> None:
    core = Core()
    core.report(core.entry, W.LIVE, broker_order_id="9")
    core.report(core.entry, W.LIVE, broker_order_id="10")
    core.take(CancelOrder)
    core.take(SubmitOrder)
    core.report(core.entry, W.FILLED, 1, broker_order_id="9")
    core.wait(2)
    assert [command.broker_order_id for command in core.take(CancelOrder)] == ["10"]
    assert core.take(SubmitOrder) == []
    core.report(core.entry, W.CANCELLED, broker_order_id="10")
    assert [command.member.role for command in core.take(SubmitOrder)] == [Role.STOP, Role.TARGET]


@pytest.mark.covers("F15")
def test_double_that_shows_up_after_the_end_is_cancelled() -> None:
    core = Core()
    core.go_live()
    core.report(core.target, W.FILLED, 1)
    core.report(core.stop, W.CANCELLED)
    assert core.bracket.state is B.CLOSED
    core.sent.clear()
    core.report(core.target, W.LIVE, broker_order_id="900")
    assert [command.broker_order_id for command in core.take(CancelOrder)] == ["900"]


@pytest.mark.covers("F16")
def test_doubles_that_both_filled_freeze_and_no_more_than_the_bracket_is_traded() -> None:
    core = Core(quantity=2)
    core.report(core.entry, W.FILLED, 2, broker_order_id="9")
    core.report(core.entry, W.FILLED, 2, broker_order_id="10")
    assert core.bracket.is_frozen
    assert "order_doubled" in core.alarms
    assert [leg.quantity for order in core.bracket.exits for leg in order.spec.legs] == [2, 2, 2, 2]
    core.confirm_exits()
    core.report(core.target, W.FILLED, 2)
    core.report(core.stop, W.CANCELLED)
    core.wait(30)
    exits = sum(command.member.spec.legs[0].quantity for command in core.take(SubmitOrder))
    assert exits == 0
    assert core.bracket.state is not B.CLOSED


# Cancels.


@pytest.mark.covers("F49", "F50")
def test_cancel_repeats_with_growing_pauses_and_is_an_alarm_after_five() -> None:
    core = Core()
    core.confirm(core.entry)
    core.tell(EntryCancelRequested("operator"))
    since_us = core.now_us
    at_s: list[float] = []
    while len(at_s) < 8:
        if core.take(CancelOrder):
            at_s.append((core.now_us - since_us) / SECOND_US)
            assert ("cancel_stuck" in core.alarms) is (len(at_s) >= 5)
            core.report(core.entry, W.CANCEL_REQUESTED)
        core.wait(0.5)
    assert at_s == [0, 2, 6, 14, 30, 60, 90, 120]
    assert core.bracket.state is B.PENDING_ENTRY


@pytest.mark.covers("F47")
def test_cancel_that_lost_to_the_fill_is_a_fill() -> None:
    core = Core()
    core.confirm(core.entry)
    core.tell(EntryCancelRequested("operator"))
    core.report(core.entry, W.FILLED, 1)
    assert core.bracket.state is B.ENTRY_FILLED
    assert [order.role for order in core.live(Role.STOP, Role.TARGET)] == [Role.STOP, Role.TARGET]


@pytest.mark.covers("F49")
def test_cancel_waits_for_the_brokers_id() -> None:
    core = Core()
    core.tell(EntryCancelRequested("operator"))
    assert core.take(CancelOrder) == []
    core.confirm(core.entry)
    assert len(core.take(CancelOrder)) == 1


def test_members_of_a_group_are_cancelled_by_their_container_once() -> None:
    core = Core(Protection.NATIVE_OTOCO)
    core.confirm(*core.bracket.orders, status=W.CONTINGENT)
    core.tell(EntryCancelRequested("operator"))
    (command,) = core.take(CancelComplex)
    assert len(command.external_identifiers) == 3
    assert core.take(CancelOrder) == []
