"""OCO, OTO, OTOCO: acceptance, arming, what a member's fill or end does to the others."""

from decimal import Decimal
from typing import Any

import pytest

from otocod.paper.exchange import Refused
from tests.unit.paper.desk import (
    ACCOUNT,
    SHORT,
    START_US,
    Desk,
    Json,
    entry,
    leg,
    limit,
    oco,
    otoco,
    single,
    stop,
    target,
)


def filled_otoco(desk: Desk, *orders: Json) -> tuple[int, int, int]:
    """Ids of trigger, target, stop after the trigger's fill; the exits are armed."""
    found = desk.submit_complex(otoco(*orders))
    trigger = found["trigger-order"]["id"]
    desk.exchange.fill(trigger, now_us=desk.now_us)
    desk.wait(10)
    desk.exchange.drain()
    return trigger, trigger + 1, trigger + 2


def test_otoco_answer_is_contingent_with_consecutive_ids_and_tags() -> None:
    answer = Desk().exchange.submit_complex(ACCOUNT, otoco(), now_us=START_US)
    found = answer["complex-order"]
    members = [found["trigger-order"], *found["orders"]]
    assert [m["id"] for m in members] == [771000, 771001, 771002]
    assert [m["preflight-id"] for m in members] == [0, 1, 2]
    assert {(m["status"], m["contingent-status"], m["cancellable"], m["editable"]) for m in members} == {
        ("Contingent", "Pending Order", True, True)
    }
    assert [m["complex-order-tag"] for m in members] == [
        "OTOCO::trigger-order",
        "OTOCO::oco-1-order",
        "OTOCO::oco-1-order",
    ]
    assert {m["complex-order-id"] for m in members} == {found["id"]}
    assert answer["buying-power-effect"]["change-in-buying-power"] == "764.5"
    assert answer["fee-calculation"]["total-fees"] == "4.5"


def test_children_stay_contingent_until_the_trigger_is_filled_in_full() -> None:
    desk = Desk()
    found = desk.submit_complex(otoco())
    trigger = found["trigger-order"]["id"]
    assert [desk.status(trigger + n) for n in range(3)] == ["Live", "Contingent", "Contingent"]
    desk.exchange.fill(trigger, now_us=desk.now_us, quantity=1)
    desk.wait()
    assert [desk.status(trigger + n) for n in range(3)] == ["Live", "Contingent", "Contingent"]
    desk.exchange.fill(trigger, now_us=desk.now_us, quantity=1)
    desk.wait()
    assert [desk.status(trigger + n) for n in range(3)] == ["Filled", "Live", "Live"]


def test_arming_takes_its_delay() -> None:
    desk = Desk(arm_delay_ms=500)
    found = desk.submit_complex(otoco())
    trigger = found["trigger-order"]["id"]
    desk.exchange.fill(trigger, now_us=desk.now_us)
    desk.wait(499)
    assert desk.status(trigger + 1) == "Contingent"
    desk.wait(10)
    assert desk.status(trigger + 1) == "Live"


def test_armed_exits_may_show_contingent_and_still_fill() -> None:
    desk = Desk(armed_status="Contingent")
    _, first, second = filled_otoco(desk)
    assert [desk.status(first), desk.status(second)] == ["Contingent", "Contingent"]
    assert [event["event"] for event in desk.exchange.log].count("armed") == 2
    desk.spread("0.50", "0.60")
    desk.wait()
    assert [desk.status(first), desk.status(second)] == ["Filled", "Cancelled"]


def test_unarmed_child_is_filled_neither_by_the_market_nor_by_hand() -> None:
    desk = Desk()
    found = desk.submit_complex(otoco())
    with pytest.raises(Refused, match="order_not_at_market"):
        desk.exchange.fill(found["orders"][0]["id"], now_us=desk.now_us)
    desk.spread("0.50", "0.60")
    desk.wait()
    assert desk.status(found["orders"][0]["id"]) == "Contingent"


