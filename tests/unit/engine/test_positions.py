"""The broker's positions held against our fills: a hint for a person, never a reason to trade."""

from dataclasses import replace

import pytest

from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.commands import Command
from otocod.domain.events import AttentionAcknowledged, OrderReported, TimeReached
from otocod.domain.orders import BrokerStatus, Order, OrderReport, OrderState
from otocod.domain.settlement import Settlement
from otocod.domain.specs import Role
from otocod.engine.mailbox import Mailboxes
from otocod.engine.positions import (
    LOOK_AGAIN_S,
    LOOK_AGAIN_TOLD_S,
    PROVED_AFTER_US,
    PositionWatch,
    signed_position,
)
from otocod.engine.slots import Slots
from otocod.ports.broker import Position, ReadFailed, SettledPosition
from tests.support import stored_records as records
from tests.support.core import report_of
from tests.support.fakes import START_US, FakeBroker, LoopClock
from tests.support.model_store import ModelStore
from tests.support.stored_records import ACCOUNT, LONG, SHORT


def one_leg_filled(stop: Order) -> OrderReport:
    filled = {SHORT: 1, LONG: 0}
    return report_of(stop.spec, stop.broker_order_id or "", BrokerStatus.LIVE, filled)


class Watch:
    """`held` is what the broker's record shows; brackets stand in memory as they were loaded."""

    def __init__(self, *brackets: Bracket) -> None:
        clock = LoopClock()
        self.broker = FakeBroker(clock)
        self.commands: list[Command] = []
        self.store = ModelStore()
        self.mailboxes = Mailboxes(
            self.store,
            clock,
            run_command=lambda bracket, command: self.commands.append(command),
            set_deadline=lambda bracket_id, at_us: None,
            on_store_failure=lambda error: None,
            on_store_recovery=lambda: None,
        )
        for bracket in brackets:
            self.store.commit(records.change(None, bracket))
        self.mailboxes.load(brackets)
        self.clock = clock
        self.watch = PositionWatch(self.broker, self.mailboxes, Slots(1, reserved=0), clock)

    async def look(self, times: int = 1, **held: int) -> None:
        found = tuple(Position({"short": SHORT, "long": LONG}[name], count) for name, count in held.items())
        for _ in range(times):
            self.broker.answer("positions", found)  # type: ignore[arg-type]  # a query's answer
            await self.watch.compare(ACCOUNT)

    def attention(self, bracket: Bracket) -> str | None:
        return self.mailboxes.brackets[bracket.bracket_id].attention


def live(number: int = 1) -> Bracket:
    return records.protected(records.entry_filled(records.accepted(number)))


def test_fills_say_what_is_open_by_leg_and_side() -> None:
    assert signed_position(live()) == {SHORT: -1, LONG: 1}
    assert signed_position(records.closed(live())) == {SHORT: 0, LONG: 0}


async def test_position_that_agrees_is_no_news() -> None:
    watch = Watch(live())
    await watch.look(5, short=-1, long=1)
    assert watch.attention(live()) is None


@pytest.mark.covers("F57", "F34")
async def test_disagreement_is_told_only_when_it_has_been_seen_three_times() -> None:
    """The record follows a fill by seconds, so one look, or two, prove nothing."""
    watch = Watch(live())
    await watch.look(2)
    assert watch.attention(live()) is None
    await watch.look(1)
    assert "positions differ" in (watch.attention(live()) or "")
    assert SHORT.strip() in (watch.attention(live()) or "")


@pytest.mark.covers("F57")
async def test_disagreement_never_sends_an_order() -> None:
    watch = Watch(live())
    await watch.look(10)
    assert {type(command).__name__ for command in watch.commands} == {"RaiseAlarm", "Sweep"}


async def test_disagreement_that_goes_away_is_forgotten() -> None:
    watch = Watch(live())
    await watch.look(2)
    await watch.look(1, short=-1, long=1)
    await watch.look(2)
    assert watch.attention(live()) is None


async def test_disagreement_that_changes_is_another_one() -> None:
    watch = Watch(live())
    await watch.look(2)
    await watch.look(2, short=-1)
    assert watch.attention(live()) is None
    await watch.look(1, short=-1)
    assert LONG.strip() in (watch.attention(live()) or "")
    assert SHORT.strip() not in (watch.attention(live()) or "")


