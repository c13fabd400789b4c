"""Pictures and tables in documents are those of this code."""

import re
from pathlib import Path

import pytest

from otocod import diagram, logs
from otocod.domain.brackets import BracketState
from otocod.domain.machine import BRACKET_TRANSITIONS, ORDER_TRANSITIONS
from otocod.domain.orders import OrderState

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "docs/architecture.md", "docs/logs.md")
TWICE = 2 * f"{diagram.block('orders')}\n"
ARROW = re.compile(r"    (\w+) --> (\w+): (.+)")


def arrows(text: str) -> set[tuple[str, str, str]]:
    return {
        (found[1], found[2], event)
        for line in text.splitlines()
        if (found := ARROW.fullmatch(line)) is not None
        for event in found[3].split(", ")
    }


def test_every_block_in_the_documents_is_of_this_code() -> None:
    assert diagram.main(["--check", *(str(ROOT / name) for name in DOCUMENTS)]) == 0


def test_no_other_document_has_blocks() -> None:
    marked = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
        if re.search(r"^<!-- (machine|orders|layers|events) -->$", path.read_text(), re.MULTILINE)
    ]
    assert sorted(marked) == sorted(DOCUMENTS)


def test_layers_point_inward_and_the_core_imports_no_other_part() -> None:
    found = re.findall(r"    (\w+) --> (\w+)\n", diagram.layer_diagram())
    assert ("engine", "domain") in found
    assert ("cli", "bootstrap") in found
    assert not [arrow for arrow in found if arrow[0] in ("domain", "paper")]
    rank = {part: place for place, part in enumerate(diagram.PARTS[:6])}
    assert all(rank[a] < rank[b] for a, b in found if a in rank and b in rank)


def test_the_table_of_events_has_each_once_with_a_level() -> None:
    rows = [line for line in diagram.event_table().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(logs.EVENTS)
    assert all(re.match(r"\| `\w+` \| (debug|info|warning|error)(, \w+)* \| .+ \|$", row) for row in rows)


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
    before, after = "# Title\n\nétat\n\n", "\n\n<!-- other -->\nkept\n<!-- /other -->\n"
    path.write_text(f"{before}<!-- machine -->\nold\n<!-- /machine -->{after}", encoding="utf-8")
    assert diagram.main(["--check", str(path)]) == 1
    assert "old" in path.read_text(encoding="utf-8")
    assert diagram.main(["--write", str(path)]) == 0
    assert path.read_text(encoding="utf-8") == f"{before}{diagram.block('machine')}{after}"
    assert diagram.main(["--check", str(path)]) == 0


@pytest.mark.parametrize(
    "text", ["", "<!-- machine -->\n", "<!-- /machine -->\n<!-- machine -->\n", 2 * f"{diagram.block('orders')}\n"]
)
@pytest.mark.parametrize("wish", ["--check", "--write"])
def test_file_without_markers_or_with_a_block_twice_fails_and_is_left_alone(
    tmp_path: Path, text: str, wish: str
) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    assert diagram.main([wish, str(path)]) == 1
    assert path.read_text() == text


def test_missing_file_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert diagram.main(["--check", str(tmp_path / "absent.md")]) == 1
    assert "absent.md" in capsys.readouterr().err


def test_a_name_alone_prints_its_block(capsys: pytest.CaptureFixture[str]) -> None:
    assert diagram.main(["orders"]) == 0
    assert capsys.readouterr().out == f"```mermaid\n{diagram.order_diagram()}```\n"
