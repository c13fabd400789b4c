"""Reads for the parts that orders never wait for: the quote token, instruments, market sessions.

One try at a time and no repeats: whoever asks has a backoff of its own. It shares the transport and the tokens with the
orders, and takes at most one of their connections.
"""

import asyncio

from otocod.adapters.tastytrade.auth import Authenticator
from otocod.adapters.tastytrade.errors import HttpError, TokenUnreachable, TransportError
from otocod.adapters.tastytrade.http import Query, Transport
from otocod.adapters.tastytrade.parse import refusal_from_body
from otocod.ports.broker import ReadFailed


class Reader:
    def __init__(self, transport: Transport, auth: Authenticator) -> None:
        self._transport = transport
        self._auth = auth
        self._turn = asyncio.Semaphore(1)

    async def get(self, path: str, query: Query = ()) -> bytes:
        """The body of a 2xx. Raises ReadFailed (LoginRefused is one), in words that name neither token nor address."""
        async with self._turn:
            try:
                bearer = await self._auth.bearer()
                answer = await self._transport.exchange("GET", path, bearer=bearer, query=query)
                if answer.http_status == 401:
                    bearer = await self._auth.replace(bearer)
                    answer = await self._transport.exchange("GET", path, bearer=bearer, query=query)
            except (TransportError, TokenUnreachable) as error:
                raise ReadFailed(str(error)) from None
        if 200 <= answer.http_status < 300:
            return answer.body
        raise ReadFailed(str(HttpError(answer.http_status, refusal_from_body(answer.http_status, answer.body))))
