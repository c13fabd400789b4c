"""The safety contract: what protects the position and what does not, in plain words, with the money that is at stake.

Of a request before it is sent, by its own prices; of a bracket as it stands, by what it was filled at, the exits as
they are now, and the way of protection in force. One statement a line, each beginning with what it is about. Losses
are without fees, and of the structure as it expires.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from otocod.domain.brackets import Bracket, BracketState, OnUnprotectable
from otocod.domain.exits import exit_specs, trigger_net_price
from otocod.domain.prices import plain
from otocod.domain.request_types import BracketRequest, StopMarket
from otocod.domain.specs import InstrumentType, OrderSpec, Protection, Role
from otocod.domain.spreads import dollars_per_point, size_of, spread_of
from otocod.domain.symbols import Right
from otocod.domain.timing import BLIND_STOP_US, EXIT_WINDOW_US, LIMITS_BEFORE_CLOSE, SECOND_US
from otocod.domain.walking import FinalAction
from otocod.domain.watched import rest_role, swap_patience_us

_NATIVE = (Protection.NATIVE_OTOCO, Protection.NATIVE_OCO)
_NO_LIMIT_SET = "`unprotected_limit_s` (5 s unless set)"


@dataclass(frozen=True, slots=True)
class _Case:
    """What the statements are made from: a request's own wishes, or a bracket as it stands."""

    request: BracketRequest
    mode: Protection  # AUTO: not chosen yet
    rest: Role  # in `watched`
    next_modes: tuple[Protection, ...]
    entry_price: Decimal | None  # signed; None: known only when it has filled
    units: int
    stop: OrderSpec | None  # for one unit; None also while its prices are not known
    limit: str
    on_unprotectable: OnUnprotectable | None  # None: as set
    is_filled: bool = False

    @property
    def is_stop_watched_only(self) -> bool:
        """The broker has no stop-market of several legs, so nothing of it can ever rest there."""
        return isinstance(self.request.stop, StopMarket) and len(self.request.entry.legs) > 1

    @property
    def has_one_exit(self) -> bool:
        return self.request.target is None or self.request.stop is None


def safety_contract(request: BracketRequest) -> list[str]:
    """Of a request that is not accepted yet."""
    price = request.entry.net_price
    only_watched = isinstance(request.stop, StopMarket) and len(request.entry.legs) > 1
    # A stop that follows is moved by itself, which a member of a group need not bear.
    is_moved = request.stop_rules is not None or request.walk_of(Role.TARGET) is not None
    is_watched = only_watched or (request.protection is Protection.AUTO and is_moved)
    return _told(
        _Case(
            request=request,
            mode=Protection.WATCHED if is_watched else request.protection,
            rest=Role.TARGET if only_watched else request.rest,
            next_modes=(),
            entry_price=price,
            units=size_of(request.entry.legs),
            stop=None if price is None else exit_specs(request, entry_net_price=price, units=1).stop,
            limit=_NO_LIMIT_SET,
            on_unprotectable=None,
        )
    )


def safety_of(bracket: Bracket) -> list[str]:
    """Of a bracket as it stands; nothing once it is over."""
    if bracket.state is BracketState.CLOSED:
        return []
    request = bracket.request
    price = bracket.entry_net_price if bracket.entry_net_price is not None else request.entry.net_price
    stop = None if price is None else exit_specs(request, entry_net_price=price, units=1).stop
    if stop is not None:
        stop = dict(bracket.moved).get(Role.STOP, stop)
        working = [order for order in bracket.orders_of(Role.STOP) if not order.is_terminal and order.spec.stop_trigger]
        stop = working[-1].spec if working else stop
    return _told(
        _Case(
            request=request,
            mode=bracket.protection,
            rest=rest_role(bracket),
            next_modes=bracket.ladder[1:],
            entry_price=price,
            units=bracket.open_units or bracket.size,
            stop=stop,
            limit=f"{bracket.policy.unprotected_limit_us / SECOND_US:g} s",
            on_unprotectable=bracket.policy.on_unprotectable,
            is_filled=bracket.first_fill_us is not None,
        )
    )


def _told(case: _Case) -> list[str]:
    return [
        f"Protection: {_protection(case)}",
        f"If the stream dies: {_stream_dead(case)}",
        f"If otocod dies: {_otocod_dead(case)}",
        f"If the broker refuses the stop: {_stop_refused(case)}",
        f"Longest unprotected time: {_longest(case)}",
        *(f"Closed by the clock: {rule}." for rule in case.request.time_exits),
        *_money(case),
    ]


# Who holds what.


