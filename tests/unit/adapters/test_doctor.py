"""Doctor: each thing that must be right, made wrong, is named together with what mends it."""

import ast
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from otocod.adapters import doctor
from otocod.adapters.doctor import Surroundings, alert_checks, surroundings_checks, systemd_state
from otocod.adapters.sqlite.check import sqlite_note
from otocod.ports.admin import JsonObject

SYSTEMD = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "20000000"}


@pytest.fixture
def place(tmp_path: Path) -> Surroundings:
    """As the daemon leaves it after a start, in production, with a fresh backup."""
    data_dir, credentials = tmp_path / "data", tmp_path / "credentials"
    queue = data_dir / "queue" / "queue.db"
    for directory, mode in ((data_dir, 0o750), (queue.parent, 0o2770), (credentials, 0o700)):
        directory.mkdir()
        directory.chmod(mode)
    files = {
        data_dir / "state.db": 0o600,
        data_dir / "lock": 0o600,
        data_dir / "state-20261122T000000Z.db": 0o600,
        queue: 0o660,
        credentials / "otocod-client-secret": 0o400,
        tmp_path / "otocod.toml": 0o640,
    }
    for path, mode in files.items():
        path.touch()
        path.chmod(mode)
    return Surroundings(data_dir, queue, data_dir / "otocod.sock", True, credentials, tmp_path / "otocod.toml")


def bad(place: Surroundings, environ: dict[str, str] | None = None) -> list[JsonObject]:
    found = surroundings_checks(place, SYSTEMD if environ is None else environ)
    for each in found:
        assert set(each) == {"check", "ok", "detail", "remedy"}
        assert bool(each["remedy"]) is not each["ok"], each
    return [each for each in found if not each["ok"]]


def test_a_sound_installation_has_nothing_wrong(place: Surroundings) -> None:
    assert bad(place) == []


@pytest.mark.covers("F119", "F95")
@pytest.mark.parametrize(
    ("spoil", "check", "words"),
    [
        (lambda p: p.data_dir.chmod(0o755), "file modes", "chmod 0750"),
        (lambda p: (p.data_dir / "state.db").chmod(0o644), "file modes", "chmod 0600"),
        (lambda p: p.queue.chmod(0o666), "file modes", "chmod 0660"),
        (lambda p: p.queue.parent.chmod(0o2777), "file modes", "chmod 2770"),
        (lambda p: (p.credentials / "otocod-client-secret").chmod(0o440), "file modes", "chmod 0400"),
        (lambda p: p.config.chmod(0o666), "file modes", "chmod go-w"),
        (lambda p: os.link(p.queue, p.queue.parent / "other"), "queue", "rm "),
        (lambda p: (p.data_dir / "state-20261122T000000Z.db").unlink(), "backup", "otocod db backup"),
        (lambda p: os.utime(p.data_dir / "state-20261122T000000Z.db", (1, 1)), "backup", "otocod-backup.timer"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(
    place: Surroundings, spoil: Callable[[Surroundings], object], check: str, words: str
) -> None:
    spoil(place)
    (found,) = bad(place)
    assert found["check"] == check
    assert words in found["remedy"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_owner_is_named(place: Surroundings) -> None:
    os.chown(place.data_dir / "lock", 12345, -1)
    (found,) = bad(place)
    assert (found["check"], "chown 0 " in found["remedy"]) == ("file modes", True)


@pytest.mark.parametrize(("blocks", "inodes", "is_ok"), [(10**9, 10**6, True), (1000, 10**6, False), (10**9, 5, False)])
def test_disk_space_counts_blocks_and_inodes(
    place: Surroundings, monkeypatch: pytest.MonkeyPatch, blocks: int, inodes: int, is_ok: bool
) -> None:
    space = SimpleNamespace(f_bavail=blocks, f_frsize=4096, f_files=10**6, f_favail=inodes)
    monkeypatch.setattr(doctor.os, "statvfs", lambda path: space)  # type: ignore[attr-defined]
    assert [each["check"] for each in bad(place)] == ([] if is_ok else ["disk space"])


def test_nothing_is_made_and_nothing_is_wrong_before_the_first_start(tmp_path: Path) -> None:
    place = Surroundings(tmp_path / "d", tmp_path / "d" / "q" / "queue.db", tmp_path / "d" / "s", False, None, None)
    assert bad(place, {}) == []
    assert list(tmp_path.iterdir()) == []


def test_production_wants_systemd_and_its_watchdog() -> None:
    assert systemd_state(SYSTEMD, is_wanted=True)["ok"]
    assert not systemd_state({}, is_wanted=True)["ok"]
    assert systemd_state({}, is_wanted=False)["ok"]
    assert "WatchdogSec" in systemd_state({"NOTIFY_SOCKET": "/run/n"}, is_wanted=False)["remedy"]


def test_production_wants_somebody_to_hear_of_alarms() -> None:
    def oks(*channels: str, **more: object) -> list[bool]:
        settings = {"has_deadman": True, "late": None, "is_production": True} | more
        return [each["ok"] for each in alert_checks(channels, **settings)]  # type: ignore[arg-type]

    assert oks("email") == [True, True]
    assert oks() == [False, True]
    assert oks(is_production=False, has_deadman=False) == [True, True]
    assert oks("email", has_deadman=False) == [True, False]
    assert oks("email", late="email: SMTP 451") == [False, True]


@pytest.mark.covers("F98")
@pytest.mark.parametrize(
    ("version", "is_affected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
    ],
)
def test_versions_with_the_wal_reset_fault_are_known(version: tuple[int, int, int], is_affected: bool) -> None:
    assert (sqlite_note(version) is not None) is is_affected


ROOT = Path(__file__).parents[3]
CHECKING = ("otocod/bootstrap.py", "otocod/engine/health.py", "otocod/adapters/doctor.py", "otocod/cli/upkeep.py")


def names_of_checks() -> set[str]:
    found: set[str] = set()
    for file in CHECKING:
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("check", "_check"):
                assert isinstance(node.args[0], ast.Constant) or ast.unparse(node.args[0]) == "name", ast.unparse(node)
                if isinstance(node.args[0], ast.Constant):
                    found.add(str(node.args[0].value))
    return found


def test_manual_lists_every_check_and_no_other() -> None:
    text = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    section = text.split("## Doctor")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (?!check |---)(.+?) \|", section, re.MULTILINE)
    listed = [name for cell in cells for name in cell.split(", ")]
    assert len(listed) == len(set(listed))
    assert set(listed) == names_of_checks()
