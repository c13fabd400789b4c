"""The quote feed against the paper broker over a real websocket, and against one whose every answer the test gives.

The feed's time is moved by hand, the paper broker's runs: what the feed does after a while it does at once here.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from otocod.adapters.tastytrade.auth import Authenticator, Secrets, TokenService
from otocod.adapters.tastytrade.http import Timeouts, Transport
from otocod.adapters.tastytrade.quotestream import DxLinkQuotes, QuoteTimes
from otocod.adapters.tastytrade.quotetokens import QuoteTokens
from otocod.adapters.tastytrade.reading import Reader
from otocod.adapters.tastytrade.streamer_symbols import StreamerSymbols
from otocod.domain.quotes import LegQuote, QuoteFault, QuoteReason, SpreadQuote, spread_quote
from otocod.domain.specs import Action, InstrumentType, Leg
from otocod.paper.server import PaperServer
from otocod.ports.quotes import Instrument, QuoteEvent, QuotesChanged, QuotesDown, QuotesOddity, QuotesUp
from tests.support.tastytrade import ManualClock, fake_broker, json_reply

WAIT_S = 5
SHORT, LONG = "AAPL  301220C00300000", "AAPL  301220C00305000"
SHORT_NAME = ".AAPL301220C300"
# Pings need the feed's time to go in small steps; where they are not the subject they are out of the way.
QUIET = QuoteTimes(ping_s=1_000_000)


def option(symbol: str) -> Instrument:
    return Instrument(InstrumentType.EQUITY_OPTION, symbol)


def leg(symbol: str, action: Action) -> Leg:
    return Leg(InstrumentType.EQUITY_OPTION, symbol, action, 1)


CLOSING = (leg(SHORT, Action.BUY_TO_CLOSE), leg(LONG, Action.SELL_TO_CLOSE))


class Rig:
    """One feed, wired as the composition root does it."""

    def __init__(self, api_url: str, times: QuoteTimes) -> None:
        self.clock = ManualClock()
        self.transport = Transport(api_url, self.clock, timeouts=Timeouts(connect_s=2, answer_s=5))
        self.auth = Authenticator(TokenService(self.transport, Secrets("s", "r")).fetch, self.clock)
        reader = Reader(self.transport, self.auth)
        self.failures: list[Exception] = []
        self.feed = DxLinkQuotes(
            QuoteTokens(reader, self.clock),
            StreamerSymbols(reader),
            self.clock,
            times=times,
            uniform=lambda: 1.0,
            on_failure=self.failures.append,
        )
        self.events: asyncio.Queue[QuoteEvent] = asyncio.Queue()
        self.seen: list[QuoteEvent] = []
        self.running: asyncio.Task[None] | None = None

    def start(self, on_event: Callable[[QuoteEvent], None] | None = None) -> None:
        self.running = asyncio.create_task(self.feed.run(on_event or self.events.put_nowait))

    async def next(self) -> QuoteEvent:
        async with asyncio.timeout(WAIT_S):
            event = await self.events.get()
        self.seen.append(event)
        return event

    async def until(self, kind: type[Any]) -> Any:
        while not isinstance(event := await self.next(), kind):
            pass
        return event

    async def up(self) -> QuotesUp:
        event = await self.until(QuotesUp)
        assert isinstance(event, QuotesUp)
        return event

    async def down(self) -> str:
        return str((await self.until(QuotesDown)).why)

    async def come_back(self) -> float:
        """The feed sleeps between two connections; lets that time pass, and says how long it was, in seconds."""
        now_us = self.clock.now_us()
        pause_us = await self.clock.next_due_us() - now_us
        self.clock.advance_s(pause_us / 1_000_000)
        return pause_us / 1_000_000

    async def latest(self, symbol: str) -> LegQuote:
        while (quote := self.feed.latest(symbol)) is None:
            await self.until(QuotesChanged)
        return quote

    async def newer(self, than: LegQuote, symbol: str = SHORT) -> LegQuote:
        """The next quote of the symbol; other events pass by."""
        while (quote := self.feed.latest(symbol)) is None or quote.sequence <= than.sequence:
            await self.until(QuotesChanged)
        return quote

    def spread(self) -> SpreadQuote | QuoteFault:
        found = {symbol: self.feed.latest(symbol) for symbol in (SHORT, LONG)}
        book = {symbol: quote for symbol, quote in found.items() if quote is not None}
        return spread_quote(CLOSING, book, self.feed.feed, self.clock.now_us())

    async def stop(self) -> None:
        if self.running is not None:
            self.running.cancel()
            await asyncio.wait([self.running], timeout=WAIT_S)
        await self.auth.close()
        await self.transport.close()


@pytest.fixture
async def server() -> AsyncIterator[PaperServer]:
    server = PaperServer(seed=7)
    await server.start()
    yield server
    await server.stop()


@asynccontextmanager
async def feeding(
    api_url: str, *instruments: Instrument, times: QuoteTimes = QUIET, starts: bool = True
) -> AsyncIterator[Rig]:
    rig = Rig(api_url, times)
    rig.feed.want(instruments)
    if starts:
        rig.start()
    try:
        yield rig
    finally:
        await rig.stop()


async def eventually(condition: Callable[[], bool]) -> None:
    """For what happens on the far side of a socket, which no event announces."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def quoted(server: PaperServer, symbol: str, bid: str, ask: str) -> None:
    server.broker.set_quote(symbol, Decimal(bid), Decimal(ask))


