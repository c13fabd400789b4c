"""What truly happened in one account, from the paper broker's truth log, and what must not have.

It shares no code with the daemon and does not read its database: orders are told apart by what they do. A kill may
leave anything undone for a while, so a rule is judged at the moment that the daemon adds something: an identifier
leaves a second time, or an exit begins to work beside others.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

TERMINAL = frozenset({"Filled", "Cancelled", "Expired", "Rejected", "Removed", "Partially Removed"})
# The answers that prove that nothing was placed: only after these may an identifier leave again.
_PROVED_UNPLACED = (401, 429)


@dataclass(slots=True)
class TrueOrder:
    order_id: int
    name: str | None  # external identifier
    symbol: str  # of the first leg, which no other spread has
    units: int
    is_exit: bool
    is_stop: bool
    group: int | None  # complex order
    is_replacement: bool
    status: str = ""
    filled_by_leg: Counter[str] = field(default_factory=Counter)
    quantity_by_leg: dict[str, int] = field(default_factory=dict)

    @property
    def filled(self) -> int:
        """Units of the spread, by the leg that has filled most."""
        return max((n * self.units // self.quantity_by_leg[leg] for leg, n in self.filled_by_leg.items()), default=0)

    @property
    def leaves(self) -> int:
        return 0 if self.status in TERMINAL else self.units - self.filled

    @property
    def is_working(self) -> bool:
        return self.status not in TERMINAL and self.status not in ("", "Contingent")


def order_from_acceptance(entry: Json) -> TrueOrder:
    legs = [leg.split(" ", 4) for leg in entry["legs"]]  # Sell, to, Open, 2, symbol
    quantities = {leg[4]: int(leg[3]) for leg in legs}
    return TrueOrder(
        order_id=entry["order-id"],
        name=entry.get("external-identifier"),
        symbol=legs[0][4],
        units=min(quantities.values()),
        is_exit=legs[0][2] == "Close",
        is_stop=entry["order-type"].startswith("Stop"),
        group=entry.get("complex-order-id"),
        is_replacement=entry.get("replaces-order-id") is not None,
        quantity_by_leg=quantities,
    )


class Truth:
    """One account. `take` is given its entries in the order of the log."""

    def __init__(self) -> None:
        self.orders: dict[int, TrueOrder] = {}
        self.by_symbol: dict[str, list[TrueOrder]] = defaultdict(list)
        self.violations: list[str] = []
        self._spent: set[str] = set()
        self._placed: Counter[str] = Counter()
        self._unlinked: set[str] = set()

    def allow_unlinked(self, symbol: str) -> None:
        """Of this spread both exits may work at their full size: the request asks for it."""
        self._unlinked.add(symbol)

    def take(self, entry: Json) -> None:
        if entry["kind"] == "request":
            self._requested(entry)
        elif entry["event"] == "accepted":
            self._accepted(entry)
        elif entry["event"] == "fill":
            self.orders[entry["order-id"]].filled_by_leg[entry["symbol"]] += entry["quantity"]
        elif entry["event"] == "status":
            self._has_status(self.orders[entry["order-id"]], entry["status"])

    def _requested(self, entry: Json) -> None:
        if entry["method"] == "GET" or entry["path"].endswith("dry-run"):
            return
        for name in entry.get("external_identifiers", ()):
            if name in self._spent:
                self.violations.append(f"identifier {name} was posted again: {entry['method']} {entry['path']}")
            if entry["status"] not in _PROVED_UNPLACED:
                self._spent.add(name)

    def _accepted(self, entry: Json) -> None:
        order = order_from_acceptance(entry)
        self.orders[order.order_id] = order
        self.by_symbol[order.symbol].append(order)
        if entry["by"] != "api":
            return
        if order.name is not None and not order.is_replacement:
            self._placed[order.name] += 1
            if self._placed[order.name] == 2:
                self.violations.append(f"identifier {order.name} is at the broker twice, on {order.symbol}")
        if order.is_exit and not entry["strict"]:
            self.violations.append(f"exit {order.order_id} on {order.symbol} came without the strict flag")

    def _has_status(self, order: TrueOrder, status: str) -> None:
        was_working, order.status = order.is_working, status
        if order.is_exit and order.is_working and not was_working:
            self.violations.extend(self._beyond_position(order))

    def _beyond_position(self, newest: TrueOrder) -> Iterator[str]:
        on_spread = self.by_symbol[newest.symbol]
        exits = [order for order in on_spread if order.is_exit and order.is_working]
        position = self.position(newest.symbol)
        if newest.symbol in self._unlinked:
            exits = [order for order in exits if order.is_stop == newest.is_stop]
        # Of a group only one member can fill.
        leaves: dict[object, int] = {}
        for order in exits:
            key = order.group if order.group is not None else ("alone", order.order_id)
            leaves[key] = max(leaves.get(key, 0), order.leaves)
        working = sum(leaves.values())
        if working > position:
            listed = ", ".join(f"{order.order_id} ({order.leaves})" for order in exits)
            yield f"exits work {working} of {newest.symbol} with {position} open: {listed}"

    def position(self, symbol: str) -> int:
        """Units open, by the exchange's fills."""
        return sum(order.filled * (-1 if order.is_exit else 1) for order in self.by_symbol[symbol])

    def entries(self, symbol: str) -> list[TrueOrder]:
        return [order for order in self.by_symbol[symbol] if not order.is_exit]

    def working_exits(self, symbol: str) -> list[TrueOrder]:
        return [order for order in self.by_symbol[symbol] if order.is_exit and order.status == "Live"]

    def entered(self, symbol: str) -> int:
        return sum(order.filled for order in self.entries(symbol))

    def end_violations(self, sizes: Iterable[tuple[str, int]]) -> list[str]:
        """`sizes`: spread and units asked for. To be called when every bracket says that it is closed."""
        found = list(self.violations)
        for symbol, units in sizes:
            if self.entered(symbol) > units:
                found.append(f"{self.entered(symbol)} units of {symbol} were entered, {units} asked for")
            if self.position(symbol) != 0:
                found.append(f"{self.position(symbol)} units of {symbol} are still open")
        for order in self.orders.values():
            if order.status not in TERMINAL:
                found.append(f"order {order.order_id} on {order.symbol} is still {order.status}")
        return found
