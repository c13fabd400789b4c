"""The demonstration's hand on the market: the paper broker's control address, and its option chain."""

import http.client
import json
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlsplit

TIMEOUT_S = 10.0
_USER_AGENT = "otocod-demo/1"
# Far enough away that no leg expires while somebody looks at the screen, near enough to be listed.
_DAYS_AWAY_LEAST = 20


class MarketFailed(Exception):
    """The paper broker did not do what it was told."""


class _Http:
    """One kept connection to one address; JSON in and out. Raises MarketFailed."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self._prefix = parts.path.rstrip("/")
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        self._headers = {"User-Agent": _USER_AGENT, "Content-Type": "application/json", **(headers or {})}

    def call(self, method: str, path: str, body: object | None = None) -> Any:
        raw = None if body is None else json.dumps(body).encode()
        try:
            self._connection.request(method, self._prefix + path, raw, self._headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise MarketFailed(f"{method} {path}: {type(error).__name__} {error}") from None
        if answer.status >= 400:
            raise MarketFailed(f"{method} {path}: {answer.status} {text[:300].decode(errors='replace')}")
        return json.loads(text) if text else None

    def close(self) -> None:
        self._connection.close()


class Market:
    def __init__(self, control_url: str) -> None:
        self._http = _Http(control_url)

    def quote(self, symbol: str, bid: Decimal, ask: Decimal) -> None:
        self._http.call("PUT", f"/quotes/{quote(symbol, safe='')}", {"bid": str(bid), "ask": str(ask)})

    def set_rules(self, **rules: object) -> None:
        self._http.call("PATCH", "/rules", rules)

    def is_filled(self, external_identifier: str) -> bool:
        """By the exchange's own view, whoever has or has not been told."""
        orders = self._http.call("GET", "/orders")
        return any(
            order.get("external-identifier") == external_identifier and order.get("status") == "Filled"
            for order in orders
        )

    def accounts(self) -> list[str]:
        return [str(account) for account in self._http.call("GET", "/")["accounts"]]

    def close(self) -> None:
        self._http.close()


def expirations(api_url: str, underlyings: Iterable[str]) -> dict[str, str]:
    """For each underlying an expiration of the broker's own chain, as yymmdd in symbols."""
    http_ = _Http(api_url)
    credentials = {"grant_type": "refresh_token", "client_secret": "demo", "refresh_token": "demo"}
    token = http_.call("POST", "/oauth/token", credentials)["access_token"]
    http_.close()
    http_ = _Http(api_url, {"Authorization": f"Bearer {token}"})
    try:
        return {name: _expiration(http_.call("GET", f"/option-chains/{name}/nested")) for name in underlyings}
    finally:
        http_.close()


def _expiration(chain: Any) -> str:
    found = [
        (int(each["days-to-expiration"]), date.fromisoformat(each["expiration-date"]))
        for item in chain["data"]["items"]
        for each in item["expirations"]
    ]
    later = [day for days, day in sorted(found) if days >= _DAYS_AWAY_LEAST]
    if not later:
        raise MarketFailed("the paper broker lists no expiration that is far enough away")
    return later[0].strftime("%y%m%d")
