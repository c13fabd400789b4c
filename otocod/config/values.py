"""What a setting can be: its types, what is refused of them by itself, and what an operator reads about each."""

import hmac
import ipaddress
import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

MASK = "******"


class ConfigInvalid(Exception):
    """The settings cannot be used. `problems` holds every one of them, each a line that names the setting."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Secret:
    """Text that never shows itself: not by print, repr, format, JSON or pickle. `reveal` is for the wire alone."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        # The same for all: a hash would be a fingerprint of the value.
        return hash(Secret)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")


class Environment(StrEnum):
    PAPER = "paper"
    SANDBOX = "sandbox"
    PRODUCTION = "production"


class OnDoubleExit(StrEnum):
    ALERT = "alert"
    FLATTEN = "flatten"


class OnUnprotectable(StrEnum):
    CLOSE = "close"
    ALERT = "alert"


class SmtpSecurity(StrEnum):
    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


class LogFormat(StrEnum):
    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class About:
    """What an operator reads about a setting, and the range that is enforced (both ends allowed, in `unit`)."""

    meaning: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    live: bool = False  # may change by SIGHUP

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        if self.low is None or self.high is None:
            return schema
        numeric = core_schema.no_info_after_validator_function(self._in_range, schema)
        return core_schema.no_info_before_validator_function(_not_bool, numeric)

    def _in_range(self, number: float) -> float:
        assert self.low is not None and self.high is not None
        # Written so that NaN, which compares false with everything, is outside.
        if not (self.low <= number <= self.high):
            raise _invalid(f"must be between {self.low:g} and {self.high:g} {self.unit}")
        return number


def _invalid(message: str) -> PydanticCustomError:
    # The message is a template to pydantic; braces in a value must not be read as fields.
    return PydanticCustomError("otocod", "{message}", {"message": message})


def _not_bool(value: object) -> object:
    # TOML's true would pass as the number 1.
    if isinstance(value, bool):
        raise _invalid("must be a number")
    return value


_ACCOUNT = re.compile(r"[A-Za-z0-9_-]{1,32}")


def _accounts(value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise _invalid("must be account numbers as text: a list in the file, comma-separated in the environment")
    numbers = tuple(part.strip() for part in parts if part.strip())
    if not numbers:
        raise _invalid("at least one account number is needed")
    # They become part of request paths.
    wrong = [number for number in numbers if not _ACCOUNT.fullmatch(number)]
    if wrong:
        raise _invalid(f"no account number: {', '.join(map(repr, wrong))}")
    if len(set(numbers)) != len(numbers):
        raise _invalid("an account is named twice")
    return numbers


def _absolute(path: Path) -> Path:
    # The daemon and the command line may be started in different directories and must mean the same file.
    if not path.is_absolute() or "\0" in str(path):
        raise _invalid("must be an absolute path")
    return path


def _no_trailing_slash(url: str) -> str:
    return url.rstrip("/")


def _version_or_none(value: object) -> object:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{8}", value):
        raise _invalid("must be a date as eight digits in quotes, or empty for none")
    return value


def _addresses(value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise _invalid("must be e-mail addresses: a list in the file, comma-separated in the environment")
    addresses = tuple(part.strip() for part in parts if part.strip())
    for address in addresses:
        _address(address)
    return addresses


def _address(address: str) -> str:
    # It becomes a header and an SMTP command; whether there is a mailbox only the server knows.
    if address and not re.fullmatch(r"[^\s@<>,;:\"]{1,64}@[A-Za-z0-9.-]{1,255}", address):
        raise _invalid(f"no e-mail address: {address!r}")
    return address


def _time_of_day(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"|([01][0-9]|2[0-3]):[0-5][0-9]", value):
        raise _invalid("must be a time of day as HH:MM in quotes, or empty")
    return value


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, ZoneInfoNotFoundError):
        raise _invalid("must be a time zone such as America/New_York") from None
    return name


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def _loopback(address: str) -> str:
    if not is_loopback(address) or address == "localhost":
        raise _invalid("must be an address of this machine alone: 127.0.0.1 or ::1")
    return address


def _hosts(value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise _invalid("must be host names: a list in the file, comma-separated in the environment")
    names = tuple(part.strip().lower() for part in parts if part.strip())
    for name in names:
        if not _HOST.fullmatch(name):
            raise _invalid(f"no host name: {name!r}")
    return names


AcceptVersion = Annotated[str | None, BeforeValidator(_version_or_none)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
AccountNumbers = Annotated[tuple[str, ...], BeforeValidator(_accounts)]
EmailAddress = Annotated[str, AfterValidator(_address)]
EmailAddresses = Annotated[tuple[str, ...], BeforeValidator(_addresses)]
Hosts = Annotated[tuple[str, ...], BeforeValidator(_hosts)]
LoopbackAddress = Annotated[str, AfterValidator(_loopback)]
Money = Annotated[Decimal, BeforeValidator(_not_bool)]
TimeOfDay = Annotated[str, BeforeValidator(_time_of_day)]
Url = Annotated[str, AfterValidator(_no_trailing_slash)]
Zone = Annotated[str, AfterValidator(_zone)]
