"""The bracket: one frozen record that holds all that is known and decided about an entry and its exits."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from hashlib import sha1

from otocod.domain.ids import AccountNumber, BracketId, ExternalIdentifier
from otocod.domain.orders import Order, OrderState, View
from otocod.domain.records import Derived, changed, derived
from otocod.domain.request_types import BracketRequest
from otocod.domain.settlement import Settlement
from otocod.domain.specs import Leg, OrderSpec, Protection, Role
from otocod.domain.spreads import matched_units, net_price, size_of
from otocod.domain.timing import LISTING_MARGIN_US
from otocod.domain.trailing import StopLevel
from otocod.domain.walking import WalkState


class BracketState(StrEnum):
    PENDING_ENTRY = "PENDING_ENTRY"
    ENTRY_FILLED = "ENTRY_FILLED"
    EXITS_LIVE = "EXITS_LIVE"
    CLOSING = (
        "CLOSING"  # the exits are being taken away and the position closed, because somebody or the ladder said so
    )
    CLOSED = "CLOSED"


class Outcome(StrEnum):
    TARGET_FILLED = "TARGET_FILLED"
    STOP_FILLED = "STOP_FILLED"
    ENTRY_NOT_FILLED = "ENTRY_NOT_FILLED"
    CLOSED_BY_OPERATOR = "CLOSED_BY_OPERATOR"
    CLOSED_OUTSIDE = "CLOSED_OUTSIDE"
    TIME_EXIT = "TIME_EXIT"
    EXPIRED = "EXPIRED"
    RELEASED = "RELEASED"
    DOUBLE_EXIT = "DOUBLE_EXIT"


class OnDoubleExit(StrEnum):
    ALERT = "alert"
    FLATTEN = "flatten"


class OnUnprotectable(StrEnum):
    CLOSE = "close"
    ALERT = "alert"


class ClosePurpose(StrEnum):
    """Why the position is being closed by a limit of ours; decides the outcome."""

    OPERATOR = "operator"
    UNPROTECTABLE = "unprotectable"  # the ladder's last rung
    STOP_REACHED = "stop-reached"  # a watched stop, or one that rests and that the market has jumped over
    TIME = "time"  # a time exit is due
    OUTSIDE_CHANGE = "outside-change"  # `on-outside-change: flatten`


class WatchKind(StrEnum):
    TARGET_REACHED = "target_reached"
    TARGET_LOST = "target_lost"  # reached and sent in the stop's place, and the market went away
    STOP_REACHED = "stop_reached"
    STOP_PASSED = "stop_passed"  # the market is past the limit of a stop that rests


@dataclass(frozen=True, slots=True)
class Watched:
    """What quotes are looked at for: the natural price of the closing legs at or past a level (signed, per unit)."""

    kind: WatchKind
    level: Decimal
    not_before_us: int | None = None
    cap: Decimal | None = None  # of a stop: the most to close for once it is reached; signed


@dataclass(frozen=True, slots=True)
class Policy:
    """Settings a bracket keeps for life, as they were when it was accepted."""

    unprotected_limit_us: int
    on_unprotectable: OnUnprotectable
    on_double_exit: OnDoubleExit


@dataclass(frozen=True, slots=True)
class Close:
    """An intent to end the position: exits away, confirm, close by a limit. Committed before the first cancel."""

    purpose: ClosePurpose
    by: str
    net_price: Decimal | None  # signed; None: at the natural price, asked for anew for every try
    since_us: int
    has_quote: bool = False  # the natural price has been seen once: before that no exit is touched
    tries: int = 0
    cap: Decimal | None = None  # signed; never closed for more, unless the walk that was asked for says so
    floor: Decimal | None = None  # signed; the limit at which a stop has not filled
    walked: WalkState = field(default_factory=WalkState)  # of a close without a price of its own


STAGED_ROLES = (Role.ENTRY, Role.STOP, Role.TARGET, Role.CLOSE)
# How far beyond the identifiers that this record made those of a later, lost record are recognised.
LOST_IDS_REACH = 64


def made_id(bracket_id: BracketId, role: Role, number: int) -> ExternalIdentifier:
    """Identifiers are functions of the bracket's, so that a second run makes the same."""
    digest = sha1(_namespace(bracket_id) + f"{role}/{number}".encode(), usedforsecurity=False).digest()
    # uuid.uuid5 in a third of its time: version 5, variant 10.
    text = (digest[:6] + bytes((digest[6] & 0x0F | 0x50, digest[7], digest[8] & 0x3F | 0x80)) + digest[9:16]).hex()
    return ExternalIdentifier(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")


@lru_cache(maxsize=64)
def _namespace(bracket_id: BracketId) -> bytes:
    """Identifiers are made by the dozen, and reading the bracket's own is half of the work."""
    return uuid.UUID(bracket_id).bytes


# What stays when an order changes: all that is counted in fills unless its views do, else what the other kind has.
_OF_FILLS = ("size", "entry_units", "exit_units", "open_by_leg", "open_units", "entry_net_price")
_OF_ENTRIES = ("size", "entries", "entry_units", "entry_net_price")
_OF_EXITS = ("size", "exits", "exit_units")


@dataclass(frozen=True, slots=True)
class Bracket(Derived):
    bracket_id: BracketId
    client_ref: str
    account: AccountNumber
    request: BracketRequest
    policy: Policy
    created_at_us: int
    state: BracketState
    # Modes still open to it, strongest first; the first is in force. Never empty: the last is the stop alone.
    ladder: tuple[Protection, ...]
    orders: tuple[Order, ...] = ()  # in the order in which they were intended
    # Ids that are on disk and were never used, in the order of use for each role.
    staged: tuple[tuple[Role, ExternalIdentifier], ...] = ()
    ids_made: int = 0
    # Staged by a run that did not stop cleanly: possibly posted, so looked up and never posted again.
    suspects: tuple[tuple[Role, ExternalIdentifier], ...] = ()
    suspect_since_us: int | None = None
    suspect_listings: int = 0
    was_unfilled_at_restart: bool = False  # the first listing of this run showed the entry without a fill
    outcome: Outcome | None = None
    attention: str | None = None
    first_fill_us: int | None = None
    exits_allowed_us: int | None = None  # the entry is terminal with a fill: from here the unprotected limit runs
    unprotected_since_us: int | None = None
    unprotected_us: int = 0  # closed stretches only
    flat_since_us: int | None = None  # every leg closed; the native group's sibling may still be on its way out
    # Protection of ours is being moved (shrunk, swapped): until the limit that alone is no loss of protection.
    moving_since_us: int | None = None
    verified_group: ExternalIdentifier | None = None  # read at the broker after the trigger's fill: armed
    verify_at_us: int | None = None  # when the group is to be read (again)
    fills_asked_us: int | None = None
    uneven: tuple[tuple[str, int], ...] = ()  # by leg symbol: filled beyond whole units by the entry, and told
    entry_cancel_asked: bool = False
    is_frozen: bool = False  # no new orders except protection
    is_held: bool = False  # a person changed something: no new orders at all until told
    close: Close | None = None
    rearms: int = 0  # exits ended by the broker and sent again, since the last that came into force
    stop_refusals: int = 0
    position_doubts: int = 0  # exits refused for want of a position, in a row
    in_force_since_us: int | None = None
    retry_exits_at_us: int | None = None
    moved: tuple[tuple[Role, OrderSpec], ...] = ()  # exits as changed by an operator
    listed_at_us: int | None = None  # the last complete listing it was compared with
    is_stream_healthy: bool = True  # as of that listing
    doubles_cancelled_us: int | None = None
    heirs_asked_us: int | None = None  # orders moved by somebody else, last asked for
    wake_at_us: int | None = None  # the stored deadline: when to look again
    broker_clock_offset_us: int = 0  # the broker's clock minus ours, when it was accepted
    watch: Watched | None = None
    passed: Watched | None = None  # past which the market has jumped over the stop that rests
    jumped: Decimal | None = None  # the level for which that has been said
    target_walk: WalkState | None = None  # of a target that was sent in the stop's place
    quote_asked_us: int | None = None  # for a step of a walk
    rest: Role | None = None  # in `watched`: which exit rests, where it is not the one asked for
    has_changed_places: bool = False  # the resting exit was not taken, so the other one rests
    swap_since_us: int | None = None  # the stop gives way to the target, which was reached
    swaps: int = 0  # that came to nothing
    swap_after_us: int | None = None  # no sooner than this again
    has_quotes: bool = False  # usable, as last said
    quote_fault: str | None = None
    has_feed: bool = False  # usable or not, the legs are being quoted
    blind_since_us: int | None = None  # without usable quotes although something is watched for
    stop_level: StopLevel | None = None  # the best price so far, and where the rules put the stop
    stop_moved_to: Decimal | None = None  # signed; the last level that was worth a move
    time_exit_us: int | None = None
    # [opens, closes) of the session that runs, else of the next one; and of the last on which all legs trade.
    hours: tuple[int, int] | None = None
    last_day: tuple[int, int] | None = None
    last_day_told: int = 0  # how often: at the open, an hour before the end
    night_checked_us: int | None = None  # the opening after which the exits were last read
    is_surplus_left: bool = False  # it could not be traded away, and is a person's now
    taken: tuple[tuple[str, int], ...] = ()  # quantity by leg symbol that left the position otherwise than by our exits
    settled: tuple[tuple[str, Settlement], ...] = ()  # by leg symbol, how what was taken went, where the ledger says it
    closed_at_us: int | None = None
    version: int = 0

    @property
    def protection(self) -> Protection:
        return self.ladder[0]

    def role_of_id(self, external_identifier: ExternalIdentifier) -> Role | None:
        """What an identifier of this bracket was made for; None if it is not one.

        Also of those that no record names any more: one that an earlier run posted beside a commit that never came may
        turn up long after its absence was taken for proved.
        """
        made = self.made_as(external_identifier, self.ids_made)
        return None if made is None else made[0]

    def made_as(self, external_identifier: ExternalIdentifier, below: int) -> tuple[Role, int] | None:
        """The role and number that an identifier was made from, looked for among the numbers below this one."""
        for number in range(below):
            for role in STAGED_ROLES:
                if made_id(self.bracket_id, role, number) == external_identifier:
                    return role, number
        return None

    @property
    def listed_from_us(self) -> int:
        """Where a listing must begin to show every order of this bracket; by the broker's clock, which dates orders.

        Ours may have been set since, so its own time then says nothing without the distance between the two.
        """
        return self.created_at_us + self.broker_clock_offset_us - LISTING_MARGIN_US

    @derived
    def size(self) -> int:
        """Units of the spread asked for."""
        return size_of(self.request.entry.legs)

    def orders_of(self, *roles: Role) -> tuple[Order, ...]:
        return tuple(order for order in self.orders if order.role in roles)

    @derived
    def entries(self) -> tuple[Order, ...]:
        return self.orders_of(Role.ENTRY)

    @derived
    def exits(self) -> tuple[Order, ...]:
        """Targets, stops and closes: all that takes the position down."""
        found, surplus = self.orders_of(Role.TARGET, Role.STOP, Role.CLOSE), self.surplus_closes
        return tuple(order for order in found if order not in surplus) if surplus else found

    @derived
    def surplus_closes(self) -> tuple[Order, ...]:
        """Closes that trade away what both exits have opened the wrong way: they are on the entry's own side."""
        side = {leg.symbol: leg.action.is_buy for leg in self.request.entry.legs}
        return tuple(
            order
            for order in self.orders_of(Role.CLOSE)
            if all(side.get(leg.symbol) is leg.action.is_buy for leg in order.spec.legs)
        )

    def order(self, external_identifier: ExternalIdentifier) -> Order | None:
        for order in self.orders:
            if order.external_identifier == external_identifier:
                return order
        return None

    def with_order(self, order: Order) -> "Bracket":
        """The bracket with this order in place of its former self, or added."""
        orders = (*self.orders, order)
        views: tuple[View, ...] = ()
        for index, old in enumerate(self.orders):
            if old.external_identifier == order.external_identifier:
                if old == order:
                    return self
                orders = (*self.orders[:index], order, *self.orders[index + 1 :])
                views = old.views
                break
        new = self.changed({"orders": orders})
        kept = _OF_EXITS if order.role is Role.ENTRY else _OF_ENTRIES
        for name in kept if order.views != views else (*kept, *_OF_FILLS):
            if name in self.__dict__:
                new.__dict__[name] = self.__dict__[name]
        return new

    def changed(self, changes: Mapping[str, object]) -> "Bracket":
        new = changed(self, changes)
        if new is not self and "orders" not in changes and "taken" not in changes:
            new.__dict__.update(self.__dict__)  # everything derived hangs on the orders and on what others took
        return new

    def filled_of(self, orders: Iterable[Order]) -> dict[str, int]:
        """Filled quantity by leg symbol, over these orders."""
        found = list(orders)
        return {leg.symbol: sum(order.filled(leg.symbol) for order in found) for leg in self.request.entry.legs}

    @derived
    def entry_units(self) -> int:
        """Whole units of the spread that the entry has filled."""
        return matched_units(self.request.entry.legs, self.filled_of(self.entries))

    @derived
    def exit_units(self) -> int:
        return matched_units(self.request.entry.legs, self.filled_of(self.exits))

    @derived
    def open_by_leg(self) -> dict[str, int]:
        """Per leg, entry fills less exit fills and less what others took; negative is a surplus, a position opened the
        wrong way, less what was traded away of it. What others took never makes one: an exit's fill that is heard of
        later explains it.
        """
        closed, back, taken = self.filled_of(self.exits), self.filled_of(self.surplus_closes), dict(self.taken)
        left = {s: filled - closed[s] + back[s] for s, filled in self.filled_of(self.entries).items()}
        return {symbol: max(0, q - taken.get(symbol, 0)) if q > 0 else q for symbol, q in left.items()}

    def closable(self, leg: Leg) -> int:
        """How much a leg of this side may take down: of the position, or of a surplus."""
        is_open = self.open_by_leg.get(leg.symbol, 0)
        is_of_surplus = any(
            own.symbol == leg.symbol and own.action.is_buy is leg.action.is_buy for own in self.request.entry.legs
        )
        return max(0, -is_open if is_of_surplus else is_open)

    @derived
    def open_units(self) -> int:
        """Whole units of the spread that are open and ours to close: never more than were asked for."""
        is_open = matched_units(self.request.entry.legs, {s: max(q, 0) for s, q in self.open_by_leg.items()})
        return min(is_open, max(self.size - self.exit_units, 0))

    @derived
    def entry_net_price(self) -> Decimal | None:
        """Signed net fill price per unit, once every fill of the entry is known."""
        return _net_fill_price(self.entries)

    @property
    def exit_net_price(self) -> Decimal | None:
        return _net_fill_price(self.exits)

    @derived
    def unknown_orders(self) -> tuple[Order, ...]:
        return tuple(order for order in self.orders if order.state is OrderState.UNKNOWN)


def order_net_fill_price(order: Order) -> Decimal | None:
    return _net_fill_price((order,))


def _net_fill_price(orders: tuple[Order, ...]) -> Decimal | None:
    filled = [order for order in orders if order.has_any_fill]
    if not filled or not all(order.has_all_fills for order in filled):
        return None
    legs = filled[0].spec.legs
    actions = {leg.symbol: leg.action for leg in legs}
    fills = [
        (symbol, actions[symbol], fill.quantity, fill.price)
        for order in filled
        for symbol, fill in order.fills
        if symbol in actions
    ]
    return net_price(legs, fills)
