"""The driver's side of the fork server: lives that are started, signalled and waited for."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from itertools import count
from pathlib import Path

from tests.kills.points import Plan


class Life:
    """One run of a daemon, from its fork to its end."""

    def __init__(self, nursery: "Nursery", number: int) -> None:
        self._nursery = nursery
        self.number = number
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def signal(self, number: signal.Signals) -> None:
        """Does nothing if the process has ended."""
        self._nursery.ask({"signal": self.number, "number": int(number)})

    async def ends_within(self, timeout_s: float) -> bool:
        await asyncio.wait([self.ended], timeout=timeout_s)
        return self.ended.done()

    @property
    def status(self) -> int:
        """The exit status; of a killed process the negative number of the signal."""
        return self.ended.result()


class Nursery:
    """A fork server in its own process. To be closed: daemons that still live are killed then."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = count(1)
        self._lives: dict[int, Life] = {}
        self._listening = asyncio.create_task(self._listen(), name="nursery")

    @classmethod
    async def open(cls) -> "Nursery":
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.kills.zygote",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            # Each thread's arena costs a fork page faults; a daemon's threads are few and mostly wait.
            env={name: value for name, value in os.environ.items() if not name.startswith("OTOCOD_")}
            | {"MALLOC_ARENA_MAX": "2"},
        )
        return cls(process)

    def start(self, environ: Mapping[str, str], log: Path, told: Path, plan: Plan) -> Life:
        life = Life(self, next(self._numbers))
        self._lives[life.number] = life
        request = {"run": life.number, "environ": dict(environ), "log": str(log), "told": str(told)}
        self.ask(request | {"plan": asdict(plan)})
        return life

    def ask(self, request: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            report = json.loads(line)
            if "ended" in report:
                self._lives.pop(report["ended"]).ended.set_result(report["status"])
        for life in self._lives.values():
            life.ended.set_exception(RuntimeError("the fork server has ended"))

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._listening
