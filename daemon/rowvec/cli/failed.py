"""`rowvec failed list|retry`: the dead letters."""

from __future__ import annotations

from typing import Annotated, Any

import typer
import uvloop

from rowvec.cli.output import Json, console, print_json, print_table
from rowvec.postgres.administration import administration
from rowvec.settings import load_settings

app = typer.Typer(help="Items that were given up.", no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Model = Annotated[str | None, typer.Option(help="Only of this model.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=10000, help="The most to show.")] = 50, json: Json = False
) -> None:
    """Show items that were given up, the newest first, and why."""
    rows = uvloop.run(_list(limit))
    if json:
        print_json(rows)
        return
    columns = ["content_type", "content_id", "model", "retry_count", "error_message", "error_detail"]
    print_table(rows, columns, "Nothing has failed.")


@app.command("retry")
def retry(
    content_type: Annotated[str | None, typer.Argument(help="Only of this source.")] = None,
    content_id: Annotated[str | None, typer.Argument(help="Only this row.")] = None,
    model: Model = None,
    json: Json = False,
) -> None:
    """Queue failed items again, all of them unless told otherwise."""
    count = uvloop.run(_retry(content_type, content_id, model))
    print_json({"queued": count}) if json else console().print(f"Queued again: {count}.")


async def _list(limit: int) -> list[dict[str, Any]]:
    async with administration(load_settings().dsn) as database:
        return await database.failed(limit)


async def _retry(content_type: str | None, content_id: str | None, model: str | None) -> int:
    async with administration(load_settings().dsn) as database:
        return await database.retry_failed(content_type, content_id, model)
