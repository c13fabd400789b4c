"""Raw rows become rows or bad rows with every reason; no content raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otocod.adapters.queue.rows import (
    REQUEST_MAX_BYTES,
    BadRow,
    QueueRow,
    RawColumn,
    RawRow,
    row_from_raw,
    storable_reason,
    us_from_created_at,
)

NOW_US = 1_795_359_845_123_000  # 2026-11-22T15:04:05.123Z
AT = b"2026-11-22T15:04:05.123Z"


def raw(
    client_ref: RawColumn = ("text", b"ref"),
    account: RawColumn = ("text", b"5WT00001"),
    request: RawColumn = ("text", b"{}"),
    created_at: RawColumn = ("text", AT),
) -> RawRow:
    return RawRow(7, client_ref, account, request, created_at)


def test_a_sound_row_keeps_its_text_and_gets_its_time_as_an_integer() -> None:
    row = row_from_raw(raw(), now_us=NOW_US)
    assert row == QueueRow(7, "ref", "5WT00001", "{}", AT.decode(), NOW_US)


@pytest.mark.covers("F106")
def test_a_bad_row_carries_every_reason_and_what_could_be_read() -> None:
    row = row_from_raw(
        raw(client_ref=("null", None), request=("blob", b"\xff"), created_at=("text", b"yesterday")), now_us=NOW_US
    )
    assert isinstance(row, BadRow)
    assert row.reasons == (
        "client_ref is NULL, not text",
        "request is a blob, not text",
        "created_at is not a UTC time: 'yesterday'",
    )
    assert (row.client_ref, row.account, row.request) == ("", "5WT00001", None)


@pytest.mark.covers("F106")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"x" * (REQUEST_MAX_BYTES + 1), "request is longer than 65536 bytes"),
        (b"{}\0", "request holds a NUL character"),
        (b'{"\xc3\x28"}', "request is not UTF-8 (byte 2)"),
    ],
)
def test_text_too_long_with_nul_or_not_utf8_is_refused(content: bytes, reason: str) -> None:
    row = row_from_raw(raw(request=("text", content)), now_us=NOW_US)
    assert isinstance(row, BadRow)
    assert row.reasons == (reason,)


def test_a_request_of_exactly_the_limit_is_taken() -> None:
    assert isinstance(row_from_raw(raw(request=("text", b"x" * REQUEST_MAX_BYTES)), now_us=NOW_US), QueueRow)


@pytest.mark.covers("F106", "F111")
@pytest.mark.parametrize(
    ("ahead", "taken"), [(b"2026-11-22T15:05:05.123Z", True), (b"2026-11-22T15:05:05.124Z", False)]
)
def test_a_time_more_than_a_minute_ahead_is_refused_as_it_would_never_grow_stale(ahead: bytes, taken: bool) -> None:
    assert isinstance(row_from_raw(raw(created_at=("text", ahead)), now_us=NOW_US), QueueRow) is taken


@pytest.mark.parametrize(
    ("text", "at_us"),
    [
        ("1970-01-01T00:00:00.001Z", 1000),
        ("1970-01-01 00:00:01", 1_000_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("", None),
        ("٢٠٢٦-11-22T15:04:05Z", None),
        ("2026-13-01T00:00:00Z", None),
    ],
)
def test_created_at_is_read_as_utc(text: str, at_us: int | None) -> None:
    assert us_from_created_at(text) == at_us


def test_an_edit_of_any_column_changes_the_fingerprint() -> None:
    assert raw().fingerprint() == raw().fingerprint()
    assert raw().fingerprint() != raw(request=("text", b"{ }")).fingerprint()
    assert raw().fingerprint() != raw(request=("blob", b"{}")).fingerprint()


def test_a_reason_keeps_its_lines_and_loses_what_moves_a_cursor() -> None:
    assert storable_reason("first\nsecond\x1b[2J\u202e") == "first\nsecond"
    assert storable_reason(None) is None


COLUMNS = st.tuples(
    st.sampled_from(["text", "blob", "null", "integer", "real"]), st.one_of(st.none(), st.binary(max_size=80))
)


@pytest.mark.covers("F106")
@given(client_ref=COLUMNS, account=COLUMNS, request=COLUMNS, created_at=COLUMNS)
def test_any_content_gives_a_row_or_reasons(
    client_ref: RawColumn, account: RawColumn, request: RawColumn, created_at: RawColumn
) -> None:
    row = row_from_raw(raw(client_ref, account, request, created_at), now_us=NOW_US)
    assert isinstance(row, QueueRow) or row.reasons
