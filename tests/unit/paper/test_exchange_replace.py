"""Cancel-replace: a new id, a window without a working order, and what a fill in that window does."""

import pytest

from otocod.paper.exchange import Refused
from tests.unit.paper.desk import ACCOUNT, LONG, SHORT, Desk, Json, closing, entry, limit, otoco, stop, target


def change(price: str = "1.10", **more: str) -> Json:
    """What a PUT carries: no legs."""
    body: Json = {"time-in-force": "Day", "order-type": "Limit", "price": price, "price-effect": "Credit"}
    body.update({name.replace("_", "-"): value for name, value in more.items()})
    return body


def replaced(desk: Desk, order_id: int, body: Json | None = None, **more: str) -> int:
    return int(desk.exchange.replace(ACCOUNT, order_id, body or change(), now_us=desk.now_us, **more)["id"])  # type: ignore[arg-type]


def test_replacement_waits_contingent_until_the_original_is_cancelled() -> None:
    desk = Desk(replace_delay_ms=20, replace_route_delay_ms=10)
    old = desk.submit(entry(external_identifier="a", source="s"))
    answer = desk.exchange.replace(ACCOUNT, old, change(external_identifier="b"), now_us=desk.now_us)
    new = answer["id"]
    assert (answer["status"], answer["replaces-order-id"], answer["price"]) == ("Contingent", old, "1.1")
    assert [item["action"] for item in answer["legs"]] == ["Sell to Open", "Buy to Open"]
    assert (answer["external-identifier"], answer["source"]) == ("b", "s")
    original = desk.order(old)
    assert (original["status"], original["replacing-order-id"]) == ("Replace Requested", new)
    desk.wait(20)
    original = desk.order(old)
    assert (original["status"], original["edited"]) == ("Cancelled", True)
    assert desk.status(new) == "Contingent"
    desk.wait(15)
    assert desk.status(new) == "Live"


@pytest.mark.covers("F59")
@pytest.mark.parametrize("end", ["Rejected", "Cancelled"])
def test_fill_in_the_window_aborts_the_replacement(end: str) -> None:
    desk = Desk(replace_delay_ms=50, aborted_replacement_status=end)
    old = desk.submit(entry())
    new = replaced(desk, old)
    desk.spread("1.20", "1.30")
    desk.wait()
    assert (desk.status(old), desk.status(new)) == ("Filled", end)
    assert desk.held() == {SHORT: -2, LONG: 2}


@pytest.mark.parametrize(
    ("mode", "ends"), [("cancel-wins", ("Cancelled", "Filled")), ("fill-wins", ("Filled", "Rejected"))]
)
def test_replace_race_follows_the_rule(mode: str, ends: tuple[str, str]) -> None:
    desk = Desk(replace_delay_ms=50, replace_race=mode)
    old = desk.submit(entry())
    new = replaced(desk, old)
    if mode == "cancel-wins":
        desk.spread("1.20", "1.30")
    desk.wait()
    assert (desk.status(old), desk.status(new)) == ends


@pytest.mark.parametrize("rule", ["carry", "abort"])
def test_partial_fill_in_the_window_follows_the_rule(rule: str) -> None:
    desk = Desk(replace_delay_ms=50, replace_partial=rule)
    old = desk.submit(entry())
    new = replaced(desk, old)
    desk.exchange.fill(old, now_us=desk.now_us, quantity=1)
    desk.wait()
    if rule == "carry":
        assert (desk.status(old), desk.status(new), desk.order(new)["size"]) == ("Cancelled", "Live", 1)
    else:
        assert (desk.status(old), desk.status(new)) == ("Live", "Rejected")
        assert "replacing-order-id" not in desk.order(old)


def test_replacement_without_legs_carries_what_remains() -> None:
    desk = Desk()
    old = desk.submit(entry())
    desk.exchange.fill(old, now_us=desk.now_us, quantity=1)
    order = desk.order(replaced(desk, old))
    assert (order["size"], order["legs"][0]["quantity"]) == (1, 1)


