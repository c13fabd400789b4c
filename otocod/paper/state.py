"""Everything the exchange knows, its agenda of due steps, and what it has to say. No rules of the market here."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Protocol

from otocod.paper import sessions, wire
from otocod.paper.errors import not_found, not_permitted
from otocod.paper.matching import Quote
from otocod.paper.orders import Order, digest
from otocod.paper.positions import Account, Position, balance_object, position_object
from otocod.paper.rules import Rules

if TYPE_CHECKING:
    from otocod.paper.complex_orders import ComplexOrder

FIRST_ORDER_ID = 771_000
FIRST_COMPLEX_ID = 56_544


@dataclass(frozen=True, slots=True)
class Notice:
    """What the account streamer must say: `data` is the full object as it was at `at_us`."""

    at_us: int
    account: str
    type: str
    data: dict[str, Any]


class Listener(Protocol):
    """Told of fills and of ends without a complete fill; what links orders to each other."""

    def filled(self, state: "State", order: Order, units: int) -> None: ...

    def ended(self, state: "State", order: Order) -> None: ...


class State:
    def __init__(self, rules: Rules, seed: int, now_us: int, accounts: Sequence[str]) -> None:
        self.rules = rules
        self.rng = random.Random(seed)
        self.now_us = now_us
        self.notices: list[Notice] = []
        self.log: list[dict[str, Any]] = []
        self.listeners: list[Listener] = []
        self.next_order_id = FIRST_ORDER_ID
        self.next_complex_id = FIRST_COMPLEX_ID
        self.next_fill_id = 1
        self._sequence = 0
        self.clear(accounts)

    def clear(self, accounts: Sequence[str]) -> None:
        """A fresh day: no orders, no quotes, new accounts. Ids and the log go on."""
        self.accounts = {number: Account(number, Decimal(self.rules.starting_cash), self.now_us) for number in accounts}
        self.quotes: dict[str, Quote] = {}
        self.orders: dict[int, Order] = {}
        self.complexes: dict[int, ComplexOrder] = {}
        self.unfinished: dict[int, Order] = {}
        # Orders whose quantity counts in preflight, by account, symbol and action.
        self.working: dict[tuple[str, str, str], dict[int, Order]] = {}
        # Orders that a quote of the symbol can move, oldest first.
        self.watching: dict[str, dict[int, Order]] = {}
        self.stuck: dict[int, Order] = {}
        self._agenda: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.session = sessions.current_or_next(self.rules, self.now_us)
        self.is_open = self.session.is_open(self.now_us)
        self.session_token = 0

    # Time.

    def after(self, delay_ms: int, step: Callable[..., None], *args: Any) -> None:
        """Do `step(state, *args)` so many milliseconds from now; steps of one instant run in the order given."""
        self.at(self.now_us + delay_ms * 1000, step, *args)

    def at(self, due_us: int, step: Callable[..., None], *args: Any) -> None:
        self._sequence += 1
        heappush(self._agenda, (due_us, self._sequence, step, args))

    def next_due_us(self) -> int | None:
        return self._agenda[0][0] if self._agenda else None

    def run_until(self, now_us: int) -> None:
        """Run what is due, each step at its own time. Time never goes back."""
        agenda = self._agenda
        while agenda and agenda[0][0] <= now_us:
            due_us, _, step, args = heappop(agenda)
            self.now_us = max(self.now_us, due_us)
            step(self, *args)
        self.now_us = max(self.now_us, now_us)

    # Look-up.

    def account(self, number: str) -> Account:
        account = self.accounts.get(number)
        if account is None:
            raise not_permitted()
        return account

    def order_of(self, account: str, order_id: int) -> Order:
        self.account(account)
        order = self.orders.get(order_id)
        if order is None or order.account != account:
            raise not_found(f"Order with id {order_id}")
        return order

    def complex_of(self, account: str, complex_id: int) -> "ComplexOrder":
        self.account(account)
        found = self.complexes.get(complex_id)
        if found is None or found.account != account:
            raise not_found(f"ComplexOrder with id {complex_id}")
        return found

    # Indexes.

    def add(self, order: Order) -> None:
        """Give the order its id and remember it."""
        order.id = self.next_order_id
        self.next_order_id += 1
        order.received_us = self.now_us
        order.constant = None
        self.orders[order.id] = order
        self.unfinished[order.id] = order
        # A new order after the close belongs to the next session, and expires with that one.
        order.session_day = self.session.day

    def count(self, order: Order) -> None:
        """From now on the order's quantity counts in preflight."""
        for leg in order.legs:
            self.working.setdefault((order.account, leg.symbol, leg.action), {})[order.id] = order

    def watch(self, order: Order) -> None:
        for leg in order.legs:
            self.watching.setdefault(leg.symbol, {})[order.id] = order

    def unwatch(self, order: Order) -> None:
        for leg in order.legs:
            _drop(self.watching, leg.symbol, order.id)

    def forget(self, order: Order) -> None:
        """The order is terminal: it works, counts and waits nowhere."""
        self.unwatch(order)
        for leg in order.legs:
            _drop(self.working, (order.account, leg.symbol, leg.action), order.id)
        self.unfinished.pop(order.id, None)
        self.stuck.pop(order.id, None)

    # Saying.

    def touch(self, order: Order) -> None:
        """Say the order's present state on the stream."""
        order.updated_us = self.now_us
        self.say(order.account, "Order", wire.order_object(order))
        if self.rules.balance_notices == "orders":
            self.say_balance(order.account)

    def say(self, account: str, kind: str, data: dict[str, Any]) -> None:
        self.notices.append(Notice(self.now_us, account, kind, data))

    def say_balance(self, account: str) -> None:
        found = self.accounts[account]
        self.say(account, "AccountBalance", balance_object(found, self.now_us))

    def say_position(self, account: str, position: Position, order_id: int | None) -> None:
        data = position_object(account, position, self.mark(position.instrument.symbol))
        if order_id is not None:
            data["order-id"] = order_id
        self.say(account, "CurrentPosition", data)

    def mark(self, symbol: str) -> Decimal | None:
        quote = self.quotes.get(symbol)
        return None if quote is None else quote.mid

    def note(self, event: str, order: Order | None = None, **more: Any) -> None:
        """Append to the truth log."""
        entry: dict[str, Any] = {"seq": len(self.log), "at_us": self.now_us, "event": event}
        if order is not None:
            entry["account"] = order.account
            entry["order-id"] = order.id or None
            entry["external-identifier"] = order.external_identifier
            entry["source"] = order.source
            entry["status"] = order.status
            if order.complex is not None:
                entry["complex-order-id"] = order.complex.id
                entry["complex-order-tag"] = order.tag
        entry.update(more)
        self.log.append(entry)

    def note_accepted(self, order: Order, operation: str) -> None:
        extra: dict[str, Any] = {"replaces-order-id": order.replaces.id} if order.replaces else {}
        self.note("accepted", order, operation=operation, by=order.by, **extra, **digest(order))


def _drop(index: dict[Any, dict[int, Order]], key: Any, order_id: int) -> None:
    orders = index.get(key)
    if orders is not None:
        orders.pop(order_id, None)
        if not orders:
            del index[key]
