from pathlib import Path

from otocod.paper.manual import main, renewed

PAGE = Path(__file__).parents[3] / "docs" / "paper.md"


def test_the_page_has_the_rules_and_faults_of_this_code() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert renewed(text) == text, "renew it: python -m otocod.paper.manual docs/paper.md"


def test_a_stale_table_is_replaced_and_the_rest_is_kept(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- rules -->\nSTALE ROW\n<!-- /rules -->\n<!-- faults --><!-- /faults -->\nafter\n", encoding="utf-8"
    )
    assert main([str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "STALE ROW" not in text
    assert "`reservation`" in text and "`answer_lost`" in text
