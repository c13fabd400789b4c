"""Reading and refusing requests. Most tests change one thing in a good request and look for its reason."""

import json
import time
from copy import deepcopy
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from otocod.domain.prices import PENNY_GRID, PriceGrid
from otocod.domain.quotes import PriceBasis
from otocod.domain.request import (
    BracketRequest,
    OutsidePolicy,
    RequestRefused,
    StopByPercent,
    StopByPrice,
    StopMarket,
    TargetByPercent,
    TargetByPrice,
    canonical_text,
    parse_request,
)
from otocod.domain.specs import (
    Action,
    InstrumentType,
    Leg,
    OrderSpec,
    OrderType,
    Protection,
    Role,
    TimeInForce,
)
from otocod.domain.time_exits import (
    AfterFill,
    AtOpen,
    BeforeClose,
    ClockTime,
    DaysToExpiry,
    FirstDay,
    OnDate,
    OnDay,
    TimeExit,
)
from otocod.domain.trailing import Amount, StopRules, Tier, Trail, TrailKind
from otocod.domain.walking import FinalAction, Walk, WalkRule, WalkStart
from otocod.domain.watching import DEFAULT_WATCH, WatchPolicy

Json = dict[str, Any]
TODAY = date(2026, 11, 23)
NOW_US = 1_795_446_000_000_000  # 2026-11-23T15:00:00Z
MINUTE_US = 60_000_000
DIMES = PriceGrid(((None, Decimal("0.10")),))

CREDIT_VERTICAL: Json = {
    "version": 1,
    "entry": {
        "time-in-force": "Day",
        "order-type": "Limit",
        "price": "0.85",
        "price-effect": "Credit",
        "legs": [
            {
                "instrument-type": "Equity Option",
                "symbol": "AAPL  261218C00155000",
                "quantity": 1,
                "action": "Sell to Open",
            },
            {
                "instrument-type": "Equity Option",
                "symbol": "AAPL  261218C00157500",
                "quantity": 1,
                "action": "Buy to Open",
            },
        ],
    },
    "target": {"price": "0.40", "price-effect": "Debit"},
    "stop": {"trigger": "1.70", "price": "1.90", "price-effect": "Debit"},
}


def leg(symbol: str, action: str, quantity: Any = 1, kind: str = "Equity Option") -> Json:
    return {"instrument-type": kind, "symbol": symbol, "quantity": quantity, "action": action}


def single(leg_fields: Json, *, target: Json | None = None, stop: Json | None = None, **entry: Any) -> Json:
    """A bracket on one leg; `entry` keys are written with underscores."""
    fields = {"time-in-force": "Day", "order-type": "Market", "legs": [leg_fields]}
    request: Json = {"version": 1, "entry": fields | {key.replace("_", "-"): value for key, value in entry.items()}}
    if target is not None:
        request["target"] = target
    if stop is not None:
        request["stop"] = stop
    return request


def changed(path: str, value: Any, of: Json = CREDIT_VERTICAL) -> Json:
    """A copy with the value at a dotted path set; `...` removes it; numbers are list places."""
    request = deepcopy(of)
    node: Any = request
    *way, last = [int(word) if word.isdigit() else word for word in path.split(".")]
    for word in way:
        node = node[word] if isinstance(word, int) else node.setdefault(word, {})
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return request


def parse(request: Json | str, **circumstances: Any) -> BracketRequest:
    text = request if isinstance(request, str) else json.dumps(request)
    usual: Json = {
        "account": "5WT00001",
        "accounts": {"5WT00001"},
        "created_at_us": NOW_US,
        "now_us": NOW_US,
        "today": TODAY,
    }
    return parse_request(text, **(usual | circumstances))


def reasons_of(request: Json | str, **circumstances: Any) -> tuple[str, ...]:
    with pytest.raises(RequestRefused) as refused:
        parse(request, **circumstances)
    for reason in refused.value.reasons:
        assert reason.isprintable(), reason
        assert len(reason) < 400, reason
    return refused.value.reasons


def only_reason(request: Json | str, **circumstances: Any) -> str:
    reasons = reasons_of(request, **circumstances)
    assert len(reasons) == 1, reasons
    return reasons[0]


def test_example_of_the_contract_is_read() -> None:
    request = parse(CREDIT_VERTICAL)
    option = InstrumentType.EQUITY_OPTION
    assert request.entry == OrderSpec(
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.DAY,
        legs=(
            Leg(option, "AAPL  261218C00155000", Action.SELL_TO_OPEN, 1),
            Leg(option, "AAPL  261218C00157500", Action.BUY_TO_OPEN, 1),
        ),
        net_price=Decimal("-0.85"),
    )
    assert request.target == TargetByPrice(Decimal("0.40"))
    assert request.stop == StopByPrice(trigger=Decimal("1.70"), net_price=Decimal("1.90"))


def test_defaults_are_those_of_the_contract() -> None:
    request = parse(CREDIT_VERTICAL)
    assert (request.target_time_in_force, request.stop_time_in_force) == (TimeInForce.GTC, TimeInForce.GTC)
    assert request.not_after_us == NOW_US + 10 * MINUTE_US
    assert request.protection is Protection.AUTO
    assert request.rest is Role.STOP
    assert request.partial_entry_grace_us == 30_000_000
    assert request.on_outside_change is OutsidePolicy.HOLD
    assert request.tags == ()


def test_every_part_can_be_given() -> None:
    request = parse(
        CREDIT_VERTICAL
        | {
            "target": {"profit-percent": 50, "time-in-force": "Day"},
            "stop": {"loss-percent": "100", "limit-offset": "0.20", "time-in-force": "Day"},
            "not-after": "2026-11-23T15:04:05.123456Z",
            "protection": "watched",
            "rest": "target",
            "partial-entry": {"grace-s": 1.5},
            "on-outside-change": "flatten",
            "tags": {"strategy": "wheel", "desk": "é"},
        }
    )
    assert request.target == TargetByPercent(Decimal(50))
    assert request.stop == StopByPercent(loss_percent=Decimal(100), limit_offset=Decimal("0.20"))
    assert (request.target_time_in_force, request.stop_time_in_force) == (TimeInForce.DAY, TimeInForce.DAY)
    assert request.not_after_us == NOW_US + 4 * MINUTE_US + 5_123_456
    assert (request.protection, request.rest) == (Protection.WATCHED, Role.TARGET)
    assert request.partial_entry_grace_us == 1_500_000
    assert request.on_outside_change is OutsidePolicy.FLATTEN
    assert request.tags == (("desk", "é"), ("strategy", "wheel"))


@pytest.mark.parametrize("protection", list(Protection))
def test_each_protection_may_be_asked_for(protection: Protection) -> None:
    assert parse(CREDIT_VERTICAL | {"protection": protection.value}).protection is protection


@pytest.mark.parametrize("left_out", ["target", "stop"])
def test_either_exit_may_be_left_out(left_out: str) -> None:
    parse(changed(left_out, ...))


OPTION = leg("AAPL  261218C00155000", "Buy to Open")
SHARES = leg("AAPL", "Buy to Open", 100, "Equity")
FUTURE = leg("/ESZ6", "Buy", 1, "Future")
FUTURE_OPTION = leg("./ESZ6 EW4Z6 261224C6500", "Sell to Open", 1, "Future Option")


