"""Where a reading command gets its answer: from the daemon, or from the file when nobody answers."""

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from otocod.cli.client import BROKER_TIMEOUT_S, TIMEOUT_S, Client, bracket_path
from otocod.cli.commands import Given
from otocod.cli.failure import DaemonDown, ExitStatus, Failed
from otocod.cli.output import iso_from_us
from otocod.cli.places import Places, find_places

JsonObject = dict[str, Any]


class Source(Protocol):
    waits: bool  # whether `events` waits for the first one itself

    def status(self) -> JsonObject: ...
    def brackets(self, filters: Mapping[str, str]) -> list[JsonObject]: ...
    def bracket(self, bracket: str) -> JsonObject: ...
    def explain(self, bracket: str) -> JsonObject: ...
    def events(self, bracket: str | None, *, after: int, limit: int, wait_s: float) -> list[JsonObject]: ...
    def recording(self, bracket: str) -> JsonObject: ...
    def truth(self, bracket: str) -> JsonObject: ...


def status_from_daemon(client: Client, found: JsonObject) -> JsonObject:
    """A status that the daemon answered a command with, in the one shape that is printed."""
    return _FromDaemon(client).status_from(found)


def places() -> Places:
    return find_places(Given.config, os.environ)


def daemon() -> Client:
    """For commands that only the daemon can carry out; they end with 75 when it is not there."""
    return Client(places().socket)


@contextmanager
def open_source() -> Iterator[Source]:
    """The daemon if it answers, else the database. Raises Failed."""
    where = places()
    client = Client(where.socket)
    if client.is_up():
        yield _FromDaemon(client)
        return
    with database(where.state_db) as connection:
        yield _FromFile(connection)


class _FromDaemon:
    waits = True

    def __init__(self, client: Client) -> None:
        self._client = client

    def status(self) -> JsonObject:
        return self.status_from(self._client.get("/v1/status"))

    def status_from(self, found: JsonObject) -> JsonObject:
        attention = found.get("attention")
        if attention and isinstance(attention, int):
            attention = _attention(self.brackets({"attention": "1"}))
        return _status(found, running=True, attention=attention or [])

    def brackets(self, filters: Mapping[str, str]) -> list[JsonObject]:
        found: list[JsonObject] = self._client.get("/v1/brackets", query=filters)
        return found

    def bracket(self, bracket: str) -> JsonObject:
        found: JsonObject = self._client.get(bracket_path(bracket))
        return found

    def explain(self, bracket: str) -> JsonObject:
        found: JsonObject = self._client.get(bracket_path(bracket, "explain"))
        return found

    def events(self, bracket: str | None, *, after: int, limit: int, wait_s: float) -> list[JsonObject]:
        found: list[JsonObject] = self._client.get(
            "/v1/events",
            timeout_s=TIMEOUT_S + wait_s,
            query={"bracket": bracket, "after": after, "limit": limit, "wait_s": wait_s},
        )
        return found

    def recording(self, bracket: str) -> JsonObject:
        found: JsonObject = self._client.get(bracket_path(bracket, "recording"))
        return found

    def truth(self, bracket: str) -> JsonObject:
        found: JsonObject = self._client.get(bracket_path(bracket, "truth"), timeout_s=BROKER_TIMEOUT_S)
        return found


def _status(found: JsonObject, *, running: bool, attention: list[JsonObject]) -> JsonObject:
    """One shape, whoever answered. A number of brackets with attention would not say what to look at."""
    counts = found.pop("brackets", None)
    status = {"running": running, **found, "attention": attention}
    if counts is not None:
        status["counts"] = counts
    at = status.get("last_reconcile_at")
    if isinstance(at, int):
        status["last_reconcile_at"] = iso_from_us(at)
    return status


def _attention(brackets: list[JsonObject]) -> list[JsonObject]:
    return [{name: each[name] for name in ("bracket_id", "client_ref", "attention")} for each in brackets]


def require_database(path: Path) -> None:
    """Raises Failed unless there is a database that this user may read."""
    try:
        path.open("rb").close()
    except FileNotFoundError:
        raise DaemonDown(f"otocod is not running and there is no database {path}") from None
    except OSError as error:
        raise Failed(
            ExitStatus.FAILED,
            f"otocod is not running and {path} cannot be read ({error.strerror}): be its user or root",
        ) from None


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """The database for reading. Raises Failed, also for what goes wrong while it is read."""
    require_database(path)
    from otocod.adapters.sqlite import readmodel

    try:
        connection = readmodel.open_readonly(path)
        try:
            yield connection
        finally:
            connection.close()
    except (readmodel.BracketNotFound, readmodel.BracketAmbiguous) as error:
        raise Failed(ExitStatus.NO_SUCH_BRACKET, str(error)) from None
    except sqlite3.Error as error:
        raise Failed(ExitStatus.FAILED, f"{path}: {error}") from None
    except json.JSONDecodeError as error:
        raise Failed(ExitStatus.FAILED, f"{path} has a damaged record ({error}); see `otocod audit`") from None


class _FromFile:
    waits = False

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def status(self) -> JsonObject:
        """The daemon's own part is false or absent: nothing of it is known from the file."""
        from otocod.adapters.sqlite import readmodel

        found = readmodel.status_summary(self._connection)
        found |= {"ready": False, "reasons_not_ready": ["otocod is not running"]}
        attention = _attention(readmodel.list_brackets(self._connection, attention=True))
        return _status(found, running=False, attention=attention)

    def brackets(self, filters: Mapping[str, str]) -> list[JsonObject]:
        from otocod.adapters.sqlite import readmodel

        return readmodel.list_brackets(
            self._connection,
            state=filters.get("state"),
            account=filters.get("account"),
            open_only="open" in filters,
            attention="attention" in filters,
        )

    def bracket(self, bracket: str) -> JsonObject:
        from otocod.adapters.sqlite import readmodel

        return readmodel.show_bracket(self._connection, readmodel.find_bracket(self._connection, bracket))

    def explain(self, bracket: str) -> JsonObject:
        from otocod import story
        from otocod.adapters.sqlite import records
        from otocod.adapters.sqlite.codec import StoredRecordUnreadable
        from otocod.safety import safety_of

        found = self.bracket(bracket)
        events = self.events(found["bracket_id"], after=0, limit=1000, wait_s=0)
        try:
            safety = safety_of(records.bracket(self._connection, found["bracket_id"]))
        except StoredRecordUnreadable as error:
            safety = [f"not to be told from the file: {error}"]  # of another release: the story needs none of it
        return {"bracket": found, "safety": safety, "story": story.told(found, events)}

    def events(self, bracket: str | None, *, after: int, limit: int, wait_s: float) -> list[JsonObject]:
        from otocod.adapters.sqlite import readmodel

        bracket_id = None if bracket is None else readmodel.find_bracket(self._connection, bracket)
        return readmodel.events(self._connection, bracket_id, after_seq=after, limit=limit)

    def recording(self, bracket: str) -> JsonObject:
        from otocod.adapters.sqlite import readmodel

        return readmodel.recording(self._connection, readmodel.find_bracket(self._connection, bracket))

    def truth(self, bracket: str) -> JsonObject:
        raise DaemonDown("otocod is not running, and nobody else asks the broker")
