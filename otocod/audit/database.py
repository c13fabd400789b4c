"""The rules that one database can be judged by alone."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction

from otocod.audit.record import FillKey, Identifier, StoredBracket, StoredFill, StoredOrder, filled_by_leg, open_by_leg
from otocod.audit.report import Violation

# What undoes an opening leg. An outright future is bought and sold; the broker derives open or close.
CLOSING_ACTION = {
    "Buy to Open": "Sell to Close",
    "Sell to Open": "Buy to Close",
    "Buy": "Sell",
    "Sell": "Buy",
}
# Outcomes whose position may be open by our fills: handed over, or ended in a way that leaves no fill of ours.
_HANDED_OVER = frozenset({"RELEASED", "CLOSED_OUTSIDE", "EXPIRED"})
# What fills after the end is a person's from then on.
_FILLED_AFTER_THE_END = "a fill came after the bracket was closed"
# A surplus that a person has been told of.
_SURPLUS_WORDS = (
    "surplus",
    "exit filled",
    "exits filled",
    "an exit has filled although",
    _FILLED_AFTER_THE_END,
)
# Which role must have filled for an outcome. A close by the ladder stands for the stop that nothing could place.
_ROLES_OF_OUTCOME = {"TARGET_FILLED": ("target",), "STOP_FILLED": ("stop", "close")}
# Net prices are quotients kept to 28 digits.
_PRICE_TOLERANCE = Decimal("1e-9")


def database_violations(connection: sqlite3.Connection, identifiers: Mapping[str, Identifier]) -> Iterator[Violation]:
    """What needs more than one bracket to be seen."""
    yield from _one_bracket_a_ref(connection)
    yield from _accepted_rows(connection)
    yield from _used_identifiers_without_order(connection, identifiers)
    yield from _shared_broker_orders(connection)


def _one_bracket_a_ref(connection: sqlite3.Connection) -> Iterator[Violation]:
    query = "SELECT client_ref, group_concat(bracket_id, ', '), count(*) FROM brackets GROUP BY client_ref"
    for client_ref, bracket_ids, count in connection.execute(f"{query} HAVING count(*) > 1"):
        yield Violation("S3", None, f"client_ref {client_ref} has {count} brackets: {bracket_ids}")


def _accepted_rows(connection: sqlite3.Connection) -> Iterator[Violation]:
    query = (
        "SELECT b.bracket_id, b.client_ref, b.account, a.client_ref, a.account FROM brackets b"
        " LEFT JOIN accepted_rows a ON a.bracket_id = b.bracket_id"
        " WHERE (a.client_ref IS NOT b.client_ref OR a.account IS NOT b.account)"
        # Adopted ones came by the operators' socket.
        " AND NOT (a.bracket_id IS NULL AND EXISTS (SELECT 1 FROM orders o WHERE o.bracket_id = b.bracket_id"
        " AND o.role = 'entry' AND o.status = 'Adopted' AND o.broker_order_id = 'adopted-' || b.bracket_id))"
    )
    for bracket_id, client_ref, account, row_ref, row_account in connection.execute(query):
        if row_ref is None:
            text = "no accepted row of the queue was stored with it"
        else:
            text = f"it is {client_ref} in account {account}, its accepted row {row_ref} in {row_account}"
        yield Violation("record", bracket_id, text)


def _used_identifiers_without_order(
    connection: sqlite3.Connection, identifiers: Mapping[str, Identifier]
) -> Iterator[Violation]:
    known = {row[0] for row in connection.execute("SELECT external_identifier FROM orders")}
    for name, identifier in identifiers.items():
        if identifier.status == "USED" and name not in known:
            text = f"identifier {name} ({identifier.role}) is USED and no order carries it: a commit is missing"
            yield Violation("S11", identifier.bracket_id, text)


def _shared_broker_orders(connection: sqlite3.Connection) -> Iterator[Violation]:
    query = (
        "SELECT o.bracket_id, b.account, o.broker_order_id, o.external_identifier,"
        " json_extract(o.more_json, '$.replaces')"
        " FROM orders o JOIN brackets b ON b.bracket_id = o.bracket_id WHERE o.broker_order_id IN"
        " (SELECT broker_order_id FROM orders WHERE broker_order_id IS NOT NULL"
        " GROUP BY broker_order_id HAVING count(*) > 1) ORDER BY o.broker_order_id, o.external_identifier"
    )
    holders: dict[tuple[str, str], list[tuple[str, str, str | None]]] = defaultdict(list)
    for bracket_id, account, broker_order_id, name, replaces in connection.execute(query):
        holders[account, broker_order_id].append((bracket_id, name, replaces))
    for (_, broker_order_id), found in holders.items():
        names = {name for _, name, _ in found}
        # A move is one order at the broker, whichever of its two identifiers the broker echoes.
        separate = [name for _, name, replaces in found if replaces not in names]
        if len(separate) > 1:
            text = f"broker order {broker_order_id} is held by {len(separate)} orders of ours: {', '.join(separate)}"
            yield Violation("S2", found[0][0], text)


def bracket_violations(
    bracket: StoredBracket, identifiers: Mapping[str, Identifier], *, now_us: int
) -> Iterator[Violation]:
    """Every rule that looks at one bracket's record."""
    is_settling = not bracket.is_closed and bracket.is_settling(now_us)
    for rule, text in (
        *_one_filled_entry(bracket),
        *(() if is_settling else _exits_after_entry(bracket)),
        *(() if is_settling else _exits_within_entry(bracket)),
        *(() if is_settling else _working_within_open(bracket)),
        *_exits_close(bracket),
        *_closed(bracket, now_us),
        *_state_matches_fills(bracket),
        *_terminal_stays(bracket),
        *_identifiers_used(bracket, identifiers),
        *_orders_are_ours(bracket),
        *_fills_agree(bracket),
        *_columns_agree(bracket),
        *_prices_agree(bracket),
    ):
        yield Violation(rule, bracket.bracket_id, text)


