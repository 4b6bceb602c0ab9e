"""Schedules: messages that are published again and again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from rowvec.qstash_dev.clock import Timer
from rowvec.qstash_dev.intake import Intake, Letter
from rowvec.qstash_dev.messages import Event, Step
from rowvec.qstash_dev.options import Options
from rowvec.qstash_dev.refusals import RefusalError, quota
from rowvec.qstash_dev.wire import known, milliseconds, show_body, show_options
from rowvec.qstash_dev.world import World

FIELDS: Final = 5
ZONE: Final = "CRON_TZ="

_NOT_OURS: Final = frozenset({"upstash-not-before", "upstash-deduplication-id", "upstash-content-based-deduplication"})
"""Options of a single message, which a schedule does not have."""
_OUTCOMES: Final = {Step.DELIVERED: "SUCCESS", Step.FAILED: "FAIL", Step.CANCELED: "FAIL"}


@dataclass(frozen=True, slots=True)
class Cron:
    """When a schedule ticks: five fields, in a time zone."""

    text: str
    line: str
    zone: ZoneInfo

    def after(self, moment: float) -> float:
        """Return the first tick after a moment; both in unix seconds.

        Raises:
            RefusalError: 400, there is none.
        """
        try:
            return next(CronSim(self.line, datetime.fromtimestamp(moment, UTC).astimezone(self.zone))).timestamp()
        except StopIteration:
            raise RefusalError(400, f"invalid cron: {self.text} never comes") from None


@dataclass(slots=True)
class Schedule:
    """A schedule.

    Attributes:
        id: `scd_...` or chosen by who made it.
        cron: when.
        letter: what is published.
        options: as they were read from the letter.
        created_at: unix seconds.
        paused: whether its ticks are left out.
        last_at: of the last tick, unix seconds.
        next_at: of the next tick, unix seconds.
        outcomes: of the messages of the last tick, by id.
        error: why the last tick published nothing.
    """

    id: str
    cron: Cron
    letter: Letter
    options: Options
    created_at: float
    next_at: float
    paused: bool = False
    last_at: float | None = None
    outcomes: dict[str, str] = field(default_factory=dict)
    error: str = ""
    timer: Timer | None = None

    def show(self) -> dict[str, Any]:
        """Return it as JSON."""
        options = self.options
        return known(
            scheduleId=self.id,
            cron=self.cron.text,
            destination=self.letter.destination,
            createdAt=milliseconds(self.created_at),
            retries=options.retries,
            delay=int(options.delay) or None,
            timeout=options.timeout and int(options.timeout),
            queueName=options.queue,
            callerIP=self.letter.caller_ip,
            isPaused=self.paused,
            lastScheduleTime=self.last_at and milliseconds(self.last_at),
            nextScheduleTime=milliseconds(self.next_at),
            lastScheduleStates=self.outcomes or None,
            error=self.error or None,
            **show_body("body", self.letter.body),
            **show_options(options),
        )


def read_cron(text: str) -> Cron:
    """Return a cron line that was understood.

    Args:
        text: five fields, perhaps after `CRON_TZ=` and the name of a time zone.

    Raises:
        RefusalError: 400, it is none.
    """
    words = text.split()
    zone = words.pop(0).removeprefix(ZONE) if words and words[0].startswith(ZONE) else "UTC"
    if len(words) != FIELDS:
        raise RefusalError(400, f"invalid cron: expected {FIELDS} fields, found {len(words)}")
    try:
        CronSim(" ".join(words), datetime.now(UTC))
        return Cron(" ".join(text.split()), " ".join(words), ZoneInfo(zone))
    except (CronSimError, ZoneInfoNotFoundError, ValueError) as error:
        raise RefusalError(400, f"invalid cron: {error}") from error


class Timetable:
    """All schedules.

    Args:
        intake: takes what they publish.
        world: the circumstances.
    """

    def __init__(self, intake: Intake, world: World) -> None:
        self._intake = intake
        self._world = world
        self._schedules: dict[str, Schedule] = {}
        world.record.listeners.append(self._learn)

    def all(self) -> list[Schedule]:
        """Return all, in the order in which they were made."""
        return list(self._schedules.values())

    def get(self, name: str) -> Schedule:
        """Return a schedule.

        Raises:
            RefusalError: 404, there is none.
        """
        if name not in self._schedules:
            raise RefusalError(404, f"schedule {name} not found")
        return self._schedules[name]

    def set(self, letter: Letter) -> Schedule:
        """Make a schedule, or put another in the place of one with its id: nothing of that stays, not even a pause.

        Raises:
            RefusalError: 400 and 412, it can't be made.
        """
        options = self._intake.check(letter).options
        if options.cron is None:
            raise RefusalError(400, "Upstash-Cron is missing")
        cron, now = read_cron(options.cron), self._world.clock.now()
        name = options.schedule_id or f"scd_{uuid4().hex}"
        if name not in self._schedules and len(self._schedules) >= self._world.plan.schedules:
            raise quota("maxSchedules", self._world.plan.schedules)
        next_at = cron.after(now)
        self.delete(name)
        given = {key: values for key, values in letter.given.items() if key not in _NOT_OURS}
        letter = replace(letter, given=given, queue=options.queue, schedule_id=name)
        schedule = self._schedules[name] = Schedule(name, cron, letter, options, now, next_at)
        self._wind(schedule)
        return schedule

    def delete(self, name: str) -> None:
        """Remove a schedule; without a word if there is none."""
        schedule = self._schedules.pop(name, None)
        if schedule is not None and schedule.timer is not None:
            schedule.timer.cancel()

    def _wind(self, schedule: Schedule) -> None:
        schedule.timer = self._world.clock.call_at(schedule.next_at, lambda: self._tick(schedule))

    def _tick(self, schedule: Schedule) -> None:
        due = schedule.next_at
        schedule.next_at = schedule.cron.after(due)
        if not schedule.paused:
            self._publish(schedule, due)
        self._wind(schedule)

    def _publish(self, schedule: Schedule, due: float) -> None:
        self._world.record.count("ticks")
        schedule.last_at, schedule.outcomes, schedule.error = due, {}, ""
        try:
            sent = self._intake.accept([schedule.letter])
        except RefusalError as error:
            schedule.error = str(error)
        else:
            schedule.outcomes = {receipt.message_id: "IN_PROGRESS" for one in sent for receipt in one.receipts}

    def _learn(self, event: Event) -> None:
        name = event.message.schedule_id
        schedule = self._schedules.get(name) if name else None
        if schedule is not None and event.step in _OUTCOMES and event.message.id in schedule.outcomes:
            schedule.outcomes[event.message.id] = _OUTCOMES[event.step]
