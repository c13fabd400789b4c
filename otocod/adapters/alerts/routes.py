"""Alerts on the admin socket: what was raised and became of it, a test, and alarms of programs beside the daemon."""

import asyncio
from contextlib import closing
from pathlib import Path

from aiohttp import web

from otocod.adapters.admin import BadCall, fields_of, json_answer, number_of, peer, query_of
from otocod.adapters.alerts.channel import ChannelFailed
from otocod.adapters.alerts.deadman import DeadMan
from otocod.adapters.alerts.dispatcher import Dispatcher
from otocod.adapters.alerts.outbox import list_alerts
from otocod.adapters.sqlite import readmodel
from otocod.alarms import ALARMS
from otocod.ports.clock import Clock
from otocod.ports.store import Alarm
from otocod.text import sanitise

LIMIT_DEFAULT = 50
LIMIT_MAX = 1000
TEXT_MAX = 500


def routes(dispatcher: Dispatcher, deadman: DeadMan | None, path: Path, clock: Clock) -> tuple[web.RouteDef, ...]:
    def read(limit: int) -> list[dict[str, object]]:
        with closing(readmodel.open_readonly(path)) as connection:
            return list_alerts(connection, dispatcher.channels, limit=limit)

    async def show(request: web.Request) -> web.Response:
        limit = int(number_of(query_of(request, "limit"), "limit", LIMIT_DEFAULT, LIMIT_MAX))
        return json_answer(await asyncio.to_thread(read, limit))

    async def test(request: web.Request) -> web.Response:
        (await fields_of(request)).end()
        results = await dispatcher.test(peer(request))
        if deadman is not None:
            results.append(await pinged(deadman))
        return json_answer(results)

    async def raise_alarm(request: web.Request) -> web.Response:
        fields = await fields_of(request)
        code, text = fields.required_text("code"), fields.required_text("text")
        fields.end()
        if not is_outside(code):
            raise BadCall(f"code: one of {', '.join(outside_codes())}")
        dispatcher.alarm(Alarm(clock.now_us(), code, f"{sanitise(text, TEXT_MAX)} ({peer(request)})"))
        return json_answer({"code": code, "channels": list(dispatcher.channels)})

    return (web.get("/v1/alerts", show), web.post("/v1/alerts/test", test), web.post("/v1/alerts", raise_alarm))


async def pinged(deadman: DeadMan) -> dict[str, object]:
    try:
        await deadman.ping()
    except ChannelFailed as error:
        return {"channel": "deadman", "ok": False, "error": str(error)}
    return {"channel": "deadman", "ok": True, "error": ""}


def outside_codes() -> list[str]:
    return [code for code, about in ALARMS.items() if about.is_outside]


def is_outside(code: str) -> bool:
    return code in outside_codes()
