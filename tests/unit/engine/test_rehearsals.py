"""What was decided before a fill leaves before the decision on it, once, and never from an outdated record."""

import asyncio
from collections.abc import Sequence

import pytest

from otocod.domain.brackets import Bracket
from otocod.domain.commands import Command, RaiseAlarm, SubmitComplex
from otocod.domain.decide import decide_all
from otocod.domain.decisions import Decision
from otocod.domain.events import AttentionAcknowledged, Event, SweepCompleted
from otocod.domain.orders import OrderState
from otocod.domain.rehearsal import sends_of
from otocod.engine import mailbox, rehearsals
from tests.support.fakes import pass_s, until
from tests.unit.engine.test_mailbox import Office, entry_filled, entry_works


class Rehearsed(Office):
    """An office in which the entry works and its fill has been rehearsed."""

    async def working(self) -> Bracket:
        self.tell(entry_works(await self.accepted()))
        self.sent.clear()
        await self.rehearse()
        return self.bracket()

    async def rehearse(self) -> None:
        task = asyncio.create_task(self.mailboxes.rehearsals.run())
        await until(lambda: not self.mailboxes.rehearsals.is_behind)
        task.cancel()


def spy(monkeypatch: pytest.MonkeyPatch, office: Office) -> list[list[Command]]:
    """What had left at the moment of each decision."""
    seen: list[list[Command]] = []

    def decided(before: Bracket, events: Sequence[Event], now_us: int) -> Decision:
        seen.append(list(office.sent))
        return decide_all(before, events, now_us)

    monkeypatch.setattr(mailbox, "decide_all", decided)
    return seen


async def test_exits_leave_before_the_decision_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Rehearsed()
    bracket = await office.working()
    at_decisions = spy(monkeypatch, office)
    after = office.tell(entry_filled(bracket))
    (group,) = office.posted
    assert isinstance(group, SubmitComplex)
    assert at_decisions == [[group]]
    assert [after.order(member.external_identifier) is not None for member in group.members] == [True, True]
    assert office.mailboxes.rehearsals.used == 1
    await until(lambda: office.changes[-1].after == after)
    office.must_replay()


async def test_what_else_the_decision_asks_for_follows_it() -> None:
    office = Rehearsed()
    bracket = await office.working()
    office.tell(entry_filled(bracket))
    commands = decide_all(bracket, (entry_filled(bracket),), office.clock.now_us()).commands
    assert sorted(map(repr, office.sent)) == sorted(map(repr, commands))


async def test_a_record_that_has_changed_since_is_decided_on_first(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Rehearsed()
    bracket = await office.working()
    office.tell(SweepCompleted(office.clock.now_us(), 0, True))
    assert office.bracket() is not bracket
    at_decisions = spy(monkeypatch, office)
    office.tell(entry_filled(bracket))
    assert at_decisions == [[]]
    assert len(office.posted) == 1
    assert office.mailboxes.rehearsals.used == 0
    await office.rehearse()


async def test_news_of_two_things_at_once_is_decided_on_first(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Rehearsed()
    bracket = await office.working()
    at_decisions = spy(monkeypatch, office)
    office.tell(entry_filled(bracket), AttentionAcknowledged("a person"))
    assert at_decisions == [[]]
    assert len(office.posted) == 1


async def test_identifiers_that_are_not_on_disk_yet_hold_what_was_rehearsed_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    office = Rehearsed()
    bracket = await office.working()
    office.mailboxes._durable.clear()
    at_decisions = spy(monkeypatch, office)
    office.store.hold()
    office.tell(entry_filled(bracket))
    assert at_decisions == [[]]
    assert office.posted == []
    office.store.release()
    await until(lambda: len(office.posted) == 1)


@pytest.mark.parametrize("fails", ["by raising", "by asking for nothing"])
async def test_a_difference_is_alarmed_and_the_record_knows_what_left(
    monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """A planted bug: the first decision on the real news does not ask for what was rehearsed."""
    office = Rehearsed()
    bracket = await office.working()
    decisions: list[tuple[Event, ...]] = []

    def decided(before: Bracket, events: tuple[Event, ...], now_us: int) -> Decision:
        decisions.append(events)
        if len(decisions) > 1:
            return decide_all(before, events, now_us)
        if fails == "by raising":
            raise AssertionError("planted")
        return Decision(before)

    monkeypatch.setattr(mailbox, "decide_all", decided)
    news = entry_filled(bracket)
    office.tell(news)
    assert len(decisions) == 3, "the news, what was rehearsed, the news again"
    assert decisions[0] == decisions[2] == (news,)
    (group,) = office.posted
    assert isinstance(group, SubmitComplex)
    assert [command.code for command in office.sent if isinstance(command, RaiseAlarm)] == ["rehearsal_differed"]
    after = office.bracket()
    assert {member.external_identifier for member in group.members} <= {
        order.external_identifier for order in after.orders if order.state is OrderState.IN_FLIGHT
    }
    assert not after.is_frozen
    await until(lambda: office.changes[-1].after == after)
    office.must_replay()


async def test_a_busy_loop_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Rehearsed()
    office.tell(entry_works(await office.accepted()))
    monkeypatch.setattr(rehearsals, "_BUSY_S", -1.0)
    task = asyncio.create_task(office.mailboxes.rehearsals.run())
    await pass_s(1)
    assert office.mailboxes.rehearsals.is_behind
    monkeypatch.setattr(rehearsals, "_BUSY_S", 60.0)
    await until(lambda: not office.mailboxes.rehearsals.is_behind)
    task.cancel()


async def test_many_brackets_are_rehearsed_a_few_at_a_time_the_last_changed_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    office = Rehearsed()
    for number in range(25):
        bracket = await office.accepted(number)
        office.tell(entry_works(bracket), number=number)
    taken: list[str] = []

    def rehearse(bracket: Bracket, now_us: int) -> tuple[()]:
        taken.append(bracket.client_ref)
        return ()

    monkeypatch.setattr(rehearsals, "rehearse", rehearse)
    office.mailboxes.rehearsals._work(asyncio.get_running_loop().time() + 60)
    assert taken == [office.bracket(number).client_ref for number in range(24, 14, -1)]
    office.mailboxes.rehearsals._work(asyncio.get_running_loop().time() - 1)
    assert len(taken) == 11, "one, and the time is up"


async def test_what_was_worked_out_for_a_rehearsal_does_not_stay_with_the_record() -> None:
    office = Rehearsed()
    bracket = await office.working()
    assert office.mailboxes.rehearsals._known
    assert [record.__dict__ for record in (bracket, *bracket.orders)] == [{}] * (1 + len(bracket.orders))


async def test_a_forgotten_bracket_leaves_nothing_behind() -> None:
    office = Rehearsed()
    bracket = await office.working()
    office.mailboxes._forget(bracket.bracket_id)
    assert not office.mailboxes.rehearsals._known
    assert not office.mailboxes.rehearsals.is_behind


def test_only_what_reaches_the_market_is_sent_ahead() -> None:
    alarm = RaiseAlarm("test", "")
    assert sends_of([alarm]) == ()
