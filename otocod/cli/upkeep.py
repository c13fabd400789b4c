"""db, config, doctor: looking after the databases and the settings."""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from otocod.cli import output
from otocod.cli.client import BROKER_TIMEOUT_S
from otocod.cli.commands import Given, Json, command, new_app
from otocod.cli.failure import DaemonDown, ExitStatus, Failed
from otocod.cli.places import Places
from otocod.cli.source import daemon, places, require_database

if TYPE_CHECKING:
    from otocod.config import Loaded

db_app = new_app(help="The state database.")
config_app = new_app(help="The settings.")
# As made by `otocod db backup`; removed by --keep, and looked for by `doctor`.
_USUAL_NAMES = "state-*Z.db"
# The first time there may be years of journals.
_PRUNE_TIMEOUT_S = 1800.0


def register(app: typer.Typer) -> None:
    command(db_app, "upgrade")(db_upgrade)
    command(db_app, "backup")(db_backup)
    command(db_app, "prune")(db_prune)
    command(db_app, "check")(db_check)
    command(db_app, "restore")(db_restore)
    app.add_typer(db_app, name="db")
    command(config_app, "show")(config_show)
    command(config_app, "check")(config_check)
    app.add_typer(config_app, name="config")
    command(app, "doctor")(doctor)
    command(app, "reload")(reload)


def load(*, on_terminal: bool = False) -> "Loaded":
    """The settings as the daemon reads them. Raises Failed (78) with every problem."""
    from otocod.config import ConfigInvalid, load_settings

    try:
        return load_settings(Given.config, os.environ, on_terminal=on_terminal)
    except ConfigInvalid as invalid:
        raise Failed(ExitStatus.CONFIGURATION, "the settings cannot be used", invalid.problems) from None


def config_show(as_json: bool = Json) -> None:
    """The effective settings, where each is from, its unit; secrets masked."""
    from otocod.config import describe

    loaded = load()
    described = describe(loaded.settings, loaded.sources)
    if as_json:
        output.print_json([asdict(each) for each in described])
        return
    rows = [(each.name, each.value, each.unit, each.source, each.meaning) for each in described]
    output.print_table(("setting", "value", "unit", "source", "meaning"), rows, empty="")
    _warn(loaded)


def config_check(as_json: bool = Json) -> None:
    """Every problem of the settings at once, and whether the places they name are fit; each with what to do."""
    try:
        loaded = load()
    except Failed as failure:
        if as_json:
            output.print_json({"ok": False, "problems": list(failure.reasons), "warnings": [], "checks": []})
        raise
    # Not part of the verdict: whoever checks the settings need not be the user who runs the daemon.
    checks = _surroundings(loaded, places())
    if as_json:
        output.print_json({"ok": True, "problems": [], "warnings": list(loaded.warnings), "checks": checks})
        return
    _warn(loaded)
    for each in checks:
        if not each["ok"]:
            output.complain(f"warning: {each['check']}: {each['detail']}; mend it: {each['remedy']}")
    output.say(f"the settings are good: {loaded.settings.environment}, data in {loaded.settings.data_dir}")


def _warn(loaded: "Loaded") -> None:
    for warning in loaded.warnings:
        output.complain(f"warning: {warning}")


@contextmanager
def _exclusively(lock: Path) -> Iterator[None]:
    """Holds the daemon's lock, so that no daemon starts meanwhile."""
    lock.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    from otocod.adapters.sqlite.check import give_to_owner

    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    give_to_owner(lock)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Failed(ExitStatus.NOT_AS_NEEDED, "otocod is running and has its database open; stop it first") from None
    else:
        yield
    finally:
        os.close(descriptor)


def db_upgrade(as_json: bool = Json) -> None:
    """Bring state.db to this release, after a backup. Not while the daemon runs, which does it at its start."""
    from otocod.adapters.sqlite import check, migrate

    where = places()
    with _exclusively(where.data_dir / "lock"):
        try:
            saved = migrate.upgrade(where.state_db)
        except (migrate.SchemaTooNew, check.NotFit) as error:
            raise Failed(ExitStatus.FAILED, str(error)) from None
        revision = migrate.current_revision(where.state_db)
    if as_json:
        output.print_json({"path": str(where.state_db), "revision": revision, "backup": str(saved) if saved else None})
    else:
        output.say(f"{where.state_db} has schema {revision}{f'; the former is in {saved}' if saved else ''}")


def db_backup(
    to: str | None = typer.Argument(None, metavar="[FILE]", help="Must not exist; beside state.db when left out."),
    keep: int = typer.Option(
        0, "--keep", metavar="N", min=0, help="Then remove all but the newest N that have the usual name; 0: none."
    ),
    as_json: bool = Json,
) -> None:
    """A consistent copy of state.db, while the daemon runs or not."""
    if to and keep:
        raise Failed(ExitStatus.USAGE, "db backup: --keep goes with the usual names, not with a FILE of your own")
    target = _absolute(to) if to else _usual_backup()
    try:
        found = daemon().post("/v1/backup", {"to": str(target)}, timeout_s=BROKER_TIMEOUT_S)
    except DaemonDown:
        found = _backup(places().state_db, target)
    found["removed"] = _rotate(target, keep)
    if as_json:
        output.print_json(found)
        return
    output.say(f"{found['path']}: {found['bytes']} bytes")
    for removed in found["removed"]:
        output.say(f"removed {removed}")


