"""Signing keys."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from rowvec.qstash_dev.api.answers import answer
from rowvec.qstash_dev.signing import Keys


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The calls about signing keys."""

    keys: Keys

    def routes(self) -> list[web.RouteDef]:
        """Return the calls by their paths."""
        return [web.get("/v2/keys", self.get), web.post("/v2/keys/rotate", self.rotate)]

    async def get(self, _: web.Request) -> web.Response:
        """Show both keys."""
        return answer({"current": self.keys.current, "next": self.keys.next})

    async def rotate(self, request: web.Request) -> web.Response:
        """Sign with the next key from now on."""
        self.keys.rotate()
        return await self.get(request)
