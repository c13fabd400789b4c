"""Is a crash image a database that the daemon can go on with, and is everything in it that had been promised?

The image is opened by the product's own start, which must succeed, and must then be sound by SQLite's own check. What
it holds is compared as a whole: it must equal the content at some moment between the last acknowledgement before the
crash and the crash itself. The contents at those moments are had from the same record with nothing lost, so half a
transaction, or a mixture of two, equals none of them.
"""

import asyncio
import hashlib
import os
import shutil
import sqlite3
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from otocod.adapters.sqlite.check import NotFit, integrity_check
from otocod.adapters.sqlite.migrate import WrongIdentity
from otocod.ports.store import StoreFailed
from tests.powerloss.images import Disk, Image
from tests.powerloss.recorder import Acknowledged, Operation, Truncate, Write
from tests.powerloss.workload import STATE, open_as_the_product_does

# What a start itself writes: whose state it is, how often it was opened, and the version of the schema.
_OF_THE_START = ("store.epoch", "environment", "accounts")
_UNJUDGED_TABLES = ("alembic_version", "sqlite_sequence")


def put(image: Image, directory: Path) -> Path:
    """The image as files, with the modes of otocod's own; the path of the database."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    directory.chmod(0o750)
    for name, content in image.items():
        descriptor = os.open(directory / name, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    return directory / STATE


def content_of(path: Path) -> str:
    """A digest of every row of every table; of a file that holds no tables yet, as of empty ones."""
    digest = hashlib.sha256()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
        for (table,) in names:
            if table in _UNJUDGED_TABLES:
                continue
            where = f" WHERE name NOT IN {_OF_THE_START}" if table == "settings" else ""
            rows = connection.execute(f"SELECT * FROM {table}{where}").fetchall()  # noqa: S608  names from the schema
            if rows:
                digest.update(repr((table, sorted(map(repr, rows)))).encode())
    return digest.hexdigest()


class Judge:
    """Knows one record, which began with the files of `start`. `place` is a directory for images, best in memory."""

    def __init__(self, start: Image, operations: Sequence[Operation], place: Path) -> None:
        self._start = start
        self._operations = operations
        self._place = place
        self._promises = [n for n, each in enumerate(operations, 1) if isinstance(each, Acknowledged)]
        self._moments = [n for n, each in enumerate(operations, 1) if _may_complete(each)]
        self._contents: dict[int, str] = {}
        self._walk = (0, Disk.of(start))

    def violation(self, image: Image, done: int) -> str | None:
        """What is wrong with an image of the moment after `done` operations; None if nothing is."""
        path = put(image, self._place / "image")
        try:
            asyncio.run(_open_and_close(path))
        except (NotFit, StoreFailed, WrongIdentity, sqlite3.Error) as error:
            return f"the daemon does not start: {type(error).__name__} {error}"
        except Exception as error:
            return f"the daemon does not start, for a reason it does not know: {error!r}"
        damage = integrity_check(path)
        if damage:
            return f"integrity_check: {damage[0]}"
        if missing := self._missing(path, done):
            return f"acknowledged and not there: {missing[0]}"
        return None if self._is_promised(content_of(path), done) else "acknowledged commits are missing, or half of one"

    def _missing(self, path: Path, done: int) -> list[str]:
        """Brackets whose newest acknowledged version is not there. The record of the disk alone cannot tell this: an
        acknowledgement that came too early would lie in it before the writes that it speaks of."""
        place = bisect_right(self._promises, done)
        if not place:
            return []
        promise = self._operations[self._promises[place - 1] - 1]
        assert isinstance(promise, Acknowledged)
        with closing(sqlite3.connect(path)) as connection:
            present = dict(connection.execute("SELECT bracket_id, version FROM brackets"))
        return [f"{name} version {version}" for name, version in promise.versions if present.get(name, -1) < version]

    def _is_promised(self, found: str, done: int) -> bool:
        place = bisect_right(self._promises, done)
        since = self._promises[place - 1] if place else 0
        moments = {since, *(n for n in self._moments if since <= n <= done)}
        return any(self._content_at(n) == found for n in sorted(moments, reverse=True))

    def _content_at(self, moment: int) -> str:
        known = self._contents.get(moment)
        if known is None:
            at, disk = self._walk if self._walk[0] <= moment else (0, Disk.of(self._start))
            for operation in self._operations[at:moment]:
                disk.apply(operation)
            self._walk = (moment, disk)
            known = self._contents[moment] = content_of(put(disk.whole(), self._place / "whole"))
        return known


def _may_complete(operation: Operation) -> bool:
    """Whether a transaction may have become whole by it: its last frame, or its last page."""
    return isinstance(operation, Write | Truncate) and operation.path.startswith(STATE)


async def _open_and_close(path: Path) -> None:
    store = await open_as_the_product_does(path)
    await store.load_open()
    await store.close()