def tokens_asked(server: PaperServer) -> int:
    entries = server.broker.log.since(0, 1_000)["entries"]
    return sum((entry.get("path"), entry.get("status")) == ("/api-quote-tokens", 200) for entry in entries)


def market(server: PaperServer) -> None:
    quoted(server, SHORT, "3.10", "3.20")
    quoted(server, LONG, "1.95", "2.05")


# Quotes and subscriptions.


async def test_quotes_of_wanted_legs_come_exact_and_make_a_spread(server: PaperServer) -> None:
    market(server)
    async with feeding(server.api_url, option(SHORT), option(LONG)) as rig:
        assert await rig.up() == QuotesUp(1)
        short, long = await rig.latest(SHORT), await rig.latest(LONG)
        assert (short.bid, short.ask, short.ask_size) == (Decimal("3.1"), Decimal("3.2"), Decimal(10))
        assert (short.at_us, short.generation) == (rig.clock.now_us(), 1)
        assert {short.sequence, long.sequence} == {1, 2}
        spread = rig.spread()
        assert isinstance(spread, SpreadQuote)
        assert (spread.natural, spread.far) == (Decimal("1.25"), Decimal("1.05"))
        health = rig.feed.health
        assert (health.wanted, health.quoted, health.unmapped, health.level) == (2, 2, (), "api")
        assert (health.feed.is_up, health.why_down) == (True, None)
        quoted(server, SHORT, "3.30", "3.40")
        assert (await rig.newer(short)).sequence == 3
        assert rig.seen[-1] == QuotesChanged((SHORT,))


async def test_only_what_is_wanted_is_subscribed_and_what_is_not_has_no_quote(server: PaperServer) -> None:
    market(server)
    async with feeding(server.api_url, option(SHORT)) as rig:
        await rig.latest(SHORT)
        assert server.quote_hub.wanted() == {SHORT}
        assert rig.feed.latest(LONG) is None
        rig.feed.want([option(LONG)])
        assert rig.feed.latest(SHORT) is None
        await rig.latest(LONG)
        await eventually(lambda: server.quote_hub.wanted() == {LONG})
        rig.feed.want([option(SHORT), option(LONG)])
        assert rig.feed.latest(SHORT) is None, "it was not subscribed for a while"
        await rig.latest(SHORT)
        rig.feed.want([])
        await eventually(lambda: server.quote_hub.wanted() == set())


async def test_leg_that_is_wanted_again_at_once_keeps_its_quote(server: PaperServer) -> None:
    market(server)
    async with feeding(server.api_url, option(SHORT)) as rig:
        quote = await rig.latest(SHORT)
        rig.feed.want([])
        rig.feed.want([option(SHORT)])
        assert rig.feed.latest(SHORT) is quote
        quoted(server, SHORT, "3.00", "3.05")
        await rig.newer(quote)


