"""The hardened connection: what it refuses to run, and that it never holds on to a lock."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from otocod.adapters.queue import connection as module
from otocod.adapters.queue import schema
from otocod.adapters.queue.connection import QueueConnection, SchemaChanged, Verdict, verdict_from_error
from otocod.adapters.queue.rows import Answer, AnswerResult, AnswerStatus, RawColumn

HANDLED_AT_US = 1_795_359_845_123_456


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "queue.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(schema.DDL)
    return path


@pytest.fixture
def producer(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        yield connection


@pytest.fixture
def queue(path: Path) -> Iterator[QueueConnection]:
    connection = QueueConnection(path)
    assert connection.schema_differences() == []
    yield connection
    connection.close()


def insert(producer: sqlite3.Connection, client_ref: str, request: str = "{}") -> int:
    sql = "INSERT INTO bracket_requests (client_ref, account, request) VALUES (?, 'a', ?)"
    return producer.execute(sql, (client_ref, request)).lastrowid or 0


def accepted(row_id: int, client_ref: str) -> tuple[Answer, RawColumn | None]:
    return Answer(row_id, client_ref, AnswerStatus.ACCEPTED, None, "b1"), None


def stored(producer: sqlite3.Connection, row_id: int) -> tuple[object, ...]:
    found = producer.execute("SELECT status, bracket_id, handled_at FROM bracket_requests WHERE id = ?", (row_id,))
    return tuple(found.fetchone())


def verdict_of(work: object) -> Verdict:
    assert callable(work)
    with pytest.raises(sqlite3.Error) as caught:
        work()
    return verdict_from_error(caught.value)


def test_an_answer_is_written_only_to_the_new_row_of_that_id_and_key(
    queue: QueueConnection, producer: sqlite3.Connection
) -> None:
    first, second = insert(producer, "one"), insert(producer, "two")
    answers = [accepted(first, "one"), accepted(second, "not two"), accepted(first, "one")]
    results = queue.write(answers, handled_at_us=HANDLED_AT_US)
    assert results == [AnswerResult.WRITTEN, AnswerResult.GONE, AnswerResult.GONE]
    assert stored(producer, first) == ("ACCEPTED", "b1", "2026-11-22T15:04:05.123Z")
    assert stored(producer, second) == ("NEW", None, None)


@pytest.mark.covers("F116")
def test_text_that_is_sql_is_only_text(queue: QueueConnection, producer: sqlite3.Connection) -> None:
    evil = "x' OR 1=1; DROP TABLE bracket_requests; --"
    victim, row_id = insert(producer, "victim"), insert(producer, evil, evil)
    raw = queue.scan(from_id=row_id, row_limit=10)[0]
    assert raw.client_ref == raw.request == ("text", evil.encode())
    answer = Answer(row_id, evil, AnswerStatus.REJECTED, evil, evil)
    assert queue.write([(answer, None)], handled_at_us=HANDLED_AT_US) == [AnswerResult.WRITTEN]
    assert stored(producer, row_id)[:2] == ("REJECTED", evil)
    assert stored(producer, victim) == ("NEW", None, None)


@pytest.mark.covers("F121")
def test_a_commit_that_a_reader_blocks_lets_go_at_once(path: Path, queue: QueueConnection) -> None:
    """A COMMIT that waits for readers keeps all others out; so after the failure others read and write freely."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as reader:
        row_id = insert(reader, "one")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM bracket_requests").fetchall()
        assert verdict_of(lambda: queue.write([accepted(row_id, "one")], handled_at_us=1)) is Verdict.BUSY
        with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
            assert stored(other, row_id)[0] == "NEW"
        insert(reader, "two")
        reader.execute("COMMIT")
        assert queue.write([accepted(row_id, "one")], handled_at_us=1) == [AnswerResult.WRITTEN]


