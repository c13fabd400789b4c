"""One bracket at a time, in order.

`decide` is synchronous and so is everything between reading a record and replacing it, so two events of one bracket
never overlap: the order in which `deliver` is called is the order in which they happen. What must not wait for the disk
leaves at once; the change is handed to the store in the same breath, and the rest leaves when it is durable.

What a whole fill asks for is decided before it comes, where that can be (`domain/rehearsal`), and leaves before the
decision on what was really said is made; both happen in the same breath, so nobody sees the one without the other.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter

from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.commands import Command, Member, RaiseAlarm, ReplaceOrder, SubmitComplex, SubmitOrder
from otocod.domain.decide import decide_all
from otocod.domain.decisions import Decision, JournalEntry
from otocod.domain.errors import DomainError
from otocod.domain.events import Event
from otocod.domain.ids import BracketId, BrokerOrderId, ComplexOrderId, ExternalIdentifier
from otocod.domain.orders import OrderReport
from otocod.domain.rehearsal import Rehearsal, sends_of
from otocod.domain.steps import (
    Accepted,
    Given,
    RecordRejected,
    Step,
    TakenOver,
    Told,
    frozen_decision,
    frozen_record,
    require_invariants,
)
from otocod.engine.rehearsals import Rehearsals
from otocod.logs import get_log
from otocod.ports.clock import Clock
from otocod.ports.store import AcceptedRow, BracketChange, Setting, Store, StoreFailed

log = get_log(__name__)

_COMMIT_RETRY_S = 1.0
_LOG_DELAY_S = 0.002
_REJECTED_RETRY_S = 30.0  # the record may have changed into one that is taken


@dataclass(slots=True)
class _Unsaved:
    """A bracket whose change the store refused: what is durable, and everything since, to be tried again as one."""

    durable: Bracket | None
    row: AcceptedRow | None = None
    late: list[Command] = field(default_factory=list)
    # By the number of the decision: a commit that was on its way when another had failed is heard of after later ones.
    decided: list[tuple[int, tuple[JournalEntry, ...], tuple[Step, ...]]] = field(default_factory=list)

    def add(self, number: int, journal: tuple[JournalEntry, ...], steps: tuple[Step, ...]) -> None:
        self.decided.append((number, journal, steps))
        self.decided.sort(key=itemgetter(0))


class Mailboxes:
    """The open brackets in memory, and the only door through which they change."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        run_command: Callable[[Bracket, Command], None],
        set_deadline: Callable[[BracketId, int | None], None],
        on_changed: Callable[[Bracket], None] = lambda bracket: None,
        on_forgotten: Callable[[BracketId], None] = lambda bracket_id: None,
        on_closed: Callable[[Bracket], None] = lambda bracket: None,
        on_store_failure: Callable[[StoreFailed], None],
        on_store_recovery: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._run_command = run_command
        self._set_deadline = set_deadline
        self._on_changed = on_changed
        self._on_forgotten = on_forgotten
        self._on_closed = on_closed
        self._on_store_failure = on_store_failure
        self._on_store_recovery = on_store_recovery
        self._has_failed = False
        self.brackets: dict[BracketId, Bracket] = {}
        self.rehearsals = Rehearsals(clock, self.brackets.get)
        self._by_external_identifier: dict[ExternalIdentifier, BracketId] = {}
        self._by_broker_order_id: dict[BrokerOrderId, BracketId] = {}
        self._by_complex_order_id: dict[ComplexOrderId, BracketId] = {}
        self._by_symbol: dict[str, tuple[BracketId, ...]] = {}  # most have one
        self._durable: dict[BracketId, Bracket] = {}  # as last committed
        self._unsaved: dict[BracketId, _Unsaved] = {}
        self._timers: set[asyncio.TimerHandle] = set()
        self._unlogged: list[tuple[Bracket, JournalEntry]] = []
        self._log_timer: asyncio.TimerHandle | None = None
        self._last_commit: dict[BracketId, asyncio.Future[None]] = {}  # under way
        self._decisions = 0  # handed over to be saved, in this run

    def load(self, brackets: Iterable[Bracket]) -> None:
        for bracket in brackets:
            self.brackets[bracket.bracket_id] = self._durable[bracket.bracket_id] = bracket
            self._index(None, bracket)
            self.rehearsals.changed(bracket)
            self._on_changed(bracket)

    def open_brackets(self) -> tuple[Bracket, ...]:
        return tuple(bracket for bracket in self.brackets.values() if bracket.state is not BracketState.CLOSED)

    def open_on(self, symbols: Iterable[str]) -> tuple[Bracket, ...]:
        """Open brackets that trade any of these, the oldest first."""
        ids = sorted({bracket_id for symbol in symbols for bracket_id in self._by_symbol.get(symbol, ())})
        found = (self.brackets[bracket_id] for bracket_id in ids)
        return tuple(bracket for bracket in found if bracket.state is not BracketState.CLOSED)

    def owner_of(self, report: OrderReport) -> BracketId | None:
        """The bracket a report belongs to, by whatever id of it is known here."""
        if report.external_identifier is not None:
            found = self._by_external_identifier.get(report.external_identifier)
            if found is not None:
                return found
        found = self._by_broker_order_id.get(report.broker_order_id)
        if found is None and report.replaces is not None:
            found = self._by_broker_order_id.get(report.replaces)
        if found is None and report.complex_order_id is not None:
            found = self._by_complex_order_id.get(report.complex_order_id)
        return found

    def owner_of_complex(self, complex_order_id: ComplexOrderId) -> BracketId | None:
        return self._by_complex_order_id.get(complex_order_id)

    def accept(self, decision: Decision, by: AcceptedRow | TakenOver) -> asyncio.Future[None]:
        """A new bracket. Its entry leaves when the future has succeeded; if it fails the bracket is forgotten.

        `by`: the queue's row it came with, or what a position that was there already was taken over with.
        """
        bracket = decision.bracket
        row = by if isinstance(by, AcceptedRow) else None
        given: Given = Accepted(bracket.created_at_us, bracket.ladder, bracket.broker_clock_offset_us)
        if isinstance(by, TakenOver):
            given = by
        self.brackets[bracket.bracket_id] = bracket
        self._index(None, bracket)
        self._on_changed(bracket)
        change = BracketChange(None, bracket, decision.journal, self._clock.now_us(), (_step(given, decision),), row)
        future = self._last_commit[bracket.bracket_id] = self._store.commit(change)
        future.add_done_callback(lambda done: self._accepted(done, decision))
        return future

    def _accepted(self, done: "asyncio.Future[None]", decision: Decision) -> None:
        bracket_id = decision.bracket.bracket_id
        self._commit_ended(bracket_id, done)
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            self._forget(bracket_id)
            if isinstance(error, StoreFailed) and not error.is_of_change:
                self._disk_failed(error)
                self._try_disk_later()
            return
        self._durable[bracket_id] = decision.bracket
        self._set_deadline(bracket_id, self.brackets[bracket_id].wake_at_us)
        for command in decision.commands:
            self._run_command(self.brackets[bracket_id], command)

    def deliver(self, bracket_id: BracketId, *events: Event) -> Bracket | None:
        """Tells a bracket what happened. Answers with the new record, or None if it is not known here."""
        before = self.brackets.get(bracket_id)
        if before is None:
            return None
        now_us = self._clock.now_us()
        rehearsal = self._send_rehearsed(before, events, now_us)
        try:
            decision = decide_all(before, events, now_us)
            if decision.bracket is not before:
                require_invariants(decision.bracket)
        except (DomainError, AssertionError) as error:
            names = ", ".join(type(event).__name__ for event in events)
            log.exception("decision_failed", bracket_id=bracket_id, told=names)
            decision = frozen_decision(before, events, error)
        if rehearsal is not None and sends_of(decision.commands) != rehearsal.sends:
            self._take_rehearsed(rehearsal)
            return self.deliver(bracket_id, *events)
        self._take(before, decision, Told(now_us, events), has_sent=rehearsal is not None)
        return decision.bracket

    def _send_rehearsed(self, before: Bracket, events: Sequence[Event], now_us: int) -> Rehearsal | None:
        """Sends what was decided beforehand about just this, if anything was: then the decision itself comes after."""
        rehearsal = self.rehearsals.of(before, events, now_us)
        if rehearsal is None or any(self._must_wait(before.bracket_id, command) for command in rehearsal.sends):
            return None
        for command in rehearsal.sends:
            self._run_command(rehearsal.shown, command)
        self.rehearsals.used += 1
        return rehearsal

    def _take_rehearsed(self, rehearsal: Rehearsal) -> None:
        """Something else left than the decision on the news asks for: a bug of ours. The record is told the news that
        was rehearsed, by which it knows what left; what it is told next puts right what was not wanted.
        """
        before, event = rehearsal.before, rehearsal.event
        text = (
            f"what was decided before a fill differs from what was decided after it (order {event.external_identifier})"
        )
        log.error("rehearsal_differed", bracket_id=before.bracket_id, external_identifier=event.external_identifier)
        decision = decide_all(before, (event,), rehearsal.at_us)
        self._take(before, decision, Told(rehearsal.at_us, (event,)), has_sent=True)
        self._run_command(decision.bracket, RaiseAlarm("rehearsal_differed", text))

    def _take(self, before: Bracket, decision: Decision, given: Given, *, has_sent: bool = False) -> None:
        """`has_sent`: what reaches the market has left already."""
        after = decision.bracket
        bracket_id = after.bracket_id
        self.brackets[bracket_id] = after
        late: list[Command] = []
        sent = sends_of(decision.commands) if has_sent else ()
        for command in decision.commands:
            if command in sent:
                continue
            if self._must_wait(bracket_id, command):
                late.append(replace(command, after_commit=True))
            else:
                self._run_command(after, command)
        if after is not before:
            self._index(before, after)
            self._set_deadline(bracket_id, after.wake_at_us)
            self.rehearsals.changed(after)
            self._on_changed(after)
            if after.state is BracketState.CLOSED and before.state is not BracketState.CLOSED:
                self._on_closed(after)
        self._log_later(after, decision.journal)
        if (after is not before and after != before) or decision.journal or late:
            self._save(before, decision, late, _step(given, decision))
        else:
            self.drop_if_closed(bracket_id)

    def _log_later(self, bracket: Bracket, journal: Sequence[JournalEntry]) -> None:
        """A line costs as much as an order, and whoever reads the log may hold it up: first the orders leave."""
        if not journal:
            return
        self._unlogged.extend((bracket, entry) for entry in journal)
        if self._log_timer is None:
            self._log_timer = asyncio.get_running_loop().call_later(_LOG_DELAY_S, self._log)

    def _log(self) -> None:
        unlogged, self._unlogged, self._log_timer = self._unlogged, [], None
        for bracket, entry in unlogged:
            log.info(
                "bracket_event",
                bracket_id=bracket.bracket_id,
                told=entry.event,
                state=bracket.state,
                detail=entry.detail,
            )

    def _must_wait(self, bracket_id: BracketId, command: Command) -> bool:
        """For the disk: what the core says must wait, and ids made by a decision whose commit is still under way."""
        match command:
            case SubmitOrder() | ReplaceOrder():
                members: tuple[Member, ...] = (command.member,)
            case SubmitComplex():
                members = command.members
            case _:
                return command.after_commit
        durable = self._durable.get(bracket_id)
        if command.after_commit or durable is None:
            return True
        names = {order.external_identifier for order in durable.orders}
        names.update(name for _, name in (*durable.staged, *durable.suspects))
        return any(member.external_identifier not in names for member in members)

    def _save(self, before: Bracket, decision: Decision, late: list[Command], step: Step) -> None:
        bracket_id = decision.bracket.bracket_id
        number = self._decisions = self._decisions + 1
        unsaved = self._unsaved.get(bracket_id)
        if unsaved is not None:
            unsaved.add(number, decision.journal, (step,))
            unsaved.late.extend(late)
            return
        change = BracketChange(
            before, decision.bracket, decision.journal, self._clock.now_us(), (step,), is_awaited=bool(late)
        )
        future = self._store.commit(change)
        self._last_commit[bracket_id] = future
        future.add_done_callback(lambda done: self._saved(done, change, late, number))

    async def saved(self, bracket_id: BracketId) -> None:
        """Returns when the last change of a bracket so far has been tried to be committed."""
        future = self._last_commit.get(bracket_id)
        if future is not None:
            await asyncio.wait([future])

    async def settle(self, timeout_s: float) -> bool:
        """Waits for the commits under way; whether none is left. What waited for them has been handed on by then."""
        if self._last_commit:
            await asyncio.wait(set(self._last_commit.values()), timeout=timeout_s)
        return not self._last_commit

    def _saved(self, done: "asyncio.Future[None]", change: BracketChange, late: list[Command], number: int) -> None:
        bracket_id = change.after.bracket_id
        self._commit_ended(bracket_id, done)
        error = None if done.cancelled() else done.exception()
        if not done.cancelled() and error is None:
            if bracket_id in self.brackets:
                self._durable[bracket_id] = change.after
            for command in late:
                self._run_command(self.brackets.get(bracket_id, change.after), command)
            self.drop_if_closed(bracket_id)
            self._recover_if_all_saved()
            return
        if bracket_id not in self.brackets:
            return  # forgotten with its acceptance, which failed before this
        unsaved = self._unsaved.get(bracket_id)
        is_first = unsaved is None
        if unsaved is None:
            unsaved = self._unsaved[bracket_id] = _Unsaved(change.before, change.row)
            is_of_change = isinstance(error, StoreFailed) and error.is_of_change
            self._later(bracket_id, _REJECTED_RETRY_S if is_of_change else _COMMIT_RETRY_S)
        unsaved.add(number, change.journal, change.steps)
        unsaved.late.extend(late)
        if not isinstance(error, StoreFailed):
            return
        if not error.is_of_change:
            self._disk_failed(error)
        elif is_first:
            # What follows a change that is not on disk is refused as stale, through no fault of its own.
            self._freeze_unsaved(bracket_id, error)

    def _disk_failed(self, error: StoreFailed) -> None:
        self._has_failed = True
        self._on_store_failure(error)

    def _recover_if_all_saved(self) -> None:
        if self._has_failed and not self._unsaved:
            self._has_failed = False
            self._on_store_recovery()

    def _try_disk_later(self) -> None:
        """An acceptance is not tried again by itself, and there may be nothing else to commit: ask the disk."""
        self._keep(asyncio.get_running_loop().call_later(_COMMIT_RETRY_S, self._try_disk))

    def _try_disk(self) -> None:
        if not self._has_failed or self._unsaved:
            return  # it works again, or is being tried anyway
        future = self._store.commit(Setting("disk_tried_at_us", str(self._clock.now_us())))
        future.add_done_callback(self._tried_disk)

    def _tried_disk(self, done: "asyncio.Future[None]") -> None:
        error = None if done.cancelled() else done.exception()
        if isinstance(error, StoreFailed) and error.is_final:
            self._disk_failed(error)
        elif done.cancelled() or error is not None:
            self._try_disk_later()
        else:
            self._recover_if_all_saved()

    def _commit_ended(self, bracket_id: BracketId, done: "asyncio.Future[None]") -> None:
        if self._last_commit.get(bracket_id) is done:
            del self._last_commit[bracket_id]

    def _freeze_unsaved(self, bracket_id: BracketId, error: StoreFailed) -> None:
        """The database will not have this record: a bug of ours. Its orders go on, and nothing new but protection."""
        bracket = self.brackets.get(bracket_id)
        if bracket is None or bracket.is_frozen:
            return
        log.error("change_rejected", bracket_id=bracket_id, error=str(error))
        given = RecordRejected(self._clock.now_us(), str(error))
        decision = frozen_record(bracket, given.why)
        self._take(bracket, decision, given)

    def _later(self, bracket_id: BracketId, delay_s: float) -> None:
        self._keep(asyncio.get_running_loop().call_later(delay_s, self._save_again, bracket_id))

    def _keep(self, timer: asyncio.TimerHandle) -> None:
        now_s = asyncio.get_running_loop().time()
        self._timers = {kept for kept in self._timers if not kept.cancelled() and kept.when() > now_s}
        self._timers.add(timer)

    def _save_again(self, bracket_id: BracketId) -> None:
        """All that was not saved, as one change from the last durable record to the present one."""
        unsaved = self._unsaved.pop(bracket_id)
        after = self.brackets[bracket_id]
        journal = tuple(entry for _, entries, _ in unsaved.decided for entry in entries)
        steps = tuple(step for _, _, steps in unsaved.decided for step in steps)
        number = unsaved.decided[-1][0]
        change = BracketChange(unsaved.durable, after, journal, self._clock.now_us(), steps, unsaved.row)
        future = self._last_commit[bracket_id] = self._store.commit(change)
        future.add_done_callback(lambda done: self._saved(done, change, unsaved.late, number))

    def drop_if_closed(self, bracket_id: BracketId) -> None:
        """Lets go of a bracket that is over, unless something of it is still to be written or looked at."""
        if bracket_id in self._unsaved or bracket_id in self._last_commit:
            return
        bracket = self.brackets.get(bracket_id)
        # Its ids stay on disk: should one of its orders turn up, it is loaded again.
        if bracket is not None and bracket.state is BracketState.CLOSED and bracket.wake_at_us is None:
            self._forget(bracket_id)

    def _forget(self, bracket_id: BracketId) -> None:
        bracket = self.brackets.pop(bracket_id, None)
        if bracket is None:
            return
        self._last_commit.pop(bracket_id, None)
        self._durable.pop(bracket_id, None)
        self._set_deadline(bracket_id, None)
        self.rehearsals.forget(bracket_id)
        self._on_forgotten(bracket_id)
        for order in bracket.orders:
            self._by_external_identifier.pop(order.external_identifier, None)
            for view in order.views:
                self._by_broker_order_id.pop(view.broker_order_id, None)
                if view.complex_order_id is not None:
                    self._by_complex_order_id.pop(view.complex_order_id, None)
            if order.complex_order_id is not None:
                self._by_complex_order_id.pop(order.complex_order_id, None)
        for _, external_identifier in (*bracket.staged, *bracket.suspects):
            self._by_external_identifier.pop(external_identifier, None)
        for leg in bracket.request.entry.legs:
            trading = tuple(each for each in self._by_symbol.pop(leg.symbol, ()) if each != bracket_id)
            if trading:
                self._by_symbol[leg.symbol] = trading

    def _index(self, before: Bracket | None, after: Bracket) -> None:
        bracket_id = after.bracket_id
        if before is None:
            for leg in after.request.entry.legs:
                self._by_symbol[leg.symbol] = (*self._by_symbol.get(leg.symbol, ()), bracket_id)
        if before is None or before.staged is not after.staged or before.suspects is not after.suspects:
            for _, external_identifier in (*after.staged, *after.suspects):
                self._by_external_identifier[external_identifier] = bracket_id
        if before is not None and before.orders is after.orders:
            return
        for order in after.orders:
            self._by_external_identifier[order.external_identifier] = bracket_id
            for view in order.views:
                self._by_broker_order_id[view.broker_order_id] = bracket_id
                if view.complex_order_id is not None:
                    self._by_complex_order_id[view.complex_order_id] = bracket_id
            if order.complex_order_id is not None:
                self._by_complex_order_id[order.complex_order_id] = bracket_id

    def stop(self) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._log_timer is not None:
            self._log_timer.cancel()
        self._log()


def _step(given: Given, decision: Decision) -> Step:
    return Step(given, decision.commands, len(decision.journal))
