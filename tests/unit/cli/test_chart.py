"""Small pictures of prices."""

import pytest

from otocod.cli.demo.chart import chart, gauge

LEVELS = (("E", 0.85), ("T", 0.40), ("S", 1.70))


def test_chart_has_the_size_asked_for_and_every_level_with_its_price() -> None:
    lines = chart([0.85, 0.7, 0.5, 0.4], LEVELS, width=30, height=6)
    assert len(lines) == 6
    assert {len(line) for line in lines} == {30}
    labels = {line[0]: line[-4:] for line in lines if line[0] != " "}
    assert labels == {"E": "0.85", "T": "0.40", "S": "1.70"}


def test_price_that_falls_to_the_target_ends_on_its_line() -> None:
    lines = chart([0.85 - step * 0.01 for step in range(46)], LEVELS, width=30, height=6)
    dots = [[column for column, mark in enumerate(line) if 0x2800 < ord(mark) < 0x2900] for line in lines]
    target = next(number for number, line in enumerate(lines) if line.startswith("T"))
    entry = next(number for number, line in enumerate(lines) if line.startswith("E"))
    assert max(dots[target]) > max(dots[entry])
    assert all(not columns for columns in dots[:entry])


def test_more_prices_than_columns_are_thinned_and_the_last_is_kept() -> None:
    flat = chart([0.85] * 9_999 + [1.70], LEVELS, width=30, height=6)
    assert any(0x2800 < ord(mark) < 0x2900 for mark in flat[0][2:] + flat[1][2:])


def test_chart_of_one_price_and_equal_levels_does_not_divide_by_zero() -> None:
    assert len(chart([1.0], (("E", 1.0),), width=20, height=3)) == 3


@pytest.mark.parametrize(("target", "stop"), [(0.40, 1.70), (3.75, 1.50)])
def test_gauge_has_the_target_on_the_left_whichever_way_profit_lies(target: float, stop: float) -> None:
    line = gauge(target, entry=(target + stop) / 2, target=target, stop=stop, width=21)
    assert line[0] == "●"
    assert line[-1] == "S"
    assert line[10] == "E"
    assert gauge(stop, entry=target, target=target, stop=stop, width=21)[-1] == "●"
    assert gauge(stop * 9 if stop > target else 0, entry=target, target=target, stop=stop, width=21)[-1] == "●"
