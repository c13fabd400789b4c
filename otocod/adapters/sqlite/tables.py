"""The tables of state.db. Constraints repeat the invariants, so that a bug fails here and not at the broker.

Every table is STRICT: SQLite would otherwise store text in a column of numbers and say nothing. Times are UTC
integers of microseconds, prices decimal text, enumerations their own text, booleans 0 or 1. Columns ending in `_json`
hold the parts of a record that only the daemon reads; whatever is listed or filtered has a column.

Kept equal to what the migrations make; a test compares the two.
"""

from enum import StrEnum

from sqlalchemy import (
    DDL,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)

from otocod.domain.brackets import BracketState, Outcome
from otocod.domain.orders import OrderState
from otocod.domain.specs import Protection, Role


class DeliveryState(StrEnum):
    WAITING = "WAITING"  # tried in vain, to be tried again
    DELIVERED = "DELIVERED"
    REPEATED = "REPEATED"  # not sent: the same was sent shortly before


class IdStatus(StrEnum):
    """What became of an external identifier. Only STAGED ids may still be posted."""

    STAGED = "STAGED"
    SUSPECT = "SUSPECT"  # staged by a run that did not stop cleanly: possibly posted
    USED = "USED"  # an order of a bracket carries it
    DROPPED = "DROPPED"  # never used and no longer to be used


