"""Where things are, for commands that only read a file or talk to the socket.

`otocod.config` reads and judges all settings, which takes longer than everything else such a command does. These are
the same rules for the few settings needed to find the daemon; a test holds the two together.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otocod.cli.failure import ExitStatus, Failed
from otocod.text import sanitise

_SYSTEM_CONFIG = Path("/etc/otocod/otocod.toml")


@dataclass(frozen=True, slots=True)
class Places:
    data_dir: Path
    queue: Path
    socket: Path
    accounts: tuple[str, ...]  # may be empty: a submitter need not have the daemon's settings

    @property
    def state_db(self) -> Path:
        return self.data_dir / "state.db"

    @property
    def wake(self) -> Path:
        return self.queue.parent / "wake"


def find_places(config: Path | None, environ: Mapping[str, str]) -> Places:
    """Raises Failed (78) when the file cannot be read or a path makes no sense."""
    given = _file(config, environ)
    for name in ("data_dir", "queue", "socket", "accounts"):
        value = environ.get(f"OTOCOD_{name.upper()}")
        if value:
            given[name] = value
    data_dir = _path("data_dir", given, environ) or _default_data_dir(environ)
    if data_dir is None:
        raise _wrong("data_dir: missing; set it in otocod.toml or as OTOCOD_DATA_DIR")
    return Places(
        data_dir=data_dir,
        queue=_path("queue", given, environ) or data_dir / "queue" / "queue.db",
        socket=_path("socket", given, environ) or data_dir / "otocod.sock",
        accounts=_accounts(given.get("accounts", ())),
    )


def _wrong(problem: str) -> Failed:
    return Failed(ExitStatus.CONFIGURATION, problem)


def _file(config: Path | None, environ: Mapping[str, str]) -> dict[str, Any]:
    path = config or _named(environ) or _usual(environ)
    if path is None:
        return {}
    # Most submitters have no file; the parser is loaded for those who have.
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _wrong(f"{path}: cannot be read: {error.strerror}") from None
    # ValueError: TOML's and Unicode's own errors, and a number too long to convert. RecursionError: nesting.
    except (ValueError, RecursionError) as error:
        raise _wrong(f"{path}: is not TOML: {sanitise(str(error), 200)}") from None


def _named(environ: Mapping[str, str]) -> Path | None:
    named = environ.get("OTOCOD_CONFIG")
    return Path(named) if named else None


def _usual(environ: Mapping[str, str]) -> Path | None:
    home = _xdg(environ, "XDG_CONFIG_HOME", ".config")
    candidates = [_SYSTEM_CONFIG] if home is None else [_SYSTEM_CONFIG, home / "otocod" / "otocod.toml"]
    return next((each for each in candidates if os.path.lexists(each)), None)


def _xdg(environ: Mapping[str, str], variable: str, below_home: str) -> Path | None:
    # A relative value is to be ignored, says the XDG base directory specification.
    if environ.get(variable, "").startswith("/"):
        return Path(environ[variable])
    if environ.get("HOME", "").startswith("/"):
        return Path(environ["HOME"]) / below_home
    return None


def _default_data_dir(environ: Mapping[str, str]) -> Path | None:
    # systemd lists several directories with colons; ours is the first.
    state_directory = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if state_directory:
        return Path(state_directory)
    xdg = _xdg(environ, "XDG_STATE_HOME", ".local/state")
    return None if xdg is None else xdg / "otocod"


def _path(name: str, given: Mapping[str, Any], environ: Mapping[str, str]) -> Path | None:
    value = given.get(name)
    if value is None:
        return None
    text = str(value)
    if text.startswith("~/") and environ.get("HOME"):
        text = environ["HOME"] + text[1:]
    if not text.startswith("/") or "\0" in text:
        raise _wrong(f"{name}: must be an absolute path, not {sanitise(repr(value), 80)}")
    return Path(text)


def _accounts(value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise _wrong("accounts: must be account numbers as text")
    return tuple(part.strip() for part in parts if part.strip())
