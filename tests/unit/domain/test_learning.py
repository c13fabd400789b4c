"""Events joined into the record: answers to our requests, the broker's own words, restarts, people."""

from dataclasses import replace
from decimal import Decimal

import pytest

from otocod.domain.brackets import BracketState as B
from otocod.domain.brackets import Outcome
from otocod.domain.commands import LearnCapability, ReadOrder, ReplaceOrder, SubmitComplex, SubmitOrder, Sweep
from otocod.domain.events import (
    AttentionAcknowledged,
    CancelLost,
    CancelRefused,
    ChangeRequested,
    DaemonRestarted,
    OrderReported,
    PositionsDisagreed,
    ReleaseRequested,
    SubmitDenied,
    SweepCompleted,
    UnfreezeRequested,
)
from otocod.domain.exits import exit_specs
from otocod.domain.ids import BrokerOrderId
from otocod.domain.orders import BrokerStatus as W
from otocod.domain.orders import OrderState as S
from otocod.domain.orders import Refusal
from otocod.domain.specs import Protection, Role
from tests.support.core import MARGIN, OPPOSITE, Core, report_of
from tests.support.desk import SECOND_US

GONE = Refusal(422, ("cannot_update_order",), "the order could not be cancelled")
PAIR = Refusal(422, ("invalid_oco_order_type_combo",), "not these")
NATIVE_MODES = [Protection.NATIVE_OTOCO, Protection.NATIVE_OCO]


def group_sent(mode: Protection) -> Core:
    core = Core(mode)
    if mode is Protection.NATIVE_OCO:
        core.fill_entry()
    return core


def working() -> Core:
    core = Core()
    core.go_live()
    return core


# Answers to a POST.


def test_confirmed_order_is_known_by_the_brokers_id_from_then_on() -> None:
    core = Core()
    core.confirm(core.entry, status=W.ROUTED)
    assert core.entry.broker_order_id == "100"
    assert core.entry.state is S.IN_FLIGHT
    assert core.entry.acknowledged_at_us == core.now_us


@pytest.mark.covers("F45")
def test_fill_that_overtakes_the_answer_is_kept_and_the_answer_changes_nothing() -> None:
    core = Core()
    core.report(core.entry, W.FILLED, 1)
    before = core.bracket
    assert before.state is B.ENTRY_FILLED
    core.confirm(core.entry, status=W.ROUTED)
    assert core.entry.state is S.FILLED
    assert core.bracket.orders == before.orders


@pytest.mark.covers("F11")
def test_refused_entry_ends_the_bracket_with_the_reason_in_attention() -> None:
    core = Core()
    core.refuse(core.entry)
    assert core.bracket.outcome is Outcome.ENTRY_NOT_FILLED
    assert "margin_check_failed" in (core.bracket.attention or "")


def test_refusal_of_an_order_that_the_broker_has_shown_is_not_believed() -> None:
    core = Core()
    core.report(core.entry, W.LIVE)
    core.refuse(core.entry)
    assert core.entry.state is S.WORKING
    assert "RefusalContradicted" in core.journal


@pytest.mark.parametrize("answer", ["lose", "not_sent"])
def test_lost_answer_of_an_order_that_the_broker_has_shown_is_no_loss(answer: str) -> None:
    core = Core()
    core.report(core.entry, W.LIVE)
    getattr(core, answer)(core.entry)
    assert core.entry.state is S.WORKING


@pytest.mark.covers("F122")
def test_order_stopped_by_the_last_gate_freezes_the_bracket_and_counts_as_refused() -> None:
    core = Core()
    core.tell(SubmitDenied((core.entry.external_identifier,), "no strict flag"))
    assert core.bracket.is_frozen
    assert "order_denied" in core.alarms
    assert core.bracket.outcome is Outcome.ENTRY_NOT_FILLED


@pytest.mark.covers("F20", "F61")
@pytest.mark.parametrize("code", ["tif.next_valid_session", "tif_next_valid_sesssion"])
def test_exits_that_wait_for_the_next_session_are_protection(code: str) -> None:
    core = Core()
    core.fill_entry()
    core.confirm(core.stop, status=W.RECEIVED, warnings=(code,))
    core.confirm(core.target, status=W.RECEIVED, warnings=(code,))
    assert core.bracket.state is B.EXITS_LIVE
    assert core.bracket.attention is None


