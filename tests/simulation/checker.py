"""The judge. It reads the exchange's truth log, its orders, and a plain dump of the database, and shares no code with
the daemon: every rule is written here again, from what must hold.
"""

from collections import Counter, defaultdict
from typing import Any

Json = dict[str, Any]

_TERMINAL = frozenset({"Filled", "Cancelled", "Expired", "Rejected", "Removed", "Partially Removed"})
_OURS = "otocod/"
_STATE_CHANGES = frozenset(
    {
        (None, "PENDING_ENTRY"),
        ("PENDING_ENTRY", "ENTRY_FILLED"),
        ("PENDING_ENTRY", "CLOSED"),
        ("ENTRY_FILLED", "EXITS_LIVE"),
        ("ENTRY_FILLED", "CLOSING"),
        ("ENTRY_FILLED", "CLOSED"),
        ("EXITS_LIVE", "ENTRY_FILLED"),
        ("EXITS_LIVE", "CLOSING"),
        ("EXITS_LIVE", "CLOSED"),
        ("CLOSING", "ENTRY_FILLED"),
        ("CLOSING", "CLOSED"),
        ("CLOSED", "ENTRY_FILLED"),
    }
)
_HANDED_OVER = frozenset({"RELEASED", "DOUBLE_EXIT"})
# What `attention` must speak of, for it to excuse something. Any other text is about another matter.
_TELLS_HELD = ("held, no new orders", "by hand", "positions differ")
_TELLS_FROZEN = ("out of ratio", "with one identifier", "frozen")
_TELLS_CLOSE = ("close", "closing the position")
_TELLS_OPEN = ("yours to close", "its position is not flat", "positions differ", "have filled", "close it by hand")
_TELLS_GONE = ("positions differ", "held, no new orders", "by hand", "no position")


