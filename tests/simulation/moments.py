"""Rules of a moment: what was true when each order of ours was accepted, and when each record was committed.

The end of a run shows what came of it; most mistakes are made good by then, at a risk that nobody asked for. Like the
checker this shares no code with the daemon.
"""

from collections import Counter, defaultdict
from typing import Any

from otocod.ports.store import BracketChange, Change
from tests.simulation.checker import Books
from tests.simulation.plan import Plan
from tests.simulation.world import World

Json = dict[str, Any]

_TERMINAL = frozenset({"Filled", "Cancelled", "Expired", "Rejected", "Removed", "Partially Removed"})
# An order that comes later than this after it was sent may have been given up, and another sent in its place.
_LATE_US = 9_000_000
# A fill on its way to the daemon is no excuse for ever, but the orders that it overtakes left before it was known.
_NEWS_US = 30_000_000

_HURRY = 6
# A cancel so soon after a move was accepted belongs to the move.
_MOVE_US = 5_000_000
_CANCELS = ("cancel-requested", "cancel-refused")


class WatchedWorld(World):
    """Keeps beside each record that became durable how long the exchange's log was then."""

    def __init__(self, plan: Plan, *, keeps_trace: bool = False) -> None:
        super().__init__(plan, keeps_trace=keeps_trace)
        self.history: list[Json] = []

    def committed(self, change: Change, error: Exception | None) -> None:
        super().committed(change, error)
        if error is None and isinstance(change, BracketChange):
            self.history.append(_plain_change(change, len(self.exchange.log)))


def _plain_change(change: BracketChange, log_length: int) -> Json:
    after = change.after
    return {
        "log": log_length,
        "bracket_id": str(after.bracket_id),
        "state": str(after.state),
        "outcome": None if after.outcome is None else str(after.outcome),
        "orders": {
            str(view.broker_order_id): {
                "role": str(order.role),
                "status": view.status_text,
            }
            for order in after.orders
            for view in order.views
        },
    }


def moments(truth: Json, dump: Json, history: list[Json]) -> list[str]:
    books = Books(truth, dump)
    found = [*_false_ratio(truth, books), *_dead_groups(books)]
    if "second_daemon" in truth["classes"]:
        return found  # each of two does what it would do alone, until one of them finds that it is fenced off
    return [
        *found,
        *_second_entries(truth, dump),
        *_hurried(truth, dump),
        *_moves_taken_back(truth, books),
        *_Replay(truth, books).found(),
        *_ended_too_early(truth, books, history),
    ]


def _ended_too_early(truth: Json, books: Books, history: list[Json]) -> list[str]:
    """S8 at the moment of CLOSED, by the exchange and by the record itself."""
    found: list[str] = []
    last: dict[str, str] = {}
    excused = {*truth["doubled"], *truth["late"], *_slow(truth)}
    for record in history:
        bracket_id = record["bracket_id"]
        before, last[bracket_id] = last.get(bracket_id), record["state"]
        if record["state"] != "CLOSED" or before == "CLOSED" or record["outcome"] in (None, "RELEASED"):
            continue
        ref = books.brackets[bracket_id]["client_ref"]
        entries = [o for o in record["orders"].values() if o["role"] == "entry"]
        if record["outcome"] == "ENTRY_NOT_FILLED" and any(o["status"] == "Filled" for o in entries):
            found.append(f"{ref}: S8 CLOSED as ENTRY_NOT_FILLED, and its own record says Filled")
        status: dict[int, str] = {}
        for entry in truth["log"][: record["log"]]:
            if entry["event"] in ("accepted", "status"):
                status[entry["order-id"]] = entry["status"] or "Received"
        names = {n: books.accepted[n].get("external-identifier") for n in books.by_bracket[bracket_id]}
        living = [n for n, name in names.items() if name not in excused and status.get(n, "Filled") not in _TERMINAL]
        found += [f"{ref}: S8 CLOSED while order {n} ({books.kind(n)}) is {status[n]}" for n in living]
    return found


def _false_ratio(truth: Json, books: Books) -> list[str]:
    """Of legs out of ratio a person is told, and nothing else is asked of the bracket: so it must be true."""
    if truth["late_fills"]:
        return []
    found: list[str] = []
    for bracket_id, bracket in books.brackets.items():
        filled = books.filled(bracket_id, entries=True)
        shares = {filled[symbol] * bracket["size"] / quantity for symbol, quantity in bracket["legs"].items()}
        is_told = "the entry ended with legs out of ratio" in (bracket["attention"] or "")
        if is_told and len(shares) == 1:
            found.append(f"{bracket['client_ref']}: W told that the entry's legs are out of ratio: {dict(filled)}")
    return found


