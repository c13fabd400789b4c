"""The unit files, judged by systemd itself and by what the daemon needs of them."""

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from otocod.adapters import service_files
from otocod.alarms import ALARMS
from otocod.cli.failure import ExitStatus
from otocod.config import CREDENTIALS

UNITS = service_files.packaged_directory()
EXPOSURE_MAX = 1.5

DAEMON = "otocod.service"
analyze = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(analyze is None, reason="systemd-analyze is not installed: only it can judge units")


def run(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    assert analyze is not None
    command = [analyze, *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=50, check=False)


def systemd_version(directory: Path) -> int:
    match = re.match(r"systemd (\d+)", run("--version", directory=directory).stdout)
    assert match is not None
    return int(match[1])


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """As the installation writes them for this systemd, with a command that exists here."""
    for file in service_files.service_files(tmp_path, "/bin/true", systemd_version(tmp_path)):
        service_files.put(file, dry_run=False)
    return tmp_path / "etc/systemd/system"


@needs_systemd
def test_systemd_has_nothing_to_say_against_any_unit(units: Path) -> None:
    names = [path.name.replace("@.", "@otocod.service.") for path in units.iterdir()]
    assert len(names) >= 6
    found = run("verify", "--man=no", *(f"./{name}" for name in names), directory=units)
    # systemd reads every unit of the machine along; what is wrong with those is not ours.
    said = [line for line in (found.stdout + found.stderr).splitlines() if "otocod" in line]
    assert said == []


@needs_systemd
def test_systemd_would_notice_a_wrong_unit(units: Path) -> None:
    service = units / "otocod.service"
    service.write_text(service.read_text().replace("ProtectSystem=strict", "ProtectSystem=maybe\nNoSuchKey=1"))
    found = run("verify", "--man=no", "./otocod.service", directory=units)
    assert "NoSuchKey" in found.stdout + found.stderr


@needs_systemd
@pytest.mark.parametrize("name", ["otocod", "otocod-backup", "otocod-audit", "otocod-alert@"])
def test_every_service_is_little_exposed(units: Path, name: str) -> None:
    found = run("security", "--offline=yes", "--no-pager", f"./{name}.service", directory=units)
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", found.stdout)
    assert exposure is not None, found.stderr
    assert float(exposure[1]) <= EXPOSURE_MAX, found.stdout


def keys_of(name: str) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = defaultdict(list)
    for line in (UNITS / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            keys[key].append(value)
    return keys


def test_the_daemon_is_restarted_but_for_what_would_happen_again() -> None:
    keys = keys_of("otocod.service")
    assert keys["Type"] == ["notify"]
    assert keys["NotifyAccess"] == ["main"]
    assert keys["Restart"] == ["always"]
    assert keys["RestartPreventExitStatus"] == ["2 4 78"]
    assert keys["StartLimitIntervalSec"] == ["0"]
    # A refused log-in is waited out for hours; the process must not be ended for it.
    assert keys["TimeoutStartSec"] == ["infinity"]
    assert int(keys["TimeoutStopSec"][0]) > 10
    assert int(keys["WatchdogSec"][0]) > 0
    first_s, last_s = int(keys["RestartSec"][0]), int(keys["RestartMaxDelaySec"][0])
    assert first_s <= 5 < last_s
    assert int(keys["RestartSteps"][0]) > 1


def test_a_failed_unit_is_told_to_a_person_and_again_until_somebody_takes_it() -> None:
    keys = keys_of("otocod-alert@.service")
    assert keys["ExecStart"][0].startswith(f"{service_files.PACKAGED_EXECUTABLE} alerts raise unit_failed ")
    assert ALARMS["unit_failed"].is_outside
    # Without its credentials it could only log.
    assert set(keys["LoadCredential"]) == {name for key, name in CREDENTIALS.items() if "alerts." in key} - {
        CREDENTIALS["alerts.deadman_url"]
    }
    assert keys["Restart"] == ["on-failure"]
    prevented = {int(status) for status in keys["RestartPreventExitStatus"][0].split()}
    assert prevented == {ExitStatus.FAILED, ExitStatus.USAGE, ExitStatus.CONFIGURATION}
    assert keys["StartLimitIntervalSec"] == ["0"]
    assert "AF_INET" in keys["RestrictAddressFamilies"][0]


def test_an_older_systemd_is_not_given_what_it_does_not_know() -> None:
    def daemon(version: int) -> str:
        (file,) = [f for f in service_files.service_files(Path("/"), "/x/otocod", version) if f.path.name == DAEMON]
        return file.text

    assert "RestartSteps=" not in daemon(252)
    assert "RestartSteps=" in daemon(254)
    assert "ExecStart=/x/otocod run\n" in daemon(252)


@pytest.mark.covers("F118")
def test_the_daemon_gets_its_secrets_as_credentials_and_leaves_no_core_dump() -> None:
    keys = keys_of("otocod.service")
    assert set(keys["LoadCredential"]) == set(CREDENTIALS.values())
    assert keys["LimitCORE"] == ["0"]
    assert not [value for value in keys["Environment"] if "SECRET" in value or "TOKEN" in value]


@pytest.mark.covers("F124")
def test_lines_of_the_daemon_are_bounded_in_the_journal() -> None:
    keys = keys_of("otocod.service")
    assert keys["LogRateLimitIntervalSec"] == ["10s"]
    # An ordinary burst, a thousand brackets that open, protect and close, fits in.
    assert 5_000 <= int(keys["LogRateLimitBurst"][0]) <= 50_000
    assert "StandardError" not in keys, "a file of its own would have no bound"


def test_the_queue_thread_can_be_confined() -> None:
    keys = keys_of("otocod.service")
    allowed = " ".join(value for value in keys["SystemCallFilter"] if not value.startswith("~")).split()
    assert {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"} <= set(allowed)


def test_the_queue_is_apart_from_the_data_and_belongs_to_the_submitters() -> None:
    keys = keys_of("otocod.service")
    places = dict(value.split("=", 1) for value in keys["Environment"])
    queue, data = Path(places["OTOCOD_QUEUE"]).parent, Path(places["OTOCOD_DATA_DIR"])
    assert data not in (queue, *queue.parents)
    assert keys["ReadWritePaths"] == [str(queue)]
    directory = str(queue).replace("%S", "/var/lib")
    assert f"d {directory} 2770 otocod otocod-submit -" in (UNITS / "otocod.tmpfiles.conf").read_text().splitlines()
    made = (UNITS / "otocod.sysusers.conf").read_text().splitlines()
    assert "g otocod-submit -" in made
    # Without the membership the kernel would take the setgid bit away when the daemon sets the directory's mode.
    assert "m otocod otocod-submit" in made


@pytest.mark.parametrize("name", ["otocod-backup", "otocod-audit"])
def test_upkeep_finds_the_daemon_and_alerts_when_it_fails(name: str) -> None:
    daemon, keys = keys_of("otocod.service"), keys_of(f"{name}.service")
    assert set(keys["Environment"]) <= set(daemon["Environment"])
    assert keys["User"] == daemon["User"]
    assert keys["OnFailure"] == daemon["OnFailure"] == ["otocod-alert@%n.service"]
    # The directory is removed when a unit that names it stops: the daemon's socket with it.
    assert "RuntimeDirectory" not in keys
    assert keys_of(f"{name}.timer")["WantedBy"] == ["timers.target"]
