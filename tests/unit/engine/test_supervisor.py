"""The daemon as a whole: what comes before what at the start and at the stop, and what makes it end."""

import asyncio
from typing import Any

import pytest

from otocod.adapters.sqlite.engine import DiskFailed, FailureKind
from otocod.domain.brackets import BracketState, Outcome
from otocod.domain.ids import AccountNumber, BrokerOrderId, ExternalIdentifier
from otocod.domain.orders import BrokerStatus, OrderReport
from otocod.domain.specs import Role
from otocod.engine.halts import HALT
from otocod.engine.supervisor import CLEAN_STOP, accounts_of
from otocod.ports.broker import Listing, LoginRefused, NotFound, StreamEvent, StreamOddity, StreamOrder, StreamPosition
from otocod.ports.broker import Position as BrokerPosition
from otocod.ports.store import BracketChange, Setting
from tests.support.fakes import (
    ACCOUNT,
    Daemon,
    is_change_to,
    is_entry,
    is_exit,
    lose_held,
    pass_s,
    report_of,
    row,
    until,
)
from tests.support.model_store import ModelStore

FULL = DiskFailed(FailureKind.FULL, "database or disk is full")
BROKEN = DiskFailed(FailureKind.IO, "disk I/O error")
FENCED = DiskFailed(FailureKind.FENCED, "another process has opened state.db for writing since")


def restarted(daemon: Daemon, **changes: bool) -> Daemon:
    return Daemon(store=reopened(daemon.store), broker=daemon.broker, **changes)  # type: ignore[arg-type]


def reopened(store: ModelStore) -> ModelStore:
    """The same file, opened by the next process."""
    again = ModelStore()
    for change in store.committed:
        again._apply(change)
        again.committed.append(change)
    return again


def journal_of(store: ModelStore) -> list[str]:
    changes = [change for change in store.committed if isinstance(change, BracketChange)]
    return [f"{entry.event} {entry.detail}".strip() for change in changes for entry in change.journal]


# A whole life.


async def test_request_becomes_a_bracket_that_is_filled_protected_and_closed() -> None:
    daemon = await Daemon().start()
    bracket = await daemon.protect()
    daemon.broker.fill(daemon.order(Role.TARGET))
    await until(lambda: daemon.brackets == {}, within_s=5)
    (answer,) = daemon.queue.answers
    assert answer.bracket_id == bracket.bracket_id
    closed = await daemon.store.bracket(bracket.bracket_id)
    assert closed is not None and closed.outcome is Outcome.TARGET_FILLED
    assert daemon.notifier.alarms == []
    await daemon.stop()


async def test_no_disk_stands_between_the_fill_and_the_exits() -> None:
    daemon = await Daemon().start()
    bracket = await daemon.take()
    daemon.store.hold()
    daemon.broker.fill(bracket.entries[0].external_identifier)
    await until(lambda: daemon.broker.exits)
    known = await daemon.store.bracket(bracket.bracket_id)
    assert known is not None and known.state is BracketState.PENDING_ENTRY, "the fill is not on disk yet"
    (exits,) = daemon.broker.exits
    assert set(exits.names) <= {name for _, name in bracket.staged}
    daemon.store.release()
    await until(lambda: daemon.bracket.state is BracketState.EXITS_LIVE)
    await daemon.stop()


async def test_deadlines_of_brackets_come_due_by_the_scheduler() -> None:
    """A part-filled entry gets its grace; then the rest is cancelled, since exits may not be sent while it works."""
    daemon = await Daemon().start()
    graced: dict[str, Any] = {"quantity": 2, "partial-entry": {"grace-s": 30}}
    bracket = await daemon.take(**graced)
    daemon.broker.fill(bracket.entries[0].external_identifier, quantity=1)
    await pass_s(29)
    assert daemon.broker.asked("cancel") == []
    await until(lambda: daemon.broker.asked("cancel"))
    await until(lambda: daemon.bracket.state is BracketState.EXITS_LIVE)
    await daemon.stop()


# The start.


