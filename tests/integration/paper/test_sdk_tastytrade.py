"""The most used public client, pointed at the paper broker by its two address constants.

It validates every answer and every message against its own models, so each call that returns is a statement about our
wire.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

import aiohttp
import pytest
import tastytrade.session
import tastytrade.streamer
from tastytrade import Account, AlertStreamer, DXLinkStreamer, Session
from tastytrade.account import AccountBalance, CurrentPosition
from tastytrade.dxfeed import Quote
from tastytrade.instruments import (
    Equity,
    Future,
    NestedFutureOptionChain,
    NestedOptionChain,
    Option,
    Strike,
    get_option_chain,
)
from tastytrade.market_data import get_market_data_by_type
from tastytrade.market_sessions import ExchangeType, MarketStatus, get_market_holidays, get_market_sessions
from tastytrade.order import (
    InstrumentType,
    LimitOrder,
    OrderAction,
    OrderStatus,
    OrderTimeInForce,
    OTOCOOrder,
    PlacedOrder,
    StopLimitOrder,
)
from tastytrade.utils import TastytradeError

from otocod.paper.server import PaperServer
from tests.integration.paper.conftest import eventually

# The client passes a text body in a way its HTTP library calls old, and leaves the queues of its streamers open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject.*:ResourceWarning"),
]

PATIENCE_S = 5.0
T = TypeVar("T")


@pytest.fixture
async def session(server: PaperServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Session]:
    monkeypatch.setattr(tastytrade.session, "API_URL", server.api_url)
    monkeypatch.setattr(tastytrade.streamer, "STREAMER_URL", server.streamer_url)
    async with Session("secret", "refresh") as session:
        yield session
    # Here, where its warnings are ignored, and not in the middle of some other test.
    gc.collect()


@pytest.fixture
async def account(session: Session) -> Account:
    return (await Account.get(session))[0]


async def pick_strikes(session: Session) -> tuple[Strike, Strike]:
    """Two neighbouring strikes of an expiration at least a week away."""
    chain = (await NestedOptionChain.get(session, "AAPL"))[0]
    expiration = next(item for item in chain.expirations if item.days_to_expiration >= 7)
    place = next(index for index, strike in enumerate(expiration.strikes) if strike.strike_price == 300)
    return expiration.strikes[place], expiration.strikes[place + 1]


async def quote(server: PaperServer, symbol: str, bid: str, ask: str) -> None:
    url = f"{server.control_url}/quotes/{symbol}"
    async with aiohttp.ClientSession() as http, http.put(url, json={"bid": bid, "ask": ask}) as answer:
        assert answer.status == 200


async def vertical(session: Session, price: str = "1.20") -> LimitOrder:
    short, long = await pick_strikes(session)
    options = await asyncio.gather(Option.get(session, short.call), Option.get(session, long.call))
    legs = [
        options[0].build_leg(Decimal(1), OrderAction.SELL_TO_OPEN),
        options[1].build_leg(Decimal(1), OrderAction.BUY_TO_OPEN),
    ]
    return LimitOrder(
        time_in_force=OrderTimeInForce.DAY, legs=legs, price=Decimal(price), external_identifier="sdk-test-1"
    )


async def first_message(streamer: AlertStreamer, kind: type[T], **wanted: Any) -> T:
    async with asyncio.timeout(PATIENCE_S):
        async for message in streamer.listen(kind):  # type: ignore[type-var]
            if all(getattr(message, key) == value for key, value in wanted.items()):
                return message
    raise AssertionError("the streamer ended")


async def test_log_in_and_account_reads_are_readable(session: Session, account: Account) -> None:
    assert account.account_number == "5WT00001"
    assert (await Account.get(session, account.account_number)).account_number == account.account_number
    balances = await account.get_balances(session)
    assert balances.net_liquidating_value > 0
    status = await account.get_trading_status(session)
    assert not status.is_frozen
    assert await account.get_positions(session) == []
    assert await account.get_history(session) == []
    assert (await session.get_customer()).id
    assert await session.validate()


async def test_chains_options_and_sessions_are_usable_on_a_fresh_start(session: Session) -> None:
    short, _ = await pick_strikes(session)
    option = await Option.get(session, short.call)
    assert option.streamer_symbol == short.call_streamer_symbol
    full = await get_option_chain(session, "AAPL")
    assert option.symbol in {item.symbol for item in full[option.expiration_date]}
    spx = await NestedOptionChain.get(session, "SPX")
    assert {chain.root_symbol for chain in spx} == {"SPX", "SPXW"}
    assert (await Equity.get(session, "AAPL")).streamer_symbol == "AAPL"
    futures = await Future.get(session, product_codes=["ES"])
    assert (await Future.get(session, futures[0].symbol)).symbol == futures[0].symbol
    assert (await NestedFutureOptionChain.get(session, "/ES")).option_chains[0].expirations[0].strikes
    sessions = await get_market_sessions(session, [ExchangeType.NYSE, ExchangeType.CME])
    assert [item.status for item in sessions] == [MarketStatus.OPEN, MarketStatus.OPEN]
    assert (await get_market_holidays(session)).holidays == []


async def test_market_data_shows_the_quote(session: Session, server: PaperServer) -> None:
    short, _ = await pick_strikes(session)
    await quote(server, short.call, "3.10", "3.20")
    data = await get_market_data_by_type(session, options=[short.call])
    assert (data[0].bid, data[0].ask) == (Decimal("3.10"), Decimal("3.20"))


async def test_dry_run_place_replace_and_cancel(session: Session, account: Account) -> None:
    order = await vertical(session)
    dry = await account.place_order(session, order, dry_run=True)
    assert dry.buying_power_effect.change_in_buying_power < 0
    placed = (await account.place_order(session, order, dry_run=False)).order
    assert placed.external_identifier == "sdk-test-1"
    assert placed.price == Decimal("1.20")

    order.price = Decimal("1.25")
    replacement = await account.replace_order(session, placed.id, order)
    assert replacement.id != placed.id
    assert replacement.replaces_order_id == placed.id
    assert len(replacement.legs) == 2
    await account.delete_order(session, replacement.id)

    async def is_cancelled() -> bool:
        return (await account.get_order(session, replacement.id)).status is OrderStatus.CANCELLED

    await eventually(is_cancelled)
    live = {item.id: item.status for item in await account.get_live_orders(session)}
    assert live[placed.id] is OrderStatus.CANCELLED


async def test_order_history_pages_filters_and_times(session: Session, account: Account) -> None:
    order = await vertical(session)
    ids = [(await account.place_order(session, order, dry_run=False)).order.id for _ in range(3)]
    start = datetime.now(UTC) - timedelta(minutes=5)
    found = await account.get_order_history(session, per_page=2, page_offset=None, start_at=start, sort="Asc")
    assert [item.id for item in found] == ids
    newest = await account.get_order_history(session, per_page=1)
    assert newest[0].id == ids[-1]
    assert await account.get_order_history(session, statuses=[OrderStatus.FILLED]) == []
    assert await account.get_order_history(session, start_at=start + timedelta(minutes=10)) == []


async def test_alert_streamer_tells_the_fill_position_and_balance(
    session: Session, account: Account, server: PaperServer
) -> None:
    order = await vertical(session)
    async with AlertStreamer(session) as streamer:
        await streamer.subscribe_accounts([account])
        placed = (await account.place_order(session, order, dry_run=False)).order
        await quote(server, order.legs[0].symbol, "3.10", "3.20")
        await quote(server, order.legs[1].symbol, "1.85", "1.90")
        filled = await first_message(streamer, PlacedOrder, status=OrderStatus.FILLED)
        assert filled.id == placed.id
        position = await first_message(streamer, CurrentPosition, symbol=order.legs[0].symbol)
        assert position.quantity == 1
        assert (await first_message(streamer, AccountBalance)).account_number == account.account_number
    assert len(await account.get_positions(session)) == 2
    assert {row.symbol for row in await account.get_history(session)} == {leg.symbol for leg in order.legs}


async def test_otoco_of_a_spread_is_placed_listed_and_cancelled(session: Session, account: Account) -> None:
    entry = await vertical(session)
    opening = {OrderAction.SELL_TO_OPEN: OrderAction.BUY_TO_CLOSE, OrderAction.BUY_TO_OPEN: OrderAction.SELL_TO_CLOSE}
    closing = [leg.model_copy(update={"action": opening[leg.action]}) for leg in entry.legs]
    common: dict[str, Any] = {"time_in_force": OrderTimeInForce.GTC, "legs": closing}
    bracket = OTOCOOrder(
        trigger_order=entry,
        take_profit=LimitOrder(price=Decimal("-0.60"), **common),
        stop_loss=StopLimitOrder(stop_trigger=Decimal("2.40"), price=Decimal("-2.60"), **common),
    )
    dry = await account.place_complex_order(session, bracket, dry_run=True)
    assert len(dry.complex_order.orders) == 2
    placed = (await account.place_complex_order(session, bracket, dry_run=False)).complex_order
    assert placed.trigger_order is not None
    assert [item.status for item in placed.orders] == [OrderStatus.CONTINGENT, OrderStatus.CONTINGENT]
    assert placed.orders[1].price == Decimal("-2.60")
    live = await account.get_live_complex_orders(session)
    assert [item.id for item in live] == [placed.id]
    assert (await account.get_complex_order(session, placed.id)).id == placed.id
    assert [item.id for item in await account.get_complex_order_history(session)] == [placed.id]
    await account.delete_complex_order(session, placed.id)
    again = await account.get_complex_order(session, placed.id)
    assert {item.status for item in again.orders} == {OrderStatus.CANCELLED}


async def test_dxlink_streams_quotes_for_chain_legs(session: Session, server: PaperServer) -> None:
    short, long = await pick_strikes(session)
    await quote(server, short.call, "3.10", "3.20")
    async with DXLinkStreamer(session) as streamer, asyncio.timeout(PATIENCE_S):
        await streamer.subscribe(Quote, [short.call_streamer_symbol, long.call_streamer_symbol])
        first = await streamer.get_event(Quote)
        assert (first.event_symbol, first.bid_price, first.ask_price) == (
            short.call_streamer_symbol,
            Decimal("3.1"),
            Decimal("3.2"),
        )
        await quote(server, long.call, "1.85", "1.95")
        assert (await streamer.get_event(Quote)).event_symbol == long.call_streamer_symbol


async def test_a_refusal_shows_the_inner_code(session: Session, account: Account) -> None:
    order = await vertical(session)
    order.legs = [leg.model_copy(update={"action": OrderAction.BUY_TO_OPEN}) for leg in order.legs]
    with pytest.raises(TastytradeError, match="cant_buy_for_credit"):
        await account.place_order(session, order, dry_run=True)


async def test_equity_order_is_understood(session: Session, account: Account) -> None:
    stock = await Equity.get(session, "AAPL")
    order = LimitOrder(
        time_in_force=OrderTimeInForce.DAY,
        legs=[stock.build_leg(Decimal(5), OrderAction.BUY_TO_OPEN)],
        price=Decimal("-100.25"),
    )
    placed = (await account.place_order(session, order, dry_run=False)).order
    assert placed.legs[0].instrument_type is InstrumentType.EQUITY
    assert placed.price == Decimal("-100.25")
