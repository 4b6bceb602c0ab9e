"""All commands under one name."""

from __future__ import annotations

from typing import Annotated

import typer

from rowvec.app import VERSION
from rowvec.cli import backfill, demo, doctor, failed, migrate, run, search, sources, status
from rowvec.cli.output import Json, print_json

app = typer.Typer(
    help="Keeps vector embeddings true to the rows of a Postgres database.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run.run)
app.command("demo")(demo.demo)
app.command("migrate")(migrate.migrate)
app.command("doctor")(doctor.doctor)
app.command("watch")(sources.watch)
app.command("unwatch")(sources.unwatch)
app.command("pause")(sources.pause)
app.command("resume")(sources.resume)
app.command("sources")(sources.sources)
app.command("backfill")(backfill.backfill)
app.command("status")(status.status)
app.command("search")(search.search)
app.add_typer(failed.app, name="failed", help="Items that were given up.")


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


@app.command("healthcheck")
def healthcheck() -> None:
    """Ask a running daemon how it is."""
    # `__main__` takes this command before any of this is imported; it stands here for the list of commands.
    raise AssertionError("handled in __main__")


@app.command("version")
def version(json: Json = False) -> None:
    """Print the version."""
    print_json({"version": VERSION}) if json else typer.echo(VERSION)
