"""Protection: which exits are wanted, which are missing, and what their ends mean. Level-triggered: each turn compares
what rests at the broker with what should, and asks for the difference, so a lost message costs time and never sense.

Order of moves: the stop is the first protection placed and the last removed. Nothing replaces or closes an order that
may still live; only a terminal status read from the broker is proof.
"""

from dataclasses import replace
from decimal import Decimal

from otocod.domain.acceptance import has_absolute_exits, send_group
from otocod.domain.brackets import Bracket, BracketState, Close, ClosePurpose, OnUnprotectable
from otocod.domain.commands import Member, ReadComplex, ReadOrder, SubmitComplex, SubmitOrder
from otocod.domain.entering import request_cancel
from otocod.domain.exits import exit_specs
from otocod.domain.hours import is_held_too_long, is_market_closed, retry_before_open_us
from otocod.domain.machine import BracketEvent
from otocod.domain.moving import is_failed_move, is_move_under_way, replace_order
from otocod.domain.moving_stop import followed
from otocod.domain.orders import BrokerStatus, Order, OrderState, Refusal, View
from otocod.domain.outside import changed_outside
from otocod.domain.records import changed
from otocod.domain.specs import OrderSpec, Protection, Role
from otocod.domain.spreads import matched_units, scaled_legs
from otocod.domain.timing import (
    FILLS_GIVEN_UP_AFTER_US,
    FORCE_PROVED_US,
    LIMITS_BEFORE_CLOSE,
    NATIVE_SIBLING_US,
    POSITION_DOUBTS_BEFORE_LADDER,
    POSITION_LAG_US,
    REARM_PAUSE_US,
    REARMS_BEFORE_LADDER,
    RECEIVED_IS_HELD_US,
    SECOND_US,
    VERIFY_RETRY_US,
)
from otocod.domain.turn import Turn
from otocod.domain.watched import (
    can_stop_rest,
    is_blind,
    is_closing_order,
    rest_role,
    swap_patience_us,
    tend_watch,
    watched_role,
)

_NATIVE = (Protection.NATIVE_OTOCO, Protection.NATIVE_OCO)


def wanted_roles(bracket: Bracket) -> tuple[Role, ...]:
    """The exits that are to rest at the broker, the stop first."""
    asked = tuple(
        role
        for role, rule in ((Role.STOP, bracket.request.stop), (Role.TARGET, bracket.request.target))
        if rule is not None
    )
    if bracket.protection is not Protection.WATCHED:
        return asked
    resting = Role.TARGET if bracket.swap_since_us is not None else rest_role(bracket)
    return tuple(role for role in asked if role is resting)


def protect(turn: Turn) -> None:
    settle_ended_exits(turn)
    if turn.bracket.state is BracketState.CLOSED:
        return  # released by what its request says of a person's change
    if turn.bracket.taken:
        _cancel_oversized(turn)
    if turn.bracket.is_held or turn.bracket.close is not None:
        return
    if turn.bracket.protection in _NATIVE:
        _protect_by_group(turn)
    else:
        _protect_by_orders(turn)


def _cancel_oversized(turn: Turn) -> None:
    """An exit for more than others have left could open a position. What is still wanted is sent again, smaller."""
    for order in _live(turn.bracket, Role.TARGET, Role.STOP):
        if units_left(turn.bracket, order) > turn.bracket.open_units:
            request_cancel(turn, order)


def _live(bracket: Bracket, *roles: Role) -> tuple[Order, ...]:
    return tuple(order for order in bracket.orders_of(*roles) if not order.is_terminal)


def units_left(bracket: Bracket, order: Order) -> int:
    """Units of the spread that an exit can still close."""
    left = {leg.symbol: order.left(leg.symbol) for leg in order.spec.legs}
    return matched_units(bracket.request.entry.legs, left)