class Books:
    """The truth sorted by bracket: each of our orders at the exchange, its role, its fills."""

    def __init__(self, truth: Json, dump: Json) -> None:
        self.orders: dict[int, Json] = {order["id"]: order for order in truth["orders"]}
        self.brackets: dict[str, Json] = {b["bracket_id"]: b for b in dump["brackets"]}
        self.ids: dict[str, str] = dump["ids"]
        self.positions: dict[str, int] = truth["positions"]
        self.accepted: dict[int, Json] = {e["order-id"]: e for e in truth["log"] if e["event"] == "accepted"}
        self.by_bracket: dict[str, list[int]] = defaultdict(list)
        self.strangers: list[int] = []
        self.gone = _taken_by_hand(truth["log"], self)
        self._first_fills_us: dict[str, int] = {}
        for order_id in sorted(self.accepted):
            owner = self.owner(order_id)
            if owner is not None:
                self.by_bracket[owner].append(order_id)
            elif (self.accepted[order_id].get("source") or "").startswith(_OURS):
                self.strangers.append(order_id)
        for entry in truth["log"]:
            owner = self.owner(entry["order-id"]) if entry["event"] == "fill" else None
            if owner is not None:
                self._first_fills_us.setdefault(owner, entry["at_us"])

    def owner(self, order_id: int) -> str | None:
        """By its own identifier, else by what it replaces: an order moved by hand is still the bracket's."""
        entry: Json | None = self.accepted.get(order_id)
        while entry is not None:
            found = self.ids.get(entry.get("external-identifier") or "")
            if found is not None:
                return found
            entry = self.accepted.get(entry.get("replaces-order-id") or 0)
        return None

    def is_taken_by_hand(self, bracket_id: str) -> bool:
        """Whether somebody has closed its position, or part of it, behind its back: since it has had one."""
        since_us = self._first_fills_us.get(bracket_id)
        return since_us is not None and any(
            self.gone.get(symbol, 0) >= since_us for symbol in self.brackets[bracket_id]["legs"]
        )

    def is_shown(self, bracket_id: str) -> bool:
        """Whether the account shows all that its brackets have open on these legs, whatever it is made of by now: an
        exercised option may have left in shares what somebody took of them, and nobody could tell."""
        wanted: Counter[str] = Counter()
        for each in self.brackets:
            for symbol, quantity in self.open_legs(each).items():
                wanted[symbol] += quantity * self._side(each, symbol)
        return all(
            self.positions.get(symbol, 0) * wanted[symbol] >= wanted[symbol] ** 2
            for symbol in self.brackets[bracket_id]["legs"]
        )

    def _side(self, bracket_id: str, symbol: str) -> int:
        legs = (leg for n in self.by_bracket[bracket_id] if self.is_entry(n) for leg in self.orders[n]["legs"])
        return next((1 if leg["action"].startswith("Buy") else -1 for leg in legs if leg["symbol"] == symbol), 0)

    def is_entry(self, order_id: int) -> bool:
        return not self.orders[order_id]["legs"][0]["action"].endswith("Close")

    def is_of_surplus(self, order_id: int) -> bool:
        """Closes on the entry's own side: what both exits have opened the wrong way is traded away."""
        if self.is_entry(order_id):
            return False
        sides = {
            leg["symbol"]: leg["action"].split()[0]
            for n in self.by_bracket[self.owner(order_id) or ""]
            if self.is_entry(n)
            for leg in self.orders[n]["legs"]
        }
        return all(sides.get(leg["symbol"]) == leg["action"].split()[0] for leg in self.orders[order_id]["legs"])

    def kind(self, order_id: int) -> str:
        if self.is_entry(order_id):
            return "entry"
        return "stop" if self.orders[order_id]["order-type"].startswith("Stop") else "limit"

    def filled(self, bracket_id: str, *, entries: bool) -> Counter[str]:
        """Of exits, less what was traded away of a surplus."""
        total: Counter[str] = Counter()
        for order_id in self.by_bracket[bracket_id]:
            if self.is_entry(order_id) == entries:
                sign = -1 if self.is_of_surplus(order_id) else 1
                for leg in self.orders[order_id]["legs"]:
                    total[leg["symbol"]] += sign * sum(fill["quantity"] for fill in leg["fills"])
        return total

    def fills(self, bracket_id: str) -> set[tuple[str, str, int]]:
        return {
            (fill["fill-id"], leg["symbol"], fill["quantity"])
            for n in self.by_bracket[bracket_id]
            for leg in self.orders[n]["legs"]
            for fill in leg["fills"]
        }

    def open_legs(self, bracket_id: str) -> dict[str, int]:
        closed = self.filled(bracket_id, entries=False)
        opened = self.filled(bracket_id, entries=True)
        return {s: opened[s] - closed[s] for s in sorted({*opened, *closed}) if opened[s] != closed[s]}

    def living(self, bracket_id: str) -> list[int]:
        return [n for n in self.by_bracket[bracket_id] if self.orders[n]["status"] not in _TERMINAL]


def _taken_by_hand(log: list[Json], books: Books) -> dict[str, int]:
    """Legs whose position a person's own order has taken down, a transfer has set or the clearing house has settled,
    and when that was last.
    """
    side = {
        leg["symbol"]: leg["action"].split()[0]
        for n in books.accepted
        if books.owner(n) is not None and n in books.orders and books.is_entry(n)
        for leg in books.orders[n]["legs"]
    }
    foreign = {
        n for n, e in books.accepted.items() if books.owner(n) is None and not (e.get("source") or "").startswith(_OURS)
    }
    return {
        entry["symbol"]: entry["at_us"]
        for entry in log
        if entry["event"] in ("position-set", "position-settled")
        or (
            entry["event"] == "fill"
            and entry["order-id"] in foreign
            and not entry["action"].startswith(side.get(entry["symbol"], "?"))
        )
    }


def _tells(bracket: Json, words: tuple[str, ...]) -> bool:
    return any(word in (bracket["attention"] or "") for word in words)


# Of these one is to be in `attention` when more was closed than opened.
_TELLS_SURPLUS = ("opened the wrong way", "a fill came after the bracket was closed", "although the entry has not")


def judge(truth: Json, dump: Json) -> list[str]:
    """Every violation, in full; empty is what is wanted."""
    books = Books(truth, dump)
    return [*safety(truth, dump, books), *liveness(truth, dump, books)]


