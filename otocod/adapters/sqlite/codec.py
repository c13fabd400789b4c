"""Records to rows and back. The rows of a change hold only what changed.

A field of Bracket or Order that has no column of its own travels in `more_json`, found by the record's own type, so a
new field costs nothing here; one that is to be listed or filtered by costs a column, a line below and a migration.
Requests are stored as they were understood, not as text to be parsed again: the rules may have changed since.

A field that is unknown here is refused at load: it was written by a newer otocod, and dropping it could drop a safety
decision. Removing or renaming a field of a stored record therefore needs a migration.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from decimal import Decimal
from operator import attrgetter
from typing import Any, TypeVar, assert_never, get_args, get_type_hints

import msgspec
from sqlalchemy import Table, bindparam, delete, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.sql.expression import Executable

from otocod.adapters.sqlite import tables
from otocod.adapters.sqlite.journal import names_told, text_from_steps
from otocod.adapters.sqlite.tables import IdStatus
from otocod.domain.brackets import Bracket, BracketState, Outcome, Policy, order_net_fill_price
from otocod.domain.decisions import JournalEntry
from otocod.domain.ids import AccountNumber, BracketId, ExternalIdentifier, FillId
from otocod.domain.orders import Fill, Order, OrderState, View
from otocod.domain.prices import plain
from otocod.domain.request_types import (
    BracketRequest,
    Stop,
    StopByPercent,
    StopByPrice,
    StopMarket,
    Target,
    TargetByPercent,
    TargetByPrice,
)
from otocod.domain.specs import OrderSpec, Protection, Role
from otocod.domain.spreads import matched_units, size_of
from otocod.domain.time_exits import (
    AfterFill,
    AtOpen,
    BeforeClose,
    ClockTime,
    Day,
    DaysToExpiry,
    FirstDay,
    Moment,
    OnDate,
    OnDay,
    TimeExit,
)
from otocod.ports.store import (
    AcceptedRow,
    Alarm,
    BracketChange,
    Capability,
    Change,
    Delivery,
    JournalArchived,
    Setting,
)

Value = str | int | None
StoredRow = Mapping[Any, Any]  # of all columns of a table, by name


class StoredRecordUnreadable(Exception):
    """A row that this code cannot read: written by a newer otocod, or damaged."""


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One prebuilt statement. Every row given to it changes exactly one row of the table, or something is wrong."""

    rank: int  # statements of one transaction run in this order, so that what is referred to is there
    sql: str


Row = tuple[Statement, tuple[Value, ...]]


def _prebuilt(statement: Executable, columns: Sequence[str]) -> Statement:
    """Compiled once; at run time the driver gets text and tuples. `columns`: the order of values in each row."""
    compiled = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"))  # type: ignore[attr-defined]
    if compiled.positiontup != list(columns):
        raise TypeError(f"the statement takes {compiled.positiontup}, its rows hold {columns}")
    return Statement(next(_ranks), str(compiled))


_ranks = iter(range(100))


def _names(table: Table, *without: str) -> list[str]:
    return [column.name for column in table.columns if column.name not in without]


def _insert(table: Table, *without: str) -> Statement:
    names = _names(table, *without)
    return _prebuilt(insert(table).values({name: bindparam(name) for name in names}), names)


def _upsert(table: Table, changing: Sequence[str], only_same: str | None = None) -> Statement:
    """Insert, or change these columns of the row with the same key; `only_same` must agree, else nothing is changed."""
    base = insert(table).values({name: bindparam(name) for name in _names(table)})
    where = None if only_same is None else table.c[only_same] == base.excluded[only_same]
    full = base.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={name: base.excluded[name] for name in changing},
        where=where,
    )
    return _prebuilt(full, _names(table))


_BRACKET_FIXED = ("bracket_id", "client_ref", "account", "created_at_us", "quantity", "tags_json")
_BRACKET_TEXTS = ("request_text", "request_json", "policy_json")
_BRACKET_CHANGING = _names(tables.brackets, *_BRACKET_FIXED, *_BRACKET_TEXTS)
_ORDER_CHANGING = _names(tables.orders, "external_identifier", "bracket_id", "position", "role", "intended_at_us")


