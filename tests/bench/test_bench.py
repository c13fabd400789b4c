"""The bench runs and says what it measured. Its figures are never asserted: they belong to the machine."""

import json
import subprocess
import sys
from pathlib import Path

from tests.bench.figures import GOALS, Figure, table
from tests.bench.plot import svg
from tests.bench.processes import ROOT


def test_a_quick_run_measures_its_rows_and_writes_them(tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick", "--only", "queue", "burst", "--json", str(target)],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    found = {row["figure"]: row for row in json.loads(target.read_text())["figures"]}
    assert set(found) == {"pickup_submit", "pickup_insert", "burst", "burst_wrong"}
    assert all(row["value"] is not None for row in found.values())
    assert found["burst"]["floor"] > 0
    assert found["burst_wrong"]["value"] == 0
    assert all(row["title"] in done.stdout for row in found.values())


def test_the_table_judges_ratios_values_and_lower_bounds() -> None:
    figures = [
        Figure("fill_to_exits_p50", 120.0, 100.0),
        Figure("fill_to_exits_p99", 200.0, 100.0),
        Figure("against_sdk", 100.0, 260.0),
        Figure("idle_cpu", 0.5),
        Figure("acceptance", 999.0),
        Figure("watch", None),
    ]
    verdicts = [figure.verdict for figure in figures]
    assert verdicts == ["met", "missed", "stretch met", "met", "missed", "not measured"]
    lines = table(figures).splitlines()
    assert len(lines) == len(figures) + 2
    assert len({len(line) for line in lines}) == 1


def test_every_figure_has_a_goal_or_says_that_it_has_none() -> None:
    assert all(goal.title and goal.unit and goal.of in ("ratio", "value") for goal in GOALS.values())


def test_the_picture_shows_each_client_that_was_measured() -> None:
    picture = svg({"relay": [500.0, 600.0, 900.0], "otocod": [700.0, 800.0, 3_000.0], "recipe": [2_000_000.0]})
    assert picture.count("<polyline") == 3
    assert "bare relay" in picture
    assert "tastytrade" not in picture
