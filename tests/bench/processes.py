"""The clients under measurement, each in a process of its own, and what the kernel knows of them."""

import asyncio
import mmap
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec

from tests.bench.plan import Plan
from tests.bench.stub import StubBroker
from tests.support.processes import Daemon, Paper

ROOT = Path(__file__).parents[2]
_SHIM_BYTES = 8 + 16 * 1_000_000
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Syncs:
    """What the preloaded shim has stamped; None of it without a C compiler."""

    def __init__(self, path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(_SHIM_BYTES)
        with path.open("r+b") as file:
            self._mapped = mmap.mmap(file.fileno(), _SHIM_BYTES)
        self.path = path

    def between(self, begin_ns: int, end_ns: int, start: int = 0) -> int:
        """How many began after `begin_ns` and before `end_ns`, of those from place `start` on."""
        return sum(1 for began_ns, _ in self.stamps(start) if begin_ns <= began_ns <= end_ns)

    @property
    def count(self) -> int:
        return int(struct.unpack_from("<Q", self._mapped, 0)[0])

    def stamps(self, start: int = 0) -> list[tuple[int, int]]:
        return [struct.unpack_from("<QQ", self._mapped, 8 + 16 * place) for place in range(start, self.count)]

    def close(self) -> None:
        self._mapped.close()


def build_shim(directory: Path) -> Path | None:
    """The shared object; None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    target = directory / "syncs.so"
    source = Path(__file__).with_name("syncs.c")
    done = subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(target), str(source), "-ldl"], check=False)
    return target if done.returncode == 0 else None


class BenchDaemon(Daemon):
    """The daemon against a stub in this process, which must go on serving while it is waited for."""

    def __init__(
        self, broker: StubBroker, directory: Path, *, preload: dict[str, str] | None = None, **settings: str
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        # Sweeps apart from what is measured, ceilings lifted.
        quiet = {"reconcile_interval_s": "300", "orders_per_minute": "100000", "orders_per_bracket": "10000"}
        # A stub has the two addresses of a paper broker, and a daemon needs no more of it.
        super().__init__(cast(Paper, broker), directory, **{**quiet, **settings})
        self._preload = preload or {}

    @property
    def environ(self) -> dict[str, str]:
        return super().environ | self._preload

    async def ready(self, timeout_s: float = 120.0) -> None:
        self.start()
        await asyncio.to_thread(self.wait_ready, timeout_s)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def ended(self) -> None:
        """SIGTERM, and the end of it."""
        await asyncio.to_thread(self.stop, 30.0)


class Client:
    """Relay, recipe or script: a module of this package run with a plan."""

    def __init__(self, module: str, broker: StubBroker, directory: Path) -> None:
        self.module = module
        self.broker = broker
        self._path = directory / f"{module}.json"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, plan: Plan) -> None:
        self._path.write_bytes(msgspec.json.encode(plan))
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"tests.bench.{self.module}",
            str(self._path),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            line = await self.process.stdout.readline()
        assert line == b"ready\n", f"{self.module} did not start: {line!r}"

    async def close(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@dataclass(frozen=True, slots=True)
class Usage:
    cpu_s: float
    rss_bytes: int


def usage_of(pid: int) -> Usage:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    # All threads: utime and stime, in ticks; the scheduler's own record is finer but of one thread only.
    return Usage(_cpu_ns(pid) / 1e9 or sum(map(int, fields[11:13])) / _TICKS_A_SECOND, pages * resource.getpagesize())


def _cpu_ns(pid: int) -> int:
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except (OSError, IndexError, ValueError):
            return 0
    return total


def run_python(code: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *code], capture_output=True, text=True, check=True, cwd=ROOT)
