"""The checks an order passes before it is accepted, each under its own rule. They read the position *record*."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from otocod.paper import margin, matching
from otocod.paper.errors import preflight_failure
from otocod.paper.orders import (
    CANCEL_REQUESTED,
    EXTENDED,
    GTC,
    GTD,
    LIMIT,
    MARKET,
    MARKETABLE_LIMIT,
    STOP,
    Leg,
    Order,
)
from otocod.paper.positions import Account
from otocod.paper.sessions import utc_day
from otocod.paper.state import State
from otocod.paper.symbols import EQUITY, EQUITY_OPTION, FUTURE_OPTION

MINUTE_US = 60_000_000
_BUYS = ("Buy to Open", "Buy to Close", "Buy")
_SELLS = ("Sell to Open", "Sell to Close", "Sell")
_NEXT_SESSION = ("tif.next_valid_session", "Your order will begin working during next valid session.")


@dataclass
class Verdict:
    """`errors` and `warnings` are (code, message); an order with errors is refused."""

    errors: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    effect: margin.Effect | None = None

    def refuse(self) -> None:
        if self.errors:
            # One entry a code: two legs with the same problem are one reason.
            first = dict(reversed(self.errors))
            raise preflight_failure([(code, first[code]) for code in dict.fromkeys(code for code, _ in self.errors)])


@dataclass(frozen=True)
class Around:
    """What else bears on the check of one order.

    excluded: ids of orders that count as gone (the original of a replacement). provided: signed contracts by symbol
    that an unfilled trigger will bring. is_child: its own reservation is judged when it is armed, not now.
    """

    excluded: frozenset[int] = frozenset()
    provided: Mapping[str, int] = field(default_factory=dict)
    is_child: bool = False


def check(state: State, order: Order, around: Around) -> Verdict:
    """All checks of one order; closing legs without a position are relabelled on the order itself, with a warning."""
    verdict = Verdict()
    account = state.accounts[order.account]
    is_checked = order.by != "user" or state.rules.hand_orders_checked
    _check_type(state, order, verdict)
    _check_product(state, order, verdict)
    _check_effect(state, order, verdict)
    _check_closing(state, account, order, around, verdict, is_checked)
    _check_opening(state, account, order, verdict)
    if is_checked and state.rules.opposite_sides and not around.is_child:
        _check_opposite(state, order, around, verdict)
    _check_account(state, order, verdict)
    if not state.is_open:
        _check_hours(order, verdict)
    if not verdict.errors:
        verdict.effect = margin.Effect(account, order, _expected_net(state, order))
        _check_margin(state, order, around, verdict)
    return verdict


def _check_type(state: State, order: Order, verdict: Verdict) -> None:
    rules, kind = state.rules, order.order_type
    if rules.market_one_leg and kind in (MARKET, STOP) and len(order.legs) > 1:
        verdict.errors.append(("invalid_order_type_for_legs", f"{kind} orders may only have one leg."))
    if rules.price_omitted and kind in (MARKET, MARKETABLE_LIMIT, STOP) and order.price is not None:
        verdict.errors.append(("order_must_omit_price", f"{kind} orders must omit the price."))
    if rules.gtc_market_refused and order.time_in_force in (GTC, GTD):
        if kind == MARKET:
            verdict.errors.append(("gtc_market_orders_not_supported", "GTC market orders are not supported."))
        if kind == STOP and any(leg.is_opening for leg in order.legs):
            verdict.errors.append(("gtc_opening_stop_orders_not_supported", "Opening stop orders must be Day."))
    if order.time_in_force in EXTENDED and (len(order.legs) > 1 or order.legs[0].instrument.instrument_type != EQUITY):
        verdict.errors.append(("tif_not_supported", "Extended hours are for single-leg equity orders only."))
    if rules.stop_through_market == "refuse" and order.is_stop and not order.is_held:
        reference = matching.stop_reference(order, state.quotes, rules.single_leg_stop_reference)
        if reference is not None and matching.is_triggered(order, reference):
            verdict.errors.append(("stop_price_through_market", "The stop price is already through the market."))


def _check_product(state: State, order: Order, verdict: Verdict) -> None:
    kinds = {leg.instrument.instrument_type for leg in order.legs}
    if order.is_stop and FUTURE_OPTION in kinds and not state.rules.future_option_stops:
        verdict.errors.append(("stop_orders_not_supported", "Stop orders are not available for futures options."))
    if len(order.legs) > 1 and not kinds <= {EQUITY, EQUITY_OPTION} and kinds != {FUTURE_OPTION}:
        verdict.errors.append(("instrument_validation_failed", "These instruments cannot be combined in one order."))
    if any(leg.action in ("Buy", "Sell") for leg in order.legs) and (len(order.legs) > 1 or kinds != {"Future"}):
        verdict.errors.append(("instrument_validation_failed", "Buy and Sell are for outright futures only."))
    if state.rules.sessions == "real":
        today = state.session.day
        for leg in order.legs:
            if leg.instrument.expiration is not None and leg.instrument.expiration < today:
                verdict.errors.append(("instrument_validation_failed", f"{leg.symbol} has expired."))


def _check_effect(state: State, order: Order, verdict: Verdict) -> None:
    if not state.rules.effect_check or order.limit is None:
        return
    if order.effect == "Credit" and all(leg.is_buy for leg in order.legs):
        verdict.errors.append(("cant_buy_for_credit", "You cannot buy for a credit."))
    if order.effect == "Debit" and not any(leg.is_buy for leg in order.legs):
        verdict.errors.append(("cant_sell_for_debit", "You cannot sell for a debit."))


def _check_closing(
    state: State, account: Account, order: Order, around: Around, verdict: Verdict, is_checked: bool
) -> None:
    for leg in order.legs:
        if not leg.is_closing:
            continue
        held = closable(leg, account.recorded(leg.symbol))
        coming = closable(leg, around.provided.get(leg.symbol, 0))
        if held == 0 and (coming == 0 or (order.strict and not state.rules.strict_on_children)):
            _without_position(state, order, leg, verdict)
        elif is_checked and state.rules.reservation and not around.is_child:
            used = reserved(state, order.account, leg, around.excluded)
            if used + leg.quantity > held + coming:
                verdict.errors.append(_too_much(leg, used))


def closable(leg: Leg, position: int) -> int:
    """How much of a signed position this leg would close."""
    return max(-position if leg.is_buy else position, 0)


def _without_position(state: State, order: Order, leg: Leg, verdict: Verdict) -> None:
    is_strict = order.strict and state.rules.honour_strict
    code = "closing_with_no_position"
    if is_strict or not state.rules.relabel_closing:
        verdict.errors.append((code, f"You are closing {leg.symbol.strip()} but have no position in it."))
        return
    leg.action = leg.action.replace("Close", "Open")
    verdict.warnings.append((code, f"{leg.symbol.strip()} will be changed to an opening order when routed."))


def _too_much(leg: Leg, used: int) -> tuple[str, str]:
    code = "cannot_close_against_more_than_existing_position"
    name = leg.instrument.underlying
    if used:
        return (
            code,
            f"You already have a closing order for {name} which must be canceled before this order can be routed.",
        )
    return code, f"You cannot close more than your existing position in {name}."


def reserved(state: State, account: str, leg: Leg, excluded: Iterable[int] = ()) -> int:
    """Closing quantity of the leg's symbol and side in non-terminal orders; the members of one OCO count once."""
    total = 0
    pairs: dict[int, int] = {}
    for other in state.working.get((account, leg.symbol, leg.action), {}).values():
        if other.id in excluded:
            continue
        if other.status == CANCEL_REQUESTED and state.rules.reserve_until == "cancel-requested":
            continue
        remaining = next(found.remaining for found in other.legs if found.symbol == leg.symbol)
        if other.complex is not None and other.complex.is_pair_member(other):
            pairs[other.complex.id] = max(pairs.get(other.complex.id, 0), remaining)
        else:
            total += remaining
    return total + sum(pairs.values())


