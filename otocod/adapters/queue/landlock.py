"""Confine the calling thread to one directory with Landlock, the kernel's unprivileged sandbox (Linux 5.13).

Why a thread: a rollback journal may name a super-journal, and SQLite, rolling such a journal back, deletes the file
it names. Whoever may write the queue directory could so have any file of the daemon deleted. A confined thread gets
EACCES from the kernel instead. The rest of the process keeps its rights.

Confinement cannot be undone. It does not cover chmod, chown, stat and access, nor descriptors opened before it.
"""

import ctypes
import errno
import os
import platform
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_MACHINES: Final = frozenset({"x86_64", "aarch64"})  # both use the common numbers above

_CREATE_RULESET_VERSION: Final = 1 << 0
_RULE_PATH_BENEATH: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38

_FS_EXECUTE: Final = 1 << 0
_FS_WRITE_FILE: Final = 1 << 1
_FS_READ_FILE: Final = 1 << 2
_FS_READ_DIR: Final = 1 << 3  # SQLite opens the directory to sync a journal's removal
_FS_REMOVE_DIR: Final = 1 << 4
_FS_REMOVE_FILE: Final = 1 << 5
_FS_MAKE_CHAR: Final = 1 << 6
_FS_MAKE_DIR: Final = 1 << 7
_FS_MAKE_REG: Final = 1 << 8
_FS_MAKE_SOCK: Final = 1 << 9
_FS_MAKE_FIFO: Final = 1 << 10
_FS_MAKE_BLOCK: Final = 1 << 11
_FS_MAKE_SYM: Final = 1 << 12
_FS_REFER: Final = 1 << 13
_FS_TRUNCATE: Final = 1 << 14
_FS_IOCTL_DEV: Final = 1 << 15
_NET_BIND_TCP: Final = 1 << 0
_NET_CONNECT_TCP: Final = 1 << 1

_FS_HANDLED_ABI_1: Final = (1 << 13) - 1
_FS_ADDED_BY_ABI: Final = {2: _FS_REFER, 3: _FS_TRUNCATE, 5: _FS_IOCTL_DEV}

# Making a kind of file is needed to rename one of that kind: a link, FIFO, socket or directory found in the place of
# a queue file is moved aside. Devices are not: only root can have put one there.
_FS_ALLOWED: Final = (
    _FS_WRITE_FILE
    | _FS_READ_FILE
    | _FS_READ_DIR
    | _FS_REMOVE_DIR
    | _FS_REMOVE_FILE
    | _FS_MAKE_DIR
    | _FS_MAKE_REG
    | _FS_MAKE_SOCK
    | _FS_MAKE_FIFO
    | _FS_MAKE_SYM
    | _FS_TRUNCATE
)

_T = TypeVar("_T")


class LandlockUnavailable(Exception):
    """This kernel or machine cannot confine a thread; the text says why and what would mend it."""


class Kernel(Protocol):
    """The two system interfaces that confinement needs; each raises OSError with the kernel's errno."""

    def syscall(self, number: int, *arguments: int) -> int: ...

    def set_no_new_privs(self) -> None: ...


class _Linux:
    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.syscall.restype = ctypes.c_long

    def syscall(self, number: int, *arguments: int) -> int:
        # A variadic C function: without c_long the upper half of each argument would be undefined.
        result = int(self._libc.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments)))
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    def set_no_new_privs(self) -> None:
        zero = ctypes.c_ulong(0)
        if self._libc.prctl(ctypes.c_int(_PR_SET_NO_NEW_PRIVS), ctypes.c_ulong(1), zero, zero, zero) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"PR_SET_NO_NEW_PRIVS: {os.strerror(code)}")


class _RulesetAttribute(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64), ("handled_access_net", ctypes.c_uint64))


class _PathBeneathAttribute(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def abi_version(kernel: Kernel | None = None, *, machine: str | None = None) -> int:
    """The kernel's Landlock ABI, 1 or more; raises LandlockUnavailable."""
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        raise LandlockUnavailable(f"Landlock is not used on {machine}, only on {' and '.join(sorted(_MACHINES))}")
    try:
        return (kernel or _Linux()).syscall(_CREATE_RULESET, 0, 0, _CREATE_RULESET_VERSION)
    except OSError as error:
        raise LandlockUnavailable(_absence(error)) from error


def is_available(kernel: Kernel | None = None) -> bool:
    try:
        abi_version(kernel)
    except LandlockUnavailable:
        return False
    return True


def _absence(error: OSError) -> str:
    if error.errno == errno.ENOSYS:
        return "this kernel has no Landlock (Linux 5.13 or newer, built with CONFIG_SECURITY_LANDLOCK)"
    if error.errno == errno.EOPNOTSUPP:
        return "Landlock is switched off at boot (add landlock to the lsm= kernel parameter)"
    return f"Landlock cannot be used: {error}"


def confine_thread(directory_fd: int, kernel: Kernel | None = None) -> int:
    """From now on the calling thread, and threads it starts, may use files beneath the directory and nothing else.

    Returns the ABI in force. Raises LandlockUnavailable before anything has changed, OSError when the kernel refuses
    midway (the thread is then not confined, or has only no_new_privs).
    """
    kernel = kernel or _Linux()
    abi = abi_version(kernel)
    handled = _FS_HANDLED_ABI_1
    for added_in, right in _FS_ADDED_BY_ABI.items():
        if abi >= added_in:
            handled |= right
    ruleset = _RulesetAttribute(handled, _NET_BIND_TCP | _NET_CONNECT_TCP)
    # Older kernels take only the first field and answer E2BIG to a second one that is not zero.
    size = ctypes.sizeof(ruleset) if abi >= 4 else ctypes.sizeof(ctypes.c_uint64)
    ruleset_fd = kernel.syscall(_CREATE_RULESET, ctypes.addressof(ruleset), size, 0)
    try:
        rule = _PathBeneathAttribute(_FS_ALLOWED & handled, directory_fd)
        kernel.syscall(_ADD_RULE, ruleset_fd, _RULE_PATH_BENEATH, ctypes.addressof(rule), 0)
        kernel.set_no_new_privs()
        kernel.syscall(_RESTRICT_SELF, ruleset_fd, 0)
    finally:
        os.close(ruleset_fd)
    return abi


def run_confined(directory: Path, work: Callable[[], _T]) -> _T:
    """Run `work` on a short-lived thread confined to the directory; its result or exception comes back here.

    Modules that `work` needs must be imported already: the thread cannot read them. Raises LandlockUnavailable.
    """
    abi_version()
    results: list[_T] = []
    failures: list[BaseException] = []
    directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def confined() -> None:
        try:
            confine_thread(directory_fd)
            results.append(work())
        except BaseException as error:  # carried to the caller, whatever it is
            failures.append(error)

    try:
        thread = threading.Thread(target=confined, name="otocod-confined", daemon=True)
        thread.start()
        thread.join()
    finally:
        os.close(directory_fd)
    if failures:
        raise failures[0]
    return results[0]
