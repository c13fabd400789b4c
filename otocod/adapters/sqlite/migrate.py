"""Making and upgrading state.db, and whose state it is.

Blocking; called before the event loop or in a thread, with the lock held and nothing else open on the file.
"""

import json
import os
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, select
from sqlalchemy.pool import NullPool

from otocod.adapters.sqlite import tables
from otocod.adapters.sqlite.check import NotFit, Problem, backup
from otocod.adapters.sqlite.codec import PUT_SETTING
from otocod.adapters.sqlite.engine import WRITER_PRAGMAS, own_transactions

ENVIRONMENT_SETTING = "environment"
ACCOUNTS_SETTING = "accounts"  # a JSON array

_DIRECTORY_MODE = 0o750
_FILE_MODE = 0o600


class SchemaTooNew(Exception):
    """The file was made by a newer otocod. Using it would lose what this one does not understand."""

    def __init__(self, path: Path, revision: str) -> None:
        super().__init__(f"{path} has schema {revision}, made by a newer otocod; install that one or restore a backup")
        self.path = path
        self.revision = revision


class WrongIdentity(Exception):
    """The settings belong to other state than this file's. `reasons` holds every one."""

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons


def upgrade(path: Path) -> Path | None:
    """Makes the file or brings it to the present schema; a second call does nothing. Returns the backup made, if any.

    A file of an older schema is copied first, beside it. All steps are one transaction: killed, it has not happened.
    Raises SchemaTooNew, or NotFit for a database of something else.
    """
    config = alembic_config()
    head = ScriptDirectory.from_config(config).get_current_head()
    _make_file(path)
    engine = migration_engine(path)
    try:
        present = _checked_revision(engine, config, path)
        if present == head:
            return None
        saved = None
        if present is not None:
            saved = path.with_name(f"{path.name}.{present}.{datetime.now(UTC):%Y%m%dT%H%M%S.%f}.bak")
            backup(path, saved)
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            _require_foreign_keys(connection)
        return saved
    finally:
        engine.dispose()


def current_revision(path: Path) -> str | None:
    """The file's schema; None for a file without one."""
    engine = migration_engine(path)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def check_identity(path: Path, *, environment: str, accounts: Collection[str]) -> None:
    """Compares the settings with what the file remembers, then remembers them. New accounts are added.

    Raises WrongIdentity for another environment, or when an account that has open brackets is missing.
    """
    engine = migration_engine(path)
    try:
        with engine.begin() as connection:
            remembered = _settings(connection)
            reasons = [
                *_environment_reasons(remembered.get(ENVIRONMENT_SETTING), environment),
                *_account_reasons(connection, accounts),
            ]
            if reasons:
                raise WrongIdentity(tuple(reasons))
            known = json.loads(remembered.get(ACCOUNTS_SETTING, "[]"))
            everyone = json.dumps(sorted({*known, *accounts}))
            for row in ((ENVIRONMENT_SETTING, environment), (ACCOUNTS_SETTING, everyone)):
                connection.exec_driver_sql(PUT_SETTING.sql, row)
    finally:
        engine.dispose()


def _settings(connection: Connection) -> dict[str, str]:
    return {row.name: row.value for row in connection.execute(select(tables.settings))}


def _environment_reasons(remembered: str | None, environment: str) -> Iterable[str]:
    if remembered is not None and remembered != environment:
        yield (
            f"this state belongs to environment {remembered}, and the settings say {environment}: "
            "use another data_dir for each environment"
        )


def _account_reasons(connection: Connection, accounts: Collection[str]) -> Iterable[str]:
    table = tables.brackets
    query = select(table.c.account).where(table.c.state != "CLOSED").distinct().order_by(table.c.account)
    for account in connection.execute(query).scalars():
        if account not in accounts:
            yield f"account {account} has open brackets and is missing from the settings"


def alembic_config() -> Config:
    """The migrations beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).parents[2]
    inside = package / "_migrations"
    top = package.parent
    config = Config(inside / "alembic.ini") if inside.is_dir() else Config(top / "alembic.ini")
    config.set_main_option("script_location", str(inside if inside.is_dir() else top / "migrations").replace("%", "%%"))
    return config


def migration_engine(path: Path) -> Engine:
    """A blocking engine for one purpose at a time. Foreign keys are off: a migration copies tables that others name."""
    url = URL.create("sqlite", database=f"file:{quote(str(path))}", query={"mode": "rw", "uri": "true"})
    engine = create_engine(url, poolclass=NullPool)
    own_transactions(engine, begin="BEGIN IMMEDIATE", pragmas=(*WRITER_PRAGMAS, ("foreign_keys", "OFF")))
    return engine


def _make_file(path: Path) -> None:
    """SQLite gives its -wal and -shm the mode of the file, so the file's is set before SQLite sees it."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True)
        # The umask may have taken more or less away.
        path.parent.chmod(_DIRECTORY_MODE)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
    except FileExistsError:
        return
    try:
        os.fchmod(descriptor, _FILE_MODE)
    finally:
        os.close(descriptor)


def _checked_revision(engine: Engine, config: Config, path: Path) -> str | None:
    with engine.connect() as connection:
        present = MigrationContext.configure(connection).get_current_revision()
        names = connection.exec_driver_sql("SELECT name FROM sqlite_schema").scalars().all()
    if present is None and names:
        raise NotFit((Problem(f"{path} is a database of something else: it holds {', '.join(names[:3])}"),))
    if present is not None:
        try:
            ScriptDirectory.from_config(config).get_revision(present)
        except CommandError as error:
            raise SchemaTooNew(path, present) from error
    return present


def _require_foreign_keys(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if broken:
        raise ValueError(
            f"the upgrade would leave {len(broken)} rows that refer to nothing, such as {tuple(broken[0])}"
        )
