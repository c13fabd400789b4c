"""What others do to a bracket: a person on the broker's platform, or the broker itself by assignment and expiry.

Exits that end tell of it themselves. A position that goes is seen only in the broker's list of positions, which may be
late, or wrong for a moment; so nothing is made of it before it is proved (`PositionsDisagreed`), while an order of
unknown outcome might explain it, or while the entry still works.
"""

from otocod.domain.brackets import Bracket, BracketState, Close, ClosePurpose, Outcome
from otocod.domain.commands import Sweep
from otocod.domain.events import PositionsDisagreed
from otocod.domain.machine import BracketEvent
from otocod.domain.request_types import OutsidePolicy
from otocod.domain.sessions import new_york_day
from otocod.domain.settlement import Settlement
from otocod.domain.symbols import parse_symbol
from otocod.domain.turn import Turn


def learn_positions(turn: Turn, event: PositionsDisagreed) -> None:
    """Takes what is proved to be gone off the position."""
    turn.attend("positions_disagree", f"the broker's positions differ from our fills: {event.detail}")
    # The stream may have lost a fill of an order that had ended: only a full listing shows those.
    turn.ask(Sweep(turn.bracket.listed_from_us))
    if not event.is_proved or event.held is None or _may_be_explained(turn.bracket):
        return
    held, taken, settled = dict(event.held), dict(turn.bracket.taken), dict(turn.bracket.settled)
    for symbol, quantity in turn.bracket.open_by_leg.items():
        gone = quantity - held.get(symbol, 0)
        if gone > 0:
            taken[symbol] = taken.get(symbol, 0) + gone
            settled |= {leg: how for leg, how in event.settled if leg == symbol}
            turn.taken_now.append(_words(gone, symbol, settled.get(symbol)))
    turn.set(taken=tuple(taken.items()), settled=tuple(settled.items()))


def _words(gone: int, symbol: str, how: Settlement | None) -> str:
    if how is None:
        return f"{gone} of {symbol.strip()}"
    delivery = " (its underlying is not this bracket's)" if how.delivers else ""
    return f"{gone} of {symbol.strip()} by {how.value.lower()}{delivery}"


def _may_be_explained(bracket: Bracket) -> bool:
    is_over = bracket.state is BracketState.CLOSED
    is_entry_working = any(not order.is_terminal for order in bracket.entries)
    return is_over or is_entry_working or bool(bracket.unknown_orders) or bool(bracket.suspects)


def mind_taken(turn: Turn) -> None:
    """Once for what has just been taken. Where nothing is left there is nothing to hold or to restore: it ends."""
    if not turn.taken_now:
        return
    text = f"{', '.join(turn.taken_now)} left the position at the broker, and not by our orders"
    turn.note("PositionTaken", text)
    if any(quantity > 0 for quantity in turn.bracket.open_by_leg.values()):
        changed_outside(turn, text)
    elif turn.bracket.request.on_outside_change is OutsidePolicy.RELEASE:
        _release(turn, text)
    else:
        turn.attend("position_gone", f"{text}: nothing is left, the exits are cancelled and the bracket ends")


def changed_outside(turn: Turn, text: str) -> None:
    """`on-outside-change`, for whatever `text` says was changed."""
    match turn.bracket.request.on_outside_change:
        case OutsidePolicy.HOLD:
            turn.set(is_held=True)
            turn.attend("changed_outside", f"{text}: held, no new orders until `unfreeze`, `close` or `release`")
        case OutsidePolicy.RESTORE:
            turn.attend("changed_outside", f"{text}: restored, as the request asks")
        case OutsidePolicy.RELEASE:
            _release(turn, text)
        case OutsidePolicy.FLATTEN:
            turn.attend("changed_outside", f"{text}: closing the position, as the request asks")
            turn.set(close=Close(ClosePurpose.OUTSIDE_CHANGE, "on-outside-change", None, turn.now_us))


def _release(turn: Turn, text: str) -> None:
    turn.attend("changed_outside", f"{text}: released, as the request asks")
    turn.move(BracketEvent.RELEASE, "Released", "changed outside")


def outcome_of_taken(bracket: Bracket, now_us: int) -> Outcome:
    """Of a bracket whose position has gone otherwise than by orders of ours.

    On the last day it may also have been closed by hand, so the ledger decides; afterwards there is nothing to close.
    """
    expiries = [parse_symbol(leg.instrument_type, leg.symbol).expires_on for leg in bracket.request.entry.legs]
    first = min((expiry for expiry in expiries if expiry is not None), default=None)
    today = new_york_day(now_us)
    if first is None or today < first:
        return Outcome.CLOSED_OUTSIDE
    return Outcome.EXPIRED if bracket.settled or today > first else Outcome.CLOSED_OUTSIDE
