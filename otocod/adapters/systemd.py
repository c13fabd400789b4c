"""The service manager's notification protocol, sd_notify(3): one datagram of lines to a Unix socket."""

import os
import socket
import time
from collections.abc import Mapping

_SEND_TIMEOUT_S = 0.1


def notify(state: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Sends `state`, lines of NAME=value: READY=1, STOPPING=1, STATUS=..., WATCHDOG=1. Whether it was sent.

    Without NOTIFY_SOCKET nothing is done. Never raises, and waits 0.1 s at most: a service manager that does not
    listen must not stop trading.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    # A leading @ stands for the NUL of an abstract address.
    target = f"\0{address[1:]}" if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(_SEND_TIMEOUT_S)
            sender.sendto(state.encode(), target)
    except (OSError, ValueError):
        return False
    return True


def notify_reloading(environ: Mapping[str, str] = os.environ) -> bool:
    """Tells that a reload has begun; READY=1 ends it. The time lets systemd tell this reload from an older one."""
    return notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1_000}", environ)


def watchdog_interval_s(environ: Mapping[str, str]) -> float | None:
    """How often to send WATCHDOG=1: half the time after which systemd would kill; None: it does not watch us."""
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    # A child inherits the environment; the message is for the process that systemd started.
    if pid and pid != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000 if microseconds.isdecimal() and int(microseconds) > 0 else None
