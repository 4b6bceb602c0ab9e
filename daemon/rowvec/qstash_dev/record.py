"""What happened, for the log, for counts and for tests that wait for it."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from rowvec.qstash_dev.messages import Delivery, Event

KEPT: Final = 50_000


class Record:
    """The latest attempts and events, and counts of everything.

    Attributes:
        deliveries: attempts that were made, in the order of their ends; the latest 50,000.
        events: lines of the log, in order; the latest 50,000.
        counts: `published`, `deduplicated`, `refused` (calls), `attempts`, `delivered`, `retried`, `failed`, `dropped`,
            `duplicated`, `lost_answers`, `signed`, `forged`, `canceled`, `callbacks`, `ticks`; and by its name, each
            trouble that a call met.
        listeners: are told of every line of the log.
        noted: how many lines there ever were.
    """

    def __init__(self) -> None:
        self.deliveries: deque[Delivery] = deque(maxlen=KEPT)
        self.events: deque[Event] = deque(maxlen=KEPT)
        self.counts: Counter[str] = Counter()
        self.listeners: list[Callable[[Event], None]] = []
        self.noted = 0
        self._changed = asyncio.Event()

    def count(self, what: str) -> None:
        """Count something that happened."""
        self.counts[what] += 1
        self._tell()

    def note(self, event: Event) -> None:
        """Keep a line of the log."""
        self.events.append(event)
        self.noted += 1
        for listener in self.listeners:
            listener(event)
        self._tell()

    def keep(self, delivery: Delivery) -> None:
        """Keep an attempt."""
        self.deliveries.append(delivery)
        self._tell()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds; it is looked at after everything that happens."""
        while not holds():
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
