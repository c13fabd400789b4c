"""A bracket's whole life in each mode, against the paper exchange's core in virtual time."""

from decimal import Decimal

import pytest

from otocod.domain.brackets import BracketState as B
from otocod.domain.brackets import Outcome
from otocod.domain.events import CloseRequested
from otocod.domain.orders import OrderState
from otocod.domain.specs import Protection, Role
from otocod.paper.rules import Rules
from tests.support.desk import Desk, request_json

WHOLE_LIFE = [B.PENDING_ENTRY, B.ENTRY_FILLED, B.EXITS_LIVE, B.CLOSED]
MODES = [Protection.NATIVE_OTOCO, Protection.NATIVE_OCO, Protection.UNLINKED]


def desk_for(mode: Protection, **rules: object) -> Desk:
    """The reservation rule refuses a second closing order, so `unlinked` needs it off."""
    made = Rules()
    made.patch({"reservation": mode is not Protection.UNLINKED, **rules})
    return Desk(rules=made)


def live(desk: Desk, mode: Protection, quantity: int = 1, **changes: object) -> Desk:
    desk.accept(request_json(quantity, protection=mode.value, **changes))
    desk.run(1)
    desk.fill_entry()
    desk.run(5, until=desk.is_in(B.EXITS_LIVE))
    return desk


@pytest.mark.parametrize("mode", MODES)
def test_target_fills_the_stop_is_cancelled_and_the_bracket_closes(mode: Protection) -> None:
    desk = live(desk_for(mode), mode)
    desk.fill("target")
    desk.run(10, until=desk.is_in(B.CLOSED))
    assert desk.bracket.outcome is Outcome.TARGET_FILLED
    assert desk.path == WHOLE_LIFE
    assert desk.bracket.protection is mode
    assert desk.bracket.attention is None
    stop = desk.bracket.orders_of("stop")[0]  # type: ignore[arg-type]
    assert stop.state is OrderState.CANCELLED
    assert desk.exchange.positions("5WT00001") == []


@pytest.mark.parametrize("mode", MODES)
def test_stop_fills_when_the_natural_price_reaches_its_trigger(mode: Protection) -> None:
    desk = live(desk_for(mode), mode)
    desk.quote("2.60 2.70", "0.95 1.00")  # closing costs 2.70 - 0.95 = 1.75, past the trigger at 1.70
    desk.run(10, until=desk.is_in(B.CLOSED))
    assert desk.bracket.outcome is Outcome.STOP_FILLED
    assert desk.path == WHOLE_LIFE
    assert str(desk.bracket.exit_net_price) == "1.75"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("armed", ["Live", "Contingent"])
def test_armed_exits_count_as_protection_whichever_status_they_show(mode: Protection, armed: str) -> None:
    desk = live(desk_for(mode, armed_status=armed), mode)
    assert desk.bracket.unprotected_us > 0
    assert desk.bracket.unprotected_since_us is None


@pytest.mark.covers("F1", "F6", "F7")
@pytest.mark.parametrize("mode", MODES)
def test_entry_whose_answer_is_lost_is_found_and_never_sent_again(mode: Protection) -> None:
    desk = desk_for(mode)
    desk.lose_answers = lambda command: "Submit" in type(command).__name__
    desk.is_stream_up = False
    desk.accept(request_json(protection=mode.value))
    desk.run(5, until=lambda: desk.bracket.entries[0].is_known_at_broker)
    assert len(desk.exchange.orders("5WT00001")) == (3 if mode is Protection.NATIVE_OTOCO else 1)


@pytest.mark.covers("F2", "F5")
def test_entry_that_never_arrived_is_given_up_after_its_window_and_not_sent_again() -> None:
    desk = desk_for(Protection.NATIVE_OCO)
    desk.lose_requests = lambda command: "Submit" in type(command).__name__
    desk.accept(request_json(protection="native-oco"))
    desk.run(119)
    assert desk.bracket.state is B.PENDING_ENTRY
    desk.run(10, until=desk.is_in(B.CLOSED))
    assert desk.bracket.outcome is Outcome.ENTRY_NOT_FILLED
    assert "given up" in (desk.bracket.attention or "")
    assert sum(1 for command in desk.commands if type(command).__name__ == "SubmitOrder") == 1


