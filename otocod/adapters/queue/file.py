"""The queue's files in their directory: opened only when they are what they should be, else moved aside.

Everything here goes through a descriptor of the directory and never follows a link. The checks are repeated before
each look at the database, since a producer may put anything into the directory at any time. What remains is the
instant between a check and SQLite's own open(); Landlock bounds what that instant can cost.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from otocod.adapters.queue.connection import FILE_MAX_BYTES, QueueConnection, Verdict, verdict_from_error

FILE_MODE: Final = 0o660
JOURNAL_MAX_BYTES: Final = 2 * FILE_MAX_BYTES
_SIDECARS: Final = ("-journal", "-wal", "-shm")
_MAGIC: Final = b"SQLite format 3\0"
_HEADER_BYTES: Final = 100
_OPEN_ATTEMPTS: Final = 4
# The kernel stamps files with the time of its last tick, 10 ms ago at most. Two writes with one stamp cannot be told
# apart, so a stamp says something only when it was older than that, and some more, as it was read.
_STAMP_SETTLED_NS: Final = 50_000_000


class _Stamp(NamedTuple):
    identity: tuple[int, int]
    file_bytes: int
    file_written_ns: int
    file_changed_ns: int
    directory_changed_ns: int


class Unfit(Exception):
    """The database file must not be used; it is to be moved aside with its journal."""


class UnfitSidecar(Exception):
    """Something that SQLite would take for its journal must be moved aside; the database itself is untouched."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Moved:
    """Something was moved aside."""

    line: str  # what, to which name, why
    is_database: bool  # its rows went with it; otherwise only a journal that was none of SQLite's making


