"""Where the screen's picture comes from: the daemon, or with it down the file; and what that costs other commands."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from otocod.adapters.sqlite.store import SqliteStore
from otocod.cli import app
from otocod.cli.failure import DaemonDown, Failed
from otocod.cli.places import Places
from otocod.cli.watch.looks import DaemonOrFile
from tests.support.state_file import fresh_state
from tests.support.stored_records import accepted, change, changes_of_life
from tests.unit.cli.test_app import Daemon, _serving, data_dir

__all__ = ["data_dir"]


@pytest.fixture
def daemon(data_dir: Path) -> Iterator[Daemon]:
    with _serving(data_dir / "otocod.sock") as daemon:
        yield daemon


def places(directory: Path) -> Places:
    return Places(directory, directory / "queue" / "queue.db", directory / "otocod.sock", ())


def fill(path: Path) -> None:
    async def run() -> None:
        store = await SqliteStore.open(path)
        try:
            for each in (*changes_of_life(1), change(None, accepted(2)), change(None, accepted(3))):
                await store.commit(each)
        finally:
            await store.close()

    asyncio.run(run())


def test_daemon_is_asked_while_it_answers(daemon: Daemon, data_dir: Path) -> None:
    daemon.answers["GET /v1/overview"] = (200, {"running": True})
    daemon.answers["GET /v1/brackets/b1/view"] = (200, {"bracket": {}})
    daemon.answers["POST /v1/resume"] = (200, {})
    looks = DaemonOrFile(places(data_dir))
    assert looks.overview() == {"running": True}
    assert looks.view("b1") == {"bracket": {}}
    looks.tell("/v1/resume", {})
    assert [call for call, _ in daemon.asked] == ["GET /v1/overview", "GET /v1/brackets/b1/view", "POST /v1/resume"]


def test_file_shows_the_same_without_quotes_and_takes_no_commands(tmp_path: Path) -> None:
    fill(fresh_state(tmp_path))
    looks = DaemonOrFile(places(tmp_path))
    found = looks.overview()
    assert (found["running"], found["counts"], found["unshown"]) == (False, {"PENDING_ENTRY": 2}, 0)
    assert [each["client_ref"] for each in found["brackets"]] == ["ref-3", "ref-2"]
    assert found["brackets"][0]["target"] == "0.42"
    assert [each["client_ref"] for each in found["closed"]] == ["ref-1"]
    seen = looks.view(found["closed"][0]["bracket_id"])
    assert (seen["bracket"]["outcome"], seen["orders"][0]["role"]) == ("TARGET_FILLED", "entry")
    assert seen["story"]
    with pytest.raises(DaemonDown):
        looks.tell("/v1/halt", {})


def test_no_daemon_and_no_file_is_said(tmp_path: Path) -> None:
    looks = DaemonOrFile(places(tmp_path))
    with pytest.raises(DaemonDown, match="there is no database"):
        looks.overview()
    fresh_state(tmp_path)
    with pytest.raises(Failed, match="no such bracket"):
        looks.view("none")


def test_damaged_record_is_said_and_not_shown_half(tmp_path: Path) -> None:
    import sqlite3

    path = fresh_state(tmp_path)
    fill(path)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE brackets SET more_json = '{\"from_the_future\": 1}'")
    connection.close()
    with pytest.raises(Failed, match="db check"):
        DaemonOrFile(places(tmp_path)).overview()


def test_without_a_terminal_watch_says_what_prints_instead(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["watch"]) == 2
    assert "otocod list" in capsys.readouterr().err


def test_json_prints_what_the_screen_would_show(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    daemon.answers["GET /v1/overview"] = (200, {"running": True, "brackets": []})
    assert app.run(["watch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"running": True, "brackets": []}


def test_no_other_command_pays_for_the_screen() -> None:
    code = "import sys, otocod.cli.app; print(sorted({name.split('.')[0] for name in sys.modules}))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert not {"textual", "rich", "sqlalchemy", "msgspec"} & set(json.loads(answer.stdout.replace("'", '"')))
