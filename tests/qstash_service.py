"""A server in the place of QStash that notes what it is asked and answers what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Service:
    """What is asked and answered.

    Attributes:
        url: where it is.
        asked: method, path with its query and body of every request.
        tokens: the authorizations that were shown.
        status: of every answer.
        body: of every answer, as JSON unless it is a text or bytes.
        paged: dead letters, of which every answer is a page, in the place of `body`.
        headers: of every answer.
        hangs: while set, requests are not answered.
        answer: makes the answer of a request's body, in the place of `body`.
    """

    url: str = ""
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False
    paged: list[Any] = field(default_factory=list)
    answer: Callable[[Any], Any] | None = None

    async def handle(self, request: web.Request) -> web.Response:
        text = await request.text()
        asked = json.loads(text) if text.startswith(("{", "[")) else text
        self.asked.append((request.method, request.path_qs, asked))
        self.tokens.add(request.headers.get("Authorization"))
        if self.hangs:
            await asyncio.Event().wait()
        body = self.answer(asked) if self.answer and self.status == 200 else self.body
        if self.paged:
            body = self._page(int(request.query.get("cursor", "0")), int(request.query["count"]))
        content = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        return web.Response(status=self.status, body=content, headers=self.headers)

    def _page(self, start: int, count: int) -> dict[str, Any]:
        end = start + count
        return {"messages": self.paged[start:end], **({"cursor": str(end)} if end < len(self.paged) else {})}


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Service]:
    """Run a service on a free port."""
    service = Service()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        yield service
    finally:
        await runner.cleanup()
