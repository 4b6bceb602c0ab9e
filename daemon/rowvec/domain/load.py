"""What a model and the carrier stand at in one daemon, as its heartbeat tells it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal


class BreakerState(StrEnum):
    """Whether requests may be sent to a model, or messages to a carrier.

    After Nygard, "Release It!" (2007): an outage opens the breaker, and a single try decides whether it closes.
    """

    CLOSED = "closed"
    """They may."""
    OPEN = "open"
    """They may not, for a while."""
    HALF_OPEN = "half-open"
    """They may not yet: one look, one message tells."""


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


@dataclass(frozen=True, slots=True)
class CarrierLoad:
    """Which way the work goes in a daemon.

    Attributes:
        strategy: whether messages carry it, or everything is done here.
        lanes: those whose work is handed to messages.
        state: whether messages may be sent; None where there is no carrier.
        why: what keeps messages from being sent or brought, or what is missing for a carrier.
        since: when it came to this; None where there is no carrier.
    """

    strategy: Literal["database", "qstash"]
    lanes: tuple[str, ...] = ()
    state: BreakerState | None = None
    why: str = ""
    since: datetime | None = None


ALL_HERE: Final = CarrierLoad("database")
"""No carrier, and nobody misses one."""
