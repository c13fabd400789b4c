"""The end: exits taken away once the position is flat, closes by intent, and the outcome."""

from dataclasses import replace
from decimal import Decimal

from otocod.domain.brackets import Bracket, BracketState, Close, ClosePurpose, Outcome
from otocod.domain.commands import FetchQuote, Member, ReadOrder, SubmitOrder
from otocod.domain.entering import chase_cancels, request_cancel
from otocod.domain.exits import close_spec
from otocod.domain.machine import BracketEvent
from otocod.domain.moving import Course, caught_up, closing_limits, first_price, is_failed_move, replace_order, step
from otocod.domain.orders import Order, OrderState
from otocod.domain.outside import outcome_of_taken
from otocod.domain.protecting import stop_unprotected_clock, units_left
from otocod.domain.specs import Role
from otocod.domain.spreads import closing_legs, unmatched_quantities
from otocod.domain.surplus import is_surplus_traded, surplus_of, surplus_text
from otocod.domain.timing import (
    CLOSE_PATIENCE_US,
    CLOSE_RETRY_MAX_US,
    CLOSE_STEP_US,
    CLOSE_TRIES_BEFORE_ALARM,
    FILLS_GIVEN_UP_AFTER_US,
    FILLS_READ_AFTER_US,
    FILLS_SOUGHT_FOR_US,
    MOVES_BEFORE_CANCEL,
    NATIVE_SIBLING_US,
    QUOTE_RETRY_US,
    SECOND_US,
    backoff_us,
)
from otocod.domain.turn import Turn
from otocod.domain.walking import FinalAction, Send, Walk, WalkStart, WalkState
from otocod.domain.watched import is_closing_order

# A close that nobody gave a walk: at the natural price, then after it.
_FOLLOW = Walk(WalkStart.NATURAL, Decimal(1), CLOSE_STEP_US, FinalAction.MARKETABLE, max_replaces=0)


def is_flat(bracket: Bracket) -> bool:
    """Whether the entry is over and every leg it opened is closed, or more than closed."""
    has_fill = any(order.has_any_fill for order in bracket.entries)
    is_entry_over = all(order.is_terminal for order in bracket.entries)
    return has_fill and is_entry_over and all(quantity <= 0 for quantity in bracket.open_by_leg.values())


def take_exits_away(turn: Turn) -> None:
    """The position is flat: what is left of the exits must not fill. In a native group the broker goes first."""
    if turn.bracket.flat_since_us is None:
        turn.set(flat_since_us=turn.now_us)
        stop_unprotected_clock(turn)
    flat_since_us = turn.bracket.flat_since_us
    assert flat_since_us is not None
    for order in turn.bracket.exits:
        if order.is_terminal:
            continue
        is_sent = order.state is not OrderState.INTENDED
        if order.group is None or not is_sent or turn.now_us >= flat_since_us + NATIVE_SIBLING_US:
            request_cancel(turn, order)
        else:
            turn.wake(flat_since_us + NATIVE_SIBLING_US)


# Closing by intent.


def mind_time_exit(turn: Turn) -> None:
    """Due also while part of the entry still works: its rest is cancelled, and what has filled is closed."""
    bracket = turn.bracket
    due_us = bracket.time_exit_us
    if due_us is None or bracket.first_fill_us is None or bracket.close is not None or bracket.is_held:
        return
    if bracket.flat_since_us is not None:
        return
    if turn.now_us < due_us:
        turn.wake(due_us)
        return
    turn.set(close=Close(ClosePurpose.TIME, "time-exit", None, turn.now_us), entry_cancel_asked=True)
    turn.note("TimeExitDue")


