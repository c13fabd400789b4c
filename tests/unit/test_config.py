import copy
import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import pytest

from otocod import config
from otocod.config import ConfigInvalid, Environment, Loaded, LogFormat, Secret, describe, load_settings, sources

PAPER = {
    "OTOCOD_ENVIRONMENT": "paper",
    "OTOCOD_ACCOUNTS": "5WT00001",
    "OTOCOD_API_URL": "http://127.0.0.1:8000",
    "OTOCOD_STREAMER_URL": "ws://127.0.0.1:8001",
    "OTOCOD_DATA_DIR": "/srv/otocod",
}
CANARY = "canary-7f3a91"


@pytest.fixture(autouse=True)
def no_system_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's own settings file must not matter; returns the path that stands for it."""
    path = tmp_path / "etc" / "otocod.toml"
    monkeypatch.setattr(sources, "SYSTEM_CONFIG", path)
    return path


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    directory = tmp_path / "credentials"
    directory.mkdir()
    (directory / "otocod-client-secret").write_text(f"{CANARY}-client\n")
    (directory / "otocod-refresh-token").write_text(f"{CANARY}-refresh\n")
    return directory


def live(environment: str, credentials: Path, **more: str) -> dict[str, str]:
    return {
        "OTOCOD_ENVIRONMENT": environment,
        "OTOCOD_ACCOUNTS": "5WT00001",
        "OTOCOD_DATA_DIR": "/srv/otocod",
        "CREDENTIALS_DIRECTORY": str(credentials),
    } | more


def problems(environ: Mapping[str, str], file: Path | None = None) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        load_settings(file, environ)
    return "\n".join(caught.value.problems)


def written(directory: Path, text: str) -> Path:
    path = directory / "otocod.toml"
    path.write_text(text)
    return path


def test_paper_needs_only_addresses_and_accounts_and_the_rest_has_the_documented_defaults() -> None:
    settings = load_settings(None, PAPER).settings
    assert settings.environment is Environment.PAPER
    assert settings.accounts == ("5WT00001",)
    assert settings.queue == Path("/srv/otocod/queue/queue.db")
    assert settings.wake == Path("/srv/otocod/queue/wake")
    assert settings.socket == Path("/srv/otocod/otocod.sock")
    assert settings.state_db == Path("/srv/otocod/state.db")
    assert settings.lock == Path("/srv/otocod/lock")
    assert (settings.reconcile_interval_s, settings.request_timeout_s) == (15, 10)
    assert (settings.heartbeat_interval_s, settings.unprotected_limit_s) == (20, 5)
    assert (settings.on_double_exit, settings.on_unprotectable) == ("alert", "close")
    assert (settings.orders_per_minute, settings.orders_per_bracket) == (120, 12)
    assert settings.client_secret.reveal() and settings.refresh_token.reveal()


def test_settings_cannot_be_changed() -> None:
    settings = load_settings(None, PAPER).settings
    with pytest.raises(ValueError, match="frozen"):
        settings.accounts = ()  # type: ignore[misc]


def test_environment_overrides_file_and_sources_say_so(tmp_path: Path) -> None:
    file = written(tmp_path, 'accounts = ["A1", "A2"]\norders_per_minute = 7\n[accept_versions]\npaper = "20250813"\n')
    environ = {k: v for k, v in PAPER.items() if k != "OTOCOD_ACCOUNTS"} | {"OTOCOD_ORDERS_PER_MINUTE": "9"}
    loaded = load_settings(file, environ)
    assert loaded.settings.accounts == ("A1", "A2")
    assert loaded.settings.orders_per_minute == 9
    assert loaded.settings.accept_version == "20250813"
    assert loaded.sources["accounts"] == str(file)
    assert loaded.sources["accept_versions.paper"] == str(file)
    assert loaded.sources["orders_per_minute"] == "OTOCOD_ORDERS_PER_MINUTE"
    assert loaded.sources["orders_per_bracket"] == "default"