def safety(truth: Json, dump: Json, books: Books) -> list[str]:
    found: list[str] = []
    found += [f"S1 order {n} has our source and its id is not in the database" for n in books.strangers]
    found += _ids_at_broker(truth, books)
    found += _brackets_a_ref(dump)
    for bracket_id, bracket in books.brackets.items():
        found += [f"{bracket['client_ref']}: {text}" for text in _bracket_safety(truth, books, bracket_id, bracket)]
    found += _journal(dump)
    found += _replay(truth, books)
    found += _views(dump)
    found += _acknowledged(truth, books)
    found += _posts(truth, dump, books)
    found += _foreign(truth, books)
    found += _told(truth, dump)
    return found


def _ids_at_broker(truth: Json, books: Books) -> list[str]:
    times: Counter[str] = Counter()
    for entry in books.accepted.values():
        name = entry.get("external-identifier")
        if name is None or entry.get("by") == "user":
            continue
        forerunner = books.accepted.get(entry.get("replaces-order-id") or 0)
        if forerunner is None or forerunner.get("external-identifier") != name:
            times[name] += 1
    return [
        f"S2 {name[:8]} is at the broker {n} times"
        for name, n in times.items()
        if n > 1 and name not in truth["doubled"]
    ]


def _brackets_a_ref(dump: Json) -> list[str]:
    refs = Counter(b["client_ref"] for b in dump["brackets"])
    return [f"S3 {ref} became {n} brackets" for ref, n in refs.items() if n > 1]


def _bracket_safety(truth: Json, books: Books, bracket_id: str, bracket: Json) -> list[str]:
    found: list[str] = []
    names = {books.accepted[n].get("external-identifier") for n in books.by_bracket[bracket_id]}
    entries = [n for n in books.by_bracket[bracket_id] if books.is_entry(n)]
    filled_entries = {
        books.accepted[n].get("external-identifier")
        for n in entries
        if any(leg["fills"] for leg in books.orders[n]["legs"])
    }
    if len(filled_entries) > 1:
        found.append("S3 two entries have filled")
    opened, closed = books.filled(bracket_id, entries=True), books.filled(bracket_id, entries=False)
    known, real = _known_fills(bracket), books.fills(bracket_id)
    is_unheard = truth["late_fills"] and not real <= known
    surplus = {s: closed[s] - opened[s] for s in closed if closed[s] > opened[s]}
    is_twofold = any(name in truth["doubled"] or name in truth["late"] for name in names)
    if surplus and not (truth["both_may_fill"] or bracket["protection"] == "unlinked" or is_twofold):
        found.append(f"S5 exits filled beyond the entry: {surplus}")
    if (
        surplus
        and not is_unheard
        and bracket["state"] == "CLOSED"
        and bracket["outcome"] not in ("DOUBLE_EXIT", "RELEASED")
        and not any(text in (bracket["attention"] or "") for text in _TELLS_SURPLUS)
    ):
        found.append(f"S8 a surplus {surplus} is closed in silence as {bracket['outcome']}")
    if not known <= real:
        found.append(f"S9 fills the broker does not have: {sorted(known - real)}")
    if bracket["state"] == "CLOSED" and bracket["outcome"] is None:
        found.append("S8 closed without an outcome")
    return found


def _known_fills(bracket: Json) -> set[tuple[str, str, int]]:
    """What the daemon has heard of. A fill of an order that ended long ago, in a bracket that is closed, is heard of by
    the stream or never."""
    return {tuple(fill) for order in bracket["orders"] for fill in order["fills"]}


def _journal(dump: Json) -> list[str]:
    found = []
    last: dict[str, str | None] = {}
    for line in dump["journal"]:
        bracket_id = line["bracket_id"]
        before, after = line["from"], line["to"]
        if before != last.get(bracket_id):
            found.append(f"S15 the journal jumps from {last.get(bracket_id)} to {before} before {line['event']}")
        if before != after and (before, after) not in _STATE_CHANGES:
            found.append(f"S15 {before} to {after} by {line['event']}")
        last[bracket_id] = after
    for bracket in dump["brackets"]:
        if last.get(bracket["bracket_id"]) != bracket["state"]:
            found.append(
                f"S15 {bracket['client_ref']} is {bracket['state']}; its journal ends"
                f" with {last.get(bracket['bracket_id'])}"
            )
    return found


