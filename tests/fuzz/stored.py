"""A data directory as a daemon leaves it: brackets at every stage of a life, a queue with rows of every kind."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from otocod.adapters.queue.init import init_queue
from otocod.adapters.sqlite.migrate import check_identity
from otocod.adapters.sqlite.store import SqliteStore
from otocod.ports.store import Alarm, Setting
from tests.support.state_file import fresh_state
from tests.support.stored_records import ACCOUNT, START_US, changes_of_life


def make_data_dir(directory: Path) -> None:
    state = fresh_state(directory)
    check_identity(state, environment="paper", accounts=(ACCOUNT,))
    asyncio.run(_fill(state))
    with closing(sqlite3.connect(state)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    for leftover in directory.glob("state.db-*"):
        leftover.unlink()
    queue = directory / "queue" / "queue.db"
    init_queue(queue, group=None)
    with closing(sqlite3.connect(queue)) as connection, connection:
        connection.executemany(
            "INSERT INTO bracket_requests (client_ref, account, request, status, reason, bracket_id)"
            " VALUES (?,?,?,?,?,?)",
            [
                ("new", ACCOUNT, "{}", "NEW", None, None),
                ("good", ACCOUNT, "{}", "ACCEPTED", None, "x"),
                ("bad", ACCOUNT, "{", "REJECTED", "no", None),
            ],
        )


async def _fill(path: Path) -> None:
    store = await SqliteStore.open(path)
    for number in range(1, 5):
        for step in changes_of_life(number)[:number]:
            await store.commit(step)
    await store.commit(Alarm(START_US, "double_exit", "both exits filled"))
    await store.commit(Setting("halt", "a person said so"))
    await store.close()


def environ_of(directory: Path) -> dict[str, str]:
    """Of a daemon that works in `directory`; nobody listens at its broker's addresses."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(directory),
        "LC_ALL": "C.UTF-8",
        "OTOCOD_ENVIRONMENT": "paper",
        "OTOCOD_ACCOUNTS": ACCOUNT,
        "OTOCOD_API_URL": "http://127.0.0.1:9",
        "OTOCOD_STREAMER_URL": "ws://127.0.0.1:9/streamer",
        "OTOCOD_DATA_DIR": str(directory),
    }
