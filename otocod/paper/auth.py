"""Access tokens: issued by `POST /oauth/token`, checked on every request and in every streamer message.

A token is 15 minutes of access by the paper's own clock, so moving that clock ages tokens as it ages orders. Tokens
look like a JWT because clients may expect the two dots, but nothing can be read from them. Refresh tokens never
rotate and any pair of secret and refresh token is taken; refusals are a fault (`token_refused`), not a rule.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Mapping

from otocod.paper.answers import Json

GRANTS = ("refresh_token", "authorization_code")
_HEADER = base64.urlsafe_b64encode(b'{"alg":"RS256","typ":"at+jwt"}').rstrip(b"=").decode()


class TokenRefused(Exception):
    """The token service says no: `error` is a code of RFC 6749."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.status = status


class Tokens:
    """The tokens in force. Deterministic for a seed, so that two runs of one scenario exchange the same bytes."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"tokens:{seed}")
        self._expires_at_us: dict[str, int] = {}

    def issue(self, *, now_us: int, life_s: int) -> str:
        for stale in [token for token, expires_at_us in self._expires_at_us.items() if expires_at_us <= now_us]:
            del self._expires_at_us[stale]
        payload = json.dumps({"jti": f"{self._random.getrandbits(96):024x}"}).encode()
        body = base64.urlsafe_b64encode(payload).rstrip(b"=").decode()
        token = f"eyJ{_HEADER[3:]}.{body}.{self._random.getrandbits(256):064x}"
        self._expires_at_us[token] = now_us + life_s * 1_000_000
        return token

    def accepts(self, token: str, *, now_us: int) -> bool:
        return self._expires_at_us.get(token, 0) > now_us

    def accepts_header(self, value: str, *, now_us: int) -> bool:
        """`value` is an `Authorization` header, or a message's `auth-token`: a bare token does not count."""
        scheme, _, token = value.partition(" ")
        return scheme == "Bearer" and self.accepts(token, now_us=now_us)

    def revoke_all(self) -> int:
        """Every token issued so far is worthless from now on; how many that were."""
        count = len(self._expires_at_us)
        self._expires_at_us.clear()
        return count


class QuoteTokens:
    """Tokens of the quote feed: another kind, which live a day. One that was not issued here is taken, as secrets are:
    only what is known to have ended is refused."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"quote-tokens:{seed}")
        self._expires_at_us: dict[str, int] = {}

    def issue(self, *, now_us: int, life_s: int) -> str:
        token = f"paper-quotes-{self._random.getrandbits(64):016x}"
        self._expires_at_us[token] = now_us + life_s * 1_000_000
        return token

    def accepts(self, token: str, *, now_us: int) -> bool:
        return self._expires_at_us.get(token, now_us + 1) > now_us


def grant(form: Mapping[str, object]) -> None:
    """Checks a token request's fields. Raises TokenRefused; secrets are neither compared nor kept."""
    kind = form.get("grant_type")
    if kind not in GRANTS:
        raise TokenRefused("unsupported_grant_type", "grant_type must be refresh_token or authorization_code")
    needed = ("refresh_token", "client_secret") if kind == "refresh_token" else ("code", "client_id", "client_secret")
    missing = [name for name in needed if not isinstance(form.get(name), str) or not form.get(name)]
    if missing:
        raise TokenRefused("invalid_request", "missing " + ", ".join(missing))


def token_answer(token: str, *, life_s: int, grant_type: object) -> Json:
    answer: Json = {"access_token": token, "token_type": "Bearer", "expires_in": life_s}
    if grant_type == "authorization_code":
        # Any refresh token is taken, so one word serves all.
        answer |= {"refresh_token": "paper"}
    return answer
