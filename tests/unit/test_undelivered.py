"""From messages that have died back to the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

import pytest

from rowvec.domain.errors import DatabaseUnavailableError, UsageError
from rowvec.domain.items import Key, Slot
from rowvec.domain.lanes import Lane
from rowvec.domain.messages import Asked
from rowvec.domain.row_states import Delivered, Fingerprint, LaneCount, RowStanding
from rowvec.pipeline.bell import Bell, Cause
from rowvec.pipeline.undelivered import UndeliveredRows

NAME: Final = UUID(int=7)
POST: Final = Key("post", "1")
PETS: Final = Key("pets", "1")
ODD: Final = Key("post", "x")


class World:
    """Whom the way back leads to: see `ports.Deliverer` and `ports.RowStates`.

    Attributes:
        taken_back: messages, and their rows.
        queued: what was asked for, request by request.
        away: whether Postgres is.
    """

    def __init__(self) -> None:
        self.taken_back: list[tuple[UUID, Sequence[Key]]] = []
        self.queued: list[Mapping[Key, int | None]] = []
        self.away = False
        self.bell = Bell()
        self.way = UndeliveredRows(_Deliverer(self), _States(self), self.bell)

    async def rung(self) -> bool:
        return await self.bell.wait(0) is Cause.NOTIFY


class _Deliverer:
    def __init__(self, world: World) -> None:
        self._world = world

    async def deliver(self, rows: Mapping[Key, int | None], *, dispatched: bool) -> Delivered:
        raise NotImplementedError

    async def take_back(self, message: UUID, rows: Sequence[Key]) -> None:
        self._world.taken_back.append((message, rows))


class _States:
    def __init__(self, world: World) -> None:
        self._world = world

    async def enqueue(self, rows: Mapping[Key, int | None]) -> None:
        """As the real one: all of them, or none."""
        if self._world.away:
            raise DatabaseUnavailableError("Postgres can't be reached.")
        if PETS in rows:
            raise UsageError('No source is watched as "pets".')
        if ODD in rows:
            raise UsageError('"x" is no key of "post".')
        self._world.queued.append(rows)

    async def show(self, rows: Sequence[Key]) -> Mapping[Key, RowStanding]:
        raise NotImplementedError

    async def fingerprints(self, model: str, rows: Sequence[Key]) -> Mapping[Key, Fingerprint]:
        raise NotImplementedError

    async def take_back(self, message: UUID, rows: Sequence[Key]) -> Sequence[Slot]:
        raise NotImplementedError

    async def count(self) -> Mapping[Lane, LaneCount]:
        raise NotImplementedError


@pytest.fixture
def world() -> World:
    return World()


async def test_what_waits_in_the_queue_is_taken_back_and_not_asked_for_again(world: World) -> None:
    assert await world.way.lead_back(Asked(NAME, {POST: 3, PETS: 3})) == {}
    assert (world.taken_back, world.queued, await world.rung()) == ([(NAME, [POST, PETS])], [], False)


async def test_what_somebody_else_asked_for_is_queued(world: World) -> None:
    assert await world.way.lead_back(Asked(None, {POST: 3})) == {}
    assert (world.taken_back, world.queued, await world.rung()) == ([], [{POST: 3}], True)


async def test_rows_that_can_t_be_queued_keep_no_other(world: World) -> None:
    lost = await world.way.lead_back(Asked(None, {PETS: None, POST: 3, ODD: 1}))
    assert lost == {PETS: 'No source is watched as "pets".', ODD: '"x" is no key of "post".'}
    assert (world.queued, await world.rung()) == ([{POST: 3}], True)


async def test_nobody_is_woken_for_nothing(world: World) -> None:
    assert (await world.way.lead_back(Asked(None, {PETS: None}))).keys() == {PETS}
    assert (world.queued, await world.rung()) == ([], False)


async def test_without_postgres_it_says_so(world: World) -> None:
    world.away = True
    with pytest.raises(DatabaseUnavailableError):
        await world.way.lead_back(Asked(None, {POST: 3, PETS: 3}))
