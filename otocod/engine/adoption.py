"""A database that is behind the broker: restored from a backup, or used by a second daemon somewhere else.

The broker then has orders with our source whose identifiers are not on disk here. Those that can only have been made
from a bracket of this database are taken in at once (the router sees to that, for exits are managed at any time). What
the others are for nobody here knows. Entries stop, over restarts, until a person has looked and said
`otocod reconcile --adopt`, and what is to become of them.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from otocod.domain.ids import AccountNumber, ExternalIdentifier
from otocod.domain.orders import BrokerStatus, LegReport, OrderReport
from otocod.domain.reconcile import OUR_SOURCE_PREFIX
from otocod.logs import get_log
from otocod.ports.broker import Broker, NotSent, Refused, Unknown
from otocod.ports.clock import Clock
from otocod.ports.store import Setting, Store

log = get_log(__name__)

ADOPTION = "adoption"  # why a person must look; empty when nobody must
ADOPTION_FROM_US = "adoption_from_us"  # the last that this database knew
ADOPTED = "adopted_orders"  # identifiers that a person has taken over, a JSON array
REQUESTS_FROM_US = "requests_from_us"  # queue rows from before may have become brackets that are lost

# Where nothing says how old the database is.
_REACH_US = 7 * 24 * 3600 * 1_000_000
_CANCEL_LOOKS = 20
_CANCEL_LOOK_S = 0.5


class Fate(StrEnum):
    """Of the orders that belong to no bracket here."""

    CANCEL = "cancel"  # entries that work; closing orders stay, for they may be all that protects a position
    LEAVE = "leave"  # all of it is a person's from now on


@dataclass(frozen=True, slots=True)
class Stray:
    """An order with our source that belongs to no bracket of this database."""

    account: AccountNumber
    report: OrderReport

    @property
    def is_of_interest(self) -> bool:
        """One that ended without a fill has left nothing behind."""
        return not self.report.status.is_terminal or any(self._filled(leg) for leg in self.report.legs)

    @property
    def is_working_entry(self) -> bool:
        report = self.report
        return not report.status.is_terminal and any(leg.action is None or leg.action.is_opening for leg in report.legs)

    def _filled(self, leg: LegReport) -> int:
        if self.report.status is BrokerStatus.FILLED:
            return leg.quantity
        return sum(fill.quantity for fill in leg.fills)

    def __str__(self) -> str:
        report = self.report
        legs = ", ".join(
            f"{leg.action or '?'} {leg.quantity} {leg.symbol.strip()} (filled {self._filled(leg)})"
            for leg in report.legs
        )
        return f"order {report.broker_order_id} in account {self.account}: {report.status_text}, {legs or 'no legs'}"


class Adoption:
    """What is to be looked at, since when, and what a person has taken over."""

    def __init__(self, store: Store, broker: Broker, clock: Clock) -> None:
        self._store = store
        self._broker = broker
        self._clock = clock
        self.why: str | None = None
        self.requests_from_us = 0
        self._from_us: int | None = None
        self._adopted: set[ExternalIdentifier] = set()

    def load(self, settings: dict[str, str]) -> None:
        self.why = settings.get(ADOPTION) or None
        self._from_us = int(settings[ADOPTION_FROM_US]) if settings.get(ADOPTION_FROM_US) else None
        self.requests_from_us = int(settings.get(REQUESTS_FROM_US) or 0)
        self._adopted = {ExternalIdentifier(name) for name in json.loads(settings.get(ADOPTED) or "[]")}

    def is_adopted(self, report: OrderReport) -> bool:
        return report.external_identifier in self._adopted

    def need(self, why: str) -> None:
        """From now on, over restarts. What was said first stays."""
        if self.why is None:
            self.why = why
            self._store.commit(Setting(ADOPTION, why))

    def listed_from_us(self, oldest_us: int) -> int:
        """Where a listing must begin to show everything that this database may lack; by the broker's clock."""
        since_us = self._clock.now_us() - _REACH_US if self._from_us is None else self._from_us
        return min(oldest_us, since_us)

    async def strays(
        self, account: AccountNumber, reports: Iterable[OrderReport], is_known: Callable[[OrderReport], bool]
    ) -> list[Stray]:
        """`is_known`: whether a bracket in memory owns it."""
        found = []
        for report in reports:
            name = report.external_identifier
            if name is None or not (report.source or "").startswith(OUR_SOURCE_PREFIX):
                continue
            if is_known(report) or name in self._adopted or await self._store.bracket_of(name) is not None:
                continue
            stray = Stray(account, report)
            if stray.is_of_interest:
                found.append(stray)
        return found

    async def cancel(self, stray: Stray) -> str | None:
        """Why a working entry is not known to be gone without a trace, or None once it is."""
        group = stray.report.complex_order_id
        if group is not None:
            # The broker ends the trigger of a group with its group alone; before the fill the rest protects nothing.
            outcome = await self._broker.cancel_complex(stray.account, group)
        else:
            outcome = await self._broker.cancel(stray.account, stray.report.broker_order_id)
        why = "the broker still shows it"
        match outcome:
            case Refused():
                why = outcome.refusal.text
            case NotSent() | Unknown():
                why = outcome.why
        for _ in range(_CANCEL_LOOKS):
            found = await self._broker.read_order(stray.account, stray.report.broker_order_id)
            if found.status is BrokerStatus.FILLED:
                return "it filled meanwhile: its position may be unprotected, look at the broker now"
            if found.status.is_terminal:
                return None
            await asyncio.sleep(_CANCEL_LOOK_S)
        return why

    async def conclude(self, strays: Sequence[Stray], by: str) -> None:
        """Nothing needs to be looked at any more; durable when it returns."""
        self._adopted.update(
            stray.report.external_identifier for stray in strays if stray.report.external_identifier is not None
        )
        log.warning("adopted", by=by, orders=[stray.report.broker_order_id for stray in strays], why=self.why)
        self._store.commit(Setting(ADOPTED, json.dumps(sorted(self._adopted))))
        self._store.commit(Setting(ADOPTION_FROM_US, ""))
        await self._store.commit(Setting(ADOPTION, ""))
        self.why, self._from_us = None, None