def _update_bracket() -> Statement:
    table = tables.brackets
    statement = (
        update(table)
        .where(table.c.bracket_id == bindparam("key"), table.c.version == bindparam("version_before"))
        .values({name: bindparam(name) for name in _BRACKET_CHANGING})
    )
    return _prebuilt(statement, [*_BRACKET_CHANGING, "key", "version_before"])


def _update_order() -> Statement:
    table = tables.orders
    statement = (
        update(table)
        .where(table.c.external_identifier == bindparam("key"), table.c.bracket_id == bindparam("owner"))
        .values({name: bindparam(name) for name in _ORDER_CHANGING})
    )
    return _prebuilt(statement, [*_ORDER_CHANGING, "key", "owner"])


def _delete_journal() -> Statement:
    table = tables.journal
    statement = delete(table).where(table.c.seq == bindparam("key"), table.c.bracket_id == bindparam("owner"))
    return _prebuilt(statement, ["key", "owner"])


# In the order in which they run.
INSERT_BRACKET = _insert(tables.brackets)
UPDATE_BRACKET = _update_bracket()
PUT_ID = _upsert(tables.external_identifiers, ["status"], only_same="bracket_id")
INSERT_ORDER = _insert(tables.orders)
UPDATE_ORDER = _update_order()
PUT_FILL = _upsert(tables.fills, ["quantity", "price", "filled_at_us"])
INSERT_ACCEPTED_ROW = _insert(tables.accepted_rows)
INSERT_JOURNAL = _insert(tables.journal, "seq")
INSERT_ALARM = _insert(tables.alarms, "seq")
PUT_CAPABILITY = _upsert(tables.capabilities, ["is_accepted", "evidence", "at_us"])
PUT_SETTING = _upsert(tables.settings, ["value"])
PUT_DELIVERY = _upsert(tables.alert_deliveries, ["state", "tries", "at_us", "error"])
PUT_ARCHIVED = _upsert(tables.archived_journals, ["last_seq", "rows", "digest", "at_us"], only_same="archive")
DELETE_JOURNAL = _delete_journal()

# One change makes far fewer ids than this; positions of later changes come after those of earlier ones.
_IDS_PER_CHANGE = 1000

_encoder = msgspec.json.Encoder()


def to_json(value: object) -> str:
    """Compact JSON: decimals as text, enumerations by value."""
    return _encoder.encode(value).decode()


def price_text(price: Decimal | None) -> str | None:
    """Plain decimal text with two places at least: 0.40, -0.85, 0.125."""
    if price is None:
        return None
    whole, _, part = plain(price).partition(".")
    return f"{whole}.{part:0<2}"


class _Rest:
    """The fields of a record that have no column, as one JSON object."""

    def __init__(self, record: type, *, apart: Iterable[str]) -> None:
        without = frozenset(apart)
        hints = get_type_hints(record)
        found = [field for field in fields(record) if field.name not in without]
        self._names = tuple(field.name for field in found)
        self._values = attrgetter(*self._names)
        struct = msgspec.defstruct(
            f"{record.__name__}Rest",
            # Without a default a field is required; with one it may be missing in rows from before it was there.
            [_member(field.name, hints[field.name], field.default) for field in found],
            kw_only=True,
            forbid_unknown_fields=True,
        )
        self._decoder = msgspec.json.Decoder(struct)

    def encode(self, record: object) -> dict[str, object]:
        """Every field, defaults too: a default may be another one in later code."""
        return dict(zip(self._names, self._values(record), strict=True))

    def decode(self, text: str | msgspec.Raw) -> dict[str, Any]:
        return msgspec.structs.asdict(self._decoder.decode(text))


def _member(name: str, hint: object, default: object) -> Any:
    return (name, hint) if default is MISSING else (name, hint, default)


