"""The dead-man ping: an outside watcher rings when it stops.

It says "I am here, reconciled, and my alerts arrive". A daemon that is down, that waits for a log-in, or whose alerts
pile up is silent, and the watcher, which needs nothing of this machine, calls the person.
"""

import asyncio
from collections.abc import Callable

from otocod.adapters.alerts.channel import ChannelFailed
from otocod.adapters.alerts.webhook import Http
from otocod.logs import get_log

log = get_log(__name__)


class DeadMan:
    def __init__(self, url: str, interval_s: float, silence: Callable[[], str | None]) -> None:
        """`silence`: why there must be no ping now; None when all is well."""
        self._url = url
        self._interval_s = interval_s
        self._silence = silence
        self._http = Http()
        self._is_failing = False
        self._was_silent = False
        self.pings = 0

    async def run(self) -> None:
        """For life; never raises."""
        while True:
            await self._turn()
            await asyncio.sleep(self._interval_s)

    async def _turn(self) -> None:
        why = self._silence()
        if why is not None:
            if not self._was_silent:
                log.warning("deadman_silent", why=why)
            self._was_silent = True
            return
        self._was_silent = False
        try:
            await self.ping()
        except ChannelFailed as error:
            if not self._is_failing:
                log.warning("deadman_failed", error=str(error))
            self._is_failing = True
        else:
            self._is_failing = False

    async def ping(self) -> None:
        """Raises ChannelFailed."""
        await self._http.ask("GET", self._url)
        self.pings += 1

    async def close(self) -> None:
        await self._http.close()
