"""Commands that change something, all through the daemon, and those that have the broker asked."""

import sys
from collections.abc import Mapping
from typing import Any

import typer

from otocod.cli import inspect, output
from otocod.cli.client import BROKER_TIMEOUT_S, Client, bracket_path
from otocod.cli.commands import Bracket, Json, command
from otocod.cli.failure import DaemonDown, ExitStatus, Failed
from otocod.cli.source import daemon, places, status_from_daemon

Yes = typer.Option(False, "--yes", help="Do not ask, on a terminal either.")


def register(app: typer.Typer) -> None:
    for name, function in (
        ("cancel", cancel),
        ("close", close),
        ("change", change),
        ("ack", ack),
        ("unfreeze", unfreeze),
        ("release", release),
        ("halt", halt),
        ("resume", resume),
        ("reconcile", reconcile),
        ("audit", audit),
    ):
        command(app, name)(function)


def cancel(bracket: str = Bracket, as_json: bool = Json) -> None:
    """Cancel an entry; a filled part is protected."""
    _act(bracket, "cancel", {}, as_json)


def close(
    bracket: str = Bracket,
    at: str | None = typer.Option(
        "natural", "--at", metavar="natural|PRICE", help="Limit for one unit, or the natural price."
    ),
    yes: bool = Yes,
    as_json: bool = Json,
) -> None:
    """Cancel the exits, confirm, close the position by a limit."""
    _make_sure(bracket, "close", "its exits are cancelled and its position is closed", yes)
    _act(bracket, "close", {"at": at}, as_json)


def change(
    bracket: str = Bracket,
    target: str | None = typer.Option(None, "--target", metavar="P", help="The target's new limit."),
    stop: str | None = typer.Option(None, "--stop", metavar="T,P", help="The stop's new trigger and limit."),
    as_json: bool = Json,
) -> None:
    """Move exits; checked like a request."""
    if target is None and stop is None:
        raise Failed(ExitStatus.USAGE, "change: --target or --stop is needed")
    body: dict[str, Any] = {}
    if target is not None:
        body["target"] = target
    if stop is not None:
        parts = [part.strip() for part in stop.split(",")]
        if len(parts) != 2 or not all(parts):
            raise Failed(ExitStatus.USAGE, "change: --stop takes a trigger and a limit with a comma between: 1.70,1.90")
        body["stop"] = parts
    _act(bracket, "change", body, as_json)


def ack(bracket: str = Bracket, as_json: bool = Json) -> None:
    """Clear a bracket's attention: seen."""
    _act(bracket, "ack", {}, as_json)


def unfreeze(bracket: str = Bracket, as_json: bool = Json) -> None:
    """Let a frozen bracket send orders again, after a clean reconcile."""
    _act(bracket, "unfreeze", {}, as_json)


def release(bracket: str = Bracket, yes: bool = Yes, as_json: bool = Json) -> None:
    """Stop managing a bracket; its orders and position stay as they are."""
    _make_sure(bracket, "release", "nobody watches its orders and its position any more, for good", yes)
    _act(bracket, "release", {}, as_json)


def _make_sure(bracket: str, verb: str, what: str, yes: bool) -> None:
    """Asks a person at a terminal, with the bracket in sight. A program has made up its mind when it calls."""
    if yes or not sys.stdin.isatty():
        return
    found = daemon().get(bracket_path(bracket))
    named = f"{found['bracket_id']}  {found['client_ref']}  {found['account']}  {found['state']}"
    output.ask(f"{named}\n{verb}: {what}", verb)


def _act(bracket: str, verb: str, body: dict[str, Any], as_json: bool) -> None:
    found = daemon().post(bracket_path(bracket, verb), body, timeout_s=BROKER_TIMEOUT_S)
    if as_json:
        output.print_json(found)
        return
    outcome = f", {found['outcome']}" if found.get("outcome") else ""
    output.say(f"{found['bracket_id']}  {found['client_ref']}  {found['state']}{outcome}")
    if found.get("attention"):
        output.say(f"attention: {found['attention']}")


def halt(
    reason: str = typer.Option("", "--reason", help="Shown in status until resumed."),
    level: str = typer.Option(
        "entries",
        "--level",
        metavar="LEVEL",
        help="intake, entries, cancel-entries or flatten; each includes the last.",
    ),
    yes: bool = typer.Option(False, "--yes", help="Do not ask before flatten."),
    as_json: bool = Json,
) -> None:
    """Stop new entries, across restarts; exits are always managed. --level flatten closes every position."""
    client = daemon()
    body: dict[str, Any] = {"reason": reason, "level": level}
    if level == "flatten":
        # The daemon refuses without `confirm` and says what would be closed: that is the question.
        body["confirm"] = yes or _is_sure(client, body)
    _print_status(status_from_daemon(client, client.post("/v1/halt", body)), as_json)


