"""Alarms on their way out: kept, tried until they are taken, said once, and never in anybody's way."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from otocod.adapters.alerts import dispatcher as module
from otocod.adapters.alerts import outbox
from otocod.adapters.alerts.channel import ChannelFailed
from otocod.adapters.alerts.dispatcher import MOST_TOGETHER, Dispatcher, QuietHours
from otocod.adapters.alerts.message import Message
from otocod.adapters.alerts.outbox import list_alerts
from otocod.adapters.sqlite import readmodel
from otocod.adapters.sqlite.engine import DiskFailed, FailureKind
from otocod.adapters.sqlite.store import SqliteStore
from otocod.domain.ids import BracketId
from otocod.ports.store import Alarm, Change
from tests.support.state_file import fresh_state
from tests.support.tastytrade import ManualClock

HOUR_US = 3600 * 1_000_000
NIGHT = QuietHours(time(22), time(6), ZoneInfo("UTC"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries as soon as the loop turns; the order of things is what is tested."""
    monkeypatch.setattr(module, "_RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(module, "_RETRY_MAX_S", 0.002)
    monkeypatch.setattr(module, "_LOOK_AGAIN_S", 0.01)


@dataclass
class FakeChannel:
    """Takes messages, or fails as often as it was told to."""

    name: str = "webhook"
    failures: list[Exception] = field(default_factory=list)
    taken: list[Message] = field(default_factory=list)
    tries: int = 0
    is_down: bool = False
    gate: asyncio.Event | None = None  # set: `send` waits for it

    async def send(self, message: Message) -> None:
        self.tries += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        if self.is_down:
            raise ChannelFailed("HTTP 503")
        self.taken.append(message)

    async def close(self) -> None:
        return

    @property
    def codes(self) -> list[str]:
        return [alert.code for message in self.taken for alert in message.alerts]


class Desk:
    def __init__(self, path: Path, store: SqliteStore, dispatcher: Dispatcher, clock: ManualClock) -> None:
        self.path = path
        self.store = store
        self.dispatcher = dispatcher
        self.clock = clock

    async def raised(self, code: str, text: str = "something", bracket_id: str | None = None) -> None:
        """Returns once the alarm is on disk."""
        before = self.count()
        bracket = None if bracket_id is None else BracketId(bracket_id)
        self.dispatcher.alarm(Alarm(self.clock.now_us(), code, text, bracket))
        await until(lambda: self.count() > before)

    def count(self) -> int:
        with closing(readmodel.open_readonly(self.path)) as connection:
            return int(connection.execute("SELECT count(*) FROM alarms").fetchone()[0])

    def deliveries(self) -> list[tuple[str, str, str]]:
        """(code, channel, state), of every alarm on every channel."""
        with closing(readmodel.open_readonly(self.path)) as connection:
            return [
                (each["code"], delivery["channel"], delivery["state"])
                for each in list_alerts(connection, self.dispatcher.channels, limit=100)
                for delivery in each["deliveries"]
            ]


@asynccontextmanager
async def desk(path: Path, *channels: Any, clock: ManualClock | None = None, **settings: Any) -> AsyncIterator[Desk]:
    store = await SqliteStore.open(path)
    clock = clock or ManualClock()
    dispatcher = Dispatcher(store, path, clock, channels, host="box", environment="paper", **settings)
    await dispatcher.open()
    task = asyncio.create_task(dispatcher.run())
    try:
        yield Desk(path, store, dispatcher, clock)
    finally:
        task.cancel()
        await asyncio.wait([task])
        await store.close()


async def until(condition: Callable[[], object]) -> None:
    # The other side is a thread of the driver, so there is no event of ours to wait for.
    ends_s = asyncio.get_running_loop().time() + 10
    while not condition():
        assert asyncio.get_running_loop().time() < ends_s, "it has not come to that within 10 s"
        await asyncio.sleep(0.002)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return fresh_state(tmp_path)


async def test_alarm_is_on_disk_and_delivered_on_every_channel_once(path: Path) -> None:
    one, other = FakeChannel(), FakeChannel("email")
    async with desk(path, one, other) as it:
        await it.raised("frozen", "look", "b1")
        await until(lambda: one.taken and other.taken)
        await until(lambda: [state for _, _, state in it.deliveries()] == ["DELIVERED"] * 2)
        await it.raised("stranger")
        await until(lambda: len(one.taken) == 2 and len(other.taken) == 2)
    assert one.codes == other.codes == ["frozen", "stranger"]
    (alert,) = one.taken[0].alerts
    assert (alert.severity, alert.bracket_id, alert.text) == ("critical", "b1", "look")


async def test_alert_is_tried_until_it_is_taken_and_the_failure_is_on_record_meanwhile(path: Path) -> None:
    channel = FakeChannel(is_down=True)
    async with desk(path, channel) as it:
        await it.raised("frozen")

        def delivery() -> dict[str, Any]:
            with closing(readmodel.open_readonly(path)) as connection:
                (found,) = list_alerts(connection, ("webhook",), limit=1)[0]["deliveries"]
                return dict(found)

        await until(lambda: delivery()["tries"] >= 2)
        assert (delivery()["state"], delivery()["error"]) == ("WAITING", "HTTP 503")
        channel.is_down = False
        await until(lambda: channel.codes == ["frozen"])


async def test_a_bug_in_a_channel_is_a_failure_like_any_other_and_ends_no_other_channel(path: Path) -> None:
    broken, sound = FakeChannel(failures=[KeyError("oops"), ValueError("again")]), FakeChannel("email")
    async with desk(path, broken, sound) as it:
        await it.raised("frozen")
        await until(lambda: broken.codes == ["frozen"] and sound.codes == ["frozen"])


async def test_a_channel_that_hangs_holds_up_neither_another_nor_whoever_raises_alarms(path: Path) -> None:
    hanging, sound = FakeChannel(gate=asyncio.Event()), FakeChannel("email")
    async with desk(path, hanging, sound) as it:
        for code in ("frozen", "stranger", "double_exit"):
            await it.raised(code)
        await until(lambda: len(sound.codes) == 3)
        assert hanging.taken == []


async def test_what_was_not_delivered_goes_out_after_a_restart_and_what_was_does_not(path: Path) -> None:
    down = FakeChannel()
    async with desk(path, down) as it:
        await it.raised("stranger")
        await until(lambda: it.deliveries() == [("stranger", "webhook", "DELIVERED")])
        down.is_down = True
        await it.raised("double_exit", "both", "b1")
        await until(lambda: down.tries > 2)
    up = FakeChannel()
    async with desk(path, up) as it:
        await until(lambda: up.taken)
        await it.raised("frozen")
        await until(lambda: "frozen" in up.codes)
    assert up.codes == ["double_exit", "frozen"]
    assert up.taken[0]._id(up.taken[0].alerts[0]).endswith("-2")


async def test_a_new_channel_is_not_told_of_old_alarms_and_one_that_comes_back_begins_anew(path: Path) -> None:
    mail, hook = FakeChannel("email"), FakeChannel()
    async with desk(path, mail) as it:
        await it.raised("stranger")
        await until(lambda: mail.codes == ["stranger"])
    async with desk(path, hook) as it:
        await it.raised("frozen")
        await until(lambda: hook.codes == ["frozen"])
    async with desk(path, mail, hook) as it:
        await it.raised("double_exit")
        await until(lambda: hook.codes == ["frozen", "double_exit"])
        await until(lambda: mail.codes == ["stranger", "double_exit"])


async def test_the_same_again_is_not_sent_within_the_hour_and_is_after_it(path: Path) -> None:
    channel = FakeChannel()
    async with desk(path, channel, repeat_s=3600) as it:
        await it.raised("unprotected_long", "for 5 s", "b1")
        await until(lambda: len(channel.codes) == 1)
        await until(lambda: "DELIVERED" in str(it.deliveries()))
        await it.raised("unprotected_long", "for 17 s", "b1")
        await until(lambda: "REPEATED" in str(it.deliveries()))
        await it.raised("unprotected_long", "for 5 s", "b2")
        await until(lambda: len(channel.codes) == 2)
        it.clock.advance_s(3601)
        await it.raised("unprotected_long", "for 5 s", "b1")
        await until(lambda: len(channel.codes) == 3)


async def test_other_words_on_one_bracket_are_sent(path: Path) -> None:
    channel = FakeChannel()
    async with desk(path, channel) as it:
        await it.raised("exit_ended", "the broker ended the stop", "b1")
        await it.raised("exit_ended", "the broker ended the target", "b1")
        await until(lambda: len(channel.codes) == 2)


async def test_a_storm_is_a_few_messages_and_the_worst_goes_first(path: Path) -> None:
    channel = FakeChannel(gate=asyncio.Event())
    async with desk(path, channel) as it:
        for number in range(2 * MOST_TOGETHER):
            it.dispatcher.alarm(Alarm(it.clock.now_us(), "exit_ended", "ended", BracketId(f"b{number}")))
        await it.raised("double_exit")
        channel.gate.set() if channel.gate else None
        await until(lambda: len(channel.codes) == 2 * MOST_TOGETHER + 1)
    assert len(channel.taken) <= 5
    assert max(message.count for message in channel.taken) == MOST_TOGETHER
    later = [message for message in channel.taken if "double_exit" in {alert.code for alert in message.alerts}]
    assert later[0].alerts[0].code == "double_exit"


async def test_quiet_hours_hold_all_but_the_critical_until_they_end(path: Path) -> None:
    channel = FakeChannel()
    clock = ManualClock(23 * HOUR_US)  # of the first of January 1970
    async with desk(path, channel, clock=clock, quiet=NIGHT) as it:
        await it.raised("backup_failed")
        await it.raised("double_exit")
        await until(lambda: channel.codes == ["double_exit"])
        clock.advance_s(7 * 3600)
        await until(lambda: channel.codes == ["double_exit", "backup_failed"])


@pytest.mark.parametrize(
    ("hour", "is_quiet"), [(21, False), (22, True), (23, True), (3, True), (6, False), (12, False)]
)
def test_quiet_hours_go_over_midnight(hour: int, is_quiet: bool) -> None:
    assert NIGHT.holds_at(hour * HOUR_US) is is_quiet
    day = QuietHours(time(9), time(17), ZoneInfo("UTC"))
    assert day.holds_at(hour * HOUR_US) is (9 <= hour < 17)


@pytest.mark.covers("F92")
async def test_alarm_that_the_disk_does_not_take_is_sent_from_memory(path: Path) -> None:
    channel = FakeChannel(failures=[ChannelFailed("HTTP 500")])
    async with desk(path, channel) as it:
        store = _Refusing(it.store)
        it.dispatcher._store = store  # type: ignore[assignment]  # as a full disk
        it.dispatcher.alarm(Alarm(1, "disk_full", "no room"))
        await until(lambda: channel.codes == ["disk_full"])
        await asyncio.wait_for(it.dispatcher.flush(5), 1)
    assert channel.taken[0].alerts[0].seq is None


async def test_delivery_that_cannot_be_recorded_is_not_repeated_in_this_run(path: Path) -> None:
    channel = FakeChannel()
    async with desk(path, channel) as it:
        await it.raised("stranger")
        await until(lambda: it.deliveries() == [("stranger", "webhook", "DELIVERED")])
        real = it.store
        it.dispatcher._store = _Refusing(real, of_alarms=False)  # type: ignore[assignment]
        await it.raised("frozen")
        await until(lambda: channel.codes == ["stranger", "frozen"])
        for _ in range(5):
            await it.raised("exit_ended", bracket_id=f"b{it.count()}")
        await until(lambda: channel.codes.count("exit_ended") == 5)
        assert channel.codes.count("frozen") == 1


async def test_flush_has_an_end_although_the_channel_is_down(path: Path) -> None:
    channel = FakeChannel(is_down=True)
    async with desk(path, channel) as it:
        it.dispatcher._store = _Refusing(it.store)  # type: ignore[assignment]
        it.dispatcher.alarm(Alarm(1, "disk_full", "no room"))
        await until(lambda: channel.tries)
        await asyncio.wait_for(it.dispatcher.flush(0.05), 2)


async def test_alerts_that_wait_for_long_are_late(path: Path) -> None:
    channel = FakeChannel(is_down=True)
    async with desk(path, channel) as it:
        await it.raised("frozen")
        await until(lambda: channel.tries > 1)
        now_us = it.clock.now_us()
        assert it.dispatcher.late(now_us) is None
        assert it.dispatcher.late(now_us + HOUR_US) == "webhook: HTTP 503"
        channel.is_down = False
        await until(lambda: channel.taken)
        await until(lambda: it.dispatcher.late(now_us + HOUR_US) is None)


async def test_secrets_and_accounts_are_masked_and_escapes_dropped(path: Path) -> None:
    from otocod import logs

    logs.hide("canary-secret-1")
    channel = FakeChannel()
    async with desk(path, channel) as it:
        await it.raised("frozen", "said \x1b[2Jcanary-secret-1 on /accounts/5WT12345/orders\nnext")
        await until(lambda: channel.taken)
    for text in (channel.taken[0].text, channel.taken[0].subject, str(channel.taken[0].as_json())):
        assert "canary" not in text
        assert "5WT1" not in text
        assert "\x1b" not in text


class _Refusing:
    """A store on a full disk: whatever is committed fails, or everything but alarms does."""

    def __init__(self, store: SqliteStore, *, of_alarms: bool = True) -> None:
        self._store = store
        self._of_alarms = of_alarms

    def commit(self, change: Change) -> "asyncio.Future[None]":
        if isinstance(change, Alarm) and not self._of_alarms:
            return self._store.commit(change)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_exception(DiskFailed(FailureKind.FULL, "no room"))
        return future


async def test_an_unreadable_outbox_is_looked_at_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = FakeChannel()
    real = outbox.read_waiting
    failures = [sqlite3.OperationalError("locked")] * 2

    def read(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(*args, **kwargs)

    monkeypatch.setattr(outbox, "read_waiting", read)
    async with desk(path, channel) as it:
        await it.raised("frozen")
        await until(lambda: channel.codes == ["frozen"])
