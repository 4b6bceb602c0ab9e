"""What QStash means when it says no."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

import orjson

from rowvec.domain.errors import CarrierError, CarrierTrouble
from rowvec.qstash.answers import one_line

_FORMS: Final[Mapping[type, str]] = {str: "text", int: "number", float: "number", bool: "truth value"}
UNSAID: Final = "[...]"
TOKEN: Final = "Set QSTASH_TOKEN to a token of this account that may publish."  # noqa: S105 - a hint
ADDRESS: Final = "Is QSTASH_URL that of the region of the token?"
_UNKNOWN_USER: Final = re.compile(r"user .*not found", re.IGNORECASE)
_QUOTA: Final = re.compile(r"\bquota\b", re.IGNORECASE)


def refused(status: int, said: str) -> CarrierError:
    """Return the error of an answer that is no success, 429 aside.

    Args:
        status: the answer's.
        said: its words, as of `words`.
    """
    hint = f"{said} ".lstrip()
    configuration, quota, permanent = CarrierTrouble.CONFIGURATION, CarrierTrouble.QUOTA, CarrierTrouble.PERMANENT
    match status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return CarrierError(f"QStash refuses the token ({status}).", hint + TOKEN, configuration, status=status)
        case HTTPStatus.NOT_FOUND if _UNKNOWN_USER.search(said):
            message = f"QStash does not know the token's account here ({status})."
            return CarrierError(message, hint + ADDRESS, configuration, status=status)
        case _ if status // 100 == HTTPStatus.MULTIPLE_CHOICES // 100:
            return CarrierError(f"QStash sends us elsewhere ({status}).", ADDRESS, configuration, status=status)
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return CarrierError(f"QStash answers with an error ({status}).", said, status=status)
        case HTTPStatus.REQUEST_TIMEOUT:
            return CarrierError(f"QStash answers with an error ({status}).", said, status=status)
        case _ if status == HTTPStatus.PRECONDITION_FAILED or _QUOTA.search(said):
            return CarrierError(f"QStash's plan does not allow this ({status}).", said, quota, status=status)
        case _:
            return CarrierError(f"QStash refuses what it is asked for ({status}).", said, permanent, status=status)


def refused_in_batch(entry: object, said: str) -> CarrierError:
    """Return the error of one message of a batch.

    Args:
        entry: its part of the answer.
        said: its words, as of `words`.
    """
    status = entry.get("status") if isinstance(entry, dict) else None
    if isinstance(status, int) and status >= HTTPStatus.BAD_REQUEST:
        return refused(status, said)
    kind = CarrierTrouble.QUOTA if _QUOTA.search(said) else CarrierTrouble.PERMANENT
    return CarrierError("QStash refuses a message.", said, kind)


def too_many(reset: str | None, *, daily: bool) -> CarrierError:
    """Return the error of a 429.

    Args:
        reset: when it will be over, in seconds since 1970, as its header says it.
        daily: whether the day's messages are used up; else there were too many requests at once.
    """
    until, status = _moment(reset), HTTPStatus.TOO_MANY_REQUESTS
    over = f"It will be over at {until:%Y-%m-%d %H:%M:%S} UTC." if until else ""
    if daily:
        return CarrierError("QStash's messages of the day are used up.", over, CarrierTrouble.QUOTA, until, status)
    return CarrierError("QStash has had too many requests.", over, CarrierTrouble.PASSING, until, status)


def unreachable(error: Exception, token: str) -> CarrierError:
    """Return the error of a request that had no answer."""
    if isinstance(error, TimeoutError):
        return CarrierError("QStash does not answer in time.")
    why = words(str(error) or type(error).__name__, token)
    return CarrierError("QStash can't be reached.", f"{why} Is QSTASH_URL its address?")


def nonsense(what: str) -> CarrierError:
    """Return the error of an answer that is none to what was asked.

    Args:
        what: it is: "a list of 3".
    """
    said = what.removesuffix(".")
    return CarrierError("QStash's answer makes no sense.", f"It is {said}. Is QSTASH_URL its address?")


def shape(answer: object) -> str:
    """Say of what form an answer is, without its values: keys, bodies and headers of others may be among them."""
    if isinstance(answer, dict):
        return f"an object with {', '.join(map(repr, answer))}" if answer else "an empty object"
    if isinstance(answer, list):
        return f"a list of {len(answer)}"
    return "null" if answer is None else f"a {_FORMS[type(answer)]}"


def words(said: str, token: str) -> str:
    """Return what the service said, shortened, without the token.

    Args:
        said: the content of an answer, JSON or not.
        token: is left out.
    """
    line = one_line(_sentence(said).replace(token, UNSAID))
    return line if not line or line.endswith((".", "!", "?")) else f"{line}."


def _sentence(said: str) -> str:
    try:
        told = orjson.loads(said)
    except orjson.JSONDecodeError:
        return said
    return str(told["error"]) if isinstance(told, dict) and "error" in told else said


def _moment(reset: str | None) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(reset), UTC) if reset else None
    except (ValueError, OverflowError, OSError):
        return None
