"""Messages on their way: seen and cancelled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from rowvec.qstash_dev.api.answers import answer, read_ids
from rowvec.qstash_dev.api.filters import CANCEL, facts_of, page_size, read_filter
from rowvec.qstash_dev.carry import Carrier
from rowvec.qstash_dev.messages import Journey
from rowvec.qstash_dev.refusals import RefusalError
from rowvec.qstash_dev.wire import milliseconds, show_message

MANY: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Messages:
    """The calls about messages."""

    carrier: Carrier

    def routes(self) -> list[web.RouteDef]:
        """Return the calls by their paths."""
        return [
            web.get("/v2/messages/{id}", self.get),
            web.delete("/v2/messages/{id}", self.cancel),
            web.delete("/v2/messages", self.cancel_many),
            web.delete("/v2/messages/", self.cancel_many),
        ]

    async def get(self, request: web.Request) -> web.Response:
        """Show a message that is on its way, or ended a moment ago."""
        return answer(show_message(self._find(request).message))

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a message, from the middle of an attempt too."""
        journey = self._find(request)
        if journey.ended_at is not None:
            raise RefusalError(404, f"message {journey.message.id} not found")
        self.carrier.cancel(journey)
        return answer({"cancelled": 1})

    async def cancel_many(self, request: web.Request) -> web.Response:
        """Cancel the messages of a filter; without one, or with an empty list of ids, all."""
        ids = await read_ids(request, "messageIds")
        parameters = [*request.query.items(), *(("messageIds", name) for name in ids)]
        most = page_size(request.query.get("count"), MANY)
        meant = self._meant(parameters)[:most]
        for journey in meant:
            self.carrier.cancel(journey)
        return answer({"cancelled": len(meant)})

    def _meant(self, parameters: Iterable[tuple[str, str]]) -> list[Journey]:
        wanted = read_filter(parameters, CANCEL)
        return [
            journey
            for journey in self.carrier.pending
            if wanted.takes(facts_of(journey.message), milliseconds(journey.message.created_at))
        ]

    def _find(self, request: web.Request) -> Journey:
        name = request.match_info["id"]
        journey = self.carrier.find(name)
        if journey is None:
            raise RefusalError(404, f"message {name} not found")
        return journey
