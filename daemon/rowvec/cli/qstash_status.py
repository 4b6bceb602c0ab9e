"""`rowvec qstash status`: how things stand at QStash."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import uvloop

from rowvec.cli.output import Json, console, print_json, print_table
from rowvec.cli.qstash_service import opened
from rowvec.domain.backlog import NO_DAEMON
from rowvec.postgres.administration import administration
from rowvec.qstash.answers import Schedule
from rowvec.qstash.dead_letters import list_ours
from rowvec.qstash.schedules import Wanted, differences, find_schedules, wanted_by
from rowvec.qstash.service import Service
from rowvec.settings import Settings, load_settings

SCHEDULES: Final = ["id", "cron", "state", "last_at", "next_at"]
WAYS: Final = ["host", "pid", "strategy", "state", "why", "since"]


def status(json: Json = False) -> None:
    """Show the queue, the schedules, the daemons' own clock, dead letters, and what was sent today."""
    found = uvloop.run(_status(load_settings()))
    if json:
        print_json(found)
    else:
        _show(found)


async def _status(settings: Settings) -> dict[str, Any]:
    async with opened(settings) as service, administration(settings.dsn) as database:
        return {
            "url": str(settings.qstash_url),
            **await _look(service, wanted_by(settings), str(settings.site_url)),
            "sent_today": await database.sent_today(),
            "tasks": await database.tasks(),
            "daemons": [_way(daemon) for daemon in await database.daemons()],
        }


async def _look(service: Service, wanted: Wanted, site: str) -> dict[str, Any]:
    queue = await service.queue(wanted.queue)
    states = await find_schedules(service, wanted)
    return {
        "queue": {"name": wanted.queue, **(asdict(queue) if queue else {}), "exists": queue is not None},
        "schedules": [_described(*pair) for pair in zip(wanted.schedules, states, strict=True)],
        "dead_letters": len(await list_ours(service, site)),
    }


def _way(daemon: dict[str, Any]) -> dict[str, Any]:
    """Return which way a daemon's work goes, and what keeps it from going to QStash: a quota, a token, an outage."""
    carrier = daemon["carrier"]
    return {"host": daemon["host"], "pid": daemon["pid"], **{name: carrier.get(name) for name in WAYS[2:]}}


def _described(schedule: Schedule, found: Schedule | None) -> dict[str, Any]:
    if found is None:
        return {"id": schedule.id, "cron": schedule.cron, "state": "absent", "last_at": None, "next_at": None}
    differs = differences(schedule, found)
    state = "paused" if found.paused else f"differs: {differs}" if differs else "active"
    return {
        "id": schedule.id,
        "cron": found.cron,
        "state": state,
        "last_at": found.last_at,
        "next_at": found.next_at,
    }


def _show(found: dict[str, Any]) -> None:
    out, queue, sent = console(), found["queue"], found["sent_today"]
    out.print(_told(queue), markup=False)
    out.print()
    print_table(found["schedules"], SCHEDULES, "")
    out.print()
    print_table(found["daemons"], WAYS, NO_DAEMON)
    out.print()
    print_table(found["tasks"], ["name", "ran_at", "running"], "The daemons' own clock has not begun: none has run.")
    out.print()
    out.print(f"Sent today: {sent['messages']:,} messages with {sent['items']:,} items.")
    out.print(f"Dead letters for pages of rowvec: {found['dead_letters']}.")


def _told(queue: dict[str, Any]) -> str:
    if not queue["exists"]:
        return f"There is no queue {queue['name']}: `rowvec qstash setup` makes it."
    state = "paused" if queue["paused"] else "delivering"
    return f"Queue {queue['name']}: {state}, parallelism {queue['parallelism']}, waiting messages {queue['lag']}."