def _check_opening(state: State, account: Account, order: Order, verdict: Verdict) -> None:
    rules = state.rules
    if not rules.open_against_position:
        for leg in order.legs:
            if leg.is_opening and closable(leg, account.recorded(leg.symbol)):
                side, held = ("buy", "short") if leg.is_buy else ("sell", "long")
                text = f"You cannot {side} to open against a {held} position."
                verdict.errors.append(("cannot_open_against_existing_position", text))
    shorts = [leg for leg in order.legs if leg.instrument.is_option and leg.is_opening and not leg.is_buy]
    longs = [leg for leg in order.legs if leg.is_opening and leg.is_buy]
    if shorts and not longs and rules.options_level != "No Restrictions":
        verdict.errors.append(("invalid_option_level", "You are not approved for selling uncovered options."))
    if rules.sessions == "real" and state.is_open and shorts:
        left_us = state.session.close_us - state.now_us
        is_last_day = any(leg.instrument.expiration == utc_day(state.now_us) for leg in shorts)
        if is_last_day and left_us <= rules.close_to_expiration_minutes * MINUTE_US:
            verdict.errors.append(("too_close_to_expiration", "Opening sells are too close to expiration."))


def _check_opposite(state: State, order: Order, around: Around, verdict: Verdict) -> None:
    for leg in order.legs:
        for action in _SELLS if leg.is_buy else _BUYS:
            for order_id in state.working.get((order.account, leg.symbol, action), ()):
                if order_id not in around.excluded:
                    text = "Cannot buy and sell against the same symbol."
                    verdict.errors.append(("illegal_buy_and_sell_on_same_symbol", text))
                    return


