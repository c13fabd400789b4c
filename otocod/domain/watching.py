"""The watch of an exit that does not rest at the broker: when does what the quotes say count as having happened?

A quote can lie: one leg's price is wrong for a moment, and a spread's price with it. So a trigger takes all of this,
seen over good quotes only (`quotes.spread_quote`) of one unbroken connection:

    K of N        of the last N observations at least K have the price at or past the level, the newest among them
    dwell         from the first observation of the run to now at least so long; a run ends when fewer than K of the
                  last N hold
    every leg     since the last observation that did not hold, each leg's price was either told at least twice, or has
                  stood uncontradicted for `standing_us`

The last rule is what stops a lone lie: while one leg lies the others go on ticking, and each tick would be one more
observation of the same wrong price. A quiet market is served by it, too: a price that nobody corrects within
`standing_us` on a feed that is alive is the price. For this the watch is to be observed at every quote and at
`next_look_us`, for a standing quote counts once in `sample_us`.

A gap (the feed down, silent, a leg not quoted since) empties the watch at once. Another fault of the quotes (crossed,
wide) only suspends it: it does not count, nothing triggers on it, and after `fault_reset_us` without a good quote it
empties the watch as well.

The state is a memory of seconds and is not stored: a restart is a gap.
"""

from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from otocod.domain.quotes import SECOND_US, PriceBasis, QuoteFault, QuoteReason, SpreadQuote
from otocod.domain.records import changed

MAX_WINDOW = 20


class WatchSide(StrEnum):
    """On which side of its level a watch triggers; prices are those of the closing order, signed."""

    AT_OR_ABOVE = "at_or_above"  # a stop: closing has become this dear
    AT_OR_BELOW = "at_or_below"  # a target: closing has become this cheap


@dataclass(frozen=True, slots=True)
class WatchPolicy:
    """How much evidence a trigger takes. At least two observations: one alone never triggers."""

    needed: int = 2  # K
    window: int = 3  # N
    dwell_us: int = 1 * SECOND_US
    standing_us: int = 3 * SECOND_US
    sample_us: int = 1 * SECOND_US
    fault_reset_us: int = 5 * SECOND_US

    def __post_init__(self) -> None:
        if not 2 <= self.needed <= self.window <= MAX_WINDOW:
            raise ValueError(f"a watch needs 2 <= K <= N <= {MAX_WINDOW}")
        if min(self.dwell_us, self.standing_us, self.fault_reset_us) < 0 or self.sample_us <= 0:
            raise ValueError("times of a watch are not below 0, and a sample's is above 0")


DEFAULT_WATCH = WatchPolicy()


@dataclass(frozen=True, slots=True)
class Watch:
    """What is waited for."""

    side: WatchSide
    level: Decimal  # signed net price of the closing order, for one unit
    basis: PriceBasis = PriceBasis.NATURAL
    policy: WatchPolicy = DEFAULT_WATCH

    def holds(self, price: Decimal) -> bool:
        return price >= self.level if self.side is WatchSide.AT_OR_ABOVE else price <= self.level


@dataclass(frozen=True, slots=True)
class Observation:
    """One good quote that counted."""

    price: Decimal
    at_us: int


@dataclass(frozen=True, slots=True)
class LegCount:
    """A leg's newest quote, and how many different ones it has had since the last observation that did not hold."""

    sequence: int
    at_us: int
    told: int


@dataclass(frozen=True, slots=True)
class WatchState:
    """Begin with `WatchState()`, and again after a change of the level or the basis."""

    recent: tuple[Observation, ...] = ()  # oldest first, at most N
    legs: tuple[LegCount, ...] = ()  # in the order of the legs; of the newest observation
    run_since_us: int | None = None  # the first observation of the present run
    generation: int | None = None
    good_us: int | None = None  # the last good quote
    fault_since_us: int | None = None  # of an unbroken row of faults
    fault: QuoteReason | None = None
    triggered_us: int | None = None

    def is_healthy(self, now_us: int, patience_us: int) -> bool:
        """Whether good quotes came, and faults have not lasted for `patience_us` since. Before the first: False."""
        if self.good_us is None:
            return False
        return self.fault_since_us is None or now_us - self.fault_since_us < patience_us


EMPTY = WatchState()


