"""One connection to the broker: HTTP/1.1, one exchange at a time, its bytes written in the step that asks.

The framing is httptools' (llhttp in strict mode). What can be misread is not read: an answer that only the end of the
connection ends cannot be told from one that was cut short, and bytes that nobody asked for make the connection useless
before the next answer could be taken for another one's.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

_MOST_BYTES = 32 * 1024 * 1024  # of one answer; 200 orders are well under one


@dataclass(frozen=True, slots=True)
class Response:
    http_status: int
    body: bytes
    date: str | None  # the header


class Broken(Exception):
    """The connection ended, or can no longer be trusted, between the request and the whole of its answer."""


class Connection(asyncio.Protocol):
    """`on_free` when it may take another request, `on_lost` when it never will again."""

    def __init__(self, on_free: Callable[["Connection"], None], on_lost: Callable[["Connection"], None]) -> None:
        self._on_free = on_free
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._asked: Callable[[Response | Broken], None] | None = None
        self._is_spoiled = False
        self._status: int | None = None  # of a complete answer
        self._may_go_on = True  # after it, by what its head says
        self._chunks: list[bytes] = []
        self._size = 0
        self._date: str | None = None
        self.free_since_s = 0.0

    @property
    def is_usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing() and not self._is_spoiled

    def ask(self, request: bytes, asked: Callable[[Response | Broken], None]) -> None:
        """Writes the request; from here on it may have arrived. `asked` is told once, in a later step."""
        assert self._transport is not None
        assert self._asked is None
        self._asked = asked
        self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def give_up(self, why: str) -> None:
        """What may still come is of no use any more."""
        self._is_spoiled = True
        self._tell(Broken(why))
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, received: bytes) -> None:
        if self._asked is None or self._parser is None:
            self.give_up("an answer that nobody asked for")
            return
        try:
            self._parser.feed_data(received)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.give_up("an answer that is no HTTP")
            return
        if self._size > _MOST_BYTES:
            self.give_up("answer too large")
        elif self._is_spoiled:
            self.give_up("two answers to one request")
        elif self._status is not None:
            self._finish(self._status)

    def connection_lost(self, error: Exception | None) -> None:
        self._parser = None  # it holds this object, and nothing would free the two
        self._is_spoiled = True
        self._tell(Broken("the connection broke under the request"))
        self._on_lost(self)

    def _finish(self, http_status: int) -> None:
        response = Response(http_status, b"".join(self._chunks), self._date)
        self._status, self._chunks, self._size, self._date = None, [], 0, None
        if not self._may_go_on:
            self._is_spoiled = True
            self.close()
        self._tell(response)
        if self.is_usable:
            self._on_free(self)

    def _tell(self, answer: Response | Broken) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked(answer)

    # What httptools calls.

    def on_message_begin(self) -> None:
        self._is_spoiled = self._status is not None

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"date":
            self._date = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= _MOST_BYTES:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        http_status = self._parser.get_status_code()
        if http_status >= 200:  # before that it is a word in between
            self._status = http_status
            self._may_go_on = self._parser.should_keep_alive()
