"""Belief beside the broker's record: what either says of a moment, and where they are apart."""

from dataclasses import replace
from typing import Any

import pytest

from otocod.beside import beliefs_of, differences, truths_from, truths_of, unread
from otocod.domain.brackets import Bracket
from otocod.domain.orders import OrderState
from tests.support.stored_records import LONG, SHORT, START_US, accepted, life

SECOND_US = 1_000_000


def answer(bracket: Bracket, **changes: Any) -> dict[str, Any]:
    """The entry as the broker shows it: received at the start, filled two seconds later."""
    entry = bracket.orders[0]
    filled_us = START_US + 2 * SECOND_US
    told = {
        "external_identifier": entry.external_identifier,
        "role": "entry",
        "broker_order_id": "77",
        "status": "Filled",
        "is_terminal": True,
        "received_us": START_US,
        "changed_us": filled_us,
        "fills": [[SHORT, 1, filled_us], [LONG, 1, filled_us]],
    }
    return {"clock_offset_us": 0, "orders": [told | changes]}


def at(seconds: float) -> int:
    return START_US + round(seconds * SECOND_US)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-1, "entry not there"), (1, "entry there 0/1"), (3, "entry Filled 1/1 at 14:13:22.123")],
)
def test_the_brokers_record_is_told_as_of_the_moment(seconds: float, told: str) -> None:
    bracket = accepted()
    assert truths_of(bracket, None, truths_from(answer(bracket), 0), at(seconds)) == [told]


def test_belief_names_what_works_filled_or_has_just_changed_and_leaves_the_rest_out() -> None:
    pending, filled, protected, closed = life()
    assert beliefs_of(pending, None) == ["entry IN_FLIGHT 0/1"]
    assert beliefs_of(filled, pending) == ["entry FILLED 1/1", "target IN_FLIGHT 0/1", "stop IN_FLIGHT 0/1"]
    assert beliefs_of(closed, protected) == ["entry FILLED 1/1", "target FILLED 1/1", "stop CANCELLED 0/1"]
    assert beliefs_of(closed, closed) == ["entry FILLED 1/1", "target FILLED 1/1"]


def test_fill_that_was_not_known_here_yet_is_told_and_one_that_is_a_moment_old_is_not() -> None:
    bracket = accepted()
    truths = truths_from(answer(bracket), 0)
    assert differences(bracket, None, truths, at(2.5)) == []
    (text,) = differences(bracket, None, truths, at(9))
    assert text == "entry: the broker had 1 of 1 filled, and 0 were known here"


def test_fill_that_the_broker_does_not_have_is_told() -> None:
    filled = life()[1]
    only_entry = replace(filled, orders=filled.orders[:1])
    truths = truths_from(answer(filled, fills=[], status="Live", is_terminal=False), 0)
    (text,) = differences(only_entry, None, truths, at(9))
    assert text == "entry: 1 of 1 were believed filled, and the broker's record has 0"


def test_end_that_was_not_known_and_end_that_was_believed_and_was_none_are_told() -> None:
    bracket = accepted()
    cancelled = truths_from(answer(bracket, fills=[], status="Cancelled"), 0)
    assert differences(bracket, None, cancelled, at(9)) == [
        "entry: it was Cancelled at the broker, which was not known here"
    ]
    ended = bracket.with_order(replace(bracket.orders[0], state=OrderState.CANCELLED))
    live = truths_from(answer(bracket, fills=[], status="Live", is_terminal=False), 0)
    assert differences(ended, bracket, live, at(9)) == [
        "entry: it was believed CANCELLED, and the broker had not ended it"
    ]


def test_order_that_was_believed_to_work_and_is_not_in_the_record_is_told() -> None:
    bracket = accepted()
    working = bracket.with_order(replace(bracket.orders[0], state=OrderState.WORKING))
    assert differences(working, None, {}, at(9)) == [
        "entry: it was believed to work, and the broker's record does not have it"
    ]


def test_clocks_that_are_apart_are_brought_together_and_a_distance_below_their_resolution_is_none() -> None:
    bracket = accepted()
    hour_us = 3600 * SECOND_US
    ahead = answer(
        bracket,
        received_us=START_US + hour_us,
        changed_us=at(2) + hour_us,
        fills=[[SHORT, 1, at(2) + hour_us], [LONG, 1, at(2) + hour_us]],
    )
    assert truths_of(bracket, None, truths_from(ahead, hour_us), at(3)) == ["entry Filled 1/1 at 14:13:22.123"]
    assert truths_of(bracket, None, truths_from(answer(bracket), 900_000), at(3)) == [
        "entry Filled 1/1 at 14:13:22.123"
    ]


def test_order_that_the_broker_does_not_have_any_more_is_named() -> None:
    bracket = accepted()
    found = answer(bracket, status=None)
    assert list(unread(found)) == ["entry 77: the broker does not have it (any more)"]
    assert truths_from(found, 0) == {}