@pytest.mark.covers("F20")
def test_warning_we_do_not_know_is_an_alarm_on_an_exit_and_none_on_an_entry() -> None:
    core = Core()
    core.confirm(core.entry, warnings=("strange",))
    assert core.alarms == []
    core.fill_entry()
    core.confirm(core.stop, warnings=("strange",))
    assert core.alarms == ["exit_warned"]


@pytest.mark.parametrize("mode", NATIVE_MODES)
def test_accepted_group_proves_its_mode(mode: Protection) -> None:
    core = group_sent(mode)
    core.confirm(*[order for order in core.bracket.orders if order.group is not None])
    assert [(learnt.protection, learnt.is_accepted) for learnt in core.take(LearnCapability)] == [(mode, True)]


@pytest.mark.parametrize("mode", NATIVE_MODES)
@pytest.mark.parametrize(("refusal", "is_proof"), [(PAIR, True), (OPPOSITE, False), (MARGIN, False)])
def test_refused_group_disproves_its_mode_unless_the_reason_will_pass(
    mode: Protection, refusal: Refusal, is_proof: bool
) -> None:
    core = group_sent(mode)
    core.refuse(*[order for order in core.bracket.orders if order.group is not None], refusal=refusal)
    learnt = [(found.protection, found.is_accepted) for found in core.take(LearnCapability)]
    assert learnt == ([(mode, False)] if is_proof else [])


# The broker's own words.


@pytest.mark.covers("F22")
def test_repeated_report_makes_no_new_record() -> None:
    core = working()
    before = core.bracket
    core.report(core.stop, W.LIVE)
    core.report(core.entry, W.FILLED, 1)
    assert core.bracket == before


@pytest.mark.covers("F27")
@pytest.mark.parametrize("is_known", [False, True])
def test_status_we_do_not_know_is_never_terminal_and_asks_for_attention(is_known: bool) -> None:
    core = Core()
    if is_known:
        core.confirm(core.entry)
    core.report(core.entry, W.UNRECOGNISED, status_text="Remove Pending")
    assert core.alarms == ["status_unrecognised"]
    assert not core.entry.is_terminal
    assert core.bracket.state is B.PENDING_ENTRY


def test_status_we_do_not_know_after_the_end_is_no_news() -> None:
    core = working()
    core.report(core.entry, W.UNRECOGNISED, status_text="Settled")
    assert core.alarms == []


@pytest.mark.covers("F24", "F27")
def test_filled_entry_whose_legs_could_not_be_read_is_protected_in_full() -> None:
    core = Core(quantity=2)
    report = replace(report_of(core.entry.spec, "100", W.FILLED), legs=())
    core.tell(OrderReported(report, core.entry.external_identifier))
    assert core.bracket.state is B.ENTRY_FILLED
    assert [leg.quantity for leg in core.stop.spec.legs] == [2, 2]


@pytest.mark.covers("F68")
@pytest.mark.parametrize("is_old_first", [True, False])
@pytest.mark.parametrize("policy", ["hold", "restore", "release", "flatten"])
def test_exit_moved_by_hand_is_adopted_under_every_policy(is_old_first: bool, policy: str) -> None:
    core = Core(changes={"on-outside-change": policy})
    core.go_live()
    target = core.target
    moved = replace(target.spec, net_price=Decimal("0.35"))
    replaced = BrokerOrderId("555")

    def old() -> None:
        core.report(target, W.CANCELLED, broker_order_id=target.broker_order_id, replaced_by=replaced)

    def new() -> None:
        report = report_of(moved, replaced, W.LIVE, replaces=target.broker_order_id, source="web")
        core.tell(OrderReported(report, target.external_identifier))

    for said in (old, new) if is_old_first else (new, old):
        said()
    assert core.target.external_identifier == target.external_identifier
    assert core.target.broker_order_id == "555"
    assert core.target.state is S.WORKING
    assert core.bracket.state is B.EXITS_LIVE
    assert not core.bracket.is_held
    assert core.take(SubmitOrder)[1:] == []


@pytest.mark.covers("F68")
def test_exit_moved_by_hand_to_an_order_not_yet_seen_is_read_and_not_taken_for_ended() -> None:
    core = working()
    core.report(core.target, W.CANCELLED, replaced_by=BrokerOrderId("555"))
    assert [command.broker_order_id for command in core.take(ReadOrder)] == ["555"]
    assert core.target.state is S.REPLACE_PENDING
    assert len(core.bracket.orders_of(Role.TARGET)) == 1