# The names are in files: a class may be renamed, its name here may not.
_TARGETS: dict[str, type[Target]] = {"price": TargetByPrice, "percent": TargetByPercent}
_STOPS: dict[str, type[Stop]] = {"price": StopByPrice, "percent": StopByPercent, "market": StopMarket}
_DAYS: dict[str, type[Day]] = {"first": FirstDay, "date": OnDate, "days-to-expiry": DaysToExpiry}
_MOMENTS: dict[str, type[Moment]] = {"clock": ClockTime, "before-close": BeforeClose, "open": AtOpen}
_ALL_KINDS: tuple[Mapping[str, type], ...] = (_TARGETS, _STOPS, _DAYS, _MOMENTS)
_KINDS: dict[type, str] = {kind: name for kinds in _ALL_KINDS for name, kind in kinds.items()}
if set(_KINDS) != {kind for union in (Target, Stop, Day, Moment) for kind in get_args(union)}:
    raise TypeError("a kind of exit has no stored name")

_Named = tuple[str, msgspec.Raw]
_Kind = TypeVar("_Kind")


class _StoredTimeExit(msgspec.Struct, forbid_unknown_fields=True):
    """Either a day and its moment, or a duration."""

    day: _Named | None = None
    moment: _Named | None = None
    after_fill_us: int | None = None


class _StoredRequest(msgspec.Struct):
    target: _Named | None
    stop: _Named | None
    rest: msgspec.Raw
    time_exits: tuple[_StoredTimeExit, ...] = ()


# `request`, the ids and the orders are stored apart; the other names are columns of the same name.
_BRACKET_COLUMNS = frozenset(_names(tables.brackets)) | {"request", "policy", "orders", "staged", "suspects"}
# `refusal` has a column for readers, its text alone; the record itself is in the rest.
_ORDER_COLUMNS = (frozenset(_names(tables.orders)) | {"spec", "views", "group"}) - {"refusal"}

_request_rest = _Rest(BracketRequest, apart=("target", "stop", "time_exits", "text"))
_bracket_rest = _Rest(Bracket, apart=_BRACKET_COLUMNS)
_order_rest = _Rest(Order, apart=_ORDER_COLUMNS)
_request_decoder = msgspec.json.Decoder(_StoredRequest)
_policy_decoder = msgspec.json.Decoder(Policy)
_spec_decoder = msgspec.json.Decoder(OrderSpec)
_views_decoder = msgspec.json.Decoder(tuple[View, ...])


def request_json(request: BracketRequest) -> str:
    """The request but for its canonical text, which has a column."""
    return to_json(
        {
            "target": None if request.target is None else _named(request.target),
            "stop": None if request.stop is None else _named(request.stop),
            "time_exits": [_stored_time_exit(rule) for rule in request.time_exits],
            "rest": _request_rest.encode(request),
        }
    )


def _named(part: object) -> tuple[str, object]:
    return _KINDS[type(part)], part


def _stored_time_exit(rule: TimeExit) -> dict[str, object]:
    match rule:
        case AfterFill():
            return {"after_fill_us": rule.duration_us}
        case OnDay():
            return {"day": _named(rule.day), "moment": _named(rule.moment)}
        case _:
            assert_never(rule)


def request_from_json(stored_json: str, text: str) -> BracketRequest:
    stored = _request_decoder.decode(stored_json)
    return BracketRequest(
        target=None if stored.target is None else _unnamed(stored.target, _TARGETS),
        stop=None if stored.stop is None else _unnamed(stored.stop, _STOPS),
        time_exits=tuple(_time_exit(rule) for rule in stored.time_exits),
        text=text,
        **_request_rest.decode(stored.rest),
    )


def _unnamed(stored: _Named, kinds: Mapping[str, type[_Kind]]) -> _Kind:
    name, fields = stored
    return msgspec.json.decode(fields, type=kinds[name])


def _time_exit(stored: _StoredTimeExit) -> TimeExit:
    if stored.after_fill_us is not None:
        return AfterFill(stored.after_fill_us)
    if stored.day is None or stored.moment is None:
        raise ValueError("a stored time exit has no day and moment")
    return OnDay(_unnamed(stored.day, _DAYS), _unnamed(stored.moment, _MOMENTS))