@pytest.mark.covers("F121")
@pytest.mark.parametrize("lock", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_lock_of_a_producer_is_busy_and_not_waited_for(
    queue: QueueConnection, producer: sqlite3.Connection, lock: str
) -> None:
    row_id = insert(producer, "one")
    producer.execute(f"BEGIN {lock}")
    assert verdict_of(lambda: queue.write([accepted(row_id, "one")], handled_at_us=1)) is Verdict.BUSY
    producer.execute("COMMIT")
    assert queue.write([accepted(row_id, "one")], handled_at_us=1) == [AnswerResult.WRITTEN]


@pytest.mark.covers("F120")
def test_a_trigger_made_since_the_comparison_stops_the_next_use(
    queue: QueueConnection, producer: sqlite3.Connection
) -> None:
    row_id = insert(producer, "one")
    producer.execute("CREATE TRIGGER t AFTER UPDATE ON bracket_requests BEGIN DELETE FROM bracket_requests; END")
    with pytest.raises(SchemaChanged):
        queue.scan(from_id=0, row_limit=10)
    with pytest.raises(SchemaChanged):
        queue.write([accepted(row_id, "one")], handled_at_us=1)


@pytest.mark.covers("F120")
def test_the_authorizer_denies_a_trigger_even_when_the_comparison_missed_it(
    queue: QueueConnection, producer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    row_id = insert(producer, "one")
    insert(producer, "two")
    producer.execute("CREATE TRIGGER t AFTER UPDATE ON bracket_requests BEGIN DELETE FROM bracket_requests; END")
    monkeypatch.setattr(queue, "_require_schema", lambda: None)
    assert verdict_of(lambda: queue.write([accepted(row_id, "one")], handled_at_us=1)) is Verdict.BAD_FILE
    assert producer.execute("SELECT count(*) FROM bracket_requests").fetchone() == (2,)


@pytest.mark.covers("F120")
@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM bracket_requests",
        "INSERT INTO bracket_requests (client_ref, account, request) VALUES ('x', 'a', '{}')",
        "UPDATE bracket_requests SET id = 5",
        "ATTACH ':memory:' AS other",
        "PRAGMA journal_mode=WAL",
        "PRAGMA writable_schema=ON",
        "CREATE TEMP TABLE t (x)",
        "SELECT load_extension('x')",
        "SELECT randomblob(1000000)",
    ],
)
def test_the_connection_runs_only_what_the_daemon_needs(queue: QueueConnection, sql: str) -> None:
    with pytest.raises(sqlite3.Error, match=r"not authorized|prohibited"):
        queue._connection.execute(sql)


