"""Settings: one frozen object, built once, validated whole, passed down as parts; nothing else reads the environment.

Values come, later over earlier, from defaults, `otocod.toml` and `OTOCOD_*` variables. Secrets come from files that
systemd hands over, because an environment is inherited by children and shown by tools.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otocod.config.rules import alert_problems, contradictions, warnings_of
from otocod.config.settings import ABOUT, CREDENTIALS, AlertSettings, LimitSettings, Settings
from otocod.config.sources import config_path, fill_addresses, fill_paths, gather, validated, variable_of
from otocod.config.values import MASK, ConfigInvalid, Environment, LogFormat, Secret, SmtpSecurity
from otocod.text import sanitise

__all__ = [
    "ABOUT",
    "CREDENTIALS",
    "MASK",
    "AlertSettings",
    "ConfigInvalid",
    "Described",
    "Environment",
    "LimitSettings",
    "Loaded",
    "LogFormat",
    "Reloaded",
    "Secret",
    "Settings",
    "SmtpSecurity",
    "config_path",
    "describe",
    "load_alerts",
    "load_settings",
    "reload",
    "variable_of",
]


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


def load_settings(config: Path | None, environ: Mapping[str, str], *, on_terminal: bool = False) -> Loaded:
    """Read and check everything. `config` is the file named on the command line, if one was.

    `on_terminal`: standard error is a terminal, which decides the default of `log_format`.
    Raises ConfigInvalid with every problem found. Creates nothing and connects to nothing.
    """
    gathering, environment = gather(config, environ)
    fill_addresses(gathering, environment)
    fill_paths(gathering)
    gathering.give_default("log_format", "console" if on_terminal else "json", "default")
    valid = validated(gathering)
    gathering.problems.extend(contradictions(valid))
    if gathering.problems:
        raise ConfigInvalid(tuple(gathering.problems))
    gathering.warnings.extend(warnings_of(valid))
    sources = {name: gathering.sources.get(name, "default") for name in ABOUT}
    return Loaded(Settings(**_nested(valid)), sources, tuple(gathering.warnings))


def load_alerts(config: Path | None, environ: Mapping[str, str]) -> tuple[AlertSettings, str]:
    """Where alarms go and the environment's name, whatever is wrong with the other settings: those may be the alarm.

    Raises ConfigInvalid with what is wrong with the section itself.
    """
    gathering, environment = gather(config, environ)
    gathering.problems.clear()
    valid = validated(gathering)
    problems = [each for each in gathering.problems if each.startswith("alerts.")] + list(alert_problems(valid))
    if problems:
        raise ConfigInvalid(tuple(problems))
    section = {name.removeprefix("alerts."): value for name, value in valid.items() if name.startswith("alerts.")}
    return AlertSettings(**section), environment.value if environment is not None else "unknown"


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
