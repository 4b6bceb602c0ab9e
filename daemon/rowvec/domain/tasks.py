"""What the daemons do by the clock, and when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

FIELDS: Final = 5


class Task(StrEnum):
    """What is done once among all daemons, however many there are."""

    MONITOR = "monitor"
    CLEANUP = "cleanup"
    RETRY_FAILED = "retry_failed"


@dataclass(frozen=True, slots=True)
class Cron:
    """The times at which something is due.

    Attributes:
        line: minute, hour, day of the month, month and weekday, as cron has them.
        zone: the time zone that they are of, by its name in the IANA's list.
    """

    line: str
    zone: str = "UTC"

    def last_at(self, now: datetime) -> datetime:
        """Return the latest of its times that is not after `now`, in UTC."""
        # Backwards from a whole second it would begin with the tick before that second.
        return next(CronSim(self.line, self._local(now).replace(microsecond=1), reverse=True)).astimezone(UTC)

    def next_at(self, now: datetime) -> datetime:
        """Return the first of its times after `now`, in UTC."""
        # Where an hour comes twice, the first that the library finds may have been in the first of the two.
        times = (time.astimezone(UTC) for time in CronSim(self.line, self._local(now)))
        return next(time for time in times if time > now)

    def _local(self, now: datetime) -> datetime:
        return now.astimezone(UTC if self.zone == "UTC" else ZoneInfo(self.zone))


def check_cron_line(line: str) -> str:
    """Return a cron line with single spaces.

    Raises:
        ValueError: it is none, or its time never comes; says why.
    """
    parts = line.split()
    form = 'a cron line has five fields, minute, hour, day, month and weekday, such as "*/5 * * * *"'
    if len(parts) != FIELDS:
        raise ValueError(f"{form}: {len(parts)} are given")
    try:
        Cron(" ".join(parts)).next_at(datetime.now(UTC))
    except (CronSimError, StopIteration) as error:
        raise ValueError(f"{form}: {str(error) or 'its time never comes'}") from None
    return " ".join(parts)


def check_zone(name: str) -> str:
    """Return the name of a time zone.

    Raises:
        ValueError: none is known by it.
    """
    try:
        Cron("0 0 * * *", name).next_at(datetime.now(UTC))
    except (ValueError, LookupError, OSError):
        raise ValueError(
            "no time zone is known by that name, such as UTC or Europe/Berlin (others than UTC need the tzdata of the "
            "system or the package tzdata)"
        ) from None
    return name
