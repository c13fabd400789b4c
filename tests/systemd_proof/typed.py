"""The steps of docs/operate.md, as they stand there."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operate.md"
_STEP = re.compile(r"<!-- typed: (?P<name>[a-z-]+) -->\n```\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_MARK = re.compile(r"<!-- typed:")


def steps(page: str) -> dict[str, str]:
    """Shell text by the name of its mark, in the page's order. Raises ValueError for a mark without a block."""
    found = {match["name"]: match["text"] for match in _STEP.finditer(page)}
    if len(found) != len(_MARK.findall(page)):
        raise ValueError("each `<!-- typed: NAME -->` has a name of its own and stands right above a block")
    return found
