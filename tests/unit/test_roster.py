from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from rowvec.domain.errors import ConfigurationError, DatabaseUnavailableError
from rowvec.domain.items import Slot
from rowvec.domain.lanes import Lane
from rowvec.domain.load import BreakerState, ModelLoad
from rowvec.domain.registered import RegisteredModel
from rowvec.health import Health, Part
from rowvec.pipeline import roster
from rowvec.pipeline.bell import Bell, Cause
from rowvec.pipeline.due_board import EVER, DueBoard
from rowvec.pipeline.roster import LEFT, NOBODY, Roster

PATIENCE_SECONDS = 5.0
SLOT = Slot("a", Lane.BULK, "post")


class StubWork:
    """Ends when told to stop, or when cancelled where it `clings`."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.has_room = False
        self.clings = False
        self.runs = False
        self.crash: Exception | None = None
        self.told = asyncio.Event()

    def load(self) -> ModelLoad:
        return ModelLoad(BreakerState.CLOSED, "", datetime(2026, 1, 1, tzinfo=UTC), 0.0, len(self.way))

    def stop(self) -> None:
        if not self.clings:
            self.told.set()

    async def run(self) -> None:
        self.runs = True
        try:
            await self.told.wait()
            if self.crash:
                raise self.crash
        finally:
            self.runs = False


class World:
    """A roster with all that is around it. The way of a model is what `served` says; "?" can't be gone."""

    def __init__(self, own: Sequence[str] = ()) -> None:
        self.registered: list[RegisteredModel] = []
        self.failures = 0
        self.looks = asyncio.Semaphore(0)
        self.made: list[tuple[str, StubWork]] = []
        self.health, self.board = Health(lambda: 0.0), DueBoard(lambda: 0.0)
        self.calls, self.bell = Bell(), Bell()
        self.roster = Roster[str](
            self, self.reach, self.make, own, self.board, self.calls, self.bell, self.health,
            self.health.pulse("roster", 30.0),
        )  # fmt: skip

    async def active(self) -> Sequence[RegisteredModel]:
        self.looks.release()
        if self.failures:
            self.failures -= 1
            raise DatabaseUnavailableError("Postgres is away.")
        return list(self.registered)

    def reach(self, model: RegisteredModel) -> str | None:
        way = (model.served or {}).get("url")
        if way == "?":
            raise ConfigurationError("It can't be used.", "Use another.")
        return way

    def make(self, name: str, way: str) -> StubWork:
        if way == "!":
            raise ConfigurationError("It is not installed.", "Install it.")
        self.made.append((name, StubWork(way)))
        return self.made[-1][1]

    def work(self, name: str) -> StubWork:
        """Return what was made for a model last."""
        return next(work for made, work in reversed(self.made) if made == name)

    def say(self, **ways: str | None) -> None:
        """Have these models registered, name to way."""
        self.registered = [RegisteredModel(name, 8, {"url": way}) for name, way in ways.items()]
        self.calls.ring(Cause.NOTIFY)

    async def looked(self, times: int = 1) -> None:
        """Wait for so many looks that begin from now on, and for what follows from them."""
        while not self.looks.locked():
            await self.looks.acquire()
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(times):
                self.calls.ring(Cause.NOTIFY)
                await self.looks.acquire()
        for _ in range(20):
            await asyncio.sleep(0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.roster.run())
        try:
            await self.looked()
            yield task
        finally:
            self.roster.stop()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.wait([task])
            assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "PAUSE_SECONDS", 0.0)


async def test_it_works_for_the_active_models_that_can_be_reached() -> None:
    world = World()
    world.say(a="one", b="two", c=None)
    async with world.running():
        await world.looked()
        assert sorted(world.roster.models) == ["a", "b"]
        assert world.work("a").runs
        assert world.work("b").runs
        assert world.roster.complaints == []
        assert [check.note for check in world.health.ready() if check.name == Part.MODELS] == ["a, b"]


async def test_a_look_that_changes_nothing_leaves_all_as_it_is() -> None:
    world = World()
    world.say(a="one")
    async with world.running():
        await world.looked(3)
        assert len(world.made) == 1


async def test_one_that_comes_is_begun_and_looked_for_and_the_others_notice_nothing() -> None:
    world = World()
    world.say(a="one")
    async with world.running():
        await world.bell.wait(0)
        world.say(a="one", b="two")
        await world.looked()
        assert sorted(world.roster.models) == ["a", "b"]
        assert await world.bell.wait(0) is Cause.SWEEP
        assert [name for name, _ in world.made] == ["a", "b"]


async def test_nobody_has_to_call() -> None:
    world = World()
    async with world.running():
        world.registered = [RegisteredModel("a", 8, {"url": "one"})]

        async with asyncio.timeout(PATIENCE_SECONDS):
            while not world.made:  # noqa: ASYNC110 - it looks by itself
                await asyncio.sleep(0.01)