def test_section_is_set_by_a_variable_with_two_underscores_and_empty_means_none() -> None:
    assert load_settings(None, PAPER).settings.accept_version == "20261012"
    assert load_settings(None, PAPER | {"OTOCOD_ACCEPT_VERSIONS__PAPER": ""}).settings.accept_version is None
    assert "accept_versions.paper: must be a date" in problems(PAPER | {"OTOCOD_ACCEPT_VERSIONS__PAPER": "today"})


def test_accounts_are_comma_separated_in_the_environment() -> None:
    assert load_settings(None, PAPER | {"OTOCOD_ACCOUNTS": "A1, A2,"}).settings.accounts == ("A1", "A2")


@pytest.mark.parametrize("accounts", [" , ", "A1,A1", "A1/../A2", "A1 A2"])
def test_accounts_that_cannot_be_are_refused(accounts: str) -> None:
    assert problems(PAPER | {"OTOCOD_ACCOUNTS": accounts}).startswith("accounts: ")


def test_file_is_looked_for_in_the_documented_order(tmp_path: Path, no_system_config: Path) -> None:
    named, variable, user = tmp_path / "named.toml", tmp_path / "variable.toml", tmp_path / "xdg/otocod/otocod.toml"
    for number, path in enumerate((named, variable, no_system_config, user), start=1):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"orders_per_minute = {number}")
    environ = PAPER | {"OTOCOD_CONFIG": str(variable), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}

    def orders_per_minute(named: Path | None, environ: Mapping[str, str]) -> int:
        return load_settings(named, environ).settings.orders_per_minute

    assert orders_per_minute(named, environ) == 1
    assert orders_per_minute(None, environ) == 2
    del environ["OTOCOD_CONFIG"]
    assert orders_per_minute(None, environ) == 3
    no_system_config.unlink()
    assert orders_per_minute(None, environ) == 4
    del environ["XDG_CONFIG_HOME"]
    assert orders_per_minute(None, environ | {"HOME": str(tmp_path)}) == 120
    (tmp_path / ".config").symlink_to(tmp_path / "xdg")
    assert orders_per_minute(None, environ | {"HOME": str(tmp_path)}) == 4


def test_named_file_must_exist_and_be_toml(tmp_path: Path) -> None:
    assert "cannot be read" in problems(PAPER, tmp_path / "absent.toml")
    assert "is not TOML" in problems(PAPER, written(tmp_path, "a = 1\na = 2\n"))


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    file = written(tmp_path, 'order_per_minute = 5\non_double_exit = "panic"\naccept_versions = "x"\n[limits]\nx = 1\n')
    found = problems(
        {
            "OTOCOD_ENVIRONMENT": "production",
            "OTOCOD_API_URL": "http://127.0.0.1:1",
            "OTOCOD_RECONCILE_INTERVAL_S": "0.5",
            "OTOCOD_ACOUNTS": "A1",
            "OTOCOD_REFRESH_TOKEN": CANARY,
        },
        file,
    )
    for expected in (
        f"order_per_minute: unknown setting in {file}; did you mean orders_per_minute?",
        "on_double_exit: must be 'alert' or 'flatten', not 'panic'",
        "accept_versions: must be a table",
        "limits.x: unknown setting",
        "api_url: is fixed to https://api.tastyworks.com for production",
        "reconcile_interval_s: must be between 1 and 300 s, not '0.5' (OTOCOD_RECONCILE_INTERVAL_S)",
        "OTOCOD_ACOUNTS: unknown setting in the environment; did you mean OTOCOD_ACCOUNTS?",
        "client_secret: missing",
        "refresh_token: OTOCOD_REFRESH_TOKEN is refused in production",
        "accounts: missing",
        "data_dir: missing",
    ):
        assert expected in found
    assert CANARY not in found


