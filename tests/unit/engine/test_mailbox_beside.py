"""What the mailboxes put off so that orders leave first, and the index by symbol."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from otocod.domain.brackets import Bracket, BracketState, Outcome
from otocod.domain.commands import Command
from otocod.domain.decisions import Decision, JournalEntry
from otocod.domain.events import Event, TimeReached
from otocod.engine import mailbox
from otocod.engine.mailbox import Mailboxes
from otocod.ports.store import AcceptedRow, BracketChange, StoreFailed
from tests.support.fakes import LoopClock, accepted, bracket_id, row, until
from tests.support.model_store import ModelStore


class Desk:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        self.store = ModelStore()
        self.clock = LoopClock()
        self.mailboxes = Mailboxes(
            self.store,
            self.clock,
            run_command=self._run,
            set_deadline=lambda bracket_id, at_us: None,
            on_store_failure=self._failed,
            on_store_recovery=lambda: None,
        )
        monkeypatch.setattr(mailbox, "log", self)

    def _run(self, bracket: Bracket, command: Command) -> None:
        self.told.append("sent")

    def _failed(self, error: StoreFailed) -> None:
        raise AssertionError(error)

    def info(self, event: str, **fields: Any) -> None:
        self.told.append(f"{event} {fields['told']}")

    async def accept(self, number: int = 0) -> Bracket:
        queued = row(number)
        accepted_row = AcceptedRow(queued.request_id, queued.client_ref, queued.account, queued.text)
        decision = accepted(number, self.clock.now_us())
        await self.mailboxes.accept(decision, accepted_row)
        await until(lambda: self.told)
        self.told.clear()
        return decision.bracket

    def decide(self, monkeypatch: pytest.MonkeyPatch, *commands: Command, **changes: Any) -> None:
        """Every event from here on is journalled as Decided."""

        def decided(bracket: Bracket, events: tuple[Event, ...], now_us: int) -> Decision:
            after = replace(bracket, version=bracket.version + 1, **changes)
            return Decision(after, commands, (JournalEntry("Decided", bracket.state, after.state),))

        monkeypatch.setattr(mailbox, "decide_all", decided)


async def test_the_journal_is_logged_after_the_orders_and_all_of_it_by_the_time_of_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk(monkeypatch)
    bracket = await desk.accept()
    entry = replace(accepted(0, desk.clock.now_us()).commands[0], after_commit=False)
    desk.decide(monkeypatch, entry)
    desk.mailboxes.deliver(bracket.bracket_id, TimeReached())
    assert desk.told == ["sent"]
    await until(lambda: len(desk.told) > 1)
    assert desk.told == ["sent", "bracket_event Decided"]
    desk.mailboxes.deliver(bracket.bracket_id, TimeReached())
    desk.mailboxes.stop()
    assert desk.told[2:] == ["sent", "bracket_event Decided"]


async def test_only_a_change_that_something_waits_for_hurries_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch)
    bracket = await desk.accept()
    entry = replace(accepted(0, desk.clock.now_us()).commands[0], after_commit=False)
    desk.decide(monkeypatch, entry)
    desk.mailboxes.deliver(bracket.bracket_id, TimeReached())
    desk.decide(monkeypatch, replace(entry, after_commit=True))
    desk.mailboxes.deliver(bracket.bracket_id, TimeReached())
    await desk.mailboxes.saved(bracket.bracket_id)
    changes = [change for change in desk.store.committed if isinstance(change, BracketChange)]
    assert [change.is_awaited for change in changes] == [True, False, True]
    await asyncio.sleep(0)
    desk.mailboxes.stop()


async def test_brackets_are_found_by_symbol_while_they_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch)
    first, second = await desk.accept(0), await desk.accept(1)
    symbols = {leg.symbol for leg in first.request.entry.legs}
    others = {leg.symbol for leg in second.request.entry.legs}
    assert symbols.isdisjoint(others)
    assert desk.mailboxes.open_on(symbols) == (first,)
    assert desk.mailboxes.open_on(symbols | others) == (first, second)
    over = {"state": BracketState.CLOSED, "outcome": Outcome.ENTRY_NOT_FILLED, "closed_at_us": desk.clock.now_us()}
    desk.decide(monkeypatch, **over)
    desk.mailboxes.deliver(bracket_id(0), TimeReached())
    assert desk.mailboxes.open_on(symbols) == ()
    await desk.mailboxes.saved(bracket_id(0))
    await until(lambda: bracket_id(0) not in desk.mailboxes.brackets)
    assert desk.mailboxes.open_on(symbols | others) == (second,)
    desk.mailboxes.stop()