async def test_without_a_watched_bracket_there_is_no_connection_and_no_token(server: PaperServer) -> None:
    async with feeding(server.api_url) as rig:
        await asyncio.sleep(0)
        assert rig.feed.latest(SHORT) is None
        assert rig.feed.feed.is_up is False
        rig.feed.want([option(SHORT)])
        assert await rig.up() == QuotesUp(1)
        assert tokens_asked(server) == 1


async def test_futures_option_is_subscribed_by_the_name_the_broker_gives(server: PaperServer) -> None:
    symbol = "./ESZ0 EW4Z0 301224C6500"
    quoted(server, symbol, "10.25", "10.75")
    unknown = Instrument(InstrumentType.FUTURE, "/XXZ0")
    wanted = (Instrument(InstrumentType.FUTURE_OPTION, symbol), unknown, option(SHORT))
    async with feeding(server.api_url, *wanted) as rig:
        assert (await rig.latest(symbol)).ask == Decimal("10.75")
        await rig.clock.until_sleeping(rig.clock.now_us() + 30_000_000)  # before it asks for the unknown one again
        assert rig.feed.health.unmapped == ("/XXZ0",)
        assert rig.failures == []


async def test_same_quote_told_again_is_no_news(server: PaperServer) -> None:
    market(server)
    async with feeding(server.api_url, option(SHORT)) as rig:
        before = await rig.latest(SHORT)
        server.broker.faults.patch({"quote_doubled": True})
        rig.clock.advance_s(0.1)
        quoted(server, SHORT, "3.10", "3.20")
        quoted(server, SHORT, "3.11", "3.20")
        after = await rig.newer(before)
        assert (after.sequence, after.bid) == (before.sequence + 1, Decimal("3.11"))


# Bad quotes.

BY = {"quote_wide": {"by": "1.50"}}  # more would take all of the bid


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("quote_nan", QuoteReason.NOT_A_NUMBER),
        ("quote_infinite", QuoteReason.NOT_A_NUMBER),
        ("quote_crossed", QuoteReason.CROSSED),
        ("quote_zero_bid", QuoteReason.ZERO_BID),
        ("quote_wide", QuoteReason.TOO_WIDE),
    ],
)
async def test_bad_quote_over_the_wire_has_its_named_reason_and_the_next_good_one_heals(
    server: PaperServer, fault: str, reason: QuoteReason
) -> None:
    market(server)
    async with feeding(server.api_url, option(SHORT), option(LONG)) as rig:
        await rig.latest(SHORT)
        good = await rig.latest(LONG)
        server.broker.faults.patch({fault: {"next": 1, "match": {"symbol": "C00305000$"}} | BY.get(fault, {})})
        quoted(server, LONG, "1.90", "2.00")
        bad = await rig.newer(good, LONG)
        found = rig.spread()
        assert isinstance(found, QuoteFault)
        assert (found.reason, found.symbol) == (reason, LONG)
        quoted(server, LONG, "1.91", "2.00")
        await rig.newer(bad, LONG)
        assert isinstance(rig.spread(), SpreadQuote)


async def test_garbage_and_short_rows_cost_one_frame_each(server: PaperServer) -> None:
    market(server)
    async with feeding(server.api_url, option(SHORT)) as rig:
        before = await rig.latest(SHORT)
        server.broker.faults.patch({"dxlink_garbage": 1, "quote_short": 1})
        quoted(server, SHORT, "3.00", "3.05")
        whys = {str((await rig.until(QuotesOddity)).why) for _ in range(2)}
        assert whys == {"a frame that is no message", "a short row"}
        quoted(server, SHORT, "2.90", "2.95")
        assert (await rig.newer(before)).bid == Decimal("2.9")
        assert (rig.feed.health.oddities, rig.feed.feed.generation, rig.failures) == (2, 1, [])


# Gaps, reconnects, tokens.


