"""What the real service does not have: faults, counts and the clock, for tests in other processes."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web

from rowvec.qstash_dev.api.answers import answer, read_object
from rowvec.qstash_dev.faults import read_faults
from rowvec.qstash_dev.messages import Delivery
from rowvec.qstash_dev.refusals import RefusalError
from rowvec.qstash_dev.world import World


@dataclass(frozen=True, slots=True)
class Control:
    """The calls about the local QStash itself. They need no token."""

    world: World

    def routes(self) -> list[web.RouteDef]:
        """Return the calls by their paths."""
        return [
            web.get("/faults", self.faults),
            web.put("/faults", self.set_faults),
            web.get("/counts", self.counts),
            web.get("/deliveries", self.deliveries),
            web.post("/clock", self.advance),
        ]

    async def faults(self, _: web.Request) -> web.Response:
        """Show the faults that are on."""
        return answer(asdict(self.world.mishaps.faults))

    async def set_faults(self, request: web.Request) -> web.Response:
        """Switch to these faults; what is not named goes off."""
        try:
            self.world.mishaps.faults = read_faults(await read_object(request))
        except (TypeError, ValueError) as error:
            raise RefusalError(400, str(error)) from error
        return await self.faults(request)

    async def counts(self, _: web.Request) -> web.Response:
        """Show counts of everything, and the messages of today."""
        return answer({**self.world.record.counts, "today": self.world.usage.today})

    async def deliveries(self, _: web.Request) -> web.Response:
        """Show the attempts that were made, in the order of their ends."""
        return answer([_show(delivery) for delivery in self.world.record.deliveries])

    async def advance(self, request: web.Request) -> web.Response:
        """Let time pass: `{"advance": seconds}`."""
        seconds = (await read_object(request)).get("advance", 0)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
            raise RefusalError(400, "expected advance, in seconds")
        self.world.clock.advance(seconds)
        return answer({"now": self.world.clock.now()})


def _show(delivery: Delivery) -> dict[str, Any]:
    return {
        "messageId": delivery.message_id,
        "url": delivery.url,
        "method": delivery.method,
        "headers": delivery.headers,
        "body": base64.b64encode(delivery.body).decode(),
        "retried": delivery.retried,
        "queueName": delivery.queue,
        "at": delivery.at,
        "status": delivery.answer.status,
        "error": delivery.answer.error,
    }
