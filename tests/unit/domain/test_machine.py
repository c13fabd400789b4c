"""The two tables: what each state does with each event, and that nothing is remembered between two questions."""

from collections import Counter
from itertools import product

import pytest
from transitions import Machine

from otocod.domain import machine
from otocod.domain.brackets import BracketState as B
from otocod.domain.errors import UnexpectedEvent
from otocod.domain.machine import (
    BRACKET_TRANSITIONS,
    ORDER_IGNORED,
    ORDER_TRANSITIONS,
    next_bracket_state,
    next_order_state,
)
from otocod.domain.machine import BracketEvent as X
from otocod.domain.machine import OrderEvent as E
from otocod.domain.orders import TERMINAL_STATES
from otocod.domain.orders import OrderState as S

ORDER_MOVES = [(source, event, to) for sources, event, to in ORDER_TRANSITIONS for source in sources]
BRACKET_MOVES = [(source, event, to) for sources, event, to in BRACKET_TRANSITIONS for source in sources]

# What only a bug of ours can tell an order. Every other pair moves the order or is ignored with a reason.
ORDER_BUGS = {
    # An id is posted at most once, so SEND follows nothing but INTENDED.
    *((state, E.SEND) for state in (S.IN_FLIGHT, S.WORKING, S.CONTINGENT, S.CANCEL_PENDING, S.REPLACE_PENDING)),
    *((state, E.SEND) for state in (S.UNKNOWN, S.ABSENT)),
    # An answer to a POST comes once, and an order that the broker has shown is no longer judged by it.
    *((state, E.DEFER) for state in (S.INTENDED, S.CANCEL_PENDING, S.REPLACE_PENDING, S.UNKNOWN, S.ABSENT)),
    *((state, E.LOSE) for state in (S.REPLACE_PENDING, S.ABSENT)),
    *((state, E.REFUSE) for state in (S.WORKING, S.CONTINGENT, S.CANCEL_PENDING, S.REPLACE_PENDING, S.ABSENT)),
    # Absence is a verdict on what was never seen, and is passed once.
    *((state, E.GIVE_UP) for state in (S.WORKING, S.CONTINGENT, S.CANCEL_PENDING, S.REPLACE_PENDING, S.ABSENT)),
}
# Where the broker's joined view stands. It may say any of these of any order at any time.
BROKER_EVENTS = (
    *(E.ACKNOWLEDGE, E.WORK, E.HOLD, E.ASK_CANCEL, E.ASK_REPLACE),
    *(E.FILL, E.CANCEL, E.EXPIRE, E.REJECT),
)


@pytest.mark.parametrize(("source", "event", "to"), ORDER_MOVES)
def test_order_moves_as_declared(source: S, event: E, to: S) -> None:
    assert next_order_state(source, event) is to


@pytest.mark.parametrize(("source", "event"), ORDER_IGNORED)
def test_order_ignores_as_declared_and_says_why(source: S, event: E) -> None:
    assert next_order_state(source, event) is source
    assert ORDER_IGNORED[source, event].strip()


@pytest.mark.parametrize(("source", "event"), sorted(ORDER_BUGS))
def test_order_told_what_cannot_happen_raises_unexpected_event(source: S, event: E) -> None:
    with pytest.raises(UnexpectedEvent) as raised:
        next_order_state(source, event)
    assert (raised.value.state, raised.value.event) == (source.value, event.value)


def test_every_pair_of_order_state_and_event_is_moved_ignored_or_a_known_bug_and_only_one_of_them() -> None:
    found = Counter([*((source, event) for source, event, _ in ORDER_MOVES), *ORDER_IGNORED, *ORDER_BUGS])
    assert set(found) == set(product(S, E))
    assert max(found.values()) == 1


@pytest.mark.covers("F23", "F27")
@pytest.mark.parametrize("event", BROKER_EVENTS)
@pytest.mark.parametrize("state", S)
def test_nothing_the_broker_says_of_an_order_is_unexpected(state: S, event: E) -> None:
    assert (state, event) not in ORDER_BUGS
    next_order_state(state, event)


