"""Every fault the paper broker can commit, with the words that `GET /faults` shows.

A fault strikes at an opportunity: one REST request, one listing, one streamer frame, one handshake. Which
opportunities count is narrowed by `match`; whether it strikes is drawn by `rate`, or forced by `next`. `faults.py`
keeps the settings and draws, `fault_plans.py` turns what was drawn into a plan for one request or frame, `rest.py`,
`streamer.py` and `dxlink.py` carry it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Site = Literal["request", "token", "listing", "frame", "streamer", "quotes"]
Setting = bool | int | str

# A submission of an order or a complex order; a dry run ends otherwise and does not count.
SUBMISSIONS: Mapping[str, str] = {"method": "POST", "path": "orders$"}


@dataclass(frozen=True)
class FaultSpec:
    name: str
    site: Site
    doc: str
    match: Mapping[str, str] = field(default_factory=dict)  # used when a setting brings none of its own
    settings: Mapping[str, Setting] = field(
        default_factory=dict
    )  # further settings with their defaults; the type is the default's
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_HOLD = {"hold_ms": 120_000}

FAULTS: tuple[FaultSpec, ...] = (
    FaultSpec("request_reset", "request", "The connection is reset; nothing was done.", SUBMISSIONS),
    FaultSpec(
        "request_lost", "request", "Nothing is done and no answer comes until the client gives up.", SUBMISSIONS, _HOLD
    ),
    FaultSpec(
        "error_before",
        "request",
        "An error answer; nothing was done. `html` makes it the proxy's page.",
        SUBMISSIONS,
        {"status": 500, "html": False},
    ),
    FaultSpec("unavailable", "request", "503 from the proxy, an HTML page; nothing was done.", {}, {"html": True}),
    FaultSpec("too_many_requests", "request", "429, without any rate-limit header; nothing was done."),
    FaultSpec("unauthorized", "request", "401 as for an expired token, though the token is good; nothing was done."),
    FaultSpec("token_death", "request", "Every access token issued so far is worthless from this request on; 401."),
    FaultSpec(
        "late_acceptance",
        "request",
        "No answer now (or a 502 page at once); the request is carried out `delay_ms` later.",
        SUBMISSIONS,
        {"delay_ms": 2_000, "answer": "none", "hold_ms": 120_000},
        {"answer": ("none", "502")},
    ),
    FaultSpec(
        "duplicated",
        "request",
        "A proxy replays the request: it is carried out twice, so two orders carry one external identifier.",
        SUBMISSIONS,
        {"answer": "first"},
        {"answer": ("first", "second")},
    ),
    FaultSpec(
        "answer_lost", "request", "Carried out, but no answer comes until the client gives up.", SUBMISSIONS, _HOLD
    ),
    FaultSpec("answer_reset", "request", "Carried out, then the connection is reset.", SUBMISSIONS),
    FaultSpec(
        "error_after",
        "request",
        "Carried out, but the answer is an error; `html` makes it the proxy's page.",
        SUBMISSIONS,
        {"status": 500, "html": False},
    ),
    FaultSpec("body_truncated", "request", "Carried out; the answer breaks off in the middle.", SUBMISSIONS),
    FaultSpec("body_html", "request", "Carried out; a good status with an HTML page instead of JSON.", SUBMISSIONS),
    FaultSpec("body_empty", "request", "Carried out; a good status with an empty body.", SUBMISSIONS),
    FaultSpec(
        "wrong_echo",
        "request",
        "Carried out; the answer shows another order: other id, other external identifier.",
        SUBMISSIONS,
    ),
    FaultSpec(
        "slow",
        "request",
        "The request is carried out `delay_ms` late (`where: before`), or its answer is held so long (`after`).",
        {},
        {"delay_ms": 500, "where": "before"},
        {"where": ("before", "after")},
    ),
    FaultSpec(
        "stream_first",
        "request",
        "The answer is held until `delay_ms` after the streamer's messages about it were sent.",
        {},
        {"delay_ms": 50},
    ),
    FaultSpec(
        "stream_last",
        "request",
        "The streamer is held until `delay_ms` after the answer was written.",
        {},
        {"delay_ms": 50},
    ),
    FaultSpec(
        "token_refused",
        "token",
        "POST /oauth/token is refused with an RFC 6749 body.",
        {},
        {"status": 400, "error": "invalid_grant"},
    ),
    FaultSpec(
        "token_unavailable",
        "token",
        "The token service is down: a 503 page, silence, or a reset.",
        {},
        {"mode": "503", "hold_ms": 120_000},
        {"mode": ("503", "silence", "reset")},
    ),
    FaultSpec(
        "page_missing",
        "listing",
        "Page `page` (0 is the first) of a paged listing comes without its rows.",
        {},
        {"page": 1},
    ),
    FaultSpec(
        "page_total_wrong",
        "listing",
        "`total-items` of a paged listing is `by` too small, pages with it.",
        {},
        {"by": 1},
    ),
    FaultSpec(
        "page_rows_moved",
        "listing",
        "Rows moved between two pages: every page after the first starts `by` later.",
        {},
        {"by": 1},
    ),
    FaultSpec(
        "listing_lag",
        "listing",
        "Orders younger than `lag_ms` are missing in lists (`single` also by their id).",
        {},
        {"lag_ms": 2_000, "single": False},
    ),
    FaultSpec("frame_lost", "frame", "The message is never sent."),
    FaultSpec("frame_doubled", "frame", "The message is sent twice."),
    FaultSpec(
        "frame_delayed", "frame", "The message is sent `delay_ms` late; others overtake it.", {}, {"delay_ms": 500}
    ),
    FaultSpec(
        "frame_reordered",
        "frame",
        "The message is sent after the next one, at the latest `delay_ms` later.",
        {},
        {"delay_ms": 200},
    ),
    FaultSpec(
        "frame_stale", "frame", "The previous message about the same order (or position) is sent again behind this one."
    ),
    FaultSpec("frame_wrapped", "frame", "The message comes as the only one of a `results` list."),
    FaultSpec("frame_unknown_type", "frame", "A message of a type nobody knows goes before this one."),
    FaultSpec("frame_unknown_status", "frame", "The order's status is a word nobody knows.", {}, {"value": "Dead"}),
    FaultSpec("frame_fills_missing", "frame", "The order's fills are left out of this message."),
    FaultSpec("frame_garbage", "frame", "A text that is no JSON goes before this message."),
    FaultSpec(
        "streamer_refused", "streamer", "The websocket handshake is answered with `status`.", {}, {"status": 503}
    ),
    FaultSpec("streamer_silent", "streamer", "Nothing is sent: no messages, no answers; only websocket pongs."),
    FaultSpec("streamer_half_open", "streamer", "As silent, and websocket pings are not answered either."),
    FaultSpec(
        "streamer_bye",
        "streamer",
        "The connection is closed instead of answering or sending.",
        {},
        {"code": 1000, "reason": "Bye"},
    ),
    FaultSpec("connect_refused", "streamer", "`connect` is answered with an error.", {}, {"message": "failed"}),
    FaultSpec("connect_deaf", "streamer", "`connect` is answered ok, but no account is subscribed."),
    FaultSpec("connect_wrong_accounts", "streamer", "`connect` is answered ok for another account number."),
    FaultSpec("heartbeat_unanswered", "streamer", "A heartbeat counts but is not answered."),
    FaultSpec(
        "dxlink_refused",
        "quotes",
        "The quote feed's websocket handshake is answered with `status`.",
        {},
        {"status": 503},
    ),
    FaultSpec("dxlink_silent", "quotes", "The quote feed sends nothing, not even keep-alives."),
    FaultSpec("dxlink_half_open", "quotes", "As silent, and websocket pings are not answered either."),
    FaultSpec(
        "dxlink_bye",
        "quotes",
        "The quote feed closes the connection instead of sending a message: a gap.",
        {},
        {"code": 1001, "reason": "Going away"},
    ),
    FaultSpec("dxlink_garbage", "quotes", "A text that is no JSON goes before a message of the quote feed."),
    FaultSpec(
        "dxlink_error",
        "quotes",
        "An ERROR is sent instead of a message of the quote feed.",
        {},
        {"error": "TIMEOUT", "message": "an internal error"},
    ),
    FaultSpec("dxlink_channel_closed", "quotes", "The channel is closed instead of sending a message on it."),
    FaultSpec("dxlink_token_refused", "quotes", "AUTH is answered with UNAUTHORIZED, though the token is good."),
    FaultSpec(
        "dxlink_token_death", "quotes", "Instead of a message the connection is told UNAUTHORIZED, as for an old token."
    ),
    FaultSpec("quote_lost", "quotes", "A quote event is never sent; the book moves on, so what was sent is stale."),
    FaultSpec("quote_doubled", "quotes", "A quote event is sent twice."),
    FaultSpec("quote_nan", "quotes", "A quote event comes with NaN prices."),
    FaultSpec("quote_infinite", "quotes", "A quote event comes with an infinite ask."),
    FaultSpec("quote_crossed", "quotes", "A quote event comes with bid and ask in each other's place."),
    FaultSpec("quote_zero_bid", "quotes", "A quote event comes with a bid of 0."),
    FaultSpec("quote_wide", "quotes", "A quote event comes with each side moved away by `by`.", {}, {"by": "5.00"}),
    FaultSpec(
        "quote_lying", "quotes", "A quote event comes with these prices instead.", {}, {"bid": "0.01", "ask": "0.02"}
    ),
    FaultSpec("quote_short", "quotes", "The last value of a quote event is missing."),
)

BY_NAME: Mapping[str, FaultSpec] = {spec.name: spec for spec in FAULTS}

MATCH_KEYS: Mapping[Site, tuple[str, ...]] = {
    "request": ("method", "path", "order_type", "effect", "external_identifier"),
    "token": (),
    "listing": ("path",),
    "frame": ("type", "status", "order_type", "effect", "external_identifier", "account"),
    "streamer": ("action",),
    "quotes": ("symbol",),
}

COMMON_SETTINGS: Mapping[str, str] = {
    "rate": "chance from 0 to 1 that an opportunity is struck; false is 0, true is 1",
    "next": "so many of the coming opportunities are struck for certain; counts down",
    "count": "strike at most so often altogether, null for no limit",
    "match": "narrows the opportunities: an object of regular expressions, searched, all of which must be found",
}
