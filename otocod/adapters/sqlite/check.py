"""Is the file fit to be trusted, and may it be where it is? Start-up checks, damage checks, online backup.

Standard library only: the command line uses it without a daemon. Nothing here opens state.db except through SQLite:
closing any other descriptor of the file would drop SQLite's locks in the whole process.
"""

import contextlib
import ctypes
import os
import sqlite3
import stat
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from otocod.adapters.sqlite.readmodel import open_readonly

EPOCH_SETTING = "store.epoch"  # raised by every opening for writing and after every checkpoint
_MARK_SUFFIX = "-mark"
_RESERVE_SUFFIX = "-reserve"

# f_type of statfs(2), from the kernel's magic.h and the file systems' own headers. Locks and syncs of these cannot be
# relied on; FUSE is among them because it hides what is behind it.
_NETWORK_FILE_SYSTEMS = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x5346414F: "AFS",
    0x6B414653: "AFS",
    0x73757245: "Coda",
    0x564C: "NCP",
    0x00C36400: "Ceph",
    0x01021997: "9P",
    0x65735546: "FUSE",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
    0x19830326: "BeeGFS",
    0xAAD7AAEA: "PanFS",
    0x786F4256: "VirtualBox shared folder",
}


@dataclass(frozen=True, slots=True)
class Problem:
    text: str
    mend: str | None = None  # a command that mends it, where one does

    def __str__(self) -> str:
        return self.text if self.mend is None else f"{self.text}; mend it with: {self.mend}"


class NotFit(Exception):
    """state.db, or the place where it is, cannot be used. `problems` holds every one found."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def require_fit(path: Path) -> None:
    """Raises NotFit. To be called with the lock held, before anything else opens the file for writing."""
    if not _place_problems(path):
        _roll_back(path)
    problems = startup_problems(path)
    if problems:
        raise NotFit(problems)


def _roll_back(path: Path) -> None:
    """Ends what a crash has cut short while a new file was being switched to WAL, the only time it has a journal.

    The checks read, and a reader may not roll back: the file would look damaged for ever.
    """
    if not (path.exists() and _beside(path, "-journal").exists()):
        return
    with (
        contextlib.suppress(sqlite3.DatabaseError),  # the checks say what is wrong
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection,
    ):
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()


def startup_problems(path: Path) -> tuple[Problem, ...]:
    """Everything that forbids using `path`, which need not exist yet. Reads all of it: some 0.2 s for 100 MiB."""
    place = _place_problems(path)
    if place or not path.exists():
        return (*place, *_mark_problems(path, present=None)) if not path.exists() else place
    damage = quick_check(path)
    if damage:
        return tuple(
            Problem(f"{path} is damaged: {line}; restore a backup, then `otocod reconcile`") for line in damage
        )
    return _mark_problems(path, present=stored_epoch(path))


def _place_problems(path: Path) -> tuple[Problem, ...]:
    directory = path.parent
    existing = next(parent for parent in (directory, *directory.parents) if parent.exists())
    problems = []
    network = network_file_system(existing)
    if network is not None:
        problems.append(Problem(f"{existing} is on {network}: state.db needs a local file system"))
    if os.statvfs(existing).f_flag & os.ST_RDONLY:
        problems.append(Problem(f"the file system of {existing} is read-only"))
    elif not os.access(existing, os.W_OK | os.X_OK):
        problems.append(Problem(f"{existing} cannot be written by user {os.geteuid()}"))
    if existing == directory and stat.S_IMODE(directory.stat().st_mode) & 0o027:
        problems.append(Problem(f"{directory} is open to others", f"chmod 0750 {quote(str(directory))}"))
    for name in (path, _beside(path, "-wal"), _beside(path, "-shm")):
        if name.exists():
            problems.extend(_file_problems(name))
    return tuple(problems)


def _file_problems(path: Path) -> list[Problem]:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        return [Problem(f"{path} is not a regular file with one link")]
    problems = []
    if stat.S_IMODE(found.st_mode) & 0o177:
        problems.append(Problem(f"{path} is open to others", f"chmod 0600 {quote(str(path))}"))
    if not os.access(path, os.R_OK | os.W_OK):
        owner = f"chown {os.geteuid()} {quote(str(path))} && chmod 0600 {quote(str(path))}"
        problems.append(Problem(f"{path} cannot be read and written by user {os.geteuid()}", owner))
    return problems


def network_file_system(path: Path) -> str | None:
    """The name of the network file system that `path` is on, or None."""
    return _NETWORK_FILE_SYSTEMS.get(_file_system_magic(path))


def _file_system_magic(path: Path) -> int:
    if sys.platform != "linux":
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    # struct statfs begins with f_type, a machine word; 256 bytes hold all of it on every architecture.
    buffer = ctypes.create_string_buffer(256)
    if libc.statfs(os.fsencode(path), buffer) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF


def quick_check(path: Path) -> tuple[str, ...]:
    """Damage that SQLite finds without comparing indexes with tables; empty when there is none."""
    return _damage(path, "PRAGMA quick_check(20)")


def integrity_check(path: Path) -> tuple[str, ...]:
    """As quick_check, with indexes and foreign keys; slower."""
    return _damage(path, "PRAGMA integrity_check(20)") or _damage(path, "PRAGMA foreign_key_check")


def _damage(path: Path, pragma: str) -> tuple[str, ...]:
    try:
        with closing(open_readonly(path)) as connection:
            rows = connection.execute(pragma).fetchall()
    except sqlite3.DatabaseError as error:
        return (str(error),)
    lines = tuple(" ".join(str(value) for value in row) for row in rows)
    return () if lines == ("ok",) else lines


def sqlite_note(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> str | None:
    """What an operator should know about this SQLite; None when nothing.

    3.7.0 to 3.51.2, but for 3.50.7 and 3.44.6 and their successors, can corrupt a WAL when several connections write
    and checkpoint at the same moment. Allowed: state.db has one writing connection, and readers never checkpoint.
    """
    is_mended = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)
    if is_mended or version < (3, 7, 0):
        return None
    text = ".".join(map(str, version))
    return (
        f"SQLite {text} can corrupt a WAL that several connections write: open state.db for writing with nothing else "
        "while otocod runs"
    )


def stored_epoch(path: Path) -> int | None:
    """The file's own count of openings and checkpoints; None in a file from before it was counted."""
    with closing(open_readonly(path)) as connection:
        if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'settings'").fetchone() is None:
            return None
        row = connection.execute("SELECT value FROM settings WHERE name = ?", (EPOCH_SETTING,)).fetchone()
    return None if row is None else int(row[0])


