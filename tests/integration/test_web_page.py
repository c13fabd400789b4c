"""The page as an attacker on this machine, or in a page elsewhere, meets it: real HTTP, hostile text, hostile calls."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from otocod.adapters.web.entry import TRIES, Door
from otocod.adapters.web.page import COOKIE, HEADERS, MOST_CONNECTIONS, Place, WebPage
from otocod.ports.admin import JsonObject, NoSuchBracket

TOKEN = "canary-web-token-5b1c9e0f7a2d4c68"
# Between two calls, so that nobody who asks one thing after the other is told to wait.
STEP_S = 0.2
EVIL = "<script>alert(1)</script>\x1b[2J\u202e\x00"


class Looks:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fail: Exception | None = None
        self.overviews: JsonObject = {"brackets": [{"client_ref": EVIL, "tags": {EVIL: EVIL}}]}

    async def overview(self) -> JsonObject:
        if self.fail is not None:
            raise self.fail
        return self.overviews

    async def view(self, named: str, /) -> JsonObject:
        self.asked.append(named)
        if named == "b1":
            return {"bracket": {"attention": EVIL}}
        raise NoSuchBracket(named)


class Time:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Served:
    def __init__(self, looks: Looks, time: Time, port: int, client: aiohttp.ClientSession) -> None:
        self.looks = looks
        self.time = time
        self.port = port
        self.client = client
        self.cookie = ""

    async def ask(
        self, path: str, method: str = "GET", *, is_known: bool = True, **options: Any
    ) -> tuple[int, str, dict[str, str]]:
        self.time.now_s += STEP_S
        headers = {**({"Cookie": f"{COOKIE}={self.cookie}"} if is_known else {}), **options.pop("headers", {})}
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self.client.request(method, url, headers=headers, allow_redirects=False, **options) as answer:
            found = {str(name): value for name, value in answer.headers.items()}
            return answer.status, await answer.text(), found

    async def log_in(self, token: str = TOKEN, **headers: str) -> int:
        status, _, found = await self.ask("/login", "POST", is_known=False, data={"token": token}, headers=headers)
        named = re.match(rf"{COOKIE}=([^;]+)", found.get("Set-Cookie", ""))
        if named is not None:
            self.cookie = named[1]
        return status


@asynccontextmanager
async def serving(*, hosts: tuple[str, ...] = ()) -> AsyncIterator[Served]:
    looks, time = Looks(), Time()
    page = WebPage(looks, Door(TOKEN, time), Place("127.0.0.1", 0, hosts), time)
    port = await page.start()
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
        served = Served(looks, time, port, client)
        try:
            assert await served.log_in() == 303
            yield served
        finally:
            await page.stop()
            await page.stop()


async def test_everything_is_behind_the_token_except_the_door_itself() -> None:
    async with serving() as served:
        for path in ("/login", "/style.css", "/icon.svg", "/app.js", "/chart.js"):
            assert (await served.ask(path, is_known=False))[0] == 200, path
        for path in ("/api/overview", "/api/brackets/b1", "/nothing", "/login/", "/static/", "/app.js/x"):
            assert (await served.ask(path, is_known=False))[0] == 401, path
        status, text, headers = await served.ask("/", is_known=False)
        assert (status, headers["Location"], "bracket" in text) == (303, "/login", False)
        assert served.looks.asked == []
        for path in ("/", "/api/overview", "/api/brackets/b1"):
            assert (await served.ask(path))[0] == 200, path


@pytest.mark.parametrize("cookie", ["", "x", TOKEN, "a" * 4000])
async def test_made_up_session_is_none(cookie: str) -> None:
    async with serving() as served:
        served.cookie = cookie
        assert (await served.ask("/api/overview"))[0] == 401


async def test_session_cookie_is_out_of_reach_of_scripts_and_other_sites() -> None:
    async with serving() as served:
        _, _, headers = await served.ask("/login", "POST", data={"token": TOKEN})
        cookie = headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie
        assert "Max-Age" not in cookie and "Secure" not in cookie
        assert TOKEN not in cookie


async def test_wrong_tokens_are_answered_slowly_and_not_told_apart() -> None:
    async with serving() as served:
        answers = [await served.ask("/login", "POST", data={"token": f"wrong-{n}"}) for n in range(TRIES + 1)]
        assert [status for status, _, _ in answers] == [403] * TRIES + [429]
        assert all("That is not the token." in text for _, text, _ in answers[:-1])
        assert all("wrong-" not in text and "Set-Cookie" not in headers for _, text, headers in answers)
        # The right one has to wait as well: otherwise trying on would tell it.
        assert await served.log_in() == 429
        served.time.now_s += 60
        assert await served.log_in() == 303


async def test_log_out_ends_the_session() -> None:
    async with serving() as served:
        assert (await served.ask("/login", "POST"))[0] == 303
        assert (await served.ask("/api/overview"))[0] == 401


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1.evil.example:{port}",
        "localhost:{port}@evil.example",
        "evil.example#localhost:{port}",
        "localhost:{port}/x",
        "[::1",
        "localhost:99999",
        "",
    ],
)
async def test_name_that_an_attacker_made_to_mean_this_machine_is_refused(host: str) -> None:
    """DNS rebinding: the browser says the name it was told, and brings no cookie; but even with one it gets nothing."""
    async with serving() as served:
        for path in ("/", "/login", "/api/overview", "/style.css"):
            status, text, _ = await served.ask(path, headers={"Host": host.format(port=served.port)})
            assert status in (400, 421), (path, status)
            assert "otocod_session" not in text and "script" not in text
        status, _, _ = await served.ask(
            "/login", "POST", data={"token": TOKEN}, headers={"Host": host.format(port=served.port)}
        )
        assert status in (400, 421)


@pytest.mark.parametrize("host", ["localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}", "127.0.0.1:{port}"])
async def test_names_of_this_machine_are_taken(host: str) -> None:
    async with serving() as served:
        assert (await served.ask("/login", headers={"Host": host.format(port=served.port)}))[0] == 200


async def test_name_of_a_proxy_is_taken_and_its_cookie_stays_on_https() -> None:
    async with serving(hosts=("box.example.net",)) as served:
        sent = {"Host": "box.example.net", "Origin": "https://box.example.net"}
        status, _, headers = await served.ask("/login", "POST", data={"token": TOKEN}, headers=sent)
        assert status == 303
        assert "Secure" in headers["Set-Cookie"]
        assert (await served.ask("/login", headers={"Host": "box.example.net:8080"}))[0] == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_form_of_another_page_logs_nobody_in(headers: dict[str, str]) -> None:
    async with serving() as served:
        assert await served.log_in(**headers) == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "CONNECT"])
async def test_nothing_can_be_changed(method: str) -> None:
    """Whatever is sent wherever, with a session: no call of a service but the two that look."""
    async with serving() as served:
        paths = ["/", "/api/overview", "/api/brackets/b1", "/v1/halt", "/v1/brackets/b1/close", "/style.css"]
        for path in [*paths, *([] if method == "POST" else ["/login"])]:
            if method == "CONNECT":
                continue
            status, _, _ = await served.ask(path, method, data=b"{}")
            assert status in (404, 405), (method, path, status)
        assert served.looks.asked == []


async def test_head_is_answered_without_a_body() -> None:
    async with serving() as served:
        status, text, headers = await served.ask("/api/overview", "HEAD")
        assert (status, text) == (200, "")
        assert int(headers["Content-Length"]) > 0


@pytest.mark.parametrize(
    "path",
    [
        "/../web-token",
        "/%2e%2e/web-token",
        "/static/..%2f..%2fpage.py",
        "//etc/passwd",
        "/app.js%00",
        "/api/brackets/..%2f..%2foverview",
        "/api/brackets/%00",
        "/api/brackets/" + "x" * 5_000,
        "/api/brackets/ref:%27%20OR%201=1",
    ],
)
async def test_no_path_leads_anywhere_else(path: str) -> None:
    async with serving() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{served.port}", f"Cookie: {COOKIE}={served.cookie}", "", ""]
        writer.write("\r\n".join(lines).encode())
        status = (await reader.readline()).decode()
        rest = await reader.read()
        assert status.split()[1] in ("400", "404"), status
        assert b"root:" not in rest and b"import" not in rest
        writer.close()
        assert all(len(name) <= 200 for name in served.looks.asked)


async def test_hostile_text_arrives_as_data_and_stripped() -> None:
    async with serving() as served:
        for path in ("/api/overview", "/api/brackets/b1"):
            status, text, headers = await served.ask(path)
            assert status == 200
            assert headers["Content-Type"].startswith("application/json")
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert text.isascii() and text.isprintable()
            assert "\\u202e" not in text and "\\u001b" not in text and "\\u0000" not in text
            assert "<script>alert(1)</script>" in json.dumps(json.loads(text))


async def test_every_answer_carries_the_policy_and_is_the_last_of_its_connection() -> None:
    async with serving() as served:
        served.looks.fail = RuntimeError(TOKEN)
        for path in ("/", "/login", "/app.js", "/api/overview", "/api/brackets/none", "/nothing"):
            for is_known in (True, False):
                status, text, headers = await served.ask(path, is_known=is_known)
                found = headers
                assert {name: found.get(name) for name in HEADERS} == HEADERS, path
                assert found["Connection"] == "close"
                assert TOKEN not in text and "Traceback" not in text
                assert status != 500 or path == "/api/overview"


async def test_policy_allows_nothing_from_elsewhere_and_nothing_inline() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy and "*" not in policy and "http" not in policy and "data:" not in policy
    async with serving() as served:
        for path in ("/", "/login"):
            _, text, _ = await served.ask(path)
            assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=|javascript:|https?://", text)
        for path in ("/app.js", "/chart.js"):
            _, text, _ = await served.ask(path)
            assert not re.search(
                r"innerHTML|outerHTML\s*=|insertAdjacentHTML|document\.write|eval\(|new Function", text
            )
            assert set(re.findall(r"https?://[^\"'` ]+", text)) <= {"http://www.w3.org/2000/svg"}


async def test_giant_input_is_refused() -> None:
    async with serving() as served:
        assert (await served.ask("/login", "POST", data={"token": "x" * 100_000}))[0] == 413
        status, _, _ = await served.ask("/", headers={"X-Long": "x" * 20_000})
        assert status == 400


async def test_script_that_asks_without_pause_is_told_to_wait() -> None:
    async with serving() as served:
        statuses = []
        for _ in range(100):
            statuses.append((await served.ask("/api/overview"))[0])
            served.time.now_s -= STEP_S
        assert statuses[:40] == [200] * 40
        assert statuses[-1] == 429


async def test_browsers_that_hang_give_way_to_one_that_does_not() -> None:
    """Twice as many as there is room for, each stuck in a way of its own: half a request, or an answer never read."""
    async with serving() as served:
        served.looks.overviews = {"brackets": ["x" * 1_000] * 300}
        async with AsyncExitStack() as stack:
            stuck = []
            for number in range(2 * MOST_CONNECTIONS):
                hanging = stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
                hanging.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
                ask = f"GET /api/overview HTTP/1.1\r\nHost: localhost:{served.port}\r\n"
                ask += f"Cookie: {COOKIE}={served.cookie}\r\n"
                hanging.sendall(ask.encode() + (b"\r\n" if number % 4 == 3 else b""))
                stuck.append(hanging)
                await asyncio.sleep(0)
            served.time.now_s += 60
            status, text, _ = await asyncio.wait_for(served.ask("/api/overview"), 10)
            assert (status, len(json.loads(text)["brackets"])) == (200, 300)
            # Half a request is answered by nobody, so only by being dropped does it end: the oldest first.
            assert all([await is_dropped(each) for number, each in enumerate(stuck[:12]) if number % 4 != 3])


async def is_dropped(connection: socket.socket) -> bool:
    connection.settimeout(5)
    try:
        return await asyncio.to_thread(connection.recv, 1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


async def test_port_that_is_taken_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        page = WebPage(Looks(), Door(TOKEN, Time()), Place("127.0.0.1", taken.getsockname()[1]), Time())
        assert await page.start() == 0
        await page.stop()
    assert "web_failed" in capsys.readouterr().err
