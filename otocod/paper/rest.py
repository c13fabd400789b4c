"""The REST side as a socket sees it: one pipeline for every request.

    User-Agent (HTML 401) -> token service | Accept-Version (406) -> token (401) -> route (404, 405) -> body
        -> plan of the faults -> carry out (a plain function on the broker) -> settle -> answer

Carrying out never awaits. What the plan asks for beside it (waiting, silence, reset, a second time, a disfigured
answer) is done here. A request that waits is carried out by a timer of its own, so it happens even when its client
has given up by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from otocod.paper import auth, fault_plans, paging
from otocod.paper.answers import (
    Json,
    decoded,
    encode,
    error_body,
    html_page,
    method_not_allowed,
    oauth_error,
    unauthorized,
)
from otocod.paper.errors import Refused, invalid, not_found
from otocod.paper.fault_plans import UNDISTURBED, RequestPlan
from otocod.paper.routes import VERSIONS, Call, Handler, Reply, Routes

if TYPE_CHECKING:
    from otocod.paper.broker import PaperBroker
    from otocod.paper.streamer import StreamerHub

MAX_BODY_BYTES = 1 << 20
_REASONS = {
    401: "Unauthorized",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}
_JSON_HEADERS = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}


class RestApi:
    """Answers HTTP requests of trading clients."""

    def __init__(self, broker: PaperBroker, routes: Routes, streamer: StreamerHub) -> None:
        self._broker = broker
        self._routes = routes
        self._streamer = streamer
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Lets go of requests that are being held."""
        self._stopping.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if not request.headers.get("User-Agent", "").strip():
            # One official SDK sends a product without a version, so only a missing one is refused.
            return _html(401, "Unauthorized")
        if request.path == "/oauth/token":
            return await self._token(request)
        body_bytes = await request.read() if request.body_exists else b""
        now_us = self._broker.clock.now_us()
        try:
            handler, call = self._admit(request, body_bytes, now_us)
        except Refused as error:
            self._note(request, None, error.status, None, now_us)
            return _json(error.status, error.body())
        plan = UNDISTURBED
        if self._broker.faults.armed:
            subject = fault_plans.subject_of_request(call.method, call.path, call.body)
            plan = fault_plans.plan_request(self._broker.faults, subject)
        if plan is UNDISTURBED:
            status, body = self._carry_out(handler, call)
            self._note(request, call, status, None, now_us)
            return web.Response(body=body, status=status, headers=_JSON_HEADERS)
        return await self._carry_out_plan(request, handler, call, plan)

    def _admit(self, request: web.Request, body_bytes: bytes, now_us: int) -> tuple[Handler, Call]:
        """Everything that is checked before the request is looked at. Raises Refused."""
        headers = request.headers
        default = self._broker.server_rules.whole("api.default_version")
        version = paging.parse_version(headers.get("Accept-Version"), default, VERSIONS)
        if not self._broker.tokens.accepts_header(headers.get("Authorization", ""), now_us=now_us):
            raise unauthorized()
        raw_path = request.rel_url.raw_path
        found = self._routes.find(request.method, raw_path)
        if found is None:
            if self._routes.knows_path(raw_path):
                raise method_not_allowed(request.method)
            raise not_found(f"{unquote(raw_path)[:80]}")
        handler, names = found
        body = _parse(body_bytes) if body_bytes and request.method in ("POST", "PUT", "PATCH") else None
        return handler, Call(request.method, request.path, request.query, body, version, now_us, names)

    def _carry_out(
        self, handler: Handler, call: Call, disfigure: Callable[[Json], Json] | None = None
    ) -> tuple[int, bytes]:
        """Runs the handler and publishes what it caused; the answer, which may be a refusal."""
        broker = self._broker
        call.now_us = broker.clock.now_us()
        try:
            reply = handler(broker, call)
        except Refused as refusal:
            broker.settle()
            return refusal.status, encode(refusal.body())
        broker.settle()
        return reply.status, _envelope(reply, call.path, disfigure)

    async def _carry_out_plan(
        self, request: web.Request, handler: Handler, call: Call, plan: RequestPlan
    ) -> web.StreamResponse:
        broker = self._broker
        if plan.kill_tokens:
            broker.tokens.revoke_all()
        status, body = plan.status, b""
        held = plan.ordering == "stream_last"
        if held:
            self._streamer.hold()
        try:
            if plan.carry_out:
                done = self._carried_out(handler, call, plan)
                if not plan.detached:
                    status, body = await asyncio.shield(done)
            self._note(request, call, status if body or plan.answer == "error" else None, plan.fault, call.now_us)
            wait_ms = plan.after_ms + (plan.ordering_ms if plan.ordering == "stream_first" else 0)
            if wait_ms:
                await self._wait(wait_ms)
            response = await self._answer(request, plan, status, body)
            if held:
                await response.prepare(request)
                await response.write_eof()
                await self._wait(plan.ordering_ms)
            return response
        finally:
            if held:
                self._streamer.release()

    def _carried_out(self, handler: Handler, call: Call, plan: RequestPlan) -> asyncio.Future[tuple[int, bytes]]:
        """Resolved with the answer once the request was carried out, which does not depend on the client's patience."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[int, bytes]] = loop.create_future()
        disfigure = fault_plans.wrong_echo if plan.answer == "wrong_echo" else None

        def run() -> None:
            answers = [self._carry_out(handler, call, disfigure) for _ in range(2 if plan.twice else 1)]
            if not done.done():
                done.set_result(answers[-1] if plan.show_second else answers[0])

        if plan.before_ms:
            loop.call_later(plan.before_ms / 1000, run)
        else:
            run()
        return done

    async def _answer(self, request: web.Request, plan: RequestPlan, status: int, body: bytes) -> web.StreamResponse:
        match plan.answer:
            case "silence":
                await self._wait(plan.hold_ms)
                return _reset(request)
            case "reset":
                return _reset(request)
            case "error" if plan.html:
                return _html(plan.status, _REASONS.get(plan.status, "Error"))
            case "error":
                return _json(plan.status, error_body(plan.code, f"Simulated: {plan.fault}"))
            case "truncated":
                return await _truncated(request, status, body)
            case "html":
                return _html(status, "OK", as_status=status)
            case "empty":
                return web.Response(status=status, headers=_JSON_HEADERS)
            case _:
                return web.Response(body=body, status=status, headers=_JSON_HEADERS)

    async def _wait(self, wait_ms: int) -> None:
        try:
            async with asyncio.timeout(wait_ms / 1000):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _token(self, request: web.Request) -> web.StreamResponse:
        """The token service; its refusals follow RFC 6749."""
        broker = self._broker
        now_us = broker.clock.now_us()
        if request.method != "POST":
            return _json(405, oauth_error("invalid_request", "POST only"))
        body_bytes = await request.read()
        down = broker.faults.strike("token_unavailable")
        if down:
            self._note(request, None, None, "token_unavailable", now_us)
            if down["mode"] == "503":
                return _html(503, "Service Unavailable")
            if down["mode"] == "silence":
                await self._wait(int(down["hold_ms"]))
            return _reset(request)
        refused = broker.faults.strike("token_refused")
        try:
            if refused:
                raise auth.TokenRefused(str(refused["error"]), "The grant is refused", int(refused["status"]))
            form = _form(request.content_type, body_bytes)
            auth.grant(form)
        except auth.TokenRefused as refusal:
            self._note(request, None, refusal.status, "token_refused" if refused else None, now_us)
            return _json(refusal.status, oauth_error(refusal.error, refusal.description))
        life_s = broker.server_rules.whole("auth.token_life_s")
        token = broker.tokens.issue(now_us=now_us, life_s=life_s)
        self._note(request, None, 200, None, now_us)
        return _json(200, auth.token_answer(token, life_s=life_s, grant_type=form["grant_type"]))

    def _note(self, request: web.Request, call: Call | None, status: int | None, fault: str | None, at_us: int) -> None:
        """One line of the truth log. Headers and bodies stay out of it, except what identifies order and program."""
        fields: Json = {
            "method": request.method,
            "path": request.path,
            "status": status,
            "answered_at_us": self._broker.clock.now_us(),
            "user_agent": request.headers.get("User-Agent", ""),
            "accept_version": request.headers.get("Accept-Version"),
        }
        if call is not None and isinstance(call.body, dict):
            fields["external_identifiers"] = external_identifiers(call.body)
        if request.query_string:
            fields["query"] = request.query_string
        if fault:
            fields["fault"] = fault
        self._broker.log.add("request", at_us, **fields)


def external_identifiers(body: Json) -> list[str]:
    """Of an order, or of every component of a complex order."""
    members = body.get("orders")
    orders = [body, body.get("trigger-order"), *(members if isinstance(members, list) else ())]
    return [
        str(order["external-identifier"])
        for order in orders
        if isinstance(order, dict) and "external-identifier" in order
    ]


def _envelope(reply: Reply, path: str, disfigure: Callable[[Json], Json] | None) -> bytes:
    if reply.encoded is not None:
        return reply.encoded
    body: Json = {"data": disfigure(reply.data) if disfigure else reply.data, "context": path}
    if reply.pagination is not None:
        body["pagination"] = reply.pagination
    return encode(body)


def _parse(body_bytes: bytes) -> object:
    """JSON with exact numbers: a price must not pass through a float."""
    try:
        return decoded(body_bytes, parse_float=Decimal, parse_constant=_refuse_constant)
    except ValueError:
        raise invalid([("body", "is not valid JSON")]) from None


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _form(content_type: str, body_bytes: bytes) -> Json:
    """A token request: JSON as the SDKs send it, or the form encoding of RFC 6749."""
    if content_type == "application/x-www-form-urlencoded":
        return dict(parse_qsl(body_bytes.decode(errors="replace")))
    try:
        form = decoded(body_bytes)
    except ValueError:
        form = None
    if not isinstance(form, dict):
        raise auth.TokenRefused("invalid_request", "the body must be a JSON object or a form")
    return form


def _json(status: int, body: Json) -> web.Response:
    return web.Response(body=encode(body), status=status, headers=_JSON_HEADERS)


def _html(status: int, reason: str, as_status: int | None = None) -> web.Response:
    return web.Response(text=html_page(status, reason), status=as_status or status, content_type="text/html")


def _reset(request: web.Request) -> web.Response:
    """Ends the connection without an answer; the returned response goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


async def _truncated(request: web.Request, status: int, body: bytes) -> web.StreamResponse:
    """Half the body under a length that promises all of it, then the end of the connection."""
    response = web.StreamResponse(status=status, headers={**_JSON_HEADERS, "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
