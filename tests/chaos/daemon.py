"""A real daemon whose models stand behind HTTP: `daemon.py first:8:http://127.0.0.1:4711/ second:4:...`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from array import array
from collections.abc import Sequence

import aiohttp
import uvloop

from rowvec.app import Daemon
from rowvec.domain.errors import ModelUnavailableError
from rowvec.domain.items import EmbedderTraits
from rowvec.logs import configure_logs
from rowvec.ports import Embedder, Embedding
from rowvec.settings import Settings, load_settings
from rowvec.systemd import Notifier

REQUEST_SECONDS = 10.0


class HttpEmbedder:
    """A model of `model_server`.

    Args:
        name: the model's name.
        dimensions: the length of its vectors.
        url: where its server is, or will be again.
    """

    def __init__(self, name: str, dimensions: int, url: str) -> None:
        self.name = name
        self.dimensions = dimensions
        self.concurrency = 3
        self.request_texts = 16
        self.traits = EmbedderTraits("chaos-1", "")
        self._url = url
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS))

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        try:
            async with self._session.post(self._url, json={"texts": list(texts)}) as answer:
                answer.raise_for_status()
                return [array("f", vector) for vector in (await answer.json())["vectors"]]
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ModelUnavailableError("The model server does not answer.", repr(error)) from error

    async def embed_query(self, text: str) -> Embedding:
        return (await self.embed([text]))[0]

    async def close(self) -> None:
        await self._session.close()


async def serve(settings: Settings, models: Sequence[str]) -> None:
    described = [model.split(":", 2) for model in models]
    embedders: list[Embedder] = [HttpEmbedder(name, int(dimensions), url) for name, dimensions, url in described]
    daemon = Daemon(settings, Notifier.from_environment(os.environ), embedders)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, daemon.stop.set)
    await daemon.run()


if __name__ == "__main__":
    given = load_settings()
    configure_logs(given.log_level, given.log_format)
    uvloop.run(serve(given, sys.argv[1:]))
