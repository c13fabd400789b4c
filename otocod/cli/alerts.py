"""alerts: what was raised, whether it arrives, and alarms of programs beside the daemon."""

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from otocod.cli import output
from otocod.cli.client import TIMEOUT_S
from otocod.cli.commands import Given, Json, command, new_app
from otocod.cli.failure import DaemonDown, ExitStatus, Failed
from otocod.cli.source import daemon, places, require_database

alerts_app = new_app(help="Alarms on their way to a person.")

_TRIES = 3
_BETWEEN_S = 2.0


def register(app: typer.Typer) -> None:
    command(alerts_app, "list")(list_alerts)
    command(alerts_app, "test")(test)
    command(alerts_app, "raise")(raise_alarm)
    app.add_typer(alerts_app, name="alerts")


def list_alerts(
    limit: int = typer.Option(50, "--limit", help="How many, the newest."),
    as_json: bool = Json,
) -> None:
    """The newest alarms and what became of each on each channel."""
    try:
        found = daemon().get("/v1/alerts", query={"limit": limit})
    except DaemonDown:
        found = _from_file(limit)
    if as_json:
        output.print_json(found)
        return
    rows = [
        (
            each["seq"],
            output.at_text(each["at"]),
            each["severity"],
            each["code"],
            each["bracket_id"],
            each["text"],
            ", ".join(map(_delivery_text, each["deliveries"])),
        )
        for each in found
    ]
    output.print_table(("alarm>", "at", "severity", "code", "bracket", "text", "deliveries"), rows, empty="no alarms")


def _from_file(limit: int) -> list[dict[str, Any]]:
    import sqlite3
    from contextlib import closing

    from otocod.adapters.alerts import outbox
    from otocod.adapters.sqlite import readmodel

    path = places().state_db
    require_database(path)
    try:
        with closing(readmodel.open_readonly(path)) as connection:
            return outbox.list_alerts(connection, (), limit=limit)
    except sqlite3.Error as error:
        raise Failed(ExitStatus.FAILED, f"{path}: {error}") from None


def _delivery_text(delivery: Mapping[str, Any]) -> str:
    tries = f" after {delivery['tries']} tries" if delivery["tries"] > 1 else ""
    error = f" ({delivery['error']})" if delivery["error"] else ""
    return f"{delivery['channel']} {delivery['state'].lower()}{tries}{error}"


def test(as_json: bool = Json) -> None:
    """Send a test on every channel, past quiet hours, and ping the outside watcher; exit 1 if any does not take it."""
    try:
        results = daemon().post("/v1/alerts/test", timeout_s=2 * TIMEOUT_S)
    except DaemonDown:
        results = _sent_from_here(
            "test", f"a test of {_user()}, otocod is not running: if you read this, alerts arrive"
        )
    _tell(results, as_json)


def raise_alarm(
    code: str = typer.Argument(metavar="CODE", help="backup_failed, audit_failed or unit_failed."),
    text: str = typer.Argument(metavar="TEXT", help="What happened, in one line."),
    as_json: bool = Json,
) -> None:
    """Raise an alarm for a program beside the daemon: through it, or from here when it is down."""
    try:
        found = daemon().post("/v1/alerts", {"code": code, "text": text})
    except Failed as failure:
        # Broken settings, which may be what the alarm is about, do not say where the daemon would be.
        if not isinstance(failure, DaemonDown) and failure.status != ExitStatus.CONFIGURATION:
            raise
        from otocod.alarms import ALARMS

        if code not in ALARMS or not ALARMS[code].is_outside:
            known = ", ".join(name for name, about in ALARMS.items() if about.is_outside)
            raise Failed(ExitStatus.USAGE, f"code: one of {known}") from None
        results = _sent_from_here(code, f"{text} (otocod is not running)")
        _tell(results, as_json, nobody=ExitStatus.NOT_AS_NEEDED)
        return
    if as_json:
        output.print_json(found)
    else:
        output.say(f"{code}: kept, goes to {', '.join(found['channels']) or 'nobody: no channel is set up'}")


def _tell(results: Sequence[Mapping[str, Any]], as_json: bool, *, nobody: ExitStatus = ExitStatus.FAILED) -> None:
    """`nobody`: how it ends when no channel took it, so that whoever called may try again and repeat nothing."""
    if as_json:
        output.print_json(list(results))
    else:
        for each in results:
            output.say(
                f"{'ok  ' if each['ok'] else 'BAD '} {each['channel']}{': ' + each['error'] if each['error'] else ''}"
            )
    if not results:
        raise Failed(
            ExitStatus.FAILED, "no channel is set up: see `alerts` in the settings; nobody would hear of an alarm"
        )
    taken = [each["ok"] for each in results]
    if not all(taken):
        raise typer.Exit(ExitStatus.FAILED if any(taken) else nobody)


def _user() -> str:
    return f"uid:{os.getuid()}"


def _sent_from_here(code: str, text: str) -> list[dict[str, Any]]:
    """Straight to the channels, without the outbox: only the daemon writes to it."""
    import asyncio
    import time

    from otocod import logs
    from otocod.adapters.alerts.channels import channels_of
    from otocod.adapters.alerts.message import Alert, Origin, message_of
    from otocod.alarms import severity_of
    from otocod.config import ConfigInvalid, load_alerts

    try:
        settings, environment = load_alerts(Given.config, os.environ)
    except ConfigInvalid as invalid:
        raise Failed(ExitStatus.CONFIGURATION, "alerts cannot be sent", invalid.problems) from None
    logs.configure("console", "error", secrets=settings.secrets)
    alert = Alert(None, time.time_ns() // 1000, code, severity_of(code), text)
    origin = Origin(socket.gethostname(), environment, f"cli-{os.getpid()}")
    message = message_of(origin, (alert,))

    async def send() -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(_sent(channel, message) for channel in channels_of(settings))))

    return asyncio.run(send())


async def _sent(channel: Any, message: Any) -> dict[str, Any]:
    import asyncio

    from otocod.adapters.alerts.channel import ChannelFailed

    error = ""
    try:
        for left in reversed(range(_TRIES)):
            try:
                await channel.send(message)
                error = ""
                break
            except ChannelFailed as failed:
                error = str(failed)
                if left:
                    await asyncio.sleep(_BETWEEN_S)
    finally:
        await channel.close()
    return {"channel": channel.name, "ok": not error, "error": error}
