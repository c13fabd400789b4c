"""`watched`: one exit rests at the broker, the other is watched for on quotes and takes its place when it is due.

Where the broker takes one closing order for a position and no group, the second exit cannot rest. With the stop
resting (the default) the target is watched: when it is reached the stop is cancelled, that is confirmed, and the
target goes out at a price the market has shown to give. It has ten seconds; if it is refused, not filled, left behind
by the market, or the quotes go, it is cancelled, confirmed, and the stop is put back. With the target resting the stop
is watched; once reached it is never withdrawn: the target goes and the position is closed at the natural price, up to
the stop's limit if it has one (`finishing`).

The quotes themselves never come here. The engine looks at them (`watching.observe`) and says what it concluded: a level
was reached, quotes can or cannot be used. So a quote costs no decision, and no lone quote makes one.
"""

from decimal import Decimal

from otocod.domain.brackets import Bracket, BracketState, Close, ClosePurpose, Watched, WatchKind
from otocod.domain.events import QuotesJudged, WatchTriggered
from otocod.domain.exits import trigger_net_price
from otocod.domain.hours import is_market_closed, reopens_us
from otocod.domain.orders import Order, OrderState
from otocod.domain.request_types import StopMarket
from otocod.domain.specs import OrderSpec, OrderType, Protection, Role
from otocod.domain.timing import (
    BLIND_ALARM_US,
    BLIND_STOP_US,
    SECOND_US,
    SWAP_PATIENCE_US,
    SWAP_PAUSE_MAX_US,
    SWAP_PAUSE_US,
    backoff_us,
)
from otocod.domain.turn import Turn


def can_stop_rest(bracket: Bracket) -> bool:
    """The broker has no stop-market orders of several legs."""
    request = bracket.request
    return request.stop is not None and not (isinstance(request.stop, StopMarket) and len(request.entry.legs) > 1)


def rest_role(bracket: Bracket) -> Role:
    """In `watched`: which exit rests at the broker."""
    if not can_stop_rest(bracket):
        return Role.TARGET
    if bracket.rest is not None:
        return bracket.rest
    return bracket.request.rest if bracket.request.target is not None else Role.STOP


def watched_role(bracket: Bracket) -> Role | None:
    """The exit that is asked for, does not rest, and is watched; None in the other modes."""
    if bracket.protection is not Protection.WATCHED:
        return None
    if rest_role(bracket) is Role.STOP:
        return Role.TARGET if bracket.request.target is not None else None
    return Role.STOP if bracket.request.stop is not None else None


def is_closing_order(order: Order) -> bool:
    """One sent to end the position now: a close, or a stop whose trigger was seen and which is a plain limit."""
    return order.role is Role.CLOSE or (order.role is Role.STOP and order.spec.order_type is OrderType.LIMIT)


def is_blind(bracket: Bracket) -> bool:
    """A stop is watched for, and has been without usable quotes for too long to count."""
    return watched_role(bracket) is Role.STOP and bracket.blind_since_us is not None


# What is said of the quotes.


def watch_triggered(turn: Turn, event: WatchTriggered) -> None:
    bracket = turn.bracket
    watch = bracket.watch
    is_current = watch is not None and watch.kind is event.kind and watch.level == event.level
    is_open = bracket.state in (BracketState.ENTRY_FILLED, BracketState.EXITS_LIVE)
    if not is_current or not is_open or bracket.is_held or bracket.close is not None:
        return  # said of what is not watched any more
    if is_market_closed(bracket, turn.now_us):
        return
    match event.kind:
        case WatchKind.TARGET_REACHED:
            turn.set(swap_since_us=turn.now_us, moving_since_us=turn.now_us)
            turn.note("TargetReached", f"natural {event.natural}, target {event.level}")
        case WatchKind.TARGET_LOST:
            withdraw(turn, f"the market went away, natural {event.natural}")
        case WatchKind.STOP_REACHED:
            assert watch is not None
            close = Close(ClosePurpose.STOP_REACHED, "watch", None, turn.now_us, has_quote=True, cap=watch.cap)
            turn.set(close=close, entry_cancel_asked=True, watch=None)
            turn.natural = event.natural
            turn.note("StopReached", f"natural {event.natural}, trigger {event.level}")


def quotes_judged(turn: Turn, event: QuotesJudged) -> None:
    turn.set(has_quotes=event.is_usable, has_feed=not event.is_gap)
    turn.set(quote_fault=None if event.is_usable else event.why)


# What follows.


