"""The rules that need the broker's own record: its orders, their fills, the positions.

The listing may be shorter than the database; an order that it does not hold is not judged by it. It was made a moment
before the database was read, so a bracket that has just changed is left for the next audit.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from otocod.audit.database import is_foreign
from otocod.audit.record import Identifier, StoredBracket, StoredOrder, filled_by_leg, open_by_leg
from otocod.audit.report import BrokerOrder, Violation

OrderKey = tuple[str, str]  # (account, broker order id)


@dataclass(slots=True)
class _Comparison:
    """Both records, and which order of theirs is which of ours."""

    brackets: Sequence[StoredBracket]
    identifiers: Mapping[str, Identifier]
    listed: dict[OrderKey, BrokerOrder]
    now_us: int
    by_id: dict[str, StoredBracket] = field(default_factory=dict)
    owners: dict[OrderKey, tuple[StoredBracket, StoredOrder]] = field(default_factory=dict)
    of_order: dict[str, list[BrokerOrder]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        by_name: dict[str, tuple[StoredBracket, StoredOrder]] = {}
        by_view: dict[OrderKey, tuple[StoredBracket, StoredOrder]] = {}
        for bracket in self.brackets:
            self.by_id[bracket.bracket_id] = bracket
            for order in bracket.orders:
                by_name[order.external_identifier] = bracket, order
                by_view.update({(bracket.account, view.broker_order_id): (bracket, order) for view in order.views})
        for key, theirs in self.listed.items():
            # What we hold it for comes first: a replacement may echo the identifier of the order before it.
            owner = by_view.get(key) or by_name.get(theirs.external_identifier or "")
            if owner is not None:
                self.owners[key] = owner
                self.of_order[owner[1].external_identifier].append(theirs)

    def root(self, key: OrderKey) -> OrderKey:
        """The first order of a chain of replacements, or the last one back that the listing holds the trace of."""
        account = key[0]
        seen = {key}
        while (theirs := self.listed.get(key)) is not None and theirs.replaces is not None:
            key = account, theirs.replaces
            if key in seen:
                break
            seen.add(key)
        return key

    def opened(self, bracket: StoredBracket, symbol: str) -> int:
        """By the broker or by our record, whichever knows of more: a listing's fills may lag behind its quantities."""
        return sum(max(self.filled(order, symbol), order.filled(symbol)) for order in bracket.entries)

    def closed(self, bracket: StoredBracket, symbol: str) -> int:
        return sum(self.filled(order, symbol) for order in bracket.exits)

    def filled(self, order: StoredOrder, symbol: str) -> int:
        """By the broker where it shows the order, else by our record."""
        theirs = self.of_order.get(order.external_identifier)
        if not theirs:
            return order.filled(symbol)
        ids = [fill_id for each in theirs for leg in each.legs if leg.symbol == symbol for fill_id in leg.fill_ids]
        filled = [each.filled(symbol) for each in theirs]
        # A replacement that repeats the fills of the order before it must not count them twice.
        return max(filled) if len(set(ids)) < len(ids) else sum(filled)


def broker_violations(
    brackets: Sequence[StoredBracket],
    identifiers: Mapping[str, Identifier],
    broker_orders: Sequence[BrokerOrder],
    positions: Mapping[str, Mapping[str, int]],
    *,
    now_us: int,
) -> Iterator[Violation]:
    listed = {(order.account, order.broker_order_id): order for order in broker_orders}
    both = _Comparison(brackets, identifiers, listed, now_us)
    yield from _known_here(both)
    yield from _once_at_broker(both)
    yield from _foreign_untouched(both)
    for bracket in brackets:
        if bracket.is_settling(now_us):
            continue
        for rule, text in (
            *_identifier_states(both, bracket),
            *_our_fills_are_theirs(both, bracket),
            *_ends_are_theirs(both, bracket),
            *_closing_actions(both, bracket),
            *_exits_within_entry(both, bracket),
            *_working_within_open(both, bracket),
        ):
            yield Violation(rule, bracket.bracket_id, text)
    yield from _positions_cover(both, positions)


Found = Iterator[tuple[str, str]]


