"""Settings: one frozen object, built once, validated whole, passed down as parts; nothing else reads the environment.

Values come, later over earlier, from defaults, `otocod.toml` and `OTOCOD_*` variables. Secrets come from files that
systemd hands over, because an environment is inherited by children and shown by tools.
"""

import difflib
import functools
import hmac
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import time
from decimal import Decimal
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, GetCoreSchemaHandler, TypeAdapter
from pydantic import ValidationError as PydanticError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from otocod.text import sanitise

SYSTEM_CONFIG = Path("/etc/otocod/otocod.toml")
MASK = "******"

_PREFIX = "OTOCOD_"
_SECTION_SEPARATOR = "__"
# Variables that share the prefix and are no settings: where the file is, and what tests and drills set.
_NO_SETTINGS = re.compile(r"OTOCOD_(CONFIG|CRASH_.*|TEST_.*)")
# A secret is one short line; a device or a wrong file given by mistake is not read to its end.
_SECRET_MAX_BYTES = 16 * 1024
# A Unix socket's address holds 108 bytes, the last of them a NUL.
_SOCKET_PATH_MAX_BYTES = 107


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


AcceptVersion = Annotated[str | None, BeforeValidator(_version_or_none)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Url = Annotated[str, AfterValidator(_no_trailing_slash)]


class AcceptVersions(BaseModel):
    """Section `accept_versions`: the API version asked for, per environment; empty sends no `Accept-Version` header."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # 20261012 is the newest version of the order API; without the header the oldest is served.
    paper: Annotated[AcceptVersion, About("API version asked of the paper broker", "YYYYMMDD")] = "20261012"
    # The sandbox has answered order placement with 404 when the header was present.
    sandbox: Annotated[AcceptVersion, About("API version asked of the sandbox", "YYYYMMDD")] = None
    production: Annotated[AcceptVersion, About("API version asked of production", "YYYYMMDD")] = "20261012"


_Money = Annotated[Decimal, BeforeValidator(_not_bool)]
_TimeOfDay = Annotated[str, BeforeValidator(_time_of_day)]


class LimitSettings(BaseModel):
    """Section `limits`: what new entries may add up to; 0 is no limit. They never hold back an exit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    open_brackets: Annotated[int, About("most brackets open at once", "brackets, 0: any", 0, 1_000_000, live=True)] = 0
    open_contracts: Annotated[
        int, About("most contracts of all legs in open brackets", "contracts, 0: any", 0, 10_000_000, live=True)
    ] = 0
    risk_per_bracket: Annotated[
        _Money, About("most that one bracket may lose", "dollars, 0: any", 0, 1_000_000_000, live=True)
    ] = Decimal(0)
    risk_per_day: Annotated[
        _Money, About("most that the brackets entered in one day may lose", "dollars, 0: any", 0, 1e9, live=True)
    ] = Decimal(0)
    # Above 390 orders a day on the average of a month a person counts as a professional for option exchanges.
    orders_per_day: Annotated[
        int, About("orders of a day after which no new entry leaves", "orders, 0: any", 0, 1_000_000, live=True)
    ] = 0


class RetentionSettings(BaseModel):
    """Section `retention`: how long what is over stays where it was, for `otocod db prune`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # A tax year and the next one's questions about it.
    journal_months: Annotated[
        int, About("journals of closed brackets stay in state.db so long", "months, 0: for ever", 0, 1200, live=True)
    ] = 24
    answers_days: Annotated[
        int, About("answered rows stay in the queue file so long", "days, 0: for ever", 0, 36_500, live=True)
    ] = 90


class AlertSettings(BaseModel):
    """Section `alerts`: where alarms go. Addresses that hold a secret are credentials, as passwords are."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    webhook_url: Annotated[Secret | None, About("where alerts are posted as JSON; credential otocod-webhook-url")] = (
        None
    )
    webhook_token: Annotated[Secret | None, About("bearer token sent along; credential otocod-webhook-token")] = None
    smtp_host: Annotated[str, About("mail server; empty: no e-mail")] = ""
    smtp_port: Annotated[int, About("its port", "", 1, 65535)] = 587
    smtp_security: Annotated[SmtpSecurity, About("starttls, tls, or none on loopback")] = SmtpSecurity.STARTTLS
    smtp_user: Annotated[str, About("user at the mail server; empty: no log-in")] = ""
    smtp_password: Annotated[Secret | None, About("its password, from the credential otocod-smtp-password")] = None
    email_from: Annotated[str, AfterValidator(_address), About("sender of alerts")] = ""
    email_to: Annotated[tuple[str, ...], BeforeValidator(_addresses), About("who gets alerts by e-mail")] = ()
    apprise_urls: Annotated[
        Secret | None, About("services of apprise, blank-separated; credential otocod-apprise-urls")
    ] = None
    deadman_url: Annotated[
        Secret | None, About("pinged while all is well, so that silence rings; credential otocod-deadman-url")
    ] = None
    deadman_interval_s: Annotated[float, About("how often it is pinged", "s", 1, 3600)] = 60
    repeat_s: Annotated[float, About("the same alarm again is not sent for so long", "s", 0, 604_800)] = 3600
    # Long enough for a reconnect of the broker's own making, short enough for a person to act.
    streamer_dead_s: Annotated[float, About("how long the account streamer may be away", "s", 1, 3600)] = 60
    quiet_from: Annotated[_TimeOfDay, About("only critical alerts from then on; empty: always all", "HH:MM")] = ""
    quiet_until: Annotated[_TimeOfDay, About("and from then on all again", "HH:MM")] = ""
    quiet_zone: Annotated[str, AfterValidator(_zone), About("time zone of the quiet hours")] = "UTC"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown, for whoever masks output."""
        found = (self.webhook_url, self.webhook_token, self.smtp_password, self.apprise_urls, self.deadman_url)
        return tuple(each.reveal() for each in found if each is not None)

    @property
    def quiet_hours(self) -> tuple[time, time] | None:
        if not self.quiet_from or not self.quiet_until:
            return None
        return time.fromisoformat(self.quiet_from), time.fromisoformat(self.quiet_until)


class MetricsSettings(BaseModel):
    """Section `metrics`. They are always served on the admin socket."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    port: Annotated[int, About("port on 127.0.0.1 that serves /metrics; 0: none", "", 0, 65535)] = 0


