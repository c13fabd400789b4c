"""No collection comes by itself, garbage goes all the same, and what lives is not walked through again."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from otocod.adapters import collector as collector_module
from otocod.adapters.collector import Collector


class Node:
    """In a cycle with itself, unless cut."""

    def __init__(self) -> None:
        self.itself: Node | None = self


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    collector.begin()
    yield collector
    collector.end()


def test_nothing_is_collected_by_itself_and_a_tick_frees_young_cycles(collector: Collector) -> None:
    dead = [weakref.ref(Node()) for _ in range(3_000)]
    assert all(each() is not None for each in dead)
    collector.tick()
    assert all(each() is None for each in dead)


def test_what_survives_a_tick_is_not_looked_at_by_a_later_one(collector: Collector) -> None:
    kept = [Node() for _ in range(3_000)]
    collector.tick()
    assert not any(kept[0] is each for each in gc.get_objects())
    assert gc.get_freeze_count() > len(kept)


def test_a_second_in_which_little_was_made_costs_no_collection(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector.tick()
    collected: list[int] = []
    monkeypatch.setattr(gc, "collect", collected.append)
    collector.tick()
    assert collected == []


def test_frozen_garbage_goes_once_there_is_much_of_it(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector_module, "_THAW_TICKS", 2)
    monkeypatch.setattr(collector_module, "_THAW_EXTRA", 0)
    monkeypatch.setattr(collector_module, "_THAW_GROWTH", 1)
    nodes = [Node() for _ in range(3_000)]
    collector.tick()
    dead = [weakref.ref(node) for node in nodes]
    del nodes
    assert dead[0]() is not None
    collector.tick()
    collector.tick()
    assert all(each() is None for each in dead)


def test_the_collector_is_python_s_own_again_after_the_end() -> None:
    collector = Collector()
    collector.begin()
    assert not gc.isenabled()
    collector.end()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