@pytest.mark.covers("F23")
@pytest.mark.parametrize("event", BROKER_EVENTS)
@pytest.mark.parametrize("state", S)
def test_broker_events_told_twice_change_nothing_the_second_time(state: S, event: E) -> None:
    once = next_order_state(state, event)
    assert next_order_state(once, event) is once


@pytest.mark.covers("F23", "F42")
@pytest.mark.parametrize("state", sorted(TERMINAL_STATES - {S.ABSENT}))
def test_terminal_absorbs_everything_but_a_fill(state: S) -> None:
    allowed = [event for event in E if (state, event) not in ORDER_BUGS and event not in (E.FILL, E.REVIVE)]
    assert {next_order_state(state, event) for event in allowed} == {state}
    assert next_order_state(state, E.FILL) is S.FILLED


@pytest.mark.covers("F3")
def test_order_given_up_lives_again_as_the_broker_shows_it() -> None:
    shown = {event: next_order_state(S.ABSENT, event) for event in BROKER_EVENTS}
    assert S.ABSENT not in shown.values()
    assert shown[E.WORK] is S.WORKING
    assert shown[E.FILL] is S.FILLED


@pytest.mark.parametrize(("source", "event", "to"), BRACKET_MOVES)
def test_bracket_moves_as_declared(source: B, event: X, to: B) -> None:
    assert next_bracket_state(source, event) is to


@pytest.mark.parametrize(
    ("source", "event"), sorted(set(product(B, X)) - {(source, event) for source, event, _ in BRACKET_MOVES})
)
def test_bracket_told_anything_else_raises_unexpected_event(source: B, event: X) -> None:
    with pytest.raises(UnexpectedEvent) as raised:
        next_bracket_state(source, event)
    assert (raised.value.state, raised.value.event) == (source.value, event.value)


def test_nothing_but_a_late_fill_follows_closed() -> None:
    assert [(event, to) for source, event, to in BRACKET_MOVES if source is B.CLOSED] == [(X.REOPEN, B.ENTRY_FILLED)]


def test_every_state_can_be_reached_and_every_open_one_can_be_left() -> None:
    assert {to for _, _, to in BRACKET_MOVES} | {B.PENDING_ENTRY} == set(B)
    assert {source for source, _, to in BRACKET_MOVES if to is B.CLOSED} == set(B) - {B.CLOSED}
    reached = {to for source, _, to in ORDER_MOVES if source is not to}
    assert reached | {S.INTENDED} == set(S)


def test_names_values_and_stored_text_agree() -> None:
    assert all(state.name == state.value for state in (*S, *B))


def test_every_event_of_a_table_is_told_by_its_enumeration() -> None:
    assert {event for _, event, _ in ORDER_MOVES} == set(E)
    assert {event for _, event, _ in BRACKET_MOVES} == set(X)


def test_answers_do_not_depend_on_what_was_asked_before() -> None:
    def answers(pairs: list[tuple[S, E]]) -> dict[tuple[S, E], S | None]:
        found: dict[tuple[S, E], S | None] = {}
        for state, event in pairs:
            try:
                found[state, event] = next_order_state(state, event)
            except UnexpectedEvent:
                found[state, event] = None
        return found

    pairs = list(product(S, E))
    assert answers(pairs) == answers(pairs[::-1]) == answers(pairs[1::2] + pairs[::2])


@pytest.mark.parametrize("made", [machine._ORDER_MACHINE, machine._BRACKET_MACHINE])
def test_machine_of_the_process_holds_no_model(made: Machine) -> None:
    assert made.models == []
    next_order_state(S.INTENDED, E.SEND)
    next_bracket_state(B.PENDING_ENTRY, X.FILL_ENTRY)
    assert made.models == []


def test_pair_both_moved_and_ignored_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(machine.ORDER_IGNORED, (S.INTENDED, E.SEND), "wrong")
    with pytest.raises(AssertionError, match="in the table and ignored"):
        machine._check_tables()
