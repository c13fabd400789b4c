"""Alerts as JSON, posted to an address; and the ping that says that all is well."""

import aiohttp

import otocod
from otocod.adapters.alerts.channel import ChannelFailed
from otocod.adapters.alerts.message import Message

_TIMEOUT_S = 10.0
_AGENT = {"User-Agent": f"otocod/{otocod.__version__}"}


class Http:
    """Requests of their own: nothing of the broker's connections is used, and none is kept open."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, method: str, url: str, *, json: object = None, headers: dict[str, str] | None = None) -> None:
        """Raises ChannelFailed unless the answer is 2xx. A redirect is none: it would carry the token elsewhere."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True), timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)
            )
        try:
            async with self._session.request(
                method, url, json=json, headers=_AGENT | (headers or {}), allow_redirects=False
            ) as answer:
                if not 200 <= answer.status < 300:
                    raise ChannelFailed(f"HTTP {answer.status}")
        except TimeoutError:
            raise ChannelFailed(f"no answer within {_TIMEOUT_S:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Its text may hold the address, which is a secret.
            raise ChannelFailed(_cause(error)) from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _cause(error: BaseException) -> str:
    strerror = getattr(error, "strerror", None)
    return f"{type(error).__name__}: {strerror}" if isinstance(strerror, str) else type(error).__name__


class Webhook:
    """Implements Channel."""

    name = "webhook"

    def __init__(self, url: str, token: str | None = None) -> None:
        self._url = url
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = Http()

    async def send(self, message: Message) -> None:
        headers = self._headers | {"Idempotency-Key": message.key}
        await self._http.ask("POST", self._url, json=message.as_json(), headers=headers)

    async def close(self) -> None:
        await self._http.close()
