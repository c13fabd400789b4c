"""Access tokens: fetched once for everybody, renewed before they end, never asked for so often that we are locked out.

A token lives 15 minutes. From 60 % of its life on the next use renews it beside the caller, who goes on with the old
one; only a token that has ended makes a caller wait. After a *refused* log-in the next try waits 10 s, 1 min, 5 min,
then 30 min each: too many failures lock the address for about eight hours. The count must outlive the process, so it
is handed in at start and out at every change. A token service that cannot be *reached* is tried again within 30 s.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from otocod.adapters.tastytrade.errors import TokenUnreachable, TransportError
from otocod.adapters.tastytrade.retry import Backoff
from otocod.adapters.tastytrade.schema import DECODE_ERRORS, GrantWire
from otocod.ports.broker import LoginRefused
from otocod.ports.clock import Clock
from otocod.text import sanitise

SECOND_US = 1_000_000

_LADDER_US = tuple(seconds * SECOND_US for seconds in (10, 60, 300, 1_800))
_RENEW_AT = 0.6  # of the life; between 50 % and 70 % leaves five minutes for a token service that is away
_MARGIN_US = 5 * SECOND_US  # before the end a token is not used any more: it has to arrive, too
_DEFAULT_LIFE_S = 900  # RFC 6749 allows `expires_in` to be absent
_LIFE_BOUNDS_S = (30, 86_400)
# Renewals because of a 401 are at least this far apart: if the new token is refused too, tokens are not the reason.
_REPLACE_EVERY_US = 10 * SECOND_US


@dataclass(frozen=True, slots=True)
class Secrets:
    client_secret: str = field(repr=False)
    refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Grant:
    access_token: str = field(repr=False)
    life_us: int


@dataclass(frozen=True, slots=True)
class LoginFailures:
    """Refused log-ins in a row, and when the last one was. To be kept over restarts."""

    count: int = 0
    last_us: int = 0

    @property
    def next_try_us(self) -> int:
        if self.count <= 0:
            return 0
        return self.last_us + _LADDER_US[min(self.count, len(_LADDER_US)) - 1]


@dataclass(frozen=True, slots=True)
class _Token:
    bearer: str = field(repr=False)
    renew_us: int
    ends_us: int


class Poster(Protocol):
    """The one call of the transport that a log-in needs; `http.Transport` has it."""

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]: ...


class TokenService:
    """`POST /oauth/token`, once per call of `fetch`."""

    def __init__(self, poster: Poster, secrets: Secrets) -> None:
        self._poster = poster
        self._secrets = secrets

    async def fetch(self) -> Grant:
        """Raises LoginRefused or TokenUnreachable."""
        body = msgspec.json.encode(
            {
                "grant_type": "refresh_token",
                "refresh_token": self._secrets.refresh_token,
                "client_secret": self._secrets.client_secret,
            }
        )
        try:
            http_status, answer = await self._poster.post("/oauth/token", body)
        except TransportError as error:
            raise TokenUnreachable(f"token service: {error}") from None
        return grant_from_answer(http_status, answer)


def grant_from_answer(http_status: int, body: bytes) -> Grant:
    """Refused is a 4xx with an OAuth error, or any 400, 401 or 403: in doubt the slower ladder is the safe one."""
    if 200 <= http_status < 300:
        return _grant_from_body(body)
    code = _oauth_error(body)
    is_refusal = http_status in (400, 401, 403) or (400 <= http_status < 500 and code is not None)
    if is_refusal and http_status not in (408, 429):
        raise LoginRefused(f"log-in refused: HTTP {http_status} {code or 'without a reason'}")
    raise TokenUnreachable(f"token service: HTTP {http_status}")


def _grant_from_body(body: bytes) -> Grant:
    try:
        wire = msgspec.json.decode(body, type=GrantWire)
        life_s = _DEFAULT_LIFE_S if wire.expires_in is None else int(float(wire.expires_in))
    except DECODE_ERRORS:
        raise TokenUnreachable("token service: unreadable answer") from None
    token = wire.access_token or ""
    # It goes into a header: a line break in it would be another header.
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise TokenUnreachable("token service: no usable token in the answer")
    low, high = _LIFE_BOUNDS_S
    return Grant(token, min(max(life_s, low), high) * SECOND_US)


def _oauth_error(body: bytes) -> str | None:
    """RFC 6749 has a word under `error`; the API's own envelope has an object with a code there."""
    try:
        found = msgspec.json.decode(body)
    except DECODE_ERRORS:
        return None
    error = found.get("error") if isinstance(found, dict) else None
    if isinstance(error, dict):
        error = error.get("code")
    return sanitise(str(error), 80) if isinstance(error, str | int) else None


