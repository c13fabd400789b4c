from pathlib import Path

import pytest

from tests.traceability import ONLY_A_REAL_ACCOUNT, TITLES, WRITTEN, NotLiteral, marks_in, table, unknown_rows


def test_no_mark_names_a_row_that_there_is_not() -> None:
    assert unknown_rows(marks_in()) == []


def test_written_table_is_up_to_date() -> None:
    command = "python -m tests.traceability --write docs/failure-modes.md"
    assert WRITTEN.read_text(encoding="utf-8") == table(marks_in()), f"out of date: {command}"


def test_every_row_has_a_title_and_every_open_question_a_row() -> None:
    assert list(TITLES) == list(range(1, 126))
    assert set(ONLY_A_REAL_ACCOUNT) <= set(TITLES)


def test_marks_are_found_on_tests_parameters_and_modules(tmp_path: Path) -> None:
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit" / "test_a.py").write_text(
        "pytestmark = pytest.mark.covers('F1')\n"
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.covers('F2'))])\n"
        "def test_x(x): ...\n"
        "@pytest.mark.covers('F3', 'F99999')\n"
        "async def test_y(): ...\n"
    )
    marks = marks_in(tmp_path)
    assert [(mark.row, mark.place, mark.name) for mark in marks] == [
        ("F1", "unit/test_a", "(all)"),
        ("F2", "unit/test_a", "test_x"),
        ("F3", "unit/test_a", "test_y"),
        ("F99999", "unit/test_a", "test_y"),
    ]
    assert [mark.row for mark in unknown_rows(marks)] == ["F99999"]
    shown = table(marks)
    assert "| F2 | An order's answer times out, and the broker never got the order | `unit/test_a`: x |" in shown
    assert "**no test yet**" in shown


def test_mark_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("@pytest.mark.covers(*ROWS)\ndef test_x(): ...\n")
    with pytest.raises(NotLiteral):
        marks_in(tmp_path)
