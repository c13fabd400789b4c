"""Fills: when a working order meets the market, what is executed at which leg prices, what is told in which order."""

from decimal import Decimal
from typing import Any

from otocod.paper import margin, matching, wire
from otocod.paper.endings import end
from otocod.paper.errors import Refused
from otocod.paper.orders import (
    CANCEL_REQUESTED,
    CANCELLED,
    CONTINGENT,
    FILLED,
    IOC,
    LIVE,
    REPLACE_REQUESTED,
    Fill,
    Leg,
    Order,
)
from otocod.paper.positions import Account
from otocod.paper.sessions import utc_day
from otocod.paper.state import State
from otocod.paper.symbols import FUTURE, Instrument

# A resting order in these states may be filled by the market.
_FILLABLE = frozenset({LIVE, CONTINGENT, CANCEL_REQUESTED, REPLACE_REQUESTED})
_CENT = Decimal("0.01")


def consider(state: State, order: Order, is_arriving: bool = False) -> None:
    """Compare one working order with the quotes, and trigger or fill it."""
    if not _may_fill(state, order):
        return
    if order.is_stop and not order.is_triggered:
        reference = matching.stop_reference(order, state.quotes, state.rules.single_leg_stop_reference)
        if reference is not None and matching.is_triggered(order, reference):
            if state.rules.trigger_delay_ms:
                order.is_filling = True
                state.after(state.rules.trigger_delay_ms, _trigger, order, reference)
            else:
                _trigger(state, order, reference)
        return
    price = _market_price(state, order, is_arriving)
    if price is None:
        if is_arriving and order.time_in_force == IOC:
            end(state, order, CANCELLED)
        return
    if state.rules.fill_delay_ms:
        order.is_filling = True
        state.after(state.rules.fill_delay_ms, _fill_later, order, price)
    else:
        _fill_by_market(state, order, price)


def is_marketable_now(state: State, order: Order) -> bool:
    return not order.is_stop and state.rules.fill_delay_ms == 0 and _market_price(state, order, True) is not None


def fill_anyway(state: State, order: Order) -> None:
    """A race the fill wins: the order fills in full, at its limit or what the market gives."""
    if order.is_terminal:
        return
    price = order.limit
    if price is None:
        price = matching.natural(order.legs, state.quotes)
    if price is None:
        price = (order.stop_trigger or matching.ZERO) * (1 if order.is_debit else -1)
    execute(state, order, order.remaining_units, price)


def _may_fill(state: State, order: Order) -> bool:
    return (
        state.is_open
        and state.rules.fill_style != "none"
        and order.status in _FILLABLE
        and not (order.is_held or order.is_frozen or order.is_filling)
    )


def _trigger(state: State, order: Order, reference: Decimal) -> None:
    order.is_filling = False
    if order.is_terminal:
        return
    order.is_triggered = True
    state.note("triggered", order, reference=str(reference))
    consider(state, order, is_arriving=True)


def _market_price(state: State, order: Order, is_arriving: bool) -> Decimal | None:
    """The signed net price at which the market takes the order now; None while it does not."""
    style = state.rules.fill_style
    price = matching.natural(order.legs, state.quotes)
    if price is None or style == "none":
        return None
    limit = order.limit
    if limit is None:
        return price
    if price > limit:
        return None
    if style == "natural" or (style == "book" and is_arriving):
        return price
    return limit


def _fill_later(state: State, order: Order, price: Decimal) -> None:
    order.is_filling = False
    if _may_fill(state, order):
        _fill_by_market(state, order, price)


def _fill_by_market(state: State, order: Order, price: Decimal) -> None:
    rules = state.rules
    units = order.remaining_units
    if rules.quoted_sizes:
        units = min(units, matching.quoted_units(order.legs, state.quotes))
    if rules.max_units_per_fill:
        units = min(units, rules.max_units_per_fill)
    if units > 0:
        execute(state, order, units, price)
    if order.is_terminal or order.remaining_units == 0:
        return
    if order.time_in_force == IOC:
        end(state, order, CANCELLED)
    elif rules.max_units_per_fill:
        state.after(rules.fill_gap_ms, consider, order)


