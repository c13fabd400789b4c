"""The door of a bracket: what leaves before the disk has answered, what waits, and what a failing disk does."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from otocod.adapters.sqlite.engine import ChangeRejected, DiskFailed, FailureKind
from otocod.adapters.sqlite.replay import replay
from otocod.domain import steps
from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.commands import (
    CancelOrder,
    Command,
    Member,
    SubmitComplex,
    SubmitOrder,
)
from otocod.domain.decide import decide_all
from otocod.domain.decisions import Decision, JournalEntry
from otocod.domain.errors import UnexpectedEvent
from otocod.domain.events import (
    AttentionAcknowledged,
    EntryCancelRequested,
    Event,
    OrderReported,
    SubmitConfirmed,
    TimeReached,
)
from otocod.domain.ids import BracketId, BrokerOrderId, ComplexOrderId
from otocod.domain.orders import BrokerStatus, OrderReport
from otocod.domain.specs import Role
from otocod.domain.steps import RecordRejected, Told
from otocod.engine import mailbox
from otocod.engine.mailbox import Mailboxes
from otocod.ports.store import AcceptedRow, BracketChange, StoreFailed
from tests.journals.simulated import journals_of, recording_of
from tests.support.fakes import LoopClock, accepted, bracket_id, pass_s, report_of, row, until
from tests.support.model_store import ModelStore

FULL = DiskFailed(FailureKind.FULL, "database or disk is full")


@dataclass
class Office:
    """Mailboxes between a store and an executor that only writes down."""

    store: ModelStore = field(default_factory=ModelStore)
    clock: LoopClock = field(default_factory=LoopClock)
    sent: list[Command] = field(default_factory=list)
    deadlines: dict[BracketId, int | None] = field(default_factory=dict)
    failures: list[StoreFailed] = field(default_factory=list)
    recoveries: int = 0

    def __post_init__(self) -> None:
        self.mailboxes = Mailboxes(
            self.store,
            self.clock,
            run_command=lambda bracket, command: self.sent.append(command),
            set_deadline=self.deadlines.__setitem__,
            on_store_failure=self.failures.append,
            on_store_recovery=self.recovered,
        )

    def recovered(self) -> None:
        self.recoveries += 1

    def accept(self, number: int = 0, **changes: object) -> "asyncio.Future[None]":
        queued = row(number)
        accepted_row = AcceptedRow(queued.request_id, queued.client_ref, queued.account, queued.text)
        return self.mailboxes.accept(accepted(number, self.clock.now_us(), **changes), accepted_row)

    async def accepted(self, number: int = 0, **changes: object) -> Bracket:
        await self.accept(number, **changes)
        await until(lambda: self.posted)
        self.sent.clear()
        return self.bracket(number)

    def bracket(self, number: int = 0) -> Bracket:
        return self.mailboxes.brackets[bracket_id(number)]

    def tell(self, *events: Event, number: int = 0) -> Bracket:
        told = self.mailboxes.deliver(bracket_id(number), *events)
        assert told is not None
        return told

    @property
    def posted(self) -> list[SubmitOrder | SubmitComplex]:
        return [command for command in self.sent if isinstance(command, SubmitOrder | SubmitComplex)]

    @property
    def changes(self) -> list[BracketChange]:
        return [change for change in self.store.committed if isinstance(change, BracketChange)]

    def must_replay(self, number: int = 0) -> None:
        """The bracket's journal, as the store has it, leads to the record that the store has."""
        journal = journals_of(self.store.committed)[bracket_id(number)]
        found = replay(recording_of(self.bracket(number), journal))
        assert (found.difference, found.unrecorded, found.astray) == (None, None, ())


