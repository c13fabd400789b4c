"""How one order moves: Received, Routed, In Flight, Live, and how it ends. Fills are in `filling.py`.

A step that was scheduled before the order changed course carries an old token and lapses.
"""

from otocod.paper import filling, matching
from otocod.paper.endings import end, reject, set_status
from otocod.paper.orders import (
    CANCEL_REQUESTED,
    CANCELLED,
    CONTINGENT,
    EXPIRED,
    GTC,
    GTD,
    IN_FLIGHT,
    LIVE,
    RECEIVED,
    REPLACE_REQUESTED,
    ROUTED,
    STOP_LIMIT,
    Order,
)
from otocod.paper.settlement import EXPIRATION, Settling, settle
from otocod.paper.state import State
from otocod.paper.symbols import increment

NEVER_ROUTED = frozenset({RECEIVED, CONTINGENT})


def start(state: State, order: Order) -> None:
    """A plain order enters: it is Received, and on its way at once unless the rules or the hours say otherwise."""
    state.count(order)
    set_status(state, order, RECEIVED)
    if not state.is_open:
        return
    if state.rules.initial_status == ROUTED:
        step(state, order, order.token)
    else:
        schedule_step(state, order)


def release(state: State, order: Order) -> None:
    """A held order (child, replacement, trigger) goes to market; outside the hours it waits as Received."""
    order.is_held = False
    state.count(order)
    order.session_day = state.session.day
    if state.is_open:
        schedule_step(state, order)
    else:
        set_status(state, order, RECEIVED)


def arm_contingent(state: State, order: Order) -> None:
    """A held exit becomes able to fill while the broker still shows it Contingent."""
    order.is_held = False
    state.count(order)
    order.session_day = state.session.day
    if state.is_open:
        _work(state, order)


def schedule_step(state: State, order: Order) -> None:
    state.after(state.rules.status_step_ms, step, order, order.token)


def step(state: State, order: Order, token: int) -> None:
    """The next status on the way to the market."""
    if token != order.token or order.is_terminal:
        return
    if order.status in NEVER_ROUTED:
        if state.rules.skip_steps and order.received_us < state.now_us:
            _go_live(state, order)
            return
        order.routing_id = f"PB{order.id:016d}"
        set_status(state, order, ROUTED)
        if state.rules.reject_after_routing:
            state.after(state.rules.status_step_ms, _reject_routed, order, state.rules.reject_after_routing)
            return
    elif order.status == ROUTED and not state.rules.skip_steps:
        order.in_flight_us = state.now_us
        set_status(state, order, IN_FLIGHT)
    else:
        _go_live(state, order)
        return
    schedule_step(state, order)


def _reject_routed(state: State, order: Order, reason: str) -> None:
    if not order.is_terminal:
        reject(state, order, reason)


def _go_live(state: State, order: Order) -> None:
    if order.routing_id is None:
        order.routing_id = f"PB{order.id:016d}"
    order.live_us = state.now_us
    if state.rules.skip_steps and filling.is_marketable_now(state, order):
        order.status = LIVE
        state.note("status", order)
    else:
        set_status(state, order, LIVE)
    _work(state, order)


def _work(state: State, order: Order) -> None:
    """The order is at the market: what the venue does with it on arrival."""
    rules = state.rules
    state.watch(order)
    if rules.increment_check != "off" and not _is_on_grid(state, order):
        order.is_frozen = True
        state.after(rules.increment_delay_ms, _end_off_grid, order)
        return
    if rules.spread_stop_cancel_ms and order.order_type == STOP_LIMIT and len(order.legs) > 1:
        state.after(rules.spread_stop_cancel_ms, _end_spread_stop, order)
    if order.is_stop and rules.stop_through_market == "reject":
        reference = matching.stop_reference(order, state.quotes, rules.single_leg_stop_reference)
        if reference is not None and matching.is_triggered(order, reference):
            reject(state, order, "Stop price is through the market")
            return
    filling.consider(state, order, is_arriving=True)


