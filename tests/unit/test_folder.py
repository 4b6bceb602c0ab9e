from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest

from rowvec.domain.errors import DatabaseUnavailableError
from rowvec.domain.items import Claim, Floors, Fold, Item, Slot
from rowvec.domain.lanes import Lane
from rowvec.health import Pulse
from rowvec.pipeline import fold
from rowvec.pipeline.bell import Bell, Cause
from rowvec.pipeline.due_board import EVER, STRAGGLERS, DueBoard
from rowvec.pipeline.fold import AWAKE_SECONDS, BATCH_CHANGES, RENEW_SECONDS, STRAGGLER_CHANGES, Folder
from rowvec.telemetry import Metrics

FOR_EVER = 3600.0
PATIENCE_SECONDS = 2.0
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SLOT = Slot("m", Lane.IMMEDIATE, "course")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Database:
    """The change log, the queue and the wake source in memory; notes what is asked of it, in order."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.held: set[int] = set()
        self.due: list[Slot] = []
        self.events: list[str] = []
        self.floors: list[int] = []
        self.since: list[datetime] = []
        self.awake_until: float | None = None
        self.awake_at_probe: list[float | None] = []
        self.failures = 0
        self.on_fold: Callable[[], None] = lambda: None
        self.on_clear: Callable[[], None] = lambda: None
        self.on_notify: Callable[[], None] = lambda: None
        self.looks = asyncio.Semaphore(0)

    async def fold(self, floors: Floors, batch: int) -> Fold:
        """All changes are of one urgency here."""
        await asyncio.sleep(0)
        self._fail()
        self.events.append("fold")
        floor = floors.other
        self.floors.append(floor)
        self.on_fold()
        taken = sorted(change for change in self.ids if change >= floor)[:batch]
        if not taken:
            return Fold(locked=True)
        free = [change for change in taken if change not in self.held]
        self.ids = [change for change in self.ids if change not in free]
        floors = floors._replace(other=taken[-1] + 1)
        return Fold(True, floors, len(free), [SLOT] if free else [])  # noqa: FBT003 - the lock was had

    async def unfilled(self, max_waiting: int) -> Sequence[tuple[str, str | None]]:
        raise NotImplementedError

    async def append_backfill(self, content_type: str, model: str | None) -> int:
        raise NotImplementedError

    async def probe(self, models: Sequence[str], since: datetime) -> Mapping[Slot, datetime]:
        await asyncio.sleep(0)
        assert models == ["m"]
        self.events.append("probe")
        self.awake_at_probe.append(self.awake_until)
        self.since.append(since)
        self.looks.release()
        return dict.fromkeys(self.due, NOON)

    async def claim(self, slot: Slot, token: object, limit: int, since: datetime) -> Claim:
        raise NotImplementedError

    async def demote(self, claim: Claim, ids: Sequence[int]) -> None:
        raise NotImplementedError

    async def release(self, claim: Claim, ids: Sequence[int], delay_seconds: float) -> None:
        raise NotImplementedError

    async def fail(self, claim: Claim, delays: object, message: str, detail: str) -> None:
        raise NotImplementedError

    def listen(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        raise NotImplementedError

    async def mark_awake(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.events.append("mark")
        self.awake_until = seconds

    async def clear_awake(self) -> None:
        await asyncio.sleep(0)
        self.events.append("clear")
        self.awake_until = None
        self.on_clear()

    async def notify(self) -> None:
        await asyncio.sleep(0)
        self.events.append("notify")
        self.on_notify()

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise DatabaseUnavailableError("Postgres is away.")

    async def looked(self, times: int = 1) -> None:
        """Wait for so many looks: each ends with a probe."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(times):
                await self.looks.acquire()
        for _ in range(5):
            await asyncio.sleep(0)


