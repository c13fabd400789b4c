"""One order: what we asked for, and everything the broker ever said about it, joined.

Knowledge only grows. A broker order is known through *views*, one for each broker order id (a replacement gets a
new id, so one order of ours may have several). A view is a join of all reports of that id:

    status      the furthest along of all statuses seen (terminal absorbs, Filled above every other end)
    fills       a set that only grows, one element for each fill id
    quantity    the smallest ever reported: the broker may reduce an order, never enlarge it
    filled      the most ever reported

so applying any reports in any order, with repeats, gives the same view. The stream promises neither order nor
absence of repeats, and REST answers race with it.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import reduce
from typing import TypeVar

from otocod.domain.ids import BrokerOrderId, ComplexOrderId, ExternalIdentifier, FillId
from otocod.domain.records import Derived, changed, derived
from otocod.domain.specs import Action, OrderSpec, OrderType, Role

T = TypeVar("T", str, Decimal, BrokerOrderId, ComplexOrderId, OrderType)


class BrokerStatus(StrEnum):
    """The broker's words. A word that is not here arrives as UNRECOGNISED: never terminal, always looked into."""

    UNRECOGNISED = "?"
    CONTINGENT = "Contingent"
    RECEIVED = "Received"
    ROUTED = "Routed"
    IN_FLIGHT = "In Flight"
    LIVE = "Live"
    REPLACE_REQUESTED = "Replace Requested"
    CANCEL_REQUESTED = "Cancel Requested"
    REJECTED = "Rejected"
    EXPIRED = "Expired"
    REMOVED = "Removed"
    PARTIALLY_REMOVED = "Partially Removed"
    CANCELLED = "Cancelled"
    FILLED = "Filled"

    @property
    def is_terminal(self) -> bool:
        return _RANK[self] >= _RANK[BrokerStatus.REJECTED]


# Declared in the order of progress. Filled is last, so that a fill seen after a cancel counts: the broker reports
# late fills of cancelled orders.
_RANK = {status: rank for rank, status in enumerate(BrokerStatus)}


# In the broker's place for an entry that is no order of ours: its position was there before the bracket.
ADOPTED = "Adopted"


class OrderState(StrEnum):
    """Ours. ABSENT: an id we gave up, proved to be nowhere at the broker when we looked, and never posted again."""

    INTENDED = "INTENDED"
    IN_FLIGHT = "IN_FLIGHT"
    WORKING = "WORKING"
    CONTINGENT = "CONTINGENT"
    CANCEL_PENDING = "CANCEL_PENDING"
    REPLACE_PENDING = "REPLACE_PENDING"
    UNKNOWN = "UNKNOWN"
    FILLED = "FILLED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"
    ABSENT = "ABSENT"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL_STATES


TERMINAL_STATES = frozenset(
    {OrderState.FILLED, OrderState.CANCELLED, OrderState.EXPIRED, OrderState.REJECTED, OrderState.ABSENT}
)


@dataclass(frozen=True, slots=True)
class Fill:
    fill_id: FillId
    quantity: int
    price: Decimal  # per share or contract, unsigned as on the wire
    filled_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class LegReport:
    symbol: str
    action: Action | None  # None: an action we do not know
    quantity: int
    remaining: int | None = None
    fills: tuple[Fill, ...] = ()


@dataclass(frozen=True, slots=True)
class OrderReport:
    """One message of the broker about one order, translated by the adapter and not yet believed."""

    broker_order_id: BrokerOrderId
    status: BrokerStatus
    status_text: str  # as sent; differs from `status` only when that is UNRECOGNISED
    legs: tuple[LegReport, ...] = ()
    external_identifier: ExternalIdentifier | None = None
    source: str | None = None
    complex_order_id: ComplexOrderId | None = None
    order_type: OrderType | None = None
    net_price: Decimal | None = None  # signed, debit positive
    stop_trigger: Decimal | None = None
    replaces: BrokerOrderId | None = None
    replaced_by: BrokerOrderId | None = None
    cancelled_by: str | None = None  # the broker's user id of a person who cancelled
    reject_reason: str | None = None
    received_at_us: int | None = None
    updated_at_ms: int | None = None  # a hint only


