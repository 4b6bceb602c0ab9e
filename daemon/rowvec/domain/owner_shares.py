"""Fairness among owners: what one owner floods an urgent lane with goes in as bulk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
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

    def is_beyond(self, slot: Slot, owner: str | None, share: int) -> bool:
        """Count a row, and say whether its owner has had more than the share within the lane's time.

        Args:
            slot: where it was claimed; in bulk nobody is beyond.
            owner: whose row it is; None is nobody's, and not bounded.
            share: how many rows an owner may bring.
        """
        if owner is None or slot.lane is Lane.BULK:
            return False
        window = self._windows.setdefault(slot, _Window())
        if self._seconds() >= window.ends_at:
            window.ends_at = self._seconds() + AIM_SECONDS[slot.lane]
            window.rows.clear()
        window.rows[owner] += 1
        return window.rows[owner] > share
