"""How rows stand, for whoever is asked about them by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from uuid import UUID

from rowvec.domain.items import Key, Slot
from rowvec.domain.lanes import Lane
from rowvec.domain.row_states import Fingerprint, LaneCount, RowStanding
from rowvec.postgres.connections import Database
from rowvec.postgres.statements import vector_table


class PostgresRowStates:
    """Queue, changes and vectors, by the keys of rows.

    Args:
        database: a pool.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def show(self, rows: Sequence[Key]) -> Mapping[Key, RowStanding]:
        """See `ports.RowStates.show`."""
        found = await self._database.fetch("show_rows", *_columns(rows))
        return {
            Key(one["content_type"], one["content_id"]): RowStanding(
                one["watched"], frozenset(one["statuses"]), one["stored"], one["unfolded"]
            )
            for one in found
        }

    async def fingerprints(self, model: str, rows: Sequence[Key]) -> Mapping[Key, Fingerprint]:
        """See `ports.RowStates.fingerprints`."""
        found = await self._database.fetch("list_fingerprints", *_columns(rows), table=vector_table(model))
        held: defaultdict[Key, set[tuple[bytes, int]]] = defaultdict(set)
        for one in found:
            held[Key(one["content_type"], one["content_id"])].add((one["chunk_hash"], one["repeat"]))
        return {row: frozenset(chunks) for row, chunks in held.items()}

    async def enqueue(self, rows: Mapping[Key, int | None]) -> None:
        """See `ports.RowStates.enqueue`."""
        await self._database.fetch("enqueue_rows", *_columns(list(rows)), list(rows.values()))

    async def take_back(self, message: UUID, rows: Sequence[Key]) -> Sequence[Slot]:
        """See `ports.RowStates.take_back`."""
        found = await self._database.fetch("take_back_rows", message, *_columns(rows))
        return sorted({Slot(one["model"], Lane(one["lane"]), one["content_type"]) for one in found})

    async def count(self) -> Mapping[Lane, LaneCount]:
        """See `ports.RowStates.count`."""
        rows = await self._database.fetch("count_rows")
        found = {Lane(one["lane"]): LaneCount(one["queued"], one["due"]) for one in rows}
        return {lane: found.get(lane, LaneCount()) for lane in Lane}


def _columns(rows: Sequence[Key]) -> tuple[list[str], list[str]]:
    return [row.content_type for row in rows], [row.content_id for row in rows]
