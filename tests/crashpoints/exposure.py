"""How long a position stood without any exit at the exchange: from the truth log alone."""

from collections import Counter
from typing import Any

from tests.simulation.checker import Books

Json = dict[str, Any]
_TERMINAL = frozenset({"Filled", "Cancelled", "Expired", "Rejected", "Removed", "Partially Removed"})


def longest_exposure_s(truth: Json, books: Books, bracket_id: str, until_us: int) -> float:
    """The longest stretch with an entry that has filled and ended, a leg still open, and no exit that lives.

    Whatever is done about it, by whom and at what price is not asked: a close that works counts as an exit.
    """
    its = set(books.by_bracket[bracket_id])
    status: dict[int, str] = {}
    open_legs: Counter[str] = Counter()
    since_us: int | None = None
    longest_us = 0
    for entry in truth["log"]:
        order_id = entry.get("order-id")
        if order_id not in its or entry["event"] not in ("accepted", "status", "fill"):
            continue
        if entry["event"] == "fill":
            open_legs[entry["symbol"]] += entry["quantity"] * (1 if books.is_entry(order_id) else -1)
        else:
            status[order_id] = entry["status"] or "Received"
        if not _is_exposed(books, status, open_legs):
            longest_us = max(longest_us, 0 if since_us is None else entry["at_us"] - since_us)
            since_us = None
        elif since_us is None:
            since_us = entry["at_us"]
    if since_us is not None:
        longest_us = max(longest_us, until_us - since_us)
    return longest_us / 1_000_000


def _is_exposed(books: Books, status: dict[int, str], open_legs: Counter[str]) -> bool:
    is_entry_over = all(now in _TERMINAL for n, now in status.items() if books.is_entry(n))
    has_exit = any(now not in _TERMINAL for n, now in status.items() if not books.is_entry(n))
    return is_entry_over and not has_exit and any(quantity > 0 for quantity in open_legs.values())
