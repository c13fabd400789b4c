"""Rows that were answered long ago leave the queue file, beside the daily work; no lock of theirs is waited for."""

import asyncio
import sqlite3
import time
from contextlib import closing

import pytest

from tests.integration.queue.conftest import PATIENCE_S, Bench

DAY_US = 86_400_000_000
OLD = "2020-01-01T00:00:00.000Z"


def before_us() -> int:
    return time.time_ns() // 1000 - DAY_US


def grown_old(bench: Bench, count: int) -> None:
    with bench.producer() as connection:
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO bracket_requests (client_ref, account, request, status, bracket_id, handled_at)"
            " VALUES (?, 'a', '{}', 'ACCEPTED', 'b', ?)",
            [(f"old-{number}", OLD) for number in range(count)],
        )
        connection.execute("COMMIT")


async def test_old_answers_go_in_several_turns_and_the_queue_works_on(bench: Bench) -> None:
    await bench.reader.start()
    await bench.works("young")
    grown_old(bench, 950)
    trimming = bench.reader.trim(answered_before_us=before_us())
    await bench.works("beside")
    assert await asyncio.wait_for(trimming, PATIENCE_S) == 950
    left = [row[0] for row in bench.execute("SELECT client_ref FROM bracket_requests ORDER BY id")]
    assert left == ["young", "beside"]
    await bench.works("after")


@pytest.mark.covers("F121")
async def test_locked_file_is_trimmed_when_it_is_free_again(bench: Bench) -> None:
    await bench.reader.start()
    grown_old(bench, 3)
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        trimming = bench.reader.trim(answered_before_us=before_us())
        done, _ = await asyncio.wait([trimming], timeout=0.2)
        assert not done
        holder.execute("ROLLBACK")
    assert await asyncio.wait_for(trimming, PATIENCE_S) == 3


async def test_trimming_ends_unfinished_when_the_reader_stops_and_after_it(bench: Bench) -> None:
    await bench.reader.start()
    grown_old(bench, 3)
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        trimming = bench.reader.trim(answered_before_us=before_us())
        assert await bench.reader.stop()
        holder.execute("ROLLBACK")
    assert await asyncio.wait_for(trimming, PATIENCE_S) is None
    assert await bench.reader.trim(answered_before_us=before_us()) is None
    assert len(bench.execute("SELECT 1 FROM bracket_requests")) == 3