@pytest.mark.parametrize(
    "request_",
    [
        single(OPTION, target={"profit-percent": 50}, stop={"trigger": "0.60"}),
        single(OPTION, time_in_force="IOC", target={"profit-percent": 50}),
        single(SHARES, order_type="Stop", stop_trigger="160.10", stop={"loss-percent": 5}),
        single(SHARES, order_type="Stop Limit", stop_trigger="160.10", price="160.20", price_effect="Debit")
        | {"stop": {"trigger": "150.01", "price": "149.99", "price-effect": "Credit"}},
        single(FUTURE, order_type="Limit", price="6000.25", price_effect="Debit", stop={"trigger": "5990.25"}),
        single(FUTURE_OPTION, order_type="Limit", price="10.25", price_effect="Credit", target={"profit-percent": 50}),
        single(OPTION, order_type="Limit", price="0.86", price_effect="Debit", time_in_force="IOC")
        | {"target": {"price": "1.00", "price-effect": "Credit"}},
        single(
            OPTION, order_type="Limit", price="0.86", price_effect="Debit", time_in_force="GTD", gtc_date="2026-12-01"
        )
        | {"target": {"price": "1.00", "price-effect": "Credit"}},
    ],
)
def test_single_options_shares_and_futures_are_brackets_too(request_: Json) -> None:
    parse(request_)


@pytest.mark.parametrize("protection", [Protection.AUTO, Protection.WATCHED])
def test_stop_of_several_legs_without_a_limit_is_taken_where_it_can_be_watched(protection: Protection) -> None:
    request = changed("protection", protection.value, changed("stop", {"trigger": "1.70"}))
    assert parse(request).stop == StopMarket(Decimal("1.70"))


@pytest.mark.parametrize("protection", [Protection.NATIVE_OTOCO, Protection.NATIVE_OCO, Protection.UNLINKED])
def test_stop_of_several_legs_without_a_limit_cannot_rest(protection: Protection) -> None:
    request = changed("protection", protection.value, changed("stop", {"trigger": "1.70"}))
    assert only_reason(request).startswith("protection: ")


@pytest.mark.parametrize(
    ("trigger", "told"), [("0.84", "better than the entry"), ("2.50", "largest value"), ("0.30", "better")]
)
def test_stop_of_several_legs_without_a_limit_is_judged_by_its_trigger(trigger: str, told: str) -> None:
    assert told in only_reason(changed("stop", {"trigger": trigger}))


def test_stop_market_is_a_trigger_alone() -> None:
    request = parse(single(OPTION, target={"profit-percent": 50}, stop={"trigger": "0.60"}))
    assert request.stop == StopMarket(Decimal("0.60"))


@pytest.mark.covers("F115")
def test_ratio_and_several_units_are_kept_as_given() -> None:
    legs = [leg("AAPL  261218C00155000", "Buy to Open", 2), leg("AAPL  261218C00160000", "Sell to Open", "4")]
    request = parse(changed("entry.legs", legs) | {"target": {"profit-percent": 50}, "stop": {"loss-percent": 50}})
    assert [each.quantity for each in request.entry.legs] == [2, 4]


def test_spx_and_spxw_are_one_underlying() -> None:
    legs = [leg("SPX   261218C06500000", "Sell to Open"), leg("SPXW  261231C06500000", "Buy to Open")]
    parse(changed("entry.legs", legs) | {"target": {"profit-percent": 50}, "stop": {"loss-percent": 50}})


@pytest.mark.covers("F112")
def test_json_numbers_are_read_exactly() -> None:
    text = json.dumps(CREDIT_VERTICAL).replace('"0.40"', "0.40").replace('"0.85"', "8.5e-1").replace('"1.70"', "1.7")
    request = parse(text)
    assert request.entry.net_price == Decimal("-0.85")
    assert request.target == TargetByPrice(Decimal("0.4"))


