"""Word from the kernel that somebody has done something in the queue's directory (inotify), so that nobody need look.

It is only a hint, like a datagram: what is in the file is asked of SQLite. The end of a transaction is told apart from
its beginning, because a look in the middle of one makes the producer find the file busy.
"""

import ctypes
import errno
import os
import struct
from enum import IntEnum
from typing import Final

_IN_MODIFY: Final = 0x2
_IN_ATTRIB: Final = 0x4
_IN_MOVED: Final = 0x40 | 0x80
_IN_CREATE: Final = 0x100
_IN_DELETE: Final = 0x200
_IN_Q_OVERFLOW: Final = 0x4000
_MASK: Final = _IN_MODIFY | _IN_ATTRIB | _IN_MOVED | _IN_CREATE | _IN_DELETE
_HEADER: Final = struct.Struct("iIII")  # watch, mask, cookie, bytes of the name
_DRAINED_BYTES: Final = 64 * 1024


class Stir(IntEnum):
    """The larger is the more urgent."""

    NONE = 0
    BEGUN = 1  # something is being written, made or moved: look before long
    ENDED = 2  # the journal is gone, and with it a transaction: look now


class DirectoryWatch:
    """Raises OSError where the kernel has no more watches to give; polling then goes on alone.

    To be made before the thread is confined: adding a watch needs the right to read the directory by its path.
    """

    def __init__(self, directory_fd: int, name: str) -> None:
        """name: of the database; what else happens in the directory is of no interest."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._database = name.encode()
        self._journal = f"{name}-journal".encode()
        self._fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _last_error()
        path = f"/proc/self/fd/{directory_fd}".encode()
        if libc.inotify_add_watch(self._fd, path, _MASK) < 0:
            error = _last_error()
            self.close()
            raise error

    def fileno(self) -> int:
        return self._fd

    def drain(self) -> Stir:
        """What has happened since the last call, of a bounded number of events: a flood must not hold the thread."""
        try:
            events = os.read(self._fd, _DRAINED_BYTES)
        except BlockingIOError:
            return Stir.NONE
        stir = Stir.NONE
        at = 0
        while at < len(events):
            _, mask, _, length = _HEADER.unpack_from(events, at)
            name = events[at + _HEADER.size : at + _HEADER.size + length].rstrip(b"\0")
            at += _HEADER.size + length
            stir = max(stir, self._stir(mask, name))
        return stir

    def _stir(self, mask: int, name: bytes) -> Stir:
        if name == self._journal and mask & _IN_DELETE:
            return Stir.ENDED
        # Events were lost, or it is one of the files that SQLite would open.
        return Stir.BEGUN if mask & _IN_Q_OVERFLOW or name.startswith(self._database) else Stir.NONE

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _last_error() -> OSError:
    code = ctypes.get_errno() or errno.EINVAL
    return OSError(code, os.strerror(code))
