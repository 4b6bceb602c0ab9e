"""`rowvec status`: what waits, and who works."""

from __future__ import annotations

from typing import Any

import uvloop

from rowvec.cli.output import Json, console, print_json, print_table
from rowvec.postgres.administration import administration
from rowvec.settings import load_settings


def status(json: Json = False) -> None:
    """Show daemons, models, and what waits by lane."""
    found = uvloop.run(_status())
    if json:
        print_json(found)
        return
    out = console()
    print_table(found["daemons"], ["host", "pid", "version", "silent_seconds"], "No daemon is running.")
    out.print()
    print_table(found["models"], ["name", "dimensions", "active", "is_default"], "No model is registered.")
    out.print()
    columns = ["model", "lane", "content_type", "queued", "delayed", "processing", "failed", "oldest_seconds"]
    print_table(found["items"], columns, "Nothing waits: all vectors are up to date.")
    for why in sorted({why for daemon in found["daemons"] for why in daemon["resting"]}):
        out.print(f"Let alone for a while: {why}", markup=False)
    if found["changes"]:
        out.print(f"{found['changes']} changes are not yet in the queue.")


async def _status() -> dict[str, Any]:
    async with administration(load_settings().dsn) as database:
        return await database.status()
