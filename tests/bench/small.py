"""Figures of the parts: the queue's reader, the command line, the memory of a daemon that has nothing to do."""

import asyncio
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from otocod.adapters.queue import landlock, wake
from otocod.adapters.queue.init import init_queue
from otocod.adapters.queue.reader import QueueReader
from otocod.adapters.queue.rows import Answer, AnswerStatus, HandedRow
from tests.bench import wire
from tests.bench.figures import Figure, p50
from tests.bench.processes import ROOT, BenchDaemon, run_python, usage_of
from tests.bench.stub import StubBroker
from tests.bench.wire import ACCOUNT

_PICKUP_PAUSE_S = 0.06

_RESIDENT = """
import importlib, sys
names = sys.argv[1].split(",")
for name in names:
    importlib.import_module(name)
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")][0])
"""
_LOADED = """
import sys
import otocod.__main__, otocod.bootstrap, otocod.cli.commands, uvloop
known = set(sys.stdlib_module_names) | {"otocod", "__main__"}
print(",".join(name for name in sorted(sys.modules) if name.partition(".")[0] not in known and name[0] != "_"))
"""


async def pickup(directory: Path, times: int) -> list[Figure]:
    """From the end of the producer's commit to the batch in the loop's hands, at moments that follow no rhythm."""
    path = directory / "pickup" / "queue.db"
    init_queue(path, group=None)
    came: asyncio.Queue[tuple[HandedRow, float]] = asyncio.Queue()

    def take(rows: Sequence[HandedRow]) -> None:
        now = time.monotonic()
        for row in rows:
            came.put_nowait((row, now))

    confine = landlock.confine_thread if landlock.is_available() else None
    reader = QueueReader(path, on_batch=take, on_alarm=lambda alarm: None, confine=confine)
    await reader.start()
    draw = random.Random(7)
    figures = []
    try:
        for key, insert in (("pickup_submit", _submitted), ("pickup_insert", _inserted)):
            taken = []
            for number in range(times):
                await asyncio.sleep(_PICKUP_PAUSE_S + draw.uniform(0, 0.03))
                committed = await asyncio.to_thread(insert, path, f"{key}-{number}")
                row, at = await asyncio.wait_for(came.get(), 10)
                taken.append(1_000 * (at - committed))
                reader.answer([Answer(row.id, row.client_ref, AnswerStatus.REJECTED, "bench", None)])
            figures.append(Figure(key, p50(taken), note=f"{times} rows"))
    finally:
        await reader.stop()
    return figures


def _inserted(path: Path, client_ref: str) -> float:
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        with connection:
            connection.execute(
                "INSERT INTO bracket_requests (client_ref, account, request) VALUES (?, ?, '{}')", (client_ref, ACCOUNT)
            )
        return time.monotonic()


def _submitted(path: Path, client_ref: str) -> float:
    """What `otocod submit` does: the same insert, then a datagram."""
    committed = _inserted(path, client_ref)
    directory_fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        wake.send(directory_fd)
    finally:
        os.close(directory_fd)
    return committed


async def resident(directory: Path) -> Figure:
    broker = StubBroker()
    await broker.start()
    daemon = BenchDaemon(broker, directory / "resident")
    await daemon.ready()
    await asyncio.sleep(2.0)
    ours = usage_of(daemon.pid).rss_bytes
    await daemon.ended()
    await broker.close()
    names = await asyncio.to_thread(lambda: run_python(["-c", _LOADED]).stdout.strip())
    # Submodules that are made at run time cannot be imported by name; their packages can.
    wanted = ",".join(name for name in names.split(",") if "._" not in name and "six.moves" not in name)
    floor = await asyncio.to_thread(lambda: int(run_python(["-c", _RESIDENT, wanted]).stdout) * 1_024)
    return Figure("resident", ours / 1e6, floor / 1e6)


async def commands(directory: Path, times: int) -> list[Figure]:
    """Whole processes from outside, each beside an empty one."""
    broker = StubBroker()
    await broker.start()
    daemon = BenchDaemon(broker, directory / "commands")
    await daemon.ready()
    await asyncio.to_thread(daemon.submit, "bench-show", wire.request(0))
    await broker.arrived(1)
    environ = daemon.environ
    runs: dict[str, list[float]] = {"pass": [], "submit": [], "status": [], "show": []}
    for number in range(times):
        request = directory / f"request{number}.json"
        request.write_text(json.dumps(wire.request(number + 1)))
        for name, arguments in (
            ("pass", ["-c", "pass"]),
            ("submit", ["-m", "otocod", "submit", str(request), "--account", ACCOUNT]),
            ("status", ["-m", "otocod", "status"]),
            ("show", ["-m", "otocod", "show", "ref:bench-show"]),
        ):
            runs[name].append(await asyncio.to_thread(_wall_ms, arguments, environ))
    await daemon.ended()
    await broker.close()
    return [Figure(f"cli_{name}", p50(runs[name]), p50(runs["pass"])) for name in ("submit", "status", "show")]


def _wall_ms(arguments: list[str], environ: dict[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], env=environ, cwd=ROOT, capture_output=True, check=False)
    took_ms = 1_000 * (time.perf_counter() - began)
    assert done.returncode == 0, (arguments, done.stdout, done.stderr, os.getpid())
    return took_ms
