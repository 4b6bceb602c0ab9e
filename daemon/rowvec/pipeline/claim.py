"""Claim: leases due items as long as there is room, and sends each claim on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from uuid import UUID

import structlog

from rowvec.domain.errors import DatabaseUnavailableError
from rowvec.domain.items import Claim, Slot
from rowvec.domain.lanes import Lane
from rowvec.health import Pulse
from rowvec.pipeline.dispatch import Way
from rowvec.pipeline.due_board import DueBoard
from rowvec.ports import ItemQueue

LOOK_UP_SECONDS: Final = 5.0
OUTAGE_SECONDS: Final = 0.5

log = structlog.get_logger(__name__)


class Claimer:
    """Claims for one lane of one model, a bounded number of claims at a time.

    Lanes have room of their own, so a full bulk lane never keeps an immediate item from being claimed.

    Args:
        queue: where items are leased.
        board: tells which slots have due items.
        line: where a claim's items go, by way of a dispatcher or at once.
        lane: this claimer's.
        tokens: the claims under way in this daemon; a token is in it before the database knows it.
        new_token: makes the mark of a claim.
        batch_items: the most items of one claim.
        claims_at_once: how many may be under way.
        pulse: is beaten at least every few seconds.
    """

    def __init__(  # noqa: PLR0913 - a room's doors, each wired once
        self,
        queue: ItemQueue,
        board: DueBoard,
        line: Way,
        lane: Lane,
        tokens: set[UUID],
        new_token: Callable[[], UUID],
        batch_items: int,
        claims_at_once: int,
        pulse: Pulse,
    ) -> None:
        self._queue = queue
        self._board = board
        self._line = line
        self._lane = lane
        self._tokens = tokens
        self._new_token = new_token
        self._batch_items = batch_items
        self._room = asyncio.Semaphore(claims_at_once)
        self._pulse = pulse
        self._looking = False
        self._stopped = False
        self._claiming: asyncio.Task[None] | None = None

    @property
    def has_room(self) -> bool:
        """Whether a claim could be made at once."""
        return self._looking or not self._room.locked()

    def stop(self) -> None:
        """Make no more claims; `run` returns when those under way have ended."""
        self._stopped = True
        if self._claiming is not None:
            self._claiming.cancel()

    async def run(self) -> None:
        """Claim until stopped."""
        if self._stopped:
            return
        async with asyncio.TaskGroup() as under_way:
            self._claiming = under_way.create_task(self._claim_for_ever(under_way))

    async def _claim_for_ever(self, under_way: asyncio.TaskGroup) -> None:
        # Not for ever: a library below may take the cancellation of `stop` for an error of its own.
        while not self._stopped:
            self._pulse.beat()
            slot = await self._next_slot()
            if slot is not None and (claim := await self._claim(slot)) is not None:
                under_way.create_task(self._carry(claim))

    async def _next_slot(self) -> Slot | None:
        """Wait for room and for a due slot, but look up now and then."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_UP_SECONDS):
                await self._room.acquire()
                self._looking = True
                try:
                    return await self._board.take(self._line.model, self._lane)
                except asyncio.CancelledError:
                    self._room.release()
                    raise
                finally:
                    self._looking = False
        return None

    async def _claim(self, slot: Slot) -> Claim | None:
        token = self._new_token()
        self._tokens.add(token)
        try:
            claim = await self._queue.claim(slot, token, self._batch_items, self._board.floor(slot))
        except DatabaseUnavailableError as error:
            log.warning("claim.interrupted", error=str(error))
            self._end(token)
            self._board.offer([slot])
            await asyncio.sleep(OUTAGE_SECONDS)
            return None
        except BaseException:
            # A token that stays has leases prolonged for ever, should Postgres have granted them.
            self._end(token)
            raise
        self._board.saw(claim, self._batch_items)
        if not claim.items:
            self._end(token)
            return None
        return claim

    async def _carry(self, claim: Claim) -> None:
        try:
            await self._line.carry(claim)
        finally:
            self._end(claim.token)

    def _end(self, token: UUID) -> None:
        """Forget a claim: whatever it still leases is given back at the next heartbeat."""
        self._tokens.discard(token)
        self._room.release()