async def test_gap_makes_every_quote_stale_and_the_next_connection_subscribes_anew(server: PaperServer) -> None:
    market(server)
    async with feeding(server.api_url, option(SHORT), option(LONG)) as rig:
        await rig.latest(SHORT)
        await rig.latest(LONG)
        await server.quote_hub.drop()
        assert await rig.down() == "closed: 1001 Going away"
        assert rig.feed.latest(SHORT) is None
        fault = rig.spread()
        assert isinstance(fault, QuoteFault) and fault.reason is QuoteReason.FEED_DOWN
        assert rig.feed.health.why_down == "closed: 1001 Going away"
        quoted(server, SHORT, "4.00", "4.10")
        assert await rig.come_back() == 0.5
        assert await rig.up() == QuotesUp(2)
        short = await rig.latest(SHORT)
        await rig.latest(LONG)
        assert (short.bid, short.generation) == (Decimal("4.0"), 2)
        assert server.quote_hub.wanted() == {SHORT, LONG}


async def test_pause_between_failed_connections_doubles_up_to_its_cap(server: PaperServer) -> None:
    server.broker.faults.patch({"dxlink_refused": {"next": 8}})
    async with feeding(server.api_url, option(SHORT)) as rig:
        pauses = []
        for _ in range(8):
            assert await rig.down() == "handshake answered with HTTP 503"
            pauses.append(await rig.come_back())
        assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]
        assert await rig.up() == QuotesUp(9)


async def test_token_is_renewed_before_its_end_by_a_new_connection_without_a_pause(server: PaperServer) -> None:
    server.broker.server_rules.apply({"quotes.token_life_s": 60})
    market(server)
    async with feeding(server.api_url, option(SHORT)) as rig:
        await rig.latest(SHORT)
        await rig.clock.until_sleeping(rig.clock.now_us() + 30_000_000)
        rig.clock.advance_s(30)
        assert await rig.down() == "the quote token was renewed"
        assert await rig.up() == QuotesUp(2)
        assert (await rig.latest(SHORT)).generation == 2


async def test_old_connection_is_kept_while_no_new_token_can_be_had(server: PaperServer) -> None:
    server.broker.server_rules.apply({"quotes.token_life_s": 60})
    market(server)
    async with feeding(server.api_url, option(SHORT)) as rig:
        before = await rig.latest(SHORT)
        server.broker.faults.patch({"unavailable": {"rate": 1, "match": {"path": "api-quote-tokens"}}})
        await rig.clock.until_sleeping(rig.clock.now_us() + 30_000_000)
        rig.clock.advance_s(30)
        await rig.clock.until_sleeping(rig.clock.now_us() + 300_000_000)
        quoted(server, SHORT, "2.00", "2.05")
        assert (await rig.newer(before)).generation == 1


@pytest.mark.parametrize("how", ["dxlink_token_refused", "dxlink_token_death", "expired"])
async def test_refused_token_is_replaced_by_a_fresh_one(server: PaperServer, how: str) -> None:
    market(server)
    async with feeding(server.api_url, option(SHORT), starts=how != "dxlink_token_refused") as rig:
        if how == "dxlink_token_refused":
            server.broker.faults.patch({how: 1})
            rig.start()
        else:
            await rig.latest(SHORT)
            if how == "expired":
                server.broker.clock.advance(25 * 3_600 * 1_000_000)
                await server.quote_hub.drop()
                await rig.down()
                await rig.come_back()
            else:
                server.broker.faults.patch({how: 1})
                quoted(server, SHORT, "3.00", "3.05")
        assert await rig.down() == "the quote token was refused"
        await rig.come_back()
        await rig.up()
        await rig.latest(SHORT)
        assert tokens_asked(server) == 2


async def test_token_service_that_is_away_is_asked_again(server: PaperServer) -> None:
    server.broker.faults.patch({"unavailable": {"next": 2, "match": {"path": "api-quote-tokens"}}})
    async with feeding(server.api_url, option(SHORT)) as rig:
        for _ in range(2):
            assert await rig.down() == "HTTP 503"
            await rig.come_back()
        await rig.up()
        assert rig.failures == []


