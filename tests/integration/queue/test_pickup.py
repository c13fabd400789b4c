"""Rows come in, answers go out: the reader with friendly producers."""

import asyncio
import os
import stat
import threading
from pathlib import Path

import pytest

from otocod.adapters.queue.landlock import LandlockUnavailable
from otocod.adapters.queue.rows import Answer, AnswerResult, AnswerStatus, QueueRow
from otocod.adapters.queue.worker import Settings

from .conftest import Bench, accepted, rejected, until

NO_POLL = Settings(poll_interval_s=3600.0)


async def test_a_row_is_found_by_polling_alone(bench: Bench) -> None:
    await bench.reader.start()
    row_id = bench.insert("one", '{"version": 1}')
    row = await bench.row()
    assert (row.id, row.client_ref, row.account, row.request) == (row_id, "one", "a", '{"version": 1}')


async def test_a_datagram_has_a_row_found_without_any_poll(bench: Bench) -> None:
    await bench.new_reader(NO_POLL).start()
    bench.insert("one")
    assert bench.wake()
    assert (await bench.row()).client_ref == "one"


async def test_a_datagram_that_announces_nothing_delays_the_next_row_by_no_more_than_a_tick(bench: Bench) -> None:
    await bench.reader.start()
    for number in range(20):
        bench.wake()
        bench.insert(f"r{number}")
        bench.wake()
        assert (await bench.row()).client_ref == f"r{number}"


@pytest.mark.covers("F110")
async def test_rows_waiting_at_the_start_come_in_id_order_and_bounded_batches(bench: Bench) -> None:
    await bench.new_reader(NO_POLL).start()
    await bench.reader.stop()
    with bench.producer() as producer:
        producer.execute("BEGIN")
        for number in range(250):
            sql = "INSERT INTO bracket_requests (id, client_ref, account, request) VALUES (?, ?, 'a', '{}')"
            producer.execute(sql, (1000 - number, f"r{number}"))
        producer.execute("COMMIT")
    await bench.new_reader(NO_POLL).start()
    ids = [(await bench.row()).id for _ in range(250)]
    assert ids == sorted(ids)
    assert bench.batches == [100, 100, 50]


@pytest.mark.covers("F110")
async def test_rows_beyond_the_bound_stay_in_the_file_until_others_are_answered(bench: Bench) -> None:
    await bench.new_reader(Settings(batch_rows=2, open_rows_max=3)).start()
    for number in range(5):
        bench.insert(f"r{number}")
    first = [await bench.row() for _ in range(3)]
    # An answer is written after the look of the same turn, so its future proves that the reader had its chance.
    await bench.reader.answer([Answer(99, "nobody", AnswerStatus.ACCEPTED, None, "b")])
    assert bench.rows.empty()
    await bench.reader.answer([accepted(row) for row in first])
    assert [(await bench.row()).client_ref for _ in range(2)] == ["r3", "r4"]


async def test_answers_are_in_the_file_when_the_future_is_done(bench: Bench) -> None:
    await bench.reader.start()
    bench.insert("good")
    good = await bench.row()
    bench.insert("bad")
    bad = await bench.row()
    results = await bench.reader.answer([accepted(good), rejected(bad, "bad JSON\nunknown key \x1b[2Jversoin")])
    assert results == (AnswerResult.WRITTEN, AnswerResult.WRITTEN)
    sql = "SELECT status, reason, bracket_id, handled_at IS NOT NULL FROM bracket_requests ORDER BY id"
    assert bench.execute(sql) == [
        ("ACCEPTED", None, f"bracket-{good.id}", 1),
        ("REJECTED", "bad JSON\nunknown key versoin", None, 1),
    ]


@pytest.mark.covers("F107")
async def test_an_answer_to_a_row_deleted_or_renamed_since_changes_nothing(bench: Bench) -> None:
    await bench.reader.start()
    bench.insert("deleted")
    bench.insert("renamed")
    rows = [await bench.row(), await bench.row()]
    bench.execute("DELETE FROM bracket_requests WHERE client_ref = 'deleted'")
    bench.execute("UPDATE bracket_requests SET client_ref = 'other' WHERE client_ref = 'renamed'")
    assert await bench.reader.answer([accepted(row) for row in rows]) == (AnswerResult.GONE, AnswerResult.GONE)
    assert bench.execute("SELECT client_ref, status FROM bracket_requests") == [("other", "NEW")]
    assert (await bench.row()).client_ref == "other"


@pytest.mark.covers("F105")
async def test_a_row_comes_once_until_it_is_edited_or_forgotten(bench: Bench) -> None:
    await bench.reader.start()
    row_id = bench.insert("one")
    await bench.row()
    bench.insert("two")
    assert (await bench.row()).client_ref == "two"
    bench.execute("UPDATE bracket_requests SET request = '[]' WHERE id = ?", row_id)
    assert (await bench.row()).request == "[]"
    bench.reader.forget([row_id])
    assert (await bench.row()).id == row_id
    assert bench.rows.empty()


async def test_an_id_that_sqlite_gives_out_again_is_a_new_row(bench: Bench) -> None:
    await bench.reader.start()
    for number in range(3):
        await bench.works(f"r{number}")
        bench.execute("DELETE FROM bracket_requests")


