"""`otocod service` as typed, into the tree of a system that is not running."""

import io
import json
import shutil
from pathlib import Path

import pytest

from otocod.cli import app, service

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-sysusers") is None, reason="systemd is not installed: it makes users and directories"
)


@needs_systemd
def test_install_makes_files_users_and_directories_and_uninstall_keeps_what_is_the_operators(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["service", "install", "--root", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert f"made     {tmp_path}/etc/systemd/system/otocod.service" in told
    assert "enable --now otocod.service" in told
    assert (tmp_path / "var/lib/otocod-queue").stat().st_mode & 0o7777 == 0o2770
    assert (tmp_path / "etc/credstore").stat().st_mode & 0o7777 == 0o700
    assert (tmp_path / "etc/otocod/otocod.toml").stat().st_mode & 0o7777 == 0o640
    assert "otocod-submit:" in (tmp_path / "etc/group").read_text()
    assert app.run(["service", "install", "--root", str(tmp_path), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {step["done"] for step in again["steps"]} == {"kept", "ran"}
    assert app.run(["service", "uninstall", "--root", str(tmp_path)]) == 0
    assert "/var/lib/otocod: state.db" in capsys.readouterr().out
    assert not list((tmp_path / "etc/systemd/system").iterdir())
    assert (tmp_path / "etc/otocod/otocod.toml").exists()


def test_a_dry_run_says_what_it_would_do_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["service", "install", "--root", str(tmp_path), "--dry-run", "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert {"what": f"systemd-sysusers --root={tmp_path} otocod.conf", "done": "would run"} in steps
    assert list(tmp_path.iterdir()) == []


def test_a_command_of_the_system_that_fails_is_told_with_its_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "systemd-sysusers").write_text("#!/bin/sh\necho 'no room for users' >&2; exit 1\n")
    (tools / "systemd-sysusers").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    assert app.run(["service", "install", "--root", str(tmp_path)]) == 1
    assert "no room for users" in capsys.readouterr().err


def test_a_root_that_is_no_directory_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["service", "install", "--root", str(tmp_path / "none")]) == 2
    assert "is not a directory" in capsys.readouterr().err


def test_a_running_service_is_not_taken_away_without_a_yes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_is_booted", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO("uninstall\n"))
    assert app.run(["service", "uninstall"]) == 4
    assert "--yes" in capsys.readouterr().err
