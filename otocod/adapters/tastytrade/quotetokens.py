"""Quote tokens: another kind than access tokens, valid 24 hours, asked for once and kept until an hour before."""

import asyncio
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec

from otocod.adapters.tastytrade.parse import us_from_wire
from otocod.adapters.tastytrade.reading import Reader
from otocod.adapters.tastytrade.schema import DECODE_ERRORS, Number
from otocod.ports.broker import ReadFailed
from otocod.ports.clock import Clock
from otocod.text import sanitise

_PATH = "/api-quote-tokens"
_LIFE_US = 24 * 3_600 * 1_000_000
_RENEW_BEFORE_US = 3_600 * 1_000_000
_SHORTEST_US = 60 * 1_000_000  # a life that has nearly ended, or a clock that is off, must not make us ask in a loop
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class _TokenWire(msgspec.Struct, rename="kebab", frozen=True, gc=False):
    token: str | None = None
    dxlink_url: str | None = None
    level: str | None = None
    issued_at: Number | None = None
    expires_at: Number | None = None


class _AnswerWire(msgspec.Struct, frozen=True, gc=False):
    data: _TokenWire | None = None


_ANSWER = msgspec.json.Decoder(_AnswerWire)


@dataclass(frozen=True, slots=True)
class QuoteToken:
    token: str = field(repr=False)
    url: str
    level: str | None
    renew_us: int
    ends_us: int


class QuoteTokens:
    """One for the process; its methods may be called concurrently, and one request is under way at most."""

    def __init__(self, reader: Reader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock
        self._token: QuoteToken | None = None
        self._lock = asyncio.Lock()

    @property
    def level(self) -> str | None:
        return None if self._token is None else self._token.level

    async def current(self) -> QuoteToken:
        """Raises ReadFailed. A token near its end is renewed; where that fails it serves until it has ended."""
        async with self._lock:
            token, now_us = self._token, self._clock.now_us()
            if token is not None and now_us < token.renew_us:
                return token
            try:
                self._token = await self._fetched()
            except ReadFailed:
                if token is None or now_us >= token.ends_us:
                    raise
                return token
            return self._token

    def drop(self, refused: QuoteToken) -> None:
        """The feed did not take it: the next `current` asks for another."""
        if self._token is refused:
            self._token = None

    async def _fetched(self) -> QuoteToken:
        asked_us = self._clock.now_us()
        return token_from_body(await self._reader.get(_PATH), asked_us)


def token_from_body(body: bytes, asked_us: int) -> QuoteToken:
    """Raises ReadFailed for an answer without a usable token or address."""
    try:
        wire = _ANSWER.decode(body).data
    except DECODE_ERRORS:
        wire = None
    if wire is None or not wire.token or not wire.dxlink_url:
        raise ReadFailed("no quote token in the answer")
    if not _is_safe(wire.dxlink_url):
        raise ReadFailed("the quote feed's address is not one to send a token to")
    life_us = _life_us(wire)
    return QuoteToken(
        token=wire.token,
        url=wire.dxlink_url,
        level=None if wire.level is None else sanitise(wire.level, 20),
        renew_us=asked_us + max(life_us - _RENEW_BEFORE_US, life_us // 2),
        ends_us=asked_us + life_us,
    )


def _life_us(wire: _TokenWire) -> int:
    """By the broker's own two times, since our clock may differ from its; never longer than is documented."""
    issued_us, expires_us = us_from_wire(wire.issued_at), us_from_wire(wire.expires_at)
    if issued_us is None or expires_us is None:
        return _LIFE_US
    return min(max(expires_us - issued_us, _SHORTEST_US), _LIFE_US)


def _is_safe(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if parts.username is not None or not parts.hostname:
        return False
    return parts.scheme == "wss" or (parts.scheme == "ws" and parts.hostname in _LOOPBACK)
