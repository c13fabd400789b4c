"""What a bracket can be told. Past tense, frozen; `decide` is the only reader."""

from dataclasses import dataclass
from decimal import Decimal

from otocod.domain.brackets import WatchKind
from otocod.domain.ids import ComplexOrderId, ExternalIdentifier
from otocod.domain.orders import OrderReport, Refusal
from otocod.domain.settlement import Settlement
from otocod.domain.specs import OrderSpec, Role


@dataclass(frozen=True, slots=True)
class ComplexReport:
    """The broker's container of a native group, as read: its components, the trigger order included."""

    complex_order_id: ComplexOrderId
    kind: str  # OCO, OTO, OTOCO
    trigger: OrderReport | None
    members: tuple[OrderReport, ...]

    @property
    def orders(self) -> tuple[OrderReport, ...]:
        return self.members if self.trigger is None else (self.trigger, *self.members)


# Answers to our own commands. `external_identifiers`: one for a single order, each component's for a group.


@dataclass(frozen=True, slots=True)
class SubmitConfirmed:
    external_identifiers: tuple[ExternalIdentifier, ...]
    reports: tuple[OrderReport, ...]
    complex_order_id: ComplexOrderId | None = None
    warnings: tuple[str, ...] = ()  # the broker's codes


@dataclass(frozen=True, slots=True)
class SubmitRefused:
    external_identifiers: tuple[ExternalIdentifier, ...]
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class SubmitNotSent:
    """Proved: no byte left, or the answer was 401 or 429. The same ids may go again."""

    external_identifiers: tuple[ExternalIdentifier, ...]
    why: str


@dataclass(frozen=True, slots=True)
class SubmitLost:
    """Sent, and the outcome is not known: timeout, reset, 5xx, cancellation, an answer we cannot read."""

    external_identifiers: tuple[ExternalIdentifier, ...]
    why: str


@dataclass(frozen=True, slots=True)
class SubmitDenied:
    """The last gate did not let it leave: a bug of ours, and certainly nothing was sent."""

    external_identifiers: tuple[ExternalIdentifier, ...]
    why: str


@dataclass(frozen=True, slots=True)
class CancelRefused:
    """422 says only that the order is terminal, not how it ended; the order must be read."""

    external_identifiers: tuple[ExternalIdentifier, ...]
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class CancelLost:
    external_identifiers: tuple[ExternalIdentifier, ...]
    why: str


# The broker speaks by itself, or is read.


@dataclass(frozen=True, slots=True)
class OrderReported:
    report: OrderReport
    external_identifier: ExternalIdentifier  # of ours, found by the echo, the id, the chain or the container


@dataclass(frozen=True, slots=True)
class LostIdentifiersFound:
    """The broker knows an identifier of this bracket that this record has not made yet: a later record of it is lost,
    the database being an older copy. Told before the report of the order itself.
    """

    ids_made: int  # at least so many were


@dataclass(frozen=True, slots=True)
class ComplexReported:
    report: ComplexReport


@dataclass(frozen=True, slots=True)
class SweepCompleted:
    """A complete listing, all pages, begun at `started_us` and reaching back to `covers_from_us` by the broker's clock.

    Orders that it held were reported before it. Only a complete listing proves absence.
    """

    started_us: int
    covers_from_us: int
    is_stream_healthy: bool


@dataclass(frozen=True, slots=True)
class QuoteReported:
    natural: Decimal  # signed net price per unit at which the legs that were asked for trade at once
    far: Decimal | None = None  # and the other side's, and the mark; None: not known
    mark: Decimal | None = None
    fault: str | None = None  # why nothing should go by it but what must get out


@dataclass(frozen=True, slots=True)
class QuoteMissing:
    why: str


@dataclass(frozen=True, slots=True)
class WatchTriggered:
    """Quotes have shown, by the rules of `watching`, that what the bracket watches for is there."""

    kind: WatchKind
    level: Decimal  # the one that was watched; said of another it means nothing
    natural: Decimal  # signed net price per unit at which the position closes at once
    far: Decimal | None = None
    mark: Decimal | None = None


@dataclass(frozen=True, slots=True)
class QuotesJudged:
    """Whether the spread's quotes can be used, said when that changes."""

    is_usable: bool
    is_gap: bool = False  # the feed is away or has not quoted a leg; else the market quotes badly, as it does at night
    why: str = ""  # the reason's public name and detail, where they cannot


@dataclass(frozen=True, slots=True)
class BestPriceHeld:
    """The best price to close at, signed and per unit, that has held for some seconds and betters the last one told."""

    price: Decimal


@dataclass(frozen=True, slots=True)
class TimeExitResolved:
    """When the first of the request's time exits is due, by the calendar as it is known now."""

    at_us: int | None  # None: it cannot be told yet


@dataclass(frozen=True, slots=True)
class HoursResolved:
    """[opens, closes) of the session that runs for these legs, else of the next; and of the last that all trade in."""

    opens_at_us: int
    closes_at_us: int
    last_day: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class PositionsDisagreed:
    """Positions read from the broker do not cover what our fills say is open, look after look, with a full listing of
    the orders in between.
    """

    detail: str
    # Quantity by leg symbol that the broker still holds of ours. None where other brackets have legs on the same
    # symbols: then nobody can say whose is missing.
    held: tuple[tuple[str, int], ...] | None = None
    # The stream has said it too, or it has lasted: a listing of positions that fails to name one is no proof.
    is_proved: bool = False
    settled: tuple[tuple[str, Settlement], ...] = ()  # by leg symbol, what the broker's ledger says it ended by


@dataclass(frozen=True, slots=True)
class TimeReached:
    """A stored deadline has come; look again at what is due."""


@dataclass(frozen=True, slots=True)
class DaemonRestarted:
    """First event of a run. Unless the last stop was clean, any staged id may have been posted."""

    is_clean: bool


# A person, through the admin socket.


@dataclass(frozen=True, slots=True)
class EntryCancelRequested:
    by: str


@dataclass(frozen=True, slots=True)
class CloseRequested:
    by: str
    net_price: Decimal | None  # signed; None: at the natural price


@dataclass(frozen=True, slots=True)
class ChangeRequested:
    by: str
    specs: tuple[tuple[Role, OrderSpec], ...]  # the exits as they shall be, checked like a request


@dataclass(frozen=True, slots=True)
class AttentionAcknowledged:
    by: str


@dataclass(frozen=True, slots=True)
class UnfreezeRequested:
    by: str


@dataclass(frozen=True, slots=True)
class ReleaseRequested:
    by: str


Event = (
    SubmitConfirmed
    | SubmitRefused
    | SubmitNotSent
    | SubmitLost
    | SubmitDenied
    | CancelRefused
    | CancelLost
    | OrderReported
    | LostIdentifiersFound
    | ComplexReported
    | SweepCompleted
    | QuoteReported
    | QuoteMissing
    | WatchTriggered
    | QuotesJudged
    | BestPriceHeld
    | TimeExitResolved
    | HoursResolved
    | PositionsDisagreed
    | TimeReached
    | DaemonRestarted
    | EntryCancelRequested
    | CloseRequested
    | ChangeRequested
    | AttentionAcknowledged
    | UnfreezeRequested
    | ReleaseRequested
)
