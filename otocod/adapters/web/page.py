"""The web page: read-only, on loopback, for a browser that has logged in with the token.

It can change nothing: besides the log-in there is nothing to POST to, and what it shows comes from the same two reads
as the screen's. Every connection carries one answer; there are at most MOST_CONNECTIONS, and the oldest gives way, so a
browser that hangs costs a bounded piece of memory and nobody's time. The scripts put text into the page as text alone,
and the policy sent along allows nothing else.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from importlib import resources
from typing import Protocol
from urllib.parse import urlsplit

from aiohttp import web

from otocod.adapters.web.entry import Allowance, Door
from otocod.logs import get_log
from otocod.ports.admin import JsonObject, NoSuchBracket
from otocod.text import sanitise

log = get_log(__name__)

COOKIE = "otocod_session"
MOST_CONNECTIONS = 32
BODY_MAX_BYTES = 4096
# A window polls once a second; a script that polls without pause is told to wait.
_CALLS, _CALL_EVERY_S = 60.0, 0.05
_STRANGERS_CALLS, _STRANGERS_EVERY_S = 30.0, 0.1
# Readings of the database at once; others wait for their turn.
_AT_ONCE = 2
_TEXT_MAX = 2_000
_NAME_MAX = 200

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
    "Server": "otocod",
}

_FILES = {
    "/": ("index.html", "text/html"),
    "/login": ("login.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/chart.js": ("chart.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_WRONG = "That is not the token."
_SLOW_DOWN = "Too many tries. Wait a few seconds."

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Looks(Protocol):
    """What the page shows; `engine.board.Board`."""

    async def overview(self) -> JsonObject: ...
    async def view(self, named: str, /) -> JsonObject: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where it is served. `hosts`: names under which a proxy on this machine serves it by https."""

    listen: str
    port: int  # 0: any that is free
    hosts: Collection[str] = ()


