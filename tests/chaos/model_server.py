"""A server of one model, in the process of the test: it answers, dawdles, fails, hangs up or is not there at all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from enum import Enum

from aiohttp import web

from embedding_servers import SentenceTransformersServer, cut_off


class Mood(Enum):
    """How a model server behaves."""

    FINE = "fine"
    SLOW = "slow"
    """Every answer takes seconds."""
    BROKEN = "broken"
    """Every request is answered with 500 or 503."""
    CUTTING = "cutting"
    """Connections are cut in the middle of the answer."""
    DOWN = "down"
    """Connections are refused."""


class ModelServer(SentenceTransformersServer):
    """A model behind HTTP on the loopback.

    Args:
        dimensions: the length of its vectors.
        chance: the dice for its answers.

    Attributes:
        mood: how it behaves; set by `behave`.
    """

    def __init__(self, dimensions: int, chance: random.Random) -> None:
        super().__init__(dimensions)
        self.mood = Mood.FINE
        self._chance = chance

    async def behave(self, mood: Mood) -> None:
        self.mood = mood
        if mood is Mood.DOWN:
            await self.refuse_connections()
        else:
            await self.listen()

    async def handle(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        await asyncio.sleep(self._chance.uniform(1.0, 3.0) if self.mood is Mood.SLOW else self._chance.uniform(0, 0.2))
        match self.mood:
            case Mood.BROKEN:
                return web.Response(status=self._chance.choice([500, 503]))
            case Mood.CUTTING | Mood.DOWN:
                return await cut_off(request)
        self.requests.clear()
        return await super().handle(request, handler)
