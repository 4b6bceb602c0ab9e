"""Times as QStash and those whom it calls write them."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import Final

_PLAIN: Final = re.compile(r"(\d+)([smhd])")
_GO: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Return the seconds of a duration as QStash takes it, `1d10h30m`.

    Raises:
        ValueError: it is none.
    """
    return _sum(_PLAIN, text)


def parse_reset(text: str, now: float) -> float | None:
    """Return in how many seconds a `Retry-After` or `X-RateLimit-Reset` lets us come again; None for no such thing.

    Args:
        text: seconds, an RFC 1123 date, or a Go duration (`6m5s`).
        now: the machine's time, in unix seconds.
    """
    text = text.strip()
    for form in (_seconds, _go_duration):
        seconds = form(text)
        if seconds is not None:
            return seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except ValueError:
        return None


def _seconds(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None


def _go_duration(text: str) -> float | None:
    try:
        return _sum(_GO, text)
    except ValueError:
        return None


def _sum(parts: re.Pattern[str], text: str) -> float:
    if not re.fullmatch(f"(?:{parts.pattern})+", text):
        raise ValueError(f"invalid duration: {text!r}")
    return sum(float(count) * _SECONDS[unit] for count, unit in parts.findall(text))
