"""The command line as a whole: every command, and how each failure becomes an exit status and a line."""

import io
import os
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from otocod import __version__
from otocod.cli import alerts, control, explain, inspect, output, processes, service, submit, upkeep, watch, web
from otocod.cli.commands import Given, new_app
from otocod.cli.failure import ExitStatus, Failed

_PAPER = "paper"

app = new_app(help="OTOCO brackets for option spreads at tastytrade, as a daemon.")


@app.callback()
def _root(
    config: str | None = typer.Option(
        None, "--config", metavar="FILE", help="Settings file; may stand after the command too."
    ),
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    Given.config = Path(config) if config else None


for _group in (inspect, explain, watch, submit, control, alerts, web, upkeep, service, processes):
    _group.register(app)


def run(argv: Sequence[str]) -> int:
    """Carries out a command line; the exit status. Nothing is raised and no traceback is printed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show an arrow shows a question mark; no command fails over it.
            stream.reconfigure(errors="replace")
    try:
        return _carried_out(arranged(argv))
    except Failed as failure:
        _tell(failure)
        return int(failure.status)
    except (KeyboardInterrupt, typer.Abort):
        return int(ExitStatus.INTERRUPTED)
    except BrokenPipeError:
        _drop_stdout()
        return int(ExitStatus.FAILED)
    # Of a command that reads the file itself. The driver cannot even put some damage into words.
    except (sqlite3.Error, UnicodeDecodeError) as error:
        output.complain(f"otocod: the database cannot be read: {error}; `otocod db check` looks for damage")
        return int(ExitStatus.FAILED)
    except Exception as error:  # the last resort: one line that names it, for a report
        return _unexpected(error)


def _carried_out(argv: list[str]) -> int:
    if argv[:1] == ["--version"]:
        output.say(f"otocod {__version__}")
        return int(ExitStatus.DONE)
    status = app(argv, prog_name="otocod", standalone_mode=False)
    output.flush()
    return status if isinstance(status, int) else int(ExitStatus.DONE)


def _unexpected(error: Exception) -> int:
    # The parser's errors have no public base class in every release; they know their status and how to say it.
    status, saying = getattr(error, "exit_code", None), getattr(error, "format_message", None)
    if isinstance(status, int) and callable(saying):
        lines = str(saying()).strip().splitlines()
        if len(lines) > 1:
            # No command was given: the help is the message.
            for line in lines:
                output.complain(line)
        else:
            output.complain(f"otocod: {' '.join(lines)}")
            output.complain("otocod: `otocod --help` lists the commands")
        return status
    output.complain(f"otocod: {type(error).__name__}: {error}")
    return int(ExitStatus.FAILED)


def _tell(failure: Failed) -> None:
    _flush_quietly()
    if len(failure.reasons) == 1:
        output.complain(f"otocod: {failure.message}: {failure.reasons[0]}")
        return
    output.complain(f"otocod: {failure.message}")
    for reason in failure.reasons:
        output.complain(f"  {reason}")


def _flush_quietly() -> None:
    try:
        output.flush()
    except BrokenPipeError:
        _drop_stdout()


def _drop_stdout() -> None:
    """The reader of our output has gone; the interpreter would complain when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def arranged(argv: Sequence[str]) -> list[str]:
    """The command line as the parser takes it: --config before the command, and `--wait` with its default.

    The paper broker has a --config of its own, so what follows `paper` stays as it is.
    """
    front: list[str] = []
    rest: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--" or (word == _PAPER and not rest):
            return front + rest + [word] + words
        if word == "--config" and words:
            front += [word, words.pop(0)]
        elif word.startswith("--config="):
            front.append(word)
        elif word == "--wait":
            rest.append(f"--wait={submit.WAIT_DEFAULT}")
        else:
            rest.append(word)
    return front + rest
