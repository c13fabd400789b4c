"""A position that was there already, as a bracket: its entry is on record as filled, and nothing of it is ever posted.

The record of the entry is an order like any other, under an identifier of ours that no request carries, with one view
that the broker never sent. So whatever looks at an entry's fills (what is open, what it cost, whether exits may go)
needs to know nothing of where they come from.
"""

from collections.abc import Iterable
from decimal import Decimal

from otocod.domain.acceptance import ladder_for
from otocod.domain.brackets import STAGED_ROLES, Bracket, BracketState, Policy, order_net_fill_price
from otocod.domain.decisions import Decision, JournalEntry
from otocod.domain.exits import exit_specs, trigger_net_price
from otocod.domain.ids import AccountNumber, BracketId, BrokerOrderId, FillId
from otocod.domain.machine import BracketEvent
from otocod.domain.orders import ADOPTED, BrokerStatus, Fill, LegView, OrderReport, OrderState, View
from otocod.domain.prices import plain
from otocod.domain.request_types import BracketRequest, StopByPrice
from otocod.domain.specs import Leg, Protection, Role
from otocod.domain.spreads import LegFill, size_of
from otocod.domain.turn import Turn


def fills_for_price(legs: tuple[Leg, ...], price: Decimal) -> tuple[LegFill, ...] | None:
    """Fills that make this net price of a unit. What each leg cost is not known, so one leg carries all of it.

    None: no leg can, since nothing was sold for a credit, or bought for a debit.
    """
    bearers = [leg for leg in legs if leg.action.is_buy == (price > 0)]
    if not bearers:
        return None
    bearer = min(bearers, key=lambda leg: leg.quantity)
    cost = abs(price) * size_of(legs) / bearer.quantity
    return tuple((leg.symbol, leg.action, leg.quantity, cost if leg is bearer else Decimal(0)) for leg in legs)


def fills_of_orders(legs: tuple[Leg, ...], reports: Iterable[OrderReport]) -> tuple[LegFill, ...] | None:
    """The fills that opened the position, of orders with just these legs, the newest first. None: too few of them."""
    wanted = {(leg.symbol, leg.action) for leg in legs}
    missing = {leg.symbol: leg.quantity for leg in legs}
    found: list[LegFill] = []
    for report in sorted(reports, key=lambda report: report.received_at_us or 0, reverse=True):
        if {(leg.symbol, leg.action) for leg in report.legs} != wanted:
            continue
        for leg in report.legs:
            for fill in leg.fills:
                quantity = min(fill.quantity, missing[leg.symbol])
                if quantity and leg.action is not None:
                    missing[leg.symbol] -= quantity
                    found.append((leg.symbol, leg.action, quantity, fill.price))
    return None if any(missing.values()) else tuple(found)


def reasons_against(request: BracketRequest, price: Decimal) -> list[str]:
    """Why these exits do not go with what the position really cost; the request was judged by its own price."""
    specs = exit_specs(request, entry_net_price=price, units=1)
    told = f"the position was opened at a {'credit' if price < 0 else 'debit'} of {plain(abs(price))}"
    found = []
    if specs.target is not None and specs.target.net_price is not None and specs.target.net_price >= -price:
        found.append(f"target: {plain(abs(specs.target.net_price))} is no profit: {told}")
    if isinstance(request.stop, StopByPrice) and specs.stop is not None:
        trigger = trigger_net_price(specs.stop)
        if trigger is not None and trigger <= -price:
            found.append(f"stop: {plain(abs(trigger))} is no loss: {told}")
    return found


def take_over(
    request: BracketRequest,
    fills: tuple[LegFill, ...],
    *,
    bracket_id: BracketId,
    client_ref: str,
    account: AccountNumber,
    policy: Policy,
    proved: frozenset[Protection],
    by: str,
    now_us: int,
    broker_clock_offset_us: int = 0,
) -> Decision:
    """The new bracket, its position open and not yet protected. Nothing is asked for: that is the next decision's.

    `fills`: for each leg as many as the request says. Time runs from now: what was before is not known.
    """
    ladder = tuple(mode for mode in ladder_for(request, proved) if mode is not Protection.NATIVE_OTOCO)
    turn = Turn(
        Bracket(
            bracket_id=bracket_id,
            client_ref=client_ref,
            account=account,
            request=request,
            policy=policy,
            created_at_us=now_us,
            broker_clock_offset_us=broker_clock_offset_us,
            state=BracketState.PENDING_ENTRY,
            ladder=ladder,
        ),
        now_us,
    )
    for role in STAGED_ROLES:
        turn.stage(role)
    turn.journal.append(JournalEntry("AdoptionAccepted", None, BracketState.PENDING_ENTRY, by))
    entry, _ = turn.intend(Role.ENTRY, request.entry)
    entry = turn.put(
        entry, state=OrderState.FILLED, views=(_view(bracket_id, request.entry.legs, fills),), acknowledged_at_us=now_us
    )
    turn.set(first_fill_us=now_us, unprotected_since_us=now_us)
    price = order_net_fill_price(entry)
    assert price is not None, "fills of every leg, in ratio"
    told = f"{turn.bracket.size} at a {'credit' if price < 0 else 'debit'} of {plain(abs(price))}"
    turn.move(BracketEvent.FILL_ENTRY, "PositionAdopted", told)
    return turn.decision(turn.bracket)


def _view(bracket_id: BracketId, legs: tuple[Leg, ...], fills: tuple[LegFill, ...]) -> View:
    return View(
        broker_order_id=BrokerOrderId(f"adopted-{bracket_id}"),
        status=BrokerStatus.FILLED,
        status_text=ADOPTED,
        legs=tuple(
            LegView(leg.symbol, leg.quantity, 0, tuple(_fills(bracket_id, leg, fills)))
            for leg in sorted(legs, key=lambda leg: leg.symbol)
        ),
        replaces=None,
        replaced_by=None,
        cancelled_by=None,
        source=None,
        reject_reason=None,
        order_type=None,
        net_price=None,
        stop_trigger=None,
    )


def _fills(bracket_id: BracketId, leg: Leg, fills: tuple[LegFill, ...]) -> Iterable[Fill]:
    """Under names of their own: the broker's would stand for fills of an order that is not ours."""
    number = 0
    for symbol, _, quantity, price in fills:
        if symbol == leg.symbol:
            yield Fill(FillId(f"adopted-{bracket_id}-{symbol.strip()}-{number:04d}"), quantity, price)
            number += 1
