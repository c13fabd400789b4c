"""The one way in which the exchange says no: an HTTP refusal with the broker's error envelope."""

from typing import Any

PREFLIGHT = "preflight_check_failure"
CANNOT_UPDATE = "cannot_update_order"
VALIDATION = "validation_error"


class Refused(Exception):
    """A definite refusal: nothing was placed or changed.

    `errors` are inner (code, message) pairs; of a `validation_error` they are (domain, reason).
    """

    def __init__(self, status: int, code: str, message: str, errors: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.errors = errors

    def body(self) -> dict[str, Any]:
        """The error envelope; `errors` is there only for refusals with several causes."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.errors:
            first, second = ("domain", "reason") if self.code == VALIDATION else ("code", "message")
            error["errors"] = [{first: item[0], second: item[1]} for item in self.errors]
        return {"error": error}


def preflight_failure(errors: list[tuple[str, str]]) -> Refused:
    return Refused(422, PREFLIGHT, "One or more preflight checks failed", tuple(errors))


def cannot_update(message: str = "the order could not be cancelled") -> Refused:
    """The order is terminal (or not to be changed in this way); the caller reads it to learn which."""
    return Refused(422, CANNOT_UPDATE, message)


def invalid(problems: list[tuple[str, str]]) -> Refused:
    return Refused(400, VALIDATION, "Request validation failed", tuple(problems))


def not_found(what: str) -> Refused:
    return Refused(404, "record_not_found", f"Couldn't find {what}")


def not_permitted() -> Refused:
    return Refused(403, "not_permitted", "User not permitted access")