Found = Iterator[tuple[str, str]]


def _one_filled_entry(bracket: StoredBracket) -> Found:
    filled = [entry.external_identifier for entry in bracket.entries if entry.has_fill]
    if len(filled) > 1:
        yield "S3", f"{len(filled)} entries have filled: {', '.join(filled)}"


def _exits_after_entry(bracket: StoredBracket) -> Found:
    has_fill = any(entry.has_fill for entry in bracket.entries)
    working = [entry.name for entry in bracket.entries if not entry.is_terminal]
    if has_fill and not working:
        return
    why = f"{', '.join(working)} still works" if has_fill else "no entry has filled"
    for order in bracket.exits:
        if order.has_fill:
            yield "S4", f"{order.name} has filled while {why}"
        elif _is_working(order) and not (_has_not_acted(order) and bracket.is_child_of_unfilled_entry(order)):
            yield "S4", f"{order.name} is {order.state} ({order.status}) while {why}"


def _is_working(order: StoredOrder) -> bool:
    """May fill, for all we know. INTENDED has not left; UNKNOWN is judged once it is known."""
    return not order.is_terminal and order.state not in ("INTENDED", "UNKNOWN")


def _has_not_acted(order: StoredOrder) -> bool:
    return all(view.status not in ("Live", "In Flight", "Routed", "Filled") for view in order.heads)


def _exits_within_entry(bracket: StoredBracket) -> Found:
    # What a released bracket's orders do is the account's own affair, as its request or a person has said.
    if bracket.outcome in ("DOUBLE_EXIT", "RELEASED") or any(words in bracket.told for words in _SURPLUS_WORDS):
        return
    opened = filled_by_leg(bracket, bracket.entries)
    for symbol, closed in filled_by_leg(bracket, bracket.exits).items():
        if closed > opened[symbol]:
            text = f"exits have filled {closed} of {symbol.strip()}, entries {opened[symbol]}: surplus not told of"
            yield "S5", text