def test_missing_everything_names_what_is_needed_and_nothing_that_follows_from_it() -> None:
    found = problems({}).splitlines()
    assert [line.partition(":")[0] for line in found] == ["environment", "accounts", "data_dir"]


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("RECONCILE_INTERVAL_S", "1", "300"),
        ("HEARTBEAT_INTERVAL_S", "2", "60"),
        ("REQUEST_TIMEOUT_S", "0.1", "120"),
        ("UNPROTECTED_LIMIT_S", "0.1", "600"),
        ("ORDERS_PER_MINUTE", "1", "100000"),
        ("ORDERS_PER_BRACKET", "1", "10000"),
    ],
)
def test_ranges_include_their_ends_and_nothing_beyond(name: str, low: str, high: str) -> None:
    for inside in (low, high):
        load_settings(None, PAPER | {f"OTOCOD_{name}": inside})
    for outside in (f"-{low}", "0", f"{high}1", "nan", "inf", "many"):
        assert problems(PAPER | {f"OTOCOD_{name}": outside}).startswith(f"{name.lower()}: ")


def test_true_is_not_the_number_one(tmp_path: Path) -> None:
    assert "reconcile_interval_s: must be a number" in problems(PAPER, written(tmp_path, "reconcile_interval_s = true"))


@pytest.mark.parametrize(
    ("environment", "api_url", "streamer_url", "version"),
    [
        ("sandbox", "https://api.cert.tastyworks.com", "wss://streamer.cert.tastyworks.com", None),
        ("production", "https://api.tastyworks.com", "wss://streamer.tastyworks.com", "20261012"),
    ],
)
def test_addresses_of_the_broker_are_fixed(
    credentials: Path, environment: str, api_url: str, streamer_url: str, version: str | None
) -> None:
    settings = load_settings(None, live(environment, credentials)).settings
    assert (settings.api_url, settings.streamer_url, settings.accept_version) == (api_url, streamer_url, version)
    load_settings(None, live(environment, credentials, OTOCOD_API_URL=api_url + "/"))
    found = problems(live(environment, credentials, OTOCOD_STREAMER_URL="ws://127.0.0.1:1"))
    assert found.startswith(f"streamer_url: is fixed to {streamer_url}")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.tastyworks.com",
        "http://127.0.0.1.example.com",
        "http://127.0.0.1@example.com",
        "http://user@127.0.0.1",
        "http://0.0.0.0:80",
        "http://127.0.0.1:99999",
        "http://[::1",
        "ws://127.0.0.1",
        "file:///127.0.0.1",
        "127.0.0.1:80",
    ],
)
def test_paper_refuses_every_address_but_loopback(url: str) -> None:
    assert problems(PAPER | {"OTOCOD_API_URL": url}).startswith("api_url: must be http:// or https:// on loopback")


@pytest.mark.parametrize("url", ["http://localhost:1", "http://[::1]:1", "http://127.8.0.1", "https://127.0.0.1:1"])
def test_paper_takes_loopback_in_any_form(url: str) -> None:
    assert load_settings(None, PAPER | {"OTOCOD_API_URL": url}).settings.api_url == url


def test_paper_needs_its_addresses() -> None:
    environ = {k: v for k, v in PAPER.items() if not k.endswith("_URL")}
    assert [line.partition(":")[0] for line in problems(environ).splitlines()] == ["api_url", "streamer_url"]


@pytest.mark.covers("F118")
def test_secrets_come_from_credential_files_and_show_nowhere(credentials: Path) -> None:
    loaded = load_settings(None, live("production", credentials))
    assert loaded.settings.client_secret.reveal() == f"{CANARY}-client"
    assert loaded.settings.refresh_token.reveal() == f"{CANARY}-refresh"
    assert loaded.warnings == ()
    shown = [
        repr(loaded),
        str(loaded.settings),
        f"{loaded.settings.client_secret}{loaded.settings.client_secret:>40}",
        str(loaded.settings.model_dump()),
        str(describe(loaded.settings, loaded.sources)),
    ]
    assert not any(CANARY in text for text in shown)
    rows = {row.name: row for row in describe(loaded.settings, loaded.sources)}
    assert rows["client_secret"].value == "******"
    assert rows["client_secret"].source == "credential otocod-client-secret"


def test_secret_cannot_be_written_by_pickle_or_json_and_compares_by_value() -> None:
    secret = Secret(CANARY)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)
    with pytest.raises(TypeError):
        copy.copy(secret)
    assert secret == Secret(CANARY)
    assert secret != Secret("other")