REFUSED: list[tuple[str, Any, str, str]] = [
    # path, value, where the reason points, what it says
    ("version", ..., "version", "missing"),
    ("version", 2, "version", "not known"),
    ("version", "1", "version", "write the number 1"),
    ("version", True, "version", "true is not a version"),
    ("version", "NaN", "version", "not a version"),
    ("entry", ..., "entry", "missing"),
    ("entry", [], "entry", "not an object"),
    ("entree", {}, "entree", "nearest known is `entry`"),
    ("on_outside_change", "hold", "on_outside_change", "nearest known is `on-outside-change`"),
    ("zzz", 1, "zzz", "known here are version, entry"),
    ("entry.source", "me", "entry.source", "otocod sets this itself"),
    ("entry.external-identifier", "me", "entry.external-identifier", "otocod sets this itself"),
    ("entry.advanced-instructions", {}, "entry.advanced-instructions", "otocod sets this itself"),
    ("entry.pric", "1", "entry.pric", "nearest known is `price`"),
    ("entry.legs.0.simbol", "1", "entry.legs[0].simbol", "nearest known is `symbol`"),
    ("target.stop-trigger", "1", "target.stop-trigger", "unknown key"),
    ("stop.stop-trigger", "1", "stop.stop-trigger", "nearest known is `trigger`"),
    ("entry.order-type", ..., "entry.order-type", "missing"),
    ("entry.order-type", "limit", "entry.order-type", "write one of Limit"),
    ("entry.order-type", "Marketable Limit", "entry.order-type", "write one of Limit"),
    ("entry.time-in-force", ..., "entry.time-in-force", "missing"),
    ("entry.time-in-force", "Ext", "entry.time-in-force", "write one of Day"),
    ("entry.time-in-force", "GTD", "entry.gtc-date", "missing"),
    ("entry.gtc-date", "2026-12-18", "entry.gtc-date", "write GTD"),
    ("entry.price", ..., "entry.price", "missing"),
    ("entry.price-effect", ..., "entry.price-effect", "missing"),
    ("entry.price-effect", "credit", "entry.price-effect", "write one of Debit, Credit"),
    ("entry.price", "0", "entry.price", "at or below 0"),
    ("entry.price", "-0.85", "entry.price", "at or below 0"),
    ("entry.price", "abc", "entry.price", "not a decimal number"),
    ("entry.price", True, "entry.price", "true is not a number"),
    ("entry.price", None, "entry.price", "null is not a number"),
    ("entry.price", [1], "entry.price", "a list is not a number"),
    ("entry.price", "NaN", "entry.price", "not a decimal number"),
    ("entry.price", "1e400", "entry.price", "absurd"),
    ("entry.price", "1e-400", "entry.price", "absurd"),
    ("entry.price", "10000000", "entry.price", "absurd"),
    ("entry.price", "0.855", "entry.price", "off the increment of 0.01: write 0.85 or 0.86"),
    ("entry.stop-trigger", "1", "entry.stop-trigger", "leave it out"),
    ("entry.automated-source", "no", "entry.automated-source", "not true or false"),
    ("entry.legs", ..., "entry.legs", "missing"),
    ("entry.legs", [], "entry.legs", "one to 4"),
    ("entry.legs", {}, "entry.legs", "not a list"),
    ("entry.legs.0", "x", "entry.legs[0]", "not an object"),
    ("entry.legs.0.action", ..., "entry.legs[0].action", "missing"),
    ("entry.legs.0.action", "Buy To Open", "entry.legs[0].action", "write one of"),
    ("entry.legs.0.action", "Sell to Close", "entry.legs[0].action", 'write "Sell to Open"'),
    ("entry.legs.0.action", "Sell", "entry.legs[0].action", 'write "Sell to Open"'),
    ("entry.legs.0.instrument-type", "Bond", "entry.legs[0].instrument-type", "write one of"),
    ("entry.legs.0.symbol", 1, "entry.legs[0].symbol", "not a text"),
    ("entry.legs.0.symbol", "AAPL261218C00155000", "entry.legs[0].symbol", 'write "AAPL  261218C00155000"'),
    ("entry.legs.0.symbol", "AAPL  261120C00155000", "entry.legs[0].symbol", "expired on 2026-11-20"),
    ("entry.legs.0.quantity", 0, "entry.legs[0].quantity", "whole number above 0"),
    ("entry.legs.0.quantity", -1, "entry.legs[0].quantity", "whole number above 0"),
    ("entry.legs.0.quantity", 1.5, "entry.legs[0].quantity", "whole number above 0"),
    ("entry.legs.0.quantity", True, "entry.legs[0].quantity", "true is not a number"),
    ("entry.legs.0.quantity", 10**9, "entry.legs[0].quantity", "above the bound"),
    ("entry.legs.0.quantity", 10**30, "entry.legs[0].quantity", "absurd"),
    ("entry.legs.1.symbol", "AAPL  261218C00155000", "entry.legs", "more than one leg"),
    ("entry.legs.1.symbol", "MSFT  261218C00157500", "entry.legs", "more than one underlying (AAPL, MSFT)"),
    ("target", {}, "target", "give either"),
    ("target", None, "target", "null is not an object"),
    ("target.profit-percent", "50", "target", "give either"),
    ("target.price-effect", ..., "target.price-effect", "missing"),
    ("target.price", ..., "target.price", "missing"),
    ("target.price", "0.86", "target.price", "worse than the entry"),
    ("target.price", "0.405", "target.price", "off the increment"),
    ("target.price-effect", "Credit", "target.price-effect", "close for a Debit only"),
    ("target", {"profit-percent": "101"}, "target.profit-percent", "more than the whole credit"),
    ("target", {"profit-percent": "0"}, "target.profit-percent", "out of bounds"),
    ("target", {"profit-percent": "-5"}, "target.profit-percent", "out of bounds"),
    ("target.time-in-force", "GTD", "target.time-in-force", "write one of GTC, Day"),
    ("stop", {}, "stop", "give either"),
    ("stop.trigger", ..., "stop.trigger", "missing"),
    ("stop.price", ..., "stop.price", "missing"),
    ("stop.price-effect", ..., "stop.price-effect", "missing"),
    ("stop.loss-percent", "50", "stop", "give either"),
    ("stop", {"limit-offset": "0.1"}, "stop.loss-percent", "missing"),
    ("stop", {"loss-percent": 50, "limit-offset": "-0.1"}, "stop.limit-offset", "below 0"),
    ("stop.trigger", "0.84", "stop.trigger", "better than the entry"),
    ("stop.trigger", "0", "stop.trigger", "at or below 0"),
    ("stop.price", "-1", "stop.price", "at or below 0"),
    ("stop.price", "1.69", "stop.price", "better than the stop's trigger"),
    ("stop.trigger", "1.705", "stop.trigger", "off the increment"),
    ("stop.price", "1.905", "stop.price", "off the increment"),
    ("stop.time-in-force", "IOC", "stop.time-in-force", "write one of GTC, Day"),
    ("not-after", "2026-11-23T15:00:00Z", "not-after", "stale"),
    ("not-after", "2026-11-23T16:00:00", "not-after", "no UTC time"),
    ("not-after", "2026-11-23T16:00:00+01:00", "not-after", "no UTC time"),
    ("not-after", "2026-13-23T16:00:00Z", "not-after", "no UTC time"),
    ("not-after", 1795446000, "not-after", "not a text"),
    ("protection", "native", "protection", "write one of auto"),
    ("rest", "entry", "rest", "write one of stop, target"),
    ("partial-entry", 30, "partial-entry", "not an object"),
    ("partial-entry", {}, "partial-entry.grace-s", "missing"),
    ("partial-entry", {"grace-s": -1}, "partial-entry.grace-s", "out of bounds"),
    ("partial-entry", {"grace-s": 10**6}, "partial-entry.grace-s", "out of bounds"),
    ("on-outside-change", "close", "on-outside-change", "write one of hold"),
    ("tags", ["a"], "tags", "not an object"),
    ("tags", {"a": 1}, "tags.a", "not a text"),
    ("tags", {"": "x"}, 'tags.""', "1 to 64 characters"),
    ("tags", {"a": "x" * 2000}, "tags.a", "at most 1024"),
    ("tags", {f"k{number}": "" for number in range(65)}, "tags", "at most 64"),
    ("tags", {"a": "x\x00"}, "tags.a", "U+0000"),
    ("watch", "mid", "watch", "not an object"),
    ("watch", {"on": "last"}, "watch.on", "write one of natural, mid, mark"),
    ("watch", {"quotes": 1}, "watch.quotes", "whole number from 2 to 20"),
    ("watch", {"quotes": 4}, "watch.quotes", "above `of`, which is 3 when left out: write less, or a larger `of`"),
    ("watch", {"quotes": 6, "of": 5}, "watch.quotes", "above `of`, which is 5: write less"),
    ("watch", {"of": 21}, "watch.of", "whole number from 2 to 20"),
    ("watch", {"dwell-s": -1}, "watch.dwell-s", "seconds from 0 to 300"),
    ("watch", {"dwell-s": "NaN"}, "watch.dwell-s", "not a decimal number"),
    ("watch", {"dwel-s": 1}, "watch.dwel-s", "nearest known is `dwell-s`"),
    ("stop", {"trail": {"distance": "0.20"}}, "stop", "give trigger and price, or loss-percent, with it"),
    ("stop.trail", {}, "stop.trail", "no distance is given: give one of distance, "),
    ("stop.trail", {"distance": "1", "give-back-percent": 5}, "stop.trail", "distance and give-back-percent stand tog"),
    ("stop.trail", {"distance": "0"}, "stop.trail.distance", "write an amount above 0"),
    ("stop.trail", {"distance": "-0.2"}, "stop.trail.distance", "write an amount above 0"),
    ("stop.trail", {"distance": "1000000"}, "stop.trail.distance", "below 1000000"),
    ("stop.trail", {"distance-percent": 0}, "stop.trail.distance-percent", "write one above 0"),
    ("stop.trail", {"give-back-percent": 101}, "stop.trail.give-back-percent", "at most 100"),
    ("stop.trail", {"distance": "0.2", "on": "bid"}, "stop.trail.on", "write one of natural"),
    ("stop.trail", {"distance": "0.2", "least-move": 0}, "stop.trail.least-move", "above 0"),
    ("stop.trail", {"distance": "0.2", "after-profit": 0}, "stop.trail.after-profit", "above 0"),
    ("stop.trail", {"distance": "0.2", "after-profit-percent": 101}, "stop.trail.after-profit-percent", "whole credit"),
    ("stop.trail", {"distance": "0.2", "after-profit": "0.86"}, "stop.trail.after-profit", "write at most 0.85"),
    ("stop.break-even", {}, "stop.break-even.after-profit", "missing"),
    ("stop.break-even", {"after-profit": "0.2", "keep": "0.2"}, "stop.break-even.keep", "not less than after-profit"),
    ("stop.break-even", {"after-profit-percent": 20, "keep": "0.17"}, "stop.break-even.keep", "act at once: write le"),
    ("stop.break-even", {"after-profit": "0.2", "keep": "-0.1"}, "stop.break-even.keep", "amount from 0 on"),
    ("stop.break-even", {"after-profit": 1, "keep": 0}, "stop.break-even.after-profit", "write at most 0.85"),
    ("stop.tiers", {}, "stop.tiers", "not a list"),
    ("stop.tiers", [1], "stop.tiers[0]", "not an object"),
    ("stop.tiers", [{"after-profit": "0.2"}], "stop.tiers[0].keep", "or keep-percent"),
    ("stop.tiers", [{"keep": 0}], "stop.tiers[0].after-profit", "or after-profit-percent"),
    ("stop.tiers", [{"after-profit": "0.2", "keep-percent": 24}], "stop.tiers[0].keep-percent", "not less than"),
    ("time-exits", {}, "time-exits", "not a list"),
    ("time-exits", [{"after-s": 9}] * 5, "time-exits", "5 of them: write at most 4"),
    ("time-exits", [7], "time-exits[0]", "not an object"),
    ("time-exits", [{}], "time-exits[0]", "give at and zone, minutes-before-close, days-to-expiry or after-s"),
    ("time-exits", [{"at": "15:45"}], "time-exits[0].zone", "missing"),
    ("time-exits", [{"zone": "UTC"}], "time-exits[0].at", "missing"),
    ("time-exits", [{"at": "3pm", "zone": "UTC"}], "time-exits[0].at", "write it like 15:45"),
    ("time-exits", [{"at": "24:00", "zone": "UTC"}], "time-exits[0].at", "write it like 15:45"),
    ("time-exits", [{"at": "15:45", "zone": "EDT"}], "time-exits[0].zone", "write it like America/New_York"),
    ("time-exits", [{"at": "15:45", "zone": "x" * 65}], "time-exits[0].zone", "write it like America/New_York"),
    (
        "time-exits",
        [{"at": "15:45", "zone": "UTC", "minutes-before-close": 5}],
        "time-exits[0].minutes-before-close",
        "make a time exit of each",
    ),
    ("time-exits", [{"date": "2026-12-01", "days-to-expiry": 1}], "time-exits[0].date", "give one of them"),
    ("time-exits", [{"minutes-before-close": 0}], "time-exits[0].minutes-before-close", "from 1 to 390"),
    ("time-exits", [{"minutes-before-close": 391}], "time-exits[0].minutes-before-close", "from 1 to 390"),
    ("time-exits", [{"date": "2026-12-01"}], "time-exits[0].date", "give at and zone, or minutes-before-close"),
    (
        "time-exits",
        [{"days-to-expiry": 26}],
        "time-exits[0].days-to-expiry",
        "in 25 days, on 2026-12-18: write at most",
    ),
    ("time-exits", [{"days-to-expiry": -1}], "time-exits[0].days-to-expiry", "from 0 to 3650"),
    ("time-exits", [{"days-to-expiry": 1, "after-s": 1}], "time-exits[0].after-s", "make a time exit of each"),
    ("time-exits", [{"after-s": 0}], "time-exits[0].after-s", "above 0"),
    ("time-exits", [{"after-s": "0.0000001"}], "time-exits[0].after-s", "above 0"),
    ("time-exits", [{"after-s": 10**9}], "time-exits[0].after-s", "at most 31622400"),
]


