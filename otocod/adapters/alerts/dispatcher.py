"""From alarms to messages. Implements ports.notifier.Notifier; one task a channel, so a dead one holds up no other."""

import asyncio
import contextlib
import sqlite3
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from otocod.adapters.alerts import outbox
from otocod.adapters.alerts.channel import Channel, ChannelFailed
from otocod.adapters.alerts.message import Alert, Message, Origin, message_of
from otocod.adapters.alerts.outbox import INSTANCE_SETTING, SINCE_SETTING
from otocod.adapters.sqlite.tables import DeliveryState
from otocod.alarms import Severity, severity_of
from otocod.logs import get_log
from otocod.ports.clock import Clock
from otocod.ports.store import Alarm, Delivery, Setting, Store

log = get_log(__name__)

SECOND_US = 1_000_000
MOST_TOGETHER = 20  # alerts in one message: a storm becomes a few mails, each short enough to be read
_RETRY_FIRST_S = 1.0
_RETRY_MAX_S = 60.0
# Of one message, whatever the channel does inside.
_SEND_LIMIT_S = 60.0
# Looked at although nobody called: quiet hours end, a record of a delivery was not taken by the disk.
_LOOK_AGAIN_S = 30.0
_UNSAVED_MAX = 500
# An alert that waits for longer keeps the dead-man ping back.
LATE_AFTER_S = 900.0


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Only critical alerts from `since` to `until`, which may be on the next day."""

    since: time
    until: time
    zone: ZoneInfo

    def holds_at(self, now_us: int) -> bool:
        now = datetime.fromtimestamp(now_us / SECOND_US, UTC).astimezone(self.zone).time()
        if self.since <= self.until:
            return self.since <= now < self.until
        return now >= self.since or now < self.until


@dataclass(slots=True)
class _Lane:
    """One channel and how far it is."""

    channel: Channel
    after: int = 0  # every alarm up to this number is done with
    # Done with, though the record of it may not be on disk yet; those above `after`.
    done: dict[int, Delivery] = field(default_factory=dict)
    unsaved: deque[Alert] = field(default_factory=lambda: deque(maxlen=_UNSAVED_MAX))
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    is_clear: asyncio.Event = field(default_factory=asyncio.Event)  # nothing unsaved is left to be sent
    failures: int = 0
    error: str = ""
    sent: int = 0
    waiting_since_us: int | None = None  # of the oldest that is due and not delivered


class Dispatcher:
    def __init__(
        self,
        store: Store,
        path: Path,
        clock: Clock,
        channels: Sequence[Channel],
        *,
        host: str,
        environment: str,
        repeat_s: float = 3600.0,
        quiet: QuietHours | None = None,
        uniform: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._store = store
        self._path = path
        self._clock = clock
        self._repeat_us = int(repeat_s * SECOND_US)
        self._quiet = quiet
        self._uniform = uniform
        self._lanes = tuple(_Lane(channel) for channel in channels)
        for lane in self._lanes:
            lane.is_clear.set()
        self._origin = Origin(host, environment, "unknown")
        self._unsaved_made = 0
        self.raised: dict[str, int] = {}  # by code, since the start

    # Notifier.

    def alarm(self, alarm: Alarm) -> None:
        """Logged, handed to the store, and that is all: nobody who raises an alarm waits."""
        log.error("alarm", code=alarm.code, told=alarm.text, bracket_id=alarm.bracket_id)
        self.raised[alarm.code] = self.raised.get(alarm.code, 0) + 1
        self._store.commit(alarm).add_done_callback(lambda done: self._kept(done, alarm))

    def _kept(self, done: "asyncio.Future[None]", alarm: Alarm) -> None:
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            log.warning("alert_unsaved", code=alarm.code, error=str(error))
            self._unsaved_made += 1
            alert = Alert(
                None,
                alarm.at_us,
                alarm.code,
                severity_of(alarm.code),
                alarm.text,
                alarm.bracket_id,
                unsaved=self._unsaved_made,
            )
            for lane in self._lanes:
                lane.unsaved.append(alert)
                lane.is_clear.clear()
        for lane in self._lanes:
            lane.wake.set()

    # Life.

    async def open(self) -> None:
        """Before anything is raised: where each channel begins. A new one is not told of years of old alarms."""
        remembered = await self._store.settings()
        instance = remembered.get(INSTANCE_SETTING)
        if not instance:
            instance = uuid.uuid4().hex[:16]
            await self._store.commit(Setting(INSTANCE_SETTING, instance))
        self._origin = replace(self._origin, instance=instance)
        newest = await asyncio.to_thread(outbox.newest_alarm, self._path)
        names = {lane.channel.name for lane in self._lanes}
        for lane in self._lanes:
            name = f"{SINCE_SETTING}{lane.channel.name}"
            since = remembered.get(name)
            if since:
                lane.after = int(since)
            else:
                lane.after = newest
                await self._store.commit(Setting(name, str(newest)))
        for name, value in remembered.items():
            if name.startswith(SINCE_SETTING) and name.removeprefix(SINCE_SETTING) not in names and value:
                # Taken out of the settings: if it comes back it begins anew.
                await self._store.commit(Setting(name, ""))

    async def run(self) -> None:
        """For life; never raises but when cancelled."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(self._run_lane(lane), name=f"alerts-{lane.channel.name}")

    async def flush(self, limit_s: float) -> None:
        """At the end: a moment for what the database did not take. What is on disk goes out after the next start."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await asyncio.gather(*(lane.is_clear.wait() for lane in self._lanes))

    async def close(self) -> None:
        for lane in self._lanes:
            with contextlib.suppress(ChannelFailed, OSError):
                await lane.channel.close()

    async def _run_lane(self, lane: _Lane) -> None:
        while True:
            lane.wake.clear()
            try:
                delay_s = await self._turn(lane)
            except (OSError, sqlite3.Error) as error:
                # The outbox cannot be read now; what is in memory was sent before it was tried.
                log.warning("alert_failed", channel=lane.channel.name, error=f"{type(error).__name__}: {error}")
                delay_s = _LOOK_AGAIN_S
            if lane.failures:
                # Not woken by the next alarm: a server that is down hears no sooner for being asked more often.
                await asyncio.sleep(delay_s)
            elif delay_s:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await lane.wake.wait()

    async def _turn(self, lane: _Lane) -> float:
        """Sends one message if there is one; how long there is nothing to do."""
        alerts = tuple(lane.unsaved) or await self._due(lane)
        if not alerts:
            lane.waiting_since_us = None
            return _LOOK_AGAIN_S
        lane.waiting_since_us = min(alert.at_us for alert in alerts)
        message = message_of(self._origin, alerts[:MOST_TOGETHER])
        error = await self._send(lane, message)
        self._record(lane, message, error)
        if error is None:
            return 0.0
        delay_s = min(_RETRY_FIRST_S * 2.0 ** min(lane.failures - 1, 16), _RETRY_MAX_S)
        return delay_s * (0.5 + self._uniform() / 2)

    async def _due(self, lane: _Lane) -> tuple[Alert, ...]:
        """The worst first, so that a storm of lesser ones does not delay what matters."""
        found: list[Alert] = []
        after = lane.after
        is_done_so_far = True
        while True:
            page = await asyncio.to_thread(
                outbox.read_waiting,
                self._path,
                lane.channel.name,
                after=after,
                repeat_us=self._repeat_us,
                done=frozenset(lane.done),
            )
            for alert in page.repeats:
                self._settle(lane, alert, DeliveryState.REPEATED)
            found.extend(alert for alert in page.fresh if self._may_go(alert))
            if is_done_so_far:
                self._move(lane, page.read_to if page.oldest is None else page.oldest - 1)
                is_done_so_far = page.oldest is None
            if page.is_last or len(found) >= MOST_TOGETHER:
                return tuple(sorted(found, key=lambda alert: (-alert.severity.rank, alert.seq or 0)))
            after = page.read_to

    def _may_go(self, alert: Alert) -> bool:
        is_quiet = self._quiet is not None and self._quiet.holds_at(self._clock.now_us())
        return not is_quiet or alert.severity is Severity.CRITICAL

    def _move(self, lane: _Lane, to: int) -> None:
        lane.after = max(lane.after, to)
        lane.done = {seq: delivery for seq, delivery in lane.done.items() if seq > lane.after}

    async def _send(self, lane: _Lane, message: Message) -> str | None:
        """Why it failed; None when it was taken."""
        try:
            async with asyncio.timeout(_SEND_LIMIT_S):
                await lane.channel.send(message)
        except ChannelFailed as error:
            return str(error) or "it was not taken"
        except TimeoutError:
            return f"it took longer than {_SEND_LIMIT_S:g} s"
        except Exception as error:  # a bug in one channel must neither end it nor the others
            return f"our own error: {type(error).__name__}"
        return None

    def _record(self, lane: _Lane, message: Message, error: str | None) -> None:
        name = lane.channel.name
        if error is None:
            lane.failures, lane.error = 0, ""
            lane.sent += message.count
            log.info("alert_sent", channel=name, count=message.count, codes=[a.code for a in message.alerts])
        else:
            lane.failures += 1
            lane.error = error
            # The first of a row, then at doubling distances: an hour of a dead server is a dozen lines.
            if lane.failures & (lane.failures - 1) == 0:
                log.warning("alert_failed", channel=name, error=error, tries=lane.failures)
        for alert in message.alerts:
            if alert.seq is not None:
                state = DeliveryState.DELIVERED if error is None else DeliveryState.WAITING
                self._settle(lane, alert, state, error or "")
            elif error is None:
                with contextlib.suppress(ValueError):  # more have come than are kept
                    lane.unsaved.remove(alert)
        if not lane.unsaved:
            lane.is_clear.set()

    def _settle(self, lane: _Lane, alert: Alert, state: DeliveryState, error: str = "") -> None:
        assert alert.seq is not None
        delivery = Delivery(alert.seq, lane.channel.name, state.value, alert.tries + 1, self._clock.now_us(), error)
        if state is not DeliveryState.WAITING:
            lane.done[alert.seq] = delivery
        self._store.commit(delivery).add_done_callback(lambda done: self._noted(done, lane, alert.seq))

    def _noted(self, done: "asyncio.Future[None]", lane: _Lane, seq: int | None) -> None:
        """A record the disk did not take: remembered here, and sent once more after a restart, which is no harm."""
        if not done.cancelled() and done.exception() is None and seq is not None:
            lane.done.pop(seq, None)

    # What others ask.

    async def test(self, by: str) -> list[dict[str, Any]]:
        """Tries every channel at once, past the outbox and quiet hours, and says what came of each."""
        text = f"a test of {by}: if you read this, alerts arrive"
        alert = Alert(None, self._clock.now_us(), "test", severity_of("test"), text)
        message = message_of(self._origin, (alert,))
        errors = await asyncio.gather(*(self._send(lane, message) for lane in self._lanes))
        return [
            {"channel": lane.channel.name, "ok": error is None, "error": error or ""}
            for lane, error in zip(self._lanes, errors, strict=True)
        ]

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(lane.channel.name for lane in self._lanes)

    def late(self, now_us: int) -> str | None:
        """Why alerts do not reach anybody; None while they do."""
        late = [
            f"{lane.channel.name}: {lane.error}"
            for lane in self._lanes
            if lane.waiting_since_us is not None
            and lane.failures
            and now_us - lane.waiting_since_us > LATE_AFTER_S * SECOND_US
        ]
        return "; ".join(late) or None

    def figures(self) -> Iterator[tuple[str, int, int]]:
        """(channel, alerts delivered since the start, failed tries in a row)"""
        for lane in self._lanes:
            yield lane.channel.name, lane.sent, lane.failures
