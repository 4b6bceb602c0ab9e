"""Stand-ins for embedding servers, in the process of the test, that behave as the protocol says."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

from rowvec.models.deterministic import deterministic_embedding
from rowvec.ports import Embedding

API_KEY = "stand-in-key"


@dataclass(frozen=True)
class Request:
    """What was asked.

    Attributes:
        path: of the address.
        texts: what was to be embedded.
        task: passage, query or nothing.
        headers: with their names in small letters.
    """

    path: str
    texts: list[str]
    task: str
    headers: dict[str, str]


def query_embedding(text: str, dimensions: int) -> Embedding:
    """Return what a search has for a vector; a row has `deterministic_embedding`."""
    return deterministic_embedding(f"query: {text}", dimensions)


class SentenceTransformersServer:
    """A service of one sentence-transformers model: `/healthz`, `/embed` and `/embed/batch`.

    Args:
        dimensions: the length of its vectors.
        api_key: what it asks for; a service that has none serves nobody.
        max_texts: the most of a batch.

    Attributes:
        requests: those it has understood, in order.
        instead: is called, while it is set, in the place of all that the protocol says.
    """

    def __init__(self, dimensions: int, api_key: str = API_KEY, max_texts: int = 32) -> None:
        self.requests: list[Request] = []
        self.instead: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self._dimensions = dimensions
        self._api_key = api_key
        self._max_texts = max_texts
        self._port = 0
        self._site: web.TCPSite | None = None
        app = web.Application(middlewares=[self._guard], client_max_size=16 * 1024**2)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_post("/embed", self._embed)
        app.router.add_post("/embed/batch", self._embed_batch)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        await self._runner.setup()
        await self.listen()
        try:
            yield self
        finally:
            await self._runner.cleanup()

    async def listen(self) -> None:
        """Listen where it did before: its clients know no other address."""
        if self._site is None:
            self._site = web.TCPSite(self._runner, "127.0.0.1", self._port)
            await self._site.start()
            self._port = self._runner.addresses[0][1]

    async def refuse_connections(self) -> None:
        if self._site is not None:
            await self._site.stop()
            self._site = None

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        return await self.handle(request, handler)

    async def handle(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Answer a request; the handler is that of its path."""
        if self.instead is not None:
            return await self.instead(request)
        if request.path != "/healthz":
            if not self._api_key:
                return told(503, "API key not configured")
            if not hmac.compare_digest(request.headers.get("Authorization", ""), f"Bearer {self._api_key}"):
                return told(401, "Invalid or missing API key")
        return await handler(request)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "model": "stand-in", "dim": self._dimensions})

    async def _embed(self, request: web.Request) -> web.Response:
        body = await request.json()
        if refused := self._note(request, body, "input", [body.get("input")]):
            return refused
        vector = self._vectors(self.requests[-1])[0]
        return web.json_response({"embedding": vector, "dim": self._dimensions})

    async def _embed_batch(self, request: web.Request) -> web.Response:
        body = await request.json()
        if refused := self._note(request, body, "inputs", body.get("inputs")):
            return refused
        vectors = self._vectors(self.requests[-1])
        return web.json_response({"embeddings": vectors, "count": len(vectors), "dim": self._dimensions})

    def _note(self, request: web.Request, body: dict[str, Any], place: str, texts: Any) -> web.Response | None:  # noqa: ANN401 - whatever was sent
        """Keep a request; return what it is refused with."""
        task = body.get("task", "")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return invalid(place, "Input should be a valid string", texts)
        if task not in {"", "passage", "query"}:
            return invalid("task", "Input should be 'query' or 'passage'", task)
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Request(request.path, texts, task, headers))
        if len(texts) > self._max_texts:
            return told(413, f"Batch too large: {len(texts)} > {self._max_texts}")
        if any(not text.strip() for text in texts):
            return invalid(place, "Input should not be blank", texts)
        return None

    def _vectors(self, request: Request) -> list[list[float]]:
        embed = query_embedding if request.task == "query" else deterministic_embedding
        return [list(embed(text, self._dimensions)) for text in request.texts]


def told(status: int, detail: str) -> web.Response:
    """Return an error as these services word it."""
    return web.json_response({"detail": detail}, status=status)


def invalid(place: str, message: str, given: object) -> web.Response:
    """Return a refusal as FastAPI makes it: with what was sent."""
    problem = {"type": "value_error", "loc": ["body", place], "msg": message, "input": given}
    return web.json_response({"detail": [problem]}, status=422)


async def cut_off(request: web.Request) -> web.StreamResponse:
    """Begin an answer and cut the connection in the middle of it."""
    answer = web.StreamResponse(headers={"Content-Length": "1000"})
    await answer.prepare(request)
    await answer.write(b'{"embeddings": [[')
    if request.transport is not None:
        request.transport.abort()
    return answer