def test_sibling_is_cancelled_by_the_broker_after_its_delay() -> None:
    desk = Desk(oco_cancel_delay_ms=40)
    _, first, second = filled_otoco(desk)
    desk.spread("0.50", "0.60")
    assert (desk.status(first), desk.status(second)) == ("Filled", "Live")
    desk.wait(39)
    assert desk.status(second) == "Live"
    desk.wait(1)
    assert "cancel-user-id" not in desk.order(second)
    assert desk.status(second) == "Cancelled"
    assert desk.held() == {}
    assert "terminal-at" in desk.exchange.complex_orders(ACCOUNT)[0]


@pytest.mark.covers("F46")
@pytest.mark.parametrize(("mode", "end"), [("safe", "Cancelled"), ("open", "Filled"), ("both-fill", "Filled")])
def test_sibling_inside_the_delay_follows_the_race_rule(mode: str, end: str) -> None:
    desk = Desk(oco_race=mode, oco_cancel_delay_ms=40)
    _, first, second = filled_otoco(desk)
    desk.spread("0.50", "0.60")
    if mode != "both-fill":
        desk.spread("2.40", "2.50")
    desk.wait(50)
    assert (desk.status(first), desk.status(second)) == ("Filled", end)
    assert bool(desk.held()) == (end == "Filled")


@pytest.mark.covers("F54")
@pytest.mark.parametrize(("rule", "size"), [("reduce-sibling", 1), ("keep", 2)])
def test_partial_fill_of_a_member_treats_the_sibling_by_rule(rule: str, size: int) -> None:
    desk = Desk(oco_partial=rule)
    _, first, second = filled_otoco(desk)
    desk.exchange.fill(first, now_us=desk.now_us, quantity=1)
    desk.wait()
    sibling = desk.order(second)
    assert (sibling["status"], sibling["size"]) == ("Live", size)
    assert [item["remaining-quantity"] for item in sibling["legs"]] == [size, size]


@pytest.mark.covers("F40")
@pytest.mark.parametrize("how", ["cancel", "reject", "expire"])
def test_children_die_with_an_unfilled_trigger(how: str) -> None:
    desk = Desk()
    trigger = desk.submit_complex(otoco())["trigger-order"]["id"]
    if how == "cancel":
        desk.exchange.cancel_by_hand(trigger, now_us=desk.now_us)
    elif how == "reject":
        desk.exchange.reject(trigger, now_us=desk.now_us, reason="no")
    else:
        desk.exchange.expire(trigger, now_us=desk.now_us)
    assert [desk.status(trigger + 1), desk.status(trigger + 2)] == ["Cancelled", "Cancelled"]


@pytest.mark.covers("F38")
@pytest.mark.parametrize(("rule", "end"), [("stay-contingent", "Contingent"), ("cancelled", "Cancelled")])
def test_children_of_a_part_filled_trigger_that_ends_never_act(rule: str, end: str) -> None:
    desk = Desk(partial_trigger_end=rule)
    trigger = desk.submit_complex(otoco())["trigger-order"]["id"]
    desk.exchange.fill(trigger, now_us=desk.now_us, quantity=1)
    desk.exchange.expire(trigger, now_us=desk.now_us)
    desk.spread("0.50", "0.60")
    desk.wait()
    assert [desk.status(trigger + 1), desk.status(trigger + 2)] == [end, end]
    # They hold no quantity back either: after their end the filled part can be protected.
    if end == "Contingent":
        desk.exchange.cancel_complex(ACCOUNT, 56544, now_us=desk.now_us)
    assert desk.status(desk.submit(stop(quantity=1))) == "Live"


def test_cancelling_the_container_cancels_each_living_member() -> None:
    desk = Desk()
    found = desk.submit_complex(otoco())
    answer = desk.exchange.cancel_complex(ACCOUNT, found["id"], now_us=desk.now_us)
    assert answer["trigger-order"]["status"] == "Cancel Requested"
    assert [order["status"] for order in answer["orders"]] == ["Cancelled", "Cancelled"]
    desk.wait()
    assert desk.exchange.complex_order(ACCOUNT, found["id"])["trigger-order"]["status"] == "Cancelled"
    with pytest.raises(Refused, match="cannot_update_order"):
        desk.exchange.cancel_complex(ACCOUNT, found["id"], now_us=desk.now_us)


