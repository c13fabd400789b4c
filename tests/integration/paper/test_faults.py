"""Each fault seen from the client's side: what arrives, and what the exchange knows that the client does not."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from otocod.paper.faults import Faults
from tests.integration.paper.conftest import ACCOUNT, LONG, SHORT, Desk, eventually, legs, spread

ORDERS = f"/accounts/{ACCOUNT}/orders"
LIVE = f"{ORDERS}/live"


async def orders_at_exchange(desk: Desk) -> list[Any]:
    orders: list[Any] = await desk.control("GET", "/orders")
    return orders


async def post(desk: Desk, *, give_up_s: float = 5.0, **changes: Any) -> Any:
    """Status of a submission, or the name of what went wrong with it."""
    headers = {"Authorization": f"Bearer {desk.token}"}
    timeout = aiohttp.ClientTimeout(total=give_up_s)
    url = f"{desk.server.api_url}{ORDERS}"
    try:
        async with desk.http.post(url, json=spread(**changes), headers=headers, timeout=timeout) as answer:
            await answer.read()
            return answer.status
    except TimeoutError:
        return "timeout"
    except aiohttp.ClientError as error:
        return type(error).__name__


@pytest.mark.parametrize(
    ("fault", "outcome", "accepted"),
    [
        pytest.param("answer_lost", "timeout", 1, marks=pytest.mark.covers("F1")),
        pytest.param("request_lost", "timeout", 0, marks=pytest.mark.covers("F2")),
        pytest.param("request_reset", "ServerDisconnectedError", 0, marks=pytest.mark.covers("F9")),
        pytest.param("answer_reset", "ServerDisconnectedError", 1, marks=pytest.mark.covers("F9")),
        pytest.param("error_before", 500, 0, marks=pytest.mark.covers("F14")),
        pytest.param("error_after", 500, 1, marks=pytest.mark.covers("F14")),
        pytest.param("unavailable", 503, 0, marks=pytest.mark.covers("F14")),
        pytest.param("too_many_requests", 429, 0, marks=pytest.mark.covers("F13")),
        pytest.param("unauthorized", 401, 0, marks=pytest.mark.covers("F12")),
        pytest.param("body_truncated", "ClientPayloadError", 1, marks=pytest.mark.covers("F10")),
        pytest.param("body_empty", 201, 1, marks=pytest.mark.covers("F10")),
        pytest.param("body_html", 201, 1, marks=pytest.mark.covers("F10")),
        pytest.param("duplicated", 201, 2, marks=pytest.mark.covers("F15")),
    ],
)
async def test_submission_under_a_fault(desk: Desk, fault: str, outcome: object, accepted: int) -> None:
    await desk.control("PATCH", "/faults", {fault: 1})
    # Patience is short only where no answer will come.
    assert await post(desk, give_up_s=0.15 if outcome == "timeout" else 5.0) == outcome
    assert len(await orders_at_exchange(desk)) == accepted
    assert (await desk.control("GET", "/faults"))[fault]["struck"] == 1
    assert await post(desk) == 201, "only the next one was to be struck"


@pytest.mark.covers("F3")
async def test_late_acceptance_comes_after_the_client_gave_up(desk: Desk) -> None:
    await desk.control("PATCH", "/faults", {"late_acceptance": {"next": 1, "delay_ms": 300}})
    assert await post(desk, give_up_s=0.05) == "timeout"
    assert await orders_at_exchange(desk) == []

    async def is_there() -> bool:
        return len(await orders_at_exchange(desk)) == 1

    await eventually(is_there)


async def test_replayed_request_makes_two_orders_with_one_identifier(desk: Desk) -> None:
    await desk.control("PATCH", "/faults", {"duplicated": {"next": 1, "answer": "second"}})
    shown = await desk.place()
    orders = await orders_at_exchange(desk)
    assert len({order["external-identifier"] for order in orders}) == 1
    assert shown["id"] == orders[1]["id"]


@pytest.mark.covers("F19")
async def test_wrong_echo_shows_another_order(desk: Desk) -> None:
    await desk.control("PATCH", "/faults", {"wrong_echo": True})
    shown = await desk.place()
    (true,) = await orders_at_exchange(desk)
    assert shown["id"] != true["id"]
    assert shown["external-identifier"] != true["external-identifier"]


async def test_match_and_count_narrow_a_fault(desk: Desk) -> None:
    wanted = {"rate": 1, "count": 1, "match": {"method": "GET", "path": "/live$"}}
    await desk.control("PATCH", "/faults", {"error_before": wanted})
    assert (await desk.api("GET", ORDERS))[0] == 200
    assert (await desk.api("GET", LIVE))[0] == 500
    assert (await desk.api("GET", LIVE))[0] == 200


async def test_match_by_order_type_and_effect(desk: Desk) -> None:
    wanted = {"rate": 1, "match": {"method": "POST", "order_type": "^Limit$", "effect": "close"}}
    await desk.control("PATCH", "/faults", {"error_before": wanted})
    assert await post(desk) == 201
    assert await post(desk, legs=legs(1, "Buy to Close", "Sell to Close")) == 500


@pytest.mark.covers("F12")
async def test_token_death_kills_every_token(desk: Desk) -> None:
    await desk.control("PATCH", "/faults", {"token_death": 1})
    assert (await desk.api("GET", LIVE))[0] == 401
    assert (await desk.api("GET", LIVE))[0] == 401
    await desk.log_in()
    assert (await desk.api("GET", LIVE))[0] == 200


@pytest.mark.covers("F78")
async def test_token_refusal_has_the_shape_of_rfc_6749(desk: Desk) -> None:
    await desk.control("PATCH", "/faults", {"token_refused": True})
    grant = {"grant_type": "refresh_token", "refresh_token": "r", "client_secret": "s"}
    async with desk.http.post(f"{desk.server.api_url}/oauth/token", json=grant) as answer:
        assert (answer.status, (await answer.json())["error"]) == (400, "invalid_grant")


@pytest.mark.covers("F77")
@pytest.mark.parametrize(
    ("mode", "outcome"), [("503", 503), ("reset", "ServerDisconnectedError"), ("silence", "timeout")]
)
async def test_token_service_down(desk: Desk, mode: str, outcome: object) -> None:
    await desk.control("PATCH", "/faults", {"token_unavailable": {"rate": 1, "mode": mode}})
    timeout = aiohttp.ClientTimeout(total=0.15 if outcome == "timeout" else 5.0)
    try:
        async with desk.http.post(f"{desk.server.api_url}/oauth/token", json={}, timeout=timeout) as answer:
            seen: object = answer.status
    except TimeoutError:
        seen = "timeout"
    except aiohttp.ClientError as error:
        seen = type(error).__name__
    assert seen == outcome


@pytest.mark.covers("F32")
async def test_torn_pages(desk: Desk) -> None:
    ids = [(await desk.place())["id"] for _ in range(4)]

    async def page(number: int) -> Any:
        return (await desk.api("GET", f"{ORDERS}?sort=Asc&per-page=2&page-offset={number}"))[1]

    await desk.control("PATCH", "/faults", {"page_missing": 1})
    assert len((await page(0))["data"]["items"]) == 2
    assert (await page(1))["data"]["items"] == []
    assert len((await page(1))["data"]["items"]) == 2
    await desk.control("PATCH", "/faults", {"page_missing": False, "page_total_wrong": {"rate": 1, "by": 2}})
    assert (await page(0))["pagination"]["total-pages"] == 1
    await desk.control("PATCH", "/faults", {"page_total_wrong": None, "page_rows_moved": True})
    assert [order["id"] for order in (await page(1))["data"]["items"]] == ids[3:]


@pytest.mark.covers("F33")
async def test_listing_lag_hides_a_young_order_until_it_is_old_enough(desk: Desk) -> None:
    await desk.control("PATCH", "/faults", {"listing_lag": {"rate": 1, "lag_ms": 60_000}})
    order = await desk.place()
    assert (await desk.api("GET", LIVE))[1]["data"]["items"] == []
    assert (await desk.api("GET", ORDERS))[1]["data"]["items"] == []
    assert (await desk.api("GET", f"{ORDERS}/{order['id']}"))[0] == 200
    await desk.control("POST", "/clock", {"advance_ms": 61_000})
    assert len((await desk.api("GET", LIVE))[1]["data"]["items"]) == 1


@pytest.mark.covers("F45")
async def test_stream_may_come_before_the_answer_or_only_after(desk: Desk) -> None:
    stream = await desk.stream()
    await desk.control("PATCH", "/faults", {"stream_first": {"next": 1, "delay_ms": 60_000}})
    posting = asyncio.create_task(desk.place())
    assert (await stream.next())["data"]["status"] == "Received"
    assert not posting.done()
    posting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await posting
    await desk.control("POST", "/reset")
    await stream.until_status("Live")
    await desk.control("PATCH", "/faults", {"stream_last": {"next": 1, "delay_ms": 400}})
    answered = await desk.place()
    with pytest.raises(TimeoutError):
        await stream.socket.receive_json(timeout=0.05)
    assert (await stream.next())["data"]["id"] == answered["id"]


async def test_slow_answer_and_slow_request_still_carry_out(desk: Desk) -> None:
    for where in ("before", "after"):
        await desk.control("PATCH", "/faults", {"slow": {"next": 1, "delay_ms": 30, "where": where}})
        assert (await desk.place())["status"] == "Routed"


async def filled(desk: Desk) -> int:
    order = await desk.place()
    await desk.control("PUT", f"/quotes/{SHORT}", {"bid": "3.10", "ask": "3.20"})
    await desk.control("PUT", f"/quotes/{LONG}", {"bid": "1.80", "ask": "1.90"})
    return int(order["id"])


def statuses(messages: list[Any]) -> list[str]:
    return [message["data"]["status"] for message in messages if message.get("type") == "Order"]


@pytest.mark.covers("F26")
async def test_lost_frame_never_arrives(desk: Desk) -> None:
    stream = await desk.stream()
    await desk.control("PATCH", "/faults", {"frame_lost": {"rate": 1, "match": {"status": "^(Filled|Live)$"}}})
    await filled(desk)
    messages = await stream.until(lambda message: message.get("type") == "AccountBalance")
    assert set(statuses(messages)) == {"Received", "Routed", "In Flight"}


@pytest.mark.covers("F22", "F23")
async def test_doubled_and_stale_frames(desk: Desk) -> None:
    stream = await desk.stream()
    await desk.control("PATCH", "/faults", {"frame_doubled": {"next": 1, "match": {"status": "Routed"}}})
    order = await desk.place()
    assert statuses(await stream.until_status("Live")) == ["Received", "Routed", "Routed", "In Flight", "Live"]
    await desk.control("PATCH", "/faults", {"frame_stale": {"next": 1, "match": {"status": "Cancelled"}}})
    await desk.api("DELETE", f"{ORDERS}/{order['id']}")
    messages = await stream.until_status("Cancelled")
    assert statuses([*messages, await stream.next()]) == ["Cancel Requested", "Cancelled", "Cancel Requested"]


@pytest.mark.covers("F23")
async def test_reordered_frame_follows_the_next_one(desk: Desk) -> None:
    stream = await desk.stream()
    await desk.control("PATCH", "/faults", {"frame_reordered": {"next": 1, "match": {"status": "Routed"}}})
    await desk.place()
    assert statuses(await stream.until_status("Live")) == ["Received", "In Flight", "Routed", "Live"]


async def test_delayed_frame_is_overtaken(desk: Desk) -> None:
    stream = await desk.stream()
    wanted = {"next": 1, "delay_ms": 300, "match": {"status": "Received"}}
    await desk.control("PATCH", "/faults", {"frame_delayed": wanted})
    await desk.place()
    assert statuses(await stream.until_status("Received")) == ["Routed", "In Flight", "Live", "Received"]


@pytest.mark.covers("F25", "F27")
async def test_strange_frames(desk: Desk) -> None:
    stream = await desk.stream()
    await desk.control("PATCH", "/faults", {"frame_unknown_type": 1, "frame_wrapped": 1, "frame_unknown_status": 1})
    await desk.place()
    assert (await stream.next())["type"] == "Novelty"
    assert (await stream.next())["results"][0]["data"]["status"] == "Dead"
    await stream.until_status("Live")
    await desk.control("PATCH", "/faults", {"frame_garbage": 1, "frame_fills_missing": {"next": 1}})
    order = (await orders_at_exchange(desk))[0]
    await desk.control("POST", f"/orders/{order['id']}/fill")
    with pytest.raises(ValueError, match="Expecting value"):
        await stream.next()
    message = await stream.next()
    assert message["data"]["status"] == "Filled"
    assert all(leg["fills"] == [] for leg in message["data"]["legs"])


def test_draws_repeat_with_the_seed_and_do_not_disturb_each_other() -> None:
    def draws(seed: int, **also: object) -> list[bool]:
        faults = Faults(seed)
        faults.patch({"frame_lost": {"rate": 0.5}, **also})
        drawn = []
        for _ in range(50):
            faults.strike("frame_doubled")
            drawn.append(faults.strike("frame_lost") is not None)
        return drawn

    assert set(draws(1)) == {True, False}
    assert draws(1) == draws(1, frame_doubled={"rate": 0.3})
    assert draws(1) != draws(2)


async def test_every_problem_of_a_patch_is_named_and_nothing_changes(desk: Desk) -> None:
    changes = {
        "frame_lots": 1,
        "slow": {"rate": 2, "delay": 5},
        "frame_lost": {"match": {"status": "("}},
        "error_after": "on",
    }
    status, body = await desk.control_raw("PATCH", "/faults", changes)
    assert status == 422
    problems = "\n".join(body["error"]["problems"])
    for part in ("mean frame_lost?", "slow.rate", "slow.delay", "frame_lost.match.status", "error_after: must be"):
        assert part in problems
    assert (await desk.control("GET", "/faults"))["slow"]["rate"] == 0
