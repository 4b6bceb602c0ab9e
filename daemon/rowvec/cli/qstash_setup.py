"""`rowvec qstash setup`, `pause` and `resume`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

import uvloop

from rowvec.cli.output import Json, console, print_json, print_table
from rowvec.cli.qstash_service import opened
from rowvec.domain.errors import UsageError
from rowvec.qstash.schedules import Settled, Verdict, settle, wanted_by
from rowvec.settings import Settings, load_settings

LEFT_ALONE: Final = (
    "What is paused was not touched: `rowvec qstash resume` resumes the queue, QStash's console the rest."
)


def setup(json: Json = False) -> int:
    """Make the queue and the schedules at QStash, and mend what differs from the settings.

    What was paused there stays paused. Doing it again changes nothing. Exits with 1 when QStash refuses something.
    """
    settled = uvloop.run(_setup(load_settings()))
    rows = [asdict(thing) for thing in settled]
    if json:
        print_json(rows)
    else:
        print_table(rows, ["verdict", "about", "note"], "Nothing is wanted.")
        if any(thing.verdict == Verdict.PAUSED for thing in settled):
            console().print(LEFT_ALONE)
    return int(any(thing.verdict == Verdict.REFUSED for thing in settled))


def pause(json: Json = False) -> None:
    """Stop the deliveries of the queue: what is in it is done here when its time is over."""
    _tell(*uvloop.run(_turn(load_settings(), paused=True)), paused=True, json=json)


def resume(json: Json = False) -> None:
    """Go on with the deliveries of the queue."""
    _tell(*uvloop.run(_turn(load_settings(), paused=False)), paused=False, json=json)


async def _setup(settings: Settings) -> Sequence[Settled]:
    async with opened(settings) as service:
        return await settle(service, wanted_by(settings))


async def _turn(settings: Settings, *, paused: bool) -> tuple[str, bool]:
    """Pause or resume the queue; return its name and whether it was not so before."""
    name = settings.qstash_queue_name
    async with opened(settings) as service:
        queue = await service.queue(name)
        if queue is None:
            raise UsageError(f'QStash has no queue "{name}".', "`rowvec qstash setup` makes it.")
        if queue.paused != paused:
            await (service.pause_queue(name) if paused else service.resume_queue(name))
        return name, queue.paused != paused


def _tell(name: str, changed: bool, *, paused: bool, json: bool) -> None:
    if json:
        print_json({"queue": name, "paused": paused, "changed": changed})
        return
    state = "paused" if paused else "delivering"
    already = "" if changed else " already"
    console().print(f"The queue {name} is {state}{already}.", markup=False)