class World:
    """A folder with all that is around it."""

    def __init__(self, poll_seconds: float = FOR_EVER, sweep_seconds: float = FOR_EVER) -> None:
        self.clock, self.database, self.bell, self.metrics = Clock(), Database(), Bell(), Metrics()
        self.board = DueBoard(self.clock)
        self.room = True
        self.pulse = Pulse("fold", 30.0, self.clock)
        self.folder = Folder(
            self.database,
            self.database,
            self.database,
            self.bell,
            self.board,
            ["m"],
            lambda: self.room,
            self.pulse,
            self.metrics,
            self.clock,
            poll_seconds,
            sweep_seconds,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Database]:
        """Run the folder; the first look, a sweep, is over when the block begins."""
        task = asyncio.create_task(self.folder.run())
        try:
            await self.database.looked()
            yield self.database
            assert not task.done()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold, "OUTAGE_SECONDS", 0.0)
    monkeypatch.setattr(fold, "SETTLE_SECONDS", 0.001)


async def offered(board: DueBoard) -> Slot:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await board.take("m", Lane.IMMEDIATE)


async def test_the_first_look_is_a_sweep_and_finds_what_was_there() -> None:
    world = World()
    world.database.ids = [1, 2, 3]
    async with world.running() as database:
        assert database.floors[0] == 0
        assert database.since[0] == EVER
        assert database.ids == []
        assert await offered(world.board) == SLOT
        assert world.count("rowvec_changes_folded_total") == 3


async def test_a_ring_makes_it_look() -> None:
    world = World()
    async with world.running() as database:
        database.ids = [7]
        world.bell.ring(Cause.NOTIFY)
        await database.looked()
        assert database.ids == []
        assert world.count("rowvec_wakeups_total", cause="notify", worked="yes") == 1


async def test_without_a_ring_it_looks_at_intervals() -> None:
    world = World(poll_seconds=0.001)
    async with world.running() as database:
        database.ids = [7]
        await database.looked(3)
        assert database.ids == []
        assert world.count("rowvec_wakeups_total", cause="poll", worked="no") >= 1


async def test_after_work_it_looks_once_more_by_itself() -> None:
    world = World()
    world.database.ids = [1]
    async with world.running() as database:
        await database.looked()
        assert not database.ids
        assert database.events.count("probe") == 2


async def test_all_batches_are_folded_in_one_look() -> None:
    world = World()
    world.database.ids = list(range(1, 3 * BATCH_CHANGES + 2))
    async with world.running() as database:
        before_probe = database.events[: database.events.index("probe")]
        assert before_probe.count("fold") >= 4
        assert database.ids == []
        assert world.count("rowvec_changes_folded_total") == 3 * BATCH_CHANGES + 1


async def test_what_is_due_is_offered() -> None:
    world = World()
    async with world.running() as database:
        database.due = [SLOT]
        world.bell.ring(Cause.POLL)
        await database.looked()
        assert await offered(world.board) == SLOT


async def test_a_held_change_is_passed_over_and_found_again() -> None:
    world = World()
    world.database.ids, world.database.held = [1, 2, 3], {2}
    async with world.running() as database:
        assert database.ids == [2]
        database.held = set()
        world.bell.ring(Cause.NOTIFY)
        await database.looked()
        assert database.ids == []


@pytest.mark.parametrize("others", [0, 3])
async def test_a_change_that_a_writer_holds_keeps_it_neither_busy_nor_from_probing(others: int) -> None:
    world = World()
    world.database.ids, world.database.held = list(range(1, 2 + others)), {1}
    world.database.due = [SLOT]
    folds = 0

    def count() -> None:
        nonlocal folds
        folds += 1
        assert folds < 50, "folds without end while a writer holds a change"

    world.database.on_fold = count
    async with world.running() as database:
        assert "probe" in database.events


async def test_while_it_works_with_room_writers_are_spared() -> None:
    world = World()
    world.database.ids = list(range(1, 2 * BATCH_CHANGES + 1))
    marked: list[float | None] = []
    world.database.on_fold = lambda: marked.append(world.database.awake_until)
    async with world.running() as database:
        assert database.events[: database.events.index("probe")] == ["fold", "fold", "mark", "fold", "clear", "fold"]
        assert marked[:3] == [None, None, AWAKE_SECONDS]


async def test_a_trickle_of_changes_sets_no_mark() -> None:
    world = World()
    async with world.running() as database:
        for change in range(1, 6):
            database.ids.append(change)
            world.bell.ring(Cause.NOTIFY)
            await database.looked()
        assert not database.ids
        assert set(database.events) == {"fold", "probe"}