def _text(theirs: BrokerOrder) -> str:
    return f"broker order {theirs.broker_order_id} ({theirs.status}, account {theirs.account})"


def _is_ours_by_source(theirs: BrokerOrder) -> bool:
    return theirs.source is not None and not is_foreign(theirs.source)


def _known_here(both: _Comparison) -> Iterator[Violation]:
    for key, theirs in both.listed.items():
        name = theirs.external_identifier
        identifier = both.identifiers.get(name or "")
        owner = both.owners.get(key)
        bracket_id = identifier.bracket_id if identifier is not None else owner[0].bracket_id if owner else None
        bracket = both.by_id.get(bracket_id or "")
        if bracket is not None and bracket.account != theirs.account:
            text = f"{_text(theirs)} carries {name}, an identifier made for account {bracket.account}"
            yield Violation("S1", bracket_id, text)
            continue
        is_known = bracket_id is not None or both.root(key) in both.owners
        if not theirs.is_terminal and _is_ours_by_source(theirs) and not is_known:
            text = f"{_text(theirs)} has source {theirs.source} and identifier {name}, which is not in state.db"
            yield Violation("S1", None, text)


def _once_at_broker(both: _Comparison) -> Iterator[Violation]:
    chains: dict[str, dict[OrderKey, list[BrokerOrder]]] = defaultdict(lambda: defaultdict(list))
    for key, theirs in both.listed.items():
        name = theirs.external_identifier
        if name is not None and name in both.identifiers:
            chains[name][both.root(key)].append(theirs)
    for name, found in chains.items():
        if len(found) > 1:
            orders = ", ".join(f"{each.broker_order_id} {each.status}" for chain in found.values() for each in chain)
            text = f"identifier {name} is at the broker {len(found)} times: {orders}"
            yield Violation("S2", both.identifiers[name].bracket_id, text)


def _foreign_untouched(both: _Comparison) -> Iterator[Violation]:
    """What we hold, and what we replaced, goes back to an order of ours; a person may have edited it in between."""
    for key, theirs in both.listed.items():
        root = both.listed.get(both.root(key))
        if root is None or not is_foreign(root.source):
            continue
        owner = both.owners.get(key)
        if owner is not None and root.external_identifier not in both.identifiers:
            text = f"{owner[1].name} holds {_text(theirs)}, which goes back to one with source {root.source}"
            yield Violation("S14", owner[0].bracket_id, text)
        elif owner is None and _is_ours_by_source(theirs):
            yield Violation("S14", None, f"{_text(theirs)} of ours replaces {_text(root)} with source {root.source}")


def _identifier_states(both: _Comparison, bracket: StoredBracket) -> Found:
    for order in bracket.orders:
        for theirs in both.of_order.get(order.external_identifier, ()):
            identifier = both.identifiers.get(theirs.external_identifier or "")
            if identifier is not None and identifier.status != "USED":
                yield (
                    "S12",
                    f"{_text(theirs)} was sent with {theirs.external_identifier}, stored as {identifier.status}",
                )


def _our_fills_are_theirs(both: _Comparison, bracket: StoredBracket) -> Found:
    for order in bracket.orders:
        for view in order.views:
            theirs = both.listed.get((bracket.account, view.broker_order_id))
            if theirs is None:
                continue
            for leg in view.legs:
                known = {fill_id for their in theirs.legs if their.symbol == leg.symbol for fill_id in their.fill_ids}
                for fill_id in sorted(leg.fills.keys() - known):
                    fill = leg.fills[fill_id]
                    what = f"{fill.quantity} of {leg.symbol.strip()} at {fill.price}"
                    yield "S9", f"fill {fill_id} ({what}) of {order.name} is not in {_text(theirs)}"
                ours = leg.quantity if view.status == "Filled" else leg.in_fills
                if ours > theirs.filled(leg.symbol):
                    counts = (
                        f"{ours} of {leg.symbol.strip()} filled by our record, {theirs.filled(leg.symbol)} by its own"
                    )
                    yield "S9", f"{_text(theirs)}, our {order.name}: {counts}"


