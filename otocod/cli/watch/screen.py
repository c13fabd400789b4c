"""The screen itself: the table above, the timeline of the bracket under the cursor below.

It looks once a second on a thread of its own; nothing that it asks for can make the keys wait. What changes something
asks first, and goes through the admin socket like the commands of the same names.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from otocod.cli.client import bracket_path
from otocod.cli.failure import Failed
from otocod.cli.watch import words
from otocod.cli.watch.looks import Json, Looks

LOOK_EVERY_S = 1.0
_VITALS = 4

_LEVELS = {
    "intake": "no request is taken; what was accepted goes on",
    "entries": "and no entry leaves",
    "cancel-entries": "and entries that work are cancelled",
    "flatten": "and every position is closed at the natural price",
}


class Confirm(ModalScreen[bool]):
    """Asks for a word, so that no single key changes anything."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "leave it")]

    def __init__(self, question: Text, word: str) -> None:
        super().__init__()
        self._question = question
        self._word = word

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(self._question)
            yield Label(f"Type {self._word} and press Enter to go on, Escape to leave it.", markup=False)
            yield Input(placeholder=self._word)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.value.strip() == self._word:
            self.dismiss(True)
        else:
            event.input.value = ""

    def action_leave(self) -> None:
        self.dismiss(False)


class ChooseLevel(ModalScreen[str | None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "leave it")]

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(Text("Halt: how much? Each level includes those above it; exits are managed at every one."))
            yield OptionList(*(Option(f"{level:<15} {what}", id=level) for level, what in _LEVELS.items()))
            yield Label("Enter chooses, Escape leaves it.")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option.id)

    def action_leave(self) -> None:
        self.dismiss(None)


