"""Pages of a listing, and the filters of the order search.

Query parameters arrive as text; every problem is collected so that one 400 names them all. Pages are cut from lists
that are already sorted. The page faults (a page without rows, a wrong total, moved rows) live here because they are
about cutting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from multidict import MultiMapping

from otocod.paper.answers import Json, VersionRefused
from otocod.paper.errors import invalid
from otocod.paper.faults import Faults

NEW_YORK = ZoneInfo("America/New_York")
_TERMINAL = frozenset({"Filled", "Cancelled", "Expired", "Rejected", "Removed", "Partially Removed", "Dead"})
_MAX_OFFSET = 10**9

Query = MultiMapping[str]


@dataclass(frozen=True, slots=True)
class Page:
    items: list[Json]
    pagination: Json


def cut(items: Sequence[Json], query: Query, *, path: str, default: int, maximum: int, faults: Faults) -> Page:
    """The page that the query asks for. Raises Refused (400) for a page size or number out of range."""
    problems: list[tuple[str, str]] = []
    per_page = _whole(query, "per-page", default, 1, maximum, problems)
    page = _whole(query, "page-offset", 0, 0, _MAX_OFFSET, problems)
    if problems:
        raise invalid(problems)
    total = len(items)
    start = page * per_page
    if faults.armed:
        subject = {"path": path}
        moved = faults.strike("page_rows_moved", subject) if page > 0 else None
        if moved:
            start += int(moved["by"])
        wrong = faults.strike("page_total_wrong", subject)
        if wrong:
            total = max(0, total - int(wrong["by"]))
        if page == faults.setting("page_missing", "page") and faults.strike("page_missing", subject) is not None:
            return _page([], per_page, page, total)
    return _page(list(items[start : start + per_page]), per_page, page, total)


def _page(items: list[Json], per_page: int, page: int, total: int) -> Page:
    pagination: Json = {
        "per-page": per_page,
        "page-offset": page,
        "item-offset": page * per_page,
        "total-items": total,
        "total-pages": max(1, -(-total // per_page)),
        "current-item-count": len(items),
        "previous-link": None,
        "next-link": None,
        "paging-link-template": None,
    }
    return Page(items, pagination)


def search_orders(orders: Sequence[Json], query: Query, *, needs_start: bool) -> list[Json]:
    """Orders as the search endpoint lists them: newest first unless `sort=Asc`. `orders` come oldest first."""
    problems: list[tuple[str, str]] = []
    start = _bound(query, "start-date", "start-at", problems, end=False)
    end = _bound(query, "end-date", "end-at", problems, end=True)
    if needs_start and "start-date" not in query and "start-at" not in query:
        problems.append(("start-date", "is missing, or start-at"))
    sort = query.get("sort", "Desc")
    if sort not in ("Asc", "Desc"):
        problems.append(("sort", "does not have a valid value"))
    if problems:
        raise invalid(problems)
    keep = _order_filter(query)
    found = [order for order in orders if keep(order) and _within(str(order.get("received-at", "")), start, end)]
    return found if sort == "Asc" else found[::-1]


def live_orders(orders: Sequence[Json], query: Query, now_us: int) -> list[Json]:
    """Orders that work, and those of any status created or updated today (New York's day); newest first."""
    keep = _order_filter(query)
    midnight_ms = midnight_before(now_us)
    return [order for order in reversed(orders) if is_live(order, midnight_ms) and keep(order)]


def midnight_before(now_us: int) -> int:
    """The beginning of New York's day, milliseconds."""
    today = datetime.fromtimestamp(now_us / 1_000_000, NEW_YORK).date()
    return int(datetime.combine(today, datetime.min.time(), NEW_YORK).timestamp() * 1000)


def is_live(order: Json, midnight_ms: int) -> bool:
    return order.get("status") not in _TERMINAL or int(order.get("updated-at", 0)) >= midnight_ms


def _order_filter(query: Query) -> Callable[[Json], bool]:
    statuses = set(values(query, "status"))
    equal = [(key, query[key]) for key in ("underlying-symbol", "underlying-instrument-type") if query.get(key)]
    future = query.get("futures-symbol")
    if future:
        equal.append(("underlying-symbol", future))

    def keep(order: Json) -> bool:
        return (not statuses or order.get("status") in statuses) and all(
            order.get(key) == value for key, value in equal
        )

    return keep


def values(query: Query, key: str) -> list[str]:
    """`key[]=a&key[]=b`, or the plain key, repeated or with commas."""
    plain = [part for text in query.getall(key, []) for part in text.split(",")]
    return [text for text in (*query.getall(f"{key}[]", []), *plain) if text]


def rows_between(rows: Sequence[Json], query: Query, key: str) -> list[Json]:
    """Rows whose instant `key` lies within start and end of the query, ends included."""
    problems: list[tuple[str, str]] = []
    start = _bound(query, "start-date", "start-at", problems, end=False)
    end = _bound(query, "end-date", "end-at", problems, end=True)
    if problems:
        raise invalid(problems)
    return [row for row in rows if _within(str(row.get(key, "")), start, end)]


def _within(at: str, start: str | None, end: str | None) -> bool:
    # Instants of the wire have one spelling (milliseconds, +00:00), so text order is time order.
    return (start is None or at >= start) and (end is None or at <= end)


def _bound(query: Query, date_key: str, at_key: str, problems: list[tuple[str, str]], *, end: bool) -> str | None:
    text = query.get(at_key)
    key = at_key if text else date_key
    text = text or query.get(date_key)
    if not text:
        return None
    try:
        moment = _instant(text) if key == at_key else _edge_of_day(date.fromisoformat(text), end=end)
    except (ValueError, OverflowError):
        problems.append((key, "is invalid"))
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def _instant(text: str) -> datetime:
    """ISO 8601 with `T` or a space; a `+` that was not percent-encoded arrives as a space before the offset."""
    head, separator, tail = text.strip().rpartition(" ")
    if separator and ":" in tail and len(tail) == 5 and ":" in head:
        text = f"{head}+{tail}"
    moment = datetime.fromisoformat(text.strip())
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _edge_of_day(day: date, *, end: bool) -> datetime:
    midnight = datetime.combine(day, datetime.min.time(), NEW_YORK)
    return midnight + timedelta(days=1, milliseconds=-1) if end else midnight


def _whole(query: Query, key: str, default: int, low: int, high: int, problems: list[tuple[str, str]]) -> int:
    text = query.get(key)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 10 or not low <= int(text) <= high:
        problems.append((key, f"must be a whole number from {low} to {high}"))
        return default
    return int(text)


def lagging(orders: Sequence[Json], *, now_us: int, path: str, faults: Faults, single: bool = False) -> list[Json]:
    """What a listing shows while it trails the orders behind it."""
    if single and not faults.setting("listing_lag", "single"):
        return list(orders)
    lag = faults.strike("listing_lag", {"path": path})
    if lag is None:
        return list(orders)
    newest = datetime.fromtimestamp((now_us - int(lag["lag_ms"]) * 1000) / 1_000_000, UTC).isoformat(
        timespec="milliseconds"
    )
    return [order for order in orders if str(order.get("received-at", "")) <= newest]


def parse_version(text: str | None, default: int, supported: Sequence[int]) -> int:
    """The highest version at or below the one asked for. Raises Refused (406) when that is older than every version."""
    wanted = default
    if text is not None:
        if not (text.isascii() and text.isdigit() and len(text) == 8):
            raise VersionRefused(f"Accept-Version {text[:20]!r} is not a date")
        wanted = int(text)
    served = [version for version in supported if version <= wanted]
    if not served:
        raise VersionRefused(f"No version of this API is as old as {wanted}")
    return max(served)
