"""Fairness among owners: what one owner floods an urgent lane with goes in as bulk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rowvec.domain.items import Slot
from rowvec.domain.lanes import AIM_SECONDS, Lane


@dataclass(slots=True)
class _Window:
    ends_at: float = 0.0
    rows: Counter[str] = field(default_factory=Counter)


class OwnerShares:
    """Counts the rows of each owner in each slot, anew whenever the lane's time is over.

    Transactions are bounded where they are written; this bounds an owner who writes many of them. Bounded itself:
    it forgets all owners when a window ends.

    Args:
        seconds: the monotonic clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._windows: dict[Slot, _Window] = {}

    def had(self, slot: Slot, owner: str | None) -> int:
        """Return how many rows of an owner were done within the lane's time; in bulk nobody is counted.

        Args:
            slot: where they were claimed.
            owner: whose rows; None is nobody's, and not counted.
        """
        return 0 if owner is None else self._window(slot).rows[owner]

    def count(self, slot: Slot, owners: Iterable[str | None]) -> None:
        """Count rows that are done. Not those that were only read: a model's outage reads them many times."""
        if slot.lane is not Lane.BULK:
            self._window(slot).rows.update(owner for owner in owners if owner is not None)

    def _window(self, slot: Slot) -> _Window:
        window = self._windows.setdefault(slot, _Window())
        if self._seconds() >= window.ends_at:
            window.ends_at = self._seconds() + AIM_SECONDS[slot.lane]
            window.rows.clear()
        return window
