"""Live quotes and market sessions, as the engine sees them. Both may be away at any time; nothing may wait for them."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from otocod.domain.quotes import FeedState, LegQuote
from otocod.domain.sessions import Calendar
from otocod.domain.specs import InstrumentType


@dataclass(frozen=True, slots=True)
class Instrument:
    """What to be quoted; `symbol` is the broker's order form."""

    instrument_type: InstrumentType
    symbol: str


@dataclass(frozen=True, slots=True)
class QuotesUp:
    """Connected and subscribed to what is wanted. No quote is known yet: each leg's first one follows by itself."""

    generation: int


@dataclass(frozen=True, slots=True)
class QuotesDown:
    """The connection is gone or was not made; every quote so far is stale. `why` names no address and no token."""

    generation: int
    why: str


@dataclass(frozen=True, slots=True)
class QuotesChanged:
    """At least one of these has a new quote: those of one message together, so that a spread is looked at once."""

    symbols: tuple[str, ...]  # order form


@dataclass(frozen=True, slots=True)
class QuotesOddity:
    """Something of the feed could not be read; told once for each kind and connection, and counted."""

    why: str


QuoteEvent = QuotesUp | QuotesDown | QuotesChanged | QuotesOddity


@dataclass(frozen=True, slots=True)
class QuoteHealth:
    """For `status` and `doctor`."""

    feed: FeedState
    why_down: str | None
    wanted: int
    quoted: int  # of those wanted, with a quote of this connection
    unmapped: tuple[str, ...]  # wanted symbols whose streamer symbol is not known, so they are not subscribed
    oddities: int
    level: str | None  # of the quote token: `api`; the sandbox's `demo` is delayed


class QuoteFeed(Protocol):
    """Bid and ask of what is wanted. Only what brackets watch is subscribed."""

    async def run(self, on_event: Callable[[QuoteEvent], None]) -> None:
        """Until cancelled; reconnects by itself. Idle, without a connection, while nothing is wanted.

        `on_event` is called in the step in which a frame came and must be short; if it raises, the quotes go on and
        the failure is handed to whoever made the feed: quotes never end the daemon.
        """
        ...

    def want(self, instruments: Collection[Instrument]) -> None:
        """Replaces the whole set. Never waits; what left the set has no quote any more."""
        ...

    def latest(self, symbol: str) -> LegQuote | None:
        """By order symbol; None if not wanted or not quoted by this connection."""
        ...

    @property
    def feed(self) -> FeedState: ...

    @property
    def health(self) -> QuoteHealth: ...


class SessionSource(Protocol):
    """When the legs' market trades."""

    @property
    def calendar(self) -> Calendar:
        """The best there is, at once: told by the broker, kept from before, or by rule; its `source` says which."""
        ...

    async def refresh(self) -> Calendar:
        """Asks the broker. Raises ReadFailed, and `calendar` stays as it was."""
        ...
