"""`otocod watch`: a screen for the terminal. Its library is loaded by nothing else: it takes as long as all other
commands together."""

import sys

import typer

from otocod.cli import output
from otocod.cli.commands import Json, command
from otocod.cli.failure import ExitStatus, Failed
from otocod.cli.source import places


def register(app: typer.Typer) -> None:
    command(app, "watch")(watch)


def watch(as_json: bool = Json) -> None:
    """A screen: brackets, health, timelines, and keys to halt, close and release. --json prints what it would show."""
    from otocod.cli.watch.looks import DaemonOrFile

    looks = DaemonOrFile(places())
    if as_json:
        output.print_json(looks.overview())
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Failed(ExitStatus.USAGE, "watch needs a terminal; `otocod list` and `otocod status` print to anywhere")
    first = looks.overview()
    from otocod.cli.watch.screen import WatchApp

    WatchApp(looks, first).run()
