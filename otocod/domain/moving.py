"""One order moved to another price by the broker's replace, and one step of a walk, which is such a move.

A move is an order of its own that names its forerunner: sent once, believed like any other. Refused, or proved absent,
it leaves the forerunner where it was; a fill of the forerunner ends it.

A walk's state follows what became of its last move: the interval runs once the price works, and a move that came to
nothing puts the price back with its part of the budget used, a little longer each time it happens in a row.
"""

from dataclasses import dataclass, replace
from decimal import Decimal

from otocod.domain.brackets import Bracket
from otocod.domain.commands import FetchQuote, Member, ReplaceOrder
from otocod.domain.machine import OrderEvent
from otocod.domain.orders import Order, OrderState
from otocod.domain.prices import grid_for, plain
from otocod.domain.quotes import SpreadQuote
from otocod.domain.request_types import BracketRequest
from otocod.domain.specs import Leg, OrderSpec
from otocod.domain.spreads import scaled_legs, spread_of
from otocod.domain.timing import MOVE_RETRY_MAX_US, QUOTE_RETRY_US, backoff_us
from otocod.domain.turn import Turn
from otocod.domain.walking import Limits, Move, Wait, Walk, WalkState, accepted, next_price


def is_move_under_way(bracket: Bracket, order: Order) -> bool:
    """A replacement whose forerunner may still work is the same quantity, not more of it."""
    if order.replaces is None or order.is_terminal:
        return False
    forerunner = bracket.order(order.replaces)
    return forerunner is not None and not forerunner.is_terminal


def is_failed_move(order: Order) -> bool:
    """It never came to be at the broker: what it was to replace is what counts."""
    return order.replaces is not None and order.state in (OrderState.REJECTED, OrderState.ABSENT)


def replace_order(turn: Turn, order: Order, spec: OrderSpec, units: int) -> None:
    """Asks for `order` to be moved to `spec`, for `units`. It must work, and be known at the broker."""
    assert order.broker_order_id is not None
    new = replace(spec, legs=scaled_legs(spec.legs, units))
    heir, _ = turn.intend(
        order.role,
        new,
        replaces=order.external_identifier,
        group=order.group,
        complex_order_id=order.complex_order_id,
    )
    turn.tell(order, OrderEvent.ASK_REPLACE, moved_ids=(*order.moved_ids, order.broker_order_id))
    turn.ask(ReplaceOrder(order.broker_order_id, Member(heir.external_identifier, order.role, new)))
    price = "" if new.net_price is None else f" to {plain(abs(new.net_price))}"
    turn.note("MoveRequested", f"{order.role} {order.external_identifier}{price}")


@dataclass(frozen=True, slots=True)
class Course:
    """A walk between its limits.

    `is_gated`: it goes by good quotes only. `is_urgent`: without one it goes on by its steps, up to its cap.
    """

    walk: Walk
    limits: Limits
    is_gated: bool = True
    is_urgent: bool = False


def closing_limits(request: BracketRequest, cap: Decimal | None) -> Limits:
    """Of an order that closes: within what the spread can cost, and never paying to be rid of what would pay."""
    spread = spread_of(request.entry.legs)
    most = spread.largest_credit_to_close
    return Limits(cap=cap, bound=spread.largest_debit_to_close, floor=None if most is None else -most)


def first_price(turn: Turn, course: Course, begun: WalkState) -> tuple[WalkState, Move]:
    """Where the walk begins, if there is a quote to say so."""
    grid = grid_for(turn.bracket.request.entry.legs)
    quote = _usable(turn, course)
    return next_price(course.walk, begun, quote, turn.now_us, grid=grid, limits=course.limits)


def caught_up(turn: Turn, state: WalkState, order: Order) -> WalkState:
    """The state after what became of the last move. `order` is the one that is to work at its price."""
    if order.state is not OrderState.WORKING or is_move_under_way(turn.bracket, order):
        return state
    if order.spec.net_price == state.price:
        return accepted(state, turn.now_us)
    failed = sum(1 for other in turn.bracket.orders if other.replaces == order.external_identifier)
    pause_us = backoff_us(failed, QUOTE_RETRY_US, MOVE_RETRY_MAX_US) if failed else 0
    return replace(state, price=order.spec.net_price, at_us=turn.now_us + pause_us)


def step(turn: Turn, course: Course, state: WalkState, legs: tuple[Leg, ...]) -> tuple[WalkState, Move]:
    """What a working walk does now. A price is asked for only when it is due; the state holds also where none comes.

    `legs`: one unit of the order's own.
    """
    bracket = turn.bracket
    if state.at_us is None or state.is_ended:
        return state, Wait(None)
    due_us = state.at_us + course.walk.interval_us
    if turn.now_us < due_us:
        turn.wake(due_us)
        return state, Wait(due_us)
    if turn.quote is None and not turn.is_quote_missing:
        ask_quote(turn, legs)
        return state, Wait(None, needs_quote=True)
    quote = _usable(turn, course)
    moved: WalkState = state
    move: Move = Wait(None, needs_quote=True)
    if quote is not None or course.is_urgent:
        grid = grid_for(bracket.request.entry.legs)
        moved, move = next_price(course.walk, state, quote, turn.now_us, grid=grid, limits=course.limits)
    if isinstance(move, Wait):
        moved = replace(moved, at_us=turn.now_us)
        turn.wake(turn.now_us + course.walk.interval_us)
        if move.needs_quote:
            _say_it_stands(turn, state)
    return moved, move


def _usable(turn: Turn, course: Course) -> SpreadQuote | None:
    return turn.quote if turn.quote_fault is None or not course.is_gated else None


def ask_quote(turn: Turn, legs: tuple[Leg, ...]) -> None:
    """Asks for the legs' prices, at most once in QUOTE_RETRY_US."""
    asked_us = turn.bracket.quote_asked_us
    if asked_us is None or turn.now_us >= asked_us + QUOTE_RETRY_US:
        asked_us = turn.now_us
        turn.set(quote_asked_us=asked_us)
        turn.ask(FetchQuote(legs))
    turn.wake(asked_us + QUOTE_RETRY_US)


def _say_it_stands(turn: Turn, state: WalkState) -> None:
    """A step was due and there was nothing to go by."""
    assert state.price is not None
    why = turn.quote_fault or "none come"
    turn.attend("walk_stands", f"a walk stands at {plain(abs(state.price))}: there are no usable quotes ({why})")
