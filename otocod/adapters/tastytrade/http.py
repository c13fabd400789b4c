"""One HTTP exchange: what was answered, or proof of how far the request got. No repeats, no redirects, no verdicts.

**At once.** `ask` writes the request in the step that calls it if a connection is free, and two are kept so. A client
that makes a task and a dozen objects of its own for each request costs as much as everything else between a fill and
its exits together; hence connections of our own (decision 17).

**The phase.** Whatever fails before a connection is in hand (name, address, TLS, waiting for a slot) cannot have
written a byte of the request. Whatever fails after it may have: a kept connection that the peer is closing right now
takes the bytes, and only the peer knows whether it read them. So that moment is the border between NeverSent and
MaybeSent, and nothing later is.
"""

import asyncio
import errno
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

import aiohappyeyeballs

import otocod
from otocod.adapters.tastytrade.connection import Broken, Connection, Response
from otocod.adapters.tastytrade.errors import MaybeSent, NeverSent, describe
from otocod.ports.clock import Clock

USER_AGENT = f"otocod/{otocod.__version__}"

Query = Sequence[tuple[str, str]]

_CONNECTIONS = 20  # all at once; two are kept warm, the rest is for a broker that answers slowly
# Shorter than the 60 s after which load balancers usually close an idle one, because a close that crosses our request
# makes its outcome unknown.
_KEEP_ALIVE_S = 50.0
_NEXT_ADDRESS_S = 0.25  # an address that does not answer so long is not waited for alone


@dataclass(frozen=True, slots=True)
class Answer:
    http_status: int
    body: bytes
    date: str | None  # the header
    asked_us: int
    answered_us: int


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, one for each phase. `connect_s` covers name, address, TLS and the wait for a slot."""

    connect_s: float = 3.0
    answer_s: float = 10.0


class Transport:
    """Must be made inside the running loop. Certificates are always verified, by the system's store."""

    def __init__(self, api_url: str, clock: Clock, *, timeouts: Timeouts, accept_version: str | None = None) -> None:
        address = urlsplit(api_url.rstrip("/"))
        self._host = address.hostname or ""
        self._tls = ssl.create_default_context() if address.scheme == "https" else None
        self._port = address.port or (80 if self._tls is None else 443)
        self._path = address.path
        self._clock = clock
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        headers = {
            "Host": address.netloc,
            "User-Agent": USER_AGENT,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
        }
        # The oldest version is served without it; one environment's order routes broke with it. Hence a setting.
        if accept_version is not None:
            headers["Accept-Version"] = accept_version
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._connections: set[Connection] = set()
        self._last_lost = asyncio.Event()
        self._free: list[Connection] = []  # the last used last
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(
        self, method: str, path: str, *, bearer: str | None, body: bytes | None = None, query: Query = ()
    ) -> "asyncio.Future[Answer]":
        """`path` is already quoted. If a connection is free the request has left when this returns.

        The future ends in an answer, of any status, or in NeverSent or MaybeSent. Cancelling it calls nothing back.
        """
        request = self._request(method, path, bearer, body, query)
        answer: asyncio.Future[Answer] = self._loop.create_future()
        connection = self._pop_free() if self._under_way < _CONNECTIONS else None
        if connection is None:
            task = self._loop.create_task(self._connect_and_ask(request, answer), name="connect")
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._connecting_ended(done, answer))
        else:
            self._under_way += 1
            self._ask(connection, request, answer)
        return answer

    async def exchange(
        self, method: str, path: str, *, bearer: str | None, body: bytes | None = None, query: Query = ()
    ) -> Answer:
        """As `ask`, waited for."""
        return await self.ask(method, path, bearer=bearer, body=body, query=query)

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """`auth.Poster`: without authorization."""
        answer = await self.exchange("POST", path, bearer=None, body=body)
        return answer.http_status, answer.body

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        for connection in tuple(self._connections):
            connection.give_up("closed")
        if self._connections:
            self._last_lost.clear()
            await self._last_lost.wait()

    # One exchange.

    def _request(self, method: str, path: str, bearer: str | None, body: bytes | None, query: Query) -> bytes:
        target = f"{self._path}{path}?{urlencode(query, quote_via=quote)}" if query else f"{self._path}{path}"
        authorization = "" if bearer is None else f"Authorization: {bearer}\r\n"
        if body is None:
            return f"{method} {target} HTTP/1.1\r\n{self._headers}{authorization}\r\n".encode("ascii")
        head = f"{method} {target} HTTP/1.1\r\n{self._headers}{authorization}Content-Length: {len(body)}\r\n\r\n"
        return head.encode("ascii") + body

    def _ask(self, connection: Connection, request: bytes, answer: "asyncio.Future[Answer]") -> None:
        asked_us = self._clock.now_us()
        timer = self._loop.call_later(self._timeouts.answer_s, connection.give_up, "timed out")

        def told(response: Response | Broken) -> None:
            timer.cancel()
            self._ended()
            if answer.done():
                return  # whoever asked has gone away
            if isinstance(response, Broken):
                answer.set_exception(MaybeSent(str(response)))
            else:
                at_us = self._clock.now_us()
                answer.set_result(Answer(response.http_status, response.body, response.date, asked_us, at_us))

        connection.ask(request, told)

    async def _connect_and_ask(self, request: bytes, answer: "asyncio.Future[Answer]") -> None:
        try:
            async with asyncio.timeout(self._timeouts.connect_s):
                await self._begin()
                try:
                    connection = self._pop_free() or await self._connect()
                except BaseException:
                    self._ended()
                    raise
        except (OSError, ValueError) as error:  # TimeoutError is one, ssl.SSLError too; ValueError: a name that is none
            if not answer.done():
                answer.set_exception(NeverSent(describe(error)))
            return
        self._ask(connection, request, answer)

    def _connecting_ended(self, task: "asyncio.Task[None]", answer: "asyncio.Future[Answer]") -> None:
        self._tasks.discard(task)
        if task.cancelled() and not answer.done():
            answer.set_exception(NeverSent("closed"))

    async def _begin(self) -> None:
        """Waits until fewer exchanges are under way than there may be connections, and counts as one."""
        if self._under_way < _CONNECTIONS:
            self._under_way += 1
            return
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._ended()
            raise

    def _ended(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._under_way -= 1

    # Connections.

    def _pop_free(self) -> Connection | None:
        oldest_s = self._loop.time() - _KEEP_ALIVE_S
        while self._free:
            connection = self._free.pop()
            if connection.is_usable and connection.free_since_s >= oldest_s:
                return connection
            connection.close()
        return None

    async def _connect(self) -> Connection:
        addresses = await self._loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        sock = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1)
        try:
            _, connection = await self._loop.create_connection(
                lambda: Connection(self._freed, self._lost),
                sock=sock,
                ssl=self._tls,
                server_hostname=None if self._tls is None else self._host,
            )
        except BaseException:
            sock.close()
            raise
        if not connection.is_usable:
            raise ConnectionResetError(errno.ECONNRESET, "closed at once")
        self._connections.add(connection)
        return connection

    def _freed(self, connection: Connection) -> None:
        now_s = self._loop.time()
        connection.free_since_s = now_s
        self._free.append(connection)
        while self._free[0].free_since_s < now_s - _KEEP_ALIVE_S:
            self._free.pop(0).close()

    def _lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._last_lost.set()
        if connection in self._free:
            self._free.remove(connection)
