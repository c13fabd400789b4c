"""Records what reaches the disk, in order: writes, syncs, truncations, and names made, moved and removed.

Where it listens, and why there. SQLite's own code for files must run unchanged, driven by the product's own engine, or
the record would be of something else: another binding brings another SQLite and other pragmas. A preloaded library or a
tracer would see the system calls themselves, but needs a compiler or a privilege that a fresh clone may not have. So
three functions of the file methods, and two of the VFS, are replaced inside the very library that Python's `sqlite3`
has loaded; each notes its arguments and calls the original. It needs nothing but a SQLite that is a shared library.

What that place does not show is when SQLite syncs a directory: it does so inside a sync, for a journal or a WAL that it
has just made. SQLite asks for the directory by a system call that can be replaced for this purpose, so that is heard,
too. The files that otocod writes without SQLite (the mark beside the database, the empty database itself) go through a
stand-in for the `os` module in the two modules that write them. Memory that SQLite maps (the -shm file) is never on the
record: after a power loss it is not trusted by SQLite, and a crash image does not have it.
"""

import ctypes
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otocod.adapters.sqlite import check, migrate


@dataclass(frozen=True, slots=True)
class Write:
    path: str  # relative to the directory, as all paths here
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    path: str


@dataclass(frozen=True, slots=True)
class Create:
    path: str


@dataclass(frozen=True, slots=True)
class Remove:
    path: str


@dataclass(frozen=True, slots=True)
class Rename:
    path: str
    to: str


@dataclass(frozen=True, slots=True)
class SyncDirectory:
    pass


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Everything handed to the store so far has been reported as durable: these versions of these brackets."""

    versions: frozenset[tuple[str, int]]


Operation = Write | Truncate | Sync | Create | Remove | Rename | SyncDirectory | Acknowledged


class CannotRecord(Exception):
    """This Python's SQLite is not a shared library, so its functions cannot be found."""


