"""A model that needs no model: for tests and dry runs. Equal texts get equal vectors, nothing more."""

from __future__ import annotations

import asyncio
import hashlib
from array import array
from collections.abc import Sequence

from rowvec.domain.items import EmbedderTraits
from rowvec.ports import Embedding


class DeterministicEmbedder:
    """Makes vectors from the hash of the text.

    Args:
        name: the model's name.
        dimensions: the length of its vectors.
        concurrency: how many requests it takes at once.
        delay_seconds: how long it pretends to think about a request.
    """

    def __init__(self, name: str, dimensions: int, concurrency: int = 4, delay_seconds: float = 0.0) -> None:
        self.name = name
        self.dimensions = dimensions
        self.concurrency = concurrency
        self.request_texts = 256
        self.traits = EmbedderTraits("deterministic-1", "")
        self._delay_seconds = delay_seconds

    async def ready(self) -> None:
        """See `ports.Embedder.ready`."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
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
