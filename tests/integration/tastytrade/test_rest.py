"""Commands and queries over real sockets: each way an exchange can end, and which outcome it must give."""

import asyncio
import shutil
import socket
import ssl
import traceback
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import otocod
from otocod.adapters.tastytrade.render import complex_body, order_body
from otocod.domain.ids import BrokerOrderId, ComplexOrderId
from otocod.domain.orders import BrokerStatus
from otocod.domain.settlement import Settlement
from otocod.ports.broker import (
    Confirmed,
    LoginRefused,
    NotFound,
    NotSent,
    Outcome,
    Position,
    Quote,
    ReadFailed,
    Refused,
    Unknown,
)
from tests.integration.tastytrade.conftest import Rig
from tests.support.tastytrade import (
    ACCOUNT,
    ENTRY_ID,
    LONG_CALL,
    NEXT_ID,
    SHORT_CALL,
    START_US,
    STOP_ID,
    TARGET_ID,
    FakeBroker,
    Reply,
    break_connection,
    cut_short,
    echoed,
    entry,
    json_reply,
    orders_page,
    payload,
    stop,
    target,
    text_reply,
)

ORDERS = f"/accounts/{ACCOUNT}/orders"
COMPLEX = f"/accounts/{ACCOUNT}/complex-orders"
OLD = BrokerOrderId("771051")
GROUP = ComplexOrderId("2000010530")
HTML = "<html><body>Bad gateway</body></html>"


def submitted() -> Reply:
    return json_reply({"data": {"order": echoed(order_body(entry())), "warnings": []}}, 201)


# The happy answers.


async def test_submit_is_confirmed_with_the_headers_the_broker_requires(fake: FakeBroker) -> None:
    rig = Rig(fake.url, accept_version="20261012")
    fake.script("POST", ORDERS, json_reply(payload("order_submitted"), 201))
    outcome = await rig.broker.submit(ACCOUNT, entry())
    assert isinstance(outcome, Confirmed)
    assert outcome.reports[0].broker_order_id == "771043"
    (seen,) = fake.requests("POST", ORDERS)
    assert seen.body == order_body(entry())
    assert seen.headers["User-Agent"] == f"otocod/{otocod.__version__}"
    assert seen.headers["Authorization"] == "Bearer token-1"
    assert seen.headers["Accept"] == seen.headers["Content-Type"] == "application/json"
    assert seen.headers["Accept-Version"] == "20261012"
    await rig.close()


async def test_no_version_is_asked_for_unless_configured(rig: Rig, fake: FakeBroker) -> None:
    await rig.broker.submit(ACCOUNT, entry())
    assert all("Accept-Version" not in seen.headers for seen in fake.seen)


async def test_group_is_confirmed_with_its_members_in_order(rig: Rig, fake: FakeBroker) -> None:
    members = (entry(), target(), stop())
    body = complex_body(members)
    orders = [echoed(order, broker_order_id=number) for number, order in enumerate(body["orders"], 2)]
    container = {"id": 2000010530, "type": "OTOCO", "trigger-order": echoed(body["trigger-order"], broker_order_id=1)}
    fake.script("POST", COMPLEX, json_reply({"data": {"complex-order": container | {"orders": orders}}}, 201))
    outcome = await rig.broker.submit_complex(ACCOUNT, members)
    assert isinstance(outcome, Confirmed)
    assert outcome.complex_order_id == GROUP
    assert [report.external_identifier for report in outcome.reports] == [ENTRY_ID, TARGET_ID, STOP_ID]


async def test_replace_sends_no_legs_and_reads_the_new_order(rig: Rig, fake: FakeBroker) -> None:
    fake.script("PUT", f"{ORDERS}/771051", json_reply(payload("order_replaced")))
    outcome = await rig.broker.replace(ACCOUNT, OLD, target("0.65", NEXT_ID))
    assert isinstance(outcome, Confirmed)
    assert (outcome.reports[0].broker_order_id, outcome.reports[0].replaces) == ("771060", OLD)
    assert "legs" not in fake.requests("PUT", f"{ORDERS}/771051")[0].body


async def test_cancel_is_confirmed_by_the_order_it_names(rig: Rig, fake: FakeBroker) -> None:
    fake.script("DELETE", f"{ORDERS}/771051", json_reply(payload("order_cancel_requested")))
    outcome = await rig.broker.cancel(ACCOUNT, OLD)
    assert isinstance(outcome, Confirmed)
    assert outcome.reports[0].status is BrokerStatus.CANCEL_REQUESTED


