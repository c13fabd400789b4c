"""The fork server: has imported all that the daemon needs and opened nothing, and forks a daemon for each request.

A daemon that is started the usual way spends more than a second on imports; a fork of this process is ready in less
than a tenth of that. The child runs `bootstrap.run` with the environment that the request gives and ends with its exit
status, exactly as `otocod run` does after it has parsed its arguments.

Requests and reports are lines of JSON on stdin and stdout. A report of an end comes after the process has been reaped
here, so a signal never meets a stranger that has got the number since.

    {"run": 7, "environ": {...}, "log": "...", "told": "...", "plan": {...}}    -> {"started": 7}
    {"signal": 7, "number": 9}
                                                                                -> {"ended": 7, "status": -9}
"""

import ctypes
import gc
import json
import os
import select
import signal
import sys
import traceback
from typing import Any

import uvloop  # noqa: F401  bootstrap imports it when it runs, which would cost every child anew

from otocod import bootstrap, config
from tests.kills.points import Plan, install

_PR_SET_PDEATHSIG = 1


class Zygote:
    def __init__(self) -> None:
        self._pids: dict[int, int] = {}  # the caller's number of a life -> process
        self._lives: dict[int, int] = {}  # descriptor of the process -> number of the life
        self._poll = select.poll()
        self._poll.register(0, select.POLLIN)
        self._pending = b""

    def serve(self) -> None:
        """Until stdin ends. Daemons that still live then are killed."""
        # Garbage of the imports is collected once, here, and then never looked at by a child.
        gc.collect()
        gc.freeze()
        try:
            while True:
                for descriptor, _ in self._poll.poll():
                    if descriptor != 0:
                        self._ended(descriptor)
                    elif not self._read():
                        return
        finally:
            for pid in self._pids.values():
                os.kill(pid, signal.SIGKILL)

    def _read(self) -> bool:
        received = os.read(0, 1 << 16)
        *lines, self._pending = (self._pending + received).split(b"\n")
        for line in lines:
            self._do(json.loads(line))
        return bool(received)

    def _do(self, request: dict[str, Any]) -> None:
        if "run" in request:
            self._run(request)
        elif request["signal"] in self._pids:
            os.kill(self._pids[request["signal"]], request["number"])

    def _run(self, request: dict[str, Any]) -> None:
        life = request["run"]
        pid = os.fork()
        if pid == 0:
            try:
                status = _be_daemon(request)
            except BaseException:
                # What an interpreter does with an error that nobody takes.
                traceback.print_exc()
                status = 1
            os._exit(status)
        self._pids[life] = pid
        descriptor = os.pidfd_open(pid)
        self._lives[descriptor] = life
        self._poll.register(descriptor, select.POLLIN)
        _report({"started": life})

    def _ended(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        life = self._lives.pop(descriptor)
        os.close(descriptor)
        _, status = os.waitpid(self._pids.pop(life), 0)
        _report({"ended": life, "status": os.waitstatus_to_exitcode(status)})


def _report(report: dict[str, Any]) -> None:
    os.write(1, json.dumps(report).encode() + b"\n")


def _be_daemon(request: dict[str, Any]) -> int:
    # Should the fork server be killed, its daemons go with it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The pipes to the driver, and descriptors of other daemons' processes.
    os.closerange(0, 4096)
    os.open(os.devnull, os.O_RDONLY)
    os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(1, 2)
    told = os.open(request["told"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.environ.clear()
    os.environ.update(request["environ"])
    install(Plan(**request["plan"]), told)
    loaded = config.load_settings(None, os.environ, on_terminal=False)
    return bootstrap.run(loaded)


if __name__ == "__main__":
    Zygote().serve()
    sys.exit(0)