def pursue_close(turn: Turn) -> None:
    """Exits away, confirmed; then a limit that closes. If that cannot be, protection again."""
    close = _priced_close(turn)
    if close is None:
        return
    if turn.bracket.state in (BracketState.ENTRY_FILLED, BracketState.EXITS_LIVE):
        turn.move(BracketEvent.BEGIN_CLOSE, "CloseBegun", f"{close.purpose} by {close.by}")
    if turn.bracket.unprotected_since_us is None:
        turn.set(unprotected_since_us=turn.now_us)
    for order in _resting(turn.bracket):
        request_cancel(turn, order)
    if any(order.state is OrderState.UNKNOWN for order in turn.bracket.exits) or turn.bracket.suspects:
        return
    if _resting(turn.bracket):
        return
    closes = [order for order in turn.bracket.exits if is_closing_order(order) and not is_failed_move(order)]
    live = [order for order in closes if not order.is_terminal]
    if live:
        _reprice(turn, close, live[-1])
        return
    last = closes[-1] if closes else None
    if last is not None and not last.is_settled and _abandon_close(turn, close, last):
        return
    _send_close(turn, close)


def _resting(bracket: Bracket) -> list[Order]:
    return [order for order in bracket.exits if not order.is_terminal and not is_closing_order(order)]


def _priced_close(turn: Turn) -> Close | None:
    """The intent, once it can be carried out: without a price to close at, the exits are better left where they are."""
    close = turn.bracket.close
    assert close is not None
    if close.net_price is not None or close.has_quote or not _resting(turn.bracket):
        return close
    if turn.natural is not None:
        close = replace(close, has_quote=True)
        turn.set(close=close, retry_exits_at_us=None)
        return close
    if turn.is_quote_missing and close.purpose is ClosePurpose.OPERATOR:
        turn.set(close=None, retry_exits_at_us=None)
        turn.attend(
            "close_failed", "no quotes to price the close by: nothing was changed; `close B --at PRICE` needs none"
        )
        return None
    if turn.is_quote_missing:
        turn.attend("quote_missing", "no quotes to price the close by: the exits stay until there are")
    _fetch_quote(turn)
    return None


def _fetch_quote(turn: Turn) -> None:
    """Asks for the natural price, at most once in QUOTE_RETRY_US."""
    retry_at_us = turn.bracket.retry_exits_at_us
    if retry_at_us is not None and turn.now_us < retry_at_us:
        turn.wake(retry_at_us)
        return
    turn.set(retry_exits_at_us=turn.now_us + QUOTE_RETRY_US)
    turn.wake(turn.now_us + QUOTE_RETRY_US)
    turn.ask(FetchQuote(closing_legs(turn.bracket.request.entry.legs, 1)))


def _reprice(turn: Turn, close: Close, order: Order) -> None:
    """A working close walks; one that is not the one wanted now, or has had its time, is taken back."""
    if order.intended_at_us < close.since_us:
        request_cancel(turn, order)
    elif order.cancel_asked_us is not None or order.acknowledged_at_us is None:
        return
    elif close.net_price is None:
        _walk_close(turn, close, order)
    else:
        _mind_patience(turn, order, order.acknowledged_at_us)


def _mind_patience(turn: Turn, order: Order, since_us: int | None) -> None:
    """A price that is not followed any further may never be met, and the stop is away meanwhile."""
    due_us = (turn.now_us if since_us is None else since_us) + CLOSE_PATIENCE_US
    if turn.now_us < due_us:
        turn.wake(due_us)
    else:
        request_cancel(turn, order)


def _walk_close(turn: Turn, close: Close, order: Order) -> None:
    """Moved only for another price: where it stands it may be about to fill."""
    course = _course(turn.bracket, close)
    legs = closing_legs(turn.bracket.request.entry.legs, 1)
    walked, move = step(turn, course, caught_up(turn, close.walked, order), legs)
    if isinstance(move, Send):
        if _moves_refused(turn.bracket, order) >= MOVES_BEFORE_CANCEL:
            request_cancel(turn, order)
            return
        spec = close_spec(turn.bracket.request, units=turn.bracket.size, net_price=move.price)
        replace_order(turn, order, spec, min(units_left(turn.bracket, order), turn.bracket.open_units))
        walked = replace(walked, price=spec.net_price)
        _say_if_slow(turn, close.tries + walked.replaces)
    turn.set(close=replace(close, walked=walked))
    if walked.is_ended:
        turn.attend(
            "close_slow", f"the close stands at {order.spec.net_price}, the end of its walk, and has not filled"
        )
        if close.purpose is ClosePurpose.OPERATOR:
            _mind_patience(turn, order, walked.at_us)


