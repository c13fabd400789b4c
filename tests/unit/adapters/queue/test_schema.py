"""The schema comparison: the published table in any spelling, and nothing else."""

import sqlite3
from contextlib import closing

import pytest

from otocod.adapters.queue import schema

COMPACT = (
    'create table "bracket_requests"(id integer primary key,client_ref text not null unique,account text not null,'
    "request text not null,status text not null default 'NEW' check(status in('NEW','ACCEPTED','REJECTED')),"
    "reason text,bracket_id text,created_at text not null default(strftime('%Y-%m-%dT%H:%M:%fZ','now')),"
    "handled_at text)strict"
)


def differences_after(*statements: str) -> list[str]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in statements:
            connection.execute(statement)
        return schema.differences(connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall())


def test_the_published_statement_is_the_expected_schema_however_it_is_written() -> None:
    assert differences_after(schema.DDL) == []
    assert differences_after(COMPACT) == []


def test_statistics_left_by_analyze_are_no_difference() -> None:
    insert = "INSERT INTO bracket_requests (client_ref, account, request) VALUES ('r', 'a', '{}')"
    assert differences_after(schema.DDL, insert, "ANALYZE") == []


@pytest.mark.covers("F120")
@pytest.mark.parametrize(
    "extra",
    [
        "CREATE TRIGGER t AFTER UPDATE ON bracket_requests BEGIN DELETE FROM bracket_requests; END",
        "CREATE VIEW v AS SELECT * FROM bracket_requests",
        "CREATE INDEX i ON bracket_requests (status)",
        "CREATE TABLE other (x)",
    ],
)
def test_anything_beside_the_table_is_a_difference(extra: str) -> None:
    assert len(differences_after(schema.DDL, extra)) == 1


@pytest.mark.covers("F120")
@pytest.mark.parametrize(
    ("old", "new"),
    [(") STRICT", ")"), ("'NEW'", "'new'"), ("UNIQUE", ""), ("handled_at  TEXT", "handled_at TEXT, x TEXT")],
)
def test_a_table_that_differs_is_found(old: str, new: str) -> None:
    assert differences_after(schema.DDL.replace(old, new))


def test_an_empty_file_has_no_table() -> None:
    assert differences_after() == ["has no table bracket_requests"]


def test_a_schema_whose_columns_are_no_text_is_a_difference_and_no_error() -> None:
    assert len(schema.differences([("table", "bracket_requests", b"\xff"), (None, 3, 4.5)])) == 2
