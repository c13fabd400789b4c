"""`otocod web token`, as typed."""

import json
from pathlib import Path

import pytest

from otocod.adapters.web.entry import token_in
from otocod.cli import app
from tests.unit.cli.test_app import data_dir

__all__ = ["data_dir"]


def test_token_is_printed_from_its_file(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_dir.mkdir()
    made = token_in(data_dir / "web-token")
    assert app.run(["web", "token"]) == 0
    assert capsys.readouterr().out == f"{made}\n"
    assert app.run(["web", "token", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"token": made}


def test_credential_goes_first(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir.mkdir()
    token_in(data_dir / "web-token")
    (tmp_path / "otocod-web-token").write_text("a-credential-of-its-own\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert app.run(["web", "token"]) == 0
    assert capsys.readouterr().out == "a-credential-of-its-own\n"


def test_missing_open_or_damaged_token_is_said_with_what_to_do(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["web", "token"]) == 1
    assert "web.port" in capsys.readouterr().err
    data_dir.mkdir()
    path = data_dir / "web-token"
    path.write_text("x" * 40)
    path.chmod(0o644)
    assert app.run(["web", "token"]) == 1
    assert "chmod 0600" in capsys.readouterr().err
    path.unlink()
    path.symlink_to("/etc/hostname")
    assert app.run(["web", "token"]) == 1
    assert "cannot be read" in capsys.readouterr().err