async def test_one_that_goes_is_ended_and_forgotten_and_the_others_notice_nothing() -> None:
    world = World()
    world.say(a="one", b="two")
    async with world.running():
        world.board.lower_floors({SLOT: EVER})
        world.board.rest_model("a", "It is slow.")
        world.say(b="two")
        await world.looked()
        assert list(world.roster.models) == ["b"]
        assert not world.work("a").runs
        assert world.work("b").runs
        assert world.board.resting() == []
        assert world.roster.complaints == []


async def test_one_that_does_not_end_by_itself_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "FINISH_SECONDS", 0.01)
    world = World()
    world.say(a="one")
    async with world.running():
        world.work("a").clings = True
        world.say()
        await world.looked()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while world.work("a").runs:  # noqa: ASYNC110 - its task is the roster's own
                await asyncio.sleep(0.01)


async def test_one_that_is_reached_in_another_way_ends_before_it_begins_anew() -> None:
    world = World()
    world.say(a="one")
    async with world.running():
        old = world.work("a")
        old.clings = True
        world.say(a="two")
        await world.looked(3)
        assert len(world.made) == 1
        old.told.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(world.made) == 1:  # noqa: ASYNC110 - nobody has to call
                await asyncio.sleep(0)
        await world.looked()
        assert [work.way for _, work in world.made] == ["one", "two"]
        assert not old.runs
        assert world.work("a").runs


async def test_one_that_comes_back_is_worked_for_again() -> None:
    world = World()
    world.say(a="one")
    async with world.running():
        world.say()
        await world.looked()
        world.say(a="one")
        await world.looked()
        assert len(world.made) == 2
        assert world.work("a").runs


@pytest.mark.parametrize(
    ("way", "why"), [("?", "It can't be used. Use another."), ("!", "It is not installed. Install it.")]
)
async def test_one_that_can_not_be_used_is_told_and_keeps_nobody_else(way: str, why: str) -> None:
    world = World()
    world.say(a=way, b="two")
    async with world.running():
        await world.looked()
        assert list(world.roster.models) == ["b"]
        assert world.roster.complaints == [f"model a: {why}"]
        world.say(a="one", b="two")
        await world.looked()
        assert sorted(world.roster.models) == ["a", "b"]
        assert world.roster.complaints == []


async def test_one_at_work_that_can_not_be_used_any_more_is_ended() -> None:
    world = World()
    world.say(a="one")
    async with world.running():
        world.say(a="?")
        await world.looked()
        assert not world.work("a").runs
        assert world.roster.complaints == ["model a: It can't be used. Use another."]
        world.say()
        await world.looked()
        assert world.roster.complaints == []


async def test_of_its_own_one_that_is_gone_is_missed() -> None:
    world = World(own=["a"])
    world.say(a="one")
    async with world.running():
        assert world.roster.complaints == []
        world.say()
        await world.looked()
        assert world.roster.complaints == [f"model a: {LEFT}"]
        assert [check.note for check in world.health.ready() if check.name == Part.MODELS] == [NOBODY]
        world.say(a="one")
        await world.looked(2)
        assert world.roster.complaints == []
        assert world.work("a").runs


async def test_without_a_model_it_waits() -> None:
    world = World()
    async with world.running() as task:
        await world.looked()
        assert not task.done()
        assert not world.roster.has_room
        assert [(check.well, check.note) for check in world.health.ready() if check.name == Part.MODELS] == [
            (True, NOBODY)
        ]


async def test_while_postgres_is_away_all_stays_as_it_is() -> None:
    world = World()
    world.say(a="one")
    async with world.running():
        world.failures = 2
        await world.looked(3)
        assert len(world.made) == 1
        assert world.work("a").runs


async def test_there_is_room_where_a_model_has_some() -> None:
    world = World()
    world.say(a="one", b="two")
    async with world.running():
        assert not world.roster.has_room
        world.work("b").has_room = True
        assert world.roster.has_room


async def test_what_those_at_work_stand_at_is_told_by_name() -> None:
    world = World()
    world.say(a="one", b="three")
    async with world.running():
        assert {name: load.requests_in_hand for name, load in world.roster.load().items()} == {"a": 3, "b": 5}


async def test_stopped_it_ends_when_all_have_finished() -> None:
    world = World()
    world.say(a="one", b="two")
    async with world.running() as task:
        world.work("a").clings = True
        world.roster.stop()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not world.work("b").runs
        assert not task.done()
        world.work("a").told.set()
        await asyncio.wait([task], timeout=PATIENCE_SECONDS)
        assert task.done()
        await task


async def test_stopped_before_it_began_it_begins_nothing() -> None:
    world = World()
    world.roster.stop()
    await world.roster.run()
    assert world.made == []


async def test_a_crash_of_one_models_work_ends_all() -> None:
    world = World()
    world.say(a="one", b="two")
    async with world.running() as task:
        world.work("a").crash = ZeroDivisionError()
        world.work("a").told.set()
        await asyncio.wait([task], timeout=PATIENCE_SECONDS)
        with pytest.raises(ExceptionGroup) as caught:
            await task
        assert caught.group_contains(ZeroDivisionError)
        assert not world.work("b").runs
