"""state.db as the audit understands it: rows and their JSON read anew, fills added up anew.

What is known of an order is in its *views*, one for each broker order id; a replacement has a new one. Fills count once
for each leg and fill id. A broker's `Filled`, or a remaining quantity, may tell of more than the fills known so far.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import gcd
from typing import Any

from otocod.adapters.sqlite.archive import archived, rows_in

TERMINAL_STATES = frozenset({"FILLED", "CANCELLED", "EXPIRED", "REJECTED", "ABSENT"})
TERMINAL_STATUSES = frozenset({"Rejected", "Expired", "Removed", "Partially Removed", "Cancelled", "Filled"})
EXIT_ROLES = ("target", "stop", "close")
# A fill and what it sets in motion are not one moment: what is being moved is judged this long after the last change.
SETTLE_US = 5_000_000
# Looking at the clock, a listing or a quote is no change; a bracket that looks often must not escape judgement by it.
_LOOKS = frozenset({"TimeReached", "SweepCompleted", "QuoteReported", "QuoteMissing"})


@dataclass(frozen=True, slots=True)
class Identifier:
    bracket_id: str
    role: str
    status: str  # STAGED, SUSPECT, USED, DROPPED


@dataclass(frozen=True, slots=True)
class StoredFill:
    quantity: int
    price: Decimal


FillKey = tuple[str, str]  # (symbol, fill id)


@dataclass(frozen=True, slots=True)
class StoredLeg:
    symbol: str
    action: str
    quantity: int

    @property
    def sign(self) -> int:
        """+1 for what is bought, -1 for what is sold."""
        return 1 if self.action.startswith("Buy") else -1


@dataclass(frozen=True, slots=True)
class ViewLeg:
    symbol: str
    quantity: int
    remaining: int
    fills: Mapping[str, StoredFill]  # by fill id

    @property
    def in_fills(self) -> int:
        return sum(fill.quantity for fill in self.fills.values())


@dataclass(frozen=True, slots=True)
class StoredView:
    broker_order_id: str
    status: str
    status_text: str
    replaces: str | None
    replaced_by: str | None
    source: str | None
    legs: tuple[ViewLeg, ...]

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL_STATUSES

    def untold(self, symbol: str) -> int:
        """Quantity that status or remaining say is filled and no fill has told of."""
        total = 0
        for leg in self.legs:
            if leg.symbol == symbol:
                claimed = leg.quantity if self.status == "Filled" else leg.quantity - leg.remaining
                total += max(0, claimed - leg.in_fills)
        return total


@dataclass(frozen=True, slots=True)
class StoredOrder:
    external_identifier: str
    role: str
    state: str
    status: str
    broker_order_id: str | None
    group: str | None
    quantity: int
    filled_quantity: int
    net_fill_price: str | None
    is_strict: bool
    replaces: str | None  # the external identifier of the order this one takes the place of
    acknowledged_at_us: int | None
    legs: tuple[StoredLeg, ...]
    views: tuple[StoredView, ...]
    fills_table: Mapping[FillKey, StoredFill]

    @property
    def name(self) -> str:
        return f"{self.role} {self.external_identifier}"

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL_STATES

    @property
    def heads(self) -> tuple[StoredView, ...]:
        """Views that no other view of this order has replaced."""
        ids = {view.broker_order_id for view in self.views}
        replaced = {view.replaces for view in self.views} | {
            view.broker_order_id for view in self.views if view.replaced_by in ids
        }
        return tuple(view for view in self.views if view.broker_order_id not in replaced)

    @property
    def fills(self) -> dict[FillKey, StoredFill]:
        """Every fill of every view, once."""
        return {
            (leg.symbol, fill_id): fill
            for view in self.views
            for leg in view.legs
            for fill_id, fill in leg.fills.items()
        }

    def filled(self, symbol: str) -> int:
        told = sum(fill.quantity for (leg, _), fill in self.fills.items() if leg == symbol)
        return told + sum(view.untold(symbol) for view in self.heads)

    def left(self, symbol: str) -> int:
        """What may still fill. The broker takes a group's member down by what the other one has filled."""
        asked = [leg.quantity for leg in self.legs if leg.symbol == symbol]
        if self.group is not None:
            asked += [leg.quantity for view in self.heads for leg in view.legs if leg.symbol == symbol]
        return max(0, min(asked, default=0) - self.filled(symbol))

    @property
    def has_fill(self) -> bool:
        return any(self.filled(leg.symbol) for leg in self.legs)

    @property
    def has_untold_fills(self) -> bool:
        return any(view.untold(leg.symbol) for view in self.views for leg in view.legs)

    @property
    def units(self) -> int:
        """Units of the spread this order is for."""
        return gcd(*(leg.quantity for leg in self.legs))

    @property
    def filled_units(self) -> int:
        """Whole units that every leg has filled."""
        units = self.units
        return min((self.filled(leg.symbol) * units // leg.quantity for leg in self.legs), default=0)


@dataclass(frozen=True, slots=True)
class StoredBracket:
    bracket_id: str
    client_ref: str
    account: str
    state: str
    outcome: str | None
    told: str  # everything that a person has been told of it: `attention` and, once acknowledged, what it was
    entry_net_price: str | None
    exit_net_price: str | None
    is_held: bool
    closed_at_us: int | None
    changed_at_us: int  # by the journal, mere looks left out
    entry_legs: tuple[StoredLeg, ...]  # as asked for
    orders: tuple[StoredOrder, ...]

    @property
    def is_closed(self) -> bool:
        return self.state == "CLOSED"

    @property
    def entries(self) -> tuple[StoredOrder, ...]:
        return tuple(order for order in self.orders if order.role == "entry")

    @property
    def exits(self) -> tuple[StoredOrder, ...]:
        return tuple(order for order in self.orders if order.role in EXIT_ROLES and not self._is_of_surplus(order))

    @property
    def surplus_closes(self) -> tuple[StoredOrder, ...]:
        """On the entry's own side: they take down what both exits have opened the wrong way."""
        return tuple(order for order in self.orders if self._is_of_surplus(order))

    def _is_of_surplus(self, order: StoredOrder) -> bool:
        side = {leg.symbol: leg.action.split()[0] for leg in self.entry_legs}
        return order.role == "close" and all(side.get(leg.symbol) == leg.action.split()[0] for leg in order.legs)

    def is_settling(self, now_us: int) -> bool:
        """Whether it changed too lately to be judged as a whole. After a clock set back it is judged all the same."""
        return abs(now_us - self.changed_at_us) < SETTLE_US

    def is_child_of_unfilled_entry(self, order: StoredOrder) -> bool:
        """Whether it hangs in a native group whose trigger has not filled: it cannot act yet."""
        return order.group is not None and any(
            entry.group == order.group and entry.state != "FILLED" for entry in self.entries
        )


def filled_by_leg(bracket: StoredBracket, orders: Iterable[StoredOrder]) -> dict[str, int]:
    found = tuple(orders)
    return {leg.symbol: sum(order.filled(leg.symbol) for order in found) for leg in bracket.entry_legs}


def open_by_leg(bracket: StoredBracket) -> dict[str, int]:
    """Entry fills less exit fills; negative was closed more often than opened, and not traded away since."""
    closed, back = filled_by_leg(bracket, bracket.exits), filled_by_leg(bracket, bracket.surplus_closes)
    return {s: filled - closed[s] + back[s] for s, filled in filled_by_leg(bracket, bracket.entries).items()}


@dataclass(frozen=True, slots=True)
class JournalRow:
    seq: int
    event: str
    from_state: str | None
    to_state: str
    payload_json: str | None


@dataclass(frozen=True, slots=True)
class Unreadable:
    bracket_id: str
    why: str


def read_identifiers(connection: sqlite3.Connection) -> dict[str, Identifier]:
    rows = connection.execute("SELECT external_identifier, bracket_id, role, status FROM external_identifiers")
    return {row[0]: Identifier(row[1], row[2], row[3]) for row in rows}


def read_brackets(
    connection: sqlite3.Connection,
) -> Iterator[tuple[StoredBracket, tuple[JournalRow, ...]] | Unreadable]:
    """Each bracket with its journal, oldest first. A row that cannot be read takes only its own bracket along."""
    for row in connection.execute("SELECT * FROM brackets ORDER BY created_at_us, bracket_id"):
        bracket_id = row["bracket_id"]
        journal_rows: list[Any] = connection.execute(
            "SELECT seq, at_us, event, from_state, to_state, detail, payload_json FROM journal WHERE bracket_id = ?"
            " ORDER BY seq",
            (bracket_id,),
        ).fetchall()
        kept = archived(connection, bracket_id)
        if kept is not None and not kept.is_there:
            continue  # `db check` says so; without its history it cannot be judged, and it closed long ago
        try:
            if kept is not None:
                journal_rows = [*rows_in(kept.path, bracket_id), *journal_rows]
            bracket = _bracket(connection, row, journal_rows)
        except (ValueError, TypeError, KeyError, ArithmeticError) as error:
            yield Unreadable(bracket_id, f"its rows cannot be read: {error!r}")
            continue
        names = ("seq", "event", "from_state", "to_state", "payload_json")
        yield bracket, tuple(JournalRow(*(row[name] for name in names)) for row in journal_rows)


def _bracket(connection: sqlite3.Connection, row: sqlite3.Row, journal: Sequence[Any]) -> StoredBracket:
    changes = [entry["at_us"] for entry in journal if entry["event"] not in _LOOKS]
    raised = [entry["detail"] for entry in journal if entry["event"] == "AttentionRaised"]
    orders = connection.execute("SELECT * FROM orders WHERE bracket_id = ? ORDER BY position", (row["bracket_id"],))
    return StoredBracket(
        bracket_id=row["bracket_id"],
        client_ref=row["client_ref"],
        account=row["account"],
        state=row["state"],
        outcome=row["outcome"],
        told="; ".join([*raised, row["attention"] or ""]),
        entry_net_price=row["entry_net_price"],
        exit_net_price=row["exit_net_price"],
        is_held=bool(row["is_held"]),
        closed_at_us=row["closed_at_us"],
        changed_at_us=max(changes, default=row["created_at_us"]),
        entry_legs=_legs(json.loads(row["request_json"])["rest"]["entry"]),
        orders=tuple(_order(connection, order) for order in orders.fetchall()),
    )


def _order(connection: sqlite3.Connection, row: sqlite3.Row) -> StoredOrder:
    spec, more = json.loads(row["spec_json"]), json.loads(row["more_json"])
    fills = connection.execute(
        "SELECT symbol, fill_id, quantity, price FROM fills WHERE external_identifier = ?",
        (row["external_identifier"],),
    )
    return StoredOrder(
        external_identifier=row["external_identifier"],
        role=row["role"],
        state=row["state"],
        status=row["status"],
        broker_order_id=row["broker_order_id"],
        group=row["group_id"],
        quantity=row["quantity"],
        filled_quantity=row["filled_quantity"],
        net_fill_price=row["net_fill_price"],
        is_strict=spec["strict"] is True,
        replaces=more["replaces"],
        acknowledged_at_us=more["acknowledged_at_us"],
        legs=_legs(spec),
        views=tuple(_view(view) for view in json.loads(row["views_json"])),
        fills_table={(fill[0], fill[1]): StoredFill(fill[2], Decimal(fill[3])) for fill in fills},
    )


def _legs(spec: Mapping[str, Any]) -> tuple[StoredLeg, ...]:
    return tuple(StoredLeg(leg["symbol"], leg["action"], leg["quantity"]) for leg in spec["legs"])


def _view(view: Mapping[str, Any]) -> StoredView:
    return StoredView(
        broker_order_id=view["broker_order_id"],
        status=view["status"],
        status_text=view["status_text"],
        replaces=view["replaces"],
        replaced_by=view["replaced_by"],
        source=view["source"],
        legs=tuple(
            ViewLeg(
                leg["symbol"],
                leg["quantity"],
                leg["remaining"],
                {fill["fill_id"]: StoredFill(fill["quantity"], Decimal(fill["price"])) for fill in leg["fills"]},
            )
            for leg in view["legs"]
        ),
    )