def test_cancelling_an_armed_pair_goes_through_cancel_requested() -> None:
    desk = Desk()
    _, first, second = filled_otoco(desk)
    desk.exchange.cancel_complex(ACCOUNT, 56544, now_us=desk.now_us)
    assert [desk.status(first), desk.status(second)] == ["Cancel Requested", "Cancel Requested"]
    desk.wait()
    assert [desk.status(first), desk.status(second)] == ["Cancelled", "Cancelled"]


@pytest.mark.parametrize(
    ("rule", "ends"),
    [("refuse", ["Live", "Live"]), ("one", ["Cancelled", "Live"]), ("both", ["Cancelled", "Cancelled"])],
)
def test_delete_of_one_member_follows_the_rule(rule: str, ends: list[str]) -> None:
    desk = Desk(member_cancel=rule)
    _, first, second = filled_otoco(desk)
    if rule == "refuse":
        with pytest.raises(Refused, match="cannot_update_order"):
            desk.exchange.cancel(ACCOUNT, first, now_us=desk.now_us)
    else:
        desk.exchange.cancel(ACCOUNT, first, now_us=desk.now_us)
    desk.wait()
    assert [desk.status(first), desk.status(second)] == ends


@pytest.mark.covers("F51")
@pytest.mark.parametrize(("rule", "end"), [("keep-sibling", "Live"), ("cancel-sibling", "Cancelled")])
def test_member_rejected_by_the_exchange_treats_the_sibling_by_rule(rule: str, end: str) -> None:
    desk = Desk(member_end=rule)
    _, first, second = filled_otoco(desk)
    desk.exchange.reject(first, now_us=desk.now_us, reason="Session offline")
    assert desk.status(second) == end


def test_oco_members_start_contingent_then_go_live_and_link() -> None:
    desk = Desk()
    desk.position()
    answer = desk.exchange.submit_complex(ACCOUNT, oco(), now_us=desk.now_us)["complex-order"]
    assert "trigger-order" not in answer
    assert [order["status"] for order in answer["orders"]] == ["Contingent", "Contingent"]
    assert {order["complex-order-tag"] for order in answer["orders"]} == {"OCO::order"}
    desk.wait()
    first, second = (order["id"] for order in answer["orders"])
    assert [desk.status(first), desk.status(second)] == ["Live", "Live"]
    desk.spread("2.40", "2.50")
    desk.wait()
    assert [desk.status(first), desk.status(second)] == ["Cancelled", "Filled"]
    assert desk.held() == {}


@pytest.mark.parametrize(
    "pair",
    [
        (target(quantity=1), target("0.50", quantity=1)),
        (stop(quantity=1), stop("2.50", quantity=1)),
        (target(quantity=1), single("Market", "Buy to Close")),
    ],
)
def test_oco_pair_is_one_limit_and_one_stop(pair: tuple[Json, Json]) -> None:
    desk = Desk()
    desk.position()
    assert "invalid_oco_order_type_combo" in desk.complex_refusal(oco(*pair))
    desk.exchange.rules.patch({"oco_pair_rule": False})
    assert desk.submit_complex(oco(*pair))["id"]


def test_single_leg_oco_with_a_stop_market_is_taken() -> None:
    desk = Desk()
    desk.position()
    take = limit("1.40", "Debit", leg("Buy to Close", SHORT, 2), time_in_force="GTC")
    halt: dict[str, Any] = {**single("Stop", "Buy to Close", stop_trigger="3.50", time_in_force="GTC")}
    halt["legs"] = [leg("Buy to Close", SHORT, 2)]
    found = desk.submit_complex(oco(take, halt))
    assert [desk.status(order["id"]) for order in found["orders"]] == ["Live", "Live"]


def test_native_spreads_can_be_refused_and_single_legs_still_pass() -> None:
    code = ["multi_leg_complex_order_not_supported"]
    desk = Desk(native_otoco_spreads=False, native_oco_spreads=False)
    assert desk.complex_refusal(otoco()) == code
    desk.position()
    assert desk.complex_refusal(oco()) == code
    pair = (
        limit("1.40", "Debit", leg("Buy to Close", SHORT)),
        single("Stop", "Buy to Close", stop_trigger="3.50"),
    )
    assert desk.submit_complex(oco(*pair))["id"]