@pytest.mark.covers("F28")
async def test_feed_that_falls_silent_is_left_after_its_own_promise(server: PaperServer) -> None:
    market(server)
    async with feeding(server.api_url, option(SHORT)) as rig:
        await rig.latest(SHORT)
        server.broker.faults.patch({"dxlink_silent": True})
        rig.clock.advance_s(59)
        assert rig.feed.latest(SHORT) is not None
        found = spread_quote(CLOSING[:1], {SHORT: await rig.latest(SHORT)}, rig.feed.feed, rig.clock.now_us())
        assert isinstance(found, QuoteFault) and found.reason is QuoteReason.STALE
        rig.clock.advance_s(1)
        assert await rig.down() == "silent for 60 s"
        server.broker.faults.clear()
        await rig.come_back()
        await rig.up()


@pytest.mark.covers("F28")
async def test_half_open_line_is_found_by_pings_and_a_live_one_stays_fresh(server: PaperServer) -> None:
    market(server)
    async with feeding(server.api_url, option(SHORT), times=QuoteTimes(ping_s=2)) as rig:
        await rig.latest(SHORT)
        for _ in range(10):
            rig.clock.advance_s(2)
            now_us = rig.clock.now_us()
            await eventually(lambda at_us=now_us: rig.feed.feed.heard_us == at_us)  # type: ignore[misc]
        server.broker.faults.patch({"dxlink_half_open": True})
        heard_us = rig.feed.feed.heard_us
        for _ in range(3):
            due_us = rig.clock.now_us() + 2_000_000
            await rig.clock.until_sleeping(due_us)
            rig.clock.advance_s(2)
        assert rig.feed.feed.heard_us == heard_us
        await rig.clock.until_sleeping(rig.clock.now_us() + 2_000_000)
        rig.clock.advance_s(2)
        assert await rig.down() == "pings are not answered"


async def test_keepalives_of_both_sides_keep_a_quiet_connection(server: PaperServer) -> None:
    server.broker.server_rules.apply({"quotes.keepalive_s": 2})
    async with feeding(server.api_url, option(SHORT), times=QuoteTimes(ping_s=1_000_000, keepalive_s=2)) as rig:
        await rig.up()
        start_us = rig.clock.now_us()
        for step in range(1, 7):
            await rig.clock.until_sleeping(start_us + step * 1_000_000)
            rig.clock.advance_s(1)
            now_us = rig.clock.now_us()
            await eventually(lambda at_us=now_us: rig.feed.feed.heard_us == at_us)  # type: ignore[misc]
        assert rig.feed.feed.generation == 1


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("dxlink_error", "error: TIMEOUT: an internal error"),
        ("dxlink_channel_closed", "the server closed the channel"),
        ("dxlink_bye", "closed: 1001 Going away"),
    ],
)
async def test_feed_that_ends_itself_is_connected_again(server: PaperServer, fault: str, why: str) -> None:
    market(server)
    async with feeding(server.api_url, option(SHORT)) as rig:
        await rig.latest(SHORT)
        server.broker.faults.patch({fault: 1})
        quoted(server, SHORT, "3.00", "3.05")
        assert await rig.down() == why
        await rig.come_back()
        await rig.up()
        assert (await rig.latest(SHORT)).bid == Decimal("3.0")


# Whoever listens, and a server without manners.


async def test_consumer_that_fails_is_reported_and_loses_nothing_but_the_event(server: PaperServer) -> None:
    market(server)
    async with feeding(server.api_url, option(SHORT), starts=False) as rig:

        def consume(event: QuoteEvent) -> None:
            rig.events.put_nowait(event)
            if isinstance(event, QuotesUp):
                raise RuntimeError("a bug of the consumer")

        rig.start(consume)
        await rig.latest(SHORT)
        assert [str(error) for error in rig.failures] == ["a bug of the consumer"]
        assert rig.running is not None and not rig.running.done()


async def test_stopping_is_orderly_and_at_once(server: PaperServer) -> None:
    market(server)
    async with feeding(server.api_url, option(SHORT)) as rig:
        await rig.latest(SHORT)
        assert rig.running is not None
        rig.running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(rig.running, WAIT_S)
        await eventually(lambda: server.quote_hub.wanted() == set())


Script = Callable[[ServerConnection], Awaitable[None]]


async def _shake_hands(peer: ServerConnection) -> None:
    """A minimal server's side, up to the subscription."""
    answers = {
        "SETUP": [{"type": "SETUP", "channel": 0}, {"type": "AUTH_STATE", "channel": 0, "state": "UNAUTHORIZED"}],
        "AUTH": [{"type": "AUTH_STATE", "channel": 0, "state": "AUTHORIZED"}],
        "CHANNEL_REQUEST": [{"type": "CHANNEL_OPENED", "channel": 1, "service": "FEED"}],
        "FEED_SETUP": [{"type": "FEED_CONFIG", "channel": 1, "dataFormat": "COMPACT"}],
    }
    while (kind := json.loads(await peer.recv())["type"]) != "FEED_SUBSCRIPTION":
        for answer in answers[kind]:
            await peer.send(json.dumps(answer))


@asynccontextmanager
async def scripted(script: Script, on_event: Callable[[QuoteEvent], None] | None = None) -> AsyncIterator[Rig]:
    """A feed whose token leads to a websocket that follows the script."""

    async def serve_one(peer: ServerConnection) -> None:
        await script(peer)
        await peer.wait_closed()

    async with serve(serve_one, "127.0.0.1", 0) as far_side, fake_broker() as fake:
        port = next(iter(far_side.sockets)).getsockname()[1]
        token = {"data": {"token": "t", "dxlink-url": f"ws://127.0.0.1:{port}"}}
        fake.script("GET", "/api-quote-tokens", json_reply(token))
        rig = Rig(fake.url, QUIET)
        rig.feed.want([option(SHORT)])
        rig.start(on_event)
        try:
            yield rig
        finally:
            await rig.stop()


async def test_flood_of_quotes_leaves_the_loop_to_others_between_any_two_frames() -> None:
    """Goal: an order is never behind more than one frame of quotes. Another task counts its turns; between any two
    changes told it must have had one."""
    frames = 2_000

    async def flood(peer: ServerConnection) -> None:
        await _shake_hands(peer)
        for number in range(frames):
            row = ["Quote", SHORT_NAME, 1 + number, 100_000, 1, 1]
            await peer.send(json.dumps({"type": "FEED_DATA", "channel": 1, "data": ["Quote", row]}))

    turns = 0
    seen: list[int] = []
    is_over = asyncio.Event()

    async def take_turns() -> None:
        nonlocal turns
        while not is_over.is_set():
            turns += 1
            await asyncio.sleep(0)

    def consume(event: QuoteEvent) -> None:
        if isinstance(event, QuotesChanged):
            seen.append(turns)
            if len(seen) == frames:
                is_over.set()

    async with scripted(flood, consume), asyncio.timeout(20):
        await take_turns()
    assert len(set(seen)) == frames


async def test_message_too_long_ends_the_connection_only() -> None:
    async def script(peer: ServerConnection) -> None:
        await _shake_hands(peer)
        await peer.send("x" * (2 << 20))

    async with scripted(script) as rig:
        assert (await rig.down()).startswith("closed: 1009")
        await rig.come_back()
        await rig.up()
        assert rig.failures == []


@pytest.mark.parametrize("frame", ["[" * 100_000, "null", '{"type": null}', "[1, 2]", '{"type": "FEED_DATA"}', b"\xff"])
async def test_frame_that_is_no_message_costs_nothing(frame: str | bytes) -> None:
    async def script(peer: ServerConnection) -> None:
        await _shake_hands(peer)
        await peer.send(frame)
        row = ["Quote", SHORT_NAME, 1, 2, 3, 4]
        await peer.send(json.dumps({"type": "FEED_DATA", "channel": 1, "data": ["Quote", row]}))

    async with scripted(script) as rig:
        assert (await rig.latest(SHORT)).ask == 2
        assert (rig.feed.health.oddities, rig.failures) == (1, [])
