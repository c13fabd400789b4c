"""The journal's native protocol: a datagram of fields, so that `journalctl OTOCOD_BRACKET_ID=…` finds a bracket.

Used only where standard error is the journal's already, which systemd says by JOURNAL_STREAM. Nothing waits for it: a
journal that does not take a line at once gets it by standard error.
"""

import os
import socket
from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
# Fields of ours that become fields of the journal.
_INDEXED = ("event", "bracket_id", "client_ref")


def is_journal(stream_descriptor: int, environ: Mapping[str, str]) -> bool:
    """Whether the descriptor is the stream that systemd connected to the journal."""
    try:
        found = os.fstat(stream_descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM", "") == f"{found.st_dev}:{found.st_ino}"


class Journal:
    def __init__(self, address: str = SOCKET) -> None:
        self._address = address

    def send(self, line: str, entry: Mapping[str, object]) -> bool:
        """`line` as the message, the level and what is indexed of `entry` as fields. Whether the journal took it."""
        fields = {
            "MESSAGE": line,
            "PRIORITY": _PRIORITIES.get(str(entry.get("level")), 6),
            "SYSLOG_IDENTIFIER": "otocod",
        }
        fields |= {f"OTOCOD_{name.upper()}": entry[name] for name in _INDEXED if entry.get(name) is not None}
        # A line break would begin another field.
        text = "".join(f"{name}={str(value).replace(chr(10), ' ')}\n" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(text.encode(errors="replace"), self._address)
        except OSError:
            return False
        return True
