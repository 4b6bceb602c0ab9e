"""What an account may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DAY: Final = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The limits of a plan.

    Attributes:
        daily_messages: accepted messages and retries in a day; None for any number.
        message_bytes: of a body.
        delay_seconds: the longest delay.
        response_seconds: how long a receiver may take.
        retries: the most that may be asked for; None for any number.
        schedules: how many there may be.
        queues: how many there may be.
        queue_parallelism: of one queue.
        parallelism: of all deliveries together.
    """

    daily_messages: int | None
    message_bytes: int
    delay_seconds: int
    response_seconds: int
    retries: int | None
    schedules: int
    queues: int
    queue_parallelism: int
    parallelism: int


FREE: Final = Plan(
    daily_messages=1000,
    message_bytes=1 << 20,
    delay_seconds=7 * DAY,
    response_seconds=15 * 60,
    retries=5,
    schedules=10,
    queues=10,
    queue_parallelism=2,
    parallelism=10,
)
PAYG: Final = Plan(
    daily_messages=None,
    message_bytes=10 << 20,
    delay_seconds=365 * DAY,
    response_seconds=2 * 3600,
    retries=None,
    schedules=1000,
    queues=100,
    queue_parallelism=100,
    parallelism=100,
)
PLANS: Final = {"free": FREE, "payg": PAYG}
