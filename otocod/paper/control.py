"""The control API: what a test, or a person at a terminal, does to the market.

    PUT /quotes/{symbol}, POST /orders/{id}/fill ...  ->  exchange  ->  settle()  ->  log, streamer, DXLink

`GET /` lists every operation with its body, every rule and every fault, so nothing else need be read. Refusals are
JSON with one sentence, and with `problems` when several things are wrong. The API has no authentication: it listens
on loopback only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from aiohttp import web

from otocod import __version__
from otocod.paper import instruments, market, symbols
from otocod.paper.answers import Json, encode
from otocod.paper.control_input import (
    ControlError,
    decimal,
    ending,
    flag,
    only,
    path_id,
    query_whole,
    read_body,
    whole,
)
from otocod.paper.errors import Refused
from otocod.paper.fault_catalogue import COMMON_SETTINGS
from otocod.paper.faults import FaultsInvalid
from otocod.paper.settlement import WAYS, Settling

if TYPE_CHECKING:
    from otocod.paper.broker import PaperBroker
    from otocod.paper.dxlink import QuoteHub
    from otocod.paper.streamer import StreamerHub

LOG_PAGE = 10_000


@dataclass(frozen=True, slots=True)
class Operation:
    method: str
    path: str  # as aiohttp writes patterns
    doc: str
    handler: Callable[[web.Request, Json], Awaitable[Json | list[Json]]]
    example: Json | None = None  # of a body
    shown_path: str = ""

    def describe(self) -> Json:
        described: Json = {"method": self.method, "path": self.shown_path or self.path, "doc": self.doc}
        if self.example is not None:
            described["body"] = self.example
        return described


class ControlApi:
    def __init__(self, broker: PaperBroker, streamer: StreamerHub, quotes: QuoteHub) -> None:
        self._broker = broker
        self._streamer = streamer
        self._quote_hub = quotes
        self._operations = self._table()

    def _table(self) -> tuple[Operation, ...]:
        ended: Json = {"reason": "text", "by": "broker or user"}
        return (
            Operation("GET", "/", "this description", self._index),
            Operation("GET", "/quotes", "all quotes", self._get_quotes),
            Operation(
                "PUT",
                "/quotes/{symbol:.+}",
                "a leg's quote (OCC, futures or equity symbol); resting orders react",
                self._put_quote,
                {"bid": "0.80", "ask": "0.90", "bid_size": 10, "ask_size": 10},
                "/quotes/{symbol}",
            ),
            Operation(
                "DELETE",
                "/quotes/{symbol:.+}",
                "nobody quotes it any more; nothing with that leg fills",
                self._delete_quote,
                None,
                "/quotes/{symbol}",
            ),
            Operation(
                "POST",
                "/quotes/script",
                "plays quotes at their times, instead of a script that may be running; [] stops it",
                self._script,
                {"steps": [{"after_ms": 100, "symbol": "AAPL  261218C00300000", "bid": "3.1", "ask": "3.2"}]},
            ),
            Operation("GET", "/orders", "the exchange's own view, oldest first; ?account=", self._orders),
            Operation(
                "POST",
                "/orders",
                "an order as a person places it by hand in the broker's platform; a complex order if it has `orders`",
                self._place,
                {"account": "5WT00001", "time-in-force": "Day", "order-type": "Limit", "...": "as over REST"},
            ),
            Operation("GET", "/orders/{id}", "one order", self._order),
            Operation(
                "POST",
                "/orders/{id}/fill",
                "fills all or part, at the order's price or the given net price",
                self._fill,
                {"quantity": 1, "price": "0.85", "first_leg_only": False, "even_if_terminal": False},
            ),
            Operation("POST", "/orders/{id}/reject", "rejects it as the exchange would", self._reject, ended),
            Operation("POST", "/orders/{id}/cancel", "cancels it as the broker or a person would", self._cancel, ended),
            Operation("POST", "/orders/{id}/expire", "expires it now", self._expire),
            Operation("POST", "/orders/{id}/remove", "an administrator removes it", self._remove),
            Operation(
                "POST",
                "/orders/{id}/replace",
                "a person's edit; what is not given stays",
                self._replace,
                {"price": "0.90"},
            ),
            Operation("POST", "/complex-orders/{id}/cancel", "a person cancels a whole group", self._cancel_complex),
            Operation("GET", "/positions", "positions of an account, ?account=", self._positions),
            Operation(
                "PUT",
                "/positions/{symbol:.+}",
                "makes a position so many signed contracts, as a trade elsewhere would",
                self._put_position,
                {"account": "5WT00001", "quantity": -1, "price": "3.10"},
                "/positions/{symbol}",
            ),
            Operation(
                "POST",
                "/positions/{symbol:.+}/settle",
                "an option position expires, is assigned or exercised, in cash where it is on an index; all of it"
                " without a quantity",
                self._settle,
                {"account": "5WT00001", "how": "|".join(WAYS), "quantity": 1, "index_price": "6510.00"},
                "/positions/{symbol}/settle",
            ),
            Operation("GET", "/rules", "every rule with its present value", self._get_rules),
            Operation("PATCH", "/rules", "changes rules, all or none", self._patch_rules, {"reservation": False}),
            Operation("GET", "/faults", "every fault with its present settings", self._get_faults),
            Operation(
                "PATCH",
                "/faults",
                "sets the named faults, all or none: settings, true, false, null, or N for the next N times",
                self._patch_faults,
                {"answer_lost": 1, "frame_lost": {"rate": 0.1, "match": {"status": "Filled"}}, "slow": None},
            ),
            Operation("DELETE", "/faults", "switches all faults off", self._clear_faults),
            Operation("GET", "/streamer", "connections to the account streamer", self._get_streamer),
            Operation(
                "POST",
                "/streamer/drop",
                "closes the account streamer's connections; `abrupt` without a closing handshake",
                self._drop,
                {"code": 1000, "reason": "Bye", "abrupt": False},
            ),
            Operation("POST", "/dxlink/drop", "closes the quote feed's connections", self._drop_quotes),
            Operation("POST", "/tokens/revoke", "every access token issued so far is worthless", self._revoke),
            Operation("POST", "/clock", "moves the paper's clock on", self._clock, {"advance_ms": 1000}),
            Operation("GET", "/log", f"the truth log; ?since=SEQ&limit={LOG_PAGE}", self._log),
            Operation(
                "POST", "/reset", "a fresh day: no orders, positions, quotes, faults, log; rules stay", self._reset
            ),
        )

    def register(self, app: web.Application) -> None:
        # A fixed path goes before a pattern that would swallow it.
        for operation in sorted(self._operations, key=lambda item: "{" in item.path):
            app.router.add_route(operation.method, operation.path, _shell(operation.handler))

    async def _index(self, request: web.Request, body: Json) -> Json:
        return {
            "name": "paper broker",
            "version": __version__,
            "seed": self._broker.seed,
            "accounts": list(self._broker.accounts),
            "now": instruments.iso(self._broker.clock.now_us()),
            "operations": [operation.describe() for operation in self._operations],
            "rules": self._broker.describe_rules(),
            "faults": self._broker.faults.describe(),
            "fault_settings": dict(COMMON_SETTINGS),
        }

    async def _get_quotes(self, request: web.Request, body: Json) -> Json:
        return {
            symbol: {"bid": str(quote.bid), "ask": str(quote.ask)}
            for symbol, quote in self._broker.exchange.quotes.items()
        }

    async def _put_quote(self, request: web.Request, body: Json) -> Json:
        symbol = request.match_info["symbol"]
        only(body, "bid", "ask", "bid_size", "ask_size")
        if symbols.instrument(symbol, symbols.guess_type(symbol)) is None:
            raise ControlError(422, f"{symbol!r} is no OCC, futures or equity symbol")
        try:
            bid, ask = market.parse_sides(body.get("bid"), body.get("ask"))
        except ValueError as error:
            raise ControlError(422, str(error)) from None
        sizes = [whole(body, key, 10) for key in ("bid_size", "ask_size")]
        self._broker.set_quote(symbol, bid, ask, bid_size=sizes[0], ask_size=sizes[1])
        return {"symbol": symbol, "bid": str(bid), "ask": str(ask)}

    async def _script(self, request: web.Request, body: Json) -> Json:
        only(body, "steps")
        try:
            steps = market.parse_script(body.get("steps"))
        except ValueError as error:
            raise ControlError(422, "the script was not started", tuple(str(error).splitlines())) from None
        self._broker.start_script(steps)
        return {"steps": len(steps)}

    def _account(self, request: web.Request, body: Json) -> str:
        account = str(body.get("account") or request.query.get("account") or self._broker.accounts[0])
        if account not in self._broker.accounts:
            raise ControlError(404, f"no account {account}")
        return account

    def _find(self, request: web.Request) -> tuple[int, Json]:
        """The id in the path and its order as it truly is: without the lags and withheld fills of the rules."""
        order_id = path_id(request, "order")
        return order_id, self._broker.exchange.exchange_order(order_id)

    async def _orders(self, request: web.Request, body: Json) -> list[Json]:
        orders = self._broker.exchange.exchange_view()
        if "account" not in request.query:
            return orders
        account = self._account(request, {})
        return [order for order in orders if order["account-number"] == account]

    async def _order(self, request: web.Request, body: Json) -> Json:
        return self._find(request)[1]

    async def _place(self, request: web.Request, body: Json) -> Json:
        account = self._account(request, body)
        order = {key: value for key, value in body.items() if key != "account"}
        submit = self._broker.exchange.submit_complex if "orders" in order else self._broker.exchange.submit
        return submit(account, order, now_us=self._broker.clock.now_us(), by="user")

    async def _fill(self, request: web.Request, body: Json) -> Json:
        order_id, _ = self._find(request)
        only(body, "quantity", "price", "first_leg_only", "even_if_terminal")
        quantity = None if body.get("quantity") is None else whole(body, "quantity", 1)
        price = None if body.get("price") is None else decimal(body, "price")
        return self._broker.exchange.fill(
            order_id,
            now_us=self._broker.clock.now_us(),
            quantity=quantity,
            net_price=price,
            first_leg_only=flag(body, "first_leg_only"),
            even_if_terminal=flag(body, "even_if_terminal"),
        )

    async def _reject(self, request: web.Request, body: Json) -> Json:
        order_id, _ = self._find(request)
        reason, by = ending(body, "Rejected by the exchange")
        return self._broker.exchange.reject(order_id, now_us=self._broker.clock.now_us(), reason=reason, by=by)

    async def _cancel(self, request: web.Request, body: Json) -> Json:
        order_id, _ = self._find(request)
        reason, by = ending(body, "")
        now_us = self._broker.clock.now_us()
        return self._broker.exchange.cancel_by_hand(order_id, now_us=now_us, reason=reason or None, by=by)

    async def _expire(self, request: web.Request, body: Json) -> Json:
        order_id, _ = self._find(request)
        ending(body, "")
        return self._broker.exchange.expire(order_id, now_us=self._broker.clock.now_us())

    async def _remove(self, request: web.Request, body: Json) -> Json:
        order_id, _ = self._find(request)
        return self._broker.exchange.remove(order_id, now_us=self._broker.clock.now_us())

    async def _replace(self, request: web.Request, body: Json) -> Json:
        order_id, order = self._find(request)
        kept = ("order-type", "time-in-force", "gtc-date", "price", "price-effect", "stop-trigger")
        change = {key: order[key] for key in kept if key in order} | body
        account = str(order["account-number"])
        return self._broker.exchange.replace(account, order_id, change, now_us=self._broker.clock.now_us(), by="user")

    async def _cancel_complex(self, request: web.Request, body: Json) -> Json:
        complex_id, account = path_id(request, "complex order"), self._account(request, body)
        return self._broker.exchange.cancel_complex(account, complex_id, now_us=self._broker.clock.now_us(), by="user")

    async def _positions(self, request: web.Request, body: Json) -> list[Json]:
        return self._broker.exchange.positions(self._account(request, body))

    async def _put_position(self, request: web.Request, body: Json) -> Json:
        account, symbol = self._account(request, body), request.match_info["symbol"]
        only(body, "account", "quantity", "price")
        quantity = body.get("quantity")
        if not isinstance(quantity, int) or isinstance(quantity, bool):
            raise ControlError(422, "quantity must be a whole number, negative for short")
        price = decimal(body, "price") if "price" in body else Decimal(0)
        now_us = self._broker.clock.now_us()
        self._broker.exchange.set_position(account, symbol, quantity, now_us=now_us, price=price)
        return {"account": account, "symbol": symbol, "quantity": quantity}

    async def _settle(self, request: web.Request, body: Json) -> Json:
        account, symbol = self._account(request, body), request.match_info["symbol"]
        only(body, "account", "how", "quantity", "index_price")
        how = body.get("how")
        if how not in WAYS:
            raise ControlError(422, f"how must be one of {', '.join(WAYS)}")
        quantity = None if body.get("quantity") is None else whole(body, "quantity", 1)
        price = None if body.get("index_price") is None else decimal(body, "index_price")
        settling = Settling(symbol, how, quantity, price)
        self._broker.exchange.settle(account, settling, now_us=self._broker.clock.now_us())
        return {"account": account, "symbol": symbol, "how": how}

    async def _delete_quote(self, request: web.Request, body: Json) -> Json:
        symbol = request.match_info["symbol"]
        self._broker.exchange.clear_quote(symbol, now_us=self._broker.clock.now_us())
        return {"symbol": symbol}

    async def _get_rules(self, request: web.Request, body: Json) -> list[Json]:
        return self._broker.describe_rules()

    async def _patch_rules(self, request: web.Request, body: Json) -> list[Json]:
        try:
            self._broker.patch_rules(body)
        except ValueError as error:
            raise ControlError(422, "no rule was changed", tuple(str(error).splitlines())) from None
        return self._broker.describe_rules()

    async def _get_faults(self, request: web.Request, body: Json) -> Json:
        return self._broker.faults.describe()

    async def _patch_faults(self, request: web.Request, body: Json) -> Json:
        try:
            self._broker.faults.patch(body)
        except FaultsInvalid as error:
            raise ControlError(422, "no fault was changed", error.problems) from None
        return self._broker.faults.describe()

    async def _clear_faults(self, request: web.Request, body: Json) -> Json:
        self._broker.faults.clear()
        return self._broker.faults.describe()

    async def _get_streamer(self, request: web.Request, body: Json) -> list[Json]:
        return self._streamer.describe()

    async def _drop(self, request: web.Request, body: Json) -> Json:
        only(body, "code", "reason", "abrupt")
        code, reason = whole(body, "code", 1000), body.get("reason", "Bye")
        if not isinstance(reason, str) or not 1000 <= code <= 4999:
            raise ControlError(422, "code must be 1000 to 4999, reason a string")
        return {"dropped": await self._streamer.drop(code=code, reason=reason, abrupt=flag(body, "abrupt"))}

    async def _drop_quotes(self, request: web.Request, body: Json) -> Json:
        return {"dropped": await self._quote_hub.drop()}

    async def _revoke(self, request: web.Request, body: Json) -> Json:
        return {"revoked": self._broker.tokens.revoke_all()}

    async def _clock(self, request: web.Request, body: Json) -> Json:
        only(body, "advance_ms")
        self._broker.advance_clock(whole(body, "advance_ms", 0))
        return {"now": instruments.iso(self._broker.clock.now_us())}

    async def _log(self, request: web.Request, body: Json) -> Json:
        since, limit = (query_whole(request, key, default) for key, default in (("since", 0), ("limit", LOG_PAGE)))
        return self._broker.log.since(since, limit)

    async def _reset(self, request: web.Request, body: Json) -> Json:
        self._broker.reset()
        return {"reset": True}


def _shell(
    handler: Callable[[web.Request, Json], Awaitable[Json | list[Json]]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Reads the body, runs the operation, publishes what it caused, and puts refusals into words."""

    async def run(request: web.Request) -> web.Response:
        broker = request.app[BROKER]
        try:
            body = await read_body(request)
            answer = await handler(request, body)
            if request.method != "GET":
                now_us = broker.clock.now_us()
                broker.log.add("control", now_us, method=request.method, path=request.path, body=body)
            return _answer(200, answer)
        except ControlError as error:
            return _answer(error.status, _problem(error.message, error.problems))
        except Refused as refusal:
            problems = tuple(f"{code}: {text}" for code, text in refusal.errors)
            return _answer(refusal.status, _problem(f"{refusal.code}: {refusal.message}", problems))
        finally:
            broker.settle()

    return run


@web.middleware
async def plain_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Unknown paths and methods in the same JSON."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _answer(
            error.status, _problem(f"{request.method} {request.path}: {error.reason}; GET / lists what there is")
        )


def _problem(message: str, problems: tuple[str, ...] = ()) -> Json:
    error: Json = {"message": message}
    if problems:
        error["problems"] = list(problems)
    return {"error": error}


def _answer(status: int, body: Json | list[Json]) -> web.Response:
    return web.Response(body=encode(body), status=status, content_type="application/json")


BROKER: web.AppKey[PaperBroker] = web.AppKey("broker")
