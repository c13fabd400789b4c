"""What the demonstration shows: a live picture on a terminal, appended lines elsewhere, the same ending on both."""

import shutil
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from otocod.cli import output
from otocod.cli.control import audit_line
from otocod.cli.demo.chart import chart, gauge
from otocod.story import is_worth_telling
from otocod.text import sanitise

if TYPE_CHECKING:
    from otocod.cli.demo.director import Actor

_LINES_KEPT = 7
_PIPE_WIDTH = 140
_CHART_HEIGHT = 5
_CHART_WIDTH = 34
_GAUGE_WIDTH = 25
_NARROW_GAUGE_WIDTH = 21
_STATE_STYLES = {
    "PENDING_ENTRY": "cyan",
    "ENTRY_FILLED": "bold yellow",
    "EXITS_LIVE": "green",
    "CLOSING": "yellow",
    "REJECTED": "red",
    "CLOSED": "dim",
}
# Said by every restart and every sweep; they would drown what a spectator looks for.
_QUIET_EVENTS = frozenset({"DaemonRestarted", "CancelRequested"})
_DETAIL_LIMIT = 160


class Screen(Protocol):
    def __enter__(self) -> "Screen": ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def line(self, at_s: float, name: str, text: str) -> None: ...
    def event(self, at_s: float, name: str, event: Mapping[str, Any]) -> None: ...
    def rejected(self, at_s: float, actor: "Actor") -> None: ...
    def draw(self, actors: Sequence["Actor"], daemon: str, at_s: float) -> None: ...
    def finish(
        self, actors: Sequence["Actor"], audit: Mapping[str, Any], elapsed_s: float, *, as_json: bool
    ) -> None: ...


class SilentScreen:
    """For --json: nothing until the end."""

    def __enter__(self) -> "SilentScreen":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def line(self, at_s: float, name: str, text: str) -> None:
        return None

    def event(self, at_s: float, name: str, event: Mapping[str, Any]) -> None:
        text = event_text(event)
        if text:
            self.line(at_s, name, text)

    def rejected(self, at_s: float, actor: "Actor") -> None:
        reasons = str(actor.row.get("reason") or "").splitlines()
        self.line(at_s, actor.plan.name, f"REJECTED for {len(reasons)} reasons:")
        for reason in reasons:
            self.line(at_s, "", f"    {reason}")

    def draw(self, actors: Sequence["Actor"], daemon: str, at_s: float) -> None:
        return None

    def finish(self, actors: Sequence["Actor"], audit: Mapping[str, Any], elapsed_s: float, *, as_json: bool) -> None:
        if as_json:
            brackets = [{**result(actor), "bracket": actor.bracket} for actor in actors]
            output.print_json({"brackets": brackets, "audit": audit, "elapsed_s": round(elapsed_s, 1)})
            return
        is_terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if is_terminal else _PIPE_WIDTH
        shown = _ending(actors, audit, elapsed_s, width)
        if is_terminal:
            Console(no_color=output.no_color(), highlight=False).print(shown)
        else:
            output.print_plain(shown, width)


def _ending(actors: Sequence["Actor"], audit: Mapping[str, Any], elapsed_s: float, width: int) -> Group:
    good = not audit["violations"] and all(actor.is_as_planned for actor in actors)
    parts: list[RenderableType] = [Text(), charts(actors, width), Text(), final_table(actors, width), Text()]
    for actor in actors:
        if actor.bracket.get("attention"):
            told = f"attention, {actor.plan.name}: {actor.bracket['attention']}"
            parts.append(Text(sanitise(told, 400), style="yellow"))
    parts.append(Text(sanitise(audit_line(audit)), style="green" if good else "bold red"))
    parts += [Text(sanitise(str(violation)), style="red") for violation in audit["violations"]]
    ended = sum(actor.is_as_planned for actor in actors)
    parts.append(Text(f"{ended} of {len(actors)} ended as they should, in {elapsed_s:.0f} s"))
    return Group(*parts)


class PlainScreen(SilentScreen):
    """Appended lines, for pipes, logs and whoever wants no moving picture."""

    def line(self, at_s: float, name: str, text: str) -> None:
        output.say(f"{at_s:5.1f} s  {name:<14} {text}".rstrip())
        output.flush()


