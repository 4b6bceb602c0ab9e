"""What to do with an error: the one place that decides between waiting, trying again and giving up."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from rowvec.domain.errors import (
    DatabaseUnavailableError,
    ModelUnavailableError,
    RowvecError,
    SourceUnreadableError,
    StatementTimeoutError,
    StoppingError,
    TextRejectedError,
)
from rowvec.domain.storable import storable

BASE_SECONDS: Final = 2.0
LONGEST_SECONDS: Final = 600.0
SHORTEST_REST_SECONDS: Final = 0.5
LONGEST_REST_SECONDS: Final = 30.0
LEAST_REST: Final = 0.75
"""The part of a rest that jitter leaves of it at least."""
LONGEST_LATENESS: Final = 1.1
LONGEST_WISH_SECONDS: Final = 300.0
"""A model may ask for an hour, or by mistake for a year: it is looked at sooner."""


class Action(Enum):
    """What becomes of the items of a failed batch."""

    WAIT = auto()
    """Not the items' fault: back in the queue, no attempt counted, the model or source rests."""
    SPLIT = auto()
    """Some item of several is at fault: try the halves, so that one never holds back the others."""
    RETRY = auto()
    """Count the attempt and try again later, or give up after the last."""
    FAIL = auto()
    """Trying again can't help."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often, and how far apart.

    Attributes:
        most: attempts before an item is given up, at least 1.
    """

    most: int

    def delay_seconds(self, retry_count: int, chance: random.Random) -> float | None:
        """Return how long to wait before the next attempt; None when there is none left.

        Exponential with full jitter, so that items that failed together don't come back together
        (Brooker, "Exponential Backoff And Jitter", 2015), but never under half the step.

        Args:
            retry_count: failed attempts before this one.
            chance: the source of randomness.
        """
        if retry_count + 1 >= self.most:
            return None
        step = min(BASE_SECONDS * 2.0**retry_count, LONGEST_SECONDS)
        return step * chance.uniform(0.5, 1.0)


def decide(error: Exception, items: int) -> Action:
    """Say what to do with the items of a batch that ended in an error.

    Args:
        error: what was raised while reading, embedding or storing them.
        items: how many there were, at least 1.
    """
    match error:
        case StatementTimeoutError():
            return Action.SPLIT if items > 1 else Action.RETRY
        case ModelUnavailableError() | DatabaseUnavailableError() | SourceUnreadableError() | StoppingError():
            return Action.WAIT
        case _ if items > 1:
            return Action.SPLIT
        case TextRejectedError():
            return Action.FAIL
        case _:
            return Action.RETRY


def wished_rest_seconds(error: Exception) -> float | None:
    """Return how long a model is let alone because it asks for it, within reason; None when it does not.

    Args:
        error: what one of its requests ended with.
    """
    wish = error.retry_after_seconds if isinstance(error, ModelUnavailableError) else None
    return min(wish, LONGEST_WISH_SECONDS) if wish is not None and wish > 0 else None


def let_alone_seconds(outages: int, chance: random.Random, wish: float | None = None) -> float:
    """Return for how long to let a model alone: for as long as it asks, else the longer the more often it was away.

    With jitter, so that daemons that were turned away together don't come back together.

    Args:
        outages: those before this one, since it last embedded the text of a row.
        chance: the source of randomness.
        wish: of `wished_rest_seconds`.
    """
    if wish is not None:
        return wish * chance.uniform(1.0, LONGEST_LATENESS)
    step = SHORTEST_REST_SECONDS * 2.0 ** min(outages, 10)
    return min(step, LONGEST_REST_SECONDS) * chance.uniform(LEAST_REST, 1.0)


def describe(error: Exception) -> tuple[str, str]:
    """Return a stable sentence that people can group by, and the detail; both as Postgres can keep them.

    Args:
        error: what an item failed with.
    """
    if isinstance(error, RowvecError):
        return storable(error.message), storable(error.hint)
    return f"Unexpected error: {type(error).__name__}.", storable(str(error))
