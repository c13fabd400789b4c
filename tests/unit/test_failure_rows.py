"""Failures that no module answers for alone: each is shown from the outside of the parts that meet in it."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from otocod import bootstrap
from otocod.domain.brackets import BracketState
from otocod.domain.commands import SubmitComplex, SubmitOrder
from otocod.domain.orders import Refusal
from otocod.domain.specs import Protection, Role
from tests.fuzz.stored import environ_of
from tests.support.core import Core

_NOT_TAKEN = Refusal(422, ("complex_order_not_permitted",), "not for this account any more")


@pytest.mark.covers("F17")
@pytest.mark.parametrize("mode", [Protection.NATIVE_OTOCO, Protection.NATIVE_OCO])
def test_group_that_every_dry_run_took_is_refused_on_the_wire_and_the_next_mode_follows(mode: Protection) -> None:
    core = Core(Protection.AUTO, usable=frozenset({mode}))
    assert core.bracket.protection is mode
    if mode is Protection.NATIVE_OTOCO:
        core.refuse(*core.bracket.orders, refusal=_NOT_TAKEN)
        assert [order.role for order in core.live(Role.ENTRY)] == [Role.ENTRY]
        core.take(SubmitComplex)
    core.fill_entry()
    if mode is Protection.NATIVE_OCO:
        core.refuse(core.target, core.stop, refusal=_NOT_TAKEN)
        core.take(SubmitComplex)
    assert core.take(SubmitComplex) == []
    (command,) = [each for each in core.take(SubmitOrder) if each.member.role is not Role.ENTRY]
    assert command.member.role is Role.STOP
    core.confirm(core.stop)
    assert core.bracket.state is BracketState.EXITS_LIVE


@pytest.mark.covers("F63")
def test_halted_market_gets_no_orders_however_long_it_lasts() -> None:
    """Nothing fills and nothing ends: orders stay as they are, and nobody tries anything."""
    core = Core(Protection.UNLINKED)
    core.go_live()
    core.sent.clear()
    for _ in range(12):
        core.wait(3600)
        core.sweep()
    assert core.sent == []
    assert core.alarms == []
    assert core.bracket.state is BracketState.EXITS_LIVE


@pytest.mark.covers("F86")
async def test_stalled_event_loop_or_store_says_nothing_to_the_watchdog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "40000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        answering = asyncio.Event()
        answering.set()

        async def store_answers() -> None:
            await answering.wait()

        watchdog = asyncio.create_task(bootstrap._watchdog(store_answers))
        loop = asyncio.get_running_loop()
        assert await asyncio.wait_for(loop.sock_recv(manager, 64), 5) == b"WATCHDOG=1"
        # What stalls a loop is a call that does not return: ten times the interval in one.
        ends_s = time.monotonic() + 0.2
        while time.monotonic() < ends_s:
            pass
        with pytest.raises(BlockingIOError):
            manager.recv(64)
        assert await asyncio.wait_for(loop.sock_recv(manager, 64), 5) == b"WATCHDOG=1"
        # A store's thread that hangs is not made up for by a loop that turns.
        answering.clear()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.sock_recv(manager, 64), 0.2)
        answering.set()
        assert await asyncio.wait_for(loop.sock_recv(manager, 64), 5) == b"WATCHDOG=1"
        watchdog.cancel()


@pytest.mark.covers("F85")
def test_daemon_that_may_open_no_more_files_ends_with_a_line_and_can_be_started_again(tmp_path: Path) -> None:
    script = 'ulimit -n 16; exec "$0" -m otocod run --json'
    found = subprocess.run(
        ["/bin/sh", "-c", script, sys.executable],
        env=environ_of(tmp_path) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert found.returncode == 1, "a status after which systemd starts it again"
    assert "Too many open files" in found.stderr
    assert "Traceback" not in found.stderr
    assert '"event": "ready"' not in found.stderr
