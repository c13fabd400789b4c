"""Settings of the faults, and the draw whether one strikes.

Nothing here touches a socket or a clock: `strike(name, subject)` answers with the fault's settings or None, and the
same seed, settings and sequence of subjects give the same answers. Each fault draws from a generator of its own, so
that switching one on does not move the draws of the others.

A setting is an object, for example `{"rate": 0.05, "count": 3, "match": {"order_type": "^Stop"}}`, or in short `true`
(always), `false` or null (off), or a whole number N (the next N opportunities). What is sent replaces what was set
for that fault; other faults stay.
"""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from otocod.paper.answers import Json
from otocod.paper.fault_catalogue import BY_NAME, COMMON_SETTINGS, FAULTS, MATCH_KEYS, FaultSpec, Setting

Subject = Mapping[str, str]
NOTHING: Subject = {}
_LIMIT = 1_000_000_000


class FaultsInvalid(ValueError):
    """A PATCH that was not applied; `problems` names everything wrong with it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(slots=True)
class ArmedFault:
    """One fault that may still strike."""

    rate: float
    next: int
    count: int | None  # strikes left; None is no limit
    match: dict[str, re.Pattern[str]]
    settings: dict[str, Setting]
    random: random.Random

    def strikes(self, subject: Subject) -> bool:
        if self.count == 0 or not all(pattern.search(subject.get(key, "")) for key, pattern in self.match.items()):
            return False
        if self.next > 0:
            self.next -= 1
        elif self.rate < 1 and self.random.random() >= self.rate:
            return False
        if self.count is not None:
            self.count -= 1
        return True


class Faults:
    """All faults of one paper broker."""

    def __init__(self, seed: int) -> None:
        self._randoms = {spec.name: random.Random(f"{spec.name}:{seed}") for spec in FAULTS}
        self._armed: dict[str, ArmedFault] = {}
        self.struck: dict[str, int] = {}

    @property
    def armed(self) -> bool:
        """False is the common case; callers may then skip building subjects."""
        return bool(self._armed)

    def is_armed(self, name: str) -> bool:
        return name in self._armed

    def setting(self, name: str, key: str) -> Setting | None:
        """A setting of an armed fault, for callers whose opportunity depends on it; None while it is not armed."""
        fault = self._armed.get(name)
        return None if fault is None else fault.settings[key]

    def strike(self, name: str, subject: Subject = NOTHING) -> Mapping[str, Setting] | None:
        """The fault's settings if it strikes this opportunity. Uses up one of `next` and of `count`."""
        fault = self._armed.get(name)
        if fault is None or not fault.strikes(subject):
            return None
        self.struck[name] = self.struck.get(name, 0) + 1
        if fault.count == 0 or (fault.next == 0 and fault.rate == 0):
            del self._armed[name]
        return fault.settings

    def patch(self, changes: object) -> None:
        """Sets the named faults, or raises FaultsInvalid with every problem and changes nothing."""
        if not isinstance(changes, Mapping):
            raise FaultsInvalid(["the body must be an object of faults"])
        problems: list[str] = []
        parsed: dict[str, ArmedFault | None] = {}
        for name, value in changes.items():
            spec = BY_NAME.get(name)
            if spec is None:
                problems.append(f"{name}: no such fault{_nearest(name, BY_NAME)}")
            else:
                parsed[name] = self._parse(spec, value, problems)
        if problems:
            raise FaultsInvalid(problems)
        for name, fault in parsed.items():
            if fault is None:
                self._armed.pop(name, None)
            else:
                self._armed[name] = fault

    def clear(self) -> None:
        self._armed.clear()

    def describe(self) -> Json:
        """Every fault with its present settings, what it does, and how often it struck."""
        return {spec.name: self._describe(spec) for spec in FAULTS}

    def _describe(self, spec: FaultSpec) -> Json:
        fault = self._armed.get(spec.name)
        described: Json = {
            "doc": spec.doc,
            "site": spec.site,
            "rate": 0 if fault is None else fault.rate,
            "next": 0 if fault is None else fault.next,
            "count": None if fault is None else fault.count,
            "match": dict(spec.match)
            if fault is None
            else {key: pattern.pattern for key, pattern in fault.match.items()},
            "match_keys": list(MATCH_KEYS[spec.site]),
            "struck": self.struck.get(spec.name, 0),
            **(spec.settings if fault is None else fault.settings),
        }
        if spec.choices:
            described["choices"] = {key: list(values) for key, values in spec.choices.items()}
        return described

    def _parse(self, spec: FaultSpec, value: object, problems: list[str]) -> ArmedFault | None:
        if value is None or value is False:
            return None
        if value is True:
            value = {"rate": 1}
        elif isinstance(value, int):
            value = {"next": value}
        if not isinstance(value, Mapping):
            problems.append(f"{spec.name}: must be true, false, null, a whole number or an object")
            return None
        known = (*COMMON_SETTINGS, *spec.settings)
        for key in value:
            if key not in known:
                problems.append(
                    f"{spec.name}.{key}: no such setting{_nearest(str(key), known)}; there are {', '.join(known)}"
                )
        fault = ArmedFault(
            rate=_rate(spec, value.get("rate", 0), problems),
            next=_whole(f"{spec.name}.next", value.get("next", 0), problems),
            count=None if value.get("count") is None else _whole(f"{spec.name}.count", value["count"], problems),
            match=_match(spec, value.get("match", spec.match), problems),
            settings={
                key: _setting(spec, key, value.get(key, default), problems) for key, default in spec.settings.items()
            },
            random=self._randoms[spec.name],
        )
        return fault if fault.count != 0 and (fault.rate > 0 or fault.next > 0) else None


