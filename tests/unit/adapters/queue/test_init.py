"""`queue init` and the refusals of a directory that is not fit."""

import grp
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from otocod.adapters.queue.init import check_directory, init_queue


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.covers("F119")
def test_init_sets_modes_whatever_the_umask_and_makes_the_table(tmp_path: Path) -> None:
    path = tmp_path / "queue" / "queue.db"
    before = os.umask(0o077)
    try:
        assert init_queue(path, group=grp.getgrgid(os.getegid()).gr_name)
    finally:
        os.umask(before)
    assert (mode(path.parent), mode(path)) == (0o2770, 0o660)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO bracket_requests (client_ref, account, request) VALUES ('r', 'a', '{}')")
    assert check_directory(path, confined=True) == []


def test_init_again_mends_modes_and_keeps_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "queue" / "queue.db"
    init_queue(path, group=None)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO bracket_requests (client_ref, account, request) VALUES ('r', 'a', '{}')")
    path.chmod(0o666)
    assert not init_queue(path, group=None)
    assert mode(path) == 0o660
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM bracket_requests").fetchone() == (1,)


@pytest.mark.covers("F125")
def test_init_does_not_follow_a_link_put_in_the_place_of_the_file(tmp_path: Path) -> None:
    directory, precious = tmp_path / "queue", tmp_path / "precious"
    directory.mkdir()
    precious.write_text("kept")
    precious.chmod(0o600)
    (directory / "queue.db").symlink_to(precious)
    with pytest.raises(ValueError, match="not a regular file"):
        init_queue(directory / "queue.db", group=None)
    assert (precious.read_text(), mode(precious)) == ("kept", 0o600)


def test_init_names_an_unknown_group(tmp_path: Path) -> None:
    with pytest.raises(LookupError):
        init_queue(tmp_path / "queue" / "queue.db", group="no-such-group-here")


@pytest.mark.covers("F119")
@pytest.mark.parametrize(
    ("directory_mode", "confined", "says"),
    [
        (0o2770, True, None),
        (0o700, False, None),
        (0o750, False, None),
        (0o2770, False, "chmod g-w"),
        (0o2777, True, "chmod o="),
        (0o2775, True, "chmod o="),
    ],
)
def test_a_directory_others_may_use_is_refused_with_the_mending_command(
    tmp_path: Path, directory_mode: int, confined: bool, says: str | None
) -> None:
    directory = tmp_path / "queue"
    directory.mkdir()
    directory.chmod(directory_mode)
    refusals = check_directory(directory / "queue.db", confined)
    assert len(refusals) == (says is not None)
    if says is not None:
        assert f"{says} {directory}" in refusals[0]


@pytest.mark.covers("F119")
def test_a_file_open_to_everybody_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "queue" / "queue.db"
    init_queue(path, group=None)
    path.chmod(0o664)
    assert [line for line in check_directory(path, confined=True) if f"chmod o= {path}" in line]


def test_a_missing_or_linked_directory_is_refused(tmp_path: Path) -> None:
    assert "otocod queue init" in check_directory(tmp_path / "none" / "queue.db", confined=True)[0]
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert "not a directory" in check_directory(tmp_path / "link" / "queue.db", confined=True)[0]
