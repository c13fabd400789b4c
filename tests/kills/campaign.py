"""Many stories side by side on one paper broker and one fork server, until so many kills have been made.

Most of a story is waiting: ten seconds before an exit that may have been posted is given up, two minutes for an entry.
Waiting costs no time of the machine, so many data directories live at once and the kills come as fast as it can start
daemons.
"""

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.kills.daemons import Nursery
from tests.kills.market import Market
from tests.kills.story import Shape, Story

# Daemons that may be starting at the same moment. More would wait for each other and meet timeouts.
STARTING_AT_ONCE = 3

# Without the reservation the exchange takes a second exit, as it takes a second entry: it hides no double. What was
# placed just before a kill is not in the listings yet when the next daemon, a tenth of a second later, asks for them.
RULES = {"reservation": False, "read_lag_ms": 1_000}


@dataclass(slots=True)
class Tally:
    stories: int = 0
    brackets: int = 0
    clean_stops: int = 0
    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    attention: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, Path, list[str]]] = field(default_factory=list)  # seed, directory, what is wrong

    def add(self, story: Story) -> None:
        self.stories += 1
        self.brackets += len(story.wards)
        self.clean_stops += story.clean_stops
        self.kills += story.kills
        self.outcomes += story.outcomes
        self.attention += story.attention
        if story.violations:
            self.failures.append((story.seed, story.directory, story.violations))

    def join(self, other: "Tally") -> None:
        self.stories += other.stories
        self.brackets += other.brackets
        self.clean_stops += other.clean_stops
        self.kills += other.kills
        self.outcomes += other.outcomes
        self.attention += other.attention
        self.failures += other.failures


async def campaign(
    directory: Path,
    seeds: list[str],
    shape: Shape,
    *,
    at_once: int,
    on_story: Callable[[Story], None] = lambda story: None,
) -> Tally:
    """One story for each seed. Directories of stories in which nothing was wrong are removed."""
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    market = await Market.open(directory, len(seeds), seed=1, **RULES)
    nursery = await Nursery.open()
    tally = Tally()
    places, starting = asyncio.Semaphore(at_once), asyncio.Semaphore(STARTING_AT_ONCE)

    async def tell(number: int, seed: str) -> None:
        async with places:
            # Short names: a Unix socket's address holds 107 bytes.
            story = Story(seed, shape, directory / str(number), market, nursery)
            try:
                await story.tell(starting)
            except Exception as error:
                error.add_note(f"seed {seed}, {story.directory}")
                raise
            tally.add(story)
            on_story(story)
            if not story.violations:
                shutil.rmtree(story.directory)

    try:
        async with asyncio.TaskGroup() as group:
            for number, seed in enumerate(seeds):
                group.create_task(tell(number, seed))
    finally:
        await nursery.close()
        await market.close()
    return tally


def run_share(job: int, seeds: list[str], *, base: Path, shape: Shape, at_once: int) -> Tally:
    """One job's stories, in a process of its own. Prints each as it ends."""

    def progress(story: Story) -> None:
        verdict = "; ".join(story.violations[:3]) or "ok"
        print(f"  {story.seed}: {story.kills.total()} kills, {len(story.wards)} brackets: {verdict}", flush=True)

    return asyncio.run(campaign(base / str(job), seeds, shape, at_once=at_once, on_story=progress))
