"""Whatever is in a row, the parser answers with a request or with reasons, soon, and with nothing else."""

import json
from copy import deepcopy
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otocod.domain.request import BracketRequest, RequestRefused, canonical_text, parse_request

EXAMPLE: dict[str, Any] = {
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
    "stop": {
        "trigger": "1.70",
        "price": "1.90",
        "price-effect": "Debit",
        "trail": {"distance": "0.20", "after-profit-percent": 25, "on": "natural", "least-move": "0.05"},
        "break-even": {"after-profit": "0.20", "keep": "0.02"},
        "tiers": [{"after-profit-percent": "50", "keep-percent": "25"}, {"after-profit": "0.60", "keep": "0.40"}],
    },
    "watch": {"on": "mid", "quotes": 3, "of": 5, "dwell-s": "2.5"},
    "time-exits": [
        {"at": "15:45", "zone": "America/New_York", "date": "2026-12-17"},
        {"minutes-before-close": 15, "days-to-expiry": 0},
        {"days-to-expiry": 21},
        {"after-s": 3600},
    ],
    "walk": {
        "target": {"start": "width", "width-percent": 30, "step": "0.01", "every-s": 2, "cap-offset": "0.05"},
        "stop": {"step": "0.05", "cap": {"price": "2.10", "price-effect": "Debit"}, "then": "hold"},
        "close": {"step": "0.02", "replaces": 5},
    },
    "not-after": "2026-11-23T16:00:00Z",
    "partial-entry": {"grace-s": 30},
    "tags": {"a": "b"},
}
NOW_US = 1_795_446_000_000_000
# The machine is shared: the time one example takes says nothing.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def answer(text: str) -> BracketRequest | None:
    """The request, or None when it was refused in proper form."""
    try:
        return parse_request(
            text, account="A", accounts=["A"], created_at_us=NOW_US, now_us=NOW_US, today=date(2026, 11, 23)
        )
    except RequestRefused as refused:
        assert refused.reasons
        assert all(reason.isprintable() and 0 < len(reason) < 500 for reason in refused.reasons)
        assert len(set(refused.reasons)) == len(refused.reasons)
        return None


@pytest.mark.covers("F106")
@UNHURRIED
@given(st.text(max_size=300))
def test_any_text_is_refused_in_proper_form(text: str) -> None:
    assert answer(text) is None


words = st.sampled_from(
    [
        *("Day", "GTC", "GTD", "IOC", "Limit", "Market", "Stop", "Stop Limit", "Debit", "Credit", "Buy", "Sell"),
        *("Sell to Open", "Buy to Close", "Equity", "Future", "Future Option", "Cryptocurrency", "AAPL", "/ESZ6"),
        *("SPXW  261218C06500000", "./ESZ6 EW4Z6 261224C6500", "2026-12-18", "watched", "target", "hold", "1e400"),
        *("natural", "mid", "mark", "15:45", "24:00", "America/New_York", "right/UTC", "2026-12-20", "unlinked"),
        *("NaN", "-1", "0", "50", "100", "0.855", "2.50", "2026-11-23T15:30:00Z", "\x00", "\ud800", "\u202e"),
    ]
)
keys = st.sampled_from(
    [
        *("version", "entry", "target", "stop", "legs", "price", "price-effect", "trigger", "quantity", "action"),
        *("watch", "on", "quotes", "of", "dwell-s", "trail", "break-even", "tiers", "time-exits", "distance", "keep"),
        *(
            "distance-percent",
            "give-back-percent",
            "after-profit",
            "after-profit-percent",
            "keep-percent",
            "least-move",
        ),
        *("at", "zone", "date", "minutes-before-close", "days-to-expiry", "after-s"),
        *("profit-percent", "loss-percent", "limit-offset", "gtc-date", "stop-trigger", "source", "rest", "tags"),
    ]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys | st.text(max_size=8), inner, max_size=5),
    max_leaves=8,
)


@pytest.mark.covers("F106")
@UNHURRIED
@given(values)
def test_any_json_is_answered_in_proper_form(value: Any) -> None:
    answer(json.dumps(value))


def places(node: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths of every value below `node`."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, child in items for place in ((*path, key), *places(child, (*path, key)))]


PLACES = places(EXAMPLE)


@pytest.mark.covers("F106")
@settings(UNHURRIED, max_examples=400)
@given(st.lists(st.tuples(st.sampled_from(PLACES), values | st.just(...)), min_size=1, max_size=3))
def test_any_change_to_a_good_request_is_answered_in_proper_form(changes: list[tuple[Any, Any]]) -> None:
    request = deepcopy(EXAMPLE)
    for place, value in changes:
        set_at(request, place, value)
    accepted = answer(json.dumps(request))
    if accepted is not None:
        assert answer(accepted.text) == accepted
        assert canonical_text(accepted.text) == accepted.text


def set_at(node: Any, place: tuple[str | int, ...], value: Any) -> None:
    """Set or, by `...`, remove the value; a place that an earlier change took away is left alone."""
    *way, last = place
    try:
        for key in way:
            node = node[key]
        if value is ...:
            del node[last]
        else:
            node[last] = value
    except (KeyError, IndexError, TypeError):
        return


@pytest.mark.covers("F106")
@UNHURRIED
@given(
    cut=st.integers(min_value=0, max_value=2000),
    insert=st.sampled_from(['"', "{", "]", "\\", ",", "NaN", "\x00", '"version":1,']),
)
def test_any_damage_to_the_text_is_answered_in_proper_form(cut: int, insert: str) -> None:
    text = json.dumps(EXAMPLE)
    answer(text[:cut] + insert + text[cut:])
    answer(text[:cut])


@pytest.mark.covers("F105")
@UNHURRIED
@given(st.permutations(list(EXAMPLE)), st.sampled_from([None, 2, "\t"]), st.booleans())
def test_canonical_text_ignores_order_space_and_zeros(order: list[str], indent: Any, as_number: bool) -> None:
    shuffled = {key: deepcopy(EXAMPLE[key]) for key in order}
    shuffled["entry"]["price"] = 0.85 if as_number else "0.8500"
    assert canonical_text(json.dumps(shuffled, indent=indent)) == canonical_text(json.dumps(EXAMPLE))
