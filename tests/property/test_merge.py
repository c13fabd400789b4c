"""However the messages of an order arrive, the same is known in the end, and never less than before.

A history is what the broker could truthfully say: each order of a replacement chain goes through its statuses, fills
grow leg by leg, the next order is for what remained. Then messages are shuffled, repeated, thinned of fills or legs,
and all but the last of each order may be lost.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otocod.domain.brackets import Bracket
from otocod.domain.decide import decide_all
from otocod.domain.events import (
    ComplexReport,
    ComplexReported,
    Event,
    OrderReported,
    SubmitConfirmed,
    SweepCompleted,
)
from otocod.domain.ids import BrokerOrderId, ExternalIdentifier, FillId
from otocod.domain.invariants import violations_of
from otocod.domain.orders import BrokerStatus as W
from otocod.domain.orders import Fill, LegReport, Order, OrderReport, OrderState, View, join_all, view_from_report
from otocod.domain.specs import OrderSpec, Protection, Role
from tests.support.core import Core, parsed, report_of
from tests.support.desk import LONG, SHORT, START_US

SYMBOLS = (SHORT, LONG)
BEFORE = (W.UNRECOGNISED, W.RECEIVED, W.ROUTED, W.IN_FLIGHT, W.CONTINGENT, W.LIVE)
LAST_WORDS = (W.LIVE, W.CANCELLED, W.EXPIRED, W.REJECTED, W.REMOVED, W.PARTIALLY_REMOVED)
SIZES = {size: parsed(quantity=size).entry for size in (1, 2, 3)}


def blank(size: int) -> Order:
    return Order(ExternalIdentifier("x-1"), Role.ENTRY, SIZES[size], OrderState.IN_FLIGHT, START_US)


class History:
    """Of each order of the chain, `finals`: its last report, all there is to know of it; `specs`: what it was for."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.reports: list[OrderReport] = []
        self.finals: list[OrderReport] = []
        self.specs: list[OrderSpec] = []

    @property
    def order(self) -> Order:
        return join_all(blank(self.size), tuple(self.reports))


@st.composite
def histories(draw: st.DrawFn) -> History:
    history = History(draw(st.sampled_from(sorted(SIZES))))
    left = history.size
    first_id = draw(st.integers(8, 99))
    links = draw(st.integers(1, 3))
    for number in range(links):
        link = _Link(draw, history, first_id + number, left)
        link.replaces = None if number == 0 else BrokerOrderId(str(first_id + number - 1))
        left = link.live(is_last=number == links - 1)
        if left == 0:
            break
    return history


class _Link:
    replaces: BrokerOrderId | None

    def __init__(self, draw: st.DrawFn, history: History, number: int, size: int) -> None:
        self.draw = draw
        self.history = history
        self.number = number
        whole = SIZES[history.size]
        self.spec: OrderSpec = replace(whole, legs=tuple(replace(leg, quantity=size) for leg in whole.legs))
        self.size = size

    def live(self, *, is_last: bool) -> int:
        """The link's reports, in their true order; returns the units it leaves."""
        for status in self.draw(st.lists(st.sampled_from(BEFORE), unique=True).map(sorted_by_progress)):
            self.say(status, 0, 0)
        done = self.draw(st.integers(0, self.size))
        for unit in range(1, done + 1):
            # Filled is said as soon as the first leg is complete.
            status = W.FILLED if unit == self.size else W.LIVE
            first, second = self.draw(st.sampled_from([(unit, unit - 1), (unit - 1, unit), (unit, unit)]))
            self.say(status, first, second)
            self.say(status, unit, unit)
        if done < self.size:
            if is_last:
                self.say(self.draw(st.sampled_from(LAST_WORDS)), done, done)
            else:
                self.say(W.REPLACE_REQUESTED, done, done)
                self.say(W.CANCELLED, done, done, replaced_by=BrokerOrderId(str(self.number + 1)))
        self.history.finals.append(self.history.reports[-1])
        self.history.specs.append(self.spec)
        return self.size - done

    def say(self, status: W, short: int, long: int, **fields: Any) -> None:
        filled = {SHORT: short, LONG: long}
        report = report_of(self.spec, str(self.number), status, filled, replaces=self.replaces, **fields)
        self.history.reports.append(report)


def sorted_by_progress(statuses: Iterable[W]) -> list[W]:
    return sorted(statuses, key=list(W).index)


def without_fills(report: OrderReport) -> OrderReport:
    return replace(report, legs=tuple(replace(leg, fills=()) for leg in report.legs))


def without_legs(report: OrderReport) -> OrderReport:
    return replace(report, legs=())


def without_remaining(report: OrderReport) -> OrderReport:
    return replace(report, legs=tuple(replace(leg, remaining=None) for leg in report.legs))


def without_links(report: OrderReport) -> OrderReport:
    return replace(report, replaced_by=None)


DAMAGES: tuple[Callable[[OrderReport], OrderReport], ...] = (
    without_fills,
    without_legs,
    without_remaining,
    without_links,
)


