"""Errors inside the adapter. Outside it there are only `Outcome`s and the errors of `ports.broker`.

    AdapterError
    ├── Unreadable           the answer breaks the wire's rules: no outcome can be read from it
    ├── TransportError       no answer
    │   ├── NeverSent        proved: no byte of the request left this machine
    │   └── MaybeSent        a connection was in hand; the request may have arrived, in whole or in part
    ├── HttpError            an answer that is no success; carries status and, if it had one, the error envelope
    └── TokenUnreachable     the token service did not answer, or not with a verdict; nothing else was sent

A refused log-in is `ports.broker.LoginRefused`. None of these texts holds an account number, a token or an address with
either in it; hence `raise ... from None` where the original would.
"""

import os
import socket
import ssl

from otocod.domain.orders import Refusal


class AdapterError(Exception):
    pass


class Unreadable(AdapterError):
    pass


class TransportError(AdapterError):
    pass


class NeverSent(TransportError):
    pass


class MaybeSent(TransportError):
    pass


class TokenUnreachable(AdapterError):
    pass


class HttpError(AdapterError):
    """`refusal` is None unless the body was the API's own error envelope."""

    def __init__(self, http_status: int, refusal: Refusal | None = None) -> None:
        super().__init__(f"HTTP {http_status}" if refusal is None else f"HTTP {http_status}, {refusal.text}")
        self.http_status = http_status
        self.refusal = refusal


def describe(error: BaseException) -> str:
    """What went wrong in words that hold nothing from the request."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate not trusted"
    if isinstance(error, socket.gaierror):
        return "name not resolved"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return type(error).__name__
