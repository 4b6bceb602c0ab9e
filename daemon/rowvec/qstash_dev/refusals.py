"""How a call is refused."""

from __future__ import annotations

from collections.abc import Mapping


class RefusalError(Exception):
    """A call that is not done.

    Args:
        status: of the answer.
        words: the reason, as QStash has it where that is known.
        headers: more headers of the answer.
    """

    def __init__(self, status: int, words: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(words)
        self.status = status
        self.headers = dict(headers or {})


def quota(name: str, limit: int) -> RefusalError:
    """Return what is said when a plan does not allow so much."""
    return RefusalError(412, f"quota {name} exceeded, current limit: {limit}")


def burst(limit: int, reset: float) -> RefusalError:
    """Return the 429 of too many calls in a second.

    Args:
        limit: calls in a second.
        reset: when calls are answered again, in unix seconds.
    """
    headers = {"Limit": str(limit), "Remaining": "0", "Reset": str(int(reset))}
    named = {f"Burst-RateLimit-{name}": value for name, value in headers.items()}
    return RefusalError(429, "Exceeded burst rate limit.", named)


def daily(limit: int, reset: float) -> RefusalError:
    """Return the 429 of too many messages in a day.

    Args:
        limit: messages in a day.
        reset: when the next day begins, in unix seconds.
    """
    headers = {"Limit": str(limit), "Remaining": "0", "Reset": str(int(reset))}
    named = {f"RateLimit-{name}": value for name, value in headers.items()}
    return RefusalError(429, "Exceeded daily rate limit.", named)
