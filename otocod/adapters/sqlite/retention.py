"""Journals of brackets that closed long ago leave state.db for the archive of their year.

Nothing else of a bracket goes: its record, identifiers, accepted row and fills stay, so that no identifier is made
twice, no key makes a second bracket, and an order that turns up late is known. A bracket that a person must still look
at stays whole. The archive is durable and compared before the rows go; every step can be repeated.
"""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from otocod.adapters.sqlite.archive import Copied, copy_journal, directory_of, name_for
from otocod.adapters.sqlite.readmodel import open_readonly
from otocod.domain.ids import BracketId
from otocod.ports.store import JournalArchived, Store

_AT_ONCE = 500

# With an archive already, its year stays its file: a journal is never in two.
_DUE = (
    "SELECT b.bracket_id, coalesce(a.archive, ''), b.closed_at_us FROM brackets b"
    " LEFT JOIN archived_journals a ON a.bracket_id = b.bracket_id"
    " WHERE b.state = 'CLOSED' AND b.closed_at_us < ? AND b.attention IS NULL AND b.wake_at_us IS NULL"
    " AND EXISTS (SELECT 1 FROM journal j WHERE j.bracket_id = b.bracket_id)"
    " ORDER BY b.closed_at_us LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class Pruned:
    brackets: int
    rows: int
    archives: tuple[str, ...]


def months_before_us(now_us: int, months: int) -> int:
    """The same moment of the month so many months ago, or the month's last if it has no such day."""
    now = datetime.fromtimestamp(now_us // 1_000_000, UTC)
    year, month = divmod(now.year * 12 + now.month - 1 - months, 12)
    for day in range(now.day, 27, -1):
        try:
            return round(now.replace(year=year, month=month + 1, day=day).timestamp()) * 1_000_000
        except ValueError:
            continue
    return round(now.replace(year=year, month=month + 1).timestamp()) * 1_000_000


async def archive_journals(store: Store, path: Path, *, closed_before_us: int, now_us: int) -> Pruned:
    """One bracket at a time, so that no commit of the daemon waits long. Raises ArchiveFailed and StoreFailed."""
    brackets, rows, archives = 0, 0, set[str]()
    while True:
        due = await asyncio.to_thread(_due, path, closed_before_us)
        for bracket_id, archive in due:
            copied = await asyncio.to_thread(_copy, path, bracket_id, archive)
            await store.commit(_change(bracket_id, copied, now_us))
            brackets, rows = brackets + 1, rows + len(copied.seqs)
            archives.add(copied.archive)
        if len(due) < _AT_ONCE:
            return Pruned(brackets, rows, tuple(sorted(archives)))


def _due(path: Path, closed_before_us: int) -> list[tuple[BracketId, str]]:
    with closing(open_readonly(path)) as connection:
        found = connection.execute(_DUE, (closed_before_us, _AT_ONCE)).fetchall()
    return [(BracketId(name), archive or name_for(closed_at_us)) for name, archive, closed_at_us in found]


def _copy(path: Path, bracket_id: str, archive: str) -> Copied:
    connection: sqlite3.Connection = open_readonly(path)
    with closing(connection):
        return copy_journal(connection, bracket_id, directory_of(path) / archive)


def _change(bracket_id: BracketId, copied: Copied, now_us: int) -> JournalArchived:
    return JournalArchived(bracket_id, copied.archive, copied.seqs, copied.rows, copied.digest, now_us)
