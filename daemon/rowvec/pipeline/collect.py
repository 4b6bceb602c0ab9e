"""Collect: holds a lane back, so that its items go out together, and lets it go in time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import structlog

from rowvec.domain.errors import DatabaseUnavailableError
from rowvec.domain.items import Held
from rowvec.domain.lanes import AIM_SECONDS, Lane
from rowvec.domain.load import BreakerState
from rowvec.health import Pulse
from rowvec.pipeline.due_board import DueBoard
from rowvec.ports import Clock, Dispatchable

LOOK_SECONDS: Final = 2.0
LONGEST_PART: Final = 0.4
"""Of a lane's time. Its messages have half of it at most, and between looks a little passes."""

log = structlog.get_logger(__name__)


class Collector:
    """Holds a lane until it is asked for, or full, or the oldest item has waited for a good part of its lane's time.

    What a message has left undone lets it go too, and so does a carrier that takes nothing. Once let go it is held
    again when all that had been collected by then is gone. Items of a model that is let alone count for nothing: they
    go nowhere, and would keep the lane from being held for the others.

    Args:
        lane: is held.
        dispatches: tells what is due in it.
        board: claims take their slots from it.
        models: whose items count.
        state: what the carrier's circuit stands at.
        enough: with so many items of a slot there is nothing more to wait for.
        clock: the time between looks.
        pulse: is beaten at every look.
    """

    def __init__(  # noqa: PLR0913 - a room's doors, each wired once
        self,
        lane: Lane,
        dispatches: Dispatchable,
        board: DueBoard,
        models: Callable[[], Collection[str]],
        state: Callable[[], BreakerState],
        enough: int,
        clock: Clock,
        pulse: Pulse,
    ) -> None:
        self._lane = lane
        self._dispatches = dispatches
        self._board = board
        self._models = models
        self._state = state
        self._enough = enough
        self._clock = clock
        self._pulse = pulse
        self._released_at = clock.seconds()
        board.hold_lane(lane)

    def release(self) -> None:
        """Let what has been collected go, now."""
        self._released_at = self._clock.seconds()
        self._board.release_lane(self._lane)

    async def run(self) -> None:
        """Look at intervals, for ever."""
        while True:
            self._pulse.beat()
            try:
                now = self._clock.seconds()
                held = await self._dispatches.look_held(self._lane, self._board.awake(self._models()), self._enough)
                self._judge(held, now - self._released_at)
            except DatabaseUnavailableError as error:
                log.debug("collect.interrupted", error=str(error))
            await self._clock.sleep(LOOK_SECONDS)

    def _judge(self, held: Held, released_seconds: float) -> None:
        if self._state() is not BreakerState.CLOSED or self._must_go(held):
            self.release()
        elif held.oldest_seconds < released_seconds:
            self._board.hold_lane(self._lane)

    def _must_go(self, held: Held) -> bool:
        return held.overdue or held.full or held.oldest_seconds >= AIM_SECONDS[self._lane] * LONGEST_PART
