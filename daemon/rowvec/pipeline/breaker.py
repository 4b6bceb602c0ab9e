"""The circuit breaker of a model: what it stands at, and for how long the model is let alone."""

from __future__ import annotations

import random
from datetime import datetime

from rowvec.domain.errors import ModelUnavailableError
from rowvec.domain.load import BreakerState
from rowvec.domain.retry import describe, let_alone_seconds, wished_rest_seconds
from rowvec.ports import Clock


class Breaker:
    """Closed, it lets requests pass; an outage opens it; after a rest it is half-open until a try has told.

    The rests after outages grow until a request of a row's text succeeds: a model may answer a harmless text and
    break at the first real one. What the model asks for itself counts as it is.

    Args:
        clock: the time.
        chance: for the jitter of rests.

    Attributes:
        state: what it stands at.
        since: when it was closed last, or opened out of that.
        openings: how often it has been opened. Requests that were under way together fail together: that is one outage,
            so a failure counts only when it has not been opened since the request began.
    """

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        self._clock = clock
        self._chance = chance
        self.state = BreakerState.CLOSED
        self.since: datetime = clock.now()
        self.openings = 0
        self._outages = 0
        self._until = 0.0
        self._reason: ModelUnavailableError | None = None

    @property
    def why(self) -> str:
        """What the model is let alone for; empty when it is not."""
        return " ".join(describe(self._reason)).strip() if self._reason else ""

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

    def rest_seconds(self) -> float:
        """Return for how long the model is to be let alone yet."""
        return max(0.0, self._until - self._clock.seconds())

    def try_once(self) -> None:
        """Be half-open: somebody looks at the model."""
        self._become(BreakerState.HALF_OPEN)

    def close(self) -> None:
        """Let requests pass again, unless the model has asked for a rest meanwhile."""
        if self.state is BreakerState.HALF_OPEN:
            self._reason = None
            self._become(BreakerState.CLOSED)

    def _open(self, error: ModelUnavailableError, seconds: float) -> None:
        """Open, or stay open; of several rests the longest counts."""
        until = self._clock.seconds() + seconds
        if self._reason is None or until > self._until:
            self._until, self._reason = until, error
        self.openings += 1
        self._become(BreakerState.OPEN)

    def _become(self, state: BreakerState) -> None:
        if state is not self.state and BreakerState.CLOSED in {state, self.state}:
            self.since = self._clock.now()
        self.state = state