@pytest.mark.covers("F44", "F90")
async def test_nothing_is_sent_before_the_listing_is_joined_and_ready_comes_after() -> None:
    """The entry filled while nobody was there: the exits leave after the first listing, and not before."""
    first = await Daemon().start()
    bracket = await first.take()
    await first.crash()
    first.broker.fill(bracket.entries[0].external_identifier)
    asked = len(first.broker.calls)
    daemon = restarted(first)
    hold = daemon.broker.hold("search")
    daemon.launch()
    await hold.arrived.wait()
    await pass_s(30)
    assert [call.name for call in daemon.broker.calls[asked:]] == ["search"]
    assert daemon.ready == 0 and not daemon.supervisor.is_ready
    assert daemon.supervisor.waiting_for == "the broker's orders"
    hold.release()
    await until(lambda: daemon.ready)
    await until(lambda: daemon.bracket.state is BracketState.EXITS_LIVE, within_s=60)
    names = [call.name for call in daemon.broker.calls[asked:]]
    assert names.index("search") < names.index("submit_complex")
    await daemon.stop()


@pytest.mark.covers("F30")
async def test_stream_is_kept_until_the_listing_is_joined_and_then_let_in() -> None:
    first = await Daemon().start()
    bracket = await first.take()
    await first.stop()
    daemon = restarted(first)
    hold = daemon.broker.hold("search", is_acted_on=False)
    # As the listing was read just before the fill:
    orders = tuple(report_of(order) for order in daemon.broker.orders())
    daemon.broker._steps[-1].answer = Listing(orders)  # type: ignore[assignment]  # a query's answer
    daemon.launch()
    await hold.arrived.wait()
    daemon.broker.fill(bracket.entries[0].external_identifier)
    await pass_s(1)
    assert daemon.bracket.state is BracketState.PENDING_ENTRY
    assert daemon.broker.exits == []
    hold.release()
    await until(lambda: daemon.bracket.state is BracketState.EXITS_LIVE)
    assert len(daemon.broker.exits) == 1
    await daemon.stop()


async def test_stream_is_subscribed_before_the_orders_are_listed() -> None:
    daemon = Daemon(is_stream_connecting=False)
    daemon.launch()
    await until(lambda: daemon.streamer.is_running)
    await pass_s(1)
    assert daemon.broker.calls == []
    assert daemon.supervisor.waiting_for == "the account streamer"
    daemon.streamer.connect()
    await until(lambda: daemon.ready)
    assert daemon.broker.calls[0].name == "search"
    await daemon.stop()


async def test_stream_that_does_not_come_is_not_waited_for_longer_than_its_patience() -> None:
    daemon = Daemon(is_stream_connecting=False)
    daemon.launch()
    await pass_s(4.9)
    assert daemon.broker.calls == []
    await until(lambda: daemon.ready, within_s=1)
    await daemon.stop()


async def test_listing_that_fails_at_the_start_is_tried_until_it_succeeds() -> None:
    daemon = Daemon()
    daemon.broker.fail("search", times=4)
    daemon.launch()
    await pass_s(3)
    assert daemon.ready == 0
    await until(lambda: daemon.ready, within_s=20)
    await daemon.stop()


async def test_rows_that_come_before_it_is_ready_are_taken_up_when_it_is() -> None:
    daemon = Daemon()
    hold = daemon.broker.hold("search")
    daemon.launch()
    await hold.arrived.wait()
    daemon.queue.put(row(0, protection="native-oco"))
    await pass_s(20)
    assert daemon.brackets == {}
    hold.release()
    await until(lambda: daemon.queue.answers)
    await daemon.stop()


@pytest.mark.covers("F78")
async def test_refused_log_in_keeps_it_up_and_not_ready_and_is_alarmed_once() -> None:
    daemon = Daemon()
    daemon.broker.fail("search", LoginRefused("invalid_grant"), times=5)
    daemon.launch()
    await until(lambda: daemon.supervisor.login_refused)
    await pass_s(5)
    assert not daemon.supervisor.is_ready
    assert daemon.task is not None and not daemon.task.done()
    assert daemon.supervisor.login_refused == "invalid_grant"
    assert daemon.notifier.codes == ["login_refused"]
    await until(lambda: daemon.ready and daemon.supervisor.login_refused is None, within_s=20)
    await daemon.stop()


@pytest.mark.covers("F78")
async def test_refused_log_in_is_looked_at_at_once_when_an_operator_has_looked() -> None:
    daemon = Daemon()
    daemon.broker.fail("search", LoginRefused("invalid_grant"))
    daemon.launch()
    await until(lambda: daemon.supervisor.login_refused)
    asked = len(daemon.broker.asked("search"))
    daemon.supervisor.look_now()
    await until(lambda: len(daemon.broker.asked("search")) > asked, within_s=0.1)
    await until(lambda: daemon.ready)
    await daemon.stop()


