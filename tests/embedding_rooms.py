"""Texts on their way through a room to a model, without a database."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from rowvec.domain.items import Chunk, Claim, Document, EmbedderTraits, Item, Outcome
from rowvec.domain.lanes import Lane
from rowvec.pipeline.embed import Answers, EmbedRoom
from rowvec.ports import Embedder, Embedding
from rowvec.telemetry import Metrics


class _NothingHeld:
    async def find(self, model: str, traits: EmbedderTraits, hashes: Collection[bytes]) -> Mapping[bytes, Embedding]:
        del model, traits, hashes
        return {}

    async def store(
        self, claim: Claim, traits: EmbedderTraits, documents: Sequence[Document], embeddings: Mapping[bytes, Embedding]
    ) -> Outcome:
        raise NotImplementedError


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


async def through_a_room(model: Embedder, texts: Sequence[str]) -> Answers:
    """Embed texts, of which none is there twice, as those of one claim."""
    answers = Answers()
    chunks = [Chunk(index, text, digest(text), 0) for index, text in enumerate(texts)]
    document = Document(Item(1, "1", 1, 0, datetime(2026, 1, 1, tzinfo=UTC)), None, chunks)
    await EmbedRoom(model, _NothingHeld(), Metrics()).embed(Lane.BULK, [document], answers)
    return answers