@pytest.mark.covers("F2")
@pytest.mark.parametrize("mode", MODES[1:])
def test_exits_that_never_arrived_go_again_on_the_next_ids_after_the_window(mode: Protection) -> None:
    desk = desk_for(mode)
    desk.accept(request_json(protection=mode.value))
    desk.run(1)
    lost: list[object] = []
    desk.lose_requests = lambda command: (
        "Submit" in type(command).__name__ and len(lost) < 2 and not lost.append(command)  # type: ignore[func-returns-value]
    )
    desk.fill_entry()
    desk.run(9)
    assert desk.bracket.state is B.ENTRY_FILLED
    desk.run(40, until=desk.is_in(B.EXITS_LIVE))
    names = [order.external_identifier for order in desk.bracket.exits]
    assert len(set(names)) == len(names) >= 4
    assert len(desk.exchange.orders("5WT00001")) == 3


@pytest.mark.covers("F3", "F42")
@pytest.mark.parametrize("is_filled", [False, True])
def test_entry_accepted_long_after_it_was_given_up_is_cancelled_and_if_filled_protected(is_filled: bool) -> None:
    desk = desk_for(Protection.NATIVE_OCO)
    late: list[object] = []
    desk.lose_requests = lambda command: "Submit" in type(command).__name__ and not late.append(command)  # type: ignore[func-returns-value]
    desk.accept(request_json(protection="native-oco"))
    desk.run(130, until=desk.is_in(B.CLOSED))
    desk.lose_requests = lambda command: False
    desk.quote("2.00 2.10", "1.10 1.20")
    desk._submit(late[0].member)  # type: ignore[attr-defined]
    if is_filled:
        desk.exchange.fill(771000, now_us=desk.now_us)
    desk.run(5)
    if not is_filled:
        assert desk.exchange.order("5WT00001", 771000)["status"] == "Cancelled"
        assert desk.bracket.state is B.CLOSED
        return
    assert desk.bracket.state is B.EXITS_LIVE
    assert desk.bracket.outcome is None
    assert "after the bracket was closed" in (desk.bracket.attention or "")


@pytest.mark.covers("F4", "F5", "F6", "F7", "F44")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("crash_after_s", [0.0005, 0.0015, 0.5, 1.0005, 1.0015, 1.0025, 1.0035, 1.5])
def test_crash_at_any_moment_ends_in_the_same_protection_with_nothing_doubled(
    mode: Protection, crash_after_s: float
) -> None:
    desk = desk_for(mode)
    desk.accept(request_json(protection=mode.value))
    if crash_after_s < 1:
        desk.run(crash_after_s)
        desk.restart()
        desk.run(1)
        if not desk.exchange.orders("5WT00001"):
            desk.run(130, until=desk.is_in(B.CLOSED))
            assert desk.bracket.outcome is Outcome.ENTRY_NOT_FILLED
            return
        desk.fill_entry()
    else:
        desk.run(1)
        desk.fill_entry()
        desk.run(crash_after_s - 1)
        desk.restart()
    desk.run(40)
    assert desk.bracket.state is B.EXITS_LIVE
    assert len([o for o in desk.exchange.orders("5WT00001") if o["status"] in ("Live", "Contingent")]) == 2
    desk.fill("target")
    desk.run(30, until=desk.is_in(B.CLOSED))
    assert desk.bracket.outcome is Outcome.TARGET_FILLED
    assert desk.exchange.positions("5WT00001") == []


@pytest.mark.covers("F52")
def test_second_exit_refused_by_the_reservation_leaves_the_stop_alone_with_attention() -> None:
    desk = desk_for(Protection.UNLINKED, reservation=True)
    live(desk, Protection.UNLINKED)
    assert desk.bracket.protection is Protection.WATCHED
    assert "the stop rests alone" in (desk.bracket.attention or "")
    working = [order.role for order in desk.bracket.exits if not order.is_terminal]
    assert working == ["stop"]
    desk.quote("2.60 2.70", "0.95 1.00")
    desk.run(10, until=desk.is_in(B.CLOSED))
    assert desk.bracket.outcome is Outcome.STOP_FILLED


