"""Recordings of simulated brackets, in the shape of `readmodel.recording`: the rows that the store would write."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Table

from otocod.adapters.sqlite import tables
from otocod.adapters.sqlite.codec import INSERT_BRACKET, INSERT_JOURNAL, INSERT_ORDER, rows_from_change
from otocod.domain.brackets import Bracket
from otocod.ports.store import BracketChange, Change
from tests.simulation.world import World

Recording = dict[str, Any]


def recordings_of(world: World) -> dict[str, Recording]:
    """Of every bracket that a world has on its disk, by bracket id."""
    journals = journals_of(world.disk.committed)
    return {
        bracket.bracket_id: recording_of(bracket, journals[bracket.bracket_id]) for bracket in world.disk.brackets()
    }


def recording_of(bracket: Bracket, journal: list[dict[str, Any]]) -> Recording:
    # As if it had been accepted as it is: the rows of a record do not tell how it came about.
    whole = BracketChange(None, bracket, (), 0, ())
    rows = rows_from_change(whole)
    unused = [(role, name, "STAGED") for role, name in bracket.staged]
    unused += [(role, name, "SUSPECT") for role, name in bracket.suspects]
    return {
        "bracket": next(_named(tables.brackets, values) for statement, values in rows if statement is INSERT_BRACKET),
        "orders": [_named(tables.orders, values) for statement, values in rows if statement is INSERT_ORDER],
        "identifiers": [
            {"role": role.value, "external_identifier": name, "status": status} for role, name, status in unused
        ],
        "journal": journal,
    }


def journals_of(committed: Iterable[Change]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    seq = 0
    for change in committed:
        if isinstance(change, BracketChange):
            for statement, values in rows_from_change(change):
                if statement is INSERT_JOURNAL:
                    seq += 1
                    found[change.after.bracket_id].append(_named(tables.journal, (seq, *values)))
    return found


def _named(table: Table, values: Iterable[Any]) -> dict[str, Any]:
    return dict(zip((column.name for column in table.columns), values, strict=True))
