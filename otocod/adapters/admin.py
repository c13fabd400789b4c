"""The admin socket: HTTP and JSON over a Unix socket, for operators and for the command line.

Who may connect is decided by the socket file (0660) and its directory; who did connect is asked of the kernel, never of
the client, and travels as `by` into the journal. Answers are objects or arrays; a failure is

    {"error": {"message": "...", "reasons": ["..."], "exit_status": 4}}

with the exit status that the command line ends with.
"""

import asyncio
import contextlib
import json
import os
import pwd
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from aiohttp import web

from otocod import story
from otocod.logs import get_log
from otocod.ports.admin import AdminFailed, AdminRefused, AdminService, BrokerUnreachable, JsonObject, NoSuchBracket

log = get_log(__name__)

MODE = 0o660
# A dry run carries a request of at most 64 KiB as one JSON string; escaping may double it several times.
BODY_MAX_BYTES = 1024 * 1024
EVENTS_LIMIT_DEFAULT = 100
EVENTS_LIMIT_MAX = 1000
# Below the time after which clients and proxies give up by themselves.
EVENTS_WAIT_MAX_S = 30.0
# Long polls that are still waiting when the daemon stops are cut off; it has 10 s for everything.
_SHUTDOWN_S = 0.5
_UCRED = struct.Struct("3i")  # pid, uid, gid: ucred of unix(7)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BadCall(Exception):
    """The client asked for something that cannot be read."""


class AdminSocket:
    """Serves `service` at `path` from start() to stop(). The caller holds the daemon's lock: a file there is stale."""

    def __init__(self, service: AdminService, path: Path, more: Iterable[web.RouteDef] = ()) -> None:
        """`more`: routes of parts beside the service, such as metrics."""
        self._path = path
        self._runner = web.AppRunner(
            application(service, more), access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_S
        )

    async def start(self) -> None:
        """Connections are taken when it returns. Raises OSError."""
        await self._runner.setup()
        listener = _bound(self._path)
        try:
            await web.SockSite(self._runner, listener, backlog=64).start()
        except BaseException:
            listener.close()
            raise

    async def stop(self) -> None:
        """May be called twice and before start()."""
        await self._runner.cleanup()
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(self._path.lstat().st_mode):
                self._path.unlink()


def _bound(path: Path) -> socket.socket:
    """A listening-ready socket at `path` with the right mode from its first moment."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"{path} exists and is no socket")
        path.unlink()
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            # Linux gives the file the mode of the unbound socket less the umask, so it is never wider than this.
            os.fchmod(listener.fileno(), MODE)
            # Through the descriptor, as an address holds 108 bytes and the path may be longer.
            listener.bind(f"/proc/self/fd/{directory}/{path.name}")
            path.chmod(MODE)
        except BaseException:
            listener.close()
            raise
    finally:
        os.close(directory)
    return listener


def application(service: AdminService, more: Iterable[web.RouteDef] = ()) -> web.Application:
    app = web.Application(middlewares=[_record_commands, failures], client_max_size=BODY_MAX_BYTES)
    routes = _Routes(service)
    app.add_routes(
        [
            web.get("/v1/status", routes.status),
            web.get("/v1/overview", routes.overview),
            web.get("/v1/brackets", routes.brackets),
            web.get("/v1/brackets/{bracket}", routes.bracket),
            web.get("/v1/brackets/{bracket}/explain", routes.explain),
            web.get("/v1/brackets/{bracket}/view", routes.view),
            web.get("/v1/brackets/{bracket}/recording", routes.recording),
            web.get("/v1/brackets/{bracket}/truth", routes.truth),
            web.post("/v1/brackets/{bracket}/cancel", routes.cancel),
            web.post("/v1/brackets/{bracket}/close", routes.close),
            web.post("/v1/brackets/{bracket}/change", routes.change),
            web.post("/v1/brackets/{bracket}/ack", routes.ack),
            web.post("/v1/brackets/{bracket}/unfreeze", routes.unfreeze),
            web.post("/v1/brackets/{bracket}/release", routes.release),
            web.get("/v1/events", routes.events),
            web.post("/v1/adopt", routes.take_over),
            web.post("/v1/halt", routes.halt),
            web.post("/v1/resume", routes.resume),
            web.post("/v1/reconcile", routes.reconcile),
            web.post("/v1/audit", routes.audit),
            web.post("/v1/dry-run", routes.dry_run),
            web.get("/v1/capabilities", routes.capabilities),
            web.get("/v1/doctor", routes.doctor),
            web.post("/v1/backup", routes.backup),
            web.post("/v1/prune", routes.prune),
            web.post("/v1/reload", routes.reload),
            *more,
        ]
    )
    return app


@web.middleware
async def _record_commands(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whoever asks for a change leaves a line, also when it was refused: not every command has a bracket's journal."""
    by = peer(request) if request.method == "POST" and request.transport is not None else ""
    answer = await handler(request)
    if by:
        log.info("commanded", by=by, call=request.path, status=answer.status)
    return answer