def _is_sure(client: Client, body: dict[str, Any]) -> bool:
    """Asks on a terminal; elsewhere the daemon's refusal stands."""
    if not sys.stdin.isatty():
        return False
    try:
        client.post("/v1/halt", body)
    except Failed as refused:
        if refused.status != ExitStatus.REFUSED:
            raise
        output.ask("\n".join(refused.reasons), "flatten")
    return True


def resume(as_json: bool = Json) -> None:
    """Let new entries go again."""
    client = daemon()
    _print_status(status_from_daemon(client, client.post("/v1/resume")), as_json)


def _print_status(found: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(found)
    else:
        inspect.print_status(found)


def reconcile(
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what differs."),
    adopt: bool = typer.Option(False, "--adopt", help="Go on from a database that is older than the broker's record."),
    cancel: bool = typer.Option(False, "--cancel", help="With --adopt: cancel unknown entries; all else is yours."),
    leave: bool = typer.Option(False, "--leave", help="With --adopt: unknown orders and positions are yours."),
    as_json: bool = Json,
) -> None:
    """Compare with the broker now."""
    if (cancel or leave) and not adopt:
        raise Failed(ExitStatus.USAGE, "reconcile: --cancel and --leave go with --adopt")
    if adopt and (dry_run or (cancel and leave)):
        raise Failed(ExitStatus.USAGE, "reconcile: --adopt goes with one of --cancel and --leave, or none")
    body: dict[str, Any] = {"dry_run": dry_run}
    if adopt:
        body = {"adopt": True, **({"fate": "cancel" if cancel else "leave"} if cancel or leave else {})}
    found = daemon().post("/v1/reconcile", body, timeout_s=BROKER_TIMEOUT_S)
    if as_json:
        output.print_json(found)
        return
    if adopt:
        for line in (*found["differences"], *(f"yours: {each}" for each in found["adopted"])):
            output.say(line)
        output.say("adopted: `otocod resume` lets entries go again")
        return
    differences = found.get("differences") or []
    for difference in differences:
        output.say(difference_text(difference))
    count = f"{len(differences) or 'no'} difference{'' if len(differences) == 1 else 's'}"
    output.say(f"reconcile: {found.get('listed', 0)} orders read, {count}")


def difference_text(difference: object) -> str:
    if isinstance(difference, Mapping):
        return " ".join(str(value) for value in difference.values() if value)
    return str(difference)


def audit(as_json: bool = Json) -> None:
    """Check the invariants over the database and the broker's record; exit 1 with each violation."""
    try:
        found = daemon().post("/v1/audit", timeout_s=BROKER_TIMEOUT_S)
    except DaemonDown:
        found = _audit_of_database()
    if as_json:
        output.print_json(found)
    else:
        print_audit(found)
    if found["violations"]:
        raise typer.Exit(ExitStatus.FAILED)


def _audit_of_database() -> dict[str, Any]:
    from otocod.audit import audit_database
    from otocod.cli.source import require_database

    path = places().state_db
    require_database(path)
    return {"violations": [_violation(each) for each in audit_database(path)], "checked": {}, "broker_asked": False}


def _violation(found: object) -> dict[str, Any]:
    if isinstance(found, Mapping):
        return dict(found)
    return {name: getattr(found, name, None) for name in ("rule", "bracket_id", "text")}


def print_audit(found: Mapping[str, Any]) -> None:
    for each in found["violations"]:
        output.say("  ".join(str(part) for part in (each["rule"], each.get("bracket_id") or "", each["text"]) if part))
    output.say(audit_line(found))


def audit_line(found: Mapping[str, Any]) -> str:
    """One line: how much was checked, against what, and what was found."""
    checked = ", ".join(f"{count} {name}" for name, count in (found.get("checked") or {}).items())
    against = (
        "the database and the broker" if found.get("broker_asked") else "the database alone, the broker was not asked"
    )
    count = len(found["violations"])
    verdict = "nothing found" if not count else f"{count} violation{'s' if count > 1 else ''}"
    return f"audit: {verdict} ({against}{': ' + checked if checked else ''})"
