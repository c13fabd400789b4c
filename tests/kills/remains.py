"""What a killed daemon left on the disk: looked at in a copy, so that the look mends nothing for the next start.

Opening a file for reading can already roll a journal back or rebuild the index of a WAL. The copy is opened the way a
writer opens it, recovers, and is then asked for its integrity and for every commit that had been acknowledged.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

# The -shm file is left out: after a crash SQLite builds it anew from the WAL.
_PARTS = {"state.db": ("", "-wal"), "queue.db": ("", "-journal")}


def violations_of_remains(data_dir: Path, acknowledged: Mapping[str, int]) -> list[str]:
    """`acknowledged`: bracket -> the newest version that somebody was told is on disk."""
    with tempfile.TemporaryDirectory() as scratch:
        state = _copy(data_dir / "state.db", Path(scratch))
        queue = _copy(data_dir / "queue" / "queue.db", Path(scratch))
        found = []
        if state is not None:
            found += [f"state.db: {line}" for line in _damage(state)]
        if queue is not None:
            found += [f"queue.db: {line}" for line in _damage(queue)]
        return found or list(_lost(state, acknowledged))


def _copy(path: Path, scratch: Path) -> Path | None:
    if not path.exists():
        return None
    for suffix in _PARTS[path.name]:
        part = path.with_name(path.name + suffix)
        if part.exists():
            shutil.copyfile(part, scratch / part.name)
    return scratch / path.name


def _damage(path: Path) -> list[str]:
    try:
        with closing(sqlite3.connect(path)) as connection:
            # The copy need not outlive this function.
            connection.execute("PRAGMA synchronous = OFF")
            rows = connection.execute("PRAGMA integrity_check").fetchall()
            rows += connection.execute("PRAGMA foreign_key_check").fetchall()
    except sqlite3.Error as error:
        return [str(error)]
    return [] if rows == [("ok",)] else [" ".join(map(str, row)) for row in rows]


def _lost(state: Path | None, acknowledged: Mapping[str, int]) -> Iterator[str]:
    if not acknowledged:
        return
    if state is None:
        yield f"state.db is gone, and {len(acknowledged)} brackets were acknowledged"
        return
    with closing(sqlite3.connect(state)) as connection:
        present = dict(connection.execute("SELECT bracket_id, version FROM brackets"))
    for bracket_id, version in acknowledged.items():
        there = present.get(bracket_id)
        if there is None or there < version:
            yield f"bracket {bracket_id}: version {version} was acknowledged, {there} is there"
