"""What the documents name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (*(ROOT / "docs").glob("*.md"), ROOT / "README.md"))


@pytest.mark.parametrize("page", PAGES)
def test_files_and_links_of_a_page_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tests|otocod|deploy|docs)/[\w./-]+?)`", text))
    linked = {
        (ROOT / page).parent / target
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
        if "://" not in target
    }
    missing = [name for name in named if not (ROOT / name).exists()] + [str(p) for p in linked if not p.exists()]
    assert missing == []


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_sections_that_a_page_links_to_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#\s]*\.md|)#([^)\s]+)\)", text):
        where = (ROOT / page).parent / target if target else ROOT / page
        if "://" not in target:
            assert anchor in anchors_of(where), f"{page} links to {target}#{anchor}"


def test_every_test_that_the_security_page_trusts_is_there() -> None:
    named = re.findall(r"`(tests/[\w./-]+)`", (ROOT / "docs/security.md").read_text(encoding="utf-8"))
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []
