"""The confinement itself, on this kernel where it has Landlock, and the ways of its absence by a fake."""

import ctypes
import errno
import os
from pathlib import Path

import pytest

from otocod.adapters.queue import landlock

needs_landlock = pytest.mark.skipif(not landlock.is_available(), reason="this kernel has no Landlock")


class FakeKernel:
    """Answers every syscall as told and records what was asked."""

    def __init__(self, *, abi: int = 0, failure: int = 0) -> None:
        self.abi = abi
        self.failure = failure
        self.calls: list[tuple[int, ...]] = []
        self.handled_fs = 0

    def syscall(self, number: int, *arguments: int) -> int:
        self.calls.append((number, *arguments))
        if self.failure:
            raise OSError(self.failure, os.strerror(self.failure))
        if number == 444 and arguments[0] == 0:
            return self.abi
        if number == 444:
            self.handled_fs = ctypes.c_uint64.from_address(arguments[0]).value
            return os.open("/dev/null", os.O_RDONLY)
        return 0

    def set_no_new_privs(self) -> None:
        self.calls.append((-1,))


@pytest.mark.parametrize(
    ("failure", "says"), [(errno.ENOSYS, "5.13"), (errno.EOPNOTSUPP, "lsm="), (errno.EPERM, "cannot be used")]
)
def test_an_absent_landlock_is_explained(failure: int, says: str) -> None:
    kernel = FakeKernel(failure=failure)
    with pytest.raises(landlock.LandlockUnavailable, match=says):
        landlock.confine_thread(0, kernel)
    assert not landlock.is_available(kernel)


def test_another_machine_is_not_tried() -> None:
    kernel = FakeKernel(abi=7)
    with pytest.raises(landlock.LandlockUnavailable, match="riscv64"):
        landlock.abi_version(kernel, machine="riscv64")
    assert kernel.calls == []


@pytest.mark.parametrize(("abi", "size", "rights"), [(1, 8, 13), (2, 8, 14), (3, 8, 15), (4, 16, 15), (7, 16, 16)])
def test_each_abi_is_asked_only_for_what_it_knows(abi: int, size: int, rights: int) -> None:
    kernel = FakeKernel(abi=abi)
    assert landlock.confine_thread(5, kernel) == abi
    assert kernel.calls[1][2] == size
    assert kernel.handled_fs == (1 << rights) - 1
    assert [call[0] for call in kernel.calls] == [444, 444, 445, -1, 446]


@needs_landlock
@pytest.mark.covers("F120", "F125")
def test_a_confined_thread_works_in_its_directory_and_nowhere_else(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    precious = outside / "precious"
    precious.write_text("kept")

    def work() -> list[int | None]:
        (inside / "a").write_text("x")
        (inside / "a").rename(inside / "b")
        (inside / "b").unlink()
        return [
            failure_of(lambda: precious.read_text()),
            failure_of(lambda: precious.write_text("x")),
            failure_of(lambda: precious.unlink()),
            failure_of(lambda: (outside / "new").write_text("x")),
            failure_of(lambda: precious.rename(inside / "stolen")),
            failure_of(lambda: list(outside.iterdir())),
        ]

    failures = landlock.run_confined(inside, work)
    assert failures == [errno.EACCES] * 6
    assert precious.read_text() == "kept"


def failure_of(work: object) -> int | None:
    assert callable(work)
    try:
        work()
    except OSError as error:
        return error.errno
    return None


@needs_landlock
def test_the_calling_thread_stays_free_and_gets_the_exception_of_the_confined_one(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    with pytest.raises(PermissionError):
        landlock.run_confined(inside, lambda: outside.write_text("x"))
    outside.write_text("x")
    assert outside.read_text() == "x"