async def test_looks_with_a_fill_of_ours_between_them_do_not_add_up() -> None:
    bracket = live()
    watch = Watch(bracket)
    await watch.look(2)
    stop = next(order for order in bracket.exits if order.role is Role.STOP)
    watch.mailboxes.deliver(bracket.bracket_id, OrderReported(one_leg_filled(stop), stop.external_identifier))
    await watch.look(2)
    assert watch.attention(bracket) is None
    await watch.look(1)
    assert "positions differ" in (watch.attention(bracket) or "")


async def test_looks_with_any_other_change_of_the_bracket_between_them_add_up() -> None:
    """An exit that is refused again and again changes the record each time, and is refused because nothing is there."""
    watch = Watch(live())
    await watch.look(2)
    watch.mailboxes.deliver(live().bracket_id, AttentionAcknowledged("op"))
    await watch.look(1)
    assert "positions differ" in (watch.attention(live()) or "")


async def test_disagreement_that_was_acknowledged_and_lasts_is_told_again() -> None:
    watch = Watch(live())
    await watch.look(3)
    watch.mailboxes.deliver(live().bracket_id, AttentionAcknowledged("op"))
    assert watch.attention(live()) is None
    await watch.look(3)
    assert watch.attention(live()) is not None


@pytest.mark.covers("F34")
async def test_failed_query_is_no_look() -> None:
    watch = Watch(live())
    await watch.look(2)
    watch.broker.fail("positions", times=3)
    for _ in range(3):
        with pytest.raises(ReadFailed):
            await watch.watch.compare(ACCOUNT)
    assert watch.attention(live()) is None
    watch.mailboxes.deliver(live().bracket_id, TimeReached())


@pytest.mark.covers("F70")
async def test_larger_position_on_the_same_side_is_somebody_elses_business() -> None:
    watch = Watch(live())
    await watch.look(5, short=-7, long=3)
    assert watch.attention(live()) is None


async def test_position_on_the_other_side_is_a_disagreement() -> None:
    watch = Watch(live())
    await watch.look(3, short=1, long=1)
    assert "+1 where our fills say -1" in (watch.attention(live()) or "")


async def test_brackets_on_one_symbol_share_the_position() -> None:
    watch = Watch(live(1), live(2))
    await watch.look(5, short=-2, long=2)
    assert watch.attention(live(1)) is None
    await watch.look(3, short=-1, long=1)
    assert watch.attention(live(1)) is not None
    assert watch.attention(live(2)) is not None


async def test_brackets_without_a_fill_are_not_looked_at() -> None:
    waiting = records.accepted()
    watch = Watch(waiting, replace(records.closed(live(2)), state=BracketState.CLOSED))
    await watch.watch.compare(ACCOUNT)
    assert watch.broker.calls == []


# What proves that a position has gone.


def taken(watch: Watch, bracket: Bracket) -> dict[str, int]:
    return dict(watch.mailboxes.brackets[bracket.bracket_id].taken)


def say(watch: Watch, **quantities: int) -> None:
    """The stream speaks of positions."""
    for name, quantity in quantities.items():
        watch.watch.streamed(ACCOUNT, Position({"short": SHORT, "long": LONG}[name], quantity))


@pytest.mark.covers("F69")
async def test_position_that_was_there_and_is_gone_by_list_and_stream_is_proved_at_the_third_look() -> None:
    watch = Watch(live())
    await watch.look(1, short=-1, long=1)
    say(watch, short=0, long=0)
    await watch.look(2)
    assert taken(watch, live()) == {}
    await watch.look(1)
    assert taken(watch, live()) == {SHORT: 1, LONG: 1}


@pytest.mark.covers("F34")
async def test_list_of_positions_alone_proves_nothing_before_it_has_lasted() -> None:
    """The list may come from a replica that has lost the account for a while."""
    watch = Watch(live())
    await watch.look(1, short=-1, long=1)
    await watch.look(5)
    assert taken(watch, live()) == {}
    watch.clock.ahead_us = PROVED_AFTER_US
    await watch.look(1)
    assert taken(watch, live()) == {SHORT: 1, LONG: 1}


@pytest.mark.covers("F34")
async def test_position_that_was_never_seen_is_late_and_not_gone() -> None:
    bracket = replace(live(), first_fill_us=START_US)
    watch = Watch(bracket)
    say(watch, short=0, long=0)
    await watch.look(5)
    assert taken(watch, bracket) == {}


