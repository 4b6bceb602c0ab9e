"""Listen: turns NOTIFY into rings of the bell, and survives whatever happens to the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from rowvec.domain.errors import DatabaseUnavailableError
from rowvec.health import Health, Part
from rowvec.pipeline.bell import Bell, Cause
from rowvec.ports import WakeSource

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Listener:
    """Keeps one listening connection alive.

    Args:
        source: where NOTIFY comes from.
        bells: what is rung.
        health: is told whether the wake path works.
    """

    def __init__(self, source: WakeSource, bells: Sequence[Bell], health: Health) -> None:
        self._source = source
        self._bells = bells
        self._health = health

    async def run(self) -> None:
        """Listen for ever."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._listen_once()
            except DatabaseUnavailableError as error:
                recovered = self._health.is_well(Part.LISTENER)
                self._health.set(Part.LISTENER, well=False, note=error.message)
                pause = FIRST_PAUSE_SECONDS if recovered else min(pause * 2, LONGEST_PAUSE_SECONDS)
                log.warning("listener.lost", error=str(error), again_in_seconds=pause)
                await asyncio.sleep(pause)

    async def _listen_once(self) -> None:
        async with self._source.listen() as wakeups:
            self._health.set(Part.LISTENER, well=True)
            log.info("listener.ready")
            # What was notified while nobody listened is only in the tables.
            self._ring(Cause.SWEEP)
            async for _ in wakeups:
                self._ring(Cause.NOTIFY)

    def _ring(self, cause: Cause) -> None:
        for bell in self._bells:
            bell.ring(cause)
