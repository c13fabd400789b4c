"""Drives the account stream over a websocket, and makes a new connection whenever one ends.

The reader hands each event to the consumer in the same step in which the frame was taken from the socket: no queue and
no task stands between a fill and what is done about it. `on_event` must therefore be short; the frames behind it wait
in the websocket's bounded buffer, and behind that in the kernel.

Which errors mean "again, after a while" is `retry.classify_connect`.
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import websockets
from websockets.asyncio.client import ClientConnection, connect

from otocod.adapters.tastytrade.auth import Authenticator
from otocod.adapters.tastytrade.errors import TokenUnreachable, describe
from otocod.adapters.tastytrade.http import USER_AGENT
from otocod.adapters.tastytrade.protocol import SECOND_US, AccountStreamerProtocol, Failed
from otocod.adapters.tastytrade.retry import Backoff, Verdict, classify_connect
from otocod.domain.ids import AccountNumber
from otocod.ports.broker import LoginRefused, StreamDown, StreamEvent, StreamUp
from otocod.ports.clock import Clock
from otocod.text import sanitise

_OPEN_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 1.0  # a dead line answers no close frame, and the next connection is waiting
_MOST_BYTES = 4 * 1024 * 1024  # of one message
_MOST_FRAMES = 64  # buffered before reading from the socket stops
_STABLE_US = 60 * SECOND_US  # a connection that lasted this long starts the backoff anew


class _Ended(Exception):
    """This connection is over."""

    def __init__(self, why: str, rejected_bearer: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.rejected_bearer = rejected_bearer


@dataclass(frozen=True, slots=True)
class StreamerTimes:
    heartbeat_interval_s: float = 20.0
    ack_timeout_s: float = 10.0
    backoff_initial_s: float = 0.5
    backoff_max_s: float = 30.0


class TastytradeStreamer:
    """Implements `ports.broker.Streamer`."""

    def __init__(
        self,
        streamer_url: str,
        accounts: Sequence[AccountNumber],
        auth: Authenticator,
        clock: Clock,
        *,
        times: StreamerTimes | None = None,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._url = streamer_url
        self._accounts = tuple(accounts)
        self._auth = auth
        self._clock = clock
        self._times = times or StreamerTimes()
        self._backoff = Backoff(self._times.backoff_initial_s, self._times.backoff_max_s, uniform)
        self._generation = 0
        self._protocol: AccountStreamerProtocol | None = None
        self._last_message_us: int | None = None

    @property
    def protocol(self) -> AccountStreamerProtocol | None:
        """Of the present connection: counters for an operator."""
        return self._protocol

    @property
    def last_message_us(self) -> int | None:
        protocol = self._protocol
        return self._last_message_us if protocol is None else protocol.last_message_us or self._last_message_us

    @property
    def is_healthy(self) -> bool:
        """Subscribed, and something was heard within two heartbeats."""
        protocol = self._protocol
        if protocol is None or not protocol.is_up or protocol.last_message_us is None:
            return False
        silence_us = self._clock.now_us() - protocol.last_message_us
        return silence_us <= 2 * self._times.heartbeat_interval_s * SECOND_US

    async def run(self, on_event: Callable[[StreamEvent], None]) -> None:
        """Until cancelled. Every end of a connection, and every one that was not made, is told as StreamDown.

        An exception of `on_event` ends it: the consumer is broken, and hiding that would lose fills.
        """
        while True:
            self._generation += 1
            began_us = self._clock.now_us()
            try:
                why = await self._one_connection(on_event)
            except Exception as error:
                if classify_connect(error) is Verdict.FATAL:
                    raise
                why = _reason(error)
            finally:
                self._last_message_us = self.last_message_us  # outlives the connection
                self._protocol = None
            on_event(StreamDown(self._generation, why))
            if self._clock.now_us() - began_us >= _STABLE_US:
                self._backoff.reset()
            await self._clock.sleep_until(self._clock.now_us() + int(self._backoff.next_s() * SECOND_US))

    async def _one_connection(self, on_event: Callable[[StreamEvent], None]) -> str:
        await self._auth.bearer()
        interval_s = self._times.heartbeat_interval_s
        async with connect(
            self._url,
            user_agent_header=USER_AGENT,
            compression=None,
            proxy=None,
            open_timeout=_OPEN_TIMEOUT_S,
            close_timeout=_CLOSE_TIMEOUT_S,
            ping_interval=interval_s,
            ping_timeout=interval_s,
            max_size=_MOST_BYTES,
            max_queue=_MOST_FRAMES,
        ) as websocket:
            try:
                ended = await self._serve(websocket, on_event)
            except asyncio.CancelledError:
                await websocket.close()  # in order; left to itself it would report an internal error
                raise
        if ended.rejected_bearer is not None:
            await self._auth.replace(ended.rejected_bearer)
        return ended.why

    async def _serve(self, websocket: ClientConnection, on_event: Callable[[StreamEvent], None]) -> _Ended:
        protocol = self._protocol = AccountStreamerProtocol(
            self._accounts,
            bearer=lambda: self._auth.latest_bearer() or "",
            generation=self._generation,
            heartbeat_interval_us=int(self._times.heartbeat_interval_s * SECOND_US),
            ack_timeout_us=int(self._times.ack_timeout_s * SECOND_US),
        )
        ended = _Ended("closed")
        try:
            for frame in protocol.connection_made(self._clock.now_us()):
                await websocket.send(frame)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_ticking(websocket, protocol), name="stream-heartbeat")
                await self._keep_reading(websocket, protocol, on_event)
        except* _Ended as errors:
            ended = next(error for error in _leaves(errors) if isinstance(error, _Ended))
        except* websockets.ConnectionClosed as errors:
            ended = _Ended(_reason(next(_leaves(errors))))
        return ended

    async def _keep_reading(
        self,
        websocket: ClientConnection,
        protocol: AccountStreamerProtocol,
        on_event: Callable[[StreamEvent], None],
    ) -> None:
        now_us = self._clock.now_us
        while True:
            frame = await websocket.recv(decode=False)
            for event in protocol.receive(frame, now_us()):
                if isinstance(event, Failed):
                    raise self._ended(event)
                on_event(event)
                if isinstance(event, StreamUp):
                    await self._tick(websocket, protocol)

    async def _keep_ticking(self, websocket: ClientConnection, protocol: AccountStreamerProtocol) -> None:
        # What is due can only move away while this sleeps: an earlier due time would be slept over.
        while (due_us := protocol.next_due_us()) is not None:
            await self._clock.sleep_until(due_us)
            self._auth.renew_if_due()
            await self._tick(websocket, protocol)

    async def _tick(self, websocket: ClientConnection, protocol: AccountStreamerProtocol) -> None:
        for action in protocol.tick(self._clock.now_us()):
            if isinstance(action, Failed):
                raise self._ended(action)
            await websocket.send(action)

    def _ended(self, failed: Failed) -> _Ended:
        return _Ended(failed.why, self._auth.latest_bearer() if failed.is_token_suspect else None)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _reason(error: BaseException) -> str:
    """Without the address, which the library's texts may hold."""
    if isinstance(error, websockets.ConnectionClosed):
        close = error.rcvd or error.sent
        return "connection lost" if close is None else f"closed: {close.code} {sanitise(close.reason, 60)}".rstrip()
    if isinstance(error, websockets.InvalidStatus):
        return f"handshake answered with HTTP {error.response.status_code}"
    if isinstance(error, LoginRefused | TokenUnreachable):
        return str(error)
    return describe(error)
