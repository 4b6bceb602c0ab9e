"""How much was sent today."""

from __future__ import annotations

from rowvec.qstash_dev.clock import Clock
from rowvec.qstash_dev.plans import DAY, Plan
from rowvec.qstash_dev.refusals import daily


class Usage:
    """Messages by day (UTC): accepted ones, and each retry."""

    def __init__(self, clock: Clock, plan: Plan) -> None:
        self._clock = clock
        self._plan = plan
        self._day = 0
        self._count = 0

    @property
    def today(self) -> int:
        """Messages of today."""
        day = int(self._clock.now() // DAY)
        if day != self._day:
            self._day, self._count = day, 0
        return self._count

    def check(self, more: int) -> None:
        """See whether so many more may be sent.

        Raises:
            RefusalError: 429, not today.
        """
        limit = self._plan.daily_messages
        if limit is not None and self.today + more > limit:
            raise self.spent()

    def spent(self) -> Exception:
        """Return what is said when nothing more may be sent today."""
        midnight = (self._clock.now() // DAY + 1) * DAY
        return daily(self._plan.daily_messages or 0, self._clock.on_the_wall(midnight))

    def add(self) -> None:
        """Count a message or a retry."""
        self._count = self.today + 1
