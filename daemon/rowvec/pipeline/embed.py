"""Embed: a vector for each chunk: held already, or asked of the model in requests of a bounded size."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from rowvec.domain.errors import ModelUnavailableError
from rowvec.domain.items import Document
from rowvec.domain.lanes import Lane
from rowvec.pipeline.lane_semaphore import LaneSemaphore
from rowvec.ports import Embedder, Embedding, VectorStore
from rowvec.telemetry import Metrics


class EmbedRoom:
    """One model's requests, shared by its lanes.

    Args:
        embedder: the model.
        store: is asked first for vectors that are held already.
        metrics: counts texts sent and vectors reused.
    """

    def __init__(self, embedder: Embedder, store: VectorStore, metrics: Metrics) -> None:
        self.embedder = embedder
        self._store = store
        self._permits = LaneSemaphore(embedder.concurrency)
        self._sent = metrics.texts_sent.labels(embedder.name)
        self._reused = metrics.vectors_reused.labels(embedder.name)
        self._seconds = metrics.request_seconds.labels(embedder.name)

    def close(self) -> None:
        """Let no new request begin; those that wait for their turn end with ModelUnavailableError."""
        self._permits.close()

    async def embed(self, lane: Lane, documents: Sequence[Document], embeddings: dict[bytes, Embedding]) -> None:
        """Complete `embeddings` so that it has a vector for each chunk, by hash.

        What was filled in stays when an error ends it, so that nothing is sent again for the others.

        Raises:
            ModelUnavailableError, ModelMisbehavedError, TextRejectedError: as `ports.Embedder.embed`.
        """
        texts = {chunk.hash: chunk.text for document in documents for chunk in document.chunks}
        missing = texts.keys() - embeddings.keys()
        if not missing:
            return
        held = await self._store.find(self.embedder.name, self.embedder.traits, missing)
        self._reused.inc(len(held))
        embeddings.update(held)
        # The longest first and like beside like: little is padded.
        hashes = sorted(missing - held.keys(), key=lambda digest: len(texts[digest]), reverse=True)
        size = self.embedder.request_texts
        try:
            async with asyncio.TaskGroup() as requests:
                for start in range(0, len(hashes), size):
                    part = hashes[start : start + size]
                    requests.create_task(self._request(lane, part, [texts[digest] for digest in part], embeddings))
        except ExceptionGroup as group:  # not except*: before Python 3.11.4 it wraps what is raised in a new group
            raise _worst(group) from None

    async def _request(
        self, lane: Lane, hashes: Sequence[bytes], texts: Sequence[str], embeddings: dict[bytes, Embedding]
    ) -> None:
        async with self._permits.permit(lane):
            began = time.perf_counter()
            vectors = await self.embedder.embed(texts)
            self._seconds.observe(time.perf_counter() - began)
            self._sent.inc(len(texts))
        embeddings.update(zip(hashes, vectors, strict=True))


def _worst(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of several errors the one that says most about the model as a whole."""
    errors = [error for error in group.exceptions if not isinstance(error, BaseExceptionGroup)]
    return next((error for error in errors if isinstance(error, ModelUnavailableError)), errors[0])
