"""What passes between the queue file and the engine, and the checks that make a raw row one or the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from typing import Final, TypeAlias

from otocod.text import sanitise, sanitise_lines

REQUEST_MAX_BYTES: Final = 64 * 1024
CLIENT_REF_MAX_BYTES: Final = 1024
ACCOUNT_MAX_BYTES: Final = 256
CREATED_AT_MAX_BYTES: Final = 64
REASON_MAX_CHARS: Final = 8192
# Producers share the daemon's clock; a row "from the future" would outlive the staleness limit.
CREATED_AHEAD_MAX_S: Final = 60

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SHOWN_MAX_CHARS: Final = 120


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A row whose columns are text of a sane size; what the request says has not been looked at."""

    id: int
    client_ref: str
    account: str
    request: str
    created_at: str  # as the producer or the default wrote it
    created_at_us: int  # the same, microseconds since the epoch, UTC


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row to be REJECTED; `account` and `request` are there when they are text, so that all reasons can be found."""

    id: int
    client_ref: str  # printable form of whatever the column holds; give it back unchanged in the Answer
    reasons: tuple[str, ...]
    account: str | None
    request: str | None


HandedRow: TypeAlias = QueueRow | BadRow


class AnswerStatus(StrEnum):
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True)
class Answer:
    id: int
    client_ref: str
    status: AnswerStatus
    reason: str | None  # every reason, one a line
    bracket_id: str | None


class AnswerResult(Enum):
    WRITTEN = "WRITTEN"  # committed in the queue file
    GONE = "GONE"  # the row was deleted, renamed or answered by somebody else, or its file was moved aside
    NOT_WRITTEN = "NOT_WRITTEN"  # the reader stopped first, or the row cannot be updated; it is still NEW


# (storage class, first bytes): one column of a raw row. The bytes are None for NULL.
RawColumn: TypeAlias = tuple[str, bytes | None]


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as read, each text column cut one byte past its limit."""

    id: int
    client_ref: RawColumn
    account: RawColumn
    request: RawColumn
    created_at: RawColumn

    def fingerprint(self) -> int:
        """Tells an edited row from an unchanged one; good for this process only."""
        return hash((self.client_ref, self.account, self.request, self.created_at))


class _Column:
    """Reads one column, adding to `reasons` instead of raising."""

    def __init__(self, reasons: list[str]) -> None:
        self._reasons = reasons

    def text(self, name: str, column: RawColumn, max_bytes: int) -> str | None:
        storage, content = column
        if storage != "text":
            self._reasons.append(f"{name} is {_article(storage)}, not text")
            return None
        content = content or b""  # SQLite hands over an empty blob as None
        if len(content) > max_bytes:
            self._reasons.append(f"{name} is longer than {max_bytes} bytes")
            return None
        if b"\0" in content:
            self._reasons.append(f"{name} holds a NUL character")
            return None
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            self._reasons.append(f"{name} is not UTF-8 (byte {error.start})")
            return None

    def created_at_us(self, text: str | None, now_us: int) -> int | None:
        if text is None:
            return None
        at_us = us_from_created_at(text)
        if at_us is None:
            self._reasons.append(f"created_at is not a UTC time: {_shown(text)!r}")
        elif at_us > now_us + CREATED_AHEAD_MAX_S * 1_000_000:
            self._reasons.append(f"created_at lies more than {CREATED_AHEAD_MAX_S} s ahead: {_shown(text)!r}")
            return None
        return at_us


def _article(storage: str) -> str:
    return {"null": "NULL", "blob": "a blob", "integer": "an integer", "real": "a real number"}.get(storage, storage)


def row_from_raw(raw: RawRow, *, now_us: int) -> HandedRow:
    """A QueueRow if every column is what the contract says, else a BadRow with every reason."""
    reasons: list[str] = []
    column = _Column(reasons)
    client_ref = column.text("client_ref", raw.client_ref, CLIENT_REF_MAX_BYTES)
    if client_ref == "":
        reasons.append("client_ref is empty")
    account = column.text("account", raw.account, ACCOUNT_MAX_BYTES)
    request = column.text("request", raw.request, REQUEST_MAX_BYTES)
    created_at = column.text("created_at", raw.created_at, CREATED_AT_MAX_BYTES)
    created_at_us = column.created_at_us(created_at, now_us)
    if reasons or client_ref is None or account is None or request is None or created_at is None:
        shown = client_ref if client_ref else _shown((raw.client_ref[1] or b"").decode("utf-8", "replace"))
        return BadRow(raw.id, shown, tuple(reasons), account, request)
    assert created_at_us is not None  # no reason was found, so every column was read
    return QueueRow(raw.id, client_ref, account, request, created_at, created_at_us)


def us_from_created_at(text: str) -> int | None:
    """Microseconds since the epoch; None if it is no ISO 8601 time. One without offset is UTC, as SQLite writes it."""
    if not text.isascii():
        return None
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        return (at - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        return None


def _shown(text: str) -> str:
    return sanitise(text, _SHOWN_MAX_CHARS)


def storable_reason(reason: str | None) -> str | None:
    """The reason as it may be stored for a producer's terminal: lines kept, control characters not, bounded."""
    return None if reason is None else sanitise_lines(reason, REASON_MAX_CHARS)


def client_refs(answers: Sequence[Answer]) -> tuple[str, ...]:
    return tuple(answer.client_ref for answer in answers)