async def test_held_changes_are_no_work_to_spare_writers_for() -> None:
    world = World()
    world.database.ids = list(range(1, BATCH_CHANGES + 3))
    world.database.held = {BATCH_CHANGES + 1, BATCH_CHANGES + 2}
    async with world.running() as database:
        assert database.ids == [BATCH_CHANGES + 1, BATCH_CHANGES + 2]
        assert "mark" not in database.events


async def test_without_room_writers_are_not_spared() -> None:
    world = World()
    world.room = False
    world.database.ids = list(range(1, 3 * BATCH_CHANGES))
    async with world.running() as database:
        assert "mark" not in database.events
        assert "clear" not in database.events


async def test_with_nothing_to_do_the_mark_is_neither_set_nor_cleared() -> None:
    world = World(poll_seconds=0.001)
    async with world.running() as database:
        await database.looked(3)
        assert set(database.events) == {"fold", "probe"}


async def test_the_mark_is_renewed_once_a_second_while_a_backlog_is_folded() -> None:
    world = World()
    world.database.ids = list(range(1, 12 * BATCH_CHANGES))

    def tick() -> None:
        world.clock.now += RENEW_SECONDS / 4

    world.database.on_fold = tick
    async with world.running() as database:
        until_clear = database.events[: database.events.index("clear")]
        assert until_clear.count("fold") == 13
        assert until_clear.count("mark") == 3


async def test_the_mark_is_cleared_at_the_first_empty_look_and_looked_again() -> None:
    world = World()
    async with world.running() as database:
        # A writer saw the mark and committed without a NOTIFY, just before the mark was cleared.
        appended = iter([5000])
        database.on_clear = lambda: database.ids.extend(appended)
        database.events.clear()
        database.ids = list(range(1, BATCH_CHANGES + 2))
        world.bell.ring(Cause.NOTIFY)
        await database.looked()
        assert database.ids == []
        assert database.events[:6] == ["fold", "fold", "mark", "fold", "clear", "fold"]
        assert database.awake_until is None


@pytest.mark.parametrize("late", [0, 1, BATCH_CHANGES + 1, 3 * BATCH_CHANGES])
async def test_asleep_the_mark_is_never_left_set(late: int) -> None:
    world = World()
    world.database.ids = list(range(1, BATCH_CHANGES + 2))
    batches = iter([list(range(1000, 1000 + late)), list(range(5000, 5000 + late))])
    world.database.on_clear = lambda: world.database.ids.extend(next(batches, []))
    async with world.running() as database:
        await database.looked()
        assert "mark" in database.events
        assert database.ids == []
        assert set(database.awake_at_probe) == {None}


async def test_the_floor_stays_behind_the_last_change_seen() -> None:
    world = World()
    world.database.ids = [50_000]
    async with world.running() as database:
        await database.looked()
        world.bell.ring(Cause.NOTIFY)
        await database.looked()
        assert database.floors[-1] == 50_001 - STRAGGLER_CHANGES


async def test_a_straggler_is_found_without_a_sweep_when_it_is_not_far_behind() -> None:
    world = World()
    world.database.ids = [50_000]
    async with world.running() as database:
        await database.looked()
        database.ids = [49_500, 20_000]
        world.bell.ring(Cause.NOTIFY)
        await database.looked()
        assert database.ids == [20_000]
        world.bell.ring(Cause.SWEEP)
        await database.looked()
        assert database.ids == []


async def test_the_floor_never_falls() -> None:
    world = World()
    world.database.ids = [50_000]
    async with world.running() as database:
        database.ids = [10]
        world.bell.ring(Cause.SWEEP)
        await database.looked(2)
        world.bell.ring(Cause.NOTIFY)
        await database.looked()
        assert database.floors[-1] == 50_001 - STRAGGLER_CHANGES


async def test_a_probe_looks_from_the_lowest_floor_and_a_sweep_from_ever() -> None:
    world = World()
    async with world.running() as database:
        late = NOON + timedelta(hours=1)
        world.board.saw(Claim(SLOT, uuid.uuid4(), [Item(1, "1", 1, 0, late)]), limit=64)
        world.bell.ring(Cause.NOTIFY)
        await database.looked()
        assert database.since[-1] == late - STRAGGLERS
        database.due = [SLOT]
        world.bell.ring(Cause.SWEEP)
        await database.looked()
        assert database.since[-1] == EVER
        assert world.board.floor(SLOT) == NOON


