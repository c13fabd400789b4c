"""When the reader may leave the queue file alone: only when its stamps prove that nobody has written to it."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from otocod.adapters.queue.file import QueueFile
from otocod.adapters.queue.init import init_queue

AN_HOUR_NS = 3_600_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "queue" / "queue.db"
    init_queue(path, group=None)
    return path


@pytest.fixture
def queue_file(path: Path) -> Iterator[QueueFile]:
    directory_fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    queue_file = QueueFile(path, directory_fd)
    queue_file.open(lambda moved: None)
    yield queue_file
    queue_file.close()
    os.close(directory_fd)


@pytest.fixture
def an_hour_later(monkeypatch: pytest.MonkeyPatch) -> None:
    written_ns = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: written_ns + AN_HOUR_NS)


def look(queue_file: QueueFile) -> None:
    queue_file.check()
    assert queue_file.connection is not None
    queue_file.connection.data_version()
    queue_file.note_looked()


def insert(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO bracket_requests (client_ref, account, request) VALUES ('a', 'b', '{}')")


@pytest.mark.usefixtures("an_hour_later")
def test_a_file_that_has_rested_is_untouched_until_somebody_commits(path: Path, queue_file: QueueFile) -> None:
    look(queue_file)
    assert queue_file.is_untouched()
    insert(path)
    assert not queue_file.is_untouched()
    look(queue_file)
    assert queue_file.is_untouched()


def test_a_file_written_within_one_tick_of_the_look_is_never_called_untouched(
    path: Path, queue_file: QueueFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commits may carry one stamp: the second would stay unseen."""
    insert(path)
    stamp_ns = path.stat().st_mtime_ns
    monkeypatch.setattr(time, "time_ns", lambda: stamp_ns + 10_000_000)
    look(queue_file)
    assert not queue_file.is_untouched()


@pytest.mark.usefixtures("an_hour_later")
def test_a_producer_that_sets_the_time_back_after_its_commit_is_seen(path: Path, queue_file: QueueFile) -> None:
    look(queue_file)
    before = path.stat()
    insert(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert not queue_file.is_untouched()


@pytest.mark.usefixtures("an_hour_later")
def test_a_check_without_a_look_proves_nothing(path: Path, queue_file: QueueFile) -> None:
    look(queue_file)
    insert(path)
    queue_file.check()
    assert not queue_file.is_untouched()


@pytest.mark.usefixtures("an_hour_later")
def test_a_journal_put_beside_a_file_at_rest_is_noticed(path: Path, queue_file: QueueFile) -> None:
    look(queue_file)
    path.with_name("queue.db-journal").write_bytes(b"")
    assert not queue_file.is_untouched()


@pytest.mark.usefixtures("an_hour_later")
def test_a_file_that_was_replaced_or_removed_is_not_untouched(path: Path, queue_file: QueueFile) -> None:
    look(queue_file)
    path.rename(path.with_name("elsewhere"))
    assert not queue_file.is_untouched()
    path.with_name("elsewhere").rename(path)
    look(queue_file)
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.rename(path)
    assert not queue_file.is_untouched()