@pytest.mark.covers("F78")
async def test_daemon_whose_log_in_is_refused_stops_when_told() -> None:
    daemon = Daemon()
    daemon.broker.fail("search", LoginRefused("invalid_grant"), times=100)
    daemon.launch()
    await until(lambda: daemon.supervisor.login_refused)
    await asyncio.wait_for(daemon.stop(), 10)
    assert daemon.ready == 0


# Clean and unclean.


@pytest.mark.covers("F5", "F90")
async def test_unclean_start_makes_suspects_of_the_staged_exits_and_posts_none_of_them() -> None:
    """Exits leave beside the commit of the fill, so after a crash any staged id may have been posted."""
    first = await Daemon().start()
    bracket = await first.take()
    old = {name for role, name in bracket.staged if role is not Role.ENTRY}
    await first.crash()
    daemon = await restarted(first).start()
    assert {name for _, name in daemon.bracket.suspects} == old
    assert "DaemonRestarted not clean" in journal_of(daemon.store)
    daemon.broker.fill(bracket.entries[0].external_identifier)
    await until(lambda: daemon.bracket.state is BracketState.EXITS_LIVE, within_s=60)
    assert not old & {name for call in daemon.broker.exits for name in call.names}
    await daemon.stop()


@pytest.mark.covers("F6", "F88")
async def test_exits_posted_beside_a_commit_that_never_came_are_adopted_and_not_doubled() -> None:
    first = await Daemon().start()
    bracket = await first.take()
    first.store.hold()
    first.broker.fill(bracket.entries[0].external_identifier)
    await until(lambda: first.broker.exits)
    await pass_s(1)
    lose_held(first.store)
    await first.crash()
    daemon = await restarted(first).start()
    await until(lambda: daemon.bracket.state is BracketState.EXITS_LIVE, within_s=30)
    await pass_s(60)
    assert len(daemon.broker.exits) == 1
    working = [order for order in daemon.broker.orders() if order["status"] in ("Live", "Contingent")]
    assert len(working) == 2
    await daemon.stop()


async def test_clean_start_makes_no_suspects() -> None:
    first = await Daemon().start()
    bracket = await first.take()
    await first.stop()
    daemon = await restarted(first).start()
    assert daemon.bracket.suspects == ()
    assert daemon.bracket.staged == bracket.staged
    assert "DaemonRestarted clean" in journal_of(daemon.store)
    await daemon.stop()


async def test_run_is_unclean_from_before_its_first_send_until_it_has_stopped() -> None:
    daemon = Daemon()
    settings = []
    daemon.launch()
    await until(lambda: daemon.ready)
    settings.append((await daemon.store.settings())[CLEAN_STOP])
    await daemon.stop()
    settings.append((await daemon.store.settings())[CLEAN_STOP])
    assert settings == ["no", "yes"]


async def test_run_that_never_sent_anything_leaves_the_record_of_the_last_one() -> None:
    """Or a refused log-in, of all things, would make suspects of every staged id."""
    first = await Daemon().start()
    await first.take()
    await first.stop()
    second = restarted(first)
    second.broker.fail("search", LoginRefused("invalid_grant"), times=100)
    second.launch()
    await until(lambda: second.supervisor.login_refused)
    await second.stop()
    second.broker._steps.clear()
    third = await restarted(second).start()
    assert third.bracket.suspects == ()
    await third.stop()


# The stop.


@pytest.mark.covers("F18", "F87")
async def test_stop_waits_for_what_is_on_the_wire_and_commits_its_outcome() -> None:
    daemon = await Daemon().start()
    hold = daemon.broker.hold("submit", when=is_entry)
    daemon.queue.put(row(0, protection="native-oco"))
    await hold.arrived.wait()
    bracket_id = daemon.bracket.bracket_id
    stopping = asyncio.get_running_loop().create_task(daemon.stop())
    await pass_s(3)
    assert not stopping.done()
    hold.release()
    await stopping
    assert asyncio.get_running_loop().time() < 10
    known = await daemon.store.bracket(bracket_id)
    assert known is not None and known.entries[0].broker_order_id is not None
    assert (await daemon.store.settings())[CLEAN_STOP] == "yes"


async def test_stop_while_an_acceptance_is_being_committed_waits_for_its_entry_as_well() -> None:
    daemon = await Daemon().start()
    daemon.store.hold()
    daemon.queue.put(row(0, protection="native-oco"))
    await until(lambda: daemon.brackets)
    stopping = asyncio.get_running_loop().create_task(daemon.stop())
    await pass_s(1)
    daemon.store.release()
    await stopping
    known = await daemon.store.bracket(daemon.bracket.bracket_id)
    assert known is not None and known.entries[0].broker_order_id is not None, "its outcome is on disk"
    assert (await daemon.store.settings())[CLEAN_STOP] == "yes"