@dataclass(frozen=True, slots=True)
class Observed:
    """`is_triggered`: now, by this observation; said once. The state remembers it in `triggered_us`."""

    state: WatchState
    is_triggered: bool = False


def observe(watch: Watch, state: WatchState, quote: SpreadQuote | QuoteFault, now_us: int) -> Observed:
    """The watch after one look at the quotes. A fault never triggers; after the trigger nothing changes any more."""
    if state.triggered_us is not None:
        return Observed(state)
    if isinstance(quote, QuoteFault):
        return Observed(_after_fault(watch.policy, state, quote.reason, now_us))
    state = _after_quote(watch, state, quote, now_us)
    if not _is_triggered(watch, state, quote, now_us):
        return Observed(state)
    return Observed(replace(state, triggered_us=now_us), is_triggered=True)


def next_look_us(watch: Watch, state: WatchState) -> int | None:
    """When to observe again although no quote has come; None while nothing could come of it."""
    if state.triggered_us is not None or not state.recent or state.fault_since_us is not None:
        return None
    newest = state.recent[-1]
    return newest.at_us + watch.policy.sample_us if watch.holds(newest.price) else None


def _after_fault(policy: WatchPolicy, state: WatchState, reason: QuoteReason, now_us: int) -> WatchState:
    since_us = now_us if state.fault_since_us is None else state.fault_since_us
    state = replace(state, fault_since_us=since_us, fault=reason)
    is_over = reason.is_gap or now_us - since_us >= policy.fault_reset_us
    return _emptied(state) if is_over else state


def _emptied(state: WatchState) -> WatchState:
    return replace(state, recent=(), legs=(), run_since_us=None)


def _after_quote(watch: Watch, state: WatchState, quote: SpreadQuote, now_us: int) -> WatchState:
    if state.generation != quote.generation:
        state = _emptied(state)
    told: dict[str, object] = {"generation": quote.generation, "good_us": now_us, "fault_since_us": None, "fault": None}
    if not _counts(watch.policy, state, quote, now_us):
        return changed(state, told)
    seen = Observation(quote.price(watch.basis), now_us)
    recent = (*state.recent, seen)[-watch.policy.window :]
    told |= {
        "recent": recent,
        "legs": _leg_counts(watch, state, quote),
        "run_since_us": _run_since_us(watch, state, recent),
    }
    return changed(state, told)


def _counts(policy: WatchPolicy, state: WatchState, quote: SpreadQuote, now_us: int) -> bool:
    """A look at quotes that were looked at before counts once in a sample's time."""
    if not state.recent:
        return True
    elapsed_us = now_us - state.recent[-1].at_us
    is_news = tuple(leg.sequence for leg in quote.legs) != tuple(leg.sequence for leg in state.legs)
    return elapsed_us >= 0 and (is_news or elapsed_us >= policy.sample_us)


def _leg_counts(watch: Watch, state: WatchState, quote: SpreadQuote) -> tuple[LegCount, ...]:
    """`state` is that before the observation."""
    goes_on = bool(state.recent) and watch.holds(state.recent[-1].price)
    known = state.legs if goes_on else (None,) * len(quote.legs)
    counts = []
    for leg, before in zip(quote.legs, known, strict=True):
        told = 1 if before is None else before.told + (leg.sequence != before.sequence)
        counts.append(LegCount(leg.sequence, leg.at_us, told))
    return tuple(counts)


def _run_since_us(watch: Watch, state: WatchState, recent: tuple[Observation, ...]) -> int | None:
    newest = recent[-1]
    contradicting = sum(not watch.holds(seen.price) for seen in recent)
    if state.run_since_us is not None and contradicting <= watch.policy.window - watch.policy.needed:
        return state.run_since_us
    return newest.at_us if watch.holds(newest.price) else None


def _is_triggered(watch: Watch, state: WatchState, quote: SpreadQuote, now_us: int) -> bool:
    policy = watch.policy
    if not watch.holds(quote.price(watch.basis)) or state.run_since_us is None:
        return False
    if sum(watch.holds(seen.price) for seen in state.recent) < policy.needed:
        return False
    if now_us - state.run_since_us < policy.dwell_us:
        return False
    return all(leg.told >= 2 or now_us - leg.at_us >= policy.standing_us for leg in state.legs)
