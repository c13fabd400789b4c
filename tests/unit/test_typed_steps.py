"""The steps that `make systemd-proof` types: each is there, and each is something that a shell can read."""

import subprocess

import pytest

from tests.systemd_proof import __main__ as proof
from tests.systemd_proof import typed

STEPS = typed.steps(typed.PAGE.read_text())


def test_every_step_of_the_page_is_typed_by_the_proof_and_none_is_missing() -> None:
    assert set(proof.BEFORE + proof.MIDDLE + proof.AFTER) == set(STEPS)


@pytest.mark.parametrize("name", STEPS)
def test_a_shell_can_read_the_step(name: str) -> None:
    found = subprocess.run(["bash", "-n"], input=STEPS[name], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_a_mark_without_a_block_is_no_step() -> None:
    with pytest.raises(ValueError, match="right above a block"):
        typed.steps("<!-- typed: one -->\n\ntext\n```\ntrue\n```\n")
