"""Fold: changes into items, and the say over whether writers notify."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final

import structlog

from rowvec.domain.errors import DatabaseUnavailableError
from rowvec.domain.items import Floors
from rowvec.health import Pulse
from rowvec.pipeline.bell import Bell, Cause
from rowvec.pipeline.due_board import EVER, DueBoard
from rowvec.ports import ChangeLog, ItemQueue, WakeSource
from rowvec.telemetry import Metrics

BATCH_CHANGES: Final = 250
"""Small: an immediate change that comes in the middle waits for one batch."""
STRAGGLER_CHANGES: Final = 1000
"""Changes commit out of order: each look begins so many ids before the last seen one."""
AWAKE_SECONDS: Final = 2.0
RENEW_SECONDS: Final = 1.0
SETTLE_SECONDS: Final = 0.05
"""A writer that saw the awake mark and commits just after the last look is found by one more."""
OUTAGE_SECONDS: Final = 0.5

log = structlog.get_logger(__name__)


class Folder:
    """Looks when the bell rings, at intervals, and never stops.

    Args:
        changes: what is folded.
        queue: is probed for items that have become due.
        wake: the mark that spares writers from notifying.
        bell: what wakes.
        board: is told which slots have due items.
        models: whose items are worked on here, at the moment of each look.
        has_room: whether a claim could be made at once.
        pulse: is beaten at each look.
        metrics: counts wake-ups and changes.
        seconds: the monotonic clock.
        poll_seconds: between looks while nothing calls.
        sweep_seconds: between looks without a floor.
    """

    def __init__(  # noqa: PLR0913 - a room's doors, each wired once
        self,
        changes: ChangeLog,
        queue: ItemQueue,
        wake: WakeSource,
        bell: Bell,
        board: DueBoard,
        models: Collection[str],
        has_room: Callable[[], bool],
        pulse: Pulse,
        metrics: Metrics,
        seconds: Callable[[], float],
        poll_seconds: float,
        sweep_seconds: float,
    ) -> None:
        self._changes = changes
        self._queue = queue
        self._wake = wake
        self._bell = bell
        self._board = board
        self._models = models
        self._has_room = has_room
        self._pulse = pulse
        self._metrics = metrics
        self._seconds = seconds
        self._poll_seconds = poll_seconds
        self._sweep_seconds = sweep_seconds
        self._floors = Floors()
        self._next_sweep = 0.0
        self._marked_at = 0.0
        self._called_at = 0.0
        self._settling = False

    async def run(self) -> None:
        """Fold for ever."""
        while True:
            cause = await self._next_cause(SETTLE_SECONDS if self._settling else self._poll_seconds)
            try:
                worked = await self._look(cause)
            except DatabaseUnavailableError as error:
                log.warning("fold.interrupted", error=str(error))
                await asyncio.sleep(OUTAGE_SECONDS)
                self._bell.ring(Cause.SWEEP)
            else:
                self._metrics.wakeups.labels(cause.name.lower(), "yes" if worked else "no").inc()

    async def _next_cause(self, longest_seconds: float) -> Cause:
        self._pulse.beat()
        until_sweep = max(self._next_sweep - self._seconds(), 0.0)
        cause = await self._bell.wait(min(longest_seconds, until_sweep))
        if self._seconds() >= self._next_sweep:
            cause = max(cause, Cause.SWEEP)
        if cause is Cause.SWEEP:
            self._next_sweep = self._seconds() + self._sweep_seconds
        return cause

    async def _look(self, cause: Cause) -> bool:
        """Fold all there is and probe; return whether there was anything."""
        sweep = cause is Cause.SWEEP
        folded = await self._fold_all(Floors() if sweep else self._floors)
        folded += await self._fall_asleep()
        self._settling = folded > 0
        if folded and not sweep:
            return True
        slots = await self._queue.probe(list(self._models), EVER if sweep else self._board.lowest_floor())
        self._board.offer(slots)
        if sweep:
            self._board.lower_floors(slots)
        if slots and not self._has_room():
            await self._wake_others()
        return bool(folded or slots)

    async def _wake_others(self) -> None:
        """Say that there is more than this daemon can take; not too often, for it hears itself as well."""
        if self._seconds() - self._called_at >= RENEW_SECONDS:
            self._called_at = self._seconds()
            await self._wake.notify()

    async def _fold_all(self, floors: Floors) -> int:
        """Fold batch after batch; what a writer holds is passed over and found again later.

        Writers are spared from the second batch on: after a single one the mark would be cleared at once. However
        fast they write, it ends when the next sweep is due: only that finds what committed late or was passed over.
        """
        folded = 0
        while (fold := await self._changes.fold(floors, BATCH_CHANGES)).floors is not None:
            if folded and fold.folded:
                # What a writer holds is no work: marking for it would never let us fall asleep.
                await self._stay_awake()
            self._pulse.beat()
            self._board.offer(fold.slots)
            self._metrics.changes_folded.inc(fold.folded)
            for key in fold.refused:
                log.error("change.refused", key=key, why="The key is longer than 1,000 bytes.")
            folded += fold.folded
            floors = fold.floors
            self._floors = Floors(*map(max, self._floors, (floor - STRAGGLER_CHANGES for floor in floors)))
            if self._seconds() >= self._next_sweep:
                break
        return folded

    async def _stay_awake(self) -> None:
        """Spare writers the NOTIFY while there is work and room for more."""
        if self._has_room() and self._seconds() - self._marked_at >= RENEW_SECONDS:
            self._marked_at = self._seconds()
            await self._wake.mark_awake(AWAKE_SECONDS)

    async def _fall_asleep(self) -> int:
        """Clear the mark, then look again: a writer may have seen it in between. Work found marks anew."""
        folded = 0
        while self._marked_at and self._seconds() < self._next_sweep:
            self._marked_at = 0.0
            await self._wake.clear_awake()
            folded += await self._fold_all(self._floors)
        return folded
