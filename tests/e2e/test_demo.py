"""The demonstration as a newcomer meets it: the real processes, the whole minute."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from otocod.cli.demo.plan import plans

LIMIT_S = 60


def demo(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """With settings around that would lead it astray, if it heeded them."""
    environ = {
        **os.environ,
        "TMPDIR": str(tmp_path),
        "HOME": str(tmp_path / "home"),
        "OTOCOD_ENVIRONMENT": "production",
        "OTOCOD_DATA_DIR": str(tmp_path / "mine"),
        "OTOCOD_NONSENSE": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "otocod", "demo", *arguments],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S + 20,
    )


def processes_of(directory: Path) -> list[str]:
    """Command lines of processes whose environment names the directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(directory).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S + 30)
def test_demo_ends_every_bracket_as_planned_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = demo(tmp_path)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "Traceback" not in told
    assert "\x1b" not in done.stdout
    rows = {words[0]: words for words in map(str.split, done.stdout.splitlines()) if words}
    for plan in plans():
        assert plan.is_ending in rows[plan.name], done.stdout
    assert re.search(r"SIGKILL to otocod, process \d+", done.stdout)
    assert "audit: nothing found (the database and the broker" in done.stdout
    assert f"{len(plans())} of {len(plans())} ended as they should" in done.stdout
    assert list(tmp_path.glob("otocod-demo-*")) == []
    assert not (tmp_path / "mine").exists()
    assert processes_of(tmp_path) == []


@pytest.mark.timeout(LIMIT_S + 30)
def test_demo_that_is_interrupted_stops_its_processes_and_says_nothing(tmp_path: Path) -> None:
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "otocod", "demo"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "paper broker up" in process.stdout.readline()
        process.send_signal(2)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == ""
    assert processes_of(tmp_path) == []
    assert list(tmp_path.glob("otocod-demo-*")) == []


def test_demo_that_cannot_start_its_daemon_says_why_in_a_line_and_keeps_the_logs(tmp_path: Path) -> None:
    """The daemon is given a Python path on which one of its modules fails to load."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text("import sys\nsys.modules['otocod.bootstrap'] = None\n")
    environ = {**os.environ, "TMPDIR": tempfile.mkdtemp(dir=tmp_path), "PYTHONPATH": str(broken)}
    done = subprocess.run(
        [sys.executable, "-m", "otocod", "demo", "--json"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("otocod demo: otocod ended with status 1")
    kept = Path(lines[1].rpartition(" ")[2])
    assert (kept / "otocod.log").exists()
    assert processes_of(kept) == []
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.stdout)