@pytest.mark.covers("F87")
async def test_stop_goes_intake_scheduler_executor_streamer_store() -> None:
    daemon = await Daemon().start()
    hold = daemon.broker.hold("submit", when=is_entry)
    daemon.queue.put(row(0, protection="native-oco"))
    await hold.arrived.wait()
    stopping = asyncio.get_running_loop().create_task(daemon.stop())
    await pass_s(1)
    # The intake and the scheduler have stopped, what is on the wire is waited for, the stream is still heard.
    daemon.queue.put(row(1, protection="native-oco"))
    daemon.supervisor.scheduler.set(daemon.bracket.bracket_id, daemon.clock.now_us())
    await pass_s(1)
    assert len(daemon.brackets) == 1
    assert not daemon.supervisor.is_ready
    seen = [(daemon.streamer.is_running, daemon.store.failure)]
    hold.release()
    await stopping
    seen.append((daemon.streamer.is_running, daemon.store.failure))
    assert seen == [(True, None), (False, FailureKind.CLOSED)]
    assert daemon.store.committed[-1] == Setting(CLEAN_STOP, "yes"), "nothing is written after it"
    assert len(daemon.broker.entries) == 1


@pytest.mark.covers("F87")
async def test_stop_leaves_every_working_order_at_the_broker() -> None:
    daemon = await Daemon().start()
    await daemon.protect()
    before = [order["status"] for order in daemon.broker.orders()]
    await daemon.stop()
    await pass_s(10)
    assert daemon.broker.asked("cancel", "cancel_complex") == []
    assert [order["status"] for order in daemon.broker.orders()] == before


@pytest.mark.covers("F87")
async def test_stop_does_not_wait_longer_than_its_limit_and_is_then_not_clean() -> None:
    daemon = await Daemon().start()
    hold = daemon.broker.hold("submit", when=is_entry)
    daemon.queue.put(row(0, protection="native-oco"))
    await hold.arrived.wait()
    began_s = asyncio.get_running_loop().time()
    await daemon.stop()
    assert asyncio.get_running_loop().time() - began_s <= 10.5
    assert (await daemon.store.settings())[CLEAN_STOP] == "no"
    hold.release()


@pytest.mark.covers("F87")
async def test_entry_that_fills_during_the_stop_gets_its_exits_and_the_stop_waits_for_them() -> None:
    daemon = await Daemon().start()
    bracket = await daemon.take(0)
    slow = daemon.broker.hold("submit", when=is_entry)
    exits = daemon.broker.hold("submit_complex", when=is_exit)
    daemon.queue.put(row(1, protection="native-oco"))
    await slow.arrived.wait()
    stopping = asyncio.get_running_loop().create_task(daemon.stop())
    await pass_s(1)
    daemon.broker.fill(bracket.entries[0].external_identifier)
    await exits.arrived.wait()
    slow.release()
    await pass_s(1)
    assert not stopping.done()
    exits.release()
    await stopping
    known = await daemon.store.bracket(bracket.bracket_id)
    assert known is not None and known.state is BracketState.EXITS_LIVE
    assert (await daemon.store.settings())[CLEAN_STOP] == "yes"


async def test_stop_may_be_asked_for_twice_and_before_the_start() -> None:
    daemon = Daemon()
    daemon.supervisor.stop()
    daemon.supervisor.stop()
    daemon.launch()
    await daemon.stop()
    assert daemon.ready == 0
    assert daemon.broker.posted == []


async def test_disk_that_is_full_at_the_stop_does_not_keep_it_from_ending() -> None:
    daemon = await Daemon().start()
    daemon.store.fail_next(FULL, lambda change: change == Setting(CLEAN_STOP, "yes"))
    await daemon.stop()
    assert (await daemon.store.settings())[CLEAN_STOP] == "no"
    assert daemon.store.failure is FailureKind.CLOSED


# What makes it end.