@pytest.mark.covers("F47")
def test_refused_cancel_is_information_and_the_order_is_read() -> None:
    core = working()
    core.tell(CancelRefused((core.stop.external_identifier,), GONE))
    assert [command.broker_order_id for command in core.take(ReadOrder)] == [core.stop.broker_order_id]
    assert core.stop.state is S.WORKING


def test_lost_cancel_is_only_written_down() -> None:
    core = working()
    before = core.bracket
    core.tell(CancelLost((core.stop.external_identifier,), "timeout"))
    assert core.bracket == before
    assert core.journal[-1] == "CancelLost"


@pytest.mark.covers("F34", "F43", "F57")
def test_positions_that_differ_are_told_and_never_traded_on() -> None:
    core = working()
    core.sent.clear()
    core.tell(PositionsDisagreed("one contract too few"))
    assert core.alarms == ["positions_disagree"]
    # A full listing is all that it asks for: a fill that the stream lost would be in it.
    assert {type(command) for command in core.sent} <= {Sweep}


# Containers.


@pytest.mark.parametrize("mode", NATIVE_MODES)
def test_container_read_names_its_members_and_arms_them(mode: Protection) -> None:
    core = group_sent(mode)
    core.confirm(*[order for order in core.bracket.orders if order.group is not None], status=W.CONTINGENT)
    if mode is Protection.NATIVE_OTOCO:
        core.fill_entry()
    trigger = report_of(core.entry.spec, core.id_of(core.entry), W.FILLED, 1)
    core.read_group(core.target, core.stop, status=W.CONTINGENT, trigger=trigger)
    assert core.bracket.verified_group == core.stop.group
    assert core.path == [B.PENDING_ENTRY, B.ENTRY_FILLED, B.EXITS_LIVE]


def test_container_whose_trigger_has_not_filled_arms_nothing() -> None:
    core = group_sent(Protection.NATIVE_OTOCO)
    core.confirm(*core.bracket.orders, status=W.CONTINGENT)
    trigger = report_of(core.entry.spec, core.id_of(core.entry), W.LIVE)
    core.read_group(core.target, core.stop, status=W.CONTINGENT, trigger=trigger)
    assert core.bracket.verified_group is None


# Restarts.


@pytest.mark.covers("F82")
def test_restart_begins_every_window_anew() -> None:
    core = Core()
    core.lose(core.entry)
    core.wait(60)
    core.sweep()
    core.tell(DaemonRestarted(is_clean=True))
    assert core.entry.unknown_since_us == core.now_us
    assert core.entry.absent_listings == 0


@pytest.mark.covers("F5", "F87")
def test_after_a_clean_stop_only_what_was_proved_unsent_goes_again_on_its_own_id() -> None:
    core = Core()
    core.fill_entry()
    core.take(SubmitOrder)
    core.not_sent(core.stop)
    assert core.stop.state is S.INTENDED
    core.restart(clean=True)
    assert [command.member.external_identifier for command in core.take(SubmitOrder)] == [core.stop.external_identifier]
    # The target was on the wire when the run ended: nobody knows.
    assert core.target.state is S.UNKNOWN
    assert core.bracket.suspects == ()


def test_entry_not_yet_sent_is_not_sent_by_a_later_run() -> None:
    for is_clean, state in ((True, S.ABSENT), (False, S.UNKNOWN)):
        core = Core()
        core.take(SubmitOrder)
        core.not_sent(core.entry)
        core.restart(clean=is_clean)
        core.wait(60)
        assert core.entry.state is state
        assert core.take(SubmitOrder) == []


@pytest.mark.covers("F5")
def test_group_of_an_entry_not_yet_sent_is_given_up_whole_after_a_clean_stop() -> None:
    core = Core(Protection.NATIVE_OTOCO)
    core.take(SubmitComplex)
    core.not_sent(*core.bracket.orders)
    core.restart(clean=True)
    assert {order.state for order in core.bracket.orders} == {S.ABSENT}
    assert core.bracket.outcome is Outcome.ENTRY_NOT_FILLED
    assert core.take(SubmitComplex) == []


