"""Diagrams of the state machines, drawn from their tables, so that a picture cannot say what the code does not do.

python -m otocod.diagram                    the bracket's machine, as Mermaid text
python -m otocod.diagram --orders           the order's machine
python -m otocod.diagram --check README.md  exit 1 if the block between the markers is stale or missing
python -m otocod.diagram --write README.md  renew the block
"""

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path

from otocod.domain.brackets import BracketState
from otocod.domain.machine import BRACKET_TRANSITIONS, ORDER_TRANSITIONS
from otocod.domain.orders import TERMINAL_STATES, OrderState

BEGIN, END = "<!-- machine -->", "<!-- /machine -->"
_BLOCK = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)

_Transitions = Iterable[tuple[tuple[StrEnum, ...], StrEnum, StrEnum]]


class BlockMissing(ValueError):
    """The file has no pair of markers, or more than one."""


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


def block() -> str:
    """What stands in a document, the markers included."""
    return f"{BEGIN}\n```mermaid\n{bracket_diagram()}```\n{END}"


def renewed(text: str) -> str:
    """`text` with a fresh block in place of the old one. Raises BlockMissing."""
    if len(_BLOCK.findall(text)) != 1:
        raise BlockMissing(f"one block between {BEGIN} and {END} is expected")
    return _BLOCK.sub(lambda _: block(), text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m otocod.diagram", description="Diagrams of the state machines.")
    wish = parser.add_mutually_exclusive_group()
    wish.add_argument("--orders", action="store_true", help="the order's machine instead of the bracket's")
    wish.add_argument("--check", type=Path, metavar="FILE", help="exit 1 if the file's block is stale or missing")
    wish.add_argument("--write", type=Path, metavar="FILE", help="renew the file's block")
    chosen = parser.parse_args(arguments)
    path: Path | None = chosen.check or chosen.write
    if path is None:
        sys.stdout.write(order_diagram() if chosen.orders else bracket_diagram())
        return 0
    try:
        old = path.read_text(encoding="utf-8")
        new = renewed(old)
    except (OSError, BlockMissing) as error:
        sys.stderr.write(f"{path}: {error}\n")
        return 1
    if new == old:
        return 0
    if chosen.check is not None:
        sys.stderr.write(f"{path}: the diagram is stale; renew it: python -m otocod.diagram --write {path}\n")
        return 1
    path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