def execute(state: State, order: Order, units: int, net: Decimal | None, first_leg_only: bool = False) -> None:
    """Fill `units` at a signed net price; None repeats the leg prices of a fill whose other legs are to come.

    Positions and cash move here; the messages follow: order (one leg first, by rule), positions, balance.
    """
    before = [len(leg.fills) for leg in order.legs]
    units_before = order.filled_units
    changes = _execute_legs(state, order, units, net, first_leg_only)
    order.count_units()
    first = order.legs[0]
    was_terminal = order.is_terminal
    if not was_terminal:
        if first.remaining == 0:
            order.status = FILLED
            order.terminal_us = state.now_us
            order.token += 1
            state.forget(order)
        elif order.status not in _FILLABLE or order.status == CONTINGENT:
            order.token += 1
            order.status = LIVE
            order.live_us = order.live_us or state.now_us
            order.routing_id = order.routing_id or f"PB{order.id:016d}"
            state.watch(order)
        state.note("status", order, filled=order.filled_units)
    _tell(state, order, before, is_several_legs=len(changes) > 1)
    for leg, quantity, price in changes:
        _move_later(state, order, leg, quantity, price)
    if state.rules.balance_notices == "fills":
        state.say_balance(order.account)
    gained = order.filled_units - units_before
    for listener in state.listeners:
        listener.filled(state, order, gained)


def _execute_legs(
    state: State, order: Order, units: int, net: Decimal | None, first_leg_only: bool
) -> list[tuple[Leg, int, Decimal]]:
    prices = _leg_prices(state, order, net)
    account = state.accounts[order.account]
    target = order.filled_units + units
    changes = []
    for index, leg in enumerate(order.legs):
        if first_leg_only and index == 0:
            quantity = min(units * leg.ratio, leg.remaining)
        elif first_leg_only:
            continue
        else:
            quantity = target * leg.ratio - leg.filled
        if quantity <= 0:
            continue
        for part, price in _parts(quantity, prices[index], state.rules.fills_per_leg):
            _add_fill(state, order, leg, part, price)
        _pay(state, account, order, leg, quantity, prices[index])
        changes.append((leg, quantity, prices[index]))
    order.planned = {leg.symbol: prices[index] for index, leg in enumerate(order.legs)} if first_leg_only else {}
    return changes


def _leg_prices(state: State, order: Order, net: Decimal | None) -> list[Decimal]:
    if net is None and order.planned:
        return [order.planned[leg.symbol] for leg in order.legs]
    if net is None:
        net = order.limit if order.limit is not None else matching.natural(order.legs, state.quotes)
    if net is None:
        raise Refused(422, "no_price", "a price is needed: the order has none and a leg has no quote")
    try:
        return matching.split_net(order.legs, net, state.quotes)
    except ValueError as error:
        raise Refused(422, "invalid_fill_price", str(error)) from None


