"""A database behind the broker's record: exits are managed, entries wait until a person has adopted what is unknown."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from otocod.domain.brackets import Bracket, BracketState
from otocod.domain.ids import ExternalIdentifier
from otocod.domain.specs import Role
from otocod.engine.adoption import ADOPTION, REQUESTS_FROM_US
from otocod.engine.operator import OperatorService
from otocod.engine.supervisor import CLEAN_STOP
from otocod.ports.admin import AdminRefused, BrokerUnreachable
from otocod.ports.broker import ReadFailed
from otocod.ports.store import Change, Setting
from tests.support.fakes import Daemon, pass_s, row, until
from tests.support.model_store import ModelStore
from tests.unit.engine.test_operator import Reads, Surroundings

RESTORED = {ADOPTION: "restored", "halt": "restored", "halt_level": "entries", CLEAN_STOP: "no"}


def store_of(changes: list[Change], settings: Mapping[str, str]) -> ModelStore:
    """A file as it was after these changes, with what `otocod db restore` writes into it."""
    store = ModelStore()
    for change in [*changes, *(Setting(name, value) for name, value in settings.items())]:
        store._apply(change)
        store.committed.append(change)
    return store


def restored(daemon: Daemon, changes: list[Change], **settings: str) -> Daemon:
    return Daemon(store=store_of(changes, RESTORED | settings), broker=daemon.broker)


def service_of(daemon: Daemon) -> OperatorService:
    return OperatorService(daemon.supervisor, Reads(daemon), Surroundings())


async def restart(daemon: Daemon) -> Daemon:
    await daemon.crash()
    return await Daemon(store=store_of(daemon.store.committed, {}), broker=daemon.broker).start()


async def protected_by_a_lost_record(**changes: Any) -> tuple[Daemon, list[Change], Bracket]:
    """A bracket whose exits carry identifiers that were made after the backup: its run had crashed in between."""
    first = await Daemon().start()
    bracket = await first.take(**changes)
    changes_then = list(first.store.committed)
    second = await restart(first)
    second.broker.fill(bracket.entries[0].external_identifier)
    await until(lambda: second.bracket.state is BracketState.EXITS_LIVE, within_s=60)
    await pass_s(5)
    known = {name for _, name in bracket.staged}
    assert not known & {order.external_identifier for order in second.bracket.exits}
    last = second.bracket
    await second.crash()
    return second, changes_then, last


async def resume_is_refused(service: OperatorService) -> None:
    with pytest.raises(AdminRefused, match="reconcile --adopt"):
        await service.resume(by="op")


@pytest.mark.covers("F101")
@pytest.mark.parametrize("protection", ["native-oco", "unlinked"])
async def test_exits_that_a_lost_record_sent_are_taken_in_and_not_sent_again(protection: str) -> None:
    lost, changes, last = await protected_by_a_lost_record(protection=protection)
    known = lost.broker.orders()
    daemon = await restored(lost, changes).start()
    await until(lambda: daemon.bracket.state is BracketState.EXITS_LIVE, within_s=60)
    await pass_s(60)
    # Two orders by themselves: what the broker refused left no trace there, and is asked for once more.
    assert daemon.broker.orders() == known
    working = {order.external_identifier for order in last.exits if not order.is_terminal}
    assert working == {order.external_identifier for order in daemon.bracket.exits if not order.is_terminal}
    assert "older_database" in daemon.notifier.codes
    assert daemon.supervisor.gate.is_halted
    (stop,) = (order for order in daemon.bracket.orders_of(Role.STOP) if not order.is_terminal)
    daemon.broker.fill(stop.external_identifier)
    await until(lambda: daemon.brackets == {}, within_s=30)
    await daemon.stop()


@pytest.mark.covers("F101")
async def test_no_identifier_is_made_twice_after_a_lost_record() -> None:
    lost, changes, _ = await protected_by_a_lost_record()
    used = {name for call in lost.broker.posted for name in call.names}
    daemon = await restored(lost, changes).start()
    posted = len(daemon.broker.posted)
    await service_of(daemon).close("ref:ref-0", at="0.50", by="op")
    await until(lambda: len(daemon.broker.posted) > posted, within_s=60)
    assert not used & {name for call in daemon.broker.posted[posted:] for name in call.names}
    await daemon.stop()


@pytest.mark.covers("F101")
async def test_entries_wait_until_a_person_adopts_and_over_restarts() -> None:
    first = await Daemon().start()
    changes = list(first.store.committed)
    await first.stop()
    daemon = await restored(first, changes).start()
    service = service_of(daemon)
    assert (await service.status())["adoption"] == "restored"
    await resume_is_refused(service)
    daemon.queue.put(row(0, protection="native-oco"))
    await pass_s(10)
    assert daemon.broker.posted == []
    await daemon.stop()

    again = await Daemon(store=store_of(daemon.store.committed, {}), broker=daemon.broker).start()
    service = service_of(again)
    await resume_is_refused(service)
    assert await service.adopt(fate=None, by="op") == {"listed": 0, "differences": [], "adopted": []}
    assert (await service.resume(by="op"))["adoption"] is None
    await again.take(1)
    await again.stop()


async def two_of_which_one_is_lost(*, is_filled: bool, **asked: Any) -> tuple[Daemon, ExternalIdentifier]:
    """A daemon on a backup that has never heard of the only bracket, and the entry of that."""
    first = await Daemon().start()
    changes = list(first.store.committed)
    bracket = await first.take(**asked)
    entry = bracket.entries[0].external_identifier
    if is_filled:
        first.broker.fill(entry)
        await until(lambda: first.bracket.state is BracketState.EXITS_LIVE)
    await first.crash()
    return await restored(first, changes).start(), entry


@pytest.mark.covers("F101", "F100")
async def test_orders_of_a_lost_bracket_are_named_and_nothing_is_done_before_a_person_says_what() -> None:
    daemon, entry = await two_of_which_one_is_lost(is_filled=False)
    service = service_of(daemon)
    with pytest.raises(AdminRefused) as refused:
        await service.adopt(fate=None, by="op")
    number = daemon.broker.order_named(entry)["id"]
    assert f"order {number} " in refused.value.reasons[0]
    assert "--cancel" in refused.value.reasons[-1]
    assert daemon.broker.asked("cancel") == []
    await resume_is_refused(service)
    with pytest.raises(AdminRefused, match="fate"):
        await service.adopt(fate="burn", by="op")
    await daemon.stop()


@pytest.mark.covers("F101")
@pytest.mark.parametrize(("protection", "orders"), [("native-oco", 1), ("native-otoco", 3)])
async def test_entry_of_a_lost_bracket_is_cancelled_when_a_person_says_so(protection: str, orders: int) -> None:
    daemon, entry = await two_of_which_one_is_lost(is_filled=False, protection=protection)
    service = service_of(daemon)
    done = await service.adopt(fate="cancel", by="op")
    assert len(done["differences"]) == 1
    assert len(done["adopted"]) == orders
    assert not [order for order in daemon.broker.orders() if order["status"] in ("Live", "Contingent")]
    assert daemon.broker.order_named(entry)["status"] == "Cancelled"
    await service.resume(by="op")
    await pass_s(30)
    assert not daemon.supervisor.gate.is_halted
    await daemon.stop()


@pytest.mark.covers("F101")
@pytest.mark.parametrize("fate", ["cancel", "leave"])
async def test_exits_of_a_lost_position_stay_and_are_not_held_against_it_again(fate: str) -> None:
    daemon, _ = await two_of_which_one_is_lost(is_filled=True)
    service = service_of(daemon)
    done = await service.adopt(fate=fate, by="op")
    assert len(done["adopted"]) == 3
    assert done["differences"] == []
    working = [order for order in daemon.broker.orders() if order["status"] in ("Live", "Contingent")]
    assert len(working) == 2
    await service.resume(by="op")
    await service.reconcile(dry_run=False, by="op")
    await daemon.stop()
    again = await Daemon(store=store_of(daemon.store.committed, {}), broker=daemon.broker).start()
    await pass_s(30)
    assert not again.supervisor.gate.is_halted
    await again.stop()


async def test_cancel_that_does_not_work_adopts_nothing() -> None:
    daemon, _ = await two_of_which_one_is_lost(is_filled=False)
    service = service_of(daemon)
    daemon.broker.send_nothing("cancel")
    with pytest.raises(AdminRefused, match="not cancelled"):
        await service.adopt(fate="cancel", by="op")
    await resume_is_refused(service)
    assert (await service.adopt(fate="cancel", by="op"))["differences"]
    await daemon.stop()


async def test_entry_that_fills_while_it_is_being_cancelled_is_told_and_adopts_nothing() -> None:
    daemon, entry = await two_of_which_one_is_lost(is_filled=False)
    service = service_of(daemon)
    held = daemon.broker.hold("cancel", is_acted_on=False)
    asking = asyncio.create_task(service.adopt(fate="cancel", by="op"))
    await until(lambda: daemon.broker.asked("cancel"))
    daemon.broker.fill(entry)
    held.release()
    with pytest.raises(AdminRefused, match="filled meanwhile"):
        await asking
    await resume_is_refused(service)
    await daemon.stop()


async def test_broker_that_cannot_be_asked_adopts_nothing() -> None:
    daemon, _ = await two_of_which_one_is_lost(is_filled=False)
    service = service_of(daemon)
    daemon.broker.fail("search", ReadFailed("down"))
    with pytest.raises(BrokerUnreachable):
        await service.adopt(fate="leave", by="op")
    await resume_is_refused(service)
    await daemon.stop()


@pytest.mark.covers("F101")
async def test_row_from_before_the_restoring_is_rejected_since_a_lost_bracket_may_have_come_of_it() -> None:
    first = await Daemon().start()
    changes = list(first.store.committed)
    await first.stop()
    old = row(0, protection="native-oco")
    daemon = restored(first, changes, **{REQUESTS_FROM_US: str(old.created_at_us + 1)})
    await daemon.start()
    daemon.queue.put(old)
    await until(lambda: daemon.queue.answers)
    assert "another client_ref" in daemon.queue.answers[-1].reasons[0]
    assert daemon.broker.posted == []
    await daemon.stop()
