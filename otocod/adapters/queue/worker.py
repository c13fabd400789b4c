"""The queue's thread: confined first, then the only owner of the queue's connection until it ends.

Each turn: is the file still sound, has anybody committed, are answers due, are rows due. Nothing in a turn waits for
a lock; between turns the thread sleeps in one poll() on the wake socket, on its own inbox and on the kernel's watch of
the directory. Where there is no watch it polls, and a turn in which nothing is due and the time stamps stand still ends
after two stat() calls.
"""

import contextlib
import os
import select
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from otocod.adapters.queue.connection import (
    QueueConnection,
    SchemaChanged,
    Verdict,
    is_cannot_open,
    verdict_from_error,
)
from otocod.adapters.queue.file import Moved, QueueFile, Unfit, UnfitSidecar
from otocod.adapters.queue.ledger import Ledger, Search
from otocod.adapters.queue.rows import Answer, AnswerResult, HandedRow, client_refs
from otocod.adapters.queue.wake import WakeSocket
from otocod.adapters.queue.watch import DirectoryWatch, Stir
from otocod.text import sanitise

_BUSY_LOOK_AGAIN_S: Final = 0.005
_WRITE_BACKOFF_MIN_S: Final = 0.01
_WRITE_BACKOFF_MAX_S: Final = 1.0
_TROUBLE_PAUSE_S: Final = 1.0
_TROUBLE_ALARM_EVERY_S: Final = 60.0
_ATTEMPTS_A_TURN: Final = 4
# However still the directory is: where nothing tells of a change (a file system of another machine) a row costs a
# second, once; from then on the file is polled.
_LOOK_AT_LEAST_EVERY_S: Final = 1.0
# One transaction of a producer stirs the directory up to a dozen times. A flood is heard only so often a tick.
_STIRS_A_TICK: Final = 32
_ANSWERS_A_TRANSACTION: Final = 200
_TRIMMED_A_TRANSACTION: Final = 200
_REFS_SHOWN: Final = 20


class AlarmKind(Enum):
    MOVED_ASIDE = "MOVED_ASIDE"  # the file was not what it must be; a new one is in its place
    LOCKED = "LOCKED"  # another program has kept the file locked for too long
    TROUBLE = "TROUBLE"  # disk, permissions, descriptors: the queue is not read until it passes
    FAILED = "FAILED"  # a bug of ours; the thread goes on


@dataclass(frozen=True, slots=True)
class QueueAlarm:
    kind: AlarmKind
    text: str
    client_refs: tuple[str, ...] = ()  # rows whose answers wait, or were lost with a file moved aside


@dataclass(frozen=True, slots=True)
class Settings:
    """How the reader works; the defaults are what the contract promises."""

    poll_interval_s: float = 0.025  # pick-up without a datagram is promised within 50 ms or so
    batch_rows: int = 100
    open_rows_max: int = 1000  # rows handed over and neither answered nor forgotten; more stay in the file
    lock_alarm_after_s: float = 60.0
    wake_check_every_s: float = 1.0  # somebody in the group may have removed the socket
    cannot_open_limit_s: float = 1.0  # then a journal that cannot be opened is moved aside with its database


@dataclass(frozen=True, slots=True, eq=False)
class Parcel:
    """Answers of one call, written in one transaction."""

    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Trim:
    """Rows that were answered before then go, some at a time, whenever nothing else is to be done."""

    answered_before_us: int


class Delivered(Enum):
    BATCH = "BATCH"  # the engine has taken the last batch; the next may come


Message: TypeAlias = Parcel | Forget | Trim | Delivered


class Outward(Protocol):
    """What the thread tells the loop; each call returns at once and never raises."""

    def started(self, error: BaseException | None) -> None: ...

    def batch(self, rows: Sequence[HandedRow]) -> None: ...

    def settled(self, parcel: Parcel, results: Sequence[AnswerResult]) -> None: ...

    def trimmed(self, trim: Trim, rows: int | None) -> None: ...

    def alarm(self, alarm: QueueAlarm) -> None: ...

    def ended(self) -> None: ...