def _second_entries(truth: Json, dump: Json) -> list[str]:
    """The entry is sent once. Only a group that was refused goes again, as its entry alone."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for post in truth["posts"]:
        if post["role"] == "entry" and post["id"] in dump["ids"]:
            kinds[dump["ids"][post["id"]]].append(post["kind"])
    refs = {b["bracket_id"]: b["client_ref"] for b in dump["brackets"]}
    return [
        f"{refs.get(bracket_id)}: S3 the entry is sent {len(sent)} times ({', '.join(sent)})"
        for bracket_id, sent in kinds.items()
        if len(sent) > 2 or sent[1:] != ["submit"] * (len(sent) - 1) or (len(sent) == 2 and sent[0] == "submit")
    ]


def _dead_groups(books: Books) -> list[str]:
    """L2: children of an OTOCO act on their trigger's full fill only; after a part fill they rest for nothing."""
    found: list[str] = []
    for bracket_id, bracket in books.brackets.items():
        if bracket["state"] != "EXITS_LIVE" or not books.open_legs(bracket_id):
            continue
        dead = {
            books.orders[n].get("complex-order-id")
            for n in books.by_bracket[bracket_id]
            if books.is_entry(n) and books.orders[n]["status"] in _TERMINAL - {"Filled"}
        } - {None}
        living = [n for n in books.living(bracket_id) if not books.is_entry(n)]
        if living and all(books.orders[n].get("complex-order-id") in dead for n in living):
            found.append(f"{bracket['client_ref']}: L2 EXITS_LIVE by {living}, whose trigger never filled whole")
    return found


def _hurried(truth: Json, dump: Json) -> list[str]:
    """L6: a refused order goes again after a pause, or on the next rung; not as fast as the broker can say no."""
    times: dict[tuple[str, str], list[int]] = defaultdict(list)
    for post in truth["posts"]:
        if post["id"] in dump["ids"]:
            times[dump["ids"][post["id"]], post["role"]].append(post["at_us"])
    refs = {b["bracket_id"]: b["client_ref"] for b in dump["brackets"]}
    return [
        f"{refs.get(bracket_id)}: L6 the {role} is sent {_HURRY} times in a second"
        for (bracket_id, role), at in times.items()
        if any(later - earlier < 1_000_000 for earlier, later in zip(at, at[_HURRY - 1 :], strict=False))
    ]


def _moves_taken_back(truth: Json, books: Books) -> list[str]:
    """W: what an operator had moved and the broker has taken is not cancelled again while nothing else happens."""
    found: list[str] = []
    log, moves = truth["log"], {post["id"] for post in truth["posts"] if post["kind"] == "replace"}
    excused = {*truth["doubled"], *truth["late"], *_slow(truth)}
    for place, entry in enumerate(log):
        order_id, name = entry.get("order-id"), entry.get("external-identifier")
        if entry["event"] != "accepted" or name not in moves - excused:
            continue
        owner = books.owner(order_id)
        if owner is None or books.brackets[owner]["protection"] == "watched":
            continue  # where a target that was reached gives its place back to the stop
        both = (order_id, entry["replaces-order-id"])
        cancels = (e for e in log[place:] if e["event"] in _CANCELS and e["order-id"] in both)
        cancel = next(cancels, None)
        if cancel is None or cancel.get("by") != "api" or cancel["at_us"] > entry["at_us"] + _MOVE_US:
            continue
        since_us, until_us = entry["at_us"] - _MOVE_US, cancel["at_us"]
        if not _happenings(truth, books, owner, since_us, until_us, moved=entry["replaces-order-id"]):
            found.append(f"{books.brackets[owner]['client_ref']}: W order {order_id}, just moved, is taken away again")
    return found


def _happenings(truth: Json, books: Books, owner: str, since_us: int, until_us: int, *, moved: int) -> bool:
    """Whether a bracket had other news in this time than one word of an operator, and the end of what was moved."""
    its = set(books.by_bracket[owner])
    start_us = truth["start_us"]
    ends = [life["ended_us"] for life in truth["lives"] if life["ended_us"] is not None]
    acts = [act["at_us"] for act in truth["operated"] if act["bracket_id"] == owner]
    return (
        sum(since_us <= start_us + at_us <= until_us for at_us in acts) > 1
        or any(since_us <= start_us + at_us <= until_us for at_us in ends)
        or any(
            e["event"] == "fill" or e.get("by") == "user" or (e.get("by") == "broker" and e["order-id"] != moved)
            for e in truth["log"]
            if e.get("order-id") in its and since_us <= e["at_us"] <= until_us
        )
    )


