"""What an account proved to accept, learned without effect, and doubted when it is old."""

import asyncio
import json
from dataclasses import replace

from otocod.domain.ids import AccountNumber
from otocod.domain.request import parse_request
from otocod.domain.request_types import BracketRequest
from otocod.domain.specs import InstrumentType, Protection, Role
from otocod.engine.capabilities import FORGET_REFUSAL_AFTER_US, PROBE_AGAIN_AFTER_US, Capabilities, product_of
from otocod.engine.intake import exchange_day
from otocod.engine.slots import Priority, Slots
from otocod.paper.rules import Rules
from otocod.ports.broker import NotSent, Unknown
from otocod.ports.store import Capability
from tests.support.desk import request_json
from tests.support.fakes import ACCOUNT, START_US, FakeBroker, LoopClock
from tests.support.model_store import ModelStore

OTOCO, OCO = Protection.NATIVE_OTOCO, Protection.NATIVE_OCO


class Bench:
    def __init__(self, **rules: object) -> None:
        made = Rules()
        made.patch(rules)
        self.clock = LoopClock()
        self.broker = FakeBroker(self.clock, made)
        self.store = ModelStore()
        self.capabilities = Capabilities(self.broker, self.clock, self.store, Slots(8, reserved=2))

    async def usable(self, request: BracketRequest | None = None) -> frozenset[Protection]:
        return await self.capabilities.usable(ACCOUNT, request or spread())

    @property
    def dry_runs(self) -> int:
        return len(self.broker.asked("dry_run"))

    @property
    def learned(self) -> list[Capability]:
        return [change for change in self.store.committed if isinstance(change, Capability)]


def parsed(**changes: object) -> BracketRequest:
    return parse_request(
        json.dumps(request_json(**changes)),  # type: ignore[arg-type]
        account=ACCOUNT,
        accounts=(ACCOUNT,),
        created_at_us=START_US,
        now_us=START_US,
        today=exchange_day(START_US),
    )


def spread() -> BracketRequest:
    return parsed()


async def test_mode_of_which_nothing_is_known_is_tried_by_a_dry_run_and_remembered() -> None:
    bench = Bench()
    assert await bench.usable() == {OTOCO, OCO}
    (call,) = bench.broker.calls
    assert (call.name, call.roles) == ("dry_run", (Role.ENTRY, Role.TARGET, Role.STOP))
    assert bench.broker.orders() == []
    (record,) = bench.learned
    assert (record.protection, record.is_accepted, record.at_us) == (OTOCO, True, bench.clock.now_us())
    await bench.usable()
    assert bench.dry_runs == 1


async def test_mode_that_the_dry_run_refuses_is_not_used_and_not_tried_again() -> None:
    bench = Bench(native_otoco_spreads=False)
    assert await bench.usable() == {OCO}
    assert await bench.usable() == {OCO}
    assert bench.dry_runs == 1
    (record,) = bench.learned
    assert not record.is_accepted
    assert record.evidence.startswith("dry-run refused: ")


async def test_refusals_that_pass_prove_nothing_about_the_mode() -> None:
    """They speak of this order at this moment."""
    codes = ["margin_check_failed", "illegal_buy_and_sell_on_same_symbol"]
    codes.append("cannot_close_against_more_than_existing_position")
    for code in codes:
        bench = Bench()
        bench.broker.refuse("dry_run", code)
        assert await bench.usable() == {OTOCO, OCO}
        assert bench.learned == []
        await bench.usable()
        assert bench.dry_runs == 2, "still not known, so tried again"


async def test_answers_that_are_no_verdict_prove_nothing() -> None:
    bench = Bench()
    bench.broker.answer("dry_run", Unknown("503"))
    bench.broker.answer("dry_run", NotSent("no connection"))
    bench.broker.refuse("dry_run", "forbidden", http_status=403)
    for _ in range(3):
        assert await bench.usable() == {OTOCO, OCO}
    assert bench.learned == []


async def test_old_refusal_is_tried_again_and_a_changed_mind_is_learned() -> None:
    bench = Bench(native_otoco_spreads=False)
    assert await bench.usable() == {OCO}
    bench.broker.exchange.rules.patch({"native_otoco_spreads": True})
    bench.clock.ahead_us = FORGET_REFUSAL_AFTER_US
    assert await bench.usable() == {OCO}
    assert bench.dry_runs == 1
    bench.clock.ahead_us = FORGET_REFUSAL_AFTER_US + 1_000_000
    assert await bench.usable() == {OTOCO, OCO}
    assert bench.dry_runs == 2


async def test_refusal_that_is_repeated_after_its_time_counts_anew() -> None:
    bench = Bench(native_otoco_spreads=False)
    await bench.usable()
    bench.clock.ahead_us = FORGET_REFUSAL_AFTER_US + 1_000_000
    assert await bench.usable() == {OCO}
    assert await bench.usable() == {OCO}
    assert bench.dry_runs == 2
    assert bench.learned[-1].at_us == bench.capabilities.records[(ACCOUNT, "spread", OTOCO)].at_us
    assert len(bench.learned) == 2


async def test_refusal_on_the_wire_is_believed_like_one_of_a_dry_run() -> None:
    bench = Bench()
    bench.capabilities.learn(ACCOUNT, "spread", OCO, is_accepted=False, evidence="422")
    assert await bench.usable() == {OTOCO}


