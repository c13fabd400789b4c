"""Levels of halt: what each stops, what it has done, and that none of them is in the way of an exit."""

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest

from otocod.domain.brackets import BracketState, Outcome
from otocod.engine.halts import HALT, HALT_LEVEL, HaltLevel
from otocod.engine.operator import OperatorService
from otocod.ports.admin import AdminRefused
from tests.support.fakes import Daemon, is_exit, pass_s, request_text, row, until
from tests.unit.engine.test_operator import Reads, Surroundings


def operator(daemon: Daemon) -> OperatorService:
    return OperatorService(daemon.supervisor, Reads(daemon), Surroundings())


def quote(daemon: Daemon, *numbers: int) -> None:
    """Prices at which nothing fills but a close at the natural price, 0.85."""
    for number in numbers:
        short, long = (leg["symbol"] for leg in json.loads(request_text(number))["entry"]["legs"])
        sides = {short: (Decimal("1.40"), Decimal("1.50")), long: (Decimal("0.65"), Decimal("0.70"))}
        daemon.broker.exchange.set_quotes(sides, now_us=daemon.clock.now_us())


async def halted(level: str, **more: Any) -> tuple[Daemon, OperatorService]:
    """A daemon with a protected bracket 0 and a waiting entry of bracket 1, halted at `level`."""
    daemon = await Daemon().start()
    await daemon.protect(0)
    await daemon.take(1)
    service = operator(daemon)
    await service.halt(reason="drill", by="uid:me", level=level, confirm=True, **more)
    return daemon, service


@pytest.mark.parametrize("level", [level for level in HaltLevel if level is not HaltLevel.NONE])
async def test_no_level_accepts_a_request_and_resume_does(level: HaltLevel) -> None:
    daemon, service = await halted(level.value)
    daemon.queue.put(row(2, protection="native-oco"))
    await pass_s(5)
    assert daemon.queue.answer_to(3) is None
    await service.resume(by="uid:me")
    await until(lambda: daemon.queue.answer_to(3))
    await daemon.stop()


@pytest.mark.parametrize("level", ["intake", "entries"])
async def test_the_lower_levels_leave_working_entries_and_their_fills_are_protected(level: str) -> None:
    daemon, _ = await halted(level)
    await pass_s(5)
    waiting = daemon.bracket_of(1)
    assert waiting.state is BracketState.PENDING_ENTRY
    exits = sum(map(is_exit, daemon.broker.calls))
    daemon.broker.fill(waiting.entries[0].external_identifier)
    await until(lambda: daemon.bracket_of(1).state is BracketState.EXITS_LIVE)
    assert sum(map(is_exit, daemon.broker.calls)) == exits + 1
    assert daemon.bracket_of(0).state is BracketState.EXITS_LIVE
    await daemon.stop()


async def test_cancel_entries_cancels_what_works_and_leaves_positions() -> None:
    daemon, _ = await halted("cancel-entries")
    pending = next(b for b in daemon.brackets.values() if b.client_ref == "ref-1").bracket_id
    await until(lambda: pending not in daemon.brackets)
    stored = await daemon.store.bracket(pending)
    assert stored is not None and stored.outcome is Outcome.ENTRY_NOT_FILLED
    await pass_s(5)
    assert daemon.bracket_of(0).state is BracketState.EXITS_LIVE
    assert daemon.bracket_of(0).close is None
    await daemon.stop()


@pytest.mark.covers("F123")
async def test_flatten_closes_positions_and_what_fills_later_too() -> None:
    daemon = await Daemon().start()
    held, entering = await daemon.protect(0), await daemon.take(1)
    quote(daemon, 0, 1)
    cancel = daemon.broker.hold(
        "cancel",
        is_acted_on=False,
        when=lambda call: call.broker_id == str(daemon.bracket_of(1).entries[0].broker_order_id),
    )
    service = operator(daemon)
    await service.halt(reason="", by="uid:me", level="flatten", confirm=True)
    await until(lambda: cancel.arrived.is_set())
    daemon.broker.fill(entering.entries[0].external_identifier)
    cancel.release()
    for bracket in (held, entering):
        await until(lambda bracket=bracket: daemon.brackets.get(bracket.bracket_id) is None, within_s=120)  # type: ignore[misc]
        stored = await daemon.store.bracket(bracket.bracket_id)
        assert stored is not None
        assert stored.outcome is Outcome.CLOSED_BY_OPERATOR
        assert not any(stored.open_by_leg.values())
    assert "flattening" in daemon.notifier.codes
    await daemon.stop()


async def test_flatten_wants_to_be_confirmed_and_says_what_it_would_do() -> None:
    daemon = await Daemon().start()
    await daemon.protect(0)
    service = operator(daemon)
    with pytest.raises(AdminRefused, match=r"1 brackets.*confirm"):
        await service.halt(reason="", by="uid:me", level="flatten")
    assert daemon.supervisor.halts.level is HaltLevel.NONE
    with pytest.raises(AdminRefused, match="one of intake"):
        await service.halt(reason="", by="uid:me", level="all", confirm=True)
    await daemon.stop()


async def test_a_halt_never_lowers_the_level_and_asking_twice_changes_nothing() -> None:
    daemon, service = await halted("cancel-entries")
    first = daemon.supervisor.halt_reason
    await service.halt(reason="other", by="uid:you", level="entries")
    assert (daemon.supervisor.halts.level, daemon.supervisor.halt_reason) == (HaltLevel.CANCEL_ENTRIES, first)
    settings = await daemon.store.settings()
    assert (settings[HALT], settings[HALT_LEVEL]) == ("drill (uid:me)", "cancel-entries")
    assert (await service.status())["halt_level"] == "cancel-entries"
    await daemon.stop()


async def test_a_level_is_seen_through_after_a_crash() -> None:
    daemon = await Daemon().start()
    held = await daemon.protect(0)
    quote(daemon, 0)
    await daemon.supervisor.halts.halt("drill", HaltLevel.FLATTEN, "uid:me")
    await daemon.crash()
    again = await Daemon(store=daemon.store, broker=daemon.broker).start()
    assert again.supervisor.halts.level is HaltLevel.FLATTEN
    await until(lambda: held.bracket_id not in again.brackets, within_s=120)
    stored = await again.store.bracket(held.bracket_id)
    assert stored is not None and stored.outcome is Outcome.CLOSED_BY_OPERATOR
    await again.stop()


@pytest.mark.parametrize("stored", ["", "none", "a-level-of-a-newer-release"])
async def test_a_halt_without_a_level_that_is_known_is_one_of_entries(stored: str) -> None:
    daemon = Daemon()
    daemon.store._settings |= {HALT: "from before", HALT_LEVEL: stored}
    await daemon.start()
    assert daemon.supervisor.halts.level is HaltLevel.ENTRIES
    assert daemon.supervisor.gate.is_halted
    await daemon.stop()


async def test_a_close_that_does_not_work_is_not_asked_for_again_at_once() -> None:
    daemon = await Daemon().start()
    held = await daemon.protect(0)
    quote(daemon, 0)
    asked: list[Any] = []
    tell = daemon.supervisor.halts._tell
    daemon.supervisor.halts._tell = lambda bracket_id, event: asked.append(event)
    await daemon.supervisor.halts.halt("drill", HaltLevel.FLATTEN, "uid:me")
    await pass_s(50)
    assert len(asked) == 1
    await pass_s(20)
    assert len(asked) == 2
    daemon.supervisor.halts._tell = tell
    await asyncio.sleep(70)
    await until(lambda: held.bracket_id not in daemon.brackets, within_s=120)
    await daemon.stop()