def rows_from_change(change: Change) -> list[Row]:
    """Everything a change writes. Raises whatever a bad record raises: the change is at fault, not the disk."""
    match change:
        case BracketChange():
            return _rows_from_bracket_change(change)
        case Alarm():
            return [(INSERT_ALARM, (change.at_us, change.code, change.text, change.bracket_id))]
        case Capability():
            key = (change.account, change.product, change.protection.value)
            return [(PUT_CAPABILITY, (*key, int(change.is_accepted), change.evidence, change.at_us))]
        case Setting():
            return [(PUT_SETTING, (change.name, change.value))]
        case Delivery():
            tried = (change.state, change.tries, change.at_us, change.error)
            return [(PUT_DELIVERY, (change.alarm_seq, change.channel, *tried))]
        case JournalArchived():
            kept = (change.archive, max(change.seqs), change.rows, change.digest, change.at_us)
            gone: list[Row] = [(DELETE_JOURNAL, (seq, change.bracket_id)) for seq in change.seqs]
            return [(PUT_ARCHIVED, (change.bracket_id, *kept)), *gone]
    assert_never(change)


def _rows_from_bracket_change(change: BracketChange) -> list[Row]:
    before, after = change.before, change.after
    rows = [_bracket_row(before, after), *_id_rows(before, after)]
    for position, order in enumerate(after.orders):
        old = None if before is None else before.order(order.external_identifier)
        if old is not order and old != order:
            rows.extend(_order_rows(after.bracket_id, position, old, order))
    if change.row is not None:
        rows.append(_accepted_row(after.bracket_id, change.row))
    rows.extend(_journal_rows(change))
    return rows


def _bracket_row(before: Bracket | None, after: Bracket) -> Row:
    changing: tuple[Value, ...] = (
        after.state.value,
        None if after.outcome is None else after.outcome.value,
        after.attention,
        after.protection.value,
        price_text(after.entry_net_price),
        price_text(after.exit_net_price),
        after.first_fill_us,
        after.unprotected_since_us,
        after.unprotected_us,
        int(after.is_frozen),
        int(after.is_held),
        after.wake_at_us,
        after.closed_at_us,
        after.version,
        to_json(_bracket_rest.encode(after)),
    )
    if before is not None:
        return UPDATE_BRACKET, (*changing, after.bracket_id, before.version)
    values: dict[str, Value] = dict(zip(_BRACKET_CHANGING, changing, strict=True))
    values |= {
        "bracket_id": after.bracket_id,
        "client_ref": after.client_ref,
        "account": after.account,
        "created_at_us": after.created_at_us,
        "quantity": after.size,
        "tags_json": to_json(dict(after.request.tags)),
        "request_text": after.request.text,
        "request_json": request_json(after.request),
        "policy_json": to_json(after.policy),
    }
    return INSERT_BRACKET, tuple(values[name] for name in _BRACKET_NAMES)


def _id_rows(before: Bracket | None, after: Bracket) -> list[Row]:
    known = {} if before is None else _ids(before)
    present = _ids(after)
    dropped = {
        external_identifier: (role, IdStatus.DROPPED)
        for external_identifier, (role, _) in known.items()
        if external_identifier not in present
    }
    rows: list[Row] = []
    for external_identifier, (role, status) in (present | dropped).items():
        if known.get(external_identifier) != (role, status):
            # An id that is in the table keeps the position of its making; `position` here is for new ones.
            position = after.version * _IDS_PER_CHANGE + len(rows)
            rows.append((PUT_ID, (external_identifier, after.bracket_id, role.value, position, status.value)))
    if len(rows) > _IDS_PER_CHANGE:
        raise ValueError(f"{len(rows)} ids in one change of bracket {after.bracket_id}")
    return rows


