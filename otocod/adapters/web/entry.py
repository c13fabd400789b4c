"""Who may look: the token of the page, the sessions that it opens, and how often a wrong one may be tried."""

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TOKEN_BYTES = 32
_TOKEN_MAX_BYTES = 4096
# Nobody needs more windows; what is beyond ends the oldest.
_MOST_SESSIONS = 32
SESSION_IDLE_S = 12 * 3600.0
SESSION_LONGEST_S = 7 * 24 * 3600.0
# A person mistypes a few times; a program gets 12 tries a minute at 2**256 tokens.
TRIES = 5
TRY_EVERY_S = 5.0


class TokenUnusable(Exception):
    """The file is there and cannot serve; the text says how to mend it."""


def token_in(path: Path) -> str:
    """The token in the file, made first if there is none. Raises OSError and TokenUnusable."""
    try:
        return read_token(path)
    except FileNotFoundError:
        _make(path)
        return read_token(path)


def read_token(path: Path) -> str:
    """Raises FileNotFoundError, other OSError and TokenUnusable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
            raise TokenUnusable(f"{path} must be a file that others cannot read: chmod 0600, or remove it")
        token = os.read(descriptor, _TOKEN_MAX_BYTES).decode(errors="replace").strip()
    finally:
        os.close(descriptor)
    if len(token) < _TOKEN_BYTES or not token.isascii() or not token.isprintable():
        raise TokenUnusable(f"{path} does not hold a token: remove it, and a new one is made at the next start")
    return token


def _make(path: Path) -> None:
    """Whole or not at all: a start that is killed here must not leave half a token."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, f"{secrets.token_urlsafe(_TOKEN_BYTES)}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.rename(path)


@dataclass(slots=True)
class Allowance:
    """So many at once, and one more every so often. Never waits."""

    most: float
    every_s: float
    now_s: Callable[[], float]
    left: float = 0.0
    at_s: float = 0.0

    def __post_init__(self) -> None:
        self.left, self.at_s = self.most, self.now_s()

    def take(self) -> bool:
        now_s = self.now_s()
        self.left = min(self.most, self.left + (now_s - self.at_s) / self.every_s)
        self.at_s = now_s
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass(slots=True)
class _Session:
    begun_s: float
    used_s: float


class Door:
    """Sessions live in memory: a restart ends them all."""

    def __init__(self, token: str, now_s: Callable[[], float]) -> None:
        self._token = _digest(token)
        self._now_s = now_s
        self._sessions: dict[bytes, _Session] = {}
        self._tries = Allowance(TRIES, TRY_EVERY_S, now_s)

    def may_try(self) -> bool:
        """Whether a token may be tried now; a right one costs nothing, see `open`."""
        return self._tries.take()

    def open(self, offered: str) -> str | None:
        """A new session's name for the right token."""
        # Of digests: the time says nothing about the token, not even its length.
        if not hmac.compare_digest(_digest(offered), self._token):
            return None
        self._tries.left = min(self._tries.most, self._tries.left + 1)
        name = secrets.token_urlsafe(_TOKEN_BYTES)
        now_s = self._now_s()
        self._sessions[_digest(name)] = _Session(now_s, now_s)
        while len(self._sessions) > _MOST_SESSIONS:
            del self._sessions[min(self._sessions, key=lambda each: self._sessions[each].used_s)]
        return name

    def knows(self, name: str | None) -> bool:
        if not name:
            return False
        key, now_s = _digest(name), self._now_s()
        session = self._sessions.get(key)
        if session is None:
            return False
        if now_s - session.used_s > SESSION_IDLE_S or now_s - session.begun_s > SESSION_LONGEST_S:
            del self._sessions[key]
            return False
        session.used_s = now_s
        return True

    def close(self, name: str | None) -> None:
        if name:
            self._sessions.pop(_digest(name), None)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
