"""The paper broker on sockets: one port for trading clients, one for control, both on loopback.

    port A   REST at its paths, the account streamer at /streamer, DXLink at /dxlink
    port B   the control API

`PaperServer` may be started inside a test or by `otocod paper`; `start()` returns when both ports answer, `stop()`
lets go of held requests and connections at once. It may be stopped twice and before it was started.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

from aiohttp import web

from otocod.paper import accounts_api, orders_api
from otocod.paper.broker import PaperBroker
from otocod.paper.control import BROKER, ControlApi, plain_errors
from otocod.paper.dxlink import QuoteHub
from otocod.paper.market import ScriptStep
from otocod.paper.market_api import MarketApi
from otocod.paper.rest import MAX_BODY_BYTES, RestApi
from otocod.paper.routes import Routes
from otocod.paper.streamer import StreamerHub

HOST = "127.0.0.1"


class ConfigInvalid(ValueError):
    """A configuration that was not applied; `problems` names everything wrong with it."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class PaperServer:
    """`config` may hold `rules` and `faults` as PATCH takes them. Addresses are known after `start()`."""

    def __init__(
        self,
        *,
        port: int = 0,
        control_port: int = 0,
        seed: int = 0,
        accounts: Sequence[str] = ("5WT00001",),
        config: Mapping[str, object] | None = None,
        script: Sequence[ScriptStep] = (),
    ) -> None:
        self.broker = PaperBroker(seed=seed, accounts=accounts)
        self.streamer = StreamerHub(self.broker)
        self.quote_hub = QuoteHub(self.broker)
        self.broker.notices = self.streamer
        self.broker.quotes = self.quote_hub
        self.api_url = self.streamer_url = self.dxlink_url = self.control_url = ""
        self._port = port
        self._control_port = control_port
        self._config = dict(config or {})
        self._script = script
        self._rest: RestApi | None = None
        self._runners: list[web.AppRunner] = []

    async def start(self) -> None:
        """Raises ConfigInvalid, or OSError when a port is taken."""
        problems = self.broker.configure(self._config)
        if problems:
            raise ConfigInvalid(problems)
        try:
            await self._start_control()
            await self._start_api()
        except BaseException:
            await self.stop()
            raise
        if self._script:
            self.broker.start_script(self._script)

    async def _start_control(self) -> None:
        control = web.Application(middlewares=[plain_errors], client_max_size=64 * MAX_BODY_BYTES)
        control[BROKER] = self.broker
        ControlApi(self.broker, self.streamer, self.quote_hub).register(control)
        port = await self._listen(control, self._control_port)
        self.control_url = f"http://{HOST}:{port}"

    async def _start_api(self) -> None:
        routes = Routes()
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        rest = self._rest = RestApi(self.broker, routes, self.streamer)
        app.router.add_get("/streamer", self.streamer.handle)
        app.router.add_get("/dxlink", self.quote_hub.handle)
        app.router.add_route("*", "/{path:.*}", rest.handle)
        port = await self._listen(app, self._port)
        self.api_url = f"http://{HOST}:{port}"
        self.streamer_url = f"ws://{HOST}:{port}/streamer"
        self.dxlink_url = f"ws://{HOST}:{port}/dxlink"
        # Behind the socket's address, since quote tokens carry it; no client knows the port yet.
        orders_api.register(routes)
        accounts_api.register(routes)
        MarketApi(self.dxlink_url).register(routes)

    async def _listen(self, app: web.Application, port: int) -> int:
        # A client that gave up cancels its held request; carrying out never waits inside a handler, so nothing is lost.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, HOST, port, backlog=512)
        await site.start()
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        self.broker.stop()
        if self._rest is not None:
            self._rest.stop()
        with contextlib.suppress(ConnectionError):
            await self.streamer.drop(code=1001, reason="Going away", abrupt=False)
            await self.quote_hub.drop()
        runners, self._runners = self._runners, []
        for runner in runners:
            await runner.cleanup()


@contextlib.asynccontextmanager
async def serve(
    *, port: int = 0, seed: int = 0, accounts: Sequence[str] = ("5WT00001",), config: Mapping[str, object] | None = None
) -> AsyncIterator[PaperServer]:
    """A running paper broker for the length of a block."""
    server = PaperServer(port=port, seed=seed, accounts=accounts, config=config)
    await server.start()
    try:
        yield server
    finally:
        await asyncio.shield(server.stop())
