"""What must be right around the daemon, looked at by reading alone: each check says what it found and what to do.

Nothing here opens state.db or the queue: closing a second descriptor of a database drops SQLite's locks, and the queue
is opened by its confined thread alone. So the daemon can run these while it trades, and the command line without it.
"""

import os
import platform
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from otocod import __version__
from otocod.adapters.sqlite.check import RESERVE_BYTES, sqlite_note
from otocod.ports.admin import JsonObject

_MIB = 1024 * 1024
# Room for the reserve several times, and for what a busy day writes.
DISK_BAD_BYTES = 16 * RESERVE_BYTES
_BACKUP_BAD_S = 48 * 3600
_CREDENTIAL_MODE = 0o077


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where things are, as the settings say."""

    data_dir: Path
    queue: Path
    socket: Path
    is_production: bool
    credentials: Path | None  # $CREDENTIALS_DIRECTORY
    config: Path | None  # the settings file, if there is one


def check(name: str, is_ok: bool, detail: str, remedy: str = "") -> JsonObject:
    return {"check": name, "ok": is_ok, "detail": detail, "remedy": "" if is_ok else remedy}


def surroundings_checks(place: Surroundings, environ: Mapping[str, str]) -> list[JsonObject]:
    return [
        *versions(),
        *file_modes(place),
        *disk_space(place),
        queue_access(place.queue),
        backup_age(place),
        systemd_state(environ, is_wanted=place.is_production),
    ]


def versions() -> Iterator[JsonObject]:
    yield check("versions", True, f"otocod {__version__}, Python {platform.python_version()}, {platform.system()}")
    note = sqlite_note()
    # Allowed: one connection writes. Said all the same, since a second one would be somebody's doing.
    yield check(
        "sqlite", True, note or f"SQLite {sqlite3.sqlite_version}, without the WAL-reset fault of 3.7.0 to 3.51.2"
    )


def file_modes(place: Surroundings) -> Iterator[JsonObject]:
    """Of everything that must be ours alone, and of the queue, which must not be."""
    state_db = place.data_dir / "state.db"
    wanted = [
        (place.data_dir, 0o027, "chmod 0750"),
        (state_db, 0o177, "chmod 0600"),
        (state_db.with_name("state.db-wal"), 0o177, "chmod 0600"),
        (place.data_dir / "lock", 0o177, "chmod 0600"),
        (place.socket, 0o117, "chmod 0660"),
        (place.queue.parent, 0o007, "chmod 2770"),
        (place.queue, 0o117, "chmod 0660"),
    ]
    if place.config is not None:
        wanted.append((place.config, 0o022, "chmod go-w"))
    problems: list[tuple[str, str]] = []
    for path, forbidden, mend in wanted:
        problems.extend(_mode_problems(path, forbidden, mend))
    if place.credentials is not None:
        for path in _files_of(place.credentials):
            problems.extend(_mode_problems(path, _CREDENTIAL_MODE, "chmod 0400"))
    problems.extend(_owner_problems((place.data_dir, state_db, place.data_dir / "lock")))
    if not problems:
        yield check("file modes", True, "data, lock, socket, queue and credentials are as they must be")
    for text, mend in problems:
        yield check("file modes", False, text, mend)


def _mode_problems(path: Path, forbidden: int, mend: str) -> Iterator[tuple[str, str]]:
    try:
        mode = stat.S_IMODE(path.lstat().st_mode)
    except FileNotFoundError:
        return
    except OSError as error:
        yield f"{path} cannot be looked at: {error.strerror}", "look as the daemon's user or root"
        return
    if mode & forbidden:
        yield f"{path} has mode {mode:04o}", f"{mend} {quote(str(path))}"


def _owner_problems(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """All of one owner: a file that root made while the daemon was down cannot be written by it."""
    owners: dict[Path, int] = {}
    for path in paths:
        try:
            owners[path] = path.lstat().st_uid
        except OSError:
            continue
    if not owners:
        return
    first = next(iter(owners.values()))
    for path, owner in owners.items():
        if owner != first:
            yield f"{path} belongs to user {owner}, its directory to {first}", f"chown {first} {quote(str(path))}"


def _files_of(directory: Path) -> list[Path]:
    try:
        return [path for path in directory.iterdir() if path.name.startswith("otocod-")]
    except OSError:
        return []


def disk_space(place: Surroundings) -> Iterator[JsonObject]:
    seen: set[int] = set()
    for path in (place.data_dir, place.queue.parent):
        there = next((each for each in (path, *path.parents) if each.exists()), None)
        if there is None or there.stat().st_dev in seen:
            continue
        seen.add(there.stat().st_dev)
        space = os.statvfs(there)
        free = space.f_bavail * space.f_frsize
        remedy = f"make room on the file system of {there}: at {4 * RESERVE_BYTES // _MIB} MiB entries begin to stop"
        detail = f"{free // _MIB} MiB free for {path}"
        # A file system with no inodes left is as full as one without blocks; some count none at all.
        if space.f_files and space.f_favail < 100:
            yield check("disk space", False, f"{space.f_favail} inodes free for {path}", remedy)
        else:
            yield check("disk space", free >= DISK_BAD_BYTES, detail, remedy)


def queue_access(queue: Path) -> JsonObject:
    """Whether the daemon can write the queue, and whether its submitters can."""
    remedy = f"otocod queue init, or: chown the directory to otocod's user; chmod 2770 {quote(str(queue.parent))}"
    if not queue.parent.exists():
        return check("queue", True, f"{queue} will be made at the start")
    if not os.access(queue.parent, os.W_OK | os.X_OK):
        return check("queue", False, f"{queue.parent} cannot be written by user {os.geteuid()}", remedy)
    if not queue.exists():
        return check("queue", True, f"{queue} will be made at the start")
    found = queue.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        return check("queue", False, f"{queue} is not a regular file with one link", f"rm {quote(str(queue))}")
    if not os.access(queue, os.R_OK | os.W_OK):
        return check("queue", False, f"{queue} cannot be written by user {os.geteuid()}", remedy)
    return check("queue", True, f"{queue} can be written, by its group ({found.st_gid}) too")


def backup_age(place: Surroundings) -> JsonObject:
    remedy = "otocod db backup, and enable otocod-backup.timer"
    try:
        newest = max((path.stat().st_mtime for path in place.data_dir.glob("state-*.db")), default=None)
    except OSError as error:
        return check("backup", False, f"{place.data_dir}: {error.strerror}", "look as the daemon's user or root")
    if newest is None:
        return check("backup", not place.is_production, f"no backup in {place.data_dir}", remedy)
    age_s = max(time.time() - newest, 0)
    is_ok = age_s < _BACKUP_BAD_S or not place.is_production
    return check("backup", is_ok, f"the newest is {age_s / 3600:.0f} h old", remedy)


def systemd_state(environ: Mapping[str, str], *, is_wanted: bool) -> JsonObject:
    """From inside the service: what systemd has promised to do for it."""
    remedy = "run it as the unit otocod.service: it starts it again, and watches it"
    if not environ.get("NOTIFY_SOCKET"):
        return check("systemd", not is_wanted, "not run by systemd: nobody starts it again", remedy)
    watchdog = environ.get("WATCHDOG_USEC", "")
    if not watchdog.isdecimal():
        return check("systemd", False, "run by systemd without a watchdog", "set WatchdogSec=20 in otocod.service")
    return check("systemd", True, f"run by systemd, which watches it every {int(watchdog) / 1_000_000:g} s")


def alert_checks(
    channels: Iterable[str], *, has_deadman: bool, late: str | None, is_production: bool
) -> Iterator[JsonObject]:
    names = list(channels)
    if not names:
        yield check(
            "alerts",
            not is_production,
            "no channel is set up: nobody hears of an alarm",
            "set alerts.smtp_host or the credential otocod-webhook-url, then `otocod alerts test`",
        )
    elif late is not None:
        yield check("alerts", False, f"alerts wait undelivered: {late}", "otocod alerts test; otocod alerts list")
    else:
        yield check("alerts", True, f"to {', '.join(names)}")
    yield check(
        "dead-man ping",
        has_deadman or not is_production,
        "an outside watcher is pinged" if has_deadman else "no outside watcher: a dead machine is silent",
        "set up a watcher of pings and give its address as the credential otocod-deadman-url",
    )
