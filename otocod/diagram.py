"""What documents show of the code, drawn from the code, so that a picture cannot say what the code does not do.

python -m otocod.diagram NAME               one of machine, orders, layers, events, as it stands in a document
python -m otocod.diagram --check FILE...    exit 1 if a block between two markers is stale, unknown or missing
python -m otocod.diagram --write FILE...    renew the blocks

A block stands between `<!-- NAME -->` and `<!-- /NAME -->`.
"""

import argparse
import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from otocod import logs
from otocod.domain.brackets import BracketState
from otocod.domain.machine import BRACKET_TRANSITIONS, ORDER_TRANSITIONS
from otocod.domain.orders import TERMINAL_STATES, OrderState

PACKAGE = Path(__file__).parent
# The parts of the picture of layers, outermost first; single modules beside them are used by all and left out.
PARTS = ("cli", "bootstrap", "adapters", "engine", "ports", "domain", "audit", "paper")

_Transitions = Iterable[tuple[tuple[StrEnum, ...], StrEnum, StrEnum]]


class BlocksWrong(ValueError):
    """The file has no block, one twice, or one of a name that is not known."""


def bracket_diagram() -> str:
    """The bracket's machine as a Mermaid `stateDiagram-v2`, each line ended."""
    return _diagram(BRACKET_TRANSITIONS, BracketState.PENDING_ENTRY, (BracketState.CLOSED,))


def order_diagram() -> str:
    ends = (state for state in OrderState if state in TERMINAL_STATES)
    return _diagram(ORDER_TRANSITIONS, OrderState.INTENDED, ends)


def _diagram(transitions: _Transitions, initial: StrEnum, ends: Iterable[StrEnum]) -> str:
    """One arrow for each pair of states, with every event that goes that way; events that change nothing have none."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for sources, event, destination in transitions:
        for source in sources:
            if source is not destination:
                arrows.setdefault((source.value, destination.value), []).append(event.value)
    lines = ["stateDiagram-v2", f"    [*] --> {initial.value}"]
    lines.extend(f"    {source} --> {to}: {', '.join(events)}" for (source, to), events in arrows.items())
    lines.extend(f"    {state.value} --> [*]" for state in ends)
    return "\n".join(lines) + "\n"


def layer_diagram() -> str:
    """An arrow for each pair of parts of which one imports from the other, as a Mermaid `flowchart`."""
    arrows = {(part, to) for part in PARTS for to in _imported_parts(part) if to != part}
    order = {part: place for place, part in enumerate(PARTS)}
    ranked = sorted(arrows, key=lambda arrow: (order[arrow[0]], order[arrow[1]]))
    return "".join(["flowchart TD\n", *(f"    {part} --> {to}\n" for part, to in ranked)])


def _imported_parts(part: str) -> set[str]:
    single = PACKAGE / f"{part}.py"
    paths = [single] if single.exists() else sorted((PACKAGE / part).rglob("*.py"))
    return {name for path in paths for name in _own_imports(path) if name in PARTS}


def _own_imports(path: Path) -> Iterator[str]:
    """The first word below `otocod` of everything that the file imports from it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("otocod."))


def event_table() -> str:
    """Every event of the log with the levels at which the code says it."""
    levels: dict[str, set[str]] = {"ready": {"info"}}
    for event in logs.logged_events(PACKAGE):
        if event.name is not None:
            levels.setdefault(event.name, set()).add(event.level)
    rows = [
        f"| `{name}` | {', '.join(sorted(levels.get(name, ()), key=_LEVELS.index))} | {meaning} |\n"
        for name, meaning in logs.EVENTS.items()
    ]
    return "".join(["| event | level | says |\n|---|---|---|\n", *rows])


_LEVELS = ("debug", "info", "warning", "error")


def _picture(draw: Callable[[], str]) -> Callable[[], str]:
    return lambda: f"```mermaid\n{draw()}```\n"


_BLOCKS: Mapping[str, Callable[[], str]] = {
    "machine": _picture(bracket_diagram),
    "orders": _picture(order_diagram),
    "layers": _picture(layer_diagram),
    "events": event_table,
}
_MARKED = re.compile(r"^<!-- (?P<name>[a-z]+) -->\n.*?^<!-- /(?P=name) -->$", re.DOTALL | re.MULTILINE)


def block(name: str) -> str:
    """What stands in a document, the markers included."""
    return f"<!-- {name} -->\n{_BLOCKS[name]()}<!-- /{name} -->"


def renewed(text: str) -> str:
    """`text` with fresh blocks in place of the old ones; other marked blocks stay. Raises BlocksWrong."""
    names = [match["name"] for match in _MARKED.finditer(text) if match["name"] in _BLOCKS]
    if not names or len(set(names)) != len(names):
        known = ", ".join(_BLOCKS)
        raise BlocksWrong(f"blocks between <!-- NAME --> and <!-- /NAME --> are expected, each once; names: {known}")
    return _MARKED.sub(lambda match: block(match["name"]) if match["name"] in _BLOCKS else match[0], text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m otocod.diagram", description="Pictures and tables from the code.")
    wish = parser.add_mutually_exclusive_group(required=True)
    wish.add_argument("name", nargs="?", choices=_BLOCKS, help="print one block")
    wish.add_argument("--check", type=Path, nargs="+", metavar="FILE", help="exit 1 if a block is stale or missing")
    wish.add_argument("--write", type=Path, nargs="+", metavar="FILE", help="renew the blocks")
    chosen = parser.parse_args(arguments)
    if chosen.name is not None:
        sys.stdout.write(_BLOCKS[chosen.name]())
        return 0
    paths: list[Path] = chosen.check or chosen.write
    return max([_renew(path, is_check=chosen.check is not None) for path in paths])


def _renew(path: Path, *, is_check: bool) -> int:
    try:
        old = path.read_text(encoding="utf-8")
        new = renewed(old)
    except (OSError, BlocksWrong) as error:
        sys.stderr.write(f"{path}: {error}\n")
        return 1
    if new == old:
        return 0
    if is_check:
        sys.stderr.write(f"{path}: a block is stale; renew it: python -m otocod.diagram --write {path}\n")
        return 1
    path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
