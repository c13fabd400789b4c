"""One REST call as the handlers see it, and the table that finds the handler.

Handlers are plain functions `(broker, call) -> Reply`, without sockets and without awaiting: the shell in `rest.py`
may carry a call out late, twice, or throw its answer away, and the handler does not know. Paths are matched on
percent-encoded segments, decoded one by one, because symbols contain spaces and slashes; a last `{name*}` takes the
rest of the path, as one SDK leaves slashes bare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from otocod.paper.answers import Json
from otocod.paper.errors import invalid, not_found, not_permitted
from otocod.paper.paging import Query

if TYPE_CHECKING:
    from otocod.paper.broker import PaperBroker

OLD_VERSION = 20250813
NEW_VERSION = 20261012
VERSIONS = (OLD_VERSION, NEW_VERSION)


@dataclass(slots=True)
class Call:
    """A request after authentication. `body` is the parsed JSON of a request that brought some, else None."""

    method: str
    path: str  # decoded; becomes the answer's `context`
    query: Query
    body: object
    version: int
    now_us: int
    names: Mapping[str, str] = field(default_factory=dict)  # what the route's placeholders stand for

    def account(self, broker: PaperBroker) -> str:
        """The account of the path; another customer's account is not told from a missing one."""
        number = self.names["account"]
        if number not in broker.accounts:
            raise not_permitted()
        return number

    def number(self, name: str) -> int:
        """An id of the path. What is no number is no record."""
        text = self.names[name]
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise not_found(f"{name} {text[:40]}")
        return int(text)

    def json_object(self) -> Json:
        if not isinstance(self.body, dict):
            raise invalid([("body", "must be a JSON object")])
        return self.body


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes under `data`, and beside it."""

    data: Json
    status: int = 200
    pagination: Json | None = None
    encoded: bytes | None = None  # the whole body, ready made; for chains, which are large and the same all day


Handler = Callable[["PaperBroker", Call], Reply]


def items(rows: list[Json]) -> Reply:
    return Reply({"items": rows})


class Routes:
    """A table of `METHOD /path/{name}`; the first pattern that fits wins."""

    def __init__(self) -> None:
        self._exact: dict[tuple[str, int], list[tuple[tuple[str, ...], Handler]]] = {}
        self._open: list[tuple[str, tuple[str, ...], Handler]] = []
        self.paths: list[str] = []

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        self.paths.append(f"{method} {pattern}")
        segments = tuple(pattern.strip("/").split("/"))
        if segments[-1].endswith("*}"):
            self._open.append((method, segments, handler))
        else:
            self._exact.setdefault((method, len(segments)), []).append((segments, handler))

    def find(self, method: str, raw_path: str) -> tuple[Handler, dict[str, str]] | None:
        """`raw_path` is still percent-encoded."""
        parts = raw_path.strip("/").split("/")
        for segments, handler in self._exact.get((method, len(parts)), ()):
            names = _names(segments, parts)
            if names is not None:
                return handler, names
        for wanted, segments, handler in self._open:
            head = len(segments) - 1
            if wanted == method and len(parts) > head:
                names = _names(segments[:-1], parts[:head])
                if names is not None:
                    # A bare leading slash of a futures symbol leaves an empty segment behind.
                    names[segments[-1][1:-2]] = unquote("/".join(parts[head:]))
                    return handler, names
        return None

    def knows_path(self, raw_path: str) -> bool:
        """Whether another method would have found something."""
        return any(self.find(method, raw_path) for method in ("GET", "POST", "PUT", "PATCH", "DELETE"))


def _names(segments: tuple[str, ...], parts: list[str]) -> dict[str, str] | None:
    names: dict[str, str] = {}
    for segment, part in zip(segments, parts, strict=True):
        if segment[0] == "{":
            if not part:
                return None
            names[segment[1:-1]] = unquote(part)
        elif segment != part:
            return None
    return names
