"""Drives the quote feed over a websocket: `ports.quotes.QuoteFeed`.

Quotes are a convenience beside the orders, and are kept from being more: nothing here is awaited by the order side, no
error ends it, it shares one connection of the REST transport at most, and after every frame the loop goes round once,
so that a flood of quotes delays an order by one frame and not by the flood.

Freshness. A quiet symbol sends nothing for minutes, so a quote is as fresh as the line that would bring the next one. A
websocket ping every two seconds tells how fresh that is; two of them unanswered end the connection, and with it every
quote it brought.

A quote token lives a day, and a connection may not outlive its token: an hour before the end the next token is fetched
and the connection made anew with it, at once, which is a gap of some hundred milliseconds. Without a new token the old
connection is kept for as long as the server does.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import websockets
from websockets.asyncio.client import ClientConnection, connect

from otocod.adapters.tastytrade.dxlink import Action, DxLinkProtocol, Failed, Oddity, Quotes, Up, WireQuote
from otocod.adapters.tastytrade.errors import describe
from otocod.adapters.tastytrade.http import USER_AGENT
from otocod.adapters.tastytrade.quotetokens import QuoteToken, QuoteTokens
from otocod.adapters.tastytrade.retry import Backoff
from otocod.adapters.tastytrade.streamer_symbols import StreamerSymbols
from otocod.domain.quotes import FeedState, LegQuote
from otocod.ports.broker import ReadFailed
from otocod.ports.clock import Clock
from otocod.ports.quotes import (
    Instrument,
    QuoteEvent,
    QuoteHealth,
    QuotesChanged,
    QuotesDown,
    QuotesOddity,
    QuotesUp,
)
from otocod.text import sanitise

SECOND_US = 1_000_000

_OPEN_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 1.0  # a dead line answers no close frame, and the next connection is waiting
_MOST_BYTES = 1024 * 1024  # of one message
_MOST_FRAMES = 16  # buffered before reading from the socket stops: old quotes are of no use
_STABLE_US = 60 * SECOND_US  # a connection that lasted this long starts the backoff anew
_PINGS_UNANSWERED = 2


@dataclass(frozen=True, slots=True)
class QuoteTimes:
    keepalive_s: int = 60  # the longest silence asked for and promised; the server's answer may set another
    handshake_timeout_s: int = 15
    ping_s: float = 2.0
    backoff_initial_s: float = 0.5
    backoff_max_s: float = 30.0
    renew_retry_s: float = 300.0  # a new quote token could not be had: the old one still serves
    mapping_retry_s: float = 30.0  # streamer symbols could not be asked for


def _ignore_failure(error: Exception) -> None:
    pass


class _Ended(Exception):
    """This connection is over. `is_planned`: we ended it, and the next one is made at once."""

    def __init__(self, why: str, *, is_token_suspect: bool = False, is_planned: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.is_token_suspect = is_token_suspect
        self.is_planned = is_planned


class DxLinkQuotes:
    """Implements `ports.quotes.QuoteFeed`. For use on one event loop."""

    def __init__(
        self,
        tokens: QuoteTokens,
        symbols: StreamerSymbols,
        clock: Clock,
        *,
        times: QuoteTimes | None = None,
        uniform: Callable[[], float] = random.random,
        on_failure: Callable[[Exception], None] = _ignore_failure,
    ) -> None:
        """`on_failure` is told of errors that are bugs, ours or the consumer's; the feed goes on after them."""
        self._tokens = tokens
        self._symbols = symbols
        self._clock = clock
        self._times = times or QuoteTimes()
        self._backoff = Backoff(self._times.backoff_initial_s, self._times.backoff_max_s, uniform)
        self._on_failure = on_failure
        self._on_event: Callable[[QuoteEvent], None] = lambda event: None
        self._wanted: frozenset[Instrument] = frozenset()
        self._order_symbols: dict[str, str] = {}  # by streamer symbol, of those wanted and mapped
        self._streamer_symbols: dict[str, str] = {}  # the other way round
        self._unmapped: tuple[Instrument, ...] = ()
        self._is_wanted_changed = asyncio.Event()  # for the connection
        self._is_mapping_wanted = asyncio.Event()  # for the mapper
        self._is_anything_wanted = asyncio.Event()
        self._book: dict[str, LegQuote] = {}  # by streamer symbol; of the present connection only
        self._generation = 0
        self._sequence = 0
        self._protocol: DxLinkProtocol | None = None
        self._pong_us: int | None = None
        self._why_down: str | None = "not started"
        self._oddities = 0

    # What the engine asks.

    def want(self, instruments: Collection[Instrument]) -> None:
        wanted = frozenset(instruments)
        if wanted == self._wanted:
            return
        self._wanted = wanted
        self._remap()
        if wanted:
            self._is_anything_wanted.set()
        else:
            self._is_anything_wanted.clear()

    def latest(self, symbol: str) -> LegQuote | None:
        streamer_symbol = self._streamer_symbols.get(symbol)
        return None if streamer_symbol is None else self._book.get(streamer_symbol)

    @property
    def feed(self) -> FeedState:
        protocol = self._protocol
        if protocol is None or not protocol.is_up:
            return FeedState(is_up=False, generation=self._generation, heard_us=None)
        heard = [at_us for at_us in (protocol.last_frame_us, self._pong_us) if at_us is not None]
        return FeedState(is_up=True, generation=self._generation, heard_us=max(heard, default=None))

    @property
    def health(self) -> QuoteHealth:
        return QuoteHealth(
            feed=self.feed,
            why_down=self._why_down,
            wanted=len(self._wanted),
            quoted=sum(name in self._book for name in self._order_symbols),
            unmapped=tuple(sorted(instrument.symbol for instrument in self._unmapped)),
            oddities=self._oddities,
            level=self._tokens.level,
        )

    async def run(self, on_event: Callable[[QuoteEvent], None]) -> None:
        self._on_event = on_event
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_mapping(), name="quotes-symbols")
            group.create_task(self._keep_connected(), name="quotes")

    # Symbols.

    def _remap(self) -> None:
        mapped = {instrument: self._symbols.known(instrument) for instrument in self._wanted}
        found = {instrument.symbol: name for instrument, name in mapped.items() if name is not None}
        self._streamer_symbols = found
        self._order_symbols = {name: symbol for symbol, name in found.items()}
        self._unmapped = tuple(instrument for instrument, name in mapped.items() if name is None)
        self._is_wanted_changed.set()
        if self._unmapped:
            self._is_mapping_wanted.set()

    async def _keep_mapping(self) -> None:
        while True:
            await self._is_mapping_wanted.wait()
            self._is_mapping_wanted.clear()
            if not self._unmapped:
                continue
            asked = self._unmapped
            try:
                await self._symbols.ask(asked)
            except Exception as error:
                self._report(error)
            if any(self._symbols.known(instrument) is not None for instrument in asked):
                self._remap()
            if self._unmapped:
                await self._sleep(self._times.mapping_retry_s)
                self._is_mapping_wanted.set()

    # Connections.

    async def _keep_connected(self) -> None:
        while True:
            await self._is_anything_wanted.wait()
            self._generation += 1
            began_us = self._clock.now_us()
            try:
                ended = await self._one_connection()
            except Exception as error:
                self._report(error)
                ended = _Ended(_reason(error))
            finally:
                self._protocol = None
                self._pong_us = None
                self._book.clear()
            self._why_down = ended.why
            self._tell(QuotesDown(self._generation, ended.why))
            if ended.is_planned:
                continue
            if self._clock.now_us() - began_us >= _STABLE_US:
                self._backoff.reset()
            await self._sleep(self._backoff.next_s())

    def _report(self, error: Exception) -> None:
        """What a network, a server or the log-in can do is no failure of the program; everything else is."""
        if not isinstance(error, OSError | TimeoutError | websockets.WebSocketException | ReadFailed):
            self._on_failure(error)

    async def _one_connection(self) -> _Ended:
        token = await self._tokens.current()
        async with connect(
            token.url,
            user_agent_header=USER_AGENT,
            compression=None,
            proxy=None,
            open_timeout=_OPEN_TIMEOUT_S,
            close_timeout=_CLOSE_TIMEOUT_S,
            ping_interval=None,  # pings of our own, since the library does not say when it was answered
            max_size=_MOST_BYTES,
            max_queue=_MOST_FRAMES,
        ) as websocket:
            try:
                ended = await self._serve(websocket, token)
            except asyncio.CancelledError:
                await websocket.close()  # in order; left to itself it would report an internal error
                raise
        if ended.is_token_suspect:
            self._tokens.drop(token)
        return ended

    async def _serve(self, websocket: ClientConnection, token: QuoteToken) -> _Ended:
        protocol = self._protocol = DxLinkProtocol(
            token.token,
            keepalive_s=self._times.keepalive_s,
            handshake_timeout_s=self._times.handshake_timeout_s,
        )
        self._is_wanted_changed.set()
        ended = _Ended("closed")
        try:
            await self._act(websocket, protocol.connection_made(self._clock.now_us()))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_ticking(websocket, protocol), name="quotes-keepalive")
                group.create_task(self._keep_pinging(websocket), name="quotes-ping")
                group.create_task(self._keep_subscribed(websocket, protocol), name="quotes-wanted")
                group.create_task(self._keep_fresh(token), name="quotes-token")
                await self._keep_reading(websocket, protocol)
        except* _Ended as errors:
            ended = next(error for error in _leaves(errors) if isinstance(error, _Ended))
        except* websockets.ConnectionClosed as errors:
            ended = _Ended(_reason(next(_leaves(errors))))
        return ended

    async def _keep_reading(self, websocket: ClientConnection, protocol: DxLinkProtocol) -> None:
        while True:
            frame = await websocket.recv(decode=False)
            await self._act(websocket, protocol.receive(frame, self._clock.now_us()))
            # A frame that is buffered already is received without a pause, and so would be the next thousand.
            await asyncio.sleep(0)

    async def _keep_ticking(self, websocket: ClientConnection, protocol: DxLinkProtocol) -> None:
        while (due_us := protocol.next_due_us()) is not None:
            # The server's SETUP may bring what is due nearer, so this looks again within a second.
            await self._clock.sleep_until(min(due_us, self._clock.now_us() + SECOND_US))
            await self._act(websocket, protocol.tick(self._clock.now_us()))

    async def _keep_pinging(self, websocket: ClientConnection) -> None:
        ping_us = int(self._times.ping_s * SECOND_US)
        self._pong_us = self._clock.now_us()
        while True:
            await self._clock.sleep_until(self._clock.now_us() + ping_us)
            if self._since_pong_us() > (_PINGS_UNANSWERED + 1) * ping_us:
                raise _Ended("pings are not answered")
            pong = await websocket.ping()
            asyncio.ensure_future(pong).add_done_callback(self._note_pong)

    def _since_pong_us(self) -> int:
        return 0 if self._pong_us is None else self._clock.now_us() - self._pong_us

    def _note_pong(self, pong: "asyncio.Future[float]") -> None:
        if not pong.cancelled() and pong.exception() is None and self._protocol is not None:
            self._pong_us = self._clock.now_us()

    async def _keep_subscribed(self, websocket: ClientConnection, protocol: DxLinkProtocol) -> None:
        while True:
            await self._is_wanted_changed.wait()
            self._is_wanted_changed.clear()
            frames = protocol.want(self._order_symbols)
            # In step with the subscriptions: what is wanted again before it was given up has its quote still.
            self._book = {name: quote for name, quote in self._book.items() if name in self._order_symbols}
            await self._act(websocket, frames)

    async def _keep_fresh(self, token: QuoteToken) -> None:
        await self._clock.sleep_until(token.renew_us)
        while True:
            try:
                if await self._tokens.current() is not token:
                    raise _Ended("the quote token was renewed", is_planned=True)
            except ReadFailed:
                pass  # asked again below; the old one still serves
            await self._sleep(self._times.renew_retry_s)

    async def _act(self, websocket: ClientConnection, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case str():
                    await websocket.send(action)
                case Quotes(quotes=quotes):
                    self._take(quotes)
                case Up():
                    self._why_down = None
                    self._tell(QuotesUp(self._generation))
                case Oddity(why=why):
                    self._oddities += 1
                    self._tell(QuotesOddity(why))
                case Failed(why=why, is_token_suspect=is_token_suspect):
                    raise _Ended(why, is_token_suspect=is_token_suspect)

    # Quotes.

    def _take(self, quotes: tuple[WireQuote, ...]) -> None:
        now_us = self._clock.now_us()
        changed: dict[str, None] = {}
        for wire in quotes:
            if _is_repetition(self._book.get(wire.streamer_symbol), wire):
                continue
            self._sequence += 1
            self._book[wire.streamer_symbol] = LegQuote(
                bid=wire.bid,
                ask=wire.ask,
                bid_size=wire.bid_size,
                ask_size=wire.ask_size,
                at_us=now_us,
                sequence=self._sequence,
                generation=self._generation,
            )
            symbol = self._order_symbols.get(wire.streamer_symbol)
            if symbol is not None:
                changed[symbol] = None
        if changed:
            self._tell(QuotesChanged(tuple(changed)))

    def _tell(self, event: QuoteEvent) -> None:
        try:
            self._on_event(event)
        except Exception as error:
            self._on_failure(error)

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep_until(self._clock.now_us() + int(seconds * SECOND_US))


def _is_repetition(known: LegQuote | None, wire: WireQuote) -> bool:
    """The same quote once more is no second witness for it."""
    if known is None:
        return False
    return (known.bid, known.ask, known.bid_size, known.ask_size) == (wire.bid, wire.ask, wire.bid_size, wire.ask_size)


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
    if isinstance(error, ReadFailed):
        return str(error)
    return describe(error)
