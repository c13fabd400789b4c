"""One process that holds a few open brackets and very many, and takes the fill of a target of either, turn by turn.

Measured is what the daemon does between the frame and the request: reading the message, finding its bracket, deciding,
the last gate, up to the moment in which the client is asked to cancel the stop. A daemon cannot be started with 100,000
brackets within a bench; the sockets are measured elsewhere.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import uvloop

from otocod.adapters.clock import SystemClock
from otocod.adapters.collector import Collector
from otocod.adapters.sqlite.store import SqliteStore
from otocod.adapters.tastytrade.protocol import AccountStreamerProtocol
from otocod.domain.ids import AccountNumber, BrokerOrderId
from otocod.engine.executor import Executor
from otocod.engine.gate import LastGate, Limits
from otocod.engine.mailbox import Mailboxes
from otocod.engine.router import Router
from otocod.engine.slots import Slots
from otocod.ports.broker import Broker, Outcome, StreamOrder, Unknown
from tests.bench import wire
from tests.bench.wire import ACCOUNT

_SPACING_S = 0.02


class _Broker:
    """Notes when it is asked to cancel, and never does."""

    def __init__(self) -> None:
        self.asked_ns = 0

    async def _outcome(self) -> Outcome:
        return Unknown("the bench does not answer")

    def cancel(self, account: AccountNumber, broker_order_id: BrokerOrderId) -> Any:
        self.asked_ns = time.perf_counter_ns()
        return self._outcome()


class Crowd:
    def __init__(self, store: SqliteStore) -> None:
        nothing: Any = lambda *arguments: None  # noqa: E731
        clock = SystemClock()
        self._broker = _Broker()
        self._store = store
        self.mailboxes = Mailboxes(
            store,
            clock,
            run_command=lambda bracket, command: self._executor.run(bracket, command),
            set_deadline=nothing,
            on_store_failure=nothing,
            on_store_recovery=nothing,
        )
        self._executor = Executor(
            cast(Broker, self._broker),
            clock,
            LastGate(Limits(frozenset({AccountNumber(ACCOUNT)}), 100_000, 10_000)),
            Slots(8, reserved=2),
            nothing,
            deliver=nothing,
            route_report=nothing,
            ask_sweep=nothing,
            learn_capability=nothing,
        )
        self._executor.release()
        self._router = Router(self.mailboxes, store, on_stranger=nothing)
        self._protocol = AccountStreamerProtocol([AccountNumber(ACCOUNT)], bearer=lambda: "Bearer bench", generation=1)

    async def load(self) -> None:
        self.mailboxes.load(await self._store.load_open())

    def fill(self, frame: bytes) -> float:
        """µs until the cancel is asked for."""
        began_ns = time.perf_counter_ns()
        for event in self._protocol.receive(frame, 1):
            assert isinstance(event, StreamOrder)
            self._router.route(event.report)
        assert self._broker.asked_ns > began_ns, "nothing was cancelled"
        return (self._broker.asked_ns - began_ns) / 1_000


def frames(target: bytes, mark: str, numbers: Sequence[int]) -> list[bytes]:
    order = msgspec.json.decode(target)
    wire.fill(order)
    template = wire.notification(order)
    return [template.replace(mark.encode(), b"%07d" % number) for number in numbers]


async def main(few: Path, many: Path, target: bytes, mark: str, counts: tuple[int, int], fills: int) -> None:
    crowds = []
    for path in (few, many):
        crowd = Crowd(await SqliteStore.open(path))
        await crowd.load()
        crowds.append(crowd)
    Collector().begin()
    steps = [max(1, (count - 1) // fills) for count in counts]
    told = [frames(target, mark, [1 + step * place for place in range(fills)]) for step in steps]
    samples: tuple[list[float], list[float]] = ([], [])
    for place in range(fills):
        for taken, crowd, each in zip(samples, crowds, told, strict=True):
            await asyncio.sleep(_SPACING_S)
            taken.append(crowd.fill(each[place]))
    sys.stdout.write(msgspec.json.encode([statistics.median(taken) for taken in samples]).decode())
    sys.stdout.flush()
    for crowd in crowds:
        await crowd._store.close()


if __name__ == "__main__":
    given = msgspec.json.decode(Path(sys.argv[1]).read_bytes())
    counts = (int(given["counts"][0]), int(given["counts"][1]))
    work = main(
        Path(given["few"]), Path(given["many"]), given["target"].encode(), given["mark"], counts, given["fills"]
    )
    uvloop.run(work)
