"""Claim by key: leases what a message names for one model, and sends it on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping, Sequence
from typing import TypeAlias
from uuid import UUID

import structlog

from rowvec.domain.errors import DatabaseUnavailableError
from rowvec.domain.items import Key
from rowvec.domain.parts import in_parts
from rowvec.pipeline.line import Line
from rowvec.ports import Dispatchable

Brought: TypeAlias = "asyncio.Task[frozenset[Key] | DatabaseUnavailableError]"
"""Ends with the rows of which there was something to do, or with why that can't be said. It must not raise: an error in
the task group of a room is a crash."""

log = structlog.get_logger(__name__)


class RowClaimer:
    """Claims for one model what messages name, a bounded number of them at a time.

    Args:
        queue: where items are leased.
        line: where a claim's items go.
        tokens: the claims under way in this daemon; a token is in it before the database knows it.
        new_token: makes the mark of a claim.
        messages_at_once: how many may be under way.
        batch_items: how many rows of a message are worked on at once: their texts are held in memory.
        takers: where it is found by its model's name while it runs.
    """

    has_room = False
    """It takes what it is asked to, and nothing by itself."""

    def __init__(  # noqa: PLR0913 - a room's doors, each wired once
        self,
        queue: Dispatchable,
        line: Line,
        tokens: set[UUID],
        new_token: Callable[[], UUID],
        messages_at_once: int,
        batch_items: int,
        takers: MutableMapping[str, RowClaimer],
    ) -> None:
        self._queue = queue
        self._line = line
        self._tokens = tokens
        self._new_token = new_token
        self._left = messages_at_once
        self._batch_items = batch_items
        self._takers = takers
        self._stopped = asyncio.Event()
        self._under_way = asyncio.TaskGroup()

    def stop(self) -> None:
        """Take no more; `run` returns when what is under way has ended."""
        self._takers.pop(self._line.model, None)
        self._stopped.set()

    async def run(self) -> None:
        """Take what is asked for until stopped."""
        if self._stopped.is_set():
            return
        async with self._under_way:
            self._takers[self._line.model] = self
            try:
                await self._stopped.wait()
            finally:
                self._takers.pop(self._line.model, None)

    def bring(self, rows: Sequence[Key]) -> Brought | None:
        """Begin to bring rows up to date; None while there is no room."""
        if not self._left:
            return None
        self._left -= 1
        return self._under_way.create_task(self._bring(rows))

    async def _bring(self, rows: Sequence[Key]) -> frozenset[Key] | DatabaseUnavailableError:
        token = self._new_token()
        self._tokens.add(token)
        brought: set[Key] = set()
        try:
            for part in in_parts(rows, self._batch_items):
                if not self._stopped.is_set():
                    brought |= await self._bring_part(part, token)
        except DatabaseUnavailableError as error:
            log.warning("delivery.interrupted", model=self._line.model, error=str(error))
            return error
        finally:
            # Whatever is still leased is given back at the next heartbeat.
            self._tokens.discard(token)
            self._left += 1
        return frozenset(brought)

    async def _bring_part(self, rows: Sequence[Key], token: UUID) -> set[Key]:
        claims = await self._queue.claim_rows([self._line.model], rows, token)
        async with asyncio.TaskGroup() as group:
            for claim in claims:
                group.create_task(self._line.carry(claim))
        return {Key(claim.slot.content_type, item.content_id) for claim in claims for item in claim.items}
