"""The datagram socket `wake` beside the queue file: any datagram says that a row was committed.

It is only a hint. Nothing is read from it but the fact that it came, and without it the poll finds the row.
"""

import contextlib
import os
import socket
import stat
from typing import Final

NAME: Final = "wake"
_MODE: Final = 0o660
_DRAINED_AT_ONCE: Final = 64


def _address(directory_fd: int) -> str:
    # A socket address holds 108 bytes; a path through the descriptor fits, however deep the directory lies.
    return f"/proc/self/fd/{directory_fd}/{NAME}"


class WakeSocket:
    """Bound by the thread that waits on it. Someone in the group may remove or replace it; see `rebind_if_lost`."""

    def __init__(self, directory_fd: int) -> None:
        self._directory_fd = directory_fd
        self._identity: tuple[int, int] | None = None
        self._socket: socket.socket | None = None

    def fileno(self) -> int:
        """-1 while it is not bound."""
        return self._socket.fileno() if self._socket is not None else -1

    def bind(self) -> None:
        """Raises OSError if the directory will not have it; polling then goes on alone."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(NAME, dir_fd=self._directory_fd)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            bound.bind(_address(self._directory_fd))
            self._identity = self._set_mode()
        except BaseException:
            bound.close()
            raise
        self._socket = bound

    def _set_mode(self) -> tuple[int, int]:
        """chmod by descriptor: by name, a link put there in the meantime would have another file's mode changed."""
        node = os.open(NAME, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory_fd)
        try:
            status = os.fstat(node)
            if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
                raise FileExistsError(f"{NAME} was replaced while it was made")
            os.chmod(f"/proc/self/fd/{node}", _MODE)  # noqa: PTH101 - an O_PATH descriptor cannot be given to fchmod
            return (status.st_dev, status.st_ino)
        finally:
            os.close(node)

    def is_lost(self) -> bool:
        try:
            status = os.stat(NAME, dir_fd=self._directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return (status.st_dev, status.st_ino) != self._identity

    def drain(self) -> None:
        """Take what has come, but no more than a bounded number at once: a flood must not hold the thread."""
        if self._socket is None:
            return
        with contextlib.suppress(BlockingIOError):
            for _ in range(_DRAINED_AT_ONCE):
                self._socket.recv(1)

    def close(self) -> None:
        if self._socket is None:
            return
        self._socket.close()
        self._socket = None
        if not self.is_lost():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(NAME, dir_fd=self._directory_fd)


def send(directory_fd: int) -> bool:
    """Wake the daemon that serves the queue in this directory; false if none listens. Never waits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
        try:
            sender.sendto(b"\n", _address(directory_fd))
        except BlockingIOError:
            return True  # its buffer is full of others' calls
        except OSError:
            return False
    return True
