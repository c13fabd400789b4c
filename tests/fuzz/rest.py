"""Answers over REST: every call of the broker adapter against any status and body.

A command has four outcomes, and which one it may be follows from the answer by rules that are written down again here:
confirmed only by a 2xx whose echo is ours, refused only by a 4xx with the API's own envelope, not sent only by 401 and
429. A read ends in its result, or in one of the three errors it may raise.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import msgspec
import structlog

from otocod.adapters.tastytrade.auth import grant_from_answer
from otocod.adapters.tastytrade.errors import TokenUnreachable
from otocod.adapters.tastytrade.http import Answer, Query
from otocod.adapters.tastytrade.render import complex_body, order_body
from otocod.adapters.tastytrade.rest import TastytradeBroker
from otocod.adapters.tastytrade.retry import ReadRetry
from otocod.domain.ids import BrokerOrderId, ComplexOrderId
from otocod.domain.orders import OrderReport
from otocod.ports.broker import Confirmed, Listing, LoginRefused, NotFound, NotSent, ReadFailed, Refused, Unknown
from tests.fuzz.harness import Case, paths_of
from tests.fuzz.mutation import deep_text, dumped, mutate_bytes, mutate_text, mutate_tree, noise, token
from tests.fuzz.wire_words import WORDS
from tests.support import tastytrade as wire

_ID = BrokerOrderId("771043")
_GROUP = ComplexOrderId("9001")
_STATUSES = (200, 201, 201, 200, 202, 204, 301, 307, 400, 401, 403, 404, 409, 422, 422, 429, 500, 502, 503, 504)
_COMMANDS = ("submit", "submit_complex", "replace", "cancel", "cancel_complex", "dry_run", "dry_run_replace")
_READS = (
    *("read_order", "read_complex", "search", "live_orders", "live_complex_orders"),
    *("positions", "balances", "accounts", "market_session", "quotes"),
)


class _Bearer:
    """Stands for `auth.Authenticator`: always has a token."""

    def ready_bearer(self) -> str:
        return "Bearer canary-token"

    async def bearer(self) -> str:
        return "Bearer canary-token"

    async def replace(self, bearer: str) -> str:
        return bearer


class _Canned:
    """Stands for `http.Transport`: one answer to everything."""

    answer = Answer(200, b"", None, 0, 0)
    requests = 0

    def ask(
        self, method: str, path: str, *, bearer: str | None, body: bytes | None = None, query: Query = ()
    ) -> "asyncio.Future[Answer]":
        self.requests += 1
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        answer.set_result(self.answer)
        return answer

    async def exchange(
        self, method: str, path: str, *, bearer: str | None, body: bytes | None = None, query: Query = ()
    ) -> Answer:
        return await self.ask(method, path, bearer=bearer, body=body, query=query)


class Rest:
    def __init__(self) -> None:
        structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
        self._loop = asyncio.new_event_loop()
        self._canned = _Canned()

    def case(self, rng: Random) -> Case:
        name = rng.choice((*_COMMANDS, *_READS, "submit", "submit_complex", "search", "token"))
        status = rng.choice(_STATUSES)
        date = rng.choice(("good", "none", "bad"))
        return Case(f"{name} {status} {date}", _body(rng, name, status))

    def check(self, case: Case) -> str:
        name, number, date = case.kind.split(" ")
        status = int(number)
        if name == "token":
            return _check_token(status, case.content)
        dates = {"good": "Mon, 23 Nov 2026 15:01:12 GMT", "bad": "Mon, 99 Nov \x00", "none": None}
        self._canned.answer = Answer(status, case.content, dates[date], 1_000_000, 2_000_000)
        self._canned.requests = 0
        return self._loop.run_until_complete(self._check(name, status, case.content))

    async def _check(self, name: str, status: int, body: bytes) -> str:
        broker = TastytradeBroker(
            self._canned,  # type: ignore[arg-type]  # all of it that is used
            _Bearer(),  # type: ignore[arg-type]
            read_retry=ReadRetry(attempts=1),
        )
        outcome: object
        try:
            outcome = await _calls(broker)[name]()
        except (ReadFailed, NotFound, LoginRefused) as error:
            assert name in _READS
            assert str(error).isprintable() and "canary" not in str(error)
            # An address without an account gives nothing to look for.
            assert name in ("accounts", "market_session", "quotes") or wire.ACCOUNT not in str(error)
            return type(error).__name__
        # A listing that never ends is given up.
        assert self._canned.requests <= (401 if name in ("search", "live_orders") else 2)
        if name in _COMMANDS:
            _check_outcome(name, status, body, outcome)
        else:
            assert 200 <= status < 300
            if isinstance(outcome, Listing):
                assert len({report.broker_order_id for report in outcome.reports}) == len(outcome.reports)
        return type(outcome).__name__ if name in _COMMANDS else "read"

    def close(self) -> None:
        self._loop.close()
        structlog.reset_defaults()


def _calls(broker: TastytradeBroker) -> dict[str, Callable[[], Awaitable[object]]]:
    account, members = wire.ACCOUNT, (wire.target(), wire.stop())
    return {
        "submit": lambda: broker.submit(account, wire.entry()),
        "submit_complex": lambda: broker.submit_complex(account, members),
        "replace": lambda: broker.replace(account, BrokerOrderId("771000"), wire.target()),
        "cancel": lambda: broker.cancel(account, _ID),
        "cancel_complex": lambda: broker.cancel_complex(account, _GROUP),
        "dry_run": lambda: broker.dry_run(account, members[:1]),
        "dry_run_replace": lambda: broker.dry_run_replace(account, _ID, members[0]),
        "read_order": lambda: broker.read_order(account, _ID),
        "read_complex": lambda: broker.read_complex(account, _GROUP),
        "search": lambda: broker.search(account, from_us=0),
        "live_orders": lambda: broker.live_orders(account),
        "live_complex_orders": lambda: broker.live_complex_orders(account),
        "positions": lambda: broker.positions(account),
        "balances": lambda: broker.balances(account),
        "accounts": broker.accounts,
        "market_session": broker.market_session,
        "quotes": lambda: broker.quotes([("Equity Option", wire.SHORT_CALL)]),
    }


def _check_outcome(name: str, status: int, body: bytes, outcome: object) -> None:
    match outcome:
        case NotSent(why):
            assert status in (401, 429)
            assert why.isprintable()
        case Refused(refusal):
            assert (400 <= status < 500 and status not in (401, 429)) or name.startswith("dry_run")
            assert refusal.text.isprintable() and len(refusal.message) <= 500
            assert wire.ACCOUNT not in refusal.message, "an account's number in a message"
            assert b"error" in body or b"\\u" in body
        case Confirmed(reports):
            assert 200 <= status < 300
            for report in reports:
                _check_ours(name, report)
            tree = _tree(body)
            data = tree.get("data") if isinstance(tree, dict) else None
            assert isinstance(data, dict), "confirmed by an answer without data"
        case Unknown(why):
            assert why.isprintable() and "internal" not in why, why
        case _:
            raise AssertionError(outcome)


def _check_ours(name: str, report: OrderReport) -> None:
    """The echo is of what we sent: identifier if there is one, price if there is one, legs if there are any."""
    assert report.broker_order_id.isprintable()
    if name in ("submit", "submit_complex"):
        sent = (wire.entry(),) if name == "submit" else (wire.target(), wire.stop())
        assert report.external_identifier in (None, *(member.external_identifier for member in sent))
        assert report.net_price in (None, *(member.spec.net_price for member in sent))
        legs = {(leg.symbol, leg.quantity) for leg in sent[0].spec.legs}
        assert {(leg.symbol, leg.quantity) for leg in report.legs} in (set(), legs)
    if name == "cancel":
        assert report.broker_order_id == _ID


def _tree(body: bytes) -> Any:
    try:
        # What is skipped need not be UTF-8.
        return json.loads(body.decode(errors="replace"), parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None


def _check_token(status: int, body: bytes) -> str:
    try:
        grant = grant_from_answer(status, body)
    except LoginRefused as error:
        assert 400 <= status < 500 and status not in (408, 429)
        assert str(error).isprintable()
        return "LoginRefused"
    except TokenUnreachable as error:
        assert str(error).isprintable()
        return "TokenUnreachable"
    assert 200 <= status < 300
    assert grant.access_token.isprintable() and grant.access_token.isascii() and " " not in grant.access_token
    assert 30_000_000 <= grant.life_us <= 86_400_000_000
    return "grant"


# Bodies.


def _body(rng: Random, name: str, status: int) -> bytes:
    choice = rng.random()
    if choice < 0.03:
        return noise(rng)
    if choice < 0.032:
        return deep_text(rng).encode()
    if choice < 0.06:
        return rng.choice((b"", b"null", b"[]", b"{}", b"<html>Bad Gateway</html>", b'{"data":null}', b'"x"', b"0"))
    tree = _GOOD[name](rng) if status < 300 or rng.random() < 0.1 else _error(rng)
    choice = rng.random()
    if choice < 0.25:
        return dumped(tree).encode()
    if choice < 0.8:
        paths = paths_of(tree)
        for _ in range(rng.choice((1, 1, 2, 3))):
            mutate_tree(rng, tree, paths, WORDS)
        return dumped(tree).encode()
    if choice < 0.93:
        return mutate_text(rng, dumped(tree)).encode("utf-8", "surrogatepass")
    return mutate_bytes(rng, dumped(tree).encode())


def _error(rng: Random) -> Any:
    if rng.random() < 0.1:
        return {"error": rng.choice(("invalid_grant", "invalid_client")), "error_description": "no"}
    error: dict[str, Any] = {"code": "preflight_check_failure", "message": f"account {wire.ACCOUNT} may not"}
    if rng.random() < 0.7:
        error["errors"] = [{"code": "margin_check_failed", "message": "no"}, {"domain": "price", "reason": "bad"}]
    return {"error": error}


def _sent(body: dict[str, Any]) -> Any:
    return json.loads(msgspec.json.encode(body))


def _order(rng: Random, **more: Any) -> dict[str, Any]:
    return wire.echoed(_sent(order_body(wire.entry())), status=rng.choice(WORDS[:13]), **more)


def _placed(rng: Random) -> Any:
    return {
        "data": {"order": _order(rng), "warnings": [{"code": "tif.next_valid_session", "message": "x"}], "errors": []}
    }


def _container(rng: Random) -> dict[str, Any]:
    members = _sent(complex_body((wire.target(), wire.stop())))["orders"]
    orders = [wire.echoed(member, broker_order_id=771043 + number) for number, member in enumerate(members)]
    return {"id": token("9001"), "account-number": wire.ACCOUNT, "type": "OCO", "orders": orders}


def _replaced(rng: Random) -> Any:
    order = wire.echoed(_sent(order_body(wire.target())), broker_order_id=771001)
    return {"data": order | {"replaces-order-id": token("771000")}}


def _page(rng: Random) -> Any:
    orders = [_order(rng, id=number) for number in range(1, rng.randrange(4))]
    return wire.orders_page(orders, pages=rng.choice((1, 1, 1, 2, 3, 100_000)), offset=rng.choice((0, 0, 1)))


def _items(*rows: dict[str, Any]) -> Callable[[Random], Any]:
    return lambda rng: {"data": {"items": [dict(row) for row in rows]}, "context": "/x"}


def _dry(rng: Random) -> Any:
    order = wire.echoed(_sent(order_body(wire.target())))
    del order["id"]
    return {"data": {"order": order, "warnings": [], "errors": [{"code": "margin_check_failed"}][: rng.randrange(2)]}}


_GOOD: dict[str, Callable[[Random], Any]] = {
    "submit": _placed,
    "submit_complex": lambda rng: {"data": {"complex-order": _container(rng), "warnings": []}},
    "replace": _replaced,
    "cancel": lambda rng: {"data": _order(rng)},
    "cancel_complex": lambda rng: {"data": _container(rng)},
    "dry_run": _dry,
    "dry_run_replace": _dry,
    "read_order": lambda rng: {"data": _order(rng)},
    "read_complex": lambda rng: {"data": _container(rng)},
    "search": _page,
    "live_orders": _page,
    "live_complex_orders": lambda rng: {"data": {"items": [_container(rng)]}},
    "positions": _items(
        {"account-number": wire.ACCOUNT, "symbol": wire.SHORT_CALL, "quantity": "2", "quantity-direction": "Short"},
        {"account-number": wire.ACCOUNT, "symbol": wire.LONG_CALL, "quantity": 2, "quantity-direction": "Long"},
    ),
    "balances": lambda rng: {"data": {"account-number": wire.ACCOUNT, "cash-balance": "1.5", "n": token("1e400")}},
    "accounts": _items({"account": {"account-number": wire.ACCOUNT}, "authority-level": "owner"}),
    "market_session": lambda rng: {
        "data": {"state": "Open", "open-at": "2026-11-23T14:30:00Z", "close-at": token("1795453200000")}
    },
    "quotes": _items({"symbol": wire.SHORT_CALL, "bid": "0.8", "ask": token("0.9")}),
    "token": lambda rng: {"access_token": "abc.def", "expires_in": rng.choice((900, "900", token("1e400"), -1))},
}