@st.composite
def arrivals(draw: st.DrawFn, history: History) -> list[OrderReport]:
    """The history as it may reach us: some lost, some damaged, some twice, in any order; the finals whole."""
    kept = draw(st.lists(st.sampled_from(history.reports), max_size=12))
    damaged = [
        draw(st.sampled_from(DAMAGES))(report)
        for report in draw(st.lists(st.sampled_from(history.reports), max_size=4))
    ]
    return draw(st.permutations([*history.finals, *kept, *damaged]))


@pytest.mark.covers("F22", "F23", "F25", "F30", "F59")
@given(data=st.data())
@settings(deadline=None)
def test_every_arrival_of_a_history_ends_in_the_same_knowledge(data: st.DataObject) -> None:
    history = data.draw(histories())
    arrived = data.draw(arrivals(history))
    assert join_all(blank(history.size), tuple(arrived)) == history.order


def is_guessed(order: Order, symbol: str) -> bool:
    """Filled in another one's place, by a status alone: taken for all that was asked until the legs say how much."""
    return any(v.status is W.FILLED and v.replaces is not None and not v.has_leg(symbol) for v in order.views)


@pytest.mark.covers("F23", "F24", "F25", "F42")
@given(data=st.data())
@settings(deadline=None)
def test_knowledge_only_grows_and_never_exceeds_the_order(data: st.DataObject) -> None:
    history = data.draw(histories())
    arrived = data.draw(arrivals(history))
    known = list(accumulate(arrived, Order.learn, initial=blank(history.size)))
    for earlier, later in pairwise(known):
        for symbol in SYMBOLS:
            assert 0 <= later.filled(symbol) <= history.size
            assert is_guessed(earlier, symbol) or earlier.filled(symbol) <= later.filled(symbol)
        assert set(earlier.fills) <= set(later.fills)
        ended = {view.broker_order_id for view in earlier.views if view.status.is_terminal}
        assert ended <= {view.broker_order_id for view in later.views if view.status.is_terminal}


@pytest.mark.covers("F59")
@given(data=st.data())
@settings(deadline=None)
def test_the_end_of_the_chain_speaks_for_it(data: st.DataObject) -> None:
    history = data.draw(histories())
    order = join_all(blank(history.size), tuple(data.draw(arrivals(history))))
    assert order.head is not None
    assert order.head.broker_order_id == history.finals[-1].broker_order_id
    done = sum(leg.quantity - (leg.remaining or 0) for report in history.finals for leg in report.legs)
    assert sum(order.filled(symbol) for symbol in SYMBOLS) == done


@pytest.mark.covers("F22", "F30")
@given(data=st.data())
@settings(deadline=None)
def test_two_halves_joined_apart_agree_whichever_is_told_first(data: st.DataObject) -> None:
    history = data.draw(histories())
    snapshot, stream = data.draw(arrivals(history)), data.draw(arrivals(history))
    start = blank(history.size)
    assert join_all(start, (*snapshot, *stream)) == join_all(start, (*stream, *snapshot))


@pytest.mark.covers("F42")
@given(data=st.data())
@settings(deadline=None)
def test_fill_after_the_end_counts_and_the_end_stays(data: st.DataObject) -> None:
    history = data.draw(histories())
    last, spec = history.finals[-1], history.specs[-1]
    ended = history.order.learn(replace(last, status=W.CANCELLED, status_text="Cancelled"))
    whole = {leg.symbol: leg.quantity for leg in spec.legs}
    after = ended.learn(report_of(spec, last.broker_order_id, W.CANCELLED, whole, replaces=last.replaces))
    assert all(after.filled(symbol) == history.size for symbol in SYMBOLS)
    assert after.head is not None
    assert after.head.status.is_terminal


# The laws of the join by itself, for whatever the broker may say of one id, true or not.


@st.composite
def fills(draw: st.DrawFn) -> Fill:
    number = draw(st.integers(1, 3))
    price, quantity = draw(st.sampled_from([Decimal("1.15"), Decimal("2")])), draw(st.integers(0, 2))
    return Fill(FillId(f"f{number}"), quantity, price, draw(st.sampled_from([None, START_US, START_US + 1])))


@st.composite
def leg_reports(draw: st.DrawFn, symbol: str) -> LegReport:
    quantity = draw(st.integers(0, 3))
    remaining = draw(st.none() | st.integers(0, 4))
    return LegReport(symbol, None, quantity, remaining, tuple(draw(st.lists(fills(), max_size=3))))


texts = st.none() | st.sampled_from(["1", "2", "x"])
order_ids = st.none() | st.sampled_from([BrokerOrderId("7"), BrokerOrderId("9")])


@st.composite
def any_reports(draw: st.DrawFn) -> OrderReport:
    status = draw(st.sampled_from(W))
    symbols = draw(st.lists(st.sampled_from(SYMBOLS), unique=True))
    return OrderReport(
        broker_order_id=BrokerOrderId("8"),
        status=status,
        status_text=draw(st.sampled_from(["a", "b"])) if status is W.UNRECOGNISED else status.value,
        legs=tuple(draw(leg_reports(symbol)) for symbol in symbols),
        source=draw(texts),
        net_price=draw(st.none() | st.sampled_from([Decimal("-0.85"), Decimal("0.40")])),
        replaces=draw(order_ids),
        replaced_by=draw(order_ids),
        cancelled_by=draw(texts),
        reject_reason=draw(texts),
    )