def _ids(bracket: Bracket) -> dict[ExternalIdentifier, tuple[Role, IdStatus]]:
    ids = {order.external_identifier: (order.role, IdStatus.USED) for order in bracket.orders}
    ids |= {external_identifier: (role, IdStatus.SUSPECT) for role, external_identifier in bracket.suspects}
    ids |= {external_identifier: (role, IdStatus.STAGED) for role, external_identifier in bracket.staged}
    return ids


def _order_rows(bracket_id: BracketId, position: int, old: Order | None, order: Order) -> Iterable[Row]:
    legs = order.spec.legs
    changing: tuple[Value, ...] = (
        order.state.value,
        order.status_text,
        order.broker_order_id,
        order.complex_order_id,
        order.group,
        size_of(legs),
        matched_units(legs, {leg.symbol: order.filled(leg.symbol) for leg in legs}),
        price_text(order_net_fill_price(order)),
        None if order.refusal is None else order.refusal.text,
        to_json(order.spec),
        to_json(order.views),
        to_json(_order_rest.encode(order)),
    )
    if old is not None:
        yield UPDATE_ORDER, (*changing, order.external_identifier, bracket_id)
    else:
        values: dict[str, Value] = dict(zip(_ORDER_CHANGING, changing, strict=True))
        values |= {
            "external_identifier": order.external_identifier,
            "bracket_id": bracket_id,
            "position": position,
            "role": order.role.value,
            "intended_at_us": order.intended_at_us,
        }
        yield INSERT_ORDER, tuple(values[name] for name in _ORDER_NAMES)
    known = {} if old is None else _fills(old)
    for (symbol, fill_id), fill in _fills(order).items():
        if known.get((symbol, fill_id)) != fill:
            key = (order.external_identifier, fill_id, symbol)
            yield PUT_FILL, (*key, fill.quantity, plain(fill.price), fill.filled_at_us)


def _fills(order: Order) -> dict[tuple[str, FillId], Fill]:
    return {(leg.symbol, fill.fill_id): fill for view in order.views for leg in view.legs for fill in leg.fills}


def _accepted_row(bracket_id: BracketId, row: AcceptedRow) -> Row:
    return INSERT_ACCEPTED_ROW, (bracket_id, row.request_id, row.client_ref, row.account, row.request)


def _journal_rows(change: BracketChange) -> Iterable[Row]:
    """One row for each entry, all that was decided on on the first; never none: each input must be on record."""
    state = change.after.state
    entries = change.journal or (JournalEntry(names_told(change.steps), state, state),)
    text = text_from_steps(change.steps)
    for index, entry in enumerate(entries):
        yield (
            INSERT_JOURNAL,
            (
                change.after.bracket_id,
                change.at_us,
                entry.event,
                None if entry.from_state is None else entry.from_state.value,
                entry.to_state.value,
                entry.detail,
                text if index == 0 else None,
            ),
        )


_BRACKET_NAMES = _names(tables.brackets)
_ORDER_NAMES = _names(tables.orders)


_MOST_PRICES = 10_000
_prices: dict[str, Decimal] = {}  # by their text: 1.90 is another one than 1.9


def _shared_price(price: Decimal | None) -> Decimal | None:
    """One object for all that read alike: a bracket has a dozen prices, and thousands have the same."""
    if price is None:
        return None
    if len(_prices) >= _MOST_PRICES:
        _prices.clear()
    return _prices.setdefault(str(price), price)


_set = object.__setattr__  # on records that were read this moment and that nobody else has


def _share_legs(spec: OrderSpec, known: dict[object, Any]) -> None:
    for leg in spec.legs:
        _set(leg, "symbol", known.setdefault(leg.symbol, leg.symbol))
    _set(spec, "legs", known.setdefault(spec.legs, spec.legs))
    _set(spec, "net_price", _shared_price(spec.net_price))
    _set(spec, "stop_trigger", _shared_price(spec.stop_trigger))