def _wanted_specs(turn: Turn, units: int) -> dict[Role, OrderSpec] | None:
    """The exits for `units`; None while the entry's price is still worth waiting for."""
    bracket = turn.bracket
    entry_net_price = bracket.entry_net_price
    if has_absolute_exits(bracket.request) and entry_net_price is None:
        entry_net_price = bracket.request.entry.net_price
    if entry_net_price is None:
        entry_net_price = _price_without_fills(turn)
    if entry_net_price is None:
        return None
    specs = exit_specs(bracket.request, entry_net_price=entry_net_price, units=units)
    found = {Role.STOP: specs.stop, Role.TARGET: specs.target}
    moved = dict(bracket.moved)
    legs_of = bracket.request.entry.legs
    wanted: dict[Role, OrderSpec] = {}
    for role in (Role.STOP, Role.TARGET):
        spec = found[role]
        if spec is None:
            continue
        if role in moved:
            spec = replace(moved[role], legs=scaled_legs(moved[role].legs, units))
        if role is Role.STOP:
            spec = followed(turn, spec)
        assert len(spec.legs) == len(legs_of)
        wanted[role] = spec
    return wanted


def _walked(bracket: Bracket, role: Role, spec: OrderSpec) -> OrderSpec:
    """At the price to which its walk has come, if it walks; the one it would rest at is not what is wanted then."""
    if role is not Role.TARGET or bracket.swap_since_us is None or bracket.target_walk is None:
        return spec
    return changed(spec, {"net_price": bracket.target_walk.price})


def _price_without_fills(turn: Turn) -> Decimal | None:
    """`complete_fills` asks for what is missing; exits wait for it a moment, then go by the entry's limit."""
    bracket = turn.bracket
    asked_us = turn.now_us if bracket.fills_asked_us is None else bracket.fills_asked_us
    if turn.now_us < asked_us + FILLS_GIVEN_UP_AFTER_US:
        turn.wake(asked_us + FILLS_GIVEN_UP_AFTER_US)
        return None
    if bracket.request.entry.net_price is None:
        turn.attend("fills_missing", "the entry's fill prices are not known and it had no limit: exits wait for them")
    elif not bracket.exits:
        turn.note("FillsMissing", "exits go by the entry's limit price until its fills are known")
    return bracket.request.entry.net_price


# Groups.


def _protect_by_group(turn: Turn) -> None:
    bracket = turn.bracket
    exits = bracket.orders_of(Role.TARGET, Role.STOP)
    live = [order for order in exits if not order.is_terminal]
    if any(order.state is OrderState.UNKNOWN for order in bracket.exits) or bracket.suspects:
        return
    if bracket.protection is Protection.NATIVE_OTOCO and _is_entry_partial(bracket):
        # Children act on the trigger's full fill only: this group will never protect anything.
        _leave_group(turn, live, "the entry ended part-filled, so its OTOCO's exits never act")
        return
    if any(order.group is None for order in live):
        # Adopted after a crash that lost the step down: no group would be taken beside it.
        while turn.bracket.protection in _NATIVE and len(turn.bracket.ladder) > 1:
            _take_next_mode(turn, "an exit of a lower mode works already")
        _protect_by_orders(turn)
        return
    group = exits[-1].group if exits else None
    members = [order for order in exits if order.group == group and _is_current(bracket, order)]
    if any(order.ended_at_us is not None and not order.is_settled for order in members):
        return  # its mate is being read
    strays = [order for order in live if order.group != group]
    if strays and not any(order.is_terminal for order in members):
        # Given up and sent again on other ids, and now it turns up: the newest group stays, what came late goes.
        turn.attend("order_resurfaced", "exits that were given up have turned up at the broker: cancelling them")
        for order in strays:
            request_cancel(turn, order)
        live = [order for order in live if order.group == group]
    if live and any(order.is_terminal for order in members):
        if any(order.state is OrderState.FILLED for order in members):
            return  # the broker cancels the sibling; `finish` asks if it does not
        _leave_group(turn, live, "one exit of the native group ended without a fill")
    elif live:
        _amend(turn, live)
        _verify(turn, live)
    elif bracket.protection is Protection.NATIVE_OTOCO:
        _take_next_mode(turn, "the OTOCO's exits have ended")
        protect(turn)
    else:
        _send_oco(turn)


def _is_current(bracket: Bracket, order: Order) -> bool:
    """Not moved away from, and not a move that came to nothing."""
    return not is_failed_move(order) and _successor(bracket, order) is None


def _is_entry_partial(bracket: Bracket) -> bool:
    return bracket.entry_units < bracket.size