def _is_on_grid(state: State, order: Order) -> bool:
    found = order.legs[0].instrument
    prices = [order.price if order.limit is not None else None]
    if state.rules.increment_covers_trigger:
        prices.append(order.stop_trigger)
    for price in prices:
        grid = None if price is None else increment(found, len(order.legs), price, state.rules)
        if price is not None and grid is not None and price % grid:
            return False
    return True


def _end_off_grid(state: State, order: Order) -> None:
    if order.is_terminal:
        return
    if state.rules.increment_check == "cancel":
        end(state, order, CANCELLED)
    else:
        reject(state, order, "Price is not a valid increment")


def _end_spread_stop(state: State, order: Order) -> None:
    if not order.is_terminal:
        end(state, order, CANCELLED)


def request_cancel(state: State, order: Order, by: str) -> None:
    """Begin to cancel a non-terminal order: at once if it was never routed, else through Cancel Requested."""
    rules = state.rules
    if by != "broker":
        order.cancel_user = True
    if order.status == CANCEL_REQUESTED:
        return
    state.note("cancel-requested", order, by=by)
    if order.is_held or order.status == RECEIVED:
        end(state, order, CANCELLED, by=by)
        return
    order.token += 1
    if rules.cancel_race == "cancel-wins":
        order.is_frozen = True
    set_status(state, order, CANCEL_REQUESTED)
    if rules.cancel_race == "fill-wins":
        state.after(max(rules.cancel_delay_ms // 2, 0), filling.fill_anyway, order)
    if rules.stuck_cancel:
        state.stuck[order.id] = order
    else:
        state.after(rules.cancel_delay_ms, confirm_cancel, order, by)


def confirm_cancel(state: State, order: Order, by: str) -> None:
    if order.status != CANCEL_REQUESTED:
        return
    if state.rules.stuck_cancel:
        state.stuck[order.id] = order
        return
    end(state, order, CANCELLED, by=by)


def open_session(state: State) -> None:
    """Trading starts: what waited is routed, what rested looks at the quotes."""
    for order in list(state.unfinished.values()):
        if order.is_held:
            continue
        if order.status == RECEIVED:
            if order.live_us:
                order.session_day = state.session.day
            schedule_step(state, order)
        elif order.status == CONTINGENT:
            _work(state, order)
        else:
            filling.consider(state, order)


def close_session(state: State, closed_us: int) -> None:
    """Trading stops: Day orders of this session, GTD orders of this day and orders on expired options end."""
    day = state.session.day
    for order in list(state.unfinished.values()):
        if order.is_terminal or order.is_held:
            continue
        if _ends_with(order, day):
            end(state, order, EXPIRED)
        elif order.time_in_force == GTC and state.rules.overnight_status == RECEIVED and order.status == LIVE:
            state.unwatch(order)
            order.token += 1
            set_status(state, order, RECEIVED)
    if state.rules.expire_positions:
        _expire_positions(state)


def _ends_with(order: Order, day: object) -> bool:
    if any(leg.instrument.expiration is not None and leg.instrument.expiration <= day for leg in order.legs):  # type: ignore[operator]
        return True
    if order.time_in_force == GTD:
        return order.gtc_date is not None and order.gtc_date <= str(day)
    return order.time_in_force not in (GTC, "GTC Ext", "GTC Ext Overnight") and order.session_day <= day  # type: ignore[operator]


def _expire_positions(state: State) -> None:
    for account in state.accounts.values():
        for symbol, position in list(account.record.items()):
            expiration = position.instrument.expiration
            if expiration is not None and expiration <= state.session.day and account.truth.get(symbol):
                settle(state, account, Settling(symbol, EXPIRATION, None, None))


def is_replaceable(order: Order) -> bool:
    """Not while another change of it is under way."""
    is_changing = order.waits_for_original or order.status in (CANCEL_REQUESTED, REPLACE_REQUESTED)
    return not (order.is_terminal or is_changing)