class WatchApp(App[None]):
    ENABLE_COMMAND_PALETTE = False
    TITLE = "otocod"
    CSS = """
    #title { height: 1; padding: 0 1; }
    #trouble { padding: 0 1; background: $error; color: $text; text-style: bold; }
    #health { height: 5; }
    .vital { width: 1fr; border: round $surface-lighten-2; padding: 0 1; height: 5; }
    #attention { padding: 0 1; margin: 0 1; max-height: 6; overflow-y: auto; border-left: thick $warning; }
    DataTable { height: auto; max-height: 50%; scrollbar-size-horizontal: 1; }
    #below { height: 1fr; border-top: solid $primary; padding: 0 1; }
    #facts { height: auto; padding: 0 0 1 0; }
    ModalScreen { align: center middle; }
    .box { width: 76; max-width: 96%; height: auto; border: thick $warning; background: $surface; padding: 1 2; }
    .box Label { padding: 1 0; color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("h", "halt", "Halt"),
        Binding("u", "resume", "Resume"),
        Binding("c", "close", "Close"),
        Binding("r", "release", "Release"),
        Binding("tab", "app.focus_next", "Timeline", show=False),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, looks: Looks, first: Json) -> None:
        super().__init__()
        self._looks = looks
        self._first = first
        self._rows: dict[str, Json] = {}
        self._is_looking = False
        self._seen_id: str | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="title")
        yield Static(id="trouble")
        with Horizontal(id="health"):
            for _ in range(_VITALS):
                yield Static(classes="vital")
        yield Static(id="attention")
        yield DataTable(cursor_type="row", zebra_stripes=True)
        with VerticalScroll(id="below"):
            yield Static(id="facts")
            yield Static(id="timeline")
        yield Footer()

    def on_mount(self) -> None:
        self._table.add_columns(*words.COLUMNS)
        self._table.focus()
        self._show(self._first)
        self.set_interval(LOOK_EVERY_S, self.look)
        self.look()

    @property
    def _table(self) -> DataTable[Text]:
        return self.query_one(DataTable)

    @property
    def _chosen(self) -> str | None:
        table = self._table
        if not table.is_valid_row_index(table.cursor_row):
            return None
        return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value

    # Looking.

    def look(self) -> None:
        """A look that takes longer than a second is not overtaken by the next one."""
        if not self._is_looking:
            self._is_looking = True
            self._look(self._chosen)

    @work(thread=True, group="look", exit_on_error=False)
    def _look(self, chosen: str | None) -> None:
        try:
            found = self._looks.overview()
            seen = None if chosen is None else self._looks.view(chosen)
        except Failed as failure:
            self.call_from_thread(self._tell_trouble, "; ".join((failure.message, *failure.reasons)))
        else:
            self.call_from_thread(self._show_all, found, seen)
        finally:
            self._is_looking = False

    def on_data_table_row_highlighted(self) -> None:
        if self._chosen != self._seen_id:
            self.look()

    def _tell_trouble(self, text: str) -> None:
        trouble = self.query_one("#trouble", Static)
        trouble.display = bool(text)
        trouble.update(Text(words.clean(text)))

    def _show_all(self, found: Json, seen: Json | None) -> None:
        self._show(found)
        if seen is not None:
            self._show_view(seen)

    def _show(self, found: Json) -> None:
        is_down = not found["running"]
        self._tell_trouble(
            "otocod is not running: this is what its database says. Keys change nothing." if is_down else ""
        )
        self.query_one("#title", Static).update(words.title(found))
        for place, vital in zip(
            self.query(".vital").results(Static), [*found["health"], *[None] * _VITALS], strict=False
        ):
            place.display = vital is not None
            if vital is not None:
                place.update(words.vital(vital))
        attention = self.query_one("#attention", Static)
        attention.display = bool(found["attention"])
        attention.update(words.attention(found["attention"]))
        self._fill([*found["brackets"], *found["closed"]])

    def _fill(self, rows: list[Json]) -> None:
        """The cursor stays on its bracket, wherever that goes."""
        table = self._table
        chosen = self._chosen
        wanted = {str(row["bracket_id"]): row for row in rows}
        if list(wanted) == list(self._rows):
            columns = list(table.columns)
            for name, row in wanted.items():
                for column, cell in zip(columns, words.cells(row), strict=True):
                    if words.differ(table.get_cell(name, column), cell):
                        table.update_cell(name, column, cell, update_width=True)
        else:
            table.clear()
            for name, row in wanted.items():
                table.add_row(*words.cells(row), key=name)
            if chosen in wanted:
                table.move_cursor(row=table.get_row_index(chosen))
        self._rows = wanted

    def _show_view(self, seen: Json) -> None:
        self._seen_id = str(seen["bracket"]["bracket_id"])
        self.query_one("#facts", Static).update(words.facts(seen))
        self.query_one("#timeline", Static).update(words.timeline(seen))

    # Changing.

    def action_close(self) -> None:
        self._ask_about("close", "its exits are cancelled, then the position is closed at the natural price.", {})

    def action_release(self) -> None:
        self._ask_about("release", "otocod manages it no longer; its orders and its position stay as they are.", {})

    def _ask_about(self, verb: str, what: str, body: Json) -> None:
        chosen = self._chosen
        row = None if chosen is None else self._rows.get(chosen)
        if row is None or row["state"] == "CLOSED":
            self.notify("There is no open bracket under the cursor.", severity="warning")
            return
        question = Text(f"{verb.capitalize()} ", style="bold")
        question.append(f"{words.clean(row['client_ref'], 60)} ({words.clean(row['name'])})", "bold yellow")
        question.append(f": {what}", "not bold")
        self._ask(question, verb, lambda: self._tell(bracket_path(str(chosen), verb), body, f"{verb} was asked for"))

    def action_halt(self) -> None:
        self.push_screen(ChooseLevel(), self._level_chosen)

    def _level_chosen(self, level: str | None) -> None:
        if level is None:
            return
        word = "flatten" if level == "flatten" else "halt"
        body = {"level": level, "reason": "from watch", "confirm": level == "flatten"}
        question = Text(f"Halt {level}: ", style="bold yellow").append(_LEVELS[level], "not bold")
        self._ask(question, word, lambda: self._tell("/v1/halt", body, f"halted: {level}"))

    def action_resume(self) -> None:
        question = Text("Resume: new entries are allowed again.")
        self._ask(question, "resume", lambda: self._tell("/v1/resume", {}, "resumed"))

    def _ask(self, question: Text, word: str, act: Callable[[], Any]) -> None:
        self.push_screen(Confirm(question, word), lambda is_sure: act() if is_sure else None)

    @work(thread=True, group="tell", exit_on_error=False)
    def _tell(self, path: str, body: Json, done: str) -> None:
        try:
            self._looks.tell(path, body)
        except Failed as failure:
            text = words.clean("; ".join((failure.message, *failure.reasons)), 600)
            self.call_from_thread(self.notify, text, severity="error", timeout=15, markup=False)
        else:
            self.call_from_thread(self.notify, done, markup=False)
            self.call_from_thread(self.look)
