"""Who may come in, and what goes wrong at the door."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from aiohttp import web

from rowvec.qstash_dev.api.answers import TOKEN_PARAMETER, answer
from rowvec.qstash_dev.faults import Trouble
from rowvec.qstash_dev.refusals import RefusalError, burst
from rowvec.qstash_dev.world import World

API: Final = "/v2/"
PUBLISHING: Final = ("/v2/publish/", "/v2/enqueue/", "/v2/batch")
BURST_LIMIT: Final = 100

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Door:
    """Stands before all calls.

    Args:
        token: that calls of the API bear, in a header or as a parameter.
        world: the circumstances.
        closing: is set to let go who hangs.
    """

    token: str
    world: World
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    @web.middleware
    async def pass_through(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a call, in JSON whatever happens."""
        try:
            return await self._receive(request, handler)
        except RefusalError as refusal:
            self.world.record.count("refused")
            return answer({"error": str(refusal)}, refusal.status, refusal.headers)
        except web.HTTPException as error:
            return answer({"error": error.reason}, error.status)

    async def _receive(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith(API):
            return await handler(request)
        faults = self.world.mishaps.faults
        trouble = faults.publish if request.path.startswith(PUBLISHING) else faults.manage
        if trouble != "none":
            self.world.record.count(str(trouble))
        if not isinstance(trouble, str):
            raise RefusalError(trouble, f"the fault {trouble} is on")
        await self._meet(trouble)
        if trouble in {"refuse", "hang"}:
            return _cut_off(request, web.Response())
        self._check_token(request)
        done = await handler(request)
        return _cut_off(request, done) if trouble == "cut" else done

    async def _meet(self, trouble: Trouble) -> None:
        match trouble:
            case "hang":
                await self.closing.wait()
            case "burst":
                raise burst(BURST_LIMIT, self.world.clock.wall() + 1)
            case "daily":
                raise self.world.usage.spent()

    def _check_token(self, request: web.Request) -> None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ") or request.query.get(TOKEN_PARAMETER)
        if not hmac.compare_digest((given or "").encode("utf-8", "surrogateescape"), self.token.encode()):
            raise RefusalError(401, "unauthorized: invalid token")


def _cut_off(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Close the connection; the response is for nobody."""
    if request.transport is not None:
        request.transport.abort()
    return response