def entry_report(bracket: Bracket, status: BrokerStatus, broker_order_id: int = 771) -> OrderReport:
    """The entry as the broker shows it; Filled means that every leg is."""
    entry = bracket.entries[0]
    legs: list[dict[str, Any]] = [
        {
            "symbol": leg.symbol,
            "action": leg.action.value,
            "quantity": leg.quantity,
            "remaining-quantity": 0 if status is BrokerStatus.FILLED else leg.quantity,
            "instrument-type": leg.instrument_type.value,
            "fills": [],
        }
        for leg in entry.spec.legs
    ]
    return report_of(
        {
            "id": broker_order_id,
            "status": status.value,
            "external-identifier": entry.external_identifier,
            "source": "otocod/test",
            "order-type": "Limit",
            "legs": legs,
        }
    )


def entry_filled(bracket: Bracket) -> OrderReported:
    return OrderReported(entry_report(bracket, BrokerStatus.FILLED), bracket.entries[0].external_identifier)


def entry_works(bracket: Bracket) -> OrderReported:
    return OrderReported(entry_report(bracket, BrokerStatus.LIVE), bracket.entries[0].external_identifier)


# The fast path.


async def test_exits_leave_while_the_commit_of_the_fill_is_still_under_way() -> None:
    office = Office()
    bracket = await office.accepted()
    before = len(office.changes)
    office.store.hold()
    office.tell(entry_filled(bracket))
    (group,) = office.posted
    assert isinstance(group, SubmitComplex)
    assert [member.role for member in group.members] == [Role.TARGET, Role.STOP]
    durable = {name for _, name in bracket.staged}
    assert {member.external_identifier for member in group.members} <= durable, "an id that is not on disk"
    assert len(office.changes) == before, "nothing of the fill is on disk yet"
    office.store.release()
    await until(lambda: len(office.changes) > before)
    assert office.changes[-1].after.state is BracketState.ENTRY_FILLED


def decide_on(monkeypatch: pytest.MonkeyPatch, *commands: Command) -> None:
    """Each event from here on changes the record and asks for these commands."""

    def decided(bracket: Bracket, events: tuple[Event, ...], now_us: int) -> Decision:
        after = replace(bracket, version=bracket.version + 1, rearms=bracket.rearms + 1)
        return Decision(after, commands, (JournalEntry("Decided", bracket.state, bracket.state),))

    monkeypatch.setattr(mailbox, "decide_all", decided)


async def test_commands_that_want_their_commit_wait_for_it_and_the_others_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    office = Office()
    bracket = await office.accepted()
    name = bracket.entries[0].external_identifier
    early = CancelOrder(name, BrokerOrderId("1"))
    late = [CancelOrder(name, BrokerOrderId(str(number)), after_commit=True) for number in (2, 3)]
    decide_on(monkeypatch, late[0], early, late[1])
    office.store.hold()
    office.tell(TimeReached())
    assert office.sent == [early]
    await pass_s(5)
    assert office.sent == [early]
    office.store.release()
    await until(lambda: len(office.sent) == 3)
    assert office.sent == [early, *late]


def confirm_protection(office: Office, bracket: Bracket) -> Bracket:
    """The broker took the pair of exits and both work."""
    exits = bracket.exits
    reports = tuple(
        OrderReport(
            BrokerOrderId(str(900 + number)),
            BrokerStatus.LIVE,
            "Live",
            external_identifier=order.external_identifier,
            complex_order_id=ComplexOrderId("56"),
            order_type=order.spec.order_type,
        )
        for number, order in enumerate(exits)
    )
    names = tuple(order.external_identifier for order in exits)
    bracket = office.tell(SubmitConfirmed(names, reports, ComplexOrderId("56")))
    assert bracket.state is BracketState.EXITS_LIVE
    return bracket


async def test_events_are_taken_in_the_order_in_which_they_are_told_and_committed_in_it() -> None:
    office = Office()
    bracket = await office.accepted()
    office.store.hold()
    office.tell(entry_works(bracket))
    office.tell(entry_filled(bracket))
    office.store.release()
    await until(lambda: len(office.changes) == 3)
    assert [change.after.version for change in office.changes] == [1, 2, 3]
    assert all(b.after is a.before for b, a in zip(office.changes, office.changes[1:], strict=False))


