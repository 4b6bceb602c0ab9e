from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

import pytest

from rowvec import lifecycle
from rowvec.domain.errors import DatabaseUnavailableError
from rowvec.domain.load import ALL_HERE, CarrierLoad, ModelLoad
from rowvec.health import Health
from rowvec.lifecycle import Rooms, run_until_stopped, watchdog_fed
from rowvec.systemd import Notifier

PATIENCE_SECONDS = 5.0


class Diary(list[str]):
    pass


class Upstream:
    def __init__(self, name: str, diary: Diary, crash: Exception | None = None) -> None:
        self.name, self.diary, self.crash = name, diary, crash
        self.crash_now = asyncio.Event()

    async def run(self) -> None:
        self.diary.append(f"{self.name} runs")
        try:
            await self.crash_now.wait()
            assert self.crash is not None
            raise self.crash
        finally:
            self.diary.append(f"{self.name} ended")


class StubClaimer:
    """Ends when it was told to stop and its work is done."""

    def __init__(self, diary: Diary) -> None:
        self.diary = diary
        self.told = asyncio.Event()
        self.finished = asyncio.Event()
        self.finished.set()

    async def run(self) -> None:
        self.diary.append("claim runs")
        try:
            await self.told.wait()
            await self.finished.wait()
            self.diary.append("claim finished")
        except asyncio.CancelledError:
            self.diary.append("claim cancelled")
            raise

    def stop(self) -> None:
        self.diary.append("claim stops")
        self.told.set()


class StubPresence:
    def __init__(self, diary: Diary) -> None:
        self.diary = diary
        self.error: Exception | None = None
        self.hangs = False

    async def beat(
        self, resting: Sequence[str], load: Mapping[str, ModelLoad], carrier: CarrierLoad = ALL_HERE
    ) -> None:
        raise NotImplementedError

    async def release_lost(self) -> int:
        raise NotImplementedError

    async def renew(self, tokens: Collection[UUID]) -> None:
        assert not tokens

    async def leave(self) -> None:
        self.diary.append("presence leaves")
        if self.error:
            raise self.error
        if self.hangs:
            await asyncio.Event().wait()
        self.diary.append("presence left")


class StubNotifier(Notifier):
    def __init__(self, diary: Diary, watchdog_seconds: float | None = None) -> None:
        super().__init__("", watchdog_seconds)
        self.diary = diary
        self.fed = asyncio.Event()
        self.feedings = 0

    def stopping(self, status: str) -> bool:
        self.diary.append("systemd told")
        return super().stopping(status)

    def watchdog(self) -> bool:
        self.feedings += 1
        self.fed.set()
        return super().watchdog()


class World:
    def __init__(self) -> None:
        self.diary = Diary()
        self.stop = asyncio.Event()
        self.now = 1000.0
        self.health = Health(lambda: self.now)
        self.upstream = [Upstream("listen", self.diary), Upstream("fold", self.diary)]
        self.claimer, self.presence = StubClaimer(self.diary), StubPresence(self.diary)
        self.heartbeat = Upstream("heartbeat", self.diary)
        self.notifier = StubNotifier(self.diary)
        self.rooms = Rooms(self.upstream, self.claimer, self.heartbeat, self.presence, [])

    def start(self, drain_seconds: float = PATIENCE_SECONDS) -> asyncio.Task[None]:
        return asyncio.create_task(run_until_stopped(self.rooms, self.stop, self.health, self.notifier, drain_seconds))


