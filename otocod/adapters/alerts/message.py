"""An alert as people and programs read it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from otocod import __version__, logs
from otocod.adapters.sqlite.readmodel import at_text
from otocod.alarms import ALARMS, Severity
from otocod.text import sanitise

_TEXT_LIMIT = 1_000
_SUBJECT_LIMIT = 160
RUNBOOK = "docs/runbook.md"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alarm to be sent. `seq` is None for one that the database did not take."""

    seq: int | None
    at_us: int
    code: str
    severity: Severity
    text: str
    bracket_id: str | None = None
    client_ref: str | None = None
    tries: int = 0  # failed ones so far
    unsaved: int = 0  # tells those without `seq` apart


@dataclass(frozen=True, slots=True)
class Origin:
    """Who is speaking."""

    host: str
    environment: str
    instance: str  # of this state.db, for ever: with an alert's number it names the alert


@dataclass(frozen=True, slots=True)
class Message:
    """Alerts that travel together, the worst first."""

    origin: Origin
    alerts: tuple[Alert, ...]

    @property
    def key(self) -> str:
        """The same for the same alerts and for no others: a receiver may drop what it has had."""
        names = "+".join(self._id(alert) for alert in self.alerts)
        return hashlib.sha256(names.encode()).hexdigest()[:32]

    @property
    def count(self) -> int:
        return len(self.alerts)

    @property
    def worst(self) -> Severity:
        return max((alert.severity for alert in self.alerts), key=lambda severity: severity.rank)

    @property
    def subject(self) -> str:
        first = self.alerts[0]
        more = f" (and {self.count - 1} more)" if self.count > 1 else ""
        return _fit(f"otocod {self.worst.upper()}: {first.code}{more}: {first.text}", _SUBJECT_LIMIT)

    @property
    def text(self) -> str:
        """Plain text for a person, ends in a line break."""
        lines: list[str] = []
        for alert in self.alerts:
            lines.append(f"{alert.severity.upper()}  {alert.code}  {at_text(alert.at_us)}")
            lines.append(f"  {_fit(alert.text, _TEXT_LIMIT)}")
            about = ALARMS.get(alert.code)
            if about is not None:
                lines.append(f"  ({about.meaning})")
            if alert.bracket_id is not None:
                ref = f", ref:{_fit(alert.client_ref, 200)}" if alert.client_ref else ""
                lines.append(f"  bracket {alert.bracket_id}{ref}: otocod explain {alert.bracket_id}")
            lines.append(f"  what to do: {RUNBOOK}#{alert.code}")
            lines.append("")
        lines.append(f"otocod {__version__} on {self.origin.host}, {self.origin.environment}")
        return "\n".join(lines) + "\n"

    def as_json(self) -> dict[str, Any]:
        """The body of the webhook. `text` alone suffices for chat services."""
        return {
            "version": 1,
            "text": self.subject,
            "severity": self.worst.value,
            "host": self.origin.host,
            "environment": self.origin.environment,
            "alerts": [
                {
                    "id": self._id(alert),
                    "at": at_text(alert.at_us),
                    "code": alert.code,
                    "severity": alert.severity.value,
                    "text": _fit(alert.text, _TEXT_LIMIT),
                    "bracket_id": alert.bracket_id,
                    "client_ref": None if alert.client_ref is None else _fit(alert.client_ref, 200),
                    "runbook": f"{RUNBOOK}#{alert.code}",
                }
                for alert in self.alerts
            ],
        }

    def _id(self, alert: Alert) -> str:
        number = f"unsaved-{alert.at_us}-{alert.unsaved}" if alert.seq is None else str(alert.seq)
        return f"{self.origin.instance}-{number}"


def _fit(text: str | None, limit: int) -> str:
    """Stripped of what a terminal would obey, secrets and account numbers masked."""
    return sanitise(logs.masked(sanitise(text or "", 4 * limit)), limit)


def message_of(origin: Origin, alerts: Sequence[Alert]) -> Message:
    """The worst first, then in the order in which they were raised."""
    ordered = sorted(alerts, key=lambda alert: (-alert.severity.rank, alert.at_us, alert.seq or 0))
    return Message(origin, tuple(ordered))
