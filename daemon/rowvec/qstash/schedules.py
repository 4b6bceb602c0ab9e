"""What QStash is to have for us: the queue, and the schedules that wake a daemon."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import structlog

from rowvec.domain.errors import ConfigurationError, RowvecError
from rowvec.domain.tasks import Cron, Task
from rowvec.ports import Clock
from rowvec.qstash.answers import QueueState, Schedule
from rowvec.qstash.service import Service
from rowvec.settings_qstash import QStashSettings

_NAMES: Final = {Task.MONITOR: "monitor", Task.CLEANUP: "cleanup", Task.RETRY_FAILED: "retry"}
_PATHS: Final = {Task.MONITOR: "/api/embeddings/queue-monitor"}
_MAINTENANCE: Final = "/api/embeddings/maintenance"

log = structlog.get_logger(__name__)


class Verdict(StrEnum):
    """What became of one thing at QStash."""

    MADE = "made"
    MENDED = "mended"
    LEFT = "left"
    PAUSED = "paused"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Settled:
    """One thing at QStash, after it was looked at.

    Attributes:
        about: "queue embedding-processor", "schedule rowvec-monitor".
        verdict: left: it was right; paused: somebody has stopped it, and it was not touched.
        note: what differed, or why it could not be put right; empty for nothing.
    """

    about: str
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What QStash is to have for us.

    Attributes:
        queue: the queue's name.
        parallelism: how many of its messages are delivered at once.
        schedules: by which it wakes a daemon.
    """

    queue: str
    parallelism: int
    schedules: Sequence[Schedule]


def make_schedules(site: str, prefix: str, crons: Mapping[Task, Cron], retries: int) -> Sequence[Schedule]:
    """Return the schedules of all tasks.

    Args:
        site: our public address.
        prefix: what their ids begin with.
        crons: when each task is due.
        retries: how many times a delivery is tried again.
    """
    return [
        Schedule(
            id=f"{prefix}-{_NAMES[task]}",
            # Also where it is UTC: a line without a zone would be read by whatever the service takes for its own.
            cron=f"CRON_TZ={cron.zone} {cron.line}",
            destination=site.rstrip("/") + _PATHS.get(task, _MAINTENANCE),
            body="" if task in _PATHS else json.dumps({"task": task}),
            retries=retries,
        )
        for task, cron in crons.items()
    ]


def wanted_by(settings: QStashSettings) -> Wanted:
    """Return what QStash is to have by the settings.

    Raises:
        ConfigurationError: the address that QStash is to call is not set.
    """
    if settings.site_url is None:
        raise ConfigurationError(
            "QStash can't be told where to call: our public address is not set.",
            "Set SITE_URL, such as https://example.com: what stands before /api/embeddings/.",
        )
    prefix, retries = settings.qstash_schedule_prefix, settings.qstash_max_retries
    schedules = make_schedules(str(settings.site_url), prefix, settings.crons, retries)
    return Wanted(settings.qstash_queue_name, settings.qstash_concurrency, schedules)


async def settle(service: Service, wanted: Wanted) -> Sequence[Settled]:
    """Make what QStash lacks and mend what differs; what somebody has paused is not touched.

    Each is looked at before it is written: writing puts a new one in the place of the old, which may run again.

    Args:
        service: QStash.
        wanted: what it is to have.

    Raises:
        RowvecError: it can't be asked. That it refuses to write is told by a verdict.
    """
    queue, found = await service.queue(wanted.queue), await find_schedules(service, wanted)
    settled = [await _settle_queue(service, wanted, queue)]
    pairs = zip(wanted.schedules, found, strict=True)
    return [*settled, *[await _settle_schedule(service, schedule, known) for schedule, known in pairs]]


async def find_schedules(service: Service, wanted: Wanted) -> Sequence[Schedule | None]:
    """Return what QStash has of the wanted schedules, in their order; None for one that is not there."""
    known = {found.id: found for found in await service.schedules()}
    return [known.get(schedule.id) for schedule in wanted.schedules]


def differences(schedule: Schedule, found: Schedule) -> str:
    """Say in what a schedule differs from what is wanted; empty for nothing."""
    pairs = {
        "cron": (found.cron, schedule.cron),
        "destination": (found.destination, schedule.destination),
        "body": (found.body, schedule.body),
        "method": (found.method, schedule.method),
        "retries": (found.retries, schedule.retries),
    }
    return "; ".join(f"{name} {has!r}, should be {wants!r}" for name, (has, wants) in pairs.items() if has != wants)


def parallelism_differs(found: QueueState, parallelism: int) -> str:
    """Say whether a queue has another parallelism than is wanted; empty for no."""
    return "" if found.parallelism == parallelism else f"parallelism {found.parallelism}, should be {parallelism}"


async def _settle_queue(service: Service, wanted: Wanted, found: QueueState | None) -> Settled:
    about, name, parallelism = f"queue {wanted.queue}", wanted.queue, wanted.parallelism
    differs = None if found is None else parallelism_differs(found, parallelism)
    paused = found is not None and found.paused
    return await _settle_one(about, differs, lambda: service.put_queue(name, parallelism), paused=paused)


async def _settle_schedule(service: Service, schedule: Schedule, found: Schedule | None) -> Settled:
    differs = None if found is None else differences(schedule, found)
    paused = found is not None and found.paused
    return await _settle_one(f"schedule {schedule.id}", differs, lambda: service.put_schedule(schedule), paused=paused)


async def _settle_one(
    about: str, differs: str | None, write: Callable[[], Awaitable[None]], *, paused: bool
) -> Settled:
    """Write one thing if it has to be; `differs` is None for what is not there."""
    if paused:
        return Settled(about, Verdict.PAUSED, differs or "")
    if differs == "":
        return Settled(about, Verdict.LEFT)
    try:
        await write()
    except RowvecError as error:
        return Settled(about, Verdict.REFUSED, str(error))
    return Settled(about, Verdict.MADE if differs is None else Verdict.MENDED, differs or "")


class Settler:
    """Settles once when a daemon starts. QStash may be away: the work goes on without it.

    Args:
        service: QStash.
        wanted: what it is to have.
        again: when it is tried again, until all is as it is wanted or somebody has paused it.
        clock: the time.
    """

    def __init__(self, service: Service, wanted: Wanted, again: Cron, clock: Clock) -> None:
        self._service = service
        self._wanted = wanted
        self._again = again
        self._clock = clock

    async def run(self) -> None:
        """Settle, and say what was done."""
        while not await self._settle():
            now = self._clock.now()
            await self._clock.sleep((self._again.next_at(now) - now).total_seconds())

    async def _settle(self) -> bool:
        try:
            settled = await settle(self._service, self._wanted)
        except RowvecError as error:
            log.warning("qstash.unsettled", error=str(error))
            return False
        for thing in settled:
            say = log.warning if thing.verdict in {Verdict.PAUSED, Verdict.REFUSED} else log.info
            say("qstash.settled", about=thing.about, verdict=thing.verdict, note=thing.note)
        return all(thing.verdict is not Verdict.REFUSED for thing in settled)
