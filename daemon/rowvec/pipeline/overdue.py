"""Overdue: what messages have left undone by their deadline. A carrier may take everything and deliver nothing."""

from __future__ import annotations

from typing import Final

import structlog

from rowvec.ports import Clock
from rowvec.telemetry import Metrics

RECENT_SECONDS: Final = 120.0
"""After so long without another one it is over."""

log = structlog.get_logger(__name__)


class Overdue:
    """Counts what comes back, and says so when it begins.

    Args:
        clock: the time.
        metrics: counts it too.
    """

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._items = 0
        self._last = -RECENT_SECONDS

    def note(self, items: int) -> None:
        """Take note of items that are done here because their message has not brought them in time."""
        if not items:
            return
        begins = not self._recent
        self._items = items if begins else self._items + items
        self._last = self._clock.seconds()
        self._metrics.overdue_items.inc(items)
        if begins:
            log.warning("dispatch.overdue", items=items, hint="`rowvec doctor` looks for the cause.")

    @property
    def why(self) -> str:
        """What is to be told of it; empty when there is nothing, or no longer."""
        if not self._recent:
            return ""
        return (
            f"Of late {self._items} items were not brought in time, and done here: `rowvec doctor` looks for the cause."
        )

    @property
    def _recent(self) -> bool:
        return self._clock.seconds() - self._last < RECENT_SECONDS