@pytest.mark.covers("F93")
async def test_io_error_ends_the_daemon_and_is_never_taken_for_a_clean_stop() -> None:
    daemon = await Daemon().start()
    bracket = await daemon.take()
    daemon.store.fail_next(BROKEN, is_change_to(BracketState.ENTRY_FILLED))
    daemon.broker.fill(bracket.entries[0].external_identifier)
    assert daemon.task is not None
    with pytest.raises(DiskFailed):
        await daemon.task
    assert len(daemon.broker.exits) == 1, "exits do not wait for the disk"
    assert (await daemon.store.settings())[CLEAN_STOP] == "no"
    assert "store_failed" in daemon.notifier.codes


@pytest.mark.covers("F99")
async def test_daemon_whose_file_another_one_has_taken_sends_nothing_more() -> None:
    """Found by the simulation: it went on for the ten seconds of an orderly stop, and posted ids of the other one."""
    daemon = await Daemon().start()
    first, second = await daemon.take(0), await daemon.take(1)
    daemon.store.fail_next(FENCED, is_change_to(BracketState.ENTRY_FILLED))
    daemon.broker.fill(first.entries[0].external_identifier)
    await until(lambda: daemon.supervisor.is_stopping)
    daemon.broker.fill(second.entries[0].external_identifier)
    assert daemon.task is not None
    with pytest.raises(DiskFailed):
        await daemon.task
    of_second = {name for _, name in second.staged}
    assert not any(member.external_identifier in of_second for call in daemon.broker.posted for member in call.members)


@pytest.mark.covers("F93")
async def test_io_error_of_an_acceptance_ends_the_daemon_and_nothing_was_sent() -> None:
    daemon = await Daemon().start()
    daemon.store.fail_next(BROKEN, is_change_to(BracketState.PENDING_ENTRY))
    daemon.queue.put(row(0, protection="native-oco"))
    assert daemon.task is not None
    with pytest.raises(DiskFailed):
        await daemon.task
    assert daemon.broker.posted == []
    assert daemon.queue.answers == []


async def test_loop_of_the_daemon_that_dies_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = Daemon()

    async def broken(on_event: object) -> None:
        await asyncio.sleep(1)
        raise RuntimeError("a bug in the streamer")

    monkeypatch.setattr(daemon.streamer, "run", broken)
    daemon.launch()
    assert daemon.task is not None
    with pytest.raises(RuntimeError, match="a bug in the streamer"):
        await daemon.task
    assert (await daemon.store.settings()).get(CLEAN_STOP) != "yes"


@pytest.mark.covers("F92")
async def test_full_disk_stops_the_intake_and_not_the_exits_and_ends_by_itself() -> None:
    daemon = await Daemon().start()
    bracket = await daemon.take(0)
    for _ in range(5):
        daemon.store.fail_next(FULL)
    daemon.broker.fill(bracket.entries[0].external_identifier)
    await until(lambda: daemon.broker.exits)
    await until(lambda: "store_failed" in daemon.notifier.codes)
    daemon.queue.put(row(1, protection="native-oco"))
    await pass_s(2)
    assert daemon.queue.answer_to(2) is None
    assert len(daemon.broker.entries) == 1
    assert daemon.bracket.state is BracketState.EXITS_LIVE, "exits are managed all the while"
    await until(lambda: daemon.queue.answer_to(2), within_s=30)
    assert daemon.notifier.codes.count("store_failed") == 1
    known = await daemon.store.bracket(bracket.bracket_id)
    assert known is not None and known.state is BracketState.EXITS_LIVE
    await daemon.stop()


@pytest.mark.covers("F92")
async def test_full_disk_that_only_an_acceptance_has_met_ends_by_itself_too() -> None:
    daemon = await Daemon().start()
    for _ in range(3):
        daemon.store.fail_next(FULL)
    daemon.queue.put(row(0, protection="native-oco"))
    await until(lambda: "store_failed" in daemon.notifier.codes)
    assert daemon.broker.posted == []
    await until(lambda: daemon.queue.answer_to(1), within_s=30)
    assert len(daemon.broker.entries) == 1
    await daemon.stop()


# Halt.


async def test_halt_survives_a_restart_and_so_does_its_end() -> None:
    first = await Daemon().start()
    await first.supervisor.halt("maintenance")
    await first.crash()
    second = await restarted(first).start()
    assert second.supervisor.halt_reason == "maintenance"
    second.queue.put(row(0, protection="native-oco"))
    await pass_s(30)
    assert second.broker.posted == []
    await second.supervisor.resume()
    await until(lambda: second.queue.answers)
    await second.stop()
    third = await restarted(second).start()
    assert third.supervisor.halt_reason is None and not third.supervisor.gate.is_halted
    await third.stop()


