"""The audit: are the invariants kept, by the database alone or held against the broker's own record?

It shares no code with the daemon's decisions. It reads what is on disk, adds up fills for itself and judges the result,
so that a mistake in the core is not repeated by its checker. Rules are named as the safety invariants are: S1, S2, ...;
`record` is for a database that contradicts itself. Not judged here: S11 beyond what one file shows, S13 (ceilings are
settings, not state) and S16 (secrets in outputs).
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from otocod.adapters.sqlite.readmodel import open_readonly
from otocod.audit.broker import broker_violations
from otocod.audit.database import bracket_violations, database_violations
from otocod.audit.history import history_violations
from otocod.audit.record import StoredBracket, Unreadable, read_brackets, read_identifiers
from otocod.audit.report import AuditReport, BrokerLeg, BrokerOrder, Violation, broker_order_from_json

__all__ = [
    "AuditReport",
    "BrokerLeg",
    "BrokerOrder",
    "Violation",
    "audit",
    "audit_database",
    "broker_order_from_json",
]


def audit_database(path: Path) -> list[Violation]:
    """Judges the database alone, at this moment. Raises FileNotFoundError, or sqlite3.Error if it cannot be read."""
    return list(audit(path, None, None, now_us=time.time_ns() // 1_000).violations)


def audit(
    path: Path,
    broker_orders: Sequence[BrokerOrder] | None,
    positions: Mapping[str, Mapping[str, int]] | None,
    *,
    now_us: int,
) -> AuditReport:
    """Judges state.db as it is now, and against the broker's orders and positions where they are given.

    broker_orders: a listing begun at `now_us` or just before this call. It may reach back less far than the database:
    what it does not hold is not judged by it. positions: account -> symbol -> quantity, long positive, short negative.
    Blocking: one or two milliseconds a bracket, mostly for its journal. Raises FileNotFoundError or sqlite3.Error.
    """
    violations: list[Violation] = []
    brackets: list[StoredBracket] = []
    counts = {"brackets": 0, "orders": 0, "fills": 0, "journal rows": 0}
    with closing(open_readonly(path)) as connection:
        # One transaction: all queries see the same moment of the file, and the daemon writes on meanwhile.
        connection.execute("BEGIN")
        identifiers = read_identifiers(connection)
        violations.extend(database_violations(connection, identifiers))
        for found in read_brackets(connection):
            counts["brackets"] += 1
            if isinstance(found, Unreadable):
                violations.append(Violation("record", found.bracket_id, found.why))
                continue
            bracket, journal = found
            counts["orders"] += len(bracket.orders)
            counts["fills"] += sum(len(order.fills_table) for order in bracket.orders)
            counts["journal rows"] += len(journal)
            violations.extend(bracket_violations(bracket, identifiers, now_us=now_us))
            violations.extend(history_violations(bracket, journal))
            brackets.append(bracket)
    counts["still settling"] = sum(not bracket.is_closed and bracket.is_settling(now_us) for bracket in brackets)
    if broker_orders is not None or positions is not None:
        violations.extend(broker_violations(brackets, identifiers, broker_orders or (), positions or {}, now_us=now_us))
        counts["broker orders"] = len(broker_orders or ())
    return AuditReport(
        violations=tuple(violations),
        checked=counts,
        broker_asked=broker_orders is not None,
    )
