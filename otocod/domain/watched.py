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
from otocod.domain.moving import Course, caught_up, closing_limits, first_price, is_failed_move, step
from otocod.domain.orders import Order, OrderState
from otocod.domain.prices import grid_for
from otocod.domain.request_types import BracketRequest, StopMarket
from otocod.domain.specs import OrderSpec, OrderType, Protection, Role
from otocod.domain.spreads import closing_legs
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
from otocod.domain.walking import GiveUp, WalkState


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
    watch = bracket.passed if event.kind is WatchKind.STOP_PASSED else bracket.watch
    is_current = watch is not None and watch.kind is event.kind and watch.level == event.level
    is_open = bracket.state in (BracketState.ENTRY_FILLED, BracketState.EXITS_LIVE)
    is_only_told = event.kind is WatchKind.STOP_PASSED
    if not is_current or not is_open or (bracket.is_held and not is_only_told) or bracket.close is not None:
        return  # said of what is not watched any more
    if is_market_closed(bracket, turn.now_us):
        return
    turn.hear_quote(event.natural, event.far, event.mark)
    match event.kind:
        case WatchKind.TARGET_REACHED:
            turn.set(
                swap_since_us=turn.now_us, moving_since_us=turn.now_us, target_walk=_target_begun(turn, event.level)
            )
            turn.note("TargetReached", f"natural {event.natural}, target {event.level}")
        case WatchKind.TARGET_LOST:
            withdraw(turn, f"the market went away, natural {event.natural}")
        case WatchKind.STOP_REACHED:
            assert watch is not None
            rule = bracket.request.walk_of(Role.STOP)
            # Without a limit the stop of several legs is capped only where its walk says so.
            resting = watch.cap if watch.cap is not None or rule is None or rule.cap_offset is None else event.level
            cap = watch.cap if rule is None else rule.cap_from(resting)
            close = Close(ClosePurpose.STOP_REACHED, "watch", None, turn.now_us, has_quote=True, cap=cap)
            turn.set(close=close, entry_cancel_asked=True, watch=None)
            turn.note("StopReached", f"natural {event.natural}, trigger {event.level}")
        case WatchKind.STOP_PASSED:
            assert watch is not None
            _stop_passed(turn, watch, event.natural)


def _target_begun(turn: Turn, target: Decimal) -> WalkState | None:
    """Where the walk of a target begins that is reached now; None where none was asked for."""
    course = _target_course(turn.bracket, target)
    return None if course is None else first_price(turn, course, WalkState())[0]


def _target_course(bracket: Bracket, target: Decimal) -> Course | None:
    rule = bracket.request.walk_of(Role.TARGET)
    return None if rule is None else Course(rule.walk, closing_limits(bracket.request, rule.cap_from(target)))


def _stop_passed(turn: Turn, watch: Watched, natural: Decimal) -> None:
    """The stop was triggered or never will be at its limit: the market is past it, and it has not filled."""
    limit = watch.cap
    assert limit is not None
    turn.set(jumped=watch.level, passed=None)
    rule = None if turn.bracket.is_held else turn.bracket.request.walk_of(Role.STOP)
    end = "it fills only if the price comes back; `close B` closes the position at the market"
    if rule is not None:
        end = "it is taken away, and the position closed by its walk"
    turn.attend("stop_jumped", f"the market is past the stop's limit of {abs(limit)} and it has not filled: {end}")
    turn.note("StopJumped", f"natural {natural}, limit {limit}")
    if rule is not None:
        cap = rule.cap_from(limit)
        close = Close(ClosePurpose.STOP_REACHED, "walk", None, turn.now_us, has_quote=True, cap=cap, floor=limit)
        turn.set(close=close, watch=None)


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
        _mind_swap(turn, specs)
        return
    _mind_quotes(turn, role)
    _mind_swap(turn, specs)
    turn.set(watch=_watch(turn.bracket, specs))


def stop_watching(turn: Turn) -> None:
    turn.set(watch=None, swap_since_us=None, blind_since_us=None, passed=None)


def mind_jump(turn: Turn) -> None:
    """A stop limit that rests: whether the market is past its limit is watched for, in every mode."""
    bracket = turn.bracket
    stops = [order for order in bracket.orders_of(Role.STOP) if _is_resting_stop_limit(order)]
    if bracket.close is not None or not stops:
        turn.set(passed=None)
        return
    limit = stops[-1].spec.net_price
    assert limit is not None
    level = limit + grid_for(bracket.request.entry.legs).smallest
    turn.set(passed=None if bracket.jumped == level else Watched(WatchKind.STOP_PASSED, level, cap=limit))


def _is_resting_stop_limit(order: Order) -> bool:
    return not order.is_terminal and order.is_known_at_broker and order.spec.order_type is OrderType.STOP_LIMIT


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
    lost = target + _slack(specs.get(Role.STOP), target)
    course = None if bracket.target_walk is None else _target_course(bracket, target)
    if course is not None and course.limits.cap is not None:
        lost = max(lost, course.limits.cap)
    return Watched(WatchKind.TARGET_LOST, lost)


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


def swap_patience_us(request: BracketRequest) -> int:
    """How long a target may work in the stop's place."""
    rule = request.walk_of(Role.TARGET)
    walked_us = 0 if rule is None else rule.walk.interval_us * rule.walk.max_replaces
    return SWAP_PATIENCE_US + walked_us


def _mind_swap(turn: Turn, specs: dict[Role, OrderSpec]) -> None:
    bracket = turn.bracket
    since_us = bracket.swap_since_us
    if since_us is None:
        return
    if not bracket.has_quotes:
        withdraw(turn, "quotes cannot be used")
        return
    sent = [
        order
        for order in bracket.orders_of(Role.TARGET)
        if order.intended_at_us >= since_us and not is_failed_move(order)
    ]
    if not sent:
        return  # the stop is on its way out
    last = sent[-1]
    if last.is_terminal and last.state is not OrderState.FILLED:
        withdraw(turn, last.refusal.text if last.refusal is not None else last.status_text)
    elif sent[0].acknowledged_at_us is not None:
        patience_us = swap_patience_us(bracket.request)
        due_us = sent[0].acknowledged_at_us + patience_us
        if turn.now_us < due_us:
            turn.wake(due_us)
            _walk_target(turn, specs[Role.TARGET], last)
        else:
            withdraw(turn, f"not filled within {patience_us // SECOND_US} s")


def _walk_target(turn: Turn, target: OrderSpec, order: Order) -> None:
    """Only the price that is wanted changes here; `_amend` moves the order to it."""
    assert target.net_price is not None
    walked, course = turn.bracket.target_walk, _target_course(turn.bracket, target.net_price)
    if walked is None or course is None:
        return
    legs = closing_legs(turn.bracket.request.entry.legs, 1)
    walked, move = step(turn, course, caught_up(turn, walked, order), legs)
    turn.set(target_walk=walked)
    if isinstance(move, GiveUp):
        withdraw(turn, "its walk has ended and it has not filled")


def withdraw(turn: Turn, why: str) -> None:
    """The stop back. The next try waits, longer each time: every swap leaves the position without its stop."""
    swaps = turn.bracket.swaps + 1
    again_us = turn.now_us + backoff_us(swaps, SWAP_PAUSE_US, SWAP_PAUSE_MAX_US)
    turn.set(swap_since_us=None, swaps=swaps, swap_after_us=again_us, moving_since_us=turn.now_us, target_walk=None)
    turn.note("TargetWithdrawn", why)
