"""What a person sees of a bracket, and of what it depends on: one definition for the page and for the screen.

Pure. Prices that people compare are given as the value of one unit of the spread: what closing it costs if it was sold,
what closing it brings if it was bought; so target, stop and market stand on one scale, and `entry` is where it began.
Distances say how far the natural closing price has to go and are positive until it is there; the broker's stop and a
closing limit both act on that price. Everything is JSON-ready, prices as decimal text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from otocod import story
from otocod.domain.acceptance import has_absolute_exits
from otocod.domain.brackets import Bracket, BracketState, WatchKind, order_net_fill_price
from otocod.domain.exits import exit_specs, trigger_net_price
from otocod.domain.orders import Order
from otocod.domain.prices import plain
from otocod.domain.quotes import QuoteFault, SpreadQuote
from otocod.domain.specs import OrderSpec, Role
from otocod.domain.spreads import dollars_per_point, spread_of
from otocod.domain.symbols import Instrument
from otocod.logs import masked_account

Json = dict[str, Any]
Quote = SpreadQuote | QuoteFault | None

SECOND_US = 1_000_000
# How it stands, worst first. Words, because whoever looks may not see colours.
TONES = ("bad", "warn", "good", "idle")


@dataclass(frozen=True, slots=True)
class Levels:
    """Signed net prices of the closing order, for one unit; None where there is none or it is not known yet."""

    target: Decimal | None = None
    stop: Decimal | None = None  # the trigger
    stop_limit: Decimal | None = None


def picture_of(bracket: Bracket, quote: Quote, now_us: int) -> Json:
    """One bracket as it stands. `quote`: of its closing legs; None if nobody has asked for any."""
    is_over = bracket.state is BracketState.CLOSED
    levels = levels_of(bracket)
    sign = _sign(bracket)
    entry = bracket.entry_net_price
    begun = entry if entry is not None else bracket.request.entry.net_price
    since_us = bracket.unprotected_since_us
    running_us = 0 if since_us is None else max(now_us - since_us, 0)
    tone, standing = standing_of(bracket)
    return {
        "bracket_id": bracket.bracket_id,
        "client_ref": bracket.client_ref,
        "account": masked_account(bracket.account),
        "name": name_of(bracket),
        "expires": expiry_of(bracket),
        "state": bracket.state.value,
        "outcome": None if bracket.outcome is None else bracket.outcome.value,
        "tone": tone,
        "standing": standing,
        "attention": bracket.attention,
        "frozen": bracket.is_frozen,
        "protection": bracket.protection.value,
        "quantity": bracket.size,
        "open_units": bracket.open_units,
        "closes_for": "debit" if sign > 0 else "credit",
        "entry": _text(None if begun is None else -begun * sign),
        "entry_net_price": _text(entry),
        "exit_net_price": _text(bracket.exit_net_price),
        "target": _text(_times(levels.target, sign)),
        "stop": _text(_times(levels.stop, sign)),
        "stop_limit": _text(_times(levels.stop_limit, sign)),
        "unprotected_now": since_us is not None,
        "unprotected_s": (bracket.unprotected_us + running_us) / SECOND_US,
        "created_at": iso_from_us(bracket.created_at_us),
        "closed_at": None if bracket.closed_at_us is None else iso_from_us(bracket.closed_at_us),
        "tags": dict(bracket.request.tags),
        **({"price": None, "quotes": None} if is_over else _market(bracket, levels, quote, sign)),
        **_result(bracket, quote),
    }


def standing_of(bracket: Bracket) -> tuple[str, str]:
    """(tone, words): how it stands, in a few words."""
    if bracket.state is BracketState.CLOSED:
        return ("warn" if bracket.attention else "idle"), "closed"
    if bracket.unprotected_since_us is not None and bracket.state is not BracketState.PENDING_ENTRY:
        return "bad", "unprotected"
    if bracket.unknown_orders:
        return "bad", "outcome unknown"
    if bracket.is_frozen:
        return "bad", "frozen"
    if bracket.is_held:
        return "warn", "held for a person"
    words = {
        BracketState.PENDING_ENTRY: "entry works" if bracket.entries else "entry not sent",
        BracketState.ENTRY_FILLED: "being protected",
        BracketState.EXITS_LIVE: "protected",
        BracketState.CLOSING: "being closed",
    }[bracket.state]
    if bracket.attention is not None or bracket.state in (BracketState.ENTRY_FILLED, BracketState.CLOSING):
        return "warn", words
    return ("good" if bracket.state is BracketState.EXITS_LIVE else "idle"), words


def by_urgency(pictures: Iterable[Json]) -> list[Json]:
    """The worst first, and of equals the newest."""
    newest = sorted(pictures, key=lambda each: str(each["created_at"]), reverse=True)
    return sorted(newest, key=lambda each: TONES.index(each["tone"]))


def levels_of(bracket: Bracket) -> Levels:
    """Where the exits are: at the broker, else where they are watched, else where they are going to be."""
    specs = _asked(bracket)
    target, stop = specs.get(Role.TARGET), specs.get(Role.STOP)
    at_target = None if target is None else target.net_price
    trigger = None if stop is None else trigger_net_price(stop)
    followed = None if bracket.stop_level is None else bracket.stop_level.level
    if followed is not None:
        trigger = followed if trigger is None else min(trigger, followed)
    limit = None if stop is None else stop.net_price
    if bracket.watch is not None and bracket.watch.kind is WatchKind.TARGET_REACHED:
        at_target = bracket.watch.level
    if bracket.watch is not None and bracket.watch.kind is WatchKind.STOP_REACHED:
        trigger, limit = bracket.watch.level, bracket.watch.cap
    for order in bracket.orders:
        if order.is_terminal or not order.is_known_at_broker:
            continue
        if order.role is Role.TARGET:
            at_target = _at_broker(order).net_price
        elif order.role is Role.STOP and order.spec.stop_trigger is not None:
            resting = _at_broker(order)
            trigger, limit = trigger_net_price(resting), resting.net_price
    return Levels(at_target, trigger, limit)


def _asked(bracket: Bracket) -> dict[Role, OrderSpec]:
    price = bracket.entry_net_price
    if price is None:
        price = bracket.request.entry.net_price
    if price is None:
        if not has_absolute_exits(bracket.request):
            return {}
        price = Decimal(0)
    specs = exit_specs(bracket.request, entry_net_price=price, units=1)
    found = {Role.TARGET: specs.target, Role.STOP: specs.stop} | dict(bracket.moved)
    return {role: spec for role, spec in found.items() if spec is not None}


def _at_broker(order: Order) -> OrderSpec:
    """The order as the broker has it: a person may have moved it."""
    head = order.head
    if head is None:
        return order.spec
    return replace(
        order.spec,
        net_price=head.net_price if head.net_price is not None else order.spec.net_price,
        stop_trigger=head.stop_trigger if head.stop_trigger is not None else order.spec.stop_trigger,
    )


def _market(bracket: Bracket, levels: Levels, quote: Quote, sign: int) -> Json:
    if not isinstance(quote, SpreadQuote):
        return {"price": None, "quotes": _without_quotes(quote)}
    natural = quote.natural
    found: Json = {
        "price": _text(natural * sign),
        "mid": _text(quote.mid * sign),
        "quotes": {"tone": "good", "text": "live"},
    }
    if bracket.state is BracketState.PENDING_ENTRY:
        wanted = bracket.request.entry.net_price
        found["to_entry"] = None if wanted is None else _text(-quote.far - wanted)
        return found
    if levels.target is not None:
        found["to_target"] = _text(natural - levels.target)
    if levels.stop is not None:
        found["to_stop"] = _text(levels.stop - natural)
    if levels.target is not None and levels.stop is not None and levels.stop != levels.target:
        found["place"] = _share(levels.stop - natural, levels.stop - levels.target)
        if bracket.entry_net_price is not None:
            found["entry_place"] = _share(levels.stop + bracket.entry_net_price, levels.stop - levels.target)
    return found


def _without_quotes(fault: QuoteFault | None) -> Json:
    if fault is None:
        return {"tone": "idle", "text": "not quoted"}
    return {"tone": "warn", "text": fault.detail, "reason": fault.reason.value}


def _share(part: Decimal, whole: Decimal) -> float:
    """From 0, at the stop, to 1, at the target."""
    return float(round(min(max(part / whole, Decimal(0)), Decimal(1)), 4))


def _result(bracket: Bracket, quote: Quote) -> Json:
    """Profit for one unit and, where a point's worth is known, in dollars for all of them; before fees."""
    entry, left = bracket.entry_net_price, bracket.exit_net_price
    if entry is None:
        return {"profit": None, "profit_dollars": None}
    units = bracket.open_units
    if left is None or units:
        left = quote.natural if isinstance(quote, SpreadQuote) and units else None
    else:
        units = bracket.exit_units
    if left is None:
        return {"profit": None, "profit_dollars": None}
    profit = -(entry + left)
    worth = dollars_per_point(bracket.request.entry.legs)
    return {
        "profit": _text(profit),
        "profit_dollars": None if worth is None else _text((profit * worth * units).quantize(Decimal("0.01"))),
    }


