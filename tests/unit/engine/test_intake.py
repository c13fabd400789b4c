"""From queue rows to brackets: what is accepted, what waits, what is refused, and what is answered when."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from otocod.adapters.sqlite.engine import ChangeRejected, DiskFailed, FailureKind
from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.commands import Command, Member, SubmitComplex, SubmitOrder
from otocod.domain.ids import BracketId, RequestId
from otocod.domain.specs import Protection
from otocod.engine.capabilities import Capabilities
from otocod.engine.gate import LastGate, Limits
from otocod.engine.intake import Intake, exchange_day
from otocod.engine.limits import RiskDesk, RiskLimits
from otocod.engine.mailbox import Mailboxes
from otocod.engine.slots import Slots
from otocod.ports.requests import QueuedRequest, RequestAnswer, SpoiledRequest
from otocod.ports.store import BracketChange
from tests.support.desk import POLICY
from tests.support.fakes import (
    ACCOUNT,
    START_US,
    FakeBroker,
    FakeQueue,
    LoopClock,
    bracket_id,
    pass_s,
    request_text,
    row,
    until,
)
from tests.support.model_store import ModelStore

FULL = DiskFailed(FailureKind.FULL, "database or disk is full")
MINUTE_S = 60


class Desk:
    """Intake between a queue and a store; commands are counted by the gate as if they left, and written down."""

    def __init__(self, *, store: ModelStore | None = None, orders_per_minute: int = 10_000) -> None:
        self.clock = LoopClock()
        self.broker = FakeBroker(self.clock)
        self.store = ModelStore() if store is None else store
        self.queue = FakeQueue()
        self.gate = LastGate(Limits(frozenset({ACCOUNT}), orders_per_minute, 12))
        self.sent: list[Command] = []
        self.is_open = True
        self.offset_us = 0
        self.made = 0
        self.mailboxes = Mailboxes(
            self.store,
            self.clock,
            run_command=self._run,
            set_deadline=lambda bracket_id, at_us: None,
            on_store_failure=lambda error: None,
            on_store_recovery=lambda: None,
        )
        self.held: list[str] = []
        self.risk = RiskDesk(
            RiskLimits(),
            self.clock,
            open_brackets=self.mailboxes.open_brackets,
            posted=lambda: self.gate.posted_count,
            on_held=lambda limit, why: self.held.append(limit),
        )
        self.intake = Intake(
            self.mailboxes,
            self.store,
            self.clock,
            self.gate,
            Capabilities(self.broker, self.clock, self.store, Slots(8, reserved=2)),
            self.queue,
            accounts=(ACCOUNT,),
            policy=lambda: POLICY,
            make_id=self._make_id,
            is_open=lambda: self.is_open,
            broker_clock_offset_us=lambda: self.offset_us,
            risk=self.risk,
            is_zone={"Europe/Berlin"}.__contains__,
        )
        self.queue.take = self.intake.take
        self.task = asyncio.get_running_loop().create_task(self.intake.run())

    def _make_id(self) -> BracketId:
        self.made += 1
        return bracket_id(self.made)

    def _run(self, bracket: Bracket, command: Command) -> None:
        self.sent.append(command)
        members: tuple[Member, ...] = ()
        if isinstance(command, SubmitOrder):
            members = (command.member,)
        elif isinstance(command, SubmitComplex):
            members = command.members
        self.gate.note_posted(bracket, members, self.clock.now_us())

    async def answered(self, request_id: int) -> RequestAnswer:
        await until(lambda: self.queue.answer_to(request_id))
        answer = self.queue.answer_to(request_id)
        assert answer is not None
        return answer

    async def ask(self, *rows: QueuedRequest | SpoiledRequest) -> RequestAnswer:
        """The answer to the last of them."""
        self.queue.put(*rows)
        return await self.answered(rows[-1].request_id)

    @property
    def acceptances(self) -> list[BracketChange]:
        return [c for c in self.store.committed if isinstance(c, BracketChange) and c.before is None]

    async def crash(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


def plain(number: int = 0, **changes: Any) -> QueuedRequest:
    """A request that needs no probing."""
    request_id, ref = changes.pop("request_id", None), changes.pop("ref", None)
    return row(number, request_id=request_id, ref=ref, **{"protection": "native-oco", **changes})


# Beside the rest.


async def test_rows_by_the_hundred_let_the_loop_turn_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fill that comes meanwhile is dealt with in one of these turns."""
    desk = Desk()
    judged: list[int] = []
    turns = 0

    async def judge(row: QueuedRequest, known: object) -> bool:
        judged.append(row.request_id)
        return True

    async def count_turns() -> None:
        nonlocal turns
        while len(judged) < 95:
            turns += len(judged) > 0
            await asyncio.sleep(0)

    monkeypatch.setattr(desk.intake, "_judge", judge)
    desk.queue.put(*(plain(number) for number in range(95)))
    await asyncio.wait_for(count_turns(), 5)
    assert len(judged) == 95
    assert turns >= 9
    await desk.crash()


