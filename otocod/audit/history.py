"""The rules that the journal shows: how a bracket moved, and what it was told and may not have forgotten."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from otocod.audit.record import TERMINAL_STATUSES, FillKey, JournalRow, StoredBracket
from otocod.audit.report import Violation

# From the contract's states; the way out of CLOSED has a rule of its own below.
_ALLOWED = {
    "PENDING_ENTRY": frozenset({"ENTRY_FILLED", "CLOSED"}),
    "ENTRY_FILLED": frozenset({"EXITS_LIVE", "CLOSING", "CLOSED"}),
    "EXITS_LIVE": frozenset({"ENTRY_FILLED", "CLOSING", "CLOSED"}),
    "CLOSING": frozenset({"ENTRY_FILLED", "CLOSED"}),
    "CLOSED": frozenset({"ENTRY_FILLED"}),
}
_RELEASED = "Released"


def history_violations(bracket: StoredBracket, journal: Sequence[JournalRow]) -> Iterator[Violation]:
    for rule, text in (*_moves(bracket, journal), *_memory(bracket, journal)):
        yield Violation(rule, bracket.bracket_id, text)


def _moves(bracket: StoredBracket, journal: Sequence[JournalRow]) -> Iterator[tuple[str, str]]:
    if not journal:
        yield "S15", "it has no history"
        return
    first = journal[0]
    if (first.from_state, first.to_state) != (None, "PENDING_ENTRY"):
        yield "S15", f"its history begins {_move_text(first)}, not null -> PENDING_ENTRY"
    closed_by: JournalRow | None = None
    for before, row in pairwise(journal):
        if row.from_state != before.to_state:
            yield "S15", f"{_move_text(row)} after {before.to_state} (row {before.seq})"
        elif row.from_state != row.to_state:
            if row.to_state not in _ALLOWED.get(row.from_state or "", ()):
                yield "S15", f"{_move_text(row)} is no move that a bracket may make"
            elif row.from_state == "CLOSED" and not _is_unfilled_end(closed_by):
                ended = "at an unknown row" if closed_by is None else _move_text(closed_by)
                yield "S15", f"{_move_text(row)}: only ENTRY_NOT_FILLED may be followed, and it ended {ended}"
        if row.to_state == "CLOSED" and row.from_state != "CLOSED":
            closed_by = row
    if journal[-1].to_state != bracket.state:
        yield "S15", f"its history ends in {journal[-1].to_state} (row {journal[-1].seq}), its state is {bracket.state}"


def _is_unfilled_end(closed_by: JournalRow | None) -> bool:
    """ENTRY_NOT_FILLED is the one end, but for a release, that is reached without a fill."""
    return closed_by is not None and closed_by.from_state == "PENDING_ENTRY" and closed_by.event != _RELEASED


def _move_text(row: JournalRow) -> str:
    return f"{row.event}: {row.from_state or 'null'} -> {row.to_state} (row {row.seq})"


def _memory(bracket: StoredBracket, journal: Sequence[JournalRow]) -> Iterator[tuple[str, str]]:
    """What the broker told stays: terminal stays terminal, and a fill is never lost."""
    views = {view.broker_order_id: (order, view) for order in bracket.orders for view in order.views}
    said: set[str] = set()
    for row in journal:
        for report in _reports(row):
            broker_order_id, status = report.get("broker_order_id"), report.get("status")
            known = views.get(broker_order_id) if isinstance(broker_order_id, str) else None
            if known is None:
                continue
            order, view = known
            if status in TERMINAL_STATUSES and not view.is_terminal:
                said.add(f"S10 broker order {broker_order_id} ({order.role}) was {status} and is {view.status_text}")
            for symbol, fill_id in _told_fills(report):
                if (symbol, fill_id) not in order.fills_table:
                    said.add(f"S11 fill {fill_id} of {symbol.strip()} of {order.name} was told and is not stored")
    for line in sorted(said):
        rule, _, text = line.partition(" ")
        yield rule, text


def _reports(row: JournalRow) -> Iterator[Mapping[str, Any]]:
    """Every report of an order in what the bracket was told, however deep."""
    if row.payload_json is None or '"broker_order_id"' not in row.payload_json:
        return
    try:
        waiting: list[Any] = [json.loads(row.payload_json)]
    except ValueError:
        return
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            if "broker_order_id" in value and "status" in value:
                yield value
            waiting.extend(value.values())


def _told_fills(report: Mapping[str, Any]) -> Iterator[FillKey]:
    for leg in report.get("legs") or ():
        for fill in leg.get("fills") or ():
            yield leg["symbol"], fill["fill_id"]