_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
# A password made up by a person is guessed in time; 20 characters of a generator are not.
_WEB_TOKEN_MIN = 20


def _loopback(address: str) -> str:
    if not _is_loopback(address) or address == "localhost":
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


class WebSettings(BaseModel):
    """Section `web`: a page that shows and changes nothing, on loopback."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    port: Annotated[int, About("port that serves the web page; 0: none", "", 0, 65535)] = 0
    listen: Annotated[str, AfterValidator(_loopback), About("loopback address it is served at")] = "127.0.0.1"
    hosts: Annotated[
        tuple[str, ...], BeforeValidator(_hosts), About("names under which a proxy on this machine serves it by https")
    ] = ()
    token: Annotated[
        Secret | None, About("what it is logged into with; credential otocod-web-token, else made in data_dir")
    ] = None


class Settings(BaseSettings):
    """Everything an operator can set. Made by `load_settings`; all paths and addresses are resolved."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True, validate_default=False
    )

    environment: Annotated[Environment, About("which broker: paper, sandbox or production")]
    accounts: Annotated[tuple[str, ...], BeforeValidator(_accounts), About("account numbers that may be traded")]
    api_url: Annotated[Url, About("REST address; fixed for sandbox and production")]
    streamer_url: Annotated[Url, About("account streamer's address; fixed for sandbox and production")]
    client_secret: Annotated[Secret, About("OAuth client secret, from the credential otocod-client-secret")]
    refresh_token: Annotated[Secret, About("OAuth refresh token, from the credential otocod-refresh-token")]
    data_dir: Annotated[AbsolutePath, About("directory of state.db, the lock and, by default, queue and socket")]
    queue: Annotated[AbsolutePath, About("the queue database; its directory also holds `wake`")]
    socket: Annotated[AbsolutePath, About("Unix socket of the admin interface")]
    # One page of orders costs one request; every second is the most that leaves room for orders themselves.
    reconcile_interval_s: Annotated[
        float, About("REST sweep while an order is working; 60 when none is", "s", 1, 300, live=True)
    ] = 15
    # Beyond it the outcome of an order is unknown, which costs a search; the broker mostly answers within one second.
    request_timeout_s: Annotated[float, About("longest wait for an answer of the broker", "s", 0.1, 120, live=True)] = (
        10
    )
    # The broker's streamer asks for a heartbeat every 2 to 60 s.
    heartbeat_interval_s: Annotated[float, About("streamer heartbeat", "s", 2, 60, live=True)] = 20
    unprotected_limit_s: Annotated[
        float, About("longest time without protection before the ladder moves on, per rung", "s", 0.1, 600, live=True)
    ] = 5
    on_double_exit: Annotated[OnDoubleExit, About("when both exits filled: alert or flatten", live=True)] = (
        OnDoubleExit.ALERT
    )
    on_unprotectable: Annotated[OnUnprotectable, About("last rung of the ladder: close or alert", live=True)] = (
        OnUnprotectable.CLOSE
    )
    # Ceilings against a runaway; they never hold back protection.
    orders_per_minute: Annotated[
        int, About("ceiling of entries, walks and trails", "orders per minute", 1, 100_000, live=True)
    ] = 120
    orders_per_bracket: Annotated[
        int, About("ceiling of entries, walks and trails of one bracket", "orders per session", 1, 10_000, live=True)
    ] = 12
    log_format: Annotated[LogFormat, About("json or console; console on a terminal, json elsewhere")] = LogFormat.JSON
    log_level: Annotated[LogLevel, About("least level that is logged: debug, info, warning, error", live=True)] = (
        LogLevel.INFO
    )
    accept_versions: AcceptVersions = AcceptVersions()
    limits: LimitSettings = LimitSettings()
    retention: RetentionSettings = RetentionSettings()
    alerts: AlertSettings = AlertSettings()
    metrics: MetricsSettings = MetricsSettings()
    web: WebSettings = WebSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The stock sources stop at the first bad file and do not tell where a value is from; load_settings does both.
        return (init_settings,)

    @property
    def accept_version(self) -> str | None:
        """The `Accept-Version` header's value for this environment; None sends no header."""
        version: str | None = getattr(self.accept_versions, self.environment.value)
        return version

    @property
    def state_db(self) -> Path:
        return self.data_dir / "state.db"

    @property
    def web_token(self) -> Path:
        """Where the page's token is made when no credential holds one."""
        return self.data_dir / "web-token"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown, for whoever masks output."""
        found = (self.client_secret, self.refresh_token, self.web.token)
        return (*(each.reveal() for each in found if each is not None), *self.alerts.secrets)

    @property
    def lock(self) -> Path:
        return self.data_dir / "lock"

    @property
    def wake(self) -> Path:
        """Unix datagram socket: any datagram to it makes the daemon look into the queue at once."""
        return self.queue.parent / "wake"


@dataclass(frozen=True, slots=True)
class Loaded:
    settings: Settings
    sources: Mapping[str, str]  # per setting, sections with a dot: where its value is from, in an operator's words
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Described:
    """One row of `config show`."""

    name: str
    value: str
    unit: str
    source: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload changes: `settings` to go on with, what is in force now, and what only a restart would change."""

    settings: Settings
    applied: tuple[str, ...]
    needs_restart: tuple[str, ...]