async def test_group_is_cancelled_by_its_own_id(rig: Rig, fake: FakeBroker) -> None:
    answer = {"data": payload("complex_order_submitted_abbreviated")["data"]["complex-order"]}
    fake.script("DELETE", f"{COMPLEX}/{GROUP}", json_reply(answer))
    outcome = await rig.broker.cancel_complex(ACCOUNT, GROUP)
    assert isinstance(outcome, Confirmed)
    assert (outcome.complex_order_id, len(outcome.reports)) == (GROUP, 3)


# Every other way a command can end.

Command = Callable[[Rig], Awaitable[Outcome]]
COMMANDS: dict[str, tuple[str, str, Command]] = {
    "submit": ("POST", ORDERS, lambda rig: rig.broker.submit(ACCOUNT, entry())),
    "submit_complex": ("POST", COMPLEX, lambda rig: rig.broker.submit_complex(ACCOUNT, (target(), stop()))),
    "replace": ("PUT", f"{ORDERS}/771051", lambda rig: rig.broker.replace(ACCOUNT, OLD, target("0.65", NEXT_ID))),
    "cancel": ("DELETE", f"{ORDERS}/771051", lambda rig: rig.broker.cancel(ACCOUNT, OLD)),
    "cancel_complex": ("DELETE", f"{COMPLEX}/{GROUP}", lambda rig: rig.broker.cancel_complex(ACCOUNT, GROUP)),
    "dry_run": ("POST", f"{ORDERS}/dry-run", lambda rig: rig.broker.dry_run(ACCOUNT, (entry(),))),
    "dry_run_complex": ("POST", f"{COMPLEX}/dry-run", lambda rig: rig.broker.dry_run(ACCOUNT, (target(), stop()))),
}

UNKNOWN_REPLIES: dict[str, Reply] = {
    "500": json_reply({"error": {"code": "internal_error", "message": "x"}}, 500),
    "502 html": text_reply(HTML, 502),
    "504 empty": text_reply("", 504),
    "307": text_reply("", 307, Location="/elsewhere"),
    "302": text_reply("", 302, Location="/login"),
    "403 html": text_reply(HTML, 403),
    "404 html": text_reply(HTML, 404),
    "422 without envelope": json_reply({"message": "no"}, 422),
    "200 html": text_reply(HTML, 200),
    "200 empty": text_reply("", 200),
    "201 without data": json_reply({"data": {}}, 201),
    "201 cut short": cut_short,
    "204": text_reply("", 204),
    "reset": break_connection,
}


@pytest.mark.covers("F9", "F10", "F14", "F15")
@pytest.mark.parametrize("reply", UNKNOWN_REPLIES)
@pytest.mark.parametrize("command", COMMANDS)
async def test_without_a_proof_the_outcome_is_unknown_and_nothing_is_repeated(
    rig: Rig, fake: FakeBroker, command: str, reply: str
) -> None:
    method, path, run = COMMANDS[command]
    fake.script(method, path, UNKNOWN_REPLIES[reply], UNKNOWN_REPLIES[reply])
    outcome = await run(rig)
    assert isinstance(outcome, Unknown)
    assert ACCOUNT not in outcome.why
    assert len(fake.requests(method, path)) == 1
    assert not fake.requests(method, "/elsewhere")


@pytest.mark.covers("F11")
@pytest.mark.parametrize("status", [400, 403, 404, 406, 422])
@pytest.mark.parametrize("command", COMMANDS)
async def test_an_error_envelope_is_a_refusal(rig: Rig, fake: FakeBroker, command: str, status: int) -> None:
    method, path, run = COMMANDS[command]
    fake.script(method, path, json_reply(payload("error_second_close"), status))
    outcome = await run(rig)
    assert isinstance(outcome, Refused)
    assert outcome.refusal.http_status == status
    assert outcome.refusal.codes[-1] == "cannot_close_against_more_than_existing_position"


@pytest.mark.covers("F13")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("reply", [text_reply(HTML, 429), json_reply(payload("error_second_close"), 429)])
async def test_429_is_not_sent_and_not_repeated(rig: Rig, fake: FakeBroker, command: str, reply: Reply) -> None:
    method, path, run = COMMANDS[command]
    fake.script(method, path, reply, reply)
    assert isinstance(await run(rig), NotSent)
    assert len(fake.requests(method, path)) == 1