@pytest.mark.covers("F106", "F114")
@pytest.mark.parametrize(("path", "value", "place", "told"), REFUSED)
def test_one_wrong_thing_gives_one_reason_at_its_place(path: str, value: Any, place: str, told: str) -> None:
    reason = only_reason(changed(path, value))
    assert reason.startswith(f"{place}: "), reason
    assert told in reason


def test_both_exits_missing_is_refused() -> None:
    assert "give at least one" in only_reason(changed("target", ..., changed("stop", ...)))


def test_account_must_be_configured() -> None:
    assert only_reason(CREDIT_VERTICAL, account="5WT99999").startswith('account: "5WT99999" is not configured')


@pytest.mark.covers("F106")
def test_every_reason_is_given_at_once() -> None:
    request = changed("target.price", "0.90")
    request["entry"]["legs"][0]["action"] = "Sell to Close"
    request["entry"]["legs"][1]["quantity"] = 0
    request["entry"]["legs"][1]["symbol"] = "AAPL  261120C00157500"
    request["entry"]["source"] = "me"
    request["stop"] = {"trigger": "3", "price": "2.9", "price-effect": "Debit", "x": 1}
    request["protection"] = "yes"
    request["not-after"] = "2026-11-23T14:00:00Z"
    del request["version"]
    places = [reason.split(": ")[0] for reason in reasons_of(request, account="other")]
    assert sorted(places) == sorted(
        [
            *("account", "version", "not-after", "protection", "entry.source", "entry.legs[0].action"),
            *("entry.legs[1].quantity", "entry.legs[1].symbol", "stop.x", "stop.price", "target.price"),
        ]
    )


@pytest.mark.parametrize(
    ("request_", "place", "told"),
    [
        (changed("entry.order-type", "Market"), "entry.order-type", "one leg"),
        (changed("entry.order-type", "Stop Limit", changed("entry.stop-trigger", "1")), "entry.order-type", "one leg"),
        (single(OPTION, time_in_force="GTC", target={"profit-percent": 50}), "entry.time-in-force", "no GTC"),
        (
            single(OPTION, order_type="Limit", price="1", price_effect="Credit", target={"profit-percent": 50}),
            "entry.price-effect",
            "open for a Debit only",
        ),
        (single(OPTION, target={"profit-percent": 50}, stop={"loss-percent": 100}), "stop.loss-percent", "less than"),
        (single(SHARES, stop={"trigger": "150.001"}), "stop.trigger", "off the increment of 0.01"),
        (single(leg("/ESZ6", "Sell", 1, "Future"), stop={"trigger": "0"}), "stop.trigger", "at or below 0"),
        (single(FUTURE_OPTION, stop={"loss-percent": 50}), "stop", "no stops for futures options"),
        (
            single(leg("BTC/USD", "Buy to Open", 1, "Cryptocurrency"), target={"profit-percent": 5}),
            "entry.legs",
            "no b",
        ),
        (single(leg("AAPL", "Buy", 100, "Equity"), target={"profit-percent": 5}), "entry.legs[0].action", "futures"),
        (single(OPTION, target={"price": "1", "price-effect": "Debit"}), "target.price-effect", 'write "Credit"'),
        (changed("entry.legs.1", SHARES), "entry.legs", "more than one instrument type"),
        (
            changed("entry.legs.0", SHARES, changed("entry.legs.1", leg("AAPL", "Sell to Open", 1, "Equity"))),
            "entry.legs",
            "has one leg",
        ),
        (
            single(OPTION, order_type="Limit", price="1", price_effect="Debit", time_in_force="GTD")
            | {"target": {"profit-percent": 1}},
            "entry.gtc-date",
            "missing",
        ),
    ],
)
def test_what_the_product_or_the_order_type_lacks_is_refused(request_: Json, place: str, told: str) -> None:
    reasons = reasons_of(request_)
    assert any(reason.startswith(f"{place}: ") and told in reason for reason in reasons), reasons