def _working_within_open(bracket: StoredBracket) -> Found:
    if bracket.is_closed:
        return  # S8: nothing may work at all
    is_open = open_by_leg(bracket)
    names = {order.external_identifier: order for order in bracket.orders}
    working: dict[tuple[str, str], int] = defaultdict(int)
    for order in bracket.exits:
        forerunner = names.get(order.replaces or "")
        is_move = forerunner is not None and not forerunner.is_terminal
        if not _is_working(order) or is_move or bracket.is_child_of_unfilled_entry(order):
            continue
        for leg in order.legs:
            working[order.role, leg.symbol] += order.left(leg.symbol)
    for (role, symbol), quantity in working.items():
        if quantity > max(0, is_open.get(symbol, 0)):
            open_text = f"{is_open.get(symbol, 0)} of {symbol.strip()}"
            yield "S6", f"{role} orders still work {quantity} of it with {open_text} open"


def _exits_close(bracket: StoredBracket) -> Found:
    closing = {leg.symbol: CLOSING_ACTION.get(leg.action) for leg in bracket.entry_legs}
    for order in bracket.surplus_closes:
        if not order.is_strict:
            yield "S7", f"{order.name} was asked for without the strict flag"
    for order in bracket.exits:
        if not order.is_strict:
            yield "S7", f"{order.name} was asked for without the strict flag"
        for leg in order.legs:
            if leg.action != closing.get(leg.symbol):
                yield "S7", f"{order.name} would {leg.action} {leg.quantity} {leg.symbol.strip()}, which does not close"


def _closed(bracket: StoredBracket, now_us: int) -> Found:
    if not bracket.is_closed:
        if bracket.outcome is not None or bracket.closed_at_us is not None:
            yield "S8", f"{bracket.state} with outcome {bracket.outcome} and closing time {bracket.closed_at_us}"
        return
    if bracket.outcome is None or bracket.closed_at_us is None:
        yield "S8", f"CLOSED with outcome {bracket.outcome} and closing time {bracket.closed_at_us}"
        return
    if bracket.outcome == "RELEASED":
        return
    for order in bracket.orders:
        if not order.is_terminal and not _is_being_cancelled(bracket, order, now_us):
            yield "S8", f"CLOSED while {order.name} is {order.state} ({order.status})"
    is_handed_over = bracket.outcome in _HANDED_OVER or _FILLED_AFTER_THE_END in bracket.told
    for symbol, quantity in open_by_leg(bracket).items():
        if quantity > 0 and not is_handed_over:
            yield "S8", f"CLOSED as {bracket.outcome} with {quantity} of {symbol.strip()} open by our fills"
    roles = _ROLES_OF_OUTCOME.get(bracket.outcome)
    if roles is not None and not any(order.has_fill for order in bracket.exits if order.role in roles):
        yield "S8", f"CLOSED as {bracket.outcome} without a fill of a {' or '.join(roles)}"


def _is_being_cancelled(bracket: StoredBracket, order: StoredOrder, now_us: int) -> bool:
    """An order that was given up has turned up since the end: it may take a moment to go."""
    heard_us = order.acknowledged_at_us
    is_late = heard_us is not None and bracket.closed_at_us is not None and heard_us > bracket.closed_at_us
    return is_late and bracket.is_settling(now_us)


def _state_matches_fills(bracket: StoredBracket) -> Found:
    has_fill = any(entry.has_fill for entry in bracket.entries)
    if has_fill and bracket.state == "PENDING_ENTRY":
        yield "record", "PENDING_ENTRY although an entry has filled"
    if not has_fill and bracket.state in ("ENTRY_FILLED", "EXITS_LIVE", "CLOSING"):
        yield "record", f"{bracket.state} although no entry has filled"


def _terminal_stays(bracket: StoredBracket) -> Found:
    for order in bracket.orders:
        if order.is_terminal:
            for view in order.heads:
                if not view.is_terminal:
                    yield "S10", f"{order.name} is {order.state}, its broker order {view.broker_order_id} {view.status}"


def _identifiers_used(bracket: StoredBracket, identifiers: Mapping[str, Identifier]) -> Found:
    for order in bracket.orders:
        identifier = identifiers.get(order.external_identifier)
        if identifier is None:
            yield "S12", f"{order.name} has an identifier that was never stored"
        elif (identifier.bracket_id, identifier.role, identifier.status) != (bracket.bracket_id, order.role, "USED"):
            where = f"{identifier.status}, for a {identifier.role} of bracket {identifier.bracket_id}"
            yield "S12", f"the identifier of {order.name} is stored as {where}"


