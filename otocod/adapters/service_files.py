"""The files of the service: what comes with the package, where it belongs, and putting it there.

A file is written beside its place and moved over it, so a reader sees the old one or the new one. Whatever is there
already in the wanted words is left alone, so a second installation changes nothing.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

# What the unit files name; an installation elsewhere has them rewritten.
PACKAGED_EXECUTABLE = "/opt/otocod/bin/otocod"
# What is started and enabled; the others are started by these.
ENABLED_UNITS = ("otocod.service", "otocod-backup.timer", "otocod-audit.timer")
# Known since systemd 254. An older one would complain of them at each look at the unit.
_NEW_KEYS = re.compile(r"^(?:RestartSteps|RestartMaxDelaySec)=.*\n", re.MULTILINE)
_NEW_KEYS_SINCE = 254
# Not to be seen from inside the service: ProtectHome=.
_HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"))

_UNITS, _SYSUSERS, _TMPFILES = "etc/systemd/system", "etc/sysusers.d", "etc/tmpfiles.d"
_CONFIG = "etc/otocod"


class Done(StrEnum):
    """What became of a file."""

    MADE = "made"
    RENEWED = "renewed"
    KEPT = "kept"
    REMOVED = "removed"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class ServiceFile:
    path: Path
    text: str
    is_settings: bool = False  # the operator's own once it is there: never written over, never removed


def packaged_directory() -> Path:
    """The unit files beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).parents[1]
    inside = package / "_deploy" / "systemd"
    return inside if inside.is_dir() else package.parent / "deploy" / "systemd"


def service_files(root: Path, executable: str, systemd_version: int) -> tuple[ServiceFile, ...]:
    """Everything to be put below `root`; units first. `executable` as it is called inside `root`."""
    found = sorted(packaged_directory().iterdir())
    units = [path for path in found if path.suffix in (".service", ".timer")]
    return (
        *(
            ServiceFile(root / _UNITS / path.name, _unit(path.read_text(), executable, systemd_version))
            for path in units
        ),
        *(ServiceFile(target, path.read_text(), path.suffix == ".toml") for path, target in _others(found, root)),
    )


def _unit(text: str, executable: str, systemd_version: int) -> str:
    text = text.replace(PACKAGED_EXECUTABLE, executable)
    return text if systemd_version >= _NEW_KEYS_SINCE else _NEW_KEYS.sub("", text)


def _others(found: list[Path], root: Path) -> Iterator[tuple[Path, Path]]:
    places = {
        "otocod.sysusers.conf": f"{_SYSUSERS}/otocod.conf",
        "otocod.tmpfiles.conf": f"{_TMPFILES}/otocod.conf",
        "otocod.toml": f"{_CONFIG}/otocod.toml",
    }
    return ((path, root / places[path.name]) for path in found if path.name in places)


def put(file: ServiceFile, *, dry_run: bool) -> Done:
    """Raises OSError."""
    is_there = file.path.exists()
    if is_there and (file.is_settings or file.path.read_text() == file.text):
        return Done.KEPT
    if not dry_run:
        _write(file.path, file.text)
    return Done.RENEWED if is_there else Done.MADE


def remove(file: ServiceFile, *, dry_run: bool) -> Done:
    """Raises OSError."""
    if not os.path.lexists(file.path):
        return Done.ABSENT
    if file.is_settings:
        return Done.KEPT
    if not dry_run:
        file.path.unlink()
    return Done.REMOVED


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def executable_inside(executable: Path, root: Path) -> str:
    """How the service calls `executable`, which may lie below `root`."""
    return f"/{executable.relative_to(root)}" if executable.is_relative_to(root) else str(executable)


def executable_problems(executable: Path, interpreter: Path) -> list[str]:
    """Why the service's user could not start it, one line each with what to do."""
    problems = []
    if not executable.exists():
        problems.append(f"{executable} is missing: install otocod into an environment of its own, in /opt/otocod")
    for path in dict.fromkeys((executable, executable.resolve(), interpreter.resolve())):
        if any(path.is_relative_to(hidden) for hidden in _HIDDEN):
            problems.append(f"{path} is hidden from services (ProtectHome=): install otocod in /opt/otocod")
        closed = next(
            (each for each in (path, *path.parents) if each.exists() and not each.stat().st_mode & 0o001), None
        )
        if closed is not None:
            problems.append(f"{closed} is closed to the service's user; run: chmod o+x {closed}")
    return problems
