"""Making the queue's directory and file, and judging whether a directory is fit for the daemon to read from."""

import os
import shutil
import stat
from pathlib import Path
from typing import Final

from otocod.adapters.queue import landlock
from otocod.adapters.queue.connection import QueueConnection
from otocod.adapters.queue.file import FILE_MODE

DIRECTORY_MODE: Final = 0o2770


def init_queue(path: Path, *, group: str | None) -> bool:
    """Make the directory and the queue file `path`, with the modes that let the group's programs submit.

    group: the submitters' group, or None to leave the one that the directory has. True if a file was made. A file
    that exists keeps its content and is not opened: whoever runs this is not confined, and the daemon compares the
    file when it starts. Raises OSError, LookupError (no such group), ValueError (something else is in the way).
    """
    directory = path.parent
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not stat.S_ISDIR(directory.lstat().st_mode):
        raise ValueError(f"{directory} is a link, not a directory")
    if group is not None:
        shutil.chown(directory, group=group)
    # Only if it is not so already: the service may not set the bit, and its directory is made for it.
    if stat.S_IMODE(directory.stat().st_mode) != DIRECTORY_MODE:
        directory.chmod(DIRECTORY_MODE)
    made = _make_file(path)
    _set_file_mode(path, directory.stat())
    return made


def _make_file(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    except FileExistsError:
        return False
    os.close(descriptor)
    if landlock.is_available():
        landlock.run_confined(path.parent, lambda: _create_table(path))
    else:
        _create_table(path)
    return True


def _create_table(path: Path) -> None:
    connection = QueueConnection(path)
    try:
        connection.create_table_if_empty()
    finally:
        connection.close()


def _set_file_mode(path: Path, directory: os.stat_result) -> None:
    """By descriptor and without following: a producer may have put a link there. O_PATH leaves SQLite's locks alone."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise ValueError(f"{path} is not a regular file with one link; remove it")
        itself = f"/proc/self/fd/{descriptor}"
        owner = directory.st_uid if os.geteuid() == 0 else -1
        if status.st_gid != directory.st_gid or owner not in (-1, status.st_uid):
            os.chown(itself, owner, directory.st_gid)
        os.chmod(itself, FILE_MODE)  # noqa: PTH101 - an O_PATH descriptor cannot be given to fchmod
    finally:
        os.close(descriptor)


def check_directory(path: Path, confined: bool) -> list[str]:
    """Why the daemon must not read the queue file `path`, one refusal each with the command that mends it.

    confined: whether the reader will be under Landlock. Without it nobody else may write the directory, for a
    rollback journal put there can have any file of the daemon's user deleted.
    """
    directory = path.parent
    try:
        status = directory.lstat()
    except OSError as error:
        return [f"{directory} cannot be used ({error.strerror}); run: otocod queue init"]
    if not stat.S_ISDIR(status.st_mode):
        return [f"{directory} is not a directory; name the real directory in the setting `queue`"]
    return _directory_refusals(directory, status, confined) + _file_refusals(path)


def _directory_refusals(directory: Path, status: os.stat_result, confined: bool) -> list[str]:
    found = []
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o007:
        found.append(f"{directory} is open to every user (mode {mode:o}); run: chmod o= {directory}")
    if status.st_uid not in (os.geteuid(), 0):
        found.append(f"{directory} belongs to user {status.st_uid}; run: chown {os.geteuid()} {directory}")
    if not confined and mode & 0o020:
        found.append(
            f"{directory} may be written by its group (mode {mode:o}) and this kernel has no Landlock to confine the "
            f"reader; run: chmod g-w {directory} (submitters must then be the daemon's user), or boot a kernel with "
            "Landlock"
        )
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        found.append(f"{directory} cannot be written by the daemon; run: chmod u+rwx {directory}")
    return found


def _file_refusals(path: Path) -> list[str]:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return []
    mode = stat.S_IMODE(status.st_mode)
    # Anything but a regular file is moved aside by the reader, whatever its mode.
    if stat.S_ISREG(status.st_mode) and mode & 0o007:
        return [f"{path} is open to every user (mode {mode:o}); run: chmod o= {path}"]
    return []
