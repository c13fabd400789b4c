"""Reading what a control call brings: body, path and query, each problem in one clear sentence."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from aiohttp import web

from otocod.paper.answers import Json, decoded

BY = ("broker", "user")


class ControlError(Exception):
    """A control call that was not carried out."""

    def __init__(self, status: int, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.problems = problems


async def read_body(request: web.Request) -> Json:
    raw = await request.read()
    if not raw.strip():
        return {}
    try:
        body = decoded(raw, parse_float=Decimal)
    except ValueError:
        raise ControlError(400, "the body is not valid JSON") from None
    if not isinstance(body, dict):
        raise ControlError(400, "the body must be a JSON object")
    return body


def only(body: Json, *known: str) -> None:
    unknown = [key for key in body if key not in known]
    if unknown:
        raise ControlError(422, f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")


def whole(body: Json, key: str, default: int) -> int:
    value = body.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ControlError(422, f"{key} must be a whole number, not negative")
    return value


def flag(body: Json, key: str) -> bool:
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise ControlError(422, f"{key} must be true or false")
    return value


def path_id(request: web.Request, what: str) -> int:
    text = request.match_info["id"]
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ControlError(404, f"no {what} {text[:40]}")
    return int(text)


def query_whole(request: web.Request, key: str, default: int) -> int:
    text = request.query.get(key, str(default))
    if not (text.isascii() and text.isdigit()):
        raise ControlError(422, f"{key} must be a whole number")
    return int(text)


def decimal(body: Json, key: str) -> Decimal:
    value = body[key]
    if isinstance(value, str | int | Decimal) and not isinstance(value, bool):
        try:
            number = Decimal(value)
        except InvalidOperation:
            number = Decimal("NaN")
        if number.is_finite():
            return number
    raise ControlError(422, f"{key} must be a decimal string")


def ending(body: Json, default_reason: str) -> tuple[str, str]:
    only(body, "reason", "by")
    reason, by = body.get("reason", default_reason), body.get("by", "broker")
    if not isinstance(reason, str) or by not in BY:
        raise ControlError(422, "reason must be a string, by one of " + ", ".join(BY))
    return reason, by
