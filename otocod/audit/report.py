"""What the audit is told by the broker and what it answers with. Plain values: nothing of the daemon's core."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str  # S1 to S16, or `record`
    bracket_id: str | None
    text: str  # one line: what is wrong, with ids and numbers


@dataclass(frozen=True, slots=True)
class AuditReport:
    violations: tuple[Violation, ...]
    checked: Mapping[str, int]  # what was looked at -> how many
    broker_asked: bool


@dataclass(frozen=True, slots=True)
class BrokerLeg:
    symbol: str
    action: str | None  # the broker's word; None: not told
    quantity: int
    filled: int  # by its fills
    fill_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BrokerOrder:
    """One order as the broker's listing shows it."""

    account: str
    broker_order_id: str
    external_identifier: str | None
    source: str | None
    status: str  # the broker's word
    is_terminal: bool
    replaces: str | None = None  # broker order ids
    replaced_by: str | None = None
    legs: tuple[BrokerLeg, ...] = ()

    def filled(self, symbol: str) -> int:
        """Filled quantity of a leg. `Filled` speaks for all legs, even while only one leg's fills are listed."""
        return sum(leg.quantity if self.status == "Filled" else leg.filled for leg in self.legs if leg.symbol == symbol)


def broker_order_from_json(plain: Mapping[str, Any]) -> BrokerOrder:
    """From an object with the fields of BrokerOrder, `legs` being objects with the fields of BrokerLeg."""
    legs = tuple(
        BrokerLeg(leg["symbol"], leg["action"], leg["quantity"], leg["filled"], tuple(leg["fill_ids"]))
        for leg in plain["legs"]
    )
    return BrokerOrder(**{name: value for name, value in plain.items() if name != "legs"}, legs=legs)
