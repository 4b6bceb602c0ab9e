"""The allowance: how many items may be on their way in messages. What is not done by its deadline was sent in vain."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from rowvec.ports import Dispatchable

LOOK_SECONDS: Final = 1.0
WINDOW_DEADLINES: Final = 2.0
"""Over how many deadlines completions are counted. Not under one: what passed its deadline counts as well, and over
this time allows less than there was of it, so that a carrier that delivers nothing is soon given hardly anything."""


class _Sample(NamedTuple):
    at: float
    done: int


class Allowance:
    """Grants as many items as recent completions fit into half the deadline, and a few in any case.

    Completed is what was handed to messages, by all daemons, and is waited for no longer.

    Args:
        dispatches: counts.
        seconds: the monotonic clock.
        least: so many may always be on their way.
        deadline_seconds: how long a message has time.
    """

    def __init__(
        self, dispatches: Dispatchable, seconds: Callable[[], float], least: int, deadline_seconds: float
    ) -> None:
        self._dispatches = dispatches
        self._seconds = seconds
        self._least = least
        self._deadline_seconds = deadline_seconds
        self._samples: deque[_Sample] = deque()
        self._outstanding = 0
        self._looked_at = -LOOK_SECONDS

    async def take(self, wanted: int) -> int:
        """Return how many of so many items may be dispatched; they count as dispatched from now on.

        Raises:
            DatabaseUnavailableError: it can't be counted.
        """
        await self._look()
        granted = max(0, min(wanted, self._most() - self._outstanding))
        self._outstanding += granted
        return granted

    async def _look(self) -> None:
        """Count, at most once in a while."""
        now = self._seconds()
        if now - self._looked_at < LOOK_SECONDS:
            return
        # Before the answer is there, so that of many who ask at once one counts.
        self._looked_at = now
        counted = await self._dispatches.count_dispatched()
        self._outstanding = counted.outstanding
        self._samples.append(_Sample(now, counted.sent - counted.outstanding))
        while now - self._samples[0].at > WINDOW_DEADLINES * self._deadline_seconds:
            self._samples.popleft()

    def _most(self) -> int:
        if not self._samples or self._samples[-1].at <= self._samples[0].at:
            return self._least
        first, last = self._samples[0], self._samples[-1]
        rate = max(0, last.done - first.done) / (last.at - first.at)
        return max(self._least, int(rate * self._deadline_seconds / 2))
