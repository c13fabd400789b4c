"""Which tests cover which failure: a table made from the tests' own marks.

    python -m tests.traceability                                 prints the table
    python -m tests.traceability --write docs/failure-modes.md   writes it

A test says what it covers by `@pytest.mark.covers("F24")`. The sources are read, nothing is imported.
"""

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent
WRITTEN = TESTS.parent / "docs" / "failure-modes.md"

_SECTIONS = {
    1: "Sending orders",
    21: "The stream, and comparing with the broker",
    37: "The life of an entry",
    46: "The life of exits",
    61: "Market, account, people",
    76: "Log-in, network, clock, resources",
    91: "Databases and files",
    105: "Requests, text, security",
}

TITLES: Mapping[int, str] = {
    1: "An order's answer times out, and the broker has the order",
    2: "An order's answer times out, and the broker never got the order",
    3: "An order of unknown outcome is accepted after everybody looked",
    4: "Crash before an intent is on disk",
    5: "Crash after an intent is on disk, before the order is sent",
    6: "Crash after the order was sent, before the answer",
    7: "Crash after the answer, before it is on disk",
    8: "No connection: not a byte of the order left",
    9: "The connection breaks while the order is on it",
    10: "Success is answered with a body that cannot be read",
    11: "A refusal with the broker's own error body",
    12: "401 on an order",
    13: "429 on an order",
    14: "5xx on an order",
    15: "A proxy repeats or redirects an order",
    16: "Two orders with one identifier have both filled",
    17: "A dry run says yes, the order itself is refused",
    18: "The task that sends is cancelled while it sends",
    19: "The answer is another request's",
    20: "An order is accepted with a warning that changes it",
    21: "The stream breaks during a fill",
    22: "A message comes twice",
    23: "A message comes late or out of order",
    24: "Filled, with the fills of one leg only",
    25: "A later message knows fewer fills",
    26: "One frame is lost and everything else is well",
    27: "A message of an unknown type, word or form",
    28: "A connection that is dead and does not say so",
    29: "A flood of messages after a reconnect",
    30: "A listing and the stream race",
    31: "The daemon is dead while both exits rest",
    32: "A listing is cut or moves between its pages",
    33: "A listing lags behind",
    34: "Positions fail or are late",
    35: "The subscription covers another account, or none",
    36: "Two stream connections live at once",
    37: "Part of the entry fills and the rest works on",
    38: "The entry ends after part of it has filled",
    39: "The entry's legs fill unequally",
    40: "The entry ends without a fill",
    41: "The entry is cancelled by a person or the broker",
    42: "A fill after the end",
    43: "A trade is busted or corrected",
    44: "The entry fills while the daemon is down",
    45: "The fill is told before the order's answer",
    46: "Both exits fill",
    47: "A cancel is refused because the order has filled",
    48: "A cancel is accepted, and then the order fills",
    49: "A cancel is lost",
    50: "An order stays in Cancel Requested",
    51: "The first exit is refused",
    52: "The second exit is refused because the first reserves the position",
    53: "A stop is refused because the market is past its trigger",
    54: "Part of an exit fills",
    55: "Part of an exit fills while its sibling is cancelled",
    56: "A Day exit expires with the position open",
    57: "An exit has filled and the position still shows",
    58: "A stop is triggered and its limit is not met",
    59: "A fill comes while a replacement is on its way",
    60: "An exit would open, because the position is gone",
    61: "The market is closed",
    62: "Early closes, holidays, changes of the clock",
    63: "Trading is halted",
    64: "Expiry with the position open",
    65: "Assignment or exercise overnight",
    66: "A corporate action changes symbol or multiplier",
    67: "A person cancels an exit",
    68: "A person edits an exit",
    69: "A person closes the position",
    70: "A person adds to the position",
    71: "Two brackets on the same legs",
    72: "The broker liquidates the position",
    73: "The account is restricted",
    74: "The state belongs to another environment",
    75: "The broker's ids vanish or are used again",
    76: "The token ends in the middle of things",
    77: "The token service is away",
    78: "The refresh token is revoked",
    79: "Errors and limits for a long time",
    80: "Names, addresses or TLS fail",
    81: "The broker's certificate is wrong",
    82: "The wall clock jumps",
    83: "The broker answers slowly",
    84: "The system kills the daemon for memory",
    85: "No more files can be opened",
    86: "The event loop stalls",
    87: "SIGTERM in the middle of an order",
    88: "SIGTERM, and then SIGKILL",
    89: "The power goes",
    90: "The daemon is started again and again",
    91: "The database is locked by somebody else",
    92: "The disk is full",
    93: "The disk fails to sync",
    94: "The database is damaged",
    95: "Files or directories cannot be written",
    96: "The database is on a network file system",
    97: "The WAL is deleted, or copied without its database",
    98: "The fault of older SQLite releases with two checkpoints",
    99: "Two daemons on one database",
    100: "Two hosts on one account",
    101: "An old backup is put back",
    102: "A newer or older schema",
    103: "The settings change under open brackets",
    104: "Numbers at the end of their range",
    105: "A request is inserted twice",
    106: "A request that makes no sense",
    107: "A request is edited or deleted after it was taken",
    108: "A producer crashes in the middle of an insert",
    109: "A request is accepted and never acted on",
    110: "A hundred thousand requests at once",
    111: "A request is stale",
    112: "Prices off the increment, and rounding",
    113: "Debit and credit taken for each other",
    114: "Target and stop taken for each other",
    115: "Quantities and ratios",
    116: "SQL in a request",
    117: "Escapes and turned text in a request or a message",
    118: "Secrets in logs, tracebacks, arguments",
    119: "Files that others may read",
    120: "A hostile queue file",
    121: "A producer holds the queue's lock for ever",
    122: "A runaway: too many or too large orders",
    123: "A command at the wrong moment",
    124: "A flood of log lines",
    125: "Links, pipes and journals put into the queue's directory",
}

