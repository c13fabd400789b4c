"""One process that loads every open bracket, through the store or in a raw sqlite3 loop, and says what it took.

The loop reads the same rows by the same statements and builds the same records with the same functions; what the store
adds is its driver's thread, SQLAlchemy's rows, and the indexes of the mailboxes.
"""

import asyncio
import gc
import sqlite3
import sys
import time
import tracemalloc
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec

from otocod.adapters.clock import SystemClock
from otocod.adapters.collector import Collector
from otocod.adapters.sqlite import store as store_module
from otocod.adapters.sqlite.codec import bracket_from_rows, order_from_row
from otocod.adapters.sqlite.store import SqliteStore
from otocod.adapters.sqlite.tables import IdStatus
from otocod.domain.brackets import Bracket
from otocod.domain.ids import ExternalIdentifier
from otocod.domain.specs import Role
from otocod.engine.mailbox import Mailboxes

_STATEMENTS = tuple(
    str(statement.compile(compile_kwargs={"literal_binds": True}))
    for statement in (store_module.OPEN_BRACKETS, store_module.OPEN_ORDERS, store_module.OPEN_UNUSED)
)


async def through_the_store(path: Path) -> tuple[float, object]:
    began = time.perf_counter()
    store = await SqliteStore.open(path)
    opened = time.perf_counter()
    nothing: Any = None
    mailboxes = Mailboxes(
        store,
        SystemClock(),
        run_command=nothing,
        set_deadline=nothing,
        on_store_failure=nothing,
        on_store_recovery=nothing,
    )
    mailboxes.load(await store.load_open())
    took_s = time.perf_counter() - opened
    await store.close()
    assert opened > began
    return took_s, mailboxes


def raw(path: Path) -> tuple[float, object]:
    began = time.perf_counter()
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    bracket_rows, order_rows, id_rows = (connection.execute(statement).fetchall() for statement in _STATEMENTS)
    orders = defaultdict(list)
    for row in order_rows:
        orders[row["bracket_id"]].append(order_from_row(row))
    unused = defaultdict(list)
    for row in id_rows:
        name = ExternalIdentifier(row["external_identifier"])
        unused[row["bracket_id"]].append((Role(row["role"]), name, IdStatus(row["status"])))
    brackets: dict[str, Bracket] = {
        row["bracket_id"]: bracket_from_rows(row, orders[row["bracket_id"]], unused[row["bracket_id"]])
        for row in bracket_rows
    }
    took_s = time.perf_counter() - began
    connection.close()
    return took_s, brackets


def memory(path: Path) -> float:
    """By the allocator's own count of what is alive: resident memory would hold the rows that were read on the way."""
    tracemalloc.start()
    _, kept = asyncio.run(through_the_store(path))
    assert isinstance(kept, Mailboxes)
    gc.collect()
    return tracemalloc.get_traced_memory()[0] / max(len(kept.brackets), 1)


def main() -> None:
    path, way = Path(sys.argv[1]), sys.argv[2]
    longest_ns = began_ns = 0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal longest_ns, began_ns
        now_ns = time.perf_counter_ns()
        if phase == "start":
            began_ns = now_ns
        else:
            longest_ns = max(longest_ns, now_ns - began_ns)

    if way == "memory":
        sys.stdout.write(msgspec.json.encode({"bytes_a_bracket": memory(path)}).decode())
        return
    took_s, _kept = asyncio.run(through_the_store(path)) if way == "store" else raw(path)
    # As the daemon lives from `ready` on, with the brackets in memory: what its work makes is collected meanwhile.
    collector = Collector()
    collector.begin()
    gc.callbacks.append(note)
    records: list[object] = []
    for _ in range(100):
        # What a busy second leaves: records that live on, and cycles that do not.
        records.extend({"place": place, "text": str(place)} for place in range(5_000))
        for _ in range(50):
            dead: list[object] = []
            dead.append(dead)
        collector.tick()
    found = {
        "ms": 1_000 * took_s,
        "longest_gc_ms": longest_ns / 1e6,
    }
    sys.stdout.write(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
