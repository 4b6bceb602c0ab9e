"""Queues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from rowvec.qstash_dev.api.answers import answer, empty, read_object
from rowvec.qstash_dev.carry import Carrier
from rowvec.qstash_dev.intake import Intake
from rowvec.qstash_dev.lines import Line
from rowvec.qstash_dev.plans import Plan
from rowvec.qstash_dev.refusals import RefusalError, quota
from rowvec.qstash_dev.wire import milliseconds


@dataclass(frozen=True, slots=True)
class Queues:
    """The calls about queues."""

    carrier: Carrier
    intake: Intake
    plan: Plan

    def routes(self) -> list[web.RouteDef]:
        """Return the calls by their paths."""
        upserts = [
            web.route(method, path, self.upsert) for method in ("POST", "PUT") for path in ("/v2/queues", "/v2/queues/")
        ]
        return [
            *upserts,
            web.get("/v2/queues", self.all),
            web.get("/v2/queues/{name}", self.get),
            web.delete("/v2/queues/{name}", self.delete),
            web.post("/v2/queues/{name}/pause", self.pause),
            web.post("/v2/queues/{name}/resume", self.resume),
        ]

    async def upsert(self, request: web.Request) -> web.Response:
        """Make a queue, or change one; what is not given stays."""
        body = await read_object(request)
        name, parallelism, paused = body.get("queueName"), body.get("parallelism"), body.get("paused")
        if not isinstance(name, str) or not (paused is None or isinstance(paused, bool)):
            raise RefusalError(400, "expected queueName, parallelism and paused")
        self._check(name, parallelism)
        self.carrier.line(name).change(parallelism, paused=paused)
        return empty()

    async def all(self, _: web.Request) -> web.Response:
        """Show all queues."""
        return answer([_show(line) for line in self.carrier.lines.values()])

    async def get(self, request: web.Request) -> web.Response:
        """Show a queue."""
        return answer(_show(self._find(request)))

    async def delete(self, request: web.Request) -> web.Response:
        """Remove a queue with all that stand in line; nothing if there is none."""
        self.carrier.drop_line(request.match_info["name"])
        return empty()

    async def pause(self, request: web.Request) -> web.Response:
        """Begin no other message of a queue."""
        self._find(request).change(paused=True)
        return empty()

    async def resume(self, request: web.Request) -> web.Response:
        """Go on with a queue."""
        self._find(request).change(paused=False)
        return empty()

    def _check(self, name: str, parallelism: object) -> None:
        # A bool is an int to Python, and to nobody else.
        if parallelism is not None and (type(parallelism) is not int or parallelism < 1):
            raise RefusalError(400, "parallelism must be at least 1")
        if parallelism is not None and parallelism > self.plan.queue_parallelism:
            raise quota("maxParallelism", self.plan.queue_parallelism)
        self.intake.check_queue(name)

    def _find(self, request: web.Request) -> Line:
        name = request.match_info["name"]
        if name not in self.carrier.lines:
            raise RefusalError(404, f"queue {name} not found")
        return self.carrier.lines[name]


def _show(line: Line) -> dict[str, Any]:
    return {
        "name": line.name,
        "createdAt": milliseconds(line.created_at),
        "updatedAt": milliseconds(line.updated_at),
        "parallelism": line.parallelism,
        "paused": line.paused,
        "lag": line.lag,
    }
