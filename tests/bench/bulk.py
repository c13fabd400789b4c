"""Databases with many open brackets: one bracket is driven to EXITS_LIVE by the daemon itself, its rows are cloned.

Every id, symbol and reference of the clone carries the number of the clone, so nothing in the file is there twice, and
whatever the schema becomes is copied along.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.bench import wire
from tests.bench.processes import BenchDaemon
from tests.bench.stub import Bulk, StubBroker
from tests.bench.wire import Json

MARK = "9081726"  # stands for the seven digits of a clone's number in everything that must be its own
_FIRST_ID = 777_000_000
_CHUNK = 2_000
# The later ones point at the earlier ones.
# Those that a start reads. The history of the clones is left out: it would be most of the file.
_TABLES = ("brackets", "external_identifiers", "orders")
_ORDERS = 3


@dataclass(frozen=True, slots=True)
class Template:
    """A data directory with one bracket, its rows with `MARK` in them, and its orders as the broker shows them."""

    directory: Path
    tables: dict[str, tuple[list[str], list[list[object]]]]
    orders: list[bytes]
    own_orders: dict[int, Json]  # without the marks


class Stock:
    """The template and large files made from it, once for all groups of a run."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._template: Template | None = None
        self._made: dict[int, Path] = {}

    async def template(self) -> Template:
        if self._template is None:
            self._template = await make_template(self._directory / "template")
        return self._template

    async def data_dir(self, count: int) -> Path:
        """To be read, or copied, not to be worked in by a daemon."""
        if count not in self._made:
            template = await self.template()
            self._made[count] = await asyncio.to_thread(data_dir_with, template, self._directory / str(count), count)
        return self._made[count]

    async def copy(self, count: int, directory: Path) -> None:
        await asyncio.to_thread(shutil.copytree, await self.data_dir(count), directory / "data")


async def make_template(directory: Path) -> Template:
    broker = StubBroker(first_id=_FIRST_ID)
    await broker.start()
    daemon = BenchDaemon(broker, directory)
    try:
        await daemon.ready()
        await asyncio.to_thread(daemon.submit, "bulk-template", wire.request(0))
        (entry,) = await broker.arrived(1)
        # The acknowledgement has to be in before the fill, as with a broker that is not in the same room.
        await asyncio.sleep(0.2)
        await broker.tell_fill(broker.orders[entry.order_id])
        await broker.arrived(_ORDERS)
        await asyncio.to_thread(daemon.until_state, "bulk-template", "EXITS_LIVE")
        await daemon.ended()
    finally:
        daemon.close()
        await broker.close()
    return _marked(daemon.data_dir, broker.orders)


def _marked(data_dir: Path, orders: dict[int, Json]) -> Template:
    with closing(sqlite3.connect(data_dir / "state.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        bracket_id = connection.execute("SELECT bracket_id FROM brackets").fetchone()[0]
        names = [row[0] for row in connection.execute("SELECT external_identifier FROM external_identifiers")]
        words = {bracket_id: f"01a00000-0000-7000-8000-00000{MARK}", "bulk-template": f"bulk-{MARK}"}
        words |= {name: f"{place:08x}-0000-5000-8000-00000{MARK}" for place, name in enumerate(names)}
        words |= {str(_FIRST_ID + place): f"{place}{MARK}" for place in range(1, _ORDERS + 1)}
        day = wire.expiration().strftime("%y%m%d")
        words |= {symbol: f"CX    {day}C{first}{MARK}" for symbol, first in zip(wire.symbols(0), "05", strict=True)}
        tables = {}
        for table in _TABLES:
            cursor = connection.execute(f"SELECT * FROM {table}")  # noqa: S608
            columns = [column[0] for column in cursor.description]
            rows = [[_replaced(value, words) for value in row] for row in cursor]
            tables[table] = (columns, rows)
    marked = [str(_replaced(msgspec.json.encode(order).decode(), words)).encode() for order in orders.values()]
    return Template(data_dir, tables, marked, orders)


def _replaced(value: object, words: dict[str, str]) -> object:
    if isinstance(value, str):
        for word, mark in words.items():
            value = value.replace(word, mark)
    return value


def data_dir_with(template: Template, directory: Path, count: int) -> Path:
    """A copy of the template's data directory with `count` open brackets, its own among them."""
    data_dir = directory / "data"
    shutil.copytree(template.directory, data_dir, ignore=shutil.ignore_patterns("*.sock", "wake"))
    with closing(sqlite3.connect(data_dir / "state.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN")
        for start in range(1, count, _CHUNK):
            for table, (columns, rows) in template.tables.items():
                marks = ", ".join("?" * len(columns))
                statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608
                connection.executemany(statement, _cloned(rows, range(start, min(start + _CHUNK, count))))
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    # The template's row is not to be answered again.
    (data_dir / "queue" / "queue.db").unlink()
    return data_dir


def _cloned(rows: list[list[object]], numbers: range) -> Iterator[list[object]]:
    marked = [[(at, text) for at, text in enumerate(row) if isinstance(text, str) and MARK in text] for row in rows]
    for number in numbers:
        digits = f"{number:07d}"
        for row, texts in zip(rows, marked, strict=True):
            clone = row.copy()
            for at, text in texts:
                clone[at] = text.replace(MARK, digits)
            yield clone


def serve_with(template: Template, broker: StubBroker, count: int, padding: int = 0) -> None:
    """Has the stub show the orders of these brackets, and `padding` orders that are somebody else's."""
    is_working = [msgspec.json.decode(order)["status"] not in wire.TERMINAL for order in template.orders]
    mark = MARK.encode()
    legs = [leg["symbol"] for leg in msgspec.json.decode(template.orders[0])["legs"]]

    def row_of(number: int, place: int) -> bytes:
        return template.orders[place].replace(mark, b"%07d" % (number + 1))

    def symbols_of(number: int) -> tuple[str, str]:
        short, long = (symbol.replace(MARK, f"{number + 1:07d}") for symbol in legs)
        return short, long

    foreign = []
    for number in range(padding):
        order = wire.placed(wire.entry_body(number), 600_000_000 + number, "Cancelled")
        foreign.append(msgspec.json.encode(order | {"source": "WBT", "external-identifier": f"hand-{number}"}))
    broker.bulk = Bulk(count - 1, _ORDERS, row_of, is_working.__getitem__, symbols_of, foreign)
    broker.orders |= template.own_orders
