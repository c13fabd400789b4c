"""Where a daemon can be made to die: hooks at the ports and at the start, set in a forked child before it runs.

Nothing of the product knows of them. `install` puts subclasses and wrappers in the place of what `bootstrap` composes;
each calls `Trap.at` with the name of a point, and the point that the plan names, at its nth time, is the last thing
that the process does. A point with a delay kills from a thread of its own some microseconds later, so that the blow
falls into the middle of what follows: a transaction, a checkpoint, bytes on their way.

What the daemon was told is on disk is written to a file of its own, one line for each acknowledgement, before anything
that waits for it hears: a SIGKILL loses nothing that was handed to the kernel, so the file is the list of commits that
must still be there.
"""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from otocod import bootstrap, logs
from otocod.adapters import holding
from otocod.adapters.queue.requests import QueueRequests
from otocod.adapters.sqlite import store as store_module
from otocod.adapters.sqlite.store import SqliteStore
from otocod.adapters.tastytrade import http
from otocod.adapters.tastytrade.connection import Broken, Connection, Response
from otocod.adapters.tastytrade.http import Answer, Query, Transport
from otocod.adapters.tastytrade.streamer import TastytradeStreamer
from otocod.engine.supervisor import Supervisor
from otocod.ports.broker import StreamComplex, StreamEvent, StreamOrder, StreamUp
from otocod.ports.store import BracketChange, Change