@pytest.mark.covers("F120")
def test_a_statement_ends_after_a_bounded_number_of_steps(
    queue: QueueConnection, producer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands for a crafted b-tree, whose rows never end; here the bound is lowered instead."""
    producer.execute("BEGIN")
    for number in range(4000):
        insert(producer, f"r{number}")
    producer.execute("COMMIT")
    assert len(queue.scan(from_id=0, row_limit=4000)) == 4000
    monkeypatch.setattr(module, "_STEPS_MAX", 20_000)
    assert verdict_of(lambda: queue.scan(from_id=0, row_limit=4000)) is Verdict.BAD_FILE
    assert len(queue.scan(from_id=0, row_limit=10)) == 10


@pytest.mark.covers("F106")
def test_a_row_of_many_megabytes_is_read_one_byte_past_the_limit_and_hides_no_other(
    queue: QueueConnection, producer: sqlite3.Connection
) -> None:
    insert(producer, "huge", "x" * 10_000_000)
    insert(producer, "after")
    huge, after = queue.scan(from_id=0, row_limit=10)
    assert huge.request[1] is not None
    assert (len(huge.request[1]), after.client_ref) == (65_537, ("text", b"after"))


def test_data_version_changes_with_the_commits_of_others_only(
    queue: QueueConnection, producer: sqlite3.Connection
) -> None:
    row_id = insert(producer, "one")
    seen = queue.data_version()
    queue.write([accepted(row_id, "one")], handled_at_us=1)
    assert queue.data_version() == seen
    insert(producer, "two")
    assert queue.data_version() != seen


@pytest.mark.covers("F106", "F120")
def test_a_row_that_lies_about_its_types_is_answered_all_the_same(path: Path) -> None:
    """Made without STRICT and with NULL allowed, then declared the published table by editing the schema text."""
    path.unlink()
    loose = schema.DDL.replace(" STRICT", "").replace("NOT NULL", "")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(loose)
        sql = "INSERT INTO bracket_requests (client_ref, account, request) VALUES (?, ?, ?)"
        connection.execute(sql, (b"\xff\x00", None, b"{}"))
        connection.execute(sql, (None, "a", "{}"))
        connection.execute(sql, ("good", "a", "{}"))
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE type = 'table'", (schema.DDL.strip(),))
    queue = QueueConnection(path)
    try:
        assert queue.schema_differences() == []
        blob, null, good = queue.scan(from_id=0, row_limit=10)
        assert (blob.client_ref, null.client_ref, blob.account) == (
            ("blob", b"\xff\x00"),
            ("null", None),
            ("null", None),
        )
        no = [Answer(raw.id, "", AnswerStatus.REJECTED, "bad", None) for raw in (blob, null)]
        answers = [(no[0], blob.client_ref), (no[1], null.client_ref), accepted(good.id, "good")]
        results = queue.write(answers, handled_at_us=1)
        assert results == [AnswerResult.WRITTEN] * 3
        assert queue.scan(from_id=0, row_limit=10) == []
    finally:
        queue.close()


def test_the_connection_never_makes_a_file(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        QueueConnection(tmp_path / "none.db").data_version()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Verdict.BUSY),
        (sqlite3.SQLITE_FULL, Verdict.TROUBLE),
        (sqlite3.SQLITE_IOERR_FSYNC, Verdict.TROUBLE),
        (sqlite3.SQLITE_CORRUPT, Verdict.BAD_FILE),
        (sqlite3.SQLITE_NOTADB, Verdict.BAD_FILE),
        (sqlite3.SQLITE_AUTH, Verdict.BAD_FILE),
    ],
)
def test_a_full_disk_is_trouble_and_only_a_bad_file_is_the_files_fault(code: int, verdict: Verdict) -> None:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code
    assert verdict_from_error(error) is verdict


def handled(producer: sqlite3.Connection, client_ref: str, handled_at: str | None, status: str = "ACCEPTED") -> int:
    row_id = insert(producer, client_ref)
    sql = "UPDATE bracket_requests SET status = ?, handled_at = ? WHERE id = ?"
    producer.execute(sql, (status, handled_at, row_id))
    return row_id


def refs(producer: sqlite3.Connection) -> list[str]:
    return [row[0] for row in producer.execute("SELECT client_ref FROM bracket_requests ORDER BY id")]


def test_rows_answered_before_a_moment_go_and_no_other(queue: QueueConnection, producer: sqlite3.Connection) -> None:
    handled(producer, "old", "2026-08-01T00:00:00.000Z")
    handled(producer, "refused", "2026-08-01T00:00:00.000Z", "REJECTED")
    handled(producer, "young", "2026-11-22T15:04:05.123Z")
    handled(producer, "no-time", None)
    handled(producer, "not-answered", "2026-08-01T00:00:00.000Z", "NEW")
    insert(producer, "new")
    assert queue.trim(answered_before_us=HANDLED_AT_US, row_limit=10) == 2
    assert refs(producer) == ["young", "no-time", "not-answered", "new"]


def test_rows_go_a_limited_number_at_a_time_the_oldest_first(
    queue: QueueConnection, producer: sqlite3.Connection
) -> None:
    for number in range(5):
        handled(producer, str(number), "2026-08-01T00:00:00.000Z")
    assert [queue.trim(answered_before_us=HANDLED_AT_US, row_limit=2) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.covers("F121")
def test_a_locked_file_is_not_trimmed_and_not_waited_for(queue: QueueConnection, producer: sqlite3.Connection) -> None:
    handled(producer, "old", "2026-08-01T00:00:00.000Z")
    producer.execute("BEGIN IMMEDIATE")
    assert verdict_of(lambda: queue.trim(answered_before_us=HANDLED_AT_US, row_limit=2)) is Verdict.BUSY
    producer.execute("COMMIT")
    assert refs(producer) == ["old"]


@pytest.mark.covers("F120")
def test_trimming_runs_no_trigger_of_the_file_and_gives_the_right_to_delete_back(
    queue: QueueConnection, producer: sqlite3.Connection
) -> None:
    handled(producer, "old", "2026-08-01T00:00:00.000Z")
    producer.execute("CREATE TRIGGER t AFTER DELETE ON bracket_requests BEGIN DELETE FROM bracket_requests; END")
    with pytest.raises((sqlite3.Error, SchemaChanged)):
        queue.trim(answered_before_us=HANDLED_AT_US, row_limit=2)
    producer.execute("DROP TRIGGER t")
    assert refs(producer) == ["old"]
    assert queue.schema_differences() == []
    assert queue.trim(answered_before_us=HANDLED_AT_US, row_limit=2) == 1
    with pytest.raises(sqlite3.Error, match="not authorized"):
        queue._connection.execute("DELETE FROM bracket_requests")