# What no simulated broker can answer: the tests show what the daemon does whichever way the answer falls.
ONLY_A_REAL_ACCOUNT: Mapping[int, str] = {
    20: "which warnings a real order carries, and what they change",
    31: "whether this account and product take native groups, which alone protect while the daemon is dead",
    52: "whether the reservation rule holds for the account as described",
    60: "whether strict validation refuses an exit without a position",
    66: "how an adjusted contract appears in orders and positions",
    68: "what an order edited in the broker's platform carries: its identifier, its source",
    71: "which orders of two brackets on one leg the preflight check refuses",
    75: "how ids behave after the sandbox is reset",
    113: "whether the dry run's echo has the sign that the documentation gives it",
}


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    row: str
    place: str  # of the test module, from tests/ on, without its ending
    name: str  # of the test; of a module as a whole "(all)"


class NotLiteral(Exception):
    """A mark whose rows cannot be read from the source."""


def marks_in(directory: Path = TESTS) -> list[Mark]:
    """Every row that any test names. Raises NotLiteral."""
    found: set[Mark] = set()
    for path in sorted(directory.rglob("test_*.py")):
        place = path.relative_to(directory).with_suffix("").as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name, call in _calls(tree, "(all)"):
            found.update(Mark(row, place, name) for row in _rows(call, path))
    return sorted(found)


def _calls(node: ast.AST, name: str) -> Iterator[tuple[str, ast.Call]]:
    """Each use of the marker with the test it stands on, or within whose decorators."""
    for child in ast.iter_child_nodes(node):
        within = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else name
        if isinstance(child, ast.Call) and ast.unparse(child.func) == "pytest.mark.covers":
            yield name, child
        yield from _calls(child, within)


def _rows(call: ast.Call, path: Path) -> list[str]:
    rows = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    texts = [row for row in rows if isinstance(row, str)]
    if not texts or len(texts) < len(call.args) or call.keywords:
        raise NotLiteral(f"{path}:{call.lineno}: write the rows as plain texts")
    return texts


def number_of(row: str) -> int | None:
    """24 for "F24"; None for what is no row of the table."""
    digits = row.removeprefix("F")
    number = int(digits) if row.startswith("F") and digits.isdecimal() and not digits.startswith("0") else 0
    return number if number in TITLES else None


def unknown_rows(marks: Sequence[Mark]) -> list[Mark]:
    return [mark for mark in marks if number_of(mark.row) is None]


def covered(marks: Sequence[Mark]) -> dict[int, list[Mark]]:
    by_row: dict[int, list[Mark]] = defaultdict(list)
    for mark in marks:
        number = number_of(mark.row)
        if number is not None:
            by_row[number].append(mark)
    return by_row


# Tests of the simulated broker: that it can commit a failure says nothing of what the daemon does then.
_OF_THE_BROKER = ("unit/paper/", "integration/paper/")


def is_of_the_daemon(mark: Mark) -> bool:
    return not mark.place.startswith(_OF_THE_BROKER)


def table(marks: Sequence[Mark]) -> str:
    by_row = covered(marks)
    bare = [number for number in TITLES if not any(map(is_of_the_daemon, by_row.get(number, ())))]
    tests = {(mark.place, mark.name) for mark in marks}
    lines = [
        "# What can go wrong, and the tests that show what happens then",
        "",
        "Made by `python -m tests.traceability --write docs/failure-modes.md` from the marks on the tests; a test",
        "fails when it is out of date.",
        "",
        f"{len(TITLES) - len(bare)} of {len(TITLES)} failures have tests that show what the daemon does,"
        f" {len(tests)} tests in all." + (f" Without: {', '.join(f'F{number}' for number in bare)}." if bare else ""),
        "",
        "Some can be shown in full by a real account only. Their tests show what the daemon does whichever way the",
        "broker answers; what is left to find out stands in the last column.",
    ]
    for number, title in TITLES.items():
        if number in _SECTIONS:
            lines += ["", f"## {_SECTIONS[number]}", "", "| | failure | tests | only a real account can say |"]
            lines.append("|---|---|---|---|")
        told = _told(by_row.get(number, ()))
        lines.append(f"| F{number} | {title} | {told} | {ONLY_A_REAL_ACCOUNT.get(number, '')} |")
    return "\n".join(lines) + "\n"


def _told(marks: Sequence[Mark]) -> str:
    if not marks:
        return "**no test yet**"
    if not any(map(is_of_the_daemon, marks)):
        return f"**no test of the daemon yet**, only of the simulated broker: {_listed(marks)}"
    return _listed(marks)


def _listed(marks: Sequence[Mark]) -> str:
    by_place: dict[str, list[str]] = defaultdict(list)
    for mark in marks:
        by_place[mark.place].append(mark.name.removeprefix("test_"))
    return "<br>".join(f"`{place}`: {', '.join(names)}" for place, names in by_place.items())


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.traceability")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table there instead of printing it")
    given = parser.parse_args(argv)
    marks = marks_in()
    for mark in unknown_rows(marks):
        print(f"{mark.place}: {mark.name} names {mark.row}, which is no row", file=sys.stderr)
    if given.write is None:
        print(table(marks), end="")
    else:
        given.write.write_text(table(marks), encoding="utf-8")
    return 1 if unknown_rows(marks) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
