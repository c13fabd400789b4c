"""The memory of the daemon. One writer; changes are committed in the order in which they are handed over."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from otocod.domain.brackets import Bracket
from otocod.domain.decisions import JournalEntry
from otocod.domain.ids import AccountNumber, BracketId, ExternalIdentifier, RequestId
from otocod.domain.specs import Protection
from otocod.domain.steps import Step


@dataclass(frozen=True, slots=True)
class AcceptedRow:
    """The queue row a bracket came from, copied in the transaction that accepts it."""

    request_id: RequestId
    client_ref: str
    account: str
    request: str


@dataclass(frozen=True, slots=True)
class BracketChange:
    """One decision, or several that are saved as one. `before` is None for an acceptance.

    `steps`: what was decided on, in order; together they made all of `journal`.
    """

    before: Bracket | None
    after: Bracket
    journal: tuple[JournalEntry, ...]
    at_us: int
    steps: tuple[Step, ...]
    row: AcceptedRow | None = None
    is_awaited: bool = True  # something leaves, or is answered, only when it is on disk


@dataclass(frozen=True, slots=True)
class Alarm:
    at_us: int
    code: str
    text: str
    bracket_id: BracketId | None = None


@dataclass(frozen=True, slots=True)
class Capability:
    """What was proved about a mode of protection, for one account and kind of product; dated."""

    account: AccountNumber
    product: str  # "spread", "single option", "shares", "future", ...
    protection: Protection
    is_accepted: bool
    evidence: str
    at_us: int


@dataclass(frozen=True, slots=True)
class Setting:
    """A remembered fact of the daemon itself: halt, refused log-ins, clean stop, environment."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one alarm on one channel. An alarm without one, or with WAITING, is still to be sent."""

    alarm_seq: int
    channel: str
    state: str  # WAITING, DELIVERED, or REPEATED: the same was sent shortly before
    tries: int
    at_us: int  # of the last try
    error: str = ""  # why it failed


@dataclass(frozen=True, slots=True)
class JournalArchived:
    """A closed bracket's journal is in an archive, durable and compared: these rows of it here may go."""

    bracket_id: BracketId
    archive: str
    seqs: tuple[int, ...]
    rows: int  # of the bracket in the archive, and the digest of all of them
    digest: str
    at_us: int


Change = BracketChange | Alarm | Capability | Setting | Delivery | JournalArchived


class StoreFailed(Exception):
    """The disk said no and the change is not known to be durable. Never retried and believed."""

    is_final = False  # whether the store takes nothing more until it is opened again
    is_fenced = False  # whether another daemon has taken the file over: this one must not act any more
    is_of_change = False  # whether this change alone is bad: another try of the same would fail the same way


class Store(Protocol):
    def commit(self, change: Change) -> asyncio.Future[None]:
        """Hand a change over. The future ends when it is on disk, or with StoreFailed.

        Changes handed over while a commit is under way go together in the next one. A change that alone is bad
        (a constraint says no) fails alone. Cancelling the future cancels nothing.
        """
        ...

    async def load_open(self) -> tuple[Bracket, ...]:
        """Every bracket that is not CLOSED."""
        ...

    async def bracket(self, bracket_id: BracketId) -> Bracket | None: ...
    async def bracket_of(self, external_identifier: ExternalIdentifier) -> BracketId | None: ...
    async def bracket_of_ref(self, client_ref: str) -> tuple[BracketId, AccountNumber, str] | None:
        """(bracket, its account, its request's canonical text) of the first bracket with this key."""
        ...

    async def settings(self) -> dict[str, str]: ...
    async def capabilities(self) -> Sequence[Capability]: ...
    async def close(self) -> None:
        """Commits what was handed over, then lets go of the file."""
        ...
