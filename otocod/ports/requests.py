"""The queue of bracket requests, as the engine sees it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from otocod.domain.ids import RequestId


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    request_id: RequestId
    client_ref: str
    account: str
    text: str
    created_at_us: int


@dataclass(frozen=True, slots=True)
class SpoiledRequest:
    """A row that is not even a request; its reasons are the answer."""

    request_id: RequestId
    client_ref: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RequestAnswer:
    """`reasons` empty: accepted as `bracket_id`. Written back only if the row is still NEW."""

    request_id: RequestId
    client_ref: str
    bracket_id: str | None
    reasons: tuple[str, ...] = ()


class RequestQueue(Protocol):
    def answer(self, answers: Sequence[RequestAnswer]) -> None:
        """Written when the file is free; a row that stays NEW is handed over and answered again by a later run."""
        ...
