"""The overview of a running engine: shared, bounded, and no burden to anybody."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from otocod.domain.brackets import BracketState
from otocod.domain.ids import BracketId
from otocod.engine.board import MOST_SHOWN, Board
from otocod.ports.admin import NoSuchBracket
from tests.support.fakes import Daemon, VirtualLoop, pass_s
from tests.unit.engine.test_operator import REF, Console, Surroundings


def run_virtually(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story())


def test_overview_shows_the_brackets_and_the_health_of_the_engine() -> None:
    async def story() -> None:
        console = await Console().protected()
        found = await console.service.overview()
        assert (found["running"], found["environment"], found["counts"]) == (True, "paper", {"EXITS_LIVE": 1})
        (row,) = found["brackets"]
        assert (row["standing"], row["target"], row["quotes"]["text"]) == ("protected", "0.40", "not quoted")
        assert {each["what"] for each in found["health"]} == {"broker", "streamer", "quotes", "entries"}
        assert [each["bracket_id"] for each in found["closed"]] == ["closed"]

    run_virtually(story)


def test_overview_is_made_once_a_second_whoever_asks_and_whoever_leaves() -> None:
    async def story() -> None:
        console = await Console().protected()
        leaver = asyncio.create_task(console.service.overview())
        await asyncio.sleep(0)
        leaver.cancel()
        first, second = await asyncio.gather(console.service.overview(), console.service.overview())
        assert first is second
        await pass_s(0.5)
        assert await console.service.overview() is first
        await pass_s(0.6)
        assert await console.service.overview() is not first

    run_virtually(story)


def test_failed_overview_is_made_anew() -> None:
    async def story() -> None:
        console = await Console().protected()

        async def fails(limit: int) -> Any:
            raise OSError("the disk")

        works = console.reads.lately_closed
        console.reads.lately_closed = fails  # type: ignore[method-assign]
        with pytest.raises(OSError):
            await console.service.overview()
        console.reads.lately_closed = works  # type: ignore[method-assign]
        assert (await console.service.overview())["brackets"]

    run_virtually(story)


def test_thousands_of_brackets_are_counted_and_the_most_urgent_shown() -> None:
    async def story() -> None:
        console = await Console().protected()
        (known,) = console.daemon.brackets.values()
        for number in range(2_000):
            name = BracketId(f"{known.bracket_id[:-6]}{number:06x}")
            console.daemon.brackets[name] = replace(known, bracket_id=name, created_at_us=known.created_at_us + number)
        worst = BracketId(f"{known.bracket_id[:-6]}000007")
        console.daemon.brackets[worst] = replace(console.daemon.brackets[worst], is_frozen=True)
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count_turns())
        found = await console.service.overview()
        counting.cancel()
        assert len(found["brackets"]) == MOST_SHOWN
        assert found["brackets"][0]["bracket_id"] == worst
        assert found["unshown"] == 2_001 - MOST_SHOWN
        assert found["counts"] == {BracketState.EXITS_LIVE: 2_001}
        # The loop turns while it is made: an exit would not have waited for the whole of it.
        assert turns >= MOST_SHOWN // 20

    run_virtually(story)


def test_view_shows_an_open_and_a_closed_bracket_and_no_other() -> None:
    async def story() -> None:
        console = await Console().protected()
        console.reads.shown = {"orders": [], "client_ref": "ref-0", "account": "5WT00001", "quantity": 1}
        seen = await console.service.view(REF)
        assert seen["bracket"]["state"] == "EXITS_LIVE"
        assert seen["fills"] and seen["story"] and seen["orders"] == []
        assert seen["course"] == {"points": [], "told": "no quotes yet"}
        with pytest.raises(NoSuchBracket):
            await console.service.view("ref:nobody")

    run_virtually(story)


def test_view_of_a_closed_bracket_comes_from_the_store() -> None:
    async def story() -> None:
        console = await Console().closed()
        console.reads.shown = {"orders": [], "client_ref": "ref-0", "account": "5WT00001", "quantity": 1}
        seen = await console.service.view(REF)
        assert (seen["bracket"]["state"], seen["bracket"]["price"]) == ("CLOSED", None)

    run_virtually(story)


def test_board_without_quotes_keeps_no_course_and_does_not_mind() -> None:
    async def story() -> None:
        daemon = Daemon()
        console = Console(daemon)
        board = Board(daemon.supervisor, console.reads, Surroundings())
        task = asyncio.create_task(board.run())
        await pass_s(3)
        assert not task.done()
        task.cancel()

    run_virtually(story)
