"""Who is told when a person must look."""

from typing import Protocol

from otocod.ports.store import Alarm


class Notifier(Protocol):
    def alarm(self, alarm: Alarm) -> None:
        """Must not block and must not raise."""
        ...