def _successor(bracket: Bracket, order: Order) -> Order | None:
    for other in bracket.orders:
        if other.replaces == order.external_identifier and other.state not in (OrderState.REJECTED, OrderState.ABSENT):
            return other
    return None


def _leave_group(turn: Turn, live: list[Order], why: str) -> None:
    """Cancel the container, confirm; the next turn that finds it terminal protects by the mode that follows."""
    if live:
        if all(order.cancel_asked_us is None for order in live):
            turn.note("GroupLeft", why)
        for order in live:
            request_cancel(turn, order)
        return
    if turn.bracket.protection is Protection.NATIVE_OTOCO:
        _take_next_mode(turn, why)
        protect(turn)


def _send_oco(turn: Turn) -> None:
    if _waits_to_retry(turn):
        return
    units = turn.bracket.open_units
    specs = _wanted_specs(turn, units) if units > 0 else None
    if specs is None:
        return
    if len(specs) < 2:
        raise AssertionError("a native group needs both exits; ladder_for leaves it out otherwise")
    members, must_commit = send_group(turn, ((Role.TARGET, specs[Role.TARGET]), (Role.STOP, specs[Role.STOP])))
    turn.ask(SubmitComplex(members, after_commit=must_commit))


def _verify(turn: Turn, live: list[Order]) -> None:
    """`Contingent` says nothing by itself: armed members and waiting ones look the same. The container tells."""
    complex_order_id = live[0].complex_order_id
    if complex_order_id is None or not any(order.state is OrderState.CONTINGENT for order in live):
        return
    at_us = turn.bracket.verify_at_us
    if at_us is None and turn.bracket.verified_group == live[0].group:
        return
    if at_us is not None and turn.now_us < at_us:
        turn.wake(at_us)
        return
    turn.set(verify_at_us=turn.now_us + VERIFY_RETRY_US)
    turn.wake(turn.now_us + VERIFY_RETRY_US)
    turn.ask(ReadComplex(complex_order_id))


# Single orders.


def _protect_by_orders(turn: Turn) -> None:
    bracket = turn.bracket
    open_units = bracket.open_units
    if open_units <= 0 or _waits_to_retry(turn):
        return
    specs = _wanted_specs(turn, open_units)
    if specs is None:
        return
    tend_watch(turn, specs)
    wanted = wanted_roles(turn.bracket)
    live = _live(turn.bracket, Role.TARGET, Role.STOP)
    broken = [order for order in live if order.state is OrderState.CONTINGENT and _has_lost_mate(turn.bracket, order)]
    if broken:
        _leave_group(turn, broken, "the other exit of its group has ended, so nothing shows that this one is armed")
        return
    leftovers = [order for order in live if order.role not in wanted or is_closing_order(order)]
    if leftovers:
        # They reserve the position, so the exit that is wanted would be refused: first away, confirmed, then it goes.
        for order in leftovers:
            request_cancel(turn, order)
        return
    for role in wanted:
        _fit(turn, role, _walked(turn.bracket, role, specs[role]), open_units)


def _has_lost_mate(bracket: Bracket, order: Order) -> bool:
    return order.group is not None and any(
        mate.group == order.group
        and mate.role not in (Role.ENTRY, order.role)
        and mate.is_terminal
        and _is_current(bracket, mate)
        for mate in bracket.orders
    )


def _waits_to_retry(turn: Turn) -> bool:
    retry_at_us = turn.bracket.retry_exits_at_us
    if retry_at_us is None:
        return False
    if turn.now_us < retry_at_us:
        turn.wake(retry_at_us)
        return True
    turn.set(retry_exits_at_us=None)
    return False


