"""The unit's own command, directories, credentials and policy, with the real daemon.

Under a manager that speaks systemd's protocol; the real systemd has its turn in `make systemd-proof`.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from otocod.adapters import service_files
from tests.support.processes import ACCOUNT, CLIENT_SECRET, REFRESH_TOKEN, Paper, until
from tests.support.servicemanager import ServiceManager, Unit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

_WATCHDOG_S = 1.5


@contextmanager
def managed(directory: Path, paper: Paper | None, **settings: str) -> Iterator[ServiceManager]:
    """The service as installed into a tree, with systemd's directories made as the unit wants them."""
    state, runtime = directory / "S", directory / "t"
    for place in (state / "otocod", runtime / "otocod"):
        place.mkdir(parents=True, mode=0o750)
    (state / "otocod-queue").mkdir()
    (state / "otocod-queue").chmod(0o2770)
    executable = Path(sys.executable).with_name("otocod")
    for file in service_files.service_files(directory, str(executable), 256):
        service_files.put(file, dry_run=False)
    environ = {f"OTOCOD_{name.upper()}": value for name, value in settings.items()}
    if paper is not None:
        environ |= {"OTOCOD_ENVIRONMENT": "paper", "OTOCOD_ACCOUNTS": ACCOUNT}
        environ |= {"OTOCOD_API_URL": paper.api_url, "OTOCOD_STREAMER_URL": paper.streamer_url}
    manager = ServiceManager(
        Unit(directory / "etc/systemd/system/otocod.service", state=state, runtime=runtime),
        directory,
        credentials={"otocod-client-secret": CLIENT_SECRET, "otocod-refresh-token": REFRESH_TOKEN},
        environ=environ,
        watchdog_s=_WATCHDOG_S,
    )
    with closing(manager):
        manager.start()
        yield manager


def ready(manager: ServiceManager) -> None:
    until(lambda: manager.is_ready, manager.log.read_text)


@pytest.mark.covers("F86")
def test_the_unit_runs_the_daemon_restarts_it_watches_it_and_stops_it(tmp_path: Path) -> None:
    with closing(Paper()) as paper, managed(tmp_path, paper) as manager:
        ready(manager)
        assert (tmp_path / "S/otocod/state.db").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "S/otocod-queue/queue.db").stat().st_mode & 0o777 == 0o660
        assert (tmp_path / "t/otocod/otocod.sock").stat().st_mode & 0o777 == 0o660

        assert manager.process is not None
        manager.process.kill()
        until(lambda: manager.statuses == [-signal.SIGKILL] and manager.is_ready, manager.log.read_text)

        manager.process.send_signal(signal.SIGSTOP)
        until(lambda: manager.watchdog_kills == 1 and len(manager.statuses) == 2, manager.log.read_text)
        ready(manager)

        manager.reload()
        until(lambda: "READY=1" in manager.told, lambda: manager.told)
        assert manager.told.index("RELOADING=1") < manager.told.index("READY=1")
        assert any(line.startswith("MONOTONIC_USEC=") for line in manager.told)

        status, took_s = manager.stop()
        assert (status, manager.told[-1]) == (0, "STOPPING=1")
        assert took_s < 10
        log = manager.log.read_text()
        assert CLIENT_SECRET not in log
        assert REFRESH_TOKEN not in log


def test_a_broker_that_is_away_gets_nobody_killed_and_nobody_ready_but_a_hang_is_noticed(tmp_path: Path) -> None:
    with closing(Paper()) as paper:
        os.kill(paper.process.pid, signal.SIGSTOP)
        try:
            with managed(tmp_path, paper) as manager:
                signs = "WATCHDOG=1"
                # So many signs take several times the watchdog's patience.
                until(lambda: manager.told.count(signs) > 6, manager.log.read_text)
                assert (manager.is_ready, manager.watchdog_kills, manager.statuses) == (False, 0, [])
                assert manager.process is not None
                manager.process.send_signal(signal.SIGSTOP)
                until(lambda: manager.watchdog_kills == 1, manager.log.read_text)
                os.kill(paper.process.pid, signal.SIGCONT)
                ready(manager)
        finally:
            os.kill(paper.process.pid, signal.SIGCONT)


def test_settings_that_cannot_be_used_are_not_tried_again(tmp_path: Path) -> None:
    with managed(tmp_path, None, environment="paper") as manager:
        until(lambda: manager.is_failed, manager.log.read_text)
        assert manager.statuses == [78]
        assert "accounts: missing" in manager.log.read_text()