class WebPage:
    def __init__(self, looks: Looks, door: Door, place: Place, now_s: Callable[[], float] = time.monotonic) -> None:
        self._place = place
        self._port = place.port
        self._door = door
        self._calls = Allowance(_CALLS, _CALL_EVERY_S, now_s)
        self._strangers_calls = Allowance(_STRANGERS_CALLS, _STRANGERS_EVERY_S, now_s)
        app = web.Application(middlewares=[self._finished, self._admitted], client_max_size=BODY_MAX_BYTES)
        routes = _Routes(looks, door, self._is_named)
        app.add_routes(
            [
                web.get("/", routes.index),
                web.get("/login", routes.login),
                web.post("/login", routes.try_login),
                web.get("/api/overview", routes.overview),
                web.get("/api/brackets/{bracket}", routes.view),
                *(web.get(path, routes.file) for path in _FILES if path not in ("/", "/login")),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.2)
        self._listener: asyncio.Server | None = None

    async def start(self) -> int:
        """The port. One that is taken is told in the log and stops nothing: 0 is the answer then."""
        await self._runner.setup()
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._connection, self._place.listen, self._place.port, backlog=16
            )
        except OSError as error:
            log.error("web_failed", port=self._place.port, error=error.strerror or str(error))
            return 0
        self._port = int(self._listener.sockets[0].getsockname()[1])
        return self._port

    async def stop(self) -> None:
        """May be called twice and before start()."""
        if self._listener is not None:
            self._listener.close()
        with contextlib.suppress(OSError):
            await self._runner.cleanup()

    def _connection(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None
        present = server.connections
        # All that are too many: of those that come in one turn of the loop none is in the list yet.
        for oldest in present[: max(len(present) - MOST_CONNECTIONS + 1, 0)]:
            if oldest.transport is not None:
                # Not closed in an orderly way: a browser that does not read would keep it for ever.
                oldest.transport.abort()
        return server()

    def _is_named(self, host: str | None) -> str | None:
        """`http` or `https` if the page is meant by this Host, by the way it is reached; None if it is not.

        A page elsewhere may have a name of its own point to this machine; its browser then says that name here.
        """
        try:
            parts = urlsplit(f"//{host or ''}")
            name, port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            return None
        if parts.path or parts.query or parts.fragment or parts.username is not None:
            return None
        if name in (self._place.listen, "localhost", "127.0.0.1", "::1"):
            return "http" if (port or 80) == self._port else None
        return "https" if name in self._place.hosts and port in (None, 443) else None

    @web.middleware
    async def _finished(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every answer is closed after, carries the policy, and never shows what went wrong inside."""
        try:
            answer = await handler(request)
        except web.HTTPException as error:
            answer = web.Response(status=error.status, text=f"{error.reason}\n")
            if "Allow" in error.headers:
                answer.headers["Allow"] = error.headers["Allow"]
            if "Location" in error.headers:
                answer.headers["Location"] = error.headers["Location"]
        except asyncio.CancelledError:
            raise
        except Exception:  # the page must go on being served whatever one call runs into
            log.exception("web_failed", call=sanitise(f"{request.method} {request.path}", 200))
            answer = web.Response(
                status=500, text="otocod failed over this call; its log says why (event web_failed)\n"
            )
        answer.headers.update(HEADERS)
        answer.force_close()
        return answer

    @web.middleware
    async def _admitted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._is_named(request.headers.get("Host")) is None:
            raise web.HTTPMisdirectedRequest
        is_known = self._door.knows(request.cookies.get(COOKIE))
        calls = self._calls if is_known else self._strangers_calls
        if not calls.take():
            raise web.HTTPTooManyRequests
        is_open = request.path == "/login" or (request.path in _FILES and request.path != "/")
        if is_known or is_open:
            return await handler(request)
        if request.path == "/" and request.method in ("GET", "HEAD"):
            raise web.HTTPSeeOther("/login")
        raise web.HTTPUnauthorized


class _Routes:
    def __init__(self, looks: Looks, door: Door, scheme_of: Callable[[str | None], str | None]) -> None:
        self._looks = looks
        self._door = door
        self._scheme_of = scheme_of
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        folder = resources.files("otocod.adapters.web") / "static"
        self._files = {path: (folder / name).read_bytes() for path, (name, _) in _FILES.items()}

    async def index(self, request: web.Request) -> web.Response:
        return self._file("/")

    async def file(self, request: web.Request) -> web.Response:
        return self._file(request.path)

    def _file(self, path: str, status: int = 200, told: str = "") -> web.Response:
        # `told` is one of our own sentences.
        body = self._files[path].replace(b"<!-- told -->", told.encode())
        return web.Response(body=body, status=status, content_type=_FILES[path][1], charset="utf-8")

    async def login(self, request: web.Request) -> web.Response:
        return self._file("/login")

    async def try_login(self, request: web.Request) -> web.Response:
        """With a token a session begins, without one the present session ends."""
        if not self._is_own_form(request):
            raise web.HTTPForbidden
        offered = (await request.post()).get("token")
        answer = web.Response(status=303, headers={"Location": "/"})
        if not isinstance(offered, str) or not offered:
            self._door.close(request.cookies.get(COOKIE))
            answer.del_cookie(COOKIE, path="/")
            return answer
        if not self._door.may_try():
            return self._file("/login", 429, _SLOW_DOWN)
        session = self._door.open(offered.strip())
        if session is None:
            log.warning("web_login_refused")
            return self._file("/login", 403, _WRONG)
        log.info("web_login")
        is_secure = self._scheme_of(request.headers.get("Host")) == "https"
        answer.set_cookie(COOKIE, session, path="/", httponly=True, samesite="Strict", secure=is_secure)
        return answer

    def _is_own_form(self, request: web.Request) -> bool:
        """Sent by our own page, as the browser says; programs that say nothing are no browsers."""
        host = request.headers.get("Host")
        origin = request.headers.get("Origin")
        if origin is not None and origin.lower() != f"{self._scheme_of(host)}://{host}".lower():
            return False
        return request.headers.get("Sec-Fetch-Site", "same-origin") in ("same-origin", "none")

    async def overview(self, request: web.Request) -> web.Response:
        return _json(await self._looks.overview())

    async def view(self, request: web.Request) -> web.Response:
        named = request.match_info["bracket"]
        if len(named) > _NAME_MAX:
            raise web.HTTPNotFound
        try:
            async with self._at_once:
                return _json(await self._looks.view(named))
        except NoSuchBracket:
            raise web.HTTPNotFound from None


def _json(answer: JsonObject) -> web.Response:
    text = json.dumps(_clean(answer), ensure_ascii=True, default=str)
    return web.Response(text=text, content_type="application/json")


def _clean(value: object) -> object:
    """The same value, its texts without what a terminal or a bidirectional override would make of them."""
    if isinstance(value, str):
        return sanitise(value, _TEXT_MAX)
    if isinstance(value, dict):
        return {sanitise(str(key), 200): _clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    return value