def _rotate(newest: Path, keep: int) -> list[str]:
    """Removes older backups beside this one, once it is made. Their names sort by age."""
    if keep == 0:
        return []
    made = sorted((path for path in newest.parent.glob(_USUAL_NAMES) if path != newest), reverse=True)
    too_many = made[keep - 1 :]
    try:
        for path in too_many:
            path.unlink()
    except OSError as error:
        raise Failed(ExitStatus.FAILED, f"{newest} was made, and an older backup stays: {error}") from None
    return [str(path) for path in too_many]


def _usual_backup() -> Path:
    from datetime import UTC, datetime

    return places().state_db.with_name(f"state-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db")


def _absolute(path: str) -> Path:
    # The daemon has another working directory.
    return Path(path).absolute()


def _backup(path: Path, to: Path) -> dict[str, Any]:
    from otocod.adapters.sqlite import check

    require_database(path)
    try:
        check.backup(path, to)
    except FileExistsError:
        raise Failed(ExitStatus.FAILED, f"{to} exists already") from None
    except check.NotFit as unfit:
        raise Failed(ExitStatus.FAILED, "the backup is not good", tuple(map(str, unfit.problems))) from None
    except OSError as error:
        raise Failed(ExitStatus.FAILED, f"{to}: {error.strerror}") from None
    return {"path": str(to), "bytes": to.stat().st_size}


def db_restore(
    source: str = typer.Argument(
        metavar="FILE", help="A backup; or state.db itself, when an older copy has been put in its place."
    ),
    as_json: bool = Json,
) -> None:
    """Go on from a backup: entries wait until `otocod reconcile --adopt`. Not while the daemon runs."""
    from otocod.adapters.sqlite import check, migrate, restore

    where, settings = places(), load().settings
    file = _absolute(source)
    if not file.is_file():
        raise Failed(ExitStatus.FAILED, f"there is no file {file}")
    with _exclusively(where.data_dir / "lock"):
        try:
            done = restore.restore(
                where.state_db, file, environment=settings.environment.value, now_us=time.time_ns() // 1000
            )
        except migrate.SchemaTooNew as error:
            raise Failed(ExitStatus.FAILED, str(error)) from None
        except check.NotFit as unfit:
            problems = tuple(map(str, unfit.problems))
            raise Failed(ExitStatus.FAILED, f"{file} was not restored, nothing was changed", problems) from None
        except OSError as error:
            raise Failed(ExitStatus.FAILED, f"{file} was not restored: {error}") from None
    replaced = None if done.replaced is None else str(done.replaced)
    if as_json:
        output.print_json({"path": str(where.state_db), "from": str(file), "replaced": replaced})
        return
    output.say(f"{where.state_db} is {file} now{f'; what was there is in {replaced}' if replaced else ''}")
    output.say("start otocod: it manages exits, and takes no entries until `otocod reconcile --adopt`")


def db_prune(as_json: bool = Json) -> None:
    """Have the daemon put journals of brackets that closed long ago into the archive, and take old answers away."""
    found = daemon().post("/v1/prune", timeout_s=_PRUNE_TIMEOUT_S)
    if as_json:
        output.print_json(found)
        return
    closed_before, answered_before = found["closed_before"], found["answered_before"]
    if closed_before is None:
        output.say("journals stay in state.db: retention.journal_months is 0")
    else:
        where = f", now in {', '.join(found['archives'])}" if found["archives"] else ""
        told = f"{found['brackets']} journals archived of brackets closed before {closed_before[:10]}"
        output.say(f"{told}: {found['rows']} rows{where}")
    if answered_before is None:
        output.say("answers stay in the queue file: retention.answers_days is 0")
    else:
        output.say(f"{found['answers']} rows of the queue, answered before {answered_before[:10]}, taken away")


def db_check(as_json: bool = Json) -> None:
    """Look for damage: SQLite's own checks, rows that refer to nothing, the schema's version, invariants, archives."""
    from otocod.adapters.sqlite import check

    path = places().state_db
    require_database(path)
    problems = check.integrity_check(path)
    revision = None if problems else check.stored_revision(path)
    if not problems:
        problems = _schema_problems(revision)
    if not problems:
        problems = tuple(f"{each['rule']}: {each['text']}" for each in _violations(path)) + _archive_problems(path)
    if as_json:
        output.print_json({"path": str(path), "ok": not problems, "schema": revision, "problems": list(problems)})
    elif not problems:
        output.say(f"{path} is sound, with schema {revision}")
    if problems:
        raise Failed(ExitStatus.FAILED, f"{path} is not as it should be", problems)


