"""Everything else apprise can reach, if it is installed: pip install 'otocod[apprise]'."""

from typing import Any

from otocod.adapters.alerts.channel import ChannelFailed, in_daemon_thread
from otocod.adapters.alerts.message import Message
from otocod.alarms import Severity

_TYPES = {Severity.CRITICAL: "failure", Severity.ERROR: "failure", Severity.WARNING: "warning"}


class Apprise:
    """Implements Channel. `urls`: apprise's addresses, separated by blanks."""

    name = "apprise"

    def __init__(self, urls: str) -> None:
        self._urls = urls.split()
        self._notifier: Any = None

    async def send(self, message: Message) -> None:
        await in_daemon_thread(lambda: self._deliver(message), "alert-apprise")

    async def close(self) -> None:
        return

    def _deliver(self, message: Message) -> None:
        if self._notifier is None:
            # It loads for a second and is an extra: neither is paid by who does not use it.
            import apprise  # type: ignore[import-not-found,unused-ignore]  # an extra

            notifier = apprise.Apprise()
            # One bad address must not silence the others; all bad is a failure.
            added = sum(bool(notifier.add(url)) for url in self._urls)
            if not added:
                raise ChannelFailed("apprise understands none of the addresses")
            self._notifier = notifier
        if not self._notifier.notify(body=message.text, title=message.subject, notify_type=_TYPES[message.worst]):
            raise ChannelFailed("apprise could not deliver to every address")
