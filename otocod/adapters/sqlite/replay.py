"""A bracket's journal decided again: the same decisions, or the first that is another one now.

A recording is one JSON object of rows as they are stored, `readmodel.recording`: whatever reads the tables reads it. In
a file it is a line for the bracket and one for each row of the journal.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from otocod.adapters.sqlite.codec import StoredRecordUnreadable, bracket_from_rows, order_from_row, to_json
from otocod.adapters.sqlite.journal import StepUnknown, is_of_steps, steps_from_text
from otocod.adapters.sqlite.tables import IdStatus
from otocod.domain.brackets import Bracket
from otocod.domain.decisions import Decision, JournalEntry
from otocod.domain.ids import ExternalIdentifier
from otocod.domain.specs import Role
from otocod.domain.steps import Origin, Step, Told, decided

Recording = Mapping[str, Any]

_FORMAT = 1


class RecordingUnreadable(Exception):
    """What was given is no recording, or one of another release."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first decision that is not the recorded one, or cannot be made. `number`: from 1."""

    number: int
    seq: int
    at_us: int
    told: str
    recorded: tuple[str, ...]
    now: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Belief:
    """The record as a decision left it; its lines in the journal are `seq` to `last_seq`."""

    seq: int
    last_seq: int
    at_us: int
    bracket: Bracket


@dataclass(frozen=True, slots=True)
class Replayed:
    bracket_id: str
    beliefs: tuple[Belief, ...]  # one for each decision that is the same
    difference: Difference | None = None
    # Why there is nothing to decide again from here on: rows of a release that did not record what it was given.
    unrecorded: str | None = None
    # Fields of the record that is stored and of the one that all decisions lead to; empty when they are the same.
    astray: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        return self.difference is None and not self.astray


@dataclass(frozen=True, slots=True)
class _Change:
    """Rows that were written together: the first says what was given."""

    rows: tuple[Mapping[str, Any], ...]

    @property
    def seq(self) -> int:
        return int(self.rows[0]["seq"])

    @property
    def at_us(self) -> int:
        return int(self.rows[0]["at_us"])


def replay(recording: Recording) -> Replayed:
    """Raises RecordingUnreadable."""
    stored = _record(recording)
    origin = Origin(stored.bracket_id, stored.client_ref, stored.account, stored.request, stored.policy)
    changes = tuple(_changes(recording["journal"]))
    bracket: Bracket | None = None
    beliefs: list[Belief] = []
    for change in changes:
        if not is_of_steps(_payload(change)):
            why = f"journal {change.seq} was written by a release that did not record what a decision was made on"
            return Replayed(stored.bracket_id, tuple(beliefs), unrecorded=why)
        try:
            steps = steps_from_text(change.rows[0]["payload_json"])
        except StepUnknown as error:
            found = Difference(len(beliefs) + 1, change.seq, change.at_us, "", ("a step",), (str(error),))
            return Replayed(stored.bracket_id, tuple(beliefs), found)
        lines = iter(change.rows)
        for step in steps:
            decision, why_not = _again(bracket, step, origin)
            entries = [_entry(row) for _, row in zip(range(step.entries), lines, strict=False)]
            recorded, now = _told_of(step.commands, entries), _decided(decision, why_not)
            if decision is None or recorded != now:
                found = _difference(len(beliefs) + 1, change, step, recorded, now)
                return Replayed(stored.bracket_id, tuple(beliefs), found)
            bracket = decision.bracket
            beliefs.append(Belief(change.seq, int(change.rows[-1]["seq"]), change.at_us, bracket))
    return Replayed(stored.bracket_id, tuple(beliefs), astray=tuple(_astray(bracket, stored, recording["bracket"])))


