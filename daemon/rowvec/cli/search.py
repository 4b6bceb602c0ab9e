"""`rowvec search`: rows by meaning."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer
import uvloop

from rowvec.app.embedders import make_embedder
from rowvec.cli.output import Json, print_json, print_table
from rowvec.domain.errors import UsageError
from rowvec.domain.registered import RegisteredModel
from rowvec.postgres.administration import administration
from rowvec.settings import ModelSettings, Settings, load_settings

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
        found = await database.find_model(model)
        if found is None and model is None:
            raise UsageError("No model is active.", "See `rowvec status`, which says what wakes one.")
        if found is None:
            known = ", ".join(row["name"] for row in await database.models())
            raise UsageError(f'There is no model "{model}".', f"There are: {known or 'none'}.")
        embedder = make_embedder(found.name, _way(settings, found))
        try:
            embedding = await embedder.embed_query(text)
        finally:
            await embedder.close()
        return await database.search(text, embedding, owner, content_types or None, found.name, limit)


def _way(settings: Settings, model: RegisteredModel) -> ModelSettings:
    """Return how a model is reached from here."""
    if (way := settings.reach(model)) is None:
        variable = f"ROWVEC_MODEL_{model.name.upper()}"
        raise UsageError(
            f'The model "{model.name}" is not set here.',
            f"It needs the daemon's settings here too: {variable}_URL or {variable}_PROVIDER.",
        )
    return way