# Names, so that a later migration can name what it changes.
metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _one_of(column: str, values: type[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"


brackets = Table(
    "brackets",
    metadata,
    Column("bracket_id", Text, nullable=False),
    Column("client_ref", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("outcome", Text),
    Column("attention", Text),
    Column("protection", Text, nullable=False),  # the mode in force
    Column("quantity", Integer, nullable=False),  # units of the spread asked for
    Column("entry_net_price", Text),  # signed, debit positive, of one unit
    Column("exit_net_price", Text),
    Column("created_at_us", Integer, nullable=False),
    Column("first_fill_us", Integer),
    Column("unprotected_since_us", Integer),  # set while it runs
    Column("unprotected_us", Integer, nullable=False),  # closed stretches only
    Column("is_frozen", Integer, nullable=False),
    Column("is_held", Integer, nullable=False),
    Column("wake_at_us", Integer),
    Column("closed_at_us", Integer),
    Column("version", Integer, nullable=False),
    Column("tags_json", Text, nullable=False),
    Column("request_text", Text, nullable=False),  # canonical: equal for equal requests
    Column("request_json", Text, nullable=False),  # the request as it was understood when accepted
    Column("policy_json", Text, nullable=False),
    Column("more_json", Text, nullable=False),
    PrimaryKeyConstraint("bracket_id"),
    UniqueConstraint("client_ref"),
    CheckConstraint(_one_of("state", BracketState), name="state"),
    CheckConstraint(_one_of("outcome", Outcome), name="outcome"),  # NULL passes
    CheckConstraint(_one_of("protection", Protection), name="protection"),
    CheckConstraint("state <> 'CLOSED' OR outcome IS NOT NULL", name="closed_with_outcome"),
    CheckConstraint("quantity > 0", name="quantity"),
    CheckConstraint("version >= 0", name="version"),
    CheckConstraint("unprotected_us >= 0", name="unprotected"),
    CheckConstraint("is_frozen IN (0, 1) AND is_held IN (0, 1)", name="flags"),
    CheckConstraint("length(bracket_id) > 0 AND length(client_ref) > 0 AND length(account) > 0", name="ids"),
    Index("ix_brackets_open", "created_at_us", sqlite_where=text("state <> 'CLOSED'")),
    Index("ix_brackets_account", "account", "created_at_us"),
    Index("ix_brackets_created_at_us", "created_at_us"),
    Index("ix_brackets_attention", "created_at_us", sqlite_where=text("attention IS NOT NULL")),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# Every identifier ever made, for ever: one that was given up may still show up at the broker.
external_identifiers = Table(
    "external_identifiers",
    metadata,
    Column("external_identifier", Text, nullable=False),
    Column("bracket_id", Text, ForeignKey("brackets.bracket_id"), nullable=False),
    Column("role", Text, nullable=False),
    Column("position", Integer, nullable=False),  # ascending within a bracket in the order in which ids were made
    Column("status", Text, nullable=False),
    PrimaryKeyConstraint("external_identifier"),
    CheckConstraint(_one_of("role", Role), name="role"),
    CheckConstraint(_one_of("status", IdStatus), name="status"),
    CheckConstraint("length(external_identifier) > 0", name="id"),
    Index(
        "ix_external_identifiers_unused",
        "bracket_id",
        "position",
        sqlite_where=text("status IN ('STAGED', 'SUSPECT')"),
    ),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

orders = Table(
    "orders",
    metadata,
    # An order without a row in external_identifiers would be one whose id was never durable.
    Column("external_identifier", Text, ForeignKey("external_identifiers.external_identifier"), nullable=False),
    Column("bracket_id", Text, ForeignKey("brackets.bracket_id"), nullable=False),
    Column("position", Integer, nullable=False),  # 0 is the order intended first
    Column("role", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("status", Text, nullable=False),  # the broker's word; ours before it has one
    Column("broker_order_id", Text),
    Column("complex_order_id", Text),
    Column("group_id", Text),
    Column("quantity", Integer, nullable=False),  # units of the spread in this order
    Column("filled_quantity", Integer, nullable=False),
    Column("net_fill_price", Text),
    Column("refusal", Text),
    Column("intended_at_us", Integer, nullable=False),
    Column("spec_json", Text, nullable=False),
    Column("views_json", Text, nullable=False),
    Column("more_json", Text, nullable=False),
    PrimaryKeyConstraint("external_identifier"),
    UniqueConstraint("bracket_id", "position"),
    CheckConstraint(_one_of("role", Role), name="role"),
    CheckConstraint(_one_of("state", OrderState), name="state"),
    CheckConstraint("quantity > 0", name="quantity"),
    CheckConstraint("filled_quantity >= 0", name="filled_quantity"),
    # Not unique, although no two orders of ours should share one: the broker may echo the old identifier on a
    # replacement, and what it says must always find room here. The audit looks for such pairs.
    Index("ix_orders_broker_order_id", "broker_order_id", sqlite_where=text("broker_order_id IS NOT NULL")),
    Index("ix_orders_unknown", "bracket_id", sqlite_where=text("state = 'UNKNOWN'")),
    Index(
        "uq_orders_one_filled_entry",
        "bracket_id",
        unique=True,
        sqlite_where=text("role = 'entry' AND state = 'FILLED'"),
    ),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

fills = Table(
    "fills",
    metadata,
    Column("external_identifier", Text, ForeignKey("orders.external_identifier"), nullable=False),
    Column("fill_id", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("price", Text, nullable=False),  # per share or contract, unsigned
    Column("filled_at_us", Integer),
    # Together: double orders with one identifier of ours may repeat a fill id, and so may the legs of one order.
    PrimaryKeyConstraint("external_identifier", "fill_id", "symbol"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

journal = Table(
    "journal",
    metadata,
    Column("seq", Integer),
    Column("bracket_id", Text, ForeignKey("brackets.bracket_id"), nullable=False),
    Column("at_us", Integer, nullable=False),
    Column("event", Text, nullable=False),
    Column("from_state", Text),
    Column("to_state", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("payload_json", Text),  # what the bracket was told; on the first row of a decision
    PrimaryKeyConstraint("seq"),
    CheckConstraint(_one_of("from_state", BracketState), name="from_state"),
    CheckConstraint(_one_of("to_state", BracketState), name="to_state"),
    Index("ix_journal_bracket_id", "bracket_id", "seq"),
    sqlite_strict=True,
    # A reader that follows the journal must never see a number again.
    sqlite_autoincrement=True,
)

# Whose journal has left, wholly or up to `last_seq`, for a file in the archive; what may be deleted, and where it is.
archived_journals = Table(
    "archived_journals",
    metadata,
    Column("bracket_id", Text, ForeignKey("brackets.bracket_id"), nullable=False),
    Column("archive", Text, nullable=False),  # the file's name, in the directory beside state.db
    Column("last_seq", Integer, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("digest", Text, nullable=False),  # of all its rows in the archive
    Column("at_us", Integer, nullable=False),
    PrimaryKeyConstraint("bracket_id"),
    CheckConstraint("rows > 0", name="rows"),
    Index("ix_archived_journals_archive", "archive"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# Copies of the queue's rows. `request_id` is not unique: a queue file that is moved aside begins again at 1.
accepted_rows = Table(
    "accepted_rows",
    metadata,
    Column("bracket_id", Text, nullable=False),
    Column("request_id", Integer, nullable=False),
    Column("client_ref", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("request", Text, nullable=False),
    PrimaryKeyConstraint("bracket_id"),
    UniqueConstraint("client_ref"),
    ForeignKeyConstraint(["bracket_id"], ["brackets.bracket_id"]),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# No foreign key: an alarm about a bracket that could not be written must itself be written.
alarms = Table(
    "alarms",
    metadata,
    Column("seq", Integer),
    Column("at_us", Integer, nullable=False),
    Column("code", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("bracket_id", Text),
    PrimaryKeyConstraint("seq"),
    Index("ix_alarms_code", "code", "at_us"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)

# The alarms are the outbox; a row here says what became of one on one way out. None yet: still to be sent.
alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("alarm_seq", Integer, ForeignKey("alarms.seq"), nullable=False),
    Column("channel", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("at_us", Integer, nullable=False),
    Column("error", Text, nullable=False),
    PrimaryKeyConstraint("alarm_seq", "channel"),
    CheckConstraint(_one_of("state", DeliveryState), name="state"),
    CheckConstraint("tries >= 0", name="tries"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

capabilities = Table(
    "capabilities",
    metadata,
    Column("account", Text, nullable=False),
    Column("product", Text, nullable=False),
    Column("protection", Text, nullable=False),
    Column("is_accepted", Integer, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("at_us", Integer, nullable=False),
    PrimaryKeyConstraint("account", "product", "protection"),
    CheckConstraint(_one_of("protection", Protection), name="protection"),
    CheckConstraint("is_accepted IN (0, 1)", name="is_accepted"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

settings = Table(
    "settings",
    metadata,
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("name"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)


def _forbid(name: str, table: Table, operation: str, message: str, when: str = "1") -> None:
    ddl = (
        f"CREATE TRIGGER {name} BEFORE {operation} ON {table.name} WHEN {when} "
        f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
    )
    event.listen(table, "after_create", DDL(ddl))  # type: ignore[no-untyped-call]


_forbid("journal_is_not_changed", journal, "UPDATE", "the journal is append-only")
_forbid(
    "journal_is_not_deleted",
    journal,
    "DELETE",
    "the journal is append-only, but for what is in an archive",
    when="NOT EXISTS (SELECT 1 FROM archived_journals WHERE bracket_id = OLD.bracket_id AND last_seq >= OLD.seq)",
)
_forbid("external_identifier_is_not_deleted", external_identifiers, "DELETE", "identifiers are kept for ever")
_forbid(
    "external_identifier_is_not_reused",
    external_identifiers,
    "UPDATE",
    "an identifier that may have been posted is never staged again",
    when="(OLD.status = 'USED' AND NEW.status <> 'USED') OR (OLD.status <> 'STAGED' AND NEW.status = 'STAGED')",
)
_forbid("fills_are_not_deleted", fills, "DELETE", "fills only grow")
