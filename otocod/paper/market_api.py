"""Instruments, chains, market sessions, quote tokens and quote snapshots over REST."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import TYPE_CHECKING

from otocod.paper import instruments, sessions, symbols
from otocod.paper.answers import Json, encode
from otocod.paper.errors import invalid, not_found
from otocod.paper.paging import values
from otocod.paper.routes import Call, Reply, Routes, items

if TYPE_CHECKING:
    from otocod.paper.broker import PaperBroker
    from otocod.paper.exchange import Exchange
    from otocod.paper.rules import Rules

MAX_SNAPSHOT_SYMBOLS = 100
_HOUR_US = 3_600 * sessions.SECOND_US
_SNAPSHOT_TYPES = {
    "index": "Index",
    "equity": symbols.EQUITY,
    "equity-option": symbols.EQUITY_OPTION,
    "future": symbols.FUTURE,
    "future-option": symbols.FUTURE_OPTION,
    "cryptocurrency": symbols.CRYPTOCURRENCY,
}


class ChainCache:
    """Encoded chains of one day; a full chain is half a megabyte and the same for every caller."""

    def __init__(self) -> None:
        self._key: tuple[date, int] | None = None
        self._bodies: dict[str, bytes] = {}

    def get(self, key: tuple[date, int], path: str) -> bytes | None:
        if key != self._key:
            self._key, self._bodies = key, {}
        return self._bodies.get(path)

    def put(self, path: str, body: bytes) -> None:
        self._bodies[path] = body


class MarketApi:
    """The handlers; an object because of the chain cache and the address of the quote feed."""

    def __init__(self, dxlink_url: str) -> None:
        self._dxlink_url = dxlink_url
        self._cache = ChainCache()

    def register(self, routes: Routes) -> None:
        routes.add("GET", "/option-chains/{underlying}/nested", self.nested)
        routes.add("GET", "/option-chains/{underlying}/compact", self.compact)
        routes.add("GET", "/option-chains/{underlying}", self.full)
        routes.add("GET", "/futures-option-chains/{code}/nested", self.future_nested)
        routes.add("GET", "/instruments/equity-options/{symbol*}", self.equity_option)
        routes.add("GET", "/instruments/equity-options", self.equity_options)
        routes.add("GET", "/instruments/equities", self.equities)
        routes.add("GET", "/instruments/equities/{symbol*}", self.equity)
        routes.add("GET", "/instruments/futures", self.futures)
        routes.add("GET", "/instruments/futures/{symbol*}", self.future)
        routes.add("GET", "/instruments/future-options", self.future_options)
        routes.add("GET", "/instruments/future-options/{symbol*}", self.future_option)
        routes.add("GET", "/market-time/sessions/current", self.sessions_current)
        routes.add("GET", "/market-time/equities/sessions/current", self.equity_session)
        routes.add("GET", "/market-time/equities/holidays", self.holidays)
        routes.add("GET", "/market-time/futures/holidays/{exchange}", self.holidays)
        routes.add("GET", "/market-data/by-type", self.snapshots)
        routes.add("GET", "/market-data/{type}/{symbol*}", self.snapshot)
        routes.add("GET", "/api-quote-tokens", self.quote_token)

    def nested(self, broker: PaperBroker, call: Call) -> Reply:
        name = call.names["underlying"]
        return self._chain(broker, call, lambda: instruments.nested_chain(name, broker.today(), broker.rules))

    def full(self, broker: PaperBroker, call: Call) -> Reply:
        return self._chain(broker, call, lambda: instruments.full_chain(call.names["underlying"], broker.today()))

    def compact(self, broker: PaperBroker, call: Call) -> Reply:
        return self._chain(broker, call, lambda: instruments.compact_chain(call.names["underlying"], broker.today()))

    def _chain(self, broker: PaperBroker, call: Call, make: Callable[[], list[Json]]) -> Reply:
        key = (broker.today(), broker.rules.version)
        body = self._cache.get(key, call.path)
        if body is None:
            rows = make()
            if not rows:
                raise not_found(f"an option chain of {call.names['underlying'][:20]}")
            body = encode({"data": {"items": rows}, "context": call.path})
            self._cache.put(call.path, body)
        return Reply({}, encoded=body)

    def future_nested(self, broker: PaperBroker, call: Call) -> Reply:
        return _found(instruments.future_chain(call.names["code"], broker.today()))

    def equity_option(self, broker: PaperBroker, call: Call) -> Reply:
        return _found(instruments.equity_option(call.names["symbol"], broker.today()))

    def equity_options(self, broker: PaperBroker, call: Call) -> Reply:
        wanted = values(call.query, "symbol")
        if not wanted:
            raise invalid([("symbol", "is missing")])
        found = [instruments.equity_option(symbol, broker.today()) for symbol in wanted]
        return items([row for row in found if row is not None])

    def equity(self, broker: PaperBroker, call: Call) -> Reply:
        return _found(instruments.equity(call.names["symbol"], broker.rules))

    def equities(self, broker: PaperBroker, call: Call) -> Reply:
        wanted = values(call.query, "symbol") or list(instruments.UNDERLYINGS)
        found = [instruments.equity(symbol, broker.rules) for symbol in wanted]
        return items([row for row in found if row is not None])

    def future(self, broker: PaperBroker, call: Call) -> Reply:
        name = call.names["symbol"]
        return _found(instruments.future("/" + name.lstrip("/"), broker.today()))

    def futures(self, broker: PaperBroker, call: Call) -> Reply:
        front, _ = instruments.front_future(broker.today())
        codes = values(call.query, "product-code")
        wanted = values(call.query, "symbol") or [front]
        rows = [instruments.future("/" + symbol.lstrip("/"), broker.today()) for symbol in wanted]
        return items([row for row in rows if row is not None and (not codes or row["product-code"] in codes)])

    def future_option(self, broker: PaperBroker, call: Call) -> Reply:
        return _found(instruments.future_option(call.names["symbol"], broker.today()))

    def future_options(self, broker: PaperBroker, call: Call) -> Reply:
        wanted = values(call.query, "symbol")
        if not wanted:
            raise invalid([("symbol", "is missing")])
        found = [instruments.future_option(symbol, broker.today()) for symbol in wanted]
        return items([row for row in found if row is not None])

    def sessions_current(self, broker: PaperBroker, call: Call) -> Reply:
        wanted = values(call.query, "instrument-collections")
        if not wanted:
            raise invalid([("instrument-collections", "is missing")])
        return items([session_of(broker, call.now_us, collection) for collection in wanted])

    def equity_session(self, broker: PaperBroker, call: Call) -> Reply:
        return Reply(session_of(broker, call.now_us, "Equity"))

    def holidays(self, broker: PaperBroker, call: Call) -> Reply:
        rules = broker.rules
        return Reply({"market-half-days": list(rules.half_days), "market-holidays": list(rules.holidays)})

    def snapshots(self, broker: PaperBroker, call: Call) -> Reply:
        wanted = [(kind, symbol) for key, kind in _SNAPSHOT_TYPES.items() for symbol in values(call.query, key)]
        if not wanted or len(wanted) > MAX_SNAPSHOT_SYMBOLS:
            raise invalid([("symbols", f"must be 1 to {MAX_SNAPSHOT_SYMBOLS} in all")])
        return items([row for kind, symbol in wanted if (row := snapshot_of(broker, kind, symbol, call.now_us))])

    def snapshot(self, broker: PaperBroker, call: Call) -> Reply:
        return _found(snapshot_of(broker, call.names["type"], call.names["symbol"], call.now_us))

    def quote_token(self, broker: PaperBroker, call: Call) -> Reply:
        life_s = broker.server_rules.whole("quotes.token_life_s")
        return Reply(
            {
                "token": broker.quote_tokens.issue(now_us=call.now_us, life_s=life_s),
                "dxlink-url": self._dxlink_url,
                "level": "api",
                "issued-at": instruments.iso(call.now_us),
                "expires-at": instruments.iso(call.now_us + life_s * sessions.SECOND_US),
            }
        )


def _found(row: Json | None) -> Reply:
    if row is None:
        raise not_found("the instrument")
    return Reply(row)


def session_of(broker: PaperBroker, now_us: int, collection: str) -> Json:
    """The running session with the one after it, else only the next. Under `always-open` every day is Open."""
    rules = broker.rules
    session = sessions.current_or_next(rules, now_us)
    is_open = session.is_open(now_us)
    shown: Json = {"instrument-collection": collection, "state": "Open" if is_open else "Closed"}
    if is_open:
        shown |= {**_times(session), "next-session": _day(rules, session.close_us, collection)}
    else:
        shown["next-session"] = _day(rules, now_us, collection)
    return shown


def _day(rules: Rules, after_us: int, collection: str) -> Json:
    session = sessions.current_or_next(rules, after_us)
    return {"instrument-collection": collection, "session-date": session.day.isoformat(), **_times(session)}


def _times(session: sessions.Session) -> Json:
    return {
        "start-at": instruments.iso(session.open_us - _HOUR_US),
        "open-at": instruments.iso(session.open_us),
        "close-at": instruments.iso(session.close_us),
        "close-at-ext": instruments.iso(session.close_us + 4 * _HOUR_US),
    }


def snapshot_of(broker: PaperBroker, kind: str, symbol: str, now_us: int) -> Json | None:
    """A quote as the snapshot endpoint shows it; prices are left out while nobody has quoted the symbol."""
    if kind not in _SNAPSHOT_TYPES.values():
        raise not_found(f"instrument type {kind[:30]}")
    if symbols.instrument(symbol, symbols.EQUITY if kind == "Index" else kind) is None:
        return None
    broker.ensure_quote(symbol)
    today = broker.today()
    row: Json = {
        "symbol": symbol,
        "instrument-type": kind,
        "updated-at": instruments.iso(now_us).replace("+00:00", "Z"),
        "bid-size": "0",
        "ask-size": "0",
        "close-price-type": "Unknown",
        "summary-date": today.isoformat(),
        "prev-close-date": (today - timedelta(days=1)).isoformat(),
        "prev-close-price-type": "Unknown",
        "is-trading-halted": False,
        "halt-start-time": -1,
        "halt-end-time": -1,
    }
    return row | _prices(broker.exchange, symbol)


def _prices(exchange: Exchange, symbol: str) -> Json:
    quote = exchange.quotes.get(symbol)
    if quote is None:
        return {}
    middle = str((quote.bid + quote.ask) / 2)
    return {
        "bid": str(quote.bid),
        "ask": str(quote.ask),
        "bid-size": str(quote.bid_size),
        "ask-size": str(quote.ask_size),
        "mid": middle,
        "mark": middle,
    }
