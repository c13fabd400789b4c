"""run, paper, demo: commands that stay."""

import os
import sys

import typer

from otocod.cli.commands import Given, Json, command


def register(app: typer.Typer) -> None:
    command(app, "run")(run)
    command(
        app,
        "paper",
        # Its own parser reads what follows, --help included.
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )(paper)
    command(app, "demo")(demo)


def run(as_json: bool = typer.Option(False, "--json", help="Log JSON whatever the settings say.")) -> None:
    """The daemon, in the foreground."""
    from otocod.cli.upkeep import load

    if Given.config is not None:
        # SIGHUP reads the same file again, and only the environment is left to tell it which.
        os.environ["OTOCOD_CONFIG"] = str(Given.config.absolute())
    loaded = load(on_terminal=sys.stderr.isatty() and not as_json)
    if as_json:
        from dataclasses import replace

        from otocod.config import LogFormat

        loaded = replace(loaded, settings=loaded.settings.model_copy(update={"log_format": LogFormat.JSON}))
    from otocod import bootstrap

    raise typer.Exit(bootstrap.run(loaded))


def paper(ctx: typer.Context) -> None:
    """The paper broker as a process; its first line is JSON. `otocod paper --help` lists its options."""
    from otocod.paper.__main__ import main

    # Its first line is JSON whether asked or not.
    raise typer.Exit(main([argument for argument in ctx.args if argument != "--json"]))


def demo(
    keep: bool = typer.Option(False, "--keep", help="Keep the databases and logs, and say where."),
    as_json: bool = Json,
) -> None:
    """The demonstration: the paper broker, the daemon, thirteen brackets, each ending; under a minute."""
    from otocod.cli.demo import run_demo

    raise typer.Exit(run_demo(keep=keep, as_json=as_json))