@pytest.mark.covers("F5", "F6")
def test_unclean_stop_makes_every_staged_exit_id_a_suspect_and_stages_new_ones() -> None:
    core = Core()
    core.confirm(core.entry)
    staged = dict.fromkeys(name for role, name in core.bracket.staged if role is not Role.ENTRY)
    core.restart(clean=False)
    assert [name for _, name in core.bracket.suspects] == list(staged)
    assert not set(staged).intersection(name for _, name in core.bracket.staged)
    assert {role for role, _ in core.bracket.staged} == set(Role)


@pytest.mark.covers("F6", "F7")
def test_suspect_that_turns_up_is_adopted_as_the_exit_it_is() -> None:
    core = Core()
    core.confirm(core.entry)
    core.restart(clean=False)
    name = next(name for role, name in core.bracket.suspects if role is Role.STOP)
    core.fill_entry(fill_at_us=core.now_us - 1)
    assert core.bracket.orders_of(Role.STOP) == ()
    spec = exit_specs(core.bracket.request, entry_net_price=Decimal("-0.85"), units=1).stop
    assert spec is not None
    core.tell(OrderReported(report_of(spec, "700", W.LIVE, external_identifier=name), name))
    assert core.stop.external_identifier == name
    assert core.stop.state is S.WORKING
    assert core.stop.spec == spec
    assert name not in [suspect for _, suspect in core.bracket.suspects]


# Listings.


@pytest.mark.covers("F32", "F33")
def test_listing_begun_before_the_doubt_counts_for_nothing() -> None:
    core = Core()
    core.wait(1)
    core.lose(core.entry)
    core.tell(SweepCompleted(core.now_us - SECOND_US, 0, True))
    assert core.entry.absent_listings == 0
    core.sweep()
    assert core.entry.absent_listings == 1


@pytest.mark.covers("F32", "F33")
def test_listing_that_does_not_reach_back_far_enough_counts_for_nothing() -> None:
    core = Core()
    core.lose(core.entry)
    core.wait(1)
    reach_us = core.entry.intended_at_us - 600 * SECOND_US
    core.sweep(from_us=reach_us + 1)
    assert (core.entry.absent_listings, core.bracket.listed_at_us) == (0, None)
    core.sweep(from_us=reach_us)
    assert (core.entry.absent_listings, core.bracket.listed_at_us) == (1, core.now_us)


# People.


def test_acknowledged_attention_is_gone() -> None:
    core = working()
    core.tell(PositionsDisagreed("x"))
    core.tell(AttentionAcknowledged("operator"))
    assert core.bracket.attention is None
    assert core.journal[-1] == "AttentionAcknowledged"


@pytest.mark.covers("F67")
def test_unfreeze_lets_a_held_bracket_work_again() -> None:
    core = working()
    core.report(core.stop, W.CANCELLED, cancelled_by="user-1")
    core.wait(5)
    held = core.bracket
    assert held.is_held
    core.take(SubmitOrder)
    core.tell(UnfreezeRequested("operator"))
    assert core.bracket.is_held is False
    assert [command.member.role for command in core.take(SubmitOrder)] == [Role.STOP]


@pytest.mark.parametrize("state", ["pending", "filled", "live"])
def test_release_hands_over_at_once_and_leaves_every_order_as_it_is(state: str) -> None:
    core = Core()
    core.confirm(core.entry)
    if state == "filled":
        core.fill_entry()
    elif state == "live":
        core.go_live()
    core.sent.clear()
    core.tell(ReleaseRequested("operator"))
    assert (core.bracket.state, core.bracket.outcome) == (B.CLOSED, Outcome.RELEASED)
    assert core.bracket.closed_at_us == core.now_us
    core.wait(60)
    assert core.sent == []


def test_release_of_a_closed_bracket_changes_nothing_but_the_journal() -> None:
    core = Core()
    core.refuse(core.entry)
    before = core.bracket
    core.tell(ReleaseRequested("operator"))
    assert core.bracket == before


def test_change_is_remembered_by_role_the_last_one_wins() -> None:
    core = working()
    first = replace(core.stop.spec, stop_trigger=Decimal("1.60"))
    second = replace(core.stop.spec, stop_trigger=Decimal("1.50"))
    core.tell(ChangeRequested("operator", ((Role.STOP, first),)))
    core.tell(ChangeRequested("operator", ((Role.STOP, second),)))
    assert dict(core.bracket.moved) == {Role.STOP: second}
    assert [command.member.spec.stop_trigger for command in core.take(ReplaceOrder)] == [Decimal("1.60")]
