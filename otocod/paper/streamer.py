"""The account streamer: notices of the exchange as websocket messages.

    exchange notices -> deliver() -> per connection: plan of the faults -> queue -> writer task -> socket
    client messages  -> connect, heartbeat, subscriptions -> answer into the same queue

There is no memory: a connection that subscribes late, or anew, gets what happens from then on. Every message carries
the full object, the one REST would show. `hold()` keeps messages back until `release()`, so that an answer to a
request can overtake them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING

from aiohttp import WSCloseCode, WSMsgType, web

from otocod.paper import fault_plans
from otocod.paper.answers import Json, decoded, encode
from otocod.paper.fault_plans import PLAIN_FRAME, FramePlan

if TYPE_CHECKING:
    from otocod.paper.broker import PaperBroker
    from otocod.paper.state import Notice

MAX_QUEUED_FRAMES = 100_000  # a client that reads nothing for so long is dropped
MAX_REMEMBERED_FRAMES = 1_000  # one for each order or position, for the fault that repeats old ones
_SUBSCRIPTIONS = (
    "quote-alerts-subscribe",
    "public-watchlists-subscribe",
    "user-message-subscribe",
    "account-subscribe",
)


class Connection:
    """One websocket. `accounts` is empty until `connect` succeeded."""

    def __init__(
        self,
        broker: PaperBroker,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
        number: int,
    ) -> None:
        self.broker = broker
        self.socket = socket
        self._transport = transport
        self.session_id = f"{number:08x}"
        self.accounts: frozenset[str] = frozenset()
        self.is_connected = False
        self._queue: deque[str] = deque()
        self._ready = asyncio.Event()
        self._behind: list[str] = []
        self._last_frames: dict[tuple[str, str], str] = {}

    def push(self, text: str) -> None:
        """Queues a text for the writer. Messages that were told to go behind the next one follow it."""
        self._queue.append(text)
        if self._behind:
            self._queue.extend(self._behind)
            self._behind.clear()
        if len(self._queue) > MAX_QUEUED_FRAMES:
            self._queue.clear()
            self.abort()
        self._ready.set()

    def abort(self) -> None:
        """Ends the connection without a closing handshake."""
        if self._transport is not None:
            self._transport.abort()

    async def write(self) -> None:
        """Sends what is queued until the socket is gone."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._queue:
                await self.socket.send_str(self._queue.popleft())

    def notify(self, notice: Notice, text: str) -> None:
        """Sends one notice, or does to it what the faults want."""
        faults = self.broker.faults
        plan = PLAIN_FRAME
        if faults.armed:
            if self.is_mute("notice"):
                self._note(notice, "streamer_silent")
                return
            if self.says_goodbye("notice"):
                return
            plan = fault_plans.plan_frame(faults, notice.type, notice.account, notice.data)
            if plan.faults:
                text = _text(_message(notice, fault_plans.disfigured(notice.data, plan)))
        self._note(notice, *plan.faults)
        stale = self._remember(notice, text)
        if plan is PLAIN_FRAME:
            self.push(text)
            return
        texts = self._texts(text, stale, plan)
        if plan.behind_next:
            self._behind += texts
            _later(plan.delay_ms, lambda: self._release_behind(texts))
        elif plan.delay_ms:
            _later(plan.delay_ms, lambda: self._push_all(texts))
        else:
            self._push_all(texts)

    def _texts(self, text: str, stale: str | None, plan: FramePlan) -> list[str]:
        shown = f'{{"results":[{text}]}}' if plan.wrapped else text
        before = ['{"type":"Novelty","data":{"id":1},"timestamp":0}'] if plan.unknown_before else []
        if plan.garbage_before:
            before.append('{"type":"Order","data":')
        texts = before + [shown] * plan.copies
        if plan.stale_after and stale is not None:
            texts.append(stale)
        return texts

    def _remember(self, notice: Notice, text: str) -> str | None:
        """The message before this one about the same thing."""
        key = (notice.type, str(notice.data.get("id", notice.data.get("symbol", ""))))
        previous = self._last_frames.pop(key, None)
        self._last_frames[key] = text
        if len(self._last_frames) > MAX_REMEMBERED_FRAMES:
            del self._last_frames[next(iter(self._last_frames))]
        return previous

    def _release_behind(self, texts: Sequence[str]) -> None:
        """No next message came in time."""
        late = [text for text in texts if text in self._behind]
        for text in late:
            self._behind.remove(text)
        self._push_all(late)

    def _push_all(self, texts: Sequence[str]) -> None:
        for text in texts:
            self.push(text)

    def is_mute(self, action: str) -> bool:
        faults = self.broker.faults
        return any(
            faults.strike(name, {"action": action}) is not None for name in ("streamer_silent", "streamer_half_open")
        )

    def says_goodbye(self, action: str) -> bool:
        bye = self.broker.faults.strike("streamer_bye", {"action": action})
        if bye is None:
            return False
        _later(0, lambda: _spawn(self.socket.close(code=int(bye["code"]), message=str(bye["reason"]).encode())))
        return True

    def _note(self, notice: Notice, *faults: str) -> None:
        data = notice.data
        fields: Json = {"stream": "account", "session": self.session_id, "type": notice.type, "account": notice.account}
        fields |= {key: data[key] for key in ("id", "status", "symbol") if key in data}
        if faults:
            fields["faults"] = list(faults)
        self.broker.log.add("frame", self.broker.clock.now_us(), **fields)

    def answer(self, request: Mapping[str, object], /, **fields: object) -> None:
        """An acknowledgement; the client's request id comes back as it was sent."""
        reply: Json = {
            "status": "ok",
            "action": request.get("action"),
            "web-socket-session-id": self.session_id,
            **fields,
        }
        if "request-id" in request:
            reply["request-id"] = request["request-id"]
        self.push(_text(reply))

    def refuse(self, request: Mapping[str, object], text: str) -> None:
        self.answer(request, status="error", message=text)


