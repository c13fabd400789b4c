"""What a decision was made on, as the text of the journal's first row of it, and back.

A JSON array of steps, one for each decision: several where changes that could not be saved were saved as one later.

    {"now_us": 1, "told": [{"event": "TimeReached", "fields": {}}], "asked": [{"command": ...}], "entries": 2}

Rows of otocod 0.x before it recorded all of this hold an array of events instead, and cannot be decided on again.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, assert_never, get_args

import msgspec

from otocod.domain.commands import Command
from otocod.domain.events import Event
from otocod.domain.steps import Accepted, Given, RecordRejected, Step, TakenOver, Told

# The names are in files: a class may be renamed, its name here may not.
EVENTS: Mapping[str, type] = {kind.__name__: kind for kind in get_args(Event)}
COMMANDS: Mapping[str, type] = {kind.__name__: kind for kind in get_args(Command)}
_encoder = msgspec.json.Encoder()


class StepUnknown(Exception):
    """A step that this release cannot read: of another release, or damaged."""


class _Named(msgspec.Struct):
    fields: msgspec.Raw
    event: str = ""
    command: str = ""


class _Stored(msgspec.Struct):
    now_us: int
    asked: tuple[_Named, ...]
    entries: int
    told: tuple[_Named, ...] | None = None
    accepted: Accepted | None = None
    taken_over: TakenOver | None = None
    rejected: RecordRejected | None = None


_stored_decoder = msgspec.json.Decoder(tuple[_Stored, ...])


def names_told(steps: Iterable[Step]) -> str:
    """The events of these steps, each kind once."""
    events = (event for step in steps if isinstance(step.given, Told) for event in step.given.events)
    return ", ".join(dict.fromkeys(type(event).__name__ for event in events)) or "Told"


def text_from_steps(steps: Sequence[Step]) -> str:
    return _encoder.encode([_plain(step) for step in steps]).decode()


def _plain(step: Step) -> dict[str, Any]:
    asked = [{"command": type(command).__name__, "fields": command} for command in step.commands]
    return {"now_us": step.given.now_us, **_given(step.given), "asked": asked, "entries": step.entries}


def _given(given: Given) -> dict[str, Any]:
    match given:
        case Told():
            return {"told": [{"event": type(event).__name__, "fields": event} for event in given.events]}
        case Accepted():
            return {"accepted": given}
        case TakenOver():
            return {"taken_over": given}
        case RecordRejected():
            return {"rejected": given}
        case _:
            assert_never(given)


def is_of_steps(payload: object) -> bool:
    """False for what an older release wrote: events alone, or nothing for an acceptance."""
    return isinstance(payload, list) and bool(payload) and "now_us" in payload[0]


def steps_from_text(text: str) -> tuple[Step, ...]:
    """Raises StepUnknown."""
    try:
        return tuple(_step(stored) for stored in _stored_decoder.decode(text))
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise StepUnknown(f"this release cannot read it: {error}") from error


def _step(stored: _Stored) -> Step:
    asked: tuple[Command, ...] = tuple(_typed(COMMANDS, each.command, each.fields) for each in stored.asked)
    given: Given | None = stored.accepted or stored.taken_over or stored.rejected
    if stored.told is not None:
        given = Told(stored.now_us, tuple(_typed(EVENTS, each.event, each.fields) for each in stored.told))
    if given is None:
        raise StepUnknown("this release does not know what the bracket was given")
    return Step(given, asked, stored.entries)


def _typed(kinds: Mapping[str, Any], name: str, fields: msgspec.Raw) -> Any:
    if name not in kinds:
        raise StepUnknown(f"this release does not know {name}")
    return _decoder(kinds[name]).decode(fields)


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)
