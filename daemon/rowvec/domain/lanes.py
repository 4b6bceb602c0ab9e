"""Lanes: the class of service of a priority, and the turns that lanes take when they compete."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Final


class Lane(StrEnum):
    """Class of service: priorities 1-2 within 10 s, 3-4 within a minute, 5 and up within five minutes."""

    IMMEDIATE = "immediate"
    STANDARD = "standard"
    BULK = "bulk"


AIM_SECONDS: Final = {Lane.IMMEDIATE: 10.0, Lane.STANDARD: 60.0, Lane.BULK: 300.0}
"""Within what time an item of a lane is to be done."""
SHARES: Final = {Lane.IMMEDIATE: 7, Lane.STANDARD: 2, Lane.BULK: 1}
"""Of every ten turns that all lanes compete for. A lane that has no use for its turns lends them."""


class LaneTurns:
    """Decides which of several waiting lanes goes next (smooth weighted round robin).

    Each call adds its share to every waiting lane's credit; the richest goes and pays the sum. Over time each
    lane gets its share, no lane starves, and turns are spread evenly.
    """

    def __init__(self) -> None:
        self._credit = dict.fromkeys(Lane, 0)

    def next(self, waiting: Collection[Lane]) -> Lane:
        """Return the lane whose turn it is.

        Args:
            waiting: the lanes that have something to do; at least one.
        """
        for lane in waiting:
            self._credit[lane] += SHARES[lane]
        chosen = max(waiting, key=lambda lane: (self._credit[lane], SHARES[lane]))
        self._credit[chosen] -= sum(SHARES[lane] for lane in waiting)
        return chosen
