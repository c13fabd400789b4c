"""Answers that are not the exchange's: the proxy's pages, the token service, and the refusals around the API.

Whatever the API itself refuses is the JSON envelope of `errors.py`. Whatever the proxy in front of it refuses is an
HTML page, because that proxy never looks at `Accept`. The token service follows RFC 6749 and knows neither.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from otocod.paper.errors import Refused

Json = dict[str, Any]

# Bytes of JSON; an order's messages are encoded several times a status step, so the fast encoder matters.
encode = msgspec.json.encode


def decoded(text: str | bytes, **how: Any) -> Any:
    """JSON from outside, `how` being what json.loads takes. Raises ValueError for whatever could not be sent back.

    That is nesting beyond what a reader's stack takes, half a surrogate pair, and integers of more than 64 bits.
    """
    try:
        found = json.loads(text, **how)
        encode(found)
    except (RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from None
    return found


class VersionRefused(Refused):
    """406: the one place where the envelope's `code` is a number."""

    def __init__(self, message: str) -> None:
        super().__init__(406, "406", message)

    def body(self) -> Json:
        return {"error": {"code": 406, "message": self.message}}


def unauthorized() -> Refused:
    return Refused(401, "unauthorized", "The access token is invalid or has expired")


def method_not_allowed(method: str) -> Refused:
    return Refused(405, "method_not_allowed", f"{method} is not allowed here")


def error_body(code: str, message: str) -> Json:
    return {"error": {"code": code, "message": message}}


def oauth_error(error: str, description: str) -> Json:
    return {"error": error, "error_description": description}


def html_page(status: int, reason: str) -> str:
    """What the proxy answers on its own account."""
    return (
        f"<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n"
        f"<center><h1>{status} {reason}</h1></center>\r\n"
        "<hr><center>proxy</center>\r\n</body>\r\n</html>\r\n"
    )