def _fit(turn: Turn, role: Role, spec: OrderSpec, open_units: int) -> None:
    """Makes the working orders of a role cover the open quantity: no more and no less."""
    live = [order for order in _live(turn.bracket, role) if not is_move_under_way(turn.bracket, order)]
    covered = sum(units_left(turn.bracket, order) for order in live)
    if covered > open_units:
        _shrink(turn, live, covered - open_units)
        return
    if covered == open_units:
        _amend(turn, live)
        return
    if any(order.state is OrderState.UNKNOWN for order in live) or turn.bracket.suspects:
        return  # it may be working: only its absence, or its turning up, lets the next one go
    missing = changed(spec, {"legs": scaled_legs(spec.legs, open_units - covered)})
    after_absence = any(
        order.state is OrderState.ABSENT and not order.is_settled for order in turn.bracket.orders_of(role)
    )
    for order in turn.bracket.orders_of(role):
        if order.state is OrderState.ABSENT and not order.is_settled:
            turn.put(order, is_settled=True)
    order, must_commit = turn.intend(role, missing)
    turn.ask(SubmitOrder(Member(order.external_identifier, role, missing), after_commit=must_commit or after_absence))


def _shrink(turn: Turn, live: list[Order], surplus: int) -> None:
    """More rests than is open: an exit of the other role filled in part, or an order we had given up turned up."""
    if turn.bracket.moving_since_us is None:
        turn.set(moving_since_us=turn.now_us)
    for order in sorted(live, key=lambda order: (order.absent_listings == 0, -order.intended_at_us)):
        if surplus <= 0:
            return
        surplus -= units_left(turn.bracket, order)
        request_cancel(turn, order)


def _amend(turn: Turn, live: list[Order] | tuple[Order, ...]) -> None:
    """Moves working exits to the prices that hold now: an operator's change, or fills that came after the exits."""
    if turn.bracket.open_units <= 0:
        return
    specs = _wanted_specs(turn, turn.bracket.open_units)
    if specs is None:
        return
    if any(is_move_under_way(turn.bracket, order) for order in turn.bracket.exits):
        return  # one at a time: two halves of a group on the move at once look like a second closing order
    moved = {role for role, _ in turn.bracket.moved}
    for order in sorted(live, key=lambda order: order.role is not Role.STOP):
        spec = specs.get(order.role)
        is_movable = order.group is None or order.role in moved
        if spec is None or not is_movable or order.state is not OrderState.WORKING or order.broker_order_id is None:
            continue
        spec = _walked(turn.bracket, order.role, spec)
        if (order.spec.net_price, order.spec.stop_trigger) == (spec.net_price, spec.stop_trigger):
            continue
        if _was_tried(turn.bracket, order, spec):
            continue
        # A group's other member may have filled in part, of which the broker takes this one down, or does not.
        units = min(units_left(turn.bracket, order), turn.bracket.open_units)
        replace_order(turn, order, spec, units)
        return


def _was_tried(bracket: Bracket, order: Order, spec: OrderSpec) -> bool:
    return any(
        other.replaces == order.external_identifier
        and (other.spec.net_price, other.spec.stop_trigger) == (spec.net_price, spec.stop_trigger)
        for other in bracket.orders
    )


# Ends of exits, each taken into account once.


def settle_ended_exits(turn: Turn) -> None:
    for order in turn.bracket.orders_of(Role.TARGET, Role.STOP):
        if not order.is_terminal or order.is_settled or order.state is OrderState.ABSENT:
            continue
        if turn.bracket.state is BracketState.CLOSED:
            return  # released by the end of the exit before this one
        if is_closing_order(order) or _waits_for_mate(turn, order):
            continue
        current = turn.put(order, is_settled=True)
        if current.state is OrderState.FILLED or _successor(turn.bracket, current) is not None:
            continue
        if current.state is OrderState.REJECTED and current.refusal is not None:
            _exit_refused(turn, current)
        elif _is_watched_target(turn.bracket, current) and _person_behind(current) is None:
            continue  # it was sent in the stop's place, which is put back
        elif current.state is OrderState.EXPIRED or current.cancel_asked_us is not None:
            continue  # a Day exit is sent again at once; one we took away is sent again if it is still wanted
        elif _is_with_filled_mate(turn.bracket, current):
            continue
        elif _person_behind(current) is not None:
            text = f"the {current.role} was cancelled by a person at the broker (order {current.broker_order_id})"
            changed_outside(turn, text)
        else:
            _ended_by_broker(turn, current)


