"""Heartbeat: says that this daemon lives, keeps its leases, and gives back what others lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final
from uuid import UUID

import structlog

from rowvec.domain.errors import DatabaseUnavailableError
from rowvec.domain.load import CarrierLoad, ModelLoad
from rowvec.health import Health, Part, Pulse
from rowvec.pipeline.bell import Bell, Cause
from rowvec.ports import Presence

EVERY_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class Heartbeat:
    """Beats once a second.

    Args:
        presence: this daemon among the others.
        resting: tells who is let alone here, and why, for all to see.
        load: tells what the models stand at, by their names.
        carrier: tells which way the work goes.
        tokens: the claims under way here.
        bell: is rung when lost items were given back.
        health: is told whether Postgres answers.
        pulse: is beaten with every beat, answered or not.
    """

    def __init__(  # noqa: PLR0913 - a room's doors, each wired once
        self,
        presence: Presence,
        resting: Callable[[], Sequence[str]],
        load: Callable[[], Mapping[str, ModelLoad]],
        carrier: Callable[[], CarrierLoad],
        tokens: Collection[UUID],
        bell: Bell,
        health: Health,
        pulse: Pulse,
    ) -> None:
        self._presence = presence
        self._resting = resting
        self._load = load
        self._carrier = carrier
        self._tokens = tokens
        self._bell = bell
        self._health = health
        self._pulse = pulse

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            self._pulse.beat()
            try:
                await self._beat()
            except DatabaseUnavailableError as error:
                if self._health.is_well(Part.DATABASE):
                    log.warning("database.lost", error=str(error))
                self._health.set(Part.DATABASE, well=False, note=error.message)
            await asyncio.sleep(EVERY_SECONDS)

    async def _beat(self) -> None:
        await self._presence.beat(self._resting(), self._load(), self._carrier())
        if not self._health.is_well(Part.DATABASE):
            log.info("database.ready")
        self._health.set(Part.DATABASE, well=True)
        await self._presence.renew(self._tokens)
        if lost := await self._presence.release_lost():
            log.warning("leases.released", items=lost)
            self._bell.ring(Cause.SWEEP)
