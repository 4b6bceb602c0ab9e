"""What wakes the daemon, counted by cause."""

from __future__ import annotations

import asyncio
from enum import IntEnum


class Cause(IntEnum):
    """Why the daemon looks; a higher one looks further."""

    POLL = 0
    """Nothing called; the regular look for what a lost wake-up left behind."""
    NOTIFY = 1
    """A writer's NOTIFY."""
    SWEEP = 2
    """The look at everything, without a floor: after every reconnection, and at intervals."""


class Bell:
    """Rung by the listener and others, waited for by the fold."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._cause = Cause.POLL

    def ring(self, cause: Cause) -> None:
        """Wake the fold; of several causes the one that looks furthest counts."""
        self._cause = max(self._cause, cause)
        self._rung.set()

    async def wait(self, timeout_seconds: float) -> Cause:
        """Wait to be rung, but no longer than the given time (then the cause is POLL)."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._rung.wait()
        except TimeoutError:
            return Cause.POLL
        cause, self._cause = self._cause, Cause.POLL
        self._rung.clear()
        return cause
