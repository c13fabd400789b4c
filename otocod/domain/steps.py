"""What a bracket was given, one thing at a time: enough to decide the same again.

A decision hangs on nothing but the record before it and what stands here, so a journal of these, begun at the
acceptance, leads to the record that is stored; at the first step where it does not, the code has changed its mind.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from otocod.domain.acceptance import accept
from otocod.domain.brackets import Bracket, Policy
from otocod.domain.commands import Command
from otocod.domain.decide import decide_all
from otocod.domain.decisions import Decision, JournalEntry
from otocod.domain.errors import DomainError
from otocod.domain.events import Event
from otocod.domain.ids import AccountNumber, BracketId
from otocod.domain.invariants import violations_of
from otocod.domain.request_types import BracketRequest
from otocod.domain.specs import Protection
from otocod.domain.spreads import LegFill
from otocod.domain.takeover import take_over


@dataclass(frozen=True, slots=True)
class Accepted:
    now_us: int
    ladder: tuple[Protection, ...]
    broker_clock_offset_us: int


@dataclass(frozen=True, slots=True)
class TakenOver:
    now_us: int
    fills: tuple[LegFill, ...]
    proved: tuple[Protection, ...]
    by: str
    broker_clock_offset_us: int


@dataclass(frozen=True, slots=True)
class Told:
    now_us: int
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class RecordRejected:
    """The database would not have the record as it was."""

    now_us: int
    why: str


Given = Accepted | TakenOver | Told | RecordRejected


@dataclass(frozen=True, slots=True)
class Step:
    """What was given, and what was decided on it beside the record: its commands, and how many lines of journal."""

    given: Given
    commands: tuple[Command, ...]
    entries: int


@dataclass(frozen=True, slots=True)
class Origin:
    """What a bracket keeps for life, and with which its acceptance is decided again."""

    bracket_id: BracketId
    client_ref: str
    account: AccountNumber
    request: BracketRequest
    policy: Policy


def decided(before: Bracket | None, given: Given, origin: Origin) -> Decision:
    """`before`: None for the first step of a bracket, and only for it."""
    match given:
        case Accepted():
            return accept(
                origin.request,
                bracket_id=origin.bracket_id,
                client_ref=origin.client_ref,
                account=origin.account,
                policy=origin.policy,
                ladder=given.ladder,
                now_us=given.now_us,
                broker_clock_offset_us=given.broker_clock_offset_us,
            )
        case TakenOver():
            return take_over(
                origin.request,
                given.fills,
                bracket_id=origin.bracket_id,
                client_ref=origin.client_ref,
                account=origin.account,
                policy=origin.policy,
                proved=frozenset(given.proved),
                by=given.by,
                now_us=given.now_us,
                broker_clock_offset_us=given.broker_clock_offset_us,
            )
        case Told():
            assert before is not None, "a bracket begins with its acceptance"
            return _told(before, given)
        case RecordRejected():
            assert before is not None, "a bracket begins with its acceptance"
            return frozen_record(before, given.why)
        case _:
            assert_never(given)


def _told(before: Bracket, given: Told) -> Decision:
    try:
        decision = decide_all(before, given.events, given.now_us)
        if decision.bracket is not before:
            require_invariants(decision.bracket)
    except (DomainError, AssertionError) as error:
        return frozen_decision(before, given.events, error)
    return decision


def require_invariants(bracket: Bracket) -> None:
    violations = violations_of(bracket)
    if violations:
        raise DomainError("; ".join(violations))


def frozen_decision(before: Bracket, events: Sequence[Event], error: Exception) -> Decision:
    """A bug of ours, in one bracket: it keeps its record, starts nothing new, and a person is told."""
    names = ", ".join(type(event).__name__ for event in events)
    text = f"could not decide on {names} ({error}): frozen, look at its orders at the broker"
    if before.attention is not None and text in before.attention:
        return Decision(before)
    return _frozen(before, "DecisionFailed", text)


def frozen_record(before: Bracket, why: str) -> Decision:
    """The database will not have this record: a bug of ours. Its orders go on, and nothing new but protection."""
    return _frozen(before, "RecordRejected", f"the database rejects its record ({why}): frozen, report this")


def _frozen(before: Bracket, name: str, text: str) -> Decision:
    attention = text if before.attention is None else f"{before.attention}; {text}"
    after = replace(before, is_frozen=True, attention=attention, version=before.version + 1)
    return Decision(after, (), (JournalEntry(name, before.state, before.state, text),))
