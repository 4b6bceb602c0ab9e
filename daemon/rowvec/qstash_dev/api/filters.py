"""Which messages, dead letters or events are meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from rowvec.qstash_dev.messages import Message
from rowvec.qstash_dev.options import read_number
from rowvec.qstash_dev.refusals import RefusalError

PAGING: Final = frozenset({"cursor", "count", "qstash_token"})
DATES: Final = frozenset({"fromDate", "toDate"})
COMMON: Final = frozenset(
    {"messageId", "messageIds", "url", "topicName", "queueName", "scheduleId", "label", "flowControlKey", "callerIp"}
)
CANCEL: Final = COMMON | {"callerIP", "host", "path"}
EVENTS: Final = COMMON | {"state", "host", "path"}
DEAD_LETTERS: Final = COMMON | {"responseStatus", "dlqIds"}

_SAME: Final = {"messageIds": "messageId", "callerIP": "callerIp"}
_WHOLE: Final = frozenset({"url", "path"})
_STATES: Final = {"IN_PROGRESS": {"ACTIVE", "RETRY", "ERROR"}, "CANCELLED": {"CANCELED"}}


@dataclass(frozen=True, slots=True)
class Filter:
    """One of the values in every field.

    Attributes:
        wanted: values by field.
        start: unix milliseconds, inclusive.
        end: unix milliseconds, inclusive.
    """

    wanted: Mapping[str, frozenset[str]]
    start: int
    end: int

    def takes(self, facts: Mapping[str, frozenset[str]], at: int) -> bool:
        """Return whether something is meant, by what it is and its time in unix milliseconds."""
        return self.start <= at <= self.end and all(
            values & facts.get(field, frozenset()) for field, values in self.wanted.items()
        )


def read_filter(parameters: Iterable[tuple[str, str]], allowed: frozenset[str]) -> Filter:
    """Return the filter of a query; a field may be there several times, or name several values.

    Raises:
        RefusalError: 400, there is no such field here.
    """
    wanted: dict[str, set[str]] = {}
    dates = {"fromDate": 0, "toDate": 1 << 62}
    for name, value in parameters:
        if name in DATES:
            dates[name] = read_number(name, value)
        elif name in allowed:
            wanted.setdefault(_SAME.get(name, name), set()).update(_values(name, value))
        elif name not in PAGING:
            raise RefusalError(400, f"unknown filter: {name}")
    return Filter({name: frozenset(values) for name, values in wanted.items()}, dates["fromDate"], dates["toDate"])


def facts_of(message: Message) -> dict[str, frozenset[str]]:
    """Return by which fields and values a message is found."""
    parts, flow = urlsplit(message.url), message.options.flow
    one = {
        "messageId": message.id,
        "url": message.url,
        "topicName": message.group,
        "queueName": message.queue,
        "scheduleId": message.schedule_id,
        "flowControlKey": flow and flow.key,
        "callerIp": message.caller_ip,
        "host": parts.netloc,
        "path": parts.path,
    }
    found = {name: frozenset({value}) for name, value in one.items() if value}
    return {**found, "label": frozenset(message.options.labels)}


def page_size(value: str | None, most: int) -> int:
    """Return how many are asked for.

    Raises:
        RefusalError: 400, it is no number, or none at all.
    """
    if value is None:
        return most
    count = read_number("count", value)
    if count < 1:
        raise RefusalError(400, "invalid count: at least 1")
    return min(count, most)


def _values(name: str, value: str) -> set[str]:
    if name in _WHOLE:
        return {value}
    return {other for one in value.split(",") for other in _STATES.get(one, {one})}
