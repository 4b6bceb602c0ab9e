"""What a model server means when it says no: whether a text is at fault, which one is too long, when to come again."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from rowvec.domain.errors import ModelMisbehavedError, RowvecError, TextRejectedError

BREAKDOWNS: Final = {HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.FAILED_DEPENDENCY}
"""500 is broken at the text or altogether, 424 is what text-embeddings-inference says of its backend."""
REFUSALS: Final = BREAKDOWNS | {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}
"""The statuses that speak of what is in the request, not of the server or its address."""
TOO_LONG: Final = (
    # OpenAI and vLLM, which put it in several ways
    r"maximum context length is (?P<limit>\d+) tokens.*?\b(?:requested|has|contains) (?:at least )?(?P<given>\d+)",
    r"maximum (?:context|input) length is (?P<limit>\d+) tokens",
    # text-embeddings-inference
    r"must have less than (?P<limit>\d+) tokens\. Given: (?P<given>\d+)",
    # llama.cpp, the later versions with figures
    r"input \((?P<given>\d+) tokens\) is too large to process.*?batch size: (?P<limit>\d+)",
    r"input is too large to process",
    r"request \((?P<given>\d+) tokens\) exceeds the available context size \((?P<limit>\d+) tokens\)",
    # Ollama
    r"input (?:length )?exceeds (?:the |maximum )*context length",
)
_TOO_LONG: Final = [re.compile(form, re.IGNORECASE) for form in TOO_LONG]
CURE: Final = "Watch its source with chunking, or with shorter chunks."


def refused(status: int, words: str) -> RowvecError:
    """Return the error of a text that was answered with one of `REFUSALS`.

    Args:
        status: the answer's.
        words: what the server says about it.
    """
    if (detail := _too_long(words)) is not None:
        # Also with 500, as llama.cpp has it: it is so for good.
        return TextRejectedError("The text is too long for the model.", detail)
    if status in BREAKDOWNS:
        # Not for good: it may have been broken for the moment only.
        return ModelMisbehavedError(f"The model server fails at the text ({status}).", words)
    return TextRejectedError(f"The model server refuses the text ({status}).", words)


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """Return how long an answer asks to be let alone; None when it does not, or in no form that is known.

    `retry-after-ms` is OpenAI's; `Retry-After` has seconds or a date (RFC 9110, section 10.2.3).

    Args:
        headers: the answer's, whose names are found in any case.
        now: the time, in seconds since 1970.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            seconds = float(headers[name]) / unit
            if math.isfinite(seconds) and seconds >= 0:
                return seconds
    with suppress(KeyError, ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - now)
    return None


def _too_long(words: str) -> str | None:
    """Return what to tell of a text that is too long, with the figures that the server gives; None when it is not."""
    found = next((match for form in _TOO_LONG if (match := form.search(words))), None)
    if found is None:
        return None
    figures = found.groupdict()
    if "given" in figures:
        return f"It has {figures['given']} tokens, the model takes {figures['limit']}. {CURE}"
    if "limit" in figures:
        return f"The model takes {figures['limit']} tokens. {CURE}"
    return f"{words} {CURE}"
