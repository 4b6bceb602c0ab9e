"""When a failed delivery is tried again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from rowvec.qstash_dev.durations import parse_reset
from rowvec.qstash_dev.expressions import evaluate

DAY_SECONDS: Final = 86400.0
NOT_RETRYABLE: Final = 489

_RESETS: Final = ("retry-after", "x-ratelimit-reset", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens")


def is_final(status: int | None, headers: Mapping[str, str]) -> bool:
    """Return whether trying again is of no use: the receiver says so by the status and a header (in small letters)."""
    return status == NOT_RETRYABLE and headers.get("upstash-nonretryable-error", "").lower() == "true"


def retry_delay(retried: int, expression: str | None, headers: Mapping[str, str], wall: float) -> float:
    """Return after how many seconds a delivery is tried again.

    Args:
        retried: how many retries there were already.
        expression: `Upstash-Retry-Delay`, if one was given.
        headers: of the receiver's answer, which may say when to come again; names in small letters.
        wall: the machine's time, in unix seconds.
    """
    asked = [parse_reset(headers[name], wall) for name in _RESETS if name in headers]
    for seconds in asked:
        if seconds is not None and seconds <= DAY_SECONDS:
            return seconds
    if expression is not None:
        try:
            return evaluate(expression, retried) / 1000
        except ValueError:
            """It was right for the first retry, and is too much for this one: as if none had been given."""
    return backoff(retried)


def backoff(retried: int) -> float:
    """Return the delay without any wishes: 12 s, 2 min 28 s, 30 min, 6 h, then a day."""
    exponent = 2.5 * (retried + 1)
    return DAY_SECONDS if exponent > math.log(DAY_SECONDS) else math.exp(exponent)
