"""What is handed over again and what is not, and where the next scan looks."""

from otocod.adapters.queue.ledger import Ledger, Search
from otocod.adapters.queue.rows import Answer, AnswerResult, AnswerStatus, HandedRow, RawRow

AT = ("text", b"2026-11-22T15:04:05.123Z")
NOW_US = 1_795_359_845_123_000
ID_MIN = -(2**63)


def raw(row_id: int, request: bytes = b"{}", client_ref: tuple[str, bytes | None] | None = None) -> RawRow:
    return RawRow(row_id, client_ref or ("text", b"r%d" % row_id), ("text", b"a"), ("text", request), AT)


def admit(ledger: Ledger, *raws: RawRow) -> list[HandedRow]:
    return ledger.admit(raws, now_us=NOW_US)[0]


def answer(row_id: int, client_ref: str | None = None) -> Answer:
    return Answer(row_id, client_ref if client_ref is not None else f"r{row_id}", AnswerStatus.REJECTED, "no", None)


def test_a_row_is_handed_over_once_and_again_when_it_changed() -> None:
    ledger = Ledger(10)
    assert [row.id for row in admit(ledger, raw(1), raw(2))] == [1, 2]
    assert admit(ledger, raw(1), raw(2)) == []
    assert [row.id for row in admit(ledger, raw(1), raw(2, b"{ }"))] == [2]


def test_a_full_ledger_takes_no_more_and_says_how_far_it_came() -> None:
    ledger = Ledger(2)
    rows, dealt_with = ledger.admit([raw(1), raw(2), raw(3)], now_us=NOW_US)
    assert ([row.id for row in rows], dealt_with, ledger.is_full()) == ([1, 2], 2, True)


def test_an_answered_row_frees_its_place_and_an_unwritten_one_does_not() -> None:
    ledger = Ledger(2)
    admit(ledger, raw(1), raw(2))
    ledger.settle([answer(1), answer(2)], [AnswerResult.WRITTEN, AnswerResult.NOT_WRITTEN])
    assert not ledger.is_full()
    assert admit(ledger, raw(2)) == []


def test_an_answer_to_the_former_owner_of_an_id_leaves_the_present_one_handed_over() -> None:
    ledger = Ledger(2)
    admit(ledger, raw(1))
    admit(ledger, raw(1, client_ref=("text", b"other")))
    ledger.settle([answer(1)], [AnswerResult.GONE])
    assert admit(ledger, raw(1, client_ref=("text", b"other"))) == []


def test_an_answer_to_a_row_without_text_for_a_key_finds_it_by_what_was_read() -> None:
    ledger = Ledger(2)
    (row,) = admit(ledger, raw(1, client_ref=("blob", b"\xff")))
    assert ledger.with_references([answer(1, row.client_ref)])[0][1] == ("blob", b"\xff")
    admit(ledger, raw(2))
    assert ledger.with_references([answer(2)])[0][1] is None


def scan(search: Search, *raws: RawRow, dealt_with: int | None = None, now: float = 0.0, cost: float = 0.0) -> int:
    start = search.next_from_id()
    search.note_scanned(raws, len(raws) if dealt_with is None else dealt_with, began=now - cost, now=now)
    return start


def test_the_first_scan_goes_through_the_whole_table_in_steps_and_then_rests() -> None:
    search = Search(row_limit=2)
    assert search.due_in_s(0.0) == 0.0
    assert scan(search, raw(1), raw(5)) == ID_MIN
    assert scan(search, raw(8)) == 6
    assert search.due_in_s(0.0) is None


def test_a_change_is_looked_for_among_the_newest_ids_first_then_everywhere() -> None:
    search = Search(row_limit=2)
    scan(search, raw(1000))
    search.note_change()
    assert scan(search) == 1000 - 64
    assert scan(search) == ID_MIN
    assert search.due_in_s(0.0) is None


def test_sweeps_of_a_slow_table_rest_twenty_times_as_long_as_they_took() -> None:
    search = Search(row_limit=2)
    scan(search)
    search.note_change()
    scan(search)
    scan(search, cost=0.5)
    search.note_change()
    scan(search)
    assert search.due_in_s(4.0) == 6.0
    assert search.due_in_s(10.0) == 0.0


def test_a_change_during_a_sweep_has_another_one_follow() -> None:
    search = Search(row_limit=1)
    scan(search)
    search.note_change()
    scan(search)
    scan(search, raw(1))
    search.note_change()
    scan(search)
    assert scan(search) == 2
    assert scan(search) == ID_MIN


def test_rows_left_over_by_a_full_ledger_are_where_the_next_scan_begins() -> None:
    search = Search(row_limit=3)
    scan(search, raw(1), raw(2), raw(3), dealt_with=1)
    assert scan(search) == 2


def test_forgotten_rows_are_looked_for_at_once_from_the_lowest() -> None:
    search = Search(row_limit=3)
    scan(search)
    search.note_forgotten([9, 4], now=1.0)
    assert search.due_in_s(1.0) == 0.0
    assert scan(search, now=1.0) == 4


def test_the_largest_possible_id_ends_the_scan() -> None:
    search = Search(row_limit=1)
    scan(search, raw(2**63 - 1))
    assert search.due_in_s(0.0) is None