@pytest.mark.covers("F4", "F109")
async def test_a_row_not_answered_in_one_run_comes_again_in_the_next(bench: Bench) -> None:
    await bench.reader.start()
    bench.insert("one")
    first = await bench.row()
    await bench.reader.stop()
    await bench.new_reader().start()
    assert await bench.row() == first


@pytest.mark.covers("F106")
async def test_bad_rows_are_handed_over_with_reasons_between_good_ones_and_can_be_answered(bench: Bench) -> None:
    await bench.new_reader(NO_POLL).start()
    bench.insert("first")
    bench.insert("nul\0ref", "x" * 70_000)
    sql = "INSERT INTO bracket_requests (client_ref, account, request) VALUES (CAST(x'ff41' AS TEXT), 'a', '{}')"
    bench.execute(sql)
    bench.execute(
        "INSERT INTO bracket_requests (client_ref, account, request, created_at) VALUES ('f', 'a', '{}', '9999-01-01')"
    )
    bench.insert("last")
    bench.wake()
    first = await bench.row()
    bad = [await bench.bad_row() for _ in range(3)]
    last = await bench.row()
    assert [row.reasons for row in bad] == [
        ("client_ref holds a NUL character", "request is longer than 65536 bytes"),
        ("client_ref is not UTF-8 (byte 0)",),
        ("created_at lies more than 60 s ahead: '9999-01-01'",),
    ]
    answers = [accepted(first), accepted(last), *(rejected(row, "\n".join(row.reasons)) for row in bad)]
    assert set(await bench.reader.answer(answers)) == {AnswerResult.WRITTEN}
    statuses = bench.execute("SELECT status FROM bracket_requests ORDER BY id")
    assert [status for (status,) in statuses] == ["ACCEPTED", "REJECTED", "REJECTED", "REJECTED", "ACCEPTED"]


@pytest.mark.covers("F119")
async def test_the_file_and_the_socket_are_for_the_group_whatever_the_umask(bench: Bench) -> None:
    before = os.umask(0o077)
    try:
        await bench.reader.start()
    finally:
        os.umask(before)
    for name in ("queue.db", "wake"):
        assert stat.S_IMODE(bench.path.with_name(name).stat().st_mode) == 0o660
    await bench.reader.stop()
    assert [entry.name for entry in bench.path.parent.iterdir()] == ["queue.db"]


async def test_a_directory_too_deep_for_a_socket_address_has_a_wake_socket_all_the_same(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    bench = Bench(directory / "queue.db")
    await bench.new_reader(NO_POLL).start()
    bench.insert("one")
    bench.wake()
    assert (await bench.row()).client_ref == "one"
    assert await bench.reader.stop()


async def test_a_wake_socket_that_somebody_removed_is_bound_again(bench: Bench) -> None:
    await bench.new_reader(Settings(wake_check_every_s=0.05)).start()
    bench.path.with_name("wake").unlink()
    await until(bench.wake)


async def test_start_and_stop_may_be_called_in_any_order_and_number(bench: Bench) -> None:
    assert await bench.reader.stop()
    with pytest.raises(RuntimeError, match="lives once"):
        await bench.reader.start()

    reader = bench.new_reader()
    starting = asyncio.create_task(reader.start())
    await asyncio.sleep(0)
    assert await reader.stop()
    assert await reader.stop()
    await asyncio.gather(starting, return_exceptions=True)

    reader = bench.new_reader()
    await asyncio.gather(reader.start(), reader.start())
    assert sum(thread.name == "otocod-queue" for thread in threading.enumerate()) == 1
    assert await reader.stop()
    assert not any(thread.name == "otocod-queue" for thread in threading.enumerate())
    assert await reader.answer([Answer(1, "r", AnswerStatus.ACCEPTED, None, "b")]) == (AnswerResult.NOT_WRITTEN,)


async def test_answers_given_before_the_stop_are_written_by_it(bench: Bench) -> None:
    await bench.new_reader(NO_POLL).start()
    bench.insert("one")
    bench.wake()
    future = bench.reader.answer([accepted(await bench.row())])
    assert await bench.reader.stop()
    assert await future == (AnswerResult.WRITTEN,)


async def test_a_start_without_landlock_or_directory_fails_and_leaves_no_thread(tmp_path: Path) -> None:
    def absent(directory_fd: int) -> None:
        raise LandlockUnavailable("this kernel has no Landlock")

    bench = Bench(tmp_path / "queue.db")
    with pytest.raises(LandlockUnavailable):
        await bench.new_reader(confine=absent).start()
    assert not bench.path.exists()
    assert await bench.reader.stop()
    with pytest.raises(FileNotFoundError):
        await Bench(tmp_path / "none" / "queue.db").reader.start()
    assert not any(thread.name == "otocod-queue" for thread in threading.enumerate())


async def test_an_engine_that_fails_on_a_batch_still_gets_the_next(bench: Bench) -> None:
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
    take = bench._take

    def fail_once(batch: list[QueueRow]) -> None:
        if not failures:
            raise ZeroDivisionError
        take(batch)

    bench._take = fail_once  # type: ignore[assignment, method-assign]
    await bench.new_reader().start()
    bench.insert("one")
    await until(lambda: bool(failures))
    bench.insert("two")
    assert (await bench.row()).client_ref == "two"