class Inbox:
    """Messages to the thread, from any other; wakes it."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.is_stopping = False

    def fileno(self) -> int:
        return self._event_fd

    def put(self, message: Message) -> None:
        self._messages.append(message)
        self._poke()

    def stop(self) -> None:
        self.is_stopping = True
        self._poke()

    def _poke(self) -> None:
        if self._event_fd >= 0:
            os.eventfd_write(self._event_fd, 1)

    def take(self) -> list[Message]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event_fd)
        taken = []
        while self._messages:
            taken.append(self._messages.popleft())
        return taken

    def close(self) -> None:
        """Call when no other thread can put any more."""
        os.close(self._event_fd)
        self._event_fd = -1


class Worker:
    """`run` is the thread's body; everything else here is called by it alone, except `turn_began_at`."""

    def __init__(
        self,
        path: Path,
        directory_fd: int,
        *,
        inbox: Inbox,
        outward: Outward,
        settings: Settings,
        confine: Callable[[int], object] | None,
        now_us: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._directory_fd = directory_fd
        self._inbox = inbox
        self._outward = outward
        self._settings = settings
        self._confine = confine
        self._now_us = now_us
        self._monotonic = monotonic
        self._name = path.name
        self._file = QueueFile(path, directory_fd, interrupted=lambda: inbox.is_stopping)
        self._wake = WakeSocket(directory_fd)
        self._wake_checked_at = 0.0
        self._poller = select.poll()
        self._ledger = Ledger(settings.open_rows_max)
        self._search = Search(settings.batch_rows)
        self._parcels: deque[Parcel] = deque()
        self._trims: deque[Trim] = deque()
        self._trimmed_rows = 0  # of the first of them, so far
        self._alarms: deque[QueueAlarm] = deque()
        self._data_version: int | None = None
        self._batch_in_flight = False
        self._write_due_at = 0.0
        self._write_backoff_s = _WRITE_BACKOFF_MIN_S
        self._write_blocked_since: float | None = None
        self._read_blocked_since: float | None = None
        self._lock_alarm_at = 0.0
        self._cannot_open_since: float | None = None
        self._paused_until = 0.0
        self._trouble_alarm_at = 0.0
        self._ignore_wake_until = 0.0
        self._watch: DirectoryWatch | None = None
        self._stirs = 0  # in this tick
        self._ignore_watch_until = 0.0
        self._tick_ends_at = 0.0
        self._look_at: float | None = None  # somebody may have committed
        self._looked_at = 0.0
        # Set while a turn runs, for the loop to notice a turn that does not end.
        self.turn_began_at: float | None = None

    def run(self) -> None:
        try:
            try:
                self._prepare()
            except Exception as error:  # told to whoever starts the reader
                self._outward.started(error)
                return
            self._turn()
            self._outward.started(None)
            while not self._inbox.is_stopping:
                self._wait()
                self._turn()
        finally:
            self._finish()

    def _prepare(self) -> None:
        # SQLite seeds its generator once for the process, from /dev/urandom, which the confined thread cannot open.
        with contextlib.closing(sqlite3.connect(":memory:")) as seeding:
            seeding.execute("SELECT randomblob(8)").fetchone()
        with contextlib.suppress(OSError):
            self._watch = DirectoryWatch(self._directory_fd, self._name)
        if self._confine is not None:
            self._confine(self._directory_fd)
        self._poller.register(self._inbox, select.POLLIN)
        if self._watch is not None:
            self._poller.register(self._watch, select.POLLIN)
        self._bind_wake()

    def _bind_wake(self) -> None:
        self._wake_checked_at = self._monotonic()
        if self._wake.fileno() >= 0:
            self._poller.unregister(self._wake)
        try:
            self._wake.bind()
        except OSError as error:
            self._trouble(f"no wake socket, rows are found by polling alone: {error}", pause=False)
            return
        self._poller.register(self._wake, select.POLLIN)

    def _finish(self) -> None:
        try:
            self._turn_began()
            for message in self._inbox.take():
                self._accept(message)
            with contextlib.suppress(sqlite3.Error, OSError, Unfit, UnfitSidecar, SchemaChanged):
                self._write_once()
            self._settle_all(AnswerResult.NOT_WRITTEN)
            while self._trims:
                self._outward.trimmed(self._trims.popleft(), None)
            with contextlib.suppress(sqlite3.Error, OSError):
                self._file.close()
            with contextlib.suppress(OSError):
                self._wake.close()
            self._stop_watching()
        finally:
            self.turn_began_at = None
            self._outward.ended()

    def _write_once(self) -> None:
        connection = self._file.connection
        while connection is not None and self._parcels:
            self._file.check()
            self._write_parcels(connection)

    def _wait(self) -> None:
        self.turn_began_at = None
        now = self._monotonic()
        deaf = [
            fd
            for fd, until in (
                (self._wake.fileno(), self._ignore_wake_until),
                (self._watch_fd, self._ignore_watch_until),
            )
            if fd >= 0 and now < until
        ]
        for fd in deaf:
            self._poller.modify(fd, 0)
        ready = {fd for fd, _ in self._poller.poll(self._timeout_ms(now))}
        for fd in deaf:
            self._poller.modify(fd, select.POLLIN)
        if self._wake.fileno() in ready:
            self._wake.drain()
            self._look_at = 0.0
            # Datagrams that announce nothing must not make the thread spin: after one that found no change the
            # socket is left alone until the next tick. `_look` lifts this when there was one.
            self._ignore_wake_until = self._monotonic() + self._settings.poll_interval_s
        if self._watch_fd in ready:
            self._hear(self._monotonic())

    @property
    def _watch_fd(self) -> int:
        return -1 if self._watch is None else self._watch.fileno()

    def _hear(self, now: float) -> None:
        assert self._watch is not None
        stir = self._watch.drain()
        if now >= self._tick_ends_at:
            self._stirs = 0
            self._tick_ends_at = now + self._settings.poll_interval_s
        self._stirs += 1
        if self._stirs > _STIRS_A_TICK:
            self._ignore_watch_until = self._tick_ends_at
        if stir is Stir.ENDED and self._stirs <= _STIRS_A_TICK:
            self._look_at = 0.0
        elif stir is not Stir.NONE and self._look_at is None:
            self._look_at = now + self._settings.poll_interval_s

    def _stop_watching(self) -> None:
        if self._watch is not None:
            with contextlib.suppress(KeyError):
                self._poller.unregister(self._watch)
            self._watch.close()
            self._watch = None

    def _timeout_ms(self, now: float) -> int:
        wait_s = self._settings.poll_interval_s
        if self._file.connection is not None and self._paused_until <= now:
            if self._watch is not None:
                wait_s = max(wait_s, self._looked_at + _LOOK_AT_LEAST_EVERY_S - now)
            if self._read_blocked_since is not None:
                return max(1, round(_BUSY_LOOK_AGAIN_S * 1000))
            if self._look_at is not None:
                wait_s = min(wait_s, max(0.0, self._look_at - now))
            if not self._batch_in_flight and not self._ledger.is_full():
                due_in_s = self._search.due_in_s(now)
                wait_s = wait_s if due_in_s is None else min(wait_s, due_in_s)
            if self._parcels or self._trims:
                wait_s = min(wait_s, max(0.0, self._write_due_at - now))
        return max(0, -int(-wait_s * 1000 // 1))

    def _turn_began(self) -> None:
        self.turn_began_at = self._monotonic()

    def _turn(self) -> None:
        self._turn_began()
        messages = self._inbox.take()
        for message in messages:
            self._accept(message)
        if messages or not self._is_quiet():
            self._work_until_done()
        self._alarm_if_locked()
        if self._monotonic() - self._wake_checked_at >= self._settings.wake_check_every_s:
            self._wake_checked_at = self._monotonic()
            if self._wake.is_lost():
                self._bind_wake()

        # Told only now: whoever hears that a file was moved aside finds the new one in its place.
        while self._alarms:
            self._outward.alarm(self._alarms.popleft())

    def _is_quiet(self) -> bool:
        """Nothing is due, and nobody has touched the file since the last look."""
        now = self._monotonic()
        if self._parcels or self._trims or self._read_blocked_since is not None or self._file.connection is None:
            return False
        if now - self._looked_at >= _LOOK_AT_LEAST_EVERY_S or (self._look_at is not None and self._look_at <= now):
            return False
        if not self._batch_in_flight and not self._ledger.is_full():
            due_in_s = self._search.due_in_s(now)
            if due_in_s is not None and due_in_s <= 0:
                return False
        return self._watch is not None or self._file.is_untouched()

    def _work_until_done(self) -> None:
        for _ in range(_ATTEMPTS_A_TURN):
            if self._inbox.is_stopping or self._paused_until > self._monotonic() or self._work_or_recover():
                break

    def _work_or_recover(self) -> bool:
        """False if what was in the way has been dealt with and the work can be tried again at once."""
        try:
            self._work()
        except Exception as error:  # the root of this thread: alarmed, tried again
            return not self._recover(error)
        return True

    def _accept(self, message: Message) -> None:
        if isinstance(message, Parcel):
            self._parcels.append(message)
        elif isinstance(message, Forget):
            self._ledger.forget(message.ids)
            self._search.note_forgotten(message.ids, self._monotonic())
        elif isinstance(message, Trim):
            self._trims.append(message)
        else:
            self._batch_in_flight = False

    def _work(self) -> None:
        if self._file.connection is None:
            self._open()
        connection = self._file.connection
        if connection is None:
            return
        self._file.check()
        self._look(connection)
        if self._parcels and self._write_due_at <= self._monotonic():
            self._write_parcels(connection)
        self._read(connection)
        if self._trims and not self._parcels and self._write_due_at <= self._monotonic():
            self._trim_some(connection)
        self._cannot_open_since = None

    def _open(self) -> None:
        self._file.open(self._note_moved)
        self._data_version = None

    def _look(self, connection: QueueConnection) -> None:
        version = connection.data_version()
        self._read_blocked_since = None
        was_told = self._look_at is not None
        self._look_at = None
        self._looked_at = self._monotonic()
        self._file.note_looked()
        if version != self._data_version:
            if self._data_version is not None and not was_told and self._watch is not None:
                self._doubt_watch()
            self._data_version = version
            self._search.note_change()
            self._ignore_wake_until = self._ignore_watch_until = 0.0
            self._stirs = 0

    def _doubt_watch(self) -> None:
        """A commit came to light by the clock alone. If the kernel has nothing to say about it, it will not tell of
        the next one either: back to polling."""
        assert self._watch is not None
        if self._watch.drain() is Stir.NONE:
            self._stop_watching()

    def _write_parcels(self, connection: QueueConnection) -> None:
        parcels = [self._parcels[0]]
        count = len(parcels[0].answers)
        for parcel in list(self._parcels)[1:]:
            count += len(parcel.answers)
            if count > _ANSWERS_A_TRANSACTION:
                break
            parcels.append(parcel)
        answers = [answer for parcel in parcels for answer in parcel.answers]
        try:
            results = connection.write(self._ledger.with_references(answers), handled_at_us=self._now_us())
        except (ValueError, OverflowError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
            # An answer that cannot be bound would fail for ever and hold up all those behind it.
            for parcel in parcels:
                self._parcels.popleft()
                self._outward.settled(parcel, [AnswerResult.NOT_WRITTEN] * len(parcel.answers))
            raise
        except sqlite3.Error as error:
            if verdict_from_error(error) is not Verdict.BUSY:
                raise
            self._put_off_write()
            if self._inbox.is_stopping:
                raise
            return
        self._write_blocked_since = None
        self._write_backoff_s = _WRITE_BACKOFF_MIN_S
        self._ledger.settle(answers, results)
        for parcel in parcels:
            self._parcels.popleft()
            self._outward.settled(parcel, results[: len(parcel.answers)])
            results = results[len(parcel.answers) :]

    def _trim_some(self, connection: QueueConnection) -> None:
        trim = self._trims[0]
        try:
            rows = connection.trim(answered_before_us=trim.answered_before_us, row_limit=_TRIMMED_A_TRANSACTION)
        except sqlite3.Error as error:
            if verdict_from_error(error) is not Verdict.BUSY:
                raise
            self._put_off_write()
            return
        self._write_blocked_since = None
        self._write_backoff_s = _WRITE_BACKOFF_MIN_S
        self._trimmed_rows += rows
        if rows == _TRIMMED_A_TRANSACTION:
            # Somebody else's turn: producers wait for this lock, too.
            self._write_due_at = self._monotonic() + self._settings.poll_interval_s
            return
        self._trims.popleft()
        total, self._trimmed_rows = self._trimmed_rows, 0
        self._outward.trimmed(trim, total)

    def _put_off_write(self) -> None:
        now = self._monotonic()
        if self._write_blocked_since is None:
            self._write_blocked_since = now
        self._write_due_at = now + self._write_backoff_s
        self._write_backoff_s = min(2 * self._write_backoff_s, _WRITE_BACKOFF_MAX_S)

    def _read(self, connection: QueueConnection) -> None:
        if self._batch_in_flight or self._ledger.is_full():
            return
        began = self._monotonic()
        due_in_s = self._search.due_in_s(began)
        if due_in_s is None or due_in_s > 0:
            return
        raws = connection.scan(from_id=self._search.next_from_id(), row_limit=self._settings.batch_rows)
        rows, dealt_with = self._ledger.admit(raws, now_us=self._now_us())
        self._search.note_scanned(raws, dealt_with, began=began, now=self._monotonic())
        if rows:
            self._batch_in_flight = True
            self._outward.batch(rows)

    def _recover(self, error: Exception) -> bool:
        """True if the next attempt may follow at once."""
        if self._inbox.is_stopping:
            return False
        if isinstance(error, (sqlite3.ProgrammingError, sqlite3.InterfaceError)):
            self._fail(error)  # a call of ours was wrong, whatever the file holds
            return False
        elif isinstance(error, sqlite3.Error):
            return self._recover_from_sqlite(error)
        elif isinstance(error, UnfitSidecar):
            self._replace_sidecar(error)
        elif isinstance(error, Unfit):
            self._replace(str(error))
        elif isinstance(error, SchemaChanged):
            # Opening compares again: a harmless change (statistics, VACUUM) is taken, any other moves the file aside.
            self._file.close()
        elif isinstance(error, FileNotFoundError) and self._file.connection is not None:
            self._file.close()
            self._lose_rows(f"{error}; what is there now is used")
        elif isinstance(error, OSError):
            self._trouble(f"the queue cannot be used: {error}")
            return False
        else:
            self._fail(error)
            return False
        return True

    def _fail(self, error: Exception) -> None:
        self._alarms.append(QueueAlarm(AlarmKind.FAILED, f"the queue's thread failed and goes on: {error!r}"))
        self._pause()

    def _recover_from_sqlite(self, error: sqlite3.Error) -> bool:
        verdict = verdict_from_error(error)
        if verdict is Verdict.BUSY:
            if self._read_blocked_since is None:
                self._read_blocked_since = self._monotonic()
            return False
        if verdict is Verdict.BAD_FILE:
            self._replace(f"it cannot be read: {error}")
            return True
        if self._file.connection is not None:
            try:
                self._file.check()
            except (Unfit, UnfitSidecar, FileNotFoundError) as cause:
                # Put there between the check and the use, and the better explanation.
                return self._recover(cause)
        if is_cannot_open(error):
            return self._recover_from_cannot_open(error)
        self._trouble(f"the queue cannot be used: {error}")
        return False

    def _recover_from_cannot_open(self, error: sqlite3.Error) -> bool:
        """A journal's super-journal outside the directory, which SQLite may not open, gives this once: by then the
        journal is rolled back and gone. A journal that nobody may read gives it for ever; so does a machine short of
        descriptors, but that one passes."""
        now = self._monotonic()
        self._file.close()
        if self._cannot_open_since is None:
            self._cannot_open_since = now
            self._trouble(f"the queue could not be opened and is tried again: {error}", pause=False)
        elif now - self._cannot_open_since >= self._settings.cannot_open_limit_s:
            self._cannot_open_since = None
            if self._file.has_journal():
                self._replace("its rollback journal cannot be opened")
                return True
            self._trouble(f"the queue cannot be used: {error}")
        return False

    def _replace(self, reason: str) -> None:
        self._file.close()
        try:
            moved = self._file.move_aside(reason)
        except OSError as error:
            self._trouble(f"the queue file must be moved aside ({reason}) and cannot be: {error}")
            return
        self._note_moved(moved)

    def _replace_sidecar(self, unfit: UnfitSidecar) -> None:
        self._file.close()
        try:
            moved = self._file.move_sidecar_aside(unfit)
        except OSError as error:
            self._trouble(f"{unfit.name} must be moved aside ({unfit.reason}) and cannot be: {error}")
            return
        self._note_moved(moved)

    def _note_moved(self, moved: Moved) -> None:
        if moved.is_database:
            self._lose_rows(f"{moved.line}; rows in it that were NEW must be submitted again")
        else:
            self._alarms.append(QueueAlarm(AlarmKind.MOVED_ASIDE, moved.line))

    def _lose_rows(self, text: str) -> None:
        """The rows of the old file are gone from sight: their ids say nothing about the next one's."""
        self._alarms.append(QueueAlarm(AlarmKind.MOVED_ASIDE, text, self._waiting_refs()))
        self._settle_all(AnswerResult.GONE)
        self._ledger.clear()
        self._search = Search(self._settings.batch_rows)

    def _settle_all(self, result: AnswerResult) -> None:
        while self._parcels:
            parcel = self._parcels.popleft()
            self._outward.settled(parcel, [result] * len(parcel.answers))
        self._write_blocked_since = None

    def _trouble(self, text: str, *, pause: bool = True) -> None:
        now = self._monotonic()
        if pause:
            self._pause()
        if now >= self._trouble_alarm_at:
            self._trouble_alarm_at = now + _TROUBLE_ALARM_EVERY_S
            self._alarms.append(QueueAlarm(AlarmKind.TROUBLE, text, self._waiting_refs()))

    def _pause(self) -> None:
        with contextlib.suppress(sqlite3.Error, OSError):
            self._file.close()
        self._paused_until = self._monotonic() + _TROUBLE_PAUSE_S

    def _waiting_refs(self) -> tuple[str, ...]:
        return tuple(reference for parcel in self._parcels for reference in client_refs(parcel.answers))

    def _alarm_if_locked(self) -> None:
        since = [at for at in (self._read_blocked_since, self._write_blocked_since) if at is not None]
        now = self._monotonic()
        if not since or now - min(since) < self._settings.lock_alarm_after_s or now < self._lock_alarm_at:
            return
        self._lock_alarm_at = now + self._settings.lock_alarm_after_s
        refs = self._waiting_refs()
        shown = ", ".join(sanitise(reference, 80) for reference in refs[:_REFS_SHOWN])
        more = f" and {len(refs) - _REFS_SHOWN} more" if len(refs) > _REFS_SHOWN else ""
        waiting = f"answers wait for {shown}{more}" if refs else "no answers wait"
        text = f"another program has kept the queue file locked for {now - min(since):.0f} s; {waiting}"
        self._alarms.append(QueueAlarm(AlarmKind.LOCKED, text, refs))