# Accepted.


async def test_time_zones_are_those_that_the_caller_knows() -> None:
    desk = Desk()
    known = await desk.ask(plain(0, **{"time-exits": [{"at": "21:30", "zone": "Europe/Berlin"}]}))
    assert known.bracket_id is not None
    unknown = await desk.ask(plain(1, **{"time-exits": [{"at": "15:30", "zone": "America/New_York"}]}))
    assert unknown.bracket_id is None
    assert [reason.split(": ")[0] for reason in unknown.reasons] == ["time-exits[0].zone"]
    await desk.crash()


async def test_row_is_copied_committed_sent_and_then_answered() -> None:
    desk = Desk()
    desk.store.hold()
    queued = plain()
    desk.queue.put(queued)
    await pass_s(1)
    assert desk.sent == []
    assert desk.queue.answers == [], "an answer before the commit could be an answer to nothing"
    desk.store.release()
    answer = await desk.answered(1)
    assert answer == RequestAnswer(RequestId(1), "ref-0", bracket_id(1))
    (change,) = desk.acceptances
    assert change.row is not None
    assert (change.row.request, change.row.client_ref, change.row.request_id) == (queued.text, "ref-0", 1)
    assert len(desk.sent) == 1


async def test_rows_are_taken_in_the_order_of_their_ids() -> None:
    desk = Desk()
    await desk.ask(*(plain(number) for number in (3, 1, 2, 0)))
    await until(lambda: len(desk.queue.answers) == 4)
    assert [answer.request_id for answer in desk.queue.answers] == [1, 2, 3, 4]


async def test_modes_of_the_bracket_are_those_the_account_proved() -> None:
    desk = Desk()
    desk.broker.exchange.rules.patch({"native_otoco_spreads": False})
    await desk.ask(row(0))
    assert desk.mailboxes.brackets[bracket_id(1)].ladder == (Protection.NATIVE_OCO, Protection.WATCHED)
    assert len(desk.broker.asked("dry_run")) == 1


@pytest.mark.covers("F110", "F109")
async def test_five_hundred_rows_at_once_are_each_answered_with_a_bracket_of_their_own() -> None:
    desk = Desk()
    desk.queue.put(*(plain(number) for number in range(500)))
    await until(lambda: len(desk.queue.answers) == 500)
    assert {answer.client_ref for answer in desk.queue.answers} == {f"ref-{number}" for number in range(500)}
    assert len({answer.bracket_id for answer in desk.queue.answers}) == 500
    assert all(not answer.reasons for answer in desk.queue.answers)
    assert len(desk.sent) == len(desk.acceptances) == 500
    assert desk.intake.waiting == 0


# Waiting.


