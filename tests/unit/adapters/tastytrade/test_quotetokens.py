import json
from typing import Any

import pytest

from otocod.adapters.tastytrade.quotetokens import QuoteTokens, token_from_body
from otocod.adapters.tastytrade.reading import Reader
from otocod.ports.broker import ReadFailed
from tests.support.tastytrade import START_US, ManualClock

HOUR_US = 3_600 * 1_000_000


def body(**changes: Any) -> bytes:
    data: dict[str, Any] = {
        "token": "t1",
        "dxlink-url": "wss://quotes.example/realtime",
        "level": "api",
        "issued-at": "2026-11-23T15:00:00Z",
        "expires-at": "2026-11-24T15:00:00Z",
    }
    data |= {key.replace("_", "-"): value for key, value in changes.items()}
    return json.dumps({"data": {key: value for key, value in data.items() if value is not None}}).encode()


def test_token_is_to_be_renewed_an_hour_before_its_end_by_the_brokers_own_times() -> None:
    token = token_from_body(body(), START_US)
    assert (token.token, token.url, token.level) == ("t1", "wss://quotes.example/realtime", "api")
    assert (token.renew_us, token.ends_us) == (START_US + 23 * HOUR_US, START_US + 24 * HOUR_US)
    assert "t1" not in repr(token)


@pytest.mark.parametrize(
    ("changes", "life_us"),
    [
        ({"expires_at": None}, 24 * HOUR_US),
        ({"issued_at": "x"}, 24 * HOUR_US),
        ({"expires_at": "2026-11-30T15:00:00Z"}, 24 * HOUR_US),
        ({"expires_at": "2026-11-23T15:30:00Z"}, HOUR_US // 2),
        ({"expires_at": "2026-11-23T15:00:01Z"}, HOUR_US // 60),
        ({"expires_at": "2020-01-01T00:00:00Z"}, HOUR_US // 60),
    ],
)
def test_life_is_bounded_both_ways_and_renewal_comes_before_its_end(changes: dict[str, Any], life_us: int) -> None:
    token = token_from_body(body(**changes), START_US)
    assert token.ends_us == START_US + life_us
    assert START_US < token.renew_us < token.ends_us


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b'{"data": 1}',
        body(token=None),
        body(dxlink_url=None),
        body(token=""),
        body(token=5),
        body(dxlink_url="ws://quotes.example/"),
        body(dxlink_url="https://quotes.example/"),
        body(dxlink_url="wss://user:secret@quotes.example/"),
        body(dxlink_url="wss://[bad"),
        body(dxlink_url="wss://"),
    ],
)
def test_answer_without_a_token_or_a_safe_address_is_a_failed_read(answer: bytes) -> None:
    with pytest.raises(ReadFailed):
        token_from_body(answer, START_US)


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1/dxlink", "ws://localhost/dxlink", "ws://[::1]:2/dxlink"])
def test_without_tls_only_on_loopback(url: str) -> None:
    assert token_from_body(body(dxlink_url=url), START_US).url == url


class ScriptedReader(Reader):
    """Answers with numbered tokens, or fails."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_down = False

    async def get(self, path: str, query: Any = ()) -> bytes:
        self.asked += 1
        if self.is_down:
            raise ReadFailed("HTTP 503")
        return body(token=f"t{self.asked}")


class Rig:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.reader = ScriptedReader()
        self.tokens = QuoteTokens(self.reader, self.clock)

    async def current(self) -> str:
        return (await self.tokens.current()).token


async def test_token_is_kept_and_renewed_before_its_end() -> None:
    rig = Rig()
    assert [await rig.current(), await rig.current()] == ["t1", "t1"]
    rig.clock.advance_s(23 * 3600 - 1)
    assert await rig.current() == "t1"
    rig.clock.advance_s(1)
    assert await rig.current() == "t2"
    assert rig.tokens.level == "api"


async def test_token_serves_to_its_end_while_no_other_can_be_had() -> None:
    rig = Rig()
    await rig.current()
    rig.reader.is_down = True
    rig.clock.advance_s(23.5 * 3600)
    assert await rig.current() == "t1"
    rig.clock.advance_s(0.5 * 3600)
    with pytest.raises(ReadFailed, match="503"):
        await rig.current()


async def test_refused_token_is_not_used_again_and_a_newer_one_is_not_thrown_away() -> None:
    rig = Rig()
    refused = await rig.tokens.current()
    rig.tokens.drop(refused)
    assert await rig.current() == "t2"
    rig.tokens.drop(refused)
    assert await rig.current() == "t2"
