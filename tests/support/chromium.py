"""A real Chromium without a window, driven over its DevTools protocol: what a person's browser would do and see.

`complaints` holds every console error, exception and breach of the page's policy, in the browser's own words.
"""

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

Json = dict[str, Any]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# It starts in a second; a machine that is busy with other things takes longer.
PATIENCE_S = 40.0
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)


class Browser:
    """One tab. Waiting means looking again until a condition holds, since the page is another process."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._asked = 0
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> Json:
        self._asked += 1
        self._connection.send(json.dumps({"id": self._asked, "method": method, "params": params}))
        while True:
            said = json.loads(self._connection.recv(timeout=PATIENCE_S))
            if said.get("id") == self._asked:
                assert "error" not in said, (method, said["error"])
                result: Json = said["result"]
                return result
            self._hear(said)

    def _hear(self, said: Json) -> None:
        params = said.get("params", {})
        match said.get("method"):
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(params["args"]))

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'", url)

    def value(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, what: str = "", timeout_s: float = PATIENCE_S) -> None:
        """Returns once an expression of the page's is true."""
        ends = time.monotonic() + timeout_s
        while True:
            try:
                is_there = self.value(f"!!({expression})")
            except AssertionError:  # in the middle of a navigation there is no page to ask
                is_there = False
            if is_there:
                return
            if time.monotonic() >= ends:
                raise AssertionError(f"not within {timeout_s:g} s: {what or expression}; the page says: {self.text()}")
            time.sleep(0.05)

    def text(self) -> str:
        return str(self.value("document.body.innerText"))

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "char", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "char" else {}
            if kind == "char" and not text:
                continue
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def look_like(self, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=False)
        path.write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser with a profile of its own, ended with everything that it started."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(prefix="otocod-chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port = _said(Path(profile) / "DevToolsActivePort", process).split()[0]
            with connect(
                _tab(port), max_size=64 * 1024 * 1024, open_timeout=PATIENCE_S, ping_interval=None, proxy=None
            ) as connection:
                yield Browser(connection)
                connection.send(json.dumps({"id": 0, "method": "Browser.close"}))
        finally:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _said(path: Path, process: "subprocess.Popen[bytes]") -> str:
    def look() -> str:
        assert process.poll() is None, f"Chromium ended with {process.returncode}"
        return path.read_text() if path.exists() else ""

    return _until(look)


def _tab(port: str) -> str:
    import urllib.request

    def look() -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
            tabs = [each for each in json.loads(answer.read()) if each["type"] == "page"]
        return str(tabs[0]["webSocketDebuggerUrl"]) if tabs else ""

    return _until(look)


def _until(look: Callable[[], str]) -> str:
    ends = time.monotonic() + PATIENCE_S
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < ends, "Chromium does not answer"
        time.sleep(0.05)
