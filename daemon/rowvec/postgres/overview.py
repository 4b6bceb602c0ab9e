"""What waits and who works, for whoever asks the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from rowvec.domain.errors import StatementTimeoutError
from rowvec.postgres.administration import administration

STATEMENT_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 10.0


class PostgresOverview:
    """Looks on a connection of its own, so that no room waits for it; one look at a time, bounded in time.

    Args:
        dsn: a libpq connection string.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._turn = asyncio.Lock()

    async def look(self) -> Mapping[str, Any]:
        """See `ports.Overview.look`."""
        try:
            async with asyncio.timeout(LOOK_SECONDS), self._turn, administration(self._dsn) as database:
                return await database.overview(STATEMENT_SECONDS)
        except TimeoutError:
            raise StatementTimeoutError("Postgres takes too long to answer.", "Ask again later.") from None
