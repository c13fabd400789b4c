"""The core: one bracket, one event, one moment; out comes the new record and what to do about it.

Two steps. `learn` joins the event into what is known. Then the whole is looked at, and whatever should be under way
and is not is asked for. The second step does not care which event came: a lost message, a repeated one or a restart
leads to the same next move as soon as the facts are the same.
"""

from collections.abc import Iterable

from otocod.domain.brackets import Bracket, BracketState, Outcome
from otocod.domain.decisions import Decision
from otocod.domain.entering import (
    chase_cancels,
    follow_unknowns,
    pursue_entry,
    resend_deferred,
    seek_heirs,
    settle_doubles,
)
from otocod.domain.events import Event
from otocod.domain.finishing import (
    complete_fills,
    conclude,
    is_flat,
    mind_time_exit,
    pursue_close,
    take_exits_away,
    tend_closed,
)
from otocod.domain.hours import mind_hours
from otocod.domain.learning import learn
from otocod.domain.outside import mind_taken
from otocod.domain.protecting import judge, protect
from otocod.domain.surplus import trade_surplus_away
from otocod.domain.turn import Turn
from otocod.domain.watched import mind_jump, stop_watching


def decide(bracket: Bracket, event: Event, now_us: int) -> Decision:
    """Pure: equal arguments, equal answers. Raises DomainError only for our own bugs."""
    return decide_all(bracket, (event,), now_us)


def decide_all(bracket: Bracket, events: Iterable[Event], now_us: int) -> Decision:
    """As `decide`, for events that are one piece of news: a listing is joined whole before anything is concluded."""
    turn = Turn(bracket, now_us)
    for event in events:
        learn(turn, event)
    _pursue(turn)
    return turn.decision(bracket)


def _pursue(turn: Turn) -> None:
    mind_taken(turn)
    if turn.bracket.state is BracketState.CLOSED:
        _pursue_closed(turn)
    if turn.bracket.state is not BracketState.CLOSED:
        _pursue_open(turn)
    if turn.bracket.outcome is not Outcome.RELEASED:
        complete_fills(turn)


def _pursue_closed(turn: Turn) -> None:
    if turn.bracket.outcome is None:
        turn.set(outcome=Outcome.RELEASED, closed_at_us=turn.now_us)
        return
    tend_closed(turn)
    if turn.bracket.state is BracketState.CLOSED and turn.bracket.outcome is not Outcome.RELEASED:
        chase_cancels(turn)


def _pursue_open(turn: Turn) -> None:
    seek_heirs(turn)
    settle_doubles(turn)
    follow_unknowns(turn)
    mind_time_exit(turn)
    pursue_entry(turn)  # before the resends: what is not wanted any more does not leave
    resend_deferred(turn)
    if is_flat(turn.bracket):
        stop_watching(turn)
        take_exits_away(turn)
        trade_surplus_away(turn)
    elif turn.bracket.exits_allowed_us is not None:
        if turn.bracket.flat_since_us is not None:
            turn.set(flat_since_us=None)
        mind_hours(turn)
        protect(turn)
        mind_jump(turn)
        if _is_closing(turn):
            pursue_close(turn)
            if not _is_closing(turn):
                protect(turn)  # the close came to nothing
    if turn.bracket.state is BracketState.CLOSED:
        _pursue_closed(turn)
        return
    chase_cancels(turn)
    conclude(turn)
    judge(turn)


def _is_closing(turn: Turn) -> bool:
    return turn.bracket.close is not None and turn.bracket.state is not BracketState.CLOSED
