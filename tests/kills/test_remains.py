"""What a kill leaves on the disk: damage and a lost commit are seen, and the look changes nothing."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.kills.remains import violations_of_remains


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection, connection:
        connection.execute("CREATE TABLE brackets (bracket_id TEXT PRIMARY KEY, version INTEGER)")
        connection.executemany("INSERT INTO brackets VALUES (?, ?)", [(f"b{n}", n) for n in range(200)])
    return tmp_path


def test_what_was_acknowledged_and_is_there_is_no_violation(data_dir: Path) -> None:
    before = (data_dir / "state.db").read_bytes()
    assert violations_of_remains(data_dir, {"b3": 3, "b5": 4}) == []
    assert (data_dir / "state.db").read_bytes() == before
    assert [path.name for path in data_dir.iterdir()] == ["state.db"]


def test_an_acknowledged_version_or_bracket_that_is_missing_is_told(data_dir: Path) -> None:
    assert len(violations_of_remains(data_dir, {"b3": 4, "none": 1})) == 2
    (data_dir / "state.db").unlink()
    assert len(violations_of_remains(data_dir, {"b3": 3})) == 1


def test_damage_is_told(data_dir: Path) -> None:
    content = bytearray((data_dir / "state.db").read_bytes())
    content[4200:4400] = bytes(200)
    (data_dir / "state.db").write_bytes(content)
    assert violations_of_remains(data_dir, {})