@web.middleware
async def failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure becomes one object; what it was about inside stays in the log."""
    try:
        return await handler(request)
    except BadCall as error:
        return _failure(400, 2, str(error))
    except NoSuchBracket as error:
        return _failure(404, 3, str(error))
    except AdminRefused as error:
        return _failure(409, 4, "refused", error.reasons)
    except BrokerUnreachable as error:
        return _failure(503, 1, str(error) or "the broker cannot be reached")
    except AdminFailed as error:
        return _failure(500, 1, str(error))
    except web.HTTPException as error:
        return _failure(error.status, 2, f"{request.method} {request.path}: {error.reason}")
    except asyncio.CancelledError:
        raise
    except Exception:  # the socket must go on serving whatever one call runs into
        log.exception("admin_call_failed", call=f"{request.method} {request.path}")
        return _failure(500, 1, "the daemon failed over this call; its log says why (event admin_call_failed)")


def _failure(http_status: int, exit_status: int, message: str, reasons: tuple[str, ...] = ()) -> web.Response:
    error = {"message": message, "reasons": list(reasons), "exit_status": exit_status}
    return json_answer({"error": error}, http_status)


def json_answer(answer: object, http_status: int = 200) -> web.Response:
    # default=str: by now the command was carried out; a Decimal that slipped in must not make that look like a failure.
    text = json.dumps(answer, ensure_ascii=False, default=str)
    return web.Response(text=text + "\n", status=http_status, content_type="application/json")


def peer(request: web.Request) -> str:
    """Who is on the other side of the socket, as `uid:NAME`; `uid:1234` for a user without a name."""
    connection = request.transport.get_extra_info("socket") if request.transport else None
    if connection is None:
        raise BadCall("the connection is gone")
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(raw)
    try:
        return f"uid:{pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"uid:{uid}"


async def _body(request: web.Request) -> JsonObject:
    """The JSON object sent; {} when nothing was."""
    raw = await request.read()
    if not raw.strip():
        return {}
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadCall("the body is not JSON") from None
    if not isinstance(body, dict):
        raise BadCall("the body is not a JSON object")
    return body


class Fields:
    """The fields of a body, each taken once; what is left over is a mistake of the client and is refused."""

    def __init__(self, body: JsonObject) -> None:
        self._body = dict(body)

    def text(self, name: str) -> str | None:
        value = self._body.pop(name, None)
        if value is not None and not isinstance(value, str):
            raise BadCall(f"{name} must be text")
        return value

    def required_text(self, name: str) -> str:
        value = self.text(name)
        if not value:
            raise BadCall(f"{name} is missing")
        return value

    def flag(self, name: str) -> bool:
        value = self._body.pop(name, False)
        if not isinstance(value, bool):
            raise BadCall(f"{name} must be true or false")
        return value

    def pair(self, name: str) -> tuple[str, str] | None:
        value = self._body.pop(name, None)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != 2 or not all(isinstance(each, str) for each in value):
            raise BadCall(f"{name} must be two texts: trigger and price")
        return value[0], value[1]

    def end(self) -> None:
        if self._body:
            raise BadCall(f"unknown: {', '.join(sorted(self._body))}")


async def fields_of(request: web.Request) -> Fields:
    return Fields(await _body(request))


def query_of(request: web.Request, *known: str) -> dict[str, str]:
    unknown = sorted(set(request.query) - set(known))
    if unknown:
        raise BadCall(f"unknown: {', '.join(unknown)}")
    return dict(request.query)


def number_of(query: dict[str, str], name: str, default: float, high: float) -> float:
    """A query's number, not negative, cut at `high`."""
    try:
        number = float(query.get(name, default))
    except ValueError:
        raise BadCall(f"{name} must be a number") from None
    # Written so that NaN fails.
    if not number >= 0:
        raise BadCall(f"{name} must not be negative")
    return min(number, high)


