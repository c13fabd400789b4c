"""Accounts, customers, positions, balances, trading status and transactions over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otocod.paper import paging
from otocod.paper.answers import Json
from otocod.paper.errors import not_found, not_permitted
from otocod.paper.paging import rows_between, values
from otocod.paper.routes import Call, Reply, Routes, items

if TYPE_CHECKING:
    from otocod.paper.broker import PaperBroker

CUSTOMER_ID = "P0000001"
_TRANSACTION_FILTERS = {
    "type": "transaction-type",
    "types": "transaction-type",
    "sub-type": "transaction-sub-type",
    "action": "action",
    "symbol": "symbol",
    "underlying-symbol": "underlying-symbol",
    "instrument-type": "instrument-type",
}
_ADDRESS = {
    "city": "Chicago",
    "country": "USA",
    "is-domestic": True,
    "is-foreign": False,
    "postal-code": "60607",
    "state-region": "IL",
    "street-one": "1 Paper Street",
}
_CUSTOMER: Json = {
    "id": CUSTOMER_ID,
    "first-name": "Paper",
    "last-name": "Trader",
    "address": _ADDRESS,
    "mailing-address": _ADDRESS,
    "is-foreign": False,
    "usa-citizenship-type": "Citizen",
    "mobile-phone-number": "+13125550100",
    "birth-date": "1980-01-01",
    "email": "paper@example.com",
    "tax-number-type": "SSN",
    "subject-to-tax-withholding": False,
    "has-industry-affiliation": False,
    "has-listed-affiliation": False,
    "has-political-affiliation": False,
    "has-delayed-quotes": False,
    "has-pending-or-approved-application": True,
    "is-professional": False,
    "permitted-account-types": [
        {
            "name": "Individual",
            "description": "Individual",
            "is_tax_advantaged": False,
            "has_multiple_owners": False,
            "is_publicly_available": True,
            "margin_types": [{"name": "Margin", "is_margin": True}],
        }
    ],
    "created-at": "2024-01-02T14:30:00.000+00:00",
}


def _customer(call: Call) -> None:
    if call.names["customer"] not in ("me", CUSTOMER_ID):
        raise not_permitted()


def customer(broker: PaperBroker, call: Call) -> Reply:
    _customer(call)
    return Reply(_CUSTOMER)


def validate_session(broker: PaperBroker, call: Call) -> Reply:
    """What is left of the retired sessions: one SDK asks here whether its token is still good."""
    return Reply({"email": _CUSTOMER["email"], "username": "paper", "external-id": CUSTOMER_ID}, 201)


def accounts(broker: PaperBroker, call: Call) -> Reply:
    _customer(call)
    records = [broker.exchange.account_record(number) for number in broker.accounts]
    return items([{"account": record, "authority-level": "owner"} for record in records])


def account(broker: PaperBroker, call: Call) -> Reply:
    _customer(call)
    return Reply(broker.exchange.account_record(call.account(broker)))


def account_alone(broker: PaperBroker, call: Call) -> Reply:
    return Reply(broker.exchange.account_record(call.account(broker)))


def trading_status(broker: PaperBroker, call: Call) -> Reply:
    return Reply(broker.exchange.trading_status(call.account(broker)))


def balances(broker: PaperBroker, call: Call) -> Reply:
    if call.names.get("currency", "USD") != "USD":
        raise not_found(f"balances in {call.names['currency'][:10]}")
    return Reply(broker.exchange.balances(call.account(broker)))


def positions(broker: PaperBroker, call: Call) -> Reply:
    query = call.query
    closed = query.get("include-closed-positions") == "true"
    rows = broker.exchange.positions(call.account(broker), include_closed=closed)
    underlyings = values(query, "underlying-symbol")
    rows = [
        row
        for row in rows
        if (not underlyings or row.get("underlying-symbol") in underlyings)
        and all(row.get(key) == query[key] for key in ("symbol", "instrument-type") if query.get(key))
    ]
    if query.get("include-marks") == "true":
        rows = [_with_mark(broker, row) for row in rows]
    return items(rows)


def _with_mark(broker: PaperBroker, row: Json) -> Json:
    quote = broker.exchange.quotes.get(str(row["symbol"]))
    if quote is None:
        return row
    mark = (quote.bid + quote.ask) / 2
    return {
        **row,
        "mark-price": str(mark),
        "mark": str(mark * int(str(row["quantity"])) * int(float(str(row["multiplier"])))),
    }


def position_limit(broker: PaperBroker, call: Call) -> Reply:
    number = call.account(broker)
    return Reply(
        {
            "account-number": number,
            "equity-order-size": 10_000,
            "equity-option-order-size": 1_000,
            "future-order-size": 500,
            "future-option-order-size": 500,
            "underlying-opening-order-limit": 50,
            "equity-position-size": 50_000,
            "equity-option-position-size": 5_000,
            "future-position-size": 500,
            "future-option-position-size": 500,
        }
    )


def transactions(broker: PaperBroker, call: Call) -> Reply:
    rows = rows_between(broker.exchange.transactions(call.account(broker)), call.query, "executed-at")
    for parameter, key in _TRANSACTION_FILTERS.items():
        wanted = values(call.query, parameter)
        if wanted:
            rows = [row for row in rows if row.get(key) in wanted]
    if call.query.get("sort", "Desc") != "Asc":
        rows = rows[::-1]
    page = paging.cut(
        rows,
        call.query,
        path=call.path,
        default=250,
        maximum=broker.server_rules.whole("api.max_per_page"),
        faults=broker.faults,
    )
    return Reply({"items": page.items}, pagination=page.pagination)


def transaction(broker: PaperBroker, call: Call) -> Reply:
    wanted = call.number("transaction")
    for row in broker.exchange.transactions(call.account(broker)):
        if row.get("id") == wanted:
            return Reply(row)
    raise not_found(f"transaction {wanted}")


def register(routes: Routes) -> None:
    routes.add("POST", "/sessions/validate", validate_session)
    routes.add("GET", "/customers/{customer}", customer)
    routes.add("GET", "/customers/{customer}/accounts", accounts)
    routes.add("GET", "/customers/{customer}/accounts/{account}", account)
    routes.add("GET", "/accounts/{account}", account_alone)
    routes.add("GET", "/accounts/{account}/trading-status", trading_status)
    routes.add("GET", "/accounts/{account}/balances", balances)
    routes.add("GET", "/accounts/{account}/balances/{currency}", balances)
    routes.add("GET", "/accounts/{account}/positions", positions)
    routes.add("GET", "/accounts/{account}/position-limit", position_limit)
    routes.add("GET", "/accounts/{account}/transactions", transactions)
    routes.add("GET", "/accounts/{account}/transactions/{transaction}", transaction)
