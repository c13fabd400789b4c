"""What the kernel tells of the queue's directory, and what is made of it."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from otocod.adapters.queue.init import init_queue
from otocod.adapters.queue.watch import DirectoryWatch, Stir


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "queue" / "queue.db"
    init_queue(path, group=None)
    return path


@pytest.fixture
def watch(path: Path) -> Iterator[DirectoryWatch]:
    directory_fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    watch = DirectoryWatch(directory_fd, path.name)
    yield watch
    watch.close()
    os.close(directory_fd)


def begin_insert(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO bracket_requests (client_ref, account, request) VALUES ('a', 'b', '{}')")


def test_a_transaction_stirs_while_it_runs_and_is_over_when_its_journal_is_gone(
    path: Path, watch: DirectoryWatch
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        begin_insert(connection)
        assert watch.drain() is Stir.BEGUN
        connection.execute("COMMIT")
        assert watch.drain() is Stir.ENDED
        assert watch.drain() is Stir.NONE


def test_a_producer_that_keeps_its_journal_file_stirs_all_the_same(path: Path, watch: DirectoryWatch) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=PERSIST")
        begin_insert(connection)
        connection.execute("COMMIT")
        assert watch.drain() is Stir.BEGUN


def test_a_file_put_in_the_place_of_the_queue_or_beside_it_stirs(path: Path, watch: DirectoryWatch) -> None:
    path.with_name("queue.db-wal").write_bytes(b"")
    assert watch.drain() is Stir.BEGUN
    path.with_name("copy").write_bytes(b"")
    assert watch.drain() is Stir.NONE
    path.with_name("copy").rename(path)
    assert watch.drain() is Stir.BEGUN


def test_reading_the_queue_stirs_nothing(path: Path, watch: DirectoryWatch) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM bracket_requests").fetchone() == (0,)
    assert watch.drain() is Stir.NONE
