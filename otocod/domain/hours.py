"""The market's hours, as far as a bracket minds them: exits over a closed market, the look after each night, and the
last day on which all its legs trade.

The hours come from outside (`engine.timedesk`): the session that runs, else the next one, told again at each close.
Until they are known, and once they have not been told anew for long, the market counts as open.
"""

from otocod.domain.brackets import Bracket
from otocod.domain.commands import ReadOrder
from otocod.domain.events import HoursResolved
from otocod.domain.orders import BrokerStatus, Order
from otocod.domain.specs import Role
from otocod.domain.timing import (
    BEFORE_OPEN_US,
    HELD_AFTER_OPEN_US,
    HOURS_TOLD_LATE_US,
    LAST_HOUR_US,
    NIGHT_CHECK_AFTER_US,
    SECOND_US,
)
from otocod.domain.turn import Turn


def hours_resolved(turn: Turn, event: HoursResolved) -> None:
    turn.set(hours=(event.opens_at_us, event.closes_at_us), last_day=event.last_day)
    if turn.bracket.retry_exits_at_us is not None:
        # What waits may wait for an open that has been, by hours that were wrong or by a clock that was.
        limit_us = turn.bracket.policy.unprotected_limit_us
        turn.set(retry_exits_at_us=min(turn.bracket.retry_exits_at_us, _retry_at_us(turn, limit_us)))


def _retry_at_us(turn: Turn, pause_us: int) -> int:
    is_closed = is_market_closed(turn.bracket, turn.now_us)
    return retry_before_open_us(turn.bracket, turn.now_us, pause_us) if is_closed else turn.now_us + pause_us


def is_market_closed(bracket: Bracket, now_us: int) -> bool:
    if bracket.hours is None:
        return False
    opens_us, closes_us = bracket.hours
    return now_us < opens_us or closes_us <= now_us < closes_us + HOURS_TOLD_LATE_US


def reopens_us(bracket: Bracket, now_us: int) -> int:
    """When a market that is closed counts as open again, as far as can be told now."""
    assert bracket.hours is not None
    opens_us, closes_us = bracket.hours
    return opens_us if now_us < opens_us else closes_us + HOURS_TOLD_LATE_US


def retry_before_open_us(bracket: Bracket, now_us: int, pause_us: int) -> int:
    """When an exit refused with the market closed goes again: a minute before the open, then each pause."""
    if bracket.hours is None or now_us >= bracket.hours[0]:
        return now_us + pause_us
    return max(bracket.hours[0] - BEFORE_OPEN_US, now_us + pause_us)


def is_held_too_long(bracket: Bracket, order: Order, now_us: int) -> bool:
    """Held for the session, which has long begun: it waits for something else, and protects nothing."""
    if bracket.hours is None or order.acknowledged_at_us is None:
        return False
    opens_us, closes_us = bracket.hours
    return order.acknowledged_at_us < opens_us and opens_us + HELD_AFTER_OPEN_US <= now_us < closes_us


def mind_hours(turn: Turn) -> None:
    bracket = turn.bracket
    if bracket.exits_allowed_us is None or bracket.flat_since_us is not None:
        return
    _mind_last_day(turn)
    _mind_night(turn)


def _mind_last_day(turn: Turn) -> None:
    """Closing then is a time exit and has to be asked for; that it is the last day is said all the same."""
    if turn.bracket.last_day is None:
        return
    opens_us, closes_us = turn.bracket.last_day
    moments = (opens_us, max(opens_us, closes_us - LAST_HOUR_US))
    due = sum(turn.now_us >= moment for moment in moments)
    if due < len(moments):
        turn.wake(moments[due])
    if due <= turn.bracket.last_day_told or turn.now_us >= closes_us:
        return
    turn.set(last_day_told=due)
    minute = closes_us // (60 * SECOND_US) % (24 * 60)
    when = "the last day on which all legs trade" if due == 1 else "less than an hour to trade"
    turn.attend(
        "last_trading_day",
        f"{when}: trading stops at {minute // 60:02d}:{minute % 60:02d} UTC, then what is open expires, is exercised or"
        " assigned; `close` ends it before",
    )


def _mind_night(turn: Turn) -> None:
    """A broker may drop orders overnight and its stream may not say so: each exit is read once after the open."""
    bracket = turn.bracket
    if bracket.hours is None:
        return
    opens_us, closes_us = bracket.hours
    if bracket.night_checked_us is None and turn.now_us >= opens_us:
        turn.set(night_checked_us=opens_us)  # its exits are of this session
        return
    live = [
        order
        for order in bracket.orders_of(Role.TARGET, Role.STOP)
        if not order.is_terminal and order.broker_order_id is not None
    ]
    if (bracket.night_checked_us or 0) >= opens_us:
        _name_held(turn, live)
        return
    if turn.now_us < opens_us + NIGHT_CHECK_AFTER_US:
        turn.wake(opens_us + NIGHT_CHECK_AFTER_US)
        return
    turn.set(night_checked_us=opens_us)
    if turn.now_us >= closes_us:
        return
    turn.note("NightChecked", f"{len(live)} exits are read after the open")
    turn.wake(max(opens_us + HELD_AFTER_OPEN_US, turn.now_us))
    for order in live:
        assert order.broker_order_id is not None
        turn.ask(ReadOrder(order.external_identifier, order.broker_order_id))


def _name_held(turn: Turn, live: list[Order]) -> None:
    for order in live:
        head = order.head
        if head is None or head.status is not BrokerStatus.RECEIVED:
            continue
        if is_held_too_long(turn.bracket, order, turn.now_us):
            turn.attend(
                "exit_held",
                f"the {order.role} is still {head.status_text} although the market is open: look at it at the broker",
            )
