"""Events as text: enough to decide again."""

import json
from decimal import Decimal

from otocod.domain.events import (
    ChangeRequested,
    CloseRequested,
    OrderReported,
    SubmitRefused,
    SweepCompleted,
    TimeReached,
)
from otocod.domain.ids import ExternalIdentifier
from otocod.domain.orders import Refusal
from otocod.domain.specs import Role
from otocod.engine.journal import text_from_events
from tests.support.stored_records import accepted, entry_filled, filled_report, stop_limit


def test_each_event_is_an_object_with_its_name_and_its_fields_in_the_order_told() -> None:
    text = text_from_events([TimeReached(), SweepCompleted(5, 3, True)])
    assert json.loads(text) == [
        {"event": "TimeReached", "fields": {}},
        {"event": "SweepCompleted", "fields": {"started_us": 5, "covers_from_us": 3, "is_stream_healthy": True}},
    ]


def test_no_events_are_an_empty_array() -> None:
    assert text_from_events([]) == "[]"


def test_prices_are_exact_text_and_never_a_float() -> None:
    (told,) = json.loads(text_from_events([CloseRequested("op", Decimal("1.10"))]))
    assert told["fields"] == {"by": "op", "net_price": "1.10"}


def test_report_keeps_ids_beyond_the_precision_of_a_float_fills_and_status() -> None:
    bracket = entry_filled(accepted())
    report = filled_report(1, bracket.orders[0], "1.05", "0.20")
    (told,) = json.loads(text_from_events([OrderReported(report, bracket.orders[0].external_identifier)]))
    written = told["fields"]["report"]
    assert written["broker_order_id"] == "9007199254740994"
    assert written["status"] == "Filled"
    assert [fill["price"] for leg in written["legs"] for fill in leg["fills"]] == ["1.05", "0.20"]


def test_refusal_and_changed_exits_are_written_whole() -> None:
    refused = SubmitRefused((ExternalIdentifier("x"),), Refusal(422, ("margin_check_failed",), "no"))
    changed = ChangeRequested("op", ((Role.STOP, stop_limit("1.80", "2.00")),))
    first, second = json.loads(text_from_events([refused, changed]))
    assert first["fields"]["refusal"] == {"http_status": 422, "codes": ["margin_check_failed"], "message": "no"}
    ((role, spec),) = second["fields"]["specs"]
    assert (role, spec["stop_trigger"], spec["net_price"]) == ("stop", "1.80", "2.00")
