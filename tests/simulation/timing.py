"""The judge's watch: what had to come about in time, by the exchange's log, where nothing went wrong around it.

A bound of the design holds on an ordinary day; a fault may cost what it costs. So a moment is judged only if nothing
struck within `_QUIET_US` before it and until the bound is over: the world notes the time of every fault, visit, race,
start and end of a run. What is judged under faults as well is that things come right once they stop (`checker`).
"""

import re
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from tests.simulation.checker import Books

Json = dict[str, Any]
_TERMINAL = frozenset({"Filled", "Cancelled", "Expired", "Rejected", "Removed", "Partially Removed"})
_SECOND_US = 1_000_000
_QUIET_US = 40 * _SECOND_US
_PROTECTED_US = 2 * _SECOND_US  # L2, from the end of the entry
_SIBLING_US = 5 * _SECOND_US  # L3, from the fill that leaves nothing open
_READY_US = 10 * _SECOND_US  # L5, with the patience for a stream that does not come
_READY_AFTER_FAULTS_US = 27 * _SECOND_US
_RECORD_US = 3 * _SECOND_US  # between the time without protection by the log and by the record
_LEG = re.compile(r"[A-Za-z ]+ (?P<quantity>[0-9]+) (?P<symbol>.+)")
_ALARM_US = 28 * _SECOND_US  # L8, beyond the limit of the settings: a fill that the stream lost is found by a sweep
# A daemon that cannot read cannot know.
_BLINDING = frozenset({"outage", "token_death", "reads_fail", "slow", "listing_lag"})
# Of these the exchange itself is slow or says no, all the time, without anything striking.
_SLOW_RULES = frozenset(
    {"position_lag", "refusals", "odd_rules", "listing_lag", "cancel_race", "closed_market", "hours"}
)
# Requests in ten seconds: sweeps, three reads for each order, and what an unknown outcome costs.
_MOST_REQUESTS = 150


def timing(truth: Json, dump: Json) -> list[str]:
    books = Books(truth, dump)
    quiet = _Quiet(truth)
    found = _ready(truth, quiet) + _requests(truth)
    # A close, or a target in the stop's place, covers what is open and is not what the request asks to rest.
    closing = {line["bracket_id"] for line in dump["journal"] if line["to"] == "CLOSING"}
    is_ordinary = not _SLOW_RULES.intersection(truth["classes"])
    if not is_ordinary and _BLINDING.intersection(truth["classes"]):
        return found
    for bracket_id, bracket in books.brackets.items():
        story = _Story(truth, books, bracket_id)
        if is_ordinary and not books.is_taken_by_hand(bracket_id):
            found += [f"{bracket['client_ref']}: {text}" for text in _in_time(truth, quiet, story, bracket_id)]
            if bracket_id not in closing and bracket["protection"] != "watched":
                found += [f"{bracket['client_ref']}: {text}" for text in _record(quiet, story, bracket)]
        if bracket["outcome"] != "RELEASED":  # what becomes of it then is nobody's here
            found += [f"{bracket['client_ref']}: {text}" for text in _alarmed(truth, story, bracket)]
    return found


class _Quiet:
    def __init__(self, truth: Json) -> None:
        self._strikes_us = sorted(truth["strikes_at_us"])
        self._ready = [
            (life["ready_us"], truth["end_us"] if life["ended_us"] is None else life["ended_us"])
            for life in truth["lives"]
            if life["ready_us"] is not None
        ]

    def is_quiet(self, from_us: int, to_us: int) -> bool:
        """Nothing struck, nor for a while before, and a daemon was ready throughout."""
        index = bisect_left(self._strikes_us, from_us - _QUIET_US)
        if index < len(self._strikes_us) and self._strikes_us[index] <= to_us:
            return False
        return self.is_attended(from_us, to_us)

    def is_attended(self, from_us: int, to_us: int) -> bool:
        return any(ready_us <= from_us and to_us <= ended_us for ready_us, ended_us in self._ready)


@dataclass
class _Moment:
    """What held from `at_us` on. `is_open`: the entry is over and something of it is open."""

    at_us: int
    has_fill: bool
    is_open: bool
    is_flat: bool
    is_covered: bool  # by exits that the broker has taken and that have not ended
    has_exit: bool
    is_over: bool  # exits of one kind work for more than is open