class Authenticator:
    """One for the process. Its methods may be called concurrently; at most one log-in is under way."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Grant]],
        clock: Clock,
        *,
        failures: LoginFailures | None = None,
        on_failures: Callable[[LoginFailures], None] = lambda failures: None,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        """`on_failures` is told every change of the count, back to zero included, so that it can be stored."""
        self._fetch = fetch
        self._clock = clock
        self._failures = failures or LoginFailures()
        self._on_failures = on_failures
        self._backoff = Backoff(initial_s=1.0, max_s=30.0, uniform=uniform)
        self._unreachable_until_us = 0
        self._token: _Token | None = None
        self._renewal: asyncio.Task[_Token] | None = None
        self._replaced_us: int | None = None

    @property
    def failures(self) -> LoginFailures:
        return self._failures

    @property
    def is_refused(self) -> bool:
        return self._failures.count > 0

    @property
    def token_ends_us(self) -> int | None:
        """When the present token is no longer used, by our clock; None while there is none."""
        return None if self._token is None else self._token.ends_us

    def latest_bearer(self) -> str | None:
        """The last token there was, ended or not: for heartbeats, which go on when the token service is away."""
        return None if self._token is None else self._token.bearer

    def ready_bearer(self) -> str | None:
        """`Bearer ...` if there is one that is fit to be sent now; a command leaves on it in the same step."""
        token = self._token
        if token is None or self._clock.now_us() >= token.ends_us:
            return None
        self.renew_if_due()
        return token.bearer

    async def bearer(self) -> str:
        """`Bearer ...`, fit to be sent now. Raises LoginRefused or TokenUnreachable, at once while it must wait."""
        return self.ready_bearer() or (await self._renewed()).bearer

    def renew_if_due(self) -> None:
        """Starts a renewal beside the caller once the token is past 60 % of its life, or has ended."""
        now_us = self._clock.now_us()
        if self._token is not None and now_us >= self._token.renew_us and self._waits(now_us) is None:
            self._renew()

    async def replace(self, rejected: str) -> str:
        """After a 401: another token than `rejected`, if one can be had. At most one request whoever asks."""
        token = self._token
        if token is not None and token.bearer != rejected:
            return await self.bearer()
        now_us = self._clock.now_us()
        if self._renewal is None:
            if token is not None and self._replaced_us is not None and now_us - self._replaced_us < _REPLACE_EVERY_US:
                return token.bearer
            self._replaced_us = now_us
        return (await self._renewed()).bearer

    def retry_now(self) -> None:
        """An operator has looked (SIGHUP): the next use asks at once. The count stays."""
        self._failures = LoginFailures(self._failures.count, 0)
        self._unreachable_until_us = 0
        self._replaced_us = None

    async def close(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])

    async def _renewed(self) -> _Token:
        if self._renewal is None and (reason := self._waits(self._clock.now_us())) is not None:
            raise reason
        # Shielded: one caller that gives up must not take the token away from the others.
        return await asyncio.shield(self._renew())

    def _waits(self, now_us: int) -> LoginRefused | TokenUnreachable | None:
        if self._failures.count and now_us < self._failures.next_try_us:
            wait_s = (self._failures.next_try_us - now_us) // SECOND_US
            return LoginRefused(f"log-in refused {self._failures.count} times; next try in {wait_s} s")
        if now_us < self._unreachable_until_us:
            return TokenUnreachable("token service was not reached a moment ago")
        return None

    def _renew(self) -> asyncio.Task[_Token]:
        if self._renewal is None:
            self._renewal = asyncio.get_running_loop().create_task(self._fetch_token(), name="token")
            self._renewal.add_done_callback(self._renewal_ended)
        return self._renewal

    def _renewal_ended(self, task: asyncio.Task[_Token]) -> None:
        self._renewal = None
        if not task.cancelled():
            task.exception()  # nobody may be waiting; the failure is in the counts

    async def _fetch_token(self) -> _Token:
        asked_us = self._clock.now_us()
        try:
            grant = await self._fetch()
        except LoginRefused:
            self._set_failures(LoginFailures(self._failures.count + 1, self._clock.now_us()))
            raise
        except TokenUnreachable:
            self._unreachable_until_us = self._clock.now_us() + int(self._backoff.next_s() * SECOND_US)
            raise
        self._backoff.reset()
        self._unreachable_until_us = 0
        if self._failures.count:
            self._set_failures(LoginFailures())
        self._token = _Token(
            bearer=f"Bearer {grant.access_token}",
            renew_us=asked_us + int(grant.life_us * _RENEW_AT),
            ends_us=asked_us + grant.life_us - _MARGIN_US,
        )
        return self._token

    def _set_failures(self, failures: LoginFailures) -> None:
        self._failures = failures
        self._on_failures(failures)
