"""Stops that follow the profit, as `trailing` works them out, put into the bracket's own stop.

The engine tells the best closing price that has held; a level follows from it and is stored, so a restart loses
nothing. The stop's trigger is the lower, tighter, of its own and that level, its limit keeps its distance. A stop moves
only when that is worth an order.
"""

from dataclasses import replace
from decimal import Decimal

from otocod.domain.events import BestPriceHeld
from otocod.domain.exits import trigger_net_price
from otocod.domain.prices import grid_for, snap_up
from otocod.domain.specs import OrderSpec
from otocod.domain.trailing import StopLevel, advance, is_worth_moving
from otocod.domain.turn import Turn


def best_price_held(turn: Turn, event: BestPriceHeld) -> None:
    bracket = turn.bracket
    rules = bracket.request.stop_rules
    entry_net_price = bracket.entry_net_price or bracket.request.entry.net_price
    if rules is None or entry_net_price is None or bracket.first_fill_us is None:
        return
    grid = grid_for(bracket.request.entry.legs)
    found = advance(rules, bracket.stop_level or StopLevel(), event.price, entry_net_price, grid)
    turn.set(stop_level=found)
    least = bracket.request.stop_least_move or grid.smallest
    if found.level is None:
        return
    if bracket.stop_moved_to is None or is_worth_moving(bracket.stop_moved_to, found.level, least):
        turn.set(stop_moved_to=found.level)
        turn.note("StopFollowed", f"best price {event.price}, stop at {found.level}")


def followed(turn: Turn, stop: OrderSpec) -> OrderSpec:
    """The stop where the rules have brought it; the one given where they have not tightened it."""
    level = turn.bracket.stop_moved_to
    trigger = trigger_net_price(stop)
    if level is None or trigger is None or level >= trigger:
        return stop
    if stop.net_price is None:
        return replace(stop, stop_trigger=abs(level))
    return replace(stop, stop_trigger=abs(level), net_price=_limit(turn, level, stop.net_price - trigger))


def _limit(turn: Turn, level: Decimal, offset: Decimal) -> Decimal:
    """As far past the trigger as before; on the wire trigger and limit are of one sign, and a price is never 0."""
    grid = grid_for(turn.bracket.request.entry.legs)
    limit = snap_up(level + offset, grid)
    return -grid.smallest if level < 0 <= limit else limit