@pytest.mark.covers("F12", "F76")
@pytest.mark.parametrize("reply", [text_reply(HTML, 401), json_reply({"error": {"code": "token_invalid"}}, 401)])
async def test_401_renews_the_token_once_and_sends_the_same_bytes_again(
    rig: Rig, fake: FakeBroker, reply: Reply
) -> None:
    fake.script("POST", ORDERS, reply, submitted())
    assert isinstance(await rig.broker.submit(ACCOUNT, entry()), Confirmed)
    first, second = fake.requests("POST", ORDERS)
    assert first.body == second.body
    assert [first.headers["Authorization"], second.headers["Authorization"]] == ["Bearer token-1", "Bearer token-2"]
    assert fake.tokens == 2


@pytest.mark.covers("F12")
async def test_401_twice_is_not_sent(rig: Rig, fake: FakeBroker) -> None:
    reply = text_reply(HTML, 401)
    fake.script("POST", ORDERS, reply, reply, reply)
    assert isinstance(await rig.broker.submit(ACCOUNT, entry()), NotSent)
    assert len(fake.requests("POST", ORDERS)) == 2


@pytest.mark.covers("F12", "F14")
async def test_401_and_then_a_500_is_unknown(rig: Rig, fake: FakeBroker) -> None:
    fake.script("POST", ORDERS, text_reply(HTML, 401), text_reply(HTML, 500))
    assert isinstance(await rig.broker.submit(ACCOUNT, entry()), Unknown)


@pytest.mark.covers("F78")
async def test_without_a_token_nothing_is_sent(rig: Rig, fake: FakeBroker) -> None:
    fake.script("POST", "/oauth/token", json_reply(payload("oauth_refused"), 400))
    assert isinstance(await rig.broker.submit(ACCOUNT, entry()), NotSent)
    assert not fake.requests("POST", ORDERS)
    with pytest.raises(LoginRefused):
        await rig.broker.positions(ACCOUNT)
    assert len(fake.requests("POST", "/oauth/token")) == 1


@pytest.mark.covers("F1")
async def test_no_answer_in_time_is_unknown(fake: FakeBroker) -> None:
    rig = Rig(fake.url, answer_s=0.2)
    released = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    fake.script("POST", ORDERS, hang)
    outcome = await rig.broker.submit(ACCOUNT, entry())
    released.set()
    assert outcome == Unknown("timed out")
    assert len(fake.requests("POST", ORDERS)) == 1
    await rig.close()


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.covers("F8", "F80")
@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "https://127.0.0.1:{port}", "http://name.invalid"])
async def test_a_connection_that_is_not_made_is_not_sent(fake: FakeBroker, url: str) -> None:
    rig = Rig(fake.url)
    await rig.auth.bearer()
    elsewhere = Rig(url.format(port=unused_port()))
    elsewhere.broker = type(rig.broker)(elsewhere.transport, rig.auth)
    outcome = await elsewhere.broker.submit(ACCOUNT, entry())
    assert isinstance(outcome, NotSent)
    assert ACCOUNT not in outcome.why
    await elsewhere.close()
    await rig.close()


@pytest.mark.covers("F8", "F81")
async def test_a_peer_that_speaks_no_tls_is_not_sent(fake: FakeBroker) -> None:
    rig = Rig(fake.url)
    await rig.auth.bearer()
    elsewhere = Rig(fake.url.replace("http://", "https://"))
    elsewhere.broker = type(rig.broker)(elsewhere.transport, rig.auth)
    assert isinstance(await elsewhere.broker.submit(ACCOUNT, entry()), NotSent)
    assert not fake.requests("POST", ORDERS)
    await elsewhere.close()
    await rig.close()


@pytest.mark.covers("F81")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
async def test_a_certificate_nobody_vouches_for_is_not_sent(fake: FakeBroker, tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
        "-keyout",
    ]
    making = await asyncio.create_subprocess_exec(*command, key, "-out", certificate, stderr=asyncio.subprocess.DEVNULL)
    assert await making.wait() == 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(1))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    rig = Rig(fake.url)
    await rig.auth.bearer()
    elsewhere = Rig(f"https://localhost:{server.sockets[0].getsockname()[1]}")
    elsewhere.broker = type(rig.broker)(elsewhere.transport, rig.auth)
    assert await elsewhere.broker.submit(ACCOUNT, entry()) == NotSent("certificate not trusted")
    assert not any(received)
    await elsewhere.close()
    await rig.close()
    server.close()
    await server.wait_closed()


