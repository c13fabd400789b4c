from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otocod.adapters.sqlite import codec, tables
from otocod.adapters.sqlite.codec import StoredRecordUnreadable, rows_from_change
from otocod.adapters.sqlite.journal import text_from_steps
from otocod.domain.brackets import Close, ClosePurpose
from otocod.domain.events import TimeReached
from otocod.domain.ids import ExternalIdentifier, FillId
from otocod.domain.orders import Order, Refusal
from otocod.domain.quotes import PriceBasis
from otocod.domain.request_types import BracketRequest, StopByPercent, StopMarket, TargetByPrice
from otocod.domain.specs import Leg, OrderSpec, Role, TimeInForce
from otocod.domain.steps import Step, Told
from otocod.domain.time_exits import (
    AfterFill,
    AtOpen,
    BeforeClose,
    ClockTime,
    DaysToExpiry,
    FirstDay,
    OnDate,
    OnDay,
)
from otocod.domain.trailing import Amount, StopRules, Tier, Trail, TrailKind
from otocod.domain.walking import FinalAction, Walk, WalkRule, WalkStart
from otocod.domain.watching import WatchPolicy
from tests.support.stored_records import a_request, accepted, change, entry_filled, life, limit

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
whole = st.integers(min_value=-(2**63), max_value=2**63 - 1)
decimals = st.decimals(allow_nan=False, allow_infinity=False)
legs = st.builds(Leg, symbol=texts, quantity=st.integers(1, 10**6))
st.register_type_strategy(Decimal, decimals)
st.register_type_strategy(str, texts)
st.register_type_strategy(int, whole)
specs = st.builds(OrderSpec, legs=st.lists(legs, min_size=1, max_size=4).map(tuple))

amounts = st.builds(Amount, st.decimals("0.01", 1000, places=2), st.booleans())
trails = st.one_of(
    st.builds(Trail, st.just(TrailKind.DISTANCE), distance=amounts, after=st.none() | amounts),
    st.builds(
        Trail,
        st.just(TrailKind.GIVE_BACK),
        give_back_percent=st.decimals("0.1", 100, places=1),
        after=st.none() | amounts,
    ),
)
stop_rules = st.builds(
    StopRules,
    trail=st.none() | trails,
    tiers=st.lists(st.builds(Tier, amounts, amounts), max_size=9).map(tuple),
    basis=st.sampled_from(PriceBasis),
)
days = st.builds(FirstDay) | st.builds(OnDate, st.dates()) | st.builds(DaysToExpiry, st.integers(0, 3650))
moments = st.one_of(
    st.builds(ClockTime, st.integers(0, 1439), texts), st.builds(BeforeClose, st.integers(1, 390)), st.builds(AtOpen)
)
time_exits = st.builds(OnDay, days, moments) | st.builds(AfterFill, st.integers(1, 2**53))
watch_policies = st.integers(2, 20).flatmap(
    lambda window: st.builds(
        WatchPolicy, needed=st.integers(2, window), window=st.just(window), dwell_us=st.integers(0, 300_000_000)
    )
)
walks = st.builds(
    WalkRule,
    st.builds(
        Walk,
        start=st.sampled_from(WalkStart),
        step=st.just(Decimal("0.05")),
        interval_us=st.integers(1, 300_000_000),
        final=st.sampled_from(FinalAction),
        max_replaces=st.integers(0, 60),
        width_percent=st.just(Decimal("12.5")),
    ),
    st.none() | decimals,
    st.none() | decimals,
)
requests = st.builds(
    BracketRequest,
    entry=specs,
    walks=st.lists(st.tuples(st.sampled_from(Role), walks), max_size=4).map(tuple),
    watch_basis=st.sampled_from(PriceBasis),
    watch_policy=watch_policies,
    time_exits=st.lists(time_exits, max_size=4).map(tuple),
    stop_rules=st.none() | stop_rules,
    stop_least_move=st.none() | decimals,
)


def row_of(statement: codec.Statement, table: Any, rows: list[codec.Row]) -> dict[str, Any]:
    names = [column.name for column in table.columns]
    return next(dict(zip(names, values, strict=True)) for found, values in rows if found is statement)


@settings(max_examples=60, deadline=None)
@given(request=requests)
def test_any_request_comes_back_equal_and_typed(request: BracketRequest) -> None:
    again = codec.request_from_json(codec.request_json(request), request.text)
    assert again == request
    assert type(again.target) is type(request.target)
    assert type(again.stop) is type(request.stop)


@settings(max_examples=60, deadline=None)
@given(spec=specs, data=st.data())
def test_any_order_comes_back_equal(spec: OrderSpec, data: st.DataObject) -> None:
    known = accepted()
    order: Order = data.draw(st.builds(Order, spec=st.just(spec), role=st.just(Role.STOP)))
    rows = rows_from_change(change(None, replace(known, orders=(order,), staged=())))
    assert codec.order_from_row(row_of(codec.INSERT_ORDER, tables.orders, rows)) == order


