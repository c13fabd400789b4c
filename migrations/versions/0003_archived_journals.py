"""Journals of brackets that closed long ago may leave for an archive; nothing else of the journal may go."""

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "archived_journals",
        sa.Column("bracket_id", sa.Text(), nullable=False),
        sa.Column("archive", sa.Text(), nullable=False),
        sa.Column("last_seq", sa.Integer(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("at_us", sa.Integer(), nullable=False),
        sa.CheckConstraint("rows > 0", name=op.f("ck_archived_journals_rows")),
        sa.ForeignKeyConstraint(["bracket_id"], ["brackets.bracket_id"], name=op.f("fk_archived_journals_bracket_id")),
        sa.PrimaryKeyConstraint("bracket_id", name=op.f("pk_archived_journals")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_archived_journals_archive", "archived_journals", ["archive"])
    op.execute("DROP TRIGGER journal_is_not_deleted")
    op.execute(
        "CREATE TRIGGER journal_is_not_deleted BEFORE DELETE ON journal WHEN NOT EXISTS (SELECT 1 FROM archived_journals WHERE bracket_id = OLD.bracket_id AND last_seq >= OLD.seq) BEGIN SELECT RAISE(ABORT, 'the journal is append-only, but for what is in an archive'); END"
    )


def downgrade() -> None:
    raise NotImplementedError(
        "an earlier release would take a bracket whose journal is archived for one without history"
    )
