"""`rowvec search`: rows by meaning."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer
import uvloop

from rowvec.app import make_embedder
from rowvec.cli.output import Json, print_json, print_table
from rowvec.domain.errors import UsageError
from rowvec.postgres.administration import administration
from rowvec.settings import Settings, load_settings

SHOWN_CHARACTERS: Final = 80


def search(
    words: Annotated[list[str], typer.Argument(metavar="TEXT...", help="What to look for.")],
    content_type: Annotated[list[str] | None, typer.Option(help="Only rows of this type; may be repeated.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only rows of this owner; without it, of everybody.")] = None,
    model: Annotated[str | None, typer.Option(help="The model; the default one without it.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The most rows.")] = 10,
    json: Json = False,
) -> None:
    """Show the rows nearest in meaning."""
    text = " ".join(words).strip()
    if not text:
        raise UsageError("There is nothing to look for: the text is empty.")
    rows = uvloop.run(_search(load_settings(), text, owner, content_type, model, limit))
    if json:
        print_json(rows)
        return
    shown = [{**row, "text": _beginning(" ".join(row["chunk_text"].split()))} for row in rows]
    print_table(shown, ["score", "content_type", "content_id", "text"], "No rows were found.")


def _beginning(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1].rstrip()}…"


async def _search(
    settings: Settings,
    text: str,
    owner: str | None,
    content_types: list[str] | None,
    model: str | None,
    limit: int,
) -> list[dict[str, Any]]:
    async with administration(settings.dsn) as database:
        unknown = set(content_types or ()) - {source["content_type"] for source in await database.sources()}
        if unknown:
            raise UsageError(f'No source is watched as "{unknown.pop()}".', "See `rowvec sources`.")
        name = model or next((row["name"] for row in await database.models() if row["is_default"]), None)
        if name is None:
            raise UsageError("No model is active.", "See `rowvec status`, which says what wakes one.")
        if name not in settings.active_models:
            known = ", ".join(settings.active_models)
            raise UsageError(
                f'The model "{name}" is not set here.',
                f"Models that are: {known}. Others need the daemon's settings here too: ROWVEC_MODEL_<NAME>_URL.",
            )
        embedder = make_embedder(name, settings.active_models[name])
        try:
            embedding = await embedder.embed_query(text)
        finally:
            await embedder.close()
        return await database.search(text, embedding, owner, content_types or None, name, limit)
