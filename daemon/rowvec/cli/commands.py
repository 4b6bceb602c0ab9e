"""All commands under one name."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from rowvec.cli.output import Json, print_json
from rowvec.version import VERSION

_MODULES: Final = {
    "run": "run",
    "demo": "demo",
    "migrate": "migrate",
    "doctor": "doctor",
    "watch": "sources",
    "unwatch": "sources",
    "pause": "sources",
    "resume": "sources",
    "sources": "sources",
    "backfill": "backfill",
    "status": "status",
    "search": "search",
    "model": "models",
    "failed": "failed",
    "qstash": "qstash",
    "healthcheck": "commands",
    "version": "commands",
}
"""Where in this package each command stands: a function of its name, or a group of commands `app`."""
_PLAIN: Final[dict[str, Any]] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
}


class _Commands(UserDict[str, Any]):
    """The commands by name, each imported when it is asked for.

    A server, its models and its metrics take most of a second to import: only who runs one pays for that.
    """

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - click's class, which is typer's own in newer versions
        module = import_module(f"rowvec.cli.{super().__getitem__(name)}")
        return typer.main.get_command(_alone(name, getattr(module, name)) if hasattr(module, name) else module.app)


def _alone(name: str, function: Callable[..., Any]) -> typer.Typer:
    """Return a program of one command."""
    program = typer.Typer(**_PLAIN)
    program.command(name)(function)
    return program


def group_of(modules: Mapping[str, str]) -> type[TyperGroup]:
    """Return the class of a group whose commands are imported when they are asked for.

    Args:
        modules: where in this package each stands: a function of its name, or a group of commands `app`.
    """

    class Group(TyperGroup):
        def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - typer's own
            super().__init__(**attributes)
            self.commands = _Commands(modules)

    return Group


app = typer.Typer(
    cls=group_of(_MODULES),
    help="Keeps vector embeddings true to the rows of a Postgres database.",
    no_args_is_help=True,
    **_PLAIN,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(VERSION)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Keeps vector embeddings true to the rows of a Postgres database."""


def healthcheck() -> None:
    """Ask a running daemon how it is."""
    # `__main__` takes this command before any of this is imported; it stands here for the list of commands.
    raise AssertionError("handled in __main__")


def version(json: Json = False) -> None:
    """Print the version."""
    print_json({"version": VERSION}) if json else typer.echo(VERSION)
