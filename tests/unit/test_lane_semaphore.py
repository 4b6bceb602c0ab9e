from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clocks import FakeClock
from rowvec.domain.errors import ModelUnavailableError, StoppingError
from rowvec.domain.lanes import Lane
from rowvec.pipeline.lane_semaphore import LENT_SECONDS, LaneSemaphore
from rowvec.pipeline.pace import Pace

PATIENCE_SECONDS = 5.0
lanes = st.sampled_from(list(Lane))


class Office:
    """Holders of permits as tasks that stay until they are told to leave.

    Attributes:
        visit_seconds: how long a visit took when it ends; so long that nothing is lent, unless a test changes it.
    """

    def __init__(self, permits: int, per_minute: float | None = None) -> None:
        self.permits = permits
        self.visit_seconds = 4 * LENT_SECONDS
        self.clock = FakeClock()
        self.waits = 0
        self.semaphore = LaneSemaphore(permits, Pace(per_minute, self.clock), self.clock, self._note_wait)
        self.inside: Counter[Lane] = Counter()
        self.entered: list[Lane] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.doors: list[asyncio.Event] = []

    def _note_wait(self) -> None:
        self.waits += 1

    def come(self, lane: Lane) -> int:
        door = asyncio.Event()
        self.doors.append(door)
        self.tasks.append(asyncio.create_task(self._visit(lane, door)))
        return len(self.tasks) - 1

    async def _visit(self, lane: Lane, door: asyncio.Event) -> None:
        async with self.semaphore.permit(lane):
            self.inside[lane] += 1
            self.entered.append(lane)
            self.check()
            try:
                await door.wait()
            finally:
                self.inside[lane] -= 1
                self.clock.time += self.visit_seconds

    async def visits(self, lane: Lane, seconds: float, count: int = 1) -> None:
        """Have so many come and leave again, one after another."""
        self.visit_seconds = seconds
        for _ in range(count):
            visitor = self.come(lane)
            self.doors[visitor].set()
            await self.tasks[visitor]

    async def inside_of_many(self, lane: Lane) -> int:
        """Return how many of a crowd get in; all leave again, in no time."""
        self.visit_seconds = 0.0
        crowd = [self.come(lane) for _ in range(2 * self.permits)]
        await self.settle()
        found = self.inside[lane]
        for visitor in crowd:
            self.tasks[visitor].cancel()
        await asyncio.wait([self.tasks[visitor] for visitor in crowd])
        return found

    def check(self) -> None:
        assert self.inside.total() <= self.permits
        if self.permits > 1 and not self.inside[Lane.IMMEDIATE] and self.visit_seconds > LENT_SECONDS:
            assert self.inside.total() <= self.permits - 1

    async def settle(self) -> None:
        """Give every task the turns of the loop that it can use."""
        for _ in range(len(self.tasks) + 5):
            await asyncio.sleep(0)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def has_all_permits(self) -> None:
        """Show that no permit was lost: immediate visitors may hold all of them at once."""
        last = [self.come(Lane.IMMEDIATE) for _ in range(self.permits)]
        await self.settle()
        assert self.inside == Counter({Lane.IMMEDIATE: self.permits})
        for visitor in last:
            self.doors[visitor].set()
        await asyncio.gather(*(self.tasks[visitor] for visitor in last))


@asynccontextmanager
async def office(permits: int, per_minute: float | None = None) -> AsyncIterator[Office]:
    made = Office(permits, per_minute)
    try:
        yield made
    finally:
        await made.close()


@pytest.mark.parametrize("permits", [1, 2, 3, 8])
async def test_no_more_are_held_than_there_are(permits: int) -> None:
    async with office(permits) as found:
        for _ in range(3 * permits):
            found.come(Lane.IMMEDIATE)
        await found.settle()
        assert found.inside.total() == permits


@pytest.mark.parametrize("lane", [Lane.STANDARD, Lane.BULK])
@pytest.mark.parametrize(("permits", "held"), [(1, 1), (2, 1), (3, 2), (8, 7)])
async def test_one_of_several_permits_is_kept_for_the_immediate_lane(permits: int, held: int, lane: Lane) -> None:
    async with office(permits) as found:
        for _ in range(2 * permits):
            found.come(lane)
        await found.settle()
        assert found.inside == {lane: held}
        found.come(Lane.IMMEDIATE)
        await found.settle()
        assert found.inside[Lane.IMMEDIATE] == (permits > 1)


