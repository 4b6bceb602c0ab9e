"""How a row stands: in the queue, and in the answer to a message that names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from rowvec.domain.items import Key

Fingerprint: TypeAlias = frozenset[tuple[bytes, int]]
"""The chunks of a row, each by its hash and how many times it stood in the row before."""


class RowState(StrEnum):
    """What a message is told about a row."""

    EMBEDDED = "embedded"
    """It was brought up to date for this message."""
    CURRENT = "current"
    """There was nothing to do."""
    PROCESSING = "processing"
    """It is worked on, here or elsewhere."""
    WAITING = "waiting"
    """It waits in the queue: for its next attempt, for a model that is away, or because its source is paused."""
    FAILED = "failed"
    """It was given up, as `rowvec failed list` shows."""
    GONE = "gone"
    """There is no such row, or it has no text: nothing is stored of it."""
    ENQUEUED = "enqueued"
    """It was not queued and is now: the daemons see to it."""


@dataclass(frozen=True, slots=True)
class RowStanding:
    """How a row stands just now.

    Attributes:
        watched: whether its content type is watched.
        statuses: of its items, whatever their models.
        stored: whether some model holds vectors of it.
        unfolded: whether a change of it is among those that came last and wait to be folded.
    """

    watched: bool
    statuses: frozenset[str] = frozenset()
    stored: bool = False
    unfolded: bool = False

    def state(self, *, brought: bool) -> RowState:
        """Return what a message is told of it; of several items the one counts that has the longest way before it.

        Args:
            brought: whether there was something to do, for the message.
        """
        if "processing" in self.statuses:
            return RowState.PROCESSING
        if "queued" in self.statuses:
            return RowState.WAITING
        if "failed" in self.statuses:
            return RowState.FAILED
        if not self.stored:
            return RowState.GONE
        return RowState.EMBEDDED if brought else RowState.CURRENT


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of the rows of a message.

    Attributes:
        states: of the rows whose content type is watched.
        unknown: the content types that are not.
    """

    states: Mapping[Key, RowState]
    unknown: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class LaneCount:
    """Rows that wait in a lane.

    Attributes:
        queued: all of them.
        due: those that could be worked on here at once.
    """

    queued: int = 0
    due: int = 0
