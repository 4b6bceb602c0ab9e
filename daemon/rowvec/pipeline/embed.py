"""Embed: a vector for each chunk: held already, or asked of the model in requests of a bounded size."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rowvec.domain.errors import ModelMisbehavedError, ModelUnavailableError
from rowvec.domain.items import Document
from rowvec.domain.lanes import Lane
from rowvec.domain.retry import Action, decide, describe, wished_rest_seconds
from rowvec.pipeline.lane_semaphore import LaneSemaphore
from rowvec.pipeline.poison import PoisonSearch
from rowvec.ports import Embedder, Embedding, VectorStore
from rowvec.telemetry import Metrics

HARMLESS: Final = "hello"


@dataclass(slots=True)
class Answers:
    """What came of the chunks of a claim, by their hashes.

    Attributes:
        embeddings: their vectors.
        rejected: what the model fails at, and how, while it embeds others.
    """

    embeddings: dict[bytes, Embedding] = field(default_factory=dict)
    rejected: dict[bytes, Exception] = field(default_factory=dict)

    def rejection(self, document: Document) -> Exception | None:
        """Return the error of the first chunk of a document that has one."""
        return next((self.rejected[chunk.hash] for chunk in document.chunks if chunk.hash in self.rejected), None)


class EmbedRoom:
    """One model's requests, shared by its lanes.

    Args:
        embedder: the model.
        store: is asked first for vectors that are held already.
        metrics: counts texts sent and vectors reused.
        seconds: the monotonic clock.
    """

    def __init__(
        self,
        embedder: Embedder,
        store: VectorStore,
        metrics: Metrics,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.embedder = embedder
        self._store = store
        self._now = seconds
        self._wish: tuple[float, ModelUnavailableError] | None = None
        self.permits = LaneSemaphore(embedder.concurrency)
        self._sent = metrics.texts_sent.labels(embedder.name)
        self._reused = metrics.vectors_reused.labels(embedder.name)
        self._seconds = metrics.request_seconds.labels(embedder.name)

    def close(self) -> None:
        """Let no new request begin; those that wait for their turn end with StoppingError."""
        self.permits.close()

    async def embed(self, lane: Lane, documents: Sequence[Document], answers: Answers) -> bool:
        """Complete `answers` for each chunk; return whether the model was asked.

        What was filled in stays when an error ends it, so that nothing is sent again for the others.

        Raises:
            ModelUnavailableError: the model as a whole does not answer, or fails at every text.
            StoppingError: the daemon stops and begins no request.
        """
        texts = {chunk.hash: chunk.text for document in documents for chunk in document.chunks}
        missing = texts.keys() - answers.embeddings.keys() - answers.rejected.keys()
        if not missing:
            return False
        await self.embedder.ready()
        held = await self._store.find(self.embedder.name, self.embedder.traits, missing)
        self._reused.inc(len(held))
        answers.embeddings.update(held)
        # The longest first and like beside like: little is padded.
        hashes = sorted(missing - held.keys(), key=lambda digest: len(texts[digest]), reverse=True)
        requests = _Requests(self, lane, texts, answers)
        async with asyncio.TaskGroup() as group:
            for start in range(0, len(hashes), self.embedder.request_texts):
                group.create_task(requests.send(hashes[start : start + self.embedder.request_texts]))
        if requests.errors:
            raise _worst(requests.errors)
        return bool(hashes)

    async def ask(self, texts: Sequence[str]) -> Sequence[Embedding]:
        """Send one request, and check that the answer is what was asked for."""
        self._obey()
        began = time.perf_counter()
        try:
            vectors = await self.embedder.embed(texts)
        except ModelUnavailableError as error:
            self._note_wish(error)
            raise
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

    def _note_wish(self, error: ModelUnavailableError) -> None:
        """Keep how long the model wants to be let alone; of several wishes the longest counts."""
        until = self._now() + (wished_rest_seconds(error) or 0.0)
        if until > max(self._now(), self._wish[0] if self._wish else 0.0):
            self._wish = (until, error)

    def _obey(self) -> None:
        """Raise while the model wants to be let alone: whichever lane was told so, it is told to all."""
        if self._wish is None:
            return
        until, error = self._wish
        if (left := until - self._now()) > 0:
            raise ModelUnavailableError(error.message, error.hint, left)
        self._wish = None


@dataclass(slots=True)
class _Requests:
    """The requests for one batch. After the first outage none begins; those under way are still made use of."""

    room: EmbedRoom
    lane: Lane
    texts: Mapping[bytes, str]
    answers: Answers
    errors: list[Exception] = field(default_factory=list)

    async def send(self, hashes: Sequence[bytes]) -> None:
        try:
            self.answers.rejected.update(await PoisonSearch(self._ask, self._prove).run(hashes))
        except Exception as error:  # noqa: BLE001 - one of them is raised for all
            self.errors.append(error)

    async def _ask(self, hashes: Sequence[bytes]) -> None:
        async with self.room.permits.permit(self.lane):
            if self.errors:
                raise self.errors[0]
            vectors = await self.room.ask([self.texts[digest] for digest in hashes])
            self.answers.embeddings.update(zip(hashes, vectors, strict=True))

    async def _prove(self) -> None:
        """See that the model embeds another text: one that is broken or of another kind fails at all of them."""
        try:
            async with self.room.permits.permit(self.lane):
                await self.room.ask([HARMLESS])
        except Exception as error:
            if decide(error, 1) is Action.WAIT:
                raise
            said = " ".join(describe(error)).strip()
            raise ModelUnavailableError("The model fails at every text.", said) from error


def _worst(errors: Sequence[Exception]) -> Exception:
    """Of several errors the one that says most about the model as a whole."""
    return next((error for error in errors if isinstance(error, ModelUnavailableError)), errors[0])