async def test_others_may_fill_up_while_the_immediate_lane_holds_its_own() -> None:
    async with office(3) as found:
        found.come(Lane.IMMEDIATE)
        for _ in range(5):
            found.come(Lane.BULK)
        await found.settle()
        assert found.inside == {Lane.IMMEDIATE: 1, Lane.BULK: 2}
        found.doors[0].set()
        await found.settle()
        assert found.inside == Counter({Lane.BULK: 2})


@pytest.mark.parametrize("lane", [Lane.STANDARD, Lane.BULK])
@pytest.mark.parametrize("permits", [2, 4])
async def test_the_immediate_lane_lends_its_own_to_those_who_have_shown_that_they_are_quick(
    permits: int, lane: Lane
) -> None:
    async with office(permits) as found:
        await found.visits(lane, LENT_SECONDS, 13)
        assert await found.inside_of_many(lane) == permits - 1
    async with office(permits) as found:
        await found.visits(lane, LENT_SECONDS, 14)
        assert await found.inside_of_many(lane) == permits


async def test_what_was_lent_goes_back_to_the_first_who_is_immediate() -> None:
    async with office(2) as found:
        await found.visits(Lane.BULK, 0.02, 14)
        crowd = [found.come(Lane.BULK) for _ in range(9)]
        await found.settle()
        assert found.inside == Counter({Lane.BULK: 2})
        found.come(Lane.IMMEDIATE)
        found.doors[crowd[0]].set()
        await found.settle()
        assert found.inside == Counter({Lane.BULK: 1, Lane.IMMEDIATE: 1})


async def test_a_single_long_visit_ends_the_lending_until_shorter_ones_have_outweighed_it() -> None:
    async with office(2) as found:
        await found.visits(Lane.BULK, 0.02, 30)
        await found.visits(Lane.BULK, 1.2 * LENT_SECONDS)
        await found.visits(Lane.BULK, 0.02)
        assert await found.inside_of_many(Lane.BULK) == 1
        await found.visits(Lane.BULK, 0.02)
        assert await found.inside_of_many(Lane.BULK) == 2


async def test_quick_visits_of_the_immediate_lane_say_nothing_of_the_others() -> None:
    async with office(2) as found:
        await found.visits(Lane.IMMEDIATE, 0.02, 50)
        assert await found.inside_of_many(Lane.BULK) == 1


@pytest.mark.parametrize("permits", [1, 2, 4])
async def test_immediate_overtakes_waiting_bulk(permits: int) -> None:
    async with office(permits) as found:
        for _ in range(permits):
            found.come(Lane.IMMEDIATE)
        await found.settle()
        for _ in range(20):
            found.come(Lane.BULK)
        await found.settle()
        late = found.come(Lane.IMMEDIATE)
        await found.settle()
        found.doors[0].set()
        await found.settle()
        assert found.entered[permits:] == [Lane.IMMEDIATE]
        assert not found.tasks[late].done()


async def test_waiting_lanes_share_a_single_permit_seven_two_one() -> None:
    async with office(1) as found:
        visitors = [found.come(lane) for _ in range(20) for lane in Lane]
        await found.settle()
        for served in range(1, 21):
            assert len(found.entered) == served
            [inside] = [lane for lane in Lane if found.inside[lane]]
            holder = next(v for v in visitors if not found.doors[v].is_set() and list(Lane)[v % 3] is inside)
            found.doors[holder].set()
            await found.settle()
        assert Counter(found.entered[:20]) == {Lane.IMMEDIATE: 14, Lane.STANDARD: 4, Lane.BULK: 2}


async def test_visitors_of_one_lane_come_in_their_order() -> None:
    clock = FakeClock()
    semaphore = LaneSemaphore(1, Pace(None, clock), clock)
    order: list[int] = []

    async def visit(number: int) -> None:
        async with semaphore.permit(Lane.BULK):
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(visit(number) for number in range(20)))
    assert order == list(range(20))


