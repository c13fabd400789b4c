"""web: what is needed to log into the page."""

import os
from pathlib import Path

import typer

from otocod.cli import output
from otocod.cli.commands import Json, command, new_app
from otocod.cli.failure import ExitStatus, Failed
from otocod.cli.source import places

web_app = new_app(help="The web page, which shows and changes nothing.")

_CREDENTIAL = "otocod-web-token"


@web_app.callback()
def _web() -> None:
    """Makes this a group although it has one command."""


def register(app: typer.Typer) -> None:
    command(web_app, "token")(token)
    app.add_typer(web_app, name="web")


def token(as_json: bool = Json) -> None:
    """Print the token that the web page asks for."""
    from otocod.adapters.web.entry import TokenUnusable, read_token

    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(credentials) / _CREDENTIAL if credentials else None
    try:
        if path is not None and path.exists():
            found = path.read_text().strip()
        else:
            path = places().data_dir / "web-token"
            found = read_token(path)
    except FileNotFoundError:
        why = f"there is no {path}: it is made when otocod starts with web.port set and no credential {_CREDENTIAL}"
        raise Failed(ExitStatus.FAILED, why) from None
    except (OSError, UnicodeDecodeError) as error:
        why = f"{path} cannot be read ({getattr(error, 'strerror', None) or error}): be otocod's user or root"
        raise Failed(ExitStatus.FAILED, why) from None
    except TokenUnusable as error:
        raise Failed(ExitStatus.FAILED, str(error)) from None
    if as_json:
        output.print_json({"token": found})
    else:
        output.say(found)
