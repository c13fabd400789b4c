"""Rules of the server side: token life, API versions, keep-alive of the streamer, where quotes come from.

They stand beside the market's rules (`rules.py`) in `GET /rules` and `PATCH /rules` and have the same shape, so an
operator sees one list. Names carry a prefix (`api.`, `auth.`, `streamer.`, `quotes.`) that the market's rules do not
use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from otocod.paper.answers import Json

PREFIXES = ("api.", "auth.", "streamer.", "quotes.")
Value = int | str | bool


@dataclass(frozen=True)
class ServerRule:
    name: str
    default: Value
    doc: str
    choices: tuple[str, ...] = ()
    lowest: int = 0


SERVER_RULES: tuple[ServerRule, ...] = (
    ServerRule("api.default_version", 20250813, "version served to a request without Accept-Version", lowest=20250813),
    ServerRule("api.per_page", 10, "rows of a page when the request does not say", lowest=1),
    ServerRule("api.max_per_page", 2000, "more rows than this in one page are refused", lowest=1),
    ServerRule("auth.token_life_s", 900, "life of an access token by the paper's clock", lowest=1),
    ServerRule("streamer.idle_ms", 60_000, "a connection without a sign of life for so long is closed", lowest=1),
    ServerRule(
        "streamer.keepalive",
        "any",
        "sign of life: `any` heartbeat or ping, `heartbeat` only, `strict` heartbeats with a token in force",
        ("any", "heartbeat", "strict"),
    ),
    ServerRule(
        "quotes.mode",
        "hand",
        "`hand`: only what is set; `seeded`: a random walk, under which a set quote holds until the next tick",
        ("hand", "seeded"),
    ),
    ServerRule("quotes.tick_ms", 1000, "time between two steps of the seeded walk", lowest=1),
    ServerRule("quotes.token_life_s", 86_400, "life of a quote token by the paper's clock", lowest=1),
    ServerRule("quotes.keepalive_s", 60, "the quote feed promises a sign of life so often, and wants one", lowest=1),
)


class ServerRules:
    """Present values; attribute access would hide the dots, so values are read with `whole` and `word`."""

    def __init__(self) -> None:
        self._values: dict[str, Value] = {rule.name: rule.default for rule in SERVER_RULES}

    def whole(self, name: str) -> int:
        return int(self._values[name])

    def word(self, name: str) -> str:
        return str(self._values[name])

    def describe(self) -> list[Json]:
        return [
            {
                "name": rule.name,
                "value": self._values[rule.name],
                "default": rule.default,
                "kind": "one of " + ", ".join(rule.choices) if rule.choices else "whole number",
                "doc": rule.doc,
            }
            for rule in SERVER_RULES
        ]

    def problems(self, changes: Mapping[str, object]) -> list[str]:
        """Everything wrong with the changes; empty means `apply` may follow."""
        known = {rule.name: rule for rule in SERVER_RULES}
        problems = []
        for name, value in changes.items():
            rule = known.get(name)
            if rule is None:
                problems.append(f"{name}: no such rule; there are {', '.join(known)}")
            elif rule.choices and value not in rule.choices:
                problems.append(f"{name}: must be one of {', '.join(rule.choices)}")
            elif not rule.choices and (not isinstance(value, int) or isinstance(value, bool) or value < rule.lowest):
                problems.append(f"{name}: must be a whole number from {rule.lowest}")
        return problems

    def apply(self, changes: Mapping[str, object]) -> None:
        for name, value in changes.items():
            self._values[name] = value if isinstance(value, int | str) else str(value)
