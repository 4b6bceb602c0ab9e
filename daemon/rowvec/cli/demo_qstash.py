"""The demo through QStash: a local one carries the work, and what it brings is told of."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import orjson
from pydantic import HttpUrl, SecretStr

from rowvec.domain.lanes import Lane
from rowvec.domain.messages import PROCESS, PROCESS_ONE
from rowvec.qstash_dev.messages import Delivery
from rowvec.qstash_dev.server import LocalQStash
from rowvec.settings import Settings

LANES: Final = frozenset({Lane.IMMEDIATE, Lane.STANDARD})
"""Bulk is not among them unless it is asked for: it would be collected for minutes."""
LONGEST_WAIT_SECONDS: Final = 10.0

Row: TypeAlias = tuple[str, str]
"""A content type and a content id."""
Figures: TypeAlias = dict[str, Any]


def without_qstash(settings: Settings) -> Settings:
    """Return the settings of a daemon that does all work itself: the QStash that is set gets no row of the demo."""
    return settings.model_copy(update={"strategy": "database"})


def through_qstash(settings: Settings, qstash: LocalQStash) -> Settings:
    """Return the settings of a daemon whose work a local QStash carries, whatever is set about another one.

    Args:
        settings: all others; the port must be one that the daemon really gets.
        qstash: in this process.
    """
    host = settings.http_host
    update: Mapping[str, object] = {
        "strategy": "qstash",
        "qstash_url": HttpUrl(qstash.url),
        "qstash_token": SecretStr(qstash.token),
        "qstash_current_signing_key": SecretStr(qstash.keys.current),
        "qstash_next_signing_key": SecretStr(qstash.keys.next),
        "site_url": HttpUrl(f"http://{f'[{host}]' if ':' in host else host}:{settings.http_port}"),
        "development": True,
    }
    lanes = {} if "qstash_lanes" in settings.model_fields_set else {"qstash_lanes": LANES}
    return settings.model_copy(update={**update, **lanes})


@dataclass(frozen=True, slots=True)
class Carried:
    """What a local QStash has brought.

    Args:
        qstash: it.
        lanes: those whose work it carries.
    """

    qstash: LocalQStash
    lanes: Collection[Lane]

    @property
    def mark(self) -> int:
        """How many messages of rows have come; `since` tells of later ones."""
        return len(self._later(0))

    async def since(self, mark: int, rows: Collection[Row]) -> Sequence[Figures]:
        """Wait until messages have named these rows, and return those that have come since the mark.

        Rows whose work was done without a message, because none could be sent, are waited for in vain for ten seconds.
        """
        await self._wait(lambda: _rows(self._later(mark)) >= set(rows))
        return [_told(delivery) for delivery in self._later(mark)]

    async def total(self) -> Figures:
        """Wait until nothing is on its way; return what was sent and delivered, and what the answers said."""
        counts = self.qstash.counts
        await self._wait(lambda: counts["delivered"] >= counts["published"])
        states = Counter(row["state"] for delivery in self._later(0) for row in _told(delivery)["rows"])
        return {"sent": counts["published"], "delivered": counts["delivered"], "rows": dict(states)}

    async def _wait(self, holds: Callable[[], bool]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                await self.qstash.until(holds)

    def _later(self, mark: int) -> Sequence[Delivery]:
        """Return the deliveries that name rows, ticks of schedules aside."""
        named = (one for one in self.qstash.deliveries if urlsplit(one.url).path in {PROCESS, PROCESS_ONE})
        return list(named)[mark:]


def _rows(deliveries: Sequence[Delivery]) -> set[Row]:
    return {(row["content_type"], row["content_id"]) for one in deliveries for row in _told(one)["rows"]}


def _told(delivery: Delivery) -> Figures:
    """Return a delivery as the demo tells of it."""
    answered = orjson.loads(delivery.answer.body) if delivery.answer.is_success else {}
    rows = [
        {"content_type": row["contentType"], "content_id": row["contentId"], "state": row["state"]}
        for row in answered.get("items", [])
    ]
    path = urlsplit(delivery.url).path
    return {"message": delivery.message_id, "path": path, "status": delivery.answer.status, "rows": rows}