@dataclass(frozen=True, slots=True)
class LegView:
    symbol: str
    quantity: int  # the smallest ever reported
    remaining: int  # of `quantity`, less the most that any report showed as filled
    fills: tuple[Fill, ...]  # ordered by fill id

    def join(self, other: "LegView") -> "LegView":
        if self == other:
            return self
        fills = {fill.fill_id: fill for fill in other.fills}
        for fill in self.fills:
            # Two versions of one fill: as with `_either`, any rule will do that does not depend on who spoke first.
            fills[fill.fill_id] = max(fill, fills.get(fill.fill_id, fill), key=_weight)
        # The broker takes a group's sibling down by what the other member has filled: less is asked, nothing is filled.
        quantity = min(self.quantity, other.quantity)
        filled = max(self.quantity - self.remaining, other.quantity - other.remaining)
        return LegView(
            symbol=self.symbol,
            quantity=quantity,
            remaining=quantity - filled,
            fills=tuple(fills[fill_id] for fill_id in sorted(fills)),
        )

    @property
    def filled_by_fills(self) -> int:
        return sum(fill.quantity for fill in self.fills)


@dataclass(frozen=True, slots=True)
class View:
    """Everything said about one broker order id, joined."""

    broker_order_id: BrokerOrderId
    status: BrokerStatus
    status_text: str
    legs: tuple[LegView, ...]  # ordered by symbol
    replaces: BrokerOrderId | None
    replaced_by: BrokerOrderId | None
    cancelled_by: str | None
    source: str | None
    reject_reason: str | None
    order_type: OrderType | None
    net_price: Decimal | None
    stop_trigger: Decimal | None
    # Its own, beside the order's: a request for a group that a proxy repeated makes a second container.
    complex_order_id: ComplexOrderId | None = None

    def join(self, other: "View") -> "View":
        if self == other:
            return self
        ahead, behind = (self, other) if _progress(self) >= _progress(other) else (other, self)
        legs = {leg.symbol: leg for leg in behind.legs}
        for leg in ahead.legs:
            legs[leg.symbol] = leg.join(legs[leg.symbol]) if leg.symbol in legs else leg
        return View(
            broker_order_id=self.broker_order_id,
            status=ahead.status,
            status_text=ahead.status_text,
            legs=tuple(legs[symbol] for symbol in sorted(legs)),
            replaces=_either(ahead.replaces, behind.replaces),
            replaced_by=_either(ahead.replaced_by, behind.replaced_by),
            cancelled_by=_either(ahead.cancelled_by, behind.cancelled_by),
            source=_either(ahead.source, behind.source),
            reject_reason=_either(ahead.reject_reason, behind.reject_reason),
            order_type=_either(ahead.order_type, behind.order_type),
            net_price=_either(ahead.net_price, behind.net_price),
            stop_trigger=_either(ahead.stop_trigger, behind.stop_trigger),
            complex_order_id=_either(ahead.complex_order_id, behind.complex_order_id),
        )

    def filled(self, symbol: str) -> int:
        """Quantity of one leg that is filled: the most that fills, remaining and status together prove.

        The broker says Filled as soon as the first leg is complete, with that leg's fills alone; the status
        already speaks for all legs.
        """
        for leg in self.legs:
            if leg.symbol == symbol:
                shown = leg.quantity if self.status is BrokerStatus.FILLED else 0
                return max(leg.filled_by_fills, leg.quantity - leg.remaining, shown)
        return 0

    def has_leg(self, symbol: str) -> bool:
        return any(leg.symbol == symbol for leg in self.legs)

    @property
    def has_all_fills(self) -> bool:
        return bool(self.legs) and all(leg.filled_by_fills >= self.filled(leg.symbol) for leg in self.legs)


def _is_aborted(view: View, by_id: dict[BrokerOrderId, View]) -> bool:
    """A replacement that ended unfilled, while what it was to follow is not known to have made room for it: a fill of
    the original ends its replacement, and word of that end may come before word of the fill."""
    original = None if view.replaces is None else by_id.get(view.replaces)
    if original is None or not view.status.is_terminal or any(view.filled(leg.symbol) for leg in view.legs):
        return False
    return original.status is BrokerStatus.FILLED or not original.status.is_terminal


def _weight(fill: Fill) -> tuple[int, Decimal, int]:
    return fill.quantity, fill.price, fill.filled_at_us or 0


def _progress(view: View) -> tuple[int, str]:
    return _RANK[view.status], view.status_text


def _either(first: T | None, second: T | None) -> T | None:
    # The larger of two values that ought to agree: any rule will do that does not depend on who spoke first.
    if first is None:
        return second
    return first if second is None else max(first, second)


