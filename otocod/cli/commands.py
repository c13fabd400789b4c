"""How commands are declared: typer, without the part of it that is slow to load."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

_Function = TypeVar("_Function", bound=Callable[..., object])


class _PlainValue:
    """Turns a parameter's text into its value. Commands declare nothing but text, whole numbers and flags; typer's own
    conversion loads a validation library, which takes longer than `submit` has any right to."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        annotation = param.type_descriptor.annotation
        if annotation is int:
            try:
                return int(value)
            except ValueError:
                raise typer.BadParameter(f"{value!r} is not a whole number", ctx=ctx, param=param) from None
        return value


def _lighten(params: list[Any]) -> None:
    for param in params:
        # typer makes its converter when it is first needed and finds this one; an older typer does not look here.
        param._runtime_param = _PlainValue()


class LightCommand(TyperCommand):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _lighten(self.params)

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        if option is not None:
            _lighten([option])
        return option


class LightGroup(TyperGroup):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _lighten(self.params)

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        if option is not None:
            _lighten([option])
        return option


def new_app(**settings: Any) -> typer.Typer:
    return typer.Typer(
        cls=LightGroup,
        add_completion=False,
        pretty_exceptions_enable=False,
        # Help as plain text: needs no second library and reads the same in a pipe.
        rich_markup_mode=None,
        no_args_is_help=True,
        **settings,
    )


def command(app: typer.Typer, name: str, **settings: Any) -> Callable[[_Function], _Function]:
    return app.command(name, cls=LightCommand, **settings)


Json = typer.Option(False, "--json", help="Print JSON.")
Bracket = typer.Argument(metavar="B", help="A bracket's id, a unique beginning of it, or ref:CLIENT_REF.")


class Given:
    """What was said before the command: set once by the root callback, read by every command."""

    config: Path | None = None
