"""Rows are noticed through the kernel's watch of the directory, and without it, and with one that says nothing."""

from pathlib import Path

import pytest

from otocod.adapters.queue import watch as watch_module
from otocod.adapters.queue import worker as worker_module
from otocod.adapters.queue.watch import DirectoryWatch
from otocod.adapters.queue.worker import Settings

from .conftest import Bench, until

NO_POLL = Settings(poll_interval_s=3600.0)


async def test_a_plain_insert_is_noticed_by_the_watch_alone(bench: Bench) -> None:
    await bench.new_reader(NO_POLL).start()
    for number in range(5):
        bench.insert(f"r{number}")
        assert (await bench.row()).client_ref == f"r{number}"


async def test_without_a_watch_rows_are_found_by_polling(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_watches_left(directory_fd: int, name: str) -> DirectoryWatch:
        raise OSError("too many")

    monkeypatch.setattr(worker_module, "DirectoryWatch", no_watches_left)
    await bench.reader.start()
    assert bench.reader._worker is not None and bench.reader._worker._watch is None
    for number in range(5):
        bench.insert(f"r{number}")
        assert (await bench.row()).client_ref == f"r{number}"


async def test_a_watch_that_keeps_silent_about_a_commit_is_given_up_for_polling(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "_MASK", watch_module._IN_MOVED)
    await bench.reader.start()
    worker = bench.reader._worker
    assert worker is not None and worker._watch is not None
    bench.insert("one")
    assert (await bench.row()).client_ref == "one"
    await until(lambda: worker._watch is None)
    bench.insert("two")
    assert (await bench.row()).client_ref == "two"


def stir(beside: Path, times: int) -> None:
    for _ in range(times):
        beside.write_bytes(b"x")
        beside.unlink()


async def test_a_flood_of_changes_is_heard_a_bounded_number_of_times_a_tick(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Method: a tick that never ends. In it the thread hears its fill, then nothing more until it is called, and after
    what it finds then it may hear as much again."""
    heard = 0
    drain = DirectoryWatch.drain

    def counted(watch: DirectoryWatch) -> watch_module.Stir:
        nonlocal heard
        heard += 1
        return drain(watch)

    monkeypatch.setattr(DirectoryWatch, "drain", counted)
    await bench.new_reader(NO_POLL).start()
    stir(Path(f"{bench.path}-x"), times=2_000)
    bench.insert("last")
    assert bench.wake()
    assert (await bench.row()).client_ref == "last"
    assert heard <= 2 * (worker_module._STIRS_A_TICK + 1)