async def test_halt_leaves_rows_new_until_they_are_stale() -> None:
    desk = Desk()
    desk.gate.is_halted = True
    desk.queue.put(plain())
    await pass_s(9 * MINUTE_S)
    assert desk.queue.answers == []
    assert desk.intake.waiting == 1
    await pass_s(2 * MINUTE_S)
    (answer,) = desk.queue.answers
    assert answer.bracket_id is None
    assert any("stale" in reason or "not-after" in reason for reason in answer.reasons), answer.reasons
    assert desk.acceptances == []


@pytest.mark.covers("F111")
async def test_row_that_is_old_when_it_is_seen_is_refused_as_stale() -> None:
    desk = Desk()
    answer = await desk.ask(replace(plain(), created_at_us=START_US - 11 * MINUTE_S * 1_000_000))
    assert answer.bracket_id is None
    assert desk.sent == []


async def test_row_that_may_not_enter_does_not_trouble_the_broker() -> None:
    desk = Desk()
    desk.gate.is_halted = True
    desk.queue.put(row(0))
    await pass_s(10)
    assert desk.broker.calls == []


async def test_bracket_is_looked_for_by_the_brokers_clock_from_ten_minutes_before_its_acceptance() -> None:
    desk = Desk()
    desk.offset_us = -86_400_000_000
    desk.queue.put(plain())
    await desk.answered(1)
    (bracket,) = desk.mailboxes.brackets.values()
    assert bracket.listed_from_us == START_US - 86_400_000_000 - 10 * MINUTE_S * 1_000_000


async def test_row_that_waited_is_accepted_when_the_halt_ends() -> None:
    desk = Desk()
    desk.gate.is_halted = True
    desk.queue.put(plain())
    await pass_s(60)
    desk.gate.is_halted = False
    desk.intake.look_again()
    assert (await desk.answered(1)).bracket_id == bracket_id(1)


async def test_closed_intake_leaves_rows_new() -> None:
    desk = Desk()
    desk.is_open = False
    desk.queue.put(plain())
    await pass_s(60)
    assert desk.queue.answers == []
    desk.is_open = True
    assert (await desk.answered(1)).bracket_id is not None, "looked at again by itself"


async def test_bad_row_is_refused_also_while_nothing_can_be_sent() -> None:
    desk = Desk()
    desk.gate.is_halted = True
    answer = await desk.ask(replace(plain(), text="{"))
    assert answer.reasons


@pytest.mark.covers("F122")
async def test_ceiling_leaves_rows_new_until_the_minute_is_over() -> None:
    desk = Desk(orders_per_minute=2)
    desk.queue.put(*(plain(number) for number in range(5)))
    await pass_s(50)
    assert len(desk.sent) == 2
    assert desk.intake.waiting == 3
    await pass_s(20)
    assert len(desk.sent) == 4
    await until(lambda: len(desk.queue.answers) == 5, within_s=80)


@pytest.mark.covers("F122")
async def test_ceiling_counts_acceptances_whose_commit_is_still_under_way() -> None:
    """With a slow disk many rows are judged before the first entry has left."""
    desk = Desk(orders_per_minute=2)
    desk.store.hold()
    desk.queue.put(*(plain(number) for number in range(5)))
    await pass_s(5)
    desk.store.release()
    await until(lambda: len(desk.queue.answers) == 2)
    await pass_s(5)
    assert len(desk.acceptances) == len(desk.sent) == 2


@pytest.mark.covers("F122")
async def test_group_waits_until_the_ceiling_has_room_for_all_of_it_and_for_its_entry_alone() -> None:
    desk = Desk(orders_per_minute=7)
    desk.queue.put(*(row(number, protection="native-otoco") for number in range(2)))
    await pass_s(50)
    assert [len(change.after.orders) for change in desk.acceptances] == [3]
    await pass_s(20)
    assert len(desk.acceptances) == 2


