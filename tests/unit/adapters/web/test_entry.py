"""Who may look: the token's file, sessions that end, and wrong tokens that are slowed down."""

import stat
from pathlib import Path

import pytest

from otocod.adapters.web.entry import (
    SESSION_IDLE_S,
    SESSION_LONGEST_S,
    TRIES,
    TRY_EVERY_S,
    Door,
    TokenUnusable,
    read_token,
    token_in,
)

TOKEN = "canary-web-token-5b1c9e0f7a2d4c68"


class Time:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def test_token_is_made_once_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "web-token"
    made = token_in(path)
    assert len(made) >= 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token_in(path) == made
    assert [each.name for each in tmp_path.iterdir()] == ["web-token"]


def test_half_made_token_of_a_start_that_was_killed_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "web-token.new").write_text("half")
    assert len(token_in(tmp_path / "web-token")) >= 43


@pytest.mark.parametrize("content", ["", "short", "x" * 31, "ünsicher" * 8, "two\nlines" * 8])
def test_file_without_a_token_is_refused_with_what_to_do(tmp_path: Path, content: str) -> None:
    path = tmp_path / "web-token"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(TokenUnusable, match="remove it"):
        read_token(path)


def test_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "web-token"
    path.write_text(TOKEN)
    path.chmod(0o640)
    with pytest.raises(TokenUnusable, match="chmod 0600"):
        token_in(path)


def test_link_in_the_place_of_the_token_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(TOKEN)
    (tmp_path / "web-token").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        token_in(tmp_path / "web-token")


def test_right_token_opens_a_session_and_another_name_does_not_count() -> None:
    door = Door(TOKEN, Time())
    session = door.open(TOKEN)
    assert door.knows(session)
    assert not door.knows(None)
    assert not door.knows("")
    assert not door.knows(TOKEN)
    assert not door.knows("\udcff")
    door.close(session)
    door.close(None)
    assert not door.knows(session)


@pytest.mark.parametrize("offered", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\udcff", "x" * 4096])
def test_wrong_token_opens_nothing(offered: str) -> None:
    assert Door(TOKEN, Time()).open(offered) is None


def test_session_ends_when_it_is_not_used_and_after_a_week_in_any_case() -> None:
    time = Time()
    door = Door(TOKEN, time)
    idle, busy = door.open(TOKEN), door.open(TOKEN)
    time.now_s += SESSION_IDLE_S - 1
    assert door.knows(busy)
    time.now_s += 2
    assert not door.knows(idle)
    assert door.knows(busy)
    while time.now_s < 1_000 + SESSION_LONGEST_S:
        assert door.knows(busy)
        time.now_s += SESSION_IDLE_S / 2
    time.now_s += 1
    assert not door.knows(busy)


def test_more_windows_than_anybody_has_end_the_oldest() -> None:
    time = Time()
    door = Door(TOKEN, time)
    names = []
    for _ in range(40):
        time.now_s += 1
        names.append(door.open(TOKEN))
    assert [door.knows(name) for name in names] == [False] * 8 + [True] * 32


def test_wrong_tokens_are_slowed_down_and_a_right_one_costs_nothing() -> None:
    time = Time()
    door = Door(TOKEN, time)
    for _ in range(3 * TRIES):
        assert door.may_try()
        assert door.open(TOKEN)
    for _ in range(TRIES):
        assert door.may_try()
        assert door.open("wrong") is None
    assert not door.may_try()
    time.now_s += TRY_EVERY_S
    assert door.may_try()
    assert not door.may_try()
