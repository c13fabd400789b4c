"""Adoption: is the position really there, all of it, and nobody's but the operator's? Then a bracket goes around it.

The broker is asked first and nothing is sent before the bracket is on disk. It is an intent like any other: a crash
after its commit leaves a bracket whose position is open and unprotected, which the next start protects.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from otocod.domain.brackets import BracketState
from otocod.domain.events import TimeReached
from otocod.domain.ids import AccountNumber, BracketId
from otocod.domain.orders import OrderReport
from otocod.domain.request import canonical_text, parse_request
from otocod.domain.request_types import BracketRequest, RequestRefused
from otocod.domain.specs import OrderType, Protection
from otocod.domain.spreads import LegFill, net_price
from otocod.domain.steps import Origin, TakenOver, decided
from otocod.domain.takeover import fills_for_price, fills_of_orders, reasons_against
from otocod.engine.capabilities import product_of
from otocod.engine.intake import exchange_day
from otocod.engine.positions import signed_position
from otocod.engine.slots import Priority
from otocod.engine.supervisor import Supervisor
from otocod.logs import get_log
from otocod.ports.admin import AdminFailed, AdminRefused, BrokerUnreachable
from otocod.ports.broker import ReadFailed
from otocod.ports.store import StoreFailed

log = get_log(__name__)

# So far back the orders that opened a position are looked for.
FILLS_REACH_US = 90 * 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class Takeover:
    account: AccountNumber
    client_ref: str
    request_text: str
    from_fills: bool  # what it cost is what the broker's fills make, not the entry's price
    by: str


class TakeoverDesk:
    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._lock = asyncio.Lock()  # two at once would both find the position unclaimed

    async def take_over(self, asked: Takeover) -> BracketId:
        """The bracket; its protection is on the way. Raises AdminRefused with every reason, or BrokerUnreachable."""
        request = self._parse(asked)
        async with self._lock:
            first = await self._first(asked)
            if first is not None:
                return first
            try:
                async with self._supervisor.slots.slot(Priority.RECONCILE):
                    positions = await self._supervisor.broker.positions(asked.account)
                    working = await self._supervisor.broker.live_orders(asked.account)
                    opened = await self._opened(asked)
            except ReadFailed as error:
                raise BrokerUnreachable(f"the account could not be looked at: {error}") from None
            held = {position.symbol: position.signed_quantity for position in positions}
            reasons = [
                *self._not_held(asked.account, request, held),
                *self._worked_on(asked.account, request, working.reports),
            ]
            fills = _fills(asked, request, opened, reasons)
            if reasons or fills is None:
                raise AdminRefused(tuple(reasons))
            return await self._accept(asked, request, fills)

    def _parse(self, asked: Takeover) -> BracketRequest:
        now_us = self._supervisor.clock.now_us()
        try:
            request = parse_request(
                asked.request_text,
                account=asked.account,
                accounts=self._supervisor.settings.accounts,
                created_at_us=now_us,
                now_us=now_us,
                today=exchange_day(now_us),
                is_zone=self._supervisor.is_zone,
            )
        except RequestRefused as refused:
            raise AdminRefused(refused.reasons) from None
        if request.entry.order_type is not OrderType.LIMIT:
            raise AdminRefused(("entry.order-type: Limit, with the price at which the position was opened",))
        return request

    async def _first(self, asked: Takeover) -> BracketId | None:
        first = await self._supervisor.store.bracket_of_ref(asked.client_ref)
        if first is None:
            return None
        bracket_id, account, text = first
        if account == asked.account and canonical_text(asked.request_text) == text:
            return bracket_id
        raise AdminRefused((f"duplicate client_ref: bracket {bracket_id} has it with another account or request",))

    async def _opened(self, asked: Takeover) -> tuple[OrderReport, ...]:
        if not asked.from_fills:
            return ()
        from_us = self._supervisor.clock.now_us() - FILLS_REACH_US
        listing = await self._supervisor.broker.search(asked.account, from_us=from_us, statuses=("Filled",))
        return listing.reports

    def _not_held(self, account: AccountNumber, request: BracketRequest, held: Mapping[str, int]) -> Iterable[str]:
        """Brackets of ours never borrow from each other: what they hold is not there to be adopted."""
        claimed: dict[str, int] = {}
        claimants: dict[str, list[str]] = {}
        for bracket in self._supervisor.mailboxes.open_brackets():
            if bracket.account != account:
                continue
            for symbol, quantity in signed_position(bracket).items():
                if quantity:
                    claimed[symbol] = claimed.get(symbol, 0) + quantity
                    claimants.setdefault(symbol, []).append(f"ref:{bracket.client_ref}")
        for leg in request.entry.legs:
            wanted = leg.quantity if leg.action.is_buy else -leg.quantity
            found, ours = held.get(leg.symbol, 0), claimed.get(leg.symbol, 0)
            free = found - ours
            if free * wanted > 0 and abs(free) >= abs(wanted):
                continue
            text = f"entry.legs: the account has {found:+d} {leg.symbol.strip()}, {wanted:+d} are to be adopted"
            if ours:
                text += f" and {ours:+d} belong to {', '.join(claimants[leg.symbol])}"
            yield text

    def _worked_on(
        self, account: AccountNumber, request: BracketRequest, reports: Iterable[OrderReport]
    ) -> Iterable[str]:
        """The broker takes one closing order for a position, and no opposite orders on a symbol."""
        symbols = {leg.symbol for leg in request.entry.legs}
        for bracket in self._supervisor.mailboxes.open_on(symbols):
            if bracket.account == account and bracket.state is BracketState.PENDING_ENTRY:
                yield f"entry.legs: the entry of ref:{bracket.client_ref} works on the same symbols: cancel it first"
        for report in reports:
            shared = sorted(symbols & {leg.symbol for leg in report.legs})
            if shared and not report.status.is_terminal and self._supervisor.mailboxes.owner_of(report) is None:
                names = ", ".join(symbol.strip() for symbol in shared)
                yield (
                    f"entry.legs: order {report.broker_order_id} works on {names}, and the broker would refuse the"
                    " exits beside it: cancel it first"
                )

    async def _accept(self, asked: Takeover, request: BracketRequest, fills: tuple[LegFill, ...]) -> BracketId:
        supervisor = self._supervisor
        is_refused = supervisor.capabilities.is_refused(asked.account, product_of(request), Protection.NATIVE_OCO)
        origin = Origin(supervisor.make_id(), asked.client_ref, asked.account, request, supervisor.policy)
        given = TakenOver(
            now_us=supervisor.clock.now_us(),
            fills=fills,
            proved=() if is_refused else (Protection.NATIVE_OCO,),
            by=asked.by,
            broker_clock_offset_us=supervisor.reconciler.clock_offset_us,
        )
        decision = decided(None, given, origin)
        try:
            await supervisor.mailboxes.accept(decision, given)
        except StoreFailed as error:
            raise AdminFailed(f"the database does not take it ({error}): nothing was sent") from None
        bracket_id = decision.bracket.bracket_id
        log.info("position_adopted", bracket_id=bracket_id, client_ref=asked.client_ref, by=asked.by)
        supervisor.tell(bracket_id, TimeReached())
        await supervisor.mailboxes.saved(bracket_id)
        return bracket_id


def _fills(
    asked: Takeover, request: BracketRequest, opened: tuple[OrderReport, ...], reasons: list[str]
) -> tuple[LegFill, ...] | None:
    legs, price = request.entry.legs, request.entry.net_price
    if not asked.from_fills:
        assert price is not None
        fills = fills_for_price(legs, price)
        if fills is None:
            reasons.append("entry.price-effect: nothing is sold for a credit, or bought for a debit, by these legs")
        return fills
    fills = fills_of_orders(legs, opened)
    if fills is None:
        reasons.append(
            "no filled orders of just these legs make up the position (of the last 90 days): leave --from-fills out and"
            " give the price in entry.price"
        )
        return None
    paid = net_price(legs, fills)
    assert paid is not None
    reasons.extend(reasons_against(request, paid))
    return fills