def _moves_refused(bracket: Bracket, order: Order) -> int:
    moves = [other for other in bracket.exits if other.replaces == order.external_identifier]
    return sum(1 for move in moves if move.refusal is not None)


def _course(bracket: Bracket, close: Close) -> Course:
    """The walk that was asked for; else at the natural price, and after it, up to the limit of a stop that was."""
    rule = bracket.request.walk_of(Role.STOP if close.purpose is ClosePurpose.STOP_REACHED else Role.CLOSE)
    limits = closing_limits(bracket.request, close.cap)
    if rule is None:
        ends = [end for end in (close.cap, limits.bound) if end is not None]
        return Course(_FOLLOW, replace(limits, bound=min(ends, default=None)), is_gated=False)
    if close.purpose is not ClosePurpose.STOP_REACHED:
        limits = replace(limits, cap=rule.cap)
    if close.floor is not None:
        limits = replace(limits, floor=close.floor)
    return Course(rule.walk, limits, is_urgent=True)


def _begin(turn: Turn, close: Close) -> WalkState:
    """The state with the first price, or that of the next order in the place of one that is gone: never a lower one."""
    course = _course(turn.bracket, close)
    if close.walked.price is not None:
        floor = max(p for p in (close.walked.price, course.limits.floor) if p is not None)
        course = replace(course, limits=replace(course.limits, floor=floor))
    if turn.quote_fault is not None and course.is_gated:
        # Who must get out does not wait for better quotes: at what the market asks, which is capped.
        course = replace(course, walk=replace(course.walk, start=WalkStart.NATURAL), is_gated=False)
    return first_price(turn, course, WalkState(replaces=close.walked.replaces))[0]


def _say_if_slow(turn: Turn, tries: int) -> None:
    if tries >= CLOSE_TRIES_BEFORE_ALARM:
        turn.attend("close_slow", f"the close has not filled after {CLOSE_TRIES_BEFORE_ALARM} tries")


def _abandon_close(turn: Turn, close: Close, last: Order) -> bool:
    """A close that did not work: a person's is given up and the exits put back; the ladder's goes on.

    A price of a person's choice may never be met, and the stop is away meanwhile.
    """
    turn.put(last, is_settled=True)
    if last.state in (OrderState.ABSENT, OrderState.FILLED) or last.intended_at_us < close.since_us:
        return False
    if last.cancel_asked_us is not None and close.net_price is None and not close.walked.is_ended:
        return False  # it could not be moved, and is sent anew
    why = last.refusal.text if last.refusal is not None else last.status_text
    if last.cancel_asked_us is not None:
        why = f"not filled within {CLOSE_PATIENCE_US // SECOND_US} s"
    if close.purpose is ClosePurpose.OPERATOR:
        turn.set(close=None)
        turn.attend("close_failed", f"the close did not work ({why}): the exits are put back")
        turn.move(BracketEvent.ABORT_CLOSE, "CloseAborted", why)
        return True
    turn.attend("close_failed", f"the close did not work ({why}): trying again")
    limit_us = turn.bracket.policy.unprotected_limit_us
    turn.set(retry_exits_at_us=turn.now_us + backoff_us(close.tries, limit_us, CLOSE_RETRY_MAX_US))
    return False


