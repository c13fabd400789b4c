"""From a message of the broker to the bracket it concerns."""

import asyncio
from collections.abc import Callable, Iterable

from otocod.domain.brackets import LOST_IDS_REACH, BracketState
from otocod.domain.events import ComplexReport, ComplexReported, Event, LostIdentifiersFound, OrderReported
from otocod.domain.ids import BracketId, BrokerOrderId, ExternalIdentifier
from otocod.domain.orders import OrderReport
from otocod.domain.reconcile import OUR_SOURCE_PREFIX, attribute
from otocod.engine.mailbox import Mailboxes
from otocod.logs import get_log
from otocod.ports.store import Store

log = get_log(__name__)

# Orders of closed brackets whose last word is kept in mind: every full listing of a day tells all of them again.
_MOST_KNOWN = 20_000


class Router:
    """Reports of orders that are nobody's here: ours from a closed bracket (it is loaded), ours and unknown to the
    database or of an open bracket that was never here (two daemons, or an old backup: entries stop, and what is of an
    open bracket all the same is taken in), or foreign (left alone)."""

    def __init__(self, mailboxes: Mailboxes, store: Store, *, on_stranger: Callable[[OrderReport], None]) -> None:
        self._mailboxes = mailboxes
        self._store = store
        self._on_stranger = on_stranger
        self._lookups: dict[ExternalIdentifier, list[OrderReport]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._known: dict[BrokerOrderId, OrderReport] = {}  # word for word what a closed bracket's record says

    def route(self, report: OrderReport) -> None:
        """Delivers at once if the bracket is in memory, else after a look into the database."""
        owner = self._mailboxes.owner_of(report)
        if owner is not None:
            event = self._event(owner, report)
            if event is not None:
                self._mailboxes.deliver(owner, event)
        elif report.external_identifier is not None and (report.source or "").startswith(OUR_SOURCE_PREFIX):
            known = self._known.get(report.broker_order_id)
            if known is not report and known != report:
                self._look_up(report.external_identifier, report)

    def route_complex(self, report: ComplexReport) -> None:
        owner = self._mailboxes.owner_of_complex(report.complex_order_id)
        if owner is None:
            owner = next(filter(None, (self._mailboxes.owner_of(order) for order in report.orders)), None)
        if owner is not None:
            self._mailboxes.deliver(owner, ComplexReported(report))

    def events_by_bracket(self, reports: Iterable[OrderReport]) -> dict[BracketId, list[Event]]:
        """A listing, sorted by bracket; what belongs to nobody in memory goes its own way."""
        found: dict[BracketId, list[Event]] = {}
        for report in reports:
            owner = self._mailboxes.owner_of(report)
            if owner is None:
                self._route_ownerless(report, found)
                continue
            event = self._event(owner, report)
            if event is not None:
                found.setdefault(owner, []).append(event)
        return found

    def _route_ownerless(self, report: OrderReport, found: dict[BracketId, list[Event]]) -> None:
        """What only a lost record of an open bracket can have made belongs to the news of that bracket: a stop of which
        nothing is known here would be sent a second time.
        """
        heir = self._heir_of(report)
        if heir is None:
            self.route(report)
            return
        self._on_stranger(report)
        owner, lost, reported = heir
        found.setdefault(owner, []).extend((lost, reported))

    def _heir_of(self, report: OrderReport) -> tuple[BracketId, LostIdentifiersFound, OrderReported] | None:
        name = report.external_identifier
        if name is None or not (report.source or "").startswith(OUR_SOURCE_PREFIX):
            return None
        for bracket in self._mailboxes.open_on(leg.symbol for leg in report.legs):
            made = bracket.made_as(name, bracket.ids_made + LOST_IDS_REACH)
            if made is not None and made[1] >= bracket.ids_made:
                return bracket.bracket_id, LostIdentifiersFound(made[1] + 1), OrderReported(report, name)
        return None

    def _event(self, owner: BracketId, report: OrderReport) -> OrderReported | None:
        name = attribute(self._mailboxes.brackets[owner], report)
        return None if name is None else OrderReported(report, name)

    def _look_up(self, name: ExternalIdentifier, report: OrderReport) -> None:
        waiting = self._lookups.setdefault(name, [])
        waiting.append(report)
        if len(waiting) == 1:
            task = asyncio.get_running_loop().create_task(self._load_owner(name), name="load-owner")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _load_owner(self, name: ExternalIdentifier) -> None:
        try:
            bracket_id = await self._store.bracket_of(name)
            bracket = None if bracket_id is None else await self._store.bracket(bracket_id)
        finally:
            waiting = self._lookups.pop(name)
        if bracket is None:
            for report in waiting:
                self._not_on_disk(report)
            return
        is_here = bracket.bracket_id in self._mailboxes.brackets
        if bracket.state is not BracketState.CLOSED and not is_here:
            # All open brackets of this database are in memory, but for those that another daemon has accepted since.
            for report in waiting:
                self._on_stranger(report)
            return
        for report in waiting:
            if bracket.bracket_id not in self._mailboxes.brackets:
                self._mailboxes.load((bracket,))
            event = self._event(bracket.bracket_id, report)
            if event is not None:
                before = self._mailboxes.brackets[bracket.bracket_id]
                if self._mailboxes.deliver(bracket.bracket_id, event) is before and not is_here:
                    self._remember(report)
            elif not report.status.is_terminal:
                self._on_stranger(report)
        self._mailboxes.drop_if_closed(bracket.bracket_id)

    def _remember(self, report: OrderReport) -> None:
        """It told a closed bracket nothing: the same report again need not be looked up."""
        if len(self._known) >= _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[report.broker_order_id] = report

    def _not_on_disk(self, report: OrderReport) -> None:
        heir = self._heir_of(report)
        if heir is not None or not report.status.is_terminal:
            self._on_stranger(report)
        if heir is not None:
            owner, lost, reported = heir
            self._mailboxes.deliver(owner, lost, reported)

    async def settle(self) -> None:
        """Waits for lookups under way."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