@pytest.fixture
def world() -> World:
    return World()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def ended(task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.wait([task])
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await task


async def test_all_rooms_run_until_told_to_stop(world: World) -> None:
    task = world.start()
    await settle()
    assert sorted(world.diary) == ["claim runs", "fold runs", "heartbeat runs", "listen runs"]
    assert not task.done()
    assert not world.health.draining
    world.stop.set()
    await ended(task)


async def test_rooms_stop_in_the_order_of_the_data(world: World) -> None:
    world.health.pulse("fold", 30.0)
    task = world.start()
    await settle()
    world.diary.clear()
    world.stop.set()
    await ended(task)
    assert world.diary == [
        "systemd told",
        "listen ended",
        "fold ended",
        "claim stops",
        "claim finished",
        "heartbeat ended",
        "presence leaves",
        "presence left",
    ]


async def test_the_heart_beats_while_requests_finish_and_readiness_is_gone_at_once(world: World) -> None:
    world.claimer.finished.clear()
    world.health.pulse("fold", 30.0)
    task = world.start()
    await settle()
    world.stop.set()
    await settle()
    assert world.health.draining
    assert world.diary[-1] == "claim stops"
    assert "heartbeat ended" not in world.diary
    world.claimer.finished.set()
    await ended(task)
    assert "claim cancelled" not in world.diary
    world.now += 1000
    assert world.health.is_live


async def test_requests_that_take_too_long_are_given_up(world: World) -> None:
    world.claimer.finished.clear()
    task = world.start(drain_seconds=0.02)
    await settle()
    world.stop.set()
    await ended(task)
    assert world.diary[-4:] == ["claim cancelled", "heartbeat ended", "presence leaves", "presence left"]


async def test_told_to_stop_before_it_began_it_still_ends_in_order(world: World) -> None:
    world.stop.set()
    await ended(world.start())
    assert world.diary[-1] == "presence left"
    assert "claim finished" in world.diary


async def test_a_presence_that_hangs_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "FAREWELL_SECONDS", 0.02)
    world.presence.hangs = True
    task = world.start()
    await settle()
    world.stop.set()
    await ended(task)
    assert world.diary[-1] == "presence leaves"


def test_the_farewell_is_short() -> None:
    assert 0 < lifecycle.FAREWELL_SECONDS <= 5


async def test_a_farewell_without_a_database_is_no_error(world: World) -> None:
    world.presence.error = DatabaseUnavailableError("Postgres is away.")
    task = world.start()
    await settle()
    world.stop.set()
    await ended(task)


@pytest.mark.parametrize("crashing", ["listen", "fold", "heartbeat"])
async def test_a_room_that_crashes_ends_all_of_it(world: World, crashing: str) -> None:
    task = world.start()
    await settle()
    [room] = [one for one in [*world.upstream, world.heartbeat] if one.name == crashing]
    room.crash = ZeroDivisionError()
    room.crash_now.set()
    with pytest.raises(ExceptionGroup) as caught:
        await ended(task)
    assert caught.group_contains(ZeroDivisionError, depth=1)
    for name in ("listen ended", "fold ended", "claim cancelled", "heartbeat ended"):
        assert world.diary.count(name) == 1
    assert "presence leaves" not in world.diary


async def test_a_room_that_crashes_while_it_drains_ends_all_of_it(world: World) -> None:
    world.claimer.finished.clear()
    task = world.start()
    await settle()
    world.stop.set()
    await settle()
    world.heartbeat.crash = ZeroDivisionError()
    world.heartbeat.crash_now.set()
    with pytest.raises(ExceptionGroup):
        await ended(task)
    assert "claim cancelled" in world.diary


async def test_cancelled_it_leaves_no_task(world: World) -> None:
    task = world.start()
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ended(task)
    assert "heartbeat ended" in world.diary


async def test_the_watchdog_is_fed_while_it_lives(world: World) -> None:
    notifier = StubNotifier(world.diary, watchdog_seconds=0.003)
    pulse = world.health.pulse("fold", 30.0)
    async with watchdog_fed(world.health, notifier), asyncio.timeout(PATIENCE_SECONDS):
        for _ in range(3):
            await notifier.fed.wait()
            notifier.fed.clear()
        world.now += 31
        fed = notifier.feedings
        await asyncio.sleep(0.01)
        assert notifier.feedings == fed
        pulse.beat()
        await notifier.fed.wait()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_watchdog_is_fed_no_more_after_the_block(world: World) -> None:
    notifier = StubNotifier(world.diary)

    async def crash() -> None:
        async with watchdog_fed(world.health, notifier):
            await notifier.fed.wait()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await crash()
    assert asyncio.all_tasks() == {asyncio.current_task()}


class Deaf:
    """A room that takes cancellations for errors of its own and goes on, until its connection is cut off."""

    def __init__(self) -> None:
        self.cut_off = asyncio.Event()

    async def run(self) -> None:
        while not self.cut_off.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.cut_off.wait()


async def test_a_room_that_does_not_end_is_cut_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "CANCEL_SECONDS", 0.01)
    deaf = Deaf()
    world.rooms = replace(world.rooms, upstream=[*world.upstream, deaf], abandon=[deaf.cut_off.set])
    task = world.start()
    await settle()
    world.stop.set()
    await ended(task)
    assert "presence leaves" not in world.diary