def stored_revision(path: Path) -> str | None:
    """The file's schema; None for a file without one."""
    with closing(open_readonly(path)) as connection:
        if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'alembic_version'").fetchone() is None:
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def write_mark(path: Path, epoch: int) -> None:
    """Remembers beside the file what it has reached. Written after the file, so the file is never behind its mark
    unless commits were taken away: a WAL deleted or left behind, an older copy put in its place.
    """
    mark = _beside(path, _MARK_SUFFIX)
    new = _beside(path, f"{_MARK_SUFFIX}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, f"{epoch}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    new.replace(mark)
    _sync_directory(mark.parent)


def marked_epoch(path: Path) -> int:
    """What the file beside `path` says it has reached; 0 without one. One that cannot be read is removed."""
    mark = _beside(path, _MARK_SUFFIX)
    try:
        return int(mark.read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except ValueError:
        mark.unlink()
        return 0


def require_unlost(path: Path, present: int) -> None:
    """Raises NotFit when the file's epoch is behind its mark."""
    problems = _mark_problems(path, present=present)
    if problems:
        raise NotFit(problems)


def _mark_problems(path: Path, *, present: int | None) -> tuple[Problem, ...]:
    mark = _beside(path, _MARK_SUFFIX)
    try:
        reached = int(mark.read_text(encoding="ascii"))
    except FileNotFoundError:
        return ()
    except ValueError:
        return (Problem(f"{mark} is damaged", f"rm {quote(str(mark))}"),)
    if present is not None and present >= reached:
        return ()
    return (
        Problem(
            f"{path} is older than it has been: its -wal file was removed or left behind, or an old copy was put in "
            "its place, and orders it does not know may be working; restore the newest state, or go on from this one: "
            "entries then wait until `otocod reconcile --adopt`",
            f"otocod db restore {quote(str(path))}",
        ),
    )


def backup(path: Path, to: Path) -> None:
    """A consistent copy as one file, while the daemon runs or not. `to` must not exist. Durable when it returns.

    A copy made with cp lacks what is still in the -wal file.
    """
    os.close(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with closing(open_readonly(path)) as source, closing(sqlite3.connect(to)) as target:
            # In one step: a step by step copy begins again with every commit in between.
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")
        damage = quick_check(to)
        if damage:
            raise NotFit(tuple(Problem(f"the copy {to} is damaged: {line}") for line in damage))
        _sync_file(to)
        _sync_directory(to.parent)
    except BaseException:
        to.unlink(missing_ok=True)
        raise


RESERVE_BYTES = 16 * 1024 * 1024


def make_reserve(path: Path, size: int = RESERVE_BYTES) -> bool:
    """Sets space aside that can be freed when the disk is full; whether it is there now. Never takes the last of it."""
    reserve = _beside(path, _RESERVE_SUFFIX)
    if reserve.exists() and reserve.stat().st_size >= size:
        return True
    space = os.statvfs(path.parent)
    if space.f_bavail * space.f_frsize < 4 * size:
        return False
    descriptor = os.open(reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        reserve.unlink(missing_ok=True)
        return False
    finally:
        os.close(descriptor)
    return True


def free_reserve(path: Path) -> bool:
    """Gives the reserved space back to the file system; whether there was any."""
    reserve = _beside(path, _RESERVE_SUFFIX)
    try:
        reserve.unlink()
    except FileNotFoundError:
        return False
    return True


def give_to_owner(path: Path) -> None:
    """What root has made in the daemon's directory belongs to the daemon, which could not open it otherwise."""
    if os.geteuid() == 0:
        directory = path.parent.stat()
        os.chown(path, directory.st_uid, directory.st_gid, follow_symlinks=False)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _sync_file(path: Path) -> None:
    _sync(path, os.O_RDONLY)


def _sync_directory(path: Path) -> None:
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
