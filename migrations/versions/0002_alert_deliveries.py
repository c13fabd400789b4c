"""What became of each alarm on each way out."""

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_index("ix_alarms_code", "alarms", ["code", "at_us"])
    op.create_table(
        "alert_deliveries",
        sa.Column("alarm_seq", sa.Integer(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("at_us", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.CheckConstraint("state IN ('WAITING', 'DELIVERED', 'REPEATED')", name=op.f("ck_alert_deliveries_state")),
        sa.CheckConstraint("tries >= 0", name=op.f("ck_alert_deliveries_tries")),
        sa.ForeignKeyConstraint(["alarm_seq"], ["alarms.seq"], name=op.f("fk_alert_deliveries_alarm_seq")),
        sa.PrimaryKeyConstraint("alarm_seq", "channel", name=op.f("pk_alert_deliveries")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("alert_deliveries")
    op.drop_index("ix_alarms_code", "alarms")
