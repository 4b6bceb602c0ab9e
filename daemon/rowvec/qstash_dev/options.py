"""What a publisher asks for in `Upstash-*` headers, or in query parameters of the same names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from rowvec.qstash_dev.durations import parse_duration
from rowvec.qstash_dev.expressions import evaluate
from rowvec.qstash_dev.refusals import RefusalError

DEFAULT_RETRIES: Final = 3
WEEK_SECONDS: Final = 7 * 86400
METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
DIGITS: Final = 18
NUMBER: Final = re.compile(f"[0-9]{{1,{DIGITS}}}")

_OWN: Final = frozenset({"host", "connection", "content-length", "transfer-encoding", "authorization"})
_CALLBACK_OPTIONS: Final = ("retries", "timeout", "method", "delay", "retry-delay")

Given: TypeAlias = Mapping[str, tuple[str, ...]]
"""What was sent: values by names in small letters."""
Headers: TypeAlias = Mapping[str, tuple[str, ...]]
"""What is forwarded: values by names as they are usually written."""


@dataclass(frozen=True, slots=True)
class FlowControl:
    """Under which key a message is counted, and what that key allows (None: any number).

    Attributes:
        key: any name.
        parallelism: attempts at a time.
        rate: attempts in a period.
        period: in seconds.
    """

    key: str
    parallelism: int | None
    rate: int | None
    period: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a message is to be delivered.

    Attributes:
        given: all of it as it was sent, to be read again with some changes.
        method: of the request.
        headers: that go along.
        retries: attempts after the first.
        retry_delay: an expression for the time between attempts.
        delay: seconds until the first attempt.
        not_before: unix seconds of the first attempt; wins over the delay.
        timeout: seconds a receiver may take.
        callback: is told of each attempt.
        callback_given: what was asked for the callback, by the names that a message has for it.
        failure_callback: is told when all is over.
        failure_callback_given: the same for it.
        deduplication_id: one message of an id in ten minutes.
        by_content: one message of a content in ten minutes.
        flow: the key it is counted under.
        labels: for filters.
        redact: what is kept out of logs: `body`, `header` (all), `header[Name]`.
        cron: of a schedule.
        schedule_id: of a schedule.
        queue: where the messages of a schedule go.
    """

    given: Given
    method: str
    headers: Headers
    retries: int
    retry_delay: str | None
    delay: float
    not_before: float | None
    timeout: float | None
    callback: str | None
    callback_given: Given
    failure_callback: str | None
    failure_callback_given: Given
    deduplication_id: str | None
    by_content: bool
    flow: FlowControl | None
    labels: tuple[str, ...]
    redact: frozenset[str]
    cron: str | None
    schedule_id: str | None
    queue: str | None


def collect(headers: Iterable[tuple[str, str]], query: Iterable[tuple[str, str]] = ()) -> Given:
    """Return what of a request is an option; a header wins over a parameter of its name."""
    sent = _by_name(headers)
    asked = {name: values for name, values in _by_name(query).items() if name.startswith("upstash-")}
    if sent.get("upstash-header-forward", ("",))[0].lower() == "true":
        others = {f"upstash-forward-{name}": sent[name] for name in sent if _is_forwarded(name)}
        return {**asked, **others, **_options_of(sent)}
    return {**asked, **_options_of(sent)}


def read_options(given: Given) -> Options:
    """Return the options that were given.

    Raises:
        RefusalError: 400, one is not what it should be.
    """
    one = {name: values[-1] for name, values in given.items()}
    return Options(
        given=given,
        method=_method(one.get("upstash-method", "POST")),
        headers=_content_type(given) | _prefixed(given, "upstash-forward-"),
        retries=_number(one, "upstash-retries", DEFAULT_RETRIES),
        retry_delay=_expression(one.get("upstash-retry-delay")),
        delay=_duration(one, "upstash-delay") or 0.0,
        not_before=_number(one, "upstash-not-before", 0) or None,
        timeout=_duration(one, "upstash-timeout"),
        callback=_callback(one, "upstash-callback"),
        callback_given=_callback_given(given, "upstash-callback-"),
        failure_callback=_callback(one, "upstash-failure-callback"),
        failure_callback_given=_callback_given(given, "upstash-failure-callback-"),
        deduplication_id=_deduplication_id(one.get("upstash-deduplication-id")),
        by_content=one.get("upstash-content-based-deduplication", "").lower() == "true",
        flow=_flow_control(one.get("upstash-flow-control-key"), one.get("upstash-flow-control-value", "")),
        labels=_list(one.get("upstash-label", "")),
        redact=frozenset(_list(one.get("upstash-redact-fields", ""))),
        cron=one.get("upstash-cron"),
        schedule_id=_named(one, "upstash-schedule-id", "schedule id"),
        queue=_named(one, "upstash-queue-name", "queue name"),
    )