class _Replay:
    def __init__(self, truth: Json, books: Books) -> None:
        self._log = truth["log"]
        self._books = books
        self._roles = {post["id"]: post["role"] for post in truth["posts"]}
        self._excused = {*truth["doubled"], *truth["late"], *_slow(truth)}
        self._status: dict[int, str] = {}
        self._filled: dict[int, Counter[str]] = defaultdict(Counter)
        self._fill_times: dict[int, list[tuple[int, str, int]]] = defaultdict(list)

    def found(self) -> list[str]:
        found: list[str] = []
        for entry in self._log:
            order_id = entry.get("order-id")
            match entry["event"]:
                case "status":
                    self._status[order_id] = entry["status"]
                case "fill":
                    self._filled[order_id][entry["symbol"]] += entry["quantity"]
                    self._fill_times[order_id].append((entry["at_us"], entry["symbol"], entry["quantity"]))
                case "accepted":
                    self._status[order_id] = entry["status"] or "Received"
                    found += self._accepted(entry)
        return found

    def _accepted(self, entry: Json) -> list[str]:
        order_id, name = entry["order-id"], entry.get("external-identifier") or ""
        owner = self._books.owner(order_id)
        if owner is None or entry.get("by") == "user" or name in self._excused or self._books.is_entry(order_id):
            return []
        if self._is_child_of_entry(owner, entry):
            return []
        ref = self._books.brackets[owner]["client_ref"]
        role = self._roles.get(name)
        others = [n for n in self._working_exits(owner) if n != order_id and n != entry.get("replaces-order-id")]
        others = [n for n in others if not self._is_excused(n)]
        if role == "close" and others:
            return [f"{ref}: S6 close {order_id} is sent while {others} may still fill"]
        if self._books.is_of_surplus(order_id):
            return self._surplus_close(owner, entry)
        open_legs = self._open_lately(owner, entry["at_us"])
        for leg in self._books.orders[order_id]["legs"]:
            symbol = leg["symbol"]
            resting = sum(self._left(n, symbol) for n in others if self._role(n) == role)
            if leg["quantity"] + resting > open_legs[symbol]:
                return [
                    f"{ref}: S6 {role} {order_id} for {leg['quantity']} of {symbol} is sent while {resting} rest"
                    f" and {open_legs[symbol]} are open"
                ]
        return []

    def _surplus_close(self, owner: str, entry: Json) -> list[str]:
        order_id, ref = entry["order-id"], self._books.brackets[owner]["client_ref"]
        open_legs = self._open_lately(owner, entry["at_us"] + _NEWS_US)
        return [
            f"{ref}: S5 close {order_id} of {leg['quantity']} {leg['symbol']}, {-open_legs[leg['symbol']]} are surplus"
            for leg in self._books.orders[order_id]["legs"]
            if leg["quantity"] > -open_legs[leg["symbol"]]
        ]

    def _is_child_of_entry(self, owner: str, entry: Json) -> bool:
        group = entry.get("complex-order-id")
        return group is not None and any(
            self._books.is_entry(n) and self._books.accepted[n].get("complex-order-id") == group
            for n in self._books.by_bracket[owner]
        )

    def _working_exits(self, owner: str) -> list[int]:
        return [
            n
            for n in self._books.by_bracket[owner]
            if n in self._status and self._status[n] not in _TERMINAL and not self._books.is_entry(n)
        ]

    def _role(self, order_id: int) -> str | None:
        """By the identifier it was sent on; an order moved by hand has that of the one it replaced."""
        entry: Json | None = self._books.accepted.get(order_id)
        while entry is not None:
            role = self._roles.get(entry.get("external-identifier") or "")
            if role is not None:
                return str(role)
            entry = self._books.accepted.get(entry.get("replaces-order-id") or 0)
        return None

    def _is_excused(self, order_id: int) -> bool:
        entry: Json | None = self._books.accepted.get(order_id)
        while entry is not None:
            if (entry.get("external-identifier") or "") in self._excused:
                return True
            entry = self._books.accepted.get(entry.get("replaces-order-id") or 0)
        return False

    def _left(self, order_id: int, symbol: str) -> int:
        asked = sum(leg["quantity"] for leg in self._books.orders[order_id]["legs"] if leg["symbol"] == symbol)
        return max(int(asked) - self._filled[order_id][symbol], 0)

    def _open_lately(self, owner: str, at_us: int) -> Counter[str]:
        """Per leg, entry fills less the exit fills that have had time to be heard of."""
        total: Counter[str] = Counter()
        for n in self._books.by_bracket[owner]:
            for filled_us, symbol, quantity in self._fill_times[n]:
                if self._books.is_entry(n) or self._books.is_of_surplus(n):
                    total[symbol] += quantity
                elif filled_us < at_us - _NEWS_US:
                    total[symbol] -= quantity
        return total


def _slow(truth: Json) -> set[str]:
    """Identifiers of requests that were long on their way."""
    accepted = {e.get("external-identifier"): e["at_us"] for e in reversed(truth["log"]) if e["event"] == "accepted"}
    return {
        post["id"]
        for post in truth["posts"]
        if accepted.get(post["id"], 0) - truth["start_us"] - post["at_us"] > _LATE_US
    }