def _orders_are_ours(bracket: StoredBracket) -> Found:
    """A person may edit an order of ours, and the replacement then has a foreign source; it is ours by its chain."""
    for order in bracket.orders:
        ids = {view.broker_order_id for view in order.views}
        heirs = {view.replaced_by for view in order.views}
        for view in order.views:
            is_edit = view.replaces is not None or view.broker_order_id in heirs & ids
            if is_foreign(view.source) and not is_edit:
                yield "S14", f"{order.name} holds broker order {view.broker_order_id}, whose source is {view.source}"


def is_foreign(source: str | None) -> bool:
    return source is not None and not source.startswith("otocod/")


def _fills_agree(bracket: StoredBracket) -> Found:
    for order in bracket.orders:
        seen, stored = order.fills, order.fills_table
        for key in seen.keys() | stored.keys():
            symbol, fill_id = key
            if key not in stored:
                yield "record", f"fill {fill_id} of {symbol.strip()} of {order.name} is missing in the table of fills"
            elif key not in seen:
                yield "record", f"fill {fill_id} of {symbol.strip()} is in the table of fills, not in {order.name}"
            elif seen[key] != stored[key]:
                values = f"{_fill_text(stored, key)} in the table of fills, {_fill_text(seen, key)} in the order"
                yield "record", f"fill {fill_id} of {symbol.strip()} of {order.name} is {values}"


def _fill_text(fills: Mapping[FillKey, StoredFill], key: FillKey) -> str:
    return f"{fills[key].quantity} at {fills[key].price}"


def _columns_agree(bracket: StoredBracket) -> Found:
    for order in bracket.orders:
        if order.quantity != order.units:
            yield "record", f"{order.name} is stored as for {order.quantity} units, its legs are for {order.units}"
        if order.filled_quantity != order.filled_units:
            stored, made = order.filled_quantity, order.filled_units
            yield "record", f"{order.name} is stored with {stored} units filled, its fills make {made}"
        ids = {view.broker_order_id for view in order.views}
        if (order.broker_order_id is None) != (not ids) or (ids and order.broker_order_id not in ids):
            yield "record", f"{order.name} is stored as broker order {order.broker_order_id}, known are {sorted(ids)}"


def _prices_agree(bracket: StoredBracket) -> Found:
    for order in bracket.orders:
        yield from _price_agrees(order.name, order.net_fill_price, (order,))
    yield from _price_agrees("entry_net_price", bracket.entry_net_price, bracket.entries)
    yield from _price_agrees("exit_net_price", bracket.exit_net_price, bracket.exits)


def _price_agrees(name: str, stored: str | None, orders: tuple[StoredOrder, ...]) -> Found:
    filled = [order for order in orders if order.has_fill]
    computed = net_price(filled)
    if stored is None:
        is_final = all(order.is_terminal and not order.has_untold_fills for order in filled)
        if computed is not None and is_final:
            yield "record", f"{name} has no net price, its fills make {computed}"
    elif computed is None or abs(Decimal(stored) - computed) > _PRICE_TOLERANCE:
        yield "record", f"{name} is stored at a net price of {stored}, its fills make {computed}"


def net_price(orders: list[StoredOrder]) -> Decimal | None:
    """Signed net price of one unit, debit positive, from fills alone; None while they are no whole units in ratio."""
    if not orders:
        return None
    legs, units = orders[0].legs, orders[0].units
    signs = {leg.symbol: leg.sign for leg in legs}
    paid = Decimal(0)
    quantities = dict.fromkeys(signs, 0)
    for order in orders:
        for (symbol, _), fill in order.fills.items():
            if symbol not in signs:
                return None
            paid += signs[symbol] * fill.price * fill.quantity
            quantities[symbol] += fill.quantity
    filled_units = {Fraction(quantities[leg.symbol] * units, leg.quantity) for leg in legs}
    if len(filled_units) != 1:
        return None
    (filled,) = filled_units
    return paid / filled.numerator if filled and filled.denominator == 1 else None
