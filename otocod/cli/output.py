"""What a command prints. Every text passes `sanitise`: much of it was written by brokers and submitters."""

import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from otocod.cli.failure import ExitStatus, Failed
from otocod.text import sanitise

_TEXT_LIMIT = 20_000
# A pipe has no width; wide enough that no line of a table is folded or cut.
_PIPE_WIDTH = 400
# Ids begin with the time of acceptance: so many characters hold it to the millisecond.
SHORT_ID = 13


def say(line: str = "") -> None:
    sys.stdout.write(sanitise(line, _TEXT_LIMIT) + "\n")


def complain(line: str) -> None:
    sys.stderr.write(sanitise(line, _TEXT_LIMIT) + "\n")


def ask(question: str, word: str) -> None:
    """Goes on when `word` is typed. Raises Failed (4) otherwise, and where there is nobody to ask."""
    if not sys.stdin.isatty():
        raise Failed(ExitStatus.REFUSED, f"{question} (not asked, for this is no terminal: say --yes)")
    for line in question.split("\n"):
        complain(line)
    complain(f"type `{word}` to go on:")
    if sys.stdin.readline().strip() != word:
        raise Failed(ExitStatus.REFUSED, "not confirmed, nothing was changed")


def flush() -> None:
    sys.stdout.flush()


def print_json(value: object) -> None:
    sys.stdout.write(json.dumps(clean(value), ensure_ascii=False, indent=2) + "\n")


def print_json_line(value: object) -> None:
    sys.stdout.write(json.dumps(clean(value), ensure_ascii=False) + "\n")
    sys.stdout.flush()


def clean(value: object) -> object:
    """The same JSON value with every text stripped of control characters."""
    if isinstance(value, str):
        return sanitise(value, _TEXT_LIMIT)
    if isinstance(value, Mapping):
        return {sanitise(str(key)): clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [clean(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float) else sanitise(str(value), _TEXT_LIMIT)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Columns whose name ends in ">" are numbers, set to the right."""
    if not rows:
        say(empty)
        return
    # A fifth of a second to load; commands that print JSON or one line do without.
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    is_terminal = sys.stdout.isatty()
    table = Table(box=box.SIMPLE_HEAD if is_terminal else None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name.rstrip(">"), justify="right" if name.endswith(">") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(sanitise(_shown(cell), 300), style=_style(cell)) for cell in row))
    if is_terminal:
        Console(no_color=no_color(), highlight=False).print(table)
    else:
        print_plain(table, _PIPE_WIDTH)


def print_plain(renderable: Any, width: int) -> None:
    """Without colours, and without the blanks that rich fills lines up with."""
    from rich.console import Console

    console = Console(width=width, file=io.StringIO(), color_system=None, highlight=False, legacy_windows=False)
    with console.capture() as captured:
        console.print(renderable)
    for line in captured.get().rstrip("\n").split("\n"):
        sys.stdout.write(line.rstrip() + "\n")


def no_color() -> bool:
    """NO_COLOR counts when it is there and not empty (no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))


def _shown(cell: object) -> str:
    if cell is None:
        return ""
    return ("yes" if cell else "no") if isinstance(cell, bool) else str(cell)


_STYLES = {
    "PENDING_ENTRY": "cyan",
    "ENTRY_FILLED": "yellow",
    "EXITS_LIVE": "green",
    "CLOSING": "yellow",
    "TARGET_FILLED": "green",
    "STOP_FILLED": "red",
    "DOUBLE_EXIT": "bold red",
    "REJECTED": "red",
}


def _style(cell: object) -> str:
    return _STYLES.get(cell, "") if isinstance(cell, str) else ""


def price_text(net_price: str | None) -> str:
    """A signed net price in a trader's words: `0.85 credit`."""
    if not net_price:
        return ""
    if net_price.startswith("-"):
        return f"{net_price[1:]} credit"
    return f"{net_price} debit"


def seconds_text(seconds: float | None) -> str:
    """A duration as short as it can be read: `4 ms`, `1.20 s`, `3 min 5 s`, `2 h 5 min`."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def at_text(at: str | None) -> str:
    """`2026-11-22T15:04:05.123456Z` as `2026-11-22 15:04:05.123`; UTC, like everything else."""
    return at.rstrip("Z").replace("T", " ")[:23] if at else ""


def iso_from_us(at_us: int) -> str:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{at_us % 1_000_000:06d}Z"


def short_id(bracket: Mapping[str, Any]) -> str:
    """Enough of an id to name the bracket in a command."""
    return str(bracket.get("bracket_id", ""))[:SHORT_ID]