def _waits_for_mate(turn: Turn, order: Order) -> bool:
    """A group's member that ends unasked is most often the sibling of a fill that has not been heard of: the mate is
    read before anything is made of it.
    """
    mates = [m for m in _live(turn.bracket, Role.TARGET, Role.STOP) if m.group == order.group and m.broker_order_id]
    if order.group is None or not mates or order.refusal is not None or order.cancel_asked_us is not None:
        return False
    if _successor(turn.bracket, order) is not None or _is_with_filled_mate(turn.bracket, order):
        return False
    if order.ended_at_us is None:
        turn.put(order, ended_at_us=turn.now_us)
        for mate in mates:
            assert mate.broker_order_id is not None
            turn.ask(ReadOrder(mate.external_identifier, mate.broker_order_id))
        turn.wake(turn.now_us + NATIVE_SIBLING_US)
        return True
    turn.wake(order.ended_at_us + NATIVE_SIBLING_US)
    return turn.now_us < order.ended_at_us + NATIVE_SIBLING_US


def _is_with_filled_mate(bracket: Bracket, order: Order) -> bool:
    """The broker ended it because the other one fills, of which a part may be all that is known yet."""
    return order.group is not None and any(
        mate.group == order.group and mate.role not in (Role.ENTRY, order.role) and mate.has_any_fill
        for mate in bracket.orders
    )


def _person_behind(order: Order) -> str | None:
    """Who ended it, if the order itself says that a person did. In doubt it was the broker."""
    head = order.head
    return None if head is None or head.status is not BrokerStatus.CANCELLED else head.cancelled_by


def _ended_by_broker(turn: Turn, order: Order) -> None:
    mates = [m for m in turn.bracket.orders if m.group is not None and m.group == order.group]
    if any(mate.is_settled and mate.role is not order.role and mate.role is not Role.ENTRY for mate in mates):
        return  # the same end of one group, counted once
    head = order.head
    reason = f" ({head.reject_reason})" if head is not None and head.reject_reason else ""
    rearms = turn.bracket.rearms + 1
    turn.set(rearms=rearms)
    turn.attend("exit_ended", f"the broker ended the {order.role} as {order.status_text}{reason}: sent again")
    if rearms <= REARMS_BEFORE_LADDER:
        if rearms > 1:
            # It has just done the same: not as fast as it can say so.
            turn.set(retry_exits_at_us=turn.now_us + REARM_PAUSE_US)
    elif len(turn.bracket.ladder) > 1:
        _take_next_mode(turn, f"the broker ended its exits {rearms} times")
    else:
        _count_refusal(turn, f"ended by the broker {rearms} times")


def _exit_refused(turn: Turn, order: Order) -> None:
    refusal = order.refusal
    why = refusal.text if refusal is not None else "refused"
    if _is_watched_target(turn.bracket, order):
        return  # the stop is put back
    if order.replaces is not None:
        turn.set(moved=tuple(pair for pair in turn.bracket.moved if pair[0] is not order.role))
        turn.attend("move_refused", f"the broker refused to move the {order.role} ({why}): it stays where it was")
        return
    mates = [m for m in turn.bracket.orders if m.group is not None and m.group == order.group and m is not order]
    if any(mate.is_settled and mate.role is not Role.ENTRY for mate in mates if mate.role is not order.role):
        return
    if any(mate.role is Role.ENTRY for mate in mates):
        return  # refused with its entry, which has gone again alone
    if _is_position_late(turn, refusal):
        return
    if turn.bracket.protection in _NATIVE or (
        turn.bracket.protection is Protection.UNLINKED and _has_sibling(turn, order)
    ):
        _take_next_mode(turn, f"{order.role}: {why}")
        return
    _count_refusal(turn, f"{order.role}: {why}")


def _is_position_late(turn: Turn, refusal: Refusal | None) -> bool:
    """The broker does not see the position yet: said of the moment, not of the mode, which is tried again."""
    doubts = turn.bracket.position_doubts
    if refusal is None or refusal.reasons != {"closing_with_no_position"}:
        return False
    if doubts >= POSITION_DOUBTS_BEFORE_LADDER:
        return False
    turn.set(position_doubts=doubts + 1, retry_exits_at_us=turn.now_us + POSITION_LAG_US)
    turn.wake(turn.now_us + POSITION_LAG_US)
    return True


