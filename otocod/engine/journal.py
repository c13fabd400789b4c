"""Events as text for the journal: enough to run `decide` again."""

from collections.abc import Sequence
from typing import Any

import msgspec

from otocod.domain.events import Event

_ENCODER = msgspec.json.Encoder(decimal_format="string")


def text_from_events(events: Sequence[Event]) -> str:
    """A JSON array, one object an event: its name under `event`, its fields beside it."""
    items: list[dict[str, Any]] = [{"event": type(event).__name__, "fields": event} for event in events]
    return _ENCODER.encode(items).decode()
