"""Vectors: what is held, and the one transaction that stores them and ends their items."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import asyncpg
from pgvector import Vector

from rowvec.domain.chunk_diff import ChunkDiff, diff_chunks
from rowvec.domain.errors import ModelGoneError, SchemaOutdatedError
from rowvec.domain.items import Claim, Document, EmbedderTraits, Outcome, StoredChunk
from rowvec.ports import Embedding
from rowvec.postgres.connections import Connection, Database
from rowvec.postgres.statements import vector_table
from rowvec.postgres.wire_vector import wire_vector
from rowvec.turns import in_turns

OTHER_LENGTH: Final = "22000"
"""How pgvector refuses a vector that is not as long as its column."""


class PostgresVectorStore:
    """The tables `rowvec.vector_<model>`.

    Args:
        database: an open pool.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, model: str, traits: EmbedderTraits, hashes: Collection[bytes]) -> Mapping[bytes, Embedding]:
        """See `ports.VectorStore.find`."""
        with _gone_if_missing():
            rows = await self._database.fetch(
                "find_vectors", list(hashes), traits.provider_revision, traits.prefix, table=vector_table(model)
            )
        return {row["chunk_hash"]: array("f", row["embedding"].to_list()) for row in rows}

    async def store(
        self,
        claim: Claim,
        traits: EmbedderTraits,
        documents: Sequence[Document],
        embeddings: Mapping[bytes, Embedding],
    ) -> Outcome:
        """See `ports.VectorStore.store`.

        Locks come first, and none is waited for: the queue rows with this claim's token, then the vectors of
        their rows. An item that misses one of the two is left alone: a writer is removing its row.
        """
        hashes = {chunk.hash for document in documents for chunk in document.chunks}
        # Before the transaction: while others have their turn, no row is locked.
        written = dict(zip(hashes, await in_turns(lambda one: wire_vector(embeddings[one]), hashes), strict=True))
        with _gone_if_missing():
            return await self._store(claim, traits, documents, written)

    async def _store(
        self,
        claim: Claim,
        traits: EmbedderTraits,
        documents: Sequence[Document],
        vectors: Mapping[bytes, Vector],
    ) -> Outcome:
        async with self._database.transaction(*self._texts(claim.slot.model)) as connection:
            generations = await self._lock_items(connection, claim, documents)
            mine = [document for document in documents if document.item.id in generations]
            stored, busy = await self._lock_vectors(connection, claim, mine)
            mine = [document for document in mine if document.item.content_id not in busy]
            held = (chunk for chunk in stored if chunk.content_id not in busy)
            await self._write(connection, claim, traits, diff_chunks(mine, held, traits), vectors)
            outcome = _settle(documents, mine, generations)
            await self._end(connection, claim, outcome)
        return outcome

    def _texts(self, model: str) -> list[str]:
        """Return all statements of a store."""
        named = [self._database.sql(name) for name in ("lock_items", "complete_items", "release_items")]
        table = vector_table(model)
        of_model = ("lock_vectors", "delete_vectors", "move_vectors", "insert_vectors")
        return named + [self._database.sql(name, table) for name in of_model]

    async def _lock_items(self, connection: Connection, claim: Claim, documents: Sequence[Document]) -> dict[int, int]:
        ids = [document.item.id for document in documents]
        rows = await connection.fetch(self._database.sql("lock_items"), ids, claim.token)
        return {row["id"]: row["generation"] for row in rows}

    async def _lock_vectors(
        self, connection: Connection, claim: Claim, documents: Sequence[Document]
    ) -> tuple[list[StoredChunk], set[str]]:
        ids = [document.item.content_id for document in documents]
        rows = await connection.fetch(
            self._database.sql("lock_vectors", vector_table(claim.slot.model)),
            [claim.slot.content_type] * len(ids),
            ids,
        )
        return [_stored(row) for row in rows], {row["content_id"] for row in rows if not row["locked"]}

    async def _write(
        self,
        connection: Connection,
        claim: Claim,
        traits: EmbedderTraits,
        diff: ChunkDiff,
        vectors: Mapping[bytes, Vector],
    ) -> None:
        table, type_ = vector_table(claim.slot.model), claim.slot.content_type
        if diff.gone:
            keys = [[chunk[part] for chunk in diff.gone] for part in range(3)]
            await connection.execute(self._database.sql("delete_vectors", table), type_, *keys)
        if diff.moved:
            moved = _columns((d.item.content_id, c.hash, c.repeat, c.index, d.step(c), d.owner) for d, c in diff.moved)
            await connection.execute(self._database.sql("move_vectors", table), type_, *moved)
        if diff.new:
            new = _columns(
                (
                    d.item.content_id,
                    c.index,
                    d.step(c),
                    c.heading,
                    c.body,
                    c.hash,
                    c.repeat,
                    d.owner,
                    vectors[c.hash],
                )
                for d, c in diff.new
            )
            await connection.execute(self._database.sql("insert_vectors", table), type_, *traits, *new)

    async def _end(self, connection: Connection, claim: Claim, outcome: Outcome) -> None:
        if outcome.current:
            await connection.execute(self._database.sql("complete_items"), outcome.current, claim.token)
        if outcome.superseded:
            await connection.execute(self._database.sql("release_items"), outcome.superseded, claim.token, 0.0)


@contextmanager
def _gone_if_missing() -> Iterator[None]:
    """Tell a table that was dropped under us, or is another by now, from a database that lacks what we need."""
    try:
        yield
    except SchemaOutdatedError as error:
        raise ModelGoneError("The model's table is gone.", error.message) from error
    except asyncpg.DataError as error:
        if error.sqlstate != OTHER_LENGTH:
            raise
        raise ModelGoneError("The model's table holds vectors of another length.", str(error)) from error


def _settle(documents: Sequence[Document], stored: Sequence[Document], generations: Mapping[int, int]) -> Outcome:
    """A result of an older generation was stored, but its row changed meanwhile: it stays in the queue."""
    current = [d.item.id for d in stored if generations[d.item.id] == d.item.generation]
    superseded = [d.item.id for d in stored if generations[d.item.id] != d.item.generation]
    done = {*current, *superseded}
    return Outcome(current, superseded, [d.item.id for d in documents if d.item.id not in done])


def _columns(rows: Any) -> list[list[Any]]:  # noqa: ANN401 - values of several SQL types
    return [list(column) for column in zip(*rows, strict=True)]


def _stored(row: Any) -> StoredChunk:  # noqa: ANN401 - a record
    return StoredChunk(
        row["content_id"],
        row["chunk_hash"],
        row["repeat"],
        row["chunk_index"],
        row["chunk_step"],
        row["heading"],
        row["owner"],
        row["provider_revision"],
        row["prefix"],
    )