def test_gtd_needs_a_real_day_that_has_not_passed() -> None:
    request = changed("entry.time-in-force", "GTD")
    assert "has passed" in only_reason(changed("entry.gtc-date", "2026-11-22", request))
    assert "no day" in reasons_of(changed("entry.gtc-date", "2026-02-30", request))[0]
    assert parse(changed("entry.gtc-date", "2026-11-23", request)).entry.gtc_date == TODAY


@pytest.mark.covers("F114")
def test_target_and_stop_of_a_debit_are_judged_the_other_way_round() -> None:
    legs = [leg("AAPL  261218C00155000", "Buy to Open"), leg("AAPL  261218C00157500", "Sell to Open")]
    request = changed("entry.legs", legs, changed("entry.price-effect", "Debit"))
    request["target"] = {"price": "1.60", "price-effect": "Credit"}
    request["stop"] = {"trigger": "0.40", "price": "0.30", "price-effect": "Credit"}
    parse(request)
    assert "worse than the entry" in only_reason(changed("target.price", "0.84", request))
    assert "better than the entry" in reasons_of(changed("stop.trigger", "0.86", request))[0]
    assert "better than the stop's trigger" in only_reason(changed("stop.price", "0.41", request))


@pytest.mark.covers("F113", "F114")
def test_swapped_exits_and_a_turned_effect_are_refused() -> None:
    swapped = CREDIT_VERTICAL | {
        "target": {"price": "1.70", "price-effect": "Debit"},
        "stop": {"trigger": "0.40", "price": "0.60", "price-effect": "Debit"},
    }
    assert [reason.split(":")[0] for reason in reasons_of(swapped)] == ["target.price", "stop.trigger"]
    assert "open for a Credit only" in reasons_of(changed("entry.price-effect", "Debit"))[0]


def test_unpriced_entry_still_has_its_exits_compared() -> None:
    target = {"price": "0.50", "price-effect": "Credit"}
    assert "not worse than the target" in only_reason(single(OPTION, target=target, stop={"trigger": "0.60"}))


def test_trigger_at_the_largest_value_is_refused_and_one_increment_less_is_not() -> None:
    wide = changed("stop.price", "2.60")
    assert "2.5, the largest value the vertical can have" in only_reason(changed("stop.trigger", "2.50", wide))
    parse(changed("stop.trigger", "2.49", wide))


def test_exits_at_the_entry_price_are_neither_worse_nor_better() -> None:
    parse(changed("target.price", "0.85"))
    parse(changed("stop.trigger", "0.85"))


def test_stop_price_at_its_trigger_is_not_better() -> None:
    parse(changed("stop.price", "1.70"))


def test_fraction_of_a_second_is_read_whatever_its_length() -> None:
    for fraction, expected_us in ((".5", 500_000), (".123456789", 123_456), ("", 0)):
        request = parse(changed("not-after", f"2026-11-23T15:01:00{fraction}Z"))
        assert request.not_after_us == NOW_US + MINUTE_US + expected_us


def test_whole_credit_may_be_the_target_and_an_expiring_option_is_not_expired() -> None:
    parse(changed("target", {"profit-percent": 100}))
    parse(CREDIT_VERTICAL, today=date(2026, 12, 18))
    assert len(reasons_of(CREDIT_VERTICAL, today=date(2026, 12, 19))) == 2


def test_spread_of_spx_is_in_nickels() -> None:
    legs = [leg("SPXW  261218P06500000", "Sell to Open"), leg("SPXW  261218P06450000", "Buy to Open")]
    request = changed("entry.legs", legs)
    parse(request)
    assert "0.05" in only_reason(changed("target.price", "0.41", request))


def test_grid_of_the_caller_decides() -> None:
    assert only_reason(CREDIT_VERTICAL, grid=lambda legs: DIMES).startswith(
        "entry.price: 0.85 is off the increment of 0.1"
    )
    in_pennies = single(OPTION, order_type="Limit", price="3.01", price_effect="Debit", target={"profit-percent": 9})
    assert "off the increment of 0.05" in only_reason(in_pennies)
    parse(in_pennies, grid=lambda legs: PENNY_GRID)


def test_quantity_bound_of_the_caller_is_a_hundred_times_as_many_shares() -> None:
    parse(CREDIT_VERTICAL, max_quantity=1)
    assert "bound of 1" in only_reason(changed("entry.legs.0.quantity", 2), max_quantity=1)
    parse(single(SHARES, target={"profit-percent": 5}), max_quantity=1)


@pytest.mark.covers("F111")
def test_request_is_stale_ten_minutes_after_it_was_made() -> None:
    parse(CREDIT_VERTICAL, now_us=NOW_US + 10 * MINUTE_US - 1)
    assert "older than 10 minutes" in only_reason(CREDIT_VERTICAL, now_us=NOW_US + 10 * MINUTE_US)


@pytest.mark.covers("F111")
def test_creation_time_in_the_future_buys_no_time() -> None:
    assert parse(CREDIT_VERTICAL, created_at_us=NOW_US * 2).not_after_us == NOW_US + 10 * MINUTE_US


@pytest.mark.covers("F106")
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not JSON"),
        ("null", "not an object"),
        ("[1]", "not an object"),
        ("NaN", "not an object"),
        ("[" * 65_000, "nested deeper"),
        ('{"version": 1, "version": 1}', "stands twice"),
        ('{"version": 9, "entry": 3}', '"9" is not known: write 1'),
    ],
)
def test_what_is_no_request_is_refused(text: str, told: str) -> None:
    assert told in reasons_of(text)[0]


@pytest.mark.covers("F106")
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "1e-400", "1e99999999", "9" * 30_000])
def test_absurd_numbers_are_refused_at_once(number: str) -> None:
    text = json.dumps(CREDIT_VERTICAL).replace('"0.85"', number).replace('"quantity": 1', f'"quantity": {number}', 1)
    started_s = time.process_time()
    places = {reason.split(": ")[0] for reason in reasons_of(text)}
    assert time.process_time() - started_s < 1
    assert places == {"entry.price", "entry.legs[0].quantity"}


@pytest.mark.covers("F106")
def test_thousands_of_unknown_keys_are_refused_quickly_in_few_lines() -> None:
    text = "{" + ",".join(f'"k{number}":1' for number in range(6000)) + "}"
    started_s = time.process_time()
    reasons = reasons_of(text)
    assert time.process_time() - started_s < 1
    assert len(reasons) < 20


