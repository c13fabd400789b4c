"""Every open question about the broker has an answer assumed, and what follows from either."""

from pathlib import Path

from otocod.domain.specs import Protection
from otocod.ports.store import Capability
from otocod.questions import QUESTIONS, answers, page
from tests.support.desk import ACCOUNT, START_US

PAGE = Path(__file__).parents[2] / "docs" / "open-questions.md"


def test_page_is_that_of_the_table() -> None:
    assert PAGE.read_text() == page(), "make it anew: python -m otocod.questions > docs/open-questions.md"


def test_questions_are_numbered_as_in_the_reference_and_each_is_answered_both_ways() -> None:
    assert [each.number for each in QUESTIONS] == list(range(1, 19))
    assert all(each.text.endswith("?") or each.text[-1] == "." for each in QUESTIONS)
    assert all(each.assumed and each.if_so.endswith(".") and each.if_not.endswith(".") for each in QUESTIONS)


def test_doctor_says_what_this_account_has_answered() -> None:
    assert answers([]).startswith("3: not asked yet; 5: not asked yet; 16 others")
    record = Capability(ACCOUNT, "spread", Protection.NATIVE_OTOCO, True, "dry-run accepted", START_US)
    told = answers([record])
    assert "5: native-otoco accepted on 20" in told
    assert "(dry-run accepted)" in told