async def test_an_event_that_changes_nothing_is_not_written() -> None:
    office = Office()
    bracket = await office.accepted()
    office.tell(entry_works(bracket))
    written = len(office.changes)
    office.tell(entry_works(bracket))
    await pass_s(0.01)
    assert len(office.changes) == written


async def test_an_event_for_a_bracket_that_is_not_here_is_answered_with_none() -> None:
    assert Office().mailboxes.deliver(bracket_id(9), TimeReached()) is None


async def test_each_change_sets_the_deadline_that_the_record_names() -> None:
    office = Office()
    bracket = await office.accepted()
    told = office.tell(entry_filled(bracket))
    assert told.wake_at_us is not None
    assert office.deadlines[bracket.bracket_id] == told.wake_at_us


# Acceptance.


async def test_entry_leaves_only_once_the_acceptance_is_on_disk() -> None:
    office = Office()
    office.store.hold()
    coming = office.accept()
    await pass_s(0.1)
    assert office.sent == []
    office.store.release()
    await coming
    await until(lambda: office.posted)
    (entry,) = office.posted
    assert isinstance(entry, SubmitOrder)
    assert entry.member.role is Role.ENTRY


async def test_acceptance_that_fails_forgets_the_bracket_and_sends_nothing() -> None:
    office = Office()
    office.store.fail_next(FULL)
    with pytest.raises(DiskFailed):
        await office.accept()
    await pass_s(0.1)
    assert office.mailboxes.brackets == {}
    assert office.posted == []
    name = accepted().bracket.entries[0].external_identifier
    assert office.mailboxes.owner_of(a_report(external_identifier=name)) is None


@pytest.mark.covers("F92")
async def test_acceptance_refused_by_a_full_disk_is_told_and_so_is_its_recovery() -> None:
    """No bracket is open whose next commit could show that there is room again: the disk itself is tried."""
    office = Office()
    office.store.fail_next(FULL)
    with pytest.raises(DiskFailed):
        await office.accept()
    await until(lambda: office.failures)
    assert office.recoveries == 0
    await until(lambda: office.recoveries == 1)


@pytest.mark.covers("F93")
async def test_acceptance_lost_to_an_io_error_is_told_as_final() -> None:
    office = Office()
    office.store.fail_next(DiskFailed(FailureKind.IO, "disk I/O error"))
    with pytest.raises(DiskFailed):
        await office.accept()
    await until(lambda: office.failures)
    assert office.failures[0].is_final


async def test_operator_who_speaks_while_a_failing_acceptance_is_under_way_leaves_nothing_behind() -> None:
    office = Office()
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failed.append(context))
    office.store.hold()
    coming = office.accept()
    office.tell(EntryCancelRequested("op"))
    office.store.fail_next(FULL)
    office.store.release()
    with pytest.raises(DiskFailed):
        await coming
    await pass_s(120)
    assert office.mailboxes.brackets == {}
    assert failed == []


# A disk that fails.


@pytest.mark.covers("F92")
async def test_exits_leave_although_the_commit_of_the_fill_fails_and_all_is_saved_later_as_one_change() -> None:
    office = Office()
    bracket = await office.accepted()
    office.store.fail_next(FULL)
    office.tell(entry_filled(bracket))
    assert [member.role for member in members_of(office.posted[0])] == [Role.TARGET, Role.STOP]
    await until(lambda: office.failures)
    later = confirm_protection(office, office.bracket())
    before = len(office.changes)
    await until(lambda: office.recoveries == 1)
    (change,) = office.changes[before:]
    assert change.before is not None and change.before.version == bracket.version
    assert change.after == later
    told = [entry.event for entry in change.journal]
    assert told.index("EntryFilled") < told.index("ProtectionConfirmed")
    office.must_replay()
    given = [step.given for step in change.steps]
    names = [type(event).__name__ for each in given if isinstance(each, Told) for event in each.events]
    assert names.index("OrderReported") < names.index("SubmitConfirmed")
    assert sum(step.entries for step in change.steps) == len(change.journal)