async def test_an_error_inside_gives_the_permit_back() -> None:
    async with office(1) as found:
        with pytest.raises(ZeroDivisionError):
            async with found.semaphore.permit(Lane.BULK):
                raise ZeroDivisionError
        await found.has_all_permits()


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("permits", [1, 2])
async def test_a_visitor_cancelled_at_any_turn_leaks_nothing(permits: int, turns: int) -> None:
    """From before it began, over waiting and having been given the permit without knowing, to holding it."""
    async with office(permits) as found:
        holders = [found.come(Lane.IMMEDIATE) for _ in range(permits)]
        await found.settle()
        visitor, other = found.come(Lane.BULK), found.come(Lane.STANDARD)
        await asyncio.sleep(0)
        for holder in holders:
            found.doors[holder].set()
        for _ in range(turns):
            await asyncio.sleep(0)
        found.tasks[visitor].cancel()
        found.tasks[other].cancel()
        await asyncio.gather(*found.tasks, return_exceptions=True)
        await found.has_all_permits()


async def test_a_permit_given_to_a_visitor_who_left_goes_to_the_next() -> None:
    async with office(1) as found:
        holder = found.come(Lane.BULK)
        await found.settle()
        visitor, heir = found.come(Lane.BULK), found.come(Lane.BULK)
        await found.settle()
        found.doors[holder].set()
        await asyncio.sleep(0)  # the holder leaves: the permit is the visitor's, who has not run yet
        found.tasks[visitor].cancel()
        await found.settle()
        assert found.tasks[visitor].cancelled()
        assert not found.tasks[heir].done()
        assert found.inside == Counter({Lane.BULK: 1})


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(st.sampled_from(["come", "leave", "cancel", "turn", "turn"]), lanes, st.integers(0, 30)), max_size=60
    ),
)
def test_no_order_of_coming_leaving_and_cancelling_leaks_a_permit(
    permits: int, history: list[tuple[str, Lane, int]]
) -> None:
    async def play() -> None:
        async with office(permits) as found:
            for what, lane, which in history:
                if what == "come":
                    found.come(lane)
                elif what == "turn" or not found.tasks:
                    await asyncio.sleep(0)
                elif what == "leave":
                    found.doors[which % len(found.doors)].set()
                else:
                    found.tasks[which % len(found.tasks)].cancel()
                found.check()
            await found.settle()
            waiting = [task for task in found.tasks if not task.done()]
            assert len(waiting) == found.inside.total() or found.inside.total() >= max(1, permits - 1)
            for door in found.doors:
                door.set()
            async with asyncio.timeout(PATIENCE_SECONDS):
                results = await asyncio.gather(*found.tasks, return_exceptions=True)
            assert not [one for one in results if isinstance(one, Exception)]
            await found.has_all_permits()

    asyncio.run(play())


async def test_close_turns_away_who_waits_and_who_comes() -> None:
    async with office(1) as found:
        holder = found.come(Lane.BULK)
        await found.settle()
        waiting = [found.come(lane) for lane in Lane]
        await found.settle()
        found.semaphore.close()
        late = found.come(Lane.IMMEDIATE)
        await found.settle()
        for visitor in [*waiting, late]:
            assert isinstance(found.tasks[visitor].exception(), StoppingError)
        assert found.inside == {Lane.BULK: 1}
        found.doors[holder].set()
        await found.tasks[holder]


async def test_close_lets_those_inside_finish_and_can_be_repeated() -> None:
    async with office(2) as found:
        first, second = found.come(Lane.IMMEDIATE), found.come(Lane.BULK)
        await found.settle()
        found.semaphore.close()
        found.semaphore.close()
        found.doors[first].set()
        found.doors[second].set()
        await asyncio.gather(found.tasks[first], found.tasks[second])


async def test_a_visitor_may_be_cancelled_while_being_turned_away() -> None:
    async with office(1) as found:
        found.come(Lane.BULK)
        await found.settle()
        visitor = found.come(Lane.BULK)
        await found.settle()
        found.semaphore.close()
        found.tasks[visitor].cancel()
        with pytest.raises(asyncio.CancelledError):
            await found.tasks[visitor]


