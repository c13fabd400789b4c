"""The README's picture of the bracket's machine is the machine."""

import re
from pathlib import Path

import pytest

from otocod import diagram
from otocod.domain.brackets import BracketState
from otocod.domain.machine import BRACKET_TRANSITIONS, ORDER_TRANSITIONS
from otocod.domain.orders import OrderState

README = Path(__file__).resolve().parents[3] / "README.md"
ARROW = re.compile(r"    (\w+) --> (\w+): (.+)")


def arrows(text: str) -> set[tuple[str, str, str]]:
    return {
        (found[1], found[2], event)
        for line in text.splitlines()
        if (found := ARROW.fullmatch(line)) is not None
        for event in found[3].split(", ")
    }


def test_readme_block_is_the_machine_of_this_code() -> None:
    assert diagram.main(["--check", str(README)]) == 0


def test_bracket_diagram_has_every_transition_and_no_other() -> None:
    assert arrows(diagram.bracket_diagram()) == {
        (source.value, to.value, event.value) for sources, event, to in BRACKET_TRANSITIONS for source in sources
    }


def test_order_diagram_has_every_change_of_state_and_no_other() -> None:
    assert arrows(diagram.order_diagram()) == {
        (source.value, to.value, event.value)
        for sources, event, to in ORDER_TRANSITIONS
        for source in sources
        if source is not to
    }


def test_diagrams_begin_and_end_where_the_machines_do() -> None:
    lines = diagram.bracket_diagram().splitlines()
    assert lines[:2] == ["stateDiagram-v2", f"    [*] --> {BracketState.PENDING_ENTRY}"]
    assert [line for line in lines if line.endswith("--> [*]")] == ["    CLOSED --> [*]"]
    ends = {line.split()[0] for line in diagram.order_diagram().splitlines() if line.endswith("--> [*]")}
    assert ends == {state.value for state in OrderState if state.is_terminal}


def test_stale_block_fails_the_check_is_renewed_by_write_and_then_passes(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    before, after = "# Title\n\nétat\n\n", "\n\nThe end.\n"
    path.write_text(f"{before}{diagram.BEGIN}\nold\n{diagram.END}{after}", encoding="utf-8")
    assert diagram.main(["--check", str(path)]) == 1
    assert "old" in path.read_text(encoding="utf-8")
    assert diagram.main(["--write", str(path)]) == 0
    assert path.read_text(encoding="utf-8") == f"{before}{diagram.block()}{after}"
    assert diagram.main(["--check", str(path)]) == 0


@pytest.mark.parametrize("text", ["", f"{diagram.BEGIN}\n", f"{diagram.END}\n{diagram.BEGIN}\n"])
@pytest.mark.parametrize("wish", ["--check", "--write"])
def test_file_without_markers_fails_and_is_left_alone(tmp_path: Path, text: str, wish: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    assert diagram.main([wish, str(path)]) == 1
    assert path.read_text() == text


def test_missing_file_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert diagram.main(["--check", str(tmp_path / "absent.md")]) == 1
    assert "absent.md" in capsys.readouterr().err


def test_without_a_file_the_diagrams_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert diagram.main([]) == 0
    assert capsys.readouterr().out == diagram.bracket_diagram()
    assert diagram.main(["--orders"]) == 0
    assert capsys.readouterr().out == diagram.order_diagram()
