"""How much of a source has vectors of a model that are up to date."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of one source, or of several together.

    Attributes:
        total: about how many items there are; None: not known.
        waiting: those that are queued or worked on, or whose change is on the way into the queue.
        failed: those that were given up.
        unseen: rows that no backfill has looked at yet.
    """

    total: int | None
    waiting: int
    failed: int
    unseen: int

    @property
    def current(self) -> int | None:
        """About how many items have vectors of their current text; None: not known."""
        return None if self.total is None else max(self.total - self.waiting - self.failed - self.unseen, 0)

    @property
    def share(self) -> float | None:
        """That of the current ones, from 0 to 1; of nothing all is current. None: not known."""
        if self.current is None:
            return None
        return self.current / self.total if self.total else 1.0


def join(parts: Iterable[Coverage]) -> Coverage:
    """Return what several sources have together; unknown as soon as one of them is."""
    found = list(parts)
    totals = [part.total for part in found]
    return Coverage(
        None if None in totals else sum(total for total in totals if total is not None),
        sum(part.waiting for part in found),
        sum(part.failed for part in found),
        sum(part.unseen for part in found),
    )