class Recorder:
    """The operations below one directory, in order. Threads may write at once; each operation is noted before it is
    done, under one lock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.operations: list[Operation] = []
        self._lock = threading.Lock()
        self._prefix = f"{self.directory}{os.sep}"

    def relative(self, path: str) -> str | None:
        return path.removeprefix(self._prefix) if path.startswith(self._prefix) else None

    def note(self, operation: Operation) -> None:
        with self._lock:
            self.operations.append(operation)

    def acknowledge(self, versions: Mapping[str, int]) -> None:
        self.note(Acknowledged(frozenset(versions.items())))


# The library.

_POINTER = ctypes.c_void_p
_INT = ctypes.c_int
_INT64 = ctypes.c_int64
# Names are passed on as the pointers they are: SQLite keeps them for as long as a file is open, and reads parameters
# behind their ends. A copy of the text would be neither.
_OPEN = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _POINTER, _INT, _POINTER)
_DELETE = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _INT)
_WRITE = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _INT, _INT64)
_TRUNCATE = ctypes.CFUNCTYPE(_INT, _POINTER, _INT64)
_SYNC = ctypes.CFUNCTYPE(_INT, _POINTER, _INT)
_OPEN_DIRECTORY = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER)
_SET_CALL = ctypes.CFUNCTYPE(_INT, _POINTER, ctypes.c_char_p, _POINTER)
_GET_CALL = ctypes.CFUNCTYPE(_POINTER, _POINTER, ctypes.c_char_p)

_SQLITE_OK = 0


class _Vfs(ctypes.Structure):
    """sqlite3_vfs, version 3: the unix VFS has been that since 3.7.6."""

    _fields_ = (
        ("version", _INT),
        ("os_file_size", _INT),
        ("max_path", _INT),
        ("next", _POINTER),
        ("name", ctypes.c_char_p),
        ("app_data", _POINTER),
        ("open", _POINTER),
        ("delete", _POINTER),
        ("others", _POINTER * 11),  # access to current_time_64
        ("set_system_call", _POINTER),
        ("get_system_call", _POINTER),
        ("next_system_call", _POINTER),
    )


class _Methods(ctypes.Structure):
    """sqlite3_io_methods, version 3."""

    _fields_ = (
        ("version", _INT),
        ("close", _POINTER),
        ("read", _POINTER),
        ("write", _POINTER),
        ("truncate", _POINTER),
        ("sync", _POINTER),
        ("others", _POINTER * 13),  # file_size to unfetch
    )


class _File(ctypes.Structure):
    _fields_ = (("methods", _POINTER),)


def _library() -> ctypes.CDLL:
    with Path("/proc/self/maps").open() as maps:
        paths = {line.split()[-1] for line in maps if "sqlite3" in line and ".so" in line}
    for path in sorted(paths):
        library = ctypes.CDLL(path)
        if hasattr(library, "sqlite3_vfs_find"):
            library.sqlite3_libversion.restype = ctypes.c_char_p
            if library.sqlite3_libversion().decode() == sqlite3.sqlite_version:
                return library
    raise CannotRecord(
        "power loss cannot be tried here: this Python was built with SQLite inside it; use one whose `sqlite3` module "
        "loads libsqlite3 as a shared library, as those of Debian and Ubuntu do"
    )


class _Tap:
    """The replaced functions. One for the process; it listens for the recorder that is set."""

    def __init__(self) -> None:
        library = _library()
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        library.sqlite3_vfs_find.argtypes = (ctypes.c_char_p,)
        vfs = library.sqlite3_vfs_find(None).contents
        if vfs.name != b"unix" or vfs.version < 3:
            raise CannotRecord(f"power loss cannot be tried here: SQLite's files are served by {vfs.name!r}")
        self.recorder: Recorder | None = None
        self._paths: dict[int, str] = {}  # of open files
        self._methods: dict[int, _Methods] = {}  # originals' address -> copy with our functions
        self._keep: list[Any] = []  # what C holds pointers to
        self._open = _OPEN(vfs.open)
        self._delete = _DELETE(vfs.delete)
        vfs.open = self._pointer(_OPEN(self._on_open))
        vfs.delete = self._pointer(_DELETE(self._on_delete))
        name = b"openDirectory"
        address = ctypes.addressof(vfs)
        self._open_directory = _OPEN_DIRECTORY(_GET_CALL(vfs.get_system_call)(address, name))
        _SET_CALL(vfs.set_system_call)(address, name, self._pointer(_OPEN_DIRECTORY(self._on_open_directory)))

    def _pointer(self, function: Any) -> int | None:
        self._keep.append(function)
        return ctypes.cast(function, _POINTER).value

    def _relative(self, path: int | None) -> str | None:
        """`path`: address of a text; None for a file that has no name."""
        if self.recorder is None or path is None:
            return None
        return self.recorder.relative(os.fsdecode(ctypes.string_at(path)))

    def _exists(self, name: str) -> bool:
        assert self.recorder is not None
        return (self.recorder.directory / name).exists()

    def _note(self, operation: Operation) -> None:
        assert self.recorder is not None
        self.recorder.note(operation)

    def _on_open(self, vfs: int, path: int | None, file: int, flags: int, out_flags: int | None) -> int:
        name = self._relative(path)
        is_new = name is not None and not self._exists(name)
        result: int = self._open(vfs, path, file, flags, out_flags)
        if result != _SQLITE_OK or name is None:
            self._paths.pop(file, None)
            return result
        if is_new:
            self._note(Create(name))
        self._paths[file] = name
        opened = ctypes.cast(file, ctypes.POINTER(_File)).contents
        opened.methods = ctypes.addressof(self._replaced(opened.methods))
        return result

    def _replaced(self, original_address: int) -> _Methods:
        known = self._methods.get(original_address)
        if known is not None:
            return known
        copy = _Methods.from_buffer_copy(ctypes.cast(original_address, ctypes.POINTER(_Methods)).contents)
        write, truncate, sync = _WRITE(copy.write), _TRUNCATE(copy.truncate), _SYNC(copy.sync)
        copy.write = self._pointer(_WRITE(lambda file, data, size, at: self._on_write(write, file, data, size, at)))
        copy.truncate = self._pointer(_TRUNCATE(lambda file, size: self._on_truncate(truncate, file, size)))
        copy.sync = self._pointer(_SYNC(lambda file, flags: self._on_sync(sync, file, flags)))
        self._methods[original_address] = copy
        return copy

    def _path_of(self, file: int) -> str | None:
        return None if self.recorder is None else self._paths.get(file)

    def _on_write(self, write: Callable[..., int], file: int, data: int, size: int, offset: int) -> int:
        path = self._path_of(file)
        if path is not None:
            self._note(Write(path, offset, ctypes.string_at(data, size)))
        return write(file, data, size, offset)

    def _on_truncate(self, truncate: Callable[..., int], file: int, size: int) -> int:
        path = self._path_of(file)
        if path is not None:
            self._note(Truncate(path, size))
        return truncate(file, size)

    def _on_sync(self, sync: Callable[..., int], file: int, flags: int) -> int:
        path = self._path_of(file)
        result = sync(file, flags)
        if path is not None and result == _SQLITE_OK:
            self._note(Sync(path))
        return result

    def _on_delete(self, vfs: int, path: int, sync_directory: int) -> int:
        name = self._relative(path)
        if name is not None and self._exists(name):
            self._note(Remove(name))
        result: int = self._delete(vfs, path, sync_directory)
        return result

    def _on_open_directory(self, path: int, descriptor: int) -> int:
        # Asked for at the end of a sync, and after a removal, and followed by nothing but its own sync.
        if self._relative(path) is not None:
            self._note(SyncDirectory())
        result: int = self._open_directory(path, descriptor)
        return result


_tap: _Tap | None = None


# What otocod writes by itself.


class _WatchedOs:
    """Stands in for `os` in one module. What is not watched is the real one's."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._paths: dict[int, str] = {}  # of open files; "" is the directory

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        is_new = not os.path.lexists(path)
        descriptor = os.open(path, flags, mode)
        name = self._recorder.relative(os.fspath(path))
        if Path(path) == self._recorder.directory:
            self._paths[descriptor] = ""
        elif name is not None:
            self._paths[descriptor] = name
            if is_new:
                self._recorder.note(Create(name))
            elif flags & os.O_TRUNC:
                self._recorder.note(Truncate(name, 0))
        return descriptor

    def write(self, descriptor: int, data: bytes) -> int:
        if descriptor in self._paths:
            self._recorder.note(Write(self._paths[descriptor], os.lseek(descriptor, 0, os.SEEK_CUR), data))
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)
        name = self._paths.get(descriptor)
        if name is not None:
            self._recorder.note(Sync(name) if name else SyncDirectory())

    def close(self, descriptor: int) -> None:
        self._paths.pop(descriptor, None)
        os.close(descriptor)


def _on_audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Renames, and removals from Python; `pathlib` uses the real `os`."""
    recorder = None if _tap is None else _tap.recorder
    if recorder is None or event not in ("os.rename", "os.remove"):
        return
    path = recorder.relative(os.fspath(arguments[0]))
    if path is None:
        return
    if event == "os.rename":
        recorder.note(Rename(path, recorder.relative(os.fspath(arguments[1])) or ""))
    else:
        recorder.note(Remove(path))


@contextmanager
def recording(directory: Path) -> Iterator[Recorder]:
    """Everything that this process does below `directory`. Files must be opened within. Raises CannotRecord."""
    global _tap
    if _tap is None:
        _tap = _Tap()
        sys.addaudithook(_on_audit)
    recorder = Recorder(directory)
    watched = (check, migrate)
    _tap.recorder = recorder
    for module in watched:
        module.os = _WatchedOs(recorder)  # type: ignore[attr-defined]
    try:
        yield recorder
    finally:
        _tap.recorder = None
        for module in watched:
            module.os = os  # type: ignore[attr-defined]
