"""What a request says, read a second time and judged by the contract alone: nothing of the daemon's parser is used.

Strict on purpose where the daemon may be lenient is not wanted here: `wrongs_of` names only what the contract forbids,
so that any request which the daemon accepted and this finds wrong is a fault of one of the two.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from otocod.domain.schema import request_schema
from tests.fuzz.json_schema import compiled

Tree = dict[str, Any]

_OCC = re.compile(r"([A-Z0-9]{1,6}) *([0-9]{6})([CP])([0-9]{8})")
_FUTURE_OPTION = re.compile(r"\.(/[A-Z0-9]+) +[A-Z0-9]+ +([0-9]{6})([CP])([0-9.]+)")
_OTHER_SYMBOL = re.compile(r"[A-Z0-9/]{1,20}")
_FITS_SCHEMA = compiled(request_schema())
_ZONES = ("America/New_York", "America/Chicago", "UTC")
_CLOSED = (date(2026, 11, 26), date(2026, 12, 25), date(2027, 1, 1))  # of the days that the fuzz writes
_SAME_INDEX = {"SPXW": "SPX", "NDXP": "NDX", "RUTW": "RUT", "VIXW": "VIX"}
# Terminal controls, line separators, halves of surrogate pairs, and what turns the direction of text.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class NotStrict(ValueError):
    """No JSON by RFC 8259, or an object with a key twice."""


def read(text: str) -> Any:
    try:
        return json.loads(
            text, object_pairs_hook=_unique, parse_float=Decimal, parse_int=Decimal, parse_constant=_no_constant
        )
    except RecursionError:
        raise NotStrict("nested too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> Tree:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise NotStrict("a key stands twice")
    return tree


def _no_constant(name: str) -> Any:
    raise NotStrict(f"{name} is no number")


def wrongs_of(text: str, *, today: date, now_us: int, max_quantity: int = 10_000) -> tuple[Tree, list[str]]:
    """The tree, and every rule of the contract that it breaks."""
    try:
        tree = read(text)
    except ValueError as error:
        return {}, [f"not JSON: {error}"]
    if not isinstance(tree, dict) or not _FITS_SCHEMA(tree):
        return {}, ["not by the schema"]
    wrong = [f"an unfit character in {each!r}" for each in _texts(tree) if not _is_fit(each)]
    entry: Tree = tree["entry"]
    legs: list[Tree] = entry["legs"]
    wrong += _wrong_legs(legs, today, max_quantity)
    wrong += _wrong_entry(entry, legs, today)
    wrong += _wrong_exits(tree, entry, legs)
    wrong += _wrong_moving(tree, entry)
    wrong += _wrong_watch(tree)
    wrong += [text for rule in tree.get("time-exits", []) for text in _wrong_time_exit(rule, legs, today)]
    if "not-after" in tree and us_of(tree["not-after"]) <= now_us:
        wrong.append("stale")
    return tree, wrong


def _texts(node: Any) -> list[str]:
    if isinstance(node, str):
        return [node]
    if isinstance(node, dict):
        return [*node, *(text for value in node.values() for text in _texts(value))]
    return [text for value in node for text in _texts(value)] if isinstance(node, list) else []


def _is_fit(text: str) -> bool:
    return _UNFIT.search(text) is None


def _wrong_legs(legs: list[Tree], today: date, max_quantity: int) -> list[str]:
    wrong = []
    symbols = [leg["symbol"] for leg in legs]
    kinds = {leg["instrument-type"] for leg in legs}
    if len(set(symbols)) < len(symbols):
        wrong.append("a symbol stands twice")
    if len(kinds) > 1 or "Cryptocurrency" in kinds or (len(legs) > 1 and kinds <= {"Equity", "Future"}):
        wrong.append("legs that make no order")
    underlyings = set()
    for leg in legs:
        kind = leg["instrument-type"]
        underlying, expiry = _taken_apart(kind, leg["symbol"])
        underlyings.add(underlying)
        if underlying is None:
            wrong.append("a bad symbol")
        if expiry is not None and expiry < today:
            wrong.append("expired")
        if leg["action"] not in ("Buy to Open", "Sell to Open") and not (
            kind == "Future" and leg["action"] in ("Buy", "Sell")
        ):
            wrong.append("a leg that does not open")
        if Decimal(leg["quantity"]) > max_quantity * (100 if kind == "Equity" else 1) or Decimal(leg["quantity"]) % 1:
            wrong.append("an absurd quantity")
    if len(underlyings) > 1:
        wrong.append("more than one underlying")
    return wrong


def _taken_apart(kind: str, symbol: str) -> tuple[str | None, date | None]:
    """Underlying and expiry; None for a symbol that is none."""
    if kind not in ("Equity Option", "Future Option"):
        return (symbol if _OTHER_SYMBOL.fullmatch(symbol) else None), None
    found = (_OCC if kind == "Equity Option" else _FUTURE_OPTION).fullmatch(symbol)
    if found is None or (kind == "Equity Option" and len(symbol) != 21) or not Decimal(found[4]):
        return None, None
    try:
        expiry = datetime.strptime(found[2], "%y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None, None
    return _SAME_INDEX.get(found[1], found[1]), expiry


def _wrong_entry(entry: Tree, legs: list[Tree], today: date) -> list[str]:
    wrong = []
    if len(legs) > 1 and entry["order-type"] != "Limit":
        wrong.append("several legs without a limit")
    if entry["order-type"] in ("Market", "Stop") and entry["time-in-force"] in ("GTC", "GTD"):
        wrong.append("a market order that rests")
    if "gtc-date" in entry:
        try:
            if date.fromisoformat(entry["gtc-date"]) < today:
                wrong.append("a gtc-date that has passed")
        except ValueError:
            wrong.append("no day")
    wrong += [f"{key} is no price" for key in ("price", "stop-trigger") if key in entry and not _is_price(entry[key])]
    is_of_options = all(leg["instrument-type"] == "Equity Option" for leg in legs)
    if is_of_options and Decimal(entry.get("price", 0)) % Decimal("0.01"):
        wrong.append("off the increment")
    return wrong


def _is_price(value: Any) -> bool:
    return bool(0 < Decimal(value) < 1_000_000)


def _wrong_exits(tree: Tree, entry: Tree, legs: list[Tree]) -> list[str]:
    """Prices against each other, as what closing costs: a debit above 0, a credit below."""
    wrong = []
    target, stop = tree.get("target", {}), tree.get("stop", {})
    opened = _signed(entry)
    aim = _signed(target)
    limit = _signed(stop)
    trigger = None if "trigger" not in stop else Decimal(stop["trigger"])
    buys = {leg["action"].startswith("Buy") for leg in legs}
    if trigger is not None:
        if not _is_price(trigger):
            wrong.append("trigger is no price")
        if limit is None and len(legs) > 1 and tree.get("protection", "auto") not in ("auto", "watched"):
            wrong.append("a stop of several legs without a limit, which cannot rest")
        # Without a limit it is the other side of the entry's.
        is_credit = limit < 0 if limit is not None else opened > 0 if opened is not None else buys == {True}
        trigger = -trigger if is_credit else trigger
    for price in (target.get("price"), stop.get("price")):
        if price is not None and not _is_price(price):
            wrong.append("an exit without a price")
    if opened is not None and aim is not None and aim > -opened:
        wrong.append("a target worse than the entry")
    if opened is not None and trigger is not None and trigger < -opened:
        wrong.append("a stop better than the entry")
    if aim is not None and trigger is not None and aim >= trigger:
        wrong.append("a stop not worse than the target")
    if limit is not None and trigger is not None and limit < trigger:
        wrong.append("a stop's price better than its trigger")
    if stop and any(leg["instrument-type"] == "Future Option" for leg in legs):
        wrong.append("a stop for a futures option")
    credit = opened < 0 if opened is not None else buys == {False}
    if "profit-percent" in target and credit and Decimal(target["profit-percent"]) > 100:
        wrong.append("more than the whole credit")
    if "loss-percent" in stop and not credit and Decimal(stop["loss-percent"]) >= 100:
        wrong.append("the whole debit or more")
    width = _width(legs)
    if width is not None and trigger is not None and abs(trigger) >= width:
        wrong.append("a trigger beyond the width")
    return wrong


def _wrong_watch(tree: Tree) -> list[str]:
    watch, stop = tree.get("watch", {}), tree.get("stop", {})
    wrong = []
    if not 2 <= Decimal(watch.get("quotes", 2)) <= Decimal(watch.get("of", 3)) <= 20:
        wrong.append("a watch by more quotes than it looks at")
    if any(Decimal(watch[key]) % 1 for key in ("quotes", "of") if key in watch):
        wrong.append("half a quote")
    if tree.get("protection") == "unlinked" and ("watch" in tree or {"trail", "break-even", "tiers"} & stop.keys()):
        wrong.append("quotes are looked at in unlinked")
    return wrong


def _wrong_moving(tree: Tree, entry: Tree) -> list[str]:
    stop: Tree = tree.get("stop", {})
    tiers: list[Tree] = [*([stop["break-even"]] if "break-even" in stop else []), *stop.get("tiers", [])]
    known = [(_amount(tier, "after-profit", entry), _amount(tier, "keep", entry)) for tier in tiers]
    wrong = []
    if any(reached[0] == kept[0] and kept[1] >= reached[1] for reached, kept in known):
        wrong.append("a tier that keeps all of its profit")
    for index, (reached, kept) in enumerate(known):
        for other_reached, other_kept in known[:index] + known[index + 1 :]:
            if reached == other_reached:
                wrong.append("a profit twice")
            is_further = reached[0] == other_reached[0] and reached[1] > other_reached[1]
            if is_further and kept[0] == other_kept[0] and kept[1] < other_kept[1]:
                wrong.append("a tier that loosens")
    return wrong


def _amount(part: Tree, key: str, entry: Tree) -> tuple[str, Decimal]:
    """(unit, amount): of money wherever it can be."""
    if f"{key}-percent" not in part:
        return "money", Decimal(part.get(key, 0))
    percent = Decimal(part[f"{key}-percent"])
    return ("money", percent * Decimal(entry["price"]) / 100) if "price" in entry else ("percent", percent)


def _wrong_time_exit(rule: Tree, legs: list[Tree], today: date) -> list[str]:
    wrong = []
    expiries = [expiry for leg in legs if (expiry := _taken_apart(leg["instrument-type"], leg["symbol"])[1])]
    if "zone" in rule and rule["zone"] not in _ZONES:
        wrong.append("no zone")
    if "days-to-expiry" in rule:
        days = Decimal(rule["days-to-expiry"])
        if not expiries or days % 1 or min(expiries) - timedelta(days=int(days)) < today:
            wrong.append("days to expiry that have passed")
    if "date" in rule:
        try:
            day = date.fromisoformat(rule["date"])
        except ValueError:
            return [*wrong, "no day"]
        if day < today or any(day > expiry for expiry in expiries) or day.weekday() > 4 or day in _CLOSED:
            wrong.append("a day that will not do")
    if "after-s" in rule and Decimal(rule["after-s"]) * 1_000_000 < 1:
        wrong.append("no time at all")
    if "minutes-before-close" in rule and not 1 <= Decimal(rule["minutes-before-close"]) <= 390:
        wrong.append("before the session or after it")
    return wrong


def _signed(part: Tree) -> Decimal | None:
    if "price" not in part:
        return None
    return Decimal(part["price"]) * (1 if part["price-effect"] == "Debit" else -1)


def _width(legs: list[Tree]) -> Decimal | None:
    """Between the strikes of a plain vertical; None for anything else."""
    if len(legs) != 2 or {leg["instrument-type"] for leg in legs} != {"Equity Option"}:
        return None
    found = [_OCC.fullmatch(leg["symbol"]) for leg in legs]
    first, second = found
    if first is None or second is None or first[3] != second[3] or first[2] != second[2]:
        return None
    if legs[0]["action"] == legs[1]["action"] or Decimal(legs[0]["quantity"]) != Decimal(legs[1]["quantity"]):
        return None
    return Decimal(abs(int(first[4]) - int(second[4]))) / 1000


def us_of(text: str) -> int:
    """Microseconds UTC; digits beyond them are cut off."""
    found = re.fullmatch(r"(.{10})[T ](.{5})(:..)?(?:\.([0-9]+))?(?:Z|\+00:00)", text)
    assert found is not None
    at = datetime.fromisoformat(f"{found[1]}T{found[2]}{found[3] or ':00'}+00:00")
    return int(at.timestamp()) * 1_000_000 + int((found[4] or "").ljust(6, "0")[:6])


def differences(tree: Tree, request: Any) -> list[str]:
    """Where an accepted request is not what the text said."""
    entry = tree["entry"]
    said = [(leg["instrument-type"], leg["symbol"], leg["action"], Decimal(leg["quantity"])) for leg in entry["legs"]]
    spec = request.entry
    heard = [(leg.instrument_type.value, leg.symbol, leg.action.value, leg.quantity) for leg in spec.legs]
    pairs: Mapping[str, tuple[Any, Any]] = {
        "legs": (said, heard),
        "order-type": (entry["order-type"], spec.order_type.value),
        "time-in-force": (entry["time-in-force"], spec.time_in_force.value),
        "price": (_signed(entry), spec.net_price),
        "stop-trigger": (_decimal(entry, "stop-trigger"), spec.stop_trigger),
        "gtc-date": (entry.get("gtc-date"), spec.gtc_date and spec.gtc_date.isoformat()),
        "automated-source": (entry.get("automated-source"), spec.automated_source),
        "target": (_target(tree.get("target")), _parts(request.target, "net_price", "profit_percent")),
        "stop": (_stop(tree.get("stop")), _parts(request.stop, "trigger", "net_price", "loss_percent", "limit_offset")),
        "times": (
            tuple(tree.get(role, {}).get("time-in-force", "GTC") for role in ("target", "stop")),
            (request.target_time_in_force.value, request.stop_time_in_force.value),
        ),
        "protection": (tree.get("protection", "auto"), request.protection.value),
        "rest": (tree.get("rest", "stop"), request.rest.value),
        "on-outside-change": (tree.get("on-outside-change", "hold"), request.on_outside_change.value),
        "tags": (tree.get("tags", {}), dict(request.tags)),
        "grace": (
            int(Decimal(tree.get("partial-entry", {}).get("grace-s", 30)) * 1_000_000),
            request.partial_entry_grace_us,
        ),
        "watch": (_watch(tree.get("watch", {})), _heard_watch(request)),
        "walk": (
            [_walk(role, tree["walk"][role]) for role in _WALKS if role in tree.get("walk", {})],
            _heard_walks(request),
        ),
        "moving stop": (_moving(tree.get("stop", {})), _heard_moving(request)),
        "time-exits": ([_time_exit(rule) for rule in tree.get("time-exits", [])], _heard_times(request)),
    }
    return [f"{name}: said {a!r}, heard {b!r}" for name, (a, b) in pairs.items() if a != b]


def _decimal(part: Tree, key: str) -> Decimal | None:
    return Decimal(part[key]) if key in part else None


def _target(part: Tree | None) -> dict[str, Decimal]:
    return {} if part is None else _present(net_price=_signed(part), profit_percent=_decimal(part, "profit-percent"))


def _stop(part: Tree | None) -> dict[str, Decimal]:
    if part is None:
        return {}
    return _present(
        trigger=_decimal(part, "trigger"),
        net_price=_signed(part),
        loss_percent=_decimal(part, "loss-percent"),
        limit_offset=_decimal(part, "limit-offset"),
    )


def _watch(part: Tree) -> tuple[Any, ...]:
    dwell_us = int(Decimal(part.get("dwell-s", 1)) * 1_000_000)
    return part.get("on", "natural"), Decimal(part.get("quotes", 2)), Decimal(part.get("of", 3)), dwell_us


def _heard_watch(request: Any) -> tuple[Any, ...]:
    policy = request.watch_policy
    return request.watch_basis.value, policy.needed, policy.window, policy.dwell_us


_WALKS = {"target": "hold", "stop": "marketable", "close": "marketable"}  # with their ends where none is said


def _said_walks(walks: Tree) -> list[tuple[Any, ...]]:
    return [_walk(role, walks[role]) for role in _WALKS if role in walks]


def _walk(role: str, walk: Tree) -> tuple[Any, ...]:
    return (
        role,
        walk.get("start", "mid"),
        Decimal(walk.get("width-percent", 50)),
        Decimal(walk["step"]),
        int(Decimal(walk.get("every-s", 5)) * 1_000_000),
        _signed(walk["cap"]) if "cap" in walk else None,
        _decimal(walk, "cap-offset"),
        walk.get("then", _WALKS[role]),
        Decimal(walk.get("replaces", 10)),
    )


def _heard_walks(request: Any) -> list[tuple[Any, ...]]:
    return [
        (
            role.value,
            rule.walk.start.value,
            rule.walk.width_percent,
            rule.walk.step,
            rule.walk.interval_us,
            rule.cap,
            rule.cap_offset,
            rule.walk.final.value,
            rule.walk.max_replaces,
        )
        for role, rule in request.walks
    ]


def _moving(stop: Tree) -> tuple[Any, ...]:
    """(trail, tiers with break-even first, basis, least move), amounts as (is_percent, value)."""
    trail: Tree = stop.get("trail", {})
    tiers = [*([stop["break-even"]] if "break-even" in stop else []), *stop.get("tiers", [])]
    said = None
    if trail:
        give_back = _decimal(trail, "give-back-percent")
        said = (_said_amount(trail, "distance"), give_back, _said_amount(trail, "after-profit"))
    kept = [(_said_amount(tier, "after-profit"), _said_amount(tier, "keep") or (False, 0)) for tier in tiers]
    return said, kept, trail.get("on", "mid"), _decimal(trail, "least-move")


def _said_amount(part: Tree, key: str) -> tuple[bool, Decimal] | None:
    found = _decimal(part, key)
    if found is not None:
        return False, found
    percent = _decimal(part, f"{key}-percent")
    return None if percent is None else (True, percent)


def _heard_moving(request: Any) -> tuple[Any, ...]:
    rules = request.stop_rules
    if rules is None:
        return None, [], "mid", request.stop_least_move
    trail = None
    if rules.trail is not None:
        trail = (_heard_amount(rules.trail.distance), rules.trail.give_back_percent, _heard_amount(rules.trail.after))
    tiers = [(_heard_amount(tier.reached), _heard_amount(tier.kept)) for tier in rules.tiers]
    return trail, tiers, rules.basis.value, request.stop_least_move


def _heard_amount(amount: Any) -> tuple[bool, Decimal] | None:
    return None if amount is None else (amount.is_percent, amount.value)


def _time_exit(rule: Tree) -> tuple[Any, ...]:
    if "after-s" in rule:
        return (int(Decimal(rule["after-s"]) * 1_000_000),)
    moment: tuple[Any, ...] = ()
    if "at" in rule:
        moment = (int(rule["at"][:2]) * 60 + int(rule["at"][3:]), rule["zone"])
    elif "minutes-before-close" in rule:
        moment = (Decimal(rule["minutes-before-close"]),)
    return moment, rule.get("date"), _decimal(rule, "days-to-expiry")


def _heard_times(request: Any) -> list[tuple[Any, ...]]:
    heard: list[tuple[Any, ...]] = []
    for rule in request.time_exits:
        if hasattr(rule, "duration_us"):
            heard.append((rule.duration_us,))
            continue
        names = [name for name in ("minute", "zone", "minutes") if hasattr(rule.moment, name)]
        day = getattr(rule.day, "day", None)
        moment = tuple(getattr(rule.moment, name) for name in names)
        heard.append((moment, day and day.isoformat(), getattr(rule.day, "days", None)))
    return heard


def _present(**fields: Decimal | None) -> dict[str, Decimal]:
    return {name: value for name, value in fields.items() if value is not None}


def _parts(part: Any, *names: str) -> dict[str, Decimal]:
    return _present(**{name: getattr(part, name, None) for name in names})
