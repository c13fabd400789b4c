"""A way out for alerts, and the thread for those that block."""

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

from otocod.adapters.alerts.message import Message


class ChannelFailed(Exception):
    """The message was not taken, or that is not known; the text says why and holds no secret."""


class Channel(Protocol):
    """`send` returns when the other side has taken the message and raises ChannelFailed otherwise. Anything else that
    it raises is a bug and counts as a failure as well. Called by one task at a time; the caller bounds its time."""

    @property
    def name(self) -> str: ...

    async def send(self, message: Message) -> None: ...

    async def close(self) -> None: ...


async def in_daemon_thread(work: Callable[[], None], name: str) -> None:
    """Runs blocking work in a thread that nobody waits for at the end of the process.

    The pool of asyncio would be waited for: a mail server that hangs would keep a stopped daemon alive.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except Exception as caught:  # handed to whoever waits
            error = caught
        try:
            loop.call_soon_threadsafe(settle, error)
        except RuntimeError:
            return  # the loop has ended meanwhile, and with it everybody who could want to know

    threading.Thread(target=run, name=name, daemon=True).start()
    await done