def _accepted_for(entry: Json) -> dict[str, int]:
    """Quantity by symbol of an order as it was accepted; the log writes `Buy to Close 2 AAPL  261218C00155000`."""
    found = (_LEG.fullmatch(leg) for leg in entry["legs"])
    return {leg["symbol"]: int(leg["quantity"]) for leg in found if leg is not None}


class _Story:
    """One bracket at the exchange, moment by moment; times are the run's."""

    def __init__(self, truth: Json, books: Books, bracket_id: str) -> None:
        self.moments: list[_Moment] = []
        self._books = books
        its = set(books.by_bracket[bracket_id])
        self._status: dict[int, str] = {}
        self._left: dict[int, Counter[str]] = {}
        self._covering: dict[int, Counter[str]] = {}
        self._opened: Counter[str] = Counter()
        self._closed: Counter[str] = Counter()
        for entry in sorted(truth["log"], key=itemgetter("at_us")):
            order_id = entry.get("order-id")
            if order_id not in its or entry["event"] not in ("accepted", "status", "fill"):
                continue
            self._learn(order_id, entry)
            moment = self._moment(entry["at_us"] - truth["start_us"])
            if self.moments and self.moments[-1].at_us == moment.at_us:
                self.moments.pop()
            self.moments.append(moment)

    def _learn(self, order_id: int, entry: Json) -> None:
        if entry["event"] == "fill":
            side = self._opened if self._books.is_entry(order_id) else self._closed
            side[entry["symbol"]] += -entry["quantity"] if self._books.is_of_surplus(order_id) else entry["quantity"]
            self._left[order_id][entry["symbol"]] -= entry["quantity"]
            self._covering[order_id][entry["symbol"]] -= entry["quantity"]
            return
        if entry["event"] == "accepted":
            order = self._books.orders[order_id]
            # The broker takes a group's member down by what the other has filled, and the log does not say when: it
            # covers at most what it was accepted for, and works for at least what it had in the end.
            self._left[order_id] = Counter({leg["symbol"]: leg["quantity"] for leg in order["legs"]})
            self._covering[order_id] = Counter(_accepted_for(entry))
        self._status[order_id] = entry["status"] or "Received"

    def _moment(self, at_us: int) -> _Moment:
        entries = [n for n in self._status if self._books.is_entry(n)]
        is_over = all(self._status[n] in _TERMINAL for n in entries)
        left = {s: q - self._closed[s] for s, q in self._opened.items() if q - self._closed[s] > 0}
        living = [n for n in self._status if n not in entries and self._status[n] not in _TERMINAL]
        exits = [n for n in living if not self._books.is_of_surplus(n)]
        cover: dict[str, Counter[str]] = {"stop": Counter(), "limit": Counter()}
        works: dict[str, Counter[str]] = {"stop": Counter(), "limit": Counter()}
        for n in exits:
            cover[self._books.kind(n)].update(self._covering[n])
            works[self._books.kind(n)].update(self._left[n])
        is_covered = any(all(of[s] >= q for s, q in left.items()) for of in cover.values())
        return _Moment(
            at_us,
            has_fill=bool(self._opened),
            is_open=bool(self._opened) and is_over and bool(left),
            is_flat=bool(self._opened) and is_over and not left,
            is_covered=is_covered,
            has_exit=bool(exits),
            is_over=is_over and any(of[s] > left.get(s, 0) for of in works.values() for s in of),
        )

    def at(self, at_us: int) -> _Moment | None:
        found = None
        for moment in self.moments:
            if moment.at_us > at_us:
                break
            found = moment
        return found

    def was_covered(self, from_us: int, to_us: int) -> bool:
        """At any moment of the time. Protection may have been there and given way to a close by then."""
        return any(moment.is_covered for moment in self.moments if from_us <= moment.at_us <= to_us)

    def stretches(self, end_us: int) -> list[tuple[_Moment, int]]:
        """Each moment and how long it lasted."""
        ends = [*(moment.at_us for moment in self.moments[1:]), end_us][: len(self.moments)]
        return [(moment, max(0, until_us - moment.at_us)) for moment, until_us in zip(self.moments, ends, strict=True)]


