"""What can be read of the exchange; nothing here changes anything or moves time."""

from collections.abc import Container, Mapping
from typing import Any

from otocod.paper import sessions, wire
from otocod.paper.complex_orders import complex_object
from otocod.paper.errors import not_found
from otocod.paper.matching import Quote
from otocod.paper.orders import Order
from otocod.paper.positions import account_object, balance_object, position_object, trading_status_object
from otocod.paper.sessions import Session
from otocod.paper.state import State

Json = dict[str, Any]


class Views:
    """Reads by account are Refused 403 for a foreign account; single records 404 when they are not there."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.rules = state.rules

    @property
    def now(self) -> int:
        """The latest time told, UTC microseconds."""
        return self._state.now_us

    @property
    def accounts(self) -> tuple[str, ...]:
        return tuple(self._state.accounts)

    @property
    def log(self) -> list[Json]:
        """The truth, append-only, also over resets."""
        return self._state.log

    @property
    def quotes(self) -> Mapping[str, Quote]:
        return self._state.quotes

    def order(self, account: str, order_id: int) -> Json:
        return wire.order_object(self._state.order_of(account, order_id))

    def complex_order(self, account: str, complex_id: int) -> Json:
        return complex_object(self._state.complex_of(account, complex_id))

    def orders(self, account: str, statuses: Container[str] | None = None, since_us: int = 0) -> list[Json]:
        """Orders of the account, oldest first, those younger than `read_lag_ms` not yet; of some statuses only, or
        received at `since_us` or later, when asked."""
        state = self._state
        state.account(account)
        newest_us = state.now_us - self.rules.read_lag_ms * 1000
        return [
            wire.order_object(order)
            for order in state.orders.values()
            if order.account == account
            and since_us <= order.received_us <= newest_us
            and (statuses is None or order.status in statuses)
        ]

    def complex_orders(self, account: str) -> list[Json]:
        state = self._state
        state.account(account)
        newest_us = state.now_us - self.rules.read_lag_ms * 1000
        return [
            complex_object(found)
            for found in state.complexes.values()
            if found.account == account and found.components()[0].received_us <= newest_us
        ]

    def positions(self, account: str, include_closed: bool = False) -> list[Json]:
        """The broker's record, which may lag behind the fills by rule."""
        state = self._state
        owner = state.account(account)
        found = [*owner.record.values(), *(owner.closed.values() if include_closed else ())]
        return [position_object(account, position, state.mark(position.instrument.symbol)) for position in found]

    def true_positions(self, account: str) -> dict[str, int]:
        """Signed contracts by symbol, without lag; what a checker compares with."""
        return {symbol: quantity for symbol, quantity in self._state.account(account).truth.items() if quantity}

    def balances(self, account: str) -> Json:
        found = self._state.account(account)
        return balance_object(found, self._state.now_us)

    def trading_status(self, account: str) -> Json:
        return trading_status_object(self._state.account(account), self.rules, self._state.now_us)

    def account_record(self, account: str) -> Json:
        return account_object(self._state.account(account), self.rules)

    def transactions(self, account: str) -> list[Json]:
        """The ledger, oldest first."""
        return list(self._state.account(account).ledger)

    def session(self) -> Session:
        """The session that runs, else the next one."""
        return sessions.current_or_next(self.rules, self._state.now_us)

    def exchange_view(self) -> list[Json]:
        """Every order of every account as it truly is: no lag, no withheld fills."""
        return [self._truth_of(order) for order in self._state.orders.values()]

    def exchange_order(self, order_id: int) -> Json:
        return self._truth_of(self._any_order(order_id))

    def _any_order(self, order_id: int) -> Order:
        order = self._state.orders.get(order_id)
        if order is None:
            raise not_found(f"Order with id {order_id}")
        return order

    def _truth_of(self, order: Order) -> Json:
        shown, order.shown = order.shown, None
        data = wire.order_object(order)
        order.shown = shown
        return data
