"""`rowvec watch`, `unwatch`, `pause`, `resume` and `sources`."""

from __future__ import annotations

from json import loads
from typing import Annotated, Any

import typer
import uvloop

from rowvec.cli.output import Json, console, print_json, print_table
from rowvec.domain.items import Watch
from rowvec.postgres.administration import administration
from rowvec.settings import load_settings


def watch(
    table: Annotated[str, typer.Argument(help="The table, with its schema if need be.")],
    columns: Annotated[str, typer.Option(help="The columns to embed, separated by commas.")] = "",
    content_type: Annotated[str, typer.Option(help="What its rows are called; the table's name by default.")] = "",
    priority: Annotated[int, typer.Option(min=1, max=100, help="1-2 immediate, 3-4 standard, 5 and up bulk.")] = 3,
    template: Annotated[str | None, typer.Option(help="Such as '{title}\\n\\n{body}'.")] = None,
    owner_column: Annotated[str | None, typer.Option(help="Whose rows they are, for searches by owner.")] = None,
    condition: Annotated[str | None, typer.Option(help="Which rows, such as 'published AND NOT hidden'.")] = None,
    key: Annotated[str | None, typer.Option(help="The key's columns, where there is no primary key.")] = None,
    text_function: Annotated[str | None, typer.Option(help="Makes the text of a row: fn(table) RETURNS text.")] = None,
    depends_on: Annotated[
        str, typer.Option(help='JSON: [{"table": "public.comment", "columns": ["body"], "content_id": "post_id"}].')
    ] = "[]",
    chunking: Annotated[str, typer.Option(help="none, characters or markdown.")] = "none",
    chunk_characters: Annotated[int, typer.Option(min=50, help="The most characters of a chunk.")] = 1500,
    chunk_overlap: Annotated[int, typer.Option(min=0, help="How many characters chunks share.")] = 0,
    urgent_rows: Annotated[
        int, typer.Option(min=1, help="How many rows one transaction may bring at this priority; the rest is bulk.")
    ] = 500,
    notify: Annotated[bool, typer.Option(help="Whether writers may send NOTIFY.")] = True,
    trigger_name: Annotated[str | None, typer.Option(help="What its triggers are called, if not as we would.")] = None,
    function_name: Annotated[
        str | None, typer.Option(help="What their functions are called, such as app.on_post.")
    ] = None,
    json: Json = False,
) -> None:
    """Watch a table: embed its rows from now on.

    The rows that are already there are embedded at bulk priority.
    """
    if not columns and text_function is None:
        raise typer.BadParameter("Name the columns to embed, or a text function.", param_hint="--columns")
    wanted = Watch(
        table=table,
        content_type=content_type or table.rsplit(".", 1)[-1].strip('"').lower(),
        columns=_names(columns),
        priority=priority,
        template=None if template is None else template.replace("\\n", "\n"),
        owner_column=owner_column,
        chunking=chunking,
        chunk_characters=chunk_characters,
        chunk_overlap=chunk_overlap,
        notify=notify,
        key=None if key is None else _names(key),
        condition=condition,
        text_function=text_function,
        depends_on=_dependencies(depends_on),
        urgent_rows=urgent_rows,
        trigger_name=trigger_name,
        function_name=function_name,
    )
    before, changed = uvloop.run(_watch(wanted))
    if json:
        print_json({"content_type": wanted.content_type, "changed": changed})
    else:
        console().print(_told(wanted, before, changed))


def _dependencies(given: str) -> str:
    """Refuse what is no JSON before the database does it in its own words."""
    try:
        loads(given)
    except ValueError as error:
        raise typer.BadParameter(f"This is no JSON: {error}.", param_hint="--depends-on") from None
    return given


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def _told(wanted: Watch, before: dict[str, Any] | None, changed: bool) -> str:
    name = wanted.content_type
    if not changed:
        return f'{wanted.table} is watched as "{name}" just so already.'
    if before is None:
        return f'Watching {wanted.table} as "{name}". Its rows are being queued; see `rowvec status`.'
    # Options that are not repeated go back to their defaults: say what was there.
    was = f"columns {','.join(before['labels'])}, priority {before['priority']}"
    now = f"columns {','.join(wanted.columns)}, priority {wanted.priority}"
    return f'Changed the watch "{name}" ({was}; now {now}). What this affects is queued again.'


def pause(
    content_type: Annotated[str, typer.Argument(help="As shown by `rowvec sources`.")], json: Json = False
) -> None:
    """Stop watching for a while, so that the table can be altered in every way."""
    changed = uvloop.run(_pause(content_type))
    if json:
        print_json({"content_type": content_type, "changed": changed})
    elif changed:
        console().print(f'"{content_type}" is paused: nobody sees its changes until `rowvec resume {content_type}`.')
    else:
        console().print(f'"{content_type}" is paused already.')


def resume(
    content_type: Annotated[str, typer.Argument(help="As shown by `rowvec sources`.")], json: Json = False
) -> None:
    """Watch a paused source again, and make up for what nobody saw."""
    changed = uvloop.run(_resume(content_type))
    if json:
        print_json({"content_type": content_type, "changed": changed})
    elif changed:
        console().print(f'"{content_type}" is watched again; all its rows are compared with their vectors.')
    else:
        console().print(f'"{content_type}" is not paused.')


def unwatch(
    content_type: Annotated[str, typer.Argument(help="As shown by `rowvec sources`.")], json: Json = False
) -> None:
    """End a watch; its items and vectors are removed."""
    uvloop.run(_unwatch(content_type))
    if json:
        print_json({"content_type": content_type})
    else:
        console().print(f'"{content_type}" is no longer watched; its vectors are gone.')


def sources(json: Json = False) -> None:
    """List what is watched."""
    rows = uvloop.run(_sources())
    if json:
        print_json(rows)
        return
    shown = [{**row, "table": row["relation"], "columns": row["labels"]} for row in rows]
    print_table(shown, _telling(rows), "No table is watched yet. Begin with `rowvec watch TABLE --columns a,b`.")


def _telling(rows: list[dict[str, Any]]) -> list[str]:
    """Leave a column out that says the same of every source and takes the room of others."""
    usual = {"owner": None, "condition": None, "backfilled": True, "paused": False}
    told = ["content_type", "table", "priority", "chunking", *usual, "columns"]
    return [column for column in told if column not in usual or any(row[column] != usual[column] for row in rows)]


async def _watch(wanted: Watch) -> tuple[dict[str, Any] | None, bool]:
    async with administration(load_settings().dsn) as database:
        before = {source["content_type"]: source for source in await database.sources()}.get(wanted.content_type)
        return before, await database.watch(wanted)


async def _pause(content_type: str) -> bool:
    async with administration(load_settings().dsn) as database:
        return await database.pause(content_type)


async def _resume(content_type: str) -> bool:
    async with administration(load_settings().dsn) as database:
        return await database.resume(content_type)


async def _unwatch(content_type: str) -> None:
    async with administration(load_settings().dsn) as database:
        await database.unwatch(content_type)


async def _sources() -> list[dict[str, Any]]:
    async with administration(load_settings().dsn) as database:
        return await database.sources()