def _is_watched_target(bracket: Bracket, order: Order) -> bool:
    return order.role is Role.TARGET and watched_role(bracket) is Role.TARGET


def _has_sibling(turn: Turn, order: Order) -> bool:
    return len(wanted_roles(turn.bracket)) > 1 or any(
        o.role is not order.role for o in _live(turn.bracket, Role.STOP, Role.TARGET)
    )


def _take_next_mode(turn: Turn, why: str) -> None:
    bracket = turn.bracket
    if len(bracket.ladder) < 2:
        return
    turn.set(ladder=bracket.ladder[1:], rearms=0)
    turn.note("ProtectionRefused", f"{bracket.protection}: {why}")
    if turn.bracket.protection is Protection.WATCHED:
        watched = watched_role(turn.bracket)
        if bracket.request.target is not None and watched is not None:
            rests = rest_role(turn.bracket)
            text = f"{bracket.protection} was refused ({why}): the {rests} rests alone, the {watched} is watched for"
            turn.attend("exit_alone", text)


def _count_refusal(turn: Turn, why: str) -> None:
    """The last mode's exit was refused. The rung repeats, one limit apart; then there is nothing left but to close.

    A closed market is no refusal: nothing can be closed there either, so it goes again before the open.
    """
    if is_market_closed(turn.bracket, turn.now_us):
        limit_us = turn.bracket.policy.unprotected_limit_us
        turn.set(retry_exits_at_us=retry_before_open_us(turn.bracket, turn.now_us, limit_us))
        turn.attend("unprotected", f"no exit is accepted with the market closed ({why}): sent again before the open")
        return
    if _watch_instead(turn, why):
        return
    refusals = turn.bracket.stop_refusals + 1
    limit_us = turn.bracket.policy.unprotected_limit_us
    turn.set(stop_refusals=refusals, retry_exits_at_us=turn.now_us + limit_us)
    turn.attend("unprotected", f"no exit is accepted ({why}): the position is unprotected, trying again")
    if refusals <= LIMITS_BEFORE_CLOSE:
        return
    if turn.bracket.policy.on_unprotectable is OnUnprotectable.CLOSE and turn.bracket.close is None:
        turn.attend("unprotectable", "no exit was accepted after all tries: closing the position at the natural price")
        close = Close(ClosePurpose.UNPROTECTABLE, "ladder", None, turn.now_us)
        turn.set(close=close, retry_exits_at_us=None)  # the pause was for the exits


def _watch_instead(turn: Turn, why: str) -> bool:
    """A resting exit that is not taken changes places with the one that is watched for; once."""
    bracket = turn.bracket
    if bracket.protection is not Protection.WATCHED or bracket.has_changed_places:
        return False
    if rest_role(bracket) is Role.STOP:
        if bracket.request.stop is None or bracket.request.target is None or not bracket.has_quotes:
            return False  # a stop alone is tried again: in its place nothing would rest
        turn.set(rest=Role.TARGET, has_changed_places=True)
        turn.attend(
            "stop_watched", f"the stop is not taken ({why}): it is watched for, and the position closed when it is met"
        )
        return True
    if not can_stop_rest(bracket):
        return False
    turn.set(rest=Role.STOP, has_changed_places=True)
    turn.attend("exit_alone", f"the target is not taken ({why}): the stop rests, the target is watched for")
    return True


# Whether the protection is in force.


def judge(turn: Turn) -> None:
    bracket = turn.bracket
    if bracket.flat_since_us is not None:
        return
    if bracket.state is BracketState.CLOSING:
        _alarm_if_late(turn)
    if bracket.state not in (BracketState.ENTRY_FILLED, BracketState.EXITS_LIVE):
        return
    if is_in_force(turn):
        stop_unprotected_clock(turn)
        turn.set(moving_since_us=None, position_doubts=0)
        _forget_refusals(turn)
        if bracket.state is BracketState.ENTRY_FILLED:
            turn.move(BracketEvent.PROTECT, "ProtectionConfirmed", str(bracket.protection))
        return
    if any(order.ended_at_us is not None and not order.is_settled for order in bracket.exits):
        return  # a member's end is being looked into, and most often its mate has filled
    turn.set(in_force_since_us=None)
    if bracket.unprotected_since_us is None:
        turn.set(unprotected_since_us=turn.now_us)
    if bracket.moving_since_us is None and _has_move_under_way(bracket):
        turn.set(moving_since_us=turn.now_us)
    limit_us = bracket.policy.unprotected_limit_us
    if bracket.state is BracketState.EXITS_LIVE and not _is_moving(turn, limit_us):
        turn.move(BracketEvent.EXPOSE, "ProtectionLost")
    _alarm_if_late(turn)


