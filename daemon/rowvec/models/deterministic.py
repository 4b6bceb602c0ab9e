"""A model that needs no model: for tests and dry runs. Equal texts get equal vectors, nothing more."""

from __future__ import annotations

import asyncio
import hashlib
from array import array
from collections.abc import Sequence
from typing import Final

from rowvec.domain.items import EmbedderTraits
from rowvec.ports import Answered, Embedding, untold

REQUEST_TEXTS: Final = 256
REQUEST_TOKENS: Final = 1_000_000


class DeterministicEmbedder:
    """Makes vectors from the hash of the text.

    Args:
        name: the model's name.
        dimensions: the length of its vectors.
        concurrency: how many requests it takes at once.
        delay_seconds: how long it pretends to think about a request.
        request_texts: the most texts of one request; None for its own limit.
        request_tokens: the most tokens of one request; None for its own limit.
        requests_per_minute: how many requests may begin in a minute; None for any number.
    """

    def __init__(  # noqa: PLR0913 - as it is set
        self,
        name: str,
        dimensions: int,
        concurrency: int = 4,
        delay_seconds: float = 0.0,
        request_texts: int | None = None,
        request_tokens: int | None = None,
        requests_per_minute: float | None = None,
    ) -> None:
        self.name = name
        self.dimensions = dimensions
        self.concurrency = concurrency
        self.request_texts = request_texts or REQUEST_TEXTS
        self.request_tokens = request_tokens or REQUEST_TOKENS
        self.requests_per_minute = requests_per_minute
        self.traits = EmbedderTraits("deterministic-1", "")
        self._delay_seconds = delay_seconds

    async def ready(self) -> None:
        """See `ports.Embedder.ready`."""

    async def probe(self) -> None:
        """See `ports.Embedder.probe`."""

    async def embed(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:  # noqa: ARG002
        """See `ports.Embedder.embed`."""
        if self._delay_seconds:
            await asyncio.sleep(self._delay_seconds)
        return [deterministic_embedding(text, self.dimensions) for text in texts]

    async def embed_query(self, text: str) -> Embedding:
        """See `ports.Embedder.embed_query`."""
        return deterministic_embedding(text, self.dimensions)

    async def close(self) -> None:
        """See `ports.Embedder.close`."""


def deterministic_embedding(text: str, dimensions: int) -> Embedding:
    """Return the vector of a text: its SHAKE-128 digest read as signed bytes, shifted off zero."""
    digest = hashlib.shake_128(text.encode()).digest(dimensions)
    return array("f", [byte - 127.5 for byte in digest])