def test_canonical_text_is_equal_for_the_same_request_and_differs_for_another() -> None:
    same = deepcopy(CREDIT_VERTICAL)
    same["entry"] = dict(reversed(same["entry"].items()))
    same["target"]["price"] = 0.4
    same["stop"]["trigger"] = "1.7000"
    same["entry"]["legs"][0]["quantity"] = "1"
    same |= {"protection": "auto", "partial-entry": {"grace-s": 30}, "tags": {}, "rest": "stop"}
    text = canonical_text(json.dumps(CREDIT_VERTICAL))
    assert canonical_text(json.dumps(same, indent=4)) == text
    assert parse(same).text == text
    for path, value in [("target.price", "0.41"), ("protection", "watched"), ("tags", {"a": "b"}), ("rest", "target")]:
        assert canonical_text(json.dumps(changed(path, value))) != text


@pytest.mark.covers("F105")
def test_canonical_text_does_not_depend_on_the_hour_or_the_account() -> None:
    early = parse(CREDIT_VERTICAL)
    late = parse(CREDIT_VERTICAL, created_at_us=NOW_US + MINUTE_US, now_us=NOW_US + MINUTE_US)
    assert early.text == late.text == canonical_text(json.dumps(CREDIT_VERTICAL))
    expired = changed("not-after", "2020-01-01T00:00:00Z")
    assert canonical_text(json.dumps(expired)) != early.text


def test_canonical_text_reads_back_as_the_same_request() -> None:
    full = CREDIT_VERTICAL | {
        "not-after": "2026-11-23T15:04:05.000001Z",
        "stop": {"loss-percent": 100, "limit-offset": "0.20", "time-in-force": "Day"},
        "partial-entry": {"grace-s": 2.5},
        "on-outside-change": "release",
        "tags": {"b": "é", "a": ""},
    }
    request = parse(full)
    assert parse(request.text) == request


def test_canonical_text_of_a_request_without_the_later_keys_is_what_it_was() -> None:
    legs = (
        '{"entry":{"legs":[{"action":"Sell to Open","instrument-type":"Equity Option","quantity":1,'
        '"symbol":"AAPL  261218C00155000"},{"action":"Buy to Open","instrument-type":"Equity Option","quantity":1,'
        '"symbol":"AAPL  261218C00157500"}],"order-type":"Limit","price":"0.85","price-effect":"Credit",'
        '"time-in-force":"Day"},'
    )
    assert parse(CREDIT_VERTICAL).text == legs + (
        '"stop":{"price":"1.9","price-effect":"Debit","trigger":"1.7"},'
        '"target":{"price":"0.4","price-effect":"Debit"},"version":1}'
    )
    full = CREDIT_VERTICAL | {
        "not-after": "2026-11-23T15:04:05.000001Z",
        "target": {"profit-percent": "25.50", "time-in-force": "Day"},
        "stop": {"loss-percent": 100, "limit-offset": "0.20", "time-in-force": "Day"},
        "protection": "watched",
        "rest": "target",
        "partial-entry": {"grace-s": 2.5},
        "on-outside-change": "release",
        "tags": {"b": "é", "a": ""},
    }
    assert parse(full).text == legs + (
        '"not-after":"2026-11-23T15:04:05.000001Z","on-outside-change":"release","partial-entry":{"grace-s":"2.5"},'
        '"protection":"watched","rest":"target",'
        '"stop":{"limit-offset":"0.2","loss-percent":"100","time-in-force":"Day"},"tags":{"a":"","b":"é"},'
        '"target":{"profit-percent":"25.5","time-in-force":"Day"},"version":1}'
    )


def test_canonical_text_of_a_request_without_the_later_keys_is_what_it_was_for_a_stop_alone() -> None:
    assert parse(single(OPTION, stop={"trigger": "0.60"})).text == (
        '{"entry":{"legs":[{"action":"Buy to Open","instrument-type":"Equity Option","quantity":1,'
        '"symbol":"AAPL  261218C00155000"}],"order-type":"Market","time-in-force":"Day"},"stop":{"trigger":"0.6"},'
        '"version":1}'
    )


def test_canonical_text_leaves_defaults_of_the_later_keys_out() -> None:
    same = changed("watch", {"on": "natural", "quotes": 2, "of": "3", "dwell-s": "1.0"})
    same = changed("stop.tiers", [], changed("time-exits", [], same))
    assert parse(same).text == parse(CREDIT_VERTICAL).text
    plainly = changed("stop.break-even", {"after-profit-percent": 25})
    at_length = changed("stop.break-even", {"after-profit-percent": "25.0", "keep": "0"})
    assert parse(plainly).text == parse(at_length).text != parse(CREDIT_VERTICAL).text
    trail = changed("stop.trail", {"distance": "0.20"})
    assert parse(trail).text == parse(changed("stop.trail", {"distance": 0.2, "on": "mid"})).text


def test_canonical_text_of_what_breaks_the_grammar_is_refused() -> None:
    with pytest.raises(RequestRefused):
        canonical_text("{}")


# Watch, moving stop, exits by time.


def test_without_the_later_keys_their_defaults_hold() -> None:
    request = parse(CREDIT_VERTICAL)
    assert (request.watch_basis, request.watch_policy) == (PriceBasis.NATURAL, DEFAULT_WATCH)
    assert (request.time_exits, request.stop_rules, request.stop_least_move) == ((), None, None)


def test_watch_is_read() -> None:
    request = parse(changed("watch", {"on": "mark", "quotes": "3", "of": 5, "dwell-s": "2.5"}))
    assert request.watch_basis is PriceBasis.MARK
    assert request.watch_policy == WatchPolicy(needed=3, window=5, dwell_us=2_500_000)


@pytest.mark.parametrize(
    ("trail", "expected"),
    [
        ({"distance": "0.20"}, Trail(TrailKind.DISTANCE, Amount(Decimal("0.20")))),
        (
            {"distance-percent": 25, "after-profit": "0.10"},
            Trail(TrailKind.DISTANCE, Amount(Decimal(25), is_percent=True), after=Amount(Decimal("0.10"))),
        ),
        (
            {"give-back-percent": "40", "after-profit-percent": 20},
            Trail(TrailKind.GIVE_BACK, give_back_percent=Decimal(40), after=Amount(Decimal(20), is_percent=True)),
        ),
    ],
)
def test_trail_is_read(trail: Json, expected: Trail) -> None:
    request = parse(changed("stop.trail", trail))
    assert request.stop_rules == StopRules(trail=expected)
    assert request.stop_least_move is None


def test_basis_and_least_move_of_a_trail_are_those_of_the_stop() -> None:
    request = parse(changed("stop.trail", {"distance": "0.20", "on": "natural", "least-move": "0.05"}))
    assert request.stop_rules is not None
    assert request.stop_rules.basis is PriceBasis.NATURAL
    assert request.stop_least_move == Decimal("0.05")


