"""The circuit breaker of a model: for how long the model is let alone, and when it is asked again."""

from __future__ import annotations

import random

from rowvec.domain.errors import ModelUnavailableError
from rowvec.domain.load import BreakerState
from rowvec.domain.retry import let_alone_seconds, wished_rest_seconds
from rowvec.pipeline.circuit import Circuit
from rowvec.ports import Clock


class Breaker(Circuit[ModelUnavailableError]):
    """Closed, it lets requests pass; an outage opens it.

    The rests after outages grow until a request of a row's text succeeds: a model may answer a harmless text and
    break at the first real one. What the model asks for itself counts as it is.

    Args:
        clock: the time.
        chance: for the jitter of rests.
    """

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        super().__init__(clock)
        self._chance = chance
        self._outages = 0

    def check(self) -> None:
        """Let a request pass.

        Raises:
            ModelUnavailableError: none may, for the reason that it was opened for.
        """
        if self._reason is not None:
            raise ModelUnavailableError(self._reason.message, self._reason.hint)

    def fail(self, error: ModelUnavailableError, openings: int) -> bool:
        """Take note of an outage, and open; return false when it is part of one that is known.

        Args:
            error: what a request or a try ended with.
            openings: how often it had been opened when that began.
        """
        wish = wished_rest_seconds(error)
        if wish is not None:
            self._open(error, let_alone_seconds(0, self._chance, wish))
            return True
        if openings != self.openings:
            return False
        self._open(error, let_alone_seconds(self._outages, self._chance))
        self._outages += 1
        return True

    def succeed(self) -> None:
        """Take note that the model has embedded the text of a row."""
        if self.state is BreakerState.CLOSED:
            self._outages = 0