def _protection(case: _Case) -> str:
    if case.is_stop_watched_only:
        target = "" if case.request.target is None else "the target rests at the broker; "
        return f"{target}the stop, of several legs and without a limit, cannot rest: otocod watches quotes for it."
    if case.has_one_exit:
        only = "stop" if case.request.target is None else "target"
        return f"one exit is asked for, the {only}: it rests at the broker from the entry's fill on."
    watched = f"the {case.rest} rests at the broker; otocod watches quotes for the {_other(case.rest)}."
    return {
        Protection.AUTO: f"both exits as one group at the broker where this account takes one; else {watched}",
        Protection.NATIVE_OTOCO: (
            "entry and exits are one group at the broker: the exits arm when the entry has filled whole, and one that"
            " fills cancels the other."
        ),
        Protection.NATIVE_OCO: (
            "after the fill both exits are one group at the broker: one that fills cancels the other."
        ),
        Protection.WATCHED: watched,
        Protection.UNLINKED: "both exits rest at the broker and know nothing of each other: both can fill.",
    }[case.mode]


def _other(role: Role) -> Role:
    return Role.TARGET if role is Role.STOP else Role.STOP


def _stream_dead(case: _Case) -> str:
    told = "what rests at the broker works on; fills are noticed by listings, within `reconcile_interval_s` (15 s)."
    if case.is_stop_watched_only:
        return f"{told} Without usable quotes the stop does not work at all until they are back, and an alarm says so."
    if case.has_one_exit or case.mode not in (Protection.WATCHED, Protection.AUTO):
        return told
    if case.rest is Role.STOP:
        return f"{told} Without usable quotes a watched target is not taken; the stop holds."
    return f"{told} Without usable quotes for {BLIND_STOP_US // SECOND_US} s the stop is put in the target's place."


def _otocod_dead(case: _Case) -> str:
    unfilled = "" if case.is_filled else " An entry that fills meanwhile has no exits until otocod is back."
    if case.request.stop is None:
        return f"the target holds; there is no stop, with otocod or without.{unfilled}"
    if case.is_stop_watched_only:
        return f"no stop works until it is back.{unfilled}"
    if case.request.target is None:
        return f"the stop holds.{unfilled}"
    match case.mode:
        case Protection.NATIVE_OTOCO:
            part = (
                "" if case.is_filled else " Of an entry that fills only in part nothing is protected until it is back."
            )
            return f"the group holds by itself, from the entry's fill on.{part}"
        case Protection.NATIVE_OCO:
            return f"the group holds by itself.{unfilled}"
        case Protection.UNLINKED:
            return f"both exits hold, and when one fills the other is not cancelled until it is back.{unfilled}"
        case Protection.WATCHED if case.rest is Role.TARGET:
            return f"no stop works until it is back; the target holds.{unfilled}"
        case Protection.WATCHED:
            return f"the stop holds; the target does not work until it is back.{unfilled}"
        case _:
            rest = "the stop holds alone" if case.rest is Role.STOP else "no stop works until it is back"
            return f"a group holds by itself; where there is none, {rest}.{unfilled}"


def _stop_refused(case: _Case) -> str:
    if case.request.stop is None:
        return "there is no stop: nothing limits the loss but what the position can lose at most."
    last = {
        OnUnprotectable.CLOSE: "the position is closed at the natural price",
        OnUnprotectable.ALERT: "an alarm is raised and the position stays open",
        None: "the position is closed at the natural price, or only alarmed (`on_unprotectable`)",
    }[case.on_unprotectable]
    if case.is_stop_watched_only:
        return (
            "it is sent only once quotes have reached it; a closing order that is refused then is tried again at a new"
            " price, at first after some seconds, then once a minute, each time with an alarm."
        )
    tries = f"it is tried again {LIMITS_BEFORE_CLOSE} times, {case.limit} apart, then {last}. Each step is alarmed."
    if case.has_one_exit:
        return tries
    chain = [mode for mode in case.next_modes if mode is not Protection.WATCHED]
    ways = f"the next way is tried ({', '.join(chain)}), then the stop alone, then " if chain else ""
    if case.mode in (Protection.AUTO, *_NATIVE, Protection.UNLINKED) and not chain:
        ways = "the stop goes alone, without its group or sibling, then "
    return f"{ways}the target rests and quotes are watched for the stop. Without quotes {tries}"


# How long.


def _longest(case: _Case) -> str:
    grace_s = case.request.partial_entry_grace_us / SECOND_US
    parts = [
        f"the exits' round trip while all goes well; {case.limit} before the next way is tried",
        f"{EXIT_WINDOW_US // SECOND_US} s more when an answer is lost or otocod was killed",
    ]
    if not case.is_filled:
        parts.append(f"{grace_s:g} s more while a part-filled entry goes on")
    is_swapped = case.mode in (Protection.WATCHED, Protection.AUTO) and not case.has_one_exit
    if is_swapped and case.rest is Role.STOP:
        swap_s = swap_patience_us(case.request) // SECOND_US
        parts.append(f"{swap_s} s each time a watched target that was reached takes its place")
    return "; ".join(parts) + ". While the broker cannot be reached, or otocod does not run, as long as that lasts."


