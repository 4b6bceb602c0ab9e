"""Backfill: queues the rows that were there before their watch, page by page."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from rowvec.domain.errors import DatabaseUnavailableError, RowvecError
from rowvec.pipeline.bell import Bell, Cause
from rowvec.ports import ChangeLog

MAX_WAITING: Final = 5000
IDLE_SECONDS: Final = 1.0
BUSY_SECONDS: Final = 0.05

log = structlog.get_logger(__name__)


class Backfiller:
    """Appends pages of changes while few enough wait; its cursor is in the database.

    Args:
        changes: where pages are appended.
        bell: is rung after each.
    """

    def __init__(self, changes: ChangeLog, bell: Bell) -> None:
        self._changes = changes
        self._bell = bell

    async def run(self) -> None:
        """Look for work for ever."""
        while True:
            appended = 0
            try:
                for content_type, model in await self._changes.unfilled(MAX_WAITING):
                    appended += await self._append(content_type, model)
            except DatabaseUnavailableError as error:
                log.debug("backfill.interrupted", error=str(error))
            if appended:
                self._bell.ring(Cause.POLL)
            await asyncio.sleep(BUSY_SECONDS if appended else IDLE_SECONDS)

    async def _append(self, content_type: str, model: str | None) -> int:
        try:
            rows = await self._changes.append_backfill(content_type, model)
        except DatabaseUnavailableError:
            raise
        except RowvecError as error:
            # One table that can't be read keeps no other from being filled.
            log.warning("backfill.refused", content_type=content_type, model=model, error=str(error))
            return 0
        if rows:
            log.info(
                "backfill.appended" if model else "backfill.swept", content_type=content_type, model=model, rows=rows
            )
        return rows