def test_break_even_is_the_first_tier() -> None:
    request = parse(
        changed(
            "stop.tiers",
            [{"after-profit-percent": "50", "keep-percent": "25"}, {"after-profit": "0.60", "keep": "0.40"}],
            changed("stop.break-even", {"after-profit-percent": "25", "keep": "0.02"}),
        )
    )
    assert request.stop_rules == StopRules(
        tiers=(
            Tier(Amount(Decimal(25), is_percent=True), Amount(Decimal("0.02"))),
            Tier(Amount(Decimal(50), is_percent=True), Amount(Decimal(25), is_percent=True)),
            Tier(Amount(Decimal("0.60")), Amount(Decimal("0.40"))),
        )
    )
    alone = parse(changed("stop.break-even", {"after-profit": "0.20"}))
    assert alone.stop_rules == StopRules(tiers=(Tier(Amount(Decimal("0.20")), Amount(Decimal(0))),))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"at": "15:45", "zone": "America/New_York"}, OnDay(FirstDay(), ClockTime(945, "America/New_York"))),
        ({"at": "00:00", "zone": "UTC", "date": "2026-12-01"}, OnDay(OnDate(date(2026, 12, 1)), ClockTime(0, "UTC"))),
        ({"at": "23:59", "zone": "UTC", "days-to-expiry": 0}, OnDay(DaysToExpiry(0), ClockTime(1439, "UTC"))),
        ({"minutes-before-close": "15"}, OnDay(FirstDay(), BeforeClose(15))),
        ({"minutes-before-close": 390, "date": "2026-12-18"}, OnDay(OnDate(date(2026, 12, 18)), BeforeClose(390))),
        ({"minutes-before-close": 1, "days-to-expiry": 25}, OnDay(DaysToExpiry(25), BeforeClose(1))),
        ({"days-to-expiry": 21}, OnDay(DaysToExpiry(21), AtOpen())),
        ({"after-s": "0.5"}, AfterFill(500_000)),
    ],
)
def test_each_form_of_a_time_exit_is_read_and_written_back(rule: Json, expected: TimeExit) -> None:
    request = parse(changed("time-exits", [rule, {"after-s": 3600}]))
    assert request.time_exits == (expected, AfterFill(3_600_000_000))
    assert parse(request.text) == request


@pytest.mark.parametrize(
    ("day", "told"),
    [
        ("2026-11-22", "has passed: write a day from 2026-11-23 on"),
        ("2026-11-26", "the exchanges are closed"),
        ("2026-12-12", "the exchanges are closed"),
        ("2026-12-21", "after the first expiry: write a day up to 2026-12-18"),
        ("2026-02-30", "is no day"),
    ],
)
def test_date_of_a_time_exit_needs_a_session_before_the_expiry(day: str, told: str) -> None:
    reason = only_reason(changed("time-exits", [{"minutes-before-close": 15, "date": day}]))
    assert reason.startswith("time-exits[0].date: ") and told in reason


def test_first_expiry_of_any_leg_counts() -> None:
    legs = [leg("AAPL  261204C00155000", "Buy to Open"), leg("AAPL  261218C00155000", "Sell to Open")]
    calendar = changed("entry.legs", legs) | {"target": {"profit-percent": 50}, "stop": {"loss-percent": 50}}
    parse(changed("time-exits", [{"days-to-expiry": 11}], calendar))
    assert "in 11 days, on 2026-12-04" in only_reason(changed("time-exits", [{"days-to-expiry": 12}], calendar))


def test_what_does_not_expire_has_no_days_to_expiry_and_any_later_date() -> None:
    shares = single(SHARES, stop={"loss-percent": 5})
    assert "nothing in the position expires" in only_reason(changed("time-exits", [{"days-to-expiry": 5}], shares))
    parse(changed("time-exits", [{"minutes-before-close": 5, "date": "2029-01-03"}], shares))


def test_open_of_the_last_day_is_refused_on_that_day() -> None:
    last = date(2026, 12, 18)
    alone = changed("time-exits", [{"days-to-expiry": 0}])
    parse(alone)
    assert "today is the last day" in only_reason(alone, today=last)
    parse(changed("time-exits", [{"days-to-expiry": 0, "minutes-before-close": 15}]), today=last)


def test_zones_are_the_callers() -> None:
    request = changed("time-exits", [{"at": "17:30", "zone": "Europe/Berlin"}])
    assert only_reason(request).startswith('time-exits[0].zone: "Europe/Berlin" is no time zone')
    assert parse(request, is_zone={"Europe/Berlin"}.__contains__).time_exits == (
        OnDay(FirstDay(), ClockTime(17 * 60 + 30, "Europe/Berlin")),
    )
    assert canonical_text(json.dumps(request))


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        ("watch", {}, "watch"),
        ("stop.trail", {"distance": "0.20"}, "stop.trail"),
        ("stop.break-even", {"after-profit": "0.20"}, "stop.break-even"),
        ("stop.tiers", [{"after-profit": "0.20", "keep": 0}], "stop.tiers"),
    ],
)
def test_what_looks_at_quotes_is_refused_with_unlinked(path: str, value: Any, place: str) -> None:
    request = changed(path, value)
    parse(request)
    assert only_reason(request | {"protection": "unlinked"}).startswith(f'{place}: in "unlinked"')


@pytest.mark.parametrize("moving", [{"trail": {"distance": 1}}, {"break-even": {"after-profit": 1}}])
def test_moving_stop_of_a_futures_option_is_told_that_there_is_none(moving: Json) -> None:
    request = single(FUTURE_OPTION, target={"profit-percent": 50}, stop=moving)
    assert any("no stops for futures options" in reason for reason in reasons_of(request))


LOOSENING: list[tuple[Json, str]] = [
    (
        {"tiers": [{"after-profit": "0.2", "keep": "0.1"}, {"after-profit": "0.4", "keep": "0.05"}]},
        "stop.tiers[1].keep",
    ),
    (
        {"tiers": [{"after-profit": "0.4", "keep": "0.05"}, {"after-profit": "0.2", "keep": "0.1"}]},
        "stop.tiers[0].keep",
    ),
    (
        {"tiers": [{"after-profit": "0.2", "keep": "0.1"}, {"after-profit-percent": 50, "keep-percent": 10}]},
        "stop.tiers[1].keep-percent",
    ),
    (
        {"tiers": [{"after-profit": "0.2", "keep": "0.1"}], "break-even": {"after-profit": "0.3"}},
        "stop.break-even.keep",
    ),
]


@pytest.mark.parametrize(("moving", "place"), LOOSENING)
def test_tier_that_keeps_less_though_it_is_further_is_refused(moving: Json, place: str) -> None:
    reason = only_reason(changed("stop", CREDIT_VERTICAL["stop"] | moving))
    assert reason.startswith(f"{place}: keeps less than") and "never loosened" in reason


def test_same_profit_twice_is_refused_whatever_its_unit() -> None:
    tiers = [{"after-profit": "0.425", "keep": "0.1"}, {"after-profit-percent": 50, "keep-percent": 25}]
    reason = only_reason(changed("stop.tiers", tiers))
    assert reason == "stop.tiers[1].after-profit-percent: is that of stop.tiers[0], too: keep one"


def test_amounts_and_percents_are_compared_only_where_the_entry_has_a_price() -> None:
    tiers = [{"after-profit": "0.2", "keep": "0.1"}, {"after-profit-percent": 90, "keep-percent": 1}]
    parse(single(OPTION, stop={"trigger": "0.60", "tiers": tiers}))