def _rate(spec: FaultSpec, value: object, problems: list[str]) -> float:
    if isinstance(value, int | float) and 0 <= value <= 1:
        return float(value)
    # The control API reads JSON numbers as decimals so that prices stay exact.
    try:
        rate = float(str(value))
    except ValueError:
        rate = -1.0
    if isinstance(value, str) or not 0 <= rate <= 1:
        problems.append(f"{spec.name}.rate: must be a number from 0 to 1")
        return 0.0
    return rate


def _whole(where: str, value: object, problems: list[str]) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LIMIT:
        return value
    problems.append(f"{where}: must be a whole number, not negative")
    return 0


def _match(spec: FaultSpec, value: object, problems: list[str]) -> dict[str, re.Pattern[str]]:
    if not isinstance(value, Mapping):
        problems.append(f"{spec.name}.match: must be an object of regular expressions")
        return {}
    patterns: dict[str, re.Pattern[str]] = {}
    for key, text in value.items():
        allowed = MATCH_KEYS[spec.site]
        if key not in allowed:
            problems.append(
                f"{spec.name}.match.{key}: cannot be matched here; there are {', '.join(allowed) or 'none'}"
            )
        elif not isinstance(text, str):
            problems.append(f"{spec.name}.match.{key}: must be a string")
        else:
            try:
                patterns[key] = re.compile(text)
            except re.error as error:
                problems.append(f"{spec.name}.match.{key}: not a regular expression: {error}")
    return patterns


def _setting(spec: FaultSpec, key: str, value: object, problems: list[str]) -> Setting:
    default = spec.settings[key]
    where = f"{spec.name}.{key}"
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        problems.append(f"{where}: must be true or false")
    elif isinstance(default, int):
        return _whole(where, value, problems)
    elif not isinstance(value, str):
        problems.append(f"{where}: must be a string")
    elif key in spec.choices and value not in spec.choices[key]:
        problems.append(f"{where}: must be one of {', '.join(spec.choices[key])}")
    else:
        return value
    return default


def _nearest(name: str, known: object) -> str:
    close = difflib.get_close_matches(name, list(known), n=1) if isinstance(known, Mapping | tuple) else []
    return f", did you mean {close[0]}?" if close else ""
