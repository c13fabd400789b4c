"""What was asked for before, read once at the start: risk limits count over restarts, and products are known by it."""

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from otocod.adapters.sqlite import readmodel
from otocod.adapters.sqlite.codec import request_from_json
from otocod.domain.brackets import Outcome
from otocod.domain.ids import AccountNumber, BracketId
from otocod.domain.request_types import BracketRequest

Accepted = tuple[BracketId, BracketRequest, Outcome | None]


def usage_since(path: Path, from_us: int) -> tuple[int, tuple[Accepted, ...]]:
    """(orders intended since `from_us`, brackets accepted since then). Reads every order once: a second for a million.

    An order that was intended and, after a crash, never sent counts too: the count may be too high, never too low.
    """
    with closing(readmodel.open_readonly(path)) as connection:
        orders = connection.execute("SELECT count(*) FROM orders WHERE intended_at_us >= ?", (from_us,)).fetchone()[0]
        rows = connection.execute(
            "SELECT bracket_id, request_json, request_text, outcome FROM brackets WHERE created_at_us >= ?", (from_us,)
        ).fetchall()
    return int(orders), tuple(map(_accepted, rows))


def past_requests(
    path: Path, accounts: Collection[AccountNumber], limit: int = 200
) -> tuple[tuple[AccountNumber, BracketRequest], ...]:
    """The requests of the newest brackets of these accounts, the newest first."""
    with closing(readmodel.open_readonly(path)) as connection:
        rows = connection.execute(
            "SELECT account, request_json, request_text FROM brackets ORDER BY created_at_us DESC LIMIT ?", (limit,)
        ).fetchall()
    return tuple(
        (AccountNumber(row["account"]), request_from_json(row["request_json"], row["request_text"]))
        for row in rows
        if row["account"] in accounts
    )


def _accepted(row: sqlite3.Row) -> Accepted:
    outcome = None if row["outcome"] is None else Outcome(row["outcome"])
    return BracketId(row["bracket_id"]), request_from_json(row["request_json"], row["request_text"]), outcome
