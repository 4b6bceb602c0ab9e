"""Reading the application's rows."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from rowvec.domain.errors import ConfigurationError, LockedError, SourceUnreadableError, TextRejectedError
from rowvec.domain.items import Row, Source
from rowvec.postgres.connections import Database


class PostgresRowReader:
    """The watched tables, through `rowvec.read_rows`.

    Args:
        database: an open pool.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, content_type: str, content_ids: Sequence[str]) -> tuple[Source, Sequence[Row]] | None:
        """See `ports.RowReader.read`; TextRejectedError when an id is no key, or a text function fails."""
        try:
            found = await self._database.fetch("read_rows", content_type, content_ids)
        except (asyncpg.DataError, asyncpg.RaiseError) as error:
            raise TextRejectedError("The text of the row can't be made.", str(error)) from error
        except (ConfigurationError, LockedError) as error:
            raise SourceUnreadableError(error.message, error.hint) from error
        if not found:
            return None
        *source, keys, owners, fields = found[0].values()
        rows = zip(keys or (), owners or (), fields or (), strict=True)
        return Source(*source), [Row(*row) for row in rows]