views = any_reports().map(view_from_report)


@pytest.mark.covers("F22", "F23", "F25")
@given(one=views, other=views, third=views)
@settings(deadline=None)
def test_join_of_views_is_commutative_associative_and_idempotent(one: View, other: View, third: View) -> None:
    assert one.join(other) == other.join(one)
    assert one.join(other).join(third) == one.join(other.join(third))
    assert one.join(one) == one
    assert one.join(other).join(other) == one.join(other)


@pytest.mark.covers("F23", "F25")
@given(one=views, other=views)
@settings(deadline=None)
def test_join_of_views_loses_nothing(one: View, other: View) -> None:
    both = one.join(other)
    assert not one.status.is_terminal or both.status.is_terminal
    for leg in one.legs:
        joined = next(each for each in both.legs if each.symbol == leg.symbol)
        assert {fill.fill_id for fill in leg.fills} <= {fill.fill_id for fill in joined.fills}
        assert joined.quantity <= leg.quantity
        assert joined.quantity - joined.remaining >= leg.quantity - leg.remaining


@pytest.mark.covers("F22", "F30")
@given(reports=st.lists(any_reports(), max_size=6), data=st.data())
@settings(deadline=None)
def test_order_knows_the_same_views_whatever_the_order_of_any_reports(
    reports: list[OrderReport], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(reports + reports[:2]))
    assert join_all(blank(3), tuple(reports)).views == join_all(blank(3), tuple(shuffled)).views


# The same through `decide`: by message, by listing, by the container of a group.


def exits_of(mode: Protection) -> Core:
    core = Core(mode, quantity=2)
    core.go_live()
    return core


LIVE = {mode: exits_of(mode) for mode in (Protection.UNLINKED, Protection.NATIVE_OCO)}
# (orders by role, filled units): what becomes of the two exits, in the order in which it happens.
ENDINGS: tuple[tuple[tuple[Role, W, int], ...], ...] = (
    (
        *((Role.TARGET, W.LIVE, 1), (Role.TARGET, W.FILLED, 2)),
        *((Role.STOP, W.CANCEL_REQUESTED, 0), (Role.STOP, W.CANCELLED, 0)),
    ),
    ((Role.STOP, W.FILLED, 2), (Role.TARGET, W.CANCELLED, 0)),
    ((Role.STOP, W.LIVE, 1), (Role.TARGET, W.LIVE, 1), (Role.TARGET, W.EXPIRED, 1), (Role.STOP, W.LIVE, 1)),
)


def told_by(way: str, bracket: Bracket, reports: list[OrderReport]) -> list[Event]:
    """The same news as it would arrive by one of the ways in which there is any."""
    events: list[Event] = []
    for report in reports:
        name = report.external_identifier
        assert name is not None
        if way == "group":
            assert report.complex_order_id is not None
            events.append(ComplexReported(ComplexReport(report.complex_order_id, "OCO", None, (report,))))
        elif way == "answer":
            events.append(SubmitConfirmed((name,), (report,), report.complex_order_id))
        else:
            events.append(OrderReported(report, name))
    return [*events, SweepCompleted(START_US, 0, True)] if way == "listing" else events


@pytest.mark.covers("F22", "F23", "F25", "F26", "F30")
@given(mode=st.sampled_from(sorted(LIVE)), ending=st.sampled_from(ENDINGS), data=st.data())
@settings(deadline=None)
def test_bracket_knows_the_same_of_its_orders_however_it_was_told(
    mode: Protection, ending: tuple[tuple[Role, W, int], ...], data: st.DataObject
) -> None:
    core = LIVE[mode]
    said = [
        report_of(
            order.spec,
            core.id_of(order),
            status,
            units,
            external_identifier=order.external_identifier,
            complex_order_id=order.complex_order_id,
        )
        for role, status, units in ending
        for order in (core.last(role),)
    ]
    finals = list({report.broker_order_id: report for report in said}.values())
    arrived = data.draw(st.permutations(finals + data.draw(st.lists(st.sampled_from(said), max_size=5))))
    ways = ["frame", "listing", "answer", *(["group"] if mode is Protection.NATIVE_OCO else [])]
    bracket = core.bracket
    for report in arrived:
        before = bracket
        events = told_by(data.draw(st.sampled_from(ways)), bracket, [report])
        bracket = decide_all(bracket, events, core.now_us).bracket
        assert violations_of(bracket) == ()
        for order in before.orders:
            now = bracket.order(order.external_identifier)
            assert now is not None
            assert {fill.fill_id for _, fill in order.fills} <= {fill.fill_id for _, fill in now.fills}
            assert all(now.filled(leg.symbol) >= order.filled(leg.symbol) for leg in order.spec.legs)
    for order in core.bracket.orders:
        now = bracket.order(order.external_identifier)
        mine = tuple(report for report in said if report.external_identifier == order.external_identifier)
        assert now is not None and now.views == join_all(order, mine).views
