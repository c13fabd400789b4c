"""What each account and kind of product has proved to accept. Dated; learned from dry-runs, which have no effect, and
from the answers to real orders.
"""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from otocod.domain.acceptance import has_absolute_exits, has_both_exits
from otocod.domain.commands import Member
from otocod.domain.exits import exit_specs
from otocod.domain.ids import AccountNumber, ExternalIdentifier
from otocod.domain.request_types import BracketRequest, StopMarket
from otocod.domain.specs import OrderType, Protection, Role
from otocod.domain.spreads import size_of, spread_of
from otocod.engine.slots import Priority, Slots
from otocod.logs import get_log
from otocod.ports.broker import Broker, Confirmed, Refused
from otocod.ports.clock import Clock
from otocod.ports.store import Capability, Store

log = get_log(__name__)

# What was refused once is tried again after this long: brokers change.
FORGET_REFUSAL_AFTER_US = 7 * 24 * 3600 * 1_000_000

# What is on record is asked again after this long, where that has no effect.
PROBE_AGAIN_AFTER_US = 24 * 3600 * 1_000_000
PROBES_EVERY_S = 6 * 3600.0
# The start is for orders and listings; what the account can do may be asked later, one question after the other.
PROBES_AFTER_S = 5.0
PROBE_PAUSE_S = 1.0

# Answers about this order at this moment; they say nothing of the mode.
_PASSING_CODES = frozenset(
    {
        "margin_check_failed",
        "illegal_buy_and_sell_on_same_symbol",
        "cannot_close_against_more_than_existing_position",
        "closing_with_no_position",
        "invalid_oco_price",
        "stop_price_through_market",
        "instrument_validation_failed",
    }
)
_OF_DRY_RUN = "dry-run "

Sample = tuple[AccountNumber, BracketRequest]


