"""Schedules."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from rowvec.qstash_dev.api.answers import answer, caller_ip, destination, empty, given_options
from rowvec.qstash_dev.intake import Letter
from rowvec.qstash_dev.schedules import Timetable


@dataclass(frozen=True, slots=True)
class Schedules:
    """The calls about schedules."""

    timetable: Timetable

    def routes(self) -> list[web.RouteDef]:
        """Return the calls by their paths; pauses come by POST in the documents, by PATCH from the SDKs."""
        pauses = [
            web.route(method, f"/v2/schedules/{{id}}/{verb}", handler)
            for method in ("POST", "PATCH")
            for verb, handler in (("pause", self.pause), ("resume", self.resume))
        ]
        return [
            *pauses,
            web.get("/v2/schedules", self.all),
            web.get("/v2/schedules/{id}", self.get),
            web.delete("/v2/schedules/{id}", self.delete),
            web.post("/v2/schedules/{destination:.+}", self.set),
        ]

    async def set(self, request: web.Request) -> web.Response:
        """Make a schedule, or put another in its place."""
        place, body = destination(request, 2), await request.read()
        schedule = self.timetable.set(Letter(place, given_options(request), body, caller_ip(request)))
        return answer({"scheduleId": schedule.id})

    async def all(self, _: web.Request) -> web.Response:
        """Show all schedules."""
        return answer([schedule.show() for schedule in self.timetable.all()])

    async def get(self, request: web.Request) -> web.Response:
        """Show a schedule."""
        return answer(self.timetable.get(request.match_info["id"]).show())

    async def delete(self, request: web.Request) -> web.Response:
        """Remove a schedule; nothing if there is none."""
        self.timetable.delete(request.match_info["id"])
        return empty()

    async def pause(self, request: web.Request) -> web.Response:
        """Leave its ticks out."""
        self.timetable.get(request.match_info["id"]).paused = True
        return empty()

    async def resume(self, request: web.Request) -> web.Response:
        """Publish at its next tick again."""
        self.timetable.get(request.match_info["id"]).paused = False
        return empty()