def view_from_report(report: OrderReport) -> View:
    legs: dict[str, LegView] = {}
    for leg in report.legs:
        remaining = leg.quantity if leg.remaining is None else min(leg.remaining, leg.quantity)
        if report.status is BrokerStatus.FILLED:
            remaining = 0  # a smaller quantity told later takes nothing away from what this has proved
        fills = tuple(sorted({fill.fill_id: fill for fill in leg.fills}.values(), key=lambda fill: fill.fill_id))
        legs[leg.symbol] = LegView(leg.symbol, leg.quantity, max(remaining, 0), fills)
    return View(
        broker_order_id=report.broker_order_id,
        status=report.status,
        status_text=report.status_text,
        legs=tuple(legs[symbol] for symbol in sorted(legs)),
        replaces=report.replaces,
        replaced_by=report.replaced_by,
        cancelled_by=report.cancelled_by,
        source=report.source,
        reject_reason=report.reject_reason,
        order_type=report.order_type,
        net_price=report.net_price,
        stop_trigger=report.stop_trigger,
        complex_order_id=report.complex_order_id,
    )


@dataclass(frozen=True, slots=True)
class Refusal:
    """A proved no. `codes`: the broker's codes, the outermost first; branch on these, never on the message."""

    http_status: int
    codes: tuple[str, ...]
    message: str

    @property
    def reasons(self) -> frozenset[str]:
        """The codes that say why; the outer one only says that a check before the order failed."""
        return frozenset(self.codes) - {"preflight_check_failure"}

    @property
    def text(self) -> str:
        return f"{', '.join(self.codes) or self.http_status}: {self.message}"


