"""Producers that hold the file's lock for ever."""

import asyncio

import pytest

from otocod.adapters.queue.producer import submit_row
from otocod.adapters.queue.rows import AnswerResult
from otocod.adapters.queue.worker import AlarmKind, Settings

from .conftest import PATIENCE_S, Bench, accepted

QUICK_ALARM = Settings(lock_alarm_after_s=0.1)


@pytest.mark.covers("F121")
async def test_a_reader_shut_out_alarms_and_looks_again_until_it_may(bench: Bench) -> None:
    await bench.new_reader(QUICK_ALARM).start()
    with bench.producer() as producer:
        producer.execute("INSERT INTO bracket_requests (client_ref, account, request) VALUES ('one', 'a', '{}')")
        await bench.row()
        producer.execute("BEGIN EXCLUSIVE")
        sql = "INSERT INTO bracket_requests (client_ref, account, request) VALUES ('two', 'a', '{}')"
        producer.execute(sql)
        alarm = await bench.alarm(AlarmKind.LOCKED)
        assert "no answers wait" in alarm.text
        assert bench.rows.empty()
        producer.execute("COMMIT")
    assert (await bench.row()).client_ref == "two"


@pytest.mark.covers("F121")
@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN; SELECT * FROM bracket_requests"])
async def test_answers_that_a_lock_holds_up_are_named_and_written_when_it_goes(bench: Bench, lock: str) -> None:
    await bench.new_reader(QUICK_ALARM).start()
    bench.insert("one")
    row = await bench.row()
    with bench.producer() as producer:
        for statement in lock.split("; "):
            producer.execute(statement).fetchall()
        future = bench.reader.answer([accepted(row)])
        alarm = await bench.alarm(AlarmKind.LOCKED)
        assert (alarm.client_refs, future.done()) == (("one",), False)
        assert "answers wait for one" in alarm.text
        producer.execute("COMMIT")
    assert await asyncio.wait_for(future, PATIENCE_S) == (AnswerResult.WRITTEN,)


@pytest.mark.covers("F121")
async def test_producers_go_on_reading_while_an_answer_waits_for_a_reader(bench: Bench) -> None:
    """The reader that never ends blocks the COMMIT of everybody; yet others must still be able to read at once."""
    await bench.new_reader(QUICK_ALARM).start()
    bench.insert("one")
    row = await bench.row()
    with bench.producer() as holder, bench.producer() as other:
        holder.execute("BEGIN")
        holder.execute("SELECT * FROM bracket_requests").fetchall()
        future = bench.reader.answer([accepted(row)])
        await bench.alarm(AlarmKind.LOCKED)
        other.execute("PRAGMA busy_timeout=1000")
        for _ in range(50):
            assert other.execute("SELECT status FROM bracket_requests").fetchall() == [("NEW",)]
        assert not future.done()
        holder.execute("COMMIT")
    await asyncio.wait_for(future, PATIENCE_S)


@pytest.mark.covers("F121")
async def test_a_stop_while_the_file_is_locked_is_quick_and_says_what_is_not_written(bench: Bench) -> None:
    await bench.reader.start()
    bench.insert("one")
    row = await bench.row()
    with bench.producer() as producer:
        producer.execute("BEGIN EXCLUSIVE")
        future = bench.reader.answer([accepted(row)])
        assert await bench.reader.stop()
        assert await future == (AnswerResult.NOT_WRITTEN,)


@pytest.mark.covers("F121")
async def test_many_producers_and_answers_at_once_lose_nothing(bench: Bench) -> None:
    await bench.reader.start()

    def submit(first: int) -> None:
        for number in range(first, first + 20):
            submit_row(bench.path, client_ref=f"r{number}", account="a", request="{}")

    submitting = [asyncio.to_thread(submit, 100 * worker) for worker in range(3)]
    answering = asyncio.create_task(answer_all(bench, 60))
    await asyncio.gather(*submitting)
    assert set(await asyncio.wait_for(answering, PATIENCE_S)) == {AnswerResult.WRITTEN}
    assert bench.execute("SELECT status, count(*) FROM bracket_requests GROUP BY status") == [("ACCEPTED", 60)]


async def answer_all(bench: Bench, count: int) -> list[AnswerResult]:
    results: list[AnswerResult] = []
    while len(results) < count:
        results += await bench.reader.answer([accepted(await bench.row())])
    return results