_FIXED_URLS: Mapping[Environment, Mapping[str, str]] = {
    Environment.SANDBOX: {
        "api_url": "https://api.cert.tastyworks.com",
        "streamer_url": "wss://streamer.cert.tastyworks.com",
    },
    Environment.PRODUCTION: {
        "api_url": "https://api.tastyworks.com",
        "streamer_url": "wss://streamer.tastyworks.com",
    },
}
_SCHEMES = {"api_url": ("http", "https"), "streamer_url": ("ws", "wss")}
# By setting: the file's name, as systemd's LoadCredential= has it.
CREDENTIALS = {
    "client_secret": "otocod-client-secret",
    "refresh_token": "otocod-refresh-token",
    "alerts.webhook_url": "otocod-webhook-url",
    "alerts.webhook_token": "otocod-webhook-token",
    "alerts.smtp_password": "otocod-smtp-password",
    "alerts.apprise_urls": "otocod-apprise-urls",
    "alerts.deadman_url": "otocod-deadman-url",
    "web.token": "otocod-web-token",
}
_SECTIONS: Mapping[str, type[BaseModel]] = {
    "accept_versions": AcceptVersions,
    "limits": LimitSettings,
    "retention": RetentionSettings,
    "alerts": AlertSettings,
    "metrics": MetricsSettings,
    "web": WebSettings,
}