async def test_every_so_often_a_look_is_a_sweep() -> None:
    world = World(sweep_seconds=2.0)
    async with world.running() as database:
        for now, since_ever in [(1001.9, False), (1002.0, True), (1003.9, False), (1004.1, True)]:
            world.board.saw(Claim(SLOT, uuid.uuid4(), [Item(1, "1", 1, 0, NOON)]), limit=64)
            world.clock.now = now
            world.bell.ring(Cause.POLL)
            await database.looked()
            assert (database.since[-1] == EVER) is since_ever


async def test_a_sweep_needs_no_ring() -> None:
    world = World(sweep_seconds=0.001)
    async with world.running() as database:
        world.clock.now += 1
        world.bell.ring(Cause.POLL)
        await database.looked()
        database.ids = [1]
        world.clock.now += 0.001
        while database.ids:  # looks that began before do not count
            await database.looked()


async def test_work_left_without_room_wakes_the_others() -> None:
    world = World()
    async with world.running() as database:
        world.room = False
        database.due = [SLOT]
        world.bell.ring(Cause.NOTIFY)
        await database.looked()
        assert database.events[-1] == "notify"


@pytest.mark.parametrize(("room", "due"), [(True, [SLOT]), (False, []), (True, [])])
async def test_nobody_is_woken_without_reason(*, room: bool, due: list[Slot]) -> None:
    world = World()
    async with world.running() as database:
        world.room, database.due = room, due
        world.bell.ring(Cause.NOTIFY)
        await database.looked()
        assert "notify" not in database.events


async def test_waking_the_others_does_not_keep_it_from_sleeping() -> None:
    world = World()
    async with world.running() as database:
        database.on_notify = lambda: world.bell.ring(Cause.NOTIFY)  # as its own listener does
        world.room = False
        database.due = [SLOT]
        world.bell.ring(Cause.NOTIFY)
        await database.looked(2)
        assert database.events.count("notify") <= 2


async def test_it_survives_an_outage_and_sweeps_after_it() -> None:
    world = World()
    async with world.running() as database:
        database.ids = [1]
        database.floors.clear()
        database.failures = 5
        world.bell.ring(Cause.NOTIFY)
        await database.looked()
        assert database.failures == 0
        assert database.floors[0] == 0
        assert database.ids == []


async def test_an_outage_while_falling_asleep_loses_nothing() -> None:
    world = World()
    async with world.running() as database:

        def once() -> None:
            database.on_clear = lambda: None
            database.ids.append(2)
            database.failures = 1

        database.on_clear = once
        database.ids = list(range(3, BATCH_CHANGES + 10))
        world.bell.ring(Cause.NOTIFY)
        await database.looked()
        assert database.ids == []


async def test_writers_that_never_pause_do_not_put_off_the_sweep() -> None:
    world = World(sweep_seconds=60.0)
    async with world.running() as database:

        def write_on() -> None:
            database.ids.append(max(database.ids, default=5000) + 1)
            world.clock.now += 1.0

        database.on_fold = write_on
        database.floors.clear()
        world.bell.ring(Cause.NOTIFY)
        await database.looked()
        # The straggler's floor: only a sweep looks from the very first change.
        assert 0 in database.floors
        assert world.count("rowvec_wakeups_total", cause="sweep", worked="yes") >= 1
        database.on_fold = lambda: None


async def test_another_error_ends_it() -> None:
    world = World()

    def broken() -> None:
        raise ZeroDivisionError

    world.database.on_fold = broken
    with pytest.raises(ZeroDivisionError):
        await world.folder.run()


async def test_every_look_and_every_batch_is_a_sign_of_life() -> None:
    world = World()
    world.database.ids = list(range(1, 3 * BATCH_CHANGES))
    beaten: list[float] = []

    def tick() -> None:
        beaten.append(world.pulse.beaten_at)
        world.clock.now += 20.0

    world.database.on_fold = tick
    async with world.running():
        assert beaten[:4] == [1000.0, 1020.0, 1040.0, 1060.0]
