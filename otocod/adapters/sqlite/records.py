"""Brackets as records, read from the file with the daemon down: for whoever shows more than the columns hold."""

import sqlite3

from otocod.adapters.sqlite.codec import bracket_from_rows, order_from_row
from otocod.domain.brackets import Bracket


def open_brackets(connection: sqlite3.Connection, limit: int) -> list[Bracket]:
    """The newest first. Raises StoredRecordUnreadable."""
    query = "SELECT * FROM brackets WHERE state <> 'CLOSED' ORDER BY created_at_us DESC LIMIT ?"
    return [_bracket(connection, row) for row in connection.execute(query, (limit,)).fetchall()]


def bracket(connection: sqlite3.Connection, bracket_id: str) -> Bracket:
    """Raises LookupError and StoredRecordUnreadable."""
    row = connection.execute("SELECT * FROM brackets WHERE bracket_id = ?", (bracket_id,)).fetchone()
    if row is None:
        raise LookupError(bracket_id)
    return _bracket(connection, row)


def _bracket(connection: sqlite3.Connection, row: sqlite3.Row) -> Bracket:
    """Without the identifiers that were never used: nothing is shown of them."""
    query = "SELECT * FROM orders WHERE bracket_id = ? ORDER BY position"
    orders = [order_from_row(dict(order)) for order in connection.execute(query, (row["bracket_id"],))]
    return bracket_from_rows(dict(row), orders, ())
