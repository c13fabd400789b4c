"""A store that lives: brackets accepted and carried to their ends, alone and in groups, checkpoints, clean restarts.

The product's own steps open the file each time (fitness, migration, identity, store), and its own engine writes. Only
the checkpoint is made to come sooner, so that a short record holds several; what it does is unchanged.
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from unittest import mock

from otocod.adapters.sqlite import engine, migrate
from otocod.adapters.sqlite import store as store_module
from otocod.adapters.sqlite.check import require_fit
from otocod.adapters.sqlite.migrate import check_identity, upgrade
from otocod.adapters.sqlite.store import SqliteStore
from otocod.ports.store import Alarm, BracketChange, Setting
from tests.powerloss.recorder import Operation, recording
from tests.support.stored_records import ACCOUNT, changes_of_life

STATE = "state.db"
_CHECKPOINT_ROWS = 60


def record(
    directory: Path, rng: random.Random, numbers: Sequence[int], *, openings: int = 3, synchronous: str | None = None
) -> list[Operation]:
    """What the lives of these brackets ask of the disk, on a file that may be there already.

    `synchronous`: instead of what the product sets.
    """
    directory.chmod(0o750)
    with recording(directory) as recorder, _checkpoints_come_soon(), _synchronous(synchronous):

        async def live() -> None:
            versions: dict[str, int] = {}

            def acknowledge(changes: Sequence[BracketChange]) -> None:
                versions.update({change.after.bracket_id: change.after.version for change in changes})
                recorder.acknowledge(versions)

            for opening in range(openings):
                await _one_opening(directory / STATE, numbers[opening::openings], rng, acknowledge)

        asyncio.run(live())
    return recorder.operations


async def _one_opening(
    path: Path, numbers: Sequence[int], rng: random.Random, acknowledge: Callable[[Sequence[BracketChange]], None]
) -> None:
    store = await open_as_the_product_does(path)
    try:
        lives = [changes_of_life(number) for number in numbers]
        while any(lives):
            group = [life.pop(0) for life in lives if life and rng.random() < 0.4]
            futures = [store.commit(change) for change in group]
            if rng.random() < 0.2:
                futures.append(store.commit(Alarm(rng.randrange(1 << 40), "tried", "x" * rng.randrange(2_000))))
            if rng.random() < 0.1:
                futures.append(store.commit(Setting("halt", str(rng.random()))))
            if futures:
                await asyncio.gather(*futures)
                acknowledge(group)
            if rng.random() < 0.2:
                # The writer is idle for a moment: it may checkpoint.
                await asyncio.sleep(0)
    finally:
        await store.close()


async def open_as_the_product_does(path: Path) -> SqliteStore:
    """The start, from the lock on: whatever it raises, the daemon would not have started."""
    require_fit(path)
    upgrade(path)
    check_identity(path, environment="paper", accounts=[ACCOUNT])
    return await SqliteStore.open(path)


def _checkpoints_come_soon() -> AbstractContextManager[object]:
    return mock.patch.object(store_module, "CHECKPOINT_ROWS_IDLE", _CHECKPOINT_ROWS)


@contextmanager
def _synchronous(value: str | None) -> Iterator[None]:
    if value is None:
        yield
        return
    lowered = tuple((name, value if name == "synchronous" else given) for name, given in engine.WRITER_PRAGMAS)
    with mock.patch.object(engine, "WRITER_PRAGMAS", lowered), mock.patch.object(migrate, "WRITER_PRAGMAS", lowered):
        yield


def without_reserve() -> AbstractContextManager[object]:
    """The 16 MiB set aside beside the database hold nothing, and would be written anew beside each image."""
    return mock.patch.object(store_module, "make_reserve", return_value=True)