@dataclass(frozen=True, slots=True)
class Order(Derived):
    """One order of a bracket, found by its external identifier; the id is posted at most once, ever."""

    external_identifier: ExternalIdentifier
    role: Role
    spec: OrderSpec
    state: OrderState
    intended_at_us: int
    # All members of one native group carry the same name: the external identifier of the first of them.
    group: ExternalIdentifier | None = None
    complex_order_id: ComplexOrderId | None = None
    replaces: ExternalIdentifier | None = None  # a move of ours: the order this one takes the place of
    views: tuple[View, ...] = ()  # ordered by broker order id
    refusal: Refusal | None = None
    retry_at_us: int | None = None  # proved not sent: when the same id may go again
    retries: int = 0
    unknown_since_us: int | None = None
    absent_listings: int = 0  # complete listings without it, since unknown_since_us
    cancel_asked_us: int | None = None  # our own cancel, first asked for
    cancel_sent_us: int | None = None  # and last sent
    cancel_tries: int = 0
    waits_for_session: bool = False  # the broker's warning: held until the next session
    acknowledged_at_us: int | None = None  # first heard of from the broker
    ended_at_us: int | None = None  # a group's member that ended while its mate lives: when that was first seen
    is_settled: bool = False  # its end has been taken into account
    # Broker ids that a move of ours was asked for: what follows them is another order of the bracket.
    moved_ids: tuple[BrokerOrderId, ...] = ()

    @derived
    def is_terminal(self) -> bool:
        """Nothing that carries its identifier can fill any more: a double that still works keeps it open."""
        if not self.state.is_terminal:
            return False
        return not self.unseen_heirs and all(view.status.is_terminal for view in self.heads)

    @property
    def is_known_at_broker(self) -> bool:
        return bool(self.views)

    @derived
    def heads(self) -> tuple[View, ...]:
        """The views that no other view replaces. More than one: two orders carry this id, and only one may live."""
        by_id = {view.broker_order_id: view for view in self.views}
        live = [view for view in self.views if not _is_aborted(view, by_id)] if len(by_id) > 1 else self.views
        replaced = {view.replaces for view in live if view.replaces is not None}
        ids = {view.broker_order_id for view in live}
        return tuple(
            view
            for view in live
            if view.broker_order_id not in replaced and (view.replaced_by is None or view.replaced_by not in ids)
        )

    @derived
    def head(self) -> View | None:
        """The view that speaks for the order: a working one if there is one, else the furthest along, oldest first."""
        heads = self.heads
        if not heads:
            return None
        working = [view for view in heads if not view.status.is_terminal]
        if working:
            # Of doubles the oldest that works stays; a younger one on its way out is further along and says nothing.
            return min(working, key=_age)
        head = min(heads, key=lambda view: (-_RANK[view.status], _age(view)))
        # A fill aborts the replacement that is under way: the original, not what was to follow, is the order.
        return next((view for view in self.views if view.status is BrokerStatus.FILLED), head)

    @derived
    def unseen_heirs(self) -> tuple[BrokerOrderId, ...]:
        """Orders that somebody else put in the place of this one and that no report has shown: it is not over."""
        ids = {view.broker_order_id for view in self.views}
        return tuple(
            view.replaced_by
            for view in self.heads
            if view.status is BrokerStatus.CANCELLED
            and view.replaced_by is not None
            and view.replaced_by not in ids
            and view.broker_order_id not in self.moved_ids
        )

    @property
    def broker_order_id(self) -> BrokerOrderId | None:
        head = self.head
        return None if head is None else head.broker_order_id

    @property
    def status_text(self) -> str:
        """The broker's word; ours only before it has one, or once we know better than an unanswered request."""
        head = self.head
        return self.state.value if head is None else head.status_text

    def filled(self, symbol: str) -> int:
        """Filled quantity of one leg, over the whole chain of replacements and any doubles."""
        if not self.views:
            return 0
        found = self._filled.get(symbol)
        if found is None:
            found = self._filled[symbol] = self._count_filled(symbol)
        return found

    @derived
    def _filled(self) -> dict[str, int]:
        return {}

    def _count_filled(self, symbol: str) -> int:
        total = 0
        seen: set[FillId] = set()
        for view in self.views:
            total += view.filled(symbol) if view.has_leg(symbol) else self._filled_unseen(view, symbol, total)
            for leg in view.legs:
                if leg.symbol == symbol:
                    total -= sum(fill.quantity for fill in leg.fills if fill.fill_id in seen)
                    seen.update(fill.fill_id for fill in leg.fills)
        return total

    def left(self, symbol: str) -> int:
        """Quantity of one leg that can still fill: by the broker's present quantity once it has shown one."""
        head = self.head
        for leg in () if head is None else head.legs:
            if head is not None and leg.symbol == symbol:
                return max(leg.quantity - head.filled(symbol), 0)
        asked = sum(leg.quantity for leg in self.spec.legs if leg.symbol == symbol)
        return max(asked - self.filled(symbol), 0)

    def _filled_unseen(self, view: View, symbol: str, before: int) -> int:
        """Of a leg that no readable message has shown: all that is left of it, if the order is Filled."""
        if view.status is not BrokerStatus.FILLED:
            return 0
        asked = sum(leg.quantity for leg in self.spec.legs if leg.symbol == symbol)
        return asked if view.replaces is None else max(asked - before, 0)

    @derived
    def has_any_fill(self) -> bool:
        return any(self.filled(leg.symbol) for leg in self.spec.legs)

    @derived
    def has_all_fills(self) -> bool:
        return all(view.has_all_fills or not view.status.is_terminal for view in self.views)

    @derived
    def fills(self) -> tuple[tuple[str, Fill], ...]:
        """(symbol, fill), each fill id once, in the order of symbols and fill ids."""
        found = {fill.fill_id: (leg.symbol, fill) for view in self.views for leg in view.legs for fill in leg.fills}
        return tuple(sorted(found.values(), key=lambda item: (item[0], item[1].fill_id)))

    def learn(self, report: OrderReport) -> "Order":
        """The order with one more report joined in; its `state` is the machine's to change."""
        new = view_from_report(report)
        views = {view.broker_order_id: view for view in self.views}
        old = views.get(new.broker_order_id)
        views[new.broker_order_id] = new if old is None else old.join(new)
        if old == views[new.broker_order_id] and (self.complex_order_id or report.complex_order_id is None):
            return self
        learned = changed(self, {"views": tuple(sorted(views.values(), key=_age))})
        # A repeated request makes a second container: the one that counts is that of the order that counts.
        head = learned.head
        container = (head and head.complex_order_id) or self.complex_order_id or report.complex_order_id
        return learned if container == self.complex_order_id else changed(learned, {"complex_order_id": container})


def _age(view: View) -> tuple[int, str]:
    # Broker ids are numbers that grow; compared as text "9" would be younger than "10".
    return len(view.broker_order_id), view.broker_order_id


def join_all(order: Order, reports: tuple[OrderReport, ...]) -> Order:
    return reduce(Order.learn, reports, order)
