"""Deliver: what becomes of the rows that a message names, within the time that the message has."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final
from uuid import UUID

import structlog

from rowvec.domain.errors import DatabaseUnavailableError, StatementTimeoutError, StoppingError, TryAgainError
from rowvec.domain.items import Key
from rowvec.domain.row_states import Delivered, RowStanding, RowState
from rowvec.pipeline.bell import Bell, Cause
from rowvec.pipeline.claim_rows import Brought, RowClaimer
from rowvec.pipeline.due_board import DueBoard
from rowvec.pipeline.staleness import Staleness
from rowvec.ports import RowStates

WORK_PART: Final = 0.75
"""Of a delivery's time; the rest is for the answer."""
FOLLOW_SECONDS: Final = 0.05
FOLLOW_GROWTH: Final = 1.5
"""Between looks at rows that are on their way without us."""
LONGEST_PAUSE_SECONDS: Final = 0.5
PATIENCE_SECONDS: Final = 0.15
"""How long a pause becomes before what is queued and not to be had is taken for waiting."""
ON_ITS_WAY: Final = frozenset({RowState.ENQUEUED, RowState.PROCESSING, RowState.WAITING})

log = structlog.get_logger(__name__)


class Deliveries:
    """Has rows brought up to date by all models that are here, and says what became of each.

    A model that has once not been done in time is not waited for until it has finished something again: so one that
    hangs takes the time of one message and not of all. For one that is let alone nothing is taken: its items wait for
    their deadline, which is another daemon's turn.

    Args:
        takers: what claims by key, by the names of the models.
        states: how rows stand.
        staleness: finds rows whose change nobody has seen.
        board: tells which models are let alone, and is told of rows that a dead message leaves behind.
        bell: is rung for rows that were not queued.
        at_once: how many messages may be waited for.
        seconds: how long one of them may take.
    """

    def __init__(  # noqa: PLR0913 - a room's doors, each wired once
        self,
        takers: Mapping[str, RowClaimer],
        states: RowStates,
        staleness: Staleness,
        board: DueBoard,
        bell: Bell,
        at_once: int,
        seconds: float,
    ) -> None:
        self._takers = takers
        self._states = states
        self._staleness = staleness
        self._board = board
        self._bell = bell
        self._left = at_once
        self._seconds = seconds
        self._late: set[str] = set()

    async def deliver(self, rows: Mapping[Key, int | None], *, dispatched: bool) -> Delivered:
        """See `ports.Deliverer.deliver`."""
        if not self._takers:
            raise StoppingError("No model takes anything here just now.", "The daemon starts or ends, or has none.")
        with self._room():
            try:
                async with asyncio.timeout(self._seconds):
                    return await self._deliver(rows, dispatched=dispatched)
            except TimeoutError:
                raise StatementTimeoutError("Postgres takes too long to answer.") from None

    async def take_back(self, message: UUID, rows: Sequence[Key]) -> None:
        """See `ports.Deliverer.take_back`."""
        slots = await self._states.take_back(message, rows)
        self._board.offer(slots)
        log.warning("message.died", message=str(message), rows=len(rows), left=bool(slots))

    @contextmanager
    def _room(self) -> Iterator[None]:
        if not self._left:
            raise _full()
        self._left -= 1
        try:
            yield
        finally:
            self._left += 1

    async def _deliver(self, rows: Mapping[Key, int | None], *, dispatched: bool) -> Delivered:
        until = _now() + self._seconds * WORK_PART
        begun = self._begin(list(rows))
        if not begun and self._awake:
            raise _full()
        brought = await self._await(begun, until)
        standings = await self._states.show(list(rows))
        unknown = frozenset(row.content_type for row, standing in standings.items() if not standing.watched)
        states = {row: one.state(brought=row in brought) for row, one in standings.items() if one.watched}
        if not dispatched:
            states |= await self._follow(await self._missed(rows, standings, states), until)
        return Delivered(states, unknown)

    @property
    def _awake(self) -> Sequence[str]:
        """The models that are not let alone.

        What is taken for one that is would only be given back, and go out in the next message: never to be done by
        another daemon, whose model works.
        """
        return self._board.awake(self._takers)

    def _begin(self, rows: Sequence[Key]) -> dict[str, Brought]:
        begun = {model: self._takers[model].bring(rows) for model in self._awake}
        return {model: task for model, task in begun.items() if task is not None}

    async def _await(self, begun: Mapping[str, Brought], until: float) -> frozenset[Key]:
        """Return the rows that were brought in time; the others go on. Raises what kept a model from claiming."""
        if timely := [task for model, task in begun.items() if model not in self._late]:
            await asyncio.wait(timely, timeout=max(until - _now(), 0.0))
        for model, task in begun.items():
            if not task.done():
                self._late.add(model)
                task.add_done_callback(partial(self._note_done, model))
        return frozenset().union(*map(_result, begun.values()))

    def _note_done(self, model: str, _: Brought) -> None:
        self._late.discard(model)

    async def _missed(
        self, rows: Mapping[Key, int | None], standings: Mapping[Key, RowStanding], states: Mapping[Key, RowState]
    ) -> Collection[Key]:
        """Return the rows that are on their way without us; those that are stale are queued now."""
        under_way = {row for row, state in states.items() if standings[row].unfolded or state in ON_ITS_WAY}
        idle = [row for row, state in states.items() if state in {RowState.CURRENT, RowState.GONE}]
        stale = await self._staleness.find([row for row in idle if row not in under_way], list(self._takers))
        if stale:
            await self._states.enqueue({row: rows[row] for row in stale})
            log.info("rows.enqueued", rows=len(stale))
            self._bell.ring(Cause.NOTIFY)
        return under_way | stale

    async def _follow(self, rows: Collection[Key], until: float) -> dict[Key, RowState]:
        """See rows through that become items, or that others work on, as far as the time allows."""
        states: dict[Key, RowState] = {}
        left = list(rows)
        for pause in _pauses(until) if rows else ():
            states |= await self._look(left, until)
            # What is queued may just be on its way into a claim, which is seen when that has committed.
            open_ends = ON_ITS_WAY if pause < PATIENCE_SECONDS else ON_ITS_WAY - {RowState.WAITING}
            left = [row for row in left if states[row] in open_ends]
            if not left:
                break
            await asyncio.sleep(pause)
        return states

    async def _look(self, rows: Sequence[Key], until: float) -> dict[Key, RowState]:
        """Bring what has become an item, and return how rows stand then."""
        standings = await self._states.show(rows)
        if queued := [row for row, standing in standings.items() if "queued" in standing.statuses]:
            await self._await(self._begin(queued), until)
            standings = await self._states.show(rows)
        return {row: _followed(standing) for row, standing in standings.items()}


def _pauses(until: float) -> Iterator[float]:
    """Yield the pauses between looks: at least one, and none that goes beyond a time."""
    pause = FOLLOW_SECONDS
    yield pause
    while _now() + pause < until:
        pause = min(pause * FOLLOW_GROWTH, LONGEST_PAUSE_SECONDS, max(until - _now(), 0.0))
        yield pause


def _followed(standing: RowStanding) -> RowState:
    return RowState.ENQUEUED if standing.unfolded else standing.state(brought=True)


def _result(task: Brought) -> frozenset[Key]:
    if not task.done() or task.cancelled() or task.exception():
        return frozenset()
    if isinstance(found := task.result(), DatabaseUnavailableError):
        raise found
    return found


def _full() -> TryAgainError:
    return TryAgainError("As many messages as there may be are worked on.")


def _now() -> float:
    return asyncio.get_running_loop().time()
