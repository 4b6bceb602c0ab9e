"""`rowvec watch`, `unwatch` and `sources`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
import uvloop

from rowvec.cli.output import Json, console, print_json, print_table
from rowvec.postgres.administration import administration
from rowvec.settings import load_settings


def watch(
    table: Annotated[str, typer.Argument(help="The table, with its schema if need be.")],
    columns: Annotated[str, typer.Option(help="The columns to embed, separated by commas.")],
    content_type: Annotated[str, typer.Option(help="What its rows are called; the table's name by default.")] = "",
    priority: Annotated[int, typer.Option(min=1, max=100, help="1-2 immediate, 3-4 standard, 5 and up bulk.")] = 3,
    template: Annotated[str | None, typer.Option(help="Such as '{title}\\n\\n{body}'.")] = None,
    owner_column: Annotated[str | None, typer.Option(help="Whose rows they are, for searches by owner.")] = None,
    chunking: Annotated[str, typer.Option(help="none, or characters.")] = "none",
    chunk_characters: Annotated[int, typer.Option(min=50, help="The most characters of a chunk.")] = 1500,
    chunk_overlap: Annotated[int, typer.Option(min=0, help="How many characters chunks share.")] = 0,
    notify: Annotated[bool, typer.Option(help="Whether writers may send NOTIFY.")] = True,
    json: Json = False,
) -> None:
    """Watch a table: embed its rows from now on.

    The rows that are already there are embedded at bulk priority.
    """
    content_type = content_type or table.rsplit(".", 1)[-1].strip('"').lower()
    names = [name.strip() for name in columns.split(",") if name.strip()]
    if template is not None:
        template = template.replace("\\n", "\n")
    arguments = (
        table, content_type, names, priority, template, owner_column, chunking, chunk_characters, chunk_overlap, notify
    )  # fmt: skip
    before, changed = uvloop.run(_watch(content_type, arguments))
    if json:
        print_json({"content_type": content_type, "changed": changed})
    elif not changed:
        console().print(f'{table} is watched as "{content_type}" just so already.')
    elif before is None:
        console().print(f'Watching {table} as "{content_type}". Its rows are being queued; see `rowvec status`.')
    else:
        # Options that are not repeated go back to their defaults: say what was there.
        was = f"columns {','.join(before['labels'])}, priority {before['priority']}"
        now = f"columns {','.join(names)}, priority {priority}"
        console().print(f'Changed the watch "{content_type}" ({was}; now {now}). Its rows are queued again.')


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
    columns = ["content_type", "table", "columns", "priority", "owner", "chunking", "backfilled"]
    print_table(shown, columns, "No table is watched yet. Begin with `rowvec watch TABLE --columns a,b`.")


async def _watch(content_type: str, arguments: tuple[object, ...]) -> tuple[dict[str, Any] | None, bool]:
    async with administration(load_settings().dsn) as database:
        before = {source["content_type"]: source for source in await database.sources()}.get(content_type)
        return before, await database.watch(*arguments)


async def _unwatch(content_type: str) -> None:
    async with administration(load_settings().dsn) as database:
        await database.unwatch(content_type)


async def _sources() -> list[dict[str, Any]]:
    async with administration(load_settings().dsn) as database:
        return await database.sources()
