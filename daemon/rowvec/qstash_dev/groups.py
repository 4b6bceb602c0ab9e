"""URL groups: one name for several destinations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rowvec.qstash_dev.clock import Clock
from rowvec.qstash_dev.options import Given
from rowvec.qstash_dev.refusals import RefusalError
from rowvec.qstash_dev.wire import milliseconds


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A destination of a group; its name may be empty."""

    url: str
    name: str = ""


@dataclass(slots=True)
class Group:
    """A URL group.

    Attributes:
        name: of the group.
        created_at: unix seconds.
        updated_at: unix seconds.
        endpoints: where a message to it goes.
        headers: options of all messages to it, where they do not give their own.
    """

    name: str
    created_at: float
    updated_at: float
    endpoints: list[Endpoint] = field(default_factory=list)
    headers: Given = field(default_factory=dict)

    def show(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "name": self.name,
            "createdAt": milliseconds(self.created_at),
            "updatedAt": milliseconds(self.updated_at),
            "endpoints": [
                {"url": endpoint.url, **({"name": endpoint.name} if endpoint.name else {})}
                for endpoint in self.endpoints
            ],
        }


class Groups:
    """All groups by name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._groups: dict[str, Group] = {}

    def all(self) -> list[Group]:
        """Return all, in the order in which they were made."""
        return list(self._groups.values())

    def find(self, name: str) -> Group | None:
        """Return a group if there is one of that name."""
        return self._groups.get(name)

    def get(self, name: str) -> Group:
        """Return a group.

        Raises:
            RefusalError: 404, there is none.
        """
        if name not in self._groups:
            raise RefusalError(404, f"topic {name} not found")
        return self._groups[name]

    def add(self, name: str, endpoints: Sequence[Endpoint]) -> None:
        """Add endpoints, or rename those whose destinations are there; makes the group if there is none."""
        group = self._touch(name)
        added = {endpoint.url for endpoint in endpoints}
        group.endpoints = [old for old in group.endpoints if old.url not in added] + list(endpoints)

    def remove(self, name: str, urls: set[str], names: set[str]) -> None:
        """Remove endpoints by destination or name; a group without any goes too.

        Raises:
            RefusalError: 404, there is no such group.
        """
        group = self.get(name)
        group.updated_at = self._clock.now()
        group.endpoints = [old for old in group.endpoints if old.url not in urls and old.name not in names]
        if not group.endpoints:
            self.delete(name)

    def set_headers(self, name: str, headers: Given) -> None:
        """Set the options of all messages to a group."""
        self._touch(name).headers = headers

    def delete(self, name: str) -> None:
        """Remove a group; without a word if there is none."""
        self._groups.pop(name, None)

    def _touch(self, name: str) -> Group:
        now = self._clock.now()
        group = self._groups.setdefault(name, Group(name, now, now))
        group.updated_at = now
        return group