def _parts(quantity: int, price: Decimal, wanted: int) -> list[tuple[int, Decimal]]:
    """One execution as several fills; the first and the last differ by a cent where their sizes balance out."""
    count = min(wanted, quantity)
    sizes = [quantity // count + (1 if index < quantity % count else 0) for index in range(count)]
    prices = [price] * count
    if count > 1 and sizes[0] == sizes[-1] and price > _CENT:
        prices[0], prices[-1] = price + _CENT, price - _CENT
    return list(zip(sizes, prices, strict=True))


def _add_fill(state: State, order: Order, leg: Leg, quantity: int, price: Decimal) -> None:
    number = state.next_fill_id
    state.next_fill_id += 1
    fill = Fill(f"F-{number}", quantity, price, state.now_us, str(number))
    leg.fills.append(fill)
    leg.filled += quantity
    state.note(
        "fill", order, symbol=leg.symbol, action=leg.action, quantity=quantity, price=str(price), fill_id=fill.fill_id
    )


def _pay(state: State, account: Account, order: Order, leg: Leg, quantity: int, price: Decimal) -> None:
    found = leg.instrument
    value = matching.ZERO if found.instrument_type == FUTURE else -leg.sign * price * quantity * found.multiplier
    cost = sum(margin.fees(leg, quantity).values(), matching.ZERO)
    account.cash += value - cost
    entry = ledger_entry(state, account, found, "Trade", leg.action, state.now_us)
    entry.update(
        {
            "action": leg.action,
            "quantity": str(quantity),
            "price": wire.decimal_text(price),
            "order-id": order.id,
            "leg-count": len(order.legs),
            "value": wire.decimal_text(abs(value)),
            "value-effect": wire.effect_of(value),
            "net-value": wire.decimal_text(abs(value - cost)),
            "net-value-effect": wire.effect_of(value - cost),
        }
    )
    for name, amount in margin.fees(leg, quantity).items():
        entry[name] = wire.decimal_text(amount)
        entry[f"{name}-effect"] = wire.effect_of(-amount)


def ledger_entry(
    state: State, account: Account, found: Instrument, kind: str, sub_kind: str, at_us: int
) -> dict[str, Any]:
    """Append a transaction without value to the account's ledger and return it for completion."""
    entry: dict[str, Any] = {
        "id": len(account.ledger) + 1,
        "account-number": account.number,
        "symbol": found.symbol,
        "instrument-type": found.instrument_type,
        "underlying-symbol": found.underlying,
        "transaction-type": kind,
        "transaction-sub-type": sub_kind,
        "description": f"{sub_kind} {found.symbol}",
        "executed-at": wire.iso(at_us),
        "transaction-date": utc_day(at_us).isoformat(),
        "value": "0.0",
        "value-effect": "None",
        "net-value": "0.0",
        "net-value-effect": "None",
        "is-estimated-fee": True,
    }
    account.ledger.append(entry)
    return entry


def _move_later(state: State, order: Order, leg: Leg, quantity: int, price: Decimal) -> None:
    """The truth moves now; the record, on which preflight and reads rely, by rule later."""
    rules = state.rules
    account = state.accounts[order.account]
    change = quantity * leg.sign
    account.truth[leg.symbol] = account.truth.get(leg.symbol, 0) + change
    lag_ms = rules.position_lag_ms
    if rules.position_jitter_ms:
        lag_ms += state.rng.randint(0, rules.position_jitter_ms)
    if lag_ms:
        state.after(lag_ms, _move_record, account, leg.instrument, change, price, order.id)
    else:
        _move_record(state, account, leg.instrument, change, price, order.id)


def move_position(
    state: State, account: Account, found: Instrument, change: int, price: Decimal, order_id: int | None
) -> None:
    """Move truth and record at once, as an expiry or an assignment does."""
    account.truth[found.symbol] = account.truth.get(found.symbol, 0) + change
    _move_record(state, account, found, change, price, order_id)


def _move_record(
    state: State, account: Account, found: Instrument, change: int, price: Decimal, order_id: int | None
) -> None:
    position = account.apply_to_record(found, change, price, state.now_us)
    mark = state.mark(found.symbol)
    if mark is not None:
        account.revalue(found.symbol, mark)
    state.say_position(account.number, position, order_id)


def _tell(state: State, order: Order, before: list[int], is_several_legs: bool) -> None:
    """Say the fill: by rule first with one leg's fills only, the complete order a moment later."""
    rules = state.rules
    is_split = rules.first_filled_one_leg if order.status == FILLED else rules.partial_one_leg_first
    if is_split and is_several_legs:
        order.shown = [len(order.legs[0].fills), *before[1:]]
        state.touch(order)
        state.after(rules.leg_gap_ms, _complete_message, order, order.shown)
        return
    order.shown = None
    state.touch(order)


def _complete_message(state: State, order: Order, shown: list[int]) -> None:
    if order.shown is shown:
        order.shown = None
        state.touch(order)
