"""Where the service's files go, and that doing it twice does it once."""

from pathlib import Path

import pytest

from otocod.adapters.service_files import (
    PACKAGED_EXECUTABLE,
    Done,
    ServiceFile,
    executable_inside,
    executable_problems,
    packaged_directory,
    put,
    remove,
    service_files,
)


def test_every_packaged_file_has_its_place(tmp_path: Path) -> None:
    files = service_files(tmp_path, PACKAGED_EXECUTABLE, 256)
    assert len(files) == len(list(packaged_directory().iterdir()))
    places = {str(file.path.relative_to(tmp_path)) for file in files}
    assert {
        "etc/systemd/system/otocod.service",
        "etc/systemd/system/otocod-alert@.service",
        "etc/systemd/system/otocod-backup.timer",
        "etc/sysusers.d/otocod.conf",
        "etc/tmpfiles.d/otocod.conf",
        "etc/otocod/otocod.toml",
    } <= places


def test_a_second_time_changes_nothing_and_what_somebody_changed_is_renewed(tmp_path: Path) -> None:
    files = service_files(tmp_path, PACKAGED_EXECUTABLE, 256)
    assert {put(file, dry_run=False) for file in files} == {Done.MADE}
    assert {put(file, dry_run=False) for file in files} == {Done.KEPT}
    (unit,) = [file for file in files if file.path.name == "otocod.service"]
    (settings,) = [file for file in files if file.is_settings]
    for file in (unit, settings):
        file.path.write_text("mine")
    assert (put(unit, dry_run=False), unit.path.read_text()) == (Done.RENEWED, unit.text)
    # An operator's settings are never written over.
    assert (put(settings, dry_run=False), settings.path.read_text()) == (Done.KEPT, "mine")
    assert [path.name for path in unit.path.parent.iterdir() if path.name.startswith(".")] == []


def test_a_dry_run_writes_and_removes_nothing(tmp_path: Path) -> None:
    file = ServiceFile(tmp_path / "etc" / "x.service", "text")
    assert (put(file, dry_run=True), file.path.parent.exists()) == (Done.MADE, False)
    put(file, dry_run=False)
    assert (remove(file, dry_run=True), file.path.exists()) == (Done.REMOVED, True)


def test_removal_leaves_settings_and_takes_absence_for_done(tmp_path: Path) -> None:
    files = service_files(tmp_path, PACKAGED_EXECUTABLE, 256)
    for file in files:
        put(file, dry_run=False)
    for file in files:
        assert remove(file, dry_run=False) is (Done.KEPT if file.is_settings else Done.REMOVED)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["otocod.toml"]
    assert {remove(file, dry_run=False) for file in files} == {Done.ABSENT, Done.KEPT}


def test_an_executable_below_the_root_is_called_as_from_inside(tmp_path: Path) -> None:
    assert executable_inside(tmp_path / "opt/otocod/bin/otocod", tmp_path) == PACKAGED_EXECUTABLE
    assert executable_inside(Path("/usr/bin/otocod"), tmp_path) == "/usr/bin/otocod"


def test_what_the_services_user_could_not_start_is_named_with_what_to_do(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    executable = closed / "otocod"
    executable.touch(mode=0o755)
    hidden = Path("/home/somebody/python3")
    problems = executable_problems(executable, hidden)
    assert [problem for problem in problems if f"chmod o+x {tmp_path}" in problem or f"chmod o+x {closed}" in problem]
    assert any("hidden from services" in problem and "/opt/otocod" in problem for problem in problems)
    assert any("is missing" in problem for problem in executable_problems(closed / "none", hidden))


@pytest.mark.parametrize("path", ["/usr/bin/env"])
def test_an_executable_that_everybody_may_start_is_fit(path: str) -> None:
    assert executable_problems(Path(path), Path(path)) == []