async def test_stream_that_says_otherwise_than_the_list_proves_nothing() -> None:
    watch = Watch(live())
    await watch.look(1, short=-1, long=1)
    say(watch, short=-1, long=1)
    await watch.look(3)
    assert taken(watch, live()) == {}


@pytest.mark.covers("F71")
async def test_nobody_can_say_whose_part_of_a_shared_position_has_gone() -> None:
    watch = Watch(live(1), live(2))
    await watch.look(1, short=-2, long=2)
    say(watch, short=-1, long=1)
    await watch.look(5, short=-1, long=1)
    assert taken(watch, live(1)) == taken(watch, live(2)) == {}


def settled(watch: Watch, *rows: tuple[str, int, Settlement], at_us: int = records.START_US + 10) -> None:
    """What the ledger says at every look."""
    found = tuple(SettledPosition(symbol, quantity, how, at_us) for symbol, quantity, how in rows)
    watch.broker.answer("settled_positions", found, times=99)  # type: ignore[arg-type]


BOTH = ((SHORT, 1, Settlement.ASSIGNMENT), (LONG, 1, Settlement.EXERCISE))


@pytest.mark.covers("F64", "F65")
async def test_position_that_the_ledger_accounts_for_is_proved_at_the_third_look() -> None:
    watch = Watch(live())
    settled(watch, *BOTH)
    await watch.look(2)
    assert taken(watch, live()) == {}
    await watch.look(1)
    assert taken(watch, live()) == {SHORT: 1, LONG: 1}
    attention = watch.attention(live()) or ""
    assert "by assignment (its underlying is not this bracket's)" in attention
    assert "by exercise" in attention


@pytest.mark.covers("F65")
async def test_ledger_that_accounts_for_one_leg_of_two_proves_nothing() -> None:
    watch = Watch(live())
    settled(watch, BOTH[0])
    await watch.look(5)
    assert taken(watch, live()) == {}


@pytest.mark.covers("F65")
async def test_ledger_of_before_the_bracket_proves_nothing() -> None:
    bracket = replace(live(), first_fill_us=records.START_US + 11)
    watch = Watch(bracket)
    settled(watch, *BOTH)
    await watch.look(5)
    assert taken(watch, bracket) == {}


@pytest.mark.covers("F65")
def two_filled() -> Bracket:
    spec = records.limit("-0.85", 2)
    entry = replace(records.accepted().orders[0], spec=spec)
    report = report_of(spec, "771", BrokerStatus.FILLED, {SHORT: 2, LONG: 2})
    entry = replace(entry.learn(report), state=OrderState.FILLED)
    return replace(live(), request=records.a_request(entry=spec), orders=(entry, *live().orders[1:]))


async def test_contracts_that_were_taken_before_are_not_accounted_for_twice() -> None:
    """Of two, one was assigned and taken off; then the list fails to show the other."""
    bracket = replace(two_filled(), taken=((SHORT, 1), (LONG, 1)))
    watch = Watch(bracket)
    settled(watch, *BOTH)
    await watch.look(5)
    assert taken(watch, bracket) == {SHORT: 1, LONG: 1}


@pytest.mark.covers("F34")
async def test_ledger_that_cannot_be_read_leaves_the_proof_to_the_stream() -> None:
    watch = Watch(live())
    watch.broker.fail("settled_positions", times=9)
    await watch.look(1, short=-1, long=1)
    say(watch, short=0, long=0)
    await watch.look(3)
    assert taken(watch, live()) == {SHORT: 1, LONG: 1}


async def test_ledger_is_read_only_for_a_suspicion_that_lasts() -> None:
    watch = Watch(live())
    await watch.look(2)
    assert "settled_positions" not in [call.name for call in watch.broker.calls]
    await watch.look(1)
    assert "settled_positions" in [call.name for call in watch.broker.calls]


async def test_message_of_a_position_that_is_as_large_as_ours_is_no_news() -> None:
    watch = Watch(live())
    assert not watch.watch.streamed(ACCOUNT, Position(SHORT, -1))
    assert not watch.watch.streamed(ACCOUNT, Position("MSFT", 0))
    assert watch.watch.streamed(ACCOUNT, Position(SHORT, 0))