async def test_late_commands_of_a_failed_save_leave_when_the_retry_is_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office()
    bracket = await office.accepted()
    late = CancelOrder(bracket.entries[0].external_identifier, BrokerOrderId("1"), after_commit=True)
    decide_on(monkeypatch, late)
    office.store.fail_next(FULL)
    office.tell(TimeReached())
    office.tell(TimeReached())
    await until(lambda: office.failures)
    await pass_s(0.5)
    assert office.sent == [], "nothing that says why is on disk"
    await until(lambda: office.recoveries)
    assert office.sent == [late, late]
    assert office.changes[-1].after.rearms == 2


async def test_save_that_fails_again_and_again_is_tried_until_it_works() -> None:
    office = Office()
    bracket = await office.accepted()
    for _ in range(5):
        office.store.fail_next(FULL)
    office.tell(entry_filled(bracket))
    await until(lambda: office.recoveries, within_s=20)
    assert office.recoveries == 1
    assert office.changes[-1].after.state is BracketState.ENTRY_FILLED


@pytest.mark.covers("F92")
async def test_two_changes_lost_to_a_full_disk_at_once_do_not_freeze_the_bracket() -> None:
    """The second of the two is refused as stale, since the first is not there: that is no fault of the change."""
    office = Office()
    bracket = await office.accepted()
    office.store.hold()
    office.store.fail_next(FULL)
    office.tell(entry_works(bracket))
    office.tell(entry_filled(bracket))
    office.store.release()
    await until(lambda: office.recoveries == 1, within_s=60)
    assert not office.bracket().is_frozen
    assert office.changes[-1].after == office.bracket()
    office.must_replay()


async def test_change_that_alone_is_bad_freezes_its_bracket_and_no_other() -> None:
    office = Office()
    await office.accepted(0)
    other = await office.accepted(1)
    office.store.fail_next(ChangeRejected("CHECK constraint failed"))
    office.tell(entry_works(office.bracket(0)), number=0)
    await until(lambda: office.bracket(0).is_frozen)
    assert "report this" in (office.bracket(0).attention or "")
    assert office.failures == [], "the disk is not at fault: others may go on"
    office.tell(entry_works(other), number=1)
    await pass_s(0.01)
    assert office.changes[-1].after.bracket_id == other.bracket_id
    assert not office.bracket(1).is_frozen
    await until(lambda: office.changes[-1].after == office.bracket(0), within_s=60)
    assert any(isinstance(step.given, RecordRejected) for step in office.changes[-1].steps)
    office.must_replay()


async def test_stop_ends_the_retries() -> None:
    office = Office()
    bracket = await office.accepted()
    office.store.fail_next(FULL)
    office.tell(entry_filled(bracket))
    await until(lambda: office.failures)
    office.mailboxes.stop()
    written = len(office.store.committed)
    await pass_s(30)
    assert len(office.store.committed) == written


async def test_saved_returns_when_the_last_change_is_on_disk() -> None:
    office = Office()
    bracket = await office.accepted()
    office.store.hold()
    office.tell(entry_works(bracket))
    waiting = asyncio.get_running_loop().create_task(office.mailboxes.saved(bracket.bracket_id))
    await pass_s(0.1)
    assert not waiting.done()
    office.store.release()
    await waiting


# Bugs of ours.


