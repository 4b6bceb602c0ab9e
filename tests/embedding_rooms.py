"""Texts on their way through a room to a model, without a database."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime

from clocks import FakeClock
from rowvec.domain.items import Chunk, Claim, Document, EmbedderTraits, Item, Outcome
from rowvec.domain.lanes import Lane
from rowvec.domain.load import BreakerState
from rowvec.domain.retry import LONGEST_REST_SECONDS
from rowvec.pipeline.due_board import DueBoard
from rowvec.pipeline.embed import Answers, EmbedRoom
from rowvec.pipeline.gate import Gate
from rowvec.ports import Answered, Embedder, Embedding, VectorStore, untold
from rowvec.telemetry import Metrics


class StubEmbedder:
    """A model that asks a function of the test's.

    Args:
        answer: what it embeds with.
        concurrency: how many requests it takes at once.
        request_texts: the most texts of one request.
    """

    name = "m"
    dimensions = 1
    request_tokens = 1_000_000
    requests_per_minute: float | None = None
    traits = EmbedderTraits("revision-1", "passage")

    def __init__(
        self,
        answer: Callable[[Sequence[str]], Awaitable[Sequence[Embedding]]],
        concurrency: int = 1,
        request_texts: int = 8,
    ) -> None:
        self.answer = answer
        self.concurrency = concurrency
        self.request_texts = request_texts

    async def ready(self) -> None:
        pass

    async def probe(self) -> None:
        pass

    async def embed(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:  # noqa: ARG002
        return await self.answer(texts)

    async def embed_query(self, text: str) -> Embedding:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


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


def make_room(
    model: Embedder,
    store: VectorStore,
    metrics: Metrics | None = None,
    clock: FakeClock | None = None,
    board: DueBoard | None = None,
) -> EmbedRoom:
    """Join a room with its gate. With time standing still, nobody looks at a model that was let alone."""
    metrics, clock = metrics or Metrics(), clock or FakeClock()
    gate = Gate(model, board or DueBoard(clock), clock, random.Random(0), metrics)  # noqa: S311 - jitter
    return EmbedRoom(gate, store, metrics)


async def recovered(room: EmbedRoom, clock: FakeClock) -> None:
    """Let the longest rest pass, and the room look at its model."""
    looking = asyncio.create_task(room.run())
    await clock.pass_by(LONGEST_REST_SECONDS)
    looking.cancel()
    await asyncio.wait([looking])
    assert room.load().breaker is BreakerState.CLOSED


async def through_a_room(model: Embedder, texts: Sequence[str]) -> Answers:
    """Embed texts, of which none is there twice, as those of one claim."""
    answers = Answers()
    chunks = [Chunk(index, text, digest(text), 0) for index, text in enumerate(texts)]
    document = Document(Item(1, "1", 1, 0, datetime(2026, 1, 1, tzinfo=UTC)), None, chunks)
    await make_room(model, _NothingHeld()).embed(Lane.BULK, [document], answers)
    return answers
