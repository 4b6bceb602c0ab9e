"""A daemon taken apart: each step of the way of the data is a call, so that tests fix their order."""

from __future__ import annotations

import contextlib
import uuid
from array import array
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rowvec.domain.items import Claim, Document, EmbedderTraits, Floors, Fold, Outcome, Slot
from rowvec.domain.lanes import Lane
from rowvec.domain.text import render_text, split_text
from rowvec.postgres.change_log import PostgresChangeLog
from rowvec.postgres.connections import Database
from rowvec.postgres.item_queue import PostgresItemQueue
from rowvec.postgres.presence import PostgresPresence
from rowvec.postgres.row_reader import PostgresRowReader
from rowvec.postgres.vector_store import PostgresVectorStore

EVER = datetime(1970, 1, 1, tzinfo=UTC)
TRAITS = EmbedderTraits("test-1", "")


@dataclass
class Worker:
    """The Postgres room's parts, on one pool."""

    database: Database
    log: PostgresChangeLog
    queue: PostgresItemQueue
    reader: PostgresRowReader
    store_: PostgresVectorStore
    presence: PostgresPresence

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, dsn: str) -> AsyncIterator[Worker]:
        database, daemon = Database(dsn), uuid.uuid4()
        await database.open()
        try:
            presence = PostgresPresence(database, daemon, "test", ["first", "second"])
            await presence.beat([], {})
            yield cls(
                database,
                PostgresChangeLog(database),
                PostgresItemQueue(database, daemon),
                PostgresRowReader(database),
                PostgresVectorStore(database),
                presence,
            )
        finally:
            await database.close()

    async def fold(self, floors: Floors = Floors()) -> Fold:  # noqa: B008 - immutable
        return await self.log.fold(floors, 1000)

    async def claim(self, lane: Lane = Lane.IMMEDIATE, content_type: str = "course", model: str = "first") -> Claim:
        return await self.queue.claim(Slot(model, lane, content_type), uuid.uuid4(), 1000, EVER)

    async def read(self, claim: Claim) -> list[Document]:
        found = await self.reader.read(claim.slot.content_type, [item.content_id for item in claim.items])
        assert found is not None
        source, rows = found
        by_key = {row.content_id: row for row in rows}
        documents = []
        for item in claim.items:
            row = by_key.get(item.content_id)
            if row is None:
                documents.append(Document(item))
            else:
                chunks = split_text(source, *render_text(source, row.fields))
                documents.append(Document(item, row.owner, chunks))
        return documents

    async def store(self, claim: Claim, documents: Sequence[Document]) -> Outcome:
        length = {"first": 8, "second": 4}[claim.slot.model]
        hashes = {chunk.hash for document in documents for chunk in document.chunks}
        embeddings = {digest: array("f", [byte / 255 for byte in digest[:length]]) for digest in hashes}
        return await self.store_.store(claim, TRAITS, documents, embeddings)

    async def unfilled(self, max_waiting: int = 1_000_000) -> list[str]:
        """The sources with work in the background, our own one for documents aside."""
        return sorted({content_type for content_type, _ in await self.log.unfilled(max_waiting)} - {"document"})

    async def append_page(self, content_type: str) -> int:
        """Do the next page of a source's work in the background, for all models alike; return its rows."""
        todo = [model for name, model in await self.log.unfilled(1_000_000) if name == content_type]
        return max([await self.log.append_backfill(content_type, model) for model in todo], default=0)

    async def settle(self) -> None:
        """Fold and work until nothing is left, as a daemon would."""
        while (await self.fold()).folded:
            pass
        for slot in await self.queue.probe(["first", "second"], EVER):
            claim = await self.queue.claim(slot, uuid.uuid4(), 1000, EVER)
            await self.store(claim, await self.read(claim))
