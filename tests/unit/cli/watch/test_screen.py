"""The screen as an operator's keys and eyes meet it, before a daemon of paper."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from otocod.cli.failure import DaemonDown, ExitStatus, Failed
from otocod.cli.watch.looks import Json
from otocod.cli.watch.screen import WatchApp
from otocod.engine import picture
from tests.support.core import Core
from tests.support.desk import START_US

EVIL = "[red]x[/red]\x1b[2J\u202e[@click=app.quit]y[/]"


def row(name: str, /, **changes: Any) -> Json:
    core = Core()
    core.fill_entry()
    core.confirm_exits()
    return {**picture.picture_of(core.bracket, None, START_US), "bracket_id": name, "client_ref": name, **changes}


def closed(name: str) -> Json:
    return {
        "bracket_id": name,
        "client_ref": name,
        "state": "CLOSED",
        "outcome": "TARGET_FILLED",
        "protection": "native-oco",
        "entry_net_price": "-0.85",
        "exit_net_price": "0.40",
        "unprotected_s": 0.004,
        "attention": None,
    }


class Paper:
    """`rows` and `shut` are what it shows; `told` is what it was asked to do. Looked at from other threads."""

    def __init__(self) -> None:
        self.rows = [row("one"), row("two", place=0.25, entry_place=0.5, profit="-0.20", price="1.05")]
        self.shut = [closed("done")]
        self.is_running = True
        self.fail: Failed | None = None
        self.refuse: Failed | None = None
        self.told: list[tuple[str, Json]] = []
        self.looked = 0
        self.viewed: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def overview(self) -> Json:
        self.may_answer.wait(10)
        if self.fail is not None:
            raise self.fail
        found = picture.overview_of(
            identity={"environment": "paper"} if self.is_running else {},
            health=picture.nobody_there(),
            pictures=self.rows,
            closed=self.shut,
            counts={"EXITS_LIVE": len(self.rows)},
            unshown=3,
            at_us=START_US,
            is_running=self.is_running,
        )
        self.looked += 1
        return found

    def view(self, bracket_id: str) -> Json:
        self.viewed.append(bracket_id)
        story = [{"at": None, "text": f"the story of {bracket_id}", "evidence": ["journal 1", None]}]
        return {"bracket": row(bracket_id, tags={"desk": "vol"}), "story": story}

    def tell(self, path: str, body: Json) -> Json:
        if self.refuse is not None:
            raise self.refuse
        self.told.append((path, body))
        return {}


async def until(pilot: Pilot[None], is_so: Callable[[], object]) -> None:
    for _ in range(400):
        if is_so():
            return
        await pilot.pause(0.01)
    raise AssertionError("never")


async def settled(pilot: Pilot[None], looks: Paper) -> None:
    """One whole look that began after now is on the screen."""
    before = looks.looked
    pilot.app.look()  # type: ignore[attr-defined]
    await until(pilot, lambda: looks.looked > before and not pilot.app._is_looking)  # type: ignore[attr-defined]
    await pilot.pause()


def shown(app: WatchApp) -> str:
    """Every word on the screen."""
    table = app.query_one(DataTable)
    lines = [" ".join(str(cell) for cell in table.get_row_at(n)) for n in range(table.row_count)]
    statics = [str(each.render()) for each in app.screen.query(Static) if each.display]
    return "\n".join([*lines, *statics])


async def test_brackets_health_and_what_needs_a_person_are_on_the_screen() -> None:
    looks = Paper()
    looks.rows[0]["attention"] = "look here"
    app = WatchApp(looks, looks.overview())
    async with app.run_test(size=(150, 40)) as pilot:
        await settled(pilot, looks)
        text = shown(app)
        for words in ("one", "two", "protected", "look here", "paper", "3 of them not shown", "in 0.85, out 0.40"):
            assert words in text
        assert "●" in str(app.query_one(DataTable).get_row("two")[3])
        assert "-0.20" in text


async def test_cursor_chooses_the_timeline_and_stays_on_its_bracket_when_the_order_changes() -> None:
    looks = Paper()
    app = WatchApp(looks, looks.overview())
    async with app.run_test(size=(150, 40)) as pilot:
        await pilot.press("down")
        await until(pilot, lambda: "the story of " in shown(app) and app._seen_id == app._chosen)
        chosen = app._chosen
        assert f"the story of {chosen}" in shown(app)
        looks.rows = [row("new", tone="bad", standing="frozen"), *looks.rows[::-1]]
        await settled(pilot, looks)
        assert app._chosen == chosen
        await until(pilot, lambda: "frozen" in shown(app))
        looks.rows = looks.rows[1:]
        looks.rows = [each for each in looks.rows if each["bracket_id"] != chosen]
        await settled(pilot, looks)
        assert app._chosen != chosen


@pytest.mark.parametrize(
    ("key", "typed", "path", "body"),
    [
        ("c", "close", "/v1/brackets/one/close", {}),
        ("r", "release", "/v1/brackets/one/release", {}),
        ("u", "resume", "/v1/resume", {}),
    ],
)
async def test_nothing_changes_before_the_word_is_typed(key: str, typed: str, path: str, body: Json) -> None:
    looks = Paper()
    looks.rows = looks.rows[:1]
    app = WatchApp(looks, looks.overview())
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot, looks)
        await pilot.press(key, "enter", *"yes", "enter")
        assert looks.told == []
        await pilot.press("escape")
        assert looks.told == []
        await pilot.press(key)
        await until(pilot, lambda: typed in shown(app))
        await pilot.press(*typed, "enter")
        await until(pilot, lambda: looks.told)
        assert looks.told == [(path, body)]


@pytest.mark.parametrize(
    ("downs", "word", "body"),
    [
        (0, "halt", {"level": "intake", "reason": "from watch", "confirm": False}),
        (1, "halt", {"level": "entries", "reason": "from watch", "confirm": False}),
        (3, "flatten", {"level": "flatten", "reason": "from watch", "confirm": True}),
    ],
)
@pytest.mark.covers("F123")
async def test_halt_asks_how_much_and_flatten_for_its_own_name(downs: int, word: str, body: Json) -> None:
    looks = Paper()
    app = WatchApp(looks, looks.overview())
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("h", "escape")
        await pilot.press("h", *["down"] * downs, "enter")
        await until(pilot, lambda: app.screen.query(Input))
        if word == "flatten":
            await pilot.press(*"halt", "enter")
            assert looks.told == []
        await pilot.press(*word, "enter")
        await until(pilot, lambda: looks.told)
        assert looks.told == [("/v1/halt", body)]


async def test_closed_bracket_is_neither_closed_nor_released_again() -> None:
    looks = Paper()
    looks.rows = []
    app = WatchApp(looks, looks.overview())
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("c")
        assert len(app.screen_stack) == 1
        looks.shut = []
        await settled(pilot, looks)
        await pilot.press("r")
        assert len(app.screen_stack) == 1


async def test_refusal_is_told_with_its_reasons() -> None:
    looks = Paper()
    looks.refuse = Failed(ExitStatus.REFUSED, "refused", ("too late [b]", "frozen"))
    app = WatchApp(looks, looks.overview())
    told: list[str] = []
    async with app.run_test(size=(120, 40)) as pilot:
        app.notify = lambda message, **kw: told.append(message)  # type: ignore[method-assign]
        await pilot.press("c", *"close", "enter")
        await until(pilot, lambda: told)
    assert told == ["refused; too late [b]; frozen"]


async def test_daemon_that_is_down_is_told_and_its_file_shown() -> None:
    looks = Paper()
    app = WatchApp(looks, looks.overview())
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot, looks)
        assert not app.query_one("#trouble").display
        looks.is_running = False
        await settled(pilot, looks)
        assert app.query_one("#trouble").display
        await until(pilot, lambda: "otocod is not running" in shown(app))
        looks.fail = DaemonDown("there is no database either")
        pilot.app.look()  # type: ignore[attr-defined]
        await until(pilot, lambda: "no database either" in shown(app))
        looks.fail, looks.is_running = None, True
        await settled(pilot, looks)
        assert not app.query_one("#trouble").display


async def test_daemon_that_does_not_answer_keeps_no_key_waiting() -> None:
    looks = Paper()
    app = WatchApp(looks, looks.overview())
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot, looks)
        looks.may_answer.clear()
        app.look()
        app.look()
        await pilot.press("down", "c")
        assert len(app.screen_stack) == 2
        looks.may_answer.set()
        await until(pilot, lambda: not app._is_looking)


async def test_hostile_text_is_neither_obeyed_nor_taken_for_markup() -> None:
    looks = Paper()
    looks.rows = [row("evil", client_ref=EVIL, attention=EVIL, name=EVIL, standing=EVIL, state=EVIL)]
    app = WatchApp(looks, looks.overview())
    async with app.run_test(size=(200, 40)) as pilot:
        await settled(pilot, looks)
        text = shown(app)
        assert "\x1b" not in text and "\u202e" not in text
        assert "[red]x[/red]" in text and "[@click=app.quit]" in text
        await pilot.press("c")
        await until(pilot, lambda: "[@click=app.quit]" in shown(app))


async def test_small_terminal_is_enough() -> None:
    looks = Paper()
    app = WatchApp(looks, looks.overview())
    async with app.run_test(size=(60, 18)) as pilot:
        await settled(pilot, looks)
        await pilot.press("h", "escape", "c", "escape", "tab", "down")
        await pilot.resize_terminal(30, 8)
        await settled(pilot, looks)
