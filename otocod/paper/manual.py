"""The tables of rules and faults in docs/paper.md, from the code: `python -m otocod.paper.manual docs/paper.md`."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from otocod.paper.fault_catalogue import FAULTS
from otocod.paper.rules import Rules
from otocod.paper.server_rules import ServerRules


def rules_table() -> str:
    described: list[dict[str, Any]] = [*Rules().describe(), *ServerRules().describe()]
    rows = ((f"`{rule['name']}`", f"`{_value(rule['default'])}`", rule["doc"]) for rule in described)
    return _table(("rule", "default", "what it does"), rows)


def faults_table() -> str:
    rows = ((f"`{fault.name}`", fault.site, fault.doc) for fault in FAULTS)
    return _table(("fault", "strikes", "what happens"), rows)


def renewed(text: str) -> str:
    """The page with both tables as they are now; the markers must be there."""
    for name, table in (("rules", rules_table()), ("faults", faults_table())):
        before, rest = text.split(f"<!-- {name} -->", 1)
        after = rest.split(f"<!-- /{name} -->", 1)[1]
        text = f"{before}<!-- {name} -->\n{table}\n<!-- /{name} -->{after}"
    return text


def main(argv: Sequence[str] | None = None) -> int:
    path = Path((sys.argv[1:] if argv is None else list(argv))[0])
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def _value(default: object) -> str:
    if isinstance(default, list | tuple):
        return ", ".join(map(str, default)) or "none"
    if isinstance(default, bool):
        return str(default).lower()
    return str(default) if default != "" else "empty"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines.extend("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
