"""The account streamer against a websocket server whose every answer the test gives itself; time is moved by hand."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from otocod.adapters.tastytrade.auth import Authenticator, Grant
from otocod.adapters.tastytrade.streamer import TastytradeStreamer
from otocod.ports.broker import LoginRefused, StreamDown, StreamEvent, StreamOrder, StreamPosition, StreamUp
from tests.support.tastytrade import ACCOUNT, ManualClock, payload

WAIT_S = 5
SECOND_US = 1_000_000


class Peer:
    """One connection, from the server's side."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection

    async def said(self, action: str) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_S):
            message = dict(json.loads(await self.connection.recv()))
        assert message["action"] == action
        return message

    async def say(self, message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def accept(self) -> None:
        """Acknowledges the connect and the first heartbeat."""
        connect = await self.said("connect")
        await self.say(payload("stream_connect_ok") | {"request-id": connect["request-id"]})
        await self.answer_heartbeat()

    async def answer_heartbeat(self) -> dict[str, Any]:
        heartbeat = await self.said("heartbeat")
        await self.say(payload("stream_heartbeat_ok") | {"request-id": heartbeat["request-id"]})
        return heartbeat


class Rig:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.logins = 0
        self.login_error: Exception | None = None
        self.auth = Authenticator(self._fetch, self.clock)
        self.events: asyncio.Queue[StreamEvent] = asyncio.Queue()
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.refuse_handshakes = 0
        self.streamer: TastytradeStreamer
        self.running: asyncio.Task[None]

    async def _fetch(self) -> Grant:
        if self.login_error is not None:
            raise self.login_error
        self.logins += 1
        return Grant(f"t{self.logins}", 900 * SECOND_US)

    async def _serve(self, connection: ServerConnection) -> None:
        self.peers.put_nowait(Peer(connection))
        await connection.wait_closed()

    def _handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.refuse_handshakes:
            self.refuse_handshakes -= 1
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "down\n")
        return None

    async def event(self) -> StreamEvent:
        async with asyncio.timeout(WAIT_S):
            return await self.events.get()

    async def peer(self) -> Peer:
        async with asyncio.timeout(WAIT_S):
            return await self.peers.get()

    async def let_time_pass(self) -> None:
        """To the moment somebody waits for first."""
        due_us = await self.clock.next_due_us()
        self.clock.advance_s((due_us - self.clock.now_us()) / SECOND_US)

    async def heard_all(self, peer: Peer) -> None:
        """Everything the peer has said so far has been taken in: what it says last has come out."""
        await peer.say(payload("stream_position"))
        assert isinstance(await self.event(), StreamPosition)

    async def next_heartbeat(self, peer: Peer) -> dict[str, Any]:
        """One interval later, answered."""
        await self.heard_all(peer)
        self.clock.advance_s(20)
        heartbeat = await peer.answer_heartbeat()
        await self.heard_all(peer)
        return heartbeat

    async def stop(self) -> None:
        self.running.cancel()
        await asyncio.wait([self.running], timeout=WAIT_S)


@asynccontextmanager
async def streaming(
    prepare: Callable[[Rig], None] = lambda rig: None, on_event: Callable[[StreamEvent], None] | None = None
) -> AsyncIterator[Rig]:
    rig = Rig()
    prepare(rig)
    async with serve(rig._serve, "127.0.0.1", 0, process_request=rig._handshake) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        rig.streamer = TastytradeStreamer(
            f"ws://127.0.0.1:{port}", (ACCOUNT,), rig.auth, rig.clock, uniform=lambda: 1.0
        )
        rig.running = asyncio.create_task(rig.streamer.run(on_event or rig.events.put_nowait))
        try:
            yield rig
        finally:
            await rig.stop()


async def test_up_after_the_acknowledgement_and_orders_arrive() -> None:
    async with streaming() as rig:
        peer = await rig.peer()
        before = rig.streamer.is_healthy
        await peer.accept()
        assert await rig.event() == StreamUp(1)
        assert (before, rig.streamer.is_healthy) == (False, True)
        await peer.say(payload("stream_order_partial_fill"))
        event = await rig.event()
        assert isinstance(event, StreamOrder)
        assert event.report.broker_order_id == "771043"
        assert rig.streamer.last_message_us == rig.clock.now_us()


@pytest.mark.covers("F36")
async def test_a_closed_connection_is_told_and_made_again_with_the_next_generation() -> None:
    async with streaming() as rig:
        peer = await rig.peer()
        await peer.accept()
        assert await rig.event() == StreamUp(1)
        await peer.connection.close(1000, "Bye")
        assert await rig.event() == StreamDown(1, "closed: 1000 Bye")
        assert not rig.streamer.is_healthy
        await rig.let_time_pass()
        second = await rig.peer()
        await second.accept()
        assert await rig.event() == StreamUp(2)


@pytest.mark.covers("F35")
async def test_connect_without_an_answer_is_given_up_in_time() -> None:
    async with streaming() as rig:
        peer = await rig.peer()
        await peer.said("connect")
        await rig.let_time_pass()
        assert await rig.event() == StreamDown(1, "connect not answered")


@pytest.mark.covers("F28")
async def test_a_line_that_has_gone_dead_is_noticed_within_two_heartbeats() -> None:
    async with streaming() as rig:
        peer = await rig.peer()
        await peer.accept()
        assert await rig.event() == StreamUp(1)
        await rig.heard_all(peer)
        began_us = rig.clock.now_us()
        rig.clock.advance_s(20)
        await peer.said("heartbeat")
        await rig.clock.until_sleeping(began_us + 30 * SECOND_US)
        await rig.let_time_pass()
        assert await rig.event() == StreamDown(1, "heartbeat not answered")
        assert rig.clock.now_us() - began_us <= 40 * SECOND_US