def _views(dump: Json) -> list[str]:
    """What was recorded of an order of the broker's only ever grows: it ends once, and its fills never shrink."""
    found = []
    last: dict[str, tuple[str, int]] = {}
    for name, status, filled in dump["views"]:
        before, count = last.get(name, ("", 0))
        if before in _TERMINAL and status not in _TERMINAL:
            found.append(f"S10 order {name} was recorded as {before}, then as {status}")
        if filled < count:
            found.append(f"S10 order {name} was recorded with {count} filled, then with {filled}")
        last[name] = (status, filled)
    return found


def _acknowledged(truth: Json, books: Books) -> list[str]:
    found = []
    for bracket_id, version in truth["acknowledged"].items():
        bracket = books.brackets.get(bracket_id)
        if bracket is None or bracket["version"] < version:
            there = "is not in the database" if bracket is None else f"is at {bracket['version']}"
            found.append(f"S11 version {version} of {bracket_id[:8]} was acknowledged, and it {there}")
    return found


_MINUTE_US = 60_000_000
_CEILING_WINDOW_US = 50_000_000  # less than a minute: between the decision and the wire a request may wait


def _posts(truth: Json, dump: Json, books: Books) -> list[str]:
    """What left: on ids that were durable before, each once, and under the ceilings."""
    found = []
    times = Counter(post["id"] for post in truth["posts"])
    found += [f"S2 {name[:8]} was posted {n} times" for name, n in times.items() if n > 1]
    for post in truth["posts"]:
        since_us = dump["ids_since_us"].get(post["id"])
        if since_us is None or since_us > post["at_us"]:
            found.append(f"S12 {post['role']} {post['id'][:8]} was posted before its id was durable")
    entries: dict[int, list[int]] = defaultdict(list)
    spent: Counter[tuple[int, str]] = Counter()
    with_entry = {post["with"] for post in truth["posts"] if post["role"] == "entry"}
    for post in truth["posts"]:
        spent[(post["life"], books.ids.get(post["id"], ""))] += 1
        if post["with"] in with_entry:
            entries[post["life"]].append(post["at_us"])
    for at_us in entries.values():
        for n, begin_us in enumerate(at_us):
            within = sum(begin_us <= later_us < begin_us + _CEILING_WINDOW_US for later_us in at_us[n:])
            if within > truth["orders_per_minute"]:
                found.append(f"S13 {within} orders of entries in a minute, of {truth['orders_per_minute']} allowed")
                break
    warned = {(alarm["life"], alarm["bracket_id"]) for alarm in truth["alarms"] if alarm["code"] == "over_ceiling"}
    for (life, bracket_id), n in spent.items():
        if n > truth["orders_per_bracket"] + 3 and (life, bracket_id) not in warned:
            found.append(f"S13 {n} orders of one bracket, {truth['orders_per_bracket']} allowed, and nobody was told")
    return found


def _foreign(truth: Json, books: Books) -> list[str]:
    found = []
    for entry in truth["log"]:
        order_id = entry.get("order-id")
        if entry.get("by") != "api" or order_id not in books.accepted:
            continue
        touched = order_id if entry["event"] == "cancel-requested" else entry.get("replaces-order-id")
        if entry["event"] not in ("cancel-requested", "accepted") or touched not in books.accepted:
            continue
        if books.owner(touched) is None and not (books.accepted[touched].get("source") or "").startswith(_OURS):
            found.append(f"S14 order {touched} is not ours, and we have {entry['event']} it")
    return found