def _about_settings() -> dict[str, About]:
    """Every setting by name, `section.name` in sections, in the order they are shown."""
    found: dict[str, About] = {}
    for name, info in Settings.model_fields.items():
        section = _SECTIONS.get(name)
        fields = {name: info} if section is None else {f"{name}.{k}": v for k, v in section.model_fields.items()}
        for full_name, each in fields.items():
            found[full_name] = next(entry for entry in each.metadata if isinstance(entry, About))
    return found


ABOUT: Mapping[str, About] = _about_settings()


@functools.cache
def _adapter(name: str) -> TypeAdapter[Any]:
    section, _, key = name.rpartition(".")
    info = (_SECTIONS[section] if section else Settings).model_fields[key]
    # Settings are checked one by one, so that the check of all together can run although some are wrong.
    return TypeAdapter(
        Annotated[(info.annotation, *info.metadata)],  # type: ignore[arg-type]  # a type made at run time
        config=ConfigDict(arbitrary_types_allowed=True, hide_input_in_errors=True),
    )


@dataclass(slots=True)
class _Gathering:
    """Settings on their way in. `given`: raw values by name; a later source overwrites an earlier one."""

    environ: Mapping[str, str]
    given: dict[str, object] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def give(self, name: str, value: object, source: str) -> None:
        self.given[name] = value
        self.sources[name] = source

    def give_default(self, name: str, value: object, source: str) -> None:
        if name not in self.given:
            self.give(name, value, source)

    def unknown(self, name: str, where: str, known: Sequence[str]) -> None:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        self.problems.append(f"{sanitise(name, 80)}: unknown setting in {where}{hint}")


def load_settings(config: Path | None, environ: Mapping[str, str], *, on_terminal: bool = False) -> Loaded:
    """Read and check everything. `config` is the file named on the command line, if one was.

    `on_terminal`: standard error is a terminal, which decides the default of `log_format`.
    Raises ConfigInvalid with every problem found. Creates nothing and connects to nothing.
    """
    gathering, environment = _gathered(config, environ)
    _fill_addresses(gathering, environment)
    _fill_paths(gathering)
    gathering.give_default("log_format", "console" if on_terminal else "json", "default")
    valid = _validated(gathering)
    gathering.problems.extend(_contradictions(valid))
    if gathering.problems:
        raise ConfigInvalid(tuple(gathering.problems))
    _warn(gathering, valid)
    sources = {name: gathering.sources.get(name, "default") for name in ABOUT}
    return Loaded(Settings(**_nested(valid)), sources, tuple(gathering.warnings))


def load_alerts(config: Path | None, environ: Mapping[str, str]) -> tuple[AlertSettings, str]:
    """Where alarms go and the environment's name, whatever is wrong with the other settings: those may be the alarm.

    Raises ConfigInvalid with what is wrong with the section itself.
    """
    gathering, environment = _gathered(config, environ)
    gathering.problems.clear()
    valid = _validated(gathering)
    problems = [each for each in gathering.problems if each.startswith("alerts.")] + list(_alert_problems(valid))
    if problems:
        raise ConfigInvalid(tuple(problems))
    section = {name.removeprefix("alerts."): value for name, value in valid.items() if name.startswith("alerts.")}
    return AlertSettings(**section), environment.value if environment is not None else "unknown"