def test_secrets_in_the_environment_work_with_a_warning_outside_production(tmp_path: Path) -> None:
    secrets = {"OTOCOD_CLIENT_SECRET": CANARY, "OTOCOD_REFRESH_TOKEN": CANARY}
    environ = {k: v for k, v in live("sandbox", tmp_path).items() if k != "CREDENTIALS_DIRECTORY"}
    loaded = load_settings(None, environ | secrets)
    assert loaded.settings.client_secret.reveal() == CANARY
    assert len(loaded.warnings) == 2
    assert CANARY not in str(loaded.warnings)


def test_secrets_in_the_environment_are_refused_in_production_even_beside_files(credentials: Path) -> None:
    found = problems(live("production", credentials, OTOCOD_CLIENT_SECRET=CANARY))
    assert found.startswith("client_secret: OTOCOD_CLIENT_SECRET is refused in production")
    assert CANARY not in found


def test_secret_in_the_settings_file_is_refused(tmp_path: Path) -> None:
    found = problems(PAPER, written(tmp_path, f'client_secret = "{CANARY}"'))
    assert found.startswith("client_secret: a secret does not belong in")
    assert CANARY not in found


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"\xff\xfe", b"x" * 20_000])
def test_credential_file_that_is_not_one_line_of_text_is_refused(credentials: Path, content: bytes) -> None:
    (credentials / "otocod-refresh-token").write_bytes(content)
    assert problems(live("sandbox", credentials)).endswith("otocod-refresh-token must hold one line of plain text")


def test_data_dir_is_resolved_in_the_documented_order(tmp_path: Path) -> None:
    environ = PAPER | {"STATE_DIRECTORY": "/var/lib/otocod:/var/lib/other", "XDG_STATE_HOME": "/x", "HOME": "/home/a"}

    def data_dir(loaded: Loaded) -> Path:
        return loaded.settings.data_dir

    assert data_dir(load_settings(None, environ)) == Path("/srv/otocod")
    del environ["OTOCOD_DATA_DIR"]
    assert data_dir(load_settings(None, environ)) == Path("/var/lib/otocod")
    assert data_dir(load_settings(written(tmp_path, 'data_dir = "~/d"'), environ)) == Path("/home/a/d")
    del environ["STATE_DIRECTORY"]
    assert data_dir(load_settings(None, environ)) == Path("/x/otocod")
    del environ["XDG_STATE_HOME"]
    assert data_dir(load_settings(None, environ)) == Path("/home/a/.local/state/otocod")
    assert problems(environ | {"HOME": ""}).startswith("data_dir: missing")


def test_relative_and_clashing_paths_are_refused() -> None:
    assert problems(PAPER | {"OTOCOD_DATA_DIR": "state"}).startswith("data_dir: must be an absolute path")
    assert "is the state database" in problems(PAPER | {"OTOCOD_SOCKET": "/srv/otocod/state.db"})
    assert "is a file of the queue" in problems(PAPER | {"OTOCOD_SOCKET": "/srv/otocod/queue/wake"})
    assert "a directory of its own" in problems(PAPER | {"OTOCOD_QUEUE": "/srv/otocod/queue.db"})


def test_socket_path_that_clients_cannot_use_is_warned_of() -> None:
    loaded = load_settings(None, PAPER | {"OTOCOD_SOCKET": "/" + "s" * 107})
    assert loaded.warnings == ("socket: the path has 108 bytes; other programs can connect to at most 107",)


def test_log_format_follows_the_terminal_unless_set() -> None:
    assert load_settings(None, PAPER, on_terminal=True).settings.log_format is LogFormat.CONSOLE
    assert load_settings(None, PAPER).settings.log_format is LogFormat.JSON
    set_json = PAPER | {"OTOCOD_LOG_FORMAT": "json"}
    assert load_settings(None, set_json, on_terminal=True).settings.log_format is LogFormat.JSON


