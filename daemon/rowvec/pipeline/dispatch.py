"""Dispatch: sorts a claim's items into those that go out in messages and those that are worked on here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol
from uuid import UUID

import structlog

from rowvec.domain.errors import DatabaseUnavailableError
from rowvec.domain.items import Claim, Dispatch, Item
from rowvec.domain.lanes import AIM_SECONDS, Lane
from rowvec.domain.load import BreakerState
from rowvec.domain.messages import ask_for_batch
from rowvec.domain.parts import in_parts
from rowvec.pipeline.allowance import Allowance
from rowvec.pipeline.announce import Announcer
from rowvec.pipeline.due_board import DueBoard
from rowvec.pipeline.overdue import Overdue
from rowvec.pipeline.send import Sender
from rowvec.ports import Dispatchable

RECALL_PAUSES_SECONDS: Final = (0.05, 0.1, 0.2, 0.4, 0.8)

log = structlog.get_logger(__name__)


class Way(Protocol):
    """Where a claim's items go."""

    @property
    def model(self) -> str:
        """Whose claims it takes."""

    async def carry(self, claim: Claim) -> None:
        """Account for the items of a claim: brought up to date, given back or handed on."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How work is handed to messages.

    Attributes:
        lanes: those whose work is.
        deadline_seconds: the longest that a message has time.
        message_items: the most items of a message.
        delivery_seconds: how long a delivery may take.
    """

    lanes: frozenset[Lane]
    deadline_seconds: float
    message_items: int
    delivery_seconds: float

    def deadline(self, lane: Lane) -> float:
        """Return how long a message of a lane has time: what it leaves undone must still be in time here."""
        return min(self.deadline_seconds, AIM_SECONDS[lane] / 2)


class Dispatcher:
    """Stands before a model's line.

    What has waited for a message in vain, what is too much and whatever comes while no message may be sent goes on to
    the line; the rest goes out. An immediate item never waits for a message.

    Args:
        line: does what is done here.
        dispatches: marks items as handed over.
        sender: the way to the carrier.
        announcer: tells of immediate rows.
        allowance: how many items may be on their way.
        overdue: is told of what comes back.
        board: is offered what comes back.
        terms: how it is done.
        models: those that are worked for here.
        new_name: names a message.
    """

    def __init__(  # noqa: PLR0913 - a room's doors, each wired once
        self,
        line: Way,
        dispatches: Dispatchable,
        sender: Sender,
        announcer: Announcer,
        allowance: Allowance,
        overdue: Overdue,
        board: DueBoard,
        terms: Terms,
        models: Callable[[], Collection[str]],
        new_name: Callable[[], UUID],
    ) -> None:
        self._line = line
        self._dispatches = dispatches
        self._sender = sender
        self._announcer = announcer
        self._allowance = allowance
        self._overdue = overdue
        self._board = board
        self._terms = terms
        self._models = models
        self._new_name = new_name

    @property
    def model(self) -> str:
        """The model's name."""
        return self._line.model

    async def carry(self, claim: Claim) -> None:
        """Send what may go, and do the rest here; what can't be accounted for goes back at the next heartbeat."""
        if claim.slot.lane not in self._terms.lanes:
            await self._line.carry(claim)
        elif claim.slot.lane is Lane.IMMEDIATE:
            self._announcer.tell(claim)
            await self._line.carry(claim)
        else:
            await self._part(claim)

    async def _part(self, claim: Claim) -> None:
        fresh = [item for item in claim.items if item.fresh]
        self._overdue.note(sum(item.overdue for item in claim.items))
        admitted = self._sender.admit() if fresh else BreakerState.OPEN
        away = await self._choose(fresh, admitted)
        async with asyncio.TaskGroup() as here:
            self._keep(here, claim, {item.id for item in away})
            if away:
                await self._hand_over(here, replace(claim, items=away), admitted)

    def _keep(self, here: asyncio.TaskGroup, claim: Claim, away: Collection[int]) -> None:
        """Have done here what does not go away."""
        if items := [item for item in claim.items if item.id not in away]:
            here.create_task(self._line.carry(replace(claim, items=items)))

    async def _choose(self, fresh: Sequence[Item], admitted: BreakerState) -> Sequence[Item]:
        """Return which of these go out."""
        match admitted:
            case BreakerState.CLOSED:
                return fresh[: await self._granted(len(fresh))]
            case BreakerState.HALF_OPEN:
                return fresh[: self._terms.message_items]
            case BreakerState.OPEN:
                return ()

    async def _granted(self, wanted: int) -> int:
        try:
            return await self._allowance.take(wanted)
        except DatabaseUnavailableError as error:
            log.debug("allowance.unknown", error=str(error))
            return 0

    async def _hand_over(self, here: asyncio.TaskGroup, claim: Claim, admitted: BreakerState) -> None:
        try:
            with self._tried(admitted):
                marked = await self._mark(claim)
                self._keep(here, claim, {id_ for dispatch in marked for id_ in dispatch.ids})
                refused = await self._send(marked)
            for dispatch in refused:
                await self._recall(dispatch)
        except DatabaseUnavailableError as error:
            # What was marked is due at its deadline, the rest is given back at the next heartbeat.
            log.warning("dispatch.interrupted", model=self.model, items=len(claim.items), error=str(error))

    @contextmanager
    def _tried(self, admitted: BreakerState) -> Iterator[None]:
        """Leave the try to somebody else when it has come to nothing: as soon as that is known."""
        try:
            yield
        finally:
            if admitted is BreakerState.HALF_OPEN:
                self._sender.desist()

    async def _mark(self, claim: Claim) -> list[Dispatch]:
        """Hand items over to messages that are still to be sent; what has lost its token or can't wait is left out."""
        deadline = self._terms.deadline(claim.slot.lane)
        parts = in_parts([item.id for item in claim.items], self._terms.message_items)
        models = self._models()
        marked = [await self._dispatches.dispatch(claim, ids, self._new_name(), deadline, models) for ids in parts]
        return [dispatch for dispatch in marked if dispatch.ids]

    async def _send(self, dispatches: Sequence[Dispatch]) -> list[Dispatch]:
        """Send messages; return those that were refused."""
        if not dispatches:
            return []
        seconds = self._terms.delivery_seconds
        messages = [ask_for_batch(dispatch.message, dispatch.rows, seconds) for dispatch in dispatches]
        refusals = await self._sender.send(messages, [len(dispatch.ids) for dispatch in dispatches])
        return [dispatch for dispatch, refusal in zip(dispatches, refusals, strict=True) if refusal is not None]

    async def _recall(self, dispatch: Dispatch) -> None:
        """Take back what a message does not carry.

        What the fold or a writer holds just now is tried again for a while, and then left to its deadline.
        """
        for pause_seconds in RECALL_PAUSES_SECONDS:
            slots, held = await self._dispatches.recall(dispatch)
            self._board.offer(slots)
            if not held:
                return
            await asyncio.sleep(pause_seconds)