@pytest.mark.covers("F9", "F15")
@pytest.mark.parametrize("command", ["submit", "replace", "cancel"])
async def test_a_kept_connection_that_dies_under_a_command_is_unknown_and_sent_once(
    rig: Rig, fake: FakeBroker, command: str
) -> None:
    """Goal: clients often repeat PUT and DELETE on a broken kept connection by themselves; this one must not.

    Method: one request keeps the connection; the next one arrives on it and is answered by a reset.
    """
    fake.script("GET", f"{ORDERS}/live", json_reply(orders_page([])))
    await rig.broker.live_orders(ACCOUNT)
    method, path, run = COMMANDS[command]
    fake.script(method, path, break_connection, submitted())
    assert isinstance(await run(rig), Unknown)
    assert len(fake.requests(method, path)) == 1


@pytest.mark.covers("F9")
async def test_a_fresh_connection_that_dies_under_a_command_is_unknown(fake: FakeBroker) -> None:
    rig, fresh = Rig(fake.url), Rig(fake.url)
    await rig.auth.bearer()
    fresh.broker = type(rig.broker)(fresh.transport, rig.auth)
    fake.script("POST", ORDERS, break_connection)
    assert isinstance(await fresh.broker.submit(ACCOUNT, entry()), Unknown)
    await fresh.close()
    await rig.close()


@pytest.mark.covers("F118")
async def test_a_refusal_that_quotes_the_account_does_not_pass_it_on(rig: Rig, fake: FakeBroker) -> None:
    error = {"error": {"code": "not_permitted", "message": f"No access to {ACCOUNT}"}}
    fake.script("POST", ORDERS, json_reply(error, 403))
    outcome = await rig.broker.submit(ACCOUNT, entry())
    assert isinstance(outcome, Refused)
    assert ACCOUNT not in repr(outcome)


@pytest.mark.covers("F18")
async def test_cancelling_the_caller_does_not_cancel_the_order_and_its_outcome_is_reported(
    rig: Rig, fake: FakeBroker
) -> None:
    released = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await released.wait()
        return await submitted()(request)

    await rig.auth.bearer()
    fake.arrived.clear()
    fake.script("POST", ORDERS, slow)
    caller = asyncio.ensure_future(rig.broker.submit(ACCOUNT, entry()))
    await asyncio.wait_for(fake.arrived.wait(), 5)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert not await rig.broker.drain(0)
    released.set()
    assert await rig.broker.drain(5)
    (orphan,) = rig.orphans
    assert (orphan.command, orphan.external_identifiers) == ("submit", (ENTRY_ID,))
    assert isinstance(orphan.outcome, Confirmed)


@pytest.mark.covers("F83")
async def test_a_slow_answer_does_not_hold_up_other_commands(rig: Rig, fake: FakeBroker) -> None:
    released = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await released.wait()
        return await submitted()(request)

    await rig.auth.bearer()
    fake.script("POST", ORDERS, *[slow] * 10)
    fake.script("DELETE", f"{ORDERS}/771051", json_reply(payload("order_cancel_requested")))
    slow_ones = [asyncio.ensure_future(rig.broker.submit(ACCOUNT, entry())) for _ in range(10)]
    assert isinstance(await asyncio.wait_for(rig.broker.cancel(ACCOUNT, OLD), 5), Confirmed)
    released.set()
    assert all(isinstance(outcome, Confirmed) for outcome in await asyncio.gather(*slow_ones))


async def test_a_dry_run_tells_warnings_and_no_reports(rig: Rig, fake: FakeBroker) -> None:
    order = echoed(order_body(entry()))
    del order["id"]
    notes = [{"code": "tif.next_valid_session", "message": "later"}]
    fake.script("POST", f"{ORDERS}/dry-run", json_reply({"data": {"order": order, "warnings": notes}}, 201))
    assert await rig.broker.dry_run(ACCOUNT, (entry(),)) == Confirmed((), None, ("tif.next_valid_session",))


