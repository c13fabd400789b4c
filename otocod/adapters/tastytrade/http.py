"""One HTTP exchange: what was answered, or proof of how far the request got. No repeats, no redirects, no verdicts.

**The phase.** aiohttp hands a connection to a request in one place, `connect` of its connector, whether it is a new one
or a kept one. Whatever fails before that moment (name, address, TLS, waiting for a slot) cannot have written a byte of
the request. Whatever fails after it may have: a kept connection that the peer is closing right now takes the bytes, and
only the peer knows whether it read them. So that moment is the border between NeverSent and MaybeSent, and nothing
later is.

**Repeats.** aiohttp by itself sends PUT and DELETE once more when a kept connection breaks under them. A PUT here makes
a new order, so a second connection for one exchange is refused, at the same place.

Tracing and a middleware would tell the same by aiohttp's documented ways, and cost a quarter of a request.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

import otocod
from otocod.adapters.tastytrade.errors import MaybeSent, NeverSent, describe
from otocod.ports.clock import Clock

USER_AGENT = f"otocod/{otocod.__version__}"

Query = Sequence[tuple[str, str]]

_CONNECTIONS = 20  # all at once; two are kept warm, the rest is for a broker that answers slowly
# Longer than aiohttp's 15 s, so that an exit finds a connection; shorter than the 60 s after which load balancers
# usually close an idle one, because a close that crosses our request makes its outcome unknown.
_KEEP_ALIVE_S = 50.0
_DNS_CACHE_S = 30
_MOST_BYTES = 32 * 1024 * 1024  # of one answer; 200 orders are well under one
_CHUNK_BYTES = 64 * 1024


class _ConnectionBroke(Exception):
    """A connection in hand broke. No aiohttp error: aiohttp is not to make anything of it."""


@dataclass(slots=True)
class _Progress:
    has_connection: bool = False


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


# Of the exchange that the present task is about.
_progress: ContextVar[_Progress] = ContextVar("progress")


class _Connector(aiohttp.TCPConnector):
    async def connect(self, *arguments: Any, **more: Any) -> aiohttp.connector.Connection:
        progress = _progress.get()
        if progress.has_connection:
            raise _ConnectionBroke("the connection broke under the request")
        connection = await super().connect(*arguments, **more)
        progress.has_connection = True
        return connection


class Transport:
    """Must be made inside the running loop. Certificates are always verified, by the system's store."""

    def __init__(self, api_url: str, clock: Clock, *, timeouts: Timeouts, accept_version: str | None = None) -> None:
        self._base = URL(api_url.rstrip("/"))
        self._clock = clock
        headers = {"User-Agent": USER_AGENT, "Accept": "application/json", "Content-Type": "application/json"}
        # The oldest version is served without it; one environment's order routes broke with it. Hence a setting.
        if accept_version is not None:
            headers["Accept-Version"] = accept_version
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE_S, ttl_dns_cache=_DNS_CACHE_S),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=timeouts.connect_s + timeouts.answer_s,
                connect=timeouts.connect_s,
                sock_connect=timeouts.connect_s,
                sock_read=timeouts.answer_s,
                ceil_threshold=3_600,  # aiohttp rounds longer timeouts up to whole seconds; ours mean what they say
            ),
            trust_env=False,
        )

    async def exchange(
        self, method: str, path: str, *, bearer: str | None, body: bytes | None = None, query: Query = ()
    ) -> Answer:
        """`path` is already quoted. Raises NeverSent or MaybeSent; any status is an answer."""
        progress = _Progress()
        _progress.set(progress)
        asked_us = self._clock.now_us()
        try:
            async with self._session.request(
                method,
                self._url(path, query),
                data=body,
                headers=None if bearer is None else {"Authorization": bearer},
                allow_redirects=False,
            ) as response:
                content = await _bounded(response)
                date = response.headers.get("Date")
                return Answer(response.status, content, date, asked_us, self._clock.now_us())
        # OSError: TimeoutError is one. ValueError: an answer that is no HTTP.
        except (aiohttp.ClientError, _ConnectionBroke, OSError, ValueError) as error:
            why = str(error) if isinstance(error, _ConnectionBroke) else describe(error)
            raise (MaybeSent(why) if progress.has_connection else NeverSent(why)) from None

    def _url(self, path: str, query: Query) -> URL:
        url = URL(f"{self._base}{path}", encoded=True)
        return url.with_query(list(query)) if query else url

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """`auth.Poster`: without authorization."""
        answer = await self.exchange("POST", path, bearer=None, body=body)
        return answer.http_status, answer.body

    async def close(self) -> None:
        await self._session.close()


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        size += len(chunk)
        if size > _MOST_BYTES:
            raise _ConnectionBroke("answer too large")
        chunks.append(chunk)
    return b"".join(chunks)
