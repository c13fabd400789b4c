"""However the messages of an order arrive, the same is known in the end, and never less than before.

A history is what the broker could truthfully say: each order of a replacement chain goes through its statuses, fills
grow leg by leg, the next order is for what remained. Then messages are shuffled, repeated, thinned of fills or legs,
and all but the last of each order may be lost.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otocod.domain.ids import BrokerOrderId, ExternalIdentifier
from otocod.domain.orders import BrokerStatus as W
from otocod.domain.orders import Order, OrderReport, OrderState, join_all
from otocod.domain.specs import OrderSpec, Role
from tests.support.core import parsed, report_of
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


@pytest.mark.covers("F23", "F24", "F25", "F42")
@given(data=st.data())
@settings(deadline=None)
def test_knowledge_only_grows_and_never_exceeds_the_order(data: st.DataObject) -> None:
    history = data.draw(histories())
    arrived = data.draw(arrivals(history))
    known = list(accumulate(arrived, Order.learn, initial=blank(history.size)))
    for earlier, later in pairwise(known):
        for symbol in SYMBOLS:
            assert 0 <= earlier.filled(symbol) <= later.filled(symbol) <= history.size
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