class StreamerHub:
    """All connections to the account streamer."""

    def __init__(self, broker: PaperBroker) -> None:
        self._broker = broker
        self._connections: set[Connection] = set()
        self._count = 0
        self._holds = 0
        self._held: list[Notice] = []

    def deliver(self, notices: Sequence[Notice]) -> None:
        if self._holds:
            self._held += notices
            return
        if not self._connections:
            return
        for notice in notices:
            text = ""
            for connection in tuple(self._connections):
                if notice.account in connection.accounts:
                    text = text or _text(_message(notice, notice.data))
                    connection.notify(notice, text)

    def hold(self) -> None:
        self._holds += 1

    def release(self) -> None:
        self._holds -= 1
        if self._holds == 0:
            held, self._held = self._held, []
            self.deliver(held)

    def describe(self) -> list[Json]:
        return [
            {"session": connection.session_id, "accounts": sorted(connection.accounts)}
            for connection in self._connections
        ]

    async def drop(self, *, code: int, reason: str, abrupt: bool) -> int:
        """Closes every connection, with a closing handshake or without; how many there were."""
        connections = tuple(self._connections)
        if abrupt:
            for connection in connections:
                connection.abort()
        else:
            # All at once: each waits a moment for its client's part of the closing handshake.
            closings = [connection.socket.close(code=code, message=reason.encode()) for connection in connections]
            await asyncio.gather(*closings)
        self._broker.log.add(
            "frame", self._broker.clock.now_us(), stream="account", type="drop", connections=len(connections)
        )
        return len(connections)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        broker = self._broker
        refused = broker.faults.strike("streamer_refused", {"action": "handshake"})
        if refused:
            return web.Response(status=int(refused["status"]))
        # Pings are answered here: they are signs of life, and a half-open connection does not answer them.
        socket = web.WebSocketResponse(autoping=False, timeout=1.0, max_msg_size=1 << 20)
        await socket.prepare(request)
        self._count += 1
        number = self._count + broker.seed % 1000 * 4096
        connection = Connection(broker, socket, request.transport, number)
        self._connections.add(connection)
        writer = asyncio.create_task(connection.write())
        try:
            await self._read(connection)
        finally:
            self._connections.discard(connection)
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await writer
        return socket

    async def _read(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        rules = self._broker.server_rules
        alive_at_s = loop.time()
        while True:
            left_s = alive_at_s + rules.whole("streamer.idle_ms") / 1000 - loop.time()
            if left_s <= 0:  # also while other messages keep coming: only a sign of life counts
                await connection.socket.close(code=WSCloseCode.OK, message=b"Bye")
                return
            try:
                message = await connection.socket.receive(timeout=left_s)
            except TimeoutError:
                continue
            if message.type is WSMsgType.PING:
                if rules.word("streamer.keepalive") == "any":
                    alive_at_s = loop.time()
                if self._broker.faults.strike("streamer_half_open", {"action": "ping"}) is None:
                    await connection.socket.pong(message.data)
            elif message.type is WSMsgType.TEXT:
                if self._receive(connection, message.data):
                    alive_at_s = loop.time()
            elif message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                return

    def _receive(self, connection: Connection, text: str) -> bool:
        """Acts on one client message; whether it was a sign of life."""
        try:
            message = decoded(text)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            connection.refuse({}, "failed")
            return False
        action = str(message.get("action", ""))
        if self._broker.faults.armed and (connection.is_mute(action) or connection.says_goodbye(action)):
            return False
        if action == "heartbeat":
            return self._heartbeat(connection, message)
        if action == "connect":
            return self._connect(connection, message)
        if action in _SUBSCRIPTIONS:
            if not connection.is_connected:
                connection.refuse(message, "connect-not-completed")
            else:
                connection.answer(message)
        else:
            connection.refuse(message, "not_implemented")
        return False

    def _heartbeat(self, connection: Connection, message: Json) -> bool:
        strict = self._broker.server_rules.word("streamer.keepalive") == "strict"
        if strict and not self._has_token(message):
            connection.refuse(message, "failed")
            return False
        if self._broker.faults.strike("heartbeat_unanswered", {"action": "heartbeat"}) is None:
            connection.answer(message)
        return True

    def _connect(self, connection: Connection, message: Json) -> bool:
        faults = self._broker.faults
        refused = faults.strike("connect_refused", {"action": "connect"})
        if refused:
            connection.refuse(message, str(refused["message"]))
            return False
        if not str(message.get("auth-token", "")).startswith("Bearer "):
            connection.refuse(message, "Unknown domain")
            return False
        if not self._has_token(message):
            connection.refuse(message, "failed")
            return False
        value = message.get("value")
        accounts = [value] if isinstance(value, str) else value
        if not isinstance(accounts, list) or not accounts or not all(isinstance(name, str) for name in accounts):
            connection.refuse(message, "value missing or not valid")
            return False
        if not set(accounts) <= set(self._broker.accounts):
            connection.refuse(message, "not_permitted")
            return False
        if faults.strike("connect_wrong_accounts", {"action": "connect"}) is not None:
            accounts = ["5WT99999"]
        elif faults.strike("connect_deaf", {"action": "connect"}) is None:
            connection.accounts = frozenset(accounts)
        connection.is_connected = True
        connection.answer(message, value=accounts)
        self._broker.log.add(
            "frame",
            self._broker.clock.now_us(),
            stream="account",
            session=connection.session_id,
            type="connect",
            accounts=accounts,
        )
        return True

    def _has_token(self, message: Json) -> bool:
        return self._broker.tokens.accepts_header(
            str(message.get("auth-token", "")), now_us=self._broker.clock.now_us()
        )


def _message(notice: Notice, data: Mapping[str, object]) -> Json:
    return {"type": notice.type, "data": data, "timestamp": notice.at_us // 1000}


def _later(delay_ms: int, action: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(delay_ms / 1000, action)


_tasks: set[asyncio.Task[bool]] = set()


def _spawn(closing: Coroutine[object, object, bool]) -> None:
    """Runs a close in the background; the set keeps the task alive until it is done."""
    task = asyncio.create_task(closing)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def _text(message: Json) -> str:
    return encode(message).decode()
