"""The models that the database knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from rowvec.domain.registered import RegisteredModel
from rowvec.postgres.connections import Database


class PostgresModelRegistry:
    """`rowvec.model` seen by a daemon.

    Args:
        database: an open pool.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def active(self) -> Sequence[RegisteredModel]:
        """See `ports.ModelRegistry.active`."""
        rows = await self._database.fetch("list_active_models")
        return [RegisteredModel(row["name"], row["dimensions"], read_served(row["served"])) for row in rows]


def read_served(column: str | None) -> dict[str, Any] | None:
    """Return what the column `served` says: an object, which the driver gives as JSON."""
    served: dict[str, Any] | None = None if column is None else orjson.loads(column)
    return served