def _send_close(turn: Turn, close: Close) -> None:
    bracket = turn.bracket
    retry_at_us = bracket.retry_exits_at_us
    if turn.natural is None and retry_at_us is not None and turn.now_us < retry_at_us:
        turn.wake(retry_at_us)
        return
    price = close.net_price
    if price is None and turn.quote is not None:
        close = replace(close, walked=_begin(turn, close))
        price = close.walked.price
    units = bracket.open_units
    if units <= 0:
        turn.attend(
            "legs_uneven", "the open legs are out of ratio and cannot be closed as a spread: close them by hand"
        )
        return
    if price is None:
        if turn.is_quote_missing:
            turn.attend(
                "quote_missing", "no quotes to price the close by: still trying; `close B --at PRICE` needs none"
            )
        _fetch_quote(turn)
        return
    tries = close.tries + 1
    turn.set(close=replace(close, tries=tries), retry_exits_at_us=None)
    _say_if_slow(turn, tries + close.walked.replaces)
    spec = close_spec(bracket.request, units=units, net_price=price)
    role = Role.STOP if close.purpose is ClosePurpose.STOP_REACHED else Role.CLOSE
    order, must_commit = turn.intend(role, spec)
    turn.ask(SubmitOrder(Member(order.external_identifier, role, spec), after_commit=must_commit))


# Fills that did not come with `Filled`.


def complete_fills(turn: Turn) -> None:
    """The quantity of a Filled order is known at once, its price only from the fills of every leg. They follow within
    milliseconds; when they do not, the order is read, also after the end, for the prices are what was earned.

    Legs of an ended order that have filled out of ratio are most often a fill of which the stream lost a part.
    """
    missing = [order for order in turn.bracket.orders if order.has_any_fill and _lacks_fills(order)]
    if not missing:
        turn.set(fills_asked_us=None)
        return
    asked_us = turn.bracket.fills_asked_us
    if asked_us is None or (turn.now_us >= asked_us + FILLS_SOUGHT_FOR_US and _has_new_fills(turn)):
        asked_us = turn.now_us
        turn.set(fills_asked_us=asked_us)
    if turn.now_us < asked_us + FILLS_READ_AFTER_US:
        turn.wake(asked_us + FILLS_READ_AFTER_US)
    elif turn.now_us < asked_us + FILLS_SOUGHT_FOR_US:
        due_us = turn.bracket.wake_at_us
        if due_us is not None and turn.now_us < due_us:
            turn.wake(due_us)  # each answer is news too: without this, every read would ask for the next one
            return
        for order in missing:
            if order.broker_order_id is not None:
                turn.ask(ReadOrder(order.external_identifier, order.broker_order_id))
        turn.wake(turn.now_us + FILLS_GIVEN_UP_AFTER_US)


def _lacks_fills(order: Order) -> bool:
    if not order.has_all_fills:
        return True
    filled = {leg.symbol: order.filled(leg.symbol) for leg in order.spec.legs}
    return order.is_terminal and bool(unmatched_quantities(order.spec.legs, filled))


def _has_new_fills(turn: Turn) -> bool:
    return sum(len(order.fills) for order in turn.bracket.orders) > sum(len(o.fills) for o in turn.before.orders)


# The outcome.


def conclude(turn: Turn) -> None:
    bracket = turn.bracket
    if not any(order.has_any_fill for order in bracket.entries) and any(bracket.open_by_leg.values()):
        turn.attend("filled_late", "an exit has filled although the entry has not: what it opened is yours to close")
    if any(not order.is_terminal for order in bracket.orders):
        _drop_orphans(turn)
        return
    if not any(order.has_any_fill for order in bracket.entries):
        _close_unfilled(turn)
    elif is_flat(bracket) and not bracket.suspects and not is_surplus_traded(bracket):
        _close_flat(turn)


def _drop_orphans(turn: Turn) -> None:
    """Exits of a group whose entry ended without a fill: the broker cancels them, and if it does not, we do."""
    bracket = turn.bracket
    is_dead = all(order.is_terminal and not order.has_any_fill for order in bracket.entries)
    if not is_dead:
        return
    if bracket.flat_since_us is None:
        turn.set(flat_since_us=turn.now_us)
    since_us = turn.bracket.flat_since_us
    assert since_us is not None
    if turn.now_us < since_us + NATIVE_SIBLING_US:
        turn.wake(since_us + NATIVE_SIBLING_US)
        return
    for order in bracket.exits:
        request_cancel(turn, order)
    chase_cancels(turn)  # this turn's round is over, and nothing may ever start another