def test_refused_otoco_falls_to_an_oco_after_the_fill() -> None:
    desk = desk_for(Protection.NATIVE_OTOCO, native_otoco_spreads=False)
    live(desk, Protection.NATIVE_OTOCO)
    assert desk.bracket.protection is Protection.NATIVE_OCO
    desk.fill("target")
    desk.run(10, until=desk.is_in(B.CLOSED))
    assert desk.path == WHOLE_LIFE


def test_both_native_modes_refused_leave_the_stop_alone() -> None:
    desk = desk_for(Protection.NATIVE_OTOCO, native_otoco_spreads=False, native_oco_spreads=False)
    live(desk, Protection.NATIVE_OTOCO)
    assert desk.bracket.protection is Protection.WATCHED
    assert "rests alone" in (desk.bracket.attention or "")


@pytest.mark.covers("F37", "F38")
@pytest.mark.parametrize("mode", MODES)
def test_part_filled_entry_gets_its_grace_then_the_filled_part_is_protected(mode: Protection) -> None:
    desk = desk_for(mode)
    desk.accept(request_json(3, protection=mode.value, **{"partial-entry": {"grace-s": 10}}))
    desk.run(1)
    desk.fill_entry(2)
    desk.run(9)
    assert desk.bracket.state is B.ENTRY_FILLED
    desk.run(10, until=desk.is_in(B.EXITS_LIVE))
    exits = [order for order in desk.bracket.exits if not order.is_terminal]
    assert {leg.quantity for order in exits for leg in order.spec.legs} == {2}
    desk.fill("target")
    desk.run(10, until=desk.is_in(B.CLOSED))
    assert desk.exchange.positions("5WT00001") == []


@pytest.mark.covers("F54", "F55")
def test_part_filled_exit_shrinks_its_unlinked_sibling() -> None:
    desk = live(desk_for(Protection.UNLINKED), Protection.UNLINKED, 3)
    desk.fill("target", 1)
    desk.run(5)
    stops = [order for order in desk.bracket.orders_of("stop") if not order.is_terminal]  # type: ignore[arg-type]
    assert [leg.quantity for order in stops for leg in order.spec.legs] == [2, 2]
    desk.fill("target")
    desk.run(10, until=desk.is_in(B.CLOSED))
    assert desk.bracket.outcome is Outcome.TARGET_FILLED
    assert desk.exchange.positions("5WT00001") == []


@pytest.mark.covers("F40", "F41")
@pytest.mark.parametrize("mode", MODES)
def test_entry_ended_without_a_fill_closes_the_bracket(mode: Protection) -> None:
    desk = desk_for(mode)
    desk.accept(request_json(protection=mode.value))
    desk.run(1)
    desk.exchange.expire(int(desk.bracket.entries[0].broker_order_id or 0), now_us=desk.now_us)
    desk.run(10, until=desk.is_in(B.CLOSED))
    assert desk.bracket.outcome is Outcome.ENTRY_NOT_FILLED


@pytest.mark.covers("F56")
def test_expired_day_exits_are_sent_again_at_once() -> None:
    desk = live(desk_for(Protection.NATIVE_OCO), Protection.NATIVE_OCO)
    for order in desk.bracket.exits:
        desk.exchange.expire(int(order.broker_order_id or 0), now_us=desk.now_us)
    desk.run(10)
    assert desk.bracket.state is B.EXITS_LIVE
    assert len([order for order in desk.bracket.exits if not order.is_terminal]) == 2


@pytest.mark.covers("F51")
@pytest.mark.parametrize("mode", [Protection.NATIVE_OCO, Protection.UNLINKED])
def test_exit_cancelled_by_the_broker_is_rearmed_twice_then_the_ladder_moves(mode: Protection) -> None:
    desk = live(desk_for(mode), mode)
    for _ in range(3):
        stop = [order for order in desk.bracket.orders_of("stop") if not order.is_terminal][-1]  # type: ignore[arg-type]
        desk.exchange.cancel_by_hand(int(stop.broker_order_id or 0), now_us=desk.now_us, by="broker")
        desk.run(10, until=desk.is_in(B.EXITS_LIVE))
        desk.run(10)
    assert desk.bracket.state is B.EXITS_LIVE
    assert desk.bracket.protection is Protection.WATCHED


