"""`otocod replay`: what it says, and its exit status."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otocod.adapters.sqlite.replay import load, save
from otocod.cli import app
from tests.journals.__main__ import RECORDED

FILE = sorted(RECORDED.glob("*.jsonl"))[0]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def call(*argv: str) -> tuple[int, str]:
        status = app.run(["replay", *argv])
        return status, capsys.readouterr().out

    return call


Run = Callable[..., tuple[int, str]]


def changed(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> str:
    recording = dict(load(FILE))
    recording.pop("otocod-journal")
    change(recording)
    save(recording, tmp_path / "changed")
    return str(tmp_path / "changed")


def test_journal_that_is_decided_the_same_again_is_said_to_be_and_ends_with_0(run: Run) -> None:
    status, out = run("--file", str(FILE))
    assert status == 0
    assert "decisions, all the same, and they lead to the record that is stored" in out
    status, out = run("--file", str(FILE), "--json")
    told = json.loads(out)
    assert (status, told["same"], told["first_difference"], told["unrecorded"], told["astray"]) == (
        0,
        True,
        None,
        None,
        [],
    )


def test_first_decision_that_differs_is_told_with_what_was_and_what_is_and_ends_with_1(
    run: Run, tmp_path: Path
) -> None:
    def otherwise(recording: dict[str, Any]) -> None:
        recording["journal"][0]["detail"] = "for another reason"

    status, out = run("--file", changed(tmp_path, otherwise))
    assert status == 1
    lines = out.splitlines()
    assert "decision 1 (journal " in lines[0] and "is another one now" in lines[0]
    assert lines[1].startswith("  told      Accepted {")
    assert lines[2].startswith("  recorded  BracketAccepted") and lines[2].endswith("for another reason")
    assert lines[3].startswith("  now       BracketAccepted")


def test_record_beside_its_journal_is_told_and_ends_with_1(run: Run, tmp_path: Path) -> None:
    status, out = run("--file", changed(tmp_path, lambda recording: recording["bracket"].update(unprotected_us=7)))
    assert status == 1
    assert "differs in unprotected_us" in out


def test_rows_of_an_earlier_release_are_said_to_hold_too_little_and_end_with_0(run: Run, tmp_path: Path) -> None:
    def old(recording: dict[str, Any]) -> None:
        recording["journal"][0]["payload_json"] = "[]"

    status, out = run("--file", changed(tmp_path, old))
    assert status == 0
    assert "not to be decided again" in out and "did not record" in out


def test_file_that_is_no_recording_is_named(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f").write_text("nothing")
    assert app.run(["replay", "--file", str(tmp_path / "f")]) == 1
    assert "no recording of a journal" in capsys.readouterr().err
