"""The processes of the demonstration: the paper broker and the daemon, in a directory of their own."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import otocod

PAPER_START_S = 15.0
# The contract gives the daemon 10 s to stop.
STOP_S = 12.0
_LOG_TAIL = 5


class StageFailed(Exception):
    """A process did not start, or ended by itself."""


class Stage:
    """Started processes are stopped by close(), whatever happened before."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.socket = self.data_dir / "otocod.sock"
        self.queue = self.data_dir / "queue" / "queue.db"
        self.daemon_log = directory / "otocod.log"
        self.paper_log = directory / "paper.log"
        self.urls: dict[str, str] = {}
        self._paper: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        # Beside the defaults: whatever settings this machine has are not the demonstration's.
        (directory / "otocod.toml").touch()

    def environment(self, accounts: str = "") -> dict[str, str]:
        """For the daemon and every command: the caller's, less all that would point elsewhere."""
        foreign = ("OTOCOD_", "XDG_")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(foreign)
            and name not in ("STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "LISTEN_FDS", "WATCHDOG_USEC")
        }
        # The children run this very package, wherever it was started from.
        package = str(Path(otocod.__file__).parents[1])
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        return kept | {
            "OTOCOD_CONFIG": str(self.directory / "otocod.toml"),
            "OTOCOD_DATA_DIR": str(self.data_dir),
            "OTOCOD_ENVIRONMENT": "paper",
            "OTOCOD_ACCOUNTS": accounts,
            "OTOCOD_API_URL": self.urls.get("api_url", ""),
            "OTOCOD_STREAMER_URL": self.urls.get("streamer_url", ""),
            "OTOCOD_RECONCILE_INTERVAL_S": "2",
            "OTOCOD_REQUEST_TIMEOUT_S": "5",
            "OTOCOD_LOG_FORMAT": "json",
        }

    def start_paper(self) -> None:
        with self.paper_log.open("ab") as log:
            self._paper = self._started("paper", stdout=subprocess.PIPE, stderr=log)
        line = _first_line(self._paper, PAPER_START_S)
        try:
            self.urls = {name: str(url) for name, url in json.loads(line).items()}
        except ValueError:
            raise StageFailed(f"the paper broker did not start: {self._last_words(self.paper_log)}") from None

    def start_daemon(self, accounts: str) -> None:
        with self.daemon_log.open("ab") as log:
            self._daemon = self._started("run", stdout=log, stderr=log, accounts=accounts)

    def _started(
        self, *arguments: str, stdout: int | IO[bytes], stderr: IO[bytes], accounts: str = ""
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "otocod", *arguments],
            env=self.environment(accounts),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            # Ctrl-C is for the demonstration, which then stops them in order.
            start_new_session=True,
        )

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """An operator's command, as its own process; the caller waits for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "otocod", *arguments],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def daemon_pid(self) -> int | None:
        return self._daemon.pid if self._daemon else None

    def check(self) -> None:
        """Raises StageFailed when a process ended that should run."""
        if self._paper is not None and self._paper.poll() is not None:
            raise StageFailed(f"the paper broker ended: {self._last_words(self.paper_log)}")
        if self._daemon is not None and self._daemon.poll() is not None:
            status = self._daemon.returncode
            raise StageFailed(f"otocod ended with status {status}: {self._last_words(self.daemon_log)}")

    def kill_daemon(self) -> None:
        """SIGKILL: no clean-up, no goodbye to the broker."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None

    def stop_daemon(self) -> int:
        """SIGTERM; the exit status."""
        daemon, self._daemon = self._daemon, None
        return _stopped(daemon) if daemon is not None else 0

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.stop_daemon()
        paper, self._paper = self._paper, None
        if paper is not None:
            _stopped(paper)
            if paper.stdout is not None:
                paper.stdout.close()

    def _last_words(self, log: Path) -> str:
        try:
            lines = log.read_text(errors="replace").strip().splitlines()[-_LOG_TAIL:]
        except OSError:
            lines = []
        return " | ".join(lines) or "it said nothing"


def _first_line(process: subprocess.Popen[bytes], timeout_s: float) -> bytes:
    """b"" if none comes in time."""
    stdout = process.stdout
    if stdout is None:
        return b""
    until = time.monotonic() + timeout_s
    line = b""
    while not line.endswith(b"\n") and (left := until - time.monotonic()) > 0:
        if not select.select([stdout], [], [], left)[0]:
            break
        chunk = os.read(stdout.fileno(), 4096)
        if not chunk:
            break
        line += chunk
    return line


def _stopped(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode
