"""Which rows have been handed over in this run, and where to look for the next ones. No input or output."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from otocod.adapters.queue.rows import Answer, AnswerResult, BadRow, HandedRow, RawColumn, RawRow, row_from_raw

_ID_MIN: Final = -(2**63)
_ID_MAX: Final = 2**63 - 1
# SQLite gives a deleted row's id to the next row if it was the largest. Producers that tidy up after themselves make
# new rows with ids seen before; looking a little below the largest one finds those as fast as any other.
_LOOK_BACK_IDS: Final = 64
# A sweep costs time in proportion to the table; it may use this share of one core at most.
_SWEEP_REST_FACTOR: Final = 20


@dataclass(frozen=True, slots=True)
class _Handed:
    fingerprint: int
    client_ref: str  # as given to the engine
    reference: RawColumn | None  # the column as read, where it is not simply client_ref


class Ledger:
    """rows: NEW rows in the engine's hands, by id; at most `open_rows_max` of them."""

    def __init__(self, open_rows_max: int) -> None:
        self._open_rows_max = open_rows_max
        self._rows: dict[int, _Handed] = {}

    def is_full(self) -> bool:
        return len(self._rows) >= self._open_rows_max

    def admit(self, raws: Sequence[RawRow], *, now_us: int) -> tuple[list[HandedRow], int]:
        """Rows to hand over (new ones, and changed ones again), and how many of `raws` were dealt with."""
        rows: list[HandedRow] = []
        for index, raw in enumerate(raws):
            known = self._rows.get(raw.id)
            fingerprint = raw.fingerprint()
            if known is not None and known.fingerprint == fingerprint:
                continue
            if known is None and self.is_full():
                return rows, index
            row = row_from_raw(raw, now_us=now_us)
            # A row that can be read by its text is answered by it, as the contract says.
            reference = raw.client_ref if isinstance(row, BadRow) else None
            self._rows[raw.id] = _Handed(fingerprint, row.client_ref, reference)
            rows.append(row)
        return rows, len(raws)

    def with_references(self, answers: Iterable[Answer]) -> list[tuple[Answer, RawColumn | None]]:
        return [(answer, self._reference(answer)) for answer in answers]

    def _reference(self, answer: Answer) -> RawColumn | None:
        known = self._rows.get(answer.id)
        return known.reference if known is not None and known.client_ref == answer.client_ref else None

    def settle(self, answers: Sequence[Answer], results: Sequence[AnswerResult]) -> None:
        for answer, result in zip(answers, results, strict=True):
            known = self._rows.get(answer.id)
            # The id may by now be another row's, itself in the engine's hands.
            if result is not AnswerResult.NOT_WRITTEN and known is not None and known.client_ref == answer.client_ref:
                del self._rows[answer.id]

    def forget(self, ids: Iterable[int]) -> None:
        for row_id in ids:
            self._rows.pop(row_id, None)

    def clear(self) -> None:
        self._rows.clear()


class Search:
    """Decides where the next scan begins: new ids first and at once, all older ids in turn and at a measured pace.

    Times are of one monotonic clock, in seconds.
    """

    def __init__(self, row_limit: int) -> None:
        self._row_limit = row_limit
        self._highest_id = _ID_MIN
        self._fresh_from: int | None = _ID_MIN  # None: nothing owed
        self._sweep_from: int | None = None
        self._sweep_again = False
        self._sweep_cost_s = 0.0
        self._sweep_due_at = 0.0
        self._is_fresh = True

    def note_change(self) -> None:
        """Somebody committed since the last look."""
        if self._fresh_from is None:
            self._fresh_from = max(_ID_MIN, self._highest_id - _LOOK_BACK_IDS)
        if self._sweep_from is None:
            self._sweep_from = _ID_MIN
        else:
            self._sweep_again = True

    def note_forgotten(self, ids: Iterable[int], now: float) -> None:
        lowest = min(ids, default=None)
        if lowest is None:
            return
        self._sweep_from = lowest if self._sweep_from is None else min(self._sweep_from, lowest)
        self._sweep_due_at = now

    def due_in_s(self, now: float) -> float | None:
        """Seconds until there is something to scan, 0 for now; None if nothing is owed."""
        if self._fresh_from is not None:
            return 0.0
        return None if self._sweep_from is None else max(0.0, self._sweep_due_at - now)

    def next_from_id(self) -> int:
        """Where to scan, when `due_in_s` is 0."""
        self._is_fresh = self._fresh_from is not None
        start = self._fresh_from if self._fresh_from is not None else self._sweep_from
        assert start is not None  # due_in_s said so
        return start

    def note_scanned(self, raws: Sequence[RawRow], dealt_with: int, *, began: float, now: float) -> None:
        """raws: what the scan found; dealt_with: how many of them need no second look."""
        next_from = self._next_from(raws, dealt_with)
        if dealt_with:
            self._highest_id = max(self._highest_id, raws[dealt_with - 1].id)
        if self._is_fresh:
            self._fresh_from = next_from
            return
        self._sweep_cost_s += now - began
        self._sweep_from = next_from
        if next_from is None:
            self._sweep_due_at = now + _SWEEP_REST_FACTOR * self._sweep_cost_s
            self._sweep_cost_s = 0.0
            self._sweep_from = _ID_MIN if self._sweep_again else None
            self._sweep_again = False

    def _next_from(self, raws: Sequence[RawRow], dealt_with: int) -> int | None:
        if dealt_with < len(raws):
            return raws[dealt_with].id
        if len(raws) < self._row_limit or raws[-1].id == _ID_MAX:
            return None
        return raws[-1].id + 1