def test_empty_variable_counts_as_not_set_and_foreign_ones_are_ignored() -> None:
    environ = PAPER | {"OTOCOD_ORDERS_PER_MINUTE": "", "OTOCOD_CRASH_AT": "x", "OTOCODE": "x"}
    assert load_settings(None, environ).settings.orders_per_minute == 120


def test_hostile_values_reach_the_report_without_escapes() -> None:
    assert "\x1b" not in problems(PAPER | {"OTOCOD_ON_DOUBLE_EXIT": "\x1b[2J", "OTOCOD_\x1b[2J": "x"})


def test_every_setting_is_described_with_meaning_and_source() -> None:
    loaded = load_settings(None, PAPER)
    rows = describe(loaded.settings, loaded.sources)
    assert all(row.meaning and row.source for row in rows)
    assert {row.name for row in rows} == set(loaded.sources)
    by_name = {row.name: row for row in rows}
    assert (by_name["reconcile_interval_s"].value, by_name["reconcile_interval_s"].unit) == ("15", "s")
    assert by_name["api_url"].source == "OTOCOD_API_URL"


@pytest.mark.covers("F103")
def test_reload_applies_what_may_change_live_and_names_the_rest() -> None:
    current = load_settings(None, PAPER).settings
    fresh = load_settings(None, PAPER | {"OTOCOD_ORDERS_PER_MINUTE": "5", "OTOCOD_ACCOUNTS": "A1,A2"}).settings
    reloaded = config.reload(current, fresh)
    assert reloaded.applied == ("orders_per_minute",)
    assert reloaded.needs_restart == ("accounts",)
    assert reloaded.settings.orders_per_minute == 5
    assert reloaded.settings.accounts == current.accounts
    assert config.reload(current, current) == config.Reloaded(current, (), ())


# Limits, alerts and metrics.


def test_alerts_limits_and_metrics_are_off_unless_asked_for() -> None:
    settings = load_settings(None, PAPER).settings
    assert settings.alerts.secrets == ()
    assert settings.alerts.quiet_hours is None
    assert settings.metrics.port == 0
    assert not any(settings.limits.model_dump().values())


def test_alert_secrets_come_from_credentials_and_are_never_shown(credentials: Path) -> None:
    (credentials / "otocod-webhook-url").write_text(f"https://example.org/{CANARY}\n")
    (credentials / "otocod-smtp-password").write_text(f"{CANARY}-smtp\n")
    more = {
        "OTOCOD_ALERTS__SMTP_HOST": "mail.example.org",
        "OTOCOD_ALERTS__SMTP_USER": "me",
        "OTOCOD_ALERTS__EMAIL_FROM": "a@example.org",
        "OTOCOD_ALERTS__EMAIL_TO": "b@example.org, c@example.org",
    }
    loaded = load_settings(None, live("production", credentials, **more))
    assert loaded.settings.alerts.secrets == (f"https://example.org/{CANARY}", f"{CANARY}-smtp")
    assert loaded.settings.alerts.email_to == ("b@example.org", "c@example.org")
    assert CANARY not in str(describe(loaded.settings, loaded.sources))
    assert CANARY not in repr(loaded.settings)


