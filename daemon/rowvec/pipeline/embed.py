"""Embed: a vector for each chunk: held already, or asked of the model in requests of a bounded size."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rowvec.domain.budget import estimate_tokens
from rowvec.domain.errors import ModelUnavailableError
from rowvec.domain.items import Document, EmbedderTraits
from rowvec.domain.lanes import Lane
from rowvec.domain.load import ModelLoad
from rowvec.pipeline.gate import Gate
from rowvec.pipeline.poison import PoisonSearch
from rowvec.pipeline.recent import RecentEmbeddings
from rowvec.pipeline.suspects import Suspects
from rowvec.ports import Answered, Embedder, Embedding, VectorStore
from rowvec.telemetry import Metrics


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

    def has_all(self, document: Document) -> bool:
        """Whether each chunk of a document has its vector."""
        return all(chunk.hash in self.embeddings for chunk in document.chunks)


class EmbedRoom:
    """One model's requests, shared by its lanes.

    Args:
        gate: to the model.
        store: is asked first for vectors that are held already.
        metrics: counts vectors reused.
    """

    def __init__(self, gate: Gate, store: VectorStore, metrics: Metrics) -> None:
        self.gate = gate
        self.recent = RecentEmbeddings()
        self.suspects = Suspects()
        self._store = store
        self._reused = metrics.vectors_reused.labels(self.embedder.name)

    @property
    def embedder(self) -> Embedder:
        """The model."""
        return self.gate.embedder

    async def run(self) -> None:
        """Look after the model whenever it is away, for ever."""
        await self.gate.run()

    def close(self) -> None:
        """Let no new request begin; those that wait for their turn end with StoppingError."""
        self.gate.close()

    async def end(self) -> None:
        """Free what the embedder has; the model is done with."""
        self.gate.forget()
        await self.embedder.close()

    def load(self) -> ModelLoad:
        """Return what the model stands at."""
        return self.gate.load()

    async def embed(self, lane: Lane, documents: Sequence[Document], answers: Answers) -> None:
        """Complete `answers` for each chunk.

        What was filled in stays when an error ends it, so that nothing is sent again for the others.

        Raises:
            ModelUnavailableError: the model as a whole does not answer, or fails at every text.
            StoppingError: the daemon stops and begins no request.
        """
        texts = {chunk.hash: chunk.text for document in documents for chunk in document.chunks}
        missing = texts.keys() - answers.embeddings.keys() - answers.rejected.keys()
        if not missing:
            return
        await self.gate.ready()
        traits = self.embedder.traits
        held = await self._store.find(self.embedder.name, traits, missing)
        self.reuse(held, answers)
        self.reuse(self.recent.find(traits, missing - held.keys()), answers)
        answers.rejected.update(self.suspects.convict(traits, missing - answers.embeddings.keys()))
        left = missing - answers.embeddings.keys() - answers.rejected.keys()
        requests = _Requests(self, lane, traits, texts, answers)
        async with asyncio.TaskGroup() as group:
            for hashes in self._filled(traits, {one: texts[one] for one in left}):
                group.create_task(requests.send(hashes))
        if requests.errors:
            raise _worst(requests.errors)

    def note_stored(self, documents: Sequence[Document]) -> None:
        """Keep nothing more of what is stored: whoever removes a vector there wants another one."""
        self.recent.forget(self.embedder.traits, {chunk.hash for one in documents for chunk in one.chunks})

    def reuse(self, embeddings: Mapping[bytes, Embedding], answers: Answers) -> None:
        """Take what was embedded before, and count it."""
        self._reused.inc(len(embeddings))
        answers.embeddings.update(embeddings)

    def _filled(self, traits: EmbedderTraits, texts: Mapping[bytes, str]) -> list[list[bytes]]:
        """Return what is to be sent as requests of the size that the model takes, its prefix included."""
        tokens = {digest: estimate_tokens(traits.prefix + text) for digest, text in texts.items()}
        return self.suspects.fill(traits, tokens, self.embedder.request_texts, self.embedder.request_tokens)


@dataclass(slots=True)
class _Requests:
    """The requests for one batch. After the first outage none begins; those under way are still made use of."""

    room: EmbedRoom
    lane: Lane
    traits: EmbedderTraits
    texts: Mapping[bytes, str]
    answers: Answers
    errors: list[Exception] = field(default_factory=list)

    async def send(self, hashes: Sequence[bytes]) -> None:
        try:
            self.answers.rejected.update(await PoisonSearch(self._ask, self._prove).run(hashes))
        except Exception as error:  # noqa: BLE001 - one of them is raised for all
            self.errors.append(error)

    async def _ask(self, hashes: Sequence[bytes]) -> bool:
        """Have all answered; what another claim sends just now is waited for. Return whether the model was asked."""
        asked = False
        while missing := [digest for digest in hashes if digest not in self.answers.embeddings]:
            asked |= await self._ask_once(missing)
            await self.room.recent.settled(self.traits, missing)
            # At once: as soon as it is stored, nothing of it is kept.
            self._take_recent(missing)
        return asked

    async def _ask_once(self, hashes: Sequence[bytes]) -> bool:
        recent, permits = self.room.recent, self.room.gate.permits
        async with self.room.suspects.apart(self.traits, hashes) as alone, permits.permit(self.lane) as give_back:
            if self.errors:
                permits.give_start_back()
                raise self.errors[0]
            found = self._take_recent(hashes)
            with recent.sending(self.traits, [digest for digest in hashes if digest not in found]) as mine:
                if not mine:
                    permits.give_start_back()
                    return False
                embeddings = await self._send(mine, give_back, alone=alone)
                recent.keep(self.traits, embeddings)
                self.answers.embeddings.update(embeddings)
                return True

    def _take_recent(self, hashes: Sequence[bytes]) -> Mapping[bytes, Embedding]:
        unanswered = [digest for digest in hashes if digest not in self.answers.embeddings]
        found = self.room.recent.find(self.traits, unanswered)
        self.room.reuse(found, self.answers)
        return found

    async def _send(self, hashes: Sequence[bytes], answered: Answered, *, alone: bool) -> dict[bytes, Embedding]:
        try:
            vectors = await self.room.gate.ask([self.texts[digest] for digest in hashes], answered)
        except ModelUnavailableError as error:
            if error.unanswered:
                self.room.suspects.accuse(self.traits, hashes, error, alone=alone)
            raise
        self.room.suspects.clear(self.traits, hashes)
        return dict(zip(hashes, vectors, strict=True))

    async def _prove(self) -> None:
        await self.room.gate.prove(self.lane)


def _worst(errors: Sequence[Exception]) -> Exception:
    """Of several errors the one that says most about the model as a whole."""
    return next((error for error in errors if isinstance(error, ModelUnavailableError)), errors[0])
