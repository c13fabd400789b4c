"""A disk that is really full, and a backup that is really older, between real processes."""

import subprocess
from collections.abc import Iterator
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
