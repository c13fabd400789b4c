"""What an operator may do, as events of the core: checked against the present record, journalled, and never in a hurry.

Reads are the read model's, on what is committed, so `show` right after a command shows it.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.commands import Member
from otocod.domain.events import (
    AttentionAcknowledged,
    ChangeRequested,
    CloseRequested,
    EntryCancelRequested,
    Event,
    ReleaseRequested,
    UnfreezeRequested,
)
from otocod.domain.exits import ExitSpecs, exit_specs
from otocod.domain.ids import AccountNumber, BracketId, ExternalIdentifier
from otocod.domain.orders import ADOPTED, Order, OrderReport, View
from otocod.domain.prices import PriceError, grid_for, is_on_grid, parse_price
from otocod.domain.request import parse_request
from otocod.domain.request_types import RequestRefused
from otocod.domain.specs import OrderSpec, Role
from otocod.domain.spreads import spread_of
from otocod.engine.adoption import Fate, Stray
from otocod.engine.board import Board
from otocod.engine.halts import HaltLevel
from otocod.engine.intake import exchange_day
from otocod.engine.reconciler import SECOND_US
from otocod.engine.supervisor import Supervisor
from otocod.engine.takeover import Takeover, TakeoverDesk
from otocod.ports.admin import AdminFailed, AdminRefused, BrokerUnreachable, JsonList, JsonObject, NoSuchBracket
from otocod.ports.broker import Confirmed, NotFound, NotSent, ReadFailed, Refused, Unknown
from otocod.ports.store import Alarm
from otocod.safety import safety_of

# Closed brackets of the last day are compared with the broker as well.
_AUDIT_REACH_US = 24 * 3600 * SECOND_US

# Orders of one bracket that are read for a look at it, the newest.
_MOST_READ = 60

_OPEN_POSITION = (BracketState.ENTRY_FILLED, BracketState.EXITS_LIVE, BracketState.CLOSING)


class ReadModel(Protocol):
    """Reads of what is committed, off the event loop."""

    async def find(self, named: str) -> BracketId: ...
    async def brackets(self, filters: Mapping[str, str]) -> JsonList: ...
    async def bracket(self, bracket_id: BracketId) -> JsonObject: ...
    async def events(self, bracket_id: BracketId | None, after_seq: int, limit: int) -> JsonList: ...
    async def recording(self, bracket_id: BracketId) -> JsonObject: ...
    async def summary(self) -> JsonObject: ...
    async def lately_closed(self, limit: int) -> JsonList: ...
    async def audit(self, broker_orders: JsonList | None, positions: Mapping[str, Mapping[str, int]]) -> JsonObject: ...
    async def backup(self, to: str) -> JsonObject: ...


class Surroundings(Protocol):
    """What the composition root knows and the engine does not."""

    def identity(self) -> JsonObject: ...
    async def doctor(self) -> JsonList: ...
    async def prune(self) -> JsonObject: ...
    async def reload(self) -> JsonObject: ...


class OperatorService:
    """Implements ports.admin.AdminService."""

    def __init__(self, supervisor: Supervisor, reads: ReadModel, surroundings: Surroundings) -> None:
        self._supervisor = supervisor
        self._reads = reads
        self._surroundings = surroundings
        self.board = Board(supervisor, reads, surroundings)
        self._takeovers = TakeoverDesk(supervisor)
        self._pruning = asyncio.Lock()

    # Reads.

    async def status(self) -> JsonObject:
        supervisor = self._supervisor
        now_us = supervisor.clock.now_us()
        heard_us = supervisor.streamer.last_message_us
        reasons = [] if supervisor.is_ready else [f"waiting for {supervisor.waiting_for}"]
        if supervisor.login_refused is not None:
            reasons.append(f"log-in refused: {supervisor.login_refused}")
        return {
            "ready": supervisor.is_ready,
            "reasons_not_ready": reasons,
            **self._surroundings.identity(),
            "streamer": {
                "healthy": supervisor.streamer.is_healthy,
                "age_s": None if heard_us is None else round((now_us - heard_us) / SECOND_US, 3),
            },
            "login": "refused" if supervisor.login_refused is not None else "ok",
            "last_reconcile_at": _iso(supervisor.reconciler.last_completed_us),
            "halted": supervisor.halts.level is not HaltLevel.NONE,
            "halt_level": supervisor.halts.level.value,
            "halt_reason": supervisor.halt_reason,
            "adoption": supervisor.adoption.why,
            "orders_today": supervisor.risk.orders_today,
            "risk_today": str(supervisor.risk.risk_today),
            "requests_waiting": supervisor.intake.waiting,
            **await self._reads.summary(),
        }

    async def overview(self) -> JsonObject:
        return await self.board.overview()

    async def view(self, bracket: str, /) -> JsonObject:
        return await self.board.view(bracket)

    async def brackets(self, filters: Mapping[str, str], /) -> JsonList:
        return await self._reads.brackets(filters)

    async def bracket(self, bracket: str, /) -> JsonObject:
        return await self._reads.bracket(await self._reads.find(bracket))

    async def safety(self, bracket: str, /) -> list[str]:
        bracket_id = await self._reads.find(bracket)
        present = self._supervisor.mailboxes.brackets.get(bracket_id)
        return [] if present is None else safety_of(present)

    async def events(self, bracket: str | None, /, *, after_seq: int, limit: int, wait_s: float) -> JsonList:
        bracket_id = None if bracket is None else await self._reads.find(bracket)
        deadline_s = asyncio.get_running_loop().time() + wait_s
        while True:
            found = await self._reads.events(bracket_id, after_seq, limit)
            left_s = deadline_s - asyncio.get_running_loop().time()
            if found or left_s <= 0:
                return found
            await asyncio.sleep(min(0.2, left_s))

    async def recording(self, bracket: str, /) -> JsonObject:
        return await self._reads.recording(await self._reads.find(bracket))

    async def truth(self, bracket: str, /) -> JsonObject:
        bracket_id = await self._reads.find(bracket)
        present = self._supervisor.mailboxes.brackets.get(bracket_id) or await self._supervisor.store.bracket(
            bracket_id
        )
        if present is None:
            raise NoSuchBracket(bracket)
        known = [(order, view) for order in present.orders for view in order.views if view.status_text != ADOPTED]
        try:
            orders = [await self._truth(present.account, *each) for each in known[-_MOST_READ:]]
        except ReadFailed as error:
            raise BrokerUnreachable(f"the broker could not be asked: {error}") from None
        return {"clock_offset_us": self._supervisor.reconciler.clock_offset_us, "orders": orders}

    async def _truth(self, account: AccountNumber, order: Order, view: View) -> JsonObject:
        told: JsonObject = {
            "external_identifier": order.external_identifier,
            "role": order.role.value,
            "broker_order_id": view.broker_order_id,
        }
        try:
            report = await self._supervisor.broker.read_order(account, view.broker_order_id)
        except NotFound:
            return told | {"status": None}
        return told | {
            "status": report.status_text,
            "is_terminal": report.status.is_terminal,
            "received_us": report.received_at_us,
            "changed_us": None if report.updated_at_ms is None else report.updated_at_ms * 1000,
            "fills": [(leg.symbol, fill.quantity, fill.filled_at_us) for leg in report.legs for fill in leg.fills],
        }

    async def capabilities(self) -> JsonList:
        return [
            {
                "account": record.account,
                "product": record.product,
                "protection": record.protection.value,
                "accepted": record.is_accepted,
                "evidence": record.evidence,
                "at_us": record.at_us,
            }
            for record in self._supervisor.capabilities.records.values()
        ]

    async def doctor(self) -> JsonList:
        return await self._surroundings.doctor()

    # Commands on one bracket.

    async def cancel(self, bracket: str, /, *, by: str) -> JsonObject:
        return await self._tell(bracket, EntryCancelRequested(by), _reasons_not_to_cancel)

    async def close(self, bracket: str, /, *, at: str | None, by: str) -> JsonObject:
        bracket_id, present = await self._open(bracket)
        price = None if at in (None, "natural") else _price(present, "at", at or "")
        if present.state is BracketState.CLOSING and present.close is not None and present.close.net_price == price:
            return await self._reads.bracket(bracket_id)
        return await self._say(bracket_id, CloseRequested(by, price))

    async def ack(self, bracket: str, /, *, by: str) -> JsonObject:
        bracket_id = await self._reads.find(bracket)
        self._require_ready()
        if bracket_id not in self._supervisor.mailboxes.brackets:
            closed = await self._supervisor.store.bracket(bracket_id)
            if closed is not None:
                self._supervisor.mailboxes.load((closed,))
        return await self._say(bracket_id, AttentionAcknowledged(by))

    async def unfreeze(self, bracket: str, /, *, by: str) -> JsonObject:
        bracket_id, present = await self._open(bracket)
        await self._list(present.account)
        return await self._say(bracket_id, UnfreezeRequested(by))

    async def release(self, bracket: str, /, *, by: str) -> JsonObject:
        return await self._tell(bracket, ReleaseRequested(by), lambda present: [])

    async def change(self, bracket: str, *, target: str | None, stop: tuple[str, str] | None, by: str) -> JsonObject:
        bracket_id, present = await self._open(bracket)
        specs = _changed_specs(present, target, stop)
        for role, spec in specs:
            await self._try_move(present, role, spec)
        return await self._say(bracket_id, ChangeRequested(by, specs))

    async def _try_move(self, present: Bracket, role: Role, spec: OrderSpec) -> None:
        """The broker is asked, without effect, before a working exit is touched."""
        live = [order for order in present.orders_of(role) if not order.is_terminal and order.broker_order_id]
        if not live or live[-1].broker_order_id is None:
            return
        member = Member(ExternalIdentifier(f"probe-{role}"), role, spec)
        outcome = await self._supervisor.broker.dry_run_replace(present.account, live[-1].broker_order_id, member)
        match outcome:
            case Refused():
                raise AdminRefused((f"the broker would refuse to move the {role}: {outcome.refusal.text}",))
            case NotSent() | Unknown():
                raise BrokerUnreachable(outcome.why)
            case Confirmed():
                return

    async def _tell(self, named: str, event: Event, reasons_of: Any) -> JsonObject:
        bracket_id, present = await self._open(named)
        reasons = reasons_of(present)
        if reasons:
            raise AdminRefused(tuple(reasons))
        return await self._say(bracket_id, event)

    async def _open(self, named: str) -> tuple[BracketId, Bracket]:
        bracket_id = await self._reads.find(named)
        self._require_ready()
        present = self._supervisor.mailboxes.brackets.get(bracket_id)
        if present is None or present.state is BracketState.CLOSED:
            raise AdminRefused((f"bracket {bracket_id} is closed",))
        return bracket_id, present

    def _require_ready(self) -> None:
        """Before the first listing a bracket must not decide anything: what the last run posted is not known."""
        if not self._supervisor.is_ready:
            raise BrokerUnreachable("the daemon has not reconciled with the broker yet")

    async def _say(self, bracket_id: BracketId, event: Event) -> JsonObject:
        self._supervisor.tell(bracket_id, event)
        await self._supervisor.mailboxes.saved(bracket_id)
        return await self._reads.bracket(bracket_id)

    # Commands on the daemon.

    async def take_over(
        self, *, account: str, client_ref: str, request_text: str, from_fills: bool, by: str
    ) -> JsonObject:
        self._require_ready()
        asked = Takeover(AccountNumber(account), client_ref, request_text, from_fills, by)
        return await self._reads.bracket(await self._takeovers.take_over(asked))

    async def halt(self, *, reason: str, by: str, level: str = "entries", confirm: bool = False) -> JsonObject:
        wanted = _halt_level(level)
        if wanted is HaltLevel.FLATTEN and not confirm and self._supervisor.halts.level is not HaltLevel.FLATTEN:
            raise AdminRefused(tuple(self._what_flatten_does()))
        text = f"{reason or 'by an operator'} ({by})"
        is_rising = wanted.rank > self._supervisor.halts.level.rank
        await self._supervisor.halt(text, wanted, by)
        if wanted is HaltLevel.FLATTEN and is_rising:
            self._alarm("flattening", f"every position is being closed at the natural price: {text}")
        return await self.status()

    def _what_flatten_does(self) -> list[str]:
        present = self._supervisor.mailboxes.open_brackets()
        positions = sum(bracket.open_units > 0 for bracket in present)
        return [
            f"flatten closes every position at the natural price ({positions} brackets) and cancels every entry that"
            f" works ({len(present) - positions} brackets): confirm it (--yes)"
        ]

    def _alarm(self, code: str, text: str) -> None:
        self._supervisor.notifier.alarm(Alarm(self._supervisor.clock.now_us(), code, text))

    async def resume(self, *, by: str) -> JsonObject:
        why = self._supervisor.adoption.why
        if why is not None:
            raise AdminRefused((f"entries wait for `otocod reconcile --adopt`: {why}",))
        await self._supervisor.resume(by)
        return await self.status()

    async def reconcile(self, *, dry_run: bool, by: str) -> JsonObject:
        if not dry_run:
            self._require_ready()
        differences: list[str] = []
        listed = 0
        for account in self._supervisor.settings.accounts:
            try:
                report = await self._supervisor.reconciler.report(
                    account, self._supervisor.reconciler.oldest_us(account)
                )
            except ReadFailed as error:
                raise BrokerUnreachable(str(error)) from None
            listed += len(report.listing.reports)
            before = dict(self._supervisor.mailboxes.brackets)
            differences.extend(self._differences(report.listing.reports))
            if not dry_run:
                self._supervisor.reconciler.merge(report)
                after = self._supervisor.mailboxes.brackets
                changed = [b for b, was in before.items() if b not in after or after[b].orders != was.orders]
                differences.extend(f"bracket {bracket_id}: brought up to date" for bracket_id in changed)
        return {"listed": listed, "differences": differences}

    async def adopt(self, *, fate: str | None, by: str) -> JsonObject:
        wanted = _fate(fate)
        self._require_ready()
        supervisor = self._supervisor
        listed, strays = 0, list[Stray]()
        try:
            for account in supervisor.settings.accounts:
                oldest_us = supervisor.reconciler.oldest_us(account)
                found = await supervisor.reconciler.list_fully(account, supervisor.adoption.listed_from_us(oldest_us))
                await supervisor.router.settle()
                listed += len(found.listing.reports)
                strays += await supervisor.adoption.strays(account, found.listing.reports, self._is_ours)
            if strays and wanted is None:
                raise AdminRefused((*map(str, strays), _FATES_TOLD))
            differences = await self._cancelled(strays) if wanted is Fate.CANCEL else []
        except ReadFailed as error:
            raise BrokerUnreachable(str(error)) from None
        await supervisor.adoption.conclude(strays, by)
        return {"listed": listed, "differences": differences, "adopted": [str(stray) for stray in strays]}

    def _is_ours(self, report: OrderReport) -> bool:
        return self._supervisor.mailboxes.owner_of(report) is not None

    async def _cancelled(self, strays: Sequence[Stray]) -> list[str]:
        """What was cancelled, one line each; raises AdminRefused when one of them does not go away."""
        working = [stray for stray in strays if stray.is_working_entry]
        kept = [(stray, await self._supervisor.adoption.cancel(stray)) for stray in working]
        reasons = [f"{stray} was not cancelled ({why})" for stray, why in kept if why is not None]
        if reasons:
            raise AdminRefused((*reasons, "nothing is adopted yet: try again, or look at the broker"))
        return [f"cancelled {stray}" for stray in working]

    def _differences(self, reports: Any) -> list[str]:
        found: list[str] = []
        for report in reports:
            owner = self._supervisor.mailboxes.owner_of(report)
            if owner is None:
                continue
            for order in self._supervisor.mailboxes.brackets[owner].orders:
                for view in order.views:
                    if view.broker_order_id == report.broker_order_id and view.status is not report.status:
                        found.append(
                            f"bracket {owner}: {order.role} {report.broker_order_id} is {view.status_text} here,"
                            f" {report.status_text} at the broker"
                        )
        return found

    async def _list(self, account: AccountNumber) -> None:
        try:
            await self._supervisor.reconciler.list_fully(account, self._supervisor.reconciler.oldest_us(account))
        except ReadFailed as error:
            raise BrokerUnreachable(str(error)) from None

    async def audit(self) -> JsonObject:
        oldest_us = self._supervisor.clock.now_us() - _AUDIT_REACH_US
        orders: JsonList = []
        positions: dict[str, Mapping[str, int]] = {}
        try:
            for account in self._supervisor.settings.accounts:
                listing = await self._supervisor.broker.search(
                    account, from_us=min(oldest_us, self._supervisor.reconciler.oldest_us(account))
                )
                orders.extend(_plain_order(account, report) for report in listing.reports)
                found = await self._supervisor.broker.positions(account)
                positions[account] = {position.symbol: position.signed_quantity for position in found}
        except ReadFailed as error:
            raise BrokerUnreachable(f"the broker could not be asked: {error}") from None
        report = await self._reads.audit(orders, positions)
        if report["violations"]:
            first = report["violations"][0]
            self._alarm(
                "audit_failed", f"{len(report['violations'])} violations, first {first['rule']}: {first['text']}"
            )
        return report

    async def dry_run(self, account: str, request_text: str, /) -> JsonObject:
        now_us = self._supervisor.clock.now_us()
        try:
            request = parse_request(
                request_text,
                account=account,
                accounts=self._supervisor.settings.accounts,
                created_at_us=now_us,
                now_us=now_us,
                today=exchange_day(now_us),
                is_zone=self._supervisor.is_zone,
            )
        except RequestRefused as refused:
            return {"reasons": list(refused.reasons), "broker": None}
        member = Member(ExternalIdentifier("probe-entry"), Role.ENTRY, request.entry)
        outcome = await self._supervisor.broker.dry_run(AccountNumber(account), (member,))
        match outcome:
            case Confirmed():
                return {"reasons": [], "broker": {"accepted": True, "warnings": list(outcome.warnings)}}
            case Refused():
                refusal = outcome.refusal
                answer = {"accepted": False, "codes": list(refusal.codes), "message": refusal.message}
                return {"reasons": [f"the broker would refuse the entry: {refusal.text}"], "broker": answer}
            case NotSent() | Unknown():
                raise BrokerUnreachable(outcome.why)

    async def backup(self, to: str, /) -> JsonObject:
        try:
            return await self._reads.backup(to)
        except AdminFailed as error:
            self._alarm("backup_failed", str(error))
            raise

    async def prune(self) -> JsonObject:
        async with self._pruning:
            try:
                return await self._surroundings.prune()
            except AdminFailed as error:
                self._alarm("retention_failed", str(error))
                raise

    async def reload(self) -> JsonObject:
        return await self._surroundings.reload()


_FATES_TOLD = (
    "these carry our source and belong to no bracket of this database, so otocod does not know what they are for."
    " If another otocod runs on this account, stop it first. Then --cancel: entries that work are cancelled, filled"
    " positions and the closing orders that protect them are yours; or --leave: all of it is yours"
)


def _fate(fate: str | None) -> Fate | None:
    if fate is not None and fate not in set(Fate):
        raise AdminRefused((f"fate: one of {', '.join(Fate)}, not {fate}",))
    return None if fate is None else Fate(fate)


def _iso(at_us: int | None) -> str | None:
    if at_us is None:
        return None
    at = datetime.fromtimestamp(at_us // SECOND_US, UTC).replace(microsecond=at_us % SECOND_US)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _halt_level(level: str) -> HaltLevel:
    known = [each.value for each in HaltLevel if each is not HaltLevel.NONE]
    if level not in known:
        raise AdminRefused((f"level: one of {', '.join(known)}, not {level}",))
    return HaltLevel(level)


def _reasons_not_to_cancel(present: Bracket) -> list[str]:
    if present.state is BracketState.PENDING_ENTRY or any(not entry.is_terminal for entry in present.entries):
        return []
    return ["the entry is not working any more; `close` ends the position, `release` hands it over"]


def _price(present: Bracket, name: str, text: str) -> Decimal:
    """An unsigned price of an operator, signed for the closing side of this bracket."""
    try:
        price = parse_price(text)
    except PriceError as error:
        raise AdminRefused((f"{name}: {error}",)) from None
    if not is_on_grid(price, grid_for(present.request.entry.legs)):
        raise AdminRefused((f"{name}: {text} is not on the price increment of this spread",))
    return price if _closes_for_debit(present) else -price


def _price_or_reason(present: Bracket, name: str, text: str, reasons: list[str]) -> Decimal | None:
    try:
        return _price(present, name, text)
    except AdminRefused as refused:
        reasons.extend(refused.reasons)
        return None


def _closes_for_debit(present: Bracket) -> bool:
    entry = present.request.entry
    if entry.net_price is not None:
        return entry.net_price < 0
    return not entry.legs[0].action.is_buy


def _changed_specs(
    present: Bracket, target: str | None, stop: tuple[str, str] | None
) -> tuple[tuple[Role, OrderSpec], ...]:
    """The exits as they shall be; raises AdminRefused with every reason."""
    entry_price = present.entry_net_price or present.request.entry.net_price or Decimal(0)
    specs = exit_specs(present.request, entry_net_price=entry_price, units=max(present.open_units, 1))
    reasons: list[str] = []
    found: list[tuple[Role, OrderSpec]] = []
    if present.state not in _OPEN_POSITION:
        reasons.append("no position is open yet: exits can be changed once the entry has filled")
    if target is None and stop is None:
        reasons.append("nothing to change: give --target, --stop, or both")
    bounds = spread_of(present.request.entry.legs)
    largest = bounds.largest_to_close(is_debit=_closes_for_debit(present))
    if target is not None:
        if specs.target is None:
            reasons.append("target: this bracket was accepted without a target")
        else:
            price = _price_or_reason(present, "target", target, reasons)
            if price is not None and entry_price and price >= -entry_price:
                reasons.append(f"target: {target} is no profit on an entry of {abs(entry_price)}")
            found.append((Role.TARGET, replace(specs.target, net_price=price)))
    if stop is not None:
        if specs.stop is None:
            reasons.append("stop: this bracket was accepted without a stop")
        elif specs.stop.net_price is None:
            reasons.append("stop: this bracket's stop is a market order once triggered and has no price to move")
        else:
            trigger = _price_or_reason(present, "stop trigger", stop[0], reasons)
            limit = _price_or_reason(present, "stop price", stop[1], reasons)
            if trigger is not None and limit is not None and limit < trigger:
                reasons.append(f"stop: the price {stop[1]} is better than the trigger {stop[0]}, so it could not fill")
            if trigger is not None and largest is not None and abs(trigger) >= largest:
                reasons.append(
                    f"stop: the trigger {stop[0]} is at or beyond the largest value of this spread, {largest}"
                )
            if trigger is not None:
                found.append((Role.STOP, replace(specs.stop, net_price=limit, stop_trigger=abs(trigger))))
    reasons.extend(_crossed(present, specs, found))
    if reasons:
        raise AdminRefused(tuple(reasons))
    return tuple(found)


def _crossed(present: Bracket, specs: ExitSpecs, found: Sequence[tuple[Role, OrderSpec]]) -> Iterator[str]:
    """A stop at or past the target, whichever of the two is moved, would close at once what the target is to close."""
    wanted = {Role.TARGET: specs.target, Role.STOP: specs.stop} | dict(present.moved) | dict(found)
    target, stop = wanted[Role.TARGET], wanted[Role.STOP]
    if target is None or stop is None or target.net_price is None or stop.stop_trigger is None:
        return
    trigger = stop.stop_trigger if _closes_for_debit(present) else -stop.stop_trigger
    if trigger <= target.net_price:
        yield f"stop: the trigger {stop.stop_trigger} is at or past the target {abs(target.net_price)}"


def _plain_order(account: AccountNumber, report: Any) -> JsonObject:
    """A report as the audit wants it: plain values, nothing of the core."""
    return {
        "account": account,
        "broker_order_id": report.broker_order_id,
        "external_identifier": report.external_identifier,
        "source": report.source,
        "status": report.status_text,
        "is_terminal": report.status.is_terminal,
        "replaces": report.replaces,
        "replaced_by": report.replaced_by,
        "legs": [
            {
                "symbol": leg.symbol,
                "action": None if leg.action is None else leg.action.value,
                "quantity": leg.quantity,
                "filled": sum(fill.quantity for fill in leg.fills),
                "fill_ids": [fill.fill_id for fill in leg.fills],
            }
            for leg in report.legs
        ],
    }
