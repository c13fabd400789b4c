"""The first schema of state.db.

There is no downgrade: before it there is nothing, and dropping these tables would drop the memory of working orders.
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "alarms",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("at_us", sa.Integer(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("bracket_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_alarms")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_table(
        "brackets",
        sa.Column("bracket_id", sa.Text(), nullable=False),
        sa.Column("client_ref", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("attention", sa.Text(), nullable=True),
        sa.Column("protection", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("entry_net_price", sa.Text(), nullable=True),
        sa.Column("exit_net_price", sa.Text(), nullable=True),
        sa.Column("created_at_us", sa.Integer(), nullable=False),
        sa.Column("first_fill_us", sa.Integer(), nullable=True),
        sa.Column("unprotected_since_us", sa.Integer(), nullable=True),
        sa.Column("unprotected_us", sa.Integer(), nullable=False),
        sa.Column("is_frozen", sa.Integer(), nullable=False),
        sa.Column("is_held", sa.Integer(), nullable=False),
        sa.Column("wake_at_us", sa.Integer(), nullable=True),
        sa.Column("closed_at_us", sa.Integer(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("tags_json", sa.Text(), nullable=False),
        sa.Column("request_text", sa.Text(), nullable=False),
        sa.Column("request_json", sa.Text(), nullable=False),
        sa.Column("policy_json", sa.Text(), nullable=False),
        sa.Column("more_json", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('TARGET_FILLED', 'STOP_FILLED', 'ENTRY_NOT_FILLED', 'CLOSED_BY_OPERATOR', 'CLOSED_OUTSIDE', 'TIME_EXIT', 'EXPIRED', 'RELEASED', 'DOUBLE_EXIT')",
            name=op.f("ck_brackets_outcome"),
        ),
        sa.CheckConstraint(
            "protection IN ('auto', 'native-otoco', 'native-oco', 'watched', 'unlinked')",
            name=op.f("ck_brackets_protection"),
        ),
        sa.CheckConstraint("state <> 'CLOSED' OR outcome IS NOT NULL", name=op.f("ck_brackets_closed_with_outcome")),
        sa.CheckConstraint(
            "state IN ('PENDING_ENTRY', 'ENTRY_FILLED', 'EXITS_LIVE', 'CLOSING', 'CLOSED')",
            name=op.f("ck_brackets_state"),
        ),
        sa.CheckConstraint("is_frozen IN (0, 1) AND is_held IN (0, 1)", name=op.f("ck_brackets_flags")),
        sa.CheckConstraint(
            "length(bracket_id) > 0 AND length(client_ref) > 0 AND length(account) > 0", name=op.f("ck_brackets_ids")
        ),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_brackets_quantity")),
        sa.CheckConstraint("unprotected_us >= 0", name=op.f("ck_brackets_unprotected")),
        sa.CheckConstraint("version >= 0", name=op.f("ck_brackets_version")),
        sa.PrimaryKeyConstraint("bracket_id", name=op.f("pk_brackets")),
        sa.UniqueConstraint("client_ref", name=op.f("uq_brackets_client_ref")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_brackets_account", "brackets", ["account", "created_at_us"], unique=False)
    op.create_index(
        "ix_brackets_attention",
        "brackets",
        ["created_at_us"],
        unique=False,
        sqlite_where=sa.text("attention IS NOT NULL"),
    )
    op.create_index("ix_brackets_created_at_us", "brackets", ["created_at_us"], unique=False)
    op.create_index(
        "ix_brackets_open", "brackets", ["created_at_us"], unique=False, sqlite_where=sa.text("state <> 'CLOSED'")
    )
    op.create_table(
        "capabilities",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("product", sa.Text(), nullable=False),
        sa.Column("protection", sa.Text(), nullable=False),
        sa.Column("is_accepted", sa.Integer(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("at_us", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "protection IN ('auto', 'native-otoco', 'native-oco', 'watched', 'unlinked')",
            name=op.f("ck_capabilities_protection"),
        ),
        sa.CheckConstraint("is_accepted IN (0, 1)", name=op.f("ck_capabilities_is_accepted")),
        sa.PrimaryKeyConstraint("account", "product", "protection", name=op.f("pk_capabilities")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "settings",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_settings")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "accepted_rows",
        sa.Column("bracket_id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Integer(), nullable=False),
        sa.Column("client_ref", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["bracket_id"], ["brackets.bracket_id"], name=op.f("fk_accepted_rows_bracket_id")),
        sa.PrimaryKeyConstraint("bracket_id", name=op.f("pk_accepted_rows")),
        sa.UniqueConstraint("client_ref", name=op.f("uq_accepted_rows_client_ref")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "external_identifiers",
        sa.Column("external_identifier", sa.Text(), nullable=False),
        sa.Column("bracket_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.CheckConstraint("role IN ('entry', 'target', 'stop', 'close')", name=op.f("ck_external_identifiers_role")),
        sa.CheckConstraint(
            "status IN ('STAGED', 'SUSPECT', 'USED', 'DROPPED')", name=op.f("ck_external_identifiers_status")
        ),
        sa.CheckConstraint("length(external_identifier) > 0", name=op.f("ck_external_identifiers_id")),
        sa.ForeignKeyConstraint(
            ["bracket_id"], ["brackets.bracket_id"], name=op.f("fk_external_identifiers_bracket_id")
        ),
        sa.PrimaryKeyConstraint("external_identifier", name=op.f("pk_external_identifiers")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_external_identifiers_unused",
        "external_identifiers",
        ["bracket_id", "position"],
        unique=False,
        sqlite_where=sa.text("status IN ('STAGED', 'SUSPECT')"),
    )
    op.create_table(
        "journal",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("bracket_id", sa.Text(), nullable=False),
        sa.Column("at_us", sa.Integer(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("from_state", sa.Text(), nullable=True),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("payload_json", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "from_state IN ('PENDING_ENTRY', 'ENTRY_FILLED', 'EXITS_LIVE', 'CLOSING', 'CLOSED')",
            name=op.f("ck_journal_from_state"),
        ),
        sa.CheckConstraint(
            "to_state IN ('PENDING_ENTRY', 'ENTRY_FILLED', 'EXITS_LIVE', 'CLOSING', 'CLOSED')",
            name=op.f("ck_journal_to_state"),
        ),
        sa.ForeignKeyConstraint(["bracket_id"], ["brackets.bracket_id"], name=op.f("fk_journal_bracket_id")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_journal")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index("ix_journal_bracket_id", "journal", ["bracket_id", "seq"], unique=False)
    op.create_table(
        "orders",
        sa.Column("external_identifier", sa.Text(), nullable=False),
        sa.Column("bracket_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("broker_order_id", sa.Text(), nullable=True),
        sa.Column("complex_order_id", sa.Text(), nullable=True),
        sa.Column("group_id", sa.Text(), nullable=True),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("filled_quantity", sa.Integer(), nullable=False),
        sa.Column("net_fill_price", sa.Text(), nullable=True),
        sa.Column("refusal", sa.Text(), nullable=True),
        sa.Column("intended_at_us", sa.Integer(), nullable=False),
        sa.Column("spec_json", sa.Text(), nullable=False),
        sa.Column("views_json", sa.Text(), nullable=False),
        sa.Column("more_json", sa.Text(), nullable=False),
        sa.CheckConstraint("role IN ('entry', 'target', 'stop', 'close')", name=op.f("ck_orders_role")),
        sa.CheckConstraint(
            "state IN ('INTENDED', 'IN_FLIGHT', 'WORKING', 'CONTINGENT', 'CANCEL_PENDING', 'REPLACE_PENDING', 'UNKNOWN', 'FILLED', 'CANCELLED', 'EXPIRED', 'REJECTED', 'ABSENT')",
            name=op.f("ck_orders_state"),
        ),
        sa.CheckConstraint("filled_quantity >= 0", name=op.f("ck_orders_filled_quantity")),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_orders_quantity")),
        sa.ForeignKeyConstraint(["bracket_id"], ["brackets.bracket_id"], name=op.f("fk_orders_bracket_id")),
        sa.ForeignKeyConstraint(
            ["external_identifier"],
            ["external_identifiers.external_identifier"],
            name=op.f("fk_orders_external_identifier"),
        ),
        sa.PrimaryKeyConstraint("external_identifier", name=op.f("pk_orders")),
        sa.UniqueConstraint("bracket_id", "position", name=op.f("uq_orders_bracket_id_position")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_orders_broker_order_id",
        "orders",
        ["broker_order_id"],
        unique=False,
        sqlite_where=sa.text("broker_order_id IS NOT NULL"),
    )
    op.create_index(
        "ix_orders_unknown", "orders", ["bracket_id"], unique=False, sqlite_where=sa.text("state = 'UNKNOWN'")
    )
    op.create_index(
        "uq_orders_one_filled_entry",
        "orders",
        ["bracket_id"],
        unique=True,
        sqlite_where=sa.text("role = 'entry' AND state = 'FILLED'"),
    )
    op.create_table(
        "fills",
        sa.Column("external_identifier", sa.Text(), nullable=False),
        sa.Column("fill_id", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("price", sa.Text(), nullable=False),
        sa.Column("filled_at_us", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["external_identifier"], ["orders.external_identifier"], name=op.f("fk_fills_external_identifier")
        ),
        sa.PrimaryKeyConstraint("external_identifier", "fill_id", "symbol", name=op.f("pk_fills")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.execute(
        "CREATE TRIGGER external_identifier_is_not_deleted BEFORE DELETE ON external_identifiers WHEN 1 BEGIN SELECT RAISE(ABORT, 'identifiers are kept for ever'); END"
    )
    op.execute(
        "CREATE TRIGGER external_identifier_is_not_reused BEFORE UPDATE ON external_identifiers WHEN (OLD.status = 'USED' AND NEW.status <> 'USED') OR (OLD.status <> 'STAGED' AND NEW.status = 'STAGED') BEGIN SELECT RAISE(ABORT, 'an identifier that may have been posted is never staged again'); END"
    )
    op.execute(
        "CREATE TRIGGER journal_is_not_changed BEFORE UPDATE ON journal WHEN 1 BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
    )
    op.execute(
        "CREATE TRIGGER journal_is_not_deleted BEFORE DELETE ON journal WHEN 1 BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
    )
    op.execute(
        "CREATE TRIGGER fills_are_not_deleted BEFORE DELETE ON fills WHEN 1 BEGIN SELECT RAISE(ABORT, 'fills only grow'); END"
    )


def downgrade() -> None:
    raise NotImplementedError("nothing comes before the first schema")