def test_identifier_is_inherited_only_by_rule() -> None:
    for rule in (False, True):
        desk = Desk(replacement_inherits_identifier=rule)
        order = desk.order(replaced(desk, desk.submit(entry(external_identifier="a"))))
        assert order.get("external-identifier") == ("a" if rule else None)


def test_replacing_a_close_is_not_refused_for_the_original_and_keeps_the_strict_flag() -> None:
    desk = Desk()
    desk.position()
    old = desk.submit(target())
    new = replaced(desk, old, change("0.50", price_effect="Debit", time_in_force="GTC"))
    desk.wait()
    assert desk.status(new) == "Live"
    accepted = [item for item in desk.exchange.log if item["event"] == "accepted"]
    assert (accepted[-1]["strict"], accepted[-1]["replaces-order-id"]) == (True, old)


def test_no_other_close_slips_in_between_original_and_replacement() -> None:
    desk = Desk(replace_delay_ms=10, replace_route_delay_ms=10)
    desk.position()
    new = replaced(desk, desk.submit(target()), change("0.50", price_effect="Debit", time_in_force="GTC"))
    desk.wait(15)
    assert desk.status(new) == "Contingent"
    assert desk.refusal(stop()) == ["cannot_close_against_more_than_existing_position"]


def test_edit_ignores_legs_and_put_takes_them() -> None:
    desk = Desk()
    desk.position()
    body = {**change("0.50", price_effect="Debit", time_in_force="GTC"), "legs": list(closing(1))}
    answer = desk.exchange.replace(ACCOUNT, desk.submit(target()), body, now_us=desk.now_us, edit=True)
    assert answer["size"] == 2
    desk.wait()
    assert desk.exchange.replace(ACCOUNT, answer["id"], body, now_us=desk.now_us)["size"] == 1


def test_replacement_by_a_person_has_a_foreign_source_and_needs_only_a_price() -> None:
    desk = Desk()
    old = desk.submit(entry(source="otocod/1"))
    with pytest.raises(Refused, match="validation_error"):
        replaced(desk, old, {"price": "1.15"})
    new = replaced(desk, old, {"price": "1.15"}, by="user")
    assert desk.order(new)["source"] == "WB2;0.174.2"
    desk.exchange.rules.patch({"replace_requires_type": False})
    desk.wait()
    assert desk.order(replaced(desk, new, {"price": "1.25"}))["price"] == "1.25"


def test_terminal_or_already_changing_orders_cannot_be_replaced() -> None:
    desk = Desk(replace_delay_ms=50)
    old = desk.submit(entry())
    new = replaced(desk, old)
    for order_id in (old, new):
        with pytest.raises(Refused, match="cannot_update_order"):
            replaced(desk, order_id)
    desk.wait()
    with pytest.raises(Refused, match="cannot_update_order"):
        replaced(desk, old)


def test_replace_dry_run_checks_and_changes_nothing() -> None:
    desk = Desk()
    old = desk.submit(entry())
    answer = desk.exchange.replace_dry_run(ACCOUNT, old, change(), now_us=desk.now_us)
    assert "id" not in answer["order"]
    assert answer["buying-power-effect"]["effect"] == "Debit"
    assert desk.status(old) == "Live"
    with pytest.raises(Refused, match="preflight"):
        desk.exchange.replace_dry_run(ACCOUNT, old, {**change(), "order-type": "Market"}, now_us=desk.now_us)


def test_cancelling_the_waiting_replacement_cancels_the_original_too() -> None:
    desk = Desk(replace_delay_ms=50)
    old = desk.submit(entry())
    new = replaced(desk, old)
    assert desk.exchange.cancel(ACCOUNT, new, now_us=desk.now_us)["status"] == "Cancelled"
    desk.wait()
    assert desk.status(old) == "Cancelled"


def test_cancelling_the_original_in_the_window_takes_the_replacement_with_it() -> None:
    desk = Desk(replace_delay_ms=50)
    old = desk.submit(entry())
    new = replaced(desk, old)
    desk.exchange.cancel(ACCOUNT, old, now_us=desk.now_us)
    desk.wait()
    assert (desk.status(old), desk.status(new)) == ("Cancelled", "Cancelled")


def test_order_that_was_never_routed_is_replaced_at_once() -> None:
    desk = Desk(sessions="closed")
    old = desk.submit(entry())
    new = replaced(desk, old)
    assert (desk.status(old), desk.status(new)) == ("Cancelled", "Received")


@pytest.mark.covers("F68")
def test_member_of_a_complex_order_is_replaced_in_place() -> None:
    desk = Desk()
    found = desk.submit_complex(otoco())
    trigger = found["trigger-order"]["id"]
    desk.exchange.fill(trigger, now_us=desk.now_us)
    desk.wait(10)
    old = trigger + 1
    new = replaced(desk, old, change("0.50", price_effect="Debit", time_in_force="GTC"))
    desk.wait()
    container = desk.exchange.complex_order(ACCOUNT, found["id"])
    assert [order["id"] for order in container["orders"]] == [new, trigger + 2]
    assert container["orders"][0]["complex-order-tag"] == "OTOCO::oco-1-order"
    assert container["related-orders"][0]["replacing-order-id"] == str(new)
    assert desk.status(trigger + 2) == "Live"
    desk.exchange.fill(new, now_us=desk.now_us)
    desk.wait()
    assert desk.status(trigger + 2) == "Cancelled"


def test_unarmed_child_is_replaced_at_once_and_armed_later() -> None:
    desk = Desk()
    found = desk.submit_complex(otoco())
    trigger = found["trigger-order"]["id"]
    new = replaced(desk, trigger + 2, stop("2.20", "2.40", strict=False))
    assert (desk.status(trigger + 2), desk.status(new)) == ("Cancelled", "Contingent")
    desk.exchange.fill(trigger, now_us=desk.now_us)
    desk.wait(10)
    assert desk.status(new) == "Live"


def test_aborted_replacement_leaves_the_member_in_its_group() -> None:
    desk = Desk(replace_delay_ms=50)
    found = desk.submit_complex(otoco())
    trigger = found["trigger-order"]["id"]
    desk.exchange.fill(trigger, now_us=desk.now_us)
    desk.wait(10)
    replaced(desk, trigger + 1, change("0.50", price_effect="Debit", time_in_force="GTC"))
    desk.exchange.fill(trigger + 1, now_us=desk.now_us)
    desk.wait()
    container = desk.exchange.complex_order(ACCOUNT, found["id"])
    assert [order["status"] for order in container["orders"]] == ["Filled", "Cancelled"]


@pytest.mark.covers("F46")
def test_member_that_waits_for_its_replacement_does_not_fill_beside_its_sibling() -> None:
    desk = Desk(replace_delay_ms=50, oco_cancel_delay_ms=40)
    trigger = desk.submit_complex(otoco())["trigger-order"]["id"]
    desk.exchange.fill(trigger, now_us=desk.now_us)
    desk.wait(10)
    new = replaced(desk, trigger + 1, change("0.50", price_effect="Debit", time_in_force="GTC"))
    desk.exchange.fill(trigger + 2, now_us=desk.now_us)
    desk.spread("0.10", "0.20")
    desk.wait(200)
    assert [desk.status(n) for n in (trigger + 1, new, trigger + 2)] == ["Cancelled", "Cancelled", "Filled"]
    assert desk.held() == {}


def test_replacing_members_can_be_switched_off() -> None:
    desk = Desk(replace_members=False)
    trigger = desk.submit_complex(otoco())["trigger-order"]["id"]
    with pytest.raises(Refused, match="cannot_update_order"):
        replaced(desk, trigger, change())


def test_replacement_keeps_a_stop_a_stop() -> None:
    desk = Desk()
    desk.position()
    old = desk.submit(stop())
    body = limit("2.80", "Debit", *closing(), order_type="Stop Limit", stop_trigger="2.50", time_in_force="GTC")
    order = desk.order(replaced(desk, old, body))
    assert (order["order-type"], order["stop-trigger"], order["price"]) == ("Stop Limit", "2.5", "2.8")
