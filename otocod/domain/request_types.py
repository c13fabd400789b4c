"""A bracket request, read and judged: what `parse_request` answers with."""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from otocod.domain.quotes import PriceBasis
from otocod.domain.specs import OrderSpec, Protection, Role, TimeInForce
from otocod.domain.time_exits import TimeExit
from otocod.domain.trailing import StopRules
from otocod.domain.walking import WalkRule
from otocod.domain.watching import DEFAULT_WATCH, WatchPolicy

VERSION = 1
DEFAULT_MAX_AGE_US = 10 * 60 * 1_000_000  # `not-after`, when absent, is this long after `created_at`
DEFAULT_GRACE_US = 30 * 1_000_000


class PriceEffect(StrEnum):
    DEBIT = "Debit"
    CREDIT = "Credit"

    def signed(self, price: Decimal) -> Decimal:
        """The signed net price of an unsigned one: a debit is positive."""
        return price if self is PriceEffect.DEBIT else -price


class OutsidePolicy(StrEnum):
    """What to do when a person changes the position or an exit at the broker."""

    HOLD = "hold"
    RESTORE = "restore"
    RELEASE = "release"
    FLATTEN = "flatten"


@dataclass(frozen=True, slots=True)
class TargetByPrice:
    net_price: Decimal  # of the closing order: positive is a debit paid to close


@dataclass(frozen=True, slots=True)
class TargetByPercent:
    profit_percent: Decimal  # of the entry's actual net fill price; 50 is a half


@dataclass(frozen=True, slots=True)
class StopByPrice:
    trigger: Decimal  # unsigned, in the direction of `net_price`
    net_price: Decimal  # limit of the closing order once triggered


@dataclass(frozen=True, slots=True)
class StopByPercent:
    loss_percent: Decimal  # of the entry's actual net fill price; 100 of a 0.85 credit triggers at 1.70
    limit_offset: Decimal | None  # from trigger to limit; None: a tenth of the trigger, rounded up to the grid


@dataclass(frozen=True, slots=True)
class StopMarket:
    trigger: Decimal  # unsigned; single leg only


Target = TargetByPrice | TargetByPercent
Stop = StopByPrice | StopByPercent | StopMarket


@dataclass(frozen=True, slots=True)
class BracketRequest:
    """One request of version 1. At least one of `target` and `stop` is set; `entry` is a valid opening order."""

    version: int
    entry: OrderSpec
    target: Target | None
    stop: Stop | None
    target_time_in_force: TimeInForce  # GTC or Day
    stop_time_in_force: TimeInForce  # GTC or Day
    not_after_us: int  # UTC; still not accepted then is stale
    protection: Protection
    rest: Role  # in `watched`: TARGET or STOP, which exit rests at the broker
    partial_entry_grace_us: int
    on_outside_change: OutsidePolicy
    tags: tuple[tuple[str, str], ...]  # sorted by key
    text: str  # canonical: equal for equal requests, see `canonical_text`
    watch_basis: PriceBasis = PriceBasis.NATURAL
    watch_policy: WatchPolicy = DEFAULT_WATCH
    time_exits: tuple[TimeExit, ...] = ()  # the earliest counts
    stop_rules: StopRules | None = None  # what moves the stop as the profit grows
    stop_least_move: Decimal | None = None  # the smallest move of a resting stop; None: an increment of its price
    walks: tuple[tuple[Role, WalkRule], ...] = ()  # in the order of the roles

    def walk_of(self, role: Role) -> WalkRule | None:
        return dict(self.walks).get(role)


class RequestRefused(ValueError):
    """A request that is not accepted; `reasons` has every one of them, one line each, sanitised."""

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons
