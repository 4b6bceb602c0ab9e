"""Changes and the fold: the only way into the queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from rowvec.domain.errors import LockedError, SourceUnreadableError, StatementTimeoutError
from rowvec.domain.items import Floors, Fold, Slot
from rowvec.domain.lanes import Lane
from rowvec.postgres.connections import Connection, Database

PARENT_TABLE = "rowvec.vector"
_FOLD = ("lock_fold", "fold_sources", "reopen_sources", "fold_changes", "void_items")


class PostgresChangeLog:
    """`rowvec.change` and what becomes of its lines.

    Args:
        database: an open pool.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def fold(self, floors: Floors, batch: int) -> Fold:
        """See `ports.ChangeLog.fold`."""
        async with self._database.transaction(*self._texts()) as connection:
            look = await self._row(connection, "lock_fold", floors)
            if not look["locked"]:
                return Fold(locked=False)
            if look["whole"]:
                await self._fold_sources(connection)
            if not look["changes"]:
                return Fold(locked=True)
            folded = await self._row(connection, "fold_changes", floors, batch)
            if folded["removed_ids"]:
                await self._remove(connection, folded["removed_types"], folded["removed_ids"])
        slots = zip(folded["models"], map(Lane, folded["lanes"]), folded["content_types"], strict=True)
        return Fold(
            locked=True,
            floors=Floors(*folded["floors"]) if folded["looked"] else None,
            folded=folded["folded"],
            slots=[Slot(*slot) for slot in slots],
            refused=folded["refused"],
        )

    def _texts(self) -> list[str]:
        """Return all statements of a fold."""
        named = [self._database.sql(name) for name in _FOLD]
        return named + [self._database.sql(name, PARENT_TABLE) for name in ("lock_vectors", "delete_rows")]

    async def unfilled(self, max_waiting: int) -> Sequence[tuple[str, str | None]]:
        """See `ports.ChangeLog.unfilled`."""
        rows = await self._database.fetch("list_unfilled_sources", max_waiting)
        return [(row["content_type"], row["model"]) for row in rows]

    async def append_backfill(self, content_type: str, model: str | None) -> int:
        """See `ports.ChangeLog.append_backfill`."""
        try:
            rows = await self._database.fetch("append_backfill", content_type, model)
        except (asyncpg.PostgresError, LockedError, StatementTimeoutError) as error:
            # Whatever one source's condition, function or table does, it keeps no other from its turn.
            raise SourceUnreadableError(f"The rows of {content_type} can't be listed.", str(error)) from error
        return rows[0]["appended"] or 0

    async def _fold_sources(self, connection: Connection) -> None:
        """Turn changes of whole types into work in the background."""
        ended = await connection.fetch(self._database.sql("fold_sources"))
        asked, emptied = ([row["content_type"] for row in ended if row["kind"] == kind] for kind in ("write", "remove"))
        await connection.execute(self._database.sql("reopen_sources"), asked, emptied)

    async def _remove(self, connection: Connection, types: list[str], ids: list[str]) -> None:
        """Void the items and remove the vectors of rows, never waiting for a writer.

        Above READ COMMITTED the trigger could not do it; below, this finds nothing left. Vectors that a writer
        holds at this moment are left: the item's own completion removes them once more.
        """
        await connection.execute(self._database.sql("void_items"), types, ids)
        held = await connection.fetch(self._database.sql("lock_vectors", PARENT_TABLE), types, ids)
        busy = {(row["content_type"], row["content_id"]) for row in held if not row["locked"]}
        gone = {(row["content_type"], row["content_id"]) for row in held} - busy
        if gone:
            await connection.execute(
                self._database.sql("delete_rows", PARENT_TABLE), *map(list, zip(*sorted(gone), strict=True))
            )

    async def _row(self, connection: Connection, name: str, *arguments: object) -> Any:  # noqa: ANN401 - a record
        return await connection.fetchrow(self._database.sql(name), *arguments)