class QueueFile:
    """The database `path` and what lies beside it. Used by one thread, the one that opens it.

    directory_fd: an O_PATH descriptor of the directory that holds `path`; not closed here.
    """

    def __init__(self, path: Path, directory_fd: int, *, interrupted: Callable[[], bool] = lambda: False) -> None:
        self._path = path
        self._name = path.name
        self._directory_fd = directory_fd
        self._interrupted = interrupted
        self._vetted_fd = -1
        self._identity: tuple[int, int] | None = None
        self._checked_stamp: _Stamp | None = None
        self._looked_stamp: _Stamp | None = None
        self._connection: QueueConnection | None = None

    @property
    def connection(self) -> QueueConnection | None:
        return self._connection

    def open(self, on_moved: Callable[[Moved], None]) -> None:
        """Have a connection to a sound queue file, making one if need be.

        on_moved: told of everything moved aside. Raises sqlite3.Error (busy, or trouble) and OSError; then nothing
        is open and it may be tried again.
        """
        self.close()
        for _ in range(_OPEN_ATTEMPTS):
            moved = self._try_to_open()
            if moved is None:
                return
            on_moved(moved)
        raise OSError(f"{self._path} is replaced as often as it is made")

    def _try_to_open(self) -> Moved | None:
        try:
            self._open_once()
        except UnfitSidecar as unfit:
            self.close()
            return self.move_sidecar_aside(unfit)
        except Unfit as unfit:
            self.close()
            return self.move_aside(str(unfit))
        except sqlite3.Error as error:
            self.close()
            if verdict_from_error(error) is not Verdict.BAD_FILE or self._interrupted():
                raise
            return self.move_aside(f"it cannot be read: {error}")
        except BaseException:
            self.close()
            raise
        return None

    def close(self) -> None:
        """Close the connection first: closing any other descriptor of the file would drop its POSIX locks."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._vetted_fd >= 0:
            os.close(self._vetted_fd)
            self._vetted_fd = -1
        self._identity = self._checked_stamp = self._looked_stamp = None

    def _open_once(self) -> None:
        found = self._lstat(self._name)
        if found is None:
            os.close(self._open_descriptor(os.O_RDWR | os.O_CREAT | os.O_EXCL))
        elif not stat.S_ISREG(found.st_mode):
            raise Unfit(f"it is {_kind(found.st_mode)}, not a regular file")
        # O_NONBLOCK: a FIFO put there since the look above must not hold the thread.
        self._vetted_fd = self._open_descriptor(os.O_RDONLY)
        self._check_sidecars()
        status = os.fstat(self._vetted_fd)
        _check_status(status)
        self._check_owner(status)
        if self._lstat(self._name + "-journal") is None:
            self._check_header()
        self._identity = (status.st_dev, status.st_ino)
        self._connection = QueueConnection(self._path, interrupted=self._interrupted)
        if status.st_size == 0:
            self._connection.create_table_if_empty()
        # The first look, which rolls a crashed writer's journal back.
        self._connection.data_version()
        self._check_header()
        if differences := self._connection.schema_differences():
            raise Unfit("; ".join(differences[:5]))
        self.check()

    def _open_descriptor(self, flags: int) -> int:
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(self._name, flags, FILE_MODE, dir_fd=self._directory_fd)

    def _lstat(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self._directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def check(self) -> None:
        """Before each use: is this still the file that was vetted, and is nothing beside it that SQLite would open?

        A few system calls, no lock. Raises Unfit or UnfitSidecar, FileNotFoundError if the name now is another file
        (or none): then open() again.
        """
        status = self._lstat(self._name)
        if status is None or (status.st_dev, status.st_ino) != self._identity:
            raise FileNotFoundError(f"{self._path} was removed or replaced")
        self._checked_stamp = _settled(self._stamp(status))
        _check_status(status)
        self._check_sidecars()
        self._check_header()

    def note_looked(self) -> None:
        """The database has been asked since the last check(): what it was then is known."""
        self._looked_stamp = self._checked_stamp

    def is_untouched(self) -> bool:
        """Whether nobody has touched the file or put anything beside it since check() and note_looked().

        Two system calls; in doubt false. A commit writes to the database file, a journal is made in the directory, and
        their change times cannot be set back by whoever may write them.
        """
        if self._looked_stamp is None:
            return False
        status = self._lstat(self._name)
        return status is not None and self._stamp(status) == self._looked_stamp

    def _stamp(self, status: os.stat_result) -> _Stamp:
        directory_changed_ns = os.fstat(self._directory_fd).st_ctime_ns
        identity = (status.st_dev, status.st_ino)
        return _Stamp(identity, status.st_size, status.st_mtime_ns, status.st_ctime_ns, directory_changed_ns)

    def _check_sidecars(self) -> None:
        journal = self._lstat(self._name + "-journal")
        if journal is not None:
            if not stat.S_ISREG(journal.st_mode):
                raise UnfitSidecar(self._name + "-journal", f"it is {_kind(journal.st_mode)}, not a regular file")
            if journal.st_nlink > 1:
                raise UnfitSidecar(self._name + "-journal", "it has more than one link")
            if journal.st_size > JOURNAL_MAX_BYTES:
                raise Unfit(f"its journal is larger than {JOURNAL_MAX_BYTES} bytes")
        # SQLite switches to WAL, whatever the header says, when it finds this file.
        if self._lstat(self._name + "-wal") is not None and not self._is_wal_header(self._header()):
            raise UnfitSidecar(self._name + "-wal", "a queue has no write-ahead log")

    def _check_owner(self, status: os.stat_result) -> None:
        directory = os.fstat(self._directory_fd)
        if status.st_uid not in (os.geteuid(), 0, directory.st_uid):
            raise Unfit(f"it belongs to user {status.st_uid}")
        if stat.S_IMODE(status.st_mode) != FILE_MODE and status.st_uid == os.geteuid():
            os.fchmod(self._vetted_fd, FILE_MODE)

    def _header(self) -> bytes:
        return os.pread(self._vetted_fd, _HEADER_BYTES, 0) if self._vetted_fd >= 0 else b""

    @staticmethod
    def _is_wal_header(header: bytes) -> bool:
        return len(header) == _HEADER_BYTES and header[18:20] != b"\x01\x01"

    def _check_header(self) -> None:
        header = self._header()
        if not header:
            return
        if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
            raise Unfit("it is not an SQLite database")
        if self._is_wal_header(header):
            # In WAL mode SQLite maps a file beside the database; whoever truncates that kills the process.
            raise Unfit("it is in WAL mode; a queue keeps the rollback journal")

    def has_journal(self) -> bool:
        status = self._lstat(self._name + "-journal")
        return status is not None and status.st_size > 0

    def move_aside(self, reason: str) -> Moved:
        """Rename the database and its journal. The queue must be closed."""
        aside = f"{self._name}.aside-{_stamp()}"
        for suffix in ("", *_SIDECARS):
            self._rename(self._name + suffix, aside + suffix)
        return Moved(f"{self._path} moved aside to {aside}: {reason}", is_database=True)

    def move_sidecar_aside(self, unfit: UnfitSidecar) -> Moved:
        aside = f"{unfit.name}.aside-{_stamp()}"
        self._rename(unfit.name, aside)
        line = f"{self._path.with_name(unfit.name)} moved aside to {aside}: {unfit.reason}"
        return Moved(line, is_database=False)

    def _rename(self, name: str, to: str) -> None:
        try:
            os.rename(name, to, src_dir_fd=self._directory_fd, dst_dir_fd=self._directory_fd)
        except FileNotFoundError:
            return


def _settled(stamp: _Stamp) -> _Stamp | None:
    age_ns = time.time_ns() - max(stamp.file_written_ns, stamp.file_changed_ns, stamp.directory_changed_ns)
    return stamp if age_ns > _STAMP_SETTLED_NS else None


def _check_status(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Unfit(f"it is {_kind(status.st_mode)}, not a regular file")
    if status.st_nlink > 1:
        raise Unfit(f"it has {status.st_nlink} links")
    if status.st_size > FILE_MAX_BYTES:
        raise Unfit(f"it is larger than {FILE_MAX_BYTES} bytes")


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((name for test, name in kinds if test(mode)), "a device")


def _stamp() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"


def free_blocked_open(directory_fd: int, name: str) -> bool:
    """Let go a thread that waits in open() for a FIFO put in the place of the journal between check and use.

    Safe from any thread. True if there was a FIFO with somebody waiting.
    """
    try:
        status = os.stat(name + "-journal", dir_fd=directory_fd, follow_symlinks=False)
        if not stat.S_ISFIFO(status.st_mode):
            return False
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name + "-journal", flags, dir_fd=directory_fd))
    except OSError:
        return False
    return True
