"""What QStash tells of its queues, schedules and dead letters, as far as it concerns us.

Read with tolerance: the official SDK's own parser gives up on what is documented to be missing now and then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

Answer = Mapping[str, Any]
_MOST_MILLISECONDS: Final = 253402300799999


class SigningKeys(NamedTuple):
    """What deliveries are signed with: the first now, the second from the next rotation on."""

    current: str
    next: str

    def __repr__(self) -> str:
        """Show neither."""
        return "SigningKeys(...)"


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue.

    Attributes:
        name: its name.
        parallelism: how many deliveries it makes at once.
        paused: whether it makes none for now.
        lag: how many messages wait in it, by its own account, which is not always true.
    """

    name: str
    parallelism: int
    paused: bool
    lag: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule.

    Attributes:
        id: given by us.
        cron: when, with its time zone.
        destination: the address that is called.
        body: what is sent there.
        paused: whether it skips its ticks for now.
        method: of its requests.
        retries: of a delivery.
        headers: which go with it, by name.
        last_at: when it called last.
        next_at: when it will call.
        error: what went wrong at the last call.
        failure_callback: the address that is told of a failure.
        label: what its messages are found by.
        queue: through which they go.
    """

    id: str
    cron: str
    destination: str
    body: str = ""
    paused: bool = False
    method: str = "POST"
    retries: int | None = None
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    last_at: datetime | None = None
    next_at: datetime | None = None
    error: str = ""
    failure_callback: str = ""
    label: str = ""
    queue: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be delivered.

    Attributes:
        id: among the dead letters.
        message_id: the service's own name of the message.
        url: where it should have gone.
        body: what it said; None when that is no text.
        label: what it was marked with.
        queue: through which it went.
        status: of the last answer; None when there was none.
        answer: what was said in it.
        created_at: when the message was sent.
    """

    id: str
    message_id: str
    url: str
    body: str | None
    label: str
    queue: str
    status: int | None
    answer: str
    created_at: datetime | None


def read_queue(answer: Answer) -> QueueState:
    """Return a queue."""
    paused, lag = bool(answer.get("paused", False)), int(answer.get("lag", 0))
    return QueueState(answer["name"], int(answer["parallelism"]), paused, lag)


def read_schedule(answer: Answer) -> Schedule:
    """Return a schedule."""
    return Schedule(
        id=answer["scheduleId"],
        cron=answer["cron"],
        destination=answer["destination"],
        body=answer.get("body") or "",
        paused=bool(answer.get("isPaused", False)),
        method=answer.get("method") or "POST",
        retries=answer.get("retries"),
        headers=answer.get("header") or {},
        last_at=_moment(answer.get("lastScheduleTime")),
        next_at=_moment(answer.get("nextScheduleTime")),
        error=answer.get("error") or "",
        failure_callback=answer.get("failureCallback") or "",
        label=answer.get("label") or "",
        queue=answer.get("queueName") or "",
    )


def read_dead_letter(answer: Answer) -> DeadLetter:
    """Return a dead letter."""
    return DeadLetter(
        id=answer["dlqId"],
        message_id=answer.get("messageId") or "",
        url=answer.get("url") or "",
        body=answer.get("body"),
        label=answer.get("label") or "",
        queue=answer.get("queueName") or "",
        status=answer.get("responseStatus"),
        answer=answer.get("responseBody") or "",
        created_at=_moment(answer.get("createdAt")),
    )


def _moment(milliseconds: object) -> datetime | None:
    if isinstance(milliseconds, int) and 0 < milliseconds <= _MOST_MILLISECONDS:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    return None
