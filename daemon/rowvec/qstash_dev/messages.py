"""What is carried, and what became of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum

from rowvec.qstash_dev.options import Headers, Options


class Step(StrEnum):
    """What happens to a message, as the log names it."""

    CREATED = "CREATED"
    ACTIVE = "ACTIVE"
    RETRY = "RETRY"
    ERROR = "ERROR"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    CANCEL_REQUESTED = "CANCEL_REQUESTED"
    CANCELED = "CANCELED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An accepted message.

    Attributes:
        id: `msg_...`.
        url: where it goes, exactly as published.
        body: raw.
        options: how.
        created_at: unix seconds.
        not_before: unix seconds of the first attempt.
        caller_ip: who published it.
        queue: whose order it keeps.
        group: the URL group it was published to.
        endpoint: the name of its endpoint in the group.
        schedule_id: what made it.
        callback_of: the message that it tells of.
    """

    id: str
    url: str
    body: bytes
    options: Options
    created_at: float
    not_before: float
    caller_ip: str
    queue: str | None = None
    group: str | None = None
    endpoint: str | None = None
    schedule_id: str | None = None
    callback_of: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said.

    Attributes:
        status: None without any answer: no connection, or none in time.
        headers: by their usual names.
        body: raw.
        error: why there was no answer.
    """

    status: int | None
    headers: Headers = field(default_factory=dict)
    body: bytes = b""
    error: str = ""

    @property
    def is_success(self) -> bool:
        """Whether the message is delivered; a redirect is none."""
        return self.status is not None and 200 <= self.status <= 299  # noqa: PLR2004


@dataclass(eq=False, slots=True)
class Journey:
    """A message on its way.

    Attributes:
        message: what is carried.
        retried: how many attempts were made after the first.
        answer: to the latest attempt.
        task: who carries it; None while it waits in a queue.
        ended_at: when all was over, unix seconds.
        callbacks: what tells of it.
    """

    message: Message
    retried: int = 0
    answer: Answer | None = None
    task: asyncio.Task[None] | None = None
    ended_at: float | None = None
    callbacks: list[Journey] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the log; times in unix seconds."""

    at: float
    step: Step
    message: Message
    answer: Answer | None = None
    next_at: float | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up, with the answer to its last attempt."""

    id: str
    message: Message
    answer: Answer


@dataclass(frozen=True, slots=True)
class Delivery:
    """An attempt as a receiver saw it.

    Attributes:
        message_id: of the message.
        url: exactly as published.
        method: of the request.
        headers: that were sent, the signature among them.
        body: raw.
        retried: 0 for the first attempt.
        queue: it came through.
        at: unix seconds of the local QStash's clock.
        answer: of the receiver.
    """

    message_id: str
    url: str
    method: str
    headers: dict[str, str]
    body: bytes
    retried: int
    queue: str | None
    at: float
    answer: Answer
