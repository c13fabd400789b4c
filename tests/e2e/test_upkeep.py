"""A disk that is really full, and a backup that is really older, between real processes."""

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.processes import ENTRY, TARGET, running, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """90 MiB: room for the database and its reserve, and quickly filled."""
    disk = tmp_path / "disk" / "data"
    disk.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", "size=90m,mode=0750", "tmpfs"]
    if subprocess.run(["mount", *options, str(disk)], capture_output=True, check=False).returncode != 0:
        pytest.skip("a tmpfs can be mounted by root alone")
    yield disk.parent
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.covers("F92")
def test_full_disk_holds_back_entries_and_no_exit_and_ends_by_itself(small_disk: Path, tmp_path: Path) -> None:
    with running(small_disk, queue=str(tmp_path / "queue" / "queue.db")) as pair:
        daemon = pair.daemon
        first = pair.open_bracket("first", "PENDING_ENTRY")
        filling = daemon.data_dir / "filling"
        with pytest.raises(OSError, match="No space left"), filling.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        pair.paper.quote(first, ENTRY)
        daemon.until_state("first", "EXITS_LIVE")
        until(lambda: daemon.told("alarm", code="disk_full"), "the alarm")
        assert not (daemon.data_dir / "state.db-reserve").exists()
        second = pair.paper.spread()
        daemon.submit("second", second.request())
        pair.paper.quote(first, TARGET)
        daemon.until_closed("first")
        assert pair.paper.orders(second) == []
        filling.unlink()
        assert daemon.answered("second")[0] == "ACCEPTED"
        daemon.done("cancel", "ref:second")
        daemon.until_closed("second")
        pair.check_end()


@pytest.mark.covers("F101")
def test_backup_that_is_put_back_sends_nothing_twice_and_takes_entries_once_it_is_adopted(tmp_path: Path) -> None:
    with running(tmp_path) as pair:
        daemon = pair.daemon
        kept = pair.open_bracket("kept", "PENDING_ENTRY")
        saved = tmp_path / "saved.db"
        daemon.done("db", "backup", str(saved))
        pair.paper.quote(kept, ENTRY)
        daemon.until_state("kept", "EXITS_LIVE")
        lost = pair.open_bracket("lost", "PENDING_ENTRY")
        assert daemon.cli("db", "restore", str(saved)).returncode == 75
        daemon.stop()

        daemon.done("db", "restore", str(saved))
        daemon.restart()

        daemon.until_state("kept", "EXITS_LIVE")
        assert daemon.cli("resume").returncode == 4
        refused = daemon.cli("reconcile", "--adopt")
        assert refused.returncode == 4
        assert str(pair.paper.working(lost)[0]["id"]) in refused.stderr
        daemon.done("reconcile", "--adopt", "--cancel")
        assert pair.paper.orders(lost, status="Live") == []
        daemon.done("resume")
        pair.paper.quote(kept, TARGET)
        daemon.until_closed("kept")
        assert pair.paper.doubled() == []
        assert pair.paper.posted_again() == []
        assert pair.paper.positions() == {}
        daemon.done("db", "check")


def test_journals_of_long_closed_brackets_are_archived_and_everything_is_still_known(tmp_path: Path) -> None:
    with running(tmp_path) as pair:
        daemon = pair.daemon
        for ref in ("old", "young"):
            spread = pair.open_bracket(ref)
            pair.paper.quote(spread, TARGET)
            daemon.until_closed(ref)
        shown = json.loads(daemon.done("show", "ref:old", "--json"))
        events, story = daemon.done("events", "ref:old", "--json"), daemon.done("explain", "ref:old", "--offline")
        daemon.stop()
        with closing(sqlite3.connect(daemon.data_dir / "state.db")) as connection:
            connection.execute(
                "UPDATE brackets SET closed_at_us = closed_at_us - 70000000000000 WHERE client_ref = 'old'"
            )
            connection.commit()
        with daemon.queue() as connection:
            connection.execute("UPDATE bracket_requests SET handled_at = '2020-01-01' WHERE client_ref = 'old'")
        daemon.restart()

        done = json.loads(daemon.done("db", "prune", "--json"))
        assert (done["brackets"], done["answers"], len(done["archives"])) == (1, 1, 1)
        assert (daemon.data_dir / "archive" / done["archives"][0]).exists()
        assert daemon.done("events", "ref:old", "--json") == events
        assert daemon.done("explain", "ref:old", "--offline").splitlines()[:-1] == story.splitlines()[:-1]
        archived = json.loads(daemon.done("show", "ref:old", "--json"))
        assert archived.pop("archived")["is_there"] is True
        assert archived == shown
        assert "0 journals archived" in daemon.done("db", "prune")

        # The same key with the same request is still the same bracket.
        with daemon.queue() as connection:
            assert connection.execute("SELECT count(*) FROM bracket_requests").fetchone() == (1,)
        with closing(sqlite3.connect(daemon.data_dir / "state.db")) as connection:
            (text,) = connection.execute("SELECT request FROM accepted_rows WHERE client_ref = 'old'").fetchone()
        daemon.submit("old", json.loads(text))
        assert daemon.answered("old") == ("ACCEPTED", None, shown["bracket_id"])
        daemon.done("db", "check")
        daemon.stop()
        assert daemon.cli("db", "prune").returncode == 75
        assert daemon.done("events", "ref:old", "--json") == events
        (daemon.data_dir / "archive" / done["archives"][0]).unlink()
        assert "is not there" in daemon.cli("db", "check").stderr
        assert "its journal is in" in daemon.done("show", "ref:old")