def test_profit_of_a_debit_is_not_bounded_by_its_price() -> None:
    stop = {"trigger": "0.60", "trail": {"distance": "0.5", "after-profit-percent": 300}}
    parse(single(OPTION, order_type="Limit", price="1", price_effect="Debit", stop=stop))


def test_every_reason_against_the_later_parts_is_given_at_once() -> None:
    request = CREDIT_VERTICAL | {
        "watch": {"on": 1, "quotes": 0, "dwell-s": 1000},
        "stop": CREDIT_VERTICAL["stop"]
        | {
            "trail": {"distance": 0, "distance-percent": -1, "on": "x"},
            "break-even": {"after-profit": "9", "keep": "10"},
            "tiers": [{"after-profit": "0.4", "keep": "0.3"}, {"after-profit": "0.5", "keep": "0.2"}, {"x": 1}],
        },
        "time-exits": [{"at": "x", "zone": "Nowhere"}, {"date": "2020-01-01", "minutes-before-close": 0}],
    }
    places = [reason.split(": ")[0] for reason in reasons_of(request)]
    assert sorted(places) == sorted(
        [
            *("watch.on", "watch.quotes", "watch.dwell-s", "stop.trail", "stop.trail.distance"),
            *("stop.trail.distance-percent", "stop.trail.on", "stop.break-even.keep"),
            *("stop.break-even.after-profit", "stop.tiers[1].keep", "stop.tiers[2].x", "stop.tiers[2].after-profit"),
            *("stop.tiers[2].keep", "time-exits[0].at", "time-exits[0].zone", "time-exits[1].date"),
            "time-exits[1].minutes-before-close",
        ]
    )


# Walks.


CAP = {"price": "2.10", "price-effect": "Debit"}


def walk_of(role: Role, request: Json) -> WalkRule:
    found = parse(request).walk_of(role)
    assert found is not None
    return found


def test_walks_are_read_and_what_is_left_out_has_its_default() -> None:
    stop = walk_of(Role.STOP, changed("walk.stop", {"step": "0.05", "cap": CAP}))
    assert stop == WalkRule(Walk(WalkStart.MID, Decimal("0.05"), 5_000_000, FinalAction.MARKETABLE, 10), Decimal("2.1"))
    told = {"start": "width", "width-percent": 25, "step": "0.01", "every-s": "2", "cap-offset": "0.05", "replaces": 4}
    target = walk_of(Role.TARGET, changed("walk.target", told | {"then": "cancel"}))
    walk = Walk(WalkStart.WIDTH, Decimal("0.01"), 2_000_000, FinalAction.CANCEL, 4, Decimal(25))
    assert target == WalkRule(walk, None, Decimal("0.05"))
    assert walk_of(Role.CLOSE, changed("walk.close", {"step": "0.01"})).walk.final is FinalAction.MARKETABLE
    assert parse(CREDIT_VERTICAL).walks == ()


def test_canonical_text_of_walks_leaves_defaults_out() -> None:
    short = changed("walk.stop", {"step": "0.05", "cap-offset": "0.20"})
    whole = {"step": 0.050, "cap-offset": "0.2", "start": "mid", "every-s": 5, "replaces": "10", "then": "marketable"}
    assert parse(short).text == parse(changed("walk.stop", whole)).text
    assert parse(changed("walk", {})).text == parse(CREDIT_VERTICAL).text
    for walk in ({"step": "0.05", "cap": CAP, "then": "hold"}, {"step": "0.05", "start": "width", "width-percent": 0}):
        request = parse(changed("walk.stop", walk))
        assert parse(request.text).walks == request.walks


WITHOUT_STOP = {key: value for key, value in CREDIT_VERTICAL.items() if key != "stop"}
WITHOUT_TARGET = {key: value for key, value in CREDIT_VERTICAL.items() if key != "target"}
STEP = {"step": "0.05"}
WALK = STEP | {"replaces": 5}


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (changed("walk.target", WALK, WITHOUT_TARGET), "walk.target: there is no target"),
        (changed("walk.target", WALK, WITHOUT_STOP), "walk.target: a target alone rests"),
        (changed("walk.target", WALK) | {"protection": "native-oco"}, 'walk.target: in "native-oco" the target rests'),
        (changed("walk.target", WALK) | {"protection": "unlinked"}, 'walk.target: in "unlinked" the target rests'),
        (changed("walk.target", WALK) | {"rest": "target"}, "walk.target: the target rests"),
        (changed("walk.target", WALK, changed("stop", {"trigger": "1.70"})), "walk.target: the target rests"),
        (changed("walk.target", STEP | {"replaces": 20}), "walk.target.replaces: 100 s in all"),
        (changed("walk.stop", WALK, WITHOUT_STOP), "walk.stop: there is no stop"),
        (changed("walk.stop", STEP | {"then": "hold"}), "walk.stop: it ends at the stop's own limit"),
        (
            changed("walk.stop", STEP | {"cap": {"price": "1.80", "price-effect": "Debit"}}),
            "walk.stop.cap: is better than the stop's own price",
        ),
        (
            changed("walk.stop", STEP | {"cap": {"price": "2.60", "price-effect": "Debit"}}),
            "walk.stop.cap: 2.6 is beyond 2.5",
        ),
        (
            changed("walk.close", STEP | {"cap": {"price": "1.60", "price-effect": "Credit"}}),
            "walk.close.cap.price-effect: these legs close for a Debit only",
        ),
        (
            changed("walk.close", STEP | {"cap": {"price": "1.605", "price-effect": "Debit"}}),
            "walk.close.cap: 1.605 is",
        ),
        (changed("walk.close", {"step": "0.005"}), "walk.close.step: 0.005 is off the increment of 0.01"),
        (changed("walk.close", {}), "walk.close.step: missing"),
        (changed("walk.close", STEP | {"width-percent": 10}), 'walk.close.width-percent: goes with "start": "width"'),
        (changed("walk.close", STEP | {"every-s": "0.9"}), "walk.close.every-s: 0.9 is out of bounds"),
        (changed("walk.close", STEP | {"cap-offset": 1}), "walk.close.cap-offset: unknown key"),
        (changed("walk.entry", STEP), "walk.entry: unknown key"),
        (changed("walk.stop", STEP | {"then": "cancel"}), 'walk.stop.then: "cancel" is not known'),
        (changed("walk.stop", STEP | {"cap": CAP, "cap-offset": "0.1"}), "walk.stop.cap: stands together"),
    ],
)
def test_walk_that_makes_no_sense_is_refused_with_its_reason(request_: Json, told: str) -> None:
    assert only_reason(request_).startswith(told)


def test_stop_that_is_watched_for_may_walk_up_to_its_own_limit() -> None:
    parse(changed("walk.stop", STEP | {"then": "hold"}) | {"rest": "target", "protection": "watched"})


def test_single_legs_stop_without_a_limit_does_not_walk() -> None:
    option = leg("AAPL  261218C00155000", "Buy to Open")
    request = single(option, target={"profit-percent": 50}, stop={"trigger": "0.50"})
    assert only_reason(changed("walk.stop", STEP, request)).startswith("walk.stop: a stop without a limit fills")
