"""The daemon's side of the request queue: rows come in batches on the event loop, answers go back as futures."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from otocod.adapters.queue import landlock
from otocod.adapters.queue.file import free_blocked_open
from otocod.adapters.queue.rows import Answer, AnswerResult, HandedRow
from otocod.adapters.queue.worker import (
    Delivered,
    Forget,
    Inbox,
    Parcel,
    QueueAlarm,
    Settings,
    Trim,
    Worker,
)

_WATCH_EVERY_S: Final = 0.5
_TURN_LIMIT_S: Final = 1.0
_STOP_LIMIT_S: Final = 1.0

AnswersFuture = asyncio.Future[tuple[AnswerResult, ...]]


def _now_us() -> int:
    return time.time_ns() // 1000


class QueueReader:
    """Reads the queue file `path` on a thread of its own and answers it. All methods belong to the event loop.

    on_batch: gets rows in id order, at most `settings.batch_rows` at a time and one batch at a time. A row comes once
    in a run, and again only if its text changed while NEW, or after `forget`.
    on_alarm: gets what an operator must know.
    confine: puts the calling thread under Landlock, given the directory's descriptor; None where the directory is
    nobody else's to write (`init.check_directory` decides).
    """

    def __init__(
        self,
        path: Path,
        *,
        on_batch: Callable[[Sequence[HandedRow]], None],
        on_alarm: Callable[[QueueAlarm], None],
        confine: Callable[[int], object] | None = landlock.confine_thread,
        settings: Settings | None = None,
        now_us: Callable[[], int] = _now_us,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path.absolute()
        self._on_batch = on_batch
        self._on_alarm = on_alarm
        self._confine = confine
        self._settings = settings or Settings()
        self._now_us = now_us
        self._monotonic = monotonic
        self._thread: threading.Thread | None = None
        self._inbox: Inbox | None = None
        self._worker: Worker | None = None
        self._directory_fd = -1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._watch_handle: asyncio.TimerHandle | None = None
        self._parcels: dict[Parcel, AnswersFuture] = {}
        self._trims: dict[Trim, asyncio.Future[int | None]] = {}
        self._is_stopped = False

    async def start(self) -> None:
        """Returns when the thread is confined and has had its first look at the file; a second call changes nothing.

        Raises LandlockUnavailable or OSError (no such directory). A file that is unsound, locked or missing is no
        reason to fail: it is dealt with and alarmed.
        """
        if self._is_stopped:
            raise RuntimeError("a queue reader lives once: it was stopped")
        if self._started is None:
            self._launch()
        assert self._started is not None  # set by _launch
        await asyncio.shield(self._started)

    def _launch(self) -> None:
        self._directory_fd = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._inbox = Inbox()
        self._worker = Worker(
            self._path,
            self._directory_fd,
            inbox=self._inbox,
            outward=_ToLoop(self._loop, self),
            settings=self._settings,
            confine=self._confine,
            now_us=self._now_us,
            monotonic=self._monotonic,
        )
        # daemon: a disk that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._worker.run, name="otocod-queue", daemon=True)
        self._thread.start()
        self._watch()

    async def stop(self) -> bool:
        """Take no more rows, try once to write the answers that wait, end the thread; may be called at any time.

        False if the thread did not end within a second; it then owns nothing but the queue file.
        """
        self._is_stopped = True
        if self._inbox is None or self._ended is None or self._thread is None:
            return True
        self._inbox.stop()
        self._free_blocked_thread()
        done, _ = await asyncio.wait((self._ended,), timeout=_STOP_LIMIT_S)
        if not done:
            return False
        self._thread.join(_STOP_LIMIT_S)
        self._release()
        return True

    def _release(self) -> None:
        if self._watch_handle is not None:
            self._watch_handle.cancel()
        if self._inbox is not None and self._directory_fd >= 0:
            self._inbox.close()
            os.close(self._directory_fd)
            self._directory_fd = -1

    def answer(self, answers: Sequence[Answer]) -> AnswersFuture:
        """Write answers into the queue file when no other program holds it; the future has one result for each.

        Keeps trying for as long as it takes; the future never fails. Written is durable.
        """
        future: AnswersFuture = asyncio.get_running_loop().create_future()
        if self._inbox is None or self._is_stopped:
            future.set_result((AnswerResult.NOT_WRITTEN,) * len(answers))
        elif not answers:
            future.set_result(())
        else:
            parcel = Parcel(tuple(answers))
            self._parcels[parcel] = future
            self._inbox.put(parcel)
        return future

    def trim(self, *, answered_before_us: int) -> "asyncio.Future[int | None]":
        """Takes rows away that were answered before then; how many in the end, None if the reader stops before it."""
        future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        if self._inbox is None or self._is_stopped:
            future.set_result(None)
        else:
            trim = Trim(answered_before_us)
            self._trims[trim] = future
            self._inbox.put(trim)
        return future

    def forget(self, ids: Iterable[int]) -> None:
        """Have rows handed over again, at once, if they are still NEW: call it when they can be acted upon."""
        if self._inbox is not None and not self._is_stopped:
            self._inbox.put(Forget(tuple(ids)))

    def deliver(self, rows: Sequence[HandedRow]) -> None:
        if self._is_stopped or self._inbox is None:
            return
        try:
            self._on_batch(rows)
        finally:
            self._inbox.put(Delivered.BATCH)

    def settle(self, parcel: Parcel, results: Sequence[AnswerResult]) -> None:
        future = self._parcels.pop(parcel, None)
        if future is not None and not future.done():
            future.set_result(tuple(results))

    def note_trimmed(self, trim: Trim, rows: int | None) -> None:
        future = self._trims.pop(trim, None)
        if future is not None and not future.done():
            future.set_result(rows)

    def raise_alarm(self, alarm: QueueAlarm) -> None:
        self._on_alarm(alarm)

    def note_started(self, error: BaseException | None) -> None:
        if self._started is None or self._started.done():
            return
        if error is None:
            self._started.set_result(None)
        else:
            self._started.set_exception(error)

    def note_ended(self) -> None:
        self._is_stopped = True
        for parcel in list(self._parcels):
            self.settle(parcel, (AnswerResult.NOT_WRITTEN,) * len(parcel.answers))
        for trim in list(self._trims):
            self.note_trimmed(trim, None)
        # Stopped in the middle of starting: whoever waits for the start must not wait for ever.
        self.note_started(RuntimeError("the queue reader was stopped"))
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _watch(self) -> None:
        """A FIFO that takes the journal's place between check and open() holds the thread; only others can free it."""
        if self._loop is None or self._worker is None or (self._ended is not None and self._ended.done()):
            return
        began = self._worker.turn_began_at
        if began is not None and self._monotonic() - began > _TURN_LIMIT_S:
            self._free_blocked_thread()
        self._watch_handle = self._loop.call_later(_WATCH_EVERY_S, self._watch)

    def _free_blocked_thread(self) -> None:
        if self._directory_fd >= 0:
            free_blocked_open(self._directory_fd, self._path.name)


class _ToLoop:
    """The thread's way to the loop. After the loop has closed there is nobody to tell."""

    def __init__(self, loop: asyncio.AbstractEventLoop, reader: QueueReader) -> None:
        self._loop = loop
        self._reader = reader

    def started(self, error: BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._reader.note_started, error)

    def batch(self, rows: Sequence[HandedRow]) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._reader.deliver, rows)

    def settled(self, parcel: Parcel, results: Sequence[AnswerResult]) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._reader.settle, parcel, tuple(results))

    def trimmed(self, trim: Trim, rows: int | None) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._reader.note_trimmed, trim, rows)

    def alarm(self, alarm: QueueAlarm) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._reader.raise_alarm, alarm)

    def ended(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._reader.note_ended)
