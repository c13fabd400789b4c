"""The loop that people write by hand must live through a quiet day, or the comparison says nothing."""

import pytest

from tests.simulation.naive import NOT_COMPARED, Count, NaiveWorld, compare, count
from tests.simulation.plan import FAULT_CLASSES, plan_from_seed

_QUIET = frozenset(FAULT_CLASSES)

pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'SimBroker")


def test_loop_without_faults_cares_for_its_brackets_without_a_violation() -> None:
    total = Count()
    for seed in range(40):
        world = NaiveWorld(plan_from_seed(seed, off=_QUIET))
        world.rules.patch({"reservation": False})
        world.run()
        assert world.violations == []
        total.join(count(world, frozenset()))
    assert total.brackets > 80
    # Two exits that do not know of each other may both fill within five seconds, whatever the weather.
    assert total.kinds.keys() <= {"reversed"}
    assert total.kinds["reversed"] < total.brackets / 8


def test_loop_under_faults_doubles_and_forgets_and_the_daemon_does_neither() -> None:
    naive, ours = Count(), Count()
    for seed in range(30):
        one, other = compare(seed)
        naive.join(one)
        ours.join(other)
    assert naive.kinds["doubled"] > 0
    assert naive.kinds["unprotected"] > 0
    assert ours.kinds["doubled"] == ours.kinds["unprotected"] == ours.kinds["left working"] == 0
    assert ours.violated < naive.violated / 2


def test_answer_lost_makes_the_loop_send_a_second_entry() -> None:
    total = Count()
    for seed in range(60):
        plan = plan_from_seed(seed, only=frozenset({"answer_lost"}))
        if plan.is_on("answer_lost"):
            world = NaiveWorld(plan)
            world.rules.patch({"reservation": False})
            world.run()
            total.join(count(world, frozenset()))
    assert total.kinds["doubled"] > 0


def test_what_a_person_does_is_not_compared() -> None:
    assert FAULT_CLASSES.keys() >= NOT_COMPARED
    assert not any(NOT_COMPARED & plan_from_seed(seed, off=NOT_COMPARED).rates.keys() for seed in range(20))
