"""The admin socket as an operator's program meets it: a real Unix socket, a service that records what it is asked."""

import asyncio
import getpass
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from otocod import logs
from otocod.adapters.admin import EVENTS_LIMIT_MAX, EVENTS_WAIT_MAX_S, AdminSocket
from otocod.cli.client import Client, bracket_path
from otocod.cli.failure import DaemonDown, Failed
from otocod.ports.admin import (
    AdminRefused,
    AdminService,
    BrokerUnreachable,
    JsonList,
    JsonObject,
    NoSuchBracket,
)

BRACKET: JsonObject = {
    "bracket_id": "b1",
    "client_ref": "r1",
    "account": "5WT00001",
    "state": "EXITS_LIVE",
    "outcome": None,
    "attention": None,
    "protection": "native-oco",
    "quantity": 1,
    "entry_net_price": "-0.85",
    "exit_net_price": None,
    "unprotected_s": 0.004,
    "orders": [],
    "history": [],
}


class FakeService:
    """Answers with BRACKET; `asked` has every call in order; `fail` is raised by the next one."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.fail: Exception | None = None
        self.is_waiting = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def _ask(self, *call: Any) -> JsonObject:
        self.asked.append(call)
        if self.fail is not None:
            raise self.fail
        return BRACKET

    async def status(self) -> JsonObject:
        self._ask("status")
        return {"ready": True}

    async def safety(self, bracket: str, /) -> list[str]:
        return ["Protection: the stop rests."]

    async def overview(self) -> JsonObject:
        return self._ask("overview")

    async def truth(self, bracket: str, /) -> JsonObject:
        return self._ask("truth", bracket)

    async def recording(self, bracket: str, /) -> JsonObject:
        return self._ask("recording", bracket)

    async def view(self, bracket: str, /) -> JsonObject:
        return self._ask("view", bracket)

    async def brackets(self, filters: Mapping[str, str], /) -> JsonList:
        return [self._ask("brackets", dict(filters))]

    async def bracket(self, bracket: str, /) -> JsonObject:
        return self._ask("bracket", bracket)

    async def events(self, bracket: str | None, /, *, after_seq: int, limit: int, wait_s: float) -> JsonList:
        self._ask("events", bracket, after_seq, limit, wait_s)
        self.is_waiting.set()
        await self.may_answer.wait()
        return [
            {
                "seq": after_seq + 1,
                "bracket_id": "b1",
                "at": "2026-11-22T15:04:05.123456Z",
                "event": "EntryFilled",
                "from": "PENDING_ENTRY",
                "to": "ENTRY_FILLED",
                "detail": "",
            }
        ]

    async def cancel(self, bracket: str, /, *, by: str) -> JsonObject:
        return self._ask("cancel", bracket, by)

    async def close(self, bracket: str, /, *, at: str | None, by: str) -> JsonObject:
        return self._ask("close", bracket, at, by)

    async def change(self, bracket: str, /, *, target: str | None, stop: tuple[str, str] | None, by: str) -> JsonObject:
        return self._ask("change", bracket, target, stop, by)

    async def ack(self, bracket: str, /, *, by: str) -> JsonObject:
        return self._ask("ack", bracket, by)

    async def unfreeze(self, bracket: str, /, *, by: str) -> JsonObject:
        return self._ask("unfreeze", bracket, by)

    async def release(self, bracket: str, /, *, by: str) -> JsonObject:
        return self._ask("release", bracket, by)

    async def take_over(
        self, *, account: str, client_ref: str, request_text: str, from_fills: bool, by: str
    ) -> JsonObject:
        return self._ask("take_over", account, client_ref, request_text, from_fills, by)

    async def halt(self, *, reason: str, by: str, level: str = "entries", confirm: bool = False) -> JsonObject:
        return self._ask("halt", reason, by, level, confirm)

    async def resume(self, *, by: str) -> JsonObject:
        return self._ask("resume", by)

    async def reconcile(self, *, dry_run: bool, by: str) -> JsonObject:
        return self._ask("reconcile", dry_run, by)

    async def adopt(self, *, fate: str | None, by: str) -> JsonObject:
        return self._ask("adopt", fate, by)

    async def audit(self) -> JsonObject:
        return self._ask("audit")

    async def dry_run(self, account: str, request_text: str, /) -> JsonObject:
        return self._ask("dry_run", account, request_text)

    async def capabilities(self) -> JsonList:
        return [self._ask("capabilities")]

    async def doctor(self) -> JsonList:
        return [self._ask("doctor")]

    async def backup(self, to: str, /) -> JsonObject:
        return self._ask("backup", to)

    async def prune(self) -> JsonObject:
        return self._ask("prune")

    async def reload(self) -> JsonObject:
        return self._ask("reload")


class Served:
    def __init__(self, service: FakeService, path: Path) -> None:
        self.service = service
        self.path = path
        self._client = Client(path)

    async def get(self, path: str, **query: object) -> Any:
        return await asyncio.to_thread(self._client.get, path, query=query, timeout_s=10)

    async def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return await asyncio.to_thread(self._client.post, path, body, timeout_s=10)


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Served]:
    service = FakeService()
    checked: AdminService = service
    admin = AdminSocket(checked, path)
    await admin.start()
    try:
        yield Served(service, path)
    finally:
        await admin.stop()


ME = f"uid:{getpass.getuser()}"


async def test_socket_is_for_owner_and_group_only_and_is_gone_after_the_stop(tmp_path: Path) -> None:
    path = tmp_path / "otocod.sock"
    before = os.umask(0)
    try:
        async with serving(path) as served:
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert await served.get("/v1/status") == {"ready": True}
    finally:
        os.umask(before)
    assert not path.exists()


async def test_a_tight_umask_does_not_lock_the_group_out(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        async with serving(tmp_path / "otocod.sock") as served:
            assert stat.S_IMODE(served.path.stat().st_mode) == 0o660
    finally:
        os.umask(before)


async def test_socket_of_a_killed_daemon_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "otocod.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    with pytest.raises(DaemonDown):
        Client(path).get("/v1/status")
    async with serving(path) as served:
        assert (await served.get("/v1/status"))["ready"]


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "otocod.sock"
    path.write_text("precious")
    admin = AdminSocket(FakeService(), path)
    with pytest.raises(FileExistsError):
        await admin.start()
    await admin.stop()
    assert path.read_text() == "precious"


async def test_a_path_longer_than_an_address_is_served_and_reached(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    async with serving(deep / "otocod.sock") as served:
        assert (await served.get("/v1/status"))["ready"]


async def test_commands_carry_who_asked_as_the_kernel_says(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as served:
        await served.post(bracket_path("ref:a/b c", "cancel"))
        await served.post(bracket_path("b1", "close"), {"at": "0.55"})
        await served.post(bracket_path("b1", "change"), {"target": "0.30", "stop": ["1.50", "1.70"]})
        await served.post("/v1/halt", {"reason": "lunch"})
        await served.post("/v1/halt", {"level": "flatten", "confirm": True})
        await served.post("/v1/reconcile", {"dry_run": True})
        await served.post("/v1/reconcile", {"adopt": True, "fate": "leave"})
        assert served.service.asked == [
            ("cancel", "ref:a/b c", ME),
            ("close", "b1", "0.55", ME),
            ("change", "b1", "0.30", ("1.50", "1.70"), ME),
            ("halt", "lunch", ME, "entries", False),
            ("halt", "", ME, "flatten", True),
            ("reconcile", True, ME),
            ("adopt", "leave", ME),
        ]


@pytest.mark.covers("F123")
async def test_each_command_leaves_a_line_with_who_asked_and_what_came_of_it_and_a_look_leaves_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_state", logs._State())
    logs.configure("json", "info")
    async with serving(tmp_path / "otocod.sock") as served:
        await served.post("/v1/resume")
        served.service.fail = AdminRefused(("it is over",))
        with pytest.raises(Failed):
            await served.post(bracket_path("b1", "close"))
        served.service.fail = None
        await served.get("/v1/status")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = [(line["by"], line["call"], line["status"]) for line in lines if line["event"] == "commanded"]
    assert told == [(ME, "/v1/resume", 200), (ME, "/v1/brackets/b1/close", 409)]


async def test_filters_and_paging_reach_the_service_within_their_bounds(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as served:
        await served.get("/v1/brackets", state="CLOSED", open="1")
        await served.get("/v1/overview")
        await served.get(bracket_path("b1", "view"))
        await served.get("/v1/events", bracket="b1", after=7, limit=10**9, wait_s=10**9)
        assert served.service.asked == [
            ("brackets", {"state": "CLOSED", "open": "1"}),
            ("overview",),
            ("view", "b1"),
            ("events", "b1", 7, EVENTS_LIMIT_MAX, EVENTS_WAIT_MAX_S),
        ]


async def test_explain_tells_the_story_with_its_evidence(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as served:
        explained = await served.get(bracket_path("b1", "explain"))
    story = explained["story"]
    assert explained["safety"] == ["Protection: the stop rests."]
    filled = [line for line in story if line["evidence"] == ["journal 1"]]
    assert len(filled) == 1
    assert filled[0]["text"].startswith("The entry filled.")


@pytest.mark.parametrize(
    ("failure", "status", "message", "reasons"),
    [
        (NoSuchBracket("zz"), 3, "no such bracket: zz", ()),
        (AdminRefused(("too late", "frozen")), 4, "refused", ("too late", "frozen")),
        (BrokerUnreachable("no connection"), 1, "no connection", ()),
    ],
)
async def test_failures_carry_the_exit_status_and_all_reasons(
    tmp_path: Path, failure: Exception, status: int, message: str, reasons: tuple[str, ...]
) -> None:
    async with serving(tmp_path / "s") as served:
        served.service.fail = failure
        with pytest.raises(Failed) as failed:
            await served.get(bracket_path("zz"))
    assert (failed.value.status, failed.value.message, failed.value.reasons) == (status, message, reasons)


async def test_a_bug_is_answered_without_its_inside_and_the_socket_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(tmp_path / "s") as served:
        served.service.fail = KeyError("the inside of the daemon")
        with pytest.raises(Failed) as failed:
            await served.get("/v1/status")
        served.service.fail = None
        assert (await served.get("/v1/status"))["ready"]
    assert failed.value.status == 1
    assert "inside" not in failed.value.message
    assert "Traceback" not in failed.value.message
    assert "the inside of the daemon" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/halt", {"raeson": "x"}),
        ("/v1/halt", {"reason": 1}),
        ("/v1/brackets/b1/change", {}),
        ("/v1/brackets/b1/change", {"stop": ["1.70"]}),
        ("/v1/brackets/b1/cancel", {"at": "0.1"}),
        ("/v1/reconcile", {"dry_run": "yes"}),
        ("/v1/reconcile", {"dry_run": True, "adopt": True}),
        ("/v1/dry-run", {"account": "x"}),
        ("/v1/backup", {"to": "relative.db"}),
        ("/v1/nothing", {}),
        ("/v1/status", {}),
    ],
)
async def test_a_call_that_makes_no_sense_is_a_usage_error_and_reaches_nobody(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    async with serving(tmp_path / "s") as served:
        with pytest.raises(Failed) as failed:
            await served.post(path, body)
        assert served.service.asked == []
    assert failed.value.status == 2


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'"text"'])
async def test_a_body_that_is_no_object_is_refused(tmp_path: Path, body: bytes) -> None:
    async with serving(tmp_path / "s") as served:
        answer = await _raw(served.path, b"POST /v1/halt HTTP/1.1", body)
        assert served.service.asked == []
    assert json.loads(answer)["error"]["exit_status"] == 2


async def test_a_body_without_end_is_cut_off(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as served:
        answer = await _raw(served.path, b"POST /v1/halt HTTP/1.1", b"x" * (1024 * 1024 + 1))
    assert json.loads(answer)["error"]["exit_status"] == 2


async def test_stop_does_not_wait_for_a_long_poll(tmp_path: Path) -> None:
    service = FakeService()
    service.may_answer.clear()
    admin = AdminSocket(service, tmp_path / "s")
    await admin.start()
    client = Client(tmp_path / "s")
    poll = asyncio.create_task(asyncio.to_thread(client.get, "/v1/events", query={"wait_s": 30}))
    await asyncio.wait_for(service.is_waiting.wait(), 10)
    await asyncio.wait_for(admin.stop(), 5)
    with pytest.raises(Failed):
        await poll


async def test_stop_before_start_and_twice_is_harmless(tmp_path: Path) -> None:
    admin = AdminSocket(FakeService(), tmp_path / "s")
    await admin.stop()
    admin = AdminSocket(FakeService(), tmp_path / "s")
    await admin.start()
    await admin.stop()
    await admin.stop()


async def _raw(path: Path, request_line: bytes, body: bytes) -> bytes:
    """The answer's body."""
    reader, writer = await asyncio.open_unix_connection(path)
    head = (
        request_line + b"\r\nHost: x\r\nConnection: close\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n"
    )
    writer.write(head + body)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    return answer.partition(b"\r\n\r\n")[2]
