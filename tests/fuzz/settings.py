"""Settings: a file of any bytes and an environment of any words, through `load_settings` to `config show`.

They are taken whole, or refused with every problem in lines that can be printed; a secret is in none of them.
"""

import json
import tempfile
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from otocod.config import ABOUT, ConfigInvalid, describe, load_settings, reload, variable_of
from tests.fuzz.harness import Case
from tests.fuzz.mutation import HOSTILE_TEXTS, HOSTILE_TOKENS, mutate_bytes, mutate_text, noise

_CANARY = "canary-8c1f"
_NAMES = tuple(ABOUT)
_VALUES = (
    *("paper", "sandbox", "production", "5WT00001,5WT00002", "http://127.0.0.1:8080", "ws://[::1]:9/s", "http://[::1"),
    *("https://api.tastyworks.com", "http://127.0.0.1:99999", "http://localhost@evil/", "/var/lib/otocod", "~/x", "x"),
    *("relative/path", "/" + "x" * 300, "10", "0.1", "-1", "1e3", "nan", "inf", "alert", "flatten", "close", "json"),
    *("console", "info", "true", "22:00", "25:61", "587", "a@b", "https://hooks.example/x", "[1,2]", "{}", "\x00"),
)
_TOML_VALUES = (
    *('"x"', '["5WT00001"]', "[]", "[[]]", "{}", "{a=1}", "1", "1.5", "-1", "inf", "nan", "true", "2026-11-23"),
    *("2026-11-23T15:00:00Z", "15:00:00", "0x10", "1_000", "'''\n'''", '"""\\u0000"""', '"\\ud800"', "9" * 30),
    *("9" * 5000, "[" * 2000 + "]" * 2000, '"\\U0001F600"', '""', "{a={b={c=1}}}"),
)


class Settings:
    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="otocod-fuzz-")
        self._home = Path(self._directory.name)
        self._file = self._home / "otocod.toml"
        credentials = self._home / "credentials"
        credentials.mkdir()
        self._credential = credentials / "otocod-client-secret"
        self._given = {
            "HOME": str(self._home),
            "OTOCOD_CLIENT_SECRET": _CANARY,
            "OTOCOD_REFRESH_TOKEN": _CANARY,
        }
        self._good = load_settings(None, self._given | _paper_variables()).settings

    def close(self) -> None:
        self._directory.cleanup()

    def case(self, rng: Random) -> Case:
        choice = rng.random()
        if choice < 0.1:
            return Case(
                "credential",
                noise(rng) if rng.random() < 0.5 else rng.choice(HOSTILE_TEXTS[:30]).encode("utf-8", "replace"),
            )
        if choice < 0.45:
            return Case("variables", json.dumps(_variables(rng)).encode())
        text = _toml(rng)
        choice = rng.random()
        if choice < 0.5:
            return Case("file", text.encode("utf-8", "surrogatepass"))
        if choice < 0.85:
            return Case("file", mutate_text(rng, text).encode("utf-8", "surrogatepass"))
        return Case("file", mutate_bytes(rng, text.encode("utf-8", "surrogatepass")))

    def check(self, case: Case) -> str:
        environ = dict(self._given)
        config: Path | None = None
        if case.kind == "variables":
            environ |= _paper_variables() | _read_variables(case.content)
        elif case.kind == "file":
            config = self._file
            config.write_bytes(case.content)
        else:
            self._credential.write_bytes(case.content)
            environ |= _paper_variables() | {"CREDENTIALS_DIRECTORY": str(self._credential.parent)}
        try:
            loaded = load_settings(config, environ)
        except ConfigInvalid as invalid:
            assert invalid.problems
            _check_lines(invalid.problems)
            return f"{case.kind} refused"
        _check_lines(loaded.warnings)
        for row in describe(loaded.settings, loaded.sources):
            _check_lines((row.name, row.value, row.unit, row.source, row.meaning))
        reloaded = reload(self._good, loaded.settings)
        assert set(reloaded.applied).isdisjoint(reloaded.needs_restart)
        settings = loaded.settings
        assert settings.data_dir.is_absolute() and "\x00" not in str(settings.data_dir)
        host = urlsplit(settings.api_url).hostname or ""
        assert settings.environment != "paper" or host == "localhost" or ip_address(host).is_loopback
        return f"{case.kind} taken"


def _check_lines(lines: tuple[str, ...]) -> None:
    for line in lines:
        assert line.isprintable(), line
        assert _CANARY not in line, line


def _paper_variables() -> dict[str, str]:
    return {
        "OTOCOD_ENVIRONMENT": "paper",
        "OTOCOD_ACCOUNTS": "5WT00001",
        "OTOCOD_API_URL": "http://127.0.0.1:8080",
        "OTOCOD_STREAMER_URL": "ws://127.0.0.1:8081/streamer",
        "OTOCOD_DATA_DIR": "/var/lib/otocod",
    }


def _variables(rng: Random) -> dict[str, str]:
    variables = {}
    for _ in range(rng.randrange(1, 4)):
        name = rng.choice(_NAMES)
        variable = variable_of(name) if rng.random() < 0.9 else "OTOCOD_" + rng.choice(("X", "ACCOUNT", "__", "A__B"))
        value = rng.choice((*_VALUES, *HOSTILE_TEXTS, *HOSTILE_TOKENS))
        # No environment holds a NUL, or what has no bytes.
        variables[variable] = value.replace("\x00", "").encode("utf-8", "replace").decode()
    return variables


def _read_variables(content: bytes) -> dict[str, str]:
    try:
        tree: Any = json.loads(content)
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in tree.items()} if isinstance(tree, dict) else {}


def _toml(rng: Random) -> str:
    lines = {"environment": '"paper"', "accounts": '["5WT00001"]', "api_url": '"http://127.0.0.1:8080"'}
    lines |= {"streamer_url": '"ws://127.0.0.1:8081"', "data_dir": '"/var/lib/otocod"'}
    sections: dict[str, dict[str, str]] = {}
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        name = rng.choice(_NAMES)
        value = _toml_value(rng)
        section, _, key = name.rpartition(".")
        (sections.setdefault(section, {}) if section else lines)[key] = value
    if rng.random() < 0.1:
        lines[rng.choice(("x", "accout", '"a.b"', '""', '"\\u001b[2J"', "a.b.c"))] = _toml_value(rng)
    if rng.random() < 0.2:
        del lines[rng.choice(list(lines))]
    text = "".join(f"{key} = {value}\n" for key, value in lines.items())
    for section, fields in sections.items():
        text += f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in fields.items())
    return text


def _toml_value(rng: Random) -> str:
    choice = rng.random()
    if choice < 0.4:
        return rng.choice(_TOML_VALUES)
    if choice < 0.7:
        return json.dumps(rng.choice(_VALUES))
    return json.dumps(rng.choice(HOSTILE_TEXTS[:-1]))