@pytest.mark.covers("F12", "F35")
async def test_a_refused_token_is_replaced_before_the_next_connect() -> None:
    async with streaming() as rig:
        peer = await rig.peer()
        await peer.accept()
        assert await rig.event() == StreamUp(1)
        assert (await rig.next_heartbeat(peer))["auth-token"] == "Bearer t1"
        await peer.say({"status": "error", "action": "heartbeat", "message": "token revoked"})
        assert await rig.event() == StreamDown(1, "heartbeat refused: token revoked")
        await rig.let_time_pass()
        assert (await (await rig.peer()).said("connect"))["auth-token"] == "Bearer t2"


@pytest.mark.covers("F35")
async def test_a_refused_connect_is_down_and_tried_again() -> None:
    async with streaming() as rig:
        peer = await rig.peer()
        await peer.said("connect")
        await peer.say({"status": "error", "action": "connect", "message": "Unknown domain"})
        assert await rig.event() == StreamDown(1, "connect refused: Unknown domain")
        await rig.let_time_pass()
        await (await rig.peer()).accept()
        assert await rig.event() == StreamUp(2)


@pytest.mark.covers("F76")
async def test_heartbeats_carry_the_renewed_token() -> None:
    async with streaming() as rig:
        peer = await rig.peer()
        await peer.accept()
        assert await rig.event() == StreamUp(1)
        tokens = [(await rig.next_heartbeat(peer))["auth-token"] for _ in range(30)]
        assert tokens[0] == "Bearer t1"
        assert tokens[-1] == "Bearer t2"
        assert rig.logins == 2


@pytest.mark.covers("F77")
async def test_the_line_is_kept_while_the_token_service_is_away() -> None:
    async with streaming() as rig:
        peer = await rig.peer()
        await peer.accept()
        assert await rig.event() == StreamUp(1)
        rig.login_error = LoginRefused("revoked")
        for _ in range(60):
            assert (await rig.next_heartbeat(peer))["auth-token"] == "Bearer t1"
        assert rig.streamer.is_healthy
        assert rig.auth.is_refused


async def test_a_server_that_is_down_is_tried_again_with_growing_delays() -> None:
    def down(rig: Rig) -> None:
        rig.refuse_handshakes = 4

    async with streaming(down) as rig:
        delays_s = []
        for generation in range(1, 5):
            assert await rig.event() == StreamDown(generation, "handshake answered with HTTP 503")
            due_us = await rig.clock.next_due_us()
            delays_s.append((due_us - rig.clock.now_us()) / SECOND_US)
            await rig.let_time_pass()
        assert delays_s == [0.5, 1, 2, 4]
        await (await rig.peer()).accept()
        assert await rig.event() == StreamUp(5)


@pytest.mark.covers("F78")
async def test_a_refused_login_keeps_the_streamer_trying_and_says_why() -> None:
    def refuse(rig: Rig) -> None:
        rig.login_error = LoginRefused("log-in refused: HTTP 400 invalid_grant")

    async with streaming(refuse) as rig:
        assert await rig.event() == StreamDown(1, "log-in refused: HTTP 400 invalid_grant")
        rig.login_error = None
        rig.auth.retry_now()
        await rig.let_time_pass()
        await (await rig.peer()).accept()
        assert await rig.event() == StreamUp(2)


@pytest.mark.covers("F27")
async def test_garbage_does_not_end_the_connection() -> None:
    async with streaming() as rig:
        peer = await rig.peer()
        await peer.accept()
        assert await rig.event() == StreamUp(1)
        for garbage in ("", "null", "[", "{}", '{"type": 5}', '{"type": "Order", "data": 1}'):
            await peer.connection.send(garbage)
        await peer.connection.send(b"\xff\xfe")
        await peer.say(payload("stream_order_rejected"))
        seen = [await rig.event()]
        while not isinstance(seen[-1], StreamOrder | StreamDown):
            seen.append(await rig.event())
        assert isinstance(seen[-1], StreamOrder)
        assert rig.streamer.protocol is not None
        assert rig.streamer.protocol.unreadable == 5


async def test_a_message_beyond_the_limit_ends_the_connection_and_not_the_daemon() -> None:
    async with streaming() as rig:
        peer = await rig.peer()
        await peer.accept()
        assert await rig.event() == StreamUp(1)
        await peer.connection.send("x" * (4 * 1024 * 1024 + 1))
        down = await rig.event()
        assert isinstance(down, StreamDown)
        assert down.why.startswith("closed: 1009")


async def test_stopping_closes_the_websocket_in_order() -> None:
    async with streaming() as rig:
        peer = await rig.peer()
        await peer.accept()
        assert await rig.event() == StreamUp(1)
        await rig.stop()
        async with asyncio.timeout(WAIT_S):
            await peer.connection.wait_closed()
        assert peer.connection.close_code == 1000
        assert not rig.streamer.is_healthy


async def test_a_consumer_that_raises_ends_the_run() -> None:
    def broken(event: StreamEvent) -> None:
        raise RuntimeError("consumer")

    async with streaming(on_event=broken) as rig:
        peer = await rig.peer()
        connect = await peer.said("connect")
        await peer.say(payload("stream_connect_ok") | {"request-id": connect["request-id"]})
        async with asyncio.timeout(WAIT_S):
            await asyncio.wait([rig.running])
        error = rig.running.exception()
        assert isinstance(error, ExceptionGroup)
        assert error.subgroup(RuntimeError) is not None