# How much.


def _money(case: _Case) -> Iterator[str]:
    price = case.entry_price
    if price is None:
        yield "Worst fill assumed: none; the entry has no limit, so what it may cost or lose cannot be told beforehand."
        return
    if case.stop is None:
        yield f"Worst fill assumed: the entry at {_price(price)}."
        yield "Loss at the stop: there is no stop."
    else:
        yield from _at_stop(case, case.stop, price)
    yield f"Maximum loss: {_maximum(case, price)}"


def _at_stop(case: _Case, stop: OrderSpec, entry_price: Decimal) -> Iterator[str]:
    entry = f"the entry at {_price(entry_price)}{'' if case.is_filled else ', its limit'}"
    trigger = trigger_net_price(stop)
    assert trigger is not None
    if stop.net_price is None:
        if len(stop.legs) > 1:
            trigger = abs(trigger) if entry_price < 0 else -abs(trigger)
        yield f"Worst fill assumed: {entry}; the stop has no limit, so the market gives its price."
        yield f"Loss at the stop: {_loss(case, entry_price + trigger)} if it fills at its trigger; more if it jumps."
        return
    yield f"Worst fill assumed: {entry}; the stop at {_price(stop.net_price)}, its limit."
    yield (
        f"Loss at the stop: {_loss(case, entry_price + trigger)} at its trigger, at worst"
        f" {_loss(case, entry_price + stop.net_price)} at its limit. {_jumped(case, stop.net_price, entry_price)}"
    )
    if case.request.stop_rules is not None:
        yield "The stop follows the profit from there, and is never loosened."


def _jumped(case: _Case, limit: Decimal, entry_price: Decimal) -> str:
    """What becomes of a stop whose limit the market has passed."""
    rule = case.request.walk_of(Role.STOP)
    if rule is None:
        return (
            "A price that jumps over the limit is alarmed, and leaves the position open until the price comes back or"
            " somebody closes it."
        )
    cap = rule.cap_from(limit)
    assert cap is not None
    steps = f"by steps of {plain(rule.walk.step)} each {rule.walk.interval_us / SECOND_US:g} s"
    told = f"A price that jumps over the limit is alarmed, and the position closed {steps} up to {_price(cap)}"
    if rule.walk.final is FinalAction.MARKETABLE:
        return f"{told}, then at whatever the market asks."
    return f"{told} ({_loss(case, entry_price + cap)}); past that it stays open."


def _maximum(case: _Case, entry_price: Decimal) -> str:
    legs = case.request.entry.legs
    spread = spread_of(legs)
    if spread.largest_debit_to_close is not None:
        worst = max(entry_price + spread.largest_debit_to_close, Decimal(0))
        short = any(not leg.action.is_buy and leg.instrument_type is InstrumentType.EQUITY_OPTION for leg in legs)
        early = " A short option that is assigned early changes the position, and this with it." if short else ""
        return f"{_loss(case, worst)}, {'at expiry' if spread.instruments[0].expires_on else 'at a price of 0'}.{early}"
    if len({instrument.expires_on for instrument in spread.instruments}) > 1:
        return "not bounded by the strikes, as the legs expire on different days: the first expiry may leave one naked."
    net_calls = sum(
        leg.quantity if leg.action.is_buy else -leg.quantity
        for leg, instrument in zip(spread.ratio, spread.instruments, strict=True)
        if instrument.right is Right.CALL
    )
    if net_calls < 0:
        one = "1 call is" if net_calls == -1 else f"{-net_calls} calls are"
        return f"UNBOUNDED: per unit {one} sold that nothing covers, so a rising price loses without end."
    return "UNBOUNDED: the position is short, so a rising price loses without end."


def _loss(case: _Case, per_unit: Decimal) -> str:
    amount = plain(abs(per_unit) * case.units)
    dollars = dollars_per_point(case.request.entry.legs)
    if dollars is None:
        text = f"{amount} points of price (times the contract's multiplier)"
    else:
        text = f"{plain(abs(per_unit) * dollars * case.units)} dollars"
    return f"none, but a gain of {text}" if per_unit < 0 else text


def _price(net_price: Decimal) -> str:
    whole, _, part = plain(abs(net_price)).partition(".")
    return f"{whole}.{part:0<2} {'credit' if net_price < 0 else 'debit'}"
