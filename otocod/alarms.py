"""Every alarm there is: its name, how bad it is, and what it says in one line.

`docs/runbook.md` has a section for each; a test compares the two, and both with the code that raises alarms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How soon a person must look. Only CRITICAL breaks quiet hours."""

    WARNING = "warning"  # healed or being healed; look within days
    ERROR = "error"  # look today
    CRITICAL = "critical"  # money is at risk now, or nobody is watching it

    @property
    def rank(self) -> int:
        return _RANKS[self]


_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


@dataclass(frozen=True, slots=True)
class About:
    severity: Severity
    meaning: str
    is_outside: bool = False  # raised by a program beside the daemon, through `otocod alerts raise`


_WARNING, _ERROR, _CRITICAL = Severity.WARNING, Severity.ERROR, Severity.CRITICAL

# In alphabetical order.
ALARMS: Mapping[str, About] = {
    "audit_failed": About(_CRITICAL, "the audit found a broken invariant, or could not be carried out", True),
    "backup_failed": About(_ERROR, "a backup of state.db could not be made or is not good", True),
    "cancel_stuck": About(_ERROR, "an order does not go away although it was cancelled several times"),
    "changed_outside": About(_ERROR, "somebody changed the position or an exit at the broker"),
    "clock_drift": About(_WARNING, "this machine's clock and the broker's differ"),
    "close_failed": About(_ERROR, "a close that was asked for did not work"),
    "close_slow": About(_ERROR, "a close has not filled after many tries"),
    "disk_full": About(_CRITICAL, "the disk is full: no new entries, exits go on"),
    "double_exit": About(_CRITICAL, "target and stop have both filled: a position the wrong way may be open"),
    "entry_filled_late": About(_CRITICAL, "an entry that was taken for dead has filled: it is being protected"),
    "entry_given_up": About(_ERROR, "an entry's outcome stayed unknown and no trace of it was found"),
    "entry_refused": About(_WARNING, "the broker did not take an entry"),
    "exit_alone": About(_WARNING, "only one exit rests at the broker: the other was refused"),
    "exit_ended": About(_WARNING, "the broker ended an exit by itself; it was sent again"),
    "exit_held": About(_CRITICAL, "an exit that waited for the session does not work although the market is open"),
    "exit_warned": About(_WARNING, "the broker accepted an exit with a warning that is not known here"),
    "filled_late": About(_CRITICAL, "a fill came for a bracket that was closed"),
    "fills_missing": About(_WARNING, "the fill prices of an entry are not known: exits wait for them"),
    "flattening": About(_CRITICAL, "an operator has every position closed"),
    "frozen": About(_CRITICAL, "a bracket is frozen: no new orders but protection until a person looks"),
    "last_trading_day": About(_WARNING, "a leg of an open position trades for the last time today"),
    "legs_uneven": About(_CRITICAL, "legs have filled out of ratio: what is open is no spread any more"),
    "limit_reached": About(_WARNING, "a risk limit holds new entries back"),
    "lock_lost": About(_CRITICAL, "the lock file is not ours any more: this daemon has stopped sending, and ends"),
    "login_refused": About(_CRITICAL, "the broker refuses the log-in: nothing can be sent"),
    "move_refused": About(_WARNING, "the broker refused to move an exit; it stays where it was"),
    "older_database": About(
        _CRITICAL, "the broker has orders of a bracket that this database has lost; taken in again"
    ),
    "order_denied": About(_CRITICAL, "the last gate stopped an order: a bug; its bracket is frozen"),
    "order_doubled": About(_CRITICAL, "the broker shows two orders with one identifier of ours"),
    "order_resurfaced": About(_ERROR, "an order that was given up has turned up at the broker"),
    "over_ceiling": About(_WARNING, "more orders than the ceilings allow: protection goes on, spaced out"),
    "position_gone": About(
        _ERROR, "a position left the account otherwise than by our orders, and its bracket has ended"
    ),
    "positions_disagree": About(_ERROR, "the broker's positions differ from our fills"),
    "queue_failed": About(_ERROR, "the queue's thread ran into a bug and goes on"),
    "queue_locked": About(_ERROR, "another program keeps the queue file locked"),
    "queue_moved_aside": About(_ERROR, "the queue file was not fit for use; a new one is in its place"),
    "queue_trouble": About(_ERROR, "the queue file cannot be read or written"),
    "quote_missing": About(_WARNING, "there are no quotes to price a close by"),
    "reconcile_stale": About(_ERROR, "no comparison with the broker has succeeded for long"),
    "rehearsal_differed": About(_CRITICAL, "orders left that the decision on the fill did not ask for: a bug"),
    "retention_failed": About(_WARNING, "old journals could not be archived, or old answers not taken away"),
    "status_unrecognised": About(_WARNING, "the broker uses an order status that is not known here"),
    "stop_jumped": About(_CRITICAL, "the market has jumped over a stop's limit and the stop has not filled"),
    "stop_watched": About(_ERROR, "no stop is accepted: it is watched for by otocod instead"),
    "store_failed": About(_CRITICAL, "the database refused a change: no new entries, exits go on"),
    "stranger": About(_CRITICAL, "an order with our source is not in this database: entries are halted"),
    "streamer_dead": About(_CRITICAL, "the account streamer has been away for long: fills are seen late"),
    "test": About(_WARNING, "somebody tries whether alerts arrive", True),
    "unit_failed": About(_CRITICAL, "a service of otocod has failed for systemd", True),
    "unknown_outcome": About(_CRITICAL, "the outcome of an order is still unknown past its window"),
    "unprotectable": About(_CRITICAL, "no exit was accepted after all tries: the position is being closed"),
    "unprotected": About(_CRITICAL, "no exit is accepted: the position is unprotected"),
    "unprotected_long": About(_CRITICAL, "a position has been unprotected for longer than its limit"),
    "unwatched": About(_ERROR, "there are no usable quotes to watch an exit by"),
    "walk_stands": About(_WARNING, "a walk has come to a step and there are no usable quotes to go by"),
}


def severity_of(code: str) -> Severity:
    """A code that is not in the list was written by another release: an error until a person knows better."""
    about = ALARMS.get(code)
    return Severity.ERROR if about is None else about.severity