class LiveScreen(SilentScreen):
    """A picture drawn anew each round: one line a bracket, the newest of the timeline, charts where there is room."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, refresh_per_second=8, transient=True, vertical_overflow="crop")
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)

    def __enter__(self) -> "LiveScreen":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def line(self, at_s: float, name: str, text: str) -> None:
        self._lines.append(f"{at_s:5.1f} s  {name:<14} {text}".rstrip())

    def draw(self, actors: Sequence["Actor"], daemon: str, at_s: float) -> None:
        size = shutil.get_terminal_size()
        parts: list[RenderableType] = [_title(daemon, at_s), Text(), _live_table(actors, size.columns), Text()]
        parts += [Text(sanitise(line, 400), overflow="ellipsis", no_wrap=True) for line in self._lines]
        used = 4 + len(actors) + _LINES_KEPT
        if size.lines >= used + (_CHART_HEIGHT + 2) * -(-len(_charted(actors)) // max(size.columns // _CHART_WIDTH, 1)):
            parts += [Text(), charts(actors, size.columns)]
        self._live.update(Group(*parts))


def event_text(event: Mapping[str, Any]) -> str:
    """A line for the timeline; empty for what is not worth one."""
    before, after, detail = event.get("from"), event.get("to"), sanitise(str(event.get("detail") or ""), _DETAIL_LIMIT)
    if before != after:
        text = f"{before} → {after}" if before else str(after)
        return f"{text}  {event['event']}{': ' + detail if detail else ''}"
    if event["event"] in _QUIET_EVENTS or not is_worth_telling(event):
        return ""
    return f"{event['event']}{': ' + detail if detail else ''}"


def _title(daemon: str, at_s: float) -> Text:
    style = {"ready": "bold green", "killed": "bold white on red"}.get(daemon, "yellow")
    return Text.assemble(("otocod demo", "bold"), f"  {at_s:4.1f} s   daemon: ", (f" {daemon} ", style))


def _live_table(actors: Sequence["Actor"], columns: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
    gauge_width = _GAUGE_WIDTH if columns >= 90 else _NARROW_GAUGE_WIDTH
    # The orders alone give way when there is little room.
    for name, width in (("bracket", 13), ("state", 18), ("protection", 12), ("target … entry … stop", gauge_width)):
        table.add_column(name, no_wrap=True, min_width=width)
    table.add_column("now", no_wrap=True, min_width=4, justify="right")
    is_wide = columns >= 110
    if is_wide:
        table.add_column("orders", no_wrap=True, overflow="ellipsis")
    for actor in actors:
        plan = actor.plan
        price = float(actor.value) if actor.is_inserted and not actor.is_over else None
        drawn = gauge(
            price, entry=float(plan.entry), target=float(plan.target), stop=float(plan.trigger), width=gauge_width
        )
        cells = [
            Text(plan.name),
            Text(actor.ending or actor.state or "…", style=_state_style(actor)),
            Text(str(actor.bracket.get("protection") or "")),
            Text(drawn, style="" if price is not None else "dim"),
            Text(f"{price:.2f}" if price is not None else ""),
        ]
        if is_wide:
            cells.append(Text(_orders(actor), style="dim"))
        table.add_row(*cells)
    return table


def _state_style(actor: "Actor") -> str:
    if actor.is_over:
        return "green" if actor.is_as_planned else "bold red"
    return _STATE_STYLES.get(actor.state, "dim")


def _orders(actor: "Actor") -> str:
    """The newest of each role."""
    newest = {order["role"]: order["status"] for order in actor.bracket.get("orders", ())}
    return "  ".join(f"{role} {status}" for role, status in newest.items())


def _charted(actors: Sequence["Actor"]) -> list["Actor"]:
    return [actor for actor in actors if actor.plan.is_ending != "REJECTED"]


def charts(actors: Sequence["Actor"], columns: int) -> Table:
    """A grid of small pictures, as many side by side as there is room for."""
    shown = _charted(actors)
    per_row = max(1, min(4, columns // (_CHART_WIDTH + 2)))
    grid = Table.grid(padding=(0, 2))
    for start in range(0, len(shown), per_row):
        grid.add_row(*(_picture(actor) for actor in shown[start : start + per_row]))
    return grid


def _picture(actor: "Actor") -> Text:
    plan = actor.plan
    levels = (("E", float(plan.entry)), ("T", float(plan.target)), ("S", float(plan.trigger)))
    lines = chart(actor.prices or [float(plan.at_start)], levels, width=_CHART_WIDTH, height=_CHART_HEIGHT)
    text = Text(f"{plan.name}  ", style="bold")
    text.append(actor.ending or actor.state or "…", style=_state_style(actor))
    styles = {"T": "green", "S": "red", "E": "cyan"}
    for line in lines:
        text.append("\n")
        text.append(line, style=styles.get(line[0], ""))
    return text


def result(actor: "Actor") -> dict[str, Any]:
    """One bracket's line of the final table."""
    plan, bracket = actor.plan, actor.bracket
    unprotected_s = bracket.get("unprotected_s")
    return {
        "name": plan.name,
        "spread": f"{plan.quantity} {plan.underlying} {plan.shown}",
        "protection": bracket.get("protection"),
        "ending": actor.ending,
        "as_planned": actor.is_as_planned,
        "entry_net_price": bracket.get("entry_net_price"),
        "exit_net_price": bracket.get("exit_net_price"),
        "unprotected_ms": None
        if unprotected_s is None or not bracket.get("entry_net_price")
        else round(float(unprotected_s) * 1000, 1),
    }


def final_table(actors: Sequence["Actor"], columns: int) -> Table:
    """On a narrow terminal without the spreads, and with signed prices."""
    is_wide = columns >= 120
    names = ["bracket", *(["spread"] if is_wide else []), "protection", "outcome", "entry", "exit", "unprotected ms"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        right = name in ("entry", "exit", "unprotected ms")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for actor in actors:
        table.add_row(*_final_row(actor, is_wide=is_wide))
    return table


def _final_row(actor: "Actor", *, is_wide: bool) -> list[Text]:
    found = result(actor)
    ending, unprotected_ms = found["ending"] or "not ended", found["unprotected_ms"]
    if not found["as_planned"]:
        ending += f", not {actor.plan.is_ending} {actor.plan.in_force}"
    prices = [found["entry_net_price"], found["exit_net_price"]]
    return [
        Text(found["name"]),
        *([Text(found["spread"])] if is_wide else []),
        Text(found["protection"] or ""),
        Text(ending, style="green" if found["as_planned"] else "bold red"),
        *(Text(output.price_text(price) if is_wide else price or "") for price in prices),
        Text("" if unprotected_ms is None else f"{unprotected_ms:.1f}"),
    ]
