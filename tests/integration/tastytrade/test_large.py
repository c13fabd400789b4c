"""Accounts with more in them than one page of orders holds."""

from otocod.ports.broker import Position
from tests.integration.tastytrade.conftest import Rig
from tests.support.tastytrade import ACCOUNT, FakeBroker, echoed, json_reply, orders_page


async def test_positions_have_no_pages_and_any_number_of_them_is_read(rig: Rig, fake: FakeBroker) -> None:
    """A hundred brackets on verticals are two hundred positions, as many as orders are asked for at once."""
    items = [
        {"account-number": ACCOUNT, "symbol": f"AAPL  261218C{n:08d}", "quantity": 1, "quantity-direction": "Long"}
        for n in range(450)
    ]
    fake.script("GET", f"/accounts/{ACCOUNT}/positions", json_reply({"data": {"items": items}}))
    found = await rig.broker.positions(ACCOUNT)
    assert len(found) == 450
    assert found[449] == Position("AAPL  261218C00000449", 1)


async def test_a_listing_of_many_thousand_orders_is_read_whole(rig: Rig, fake: FakeBroker) -> None:
    """Three orders each of 10,000 open brackets are 150 pages; these are short, for it is the number that counts."""
    pages = 150
    replies = [
        json_reply(orders_page([echoed({}, broker_order_id=number)], offset=number, pages=pages, total=pages))
        for number in range(pages)
    ]
    fake.script("GET", f"/accounts/{ACCOUNT}/orders", *replies, *replies)
    listing = await rig.broker.search(ACCOUNT, from_us=0)
    assert len(listing.reports) == pages