async def test_halt_that_comes_while_the_modes_are_being_asked_for_leaves_the_row_new() -> None:
    desk = Desk()
    hold = desk.broker.hold("dry_run")
    desk.queue.put(row(0))
    await hold.arrived.wait()
    desk.gate.is_halted = True
    hold.release()
    await pass_s(1)
    assert desk.acceptances == []
    assert desk.intake.waiting == 1


# Refused.


@pytest.mark.covers("F106")
async def test_malformed_row_is_refused_with_every_reason_and_hurts_no_other() -> None:
    desk = Desk()
    broken = json.loads(request_text(0))
    broken["entry"]["price"] = "NaN"
    broken["versoin"] = 1
    bad = replace(plain(0), text=json.dumps(broken))
    answer = await desk.ask(bad, plain(1))
    assert answer.bracket_id is not None
    refused = desk.queue.answer_to(1)
    assert refused is not None and refused.bracket_id is None
    assert len(refused.reasons) >= 2
    assert len(desk.acceptances) == 1


async def test_row_for_an_account_that_is_not_configured_is_refused() -> None:
    desk = Desk()
    answer = await desk.ask(replace(plain(), account="5WT99999"))
    assert any("account" in reason for reason in answer.reasons)


@pytest.mark.covers("F106")
async def test_spoiled_rows_are_answered_with_the_readers_reasons() -> None:
    desk = Desk()
    desk.gate.is_halted = True
    spoiled = SpoiledRequest(RequestId(7), "ref-7", ("request: longer than 64 KiB", "account: not text"))
    answer = await desk.ask(spoiled)
    assert answer == RequestAnswer(RequestId(7), "ref-7", None, spoiled.reasons)
    assert desk.intake.waiting == 0


@pytest.mark.covers("F71")
async def test_clash_on_a_shared_symbol_is_refused_naming_symbol_and_bracket() -> None:
    desk = Desk()
    await desk.ask(plain(0))
    answer = await desk.ask(plain(0, request_id=2, ref="ref-other", quantity=3))
    (reason,) = answer.reasons
    assert "AAPL  261218C00155000" in reason and "AAPL  261218C00157500" in reason
    assert bracket_id(1) in reason and "ref:ref-0" in reason
    assert len(desk.sent) == 1


async def test_two_rows_that_clash_with_each_other_in_one_batch_do_not_both_enter() -> None:
    desk = Desk()
    desk.store.hold()
    desk.queue.put(plain(0), plain(0, request_id=2, ref="ref-other"))
    answer = await desk.answered(2)
    assert "ref:ref-0" in answer.reasons[0]
    desk.store.release()
    assert (await desk.answered(1)).bracket_id is not None


async def test_symbols_of_a_closed_bracket_are_free_again() -> None:
    desk = Desk()
    await desk.ask(plain(0))
    bracket = desk.mailboxes.brackets[bracket_id(1)]
    desk.mailboxes.brackets[bracket_id(1)] = replace(bracket, state=BracketState.CLOSED)
    assert (await desk.ask(plain(0, request_id=2, ref="ref-other"))).bracket_id is not None


# The same key.


@pytest.mark.covers("F105")
async def test_same_key_with_the_same_request_is_answered_with_the_first_bracket_and_sends_nothing() -> None:
    desk = Desk()
    first = await desk.ask(plain(0))
    spaced = replace(plain(0, request_id=2), text=json.dumps(json.loads(plain(0).text), indent=2))
    again = await desk.ask(spaced)
    assert again == RequestAnswer(RequestId(2), "ref-0", first.bracket_id)
    assert len(desk.sent) == len(desk.acceptances) == 1


@pytest.mark.covers("F105")
@pytest.mark.parametrize(
    "change",
    [
        lambda queued: replace(queued, text=request_text(0, protection="native-oco", quantity=2)),
        lambda queued: replace(queued, account="5WT00002"),
        lambda queued: replace(queued, text="{"),
    ],
)
async def test_same_key_with_another_request_or_account_is_refused_naming_the_first(change: Any) -> None:
    desk = Desk()
    await desk.ask(plain(0))
    answer = await desk.ask(change(plain(0, request_id=2)))
    (reason,) = answer.reasons
    assert reason.startswith("duplicate client_ref") and bracket_id(1) in reason
    assert len(desk.sent) == 1


