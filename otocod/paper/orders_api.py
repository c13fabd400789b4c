"""Orders and complex orders over REST: submit, dry run, search, live lists, one order, replace, edit, cancel.

The exchange decides everything about an order; here stand the shapes of the calls. Note the one that has cost money:
POST nests the order under `data.order`, while PUT, PATCH, DELETE and GET return the order as `data`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otocod.paper import paging
from otocod.paper.answers import Json
from otocod.paper.errors import invalid, not_found, not_permitted
from otocod.paper.paging import is_live, lagging, live_orders, search_orders, values
from otocod.paper.routes import NEW_VERSION, Call, Reply, Routes, items

if TYPE_CHECKING:
    from otocod.paper.broker import PaperBroker

CREATED = 201
_LIVE_PAGE, _LIVE_MAX_PAGE = 100, 200  # of the customer-wide live list under the newer version


def _ensure_quotes(broker: PaperBroker, body: Json) -> None:
    """Under the seeded walk a leg has a price by the time its order arrives."""
    if not broker.is_seeded:
        return
    orders = [body, body.get("trigger-order"), *(members if isinstance(members := body.get("orders"), list) else ())]
    for order in orders:
        legs = order.get("legs") if isinstance(order, dict) else None
        for leg in legs if isinstance(legs, list) else ():
            if isinstance(leg, dict) and isinstance(leg.get("symbol"), str):
                broker.ensure_quote(leg["symbol"])


def submit(broker: PaperBroker, call: Call) -> Reply:
    account, body = call.account(broker), call.json_object()
    _ensure_quotes(broker, body)
    return Reply(broker.exchange.submit(account, body, now_us=call.now_us), CREATED)


def dry_run(broker: PaperBroker, call: Call) -> Reply:
    account, body = call.account(broker), call.json_object()
    return Reply(broker.exchange.submit(account, body, now_us=call.now_us, dry_run=True), CREATED)


def search(broker: PaperBroker, call: Call) -> Reply:
    return _search(broker, call, broker.exchange.orders(call.account(broker)))


def _search(broker: PaperBroker, call: Call, orders: list[Json]) -> Reply:
    visible = lagging(orders, now_us=call.now_us, path=call.path, faults=broker.faults)
    found = search_orders(visible, call.query, needs_start=call.version >= NEW_VERSION)
    return _paged(broker, call, found)


def _paged(
    broker: PaperBroker, call: Call, rows: list[Json], default: int | None = None, maximum: int | None = None
) -> Reply:
    rules = broker.server_rules
    page = paging.cut(
        rows,
        call.query,
        path=call.path,
        default=default or rules.whole("api.per_page"),
        maximum=maximum or rules.whole("api.max_per_page"),
        faults=broker.faults,
    )
    return Reply({"items": page.items}, pagination=page.pagination)


def live(broker: PaperBroker, call: Call) -> Reply:
    orders = broker.exchange.orders(call.account(broker))
    visible = lagging(orders, now_us=call.now_us, path=call.path, faults=broker.faults)
    return items(live_orders(visible, call.query, call.now_us))


def _customer_orders(broker: PaperBroker, call: Call) -> list[Json]:
    numbers = values(call.query, "account-numbers")
    if not numbers:
        raise invalid([("account-numbers", "is missing")])
    if not set(numbers) <= set(broker.accounts):
        raise not_permitted()
    orders = [order for number in numbers for order in broker.exchange.orders(number)]
    return sorted(orders, key=lambda order: str(order.get("received-at", "")))


def customer_search(broker: PaperBroker, call: Call) -> Reply:
    return _search(broker, call, _customer_orders(broker, call))


def customer_live(broker: PaperBroker, call: Call) -> Reply:
    visible = lagging(_customer_orders(broker, call), now_us=call.now_us, path=call.path, faults=broker.faults)
    found = live_orders(visible, call.query, call.now_us)
    if call.version >= NEW_VERSION:
        return _paged(broker, call, found, _LIVE_PAGE, _LIVE_MAX_PAGE)
    return items(found)


def one(broker: PaperBroker, call: Call) -> Reply:
    order = broker.exchange.order(call.account(broker), call.number("order"))
    shown = lagging([order], now_us=call.now_us, path=call.path, faults=broker.faults, single=True)
    if not shown:
        raise not_found(f"order {order['id']}")
    return Reply(order)


def cancel(broker: PaperBroker, call: Call) -> Reply:
    return Reply(broker.exchange.cancel(call.account(broker), call.number("order"), now_us=call.now_us))


def replace(broker: PaperBroker, call: Call) -> Reply:
    account, order_id, body = call.account(broker), call.number("order"), call.json_object()
    return Reply(broker.exchange.replace(account, order_id, body, now_us=call.now_us))


def edit(broker: PaperBroker, call: Call) -> Reply:
    account, order_id, body = call.account(broker), call.number("order"), call.json_object()
    return Reply(broker.exchange.replace(account, order_id, body, now_us=call.now_us, edit=True))


def replace_dry_run(broker: PaperBroker, call: Call) -> Reply:
    account, order_id, body = call.account(broker), call.number("order"), call.json_object()
    return Reply(broker.exchange.replace_dry_run(account, order_id, body, now_us=call.now_us), CREATED)


def submit_complex(broker: PaperBroker, call: Call) -> Reply:
    account, body = call.account(broker), call.json_object()
    _ensure_quotes(broker, body)
    return Reply(broker.exchange.submit_complex(account, body, now_us=call.now_us), CREATED)


def complex_dry_run(broker: PaperBroker, call: Call) -> Reply:
    account, body = call.account(broker), call.json_object()
    return Reply(broker.exchange.submit_complex(account, body, now_us=call.now_us, dry_run=True), CREATED)


def search_complex(broker: PaperBroker, call: Call) -> Reply:
    rows = _visible_complex(broker, call)
    return _paged(broker, call, rows[::-1])


def live_complex(broker: PaperBroker, call: Call) -> Reply:
    """Containers that have a component placed today, or one still working."""
    rows = _visible_complex(broker, call)
    midnight_ms = paging.midnight_before(call.now_us)
    return items([row for row in reversed(rows) if any(is_live(order, midnight_ms) for order in _members(row))])


def _visible_complex(broker: PaperBroker, call: Call) -> list[Json]:
    rows = broker.exchange.complex_orders(call.account(broker))
    if not broker.faults.is_armed("listing_lag"):
        return rows
    first = {id(row): _members(row)[0] for row in rows}
    seen = lagging(list(first.values()), now_us=call.now_us, path=call.path, faults=broker.faults)
    return [row for row in rows if first[id(row)] in seen]


def _members(container: Json) -> list[Json]:
    trigger, members = container.get("trigger-order"), container.get("orders")
    found = [trigger] if isinstance(trigger, dict) else []
    return [*found, *(members if isinstance(members, list) else ())]


def one_complex(broker: PaperBroker, call: Call) -> Reply:
    return Reply(broker.exchange.complex_order(call.account(broker), call.number("complex")))


def cancel_complex(broker: PaperBroker, call: Call) -> Reply:
    return Reply(broker.exchange.cancel_complex(call.account(broker), call.number("complex"), now_us=call.now_us))


def register(routes: Routes) -> None:
    orders, complex_orders = "/accounts/{account}/orders", "/accounts/{account}/complex-orders"
    routes.add("POST", orders, submit)
    routes.add("GET", orders, search)
    routes.add("POST", f"{orders}/dry-run", dry_run)
    routes.add("GET", f"{orders}/live", live)
    routes.add("GET", f"{orders}/{{order}}", one)
    routes.add("DELETE", f"{orders}/{{order}}", cancel)
    routes.add("PUT", f"{orders}/{{order}}", replace)
    routes.add("PATCH", f"{orders}/{{order}}", edit)
    routes.add("POST", f"{orders}/{{order}}/dry-run", replace_dry_run)
    routes.add("POST", complex_orders, submit_complex)
    routes.add("GET", complex_orders, search_complex)
    routes.add("POST", f"{complex_orders}/dry-run", complex_dry_run)
    routes.add("GET", f"{complex_orders}/live", live_complex)
    routes.add("GET", f"{complex_orders}/{{complex}}", one_complex)
    routes.add("DELETE", f"{complex_orders}/{{complex}}", cancel_complex)
    routes.add("GET", "/customers/{customer}/orders", customer_search)
    routes.add("GET", "/customers/{customer}/orders/live", customer_live)