def _share_views(order: Order, known: dict[object, Any]) -> None:
    for view in order.views:
        _set(view, "status_text", sys.intern(view.status_text))
        _set(view, "source", None if view.source is None else sys.intern(view.source))
        _set(view, "net_price", _shared_price(view.net_price))
        _set(view, "stop_trigger", _shared_price(view.stop_trigger))
        for leg in view.legs:
            _set(leg, "symbol", known.setdefault(leg.symbol, leg.symbol))
            for fill in leg.fills:
                _set(fill, "price", _shared_price(fill.price))


def _share(bracket: Bracket) -> Bracket:
    """What is equal within a bracket, or in many, is held once: a third of what an open bracket takes."""
    known: dict[object, Any] = {}
    entry = bracket.request.entry
    _share_legs(entry, known)
    for order in bracket.orders:
        _share_legs(order.spec, known)
        _share_views(order, known)
        prices = (order.spec.net_price, order.spec.stop_trigger)
        if order.spec == entry and prices[0] is entry.net_price and prices[1] is entry.stop_trigger:
            _set(order, "spec", entry)
    _set(bracket, "account", sys.intern(bracket.account))
    _set(bracket, "ladder", _small.setdefault(bracket.ladder, bracket.ladder))
    _set(bracket, "policy", _small.setdefault(bracket.policy, bracket.policy))
    policy = bracket.request.watch_policy
    _set(bracket.request, "watch_policy", _small.setdefault(policy, policy))
    return bracket


# Settings of brackets, of which there are few different ones.
_small: dict[Any, Any] = {}


def order_from_row(row: StoredRow) -> Order:
    with _readable("order", row["external_identifier"]):
        return Order(
            external_identifier=ExternalIdentifier(row["external_identifier"]),
            role=Role(row["role"]),
            spec=_spec_decoder.decode(row["spec_json"]),
            state=OrderState(row["state"]),
            intended_at_us=row["intended_at_us"],
            group=row["group_id"],
            complex_order_id=row["complex_order_id"],
            views=_views_decoder.decode(row["views_json"]),
            **_order_rest.decode(row["more_json"]),
        )


def bracket_from_rows(
    row: StoredRow, orders: Sequence[Order], unused: Sequence[tuple[Role, ExternalIdentifier, IdStatus]]
) -> Bracket:
    """orders: in the order of their positions. unused: (role, id, status) of STAGED and SUSPECT ids, likewise."""
    with _readable("bracket", row["bracket_id"]):
        bracket = Bracket(
            bracket_id=BracketId(row["bracket_id"]),
            client_ref=row["client_ref"],
            account=AccountNumber(row["account"]),
            request=request_from_json(row["request_json"], row["request_text"]),
            policy=_policy_decoder.decode(row["policy_json"]),
            created_at_us=row["created_at_us"],
            state=BracketState(row["state"]),
            orders=tuple(orders),
            staged=tuple((role, name) for role, name, status in unused if status is IdStatus.STAGED),
            suspects=tuple((role, name) for role, name, status in unused if status is IdStatus.SUSPECT),
            outcome=None if row["outcome"] is None else Outcome(row["outcome"]),
            attention=row["attention"],
            first_fill_us=row["first_fill_us"],
            unprotected_since_us=row["unprotected_since_us"],
            unprotected_us=row["unprotected_us"],
            is_frozen=bool(row["is_frozen"]),
            is_held=bool(row["is_held"]),
            wake_at_us=row["wake_at_us"],
            closed_at_us=row["closed_at_us"],
            version=row["version"],
            **_bracket_rest.decode(row["more_json"]),
        )
        return _share(bracket)


def capability_from_row(row: StoredRow) -> Capability:
    return Capability(
        account=AccountNumber(row["account"]),
        product=row["product"],
        protection=Protection(row["protection"]),
        is_accepted=bool(row["is_accepted"]),
        evidence=row["evidence"],
        at_us=row["at_us"],
    )


@contextmanager
def _readable(kind: str, name: str) -> Iterator[None]:
    try:
        yield
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError) as error:
        raise StoredRecordUnreadable(f"the stored {kind} {name} cannot be read: {error}") from error