@pytest.mark.covers("F67")
def test_exit_cancelled_by_a_person_holds_the_bracket() -> None:
    desk = live(desk_for(Protection.UNLINKED), Protection.UNLINKED)
    stop = desk.bracket.orders_of("stop")[0]  # type: ignore[arg-type]
    desk.exchange.cancel_by_hand(int(stop.broker_order_id or 0), now_us=desk.now_us, by="user")
    desk.run(20)
    assert desk.bracket.is_held
    assert "by a person" in (desk.bracket.attention or "")
    assert len(desk.bracket.orders_of("stop")) == 1  # type: ignore[arg-type]


@pytest.mark.covers("F46", "F48")
def test_both_unlinked_exits_filled_is_a_double_exit_with_its_surplus_named() -> None:
    desk = live(desk_for(Protection.UNLINKED), Protection.UNLINKED)
    desk.rules.patch({"cancel_race": "fill-wins"})
    for role in ("target", "stop"):
        order = desk.bracket.orders_of(role)[0]  # type: ignore[arg-type]
        desk.exchange.fill(int(order.broker_order_id or 0), now_us=desk.now_us)
    desk.run(10, until=desk.is_in(B.CLOSED))
    assert desk.bracket.outcome is Outcome.DOUBLE_EXIT
    assert "surplus" in (desk.bracket.attention or "")


def test_close_at_a_price_that_is_not_met_is_taken_back_and_the_exits_are_put_back() -> None:
    desk = live(desk_for(Protection.NATIVE_OCO), Protection.NATIVE_OCO)
    desk.tell(CloseRequested("me", Decimal("0.60")))
    desk.run(10)
    assert desk.bracket.state is B.CLOSING
    assert "unprotected for longer" in (desk.bracket.attention or "")
    desk.run(60, until=desk.is_in(B.EXITS_LIVE))
    assert "not filled within 60 s" in (desk.bracket.attention or "")
    assert sorted(order.role for order in desk.bracket.exits if not order.is_terminal) == ["stop", "target"]


def test_second_close_at_another_price_takes_the_place_of_the_first() -> None:
    desk = live(desk_for(Protection.NATIVE_OCO), Protection.NATIVE_OCO)
    desk.tell(CloseRequested("me", Decimal("0.60")))
    desk.run(1)
    desk.tell(CloseRequested("me", Decimal("0.70")))
    desk.run(1)
    closes = [order for order in desk.bracket.orders_of(Role.CLOSE) if not order.is_terminal]
    assert [order.spec.net_price for order in closes] == [Decimal("0.70")]
    desk.fill("close")
    desk.run(5, until=desk.is_in(B.CLOSED))
    assert desk.bracket.outcome is Outcome.CLOSED_BY_OPERATOR


def test_close_at_natural_without_quotes_touches_no_exit() -> None:
    desk = live(desk_for(Protection.NATIVE_OCO), Protection.NATIVE_OCO)
    desk.tell(CloseRequested("me", None))
    desk.run(5)
    assert desk.bracket.state is B.EXITS_LIVE
    assert "no quotes" in (desk.bracket.attention or "")
    assert all(order.cancel_asked_us is None for order in desk.bracket.exits)


def test_close_at_natural_is_priced_anew_until_it_fills() -> None:
    desk = live(desk_for(Protection.NATIVE_OCO, fill_style="none"), Protection.NATIVE_OCO)
    desk.quote("1.40 1.50", "0.70 0.75")
    desk.tell(CloseRequested("me", None))
    desk.run(3)
    desk.quote("1.45 1.55", "0.70 0.75")
    desk.run(6)
    prices = [order.spec.net_price for order in desk.bracket.orders_of(Role.CLOSE)]
    assert prices == [Decimal("0.80"), Decimal("0.85")]
    desk.fill("close")
    desk.run(5, until=desk.is_in(B.CLOSED))