def _ends_are_theirs(both: _Comparison, bracket: StoredBracket) -> Found:
    for order in bracket.orders:
        if not order.is_terminal:
            continue
        for theirs in both.of_order.get(order.external_identifier, ()):
            if not theirs.is_terminal:
                yield "S10", f"{order.name} is {order.state} here, {_text(theirs)} is not over"


def _closing_actions(both: _Comparison, bracket: StoredBracket) -> Found:
    for order in bracket.exits:
        for theirs in both.of_order.get(order.external_identifier, ()):
            for leg in theirs.legs:
                if leg.action is not None and leg.action.endswith("to Open"):
                    yield "S7", f"{_text(theirs)}, our {order.name}, would {leg.action} {leg.symbol.strip()}"


def _exits_within_entry(both: _Comparison, bracket: StoredBracket) -> Found:
    """A surplus by the broker's fills that our own do not show; one that they show is judged with the database."""
    if bracket.outcome == "DOUBLE_EXIT":
        return
    ours = open_by_leg(bracket)
    for leg in bracket.entry_legs:
        opened, closed = both.opened(bracket, leg.symbol), both.closed(bracket, leg.symbol)
        if closed > opened and ours[leg.symbol] >= 0:
            what = f"exits have filled {closed} of {leg.symbol.strip()}, entries {opened}"
            yield "S5", f"by the broker's record {what}; by ours {_ours_text(bracket, leg.symbol)}"


def _ours_text(bracket: StoredBracket, symbol: str) -> str:
    closed, opened = (filled_by_leg(bracket, orders)[symbol] for orders in (bracket.exits, bracket.entries))
    return f"{closed} and {opened}"


def _working_within_open(both: _Comparison, bracket: StoredBracket) -> Found:
    if bracket.outcome == "RELEASED":
        return
    working: dict[tuple[str, str], int] = defaultdict(int)
    for order in bracket.exits:
        if order.state == "UNKNOWN":
            continue
        for theirs in both.of_order.get(order.external_identifier, ()):
            cannot_act = theirs.status == "Contingent" and bracket.is_child_of_unfilled_entry(order)
            if not theirs.is_terminal and not cannot_act:
                for leg in theirs.legs:
                    working[order.role, leg.symbol] += max(0, leg.quantity - theirs.filled(leg.symbol))
    for (role, symbol), quantity in working.items():
        is_open = max(0, both.opened(bracket, symbol) - both.closed(bracket, symbol))
        if quantity > is_open:
            what = f"{quantity} of {symbol.strip()} with {is_open} open"
            yield "S6", f"at the broker {role} orders still work {what}"


def _positions_cover(both: _Comparison, positions: Mapping[str, Mapping[str, int]]) -> Iterator[Violation]:
    """The broker's position must be at least what our fills say is open, on its side; the rest of it is not ours.

    Left out: whatever a person has been told of, and what is still moving or unknown.
    """
    expected: dict[OrderKey, int] = defaultdict(int)
    holders: dict[OrderKey, list[StoredBracket]] = defaultdict(list)
    for bracket in both.brackets:
        if bracket.is_closed or bracket.account not in positions:
            continue
        signs = {leg.symbol: leg.sign for leg in bracket.entry_legs}
        for symbol, quantity in open_by_leg(bracket).items():
            expected[bracket.account, symbol] += signs[symbol] * quantity
            holders[bracket.account, symbol].append(bracket)
    for (account, symbol), quantity in expected.items():
        found = positions[account].get(symbol, 0)
        is_covered = not quantity or (found * quantity > 0 and abs(found) >= abs(quantity))
        if not is_covered and not any(_is_in_doubt(bracket, both.now_us) for bracket in holders[account, symbol]):
            first = holders[account, symbol][0].bracket_id
            text = f"account {account} has a position of {found:+d} {symbol.strip()}, our fills make {quantity:+d}"
            yield Violation("S9", first, text)


def _is_in_doubt(bracket: StoredBracket, now_us: int) -> bool:
    is_unknown = any(order.state == "UNKNOWN" for order in bracket.orders)
    return is_unknown or bracket.is_held or bracket.is_settling(now_us) or "positions differ" in bracket.told
