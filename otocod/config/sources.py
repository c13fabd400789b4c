"""Where settings come from: the file, the environment, the credentials of systemd, and what follows from those."""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError as PydanticError

from otocod.config.settings import ABOUT, CREDENTIALS, SECTIONS, Settings, adapter
from otocod.config.values import Environment, Secret
from otocod.text import sanitise

SYSTEM_CONFIG = Path("/etc/otocod/otocod.toml")

_PREFIX = "OTOCOD_"
_SECTION_SEPARATOR = "__"
# Variables that share the prefix and are no settings: where the file is, and what tests and drills set.
_NO_SETTINGS = re.compile(r"OTOCOD_(CONFIG|CRASH_.*|TEST_.*)")
# A secret is one short line; a device or a wrong file given by mistake is not read to its end.
_SECRET_MAX_BYTES = 16 * 1024
FIXED_URLS: Mapping[Environment, Mapping[str, str]] = {
    Environment.SANDBOX: {
        "api_url": "https://api.cert.tastyworks.com",
        "streamer_url": "wss://streamer.cert.tastyworks.com",
    },
    Environment.PRODUCTION: {
        "api_url": "https://api.tastyworks.com",
        "streamer_url": "wss://streamer.tastyworks.com",
    },
}


@dataclass(slots=True)
class Gathering:
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


def gather(config: Path | None, environ: Mapping[str, str]) -> tuple[Gathering, Environment | None]:
    gathering = Gathering(environ)
    _gather_file(gathering, config)
    _gather_environ(gathering)
    environment = _environment_of(gathering)
    _gather_secrets(gathering, environment)
    return gathering, environment


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


def _gather_file(gathering: Gathering, config: Path | None) -> None:
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


def _flattened(document: Mapping[str, object], gathering: Gathering, where: str) -> Iterator[tuple[str, object]]:
    for key, value in document.items():
        if isinstance(value, dict) and key not in ABOUT:
            yield from ((f"{key}.{inner}", each) for inner, each in value.items()) if value else ((key, value),)
        elif key in SECTIONS:
            gathering.problems.append(f"{key}: must be a table, [{key}], in {where}")
        else:
            yield key, value


def _gather_environ(gathering: Gathering) -> None:
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


def _environment_of(gathering: Gathering) -> Environment | None:
    """The environment if it is a known one; other rules depend on it. A wrong one is reported with all fields."""
    try:
        return Environment(str(gathering.given.get("environment")))
    except ValueError:
        return None


def _where_secrets_go(name: str) -> str:
    return f"put it into the file {CREDENTIALS[name]} in $CREDENTIALS_DIRECTORY (systemd: LoadCredential=)"


def _gather_secrets(gathering: Gathering, environment: Environment | None) -> None:
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


def _credential(gathering: Gathering, name: str) -> str | None:
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


def fill_addresses(gathering: Gathering, environment: Environment | None) -> None:
    if environment is None:
        return
    for name, url in FIXED_URLS.get(environment, {}).items():
        gathering.give_default(name, url, f"fixed for {environment}")


def fill_paths(gathering: Gathering) -> None:
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


def validated(gathering: Gathering) -> dict[str, Any]:
    """Every setting that is right by itself, converted; the others become problems."""
    valid: dict[str, Any] = {}
    for name in ABOUT:
        if name not in gathering.given:
            if name in _REQUIRED and not _explained_elsewhere(name, gathering):
                gathering.problems.append(f"{name}: missing; set it in otocod.toml or as {variable_of(name)}")
            continue
        value = gathering.given[name]
        try:
            valid[name] = adapter(name).validate_python(value)
        except PydanticError as error:
            message = error.errors()[0]["msg"].replace("Input should be", "must be", 1)
            shown = "" if isinstance(value, Secret) else f", not {sanitise(repr(value), 80)}"
            gathering.problems.append(f"{name}: {message}{shown} ({gathering.sources[name]})")
    return valid


# `required` is not asked of sections' fields: they all have defaults.
_REQUIRED = frozenset(name for name, info in Settings.model_fields.items() if info.is_required())


def _explained_elsewhere(name: str, gathering: Gathering) -> bool:
    """A setting whose absence has been, or will be, reported by its own rule or follows from another problem."""
    if name in CREDENTIALS:
        return True
    if name in ("queue", "socket"):
        return True  # they follow from data_dir
    # Whether addresses are needed depends on the environment.
    return name in ("api_url", "streamer_url") and _environment_of(gathering) is None
