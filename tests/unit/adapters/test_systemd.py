"""Notifications as the service manager receives them: one datagram each, at a path or in the abstract namespace."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from otocod.adapters.systemd import notify, notify_reloading, watchdog_interval_s


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """What systemd holds, and the environment that it gives."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@otocod-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(5)
        receiver.bind(name.replace("@", "\0"))
        yield receiver, {"NOTIFY_SOCKET": name}


@pytest.mark.parametrize("state", ["READY=1", "STOPPING=1", "WATCHDOG=1", "READY=1\nSTATUS=reconciled, 3 brackets"])
def test_a_state_arrives_as_one_datagram(manager: tuple[socket.socket, dict[str, str]], state: str) -> None:
    receiver, environ = manager
    assert notify(state, environ)
    assert receiver.recv(4096).decode() == state


def test_a_reload_carries_the_steady_time_of_its_beginning(manager: tuple[socket.socket, dict[str, str]]) -> None:
    receiver, environ = manager
    before_us = time.monotonic_ns() // 1_000
    assert notify_reloading(environ)
    first, second = receiver.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before_us <= int(value) <= time.monotonic_ns() // 1_000


@pytest.mark.parametrize("address", ["", "relative/path", "vsock:2:1234"])
def test_without_an_address_it_understands_nothing_is_sent(address: str) -> None:
    assert not notify("READY=1", {"NOTIFY_SOCKET": address})
    assert not notify("READY=1", {})


@pytest.mark.parametrize("name", ["gone", "with\0nul", "x" * 200])
def test_a_manager_that_cannot_be_reached_is_no_error(tmp_path: Path, name: str) -> None:
    assert not notify("READY=1", {"NOTIFY_SOCKET": f"{tmp_path}/{name}"})


def test_a_manager_that_does_not_read_does_not_hold_us_up(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        sent = 0
        while notify("WATCHDOG=1", {"NOTIFY_SOCKET": path}):
            sent += 1
            assert sent < 100_000
    assert sent > 0


def test_watchdog_is_told_at_half_its_limit() -> None:
    assert watchdog_interval_s({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}) == 10
    assert watchdog_interval_s({"WATCHDOG_USEC": "500000"}) == 0.25


@pytest.mark.parametrize(
    "environ",
    [{}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "-5"}],
)
def test_no_watchdog_no_interval(environ: dict[str, str]) -> None:
    assert watchdog_interval_s(environ) is None


def test_a_child_does_not_answer_for_its_parent() -> None:
    assert watchdog_interval_s({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid() + 1)}) is None
