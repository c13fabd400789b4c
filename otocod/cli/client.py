"""The command line's end of the admin socket: HTTP over a Unix socket with the standard library alone."""

import http.client
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from otocod.cli.failure import DaemonDown, ExitStatus, Failed

# The daemon answers from memory; a minute means that it hangs.
TIMEOUT_S = 60.0
# Commands that have the broker asked, page after page.
BROKER_TIMEOUT_S = 300.0
# sun_path holds 108 bytes, the last of them a NUL.
_ADDRESS_MAX_BYTES = 107
# A directory that is missing, a file left behind by a daemon that was killed.
_NOBODY = (FileNotFoundError, ConnectionRefusedError, NotADirectoryError)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("otocod", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        if len(os.fsencode(self._path)) <= _ADDRESS_MAX_BYTES:
            self.sock.connect(str(self._path))
            return
        directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sock.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        finally:
            os.close(directory)


class Client:
    """One call, one connection. Every method raises DaemonDown when nobody listens, Failed as the daemon answered."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def is_up(self) -> bool:
        """Whether somebody listens. Raises Failed when that cannot be found out."""
        connection = _UnixConnection(self._path, TIMEOUT_S)
        try:
            connection.connect()
        except _NOBODY:
            return False
        except OSError as error:
            raise self._failed(error) from None
        finally:
            connection.close()
        return True

    def get(self, path: str, *, query: Mapping[str, object] | None = None, timeout_s: float = TIMEOUT_S) -> Any:
        """query: values that are None are left out."""
        asked = {name: str(value) for name, value in (query or {}).items() if value is not None}
        return self._call("GET", f"{path}?{urlencode(asked)}" if asked else path, None, timeout_s)

    def post(self, path: str, body: dict[str, Any] | None = None, *, timeout_s: float = TIMEOUT_S) -> Any:
        return self._call("POST", path, json.dumps(body or {}).encode(), timeout_s)

    def _call(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Any:
        connection = _UnixConnection(self._path, timeout_s)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            raw = answer.read()
        except _NOBODY:
            raise DaemonDown(f"otocod is not running: nobody listens at {self._path}") from None
        except TimeoutError:
            raise Failed(ExitStatus.FAILED, f"the daemon did not answer within {timeout_s:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(error) from None
        finally:
            connection.close()
        return _understood(answer.status, raw)

    def _failed(self, error: Exception) -> Failed:
        if isinstance(error, PermissionError):
            why = f"{self._path}: permission denied; operators are the daemon's user, its group and root"
        else:
            why = f"the daemon broke off the call ({type(error).__name__}); look again with `otocod status`"
        return Failed(ExitStatus.FAILED, why)


def bracket_path(bracket: str, *more: str) -> str:
    return "/".join(("/v1/brackets", quote(bracket, safe=""), *more))


def _understood(http_status: int, raw: bytes) -> Any:
    try:
        answer = json.loads(raw)
    except ValueError:
        raise Failed(ExitStatus.FAILED, f"the daemon's answer ({http_status}) cannot be read") from None
    if http_status < 400:
        return answer
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        raise Failed(ExitStatus.FAILED, f"the daemon answered {http_status}")
    reasons = tuple(str(reason) for reason in error.get("reasons") or ())
    raise Failed(int(error.get("exit_status") or 1), str(error.get("message") or "refused"), reasons)
