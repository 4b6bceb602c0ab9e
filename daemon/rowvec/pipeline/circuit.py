"""Circuits: closed while all is well, open for a rest after an outage, half-open until a try has told."""

from __future__ import annotations

import random
from datetime import datetime
from typing import Final, Generic, TypeVar

from rowvec.domain.errors import CarrierError, CarrierTrouble, RowvecError
from rowvec.domain.load import BreakerState
from rowvec.domain.retry import describe
from rowvec.ports import Clock

SHORTEST_REST_SECONDS: Final = 1.0
LONGEST_REST_SECONDS: Final = 60.0
LONGEST_WISH_SECONDS: Final = 600.0
"""A day's quota may be there again long before: the plan was changed, or one of the two clocks is wrong."""
LEAST_REST: Final = 0.75
"""The part of a rest that jitter leaves of it at least: daemons that were turned away together come back one by one."""

Error = TypeVar("Error", bound=RowvecError)


class Circuit(Generic[Error]):
    """What a circuit stands at; what opens it, and for how long, is up to those who have one.

    Args:
        clock: the time.

    Attributes:
        state: what it stands at.
        since: when it was closed last, or opened out of that.
        openings: how often it has been opened. What was under way together fails together: that is one outage, so a
            failure counts only when it has not been opened since that began.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.state = BreakerState.CLOSED
        self.since: datetime = clock.now()
        self.openings = 0
        self._until = 0.0
        self._reason: Error | None = None

    @property
    def why(self) -> str:
        """What it was opened for; empty when it is closed."""
        return " ".join(describe(self._reason)).strip() if self._reason else ""

    def rest_seconds(self) -> float:
        """Return how long the rest still takes."""
        return max(0.0, self._until - self._clock.seconds())

    def try_once(self) -> None:
        """Be half-open: somebody tries."""
        self._become(BreakerState.HALF_OPEN)

    def close(self) -> None:
        """Be closed again, unless it was opened anew meanwhile."""
        if self.state is BreakerState.HALF_OPEN:
            self._reason = None
            self._become(BreakerState.CLOSED)

    def _open(self, error: Error, seconds: float) -> None:
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


class CarrierCircuit(Circuit[CarrierError]):
    """A carrier's circuit. The rests after its outages double until a message is taken.

    Args:
        clock: the time.
        chance: for the jitter of rests.
    """

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        super().__init__(clock)
        self._chance = chance
        self._outages = 0

    def admit(self) -> BreakerState:
        """Say whether messages may be sent: CLOSED, OPEN, or HALF_OPEN to the one who is to try with a single one.

        Whoever is told HALF_OPEN ends it by `fail`, `succeed` or `desist`.
        """
        if self.state is BreakerState.OPEN and not self.rest_seconds():
            self.try_once()
            return BreakerState.HALF_OPEN
        return BreakerState.CLOSED if self.state is BreakerState.CLOSED else BreakerState.OPEN

    def fail(self, error: CarrierError, openings: int) -> bool:
        """Open because of a failure; return false when it is part of an outage that is known.

        Args:
            error: what a message was refused for.
            openings: how often it had been opened when the message was sent.
        """
        if openings != self.openings:
            return False
        self._open(error, self._rest(error))
        self._outages += 1
        return True

    def succeed(self) -> bool:
        """Take note that messages were taken; return whether that closed it."""
        tried = self.state is BreakerState.HALF_OPEN
        self.close()
        if self.state is BreakerState.CLOSED:
            self._outages = 0
        return tried

    def desist(self) -> None:
        """Take note that there was no try after all."""
        if self.state is BreakerState.HALF_OPEN:
            self._become(BreakerState.OPEN)

    def _rest(self, error: CarrierError) -> float:
        if error.until is not None:
            wish = (error.until - self._clock.now()).total_seconds()
            return min(max(wish, SHORTEST_REST_SECONDS), LONGEST_WISH_SECONDS)
        if error.kind in {CarrierTrouble.CONFIGURATION, CarrierTrouble.QUOTA}:
            return LONGEST_REST_SECONDS  # nothing that mends itself
        step = SHORTEST_REST_SECONDS * 2.0 ** min(self._outages, 10)
        return min(step, LONGEST_REST_SECONDS) * self._chance.uniform(LEAST_REST, 1.0)
