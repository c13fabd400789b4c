"""Runs migrations on the connection that otocod hands over, or on the file named with `alembic -x db=FILE`.

All steps go in one transaction, begun and ended by whoever owns the connection: an upgrade that is killed half-way
has not happened.
"""

from pathlib import Path

from alembic import context
from sqlalchemy import Connection

from otocod.adapters.sqlite.migrate import migration_engine
from otocod.adapters.sqlite.tables import metadata


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        # SQLite alters hardly anything in place: tables are copied.
        render_as_batch=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _run_on_file() -> None:
    name = context.get_x_argument(as_dictionary=True).get("db")
    if name is None:
        raise SystemExit("which file? alembic -x db=FILE ...")
    engine = migration_engine(Path(name))
    try:
        with engine.begin() as connection:
            _run(connection)
    finally:
        engine.dispose()


given = context.config.attributes.get("connection")
if given is None:
    _run_on_file()
else:
    _run(given)