def _told(truth: Json, dump: Json) -> list[str]:
    """Who must look is told aloud: behind each `attention` there is an alarm, unless the process died over it."""
    found = []
    for bracket in dump["brackets"]:
        if bracket["attention"] is None or len(truth["lives"]) > 1:
            continue
        texts = [alarm["text"] for alarm in truth["alarms"] if alarm["bracket_id"] == bracket["bracket_id"]]
        if not any(text in bracket["attention"] for text in texts):
            found.append(f"L8 {bracket['client_ref']} wants attention ({bracket['attention']}), and there was no alarm")
    return found


def _replay(truth: Json, books: Books) -> list[str]:
    """The log once more, in order: what was true at the moment an exit was accepted."""
    found: list[str] = []
    status: dict[int, str] = {}
    filled: Counter[int] = Counter()
    for entry in truth["log"]:
        order_id = entry.get("order-id")
        if entry["event"] == "status":
            status[order_id] = entry["status"]
        elif entry["event"] == "fill":
            filled[order_id] += entry["quantity"]
        elif entry["event"] == "accepted":
            status[order_id] = entry["status"] or "Received"
            owner = books.owner(order_id)
            if owner is None or entry.get("by") == "user" or not (entry.get("source") or "").startswith(_OURS):
                continue
            if books.is_entry(order_id):
                continue
            ref = books.brackets[owner]["client_ref"]
            if not entry["strict"]:
                found.append(f"{ref}: S7 exit {order_id} is not strict")
            if any(" Open " in leg for leg in entry["legs"]):
                found.append(f"{ref}: S7 exit {order_id} opens")
            entries = [n for n in books.by_bracket[owner] if books.is_entry(n) and n in status]
            if entry.get("complex-order-id") and any(
                books.accepted[n].get("complex-order-id") == entry["complex-order-id"] for n in entries
            ):
                continue
            if any(status[n] not in _TERMINAL for n in entries):
                found.append(f"{ref}: S4 exit {order_id} is sent while the entry works")
            if not any(filled[n] for n in entries):
                found.append(f"{ref}: S4 exit {order_id} is sent before the entry has filled")
    return found


def liveness(truth: Json, dump: Json, books: Books | None = None) -> list[str]:
    """What must have come about some time after the faults stopped."""
    books = books or Books(truth, dump)
    found: list[str] = []
    for request_id, row in truth["rows"].items():
        if row["answer"] is None:
            found.append(f"L1 row {request_id} ({row['client_ref']}) is not answered")
        elif row["answer"]["bracket_id"] is not None and row["answer"]["bracket_id"] not in books.brackets:
            found.append(f"S11 row {request_id} was accepted as a bracket that is not in the database")
    for bracket_id, bracket in books.brackets.items():
        if bracket["state"] == "CLOSED":
            judged = _closed(books, bracket_id, bracket, is_late_filled=truth["late_fills"])
        else:
            judged = _open(books, bracket_id, bracket, is_late_filled=truth["late_fills"])
        found += [f"{bracket['client_ref']}: {text}" for text in judged]
    return found


def _closed(books: Books, bracket_id: str, bracket: Json, *, is_late_filled: bool) -> list[str]:
    if bracket["outcome"] == "RELEASED":
        return []
    found = []
    for order_id in books.living(bracket_id):
        found.append(f"S8 CLOSED and order {order_id} ({books.kind(order_id)}) is {books.orders[order_id]['status']}")
    open_legs = books.open_legs(bracket_id)
    is_unheard = is_late_filled and not books.fills(bracket_id) <= _known_fills(bracket)
    # Nothing follows CLOSED but the reopening of an entry given up: of any other late fill a person is told.
    is_told = _tells(bracket, _TELLS_OPEN) and bracket["outcome"] != "ENTRY_NOT_FILLED"
    if (
        not (is_told or is_unheard or books.is_taken_by_hand(bracket_id))
        and bracket["outcome"] not in _HANDED_OVER
        and any(q > 0 for q in open_legs.values())
    ):
        found.append(f"S8 CLOSED as {bracket['outcome']} with {open_legs} open")
    if any(order["state"] == "UNKNOWN" for order in bracket["orders"]):
        found.append("S8 CLOSED with an unknown outcome")
    return found + _ends(books, bracket)