class Capabilities:
    def __init__(self, broker: Broker, clock: Clock, store: Store, slots: Slots) -> None:
        self._broker = broker
        self._clock = clock
        self._store = store
        self._slots = slots
        self.records: dict[tuple[AccountNumber, str, Protection], Capability] = {}

    async def load(self) -> None:
        for record in await self._store.capabilities():
            self.records[(record.account, record.product, record.protection)] = record

    def learn(
        self, account: AccountNumber, product: str, mode: Protection, *, is_accepted: bool, evidence: str
    ) -> None:
        key = (account, product, mode)
        known = self.records.get(key)
        is_same = known is not None and (known.is_accepted, known.evidence) == (is_accepted, evidence)
        if known is not None and is_same and not self._is_dated(account, product, mode):
            return
        record = Capability(account, product, mode, is_accepted, evidence, self._clock.now_us())
        self.records[key] = record
        self._store.commit(record)
        log.info("capability_learned", product=product, mode=mode, accepted=is_accepted, evidence=evidence)

    async def run(self, samples: Sequence[Sample]) -> None:
        """For life: what nothing is known of, or nothing new, is asked again without effect.

        `samples`: requests of the past, the newest first. One for each account and kind of product is enough, and one
        is needed: only its contracts are known to exist.
        """
        await asyncio.sleep(PROBES_AFTER_S)
        while True:
            for account, request in self._worth_asking(samples):
                for mode in (Protection.NATIVE_OTOCO, Protection.NATIVE_OCO):
                    if self._is_dated(account, product_of(request), mode) and _can_probe(request, mode):
                        await self._probe(account, product_of(request), request, mode)
                        await asyncio.sleep(PROBE_PAUSE_S)
            await asyncio.sleep(PROBES_EVERY_S)

    def _worth_asking(self, samples: Sequence[Sample]) -> Iterator[Sample]:
        today = datetime.fromtimestamp(self._clock.now_us() // 1_000_000, UTC).date()
        seen: set[tuple[AccountNumber, str]] = set()
        for account, request in samples:
            expiries = [each.expires_on for each in spread_of(request.entry.legs).instruments]
            is_expired = any(day is not None and day < today for day in expiries)
            key = account, product_of(request)
            if key in seen or is_expired or not _can_probe(request, Protection.NATIVE_OCO):
                continue
            seen.add(key)
            yield account, request

    def _is_dated(self, account: AccountNumber, product: str, mode: Protection) -> bool:
        known = self.records.get((account, product, mode))
        return known is None or self._clock.now_us() - known.at_us > PROBE_AGAIN_AFTER_US

    async def usable(self, account: AccountNumber, request: BracketRequest) -> frozenset[Protection]:
        """Native modes not known to be refused; an OTOCO that nothing is known about is tried by a dry-run first.

        An OCO cannot be tried without its position, and its refusal costs a moment, so it counts until refused.
        """
        product = product_of(request)
        if self._is_unknown(account, product, Protection.NATIVE_OTOCO) and _can_probe(request, Protection.NATIVE_OTOCO):
            await self._probe(account, product, request, Protection.NATIVE_OTOCO)
        modes = (Protection.NATIVE_OTOCO, Protection.NATIVE_OCO)
        return frozenset(mode for mode in modes if not self.is_refused(account, product, mode))

    def _is_unknown(self, account: AccountNumber, product: str, mode: Protection) -> bool:
        known = self.records.get((account, product, mode))
        return known is None or (not known.is_accepted and self._is_old(known))

    def is_refused(self, account: AccountNumber, product: str, mode: Protection) -> bool:
        known = self.records.get((account, product, mode))
        return known is not None and not known.is_accepted and not self._is_old(known)

    def _is_old(self, known: Capability) -> bool:
        return self._clock.now_us() - known.at_us > FORGET_REFUSAL_AFTER_US

    async def _probe(self, account: AccountNumber, product: str, request: BracketRequest, mode: Protection) -> None:
        members = _members(request, mode)
        async with self._slots.slot(Priority.ENTRY):
            outcome = await self._broker.dry_run(account, members)
        match outcome:
            case Confirmed():
                self.learn(account, product, mode, is_accepted=True, evidence=f"{_OF_DRY_RUN}accepted")
            case Refused() if self._is_verdict(account, product, mode, outcome):
                evidence = f"{_OF_DRY_RUN}refused: {outcome.refusal.text}"
                self.learn(account, product, mode, is_accepted=False, evidence=evidence)
            case _:
                log.info("capability_unproved", product=product, mode=mode)

    def _is_verdict(self, account: AccountNumber, product: str, mode: Protection, refused: Refused) -> bool:
        """Whether the refusal is about the mode. An OCO is always refused for want of its position as well; and what a
        real order was answered not long ago is worth more than a dry-run."""
        if refused.refusal.http_status != 422:
            return False
        known = self.records.get((account, product, mode))
        is_real = known is not None and not known.evidence.startswith(_OF_DRY_RUN)
        if known is not None and is_real and self._clock.now_us() - known.at_us <= FORGET_REFUSAL_AFTER_US:
            return False
        if mode is Protection.NATIVE_OCO:
            return bool(refused.refusal.reasons - _PASSING_CODES)
        return not _PASSING_CODES & set(refused.refusal.codes)


def _members(request: BracketRequest, mode: Protection) -> list[Member]:
    assert request.entry.net_price is not None
    exits = exit_specs(request, entry_net_price=request.entry.net_price, units=size_of(request.entry.legs))
    assert exits.target is not None and exits.stop is not None
    specs = [(Role.TARGET, exits.target), (Role.STOP, exits.stop)]
    if mode is Protection.NATIVE_OTOCO:
        specs.insert(0, (Role.ENTRY, request.entry))
    return [Member(ExternalIdentifier(f"probe-{role}"), role, spec) for role, spec in specs]


def product_of(request: BracketRequest) -> str:
    """What the broker's rules tell apart: shares, futures, single options, spreads; and futures options of either."""
    spread = spread_of(request.entry.legs)
    kind = "spread" if len(request.entry.legs) > 1 else spread.kind.value
    prefix = "future " if request.entry.legs[0].instrument_type.value == "Future Option" else ""
    return f"{prefix}{kind}"


def _can_probe(request: BracketRequest, mode: Protection) -> bool:
    is_exact = mode is Protection.NATIVE_OCO or has_absolute_exits(request)
    is_pair = has_both_exits(request) and request.entry.net_price is not None
    has_no_such_order = isinstance(request.stop, StopMarket) and len(request.entry.legs) > 1
    return is_pair and is_exact and not has_no_such_order and request.entry.order_type is not OrderType.MARKET
