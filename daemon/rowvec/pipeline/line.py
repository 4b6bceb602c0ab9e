"""The line: carries a claim from its rows to their stored vectors, and decides what becomes of what fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from rowvec.domain.errors import (
    DatabaseUnavailableError,
    ModelGoneError,
    ModelUnavailableError,
    SourceUnreadableError,
    StatementTimeoutError,
    StoppingError,
)
from rowvec.domain.items import Claim, Document, Item
from rowvec.domain.lanes import Lane
from rowvec.domain.retry import Action, Attempts, decide, describe
from rowvec.pipeline.due_board import DueBoard
from rowvec.pipeline.embed import Answers, EmbedRoom
from rowvec.pipeline.prepare import Preparer
from rowvec.ports import Embedding, ItemQueue, VectorStore
from rowvec.telemetry import Metrics

SOURCE_REST_SECONDS: Final = 2.0
STORE_TRIES: Final = 3
STORE_PAUSE_SECONDS: Final = 0.05

log = structlog.get_logger(__name__)


class Line:
    """One model's way: prepare, embed, store.

    Args:
        preparer: reads and chunks.
        room: embeds.
        store: stores.
        queue: takes back what failed.
        board: lets a source rest.
        attempts: how often an item is tried.
        chance: for the jitter of retries.
        metrics: counts items by what became of them.
    """

    def __init__(  # noqa: PLR0913 - a room's doors, each wired once
        self,
        preparer: Preparer,
        room: EmbedRoom,
        store: VectorStore,
        queue: ItemQueue,
        board: DueBoard,
        attempts: Attempts,
        chance: random.Random,
        metrics: Metrics,
    ) -> None:
        self._preparer = preparer
        self._room = room
        self._store = store
        self._queue = queue
        self._board = board
        self._attempts = attempts
        self._chance = chance
        self._metrics = metrics

    @property
    def model(self) -> str:
        """The model's name."""
        return self._room.embedder.name

    async def carry(self, claim: Claim) -> None:
        """Bring the vectors of a claim's rows up to date, or give its items back.

        Whatever it can't give back (the database is away) goes back by itself at the next heartbeat.
        """
        try:
            await self._carry(claim, claim.items, Answers())
        except DatabaseUnavailableError as error:
            log.warning("claim.lost", model=self.model, items=len(claim.items), error=str(error))

    async def _carry(self, claim: Claim, items: Sequence[Item], answers: Answers) -> None:
        try:
            left = await self._bring(claim, items, answers)
        except StatementTimeoutError as error:
            await self._handle(claim, items, answers, error)
        except DatabaseUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a row or a model raises, its items are accounted for
            await self._handle(claim, items, answers, error)
        else:
            for others, reason in left:
                await self._handle(claim, others, answers, reason)

    async def _bring(
        self, claim: Claim, items: Sequence[Item], answers: Answers
    ) -> list[tuple[Sequence[Item], Exception]]:
        """Bring the vectors of items up to date, as far as the model does its part; return the others and why."""
        documents = await self._put_off_floods(claim, await self._preparer.prepare(claim.slot, items))
        outage = await self._embed(claim, documents, answers)
        complete = [document for document in documents if answers.has_all(document)]
        await self._store_all(claim, complete, answers.embeddings)
        rejections = [(document.item, answers.rejection(document)) for document in documents]
        left: list[tuple[Sequence[Item], Exception]] = [([item], error) for item, error in rejections if error]
        done = {document.item.id for document in complete}
        waiting = [item for item, error in rejections if error is None and item.id not in done]
        return [*left, (waiting, outage)] if outage and waiting else left

    async def _embed(self, claim: Claim, documents: Sequence[Document], answers: Answers) -> Exception | None:
        """Complete the answers; return what keeps the model from it."""
        try:
            await self._room.embed(claim.slot.lane, documents, answers)
        except (ModelUnavailableError, StoppingError) as error:
            return error
        return None

    async def _put_off_floods(self, claim: Claim, documents: Sequence[Document]) -> list[Document]:
        """Give back as bulk what an owner has brought beyond its share, and return the rest."""
        floods = [document.item.id for document in documents if document.floods]
        if floods:
            await self._queue.demote(claim, floods)
            self._board.offer([claim.slot._replace(lane=Lane.BULK)])
            self._count(claim, "demoted", len(floods))
        return [document for document in documents if not document.floods]

    async def _store_all(
        self, claim: Claim, documents: Sequence[Document], embeddings: Mapping[bytes, Embedding]
    ) -> None:
        """Store; what a writer or the fold holds just now is tried again shortly, then left to the heartbeat."""
        if not documents:
            return
        for attempt in range(STORE_TRIES):
            outcome = await self._store.store(claim, self._room.embedder.traits, documents, embeddings)
            self._count(claim, "current", len(outcome.current))
            self._count(claim, "superseded", len(outcome.superseded))
            refused = set(outcome.refused)
            stored = [document for document in documents if document.item.id not in refused]
            self._preparer.note_done(claim.slot, stored)
            self._room.note_stored(stored)
            documents = [document for document in documents if document.item.id in refused]
            if not documents:
                return
            if attempt + 1 < STORE_TRIES:
                await asyncio.sleep(STORE_PAUSE_SECONDS)
        self._count(claim, "refused", len(documents))

    async def _handle(self, claim: Claim, items: Sequence[Item], answers: Answers, error: Exception) -> None:
        match decide(error, len(items)):
            case Action.WAIT:
                await self._wait(claim, items, error)
            case Action.SPLIT:
                half = len(items) // 2
                await self._carry(claim, items[:half], answers)
                await self._carry(claim, items[half:], answers)
            case Action.RETRY:
                delay = self._attempts.delay_seconds(items[0].retry_count, self._chance)
                await self._fail(claim, items[0], delay, error)
            case Action.FAIL:
                await self._fail(claim, items[0], None, error)

    async def _wait(self, claim: Claim, items: Sequence[Item], error: Exception) -> None:
        """Give items back with nothing counted. A source that can't be read rests; a model's gate knows of it."""
        message, detail = describe(error)
        if isinstance(error, SourceUnreadableError):
            self._board.rest_source(claim.slot.content_type, SOURCE_REST_SECONDS, f"{message} {detail}".strip())
        elif isinstance(error, ModelGoneError):
            self._room.gate.shut(error)
        about = {"model": self.model, "content_type": claim.slot.content_type, "items": len(items)}
        tell = log.info if isinstance(error, StoppingError | ModelGoneError) else log.warning
        tell("items.waiting", **about, why=message, detail=detail)
        await self._queue.release(claim, [item.id for item in items], 0.0)
        self._board.offer([claim.slot])
        self._count(claim, "released", len(items))

    async def _fail(self, claim: Claim, item: Item, delay: float | None, error: Exception) -> None:
        message, detail = describe(error)
        log.warning(
            "item.failed" if delay is None else "item.retried",
            content_type=claim.slot.content_type,
            content_id=item.content_id,
            model=self.model,
            attempt=item.retry_count + 1,
            again_in_seconds=delay,
            why=message,
            detail=detail,
        )
        await self._queue.fail(claim, {item.id: delay}, message, detail)
        self._count(claim, "failed" if delay is None else "retried", 1)

    def _count(self, claim: Claim, outcome: str, items: int) -> None:
        self._metrics.items.labels(self.model, claim.slot.lane.value, outcome).inc(items)
