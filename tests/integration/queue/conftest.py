"""A reader at work on a queue of its own, with everything it says kept in order."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from otocod.adapters.queue import landlock, wake
from otocod.adapters.queue.reader import QueueReader
from otocod.adapters.queue.rows import Answer, AnswerStatus, BadRow, HandedRow, QueueRow
from otocod.adapters.queue.worker import AlarmKind, QueueAlarm, Settings

PATIENCE_S = 5.0


class Bench:
    """rows and alarms: what the reader handed over, in order, not yet taken by the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: asyncio.Queue[HandedRow] = asyncio.Queue()
        self.batches: list[int] = []
        self.alarms: asyncio.Queue[QueueAlarm] = asyncio.Queue()
        self.reader = self.new_reader()

    def new_reader(
        self, settings: Settings | None = None, confine: Callable[[int], object] | None = landlock.confine_thread
    ) -> QueueReader:
        self.reader = QueueReader(
            self.path, on_batch=self._take, on_alarm=self.alarms.put_nowait, settings=settings, confine=confine
        )
        return self.reader

    def _take(self, batch: Sequence[HandedRow]) -> None:
        self.batches.append(len(batch))
        for row in batch:
            self.rows.put_nowait(row)

    async def row(self) -> QueueRow:
        row = await asyncio.wait_for(self.rows.get(), PATIENCE_S)
        assert isinstance(row, QueueRow), row
        return row

    async def bad_row(self) -> BadRow:
        row = await asyncio.wait_for(self.rows.get(), PATIENCE_S)
        assert isinstance(row, BadRow), row
        return row

    async def alarm(self, kind: AlarmKind) -> QueueAlarm:
        alarm = await asyncio.wait_for(self.alarms.get(), PATIENCE_S)
        assert alarm.kind is kind, alarm
        return alarm

    @contextmanager
    def producer(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=PATIENCE_S)) as connection:
            yield connection

    def insert(self, client_ref: object, request: object = "{}") -> int:
        with self.producer() as connection:
            sql = "INSERT INTO bracket_requests (client_ref, account, request) VALUES (?, 'a', ?)"
            return connection.execute(sql, (client_ref, request)).lastrowid or 0

    def execute(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        with self.producer() as connection:
            return connection.execute(sql, values).fetchall()

    def wake(self) -> bool:
        directory_fd = os.open(self.path.parent, os.O_PATH)
        try:
            return wake.send(directory_fd)
        finally:
            os.close(directory_fd)

    def aside(self) -> list[str]:
        return sorted(entry.name for entry in self.path.parent.iterdir() if ".aside-" in entry.name)

    async def works(self, client_ref: str = "probe") -> None:
        """A row submitted now is handed over and answered."""
        row_id = self.insert(client_ref)
        row = await self.row()
        assert (row.id, row.client_ref) == (row_id, client_ref)
        await asyncio.wait_for(self.reader.answer([accepted(row)]), PATIENCE_S)
        assert self.execute("SELECT status FROM bracket_requests WHERE id = ?", row_id) == [("ACCEPTED",)]


async def until(condition: Callable[[], bool]) -> None:
    """For what nobody announces: a file that appears, a thread that stands still."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


def accepted(row: HandedRow) -> Answer:
    return Answer(row.id, row.client_ref, AnswerStatus.ACCEPTED, None, f"bracket-{row.id}")


def rejected(row: HandedRow, reason: str) -> Answer:
    return Answer(row.id, row.client_ref, AnswerStatus.REJECTED, reason, None)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    directory = tmp_path / "queue"
    directory.mkdir(mode=0o700)
    bench = Bench(directory / "queue.db")
    yield bench
    assert await bench.reader.stop()
