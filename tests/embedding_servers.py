"""Stand-ins for embedding servers, in the process of the test, that behave as their protocols say."""

from __future__ import annotations

import base64
import contextlib
import hmac
from abc import ABC, abstractmethod
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from aiohttp import web

from rowvec.models.deterministic import deterministic_embedding
from rowvec.ports import Embedding

API_KEY = "stand-in-key"
REMOTE_NAME = "stand-in/model"
MAX_TOKENS = 512
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Vectors = list[Any]


@dataclass(frozen=True)
class Request:
    """What was asked.

    Attributes:
        path: of the address.
        texts: what was to be embedded.
        task: passage, query or nothing.
        headers: with their names in small letters.
        body: all that was sent.
    """

    path: str
    texts: list[str]
    task: str
    headers: dict[str, str]
    body: dict[str, Any]


def query_embedding(text: str, dimensions: int) -> Embedding:
    """Return what a search has for a vector; a row has `deterministic_embedding`."""
    return deterministic_embedding(f"query: {text}", dimensions)


def tokens(text: str) -> int:
    """Return how long a text is for these models: its words."""
    return len(text.split())


class EmbeddingServer(ABC):
    """A server of one model.

    Args:
        dimensions: the length of its vectors.
        api_key: what it asks for.
        max_texts: the most of a batch.

    Attributes:
        requests: those it has understood, in order.
        looks: the paths of the pages about itself that it was asked for, in order.
        instead: is called, while it is set, in the place of all that the protocol says.
        spoil: is called, while it is set, with the texts of a request; None leaves the answer as it is.
        twist: makes other vectors of those of an answer; gets the texts too.
    """

    def __init__(self, dimensions: int, api_key: str = API_KEY, max_texts: int = 32) -> None:
        self.requests: list[Request] = []
        self.looks: list[str] = []
        self.instead: Handler | None = None
        self.spoil: Callable[[web.Request, list[str]], Awaitable[web.StreamResponse | None]] | None = None
        self.twist: Callable[[list[str], Vectors], Vectors] = lambda _, vectors: vectors
        self.dimensions = dimensions
        self.max_texts = max_texts
        self._api_key = api_key
        self._port = 0
        self._site: web.TCPSite | None = None
        app = web.Application(middlewares=[self._guard], client_max_size=16 * 1024**2)
        self.add_routes(app.router)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    @abstractmethod
    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Say what is where."""

    @abstractmethod
    def error(self, status: int, words: str) -> web.Response:
        """Return an error as this protocol words it."""

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """What a client is told."""
        return self.root

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
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        return await self.handle(request, handler)

    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request; the handler is that of its path."""
        if request.method == "GET" and request.path != "/info":
            self.looks.append(request.path)
        if self.instead is not None:
            return await self.instead(request)
        if request.path not in {"/healthz", "/health"}:
            if not self._api_key:
                return self.error(503, "API key not configured")
            if not hmac.compare_digest(request.headers.get("Authorization", ""), f"Bearer {self._api_key}"):
                return self.error(401, "Invalid or missing API key")
        return await handler(request)

    async def note(
        self, request: web.Request, body: dict[str, Any], texts: list[str], task: str = ""
    ) -> web.StreamResponse | None:
        """Keep a request; return what it is spoilt with."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Request(request.path, texts, task, headers, body))
        return await self.spoil(request, texts) if self.spoil else None

    def vectors(self, texts: list[str]) -> Vectors:
        return self.twist(texts, [list(deterministic_embedding(text, self.dimensions)) for text in texts])


class SentenceTransformersServer(EmbeddingServer):
    """A service of one sentence-transformers model: `/healthz`, `/embed` and `/embed/batch`.

    One that has no key serves nobody.
    """

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/healthz", self._healthz)
        router.add_post("/embed", self._embed)
        router.add_post("/embed/batch", self._embed_batch)

    def error(self, status: int, words: str) -> web.Response:
        return told(status, words)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "model": "stand-in", "dim": self.dimensions})

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if refused := await self._refusal(request, body, "input", [body.get("input")]):
            return refused
        [vector] = self._vectors(self.requests[-1]) or [None]
        return web.json_response({"embedding": vector, "dim": self.dimensions})

    async def _embed_batch(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if refused := await self._refusal(request, body, "inputs", body.get("inputs")):
            return refused
        vectors = self._vectors(self.requests[-1])
        return web.json_response({"embeddings": vectors, "count": len(vectors), "dim": self.dimensions})

    async def _refusal(
        self,
        request: web.Request,
        body: dict[str, Any],
        place: str,
        texts: Any,  # noqa: ANN401 - whatever was sent
    ) -> web.StreamResponse | None:
        task = body.get("task", "")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return invalid(place, "Input should be a valid string", texts)
        if task not in {"", "passage", "query"}:
            return invalid("task", "Input should be 'query' or 'passage'", task)
        if spoilt := await self.note(request, body, texts, task):
            return spoilt
        if len(texts) > self.max_texts:
            return told(413, f"Batch too large: {len(texts)} > {self.max_texts}")
        if any(not text.strip() for text in texts):
            return invalid(place, "Input should not be blank", texts)
        return None

    def _vectors(self, request: Request) -> Vectors:
        if request.task != "query":
            return self.vectors(request.texts)
        return self.twist(request.texts, [list(query_embedding(text, self.dimensions)) for text in request.texts])


class OpenAIServer(EmbeddingServer):
    """`POST /v1/embeddings`, as OpenAI has it and vLLM, infinity, llama.cpp and LM Studio nearly.

    Attributes:
        health: what `/health` answers with; 404 as OpenAI does, vLLM and others have 200 and 503.
        base64: what it makes of `encoding_format: base64`.
        llama: whether a text that is too long is refused as llama.cpp does it: 500, or 400 as elsewhere.
    """

    def __init__(self, dimensions: int, api_key: str = API_KEY, max_texts: int = 2048) -> None:
        super().__init__(dimensions, api_key, max_texts)
        self.health = 404
        self.base64: Literal["taken", "ignored", "refused"] = "taken"
        self.llama = False

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/v1/embeddings", self._embed)
        router.add_get("/health", self._health)

    def error(self, status: int, words: str) -> web.Response:
        problem = {"message": words, "type": "invalid_request_error", "param": None, "code": status}
        return web.json_response({"error": problem}, status=status)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=self.health)

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if spoilt := await self.note(request, body, texts):
            return spoilt
        if refused := self._refusal(body, texts):
            return refused
        encode = _as_base64 if body.get("encoding_format") == "base64" and self.base64 == "taken" else _as_it_is
        data = [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(self.vectors(texts))
        ]
        return web.json_response({"object": "list", "data": data, "model": REMOTE_NAME, "usage": {"prompt_tokens": 1}})

    def _refusal(self, body: dict[str, Any], texts: Sequence[str]) -> web.Response | None:
        if body["model"] != REMOTE_NAME:
            return self.error(404, f"The model `{body['model']}` does not exist or you do not have access to it.")
        if body.get("encoding_format", "float") not in {"float", *(["base64"] if self.base64 != "refused" else [])}:
            return self.error(422, "encoding_format: Input should be 'float'")
        if len(texts) > self.max_texts:
            return self.error(400, f"Invalid 'input': array too long. Expected at most {self.max_texts}.")
        if not all(texts):
            return self.error(400, "Invalid 'input[0]': input cannot be an empty string.")
        most = max(tokens(text) for text in texts)
        if most > MAX_TOKENS and self.llama:
            words = f"input ({most} tokens) is too large to process. increase the physical batch size"
            return self.error(500, f"{words} (current batch size: {MAX_TOKENS})")
        if most > MAX_TOKENS:
            words = f"This model's maximum context length is {MAX_TOKENS} tokens, however you requested {most} tokens"
            return self.error(400, f"{words} ({most} in your prompt; 0 for the completion). Please reduce your prompt.")
        return None


def _as_it_is(vector: object) -> object:
    return vector


def _as_base64(vector: object) -> object:
    return base64.b64encode(array("f", vector).tobytes()).decode() if isinstance(vector, list) else vector


class TeiServer(EmbeddingServer):
    """text-embeddings-inference 1.9: `/info`, `/health` and `/embed`.

    Attributes:
        info: what it says of itself.
    """

    def __init__(self, dimensions: int, api_key: str = API_KEY, max_texts: int = 32) -> None:
        super().__init__(dimensions, api_key, max_texts)
        self.info: dict[str, object] = {
            "model_id": REMOTE_NAME,
            "model_sha": "0123abcd",
            "model_type": {"embedding": {"pooling": "mean"}},
            "max_concurrent_requests": 512,
            "max_input_length": MAX_TOKENS,
            "max_client_batch_size": max_texts,
            "version": "1.9.0",
        }
        self.infos = 0

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/health", self._health)
        router.add_get("/info", self._info)
        router.add_post("/embed", self._embed)

    def error(self, status: int, words: str) -> web.Response:
        kinds = {413: "Validation", 422: "Validation", 424: "Backend", 429: "Overloaded"}
        return web.json_response({"error": words, "error_type": kinds.get(status, "Unhealthy")}, status=status)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _info(self, _: web.Request) -> web.Response:
        self.infos += 1
        return web.json_response(self.info)

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        if (request.content_length or 0) > 2_000_000:
            return web.Response(status=413, text="Failed to buffer the request body: length limit exceeded")
        body = await request.json()
        texts = [body["inputs"]] if isinstance(body["inputs"], str) else body["inputs"]
        if spoilt := await self.note(request, body, texts):
            return spoilt
        if len(texts) > self.max_texts:
            return self.error(422, f"batch size {len(texts)} > maximum allowed batch size {self.max_texts}")
        if not body.get("truncate", True) and (most := max(tokens(text) for text in texts)) > MAX_TOKENS:
            return self.error(422, f"`inputs` must have less than {MAX_TOKENS} tokens. Given: {most}")
        return web.json_response(self.vectors(texts))


class OllamaServer(EmbeddingServer):
    """`POST /api/embed`. It cuts what is too long for its model, unless it is told not to."""

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/api/embed", self._embed)
        router.add_get("/api/version", self._version)

    def error(self, status: int, words: str) -> web.Response:
        return web.json_response({"error": words}, status=status)

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "0.12.0"})

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if spoilt := await self.note(request, body, texts):
            return spoilt
        if body["model"] != REMOTE_NAME:
            return self.error(404, f'model "{body["model"]}" not found, try pulling it first')
        if any(tokens(text) > MAX_TOKENS for text in texts):
            if not body.get("truncate", True):
                return self.error(400, "the input length exceeds the context length")
            texts = [" ".join(text.split()[:MAX_TOKENS]) for text in texts]
        answer = {"model": REMOTE_NAME, "embeddings": self.vectors(texts), "total_duration": 1, "prompt_eval_count": 1}
        return web.json_response(answer)


def told(status: int, detail: str) -> web.Response:
    """Return an error as the sentence-transformers services word it."""
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
