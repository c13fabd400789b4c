"""The REST side by its wire: who is let in, what answers look like, how lists are searched and paged."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.integration.paper.conftest import ACCOUNT, LONG, SHORT, Desk, eventually, spread

ORDERS = f"/accounts/{ACCOUNT}/orders"


async def test_request_without_user_agent_gets_the_proxys_html_page(desk: Desk) -> None:
    status, body = await desk.api("GET", "/customers/me/accounts", User_Agent="")
    assert status == 401
    assert "<html>" in body


async def test_product_without_version_is_let_in_because_an_official_sdk_sends_that(desk: Desk) -> None:
    status, _ = await desk.api("GET", "/customers/me/accounts", User_Agent="tastytrade-sdk-js")
    assert status == 200


@pytest.mark.parametrize("header", ["", "Bearer nonsense", "nonsense"])
async def test_bad_token_gets_a_json_401(desk: Desk, header: str) -> None:
    status, body = await desk.api("GET", "/customers/me/accounts", Authorization=header)
    assert status == 401
    assert body["error"]["code"] == "unauthorized"


@pytest.mark.covers("F76")
async def test_token_dies_after_its_life_on_the_papers_clock(desk: Desk) -> None:
    await desk.control("POST", "/clock", {"advance_ms": 899_000})
    assert (await desk.api("GET", "/customers/me/accounts"))[0] == 200
    await desk.control("POST", "/clock", {"advance_ms": 2_000})
    assert (await desk.api("GET", "/customers/me/accounts"))[0] == 401
    await desk.log_in()
    assert (await desk.api("GET", "/customers/me/accounts"))[0] == 200


async def test_token_service_takes_json_and_forms_and_says_how_long(desk: Desk) -> None:
    grant = {"grant_type": "refresh_token", "refresh_token": "r", "client_secret": "s"}
    async with desk.http.post(f"{desk.server.api_url}/oauth/token", data=grant) as answer:
        body = await answer.json()
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 900)
    assert body["access_token"].count(".") == 2


@pytest.mark.parametrize(
    ("grant", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "refresh_token", "client_secret": "s"}, "invalid_request"),
    ],
)
async def test_bad_grant_is_refused_in_the_shape_of_rfc_6749(desk: Desk, grant: dict[str, str], error: str) -> None:
    async with desk.http.post(f"{desk.server.api_url}/oauth/token", json=grant) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"] == error


async def test_versions_decide_whether_a_search_needs_a_start(desk: Desk) -> None:
    assert (await desk.api("GET", ORDERS))[0] == 200
    assert (await desk.api("GET", ORDERS, Accept_Version="20251101"))[0] == 200
    status, body = await desk.api("GET", ORDERS, Accept_Version="20261012")
    assert (status, body["error"]["code"]) == (400, "validation_error")
    assert (await desk.api("GET", f"{ORDERS}?start-date=2026-01-01", Accept_Version="20261123"))[0] == 200
    status, body = await desk.api("GET", ORDERS, Accept_Version="20240101")
    assert (status, body["error"]["code"]) == (406, 406)


async def test_foreign_account_and_unknown_things_are_told_apart(desk: Desk) -> None:
    status, body = await desk.api("GET", "/accounts/5WT99999/orders/live")
    assert (status, body["error"]["code"]) == (403, "not_permitted")
    status, body = await desk.api("GET", f"{ORDERS}/123456")
    assert (status, body["error"]["code"]) == (404, "record_not_found")
    assert (await desk.api("GET", "/no/such/path"))[0] == 404
    assert (await desk.api("POST", "/api-quote-tokens"))[0] == 405


async def test_submit_nests_the_order_and_replace_does_not(desk: Desk) -> None:
    placed = await desk.place()
    assert placed["external-identifier"] == spread()["external-identifier"]
    change = {"order-type": "Limit", "time-in-force": "Day", "price": "1.30", "price-effect": "Credit"}
    status, body = await desk.api("PUT", f"{ORDERS}/{placed['id']}", change)
    assert status == 200
    assert body["data"]["replaces-order-id"] == placed["id"]
    assert [leg["symbol"] for leg in body["data"]["legs"]] == [SHORT, LONG]


async def test_price_given_as_a_json_number_stays_exact(desk: Desk) -> None:
    assert (await desk.place(price=1.15))["price"] == "1.15"


@pytest.mark.parametrize("raw", ["{", "[1]", "NaN", ""])
async def test_body_that_is_no_json_object_is_a_validation_error(desk: Desk, raw: str) -> None:
    headers = {"Authorization": f"Bearer {desk.token}", "Content-Type": "application/json"}
    async with desk.http.post(f"{desk.server.api_url}{ORDERS}", data=raw, headers=headers) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["code"] == "validation_error"


async def test_search_pages_are_newest_first_and_complete(desk: Desk) -> None:
    ids = [(await desk.place())["id"] for _ in range(5)]
    seen: list[int] = []
    for page in range(3):
        _, body = await desk.api("GET", f"{ORDERS}?per-page=2&page-offset={page}")
        seen += [order["id"] for order in body["data"]["items"]]
        assert (body["pagination"]["total-items"], body["pagination"]["total-pages"]) == (5, 3)
    assert seen == ids[::-1]
    _, body = await desk.api("GET", f"{ORDERS}?per-page=2&sort=Asc")
    assert [order["id"] for order in body["data"]["items"]] == ids[:2]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("status[]=Filled", 0),
        ("status[]=Live&status[]=Routed&status[]=In Flight&status[]=Received", 1),
        ("underlying-symbol=AAPL", 1),
        ("underlying-symbol=SPY", 0),
        ("start-at=2026-01-01T00:00:00Z", 1),
        ("start-at=2026-01-01 00:00:00.123456+00:00", 1),
        ("start-at=2090-01-01T00:00:00Z", 0),
        ("end-at=2026-01-01T00:00:00Z", 0),
        ("start-date=2026-01-01&end-date=2090-01-01", 1),
    ],
)
async def test_search_filters(desk: Desk, query: str, count: int) -> None:
    await desk.place()
    status, body = await desk.api("GET", f"{ORDERS}?{quote(query, safe='=&[]')}")
    assert (status, len(body["data"]["items"])) == (200, count)


@pytest.mark.parametrize("query", ["per-page=0", "per-page=2001", "page-offset=-1", "start-at=soon", "sort=Up"])
async def test_bad_search_parameters_are_refused(desk: Desk, query: str) -> None:
    status, body = await desk.api("GET", f"{ORDERS}?{query}")
    assert (status, body["error"]["code"]) == (400, "validation_error")


async def test_customer_wide_lists_need_account_numbers(desk: Desk) -> None:
    await desk.place()
    assert (await desk.api("GET", "/customers/me/orders/live"))[0] == 400
    _, body = await desk.api("GET", f"/customers/me/orders/live?account-numbers[]={ACCOUNT}")
    assert len(body["data"]["items"]) == 1


async def test_position_filters_and_marks(desk: Desk) -> None:
    order = await desk.place()
    await desk.control("POST", f"/orders/{order['id']}/fill")

    async def are_both_there() -> bool:
        return len((await desk.api("GET", f"/accounts/{ACCOUNT}/positions"))[1]["data"]["items"]) == 2

    await eventually(are_both_there)
    await desk.control("PUT", f"/quotes/{SHORT}", {"bid": "3.00", "ask": "3.10"})
    path = f"/accounts/{ACCOUNT}/positions?symbol={quote(SHORT)}&include-marks=true"
    _, body = await desk.api("GET", path)
    assert [(row["symbol"], row["mark-price"]) for row in body["data"]["items"]] == [(SHORT, "3.05")]
    _, body = await desk.api("GET", f"/accounts/{ACCOUNT}/positions?underlying-symbol[]=SPY")
    assert body["data"]["items"] == []
    _, body = await desk.api("GET", f"/accounts/{ACCOUNT}/transactions?sort=Asc&per-page=1")
    assert body["pagination"]["total-items"] == 2


async def test_every_form_of_the_chain_names_the_same_symbols(desk: Desk) -> None:
    chains: dict[str, Any] = {
        form: (await desk.api("GET", f"/option-chains/TSLA{form}"))[1]["data"]["items"]
        for form in ("", "/nested", "/compact")
    }
    nested = {
        strike[side]: strike[f"{side}-streamer-symbol"]
        for chain in chains["/nested"]
        for expiration in chain["expirations"]
        for strike in expiration["strikes"]
        for side in ("call", "put")
    }
    assert {option["symbol"]: option["streamer-symbol"] for option in chains[""]} == nested
    assert {symbol for row in chains["/compact"] for symbol in row["symbols"]} == set(nested)
    assert sum(item["days-to-expiration"] > 7 for item in chains["/nested"][0]["expirations"]) >= 2
    assert (await desk.api("GET", "/option-chains/NOPE/nested"))[0] == 404


async def test_session_follows_the_rule(desk: Desk) -> None:
    for path in ("/market-time/equities/sessions/current", "/market-time/sessions/current"):
        query = "?instrument-collections[]=Equity"
        _, body = await desk.api("GET", path + query)
        session = body["data"].get("items", [body["data"]])[0]
        assert (session["state"], session["instrument-collection"]) == ("Open", "Equity")
    await desk.control("PATCH", "/rules", {"sessions": "closed", "holidays": ["2026-12-25"]})
    _, body = await desk.api("GET", "/market-time/equities/sessions/current")
    assert body["data"]["state"] == "Closed"
    _, body = await desk.api("GET", "/market-time/equities/holidays")
    assert body["data"]["market-holidays"] == ["2026-12-25"]


async def test_secrets_and_tokens_are_nowhere_in_the_truth_log(desk: Desk) -> None:
    grant = {"grant_type": "refresh_token", "refresh_token": "canary-refresh", "client_secret": "canary-secret"}
    async with desk.http.post(f"{desk.server.api_url}/oauth/token", json=grant) as answer:
        token = (await answer.json())["access_token"]
    await desk.place(external_identifier="findable")
    async with aiohttp.ClientSession() as http, http.get(f"{desk.server.control_url}/log") as answer:
        text = await answer.text()
    assert "findable" in text
    assert all(secret not in text for secret in ("canary", token, desk.token))
