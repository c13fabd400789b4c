"""The account streamer by its wire: who gets what, when a connection is closed, and what is never made up for."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.integration.paper.conftest import ACCOUNT, PATIENCE_S, Desk, Stream


async def connection(desk: Desk, *, autoping: bool = True) -> Stream:
    return Stream(desk, await desk.open(desk.server.streamer_url, autoping=autoping))


@pytest.mark.parametrize("value", [ACCOUNT, [ACCOUNT]])
async def test_connect_takes_a_string_or_a_list_and_echoes_the_request_id(desk: Desk, value: object) -> None:
    stream = await connection(desk)
    await stream.send(**{"action": "connect", "value": value, "request-id": "7"})
    answer = await stream.next()
    assert (answer["status"], answer["action"], answer["request-id"]) == ("ok", "connect", "7")
    await desk.place()
    assert (await stream.next())["data"]["account-number"] == ACCOUNT


@pytest.mark.covers("F35")
@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"action": "connect", "value": []}, "value missing or not valid"),
        ({"action": "connect"}, "value missing or not valid"),
        ({"action": "connect", "value": ["5WT99999"]}, "not_permitted"),
        ({"action": "connect", "value": [ACCOUNT], "auth-token": "Bearer stale"}, "failed"),
        ({"action": "quote-alerts-subscribe"}, "connect-not-completed"),
        ({"action": "dance"}, "not_implemented"),
    ],
)
async def test_refusals_subscribe_to_nothing(desk: Desk, message: dict[str, Any], text: str) -> None:
    stream = await connection(desk)
    await stream.send(**message)
    answer = await stream.next()
    assert (answer["status"], answer["message"]) == ("error", text)
    await desk.place()
    await stream.send(action="heartbeat")
    assert (await stream.next())["action"] == "heartbeat"


async def test_bare_token_is_an_unknown_domain_while_heartbeats_still_answer_ok(desk: Desk) -> None:
    stream = await connection(desk)
    await stream.send(**{"action": "connect", "value": [ACCOUNT], "auth-token": desk.token})
    assert (await stream.next())["message"] == "Unknown domain"
    await stream.send(**{"action": "heartbeat", "auth-token": desk.token})
    assert (await stream.next())["status"] == "ok"


async def test_messages_are_the_objects_of_the_rest_side_and_carry_milliseconds(desk: Desk) -> None:
    stream = await desk.stream()
    placed = await desk.place()
    message = (await stream.until_status("Live"))[-1]
    _, body = await desk.api("GET", f"/accounts/{ACCOUNT}/orders/{placed['id']}")
    assert message["data"] == body["data"]
    assert 0 <= message["timestamp"] - message["data"]["updated-at"] < 1000


@pytest.mark.covers("F21")
async def test_nothing_is_replayed_after_a_drop(desk: Desk) -> None:
    stream = await desk.stream()
    assert await desk.control("POST", "/streamer/drop", {"code": 1000, "reason": "Bye"}) == {"dropped": 1}
    closed = await stream.socket.receive(timeout=PATIENCE_S)
    assert (closed.type, closed.data, closed.extra) == (aiohttp.WSMsgType.CLOSE, 1000, "Bye")
    await desk.place()
    again = await desk.stream()
    await again.send(action="heartbeat")
    assert (await again.next())["action"] == "heartbeat"


async def test_abrupt_drop_has_no_closing_handshake(desk: Desk) -> None:
    stream = await desk.stream()
    await desk.control("POST", "/streamer/drop", {"abrupt": True})
    closed = await stream.socket.receive(timeout=PATIENCE_S)
    assert closed.type is not aiohttp.WSMsgType.CLOSE
    assert stream.socket.closed


@pytest.mark.parametrize(
    ("keepalive", "sign", "survives"),
    [
        ("any", "ping", True),
        ("any", "heartbeat", True),
        ("heartbeat", "ping", False),
        ("heartbeat", "heartbeat", True),
        ("strict", "heartbeat", True),
        ("strict", "tokenless", False),
        ("any", "nothing", False),
    ],
)
async def test_connection_without_signs_of_life_is_closed(
    desk: Desk, keepalive: str, sign: str, survives: bool
) -> None:
    await desk.control("PATCH", "/rules", {"streamer.idle_ms": 400, "streamer.keepalive": keepalive})
    stream = await connection(desk)
    loop = asyncio.get_running_loop()
    end_s = loop.time() + (0.7 if survives else PATIENCE_S)
    while loop.time() < end_s and not stream.socket.closed:
        if sign == "ping":
            await stream.socket.ping()
        elif sign != "nothing":
            token = {"auth-token": "Bearer stale"} if sign == "tokenless" else {}
            await stream.send(action="heartbeat", **token)
        try:
            await stream.socket.receive(timeout=0.05)
        except TimeoutError:
            continue
    assert stream.socket.closed is not survives


@pytest.mark.covers("F28")
async def test_silent_streamer_answers_pings_only_and_a_half_open_one_not_even_those(desk: Desk) -> None:
    stream = await connection(desk, autoping=False)
    await desk.control("PATCH", "/faults", {"streamer_silent": True})
    await stream.send(action="heartbeat")
    await stream.socket.ping(b"1")
    assert (await stream.socket.receive(timeout=PATIENCE_S)).type is aiohttp.WSMsgType.PONG
    await desk.control("PATCH", "/faults", {"streamer_half_open": True})
    await stream.socket.ping(b"2")
    with pytest.raises(TimeoutError):
        await stream.socket.receive(timeout=0.1)


async def test_streamer_faults_of_connect_and_heartbeat(desk: Desk) -> None:
    await desk.control("PATCH", "/faults", {"streamer_refused": 1, "connect_refused": 1, "connect_wrong_accounts": 1})
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await connection(desk)
    stream = await connection(desk)
    await stream.send(action="connect", value=[ACCOUNT])
    assert (await stream.next())["status"] == "error"
    await stream.send(action="connect", value=[ACCOUNT])
    assert (await stream.next())["value"] == ["5WT99999"]
    await desk.control("PATCH", "/faults", {"connect_deaf": 1, "heartbeat_unanswered": 1})
    await stream.send(action="connect", value=[ACCOUNT])
    assert (await stream.next())["value"] == [ACCOUNT]
    await desk.place()
    await stream.send(**{"action": "heartbeat", "request-id": 8})
    await stream.send(**{"action": "heartbeat", "request-id": 9})
    assert (await stream.next())["request-id"] == 9


async def test_bye_closes_instead_of_sending(desk: Desk) -> None:
    stream = await desk.stream()
    await desk.control("PATCH", "/faults", {"streamer_bye": {"next": 1, "match": {"action": "notice"}}})
    await desk.place()
    closed = await stream.until_closed()
    assert (closed.data, closed.extra) == (1000, "Bye")


@pytest.mark.covers("F36")
async def test_two_connections_both_get_every_message(desk: Desk) -> None:
    streams = [await desk.stream(), await desk.stream()]
    await desk.place()
    seen = [await stream.until_status("Live") for stream in streams]
    assert seen[0] == seen[1]