async def test_a_dry_run_with_errors_inside_is_refused(rig: Rig, fake: FakeBroker) -> None:
    order = echoed(order_body(target()))
    errors = [{"code": "margin_check_failed", "message": "x"}]
    answer = json_reply({"data": {"order": order, "errors": errors}}, 201)
    fake.script("POST", f"{ORDERS}/771051/dry-run", answer)
    outcome = await rig.broker.dry_run_replace(ACCOUNT, OLD, target())
    assert isinstance(outcome, Refused)
    assert outcome.refusal.codes == ("margin_check_failed",)


@pytest.mark.parametrize("bad", ["../../x", "a/b", "", "a b", "?x=1"])
async def test_a_name_that_would_change_the_address_is_refused_before_sending(
    rig: Rig, fake: FakeBroker, bad: str
) -> None:
    with pytest.raises(ValueError, match="address"):
        await rig.broker.cancel(ACCOUNT, BrokerOrderId(bad))
    assert not fake.seen


# Queries.


async def test_a_read_repeats_after_a_transient_failure(rig: Rig, fake: FakeBroker) -> None:
    answer = json_reply({"data": payload("stream_order_partial_fill")["data"]})
    fake.script("GET", f"{ORDERS}/771043", text_reply(HTML, 502), break_connection, answer)
    report = await rig.broker.read_order(ACCOUNT, BrokerOrderId("771043"))
    assert report.status is BrokerStatus.LIVE
    assert len(fake.requests("GET", f"{ORDERS}/771043")) == 3


@pytest.mark.covers("F34")
async def test_a_read_gives_up_in_bounds_and_names_no_account(rig: Rig, fake: FakeBroker) -> None:
    fake.script("GET", f"/accounts/{ACCOUNT}/positions", *[text_reply(HTML, 503)] * 9)
    with pytest.raises(ReadFailed) as caught:
        await rig.broker.positions(ACCOUNT)
    assert len(fake.requests("GET", f"/accounts/{ACCOUNT}/positions")) == 3
    assert ACCOUNT not in f"{caught.value}{caught.value.__cause__}"


async def test_the_brokers_own_404_is_not_found_and_a_proxys_is_a_failure(rig: Rig, fake: FakeBroker) -> None:
    envelope = {"error": {"code": "record_not_found", "message": "Couldn't find order"}}
    fake.script("GET", f"{ORDERS}/771051", json_reply(envelope, 404), text_reply(HTML, 404))
    with pytest.raises(NotFound):
        await rig.broker.read_order(ACCOUNT, OLD)
    with pytest.raises(ReadFailed) as caught:
        await rig.broker.read_order(ACCOUNT, OLD)
    assert not isinstance(caught.value, NotFound)


@pytest.mark.covers("F19")
async def test_a_read_of_another_order_fails(rig: Rig, fake: FakeBroker) -> None:
    fake.script("GET", f"{ORDERS}/771052", *[json_reply(payload("order_cancel_requested"))] * 3)
    with pytest.raises(ReadFailed):
        await rig.broker.read_order(ACCOUNT, BrokerOrderId("771052"))


def row(number: int) -> dict[str, Any]:
    return {"id": number, "account-number": ACCOUNT, "status": "Live", "legs": []}


def pages(*counts: int, first: int = 1, total: int | None = None) -> list[Reply]:
    """One complete pass of pages with so many rows each, numbered on from `first`."""
    replies = []
    number = first
    for offset, count in enumerate(counts):
        orders = [row(number + step) for step in range(count)]
        number += count
        whole = sum(counts) if total is None else total
        replies.append(json_reply(orders_page(orders, offset=offset, pages=len(counts), total=whole)))
    return replies


async def test_search_asks_ascending_from_a_time_by_status(rig: Rig, fake: FakeBroker) -> None:
    fake.script("GET", ORDERS, *pages(2))
    listing = await rig.broker.search(ACCOUNT, from_us=START_US - 600_000_000, statuses=("Live", "In Flight"))
    assert [report.broker_order_id for report in listing.reports] == ["1", "2"]
    (seen,) = fake.requests("GET", ORDERS)
    assert seen.query == [
        ("start-at", "2026-11-23T14:51:12Z"),
        ("sort", "Asc"),
        ("status[]", "Live"),
        ("status[]", "In Flight"),
        ("per-page", "200"),
        ("page-offset", "0"),
    ]