def _gathered(config: Path | None, environ: Mapping[str, str]) -> tuple[_Gathering, Environment | None]:
    gathering = _Gathering(environ)
    _gather_file(gathering, config)
    _gather_environ(gathering)
    environment = _environment_of(gathering)
    _gather_secrets(gathering, environment)
    return gathering, environment


def describe(settings: Settings, sources: Mapping[str, str]) -> tuple[Described, ...]:
    """The effective settings in a fixed order; secrets are masked."""
    return tuple(
        Described(name, _shown(_value(settings, name)), about.unit, sources.get(name, "default"), about.meaning)
        for name, about in ABOUT.items()
    )


def reload(current: Settings, fresh: Settings) -> Reloaded:
    """`current` with those settings of `fresh` that may change while the daemon runs."""
    changed = [name for name in ABOUT if _value(current, name) != _value(fresh, name)]
    applied = tuple(name for name in changed if ABOUT[name].live)
    settings = current.model_copy(update=_sections_with(current, fresh, applied))
    return Reloaded(settings, applied, tuple(name for name in changed if not ABOUT[name].live))


def _sections_with(current: Settings, fresh: Settings, names: Sequence[str]) -> dict[str, Any]:
    """The changed top-level settings; a section is one, with only these of its fields changed."""
    changed: dict[str, Any] = {}
    for name in names:
        section, _, key = name.rpartition(".")
        if section:
            base = changed.get(section, getattr(current, section))
            changed[section] = base.model_copy(update={key: _value(fresh, name)})
        else:
            changed[name] = _value(fresh, name)
    return changed


def config_path(config: Path | None, environ: Mapping[str, str]) -> tuple[Path | None, bool]:
    """The file to read, and whether it was named (then it has to exist). None: there is no file."""
    if config is not None:
        return config, True
    if environ.get("OTOCOD_CONFIG"):
        return Path(environ["OTOCOD_CONFIG"]), True
    for candidate in _usual_configs(environ):
        # lexists: a dangling link is a mistake to report, not an absent file.
        if os.path.lexists(candidate):
            return candidate, False
    return None, False


def _usual_configs(environ: Mapping[str, str]) -> Iterator[Path]:
    yield SYSTEM_CONFIG
    home = _xdg_dir(environ, "XDG_CONFIG_HOME", ".config")
    if home is not None:
        yield home / "otocod" / "otocod.toml"


def _xdg_dir(environ: Mapping[str, str], variable: str, below_home: str) -> Path | None:
    # A relative value is to be ignored, says the XDG base directory specification.
    if environ.get(variable, "").startswith("/"):
        return Path(environ[variable])
    if environ.get("HOME", "").startswith("/"):
        return Path(environ["HOME"]) / below_home
    return None


def _gather_file(gathering: _Gathering, config: Path | None) -> None:
    path, _ = config_path(config, gathering.environ)
    if path is None:
        return
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        gathering.problems.append(f"{path}: cannot be read: {error.strerror}")
        return
    # ValueError: TOML's and Unicode's own errors, and a number too long to convert. RecursionError: nesting.
    except (ValueError, RecursionError) as error:
        gathering.problems.append(f"{path}: is not TOML: {sanitise(str(error), 200)}")
        return
    for name, value in _flattened(document, gathering, str(path)):
        if name in CREDENTIALS:
            gathering.problems.append(f"{name}: a secret does not belong in {path}; {_where_secrets_go(name)}")
        elif name in ABOUT:
            gathering.give(name, value, str(path))
        else:
            gathering.unknown(name, str(path), list(ABOUT))


def _flattened(document: Mapping[str, object], gathering: _Gathering, where: str) -> Iterator[tuple[str, object]]:
    for key, value in document.items():
        if isinstance(value, dict) and key not in ABOUT:
            yield from ((f"{key}.{inner}", each) for inner, each in value.items()) if value else ((key, value),)
        elif key in _SECTIONS:
            gathering.problems.append(f"{key}: must be a table, [{key}], in {where}")
        else:
            yield key, value


