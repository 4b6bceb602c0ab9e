"""A server of one model, in the process of the test: it answers, dawdles, fails, hangs up or is not there at all."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from enum import Enum

from aiohttp import web

from rowvec.models.deterministic import deterministic_embedding


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


class ModelServer:
    """A model behind HTTP on the loopback.

    Args:
        dimensions: the length of its vectors.
        chance: the dice for its answers.

    Attributes:
        mood: how it behaves; set by `behave`.
        texts: how many texts it has answered.
    """

    def __init__(self, dimensions: int, chance: random.Random) -> None:
        self.mood = Mood.FINE
        self.texts = 0
        self._dimensions = dimensions
        self._chance = chance
        self._port = 0
        self._site: web.TCPSite | None = None
        self._runner = web.AppRunner(web.Application(), access_log=None, shutdown_timeout=0)
        self._runner.app.router.add_post("/", self._answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[ModelServer]:
        await self._runner.setup()
        await self._listen()
        try:
            yield self
        finally:
            await self._runner.cleanup()

    async def behave(self, mood: Mood) -> None:
        self.mood = mood
        if mood is Mood.DOWN and self._site is not None:
            await self._site.stop()
            self._site = None
        elif mood is not Mood.DOWN and self._site is None:
            await self._listen()

    async def _listen(self) -> None:
        """Listen where it did before: the daemons know no other address."""
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        texts = (await request.json())["texts"]
        await asyncio.sleep(self._chance.uniform(1.0, 3.0) if self.mood is Mood.SLOW else self._chance.uniform(0, 0.2))
        match self.mood:
            case Mood.BROKEN:
                return web.Response(status=self._chance.choice([500, 503]))
            case Mood.CUTTING | Mood.DOWN:
                return await self._hang_up(request)
        self.texts += len(texts)
        return web.json_response({"vectors": [list(deterministic_embedding(text, self._dimensions)) for text in texts]})

    async def _hang_up(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "1000"})
        await answer.prepare(request)
        await answer.write(b'{"vectors": [[')
        if request.transport is not None:
            request.transport.abort()
        return answer