async def test_what_is_learned_holds_for_its_account_and_product_alone() -> None:
    bench = Bench()
    bench.capabilities.learn(ACCOUNT, "single option", OTOCO, is_accepted=False, evidence="422")
    bench.capabilities.learn(AccountNumber("5WT00002"), "spread", OTOCO, is_accepted=False, evidence="422")
    assert await bench.usable() == {OTOCO, OCO}


async def test_same_lesson_twice_is_written_once() -> None:
    bench = Bench()
    for _ in range(2):
        bench.capabilities.learn(ACCOUNT, "spread", OCO, is_accepted=True, evidence="accepted")
    assert len(bench.learned) == 1
    bench.capabilities.learn(ACCOUNT, "spread", OCO, is_accepted=False, evidence="422")
    assert len(bench.learned) == 2


async def test_lessons_survive_a_restart() -> None:
    bench = Bench(native_otoco_spreads=False)
    await bench.usable()
    again = Capabilities(bench.broker, bench.clock, bench.store, Slots(8, reserved=2))
    await again.load()
    assert await again.usable(ACCOUNT, spread()) == {OCO}
    assert bench.dry_runs == 1


async def test_request_whose_exits_hang_on_the_fill_or_that_lacks_one_is_not_probed() -> None:
    bench = Bench()
    await bench.usable(parsed(target={"profit-percent": "50"}))
    await bench.usable(parsed(stop=None))
    assert bench.dry_runs == 0


def test_products_are_told_apart_as_the_brokers_rules_do() -> None:
    request = spread()
    assert product_of(request) == "spread"
    single = replace(request, entry=replace(request.entry, legs=request.entry.legs[:1]))
    future = replace(
        single.entry.legs[0], instrument_type=InstrumentType.FUTURE_OPTION, symbol="./ESZ6 EW4Z6 261224C6500"
    )
    shares = replace(single.entry.legs[0], instrument_type=InstrumentType.EQUITY, symbol="AAPL")
    names = {product_of(request), product_of(single)}
    for leg in (future, shares):
        names.add(product_of(replace(single, entry=replace(single.entry, legs=(leg,)))))
    assert len(names) == 4


# Asked again at the start and once a day.


async def asked_for(bench: Bench, seconds: float, *requests: BracketRequest) -> None:
    task = asyncio.create_task(bench.capabilities.run([(ACCOUNT, request) for request in requests]))
    await asyncio.sleep(seconds)
    task.cancel()


def kept(bench: Bench) -> dict[Protection, tuple[bool, str]]:
    return {each.protection: (each.is_accepted, each.evidence) for each in bench.capabilities.records.values()}


async def test_start_asks_both_modes_with_a_request_of_the_past_and_sends_nothing() -> None:
    bench = Bench(native_oco_spreads=False)
    await asked_for(bench, 60, spread(), spread())
    assert [call.roles for call in bench.broker.asked("dry_run")][:2] == [
        (Role.ENTRY, Role.TARGET, Role.STOP),
        (Role.TARGET, Role.STOP),
    ]
    assert bench.broker.orders() == []
    found = kept(bench)
    assert found[OTOCO] == (True, "dry-run accepted")
    assert not found[OCO][0]
    assert "multi_leg_complex_order_not_supported" in found[OCO][1]
    assert bench.dry_runs == 2, "what is on record is not asked again the same day"
    bench.clock.ahead_us = PROBE_AGAIN_AFTER_US + 1
    await asked_for(bench, 60, spread())
    assert bench.dry_runs == 4
    assert all(bench.clock.now_us() - each.at_us < 60_000_000 for each in bench.capabilities.records.values())


async def test_oco_refused_for_want_of_its_position_alone_proves_nothing() -> None:
    bench = Bench()
    await asked_for(bench, 60, spread())
    assert OCO not in kept(bench)
    assert await bench.usable() == {OTOCO, OCO}


async def test_dry_run_does_not_overrule_what_a_real_order_was_answered() -> None:
    bench = Bench(native_oco_spreads=False)
    bench.capabilities.learn(ACCOUNT, "spread", OCO, is_accepted=True, evidence="accepted")
    bench.clock.ahead_us = PROBE_AGAIN_AFTER_US + 1
    await asked_for(bench, 60, spread())
    assert kept(bench)[OCO] == (True, "accepted")


async def test_expired_contracts_and_single_exits_are_not_asked_with() -> None:
    bench = Bench()
    bench.clock.ahead_us = 400 * 24 * 3600 * 1_000_000
    await asked_for(bench, 60, spread())
    bench.clock.ahead_us = 0
    await asked_for(bench, 60, parsed(stop=None), parsed(stop={"trigger": "1.70"}))
    assert bench.dry_runs == 0


async def test_question_waits_behind_everything_else_and_nothing_waits_for_it() -> None:
    bench = Bench()
    slots = Slots(2, reserved=1)
    bench.capabilities = Capabilities(bench.broker, bench.clock, bench.store, slots)
    async with slots.slot(Priority.RECONCILE):
        await asked_for(bench, 60, spread())
        assert bench.dry_runs == 0
        async with asyncio.timeout(1), slots.slot(Priority.PROTECTION):
            pass