def test_strict_children_are_refused_by_rule_and_lenient_ones_pass() -> None:
    desk = Desk(strict_on_children=False)
    assert desk.complex_refusal(otoco()) == ["closing_with_no_position"]
    assert desk.submit_complex(otoco(target(strict=False), stop(strict=False)))["id"]


def test_oco_without_position_is_refused() -> None:
    assert "closing_with_no_position" in Desk().complex_refusal(oco())
    assert "invalid_oco_order" in Desk().complex_refusal(oco(target(strict=False), stop(strict=False)))


def test_oco_whose_limit_would_fill_at_once_is_refused_by_rule() -> None:
    desk = Desk(invalid_oco_price=True)
    desk.position()
    desk.spread("0.40", "0.50")
    assert desk.complex_refusal(oco()) == ["invalid_oco_price"]
    desk.exchange.rules.patch({"invalid_oco_price": False})
    assert desk.submit_complex(oco())["id"]


def test_oto_children_go_live_on_the_fill_and_do_not_cancel_each_other() -> None:
    desk = Desk()
    body = {"type": "OTO", "trigger-order": entry(), "orders": [target("0.60", 1), target("0.40", 1)]}
    found = desk.submit_complex(body)
    assert found["trigger-order"]["complex-order-tag"] == "OTO::trigger-order"
    assert found["orders"][0]["complex-order-tag"] == "OTO::order"
    desk.exchange.fill(found["trigger-order"]["id"], now_us=desk.now_us)
    desk.wait(10)
    first, second = (order["id"] for order in found["orders"])
    desk.exchange.fill(first, now_us=desk.now_us)
    desk.wait()
    assert desk.status(second) == "Live"


def test_complex_dry_run_has_placeholders_and_leaves_nothing() -> None:
    desk = Desk()
    answer = desk.exchange.submit_complex(ACCOUNT, otoco(), now_us=START_US, dry_run=True)
    found = answer["complex-order"]
    members = [found["trigger-order"], *found["orders"]]
    assert "id" not in found
    assert all("id" not in m and m["updated-at"] == 0 and m["complex-order-id"] for m in members)
    assert desk.exchange.complex_orders(ACCOUNT) == []


def test_malformed_complex_order_is_refused() -> None:
    bodies: list[Any] = [{"type": "BLAST", "orders": []}, {"type": "OTOCO", "orders": [target(), stop()]}, []]
    for body in bodies:
        with pytest.raises(Refused, match="validation_error"):
            Desk().exchange.submit_complex(ACCOUNT, body, now_us=START_US)


def test_complex_order_is_told_when_made_and_when_over() -> None:
    desk = Desk()
    found = desk.submit_complex(otoco())
    assert [n.type for n in desk.exchange.drain()].count("ComplexOrder") == 1
    desk.exchange.cancel_complex(ACCOUNT, found["id"], now_us=desk.now_us)
    desk.wait()
    notices = [n for n in desk.exchange.drain() if n.type == "ComplexOrder"]
    assert len(notices) == 1
    assert "terminal-at" in notices[0].data


def test_source_of_the_container_is_taken_by_members_without_one() -> None:
    desk = Desk()
    found = desk.submit_complex({**otoco(target(source="mine"), stop()), "source": "otocod/1"})
    assert [order["source"] for order in found["orders"]] == ["mine", "otocod/1"]


def test_complex_read_lag_and_foreign_ids() -> None:
    desk = Desk(read_lag_ms=1000)
    found = desk.submit_complex(otoco())
    assert desk.exchange.complex_orders(ACCOUNT) == []
    assert desk.exchange.complex_order(ACCOUNT, found["id"])["id"] == found["id"]
    with pytest.raises(Refused, match="record_not_found"):
        desk.exchange.complex_order(ACCOUNT, 1)


def test_target_of_an_otoco_fills_at_its_limit_when_the_market_comes_to_it() -> None:
    desk = Desk()
    _, first, _ = filled_otoco(desk)
    desk.spread("0.50", "0.55")
    desk.wait()
    prices = [Decimal(item["fills"][0]["fill-price"]) for item in desk.order(first)["legs"]]
    assert prices[0] - prices[1] == Decimal("0.60")
