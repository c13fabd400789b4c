"""One order from POST to its end: status steps, messages, cancel."""

import json

import pytest

from otocod.paper.exchange import Refused
from tests.unit.paper.desk import ACCOUNT, SHORT, START_US, Desk, closing, entry, leg, limit, single, stop, target


def test_post_answers_routed_and_each_step_is_its_own_message() -> None:
    desk = Desk()
    answer = desk.exchange.submit(ACCOUNT, entry(external_identifier="x-1", source="s"), now_us=START_US)
    order = answer["order"]
    assert (order["status"], order["cancellable"], order["editable"]) == ("Routed", False, False)
    assert (order["external-identifier"], order["source"], order["size"]) == ("x-1", "s", 2)
    desk.wait()
    notices = [n for n in desk.exchange.drain() if n.type == "Order"]
    assert [n.data["status"] for n in notices] == ["Received", "Routed", "In Flight", "Live"]
    assert [(n.at_us - START_US) // 1000 for n in notices] == [0, 0, 1, 2]


def test_initial_status_received_takes_one_step_more() -> None:
    desk = Desk(initial_status="Received", status_step_ms=10)
    answer = desk.exchange.submit(ACCOUNT, entry(), now_us=START_US)
    assert answer["order"]["status"] == "Received"
    desk.wait(29)
    assert desk.status(answer["order"]["id"]) == "In Flight"
    desk.wait(1)
    assert desk.status(answer["order"]["id"]) == "Live"


def test_skipped_steps_go_from_routed_to_filled() -> None:
    desk = Desk(skip_steps=True, first_filled_one_leg=False)
    desk.spread("1.30", "1.40")
    assert desk.said(desk.submit(entry())) == ["Received", "Routed", "Filled"]


def test_wire_types_are_those_the_public_clients_parse() -> None:
    desk = Desk()
    order = desk.order(desk.submit(entry("1.20", external_identifier="x")))
    assert isinstance(order["id"], int)
    assert isinstance(order["updated-at"], int)
    assert order["price"] == "1.2"
    assert isinstance(order["user-id"], str)
    assert order["received-at"] == "2026-11-23T15:01:12.000+00:00"
    assert order["legs"][0]["remaining-quantity"] == 2
    assert "reject-reason" not in order
    assert "cancelled-at" not in order
    json.dumps(order)


def test_answer_to_post_carries_complete_effect_and_fees() -> None:
    answer = Desk().exchange.submit(ACCOUNT, entry(), now_us=START_US)
    effect, fees = answer["buying-power-effect"], answer["fee-calculation"]
    # Two verticals 5 wide for 1.20: 1000 of margin, 240 in, 4.5 of fees.
    assert (effect["change-in-margin-requirement"], effect["change-in-buying-power"]) == ("1000.0", "764.5")
    assert (effect["effect"], effect["is-spread"], effect["impact"]) == ("Debit", True, "764.5")
    assert (fees["total-fees"], fees["commission"], fees["clearing-fees"]) == ("4.5", "4.0", "0.4")
    assert answer["warnings"] == []


def test_dry_run_has_no_id_and_leaves_no_order() -> None:
    desk = Desk()
    answer = desk.exchange.submit(ACCOUNT, entry(), now_us=START_US, dry_run=True)
    assert "id" not in answer["order"]
    assert answer["order"]["updated-at"] == 0
    assert answer["buying-power-effect"]["effect"] == "Debit"
    assert desk.exchange.orders(ACCOUNT) == []
    assert desk.exchange.drain() == []


@pytest.mark.covers("F105")
def test_same_external_identifier_twice_is_two_orders() -> None:
    desk = Desk()
    first, second = (desk.submit(entry(external_identifier="same")) for _ in range(2))
    assert first != second
    assert len(desk.exchange.orders(ACCOUNT)) == 2


def test_ids_count_up_and_survive_a_reset_unless_the_rule_says_so() -> None:
    desk = Desk()
    assert [desk.submit(entry()), desk.submit(entry())] == [771000, 771001]
    desk.exchange.reset(desk.now_us)
    assert desk.submit(entry()) == 771002
    desk.exchange.rules.patch({"ids_restart_on_reset": True})
    desk.exchange.reset(desk.now_us)
    assert desk.submit(entry()) == 771000


def test_malformed_body_is_refused_with_every_problem() -> None:
    body = {"order-type": "Limit", "legs": [leg("Buy", "AAPL 1", 0)], "price": "NaN", "price-effect": "Debit"}
    with pytest.raises(Refused) as refused:
        Desk().exchange.submit(ACCOUNT, body, now_us=START_US)
    assert (refused.value.status, refused.value.code) == (400, "validation_error")
    named = {item["domain"] for item in refused.value.body()["error"]["errors"]}
    assert {"time-in-force", "symbol", "quantity", "price"} <= named


def test_foreign_account_is_not_permitted_and_unknown_order_not_found() -> None:
    desk = Desk()
    with pytest.raises(Refused) as refused:
        desk.exchange.submit("5WT99999", entry(), now_us=START_US)
    assert (refused.value.status, refused.value.code) == (403, "not_permitted")
    with pytest.raises(Refused) as refused:
        desk.exchange.order(ACCOUNT, 1)
    assert (refused.value.status, refused.value.code) == (404, "record_not_found")


def test_unknown_keys_and_null_values_are_ignored() -> None:
    desk = Desk()
    assert desk.status(desk.submit({**entry(), "behavior": "immediate", "rules": None, "source": None})) == "Live"


def test_new_order_is_not_listed_until_the_read_lag_is_over() -> None:
    desk = Desk(read_lag_ms=50)
    order_id = desk.submit(entry())
    assert desk.exchange.orders(ACCOUNT) == []
    assert desk.status(order_id) == "Live"
    desk.wait(45)
    assert [order["id"] for order in desk.exchange.orders(ACCOUNT)] == [order_id]


def test_listing_filters_by_status_and_time() -> None:
    desk = Desk()
    early = desk.submit(entry())
    desk.exchange.fill(early, now_us=desk.now_us)
    late = desk.submit(entry())
    assert [o["id"] for o in desk.exchange.orders(ACCOUNT, statuses={"Live"})] == [late]
    assert [o["id"] for o in desk.exchange.orders(ACCOUNT, since_us=START_US + 1)] == [late]


def test_cancel_of_a_live_order_is_requested_then_confirmed() -> None:
    desk = Desk(cancel_delay_ms=20)
    order_id = desk.submit(entry())
    answer = desk.exchange.cancel(ACCOUNT, order_id, now_us=desk.now_us)
    assert (answer["status"], answer["cancellable"]) == ("Cancel Requested", False)
    desk.wait(19)
    assert desk.status(order_id) == "Cancel Requested"
    desk.wait(1)
    order = desk.order(order_id)
    assert (order["status"], order["cancelled-size"], order["cancel-user-id"]) == ("Cancelled", 2, order["user-id"])
    assert order["terminal-at"] == order["cancelled-at"]


@pytest.mark.covers("F47")
def test_cancel_of_a_terminal_order_is_refused() -> None:
    desk = Desk()
    order_id = desk.submit(entry())
    desk.exchange.fill(order_id, now_us=desk.now_us)
    with pytest.raises(Refused) as refused:
        desk.exchange.cancel(ACCOUNT, order_id, now_us=desk.now_us)
    assert refused.value.body() == {
        "error": {"code": "cannot_update_order", "message": "the order could not be cancelled"}
    }


@pytest.mark.parametrize("is_ok", [True, False])
def test_second_cancel_of_a_cancelled_order_follows_the_rule(is_ok: bool) -> None:
    desk = Desk(cancel_cancelled_ok=is_ok)
    order_id = desk.submit(entry())
    desk.exchange.cancel(ACCOUNT, order_id, now_us=desk.now_us)
    desk.wait()
    if is_ok:
        assert desk.exchange.cancel(ACCOUNT, order_id, now_us=desk.now_us)["status"] == "Cancelled"
        return
    with pytest.raises(Refused, match="cannot_update_order"):
        desk.exchange.cancel(ACCOUNT, order_id, now_us=desk.now_us)


def test_cancel_before_routing_is_one_step() -> None:
    desk = Desk(initial_status="Received")
    order_id = desk.exchange.submit(ACCOUNT, entry(), now_us=START_US)["order"]["id"]
    assert desk.exchange.cancel(ACCOUNT, order_id, now_us=START_US)["status"] == "Cancelled"
    desk.wait()
    assert desk.said(order_id) == ["Received", "Cancelled"]


def test_cancel_while_not_cancellable_is_refused_by_rule() -> None:
    desk = Desk(cancel_needs_cancellable=True)
    order_id = desk.exchange.submit(ACCOUNT, entry(), now_us=START_US)["order"]["id"]
    with pytest.raises(Refused, match="cannot_update_order"):
        desk.exchange.cancel(ACCOUNT, order_id, now_us=START_US)


@pytest.mark.covers("F48")
@pytest.mark.parametrize(("mode", "end"), [("market", "Filled"), ("cancel-wins", "Cancelled"), ("fill-wins", "Filled")])
def test_fill_during_cancel_follows_the_race_rule(mode: str, end: str) -> None:
    desk = Desk(cancel_race=mode, cancel_delay_ms=20)
    order_id = desk.submit(entry())
    desk.exchange.cancel(ACCOUNT, order_id, now_us=desk.now_us)
    if mode != "fill-wins":
        desk.spread("1.20", "1.30")
    desk.wait(30)
    assert desk.status(order_id) == end
    assert bool(desk.held()) == (end == "Filled")


@pytest.mark.covers("F50")
def test_stuck_cancel_stays_requested_until_the_rule_is_lifted() -> None:
    desk = Desk(stuck_cancel=True)
    order_id = desk.submit(entry())
    desk.exchange.cancel(ACCOUNT, order_id, now_us=desk.now_us)
    desk.wait(60_000)
    assert desk.exchange.cancel(ACCOUNT, order_id, now_us=desk.now_us)["status"] == "Cancel Requested"
    desk.exchange.rules.patch({"stuck_cancel": False})
    desk.wait(1)
    desk.wait(5)
    assert desk.status(order_id) == "Cancelled"


def test_broker_cancel_by_hand_names_no_user_and_a_persons_does() -> None:
    desk = Desk()
    first, second = desk.submit(entry()), desk.submit(entry())
    assert "cancel-user-id" not in desk.exchange.cancel_by_hand(first, now_us=desk.now_us, reason="risk")
    assert "cancel-user-id" in desk.exchange.cancel_by_hand(second, now_us=desk.now_us, by="user")
    assert desk.exchange.log[-1]["by"] == "user"


def test_reject_and_expire_by_hand_end_a_working_order_once() -> None:
    desk = Desk()
    first, second = desk.submit(entry()), desk.submit(entry())
    order = desk.exchange.reject(first, now_us=desk.now_us, reason="Session offline")
    assert (order["status"], order["reject-reason"]) == ("Rejected", "Session offline")
    assert desk.exchange.expire(second, now_us=desk.now_us)["status"] == "Expired"
    with pytest.raises(Refused, match="terminal"):
        desk.exchange.expire(second, now_us=desk.now_us)


def test_session_offline_rejects_every_new_order_after_routing() -> None:
    desk = Desk(reject_after_routing="Session offline")
    order_id = desk.submit(entry())
    assert desk.said(order_id) == ["Received", "Routed", "Rejected"]
    assert desk.order(order_id)["reject-reason"] == "Session offline"


@pytest.mark.parametrize(
    ("body", "is_on_grid"),
    [
        (entry("1.21"), True),
        (entry("1.215"), False),
        (limit("2.03", "Credit", leg("Sell to Open", SHORT)), True),
        (limit("3.03", "Credit", leg("Sell to Open", SHORT)), False),
        (limit("2.03", "Credit", leg("Sell to Open", "XYZ   261218C00300000")), False),
        (limit("2.05", "Credit", leg("Sell to Open", "XYZ   261218C00300000")), True),
        (limit("3.05", "Credit", leg("Sell to Open", "XYZ   261218C00300000")), False),
        (limit("3.03", "Debit", leg("Buy to Open", "SPY   261218C00300000")), True),
        (
            limit(
                "1.21",
                "Debit",
                leg("Buy to Open", "SPXW  261218C06900000"),
                leg("Sell to Open", "SPXW  261218C06950000"),
            ),
            False,
        ),
    ],
)
def test_price_off_the_increment_is_rejected_after_routing(body: dict[str, object], is_on_grid: bool) -> None:
    desk = Desk()
    order_id = desk.submit(body)
    desk.wait()
    said = desk.said(order_id)
    assert said[:4] == ["Received", "Routed", "In Flight", "Live"]
    assert said[4:] == ([] if is_on_grid else ["Rejected"])


@pytest.mark.parametrize(("mode", "end"), [("cancel", "Cancelled"), ("off", "Live")])
def test_increment_rule_can_cancel_or_be_off(mode: str, end: str) -> None:
    desk = Desk(increment_check=mode)
    order_id = desk.submit(entry("1.215"))
    desk.wait()
    assert desk.status(order_id) == end


def test_increment_is_judged_a_while_after_live() -> None:
    desk = Desk(increment_delay_ms=50)
    order_id = desk.submit(entry("1.215"))
    desk.spread("1.30", "1.40")
    desk.wait(45)
    assert desk.status(order_id) == "Live"
    desk.wait(10)
    assert desk.status(order_id) == "Rejected"


def test_increment_classes_are_lists_of_underlyings() -> None:
    low = limit("2.03", "Credit", leg("Sell to Open", SHORT))
    high = limit("3.03", "Credit", leg("Sell to Open", SHORT))
    for rules, ends in (
        ({"penny_underlyings": []}, ("Rejected", "Rejected")),
        ({"cent_underlyings": ["AAPL"]}, ("Live", "Live")),
    ):
        desk = Desk(**rules)
        first, second = desk.submit(low), desk.submit(high)
        desk.wait()
        assert (desk.status(first), desk.status(second)) == ends


def test_increment_of_the_trigger_counts_only_by_rule() -> None:
    for covers, end in ((False, "Live"), (True, "Rejected")):
        desk = Desk(increment_covers_trigger=covers)
        desk.position()
        order_id = desk.submit(stop("2.405"))
        desk.wait()
        assert desk.status(order_id) == end


def test_spread_stop_limit_is_cancelled_a_while_after_routing_by_rule() -> None:
    desk = Desk(spread_stop_cancel_ms=3000)
    desk.position()
    order_id = desk.submit(stop())
    desk.wait(2990)
    assert desk.status(order_id) == "Live"
    desk.wait(20)
    order = desk.order(order_id)
    assert order["status"] == "Cancelled"
    assert "cancel-user-id" not in order


def test_person_on_the_platform_has_another_source() -> None:
    desk = Desk()
    assert desk.order(desk.submit(entry(), by="user"))["source"] == "WB2;0.174.2"


def test_log_has_accepted_refused_status_fill_and_cancel_with_what_matters() -> None:
    desk = Desk()
    order_id = desk.submit(entry(external_identifier="x", source="s"))
    desk.refusal(target(source="s2"))
    desk.exchange.cancel(ACCOUNT, order_id, now_us=desk.now_us)
    desk.wait()
    log = desk.exchange.log
    accepted = next(item for item in log if item["event"] == "accepted")
    assert (accepted["external-identifier"], accepted["source"], accepted["price"]) == ("x", "s", "-1.20")
    assert (accepted["strict"], accepted["legs"][0]) == (False, f"Sell to Open 2 {SHORT}")
    refused = next(item for item in log if item["event"] == "refused")
    assert refused["source"] == "s2"
    assert refused["errors"][0][0] == "closing_with_no_position"
    assert [item["event"] for item in log][-2:] == ["status", "status"]
    assert [item["seq"] for item in log] == list(range(len(log)))


def test_same_calls_give_the_same_messages_and_log() -> None:
    def run() -> str:
        desk = Desk(position_jitter_ms=500, fills_per_leg=2)
        desk.position()
        desk.wait(500)
        desk.submit_complex({"type": "OCO", "orders": [target(), stop()]})
        desk.spread("0.50", "0.60")
        desk.wait(1000)
        return json.dumps([n.data for n in desk.exchange.drain()]) + json.dumps(desk.exchange.log)

    assert run() == run()


def test_time_never_goes_back() -> None:
    desk = Desk()
    desk.wait(10)
    desk.exchange.submit(ACCOUNT, entry(), now_us=START_US)
    assert desk.exchange.now == desk.now_us
    due_us = desk.exchange.next_due_us()
    assert due_us is not None
    assert due_us > desk.now_us


def test_single_leg_stop_needs_no_price() -> None:
    desk = Desk()
    desk.position()
    order = desk.order(desk.submit(single("Stop", "Buy to Close", stop_trigger="4", time_in_force="GTC")))
    assert (order["stop-trigger"], "price" in order, "price-effect" in order) == ("4.0", False, False)
    assert closing(1)[0]["action"] == order["legs"][0]["action"]
