"""The queue file as the engine sees it: rows in, answers out, by way of the confined reader."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from otocod.adapters.queue import landlock
from otocod.adapters.queue.reader import QueueReader
from otocod.adapters.queue.rows import Answer, AnswerStatus, HandedRow, QueueRow
from otocod.adapters.queue.worker import QueueAlarm
from otocod.domain.ids import RequestId
from otocod.ports.clock import Clock
from otocod.ports.requests import QueuedRequest, RequestAnswer, SpoiledRequest


class QueueRequests:
    """Implements ports.requests.RequestQueue over the confined reader."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        on_alarm: Callable[[QueueAlarm], None],
        on_answers: Callable[[Sequence[RequestAnswer]], None],
    ) -> None:
        self._on_answers = on_answers
        self._take: Callable[[Sequence[QueuedRequest | SpoiledRequest]], None] | None = None
        self._reader = QueueReader(
            path,
            on_batch=self._batch,
            on_alarm=on_alarm,
            confine=landlock.confine_thread if landlock.is_available() else None,
            now_us=clock.now_us,
        )

    async def start(self, take: Callable[[Sequence[QueuedRequest | SpoiledRequest]], None]) -> None:
        self._take = take
        await self._reader.start()

    async def stop(self) -> None:
        await self._reader.stop()

    def _batch(self, rows: Sequence[HandedRow]) -> None:
        assert self._take is not None
        self._take([_request(row) for row in rows])

    def trim(self, *, answered_before_us: int) -> "asyncio.Future[int | None]":
        return self._reader.trim(answered_before_us=answered_before_us)

    def answer(self, answers: Sequence[RequestAnswer]) -> None:
        self._reader.answer([_answer(answer) for answer in answers])
        self._on_answers(answers)


def _request(row: HandedRow) -> QueuedRequest | SpoiledRequest:
    request_id = RequestId(row.id)
    if isinstance(row, QueueRow):
        return QueuedRequest(request_id, row.client_ref, row.account, row.request, row.created_at_us)
    return SpoiledRequest(request_id, row.client_ref, row.reasons)


def _answer(answer: RequestAnswer) -> Answer:
    status = AnswerStatus.REJECTED if answer.bracket_id is None else AnswerStatus.ACCEPTED
    reason = "\n".join(answer.reasons) or None
    return Answer(answer.request_id, answer.client_ref, status, reason, answer.bracket_id)
