"""Running and stopping in order: upstream first, so that nothing new comes while the rest is finished."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from rowvec.domain.errors import DatabaseUnavailableError
from rowvec.health import Health
from rowvec.ports import Presence
from rowvec.systemd import Notifier

FAREWELL_SECONDS: Final = 3.0
CANCEL_SECONDS: Final = 1.0
CANCEL_TRIES: Final = 3
"""A library below may take a cancellation for an error of its own and go on."""

log = structlog.get_logger(__name__)


class Room(Protocol):
    """Something that runs for ever."""

    async def run(self) -> None:
        """Run until cancelled."""


class StoppableRoom(Room, Protocol):
    """A room that finishes what it has begun."""

    def stop(self) -> None:
        """Begin nothing new; `run` returns when all is finished."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """All rooms of a daemon, in the order in which they stop; `abandon` cuts those off that can't be stopped."""

    upstream: Sequence[Room]
    models: StoppableRoom
    heartbeat: Room
    presence: Presence
    abandon: Sequence[Callable[[], None]]


async def run_until_stopped(
    rooms: Rooms, stop: asyncio.Event, health: Health, notifier: Notifier, drain_seconds: float
) -> None:
    """Run all rooms in one task group until told to stop; then stop them in order.

    Args:
        rooms: what runs.
        stop: is set to end it.
        health: is told that the daemon drains.
        notifier: tells systemd.
        drain_seconds: how long requests to models may still take.

    Raises:
        ExceptionGroup: a room crashed; the others were cancelled, and other daemons take over.
    """
    async with asyncio.TaskGroup() as group:
        upstream = [group.create_task(room.run()) for room in rooms.upstream]
        models = group.create_task(rooms.models.run())
        heartbeat = group.create_task(rooms.heartbeat.run())

        await stop.wait()
        log.info("daemon.stopping")
        health.draining = True
        notifier.stopping("finishing what was begun")
        ended = await _cancel(upstream)
        rooms.models.stop()
        ended &= await _drain(models, drain_seconds)
        health.stop_watching()
        ended &= await _cancel([heartbeat])
        if ended:
            await _say_farewell(rooms.presence)
        else:
            for cut_off in rooms.abandon:
                cut_off()
    log.info("daemon.stopped")


async def _drain(models: asyncio.Task[None], drain_seconds: float) -> bool:
    """Let requests that a model is working on finish and be stored; return whether all has ended."""
    _, late = await asyncio.wait([models], timeout=drain_seconds)
    return await _cancel(list(late))


async def _say_farewell(presence: Presence) -> None:
    """Give all leases back; with the database away they go back by themselves 3 s later."""
    with suppress(DatabaseUnavailableError, TimeoutError):
        async with asyncio.timeout(FAREWELL_SECONDS):
            await presence.leave()


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> bool:
    """Cancel tasks; return whether they ended within a bound: one may hang on a silent Postgres."""
    hanging = list(tasks)
    for _ in range(CANCEL_TRIES):
        for task in hanging:
            task.cancel()
        if hanging:
            await asyncio.wait(hanging, timeout=CANCEL_SECONDS)
        hanging = [task for task in hanging if not task.done()]
    return not hanging


@asynccontextmanager
async def watchdog_fed(health: Health, notifier: Notifier) -> AsyncIterator[None]:
    """Feed systemd's watchdog inside the block, as long as `/livez` would say yes."""
    feeding = asyncio.create_task(_feed_watchdog(health, notifier))
    try:
        yield
    finally:
        await _cancel([feeding])


async def _feed_watchdog(health: Health, notifier: Notifier) -> None:
    every = (notifier.watchdog_seconds or 30.0) / 3
    while True:
        if health.is_live:
            notifier.watchdog()
        await asyncio.sleep(every)
