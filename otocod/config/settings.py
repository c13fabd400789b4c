"""Every setting, section by section: its type, default, range and meaning."""

import functools
from collections.abc import Mapping
from datetime import time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from otocod.config.values import (
    About,
    AbsolutePath,
    AcceptVersion,
    AccountNumbers,
    EmailAddress,
    EmailAddresses,
    Environment,
    Hosts,
    LogFormat,
    LogLevel,
    LoopbackAddress,
    Money,
    OnDoubleExit,
    OnUnprotectable,
    Secret,
    SmtpSecurity,
    TimeOfDay,
    Url,
    Zone,
)


class AcceptVersions(BaseModel):
    """Section `accept_versions`: the API version asked for, per environment; empty sends no `Accept-Version` header."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # 20261012 is the newest version of the order API; without the header the oldest is served.
    paper: Annotated[AcceptVersion, About("API version asked of the paper broker", "YYYYMMDD")] = "20261012"
    # The sandbox has answered order placement with 404 when the header was present.
    sandbox: Annotated[AcceptVersion, About("API version asked of the sandbox", "YYYYMMDD")] = None
    production: Annotated[AcceptVersion, About("API version asked of production", "YYYYMMDD")] = "20261012"


class LimitSettings(BaseModel):
    """Section `limits`: what new entries may add up to; 0 is no limit. They never hold back an exit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    open_brackets: Annotated[int, About("most brackets open at once", "brackets, 0: any", 0, 1_000_000, live=True)] = 0
    open_contracts: Annotated[
        int, About("most contracts of all legs in open brackets", "contracts, 0: any", 0, 10_000_000, live=True)
    ] = 0
    risk_per_bracket: Annotated[
        Money, About("most that one bracket may lose", "dollars, 0: any", 0, 1_000_000_000, live=True)
    ] = Decimal(0)
    risk_per_day: Annotated[
        Money, About("most that the brackets entered in one day may lose", "dollars, 0: any", 0, 1e9, live=True)
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
    email_from: Annotated[EmailAddress, About("sender of alerts")] = ""
    email_to: Annotated[EmailAddresses, About("who gets alerts by e-mail")] = ()
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
    quiet_from: Annotated[TimeOfDay, About("only critical alerts from then on; empty: always all", "HH:MM")] = ""
    quiet_until: Annotated[TimeOfDay, About("and from then on all again", "HH:MM")] = ""
    quiet_zone: Annotated[Zone, About("time zone of the quiet hours")] = "UTC"

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


class WebSettings(BaseModel):
    """Section `web`: a page that shows and changes nothing, on loopback."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    port: Annotated[int, About("port that serves the web page; 0: none", "", 0, 65535)] = 0
    listen: Annotated[LoopbackAddress, About("loopback address it is served at")] = "127.0.0.1"
    hosts: Annotated[Hosts, About("names under which a proxy on this machine serves it by https")] = ()
    token: Annotated[
        Secret | None, About("what it is logged into with; credential otocod-web-token, else made in data_dir")
    ] = None


class Settings(BaseSettings):
    """Everything an operator can set. Made by `load_settings`; all paths and addresses are resolved."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True, validate_default=False
    )

    environment: Annotated[Environment, About("which broker: paper, sandbox or production")]
    accounts: Annotated[AccountNumbers, About("account numbers that may be traded")]
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
SECTIONS: Mapping[str, type[BaseModel]] = {
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
        section = SECTIONS.get(name)
        fields = {name: info} if section is None else {f"{name}.{k}": v for k, v in section.model_fields.items()}
        for full_name, each in fields.items():
            found[full_name] = next(entry for entry in each.metadata if isinstance(entry, About))
    return found


ABOUT: Mapping[str, About] = _about_settings()


@functools.cache
def adapter(name: str) -> TypeAdapter[Any]:
    section, _, key = name.rpartition(".")
    info = (SECTIONS[section] if section else Settings).model_fields[key]
    # Settings are checked one by one, so that the check of all together can run although some are wrong.
    return TypeAdapter(
        Annotated[(info.annotation, *info.metadata)],  # type: ignore[arg-type]  # a type made at run time
        config=ConfigDict(arbitrary_types_allowed=True, hide_input_in_errors=True),
    )