def _record(recording: Recording) -> Bracket:
    try:
        unused = [
            (Role(each["role"]), ExternalIdentifier(each["external_identifier"]), IdStatus(each["status"]))
            for each in recording["identifiers"]
        ]
        orders = [order_from_row(each) for each in recording["orders"]]
        return bracket_from_rows(recording["bracket"], orders, unused)
    except (StoredRecordUnreadable, LookupError, TypeError, ValueError) as error:
        raise RecordingUnreadable(f"the record cannot be read: {error}") from error


def _changes(rows: Iterable[Mapping[str, Any]]) -> Iterator[_Change]:
    together: list[Mapping[str, Any]] = []
    for row in rows:
        if row["payload_json"] is not None and together:
            yield _Change(tuple(together))
            together = []
        together.append(row)
    if together:
        yield _Change(tuple(together))


def _payload(change: _Change) -> object:
    try:
        return json.loads(change.rows[0]["payload_json"] or "null")
    except ValueError:
        return None


def _again(bracket: Bracket | None, step: Step, origin: Origin) -> tuple[Decision | None, str]:
    try:
        return decided(bracket, step.given, origin), ""
    except Exception as error:  # whatever a changed rule runs into is what is asked for here
        return None, f"no decision: {error!r}"


def _entry(row: Mapping[str, Any]) -> str:
    states = f"{row['from_state']} -> {row['to_state']}"
    return f"{row['event']} [{states}] {row['detail']}".strip()


def _told_of(commands: Sequence[object], entries: Iterable[str]) -> tuple[str, ...]:
    return (*entries, *(f"{type(command).__name__} {to_json(command)}" for command in commands))


def _decided(decision: Decision | None, why_not: str) -> tuple[str, ...]:
    if decision is None:
        return (why_not,)
    return _told_of(decision.commands, [_entry(_row(entry)) for entry in decision.journal])


def _row(entry: JournalEntry) -> Mapping[str, Any]:
    return {
        "event": entry.event,
        "from_state": None if entry.from_state is None else entry.from_state.value,
        "to_state": entry.to_state.value,
        "detail": entry.detail,
    }


def _difference(
    number: int, change: _Change, step: Step, recorded: tuple[str, ...], now: tuple[str, ...]
) -> Difference:
    given = step.given
    events = given.events if isinstance(given, Told) else (given,)
    told = "; ".join(f"{type(event).__name__} {to_json(event)}" for event in events)
    return Difference(number, change.seq, change.at_us, told, _only(recorded, now), _only(now, recorded))


def _only(these: tuple[str, ...], those: tuple[str, ...]) -> tuple[str, ...]:
    """What only these have; all of them where it is their order alone that differs."""
    return tuple(each for each in these if each not in those) or (these if set(these) == set(those) else ())


def _astray(bracket: Bracket | None, stored: Bracket, row: Mapping[str, Any]) -> Iterator[str]:
    """A field that the release which stored the record did not have says nothing."""
    if bracket is None:
        yield "journal"
        return
    had = {*row, *json.loads(row["more_json"]), "request", "policy", "orders", "staged", "suspects"}
    for field in fields(Bracket):
        if field.name in had and getattr(bracket, field.name) != getattr(stored, field.name):
            yield field.name


def save(recording: Recording, file: Path) -> None:
    """Raises OSError; FileExistsError if it is there."""
    head = {name: value for name, value in recording.items() if name != "journal"}
    lines = [{"otocod-journal": _FORMAT, **head}, *recording["journal"]]
    with file.open("x", encoding="utf-8") as out:
        out.writelines(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)


def load(file: Path) -> Recording:
    """Raises RecordingUnreadable and OSError."""
    try:
        head, *rows = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
        known = isinstance(head, dict) and head.get("otocod-journal") == _FORMAT
    except (UnicodeDecodeError, ValueError) as error:
        raise RecordingUnreadable(f"it is no recording of a journal: {error}") from None
    if not known:
        raise RecordingUnreadable(
            "it is no recording of a journal that this release knows; `replay B --save` makes one"
        )
    return {**head, "journal": rows}