# Before the daemon is ready.
START_POINTS = (
    "start.locked",
    "start.upgrading",
    "start.upgraded",
    "start.identified",
    "start.store_open",
    "start.loaded",
    "start.subscribed",
    "start.listed",
    "start.ready",
    "mark.before",
    "mark.after",
)
LIFE_POINTS = (
    "commit.handed",
    "commit.began",
    "commit.in_transaction",
    "commit.durable",
    "commit.acknowledged",
    "commit.acted_on",
    "order.before",
    "order.written",
    "order.answered",
    "read.before",
    "read.answered",
    "frame.before",
    "frame.after",
    "queue.taken",
    "queue.answering",
    "queue.handed_back",
    "checkpoint.before",
    "checkpoint.after",
)
STOP_POINTS = ("stop.signalled", "stop.drained", "stop.marked", "stop.closing", "stop.closed")
# At these a delay has something to fall into.
DELAYED_POINTS = (
    "start.upgrading",
    "start.store_open",
    "commit.began",
    "order.before",
    "order.written",
    "read.answered",
    "queue.taken",
    "queue.handed_back",
    "checkpoint.before",
    "stop.signalled",
    "stop.closing",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How one life ends. Without a point, only from outside."""

    point: str | None = None
    nth: int = 1
    delay_us: int = 0
    number: int = signal.SIGKILL  # SIGTERM: an orderly stop that begins at that very moment
    checkpoint_rows: int | None = None  # the WAL is checkpointed after so many rows; None: as the product does


class Trap:
    def __init__(self, plan: Plan, told: int) -> None:
        """`told`: descriptor of the file of acknowledgements, opened for appending."""
        self._plan = plan
        self._told = told
        self._count = 0

    def at(self, point: str) -> None:
        if point != self._plan.point:
            return
        self._count += 1
        if self._count != self._plan.nth:
            return
        if self._plan.delay_us:
            threading.Thread(target=self._spring_later, daemon=True).start()
        else:
            self._spring()

    def _spring_later(self) -> None:
        time.sleep(self._plan.delay_us / 1_000_000)
        self._spring()

    def _spring(self) -> None:
        if self._plan.number == signal.SIGKILL:
            self.tell(f"killed {self._plan.point}")
        os.kill(os.getpid(), self._plan.number)

    def tell(self, line: str) -> None:
        os.write(self._told, f"{line}\n".encode())


def install(plan: Plan, told: int) -> None:
    """In the child, once, before `bootstrap.run`."""
    trap = Trap(plan, told)
    _watch_start(trap)
    _watch_store(trap, plan)
    _watch_wire(trap)
    _watch_queue(trap)
    _watch_stop(trap)


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    setattr(owner, name, make(getattr(owner, name)))


def _around(trap: Trap, before: str | None, after: str | None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            if before is not None:
                trap.at(before)
            result = function(*arguments, **named)
            if after is not None:
                trap.at(after)
            return result

        return run

    return wrap


def _watch_start(trap: Trap) -> None:
    _replace(holding, "require_fit", _around(trap, "start.locked", "start.upgrading"))
    _replace(holding, "upgrade", _around(trap, None, "start.upgraded"))
    _replace(holding, "check_identity", _around(trap, None, "start.identified"))

    def ready(emit: Callable[..., None]) -> Callable[..., None]:
        def run(**fields: Any) -> None:
            emit(**fields)
            trap.tell("ready")
            trap.at("start.ready")

        return run

    _replace(logs, "emit_ready", ready)


def _watch_store(trap: Trap, plan: Plan) -> None:
    class WatchedStore(SqliteStore):
        @classmethod
        async def open(cls, *arguments: Any, **named: Any) -> SqliteStore:
            opened = await super().open(*arguments, **named)
            trap.at("start.store_open")
            return opened

        async def load_open(self) -> Any:
            found = await super().load_open()
            trap.at("start.loaded")
            return found

        def commit(self, change: Change) -> Any:
            trap.at("commit.handed")
            future = super().commit(change)
            # The first callback: whoever waits for the commit hears after it.
            future.add_done_callback(partial(self._acknowledged, change))
            return future

        def _acknowledged(self, change: Change, done: Any) -> None:
            if done.cancelled() or done.exception() is not None:
                return
            if isinstance(change, BracketChange):
                trap.tell(f"acked {change.after.bracket_id} {change.after.version}")
            trap.at("commit.acknowledged")
            done.get_loop().call_soon(trap.at, "commit.acted_on")

        async def _write_together(self, items: Any) -> Any:
            trap.at("commit.began")
            verdicts = await super()._write_together(items)
            trap.at("commit.durable")
            return verdicts

        async def close(self) -> None:
            trap.at("stop.closing")
            await super().close()
            trap.at("stop.closed")

    _replace(bootstrap, "SqliteStore", lambda _: WatchedStore)
    # On the driver's thread, between the last statement and COMMIT.
    _replace(store_module, "_run_fenced", _around(trap, None, "commit.in_transaction"))
    _replace(store_module, "_checkpoint", _around(trap, "checkpoint.before", "checkpoint.after"))
    _replace(store_module, "write_mark", _around(trap, "mark.before", "mark.after"))
    if plan.checkpoint_rows is not None:
        _replace(store_module, "CHECKPOINT_ROWS_IDLE", lambda _: plan.checkpoint_rows)


def _is_command(method: str, path: str) -> bool:
    return method in ("POST", "PUT", "DELETE") and "orders" in path and not path.endswith("dry-run")


def _watch_wire(trap: Trap) -> None:
    class WatchedTransport(Transport):
        def ask(
            self, method: str, path: str, *, bearer: str | None, body: bytes | None = None, query: Query = ()
        ) -> "asyncio.Future[Answer]":
            kind = "order" if _is_command(method, path) else "read" if method == "GET" else "other"
            trap.at(f"{kind}.before")

            def answered(answer: "asyncio.Future[Answer]") -> None:
                if answer.cancelled() or answer.exception() is not None:
                    return
                trap.at(f"{kind}.answered")
                if kind == "read" and path.endswith("orders"):
                    trap.at("start.listed")

            answer = super().ask(method, path, bearer=bearer, body=body, query=query)
            answer.add_done_callback(answered)
            return answer

    class WatchedConnection(Connection):
        def ask(self, request: bytes, asked: Callable[[Response | Broken], None]) -> None:
            super().ask(request, asked)
            method, path, _ = request.split(b"\r\n", 1)[0].decode().split(" ")
            if _is_command(method, path):
                trap.at("order.written")

    class WatchedStreamer(TastytradeStreamer):
        async def run(self, on_event: Callable[[StreamEvent], None]) -> None:
            def heard(event: StreamEvent) -> None:
                is_about_order = isinstance(event, StreamOrder | StreamComplex)
                if is_about_order:
                    trap.at("frame.before")
                on_event(event)
                if is_about_order:
                    trap.at("frame.after")
                elif isinstance(event, StreamUp):
                    trap.at("start.subscribed")

            await super().run(heard)

    _replace(bootstrap, "Transport", lambda _: WatchedTransport)
    _replace(bootstrap, "TastytradeStreamer", lambda _: WatchedStreamer)
    _replace(http, "Connection", lambda _: WatchedConnection)


def _watch_queue(trap: Trap) -> None:
    _replace(QueueRequests, "_batch", _around(trap, "queue.taken", None))
    # A thread writes the answers, so after this call they are on their way.
    _replace(QueueRequests, "answer", _around(trap, "queue.answering", "queue.handed_back"))


def _watch_stop(trap: Trap) -> None:
    class WatchedSupervisor(Supervisor):
        def stop(self) -> None:
            super().stop()
            trap.at("stop.signalled")

    def recorded(record: Callable[[Supervisor], Awaitable[None]]) -> Callable[[Supervisor], Awaitable[None]]:
        async def run(supervisor: Supervisor) -> None:
            trap.at("stop.drained")
            await record(supervisor)
            trap.at("stop.marked")

        return run

    _replace(Supervisor, "_record_clean_stop", recorded)
    _replace(bootstrap, "Supervisor", lambda _: WatchedSupervisor)
