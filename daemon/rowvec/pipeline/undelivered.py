"""Undelivered: the way back from messages that have died to their rows."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from rowvec.domain.errors import UsageError
from rowvec.domain.items import Key
from rowvec.domain.messages import Asked
from rowvec.pipeline.bell import Bell, Cause
from rowvec.ports import Deliverer, RowStates

log = structlog.get_logger(__name__)


class UndeliveredRows:
    """Has rows done whose message QStash has given up.

    Those of our own messages wait in the queue. Those that the application has sent itself may be in no queue at all:
    they are asked for anew, and what they are now is seen when they are read.

    Args:
        deliverer: takes back what a message of ours carried.
        states: queues what another one asked for.
        bell: is rung for rows that were not queued.
    """

    def __init__(self, deliverer: Deliverer, states: RowStates, bell: Bell) -> None:
        self._deliverer = deliverer
        self._states = states
        self._bell = bell

    async def lead_back(self, asked: Asked) -> Mapping[Key, str]:
        """See `ports.Undelivered.lead_back`."""
        if asked.dispatch:
            await self._deliverer.take_back(asked.dispatch, list(asked.rows))
            return {}
        lost = await self._enqueue(asked.rows)
        if len(lost) < len(asked.rows):
            log.info("rows.enqueued", rows=len(asked.rows) - len(lost))
            self._bell.ring(Cause.NOTIFY)
        return lost

    async def _enqueue(self, rows: Mapping[Key, int | None]) -> Mapping[Key, str]:
        """Queue rows; one that can't be keeps the others from it only until each is tried alone."""
        try:
            await self._states.enqueue(rows)
        except UsageError as error:
            if len(rows) == 1:
                return dict.fromkeys(rows, str(error))
            parts = [await self._enqueue({row: priority}) for row, priority in rows.items()]
            return {row: why for part in parts for row, why in part.items()}
        return {}