def _gather_environ(gathering: _Gathering) -> None:
    known = {variable_of(name): name for name in ABOUT}
    for variable, value in sorted(gathering.environ.items()):
        if not variable.startswith(_PREFIX) or _NO_SETTINGS.fullmatch(variable):
            continue
        name = known.get(variable)
        if name is None:
            gathering.unknown(variable, "the environment", list(known))
        # An empty variable is one that was not set, except where empty is a value.
        elif value or name.startswith("accept_versions."):
            gathering.give(name, value, variable)


def variable_of(name: str) -> str:
    """The environment variable of a setting: `accept_versions.paper` is OTOCOD_ACCEPT_VERSIONS__PAPER."""
    return _PREFIX + name.replace(".", _SECTION_SEPARATOR).upper()


def _environment_of(gathering: _Gathering) -> Environment | None:
    """The environment if it is a known one; other rules depend on it. A wrong one is reported with all fields."""
    try:
        return Environment(str(gathering.given.get("environment")))
    except ValueError:
        return None


def _where_secrets_go(name: str) -> str:
    return f"put it into the file {CREDENTIALS[name]} in $CREDENTIALS_DIRECTORY (systemd: LoadCredential=)"


def _gather_secrets(gathering: _Gathering, environment: Environment | None) -> None:
    for name in CREDENTIALS:
        variable = variable_of(name)
        in_environ = gathering.given.pop(name, None)
        if in_environ is not None and environment is Environment.PRODUCTION:
            gathering.problems.append(f"{name}: {variable} is refused in production; {_where_secrets_go(name)}")
            continue
        problems_before = len(gathering.problems)
        in_file = _credential(gathering, name)
        if in_file is not None:
            gathering.give(name, Secret(in_file), f"credential {CREDENTIALS[name]}")
            if in_environ is not None:
                gathering.warnings.append(f"{name}: {variable} is not used, the credential file goes first")
        elif len(gathering.problems) > problems_before:
            continue
        elif in_environ is not None:
            gathering.give(name, Secret(str(in_environ).strip()), variable)
            gathering.warnings.append(f"{name}: {variable} is visible to child processes; {_where_secrets_go(name)}")
        elif "." in name:
            continue  # nothing but alerts need it, and they only if they are wanted
        elif environment is Environment.PAPER:
            # The paper broker takes any.
            gathering.give(name, Secret(f"paper-{name.replace('_', '-')}"), "placeholder for paper")
        elif environment is not None:  # without one it is not known whether secrets are needed
            gathering.problems.append(f"{name}: missing; {_where_secrets_go(name)}")


