"""The list of planted bugs still fits the sources, and the quickest of them are caught for real.

The whole list is `python -m tests.planted`, which takes minutes.
"""

import ast
import subprocess
import sys

import pytest

from tests.planted.bugs import BUGS, UNSEEN, Bug
from tests.planted.planting import ROOT, plant
from tests.planted.trial import Malformed, substituted
from tests.simulation.plan import FAULT_CLASSES

_QUICK = ("entry-sent-beside-its-acceptance", "last-message-wins", "fills-counted-twice")


@pytest.mark.parametrize("bug", [*BUGS, *UNSEEN], ids=lambda bug: bug.name)
def test_substitution_applies_exactly_once_and_leaves_a_program(bug: Bug) -> None:
    planted = substituted(bug)
    assert ast.dump(ast.parse(planted)) != ast.dump(ast.parse((ROOT / bug.file).read_text()))


def test_bug_whose_text_is_gone_is_reported() -> None:
    with pytest.raises(Malformed, match="0 times, not once"):
        substituted(Bug("gone", BUGS[0].file, "no such line\n", "", "the source was refactored"))


def test_names_are_unique_and_faults_exist() -> None:
    bugs = (*BUGS, *UNSEEN)
    assert len({bug.name for bug in bugs}) == len(bugs)
    assert {name for bug in bugs for name in bug.under} <= FAULT_CLASSES.keys()
    assert len(BUGS) >= 30


def test_planting_after_the_daemon_was_imported_is_refused() -> None:
    import otocod.domain.turn

    with pytest.raises(RuntimeError, match="imported before the planting"):
        plant("otocod/domain/turn.py", otocod.domain.turn.__doc__ or "")


def test_quickest_bugs_are_caught() -> None:
    told = _planted("--seeds", "1..20", *(word for name in _QUICK for word in ("--only", name)))
    assert told.returncode == 0, told.stdout + told.stderr
    assert f"{len(_QUICK)} of {len(_QUICK)} planted bugs caught" in told.stdout


def test_bug_that_survives_ends_the_campaign_with_1() -> None:
    told = _planted("--seeds", "1..1", "--only", UNSEEN[0].name)
    assert told.returncode == 1, told.stdout + told.stderr
    assert f"SURVIVES: {UNSEEN[0].name}" in told.stdout


def _planted(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.planted", "--jobs", "1", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=55, check=False)