def _in_time(truth: Json, quiet: _Quiet, story: _Story, bracket_id: str) -> list[str]:
    found = []
    grace_us = int(truth["latency_ms"] * 8_000)  # four requests there and back
    spaced = {a["bracket_id"] for a in truth["alarms"] if a["code"] == "over_ceiling"}
    was_open = was_flat = False
    over_us: int | None = None
    for moment, length_us in story.stretches(truth["end_us"]):
        until_us = moment.at_us + length_us
        if moment.is_open and not was_open and bracket_id not in spaced:
            due_us = moment.at_us + _PROTECTED_US + grace_us
            then = story.at(due_us)
            is_judged = due_us < truth["end_us"] and quiet.is_quiet(moment.at_us, due_us)
            if is_judged and then is not None and then.is_open and not story.was_covered(moment.at_us, due_us):
                found.append(f"L2 no exit {(due_us - moment.at_us) / _SECOND_US:.1f} s after the end of its entry")
        if moment.is_over and moment.is_open:
            over_us = moment.at_us if over_us is None else over_us
            due_us = over_us + _SIBLING_US + grace_us
            if due_us < min(until_us, truth["end_us"]) and quiet.is_quiet(over_us, due_us):
                found.append("S6 exits work for more than is open, 5 s after the last fill")
        else:
            over_us = None
        if moment.is_flat and not was_flat:
            due_us = moment.at_us + _SIBLING_US + grace_us
            then = story.at(due_us)
            is_judged = due_us < truth["end_us"] and quiet.is_quiet(moment.at_us, due_us)
            if is_judged and then is not None and then.is_flat and then.has_exit:
                found.append("L3 an exit still works 5 s after the position was closed")
        was_open, was_flat = was_open or moment.is_open, moment.is_flat
    return found


def _record(quiet: _Quiet, story: _Story, bracket: Json) -> list[str]:
    """The time without protection that is told, against the log's: for a bracket that is over and had no trouble."""
    flat = next((moment for moment in story.moments if moment.is_flat), None)
    first = next((moment for moment in story.moments if moment.has_fill), None)
    if flat is None or first is None or bracket["is_unprotected"]:
        return []
    # The news of the last fill has to arrive, too: an outage a moment after it is counted as time without protection.
    if not quiet.is_quiet(first.at_us, flat.at_us + _RECORD_US):
        return []
    bare_us = sum(
        length_us
        for moment, length_us in story.stretches(flat.at_us)
        if first.at_us <= moment.at_us < flat.at_us and not moment.is_covered
    )
    told_us = bracket["unprotected_us"]
    if abs(told_us - bare_us) > _RECORD_US:
        return [
            f"L2 it says it was {told_us / _SECOND_US:.1f} s without protection; it was {bare_us / _SECOND_US:.1f} s"
        ]
    return []


def _alarmed(truth: Json, story: _Story, bracket: Json) -> list[str]:
    """A position that stands bare for longer than the limit, under a daemon that is there, is told of."""
    if _BLINDING.intersection(truth["classes"]):
        return []
    quiet = _Quiet(truth)
    since_us: int | None = None
    for moment, length_us in story.stretches(truth["end_us"]):
        if not moment.is_open or moment.has_exit:
            since_us = None
            continue
        since_us = moment.at_us if since_us is None else since_us
        until_us = moment.at_us + length_us
        if until_us - since_us < truth["unprotected_limit_us"] + _ALARM_US or not quiet.is_attended(since_us, until_us):
            continue
        if not any(
            alarm["bracket_id"] == bracket["bracket_id"] and alarm["at_us"] <= until_us for alarm in truth["alarms"]
        ):
            return [f"L8 no exit for {(until_us - since_us) / _SECOND_US:.1f} s, and nobody was told"]
    return []


def _ready(truth: Json, quiet: _Quiet) -> list[str]:
    found = []
    for life in truth["lives"]:
        began_us = max(life["started_us"], truth["calm_at_us"] or truth["end_us"])
        until_us = truth["end_us"] if life["ended_us"] is None else life["ended_us"]
        # What was asked for under faults may be answered long after them.
        bound_us = _READY_US if life["started_us"] >= began_us else _READY_AFTER_FAULTS_US
        is_late = until_us - began_us > bound_us and (
            life["ready_us"] is None or life["ready_us"] - began_us > bound_us
        )
        if is_late and not life["is_ousted"]:
            found.append(f"L5 run {life['number']} was not ready {bound_us / _SECOND_US:g} s after the faults stopped")
    return found


def _requests(truth: Json) -> list[str]:
    """Every retry has a budget: no ten seconds hold more requests than a daemon that knows what it does has need of."""
    counts = truth["requests"]
    most = _MOST_REQUESTS * (1 + len(truth["rows"]))
    for second in counts:
        n = sum(counts.get(second + more, 0) for more in range(10))
        if n > most:
            return [f"L6 {n} requests in ten seconds"]
    return []