def _close_unfilled(turn: Turn) -> None:
    turn.set(outcome=Outcome.ENTRY_NOT_FILLED, closed_at_us=turn.now_us, suspects=())
    entry = turn.bracket.entries[-1]
    why = entry.refusal.text if entry.refusal is not None else entry.status_text
    if entry.refusal is not None or entry.state is OrderState.REJECTED:
        head = entry.head
        reason = why if head is None or not head.reject_reason else f"{why}: {head.reject_reason}"
        turn.attend("entry_refused", f"the entry was not taken ({reason})")
    turn.move(BracketEvent.ABANDON, "EntryNotFilled", why)


def _close_flat(turn: Turn) -> None:
    bracket = turn.bracket
    has_surplus = bool(surplus_of(bracket)) or any(order.has_any_fill for order in bracket.surplus_closes)
    turn.set(outcome=_outcome(bracket, turn.now_us, has_surplus=has_surplus), closed_at_us=turn.now_us)
    if surplus_of(bracket):
        turn.attend("double_exit", f"{surplus_text(bracket)}; close it by hand")
    assert turn.bracket.outcome is not None
    turn.move(BracketEvent.FINISH, "BracketClosed", turn.bracket.outcome.value)


def _outcome(bracket: Bracket, now_us: int, *, has_surplus: bool) -> Outcome:
    if has_surplus:
        return Outcome.DOUBLE_EXIT
    if bracket.taken and bracket.filled_of(bracket.entries) != bracket.filled_of(bracket.exits):
        return outcome_of_taken(bracket, now_us)
    filled = [order for order in bracket.exits if order.has_any_fill]
    last = max(filled, key=lambda order: max((fill.filled_at_us or 0 for _, fill in order.fills), default=0))
    match last.role:
        case Role.TARGET:
            return Outcome.TARGET_FILLED
        case Role.STOP:
            return Outcome.STOP_FILLED
        case _:
            return _outcome_of_close(bracket.close)


def _outcome_of_close(close: Close | None) -> Outcome:
    """A close by the ladder stands for the stop that no mode could place."""
    if close is None or close.purpose is ClosePurpose.OPERATOR:
        return Outcome.CLOSED_BY_OPERATOR
    if close.purpose is ClosePurpose.TIME:
        return Outcome.TIME_EXIT
    return Outcome.STOP_FILLED if close.purpose is ClosePurpose.UNPROTECTABLE else Outcome.CLOSED_OUTSIDE


def tend_closed(turn: Turn) -> None:
    """What turns up after the end: an order that was given up is cancelled, a filled entry brings the bracket back."""
    bracket = turn.bracket
    if bracket.outcome is Outcome.RELEASED:
        return
    for order in bracket.orders:
        if not order.is_terminal:
            turn.attend(
                "order_resurfaced", f"an order given up has turned up at the broker ({order.role}): cancelling it"
            )
            request_cancel(turn, order)
    is_open = any(quantity > 0 for quantity in bracket.open_by_leg.values())
    is_surplus = any(quantity < 0 for quantity in bracket.open_by_leg.values())
    if is_open and bracket.outcome is Outcome.ENTRY_NOT_FILLED:
        _reopen(turn)
    elif is_open or (is_surplus and bracket.outcome is not Outcome.DOUBLE_EXIT):
        turn.attend("filled_late", "a fill came after the bracket was closed: its position is not flat, look at it")


def _reopen(turn: Turn) -> None:
    first_fill_us = turn.bracket.first_fill_us
    turn.set(outcome=None, closed_at_us=None, flat_since_us=None, close=None, exits_allowed_us=None)
    # A start does not load closed brackets: an id posted before the reopening is on disk would be posted again by the
    # next run, which could not know. New ones wait for the commit.
    turn.set(staged=())
    turn.set(first_fill_us=turn.now_us if first_fill_us is None else first_fill_us, unprotected_since_us=turn.now_us)
    turn.attend("entry_filled_late", "the entry turned out to be filled after the bracket was closed: protecting it")
    turn.move(BracketEvent.REOPEN, "EntryFilledLate")
