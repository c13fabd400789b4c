"""What `watch` looks at: the daemon's own overview, or the same made from the file when the daemon is down."""

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from otocod.cli.client import Client, bracket_path
from otocod.cli.failure import DaemonDown, ExitStatus, Failed
from otocod.cli.places import Places
from otocod.cli.source import database

Json = dict[str, Any]

_MOST_SHOWN = 200
_CLOSED_SHOWN = 20
_STORY_EVENTS = 1000


class Looks(Protocol):
    """Every method may be called from a thread of its own, and raises Failed with words for the operator."""

    def overview(self) -> Json: ...
    def view(self, bracket_id: str) -> Json: ...
    def tell(self, path: str, body: Json) -> Json: ...


class DaemonOrFile:
    def __init__(self, where: Places) -> None:
        self._where = where
        self._client = Client(where.socket)

    def overview(self) -> Json:
        try:
            found: Json = self._client.get("/v1/overview")
        except DaemonDown:
            return self._overview_of_file()
        return found

    def view(self, bracket_id: str) -> Json:
        try:
            found: Json = self._client.get(bracket_path(bracket_id, "view"))
        except DaemonDown:
            return self._view_of_file(bracket_id)
        return found

    def tell(self, path: str, body: Json) -> Json:
        """A command, which only the daemon carries out."""
        found: Json = self._client.post(path, body)
        return found

    @contextmanager
    def _file(self) -> Iterator[sqlite3.Connection]:
        from otocod.adapters.sqlite.codec import StoredRecordUnreadable

        try:
            with database(self._where.state_db) as connection:
                yield connection
        except StoredRecordUnreadable as error:
            raise Failed(ExitStatus.FAILED, f"{error}; see `otocod db check`") from None

    def _overview_of_file(self) -> Json:
        from otocod.adapters.sqlite import readmodel, records
        from otocod.engine import picture

        with self._file() as connection:
            now_us = _now_us()
            brackets = records.open_brackets(connection, _MOST_SHOWN)
            counts = readmodel.status_summary(connection, now_us=now_us)["brackets"]
            open_counts = Counter({state: n for state, n in counts.items() if state != "CLOSED"})
            return picture.overview_of(
                identity={},
                health=picture.nobody_there(),
                pictures=[picture.picture_of(bracket, None, now_us) for bracket in brackets],
                closed=readmodel.lately_closed(connection, limit=_CLOSED_SHOWN, now_us=now_us),
                counts=open_counts,
                unshown=open_counts.total() - len(brackets),
                at_us=now_us,
                is_running=False,
            )

    def _view_of_file(self, bracket_id: str) -> Json:
        from otocod.adapters.sqlite import readmodel, records
        from otocod.engine import picture

        with self._file() as connection:
            shown = readmodel.show_bracket(connection, bracket_id)
            return picture.view_of(
                records.bracket(connection, bracket_id),
                None,
                _now_us(),
                shown=shown,
                events=readmodel.events(connection, bracket_id, limit=_STORY_EVENTS),
                points=[],
                is_running=False,
            )


def _now_us() -> int:
    return time.time_ns() // 1_000
