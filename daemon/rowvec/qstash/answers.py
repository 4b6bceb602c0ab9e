"""What QStash tells of its queues, schedules and dead letters, as far as it concerns us.

Read with tolerance: the official SDK's own parser gives up on what is documented to be missing now and then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from rowvec.domain.storable import storable

Answer = Mapping[str, Any]
LINE_CHARACTERS: Final = 300
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
        answer: how what was said in it begins, in one line.
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
    paused, lag = bool(answer.get("paused", False)), _number(answer.get("lag")) or 0
    return QueueState(_text(answer["name"]), int(answer["parallelism"]), paused, lag)


def read_schedule(answer: Answer) -> Schedule:
    """Return a schedule."""
    headers = answer.get("header")
    return Schedule(
        id=_text(answer["scheduleId"]),
        cron=_text(answer["cron"]),
        destination=_text(answer["destination"]),
        body=_text(answer.get("body")),
        paused=bool(answer.get("isPaused", False)),
        method=_text(answer.get("method")) or "POST",
        retries=_number(answer.get("retries")),
        headers=headers if isinstance(headers, dict) else {},
        last_at=_moment(answer.get("lastScheduleTime")),
        next_at=_moment(answer.get("nextScheduleTime")),
        error=_text(answer.get("error")),
        failure_callback=_text(answer.get("failureCallback")),
        label=_text(answer.get("label")),
        queue=_text(answer.get("queueName")),
    )


def read_dead_letter(answer: Answer) -> DeadLetter:
    """Return a dead letter."""
    body = answer.get("body")
    return DeadLetter(
        id=_text(answer["dlqId"]),
        message_id=_text(answer.get("messageId")),
        url=_text(answer.get("url")),
        body=body if isinstance(body, str) and body else None,
        label=_text(answer.get("label")),
        queue=_text(answer.get("queueName")),
        status=_number(answer.get("responseStatus")),
        answer=one_line(_text(answer.get("responseBody"))),
        created_at=_moment(answer.get("createdAt")),
    )


def read_keys(answer: Answer) -> SigningKeys:
    """Return the signing keys.

    Raises:
        TypeError: one is no text, or none that could sign anything.
    """
    keys = SigningKeys(_text(answer["current"]), _text(answer["next"]))
    if list(keys) != [answer["current"], answer["next"]]:
        raise TypeError("The signing keys are no texts.")
    return keys


def without_secrets(url: str) -> str:
    """Return an address without what is often secret in it: user, password and query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "?"
    query = "..." if parts.query else ""
    return one_line(urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, "")))


def one_line(text: str) -> str:
    """Return the beginning of a text for a log or a terminal, which control characters might take over."""
    shown = "".join(character if character.isprintable() else " " for character in text[: 4 * LINE_CHARACTERS])
    line = " ".join(shown.split())
    return line if len(line) <= LINE_CHARACTERS else line[: LINE_CHARACTERS - 3] + "..."


def _text(value: object) -> str:
    """Return a text that can be written down, an empty one for whatever else it may be."""
    return storable(value) if isinstance(value, str) else ""


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _moment(milliseconds: object) -> datetime | None:
    if isinstance(milliseconds, int) and 0 < milliseconds <= _MOST_MILLISECONDS:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    return None