def view_of(
    bracket: Bracket,
    quote: Quote,
    now_us: int,
    *,
    shown: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    points: Sequence[tuple[int, Decimal | None]],
    is_running: bool,
) -> Json:
    """One bracket looked at closely. `shown`: as `show --json`; `events`: of its journal; `points`: of its course."""
    sign = _sign(bracket)
    return {
        "bracket": picture_of(bracket, quote, now_us),
        "orders": shown["orders"],
        "story": story.told({**shown, "account": masked_account(bracket.account)}, events),
        "fills": fills_of(bracket),
        "course": {
            "points": [[at_us // 1000, _text(_times(price, sign))] for at_us, price in points],
            "told": _about_course(bracket, is_empty=not points, is_running=is_running),
        },
    }


def _about_course(bracket: Bracket, *, is_empty: bool, is_running: bool) -> str:
    if not is_empty:
        return "natural price to close, from when it was first quoted in this run"
    if not is_running:
        return "otocod is not running, so there are no quotes"
    if bracket.state is BracketState.CLOSED:
        return "the course of the price is kept in memory only and is gone"
    return "no quotes yet"


def fills_of(bracket: Bracket) -> list[Json]:
    """One entry per order that has filled: when its last fill came, and its average on the scale of the levels."""
    sign = _sign(bracket)
    found: list[Json] = []
    for order in bracket.orders:
        price = order_net_fill_price(order)
        times = [fill.filled_at_us for _, fill in order.fills if fill.filled_at_us is not None]
        if price is None or not times:
            continue
        value = -price if order.role is Role.ENTRY else price
        found.append({"at_ms": max(times) // 1000, "role": order.role.value, "value": _text(value * sign)})
    return found


def name_of(bracket: Bracket) -> str:
    """`AAPL 155/157.5 call vertical`."""
    spread = spread_of(bracket.request.entry.legs)
    return f"{spread.instruments[0].underlying} {_strikes(spread.instruments)}{spread.kind.value}"


def expiry_of(bracket: Bracket) -> str | None:
    """`18 Dec 2026`, or the first and the last of several; None for what does not expire."""
    instruments = spread_of(bracket.request.entry.legs).instruments
    days = sorted({each.expires_on for each in instruments if each.expires_on is not None})
    return " to ".join(f"{day.day} {day:%b %Y}" for day in (*days[:1], *days[1:][-1:])) or None


def _strikes(instruments: Sequence[Instrument]) -> str:
    options = [each for each in instruments if each.strike is not None and each.right is not None]
    if not options:
        return ""
    rights = {each.right for each in options}
    if len(rights) == 1:
        strikes = "/".join(plain(each.strike) for each in options if each.strike is not None)
        return f"{strikes} {options[0].right.name.lower() if options[0].right else ''} "
    return "/".join(f"{plain(each.strike)}{each.right.value}" for each in options if each.strike and each.right) + " "


def _sign(bracket: Bracket) -> int:
    """1 if closing costs (it was sold), -1 if closing brings (it was bought)."""
    entry = bracket.request.entry.net_price
    if entry is None:
        entry = bracket.entry_net_price
    if entry is not None:
        return 1 if entry < 0 else -1
    return -1 if bracket.request.entry.legs[0].action.is_buy else 1


def _times(price: Decimal | None, sign: int) -> Decimal | None:
    return None if price is None else price * sign


def _text(price: Decimal | None) -> str | None:
    """With cents at least: 0.4 is read as 0.40."""
    if price is None:
        return None
    text = plain(price)
    whole, _, rest = text.partition(".")
    return f"{whole}.{rest:0<2}"


# What it depends on.


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the daemon knows of itself at one moment."""

    is_ready: bool
    reasons_not_ready: Sequence[str]
    is_stream_healthy: bool
    stream_age_s: float | None
    reconcile_age_s: float | None
    quotes_wanted: int | None  # None: there is no feed at all
    quotes_held: int
    is_feed_up: bool
    why_feed_down: str | None
    is_delayed: bool
    halt_level: str
    halt_reason: str | None
    requests_waiting: int


RECONCILE_LATE_S = 180.0


def health_of(vitals: Vitals) -> list[Json]:
    """What must be well, each with a tone and a few words."""
    return [_of_broker(vitals), _of_streamer(vitals), _of_quotes(vitals), _of_entries(vitals)]


def nobody_there() -> list[Json]:
    """With the daemon down: the file is all there is."""
    return [_vital("daemon", "bad", "not running", "this is what the database says; nothing is being managed")]


def _vital(what: str, tone: str, text: str, detail: str = "") -> Json:
    return {"what": what, "tone": tone, "text": text, "detail": detail}


def _of_broker(vitals: Vitals) -> Json:
    if not vitals.is_ready:
        return _vital("broker", "bad", "not reconciled", "; ".join(vitals.reasons_not_ready))
    age_s = vitals.reconcile_age_s
    if age_s is None or age_s > RECONCILE_LATE_S:
        return _vital("broker", "warn", "not compared lately", f"last {_ago(age_s)}")
    return _vital("broker", "good", "reconciled", f"last {_ago(age_s)}")


def _of_streamer(vitals: Vitals) -> Json:
    detail = f"last message {_ago(vitals.stream_age_s)}"
    if vitals.is_stream_healthy:
        return _vital("streamer", "good", "healthy", detail)
    return _vital("streamer", "bad", "not healthy", detail)


def _of_quotes(vitals: Vitals) -> Json:
    if not vitals.quotes_wanted:
        return _vital("quotes", "idle", "not needed", "nothing is watched by quotes")
    held = f"{vitals.quotes_held} of {vitals.quotes_wanted} legs quoted"
    if not vitals.is_feed_up:
        return _vital("quotes", "bad", "not connected", vitals.why_feed_down or held)
    if vitals.is_delayed:
        return _vital("quotes", "warn", "delayed", "this account's quotes are late by minutes: nothing acts on them")
    return _vital("quotes", "good" if vitals.quotes_held >= vitals.quotes_wanted else "warn", "live", held)


def _of_entries(vitals: Vitals) -> Json:
    waiting = f"{vitals.requests_waiting} requests wait" if vitals.requests_waiting else ""
    if vitals.halt_level != "none":
        return _vital("entries", "warn", f"halted: {vitals.halt_level}", vitals.halt_reason or waiting)
    return _vital("entries", "good", "allowed", waiting)


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return f"{seconds:.1f} s ago" if seconds < 10 else f"{seconds:.0f} s ago"


def overview_of(
    *,
    identity: Mapping[str, Any],
    health: list[Json],
    pictures: Iterable[Json],
    closed: Sequence[Json],
    counts: Mapping[str, int],
    unshown: int,
    at_us: int,
    is_running: bool,
) -> Json:
    """Everything at a glance. `closed`: rows of the read model, newest first; `unshown`: open ones left out."""
    shown = by_urgency(pictures)
    attention = [
        {name: each[name] for name in ("bracket_id", "client_ref", "attention")}
        for each in (*shown, *closed)
        if each["attention"]
    ]
    return {
        **identity,
        "running": is_running,
        "at": iso_from_us(at_us),
        "health": health,
        "counts": dict(counts),
        "attention": attention,
        "brackets": shown,
        "unshown": unshown,
        "closed": list(closed),
    }


def iso_from_us(at_us: int) -> str:
    at = datetime.fromtimestamp(at_us // SECOND_US, UTC).replace(microsecond=at_us % SECOND_US)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