def canonical(name: str) -> str:
    """Return the name of a header as it is usually written."""
    return "-".join(part.capitalize() for part in name.split("-"))


def check_name(name: str, what: str) -> str:
    """Return a name that is one.

    Raises:
        RefusalError: 400, it has other characters than letters, digits, `.`, `_` and `-`.
    """
    if not NAME.fullmatch(name):
        raise RefusalError(400, f"invalid {what}: only letters, digits, '.', '_' and '-' are allowed")
    return name


def read_number(name: str, text: str) -> int:
    """Return the number in a text.

    Raises:
        RefusalError: 400, it is none, or one of more than 18 digits.
    """
    if not NUMBER.fullmatch(text):
        raise RefusalError(400, f"invalid {name}: {text[:DIGITS]!r} is not a number")
    return int(text)


def _by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        found[name.lower()] = (*found.get(name.lower(), ()), value)
    return found


def _options_of(sent: Given) -> dict[str, tuple[str, ...]]:
    return {name: sent[name] for name in sent if name.startswith("upstash-") or name == "content-type"}


def _is_forwarded(name: str) -> bool:
    return not name.startswith("upstash-") and name not in _OWN


def _content_type(given: Given) -> dict[str, tuple[str, ...]]:
    return {"Content-Type": given["content-type"]} if "content-type" in given else {}


def _prefixed(given: Given, prefix: str) -> dict[str, tuple[str, ...]]:
    return {canonical(name.removeprefix(prefix)): given[name] for name in given if name.startswith(prefix)}


def _callback_given(given: Given, prefix: str) -> Given:
    """Return the options of a callback; whatever is none is a header of it, with `Forward-` or, as the SDK, without."""
    found = {}
    for name, values in given.items():
        rest = name.removeprefix(prefix)
        if rest == name:
            continue
        plain = rest in _CALLBACK_OPTIONS or rest.startswith("forward-")
        found[f"upstash-{rest}" if plain else f"upstash-forward-{rest}"] = values
    return found


def _method(text: str) -> str:
    if text.upper() not in METHODS:
        raise RefusalError(400, f"invalid method: {text}")
    return text.upper()


def _number(one: Mapping[str, str], name: str, default: int) -> int:
    text = one.get(name, str(default))
    return read_number(canonical(name), text)


def _duration(one: Mapping[str, str], name: str) -> float | None:
    if name not in one:
        return None
    try:
        return parse_duration(one[name])
    except ValueError as error:
        raise RefusalError(400, f"invalid {canonical(name)}: {error}") from error


def _expression(text: str | None) -> str | None:
    try:
        if text is not None:
            evaluate(text, 0)
    except ValueError as error:
        raise RefusalError(400, f"invalid Upstash-Retry-Delay: {error}") from error
    return text


def _callback(one: Mapping[str, str], name: str) -> str | None:
    url = one.get(name)
    if url is not None and not url.startswith(("http://", "https://")):
        raise RefusalError(400, f"invalid {canonical(name)}: endpoint has invalid scheme, add http:// or https://")
    return url


def _deduplication_id(text: str | None) -> str | None:
    if text is not None and ":" in text:
        raise RefusalError(400, "DeduplicationId cannot contain ':'")
    return text or None


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _named(one: Mapping[str, str], name: str, what: str) -> str | None:
    return check_name(one[name], what) if name in one else None


def _flow_control(key: str | None, text: str) -> FlowControl | None:
    if key is None:
        return None
    try:
        return _read_flow_control(key, dict(_pair(part) for part in _list(text)))
    except ValueError as error:
        raise RefusalError(400, f"invalid Upstash-Flow-Control-Value: {error}") from error


def _pair(part: str) -> tuple[str, str]:
    name, separator, value = part.partition("=")
    if not separator:
        raise ValueError(f"{part!r} has no '='")
    return name.strip().lower(), value.strip()


def _read_flow_control(key: str, parts: dict[str, Any]) -> FlowControl:
    if unknown := set(parts) - {"parallelism", "rate", "period"}:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")
    parallelism, rate = _positive(parts.get("parallelism")), _positive(parts.get("rate"))
    if parallelism is None and rate is None:
        raise ValueError("neither parallelism nor rate")
    period = parse_duration(parts["period"]) if "period" in parts else 1.0
    if not 0 < period <= WEEK_SECONDS:
        raise ValueError("the period is between a second and a week")
    return FlowControl(key, parallelism, rate, period)


def _positive(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{text!r} is not a number of 1 and more")
    return int(text)
