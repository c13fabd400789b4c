"""As much of a service manager as a unit file of ours asks for, to run the real daemon where there is no systemd.

It reads ExecStart=, Environment=, directories, credentials, watchdog and restart policy from the unit as installed and
speaks sd_notify(3): READY=1, RELOADING=1, STOPPING=1, WATCHDOG=1 over a datagram socket. What the kernel does for the
unit (namespaces, seccomp, capabilities) it leaves out: `make systemd-proof` has that, under the real one.
"""

import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

_TICK_S = 0.02


class Unit:
    """The keys of a unit file, with systemd's two directories put in."""

    def __init__(self, path: Path, *, state: Path, runtime: Path) -> None:
        self._keys: dict[str, list[str]] = defaultdict(list)
        for line in path.read_text().splitlines():
            if "=" in line and not line.startswith(("#", "[")):
                key, _, value = line.partition("=")
                self._keys[key].append(value.replace("%S", str(state)).replace("%t", str(runtime)))

    def one(self, key: str) -> str:
        (value,) = self._keys[key]
        return value

    def all(self, key: str) -> list[str]:
        return self._keys[key]

    @property
    def no_restart_after(self) -> frozenset[int]:
        return frozenset(map(int, self.one("RestartPreventExitStatus").split()))


class ServiceManager:
    """One service: started, watched and started again as its unit says. `watchdog_s` is for haste."""

    def __init__(
        self,
        unit: Unit,
        directory: Path,
        *,
        credentials: Mapping[str, str],
        environ: Mapping[str, str],
        watchdog_s: float,
    ) -> None:
        self._unit = unit
        self._environ = dict(environ)
        self._watchdog_s = watchdog_s
        self._credentials = directory / "credentials"
        self._credentials.mkdir(mode=0o700)
        # A credential that is not there is no failure of the unit.
        for name in set(unit.all("LoadCredential")) & set(credentials):
            (self._credentials / name).write_text(credentials[name])
            (self._credentials / name).chmod(0o400)
        self._address = directory / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._address))
        self._socket.settimeout(_TICK_S)
        self.log = directory / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.told: list[str] = []  # every message of the present process
        self.watchdog_kills = 0
        self.statuses: list[int] = []  # how each process ended; a signal is negative
        self.is_failed = False
        self._is_wanted = False
        self._last_sign_s: float | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_ready(self) -> bool:
        return "READY=1" in self.told

    def start(self) -> None:
        self._is_wanted = True
        self._spawn()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _spawn(self) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("OTOCOD_")}
        environ |= dict(value.split("=", 1) for value in self._unit.all("Environment"))
        environ |= self._environ | {
            "NOTIFY_SOCKET": str(self._address),
            "WATCHDOG_USEC": str(int(self._watchdog_s * 1_000_000)),
            "CREDENTIALS_DIRECTORY": str(self._credentials),
        }
        self.told, self._last_sign_s = [], None
        command, umask = shlex.split(self._unit.one("ExecStart")), int(self._unit.one("UMask"), 8)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, umask=umask)

    def _watch(self) -> None:
        while self._is_wanted:
            self._hear()
            assert self.process is not None
            status = self.process.poll()
            if status is not None:
                self._ended(status)
            elif self._last_sign_s is not None and time.monotonic() - self._last_sign_s > self._watchdog_s:
                self.watchdog_kills += 1
                self._last_sign_s = None
                # systemd's own choice: a core dump would show where it hung, were it allowed one.
                self.process.send_signal(signal.SIGABRT)
                self.process.send_signal(signal.SIGCONT)

    def _hear(self) -> None:
        try:
            message = self._socket.recv(4096).decode()
        except TimeoutError:
            return
        # As systemd does, it watches from the first sign on, ready or not.
        if "WATCHDOG=1" in message.splitlines():
            self._last_sign_s = time.monotonic()
        self.told += message.splitlines()

    def _ended(self, status: int) -> None:
        self.statuses.append(status)
        if status in self._unit.no_restart_after:
            self.is_failed, self._is_wanted = True, False
            return
        self._spawn()

    def reload(self) -> None:
        assert self.process is not None
        self.told.clear()
        command = self._unit.one("ExecReload").replace("$MAINPID", str(self.process.pid))
        subprocess.run(shlex.split(command), check=True)

    def stop(self) -> tuple[int, float]:
        """SIGTERM; the exit status and the seconds it took."""
        assert self.process is not None and self._thread is not None
        self._is_wanted = False
        self._thread.join()
        began_s = time.monotonic()
        self.process.terminate()
        status = self.process.wait(float(self._unit.one("TimeoutStopSec")))
        took_s = time.monotonic() - began_s
        self._socket.setblocking(False)
        while True:
            try:
                self.told += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return status, took_s

    def close(self) -> None:
        self._is_wanted = False
        if self._thread is not None:
            self._thread.join()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._socket.close()
