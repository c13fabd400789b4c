"""The control API: what it describes, what it moves, how it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.paper.conftest import ACCOUNT, LONG, SHORT, Desk, eventually, spread


async def order_at_exchange(desk: Desk, order_id: int) -> Any:
    return await desk.control("GET", f"/orders/{order_id}")


async def test_index_describes_every_operation_rule_and_fault(desk: Desk) -> None:
    index = await desk.control("GET", "/")
    operations = {(item["method"], item["path"]) for item in index["operations"]}
    for wanted in (
        ("PUT", "/quotes/{symbol}"),
        ("GET", "/orders"),
        ("POST", "/orders"),
        ("GET", "/orders/{id}"),
        *(("POST", f"/orders/{{id}}/{end}") for end in ("fill", "reject", "cancel", "expire", "replace")),
        *((method, path) for method in ("GET", "PATCH") for path in ("/rules", "/faults")),
        ("POST", "/streamer/drop"),
        ("GET", "/log"),
        ("POST", "/reset"),
    ):
        assert wanted in operations
    rules = {rule["name"]: rule for rule in index["rules"]}
    assert {"reservation", "native_otoco_spreads", "native_oco_spreads", "strict_on_children"} <= set(rules)
    assert all(rule["doc"] and "value" in rule for rule in index["rules"])
    assert all(fault["doc"] for fault in index["faults"].values())


async def test_quotes_fill_a_resting_order(desk: Desk) -> None:
    order = await desk.place()
    for symbol, bid, ask in ((SHORT, "3.10", "3.20"), (LONG, "1.80", "1.90")):
        await desk.control("PUT", f"/quotes/{symbol}", {"bid": bid, "ask": ask})

    async def is_filled() -> bool:
        return bool((await order_at_exchange(desk, order["id"]))["status"] == "Filled")

    await eventually(is_filled)
    assert (await desk.control("GET", "/quotes"))[SHORT] == {"bid": "3.10", "ask": "3.20"}
    await desk.control("DELETE", f"/quotes/{SHORT}")
    assert SHORT not in await desk.control("GET", "/quotes")


async def test_partial_fill_at_a_given_price_then_the_rest(desk: Desk) -> None:
    order = await desk.place(quantity=3)
    filled = await desk.control("POST", f"/orders/{order['id']}/fill", {"quantity": 1, "price": "1.25"})
    assert filled["status"] == "Live"
    assert [leg["remaining-quantity"] for leg in filled["legs"]] == [2, 2]
    prices = [float(leg["fills"][0]["fill-price"]) for leg in filled["legs"]]
    assert round(prices[0] - prices[1], 2) == 1.25
    assert (await desk.control("POST", f"/orders/{order['id']}/fill"))["status"] == "Filled"
    status, body = await desk.control_raw("POST", f"/orders/{order['id']}/cancel")
    assert (status, "cannot_update_order" in body["error"]["message"]) == (422, True)


@pytest.mark.parametrize(
    ("end", "body", "status"),
    [
        ("reject", {"reason": "Session offline", "by": "broker"}, "Rejected"),
        ("cancel", {"by": "user"}, "Cancelled"),
        ("expire", {}, "Expired"),
        ("remove", {}, "Removed"),
    ],
)
async def test_an_order_ended_by_hand_is_told_on_the_stream(
    desk: Desk, end: str, body: dict[str, str], status: str
) -> None:
    stream = await desk.stream()
    order = await desk.place()
    await desk.control("POST", f"/orders/{order['id']}/{end}", body)
    message = (await stream.until_status(status))[-1]
    assert message["data"].get("reject-reason") == body.get("reason")
    assert ("cancel-user-id" in message["data"]) is (body.get("by") == "user")


@pytest.mark.covers("F68")
async def test_a_persons_edit_is_a_replacement_with_another_source(desk: Desk) -> None:
    order = await desk.place()
    new = await desk.control("POST", f"/orders/{order['id']}/replace", {"price": "1.40"})
    assert (new["replaces-order-id"], new["price"], len(new["legs"])) == (order["id"], "1.4", 2)
    assert new["source"] != order["source"]


async def test_a_persons_order_and_position(desk: Desk) -> None:
    body = {key: value for key, value in spread().items() if key not in ("source", "external-identifier")}
    placed = await desk.control("POST", "/orders", body)
    assert placed["order"]["source"] != spread()["source"]
    await desk.control("PUT", f"/positions/{SHORT}", {"quantity": -2, "price": "3.00"})
    (row,) = await desk.control("GET", f"/positions?account={ACCOUNT}")
    assert (row["quantity"], row["quantity-direction"]) == (2, "Short")


async def ledger(desk: Desk) -> list[tuple[str, str, str]]:
    _, body = await desk.api("GET", f"/accounts/{ACCOUNT}/transactions?types[]=Receive%20Deliver&sort=Asc")
    return [(row["symbol"], row["transaction-sub-type"], row.get("value", "")) for row in body["data"]["items"]]


async def held(desk: Desk) -> dict[str, tuple[int, str]]:
    rows = await desk.control("GET", f"/positions?account={ACCOUNT}")
    return {row["symbol"]: (row["quantity"], row["quantity-direction"]) for row in rows}


@pytest.mark.covers("F65")
async def test_assignment_and_exercise_leave_shares_at_the_strike(desk: Desk) -> None:
    for symbol, quantity in ((SHORT, -2), (LONG, 1)):
        await desk.control("PUT", f"/positions/{symbol}", {"quantity": quantity})
    await desk.control("POST", f"/positions/{SHORT}/settle", {"how": "assignment", "quantity": 1})
    assert await held(desk) == {SHORT: (1, "Short"), LONG: (1, "Long"), "AAPL": (100, "Short")}
    await desk.control("POST", f"/positions/{LONG}/settle", {"how": "exercise"})
    await desk.control("POST", f"/positions/{SHORT}/settle", {"how": "expiration"})
    assert await held(desk) == {}
    assert [row[:2] for row in await ledger(desk)][2:] == [
        (SHORT, "Assignment"),
        ("AAPL", "Sell to Open"),
        (LONG, "Exercise"),
        ("AAPL", "Buy to Open"),
        (SHORT, "Expiration"),
    ]


@pytest.mark.covers("F64")
async def test_index_option_settles_in_cash(desk: Desk) -> None:
    symbol = "SPXW  301220P06500000"
    await desk.control("PUT", f"/positions/{symbol}", {"quantity": -1})
    await desk.control("POST", f"/positions/{symbol}/settle", {"how": "assignment", "index_price": "6490.00"})
    assert await held(desk) == {}
    assert (await ledger(desk))[1:] == [(symbol, "Cash Settled Assignment", "1000.0")]


@pytest.mark.parametrize(
    ("symbol", "body", "said"),
    [
        (SHORT, {"how": "vanish"}, "how must be one of"),
        (SHORT, {"how": "exercise"}, "short options are assigned"),
        (SHORT, {"how": "assignment", "quantity": 3}, "2 of"),
        (LONG, {"how": "expiration"}, "Couldn't find"),
        ("SPXW  301220P06500000", {"how": "assignment"}, "give the index's price"),
    ],
)
async def test_settlement_that_cannot_be_is_refused(desk: Desk, symbol: str, body: dict[str, Any], said: str) -> None:
    for position, quantity in ((SHORT, -2), ("SPXW  301220P06500000", -1)):
        await desk.control("PUT", f"/positions/{position}", {"quantity": quantity})
    status, answer = await desk.control_raw("POST", f"/positions/{symbol}/settle", body)
    assert status in (404, 422)
    assert said in str(answer)


async def test_script_plays_quotes_and_stops_with_a_new_one(desk: Desk) -> None:
    order = await desk.place()
    steps = [
        {"after_ms": 5, "symbol": LONG, "bid": "1.80", "ask": "1.90"},
        {"after_ms": 0, "symbol": SHORT, "bid": 3.10, "ask": 3.20},
        {"after_ms": 3_600_000, "symbol": SHORT, "bid": "9", "ask": "10"},
    ]
    assert await desk.control("POST", "/quotes/script", {"steps": steps}) == {"steps": 3}

    async def is_filled() -> bool:
        return bool((await order_at_exchange(desk, order["id"]))["status"] == "Filled")

    await eventually(is_filled)
    assert await desk.control("POST", "/quotes/script", {"steps": []}) == {"steps": 0}


async def test_rules_of_market_and_server_are_changed_together_or_not_at_all(desk: Desk) -> None:
    status, body = await desk.control_raw("PATCH", "/rules", {"reservation": "no", "nope": 1, "auth.token_life_s": 0})
    assert status == 422
    text = "\n".join(body["error"]["problems"])
    assert all(name in text for name in ("reservation", "nope", "auth.token_life_s"))
    changed = await desk.control("PATCH", "/rules", {"reservation": False, "auth.token_life_s": 5})
    values = {rule["name"]: rule["value"] for rule in changed}
    assert (values["reservation"], values["auth.token_life_s"]) == (False, 5)


async def test_log_is_in_order_and_continues_from_a_number(desk: Desk) -> None:
    stream = await desk.stream()
    await desk.place()
    await stream.until_status("Live")
    await desk.control("PUT", f"/quotes/{SHORT}", {"bid": "1", "ask": "2"})
    log = await desk.control("GET", "/log")
    assert {entry["kind"] for entry in log["entries"]} == {"request", "exchange", "frame", "control"}
    numbers = [entry["seq"] for entry in log["entries"]]
    assert numbers == list(range(1, len(numbers) + 1))
    middle = numbers[len(numbers) // 2]
    rest = await desk.control("GET", f"/log?since={middle}")
    assert [entry["seq"] for entry in rest["entries"]] == numbers[middle:]
    few = await desk.control("GET", "/log?limit=2")
    assert (len(few["entries"]), few["more"]) == (2, True)


async def test_reset_is_a_fresh_day_that_keeps_rules_and_tokens(desk: Desk) -> None:
    await desk.place()
    await desk.control("PATCH", "/faults", {"slow": True})
    await desk.control("PATCH", "/rules", {"reservation": False})
    await desk.control("POST", "/reset")
    assert await desk.control("GET", "/orders") == []
    assert (await desk.control("GET", "/faults"))["slow"]["rate"] == 0
    assert {rule["name"]: rule["value"] for rule in await desk.control("GET", "/rules")}["reservation"] is False
    assert (await desk.api("GET", f"/accounts/{ACCOUNT}/orders/live"))[1]["data"]["items"] == []


async def test_clock_moves_the_exchange_on(desk: Desk) -> None:
    await desk.control("PATCH", "/rules", {"status_step_ms": 60_000})
    stream = await desk.stream()
    await desk.place()
    await desk.control("POST", "/clock", {"advance_ms": 180_000})
    await stream.until_status("Live")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nope", None, 404),
        ("DELETE", "/rules", None, 405),
        ("GET", "/orders/12", None, 404),
        ("GET", "/orders/x", None, 404),
        ("PUT", f"/quotes/{SHORT}", {"bid": "x", "ask": "1"}, 422),
        ("PUT", f"/quotes/{SHORT}", {"bid": "1"}, 422),
        ("PUT", f"/quotes/{SHORT}", {"bid": "1", "ask": "2", "size": 3}, 422),
        ("PUT", "/quotes/nonsense", {"bid": "1", "ask": "2"}, 422),
        ("POST", "/clock", {"advance_ms": -1}, 422),
        ("POST", "/streamer/drop", {"code": 1}, 422),
        ("POST", "/quotes/script", {"steps": [{"after_ms": -1, "symbol": SHORT, "bid": "1", "ask": "2"}]}, 422),
        ("GET", "/log?since=x", None, 422),
    ],
)
async def test_refusals_say_why(desk: Desk, method: str, path: str, body: Any, status: int) -> None:
    seen, answer = await desk.control_raw(method, path, body)
    assert seen == status
    assert answer["error"]["message"]