@pytest.mark.covers("F105")
async def test_same_key_twice_in_one_batch_is_one_bracket() -> None:
    desk = Desk()
    desk.store.hold()
    desk.queue.put(plain(0), plain(0, request_id=2))
    await pass_s(1)
    desk.store.release()
    first, second = await desk.answered(1), await desk.answered(2)
    assert first.bracket_id == second.bracket_id == bracket_id(1)
    assert len(desk.sent) == len(desk.acceptances) == 1


@pytest.mark.covers("F105")
async def test_key_of_a_refused_row_is_free() -> None:
    desk = Desk()
    assert (await desk.ask(replace(plain(0), text="{"))).reasons
    assert (await desk.ask(plain(0, request_id=2))).bracket_id is not None


# Crashes and disks.


@pytest.mark.covers("F105", "F107")
async def test_crash_between_commit_and_answer_is_answered_by_the_next_run_and_sends_nothing() -> None:
    desk = Desk()
    written = desk.queue.answers
    desk.queue.answers = []  # what this run answers never reaches the file
    await desk.ask(plain(0))
    await desk.crash()
    assert written == []
    again = Desk(store=desk.store)
    again.mailboxes.load(await again.store.load_open())
    answer = await again.ask(plain(0))
    assert answer == RequestAnswer(RequestId(1), "ref-0", bracket_id(1))
    assert again.sent == []
    assert len(again.acceptances) == 1


@pytest.mark.covers("F4")
async def test_crash_before_the_commit_leaves_the_row_to_the_next_run() -> None:
    desk = Desk()
    desk.store.hold()
    desk.queue.put(plain(0))
    await pass_s(1)
    await desk.crash()
    assert desk.queue.answers == []
    again = Desk()
    assert (await again.ask(plain(0))).bracket_id is not None
    assert len(again.sent) == 1


@pytest.mark.covers("F92")
async def test_acceptance_that_fails_on_a_full_disk_is_tried_again_and_answered_once() -> None:
    desk = Desk()
    desk.store.fail_next(FULL)
    desk.queue.put(plain(0))
    await pass_s(0.1)
    assert desk.queue.answers == []
    assert desk.sent == []
    assert desk.mailboxes.brackets == {}
    answer = await desk.answered(1)
    assert answer.bracket_id is not None
    assert len(desk.acceptances) == len(desk.sent) == len(desk.queue.answers) == 1


async def test_acceptance_that_the_database_will_never_take_is_refused() -> None:
    desk = Desk()
    desk.store.fail_next(ChangeRejected("CHECK constraint failed"))
    answer = await desk.ask(plain(0))
    assert "CHECK constraint failed" in answer.reasons[0]
    assert desk.sent == []
    assert (await desk.ask(plain(1))).bracket_id is not None


@pytest.mark.covers("F107")
async def test_row_edited_after_it_was_taken_changes_nothing() -> None:
    """What counts is the copy in the acceptance."""
    desk = Desk()
    await desk.ask(plain(0))
    desk.queue.put(replace(plain(0), text=request_text(0, quantity=9)))
    await until(lambda: len(desk.queue.answers) == 2)
    assert desk.queue.answers[1].reasons
    (change,) = desk.acceptances
    assert change.row is not None and change.row.request == plain(0).text


def test_day_of_the_exchange_is_the_day_in_utc() -> None:
    assert exchange_day(START_US).isoformat() == "2026-11-23"
    assert exchange_day(START_US + 9 * 3600 * 1_000_000 - 1).isoformat() == "2026-11-23"
    assert exchange_day(START_US + 9 * 3600 * 1_000_000).isoformat() == "2026-11-24"
