"""How fast: the paced start of requests, and the count of what was done lately."""

from __future__ import annotations

from collections import deque
from typing import Final

from rowvec.ports import Clock

MINUTE_SECONDS: Final = 60.0


class Pace:
    """Starts at even distances, so that no minute has more of them than the model takes.

    Args:
        per_minute: how many; None for any number.
        clock: the time.
    """

    def __init__(self, per_minute: float | None, clock: Clock) -> None:
        self._distance = MINUTE_SECONDS / per_minute if per_minute else 0.0
        self._clock = clock
        self._next = clock.seconds()

    def wait_seconds(self) -> float:
        """Return for how long nothing may start yet; 0 when something may at once."""
        return max(0.0, self._next - self._clock.seconds())

    def start(self) -> None:
        """Take the next start."""
        self._next = max(self._next, self._clock.seconds()) + self._distance

    def give_back(self) -> None:
        """Return a start that was taken and not used."""
        self._next -= self._distance


class LastMinute:
    """How many a second, over the last minute or since the beginning.

    Args:
        clock: the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = int(clock.seconds())
        self._counts: deque[tuple[int, int]] = deque()

    def add(self, count: int) -> None:
        """Count what was done just now."""
        second = int(self._clock.seconds())
        if self._counts and self._counts[-1][0] == second:
            count += self._counts.pop()[1]
        self._counts.append((second, count))
        self._forget(second)

    def per_second(self) -> float:
        """Return the mean."""
        second = int(self._clock.seconds())
        self._forget(second)
        passed = min(MINUTE_SECONDS, max(1.0, second - self._began))
        return sum(count for _, count in self._counts) / passed

    def _forget(self, second: int) -> None:
        while self._counts and self._counts[0][0] <= second - MINUTE_SECONDS:
            self._counts.popleft()
