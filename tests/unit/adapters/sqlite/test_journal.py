"""Steps as text: enough to decide again, exact, and read back equal."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otocod.adapters.sqlite.journal import COMMANDS, EVENTS, StepUnknown, names_told, steps_from_text, text_from_steps
from otocod.domain.commands import RaiseAlarm
from otocod.domain.events import CloseRequested, OrderReported, SweepCompleted, TimeReached
from otocod.domain.specs import Action, Protection
from otocod.domain.steps import Accepted, RecordRejected, Step, TakenOver, Told
from tests.support.stored_records import SHORT, accepted, entry_filled, filled_report

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
st.register_type_strategy(Decimal, st.decimals(allow_nan=False, allow_infinity=False))
st.register_type_strategy(str, texts)
st.register_type_strategy(int, st.integers(min_value=-(2**63), max_value=2**63 - 1))


@pytest.mark.parametrize("name", EVENTS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_event_comes_back_equal(name: str, data: st.DataObject) -> None:
    step = Step(Told(5, (data.draw(st.from_type(EVENTS[name])), TimeReached())), (), 2)
    assert steps_from_text(text_from_steps([step])) == (step,)


@pytest.mark.parametrize("name", COMMANDS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_command_comes_back_equal(name: str, data: st.DataObject) -> None:
    step = Step(Told(5, ()), (data.draw(st.from_type(COMMANDS[name])), RaiseAlarm("a", "b")), 0)
    assert steps_from_text(text_from_steps([step])) == (step,)


@pytest.mark.parametrize(
    "given_to_it",
    [
        Accepted(7, (Protection.NATIVE_OCO, Protection.WATCHED), -3),
        TakenOver(7, ((SHORT, Action.SELL_TO_OPEN, 1, Decimal("0.85")),), (Protection.NATIVE_OCO,), "uid:op", 4),
        RecordRejected(7, "a constraint says no"),
    ],
    ids=["accepted", "taken over", "rejected"],
)
def test_what_else_a_bracket_is_given_comes_back_equal(given_to_it: Any) -> None:
    step = Step(given_to_it, (), 1)
    assert steps_from_text(text_from_steps([step, step])) == (step, step)


def test_each_event_is_an_object_with_its_name_and_its_fields_in_the_order_told() -> None:
    (step,) = json.loads(text_from_steps([Step(Told(9, (TimeReached(), SweepCompleted(5, 3, True))), (), 0)]))
    assert step == {
        "now_us": 9,
        "told": [
            {"event": "TimeReached", "fields": {}},
            {"event": "SweepCompleted", "fields": {"started_us": 5, "covers_from_us": 3, "is_stream_healthy": True}},
        ],
        "asked": [],
        "entries": 0,
    }


def test_prices_are_exact_text_and_ids_are_beyond_the_precision_of_a_float() -> None:
    bracket = entry_filled(accepted())
    report = filled_report(1, bracket.orders[0], "1.05", "0.20")
    events = (CloseRequested("op", Decimal("1.10")), OrderReported(report, bracket.orders[0].external_identifier))
    (step,) = json.loads(text_from_steps([Step(Told(1, events), (), 0)]))
    asked, reported = step["told"]
    assert asked["fields"] == {"by": "op", "net_price": "1.10"}
    written = reported["fields"]["report"]
    assert written["broker_order_id"] == "9007199254740994"
    assert [fill["price"] for leg in written["legs"] for fill in leg["fills"]] == ["1.05", "0.20"]


def test_events_are_named_once_each_and_a_change_without_any_is_told() -> None:
    steps = [Step(Told(1, (TimeReached(), TimeReached())), (), 0), Step(Told(1, (CloseRequested("a", None),)), (), 0)]
    assert names_told(steps) == "TimeReached, CloseRequested"
    assert names_told([]) == "Told"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '[{"now_us":1}]',
        '[{"now_us":1,"asked":[],"entries":0}]',
        '[{"now_us":1,"told":[{"event":"Later","fields":{}}],"asked":[],"entries":0}]',
        '[{"now_us":1,"told":[{"event":"CloseRequested","fields":{"by":1}}],"asked":[],"entries":0}]',
    ],
)
def test_text_that_this_release_cannot_read_is_refused(text: str) -> None:
    with pytest.raises(StepUnknown):
        steps_from_text(text)