def _schema_problems(revision: str | None) -> tuple[str, ...]:
    from alembic.script import ScriptDirectory

    from otocod.adapters.sqlite.migrate import alembic_config

    known = [each.revision for each in ScriptDirectory.from_config(alembic_config()).walk_revisions()]
    if revision is None:
        return ("it has no tables of otocod",)
    if revision not in known:
        return (f"it has schema {revision}, made by a newer otocod; install that one or restore a backup",)
    if revision != known[0]:
        return (f"it has schema {revision} and this release uses {known[0]}: otocod db upgrade",)
    return ()


def _archive_problems(path: Path) -> tuple[str, ...]:
    from contextlib import closing

    from otocod.adapters.sqlite import archive, readmodel

    with closing(readmodel.open_readonly(path)) as connection:
        return tuple(archive.problems(connection))


def _violations(path: Path) -> list[dict[str, Any]]:
    from otocod.audit import audit_database

    return [{"rule": each.rule, "text": each.text} for each in audit_database(path)]


def doctor(as_json: bool = Json) -> None:
    """Look at everything that must be right, say what is not and how to mend it."""
    try:
        checks = daemon().get("/v1/doctor", timeout_s=BROKER_TIMEOUT_S)
    except DaemonDown as down:
        checks = [_check("daemon", False, down.message, "start it: otocod run"), *_local_checks()]
    if as_json:
        output.print_json(checks)
    else:
        print_checks(checks)
    if not all(each["ok"] for each in checks):
        raise typer.Exit(ExitStatus.FAILED)


def print_checks(checks: list[dict[str, Any]]) -> None:
    for each in checks:
        output.say(f"{'ok  ' if each['ok'] else 'BAD '} {each['check']}: {each['detail']}")
        if not each["ok"] and each.get("remedy"):
            output.say(f"     mend it: {each['remedy']}")


def _check(name: str, ok: bool, detail: str, remedy: str = "") -> dict[str, Any]:
    return {"check": name, "ok": ok, "detail": detail, "remedy": remedy}


def _local_checks() -> list[dict[str, Any]]:
    """What can be judged without the daemon: settings, files, the kernel."""
    from otocod.adapters.queue import landlock
    from otocod.adapters.sqlite import check

    loaded = None
    try:
        loaded = load()
        checks = [_check("settings", True, f"{loaded.settings.environment}, {loaded.settings.data_dir}")]
        checks += [_check("settings", False, warning) for warning in loaded.warnings]
    except Failed as failure:
        checks = [_check("settings", False, reason, "otocod config check") for reason in failure.reasons]
    where = places()
    try:
        problems = check.startup_problems(where.state_db)
    except OSError as error:
        problems = (check.Problem(f"{where.data_dir}: {error.strerror}"),)
    checks += [_check("database", False, each.text, each.mend or "see the text") for each in problems]
    if not problems:
        there = where.state_db.exists()
        checks.append(_check("database", True, f"{where.state_db} {'is sound' if there else 'will be made'}"))
    checks.append(_queue_check(where.queue))
    confined = landlock.is_available()
    detail = "the kernel confines the queue's thread" if confined else "the kernel has no Landlock"
    checks.append(_check("landlock", confined, detail, "" if confined else "keep the queue's directory to one user"))
    checks += _surroundings(loaded, where)
    return checks


def _queue_check(path: Path) -> dict[str, Any]:
    from otocod.adapters.queue import landlock
    from otocod.adapters.queue.init import check_directory

    if not path.parent.exists():
        return _check("queue directory", True, f"{path.parent} will be made")
    refusals = check_directory(path, landlock.is_available())
    return _check("queue directory", not refusals, "; ".join(refusals) or f"{path.parent} is fit", "see the text")


def _surroundings(loaded: "Loaded | None", where: Places) -> list[dict[str, Any]]:
    from otocod.adapters.doctor import Surroundings, alert_checks, surroundings_checks
    from otocod.config import Environment, config_path

    is_production = loaded is not None and loaded.settings.environment is Environment.PRODUCTION
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    place = Surroundings(
        data_dir=where.data_dir,
        queue=where.queue,
        socket=where.socket,
        is_production=is_production,
        credentials=Path(credentials) if credentials else None,
        config=config_path(Given.config, os.environ)[0],
    )
    checks = surroundings_checks(place, os.environ)
    # What systemd does is asked of the daemon; a command in a shell is never its service.
    checks = [each for each in checks if each["check"] != "systemd"]
    if loaded is not None:
        from otocod.adapters.alerts.channels import channels_of

        alerts = loaded.settings.alerts
        names = [channel.name for channel in channels_of(alerts)]
        has_deadman = alerts.deadman_url is not None
        checks += alert_checks(names, has_deadman=has_deadman, late=None, is_production=is_production)
    return checks


def reload(as_json: bool = Json) -> None:
    """Have the daemon read its settings again, as SIGHUP does."""
    found: Mapping[str, Any] = daemon().post("/v1/reload")
    if as_json:
        output.print_json(found)
    else:
        for title in ("applied", "needs_restart", "problems"):
            output.say(f"{title.replace('_', ' ')}: {', '.join(found.get(title) or ()) or 'nothing'}")
    if found.get("problems"):
        raise typer.Exit(ExitStatus.CONFIGURATION)