def test_alert_secrets_are_refused_in_the_file_and_in_production_s_environment(
    tmp_path: Path, credentials: Path
) -> None:
    file = written(tmp_path, '[alerts]\nwebhook_url = "https://example.org/x"\n')
    assert "alerts.webhook_url: a secret does not belong in" in problems(PAPER, file)
    environ = live("production", credentials, OTOCOD_ALERTS__DEADMAN_URL="https://example.org/ping")
    assert "alerts.deadman_url: OTOCOD_ALERTS__DEADMAN_URL is refused in production" in problems(environ)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"WEBHOOK_URL": "http://example.org/x"}, "alerts.webhook_url: must be an https:// address"),
        ({"DEADMAN_URL": "ftp://example.org/x"}, "alerts.deadman_url: must be an https:// address"),
        ({"SMTP_HOST": "mail.example.org"}, "alerts.email_from and alerts.email_to are needed"),
        ({"EMAIL_TO": "a@example.org"}, "alerts.smtp_host is needed"),
        ({"EMAIL_TO": "no address"}, "no e-mail address"),
        ({"EMAIL_FROM": "a@example.org\nBcc: b@example.org"}, "no e-mail address"),
        (
            {"SMTP_HOST": "mail.example.org", "EMAIL_FROM": "a@b.c", "EMAIL_TO": "a@b.c", "SMTP_SECURITY": "none"},
            "clear",
        ),
        ({"SMTP_USER": "me"}, "belong together"),
        ({"QUIET_FROM": "22:00"}, "quiet_from and quiet_until belong together"),
        ({"QUIET_FROM": "25:00", "QUIET_UNTIL": "06:00"}, "HH:MM"),
        ({"QUIET_ZONE": "Mars/Olympus"}, "time zone"),
        ({"WEBHOOK_TOKEN": "canary-token"}, "no alerts.webhook_url"),
        ({"APPRISE_URLS": "mailto://x"}, "pip install 'otocod[apprise]'"),
        ({"STREAMER_DEAD_S": "0"}, "must be between 1 and 3600"),
    ],
)
def test_alert_settings_that_cannot_work_are_named(settings: dict[str, str], words: str) -> None:
    found = problems(PAPER | {f"OTOCOD_ALERTS__{name}": value for name, value in settings.items()})
    assert words in found
    assert "canary" not in found


def test_limits_are_money_and_counts_and_may_change_while_it_runs(tmp_path: Path) -> None:
    text = "[limits]\nrisk_per_day = 500.50\nopen_brackets = 3\n[metrics]\nport = 9400\n"
    before = load_settings(None, PAPER).settings
    after = load_settings(written(tmp_path, text), PAPER).settings
    assert str(after.limits.risk_per_day) == "500.5"
    reloaded = config.reload(before, after)
    assert set(reloaded.applied) == {"limits.risk_per_day", "limits.open_brackets"}
    assert reloaded.needs_restart == ("metrics.port",)
    assert reloaded.settings.limits == after.limits
    assert reloaded.settings.metrics == before.metrics
    for wrong in ("-1", "true", "nan", "many"):
        assert "limits.risk_per_day" in problems(PAPER | {"OTOCOD_LIMITS__RISK_PER_DAY": wrong})


# The web page.


def test_web_page_is_off_and_on_loopback_unless_asked_for() -> None:
    settings = load_settings(None, PAPER).settings
    assert (settings.web.port, settings.web.listen, settings.web.hosts, settings.web.token) == (
        0,
        "127.0.0.1",
        (),
        None,
    )
    assert settings.web_token == settings.data_dir / "web-token"


def test_web_token_comes_from_a_credential_and_is_never_shown(credentials: Path) -> None:
    (credentials / "otocod-web-token").write_text(f"{CANARY}-{'x' * 20}\n")
    environ = live("production", credentials, OTOCOD_WEB__PORT="8443", OTOCOD_WEB__HOSTS="Box.example.net, b.c")
    loaded = load_settings(None, environ)
    assert loaded.settings.web.hosts == ("box.example.net", "b.c")
    assert f"{CANARY}-{'x' * 20}" in loaded.settings.secrets
    assert CANARY not in str(describe(loaded.settings, loaded.sources))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"LISTEN": "0.0.0.0"}, "an address of this machine alone"),
        ({"LISTEN": "192.168.1.4"}, "an address of this machine alone"),
        ({"LISTEN": "localhost"}, "an address of this machine alone"),
        ({"HOSTS": "https://box"}, "no host name"),
        ({"HOSTS": "box:8443"}, "no host name"),
        ({"TOKEN": "short"}, "at least 20 characters"),
        ({"PORT": "70000"}, "must be between 0 and 65535"),
        ({"PORT": "9400"}, "the port of the metrics too"),
    ],
)
def test_web_settings_that_cannot_work_are_named(settings: dict[str, str], words: str) -> None:
    environ = PAPER | {"OTOCOD_METRICS__PORT": "9400"}
    found = problems(environ | {f"OTOCOD_WEB__{name}": value for name, value in settings.items()})
    assert words in found
    assert "short" not in found
