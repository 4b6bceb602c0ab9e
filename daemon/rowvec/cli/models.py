"""`rowvec model promote` and `drop`; `add`, `list` and `index` have files of their own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
import uvloop

from rowvec.cli import model_add, model_index, model_list
from rowvec.cli.output import Json, console, print_json, size
from rowvec.domain.errors import TryAgainError, UsageError
from rowvec.domain.hnsw import MANY_VECTORS
from rowvec.postgres.administration import administration
from rowvec.postgres.model_life import ModelLife
from rowvec.settings import UNASKED_MODELS, Settings, load_settings

app = typer.Typer(
    help="Models: added, watched, indexed, promoted and dropped.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.command("add")(model_add.add)
app.command("list")(model_list.list_)
app.command("index")(model_index.index)

Name = Annotated[str, typer.Argument(help="As shown by `rowvec model list`.")]


@app.command("promote")
def promote(name: Name, json: Json = False) -> None:
    """Make a model the default of search, at once. Refused while it is not complete."""
    changed, before, after = uvloop.run(_promote(name))
    former = before and before["name"]
    if before is not None and changed:
        _warn_of_slow_searches(before, after)
    if json:
        print_json({"model": name, "changed": changed, "before": former})
    elif not changed:
        console().print(f"{name} is the default of search already.", markup=False)
    else:
        was = f" Before it was {former}: `rowvec model drop {former}` removes that." if former else ""
        console().print(f"{name} is the default of search from now on.{was}", markup=False)


@app.command("drop")
def drop(
    name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, json: Json = False
) -> None:
    """Remove a model with its items and vectors. Refused while it is searched and another could be."""
    settings = load_settings()
    row = uvloop.run(_examine(settings, name))
    _ask(row, yes=yes)
    uvloop.run(_drop(settings, name))
    if json:
        print_json({"model": name, "vectors": row["vectors"], "bytes": row["table_bytes"] + row["indexes_bytes"]})
    else:
        console().print(f"Dropped the model {name}: {_amount(row)}.", markup=False)
    console(aside=True).print(_left_settings(name), markup=False)


def _ask(row: Mapping[str, Any], *, yes: bool) -> None:
    """Have it confirmed what goes for good.

    Raises:
        UsageError: nobody is there to ask.
        typer.Abort: no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"That would remove {row['name']}: {_amount(row)}.", "Add --yes, and it is done.")
    typer.confirm(f"Remove {row['name']}: {_amount(row)}?", abort=True, err=True)


def _amount(row: Mapping[str, Any]) -> str:
    return f"{row['vectors']:,} vectors, {size(row['table_bytes'] + row['indexes_bytes'])}"


def _left_settings(name: str) -> str:
    """Return what makes a daemon refuse to start, or the model come back."""
    variable = f"ROWVEC_MODEL_{name.upper()}"
    if name in UNASKED_MODELS:
        what = f"Set {variable}_PROVIDER=off for the daemons, and for `rowvec migrate`"
    else:
        what = f"Remove {variable}_... from the settings of daemons that have it, and of `rowvec migrate`"
    return f"{what}: a daemon that is set for a model that is not there refuses to start, and `migrate` makes it anew."


def _warn_of_slow_searches(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    if before["index_state"] == "ready" and after["index_state"] != "ready" and after["vectors"] >= MANY_VECTORS:
        console(aside=True).print(
            f"warning: {before['name']} has an index and {after['name']} has none: each search compares all of "
            f"{after['vectors']:,} vectors until `rowvec model index {after['name']}` is through.",
            markup=False,
        )


async def _promote(name: str) -> tuple[bool, dict[str, Any] | None, dict[str, Any]]:
    """Return whether anything changed, and the tables of the former default model and of the new one."""
    async with administration(load_settings().dsn) as database:
        life = ModelLife(database)
        after = await life.table(name)
        former = next((row["name"] for row in await database.models() if row["is_default"]), None)
        before = None if former is None else await life.table(former)
        return await life.promote(name), before, after


async def _examine(settings: Settings, name: str) -> dict[str, Any]:
    async with administration(settings.dsn) as database:
        row = await ModelLife(database).table(name)
    if row["index_state"] == "building":
        raise TryAgainError(f'The index of "{name}" is being built.', "End that first: Ctrl-C where it was begun.")
    return row


async def _drop(settings: Settings, name: str) -> None:
    async with administration(settings.dsn) as database:
        await ModelLife(database).drop(name)