@pytest.mark.covers("F32")
async def test_several_pages_count_once_a_second_pass_agrees(rig: Rig, fake: FakeBroker) -> None:
    fake.script("GET", ORDERS, *pages(3, 3, 1), *pages(3, 3, 1))
    listing = await rig.broker.search(ACCOUNT, from_us=START_US)
    assert [report.broker_order_id for report in listing.reports] == [str(number) for number in range(1, 8)]


@pytest.mark.covers("F32")
async def test_a_row_that_fell_between_the_pages_is_found_by_the_next_pass(rig: Rig, fake: FakeBroker) -> None:
    """Row 1 leaves and a row joins after the first page was read: the total stays, and row 4 is on neither page."""
    first_pass = [
        json_reply(orders_page([row(1), row(2), row(3)], offset=0, pages=2, total=6)),
        json_reply(orders_page([row(5), row(6), row(7)], offset=1, pages=2, total=6)),
    ]
    fake.script("GET", ORDERS, *first_pass, *pages(3, 3, first=2), *pages(3, 3, first=2))
    listing = await rig.broker.search(ACCOUNT, from_us=START_US)
    assert [report.broker_order_id for report in listing.reports] == ["2", "3", "4", "5", "6", "7"]


@pytest.mark.covers("F32")
async def test_growth_at_the_end_is_no_disagreement(rig: Rig, fake: FakeBroker) -> None:
    fake.script("GET", ORDERS, *pages(3, 1), *pages(3, 2))
    assert len((await rig.broker.search(ACCOUNT, from_us=START_US)).reports) == 5


@pytest.mark.covers("F32")
@pytest.mark.parametrize(
    "moving",
    [
        [json_reply(orders_page([row(1)], total=2))] * 4,
        [json_reply(orders_page([row(1), row(1)], total=2))] * 4,
        [
            reply
            for _ in range(4)
            for reply in (
                json_reply(orders_page([row(1), row(2)], offset=0, pages=2, total=4)),
                json_reply(orders_page([row(3)], offset=1, pages=2, total=3)),
            )
        ],
        [json_reply(orders_page([row(1)], offset=1, total=1))] * 4,
    ],
    ids=["row missing", "row twice", "shrinking", "wrong page"],
)
async def test_pages_that_do_not_fit_together_fail_in_bounds(rig: Rig, fake: FakeBroker, moving: list[Reply]) -> None:
    fake.script("GET", ORDERS, *moving, *[json_reply(orders_page([]))] * 5)
    with pytest.raises(ReadFailed):
        await rig.broker.search(ACCOUNT, from_us=START_US)


@pytest.mark.covers("F32")
async def test_a_missing_page_fails_the_listing(rig: Rig, fake: FakeBroker) -> None:
    fake.script("GET", ORDERS, *pages(3, 3, 1)[:1], *[text_reply(HTML, 500)] * 9)
    with pytest.raises(ReadFailed):
        await rig.broker.search(ACCOUNT, from_us=START_US)


@pytest.mark.covers("F32")
async def test_live_orders_are_asked_for_by_page_once_they_turn_out_to_have_pages(rig: Rig, fake: FakeBroker) -> None:
    path = f"{ORDERS}/live"
    fake.script("GET", path, *pages(2, 1)[:1], *pages(2, 1), *pages(2, 1)[:1], *pages(2, 1))
    assert len((await rig.broker.live_orders(ACCOUNT)).reports) == 3
    first, second, third = fake.requests("GET", path)[:3]
    assert first.query == []
    assert second.query == [("per-page", "200"), ("page-offset", "0")]
    assert third.query == [("per-page", "200"), ("page-offset", "1")]


@pytest.mark.covers("F32", "F34")
async def test_one_page_of_several_is_never_taken_for_all_positions(rig: Rig, fake: FakeBroker) -> None:
    page = orders_page([payload("stream_position")["data"]], pages=2, total=2)
    fake.script("GET", f"/accounts/{ACCOUNT}/positions", *[json_reply(page)] * 3)
    with pytest.raises(ReadFailed):
        await rig.broker.positions(ACCOUNT)


@pytest.mark.covers("F32")
async def test_a_full_page_that_does_not_say_it_is_the_last_fails(rig: Rig, fake: FakeBroker) -> None:
    page = {"data": {"items": [row(number) for number in range(1, 201)]}}
    fake.script("GET", ORDERS, *[json_reply(page)] * 3)
    with pytest.raises(ReadFailed):
        await rig.broker.search(ACCOUNT, from_us=START_US)


