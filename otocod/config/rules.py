"""What is wrong between settings that are right by themselves; settings that are missing are not judged."""

import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any
from urllib.parse import SplitResult, urlsplit

from otocod.config.sources import FIXED_URLS
from otocod.config.values import Environment, SmtpSecurity, is_loopback
from otocod.text import sanitise

# A password made up by a person is guessed in time; 20 characters of a generator are not.
_WEB_TOKEN_MIN = 20
# A Unix socket's address holds 108 bytes, the last of them a NUL.
_SOCKET_PATH_MAX_BYTES = 107
_SCHEMES = {"api_url": ("http", "https"), "streamer_url": ("ws", "wss")}


def contradictions(valid: Mapping[str, Any]) -> list[str]:
    environment = valid.get("environment")
    problems: list[str] = []
    for name in ("api_url", "streamer_url"):
        if environment is not None and name in valid:
            problem = _address_problem(environment, name, valid[name])
            if problem:
                problems.append(f"{name}: {problem}")
    return [*problems, *_path_problems(valid), *alert_problems(valid), *_port_problems(valid)]


def _port_problems(valid: Mapping[str, Any]) -> Iterator[str]:
    token = valid.get("web.token")
    if token is not None and len(token.reveal()) < _WEB_TOKEN_MIN:
        yield f"web.token: must have at least {_WEB_TOKEN_MIN} characters; make one with: openssl rand -hex 32"
    if valid.get("web.port") and valid["web.port"] == valid.get("metrics.port"):
        yield "web.port: is the port of the metrics too; give each its own"


def alert_problems(valid: Mapping[str, Any]) -> Iterator[str]:
    given = {name.removeprefix("alerts."): value for name, value in valid.items() if name.startswith("alerts.")}
    for name in ("webhook_url", "deadman_url"):
        if name in given and not _is_safe_url(given[name].reveal()):
            # Not shown: the address is a secret by itself.
            yield f"alerts.{name}: must be an https:// address, or http:// on loopback"
    host, security = given.get("smtp_host"), given.get("smtp_security")
    if host and not (given.get("email_from") and given.get("email_to")):
        yield "alerts.smtp_host: alerts.email_from and alerts.email_to are needed with it"
    if given.get("email_to") and not host:
        yield "alerts.email_to: alerts.smtp_host is needed with it"
    if host and security is SmtpSecurity.NONE and not is_loopback(host):
        yield "alerts.smtp_security: none would send alerts in the clear; use starttls or tls, or a server on loopback"
    if bool(given.get("smtp_user")) != ("smtp_password" in given):
        yield "alerts.smtp_user: a user and the credential otocod-smtp-password belong together"
    if bool(given.get("quiet_from")) != bool(given.get("quiet_until")):
        yield "alerts.quiet_from: quiet_from and quiet_until belong together"
    if "webhook_token" in given and "webhook_url" not in given:
        yield "alerts.webhook_token: there is no alerts.webhook_url to send it to"
    if "apprise_urls" in given and find_spec("apprise") is None:
        yield "alerts.apprise_urls: apprise is not installed; add it with: pip install 'otocod[apprise]'"


def _is_safe_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    return host is not None and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))


def _address_problem(environment: Environment, name: str, url: str) -> str | None:
    fixed = FIXED_URLS.get(environment, {}).get(name)
    if fixed is not None:
        return None if url == fixed else f"is fixed to {fixed} for {environment}; leave it out"
    try:
        parts = urlsplit(url)
        good = _is_plain_loopback(parts, _SCHEMES[name])
    except ValueError:  # a bad port or a bad IPv6 address
        good = False
    if good:
        return None
    schemes = " or ".join(f"{scheme}://" for scheme in _SCHEMES[name])
    return f"must be {schemes} on loopback for paper, not {sanitise(repr(url), 80)}"


def _is_plain_loopback(parts: SplitResult, schemes: tuple[str, ...]) -> bool:
    """True for loopback with nothing that could lead elsewhere. May raise ValueError."""
    host, _ = parts.hostname, parts.port
    if parts.scheme not in schemes or host is None or parts.username is not None or parts.query or parts.fragment:
        return False
    # A name other than localhost may resolve to anything.
    return is_loopback(host)


def _path_problems(valid: Mapping[str, Any]) -> list[str]:
    if not {"data_dir", "queue", "socket"} <= valid.keys():
        return []
    data_dir, queue, socket = valid["data_dir"], valid["queue"], valid["socket"]
    taken = {data_dir / "state.db": "the state database", data_dir / "lock": "the lock", data_dir: "data_dir"}
    problems = [
        f"{name}: {path} is {taken[path]}" for name, path in (("queue", queue), ("socket", socket)) if path in taken
    ]
    if queue == socket or socket == queue.parent / "wake":
        problems.append(f"socket: {socket} is a file of the queue")
    # Submitters may write to the queue's directory: with state.db in it they could replace that.
    if queue.parent == data_dir:
        problems.append(f"queue: must be in a directory of its own, not in data_dir {data_dir}")
    return problems


def warnings_of(valid: Mapping[str, Any]) -> Iterator[str]:
    size = len(os.fsencode(valid["socket"]))
    if size > _SOCKET_PATH_MAX_BYTES:
        yield f"socket: the path has {size} bytes; other programs can connect to at most {_SOCKET_PATH_MAX_BYTES}"
