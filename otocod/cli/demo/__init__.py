"""`otocod demo`: the paper broker and the daemon as processes, brackets driven to each ending before your eyes."""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from otocod.cli import output
from otocod.cli.failure import ExitStatus

if TYPE_CHECKING:
    from otocod.cli.demo.screen import Screen


def run_demo(*, keep: bool, as_json: bool) -> int:
    """0 only if every bracket ended as it should and the audit found nothing."""
    from otocod.cli.demo.director import DemoFailed, Director
    from otocod.cli.demo.market import MarketFailed
    from otocod.cli.demo.stage import Stage, StageFailed

    directory = Path(tempfile.mkdtemp(prefix="otocod-demo-"))
    stage = Stage(directory)
    status = ExitStatus.FAILED
    # A closed terminal or a supervisor's stop must not leave two processes behind, nor a shell that ignores Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        director = Director(stage, screen_for(as_json=as_json))
        status = ExitStatus.DONE if director.perform(as_json=as_json) else ExitStatus.FAILED
    except (DemoFailed, MarketFailed, StageFailed) as failure:
        output.complain(f"otocod demo: {failure}")
    except KeyboardInterrupt:
        status = ExitStatus.INTERRUPTED
    finally:
        stage.close()
        if keep or status is ExitStatus.FAILED:
            output.complain(f"otocod demo: databases and logs are in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return int(status)


def screen_for(*, as_json: bool) -> "Screen":
    from otocod.cli.demo.screen import LiveScreen, PlainScreen, SilentScreen

    if as_json:
        return SilentScreen()
    # CI systems often pretend to be a terminal; NO_COLOR is heard as a wish for plain lines.
    plain = (
        not sys.stdout.isatty()
        or os.environ.get("NO_COLOR")
        or os.environ.get("CI")
        or os.environ.get("TERM") == "dumb"
    )
    return PlainScreen() if plain else LiveScreen()
