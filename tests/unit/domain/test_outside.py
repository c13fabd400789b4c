"""A position that others close, and the broker's own doing: what is proved to be gone, and what follows from it."""

from datetime import UTC, datetime

import pytest

from otocod.domain.brackets import BracketState as B
from otocod.domain.brackets import ClosePurpose, Outcome
from otocod.domain.commands import CancelComplex, CancelOrder, FetchQuote, SubmitComplex, SubmitOrder
from otocod.domain.events import PositionsDisagreed, UnfreezeRequested
from otocod.domain.orders import BrokerStatus as W
from otocod.domain.settlement import Settlement
from otocod.domain.specs import Protection, Role
from tests.support.core import Core
from tests.support.desk import LONG, SHORT


def live(mode: Protection = Protection.UNLINKED, *, quantity: int = 1, policy: str = "hold") -> Core:
    core = Core(mode, quantity=quantity, changes={"on-outside-change": policy})
    core.fill_entry()
    core.confirm_exits()
    core.sent.clear()
    return core


def positions(core: Core, *, short: int, long: int, proved: bool = True) -> None:
    core.tell(PositionsDisagreed("made up", ((SHORT, short), (LONG, long)), is_proved=proved))


def end_exits(core: Core) -> None:
    """The broker confirms every cancel that was asked for."""
    for order in core.live(Role.STOP, Role.TARGET):
        if order.cancel_asked_us is not None:
            core.report(order, W.CANCELLED)


@pytest.mark.covers("F69", "F72")
@pytest.mark.parametrize("policy", ["hold", "restore", "flatten"])
@pytest.mark.parametrize("mode", [Protection.UNLINKED, Protection.NATIVE_OCO, Protection.NATIVE_OTOCO])
def test_position_that_is_gone_ends_the_bracket_once_its_exits_are_away(mode: Protection, policy: str) -> None:
    core = live(mode, policy=policy)
    positions(core, short=0, long=0)
    core.wait(2)
    assert core.bracket.state is not B.CLOSED
    assert len(core.take(CancelOrder)) + len(core.take(CancelComplex)) > 0
    end_exits(core)
    assert (core.bracket.state, core.bracket.outcome) == (B.CLOSED, Outcome.CLOSED_OUTSIDE)
    assert core.take(SubmitOrder) == []
    assert core.take(SubmitComplex) == []
    assert "position_gone" in core.alarms
    assert "left the position" in (core.bracket.attention or "")


@pytest.mark.covers("F69")
def test_position_that_is_gone_releases_the_bracket_where_the_request_says_so() -> None:
    core = live(policy="release")
    positions(core, short=0, long=0)
    assert (core.bracket.state, core.bracket.outcome) == (B.CLOSED, Outcome.RELEASED)
    assert core.take(CancelOrder) == []


@pytest.mark.covers("F34", "F57")
def test_position_that_is_not_proved_to_be_gone_changes_nothing() -> None:
    core = live()
    positions(core, short=0, long=0, proved=False)
    core.wait(60)
    assert core.bracket.state is B.EXITS_LIVE
    assert core.take(CancelOrder) == []


@pytest.mark.covers("F71")
def test_position_that_others_may_have_a_part_in_changes_nothing() -> None:
    core = live()
    core.tell(PositionsDisagreed("shared", None, is_proved=True))
    assert core.bracket.taken == ()
    assert core.bracket.state is B.EXITS_LIVE


def test_position_that_an_exit_of_unknown_outcome_may_have_closed_is_not_taken_for_gone() -> None:
    core = Core(Protection.UNLINKED)
    core.fill_entry()
    core.lose(core.stop)
    positions(core, short=0, long=0)
    assert core.bracket.taken == ()