@pytest.mark.parametrize(
    "changes",
    [
        {"target": TargetByPrice(Decimal("0.40"))},
        {"stop": StopByPercent(Decimal("100"), Decimal("0.20"))},
        {"stop": StopByPercent(Decimal("100"), None)},
        {"stop": StopMarket(Decimal("3"))},
        {"target": None},
        {"stop": None},
        {"entry": replace(limit("-0.85"), time_in_force=TimeInForce.GTD, gtc_date=date(2026, 12, 18))},
        {"entry": replace(limit("-0.85"), automated_source=False)},
        {"watch_basis": PriceBasis.MARK, "watch_policy": WatchPolicy(3, 5, 2_500_000)},
        {"time_exits": (OnDay(FirstDay(), AtOpen()), AfterFill(1))},
        {"time_exits": (OnDay(OnDate(date(2026, 12, 18)), ClockTime(945, "America/New_York")),)},
        {"time_exits": (OnDay(DaysToExpiry(0), BeforeClose(15)),)},
        {"stop_rules": StopRules(Trail(TrailKind.GIVE_BACK, give_back_percent=Decimal(40)), basis=PriceBasis.NATURAL)},
        {"stop_rules": StopRules(tiers=(Tier(Amount(Decimal(25), is_percent=True), Amount(Decimal(0))),))},
        {"stop_least_move": Decimal("0.05")},
    ],
)
def test_each_alternative_of_a_request_comes_back_equal(changes: dict[str, Any]) -> None:
    request = a_request(**changes)
    assert codec.request_from_json(codec.request_json(request), request.text) == request


def test_request_stored_before_there_were_watches_and_moving_stops_takes_their_defaults() -> None:
    request = a_request()
    stored = msgspec.json.decode(codec.request_json(request))
    del stored["time_exits"]
    for name in ("watch_basis", "watch_policy", "stop_rules", "stop_least_move", "walks"):
        del stored["rest"][name]
    assert codec.request_from_json(codec.to_json(stored), request.text) == request


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"day": ["first", {}]},
        {"day": ["first", {}], "moment": ["noon", {}]},
        {"day": ["first", {}], "moment": ["before-close", {"minutes": 0}]},
        {"after_fill_us": 5, "is_trading_time": True},
    ],
)
def test_time_exit_that_this_code_cannot_read_is_refused_and_not_dropped(stored: dict[str, Any]) -> None:
    row = row_of(codec.INSERT_BRACKET, tables.brackets, rows_from_change(change(None, accepted())))
    request = msgspec.json.decode(row["request_json"])
    damaged = row | {"request_json": codec.to_json(request | {"time_exits": [stored]})}
    with pytest.raises(StoredRecordUnreadable):
        codec.bracket_from_rows(damaged, [], [])


def test_fields_without_columns_come_back_equal() -> None:
    bracket = replace(
        accepted(),
        close=Close(ClosePurpose.OPERATOR, "alice", Decimal("1.05"), since_us=5, tries=2),
        moved=((Role.TARGET, limit("0.30", closing=True)),),
        is_frozen=True,
        is_held=True,
        verified_group=ExternalIdentifier("group"),
        orders=(replace(accepted().orders[0], refusal=Refusal(422, ("a", "b"), "no"), retries=3),),
    )
    rows = rows_from_change(change(None, bracket))
    order = codec.order_from_row(row_of(codec.INSERT_ORDER, tables.orders, rows))
    unused = [(role, name, tables.IdStatus.STAGED) for role, name in bracket.staged]
    again = codec.bracket_from_rows(row_of(codec.INSERT_BRACKET, tables.brackets, rows), [order], unused)
    assert again == bracket


def test_a_change_writes_only_what_changed() -> None:
    stages = life()
    rows = [statement for statement, _ in rows_from_change(change(stages[1], stages[2]))]
    # Target and stop went to work; the entry, its fills and the ids stayed as they were.
    assert rows == [codec.UPDATE_BRACKET, codec.UPDATE_ORDER, codec.UPDATE_ORDER, codec.INSERT_JOURNAL]


def test_a_fill_that_comes_later_is_written_alone() -> None:
    before = entry_filled(accepted())
    entry = before.orders[0]
    view = entry.views[0]
    leg = replace(view.legs[0], fills=(*view.legs[0].fills, replace(view.legs[0].fills[0], fill_id=FillId("late"))))
    after = before.with_order(replace(entry, views=(replace(view, legs=(leg, view.legs[1])),)))
    written = [values for statement, values in rows_from_change(change(before, after)) if statement is codec.PUT_FILL]
    assert [values[1] for values in written] == ["late"]


@pytest.mark.parametrize(
    ("price", "text"),
    [("-0.85", "-0.85"), ("0.4", "0.40"), ("0.125", "0.125"), ("1", "1.00"), ("1E+3", "1000.00"), ("-0", "0.00")],
)
def test_prices_keep_two_decimals_at_least(price: str, text: str) -> None:
    assert codec.price_text(Decimal(price)) == text


def test_a_field_from_newer_code_is_refused_and_not_dropped() -> None:
    order = accepted().orders[0]
    row = row_of(codec.INSERT_ORDER, tables.orders, rows_from_change(change(None, accepted())))
    more = msgspec.json.decode(row["more_json"])
    assert codec.order_from_row(row) == order
    with pytest.raises(StoredRecordUnreadable, match="is_withdrawn"):
        codec.order_from_row(row | {"more_json": codec.to_json({**more, "is_withdrawn": True})})


def test_a_field_that_old_rows_lack_takes_its_default() -> None:
    row = row_of(codec.INSERT_ORDER, tables.orders, rows_from_change(change(None, accepted())))
    more = msgspec.json.decode(row["more_json"])
    del more["retries"]
    assert codec.order_from_row(row | {"more_json": codec.to_json(more)}) == accepted().orders[0]


def test_a_decision_without_entries_still_leaves_what_it_was_told() -> None:
    before = accepted()
    after = replace(before, version=1)
    step = Step(Told(after.created_at_us + 1, (TimeReached(),)), (), 0)
    rows = rows_from_change(change(before, after, told=TimeReached(), journal=()))
    journal = [values for statement, values in rows if statement is codec.INSERT_JOURNAL]
    assert [(row[2], row[3], row[4], row[6]) for row in journal] == [
        ("TimeReached", "PENDING_ENTRY", "PENDING_ENTRY", text_from_steps([step]))
    ]
