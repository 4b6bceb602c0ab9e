"""`rowvec status`: what waits, and who works."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import uvloop

from rowvec.cli.output import Json, console, print_json, print_table
from rowvec.domain.backlog import NO_DAEMON
from rowvec.domain.load import BreakerState
from rowvec.postgres.administration import administration
from rowvec.settings import load_settings

COLUMNS: Final = ["model", "lane", "source", "queued", "delayed", "processing", "failed", "oldest", "late"]


def status(json: Json = False) -> None:
    """Show daemons, models, what waits by lane, whether it is late, and why.

    Items of the lane immediate should be done 10 s after they are due, standard ones after 60 s, bulk ones after 300 s.
    """
    found = uvloop.run(_status())
    if json:
        print_json(found)
    else:
        show(found)


def show(found: dict[str, Any]) -> None:
    """Print what was found for people."""
    out = console()
    print_table(found["daemons"], ["host", "pid", "version", "silent_seconds"], NO_DAEMON)
    out.print()
    print_table(found["models"], ["name", "dimensions", "active", "is_default"], "No model is registered.")
    out.print()
    print_table([_shown(row) for row in found["items"]], _columns(found["items"]), _told_when_empty(found))
    for remark in _remarks(found):
        out.print(remark, markup=False)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "source": row["content_type"],
        "queued": row["queued"] + row["unfolded"],
        "oldest": f"{row['oldest_seconds']:.1f} of {row['within_seconds']:.0f} s" if row["oldest_seconds"] else "",
        "late": "late" if row["late"] else "",
    }


def _columns(items: list[dict[str, Any]]) -> list[str]:
    """Leave a column out that is seldom needed and takes the room of others."""
    return [column for column in COLUMNS if column != "delayed" or any(row["delayed"] for row in items)]


def _told_when_empty(found: dict[str, Any]) -> str:
    settled = all(source["swept"] and source["paused_at"] is None for source in found["sources"])
    settled &= all(row["done"] for row in found["backfills"])
    return "Nothing waits: all vectors are up to date." if settled else "Nothing is queued."


def _remarks(found: dict[str, Any]) -> list[str]:
    """Return why items wait, and what the tables do not show."""
    why = {reason: None for row in found["items"] for reason in row["why"] if reason != NO_DAEMON}
    resting = {f"Let alone for a while: {rest}": None for daemon in found["daemons"] for rest in daemon["resting"]}
    outages = {told: known for daemon in found["daemons"] for told, known in _outages(daemon)}
    remarks = [_way(daemon) for daemon in found["daemons"]]
    remarks += [*outages, *(told for told in why | resting if told not in outages.values())]
    remarks += [*(_state(source) for source in found["sources"]), *_progress(found)]
    remarks += [_without_model(daemon) for daemon in found["daemons"] if not daemon["models"]]
    remarks += [_asleep(model["name"]) for model in found["models"] if not model["active"]]
    if found["changes"]:
        remarks.append(f"Of what is queued, {found['changes']} changes are not yet in the queue and have no age.")
    return list(filter(None, remarks))


def _way(daemon: dict[str, Any]) -> str:
    """Say which way the work of a daemon goes, if not the shortest."""
    carrier = daemon["carrier"]
    if carrier.get("strategy") != "qstash":
        return ""
    named, lanes = f"The daemon {daemon['pid']} on {daemon['host']}", ", ".join(carrier["lanes"])
    if carrier["state"] == BreakerState.CLOSED:
        return f"{named} hands work to QStash: {lanes}. {carrier['why']}".rstrip()
    since = f"{datetime.fromisoformat(carrier['since']):%Y-%m-%d %H:%M:%S %Z}"
    return f"{named} does all work itself since {since}, the circuit to QStash is {carrier['state']}: {carrier['why']}"


def _outages(daemon: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is to be told of the models that a daemon lets alone, and what else says so with fewer words."""
    for model, load in daemon["load"].items():
        if load["breaker"] != BreakerState.CLOSED:
            since = f"{datetime.fromisoformat(load['since']):%Y-%m-%d %H:%M:%S %Z}"
            told = f"The breaker of the model {model} is {load['breaker']}, after an outage at {since}: {load['why']}"
            known = f"Let alone for a while: model {model}: {load['why']}"
            yield f"{told} Its items wait, and none has an attempt counted.", known


def _state(source: dict[str, Any]) -> str:
    name, paused_at = source["content_type"], source["paused_at"]
    if paused_at is not None:
        return f"The source {name} has been paused since {paused_at:%Y-%m-%d %H:%M %Z}."
    return "" if source["swept"] else f"The vectors of {name} are being looked through for rows that are gone."


def _progress(found: dict[str, Any]) -> Iterator[str]:
    state = "being" if found["daemons"] else "still to be"
    for row in found["backfills"]:
        name, rows = row["content_type"], f"{row['rows']:,}"
        named = f"The rows of {name} for {row['model']}"
        if row["stopped"]:
            yield f"{named}: the backfill was stopped after {rows}; `rowvec backfill {name}` goes on."
        elif not row["done"]:
            yield f"{named} are {state} looked through, page by page: {rows} so far."


def _without_model(daemon: dict[str, Any]) -> str:
    return f"The daemon {daemon['pid']} on {daemon['host']} has no model to work for."


def _asleep(model: str) -> str:
    variable = f"ROWVEC_MODEL_{model.upper()}_URL"
    return f"The model {model} is inactive and has no items: set {variable} for the daemon, and it has."


async def _status() -> dict[str, Any]:
    async with administration(load_settings().dsn) as database:
        return await database.status()
