"""The broker, as the engine sees it. The adapter translates; it never decides and never resends a command."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from otocod.domain.commands import Member
from otocod.domain.events import ComplexReport
from otocod.domain.ids import AccountNumber, BrokerOrderId, ComplexOrderId
from otocod.domain.orders import OrderReport, Refusal
from otocod.domain.settlement import Settlement

# Outcomes of a command. There is no fifth.


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A definite 2xx whose echo matches what was sent."""

    reports: tuple[OrderReport, ...]  # one for each component, in the order in which they were sent
    complex_order_id: ComplexOrderId | None = None
    warnings: tuple[str, ...] = ()  # the broker's codes; ours begin with `otocod.`


@dataclass(frozen=True, slots=True)
class Refused:
    """A 4xx with the broker's own error envelope, 401 and 429 excepted."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class NotSent:
    """The transport proves that no byte left, or the answer was 429, or 401 even after one refresh."""

    why: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Anything else: timeout, reset, 5xx, cancellation, an answer that cannot be read or does not match."""

    why: str


Outcome = Confirmed | Refused | NotSent | Unknown


@dataclass(frozen=True, slots=True)
class Position:
    symbol: str
    signed_quantity: int  # long positive, short negative


@dataclass(frozen=True, slots=True)
class SettledPosition:
    """A row of the broker's ledger: contracts that left a position without a trade."""

    symbol: str
    quantity: int  # always positive
    how: Settlement
    at_us: int


@dataclass(frozen=True, slots=True)
class Quote:
    symbol: str
    bid: Decimal | None
    ask: Decimal | None


@dataclass(frozen=True, slots=True)
class Listing:
    """A complete listing: every page was read and the totals agree. Anything less is raised, never returned."""

    reports: tuple[OrderReport, ...]
    broker_clock_offset_us: int | None = None  # the broker's Date header minus our clock


@dataclass(frozen=True, slots=True)
class MarketSession:
    is_open: bool
    opens_at_us: int | None = None
    closes_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class StreamUp:
    """Subscribed and acknowledged. Nothing said before this moment can be trusted to have arrived."""

    generation: int


@dataclass(frozen=True, slots=True)
class StreamDown:
    generation: int
    why: str


@dataclass(frozen=True, slots=True)
class StreamOrder:
    account: AccountNumber
    report: OrderReport


@dataclass(frozen=True, slots=True)
class StreamComplex:
    account: AccountNumber
    report: ComplexReport


@dataclass(frozen=True, slots=True)
class StreamPosition:
    account: AccountNumber
    position: Position


@dataclass(frozen=True, slots=True)
class StreamOddity:
    """A message we could not read whole: unknown status, wrong type, missing id. Its order, if named, wants a read."""

    why: str
    account: AccountNumber | None = None
    broker_order_id: BrokerOrderId | None = None


StreamEvent = StreamUp | StreamDown | StreamOrder | StreamComplex | StreamPosition | StreamOddity


class ReadFailed(Exception):
    """A query did not succeed. It proves nothing about what it asked for."""


class NotFound(ReadFailed):
    """The broker's own 404 for one order: terminal only after a look at the listings."""


class LoginRefused(ReadFailed):
    """The token service answered no. Trying often locks the address for hours."""


class Broker(Protocol):
    """Calling a command sends it, in the same step where that is possible; what comes back is its `Outcome`, to be
    waited for. Cancelling that calls nothing back: the request goes on by itself, and the adapter reports its outcome
    apart. An order that contradicts itself (a Limit without a price) is a bug and raises ValueError before anything is
    sent.

    Queries raise `ReadFailed`. Every method may be called concurrently.
    """

    def submit(self, account: AccountNumber, member: Member) -> Awaitable[Outcome]: ...
    def submit_complex(self, account: AccountNumber, members: Sequence[Member]) -> Awaitable[Outcome]: ...
    def replace(self, account: AccountNumber, broker_order_id: BrokerOrderId, member: Member) -> Awaitable[Outcome]: ...
    def cancel(self, account: AccountNumber, broker_order_id: BrokerOrderId) -> Awaitable[Outcome]: ...
    def cancel_complex(self, account: AccountNumber, complex_order_id: ComplexOrderId) -> Awaitable[Outcome]: ...

    async def dry_run(self, account: AccountNumber, members: Sequence[Member]) -> Outcome:
        """Side-effect free. One member: an order; several: a complex order. Confirmed has warnings and no reports."""
        ...

    async def dry_run_replace(
        self, account: AccountNumber, broker_order_id: BrokerOrderId, member: Member
    ) -> Outcome: ...

    async def read_order(self, account: AccountNumber, broker_order_id: BrokerOrderId) -> OrderReport: ...
    async def read_complex(self, account: AccountNumber, complex_order_id: ComplexOrderId) -> ComplexReport: ...

    async def search(self, account: AccountNumber, *, from_us: int, statuses: Sequence[str] = ()) -> Listing:
        """Orders received since `from_us` (and of these statuses, if any are given), all pages."""
        ...

    async def live_orders(self, account: AccountNumber) -> Listing: ...
    async def live_complex_orders(self, account: AccountNumber) -> tuple[ComplexReport, ...]: ...
    async def positions(self, account: AccountNumber) -> tuple[Position, ...]: ...

    async def settled_positions(self, account: AccountNumber, *, from_us: int) -> tuple[SettledPosition, ...]:
        """What expired, was assigned, exercised or settled in cash since `from_us`, oldest first, all pages."""
        ...

    async def balances(self, account: AccountNumber) -> dict[str, str]: ...
    async def accounts(self) -> tuple[AccountNumber, ...]: ...
    async def market_session(self) -> MarketSession: ...
    async def quotes(self, symbols: Sequence[tuple[str, str]]) -> tuple[Quote, ...]:
        """symbols: (instrument type, symbol)."""
        ...


class Streamer(Protocol):
    async def run(self, on_event: Callable[[StreamEvent], None]) -> None:
        """Events of the account stream until cancelled; reconnects by itself, with backoff.

        `on_event` is called in the step in which a frame came from the socket; it must be short. If it raises, so does
        `run`.
        """
        ...

    @property
    def is_healthy(self) -> bool: ...

    @property
    def last_message_us(self) -> int | None: ...
