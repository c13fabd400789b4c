"""Quotes over DXLink in the orders of messages that the three public clients use."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from tests.integration.paper.conftest import PATIENCE_S, SHORT, Desk

NAME = ".AAPL301220C300"
FIELDS = ["eventSymbol", "eventTime", "bidExchangeCode", "bidPrice", "askPrice", "bidSize", "askSize"]


class Feed:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def send(self, kind: str, channel: int = 0, **rest: Any) -> None:
        await self._socket.send_json({"type": kind, "channel": channel, **rest})

    async def next(self) -> Any:
        return await self._socket.receive_json(timeout=PATIENCE_S)

    async def open(self) -> None:
        """SETUP and AUTH at once, as two of the clients do, then a channel."""
        await self.send("SETUP", version="0.1", keepaliveTimeout=60, acceptKeepaliveTimeout=60)
        await self.send("AUTH", token="paper-quotes")
        kinds = [await self.next() for _ in range(3)]
        assert [message.get("state", message["type"]) for message in kinds] == ["SETUP", "UNAUTHORIZED", "AUTHORIZED"]
        await self.send("CHANNEL_REQUEST", 3, service="FEED", parameters={"contract": "AUTO"})
        assert (await self.next())["type"] == "CHANNEL_OPENED"


@pytest.fixture
async def feed(desk: Desk) -> Feed:
    _, body = await desk.api("GET", "/api-quote-tokens")
    feed = Feed(await desk.open(body["data"]["dxlink-url"]))
    await feed.open()
    return feed


async def quote(desk: Desk, bid: str = "3.10", ask: str = "3.20") -> None:
    await desk.control("PUT", f"/quotes/{SHORT}", {"bid": bid, "ask": ask})


async def test_compact_values_follow_the_clients_fields(desk: Desk, feed: Feed) -> None:
    await quote(desk)
    await feed.send("FEED_SETUP", 3, acceptDataFormat="COMPACT", acceptEventFields={"Quote": FIELDS})
    config = await feed.next()
    assert (config["dataFormat"], config["eventFields"]) == ("COMPACT", {"Quote": FIELDS})
    await feed.send("FEED_SUBSCRIPTION", 3, add=[{"type": "Quote", "symbol": NAME}])
    message = await feed.next()
    assert message["channel"] == 3
    kind, values = message["data"]
    event = dict(zip(FIELDS, values, strict=True))
    assert (kind, event["eventSymbol"], event["bidPrice"], event["askPrice"]) == ("Quote", NAME, 3.1, 3.2)
    assert (event["bidExchangeCode"], type(event["eventTime"])) == ("", int)


async def test_without_wanted_fields_the_server_names_them_before_the_first_data(desk: Desk, feed: Feed) -> None:
    await quote(desk)
    await feed.send("FEED_SETUP", 3, acceptAggregationPeriod=10, acceptDataFormat="COMPACT")
    assert "eventFields" not in await feed.next()
    await feed.send("FEED_SUBSCRIPTION", 3, reset=True, add=[{"type": "Quote", "symbol": NAME}])
    config, data = await feed.next(), await feed.next()
    event = dict(zip(config["eventFields"]["Quote"], data["data"][1], strict=True))
    assert event["eventSymbol"] == NAME
    assert config["aggregationPeriod"] == 10


async def test_full_format_has_objects_with_their_type(desk: Desk, feed: Feed) -> None:
    await quote(desk)
    await feed.send("FEED_SETUP", 3, acceptDataFormat="FULL")
    assert (await feed.next())["dataFormat"] == "FULL"
    await feed.send("FEED_SUBSCRIPTION", 3, add=[{"type": "Quote", "symbol": NAME}])
    await feed.next()
    event = (await feed.next())["data"][0]
    assert (event["eventType"], event["askPrice"]) == ("Quote", 3.2)


async def test_removed_subscription_is_silent_and_a_kept_one_follows_every_quote(desk: Desk, feed: Feed) -> None:
    await feed.send("FEED_SETUP", 3, acceptEventFields={"Quote": FIELDS})
    await feed.next()
    await feed.send("FEED_SUBSCRIPTION", 3, add=[{"type": "Quote", "symbol": NAME}, {"type": "Greeks", "symbol": NAME}])
    await feed.send("KEEPALIVE")
    assert (await feed.next())["type"] == "KEEPALIVE", "nobody has quoted it yet"
    await quote(desk, "3.00", "3.05")
    assert (await feed.next())["data"][1][3:5] == [3.0, 3.05]
    await feed.send("FEED_SUBSCRIPTION", 3, remove=[{"type": "Quote", "symbol": NAME}])
    await feed.send("KEEPALIVE")
    await feed.next()
    await quote(desk)
    await feed.send("CHANNEL_CANCEL", 3)
    assert (await feed.next())["type"] == "CHANNEL_CLOSED"


async def test_seeded_walk_quotes_whatever_is_asked_for_and_goes_on(desk: Desk, feed: Feed) -> None:
    await desk.control("PATCH", "/rules", {"quotes.mode": "seeded", "quotes.tick_ms": 10})
    await feed.send("FEED_SETUP", 3, acceptEventFields={"Quote": FIELDS})
    await feed.next()
    await feed.send("FEED_SUBSCRIPTION", 3, add=[{"type": "Quote", "symbol": "AAPL"}])
    prices = [(await feed.next())["data"][1][3] for _ in range(20)]
    assert all(200 < price < 300 for price in prices)
    assert len(set(prices)) > 1


async def test_quote_faults(desk: Desk, feed: Feed) -> None:
    await feed.send("FEED_SETUP", 3, acceptEventFields={"Quote": FIELDS})
    await feed.next()
    await feed.send("FEED_SUBSCRIPTION", 3, add=[{"type": "Quote", "symbol": NAME}])
    await desk.control("PATCH", "/faults", {"quote_lost": 1, "quote_nan": {"next": 1, "match": {"symbol": "^AAPL"}}})
    await quote(desk, "1", "2")
    await quote(desk, "3", "4")
    assert (await feed.next())["data"][1][3:5] == ["NaN", "NaN"]
    await desk.control("POST", "/dxlink/drop")
    await desk.control("PATCH", "/faults", {"dxlink_refused": 1})
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await desk.open(desk.server.dxlink_url)


async def test_errors_name_what_was_wrong(desk: Desk) -> None:
    feed = Feed(await desk.open(desk.server.dxlink_url))
    await feed.send("CHANNEL_REQUEST", 1, service="FEED")
    assert (await feed.next())["error"] == "UNAUTHORIZED"
