"""Brackets at the stages of a life, for tests of storage: made by hand, so that no rule of the domain is needed."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from otocod.domain.brackets import Bracket, BracketState, OnDoubleExit, OnUnprotectable, Outcome, Policy
from otocod.domain.decisions import JournalEntry
from otocod.domain.events import Event, TimeReached
from otocod.domain.ids import AccountNumber, BracketId, BrokerOrderId, ExternalIdentifier, FillId, RequestId
from otocod.domain.orders import BrokerStatus, Fill, LegReport, Order, OrderReport, OrderState
from otocod.domain.request_types import BracketRequest, OutsidePolicy, StopByPrice, TargetByPercent
from otocod.domain.specs import (
    Action,
    InstrumentType,
    Leg,
    OrderSpec,
    OrderType,
    Protection,
    Role,
    TimeInForce,
)
from otocod.domain.steps import Accepted, Step, Told
from otocod.ports.store import AcceptedRow, BracketChange

START_US = 1_790_000_000_123_456
ACCOUNT = AccountNumber("5WT00001")
_SPACE = uuid.UUID("7a0f6f3e-0000-4000-8000-000000000001")

STAGE_REACHED = TimeReached()
SHORT = "AAPL  261218C00155000"
LONG = "AAPL  261218C00157500"


def spread(quantity: int = 1, *, closing: bool = False) -> tuple[Leg, ...]:
    actions = (Action.SELL_TO_OPEN, Action.BUY_TO_OPEN)
    legs = zip((SHORT, LONG), actions, strict=True)
    return tuple(
        Leg(InstrumentType.EQUITY_OPTION, symbol, action.closing() if closing else action, quantity)
        for symbol, action in legs
    )


def limit(price: str, quantity: int = 1, *, closing: bool = False) -> OrderSpec:
    return OrderSpec(
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.GTC if closing else TimeInForce.DAY,
        legs=spread(quantity, closing=closing),
        net_price=Decimal(price),
        strict=closing,
    )


def stop_limit(trigger: str, price: str) -> OrderSpec:
    return replace(limit(price, closing=True), order_type=OrderType.STOP_LIMIT, stop_trigger=Decimal(trigger))


def a_request(text: str = "{}", **changes: object) -> BracketRequest:
    request = BracketRequest(
        version=1,
        entry=limit("-0.85"),
        target=TargetByPercent(Decimal("50")),
        stop=StopByPrice(Decimal("1.70"), Decimal("1.90")),
        target_time_in_force=TimeInForce.GTC,
        stop_time_in_force=TimeInForce.DAY,
        not_after_us=START_US + 600_000_000,
        protection=Protection.AUTO,
        rest=Role.STOP,
        partial_entry_grace_us=30_000_000,
        on_outside_change=OutsidePolicy.HOLD,
        tags=(("desk", "vol"), ("note", "“quoted” \\ ünïcode")),
        text=text,
    )
    return replace(request, **changes)  # type: ignore[arg-type]


def accepted(number: int = 1, **changes: object) -> Bracket:
    """PENDING_ENTRY, the entry sent, three spares a role staged."""
    bracket_id = str(uuid.uuid5(_SPACE, str(number)))
    roles = (Role.ENTRY,) * 4 + (Role.TARGET,) * 4 + (Role.STOP,) * 4
    ids = [(role, ExternalIdentifier(str(uuid.uuid5(_SPACE, f"{number}/{n}")))) for n, role in enumerate(roles)]
    entry = Order(ids[0][1], Role.ENTRY, limit("-0.85"), OrderState.IN_FLIGHT, START_US)
    bracket = Bracket(
        bracket_id=BracketId(bracket_id),
        client_ref=f"ref-{number}",
        account=ACCOUNT,
        request=a_request(text=f'{{"n":{number}}}'),
        policy=Policy(5_000_000, OnUnprotectable.CLOSE, OnDoubleExit.ALERT),
        created_at_us=START_US + number,
        state=BracketState.PENDING_ENTRY,
        ladder=(Protection.NATIVE_OCO, Protection.WATCHED),
        orders=(entry,),
        staged=tuple(ids[1:]),
        ids_made=len(ids),
    )
    return replace(bracket, **changes)  # type: ignore[arg-type]


def filled_report(number: int, order: Order, short: str, long: str) -> OrderReport:
    return OrderReport(
        broker_order_id=BrokerOrderId(str(9_007_199_254_740_993 + number)),
        status=BrokerStatus.FILLED,
        status_text="Filled",
        legs=tuple(
            LegReport(
                leg.symbol, leg.action, 1, 0, (Fill(FillId(f"{number}:{leg.symbol}"), 1, Decimal(price), START_US),)
            )
            for leg, price in zip(order.spec.legs, (short, long), strict=True)
        ),
        external_identifier=order.external_identifier,
        source="otocod/test",
    )


def entry_filled(before: Bracket) -> Bracket:
    """ENTRY_FILLED at a credit of 0.85, both exits sent, protection not yet confirmed."""
    entry = replace(before.orders[0].learn(filled_report(1, before.orders[0], "1.05", "0.20")), state=OrderState.FILLED)
    target_id = next(name for role, name in before.staged if role is Role.TARGET)
    stop_id = next(name for role, name in before.staged if role is Role.STOP)
    target = Order(
        target_id, Role.TARGET, limit("0.42", closing=True), OrderState.IN_FLIGHT, START_US + 10, group=target_id
    )
    stop = Order(stop_id, Role.STOP, stop_limit("1.70", "1.90"), OrderState.IN_FLIGHT, START_US + 10, group=target_id)
    return replace(
        before,
        state=BracketState.ENTRY_FILLED,
        orders=(entry, target, stop),
        staged=tuple(pair for pair in before.staged if pair[1] not in (target_id, stop_id)),
        first_fill_us=START_US + 5,
        unprotected_since_us=START_US + 5,
        version=before.version + 1,
    )


def protected(before: Bracket) -> Bracket:
    return replace(
        before,
        state=BracketState.EXITS_LIVE,
        orders=(before.orders[0], *(replace(order, state=OrderState.WORKING) for order in before.orders[1:])),
        unprotected_since_us=None,
        unprotected_us=4_000,
        version=before.version + 1,
    )


def closed(before: Bracket) -> Bracket:
    """CLOSED by its target at a debit of 0.40; the spares are dropped."""
    entry, target, stop = before.orders
    target = replace(target.learn(filled_report(2, target, "0.55", "0.15")), state=OrderState.FILLED)
    return replace(
        before,
        state=BracketState.CLOSED,
        outcome=Outcome.TARGET_FILLED,
        orders=(entry, target, replace(stop, state=OrderState.CANCELLED)),
        staged=(),
        closed_at_us=START_US + 99,
        version=before.version + 1,
    )


def life(number: int = 1) -> list[Bracket]:
    stages = [accepted(number)]
    for step in (entry_filled, protected, closed):
        stages.append(step(stages[-1]))
    return stages


def change(
    before: Bracket | None,
    after: Bracket,
    *,
    told: Event = STAGE_REACHED,
    journal: Sequence[JournalEntry] | None = None,
) -> BracketChange:
    """The change from one stage to the next, with the row of the queue when it is an acceptance."""
    name = {
        BracketState.PENDING_ENTRY: "BracketAccepted",
        BracketState.ENTRY_FILLED: "EntryFilled",
        BracketState.EXITS_LIVE: "ProtectionConfirmed",
        BracketState.CLOSED: "TargetFilled",
    }.get(after.state, "Changed")
    from_state = None if before is None else before.state
    row = AcceptedRow(RequestId(7), after.client_ref, after.account, after.request.text) if before is None else None
    at_us = after.created_at_us + after.version
    entries = (JournalEntry(name, from_state, after.state),) if journal is None else tuple(journal)
    given = Accepted(at_us, after.ladder, 0) if before is None else Told(at_us, (told,))
    return BracketChange(
        before=before,
        after=after,
        journal=entries,
        at_us=at_us,
        steps=(Step(given, (), len(entries)),),
        row=row,
    )


def changes_of_life(number: int = 1) -> list[BracketChange]:
    stages = life(number)
    return [change(before, after) for before, after in zip([None, *stages], stages, strict=False)]
