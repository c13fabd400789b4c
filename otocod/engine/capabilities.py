"""What each account and kind of product has proved to accept. Dated; learned from dry-runs, which have no effect, and
from the answers to real orders.
"""

from otocod.domain.acceptance import has_absolute_exits, has_both_exits
from otocod.domain.commands import Member
from otocod.domain.exits import exit_specs
from otocod.domain.ids import AccountNumber, ExternalIdentifier
from otocod.domain.request_types import BracketRequest
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

# Answers about this order at this moment; they say nothing of the mode.
_PASSING_CODES = frozenset(
    {"margin_check_failed", "illegal_buy_and_sell_on_same_symbol", "cannot_close_against_more_than_existing_position"}
)


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
        if known is not None and is_same and (is_accepted or not self._is_old(known)):
            return
        record = Capability(account, product, mode, is_accepted, evidence, self._clock.now_us())
        self.records[key] = record
        self._store.commit(record)
        log.info("capability_learned", product=product, mode=mode, accepted=is_accepted, evidence=evidence)

    async def usable(self, account: AccountNumber, request: BracketRequest) -> frozenset[Protection]:
        """Native modes not known to be refused; an OTOCO that nothing is known about is tried by a dry-run first.

        An OCO cannot be tried without its position, and its refusal costs a moment, so it counts until refused.
        """
        product = product_of(request)
        if self._is_unknown(account, product, Protection.NATIVE_OTOCO) and _can_probe(request):
            await self._probe(account, product, request)
        modes = (Protection.NATIVE_OTOCO, Protection.NATIVE_OCO)
        return frozenset(mode for mode in modes if not self._is_refused(account, product, mode))

    def _is_unknown(self, account: AccountNumber, product: str, mode: Protection) -> bool:
        known = self.records.get((account, product, mode))
        return known is None or (not known.is_accepted and self._is_old(known))

    def _is_refused(self, account: AccountNumber, product: str, mode: Protection) -> bool:
        known = self.records.get((account, product, mode))
        return known is not None and not known.is_accepted and not self._is_old(known)

    def _is_old(self, known: Capability) -> bool:
        return self._clock.now_us() - known.at_us > FORGET_REFUSAL_AFTER_US

    async def _probe(self, account: AccountNumber, product: str, request: BracketRequest) -> None:
        assert request.entry.net_price is not None
        exits = exit_specs(request, entry_net_price=request.entry.net_price, units=size_of(request.entry.legs))
        assert exits.target is not None and exits.stop is not None
        members = [
            Member(ExternalIdentifier(f"probe-{role}"), role, spec)
            for role, spec in ((Role.ENTRY, request.entry), (Role.TARGET, exits.target), (Role.STOP, exits.stop))
        ]
        async with self._slots.slot(Priority.ENTRY):
            outcome = await self._broker.dry_run(account, members)
        match outcome:
            case Confirmed():
                self.learn(account, product, Protection.NATIVE_OTOCO, is_accepted=True, evidence="dry-run accepted")
            case Refused() if outcome.refusal.http_status == 422 and not _PASSING_CODES & set(outcome.refusal.codes):
                evidence = f"dry-run refused: {outcome.refusal.text}"
                self.learn(account, product, Protection.NATIVE_OTOCO, is_accepted=False, evidence=evidence)
            case _:
                log.info("capability_unproved", product=product, mode=Protection.NATIVE_OTOCO)


def product_of(request: BracketRequest) -> str:
    """What the broker's rules tell apart: shares, futures, single options, spreads; and futures options of either."""
    spread = spread_of(request.entry.legs)
    kind = "spread" if len(request.entry.legs) > 1 else spread.kind.value
    prefix = "future " if request.entry.legs[0].instrument_type.value == "Future Option" else ""
    return f"{prefix}{kind}"


def _can_probe(request: BracketRequest) -> bool:
    return (
        has_both_exits(request)
        and has_absolute_exits(request)
        and request.entry.order_type is not OrderType.MARKET
        and request.entry.net_price is not None
    )
