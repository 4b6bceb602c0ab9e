"""The log, by both of its names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from aiohttp import web

from rowvec.qstash_dev.api.answers import answer
from rowvec.qstash_dev.api.filters import EVENTS, Filter, facts_of, page_size, read_filter
from rowvec.qstash_dev.messages import Event
from rowvec.qstash_dev.options import read_number
from rowvec.qstash_dev.record import Record
from rowvec.qstash_dev.wire import milliseconds, show_event

PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Events:
    """The calls about the log."""

    record: Record

    def routes(self) -> list[web.RouteDef]:
        """Return the calls by their paths: the documents have one, the SDKs the other."""
        return [web.get("/v2/logs", self.logs), web.get("/v2/events", self.events)]

    async def logs(self, request: web.Request) -> web.Response:
        """Show a page of the log, the newest first, as `logs`."""
        return self._page(request, "logs")

    async def events(self, request: web.Request) -> web.Response:
        """Show a page of the log, the newest first, as `events`."""
        return self._page(request, "events")

    def _page(self, request: web.Request, name: str) -> web.Response:
        wanted = read_filter(request.query.items(), EVENTS)
        size = page_size(request.query.get("count"), PAGE)
        cursor = request.query.get("cursor")
        start = self.record.noted if cursor is None else read_number("cursor", cursor)
        found = list(islice(self._newest(wanted, start), size + 1))
        shown = {name: [show_event(event) for _, event in found[:size]]}
        return answer({**shown, **({"cursor": str(found[size][0])} if len(found) > size else {})})

    def _newest(self, wanted: Filter, start: int) -> Iterator[tuple[int, Event]]:
        """Yield the events of a filter with their numbers, from a number downwards."""
        latest = self.record.noted
        for back, event in enumerate(reversed(self.record.events)):
            facts = {**facts_of(event.message), "state": frozenset({event.step.value})}
            if latest - back <= start and wanted.takes(facts, milliseconds(event.at)):
                yield latest - back, event