async def test_error_in_a_decision_freezes_that_bracket_alone_and_tells_a_person(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    office = Office()
    await office.accepted(0)
    other = await office.accepted(1)

    def broken(bracket: Bracket, events: tuple[Event, ...], now_us: int) -> Decision:
        if bracket.bracket_id == bracket_id(0):
            raise UnexpectedEvent(state="FILLED", event="lose")
        return decide_all(bracket, events, now_us)

    monkeypatch.setattr(mailbox, "decide_all", broken)
    frozen = office.tell(TimeReached(), number=0)
    assert frozen.is_frozen
    assert "TimeReached" in (frozen.attention or "")
    assert office.posted == []
    await until(lambda: office.changes[-1].after == frozen)
    office.tell(TimeReached(), number=0)
    assert office.bracket(0) == frozen, "said once"
    assert office.tell(entry_works(other), number=1).is_frozen is False


async def test_record_that_breaks_an_invariant_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office()
    bracket = await office.accepted()
    monkeypatch.setattr(steps, "violations_of", lambda bracket: ("S4: made up",))
    told = office.tell(entry_filled(bracket))
    assert told.is_frozen
    assert told.state is BracketState.PENDING_ENTRY
    assert office.posted == []


# Whose is it?


def a_report(**fields: object) -> OrderReport:
    return OrderReport(BrokerOrderId("1"), BrokerStatus.LIVE, "Live", **fields)  # type: ignore[arg-type]


async def test_a_report_finds_its_bracket_by_each_id_that_is_known() -> None:
    office = Office()
    bracket = await office.accepted()
    bracket = confirm_protection(office, office.tell(entry_works(bracket), entry_filled(bracket)))
    find = office.mailboxes.owner_of
    assert find(a_report(external_identifier=bracket.entries[0].external_identifier)) == bracket.bracket_id
    assert find(a_report(external_identifier=bracket.staged[0][1])) == bracket.bracket_id, "a spare id"
    by_broker_id = OrderReport(BrokerOrderId("771"), BrokerStatus.LIVE, "Live")
    assert find(by_broker_id) == bracket.bracket_id
    assert find(a_report(replaces=BrokerOrderId("771"))) == bracket.bracket_id
    assert find(a_report(complex_order_id=ComplexOrderId("56"))) == bracket.bracket_id
    assert office.mailboxes.owner_of_complex(ComplexOrderId("56")) == bracket.bracket_id
    assert find(a_report()) is None


async def test_closed_bracket_is_dropped_from_memory_once_that_is_on_disk() -> None:
    office = Office()
    bracket = await office.accepted()
    office.store.hold()
    cancelled = entry_report(bracket, BrokerStatus.CANCELLED)
    told = office.tell(OrderReported(cancelled, bracket.entries[0].external_identifier))
    assert told.state is BracketState.CLOSED
    assert bracket.bracket_id in office.mailboxes.brackets
    assert office.mailboxes.open_brackets() == ()
    office.store.release()
    await until(lambda: bracket.bracket_id not in office.mailboxes.brackets)
    assert office.mailboxes.owner_of(cancelled) is None
    assert office.deadlines[bracket.bracket_id] is None


async def test_closed_bracket_stays_in_memory_while_a_later_change_of_it_is_under_way() -> None:
    """Or that change, should it fail, could not be tried again."""
    office = Office()
    bracket = await office.accepted()
    cancelled = entry_report(bracket, BrokerStatus.CANCELLED)
    office.tell(OrderReported(cancelled, bracket.entries[0].external_identifier))
    office.store.fail_next(FULL)
    office.tell(AttentionAcknowledged("op"))
    await until(lambda: office.recoveries == 1)
    assert office.changes[-1].journal[-1].event == "AttentionAcknowledged"
    await until(lambda: office.mailboxes.brackets == {})


async def test_closed_bracket_that_was_loaded_for_old_news_is_dropped_again() -> None:
    office = Office()
    bracket = await office.accepted()
    cancelled = OrderReported(entry_report(bracket, BrokerStatus.CANCELLED), bracket.entries[0].external_identifier)
    closed = office.tell(cancelled)
    await until(lambda: office.mailboxes.brackets == {})
    office.mailboxes.load((closed,))
    office.tell(cancelled)
    assert office.mailboxes.brackets == {}


def members_of(command: SubmitOrder | SubmitComplex) -> tuple[Member, ...]:
    return command.members if isinstance(command, SubmitComplex) else (command.member,)
