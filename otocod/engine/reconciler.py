"""Compares with the broker by REST: at the start, after every gap of the stream, for outcomes not known, on the clock.

Two kinds of listing. A *full* one has every order since the oldest open bracket, and only it proves absence. The one on
the clock asks for the statuses that are not terminal, then reads each order of ours that is missing there.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from otocod.domain.brackets import Bracket
from otocod.domain.events import (
    ComplexReport,
    ComplexReported,
    Event,
    LostIdentifiersFound,
    OrderReported,
    SweepCompleted,
)
from otocod.domain.ids import AccountNumber, BracketId, BrokerOrderId
from otocod.domain.orders import BrokerStatus, OrderReport, OrderState
from otocod.domain.timing import LISTING_MARGIN_US
from otocod.engine.mailbox import Mailboxes
from otocod.engine.positions import PositionWatch
from otocod.engine.router import Router
from otocod.engine.slots import Priority, Slots
from otocod.logs import get_log
from otocod.ports.broker import Broker, Listing, LoginRefused, NotFound, ReadFailed
from otocod.ports.clock import Clock

log = get_log(__name__)

SECOND_US = 1_000_000
CLOCK_DRIFT_US = 2 * SECOND_US  # up to here the two clocks count as the same: the broker tells whole seconds
IDLE_INTERVAL_S = 60.0
# A sweep never runs more often than this many times its own length: the broker's limits are not published.
SWEEP_SHARE = 20
_BETWEEN_FULL_S = 0.1
_RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0, 15.0)
_NON_TERMINAL = tuple(s.value for s in BrokerStatus if not s.is_terminal and s is not BrokerStatus.UNRECOGNISED)


# Cancels are final within seconds; what fills after that has been seen to be told within some more.
ENDED_READ_AFTER_S = 20.0
# Brackets joined to a listing in one go: some milliseconds, for which a fill may have to wait.
_JOINED_AT_ONCE = 10


async def _give_way(steps: Iterable[None]) -> None:
    """Takes the steps, and lets the loop turn now and then: of 10,000 brackets they take seconds."""
    for number, _ in enumerate(steps, 1):
        if number % _JOINED_AT_ONCE == 0:
            await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class AccountReport:
    """One account as a full listing found it."""

    account: AccountNumber
    listing: Listing
    groups: tuple[ComplexReport, ...]
    started_us: int
    from_us: int


@dataclass(frozen=True, slots=True)
class _Ended:
    """An order of a closed bracket that ended unfilled."""

    account: AccountNumber
    broker_order_id: BrokerOrderId
    tries: int = 3


class Reconciler:
    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        mailboxes: Mailboxes,
        router: Router,
        slots: Slots,
        positions: PositionWatch,
        *,
        accounts: Sequence[AccountNumber],
        interval_s: float,
        is_stream_healthy: Callable[[], bool],
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._mailboxes = mailboxes
        self._router = router
        self._slots = slots
        self._positions = positions
        self.accounts = tuple(accounts)
        self.interval_s = interval_s
        self._is_stream_healthy = is_stream_healthy
        self._wanted: dict[AccountNumber, int] = {}  # full listings asked for: how far back
        self._wake = asyncio.Event()
        self._looks: dict[AccountNumber, asyncio.TimerHandle] = {}
        self._ended: list[_Ended] = []  # to be read once more
        self._last_length_s = 0.0
        self.clock_offset_us = 0
        self.last_completed_us: int | None = None

    # Asking.

    def ask(self, bracket: Bracket, from_us: int) -> None:
        self._want(bracket.account, from_us)

    def ask_all(self) -> None:
        """A full look at every account: after a gap in the stream."""
        for account in self.accounts:
            self._want(account, self.oldest_us(account))

    def _want(self, account: AccountNumber, from_us: int) -> None:
        self._wanted[account] = min(from_us, self._wanted.get(account, from_us))
        self._wake.set()

    def look_at_ended(self, bracket: Bracket) -> None:
        """A bracket has just closed: its orders that ended unfilled are read once more, in a while. No listing shows
        them, and a late fill of which the stream loses the word would stand there unknown and unprotected.
        """
        names = [
            order.broker_order_id
            for order in bracket.orders
            if order.broker_order_id is not None and order.state is not OrderState.FILLED
        ]
        loop = asyncio.get_running_loop()
        for broker_order_id in names:
            loop.call_later(ENDED_READ_AFTER_S, self._read_ended_later, _Ended(bracket.account, broker_order_id))

    def _read_ended_later(self, ended: "_Ended") -> None:
        self._ended.append(ended)
        self._wake.set()

    def oldest_us(self, account: AccountNumber) -> int:
        """Where a listing begins that shows every order of the open brackets; by the broker's clock."""
        ours = [b.listed_from_us for b in self._mailboxes.open_brackets() if b.account == account]
        return min(ours, default=self._clock.now_us() + self.clock_offset_us - LISTING_MARGIN_US)

    # The task.

    async def run(self) -> None:
        """For life. A failed listing is told and tried again; it proves nothing."""
        failures = 0
        while True:
            if not self._wanted:
                await self._sleep()
            try:
                is_full = bool(self._wanted)
                await self._turn()
                failures = 0
                if is_full and self._wanted:
                    # Whoever asks again at once has not understood the answer, and must not flood the broker.
                    await asyncio.sleep(_BETWEEN_FULL_S)
            except ReadFailed as error:
                log.warning("reconcile_failed", error=str(error))
                delay_s = _RETRY_S[min(failures, len(_RETRY_S) - 1)]
                failures += 1
                await asyncio.sleep(delay_s)

    async def _sleep(self) -> None:
        """In steps of the shorter interval: an order that begins to work must not wait out a pause begun before it."""
        self._wake.clear()
        slept_s = 0.0
        while slept_s < self._pause_s():
            step_s = max(min(self.interval_s, IDLE_INTERVAL_S), SWEEP_SHARE * self._last_length_s)
            try:
                async with asyncio.timeout(step_s):
                    await self._wake.wait()
                return
            except TimeoutError:
                slept_s += step_s

    def _pause_s(self) -> float:
        is_working = any(
            not order.is_terminal for bracket in self._mailboxes.open_brackets() for order in bracket.orders
        )
        interval_s = self.interval_s if is_working else IDLE_INTERVAL_S
        return max(interval_s, SWEEP_SHARE * self._last_length_s)

    async def _turn(self) -> None:
        started_us = self._clock.now_us()
        ended, self._ended = self._ended, []
        for order in ended:
            await self._read_ended(order)
        if self._wanted:
            wanted, self._wanted = self._wanted, {}
            for account in list(wanted):
                try:
                    await self.list_fully(account, wanted[account])
                except ReadFailed:
                    for left, from_us in wanted.items():
                        self._wanted[left] = min(from_us, self._wanted.get(left, from_us))
                    raise
                del wanted[account]
        else:
            for account in self.accounts:
                await self._sweep(account)
        self._last_length_s = (self._clock.now_us() - started_us) / SECOND_US
        self.last_completed_us = self._clock.now_us()

    # Full listings.

    async def report(self, account: AccountNumber, from_us: int) -> AccountReport:
        """Reads everything of one account; raises ReadFailed rather than leave anything out."""
        started_us = self._clock.now_us()
        async with self._slots.slot(Priority.RECONCILE):
            listing = await self._broker.search(account, from_us=from_us)
        groups: tuple[ComplexReport, ...] = ()
        if self._has_groups(account):
            async with self._slots.slot(Priority.RECONCILE):
                groups = await self._broker.live_complex_orders(account)
        if listing.broker_clock_offset_us is not None:
            self.clock_offset_us = listing.broker_clock_offset_us
        return AccountReport(account, listing, groups, started_us, from_us)

    def _has_groups(self, account: AccountNumber) -> bool:
        return any(
            order.group is not None
            for bracket in self._mailboxes.open_brackets()
            if bracket.account == account
            for order in bracket.orders
        )

    async def list_fully(self, account: AccountNumber, from_us: int) -> AccountReport:
        found = await self.report(account, from_us)
        await _give_way(self._merging(found))
        await self._compare_positions(account)
        return found

    def merge(self, found: AccountReport, first: Event | None = None) -> None:
        """Joins a full listing: for each bracket all of it at once, `first` before it, the proof of absence last."""
        for _ in self._merging(found, first):
            pass

    def _merging(self, found: AccountReport, first: Event | None = None) -> Iterator[None]:
        """`merge`, bracket by bracket. What the stream tells meanwhile is joined like what it told before."""
        news = self._router.events_by_bracket(found.listing.reports)
        for group in found.groups:
            owner = self._mailboxes.owner_of_complex(group.complex_order_id)
            if owner is None:
                owner = next(filter(None, (self._mailboxes.owner_of(order) for order in group.orders)), None)
            if owner is not None:
                news.setdefault(owner, []).append(ComplexReported(group))
        swept = SweepCompleted(found.started_us, found.from_us, self._is_stream_healthy())
        for bracket_id in [b.bracket_id for b in self._mailboxes.open_brackets() if b.account == found.account]:
            bracket = self._mailboxes.brackets.get(bracket_id)
            if bracket is None:
                continue
            told = news.pop(bracket_id, [])
            # Before anything makes identifiers: those of a lost record must not be made again.
            events: list[Event] = [event for event in told if isinstance(event, LostIdentifiersFound)]
            events.extend([] if first is None else [first])
            events.extend(event for event in told if not isinstance(event, LostIdentifiersFound))
            if first is not None or bracket.unknown_orders or bracket.suspects or events:
                self._mailboxes.deliver(bracket_id, *events, swept)
                yield
        for bracket_id, events in news.items():
            self._mailboxes.deliver(bracket_id, *events)
            yield

    # On the clock.

    async def _sweep(self, account: AccountNumber) -> None:
        ours = [b for b in self._mailboxes.open_brackets() if b.account == account]
        if not ours:
            return
        async with self._slots.slot(Priority.RECONCILE):
            listing = await self._broker.search(account, from_us=self.oldest_us(account), statuses=_NON_TERMINAL)
        listed: set[str] = set()
        await _give_way(self._delivering(self._router.events_by_bracket(listing.reports)))
        listed.update(report.broker_order_id for report in listing.reports)
        for bracket in ours:
            await self._read_missing(bracket.bracket_id, account, listed)
        await self._compare_positions(account)

    async def _compare_positions(self, account: AccountNumber) -> None:
        pause_s = await self._positions.compare(account)
        if pause_s is not None:
            self.look_again(account, max(pause_s, SWEEP_SHARE * self._last_length_s))

    def look_again(self, account: AccountNumber, after_s: float) -> None:
        """A full look at one account, in a while; of several asked for, the soonest."""
        loop = asyncio.get_running_loop()
        at_s, waiting = loop.time() + after_s, self._looks.get(account)
        if waiting is None or at_s < waiting.when():
            if waiting is not None:
                waiting.cancel()
            self._looks[account] = loop.call_at(at_s, self._look_now, account)

    def _look_now(self, account: AccountNumber) -> None:
        del self._looks[account]
        self._want(account, self.oldest_us(account))

    def _delivering(self, news: Mapping[BracketId, Sequence[Event]]) -> Iterator[None]:
        for bracket_id, events in news.items():
            self._mailboxes.deliver(bracket_id, *events)
            yield

    async def _read_missing(self, bracket_id: BracketId, account: AccountNumber, listed: set[str]) -> None:
        bracket = self._mailboxes.brackets.get(bracket_id)
        if bracket is None:
            return
        events: list[Event] = []
        for order in bracket.orders:
            broker_order_id = order.broker_order_id
            if order.is_terminal or broker_order_id is None or broker_order_id in listed:
                continue
            try:
                async with self._slots.slot(Priority.RECONCILE):
                    report: OrderReport = await self._broker.read_order(account, broker_order_id)
            except NotFound:
                # Terminal only after the listings have been asked as well.
                self._want(account, bracket.listed_from_us)
                continue
            events.append(OrderReported(report, order.external_identifier))
        if events:
            # One piece of news: the cancelled member of a group means something else beside its filled sibling.
            self._mailboxes.deliver(bracket_id, *events)

    async def _read_ended(self, order: "_Ended") -> None:
        """Never in the way of a listing: what cannot be read is tried a few times more."""
        try:
            async with self._slots.slot(Priority.RECONCILE):
                self._router.route(await self._broker.read_order(order.account, order.broker_order_id))
        except NotFound:
            return
        except ReadFailed:
            if order.tries > 1:
                again = replace(order, tries=order.tries - 1)
                asyncio.get_running_loop().call_later(ENDED_READ_AFTER_S, self._read_ended_later, again)

    # The start.

    async def first_reports(self) -> tuple[AccountReport, ...]:
        """Every account, tried again until it succeeds; a refused log-in is the caller's to wait out."""
        failures = 0
        while True:
            try:
                return tuple([await self.report(account, self.oldest_us(account)) for account in self.accounts])
            except LoginRefused:
                raise
            except ReadFailed as error:
                log.warning("reconcile_failed", error=str(error))
                await asyncio.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
                failures += 1
