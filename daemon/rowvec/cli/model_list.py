"""`rowvec model list`: where models are served, how much has their vectors, and how they can be searched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import urlsplit

import uvloop

from rowvec.cli.output import Json, console, print_json, print_table, size
from rowvec.domain.coverage import Coverage, join
from rowvec.postgres.administration import administration
from rowvec.postgres.model_life import ModelLife
from rowvec.settings import Settings, load_settings

COLUMNS: Final = (
    *("name", "state", "provider", "dimensions", "distance", "storage", "coverage", "failed", "speed", "breaker"),
    *("index", "size"),
)
SELDOM: Final = {"speed": "-", "breaker": "-", "failed": 0}
"""Columns that are left out where they say nothing else of any model."""
BREAKERS: Final = ("closed", "half-open", "open")
"""From the best to the worst."""


def list_(json: Json = False) -> None:
    """Show the models: where they are served, how much has their vectors, and how they can be searched."""
    rows = uvloop.run(_list(load_settings()))
    if json:
        print_json(rows)
        return
    shown = [_shown(row) for row in rows]
    columns = [name for name in COLUMNS if name not in SELDOM or any(row[name] != SELDOM[name] for row in shown)]
    print_table(shown, columns, "No model is registered. Begin with `rowvec migrate`, or `rowvec model add NAME`.")
    for remark in _remarks(rows):
        console().print(remark, markup=False)


async def _list(settings: Settings) -> list[dict[str, Any]]:
    async with administration(settings.dsn) as database:
        life, status = ModelLife(database), await database.status()
        models, tables = await database.models(), {row["name"]: row for row in await life.tables()}
        coverage = await life.coverage(status)
    loads = [daemon["load"] for daemon in status["daemons"]]
    return [_described(row, tables.get(row["name"], {}), coverage, loads, settings) for row in models]


def _described(
    model: Mapping[str, Any],
    table: Mapping[str, Any],
    coverage: Mapping[tuple[str, str], Coverage],
    loads: Sequence[Mapping[str, Mapping[str, Any]]],
    settings: Settings,
) -> dict[str, Any]:
    name, told = model["name"], [load[model["name"]] for load in loads if model["name"] in load]
    sources = {content_type: part for (of, content_type), part in coverage.items() if of == name}
    whole = join(sources.values())
    worst = max(told, key=lambda load: BREAKERS.index(load["breaker"]), default=None)
    return {
        **{key: model[key] for key in ("name", "dimensions", "distance", "storage", "window_tokens")},
        "active": model["active"],
        "is_default": model["is_default"],
        **_served(model, settings),
        **_figures(whole),
        "sources": [{"content_type": content_type, **_figures(part)} for content_type, part in sources.items()],
        "texts_per_second": sum(load.get("texts_per_second") or 0.0 for load in told) if told else None,
        "breaker": worst and worst["breaker"],
        "breaker_why": worst and worst.get("why"),
        "vectors": table.get("vectors"),
        "index": table.get("index_state"),
        "index_built": table.get("built"),
        "m": table.get("m"),
        "ef_construction": table.get("ef_construction"),
        "index_bytes": table.get("index_bytes"),
        "table_bytes": table.get("table_bytes"),
        "indexes_bytes": table.get("indexes_bytes"),
    }


def _served(model: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Return who serves a model: by the settings here, which come first with daemons too, or by the database."""
    mine = settings.active_models.get(model["name"])
    served = model["served"] or {}
    if mine is not None and "provider" in mine.model_fields_set:
        served = mine.model_dump(mode="json", exclude={"api_key"})
    told = {key: served.get(key) for key in ("provider", "url", "remote_name")}
    return {**told, "url": told["url"] and _without_user(told["url"])}


def _without_user(url: str) -> str:
    """Leave out what the settings refuse, but a row of the table may have."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _figures(part: Coverage) -> dict[str, Any]:
    return {**asdict(part), "current": part.current, "share": None if part.share is None else round(part.share, 4)}


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the table for people."""
    state = "default" if row["is_default"] else "active" if row["active"] else "inactive"
    speed = row["texts_per_second"]
    return {
        **row,
        "state": state,
        "provider": " ".join(filter(None, [row["provider"], row["remote_name"]])) or "-",
        "coverage": _coverage(row) if row["active"] else "-",
        "speed": "-" if speed is None else f"{speed:,.1f} texts/s",
        "breaker": row["breaker"] or "-",
        "index": _index(row),
        "size": "-" if row["table_bytes"] is None else size(row["table_bytes"] + row["indexes_bytes"]),
    }


def _coverage(row: Mapping[str, Any]) -> str:
    if row["current"] is None:
        return "not known"
    # Rounded down: nearly all is not all.
    return f"{row['current']:,} of {row['total']:,} ({int(row['share'] * 100)}%)"


def _index(row: Mapping[str, Any]) -> str:
    if row["index"] == "building" and row["index_built"] is not None:
        return f"building, {int(row['index_built'] * 100)}%"
    return f"ready, {size(row['index_bytes'])}" if row["index"] == "ready" else row["index"] or "-"


def _remarks(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Return what keeps a model from its work, and what to do."""
    for row in rows:
        if row["breaker"] not in {None, "closed"} and row["breaker_why"]:
            yield f"{row['name']} waits for its server: {row['breaker_why']}"
        if row["index"] == "invalid":
            yield (
                f"The index of {row['name']} is what an interrupted build left: writes pay for it, no search has it. "
                f"`rowvec model index {row['name']}` builds it anew."
            )
