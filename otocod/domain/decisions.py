"""What `decide` answers with: the new record, what to do, and what to write down."""

from dataclasses import dataclass

from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.commands import Command


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One line of the append-only journal. A change of state has `from_state` != `to_state`."""

    event: str  # EntryFilled, ProtectionConfirmed, ...
    from_state: BracketState | None
    to_state: BracketState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    bracket: Bracket
    commands: tuple[Command, ...] = ()
    journal: tuple[JournalEntry, ...] = ()