async def test_exits_are_managed_while_entries_are_halted() -> None:
    daemon = await Daemon().start()
    bracket = await daemon.take()
    await daemon.supervisor.halt("maintenance")
    daemon.broker.fill(bracket.entries[0].external_identifier)
    await until(lambda: daemon.bracket.state is BracketState.EXITS_LIVE)
    await daemon.stop()


@pytest.mark.covers("F100", "F101")
async def test_stranger_with_our_source_halts_entries_across_restarts_and_is_alarmed_once() -> None:
    daemon = await Daemon().start()
    strange = OrderReport(
        BrokerOrderId("5"),
        BrokerStatus.LIVE,
        "Live",
        external_identifier=ExternalIdentifier("made-elsewhere"),
        source="otocod/9.9",
    )
    for _ in range(2):
        daemon.streamer.say(StreamOrder(ACCOUNT, strange))
        await daemon.supervisor.router.settle()
    assert daemon.supervisor.gate.is_halted
    assert daemon.notifier.codes == ["stranger"]
    assert "order 5" in (await daemon.store.settings())[HALT]
    daemon.queue.put(row(0, protection="native-oco"))
    await pass_s(30)
    assert daemon.broker.posted == []
    await daemon.stop()


# The stream.


@pytest.mark.covers("F21")
async def test_stream_that_comes_back_after_a_gap_asks_for_a_full_listing() -> None:
    daemon = await Daemon().start()
    bracket = await daemon.take()
    await pass_s(1)
    listed = len([call for call in daemon.broker.asked("search") if not call.arguments["statuses"]])
    daemon.streamer.drop()
    daemon.broker.fill(bracket.entries[0].external_identifier)
    await pass_s(1)
    assert daemon.broker.exits == []
    daemon.streamer.connect()
    await until(lambda: daemon.broker.exits, within_s=1)
    assert len([call for call in daemon.broker.asked("search") if not call.arguments["statuses"]]) == listed + 1
    await daemon.stop()


@pytest.mark.covers("F26")
async def test_fill_whose_frame_was_lost_is_found_by_the_sweep() -> None:
    daemon = await Daemon().start()
    bracket = await daemon.take()
    daemon.streamer.is_deaf = True
    daemon.broker.fill(bracket.entries[0].external_identifier)
    await until(lambda: daemon.broker.exits, within_s=16)
    await daemon.stop()


@pytest.mark.covers("F27")
async def test_message_that_cannot_be_read_whole_has_its_order_read() -> None:
    daemon = await Daemon().start()
    bracket = await daemon.take()
    daemon.streamer.is_deaf = True
    daemon.broker.fill(bracket.entries[0].external_identifier)
    order_id = bracket.entries[0].broker_order_id
    daemon.broker.fail("read_order", NotFound("404"))
    for _ in range(2):
        daemon.streamer.say(StreamOddity("unknown status", ACCOUNT, order_id))
    daemon.streamer.say(StreamOddity("no JSON"))
    await until(lambda: daemon.broker.exits, within_s=5)
    assert len(daemon.broker.asked("read_order")) >= 2
    await daemon.stop()


@pytest.mark.covers("F34")
async def test_position_on_the_stream_moves_nothing() -> None:
    daemon = await Daemon().start()
    await daemon.protect()
    await pass_s(5)
    before, asked = daemon.bracket, len(daemon.broker.calls)
    event: StreamEvent = StreamPosition(ACCOUNT, BrokerPosition("AAPL  261218C00155000", 7))
    daemon.streamer.say(event)
    await pass_s(0.1)
    assert daemon.bracket == before
    assert len(daemon.broker.calls) == asked
    await daemon.stop()


async def test_fill_that_overtakes_the_answer_to_the_post_binds_the_broker_id() -> None:
    """F45: the stream names an order that only our identifier makes ours."""
    daemon = await Daemon().start()
    daemon.broker.lose_answer("submit", when=is_entry)
    daemon.queue.put(row(0, protection="native-oco"))
    await until(lambda: daemon.broker.entries)
    await until(lambda: daemon.bracket.entries[0].broker_order_id)
    daemon.broker.fill(daemon.order(Role.ENTRY))
    await until(lambda: daemon.bracket.state is BracketState.EXITS_LIVE)
    assert len(daemon.broker.entries) == 1
    await daemon.stop()


def test_accounts_are_named_as_given() -> None:
    assert accounts_of(["5WT1", "5WT2"]) == (AccountNumber("5WT1"), AccountNumber("5WT2"))