class _Routes:
    """One method a route: reads the call, asks the service, writes the answer."""

    def __init__(self, service: AdminService) -> None:
        self._service = service

    async def status(self, request: web.Request) -> web.Response:
        return json_answer(await self._service.status())

    async def overview(self, request: web.Request) -> web.Response:
        return json_answer(await self._service.overview())

    async def view(self, request: web.Request) -> web.Response:
        return json_answer(await self._service.view(_name(request)))

    async def brackets(self, request: web.Request) -> web.Response:
        return json_answer(await self._service.brackets(query_of(request, "state", "account", "open", "attention")))

    async def bracket(self, request: web.Request) -> web.Response:
        return json_answer(await self._service.bracket(_name(request)))

    async def explain(self, request: web.Request) -> web.Response:
        bracket = await self._service.bracket(_name(request))
        events = await self._service.events(bracket["bracket_id"], after_seq=0, limit=EVENTS_LIMIT_MAX, wait_s=0)
        safety = await self._service.safety(bracket["bracket_id"])
        return json_answer({"bracket": bracket, "safety": safety, "story": story.told(bracket, events)})

    async def recording(self, request: web.Request) -> web.Response:
        return json_answer(await self._service.recording(_name(request)))

    async def truth(self, request: web.Request) -> web.Response:
        return json_answer(await self._service.truth(_name(request)))

    async def events(self, request: web.Request) -> web.Response:
        query = query_of(request, "bracket", "after", "limit", "wait_s")
        events = await self._service.events(
            query.get("bracket"),
            after_seq=int(number_of(query, "after", 0, 2**62)),
            limit=max(1, int(number_of(query, "limit", EVENTS_LIMIT_DEFAULT, EVENTS_LIMIT_MAX))),
            wait_s=number_of(query, "wait_s", 0, EVENTS_WAIT_MAX_S),
        )
        return json_answer(events)

    async def cancel(self, request: web.Request) -> web.Response:
        return await self._on_bracket(request, self._service.cancel)

    async def ack(self, request: web.Request) -> web.Response:
        return await self._on_bracket(request, self._service.ack)

    async def unfreeze(self, request: web.Request) -> web.Response:
        return await self._on_bracket(request, self._service.unfreeze)

    async def release(self, request: web.Request) -> web.Response:
        return await self._on_bracket(request, self._service.release)

    async def _on_bracket(self, request: web.Request, act: Callable[..., Awaitable[JsonObject]]) -> web.Response:
        (await fields_of(request)).end()
        return json_answer(await act(_name(request), by=peer(request)))

    async def close(self, request: web.Request) -> web.Response:
        fields = await fields_of(request)
        at = fields.text("at")
        fields.end()
        return json_answer(await self._service.close(_name(request), at=at, by=peer(request)))

    async def change(self, request: web.Request) -> web.Response:
        fields = await fields_of(request)
        target, stop = fields.text("target"), fields.pair("stop")
        fields.end()
        if target is None and stop is None:
            raise BadCall("target or stop is needed")
        return json_answer(await self._service.change(_name(request), target=target, stop=stop, by=peer(request)))

    async def take_over(self, request: web.Request) -> web.Response:
        fields = await fields_of(request)
        account, client_ref = fields.required_text("account"), fields.required_text("client_ref")
        text, from_fills = fields.required_text("request"), fields.flag("from_fills")
        fields.end()
        taken = await self._service.take_over(
            account=account, client_ref=client_ref, request_text=text, from_fills=from_fills, by=peer(request)
        )
        return json_answer(taken)

    async def halt(self, request: web.Request) -> web.Response:
        fields = await fields_of(request)
        reason, level, confirm = fields.text("reason") or "", fields.text("level") or "entries", fields.flag("confirm")
        fields.end()
        return json_answer(await self._service.halt(reason=reason, by=peer(request), level=level, confirm=confirm))

    async def resume(self, request: web.Request) -> web.Response:
        (await fields_of(request)).end()
        return json_answer(await self._service.resume(by=peer(request)))

    async def reconcile(self, request: web.Request) -> web.Response:
        fields = await fields_of(request)
        dry_run, adopt, fate = fields.flag("dry_run"), fields.flag("adopt"), fields.text("fate")
        fields.end()
        if adopt and dry_run:
            raise BadCall("adopt and dry_run exclude each other")
        if adopt:
            return json_answer(await self._service.adopt(fate=fate, by=peer(request)))
        return json_answer(await self._service.reconcile(dry_run=dry_run, by=peer(request)))

    async def audit(self, request: web.Request) -> web.Response:
        (await fields_of(request)).end()
        return json_answer(await self._service.audit())

    async def dry_run(self, request: web.Request) -> web.Response:
        fields = await fields_of(request)
        account, text = fields.required_text("account"), fields.required_text("request")
        fields.end()
        return json_answer(await self._service.dry_run(account, text))

    async def capabilities(self, request: web.Request) -> web.Response:
        return json_answer(await self._service.capabilities())

    async def doctor(self, request: web.Request) -> web.Response:
        return json_answer(await self._service.doctor())

    async def backup(self, request: web.Request) -> web.Response:
        fields = await fields_of(request)
        to = fields.required_text("to")
        fields.end()
        # The daemon's working directory is not the operator's.
        if not to.startswith("/") or "\0" in to:
            raise BadCall("to must be an absolute path")
        return json_answer(await self._service.backup(to))

    async def prune(self, request: web.Request) -> web.Response:
        (await fields_of(request)).end()
        return json_answer(await self._service.prune())

    async def reload(self, request: web.Request) -> web.Response:
        (await fields_of(request)).end()
        return json_answer(await self._service.reload())


def _name(request: web.Request) -> str:
    return request.match_info["bracket"]