def _forget_refusals(turn: Turn) -> None:
    since_us = turn.bracket.in_force_since_us
    if since_us is None:
        since_us = turn.now_us
        turn.set(in_force_since_us=since_us)
    if not turn.bracket.stop_refusals:
        return
    if turn.now_us >= since_us + FORCE_PROVED_US:
        turn.set(stop_refusals=0)
    else:
        turn.wake(since_us + FORCE_PROVED_US)


def _alarm_if_late(turn: Turn) -> None:
    bracket = turn.bracket
    limit_us = bracket.policy.unprotected_limit_us
    if bracket.exits_allowed_us is None or bracket.unprotected_since_us is None:
        return
    late_us = max(bracket.exits_allowed_us, bracket.unprotected_since_us, bracket.moving_since_us or 0) + limit_us
    if bracket.swap_since_us is not None:
        late_us += swap_patience_us(bracket.request)  # a reached target works in the stop's place
    if turn.now_us < late_us:
        turn.wake(late_us)
    elif not bracket.is_held:
        turn.attend("unprotected_long", f"unprotected for longer than {limit_us / SECOND_US:g} s")


def _has_move_under_way(bracket: Bracket) -> bool:
    """A replacement of ours whose forerunner is gone and which has not been seen working."""
    return any(order.replaces is not None for order in _live(bracket, Role.STOP, Role.TARGET))


def _is_moving(turn: Turn, limit_us: int) -> bool:
    since_us = turn.bracket.moving_since_us
    if since_us is None or turn.now_us >= since_us + limit_us:
        return False
    turn.wake(since_us + limit_us)
    return True


def stop_unprotected_clock(turn: Turn) -> None:
    since_us = turn.bracket.unprotected_since_us
    if since_us is not None:
        turn.set(unprotected_us=turn.bracket.unprotected_us + max(0, turn.now_us - since_us), unprotected_since_us=None)


def is_in_force(turn: Turn) -> bool:
    """Every exit that should rest does, for all that is open, as the broker itself has said."""
    bracket = turn.bracket
    if bracket.exits_allowed_us is None or bracket.entry_units == 0:
        return False
    if bracket.swap_since_us is not None or is_blind(bracket):
        return False
    if bracket.taken and bracket.open_units == 0:
        return False  # single legs are left, which no exit covers
    for role in wanted_roles(bracket):
        covered = sum(units_left(bracket, order) for order in _live(bracket, role) if _is_armed(turn, order))
        if covered < bracket.open_units:
            return False
    return True


def _is_armed(turn: Turn, order: Order) -> bool:
    match order.state:
        case OrderState.WORKING | OrderState.REPLACE_PENDING:
            return not is_move_under_way(turn.bracket, order)
        case OrderState.CONTINGENT:
            return _is_verified(turn.bracket, order)
        case OrderState.IN_FLIGHT:
            # A member of an armed group that is being routed is further along than a contingent one.
            return _is_verified(turn.bracket, order) or _is_held_for_session(turn, order)
        case _:
            return False


def _is_verified(bracket: Bracket, order: Order) -> bool:
    return order.group is not None and order.group == bracket.verified_group


def _is_held_for_session(turn: Turn, order: Order) -> bool:
    head: View | None = order.head
    if head is None or order.acknowledged_at_us is None:
        return False
    if is_held_too_long(turn.bracket, order, turn.now_us):
        return False
    if order.waits_for_session:
        return True
    if head.status is not BrokerStatus.RECEIVED:
        return False
    if is_market_closed(turn.bracket, turn.now_us):
        return True
    held_at_us = order.acknowledged_at_us + RECEIVED_IS_HELD_US
    if turn.now_us < held_at_us:
        turn.wake(held_at_us)
        return False
    return True
