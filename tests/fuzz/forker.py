"""The real command line, many times a second: a process that has everything loaded forks one child for each call.

    parent  ->  one JSON line: {"argvs": [[...], ...], "environ": {...}, "out": path, "err": path, "on_terminal": bool}
    child   ->  exit statuses, one for each command line, or the signal that ended it

Run as a module it is that process. It has no threads of its own, so forking it is safe.
"""

import json
import os
import pty
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHILD_LIMIT_S = 20


@dataclass(frozen=True, slots=True)
class Called:
    statuses: tuple[int, ...]
    signal: int  # 0: it ended by itself
    out: str
    err: str


class Forker:
    """The parent's side. One call at a time."""

    def __init__(self, directory: Path) -> None:
        self._out, self._err = directory / "out.txt", directory / "err.txt"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.forker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def call(self, argvs: list[list[str]], environ: dict[str, str], *, on_terminal: bool = False) -> Called:
        assert self._process.stdin is not None and self._process.stdout is not None
        names = {"out": str(self._out), "err": str(self._err), "on_terminal": on_terminal}
        self._process.stdin.write(json.dumps({"argvs": argvs, "environ": environ, **names}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        texts = (path.read_text(encoding="utf-8", errors="surrogateescape") for path in (self._out, self._err))
        return Called(tuple(answer["statuses"]), answer["signal"], *texts)

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def main() -> None:
    import otocod.audit
    import otocod.bootstrap
    import otocod.cli.app
    import otocod.engine.supervisor  # noqa: F401  loaded once, for every child

    _stop_once_loaded()
    for line in sys.stdin:
        call = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _live(call, writer)
        os.close(writer)
        with os.fdopen(reader) as answers:
            statuses = [int(word) for word in answers.read().split()]
        _, status = os.waitpid(child, 0)
        ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        print(json.dumps({"statuses": statuses, "signal": ended_by}), flush=True)


def _stop_once_loaded() -> None:
    """`otocod run` is wanted up to the moment at which it would speak to the broker."""
    from otocod.engine.supervisor import Supervisor

    async def stop(supervisor: Any) -> None:
        supervisor.stop()
        # Longer than the stop takes: nothing behind this line is to run.
        await supervisor.clock.sleep_until(supervisor.clock.now_us() + 60_000_000)

    Supervisor._wait_for_stream = stop  # type: ignore[method-assign,assignment]


def _live(call: dict[str, Any], answers: int) -> None:
    try:
        signal.alarm(CHILD_LIMIT_S)
        os.environ.clear()
        os.environ.update(call["environ"])
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(call["err"], flags, 0o600), 2)
        out = os.open(call["out"], flags, 0o600)
        copier = 0
        if call["on_terminal"]:
            copier, out = _terminal(out)
        os.dup2(out, 1)
        os.close(out)
        from otocod.cli import app

        for argv in call["argvs"]:
            os.write(answers, f"{app.run(argv)} ".encode())
            sys.stdout.flush()
            sys.stderr.flush()
        if copier:
            os.close(1)
            os.waitpid(copier, 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _terminal(out: int) -> tuple[int, int]:
    """A process that copies all that a new terminal shows to `out`, and the terminal to write to."""
    master, slave = pty.openpty()
    copier = os.fork()
    if copier:
        os.close(master)
        return copier, slave
    os.close(slave)
    try:
        while part := os.read(master, 1 << 16):
            # The line discipline of a terminal makes two characters of each line's end.
            os.write(out, part.replace(b"\r\n", b"\n"))
    except OSError:
        pass  # how a terminal ends
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
