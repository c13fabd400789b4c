"""What is still to be sent, read from state.db. Standard library only; blocking, so the daemon calls it in threads."""

import re
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otocod.adapters.alerts.message import Alert
from otocod.adapters.sqlite import readmodel
from otocod.alarms import severity_of

PAGE = 200
SINCE_SETTING = "alerts.since."  # + channel: alarms up to this number are none of this channel's business
INSTANCE_SETTING = "alerts.instance"

_WAITING = (
    "SELECT a.seq, a.at_us, a.code, a.text, a.bracket_id, b.client_ref, coalesce(d.tries, 0) AS tries"
    " FROM alarms AS a LEFT JOIN alert_deliveries AS d ON d.alarm_seq = a.seq AND d.channel = ?"
    " LEFT JOIN brackets AS b ON b.bracket_id = a.bracket_id"
    " WHERE a.seq > ? AND (d.state IS NULL OR d.state = 'WAITING') ORDER BY a.seq LIMIT ?"
)
_SENT_BEFORE = (
    "SELECT a.text FROM alarms AS a JOIN alert_deliveries AS d ON d.alarm_seq = a.seq AND d.channel = ?"
    " WHERE a.code = ? AND a.at_us BETWEEN ? AND ? AND a.seq < ? AND a.bracket_id IS ? AND d.state = 'DELIVERED'"
)
_NUMBERS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Waiting:
    """`fresh`: to be sent, oldest first. `repeats`: the same was sent shortly before, or is among `fresh`.

    `read_to`: every alarm up to this number was looked at. `oldest`: the first of them that is not done with.
    """

    fresh: tuple[Alert, ...]
    repeats: tuple[Alert, ...]
    read_to: int
    oldest: int | None
    is_last: bool  # no further page


def read_waiting(path: Path, channel: str, *, after: int, repeat_us: int, done: Collection[int] = ()) -> Waiting:
    """One page. `done`: sent, though the record of it may not be on disk yet."""
    with closing(readmodel.open_readonly(path)) as connection:
        # One moment for all: an alarm that came between two reads would be taken for looked at.
        connection.execute("BEGIN")
        rows = connection.execute(_WAITING, (channel, after, PAGE)).fetchall()
        newest = connection.execute("SELECT coalesce(max(seq), 0) FROM alarms").fetchone()[0]
        fresh: list[Alert] = []
        repeats: list[Alert] = []
        for row in rows:
            if row["seq"] in done:
                continue
            alert = _alert(row)
            is_repeat = any(_are_same(alert, earlier, repeat_us) for earlier in fresh)
            if is_repeat or _was_sent(connection, channel, alert, repeat_us):
                repeats.append(alert)
            else:
                fresh.append(alert)
    is_last = len(rows) < PAGE
    waiting = [alert.seq for alert in (*fresh, *repeats) if alert.seq is not None]
    return Waiting(
        tuple(fresh), tuple(repeats), newest if is_last else rows[-1]["seq"], min(waiting, default=None), is_last
    )


def _alert(row: sqlite3.Row) -> Alert:
    code = row["code"]
    return Alert(
        seq=row["seq"],
        at_us=row["at_us"],
        code=code,
        severity=severity_of(code),
        text=row["text"],
        bracket_id=row["bracket_id"],
        client_ref=row["client_ref"],
        tries=row["tries"],
    )


def _was_sent(connection: sqlite3.Connection, channel: str, alert: Alert, repeat_us: int) -> bool:
    if not repeat_us:
        return False
    since_us = alert.at_us - repeat_us
    values = (channel, alert.code, since_us, alert.at_us, alert.seq, alert.bracket_id)
    return any(shape(row["text"]) == shape(alert.text) for row in connection.execute(_SENT_BEFORE, values))


def _are_same(alert: Alert, earlier: Alert, repeat_us: int) -> bool:
    return (
        (alert.code, alert.bracket_id) == (earlier.code, earlier.bracket_id)
        and alert.at_us - earlier.at_us < repeat_us
        and shape(alert.text) == shape(earlier.text)
    )


def shape(text: str) -> str:
    """The text without its numbers: an alarm that counts seconds or tries says the same every time."""
    return _NUMBERS.sub("#", text)


def newest_alarm(path: Path) -> int:
    with closing(readmodel.open_readonly(path)) as connection:
        return int(connection.execute("SELECT coalesce(max(seq), 0) FROM alarms").fetchone()[0])


def list_alerts(connection: sqlite3.Connection, channels: Sequence[str], *, limit: int) -> list[dict[str, Any]]:
    """The newest alarms, oldest first, each with what became of it on each channel."""
    rows = connection.execute(
        "SELECT a.*, b.client_ref FROM alarms AS a LEFT JOIN brackets AS b ON b.bracket_id = a.bracket_id"
        " ORDER BY a.seq DESC LIMIT ?",
        (limit,),
    ).fetchall()
    since = {
        row["name"].removeprefix(SINCE_SETTING): int(row["value"] or 0)
        for row in connection.execute("SELECT name, value FROM settings WHERE name LIKE ?", (f"{SINCE_SETTING}%",))
    }
    return [
        {
            "seq": row["seq"],
            "at": readmodel.at_text(row["at_us"]),
            "code": row["code"],
            "severity": severity_of(row["code"]).value,
            "text": row["text"],
            "bracket_id": row["bracket_id"],
            "client_ref": row["client_ref"],
            "deliveries": _deliveries(connection, row["seq"], channels, since),
        }
        for row in reversed(rows)
    ]


def _deliveries(
    connection: sqlite3.Connection, seq: int, channels: Sequence[str], since: dict[str, int]
) -> list[dict[str, Any]]:
    query = "SELECT * FROM alert_deliveries WHERE alarm_seq = ? ORDER BY channel"
    found = {
        row["channel"]: {
            "channel": row["channel"],
            "state": row["state"],
            "tries": row["tries"],
            "at": readmodel.at_text(row["at_us"]),
            "error": row["error"],
        }
        for row in connection.execute(query, (seq,))
    }
    for channel in channels:
        if channel not in found and seq > since.get(channel, 0):
            found[channel] = {"channel": channel, "state": "WAITING", "tries": 0, "at": None, "error": ""}
    return [found[name] for name in sorted(found)]