@pytest.mark.covers("F32")
@pytest.mark.parametrize("bad_row", [5, {"status": "Live"}, row(1) | {"account-number": "5WT00002"}])
async def test_a_row_that_cannot_be_placed_fails_the_listing(rig: Rig, fake: FakeBroker, bad_row: Any) -> None:
    fake.script("GET", ORDERS, json_reply(orders_page([row(7), bad_row])))
    with pytest.raises(ReadFailed):
        await rig.broker.search(ACCOUNT, from_us=START_US)


@pytest.mark.covers("F27")
async def test_a_damaged_row_with_an_id_does_not_fail_the_listing(rig: Rig, fake: FakeBroker) -> None:
    fake.script("GET", ORDERS, json_reply(orders_page([row(7) | {"source": 5, "status": "Odd"}])))
    (report,) = (await rig.broker.search(ACCOUNT, from_us=START_US)).reports
    assert (report.broker_order_id, report.status) == ("7", BrokerStatus.UNRECOGNISED)


async def test_the_brokers_clock_is_read_off_the_answer(rig: Rig, fake: FakeBroker) -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        return web.json_response(orders_page([]), headers={"Date": "Mon, 23 Nov 2026 15:01:42 GMT"})

    fake.script("GET", f"{ORDERS}/live", reply)
    listing = await rig.broker.live_orders(ACCOUNT)
    assert listing.broker_clock_offset_us == 30_500_000


async def test_live_groups_positions_balances_accounts_session_and_quotes(rig: Rig, fake: FakeBroker) -> None:
    container = payload("complex_order_submitted_abbreviated")["data"]["complex-order"]
    fake.script("GET", f"{COMPLEX}/live", json_reply({"data": {"items": [container]}}))
    fake.script("GET", f"{COMPLEX}/{GROUP}", json_reply({"data": container}))
    position = payload("stream_position")["data"] | {"quantity": "2.0"}
    fake.script("GET", f"/accounts/{ACCOUNT}/positions", json_reply({"data": {"items": [position]}}))
    balances = {"cash-balance": "100000.0", "net-liquidating-value": 100000.1, "flags": []}
    fake.script(
        "GET",
        f"/accounts/{ACCOUNT}/balances",
        json_reply({"data": balances}),
        json_reply({"data": {"items": [balances]}}),
    )
    accounts = {"data": {"items": [{"account": {"account-number": ACCOUNT}, "authority-level": "owner"}]}}
    fake.script("GET", "/customers/me/accounts", json_reply(accounts))
    fake.script("GET", "/market-time/equities/sessions/current", json_reply(payload("market_session")))
    fake.script("GET", "/market-data/by-type", json_reply(payload("quotes")))

    (group,) = await rig.broker.live_complex_orders(ACCOUNT)
    assert group == await rig.broker.read_complex(ACCOUNT, GROUP)
    assert await rig.broker.positions(ACCOUNT) == (Position(SHORT_CALL, -2),)
    for _ in range(2):
        assert await rig.broker.balances(ACCOUNT) == {"cash-balance": "100000.0", "net-liquidating-value": "100000.1"}
    assert await rig.broker.accounts() == (ACCOUNT,)
    assert (await rig.broker.market_session()).is_open
    quotes = await rig.broker.quotes([("Equity Option", SHORT_CALL), ("Equity Option", LONG_CALL), ("Index", "SPX")])
    assert quotes == (
        Quote(SHORT_CALL, Decimal("3.05"), Decimal("3.15")),
        Quote(LONG_CALL, None, Decimal("1.95")),
    )
    (asked,) = fake.requests("GET", "/market-data/by-type")
    assert asked.query == [("equity-option", SHORT_CALL), ("equity-option", LONG_CALL), ("index", "SPX")]


async def test_many_symbols_are_asked_for_a_hundred_at_a_time(rig: Rig, fake: FakeBroker) -> None:
    fake.script("GET", "/market-data/by-type", *[json_reply({"data": {"items": []}})] * 3)
    await rig.broker.quotes([("Equity", f"S{number}") for number in range(205)])
    assert [len(seen.query) for seen in fake.requests("GET", "/market-data/by-type")] == [100, 100, 5]


