"""The rows of the table: what was measured, beside its floor and its goal."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec


class Goal(msgspec.Struct, frozen=True):
    title: str
    unit: str
    # What the goal is about: the ratio to the floor or the figure itself.
    of: str = "ratio"
    goal: float | None = None
    stretch: float | None = None
    is_least: bool = False  # the goal is a lower bound


GOALS: dict[str, Goal] = {
    "fill_to_exits_p50": Goal("fill to both exits sent, p50", "µs", goal=1.3, stretch=1.15),
    "fill_to_exits_p99": Goal("the same, p99 against p99", "µs", goal=1.6, stretch=1.3),
    "fill_to_cancel_p50": Goal("exit's fill to cancel sent, p50", "µs", goal=1.3, stretch=1.15),
    "back_to_back_p50": Goal("fill to both exits, fills back to back, p50", "µs"),
    "against_sdk": Goal(
        "times faster than the tastytrade package, both exits, p50", "µs", goal=2.0, stretch=2.5, is_least=True
    ),
    "against_recipe": Goal("times faster than the loop that polls every 5 s, both exits, p50", "µs", is_least=True),
    "syncs": Goal("disk syncs between fill and send, of all fills", "syncs", of="value", goal=0.0, stretch=0.0),
    "slow_syncs": Goal("fill to both exits with every sync 5 ms slower, against without", "µs", goal=1.1),
    "open_10000": Goal("fill to both exits, 10,000 open brackets against 10, p50", "µs", goal=1.1, stretch=1.0),
    "open_100000": Goal("exit's fill to the cancel, among 100,000 open brackets, p50", "µs", goal=1.2, stretch=1.1),
    "burst": Goal("1,000 fills at once: last exit sent", "ms", goal=1.3, stretch=1.1),
    "burst_wrong": Goal("the same: exits lost or sent twice", "orders", of="value", goal=0.0, stretch=0.0),
    "load_10000": Goal("load and index 10,000 open brackets", "ms", goal=1.5, stretch=1.2),
    "load_100000": Goal("load and index 100,000 open brackets", "ms", goal=1.5, stretch=1.2),
    "start": Goal("start to ready, 1,000 open brackets, 10,000 listed orders", "s", of="value", goal=5.0, stretch=2.0),
    "bracket_bytes": Goal("memory of an open bracket, three orders", "bytes", of="value", goal=4_096, stretch=1_536),
    "longest_gc": Goal("longest garbage collection, 10,000 open brackets", "ms", of="value", goal=5.0),
    "resident": Goal("resident memory without brackets, against the imports", "MB", goal=1.3, stretch=1.1),
    "pickup_submit": Goal("queue pick-up after `otocod submit` commits, p50", "ms", of="value", goal=1.0),
    "pickup_insert": Goal("queue pick-up after a plain INSERT, p50", "ms", of="value", goal=25.0),
    "idle_cpu": Goal("idle processor time, 10,000 open brackets", "% of a core", of="value", goal=0.6, stretch=0.4),
    "acceptance": Goal(
        "requests accepted and durable", "a second", of="value", goal=1_000, stretch=2_000, is_least=True
    ),
    "cli_submit": Goal("`otocod submit`, wall, against `python -c pass`", "ms", goal=20, stretch=10),
    "cli_status": Goal("`otocod status`, wall", "ms", goal=20, stretch=10),
    "cli_show": Goal("`otocod show`, wall", "ms", goal=20, stretch=10),
    "watch": Goal("quotes a second, 1,000 watched spreads", "a second", of="value", stretch=20_000, is_least=True),
}


class Figure(msgspec.Struct):
    key: str
    value: float | None
    floor: float | None = None
    note: str = ""
    runs: list[float] = []  # the same figure of each start or round, for its spread

    @property
    def goal(self) -> Goal:
        return GOALS[self.key]

    @property
    def ratio(self) -> float | None:
        if self.value is None or not self.floor:
            return None
        # A figure with a lower bound on its ratio says how many times faster it is than the other.
        return self.floor / self.value if self.goal.is_least else self.value / self.floor

    @property
    def verdict(self) -> str:
        goal = self.goal
        judged = self.ratio if goal.of == "ratio" else self.value
        if judged is None:
            return "not measured"
        if goal.stretch is not None and _meets(judged, goal.stretch, goal.is_least):
            return "stretch met"
        if goal.goal is None:
            return ""
        return "met" if _meets(judged, goal.goal, goal.is_least) else "missed"


def _meets(value: float, bound: float, is_least: bool) -> bool:
    return value >= bound if is_least else value <= bound


def p50(samples: Sequence[float]) -> float:
    return statistics.median(samples)


def p99(samples: Sequence[float]) -> float:
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * 0.99))]


def table(figures: Sequence[Figure]) -> str:
    """As Markdown, which is readable on a terminal too."""
    rows = [("figure", "value", "floor", "ratio", "goal", "stretch", "")]
    for figure in figures:
        goal = figure.goal
        bound = "≥ " if goal.is_least else "≤ "
        rows.append(
            (
                goal.title + (f" ({figure.note})" if figure.note else ""),
                "–" if figure.value is None else f"{_number(figure.value)} {goal.unit}",
                "" if figure.floor is None else f"{_number(figure.floor)} {goal.unit}",
                "" if figure.ratio is None else f"{figure.ratio:.2f}",
                "" if goal.goal is None else bound + _number(goal.goal),
                "" if goal.stretch is None else bound + _number(goal.stretch),
                figure.verdict,
            )
        )
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def write_json(
    path: Path, figures: Sequence[Figure], samples: dict[str, list[float]], machine: dict[str, object]
) -> None:
    rows = [
        {
            "figure": figure.key,
            "title": figure.goal.title,
            "unit": figure.goal.unit,
            "value": figure.value,
            "floor": figure.floor,
            "ratio": figure.ratio,
            "goal": figure.goal.goal,
            "stretch": figure.goal.stretch,
            "verdict": figure.verdict,
            "note": figure.note,
            "runs": figure.runs,
        }
        for figure in figures
    ]
    path.write_bytes(
        msgspec.json.format(msgspec.json.encode({"machine": machine, "figures": rows, "samples_us": samples}))
    )
