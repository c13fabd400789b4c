"""How a command ends when it does not end well."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """Part of the public contract; the same for every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_SUCH_BRACKET = 3
    REFUSED = 4
    NOT_AS_NEEDED = 75  # already running, or not running where it must be
    CONFIGURATION = 78
    INTERRUPTED = 130  # 128 + SIGINT, as shells count


class Failed(Exception):
    """Ends the command. `message` is one line; `reasons` follow it, one line each, where there are several."""

    def __init__(self, status: int, message: str, reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reasons = reasons


class DaemonDown(Failed):
    """Nobody answers on the socket."""

    def __init__(self, why: str) -> None:
        super().__init__(ExitStatus.NOT_AS_NEEDED, why)
