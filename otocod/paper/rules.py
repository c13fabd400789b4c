"""Every switch of the market's behaviour, with its default, its allowed values and what it does.

The defaults are the broker as documented; where the documents are silent or contradict each other the default is the
likelier reading and the other one is a value of the same rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from typing import Any

_HOUR_MS = 3_600_000


def _switch(default: bool, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc, "kind": "bool"})


def _choice(default: str, doc: str, *choices: str) -> Any:
    return field(default=default, metadata={"doc": doc, "kind": "choice", "choices": (default, *choices)})


def _ms(default: int, doc: str, high: int = 24 * _HOUR_MS) -> Any:
    return field(default=default, metadata={"doc": doc, "kind": "ms", "low": 0, "high": high})


def _count(default: int, doc: str, low: int = 0, high: int = 1_000_000) -> Any:
    return field(default=default, metadata={"doc": doc, "kind": "integer", "low": low, "high": high})


def _text(default: str, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc, "kind": "text"})


def _dates(doc: str) -> Any:
    return field(default=(), metadata={"doc": doc, "kind": "dates"})


def _names(default: tuple[str, ...], doc: str) -> Any:
    return field(default=default, metadata={"doc": doc, "kind": "names"})


@dataclass
class Rules:
    """Plain attributes, read at the moment they matter. `version` grows with each change."""

    # What is refused before it is routed.
    reservation: bool = _switch(True, "closing orders may not exceed the position, working ones counted")
    reserve_until: str = _choice("cancelled", "when a cancelled closing order frees its quantity", "cancel-requested")
    opposite_sides: bool = _switch(True, "refuse a buy while a sell of the same symbol works, and the reverse")
    relabel_closing: bool = _switch(True, "a close without position becomes an open, with a warning; false: refused")
    honour_strict: bool = _switch(True, "strict-position-effect-validation refuses a close without position")
    open_against_position: bool = _switch(True, "opening orders may step on an opposite position")
    hand_orders_checked: bool = _switch(True, "manual orders too pass the reservation and opposite-side checks")
    effect_check: bool = _switch(True, "an all-buy order for a credit, or all-sell for a debit, is refused")
    market_one_leg: bool = _switch(True, "Market and Stop orders have one leg")
    gtc_market_refused: bool = _switch(True, "Market orders, and Stops that open, may not be GTC or GTD")
    price_omitted: bool = _switch(True, "Market, Marketable Limit and Stop orders with a price are refused")
    future_option_stops: bool = _switch(False, "futures options may have stops")
    margin_check: bool = _switch(True, "opening orders need buying power")
    account_state: str = _choice("normal", "state of all accounts", "closing-only", "frozen", "closed")
    options_level: str = _choice("No Restrictions", "options level of all accounts", "Covered And Cash Secured")
    starting_cash: int = _count(100_000, "cash of an account after construction or reset, USD", 0, 1_000_000_000)

    # Complex orders.
    native_otoco_spreads: bool = _switch(True, "OTOCO whose components have several legs are taken")
    native_oco_spreads: bool = _switch(True, "OCO whose members have several legs are taken")
    strict_on_children: bool = _switch(True, "children may carry the strict flag before their position exists")
    oco_pair_rule: bool = _switch(True, "an OCO pair is one Limit and one Stop or Stop Limit")
    invalid_oco_price: bool = _switch(False, "refuse an OCO whose limit member would execute at once")
    armed_status: str = _choice("Live", "what armed exits of a complex order show", "Contingent")
    arm_delay_ms: int = _ms(1, "from the trigger's fill to the sending of its children")
    oco_cancel_delay_ms: int = _ms(2, "from a member's fill to the end of its sibling")
    oco_race: str = _choice("safe", "may the sibling fill inside that delay", "open", "both-fill")
    oco_partial: str = _choice("reduce-sibling", "what a part-filled member does to its sibling", "keep")
    partial_trigger_end: str = _choice("stay-contingent", "children of a trigger that ends part-filled", "cancelled")
    member_cancel: str = _choice("refuse", "DELETE of one OCO or OTOCO member by its order id", "one", "both")
    member_end: str = _choice("keep-sibling", "a member that ends unfilled and unasked", "cancel-sibling")
    replace_members: bool = _switch(True, "members of complex orders can be replaced")

    # Submission and status steps.
    initial_status: str = _choice("Routed", "status in the answer to POST", "Received")
    status_step_ms: int = _ms(1, "between Received, Routed, In Flight and Live")
    skip_steps: bool = _switch(False, "straight from the first status to Live or Filled")
    read_lag_ms: int = _ms(0, "listings do not show an order for so long after its acceptance")
    reject_after_routing: str = _text("", "when not empty, every new order is Rejected on routing with this reason")
    increment_check: str = _choice("reject", "orders off the price grid end so after routing", "cancel", "off")
    increment_covers_trigger: bool = _switch(False, "the grid binds stop-trigger too")
    increment_delay_ms: int = _ms(2, "from Live to that end")
    spread_stop_cancel_ms: int = _ms(0, "0 is off: Stop Limits of several legs are cancelled so long after routing")
    ids_restart_on_reset: bool = _switch(False, "a reset makes the order ids start again")
    penny_underlyings: tuple[str, ...] = _names(
        ("AAPL", "AMD", "AMZN", "GOOGL", "META", "MSFT", "NVDA", "TSLA"), "0.01 below 3.00 and 0.05 from there"
    )
    cent_underlyings: tuple[str, ...] = _names(("IWM", "QQQ", "SPY"), "0.01 at every price")

    # Fills.
    fill_style: str = _choice(
        "book", "resting orders at their limit, arriving ones at the natural", "limit", "natural", "none"
    )
    fill_delay_ms: int = _ms(0, "from a marketable price to the fill")
    first_filled_one_leg: bool = _switch(True, "the first Filled message has the fills of one leg only")
    partial_one_leg_first: bool = _switch(False, "the same for partial fills")
    leg_gap_ms: int = _ms(1, "from that message to the complete one")
    fills_per_leg: int = _count(1, "each execution is reported as so many fills, quantity permitting", 1, 100)
    max_units_per_fill: int = _count(0, "0 is no limit: larger orders fill in parts of so many units")
    fill_gap_ms: int = _ms(5, "between such parts")
    quoted_sizes: bool = _switch(False, "a quote fills no more than its size")
    stop_through_market: str = _choice("accept", "a stop entered beyond its trigger", "reject", "refuse")
    single_leg_stop_reference: str = _choice("natural", "what triggers stops of one leg", "last")
    trigger_delay_ms: int = _ms(0, "from the trigger price to the release of the order")

    # Cancel and replace.
    cancel_delay_ms: int = _ms(2, "from Cancel Requested to Cancelled")
    cancel_race: str = _choice("market", "what a fill inside that delay does", "cancel-wins", "fill-wins")
    cancel_cancelled_ok: bool = _switch(False, "DELETE of a Cancelled order is a no-op with 200")
    cancel_needs_cancellable: bool = _switch(False, "DELETE is refused while cancellable is false")
    stuck_cancel: bool = _switch(False, "orders stay in Cancel Requested while this is on")
    replace_delay_ms: int = _ms(2, "from Replace Requested to the original's Cancelled")
    replace_route_delay_ms: int = _ms(1, "from there to the routing of the replacement")
    replace_race: str = _choice("market", "what a fill inside that window does", "cancel-wins", "fill-wins")
    replace_partial: str = _choice("carry", "replacement of an order that part-fills in the window", "abort")
    aborted_replacement_status: str = _choice("Rejected", "end of a replacement whose original filled", "Cancelled")
    replacement_inherits_identifier: bool = _switch(False, "a replacement without external-identifier takes the old")
    replace_requires_type: bool = _switch(True, "PUT and PATCH need order-type and time-in-force")

    # Records.
    position_lag_ms: int = _ms(0, "position record, preflight and position message come so long after the fill")
    position_jitter_ms: int = _ms(0, "up to so much more, at random from the seed")
    balance_notices: str = _choice("fills", "when AccountBalance messages are sent", "orders", "off")

    # Sessions.
    sessions: str = _choice("always-open", "trading hours; real is 09:30 to 16:00 New York", "real", "closed")
    holidays: tuple[str, ...] = _dates("days without a session under real")
    half_days: tuple[str, ...] = _dates("days that close at 13:00 New York under real")
    overnight_status: str = _choice("Live", "GTC orders between sessions", "Received")
    expire_positions: bool = _switch(True, "option positions vanish at the close of their last day under real")
    close_to_expiration_minutes: int = _count(30, "opening sells are refused so long before the last close", 0, 1440)

    version: int = field(default=0, init=False, compare=False)

    def describe(self) -> list[dict[str, Any]]:
        """One entry a rule, in the order above; values are JSON-ready."""
        return [
            {
                "name": rule.name,
                "value": _plain(getattr(self, rule.name)),
                "default": _plain(rule.default),
                "kind": _kind_text(rule.metadata),
                "doc": rule.metadata["doc"],
            }
            for rule in fields(self)
            if rule.metadata
        ]

    def patch(self, changes: Mapping[str, Any]) -> None:
        """Apply all changes, or none: ValueError lists every problem, one a line."""
        known = {rule.name: rule.metadata for rule in fields(self) if rule.metadata}
        problems: list[str] = []
        values: dict[str, Any] = {}
        for name, value in changes.items():
            if name not in known:
                problems.append(f"{name}: no such rule")
                continue
            try:
                values[name] = _parsed(known[name], value)
            except ValueError as error:
                problems.append(f"{name}: {error}")
        if problems:
            raise ValueError("\n".join(problems))
        for name, value in values.items():
            setattr(self, name, value)
        self.version += 1


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value


def _kind_text(metadata: Mapping[str, Any]) -> str:
    kind = str(metadata["kind"])
    if kind == "choice":
        return "one of " + ", ".join(metadata["choices"])
    if kind in ("ms", "integer"):
        return f"{'milliseconds' if kind == 'ms' else kind} {metadata['low']}..{metadata['high']}"
    return {"dates": "list of YYYY-MM-DD", "names": "list of symbols"}.get(kind, kind)


def _parsed(metadata: Mapping[str, Any], value: Any) -> Any:
    kind = metadata["kind"]
    if kind == "bool":
        _require(isinstance(value, bool), "true or false expected")
        return value
    if kind == "choice":
        _require(value in metadata["choices"], f"one of {', '.join(metadata['choices'])} expected")
        return value
    if kind in ("ms", "integer"):
        _require(isinstance(value, int) and not isinstance(value, bool), "an integer expected")
        _require(metadata["low"] <= value <= metadata["high"], f"{metadata['low']}..{metadata['high']} expected")
        return value
    if kind == "text":
        _require(isinstance(value, str), "text expected")
        return value
    _require(
        isinstance(value, list | tuple) and all(isinstance(item, str) for item in value), "a list of text expected"
    )
    if kind == "dates":
        for item in value:
            date.fromisoformat(item)
    return tuple(value)


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)