def _check_account(state: State, order: Order, verdict: Verdict) -> None:
    account_state = state.rules.account_state
    if account_state in ("frozen", "closed"):
        verdict.errors.append((f"account_{account_state}", f"This account is {account_state}."))
    elif account_state == "closing-only" and any(not leg.is_closing for leg in order.legs):
        verdict.errors.append(("closing_only", "This account is restricted to closing orders."))


def _check_hours(order: Order, verdict: Verdict) -> None:
    if order.order_type == MARKET and any(not leg.is_closing for leg in order.legs):
        text = "Opening market orders are not accepted while the market is closed."
        verdict.errors.append(("tif_no_after_hours_opening_market_orders", text))
    else:
        verdict.warnings.append(_NEXT_SESSION)


def _expected_net(state: State, order: Order) -> Decimal:
    if order.limit is not None:
        return order.limit
    if order.is_stop and order.stop_trigger is not None:
        return order.stop_trigger if order.is_debit else -order.stop_trigger
    return matching.natural(order.legs, state.quotes) or matching.ZERO


def _check_margin(state: State, order: Order, around: Around, verdict: Verdict) -> None:
    effect = verdict.effect
    if effect is None or around.is_child or not state.rules.margin_check:
        return
    if all(leg.is_closing for leg in order.legs) or effect.change >= 0:
        return
    if effect.current + effect.change < 0:
        text = "You do not have enough buying power for this order."
        verdict.errors.append(("margin_check_failed", text))


def warning_objects(verdicts: Iterable[tuple[str | None, Verdict]]) -> list[dict[str, Any]]:
    """`warnings` of the answer; the preflight id is a JSON string here, a number on the order."""
    items = []
    for preflight_id, verdict in verdicts:
        for code, message in verdict.warnings:
            item = {"code": code, "message": message}
            if preflight_id is not None:
                item["preflight-id"] = preflight_id
            items.append(item)
    return items


def is_immediate(state: State, order: Order) -> bool:
    """A limit that the present quotes would fill at once."""
    price = matching.natural(order.legs, state.quotes)
    return order.order_type == LIMIT and order.limit is not None and price is not None and price <= order.limit