_ENDED = frozenset({"FILLED", "CANCELLED", "EXPIRED", "REJECTED"})


def _ends(books: Books, bracket: Json) -> list[str]:
    """What is over here is over there: each broker order that the record calls terminal."""
    found = []
    for order in bracket["orders"]:
        for name, status in zip(order["broker_order_ids"], order["broker_statuses"], strict=True):
            theirs = books.orders.get(int(name))
            if status in _TERMINAL and theirs is not None and theirs["status"] not in _TERMINAL:
                found.append(f"S10 order {name} is {status} here and {theirs['status']} at the broker")
    return found


def _open(books: Books, bracket_id: str, bracket: Json, *, is_late_filled: bool) -> list[str]:
    state, attention = bracket["state"], bracket["attention"] or ""
    open_legs = books.open_legs(bracket_id)
    living = books.living(bracket_id)
    if any(order["state"] == "UNKNOWN" for order in bracket["orders"]):
        return ["L4 an outcome is still unknown"]
    if state == "PENDING_ENTRY":
        if any(books.filled(bracket_id, entries=True).values()):
            return ["L2 the entry has a fill and the bracket does not know"]
        return [] if living else ["L1 PENDING_ENTRY and no order of it works"]
    if any(books.is_entry(n) for n in living):
        return [f"L2 {state}, and the entry still works after its grace"]
    if any(q < 0 for q in open_legs.values()) and "trading it away" in attention:
        return []
    if not any(q > 0 for q in open_legs.values()):
        return [f"L3 {state} and nothing is open ({open_legs})"]
    if ends := _ends(books, bracket):
        return ends
    if books.is_taken_by_hand(bracket_id):
        if _tells(bracket, _TELLS_GONE) or books.is_shown(bracket_id):
            return []
        return [f"L2 {state}, its position was taken away, and nobody is told"]
    if bracket["is_held"] and _tells(bracket, _TELLS_HELD):
        return []
    if bracket["is_frozen"] and _tells(bracket, _TELLS_FROZEN):
        return []
    if state == "CLOSING":
        is_told = _tells(bracket, _TELLS_CLOSE)
        return [] if living or is_told else ["L2 CLOSING, no order works, and nobody is told"]
    if "out of ratio" in attention:
        return []  # a broken spread is a person's to close
    if is_late_filled and "unprotected" in attention and living:
        return []  # a group in force is never taken away to cover what an ended entry filled afterwards
    if state != "EXITS_LIVE":
        return [f"L2 {state}: not protected, with {open_legs} open and {len(living)} orders at the broker"]
    return _in_force(books, bracket, open_legs, living)


def _in_force(books: Books, bracket: Json, open_legs: dict[str, int], living: list[int]) -> list[str]:
    """EXITS_LIVE is a claim about the exchange: the stop, or the target where there is no stop, covers what is open."""
    found = []
    covered: dict[str, Counter[str]] = {"stop": Counter(), "limit": Counter()}
    for order_id in living:
        for leg in books.orders[order_id]["legs"]:
            covered[books.kind(order_id)][leg["symbol"]] += leg["remaining-quantity"]
    for kind, cover in covered.items():
        # Whether a group's sibling is reduced by a part fill is the broker's to do, and may not be done.
        is_ours = not any("complex-order-id" in books.orders[n] for n in living)
        if is_ours and any(cover[s] > max(q, 0) for s, q in open_legs.items()):
            found.append(f"S6 {kind}s for {dict(cover)} rest and {open_legs} is open")
    short = [s for s, q in open_legs.items() if covered["stop"][s] < q and covered["limit"][s] < q]
    if short:
        found.append(f"L2 EXITS_LIVE, and no exit covers {short} of {open_legs}")
    is_watched_for = bracket["protection"] == "watched" and bracket["rest"] == "target"
    is_stop_short = any(covered["stop"][s] < q for s, q in open_legs.items())
    if not short and bracket["wants_stop"] and is_stop_short and not is_watched_for:
        found.append("W no stop rests")
    return found