def _credential(gathering: _Gathering, name: str) -> str | None:
    """The content of the credential file, None if there is none; a file that cannot serve is a problem."""
    directory = gathering.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return None
    path = Path(directory) / CREDENTIALS[name]
    try:
        with path.open("rb") as file:
            raw = file.read(_SECRET_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        gathering.problems.append(f"{name}: {path} cannot be read: {error.strerror}")
        return None
    secret = raw.decode(errors="replace").strip()
    # It travels in JSON and headers; a line break or control character means the wrong file.
    if not secret or not secret.isascii() or not secret.isprintable() or len(raw) > _SECRET_MAX_BYTES:
        gathering.problems.append(f"{name}: {path} must hold one line of plain text")
        return None
    return secret


def _fill_addresses(gathering: _Gathering, environment: Environment | None) -> None:
    if environment is None:
        return
    for name, url in _FIXED_URLS.get(environment, {}).items():
        gathering.give_default(name, url, f"fixed for {environment}")


def _fill_paths(gathering: _Gathering) -> None:
    environ = gathering.environ
    # systemd lists several directories with colons; ours is the first.
    state_directory = environ.get("STATE_DIRECTORY", "").split(":")[0]
    xdg = _xdg_dir(environ, "XDG_STATE_HOME", ".local/state")
    if state_directory:
        gathering.give_default("data_dir", state_directory, "STATE_DIRECTORY")
    elif xdg is not None:
        gathering.give_default("data_dir", str(xdg / "otocod"), "default")
    for name in ("data_dir", "queue", "socket"):
        value = gathering.given.get(name)
        if isinstance(value, str) and value.startswith("~/") and environ.get("HOME"):
            gathering.given[name] = environ["HOME"] + value[1:]
    data_dir = gathering.given.get("data_dir")
    if isinstance(data_dir, str) and data_dir.startswith("/"):
        gathering.give_default("queue", str(Path(data_dir) / "queue" / "queue.db"), "default")
        gathering.give_default("socket", str(Path(data_dir) / "otocod.sock"), "default")


def _validated(gathering: _Gathering) -> dict[str, Any]:
    """Every setting that is right by itself, converted; the others become problems."""
    valid: dict[str, Any] = {}
    for name in ABOUT:
        if name not in gathering.given:
            if name in _REQUIRED and not _explained_elsewhere(name, gathering):
                gathering.problems.append(f"{name}: missing; set it in otocod.toml or as {variable_of(name)}")
            continue
        value = gathering.given[name]
        try:
            valid[name] = _adapter(name).validate_python(value)
        except PydanticError as error:
            message = error.errors()[0]["msg"].replace("Input should be", "must be", 1)
            shown = "" if isinstance(value, Secret) else f", not {sanitise(repr(value), 80)}"
            gathering.problems.append(f"{name}: {message}{shown} ({gathering.sources[name]})")
    return valid


# `required` is not asked of sections' fields: they all have defaults.
_REQUIRED = frozenset(name for name, info in Settings.model_fields.items() if info.is_required())


def _explained_elsewhere(name: str, gathering: _Gathering) -> bool:
    """A setting whose absence has been, or will be, reported by its own rule or follows from another problem."""
    if name in CREDENTIALS:
        return True
    if name in ("queue", "socket"):
        return True  # they follow from data_dir
    # Whether addresses are needed depends on the environment.
    return name in ("api_url", "streamer_url") and _environment_of(gathering) is None


def _contradictions(valid: Mapping[str, Any]) -> list[str]:
    """Problems between settings that are right by themselves; settings that are missing are not judged."""
    environment = valid.get("environment")
    problems: list[str] = []
    for name in ("api_url", "streamer_url"):
        if environment is not None and name in valid:
            problem = _address_problem(environment, name, valid[name])
            if problem:
                problems.append(f"{name}: {problem}")
    return [*problems, *_path_problems(valid), *_alert_problems(valid), *_port_problems(valid)]


def _port_problems(valid: Mapping[str, Any]) -> Iterator[str]:
    token = valid.get("web.token")
    if token is not None and len(token.reveal()) < _WEB_TOKEN_MIN:
        yield f"web.token: must have at least {_WEB_TOKEN_MIN} characters; make one with: openssl rand -hex 32"
    if valid.get("web.port") and valid["web.port"] == valid.get("metrics.port"):
        yield "web.port: is the port of the metrics too; give each its own"


def _alert_problems(valid: Mapping[str, Any]) -> Iterator[str]:
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
    if host and security is SmtpSecurity.NONE and not _is_loopback(host):
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
    return host is not None and (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _address_problem(environment: Environment, name: str, url: str) -> str | None:
    fixed = _FIXED_URLS.get(environment, {}).get(name)
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
    return _is_loopback(host)


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


def _warn(gathering: _Gathering, valid: Mapping[str, Any]) -> None:
    size = len(os.fsencode(valid["socket"]))
    if size > _SOCKET_PATH_MAX_BYTES:
        gathering.warnings.append(
            f"socket: the path has {size} bytes; other programs can connect to at most {_SOCKET_PATH_MAX_BYTES}"
        )


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        section, _, key = name.rpartition(".")
        if section:
            nested.setdefault(section, {})[key] = value
        else:
            nested[key] = value
    return nested


def _value(settings: Settings, name: str) -> Any:
    return functools.reduce(getattr, name.split("."), settings)


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return sanitise(str(value))