async def test_look_is_wanted_again_soon_until_the_suspicion_is_settled() -> None:
    watch = Watch(live())
    watch.broker.answer("positions", ())  # type: ignore[arg-type]
    assert await watch.watch.compare(ACCOUNT) == LOOK_AGAIN_S
    await watch.look(1)
    watch.broker.answer("positions", ())  # type: ignore[arg-type]
    assert await watch.watch.compare(ACCOUNT) == LOOK_AGAIN_TOLD_S
    watch.broker.answer("positions", (Position(SHORT, -1), Position(LONG, 1)))  # type: ignore[arg-type]
    assert await watch.watch.compare(ACCOUNT) is None


async def test_position_that_only_the_stream_has_shown_was_there() -> None:
    bracket = replace(live(), first_fill_us=START_US - 1)
    watch = Watch(bracket)
    say(watch, short=-1, long=1)
    say(watch, short=0, long=0)
    await watch.look(3)
    assert taken(watch, bracket) == {SHORT: 1, LONG: 1}


# What a fill of ours would explain.


def ended_part_filled(number: int = 1) -> Bracket:
    """Two of three units filled before the rest was cancelled; both are protected."""
    bracket = live(number)
    entry = bracket.orders[0]
    asked = replace(entry, spec=records.limit("-0.85", 3), views=(), state=OrderState.CANCELLED)
    filled = asked.learn(report_of(asked.spec, "77", BrokerStatus.CANCELLED, 2))
    request = replace(bracket.request, entry=asked.spec)
    return replace(bracket, request=request, orders=(filled, *bracket.orders[1:]))


async def pauses(watch: Watch, times: int, **held: int) -> list[float | None]:
    found = tuple(Position({"short": SHORT, "long": LONG}[name], count) for name, count in held.items())
    said = []
    for _ in range(times):
        watch.broker.answer("positions", found)  # type: ignore[arg-type]  # a query's answer
        said.append(await watch.watch.compare(ACCOUNT))
    return said


@pytest.mark.covers("F42", "F26", "F16")
@pytest.mark.parametrize("beyond", [1, 3])
async def test_position_larger_by_what_an_ended_entry_could_have_filled_has_three_listings_made(beyond: int) -> None:
    """One unit was left unfilled; a double of the entry could have filled three."""
    watch = Watch(ended_part_filled())
    held = 2 + beyond
    assert await pauses(watch, 2, short=-2, long=2) == [None, None]
    assert await pauses(watch, 5, short=-held, long=held) == [LOOK_AGAIN_S, LOOK_AGAIN_S, LOOK_AGAIN_S, None, None]
    assert watch.attention(ended_part_filled()) is None
    assert watch.commands == []


@pytest.mark.covers("F42")
async def test_position_that_changes_again_is_looked_into_again() -> None:
    watch = Watch(ended_part_filled())
    await pauses(watch, 5, short=-3, long=3)
    assert await pauses(watch, 1, short=-3, long=2) == [LOOK_AGAIN_S]


@pytest.mark.covers("F42", "F70")
async def test_position_larger_than_any_entry_could_have_made_it_is_somebody_elses_business() -> None:
    watch = Watch(ended_part_filled())
    assert await pauses(watch, 1, short=-6, long=6) == [None]
    working = replace(ended_part_filled(2).orders[0], state=OrderState.WORKING)
    other = Watch(replace(ended_part_filled(2), orders=(working, *ended_part_filled(2).orders[1:])))
    assert await pauses(other, 1, short=-3, long=3) == [None]


async def test_message_of_a_position_that_a_fill_of_ours_would_explain_asks_for_a_look() -> None:
    watch = Watch(ended_part_filled())
    assert watch.watch.streamed(ACCOUNT, Position(SHORT, -3))
    assert not watch.watch.streamed(ACCOUNT, Position(SHORT, -6))
    assert not watch.watch.streamed(ACCOUNT, Position(SHORT, -2))


async def test_looks_of_a_bracket_that_is_gone_are_forgotten() -> None:
    watch = Watch(ended_part_filled(1))
    await pauses(watch, 1, short=-3, long=3)
    assert list(watch.watch._excesses) == [ended_part_filled(1).bracket_id]
    other = live(2)
    watch.mailboxes.brackets = {other.bracket_id: other}
    await pauses(watch, 1, short=-1, long=1)
    assert watch.watch._excesses == {}
