"""Embed: a vector for each chunk: held already, or asked of the model in requests of a bounded size."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rowvec.domain.errors import ModelMisbehavedError, ModelUnavailableError
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
        self.permits = LaneSemaphore(embedder.concurrency)
        self._sent = metrics.texts_sent.labels(embedder.name)
        self._reused = metrics.vectors_reused.labels(embedder.name)
        self._seconds = metrics.request_seconds.labels(embedder.name)

    def close(self) -> None:
        """Let no new request begin; those that wait for their turn end with StoppingError."""
        self.permits.close()

    async def embed(self, lane: Lane, documents: Sequence[Document], embeddings: dict[bytes, Embedding]) -> bool:
        """Complete `embeddings` so that it has a vector for each chunk, by hash; return whether the model was asked.

        What was filled in stays when an error ends it, so that nothing is sent again for the others.

        Raises:
            ModelUnavailableError, ModelMisbehavedError, TextRejectedError: as `ports.Embedder.embed`.
            StoppingError: the daemon stops and begins no request.
        """
        texts = {chunk.hash: chunk.text for document in documents for chunk in document.chunks}
        missing = texts.keys() - embeddings.keys()
        if not missing:
            return False
        held = await self._store.find(self.embedder.name, self.embedder.traits, missing)
        self._reused.inc(len(held))
        embeddings.update(held)
        # The longest first and like beside like: little is padded.
        hashes = sorted(missing - held.keys(), key=lambda digest: len(texts[digest]), reverse=True)
        requests = _Requests(self, lane, texts, embeddings)
        async with asyncio.TaskGroup() as group:
            for start in range(0, len(hashes), self.embedder.request_texts):
                group.create_task(requests.send(hashes[start : start + self.embedder.request_texts]))
        if requests.errors:
            raise _worst(requests.errors)
        return bool(hashes)

    async def ask(self, texts: Sequence[str]) -> Sequence[Embedding]:
        """Send one request, and check that the answer is what was asked for."""
        began = time.perf_counter()
        vectors = await self.embedder.embed(texts)
        self._seconds.observe(time.perf_counter() - began)
        self._sent.inc(len(texts))
        if len(vectors) != len(texts):
            raise ModelMisbehavedError(
                "The model answered with the wrong number of vectors.", f"{len(vectors)} for {len(texts)} texts"
            )
        for vector in vectors:
            if len(vector) != self.embedder.dimensions:
                raise ModelMisbehavedError(
                    "The model answered with vectors of the wrong length.",
                    f"{len(vector)} dimensions instead of {self.embedder.dimensions}",
                )
        return vectors


@dataclass(slots=True)
class _Requests:
    """The requests for one batch. After the first error none begins; those under way are still made use of."""

    room: EmbedRoom
    lane: Lane
    texts: Mapping[bytes, str]
    embeddings: dict[bytes, Embedding]
    errors: list[Exception] = field(default_factory=list)

    async def send(self, hashes: Sequence[bytes]) -> None:
        try:
            async with self.room.permits.permit(self.lane):
                if not self.errors:
                    vectors = await self.room.ask([self.texts[digest] for digest in hashes])
                    self.embeddings.update(zip(hashes, vectors, strict=True))
        except Exception as error:  # noqa: BLE001 - one of them is raised for all
            self.errors.append(error)


def _worst(errors: Sequence[Exception]) -> Exception:
    """Of several errors the one that says most about the model as a whole."""
    return next((error for error in errors if isinstance(error, ModelUnavailableError)), errors[0])