@pytest.mark.covers("F34")
async def test_a_position_that_cannot_be_read_fails_the_query(rig: Rig, fake: FakeBroker) -> None:
    position = payload("stream_position")["data"] | {"quantity": "many"}
    fake.script("GET", f"/accounts/{ACCOUNT}/positions", *[json_reply({"data": {"items": [position]}})] * 3)
    with pytest.raises(ReadFailed):
        await rig.broker.positions(ACCOUNT)


def ledger_row(**changes: object) -> dict[str, object]:
    row = {
        "id": 1,
        "symbol": SHORT_CALL,
        "transaction-type": "Receive Deliver",
        "transaction-sub-type": "Assignment",
        "quantity": "2.0",
        "executed-at": "2026-11-23T22:00:00.000+00:00",
    }
    return row | {key.replace("_", "-"): value for key, value in changes.items()}


@pytest.mark.covers("F64", "F65")
async def test_ledger_tells_what_ended_without_a_trade_over_all_its_pages(rig: Rig, fake: FakeBroker) -> None:
    others = [
        ledger_row(transaction_type="Trade"),
        ledger_row(transaction_sub_type="Buy to Open", symbol="AAPL"),
        ledger_row(quantity="many"),
        ledger_row(executed_at=None),
    ]
    expired = ledger_row(symbol=LONG_CALL, transaction_sub_type="Expiration", quantity=1)
    pages = [orders_page([ledger_row(), *others], pages=2, total=6), orders_page([expired], pages=2, total=6, offset=1)]
    fake.script("GET", f"/accounts/{ACCOUNT}/transactions", *map(json_reply, pages))
    found = await rig.broker.settled_positions(ACCOUNT, from_us=START_US)
    assert [(row.symbol, row.quantity, row.how) for row in found] == [
        (SHORT_CALL, 2, Settlement.ASSIGNMENT),
        (LONG_CALL, 1, Settlement.EXPIRATION),
    ]


@pytest.mark.covers("F34")
async def test_ledger_with_a_row_that_is_no_object_fails_the_query(rig: Rig, fake: FakeBroker) -> None:
    fake.script("GET", f"/accounts/{ACCOUNT}/transactions", *[json_reply({"data": {"items": [7]}})] * 3)
    with pytest.raises(ReadFailed):
        await rig.broker.settled_positions(ACCOUNT, from_us=START_US)


async def test_warm_opens_two_connections_that_the_next_commands_use(rig: Rig, fake: FakeBroker) -> None:
    peers: list[object] = []

    def noting(reply: Reply) -> Reply:
        async def noted(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            peers.append(request.transport.get_extra_info("peername"))
            return await reply(request)

        return noted

    await rig.auth.bearer()
    met = asyncio.Barrier(2)

    async def both(request: web.Request) -> web.StreamResponse:
        await met.wait()  # two requests at once need two connections
        return await json_reply(payload("market_session"))(request)

    fake.script("GET", "/market-time/equities/sessions/current", noting(both), noting(both))
    fake.script("POST", ORDERS, noting(submitted()))
    fake.script("DELETE", f"{ORDERS}/771051", noting(json_reply(payload("order_cancel_requested"))))
    await rig.broker.warm()
    await asyncio.gather(rig.broker.submit(ACCOUNT, entry()), rig.broker.cancel(ACCOUNT, OLD))
    assert len(set(peers[:2])) == 2
    assert set(peers[2:]) == set(peers[:2])


@pytest.mark.covers("F118")
async def test_no_secret_and_no_account_is_in_what_goes_wrong(
    fake: FakeBroker, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    rig = Rig(fake.url, answer_s=0.2)
    texts = []
    for reply in UNKNOWN_REPLIES.values():
        fake.script("POST", ORDERS, reply)
        fake.script("GET", f"{ORDERS}/live", reply, reply, reply)
        texts.append(repr(await rig.broker.submit(ACCOUNT, entry())))
        with pytest.raises(ReadFailed) as caught:
            await rig.broker.live_orders(ACCOUNT)
        texts.append("".join(traceback.format_exception(caught.value)))
    captured = capfd.readouterr()
    text = "".join(texts) + caplog.text + captured.out + captured.err
    assert not [word for word in (ACCOUNT, "token-1", "canary") if word in text]
    await rig.close()
