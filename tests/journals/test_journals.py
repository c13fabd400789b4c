"""Recorded journals lead to the same decisions, and a journal that does not is told with its first step that differs.

The recordings are of simulated brackets under faults (`make journals`). Where a test here fails, a decision changed:
either that is a mistake, or the commit says why it had to and records anew.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from otocod.adapters.sqlite.journal import COMMANDS, EVENTS
from otocod.adapters.sqlite.replay import RecordingUnreadable, load, replay, save
from otocod.domain import steps
from otocod.domain.brackets import Bracket
from otocod.domain.decide import decide_all
from otocod.domain.decisions import Decision
from otocod.domain.steps import Told
from otocod.engine import mailbox
from tests.journals.__main__ import RECORDED, features_of, recorded
from tests.simulation.plan import SQLITE_EVERY
from tests.simulation.runner import run_seed

FILES = sorted(RECORDED.glob("*.jsonl"))
# What no simulated bracket of the recordings is told or asks for, and a test of the core is.
NOT_RECORDED = {
    "BestPriceHeld",
    "CancelLost",
    "HoursResolved",
    "LostIdentifiersFound",
    "QuoteMissing",
    "SubmitDenied",
    "TimeExitResolved",
    "AttentionAcknowledged",
    "UnfreezeRequested",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_recorded_journal_leads_to_the_same_decisions(file: Path) -> None:
    found = replay(load(file))
    assert found.difference is None
    assert found.unrecorded is None
    assert found.astray == ()
    assert found.beliefs


def test_recordings_hold_nearly_every_kind_of_event_and_command() -> None:
    told = frozenset[str]().union(*(features_of(load(file)) for file in FILES))
    missing = {name for name in EVENTS if f"event {name}" not in told}
    missing |= {name for name in COMMANDS if f"command {name}" not in told}
    assert missing <= NOT_RECORDED


@pytest.mark.filterwarnings("ignore:coroutine 'SimBroker")
@pytest.mark.parametrize("seed", range(40_100, 40_108))
def test_journal_of_any_simulated_bracket_leads_to_the_record_that_is_stored(seed: int) -> None:
    for _, recording in recorded([seed]):
        found = replay(recording)
        assert (found.difference, found.unrecorded, found.astray) == (None, None, ())


def a_recording() -> dict[str, Any]:
    """The longest: its bracket filled and had exits."""
    return copy.deepcopy(dict(load(max(FILES, key=lambda file: len(file.read_text().splitlines())))))


def test_command_that_is_another_one_now_is_told_with_the_first_decision_that_asks_for_it() -> None:
    recording = a_recording()
    number = 0
    for row in recording["journal"]:
        stored = json.loads(row["payload_json"] or "[]")
        for step in stored:
            number += 1
            asked = [each for each in step["asked"] if each["command"] in ("SubmitOrder", "SubmitComplex")]
            if number > 1 and asked:
                asked[0]["fields"]["after_commit"] ^= True
                row["payload_json"] = json.dumps(stored)
                found = replay(recording)
                assert found.difference is not None
                assert (found.difference.number, found.difference.seq) == (number, row["seq"])
                assert found.difference.recorded != found.difference.now
                assert found.difference.told
                assert len(found.beliefs) == number - 1
                return
    raise AssertionError("no bracket without an exit was chosen")


def test_line_of_the_journal_that_is_another_one_now_is_told() -> None:
    recording = a_recording()
    row = recording["journal"][-1]
    moves = [row for row in recording["journal"] if row["from_state"] != row["to_state"]]
    row = moves[-1]
    row["detail"] = "for another reason"
    found = replay(recording)
    assert found.difference is not None
    assert any("for another reason" in line for line in found.difference.recorded)
    assert not any("for another reason" in line for line in found.difference.now)


def test_code_that_decides_otherwise_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(bracket: Bracket, events: Any, now_us: int) -> Decision:
        return Decision(decide_all(bracket, events, now_us).bracket)

    monkeypatch.setattr(steps, "decide_all", forgetful)
    assert replay(a_recording()).difference is not None


def test_code_that_cannot_decide_at_all_is_a_difference_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(bracket: Bracket, events: Any, now_us: int) -> Decision:
        raise RuntimeError("planted")

    monkeypatch.setattr(steps, "decide_all", broken)
    found = replay(a_recording()).difference
    assert found is not None
    assert found.now == ("no decision: RuntimeError('planted')",)


def test_stored_record_that_its_journal_does_not_lead_to_is_named_field_by_field() -> None:
    recording = a_recording()
    recording["bracket"]["unprotected_us"] += 1
    found = replay(recording)
    assert found.difference is None
    assert found.astray == ("unprotected_us",)
    assert not found.is_same


def test_rows_of_a_release_that_did_not_record_its_inputs_are_said_plainly_and_are_no_failure() -> None:
    recording = a_recording()
    for row in recording["journal"]:
        if row["payload_json"] is not None:
            told = [each for step in json.loads(row["payload_json"]) for each in step.get("told", ())]
            row["payload_json"] = json.dumps(told)
    found = replay(recording)
    assert found.is_same
    assert found.beliefs == ()
    assert found.unrecorded is not None
    assert f"journal {recording['journal'][0]['seq']} was written by a release" in found.unrecorded


def test_step_of_a_later_release_is_a_difference_that_says_so() -> None:
    recording = a_recording()
    rows = [row for row in recording["journal"] if row["payload_json"]]
    rows[1]["payload_json"] = rows[1]["payload_json"].replace('"event":"', '"event":"Later')
    found = replay(recording).difference
    assert found is not None
    assert (found.number, found.seq) == (2, rows[1]["seq"])
    assert "this release does not know" in found.now[0]


def test_recording_kept_in_a_file_is_read_back_equal_and_no_file_is_written_over(tmp_path: Path) -> None:
    recording = a_recording()
    save(recording, tmp_path / "kept")
    again = dict(load(tmp_path / "kept"))
    again.pop("otocod-journal"), recording.pop("otocod-journal")
    assert again == recording
    with pytest.raises(FileExistsError):
        save(recording, tmp_path / "kept")


@pytest.mark.parametrize("text", ["", "{}", "[1]\n", "not json", '{"otocod-journal":99}\n', '{"otocod-journal":1}\n'])
def test_file_that_is_no_recording_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "file"
    file.write_text(text)
    with pytest.raises(RecordingUnreadable):
        replay(load(file))


@pytest.mark.filterwarnings("ignore:coroutine 'SimBroker")
def test_journal_in_a_real_file_that_holds_less_than_was_decided_on_is_a_violation_of_the_simulation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seed = 30 * SQLITE_EVERY
    assert run_seed(seed).violations == ()
    monkeypatch.setattr(mailbox, "Told", lambda now_us, events: Told(now_us, events[1:]))
    assert any(text.startswith("D8 the journal of") for text in run_seed(seed).violations)


def test_field_that_the_stored_record_did_not_have_yet_is_no_difference() -> None:
    recording = a_recording()
    more = json.loads(recording["bracket"]["more_json"])
    assert more.pop("ids_made")
    recording["bracket"]["more_json"] = json.dumps(more)
    assert replay(recording).is_same