async def test_those_who_wait_are_turned_away_with_the_reason_and_later_ones_are_not() -> None:
    async with office(1) as found:
        holder = found.come(Lane.BULK)
        await found.settle()
        waiting = [found.come(lane) for lane in Lane]
        await found.settle()
        error = ModelUnavailableError("The model is away.")
        found.semaphore.turn_away(error)
        late = found.come(Lane.BULK)
        await found.settle()
        assert [found.tasks[visitor].exception() for visitor in waiting] == [error] * 3
        found.doors[holder].set()
        await found.settle()
        assert (found.entered, found.tasks[late].done()) == ([Lane.BULK, Lane.BULK], False)
        assert found.semaphore.held == 1


async def test_a_pace_holds_over_a_burst_and_counts_who_waits() -> None:
    async with office(8, per_minute=60) as found:
        for _ in range(5):
            found.come(Lane.BULK)
        for passed in range(1, 6):
            await found.clock.pass_by(0.999)
            assert len(found.entered) == passed
            await found.clock.pass_by(0.001)
        assert found.waits == 4
        assert found.clock.pending == 0


async def test_whoever_is_more_urgent_goes_first_when_the_pace_allows_the_next() -> None:
    async with office(4, per_minute=60) as found:
        found.come(Lane.BULK)
        await found.settle()
        for _ in range(5):
            found.come(Lane.BULK)
        await found.clock.pass_by(0.5)
        found.come(Lane.IMMEDIATE)
        await found.clock.pass_by(0.5)
        assert found.entered == [Lane.BULK, Lane.IMMEDIATE]


async def test_lanes_share_a_pace_as_they_share_permits() -> None:
    async with office(100, per_minute=60) as found:
        for _ in range(20):
            for lane in Lane:
                found.come(lane)
        await found.clock.pass_by(19)
        assert Counter(found.entered) == {Lane.IMMEDIATE: 14, Lane.STANDARD: 4, Lane.BULK: 2}


async def test_an_unused_minute_allows_no_burst_later() -> None:
    async with office(8, per_minute=60) as found:
        await found.clock.pass_by(600)
        for _ in range(5):
            found.come(Lane.BULK)
        await found.settle()
        assert len(found.entered) == 1


async def test_who_is_cancelled_while_waiting_for_the_pace_takes_no_start() -> None:
    async with office(8, per_minute=60) as found:
        found.come(Lane.BULK)
        await found.settle()
        impatient, patient = found.come(Lane.BULK), found.come(Lane.BULK)
        await found.settle()
        found.tasks[impatient].cancel()
        await found.clock.pass_by(1)
        assert len(found.entered) == 2
        assert not found.tasks[patient].done()


async def test_who_is_cancelled_with_a_start_in_hand_gives_it_back() -> None:
    async with office(8, per_minute=60) as found:
        found.visit_seconds = 0.0
        unlucky, heir = found.come(Lane.BULK), found.come(Lane.BULK)
        await asyncio.sleep(0)  # the permit and the start are the first one's, who has not run yet
        found.tasks[unlucky].cancel()
        await found.settle()
        assert found.entered == [Lane.BULK]
        assert not found.tasks[heir].done()


async def test_a_start_that_was_not_used_is_the_next_ones() -> None:
    async with office(8, per_minute=60) as found:
        idle = found.come(Lane.BULK)
        heir = found.come(Lane.BULK)
        await found.settle()
        assert len(found.entered) == 1
        found.semaphore.give_start_back()
        found.doors[idle].set()
        await found.settle()
        assert len(found.entered) == 2
        assert not found.tasks[heir].done()


async def test_with_nobody_waiting_any_more_nothing_is_left_to_come() -> None:
    async with office(8, per_minute=60) as found:
        found.come(Lane.BULK)
        await found.settle()
        impatient = found.come(Lane.BULK)
        await found.settle()
        found.tasks[impatient].cancel()
        await found.settle()
        assert found.clock.pending == 0


async def test_a_permit_that_was_given_back_early_is_not_given_back_twice() -> None:
    clock = FakeClock()
    semaphore = LaneSemaphore(1, Pace(None, clock), clock)
    async with semaphore.permit(Lane.BULK) as give_back:
        give_back()
        async with asyncio.timeout(PATIENCE_SECONDS), semaphore.permit(Lane.BULK):
            give_back()
            assert semaphore.held == 1
        assert semaphore.held == 0
    assert semaphore.held == 0