def tend_watch(turn: Turn, specs: dict[Role, OrderSpec]) -> None:
    """Keeps what is to be watched up to date, and ends a swap that has had its time."""
    role = watched_role(turn.bracket)
    if role is None:
        turn.set(watch=None, swap_since_us=None, blind_since_us=None)
        return
    if is_market_closed(turn.bracket, turn.now_us):
        # Nobody trades at what the quotes say now: to act on them would cost the exit that rests, and gain nothing.
        turn.set(watch=None, blind_since_us=None)
        turn.wake(reopens_us(turn.bracket, turn.now_us))
        _mind_swap(turn)
        return
    _mind_quotes(turn, role)
    _mind_swap(turn)
    turn.set(watch=_watch(turn.bracket, specs))


def stop_watching(turn: Turn) -> None:
    turn.set(watch=None, swap_since_us=None, blind_since_us=None)


def _watch(bracket: Bracket, specs: dict[Role, OrderSpec]) -> Watched | None:
    role = watched_role(bracket)
    if role is None or role not in specs or bracket.is_held:
        return None
    if role is Role.STOP:
        stop = specs[Role.STOP]
        return Watched(WatchKind.STOP_REACHED, _trigger(bracket, stop), cap=stop.net_price)
    target = specs[Role.TARGET].net_price
    assert target is not None
    if bracket.is_frozen:
        return None
    if bracket.swap_since_us is None:
        return Watched(WatchKind.TARGET_REACHED, target, not_before_us=bracket.swap_after_us)
    return Watched(WatchKind.TARGET_LOST, target + _slack(specs.get(Role.STOP), target))


def _trigger(bracket: Bracket, stop: OrderSpec) -> Decimal:
    trigger = trigger_net_price(stop)
    assert trigger is not None
    if stop.net_price is None and len(stop.legs) > 1:
        entry = bracket.entry_net_price or bracket.request.entry.net_price
        return abs(trigger) if entry is None or entry < 0 else -abs(trigger)
    return trigger


def _slack(stop: OrderSpec | None, target: Decimal) -> Decimal:
    """How far the market may leave the target before it gives way: the stop's limit offset, else a tenth."""
    trigger = None if stop is None else trigger_net_price(stop)
    if stop is None or stop.net_price is None or trigger is None or stop.net_price == trigger:
        return abs(target) / 10
    return abs(stop.net_price - trigger)


def _mind_quotes(turn: Turn, role: Role) -> None:
    bracket = turn.bracket
    if bracket.has_quotes or (role is Role.TARGET and bracket.has_feed):
        turn.set(blind_since_us=None)  # at night every quote is wide; a target waits for better ones
        return
    since_us = bracket.blind_since_us
    if since_us is None:
        since_us = turn.now_us
        turn.set(blind_since_us=since_us)
    due_us = since_us + (BLIND_STOP_US if role is Role.STOP else BLIND_ALARM_US)
    if turn.now_us < due_us:
        turn.wake(due_us)
        return
    why = bracket.quote_fault or "none have come"
    if role is Role.TARGET:
        turn.attend("unwatched", f"no usable quotes ({why}): the target is not watched, the stop rests")
    elif can_stop_rest(bracket):
        turn.set(rest=Role.STOP, blind_since_us=turn.now_us)
        turn.attend(
            "unwatched", f"no usable quotes to watch the stop by ({why}): the stop rests in place of the target"
        )
    else:
        turn.attend(
            "unwatched", f"no usable quotes ({why}): the stop cannot rest and is not watched, nothing stands for it"
        )


def _mind_swap(turn: Turn) -> None:
    bracket = turn.bracket
    since_us = bracket.swap_since_us
    if since_us is None:
        return
    if not bracket.has_quotes:
        withdraw(turn, "quotes cannot be used")
        return
    sent = [order for order in bracket.orders_of(Role.TARGET) if order.intended_at_us >= since_us]
    if not sent:
        return  # the stop is on its way out
    last = sent[-1]
    if last.is_terminal and last.state is not OrderState.FILLED:
        withdraw(turn, last.refusal.text if last.refusal is not None else last.status_text)
    elif last.acknowledged_at_us is not None:
        due_us = last.acknowledged_at_us + SWAP_PATIENCE_US
        if turn.now_us < due_us:
            turn.wake(due_us)
        else:
            withdraw(turn, f"not filled within {SWAP_PATIENCE_US // SECOND_US} s")


def withdraw(turn: Turn, why: str) -> None:
    """The stop back. The next try waits, longer each time: every swap leaves the position without its stop."""
    swaps = turn.bracket.swaps + 1
    again_us = turn.now_us + backoff_us(swaps, SWAP_PAUSE_US, SWAP_PAUSE_MAX_US)
    turn.set(swap_since_us=None, swaps=swaps, swap_after_us=again_us, moving_since_us=turn.now_us)
    turn.note("TargetWithdrawn", why)