NOON_OF_LAST_DAY = int(datetime(2026, 12, 18, 17, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.covers("F64", "F65")
@pytest.mark.parametrize(
    ("how", "days_after", "outcome"),
    [
        (None, -1, Outcome.CLOSED_OUTSIDE),
        (Settlement.ASSIGNMENT, -1, Outcome.CLOSED_OUTSIDE),
        (None, 0, Outcome.CLOSED_OUTSIDE),  # by hand, in the last hours
        (Settlement.EXPIRATION, 0, Outcome.EXPIRED),
        (Settlement.CASH_SETTLED_ASSIGNMENT, 0, Outcome.EXPIRED),
        (None, 1, Outcome.EXPIRED),
    ],
)
def test_end_of_a_position_is_told_by_the_ledger_and_after_the_last_day_by_the_date(
    how: Settlement | None, days_after: int, outcome: Outcome
) -> None:
    core = live()
    core.now_us = NOON_OF_LAST_DAY + days_after * 86_400_000_000
    settled = () if how is None else ((SHORT, how), (LONG, how))
    core.tell(PositionsDisagreed("made up", ((SHORT, 0), (LONG, 0)), is_proved=True, settled=settled))
    core.wait(2)
    end_exits(core)
    assert core.bracket.outcome is outcome
    said = "left the position" if how is None else f"by {how.value.lower()}"
    assert said in (core.bracket.attention or "")


@pytest.mark.covers("F69", "F70")
def test_part_that_is_gone_is_held_with_exits_that_could_open_a_position_cancelled() -> None:
    core = live(quantity=3)
    positions(core, short=1, long=1)
    assert core.bracket.is_held
    assert core.bracket.open_units == 1
    end_exits(core)
    core.wait(60)
    assert core.take(SubmitOrder) == []
    assert core.bracket.state is B.ENTRY_FILLED
    core.tell(UnfreezeRequested("op"))
    stop, target = (command.member for command in core.take(SubmitOrder))
    assert {leg.quantity for leg in (*stop.spec.legs, *target.spec.legs)} == {1}


@pytest.mark.covers("F69")
@pytest.mark.parametrize("mode", [Protection.UNLINKED, Protection.NATIVE_OCO])
def test_part_that_is_gone_is_restored_by_exits_for_what_is_left(mode: Protection) -> None:
    core = live(mode, quantity=3, policy="restore")
    positions(core, short=1, long=1)
    core.wait(2)
    end_exits(core)
    sent = [c.member for c in core.take(SubmitOrder)] + [m for c in core.take(SubmitComplex) for m in c.members]
    assert sorted(member.role for member in sent) == [Role.STOP, Role.TARGET]
    assert {leg.quantity for member in sent for leg in member.spec.legs} == {1}


@pytest.mark.covers("F69")
def test_part_that_is_gone_has_the_rest_closed_where_the_request_says_so() -> None:
    core = live(quantity=3, policy="flatten")
    positions(core, short=1, long=1)
    assert core.bracket.close is not None
    assert core.bracket.close.purpose is ClosePurpose.OUTSIDE_CHANGE
    assert core.take(FetchQuote)


@pytest.mark.covers("F65")
def test_one_leg_that_is_assigned_leaves_no_exit_that_could_open_it_again() -> None:
    core = live(policy="restore")
    positions(core, short=0, long=1)
    end_exits(core)
    core.wait(60)
    assert core.live(Role.STOP, Role.TARGET) == []
    assert core.take(SubmitOrder) == []
    assert core.bracket.state is B.ENTRY_FILLED
    assert "changed_outside" in core.alarms


def test_fill_that_is_heard_of_later_explains_what_was_taken_for_gone() -> None:
    core = live()
    positions(core, short=0, long=0)
    core.report(core.stop, W.FILLED, 1)
    core.wait(2)
    end_exits(core)
    assert core.bracket.outcome is Outcome.STOP_FILLED
    assert set(core.bracket.open_by_leg.values()) == {0}


@pytest.mark.covers("F69")
def test_same_news_told_again_is_handled_once() -> None:
    core = live()
    positions(core, short=0, long=0)
    alarms = list(core.alarms)
    positions(core, short=0, long=0)
    assert core.alarms == alarms
