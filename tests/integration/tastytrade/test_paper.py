"""The adapter against the paper broker: a bracket's life over the real wire, as the paper broker understands it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from otocod.adapters.clock import SystemClock
from otocod.adapters.tastytrade.auth import Authenticator, Secrets, TokenService
from otocod.adapters.tastytrade.http import Timeouts, Transport
from otocod.adapters.tastytrade.rest import TastytradeBroker
from otocod.adapters.tastytrade.streamer import TastytradeStreamer
from otocod.domain.commands import Member
from otocod.domain.ids import BrokerOrderId, ExternalIdentifier
from otocod.domain.orders import BrokerStatus
from otocod.paper.server import PaperServer
from otocod.ports.broker import (
    Confirmed,
    NotFound,
    NotSent,
    Outcome,
    Position,
    Refused,
    StreamEvent,
    StreamOrder,
    StreamUp,
    Unknown,
)
from tests.support.tastytrade import ACCOUNT, ENTRY_ID, NEXT_ID, STOP_ID, TARGET_ID, entry, stop, target

PATIENCE_S = 10
# Far away, so that they do not expire while the project lives.
FAR = {"AAPL  261218C00300000": "AAPL  301220C00300000", "AAPL  261218C00305000": "AAPL  301220C00305000"}
SHORT, LONG = FAR.values()


def far(member: Member, identifier: ExternalIdentifier | None = None) -> Member:
    legs = tuple(replace(leg, symbol=FAR[leg.symbol]) for leg in member.spec.legs)
    return replace(
        member,
        spec=replace(member.spec, legs=legs),
        external_identifier=identifier or member.external_identifier,
    )


class Desk:
    """The adapter, a reader of its stream, and the paper broker's control side."""

    def __init__(self, server: PaperServer, control: aiohttp.ClientSession) -> None:
        clock = SystemClock()
        self.server = server
        self._control = control
        self.transport = Transport(
            server.api_url, clock, timeouts=Timeouts(connect_s=2, answer_s=5), accept_version="20261012"
        )
        self.auth = Authenticator(TokenService(self.transport, Secrets("sec", "ref")).fetch, clock)
        self.broker = TastytradeBroker(self.transport, self.auth)
        self.streamer = TastytradeStreamer(server.streamer_url, (ACCOUNT,), self.auth, clock)
        self._events: asyncio.Queue[StreamEvent] = asyncio.Queue()
        self._running = asyncio.create_task(self.streamer.run(self._events.put_nowait))

    async def until(self, wanted: Callable[[StreamEvent], bool]) -> StreamEvent:
        async with asyncio.timeout(PATIENCE_S):
            while not wanted(event := await self._events.get()):
                pass
        return event

    async def until_status(self, broker_order_id: BrokerOrderId, status: BrokerStatus) -> StreamOrder:
        def wanted(event: StreamEvent) -> bool:
            return (
                isinstance(event, StreamOrder)
                and event.report.broker_order_id == broker_order_id
                and event.report.status is status
            )

        event = await self.until(wanted)
        assert isinstance(event, StreamOrder)
        return event

    async def control(self, method: str, path: str, body: Any = None) -> Any:
        async with self._control.request(method, f"{self.server.control_url}{path}", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def filled_entry(self) -> BrokerOrderId:
        outcome = await self.broker.submit(ACCOUNT, far(entry()))
        assert isinstance(outcome, Confirmed), outcome
        order_id = outcome.reports[0].broker_order_id
        await self.until_status(order_id, BrokerStatus.LIVE)
        await self.control("POST", f"/orders/{order_id}/fill", {"price": "1.25"})
        await self.until_status(order_id, BrokerStatus.FILLED)
        async with asyncio.timeout(PATIENCE_S):
            while set(await self.broker.positions(ACCOUNT)) != {Position(SHORT, -2), Position(LONG, 2)}:
                await self._events.get()
        return order_id

    async def close(self) -> None:
        self._running.cancel()
        await asyncio.wait([self._running])
        await self.broker.drain(PATIENCE_S)
        await self.auth.close()
        await self.transport.close()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    server = PaperServer(seed=7)
    await server.start()
    async with aiohttp.ClientSession() as control:
        desk = Desk(server, control)
        await desk.until(lambda event: isinstance(event, StreamUp))
        yield desk
        await desk.close()
    await server.stop()


async def test_reads_of_a_fresh_broker(desk: Desk) -> None:
    assert await desk.broker.accounts() == (ACCOUNT,)
    assert (await desk.broker.live_orders(ACCOUNT)).reports == ()
    assert (await desk.broker.search(ACCOUNT, from_us=0)).reports == ()
    assert await desk.broker.live_complex_orders(ACCOUNT) == ()
    assert await desk.broker.positions(ACCOUNT) == ()
    assert (await desk.broker.market_session()).is_open
    assert Decimal((await desk.broker.balances(ACCOUNT))["cash-balance"]) > 0
    with pytest.raises(NotFound):
        await desk.broker.read_order(ACCOUNT, BrokerOrderId("999999999"))


async def test_entry_is_dry_run_submitted_filled_and_found_again(desk: Desk) -> None:
    assert isinstance(await desk.broker.dry_run(ACCOUNT, (far(entry()),)), Confirmed)
    order_id = await desk.filled_entry()
    report = await desk.broker.read_order(ACCOUNT, order_id)
    assert (report.external_identifier, report.net_price) == (ENTRY_ID, Decimal("-1.20"))
    assert all(sum(fill.quantity for fill in leg.fills) == 2 for leg in report.legs)
    assert report.received_at_us is not None
    found = await desk.broker.search(ACCOUNT, from_us=report.received_at_us - 60_000_000)
    assert [listed.external_identifier for listed in found.reports] == [ENTRY_ID]
    assert found.broker_clock_offset_us is not None
    assert abs(found.broker_clock_offset_us) < 5_000_000


async def test_exits_as_a_group_are_read_and_cancelled_by_the_group(desk: Desk) -> None:
    await desk.control("PATCH", "/rules", {"native_oco_spreads": True})
    await desk.filled_entry()
    members = (far(target()), far(stop()))
    assert isinstance(await desk.broker.dry_run(ACCOUNT, members), Confirmed)
    outcome = await desk.broker.submit_complex(ACCOUNT, members)
    assert isinstance(outcome, Confirmed), outcome
    assert outcome.complex_order_id is not None
    assert [report.external_identifier for report in outcome.reports] == [TARGET_ID, STOP_ID]
    group = await desk.broker.read_complex(ACCOUNT, outcome.complex_order_id)
    assert group.kind == "OCO"
    assert {report.broker_order_id for report in group.orders} == {report.broker_order_id for report in outcome.reports}
    assert [group.complex_order_id for group in await desk.broker.live_complex_orders(ACCOUNT)] == [
        outcome.complex_order_id
    ]
    cancelled = await desk.broker.cancel_complex(ACCOUNT, outcome.complex_order_id)
    assert isinstance(cancelled, Confirmed), cancelled


async def test_an_otoco_is_confirmed_member_by_member(desk: Desk) -> None:
    await desk.control("PATCH", "/rules", {"native_otoco_spreads": True})
    members = tuple(
        replace(member, spec=replace(member.spec, strict=False)) for member in map(far, (entry(), target(), stop()))
    )
    outcome = await desk.broker.submit_complex(ACCOUNT, members)
    assert isinstance(outcome, Confirmed), outcome
    assert [report.external_identifier for report in outcome.reports] == [ENTRY_ID, TARGET_ID, STOP_ID]


async def test_a_second_close_is_refused_with_the_code_that_says_so(desk: Desk) -> None:
    await desk.filled_entry()
    assert isinstance(await desk.broker.submit(ACCOUNT, far(stop())), Confirmed)
    refused = await desk.broker.submit(ACCOUNT, far(target()))
    assert isinstance(refused, Refused)
    assert "cannot_close_against_more_than_existing_position" in refused.refusal.codes


async def test_an_exit_is_replaced_and_then_cancelled(desk: Desk) -> None:
    await desk.filled_entry()
    first = await desk.broker.submit(ACCOUNT, far(target()))
    assert isinstance(first, Confirmed), first
    old = first.reports[0].broker_order_id
    await desk.until_status(old, BrokerStatus.LIVE)
    second = await desk.broker.replace(ACCOUNT, old, far(target("0.65"), NEXT_ID))
    assert isinstance(second, Confirmed), second
    new = second.reports[0].broker_order_id
    assert second.reports[0].replaces == old
    await desk.until_status(new, BrokerStatus.LIVE)
    assert isinstance(await desk.broker.cancel(ACCOUNT, new), Confirmed)
    await desk.until_status(new, BrokerStatus.CANCELLED)
    again = await desk.broker.cancel(ACCOUNT, new)
    assert isinstance(again, Refused)
    assert again.refusal.codes == ("cannot_update_order",)


@pytest.mark.covers("F1", "F2", "F9", "F10", "F12", "F13", "F14", "F15", "F19", "F76")
@pytest.mark.parametrize(
    ("fault", "expected", "orders"),
    [
        ("request_reset", Unknown, 0),
        ("error_before", Unknown, 0),
        ("unavailable", Unknown, 0),
        ("too_many_requests", NotSent, 0),
        ("unauthorized", Confirmed, 1),
        ("token_death", Confirmed, 1),
        ("answer_reset", Unknown, 1),
        ("error_after", Unknown, 1),
        ("body_truncated", Unknown, 1),
        ("body_html", Unknown, 1),
        ("body_empty", Unknown, 1),
        ("wrong_echo", Unknown, 1),
        ("duplicated", Confirmed, 2),
    ],
)
async def test_each_fault_of_a_submit_gives_its_outcome_and_the_order_is_found_by_its_identifier(
    desk: Desk, fault: str, expected: type[Outcome], orders: int
) -> None:
    await desk.control("PATCH", "/faults", {fault: 1})
    outcome = await desk.broker.submit(ACCOUNT, far(entry()))
    assert isinstance(outcome, expected)
    await desk.control("DELETE", "/faults")
    listing = await desk.broker.live_orders(ACCOUNT)
    assert [report.external_identifier for report in listing.reports] == [ENTRY_ID] * orders
