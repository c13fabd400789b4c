"""The submitter's side."""

import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from otocod.adapters.queue.init import init_queue
from otocod.adapters.queue.producer import (
    DuplicateClientRefError,
    QueueUnusableError,
    row,
    rows,
    submit_row,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "queue" / "queue.db"
    init_queue(path, group=None)
    return path


def test_a_submitted_row_is_new_and_the_daemon_is_woken(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        directory_fd = os.open(path.parent, os.O_PATH)
        daemon.bind(f"/proc/self/fd/{directory_fd}/wake")
        os.close(directory_fd)
        row_id = submit_row(path, client_ref="one", account="a", request="{}")
        daemon.settimeout(5)
        assert daemon.recv(10)
    found = row(path, "one")
    assert found is not None
    assert (found.id, found.status, found.request) == (row_id, "NEW", "{}")


def test_without_a_daemon_the_row_is_there_all_the_same(path: Path) -> None:
    for name in ("one", "two", "three"):
        submit_row(path, client_ref=name, account="a", request="{}")
    assert [found.client_ref for found in rows(path)] == ["one", "two", "three"]
    assert [found.client_ref for found in rows(path, limit=2)] == ["two", "three"]
    assert rows(path, status="ACCEPTED") == []
    assert row(path, "four") is None


@pytest.mark.covers("F105")
def test_a_second_row_of_the_same_key_is_refused_by_name(path: Path) -> None:
    submit_row(path, client_ref="one", account="a", request="{}")
    with pytest.raises(DuplicateClientRefError, match="'one'"):
        submit_row(path, client_ref="one", account="b", request="{}")


def test_a_missing_file_is_not_made_but_explained(tmp_path: Path) -> None:
    with pytest.raises(QueueUnusableError, match="otocod queue init"):
        submit_row(tmp_path / "queue.db", client_ref="one", account="a", request="{}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.covers("F125")
@pytest.mark.parametrize("name", ["queue.db", "queue.db-journal"])
def test_a_fifo_is_not_opened(path: Path, name: str) -> None:
    path.with_name(name).unlink(missing_ok=True)
    os.mkfifo(path.with_name(name))
    with pytest.raises(QueueUnusableError, match="not a regular file"):
        submit_row(path, client_ref="one", account="a", request="{}")


def test_a_lock_held_too_long_is_an_error_and_no_row(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            submit_row(path, client_ref="one", account="a", request="{}", busy_timeout_s=0.0)
        holder.execute("COMMIT")
    assert rows(path) == []
