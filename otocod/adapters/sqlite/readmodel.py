"""What the command line and the admin socket show, read straight from state.db.

Standard library only, and no domain logic: it starts fast and works while the daemon is down or its code is broken.
Whatever needs a judgement (net prices, filled units, the broker's word) was stored by the daemon as a column.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from otocod.adapters.sqlite.archive import Archived, archived, rows_in

Json = dict[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Beyond every character that an id can have.
_LAST_CHARACTER = "\U0010ffff"
_CANDIDATES_SHOWN = 5

_BRACKET_COLUMNS = (
    "bracket_id, client_ref, account, state, outcome, attention, protection, quantity, entry_net_price, exit_net_price,"
    " unprotected_since_us, unprotected_us, tags_json"
)
_BRACKETS = f"SELECT {_BRACKET_COLUMNS} FROM brackets"  # noqa: S608 - names of columns, fixed above
_TERMINAL = ("FILLED", "CANCELLED", "EXPIRED", "REJECTED", "ABSENT")


class BracketNotFound(LookupError):
    def __init__(self, text: str) -> None:
        super().__init__(f"no such bracket: {text}")
        self.text = text


class BracketAmbiguous(LookupError):
    """More than one id begins with the text; `candidates` holds the first few."""

    def __init__(self, text: str, candidates: Sequence[str]) -> None:
        super().__init__(f"{text} is the beginning of several bracket ids: {', '.join(candidates)}, ...")
        self.text = text
        self.candidates = tuple(candidates)


def open_readonly(path: Path, *, busy_timeout_s: float = 5.0) -> sqlite3.Connection:
    """A connection that cannot write. Raises FileNotFoundError, or sqlite3.Error. To be closed by the caller.

    A read-only connection never checkpoints, so any number of them are safe beside the daemon.
    """
    if not path.exists():
        raise FileNotFoundError(f"no database at {path}")
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro", uri=True, timeout=busy_timeout_s, isolation_level=None
    )
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def list_brackets(
    connection: sqlite3.Connection,
    *,
    state: str | None = None,
    account: str | None = None,
    open_only: bool = False,
    attention: bool = False,
    now_us: int | None = None,
) -> list[Json]:
    """The brackets that pass every filter given, oldest first, in the shape of `list --json`."""
    conditions, values = ["1"], []
    if open_only:
        conditions.append("state <> 'CLOSED'")
    if attention:
        conditions.append("attention IS NOT NULL")
    if state is not None:
        conditions.append("state = ?")
        values.append(state)
    if account is not None:
        conditions.append("account = ?")
        values.append(account)
    query = f"{_BRACKETS} WHERE {' AND '.join(conditions)} ORDER BY created_at_us, bracket_id"
    return [_bracket(row, _now_us(now_us)) for row in connection.execute(query, values)]


def lately_closed(connection: sqlite3.Connection, *, limit: int, now_us: int | None = None) -> list[Json]:
    """Closed brackets, the newest first, those that a person must look at before all others; with `closed_at`."""
    found: list[Json] = []
    for condition in ("attention IS NOT NULL AND state = 'CLOSED'", "attention IS NULL AND state = 'CLOSED'"):
        query = (
            f"SELECT {_BRACKET_COLUMNS}, closed_at_us FROM brackets WHERE {condition}"  # noqa: S608 - words of ours
            " ORDER BY created_at_us DESC LIMIT ?"
        )
        for row in connection.execute(query, (limit - len(found),)):
            at_us = row["closed_at_us"]
            found.append(_bracket(row, _now_us(now_us)) | {"closed_at": None if at_us is None else at_text(at_us)})
    return found


def show_bracket(connection: sqlite3.Connection, bracket_id: str, *, now_us: int | None = None) -> Json:
    """One bracket in the shape of `show --json`. Raises BracketNotFound."""
    with _one_moment(connection):
        row = connection.execute(f"{_BRACKETS} WHERE bracket_id = ?", (bracket_id,)).fetchone()
        if row is None:
            raise BracketNotFound(bracket_id)
        shown = _bracket(row, _now_us(now_us))
        orders = connection.execute("SELECT * FROM orders WHERE bracket_id = ? ORDER BY position", (bracket_id,))
        shown["orders"] = [_order(order, is_released=row["outcome"] == "RELEASED") for order in orders]
        query = "SELECT * FROM journal WHERE bracket_id = ? AND from_state IS NOT to_state ORDER BY seq"
        here = connection.execute(query, (bracket_id,)).fetchall()
        kept = archived(connection, bracket_id)
        if kept is not None:
            shown["archived"] = {"file": str(kept.path), "is_there": kept.is_there}
        shown["history"] = [
            {
                "at": at_text(change["at_us"]),
                "event": change["event"],
                "from": change["from_state"],
                "to": change["to_state"],
            }
            for change in (*_archived_rows(kept, bracket_id), *here)
            if change["from_state"] != change["to_state"]
        ]
    return shown


def _archived_rows(kept: Archived | None, bracket_id: str) -> list[Json]:
    """What the archive has of a journal; nothing if that file is not where state.db says."""
    return [] if kept is None or not kept.is_there else rows_in(kept.path, bracket_id)


def find_bracket(connection: sqlite3.Connection, text: str) -> str:
    """The bracket id meant by an id, a unique beginning of one, or `ref:CLIENT_REF`.

    Raises BracketNotFound or BracketAmbiguous.
    """
    values: list[str | int]
    if text.startswith("ref:"):
        query, values = "SELECT bracket_id FROM brackets WHERE client_ref = ?", [text.removeprefix("ref:")]
    else:
        # A range, not LIKE: it uses the key and has no wildcards to escape. A whole id sorts before its extensions.
        query = "SELECT bracket_id FROM brackets WHERE bracket_id >= ? AND bracket_id < ? ORDER BY bracket_id LIMIT ?"
        values = [text, text + _LAST_CHARACTER, _CANDIDATES_SHOWN]
    found = [row["bracket_id"] for row in connection.execute(query, values)] if text else []
    if not found:
        raise BracketNotFound(text)
    if len(found) > 1 and found[0] != text:
        raise BracketAmbiguous(text, found)
    return str(found[0])


def events(
    connection: sqlite3.Connection, bracket_id: str | None = None, *, after_seq: int = 0, limit: int = 1000
) -> list[Json]:
    """Rows of the journal after `after_seq`, oldest first. `payload` is what the bracket was told, or None.

    Every decision is in it; one that changed no state has `from` equal to `to`. Of one bracket also those that are in
    an archive; without a bracket only those that state.db still has.
    """
    if bracket_id is None:
        query = "SELECT * FROM journal WHERE seq > ? ORDER BY seq LIMIT ?"
        return [event_from_row(row) for row in connection.execute(query, (after_seq, limit))]
    with _one_moment(connection):
        query = "SELECT * FROM journal WHERE bracket_id = ? AND seq > ? ORDER BY seq LIMIT ?"
        here = connection.execute(query, (bracket_id, after_seq, limit)).fetchall()
        before = _archived_rows(archived(connection, bracket_id), bracket_id)
    rows = [*(row for row in before if row["seq"] > after_seq), *here]
    return [event_from_row(row) for row in rows[:limit]]


def event_from_row(row: Mapping[str, Any] | sqlite3.Row) -> Json:
    return {
        "seq": row["seq"],
        "bracket_id": row["bracket_id"],
        "at": at_text(row["at_us"]),
        "event": row["event"],
        "from": row["from_state"],
        "to": row["to_state"],
        "detail": row["detail"],
        "payload": _payload(row["payload_json"]),
    }


def recording(connection: sqlite3.Connection, bracket_id: str) -> Json:
    """All that is stored of one bracket, row by row: its record, and its journal from the beginning.

    Raises BracketNotFound.
    """
    with _one_moment(connection):
        row = connection.execute("SELECT * FROM brackets WHERE bracket_id = ?", (bracket_id,)).fetchone()
        if row is None:
            raise BracketNotFound(bracket_id)
        orders = connection.execute("SELECT * FROM orders WHERE bracket_id = ? ORDER BY position", (bracket_id,))
        unused = connection.execute(
            "SELECT role, external_identifier, status FROM external_identifiers"
            " WHERE bracket_id = ? AND status IN ('STAGED', 'SUSPECT') ORDER BY position",
            (bracket_id,),
        )
        journal = connection.execute("SELECT * FROM journal WHERE bracket_id = ? ORDER BY seq", (bracket_id,))
        return {
            "bracket": dict(row),
            "orders": [dict(each) for each in orders],
            "identifiers": [dict(each) for each in unused],
            "journal": [*_archived_rows(archived(connection, bracket_id), bracket_id), *map(dict, journal)],
        }


def status_summary(connection: sqlite3.Connection, *, now_us: int | None = None) -> Json:
    """Counts and worst cases over all brackets; `longest_unprotected_s` over the open ones, with its bracket."""
    now = _now_us(now_us)
    with _one_moment(connection):
        by_state = connection.execute("SELECT state, count(*) AS n FROM brackets GROUP BY state ORDER BY state")
        counts = {row["state"]: row["n"] for row in by_state}
        unknown = connection.execute("SELECT count(*) FROM orders WHERE state = 'UNKNOWN'").fetchone()[0]
        attention = connection.execute("SELECT count(*) FROM brackets WHERE attention IS NOT NULL").fetchone()[0]
        open_rows = connection.execute(f"{_BRACKETS} WHERE state <> 'CLOSED'").fetchall()
    longest = max(open_rows, key=lambda row: _unprotected_us(row, now), default=None)
    longest_us = 0 if longest is None else _unprotected_us(longest, now)
    return {
        "brackets": counts,
        "unknown_outcomes": unknown,
        "attention": attention,
        "longest_unprotected_s": longest_us / 1_000_000,
        "longest_unprotected_bracket_id": None if longest is None or not longest_us else longest["bracket_id"],
    }


def alarms(connection: sqlite3.Connection, *, after_seq: int = 0, limit: int = 1000) -> list[Json]:
    """Alarms after `after_seq`, oldest first."""
    query = "SELECT * FROM alarms WHERE seq > ? ORDER BY seq LIMIT ?"
    return [
        {
            "seq": row["seq"],
            "at": at_text(row["at_us"]),
            "code": row["code"],
            "text": row["text"],
            "bracket_id": row["bracket_id"],
        }
        for row in connection.execute(query, (after_seq, limit))
    ]


def _bracket(row: sqlite3.Row, now_us: int) -> Json:
    return {
        "bracket_id": row["bracket_id"],
        "client_ref": row["client_ref"],
        "account": row["account"],
        "state": row["state"],
        "outcome": row["outcome"],
        "attention": row["attention"],
        "protection": row["protection"],
        "quantity": row["quantity"],
        "entry_net_price": row["entry_net_price"],
        "exit_net_price": row["exit_net_price"],
        "unprotected_s": _unprotected_us(row, now_us) / 1_000_000,
        "tags": json.loads(row["tags_json"]),
    }


def _order(row: sqlite3.Row, *, is_released: bool) -> Json:
    order = {
        "role": row["role"],
        "external_identifier": row["external_identifier"],
        "broker_order_id": row["broker_order_id"],
        "status": row["status"],
        "quantity": row["quantity"],
        "filled_quantity": row["filled_quantity"],
        "net_fill_price": row["net_fill_price"],
    }
    if row["status"] == "Adopted":
        order["broker_order_id"] = None  # the position was there before; no order of ours opened it
    if is_released and row["state"] not in _TERMINAL:
        # It may still work, and otocod no longer looks after it.
        order["handed_over"] = True
    return order


def _unprotected_us(row: sqlite3.Row, now_us: int) -> int:
    """Closed stretches and the running one. A clock set back makes no negative time."""
    since = row["unprotected_since_us"]
    running = 0 if since is None else max(now_us - since, 0)
    return int(row["unprotected_us"]) + running


def _payload(text: str | None) -> object:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def at_text(at_us: int) -> str:
    # Arithmetic on integers: a float of seconds has no room for the last microsecond.
    return (_EPOCH + timedelta(microseconds=at_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _now_us(now_us: int | None) -> int:
    return time.time_ns() // 1000 if now_us is None else now_us


@contextmanager
def _one_moment(connection: sqlite3.Connection) -> Iterator[None]:
    """Several queries that see the same state of the file."""
    with closing(connection.cursor()) as cursor:
        cursor.execute("BEGIN")
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")
