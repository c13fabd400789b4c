"""The safety contract of a request: what protects the position and what does not, in plain words, before it is sent."""

from collections.abc import Iterator
from decimal import Decimal

from otocod.domain.exits import exit_specs, trigger_net_price
from otocod.domain.prices import plain
from otocod.domain.request_types import BracketRequest, StopMarket
from otocod.domain.specs import OrderSpec, Protection, Role
from otocod.domain.spreads import dollars_per_point, size_of, spread_of

_EXIT_WINDOW_S = 10
_SWAP_S = 10


def safety_contract(request: BracketRequest) -> list[str]:
    """One statement a line. Figures are for the whole request, at its prices, without fees."""
    return [
        *_modes(request),
        *_failures(request),
        *_times(request),
        *_money(request),
    ]


def _modes(request: BracketRequest) -> Iterator[str]:
    if request.target is None or request.stop is None:
        only = "stop" if request.target is None else "target"
        if only == "stop" and _is_watched_alone(request):
            yield "The stop, of several legs and without a limit, cannot rest: otocod watches quotes for it."
        else:
            yield f"One exit is asked for, the {only}: it rests at the broker from the entry's fill on."
        return
    if _is_watched_alone(request):
        yield "The target rests; the stop has no limit and several legs, so otocod watches quotes for it."
        return
    yield {
        Protection.AUTO: (
            "Both exits as one group at the broker where this account has proved to take one; else one rests, the"
            f" {request.rest}, and otocod watches quotes for the other."
        ),
        Protection.NATIVE_OTOCO: (
            "Entry and exits go to the broker as one group; if that is refused, the exits as one after the fill."
        ),
        Protection.NATIVE_OCO: "After the fill both exits go to the broker as one group.",
        Protection.WATCHED: f"The {request.rest} rests at the broker; otocod watches quotes for the other exit.",
        Protection.UNLINKED: "Both exits rest at the broker and know nothing of each other: both can fill.",
    }[request.protection]


def _failures(request: BracketRequest) -> Iterator[str]:
    yield "If the stream dies: orders rest as they are; fills are noticed by listings, within the reconcile interval."
    has_resting_stop = request.stop is not None and not _is_watched_alone(request)
    if not has_resting_stop or (request.protection is Protection.WATCHED and request.rest is Role.TARGET):
        yield "If otocod dies: no stop works until it is back."
    elif request.protection is Protection.WATCHED:
        yield "If otocod dies: the stop holds; the target does not work until it is back."
    elif request.protection is Protection.UNLINKED:
        yield "If otocod dies: both exits hold, and when one fills the other is not cancelled until it is back."
    elif request.protection is Protection.AUTO:
        yield "If otocod dies: a group holds by itself; of two exits of which one is watched, the resting one holds."
    else:
        yield "If otocod dies: the group holds by itself."
        if request.protection is Protection.NATIVE_OCO:
            yield "An entry that fills while otocod is dead has no exits until it is back."
    if request.stop is None:
        yield "There is no stop: nothing limits the loss but what the position can lose at most."
    else:
        yield (
            "If the broker refuses the stop: the next way of protection is tried, then watching; after three limits the"
            " position is closed (on_unprotectable)."
        )


def _times(request: BracketRequest) -> Iterator[str]:
    grace_s = request.partial_entry_grace_us / 1_000_000
    yield (
        "Longest time without protection, the broker answering: the exits' round trip; `unprotected_limit_s` (5 s"
        f" unless set) before the next way is tried; {_EXIT_WINDOW_S} s when an answer is lost or otocod was killed;"
        f" of a part-filled entry up to {grace_s:g} s more."
    )
    if request.protection in (Protection.WATCHED, Protection.AUTO) and request.target is not None:
        yield f"A watched target takes the stop's place for up to {_SWAP_S} s; unfilled, it gives way again."
    for rule in request.time_exits:
        yield f"Closed by the clock: {rule}."


def _money(request: BracketRequest) -> Iterator[str]:
    price = request.entry.net_price
    if price is None:
        yield "The entry has no limit, so what it may cost or lose cannot be told beforehand."
        return
    stop = exit_specs(request, entry_net_price=price, units=1).stop
    if stop is not None:
        yield from _loss_at_stop(request, stop, price)
    bound = spread_of(request.entry.legs).largest_debit_to_close
    worst = None if bound is None else price + bound
    if worst is None:
        yield "Maximum loss: not bounded by the structure."
    else:
        yield f"Maximum loss: {_amount(request, max(worst, Decimal(0)))}."


def _loss_at_stop(request: BracketRequest, stop: OrderSpec, entry_price: Decimal) -> Iterator[str]:
    trigger = trigger_net_price(stop)
    assert trigger is not None
    if stop.net_price is None:
        if len(stop.legs) > 1:
            trigger = abs(trigger) if entry_price < 0 else -abs(trigger)
        yield f"Loss at the stop: {_amount(request, entry_price + trigger)} at its trigger; the market gives the fill."
        return
    yield (
        f"Loss at the stop: {_amount(request, entry_price + trigger)} at its trigger, at worst"
        f" {_amount(request, entry_price + stop.net_price)} at its limit; a price that jumps over that leaves it open."
    )


def _amount(request: BracketRequest, per_unit: Decimal) -> str:
    dollars = dollars_per_point(request.entry.legs)
    units = size_of(request.entry.legs)
    return f"{plain(per_unit * units)} points" if dollars is None else f"{plain(per_unit * dollars * units)} dollars"


def _is_watched_alone(request: BracketRequest) -> bool:
    return isinstance(request.stop, StopMarket) and len(request.entry.legs) > 1
