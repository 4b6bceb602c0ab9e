"""What a model stands at in one daemon, as its heartbeat tells it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class BreakerState(StrEnum):
    """Whether requests may be sent to a model.

    After Nygard, "Release It!" (2007): an outage opens the breaker, and a single try decides whether it closes.
    """

    CLOSED = "closed"
    """They may."""
    OPEN = "open"
    """They may not: the model is let alone for a while."""
    HALF_OPEN = "half-open"
    """They may not yet: the model is being looked at."""


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """What a model stands at.

    Attributes:
        breaker: whether requests may be sent.
        why: what the model was last let alone for; empty while requests may be sent.
        since: when it came to this.
        texts_per_second: embedded, over the last minute.
        requests_in_hand: those under way.
    """

    breaker: BreakerState
    why: str
    since: datetime
    texts_per_second: float
    requests_in_hand: int
