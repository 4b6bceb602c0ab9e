from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowvec.domain.items import Claim, Item, Slot
from rowvec.domain.lanes import Lane
from rowvec.pipeline.due_board import EVER, STRAGGLERS, DueBoard

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PATIENCE_SECONDS = 5.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> DueBoard:
    return DueBoard(clock)


def slot(content_type: str, model: str = "m", lane: Lane = Lane.BULK) -> Slot:
    return Slot(model, lane, content_type)


def claim(content_type: str, *due_at: datetime) -> Claim:
    items = [Item(number, str(number), 1, 0, due) for number, due in enumerate(due_at)]
    return Claim(slot(content_type), uuid.uuid4(), items)


async def taken(board: DueBoard, model: str = "m", lane: Lane = Lane.BULK) -> str:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return (await board.take(model, lane)).content_type


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def has_nothing(board: DueBoard, model: str = "m", lane: Lane = Lane.BULK) -> bool:
    task = asyncio.create_task(board.take(model, lane))
    await settle()
    done = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return not done


async def test_an_offer_is_taken_once(board: DueBoard) -> None:
    board.offer([slot("course")])
    assert await taken(board) == "course"
    assert await has_nothing(board)


async def test_the_same_offer_twice_is_one(board: DueBoard) -> None:
    board.offer([slot("course"), slot("course")])
    board.offer([slot("course")])
    await taken(board)
    assert await has_nothing(board)


async def test_a_slot_names_its_model_and_lane(board: DueBoard) -> None:
    board.offer([slot("course", "first", Lane.IMMEDIATE)])
    assert await has_nothing(board, "first", Lane.BULK)
    assert await has_nothing(board, "second", Lane.IMMEDIATE)
    assert await board.take("first", Lane.IMMEDIATE) == slot("course", "first", Lane.IMMEDIATE)


async def test_sources_take_turns(board: DueBoard) -> None:
    board.offer([slot("big"), slot("small"), slot("other")])
    order = []
    for _ in range(9):
        order.append(await taken(board))
        board.offer([slot(order[-1])])
    assert order == ["big", "small", "other"] * 3


async def test_a_source_that_is_offered_all_the_time_does_not_push_in(board: DueBoard) -> None:
    board.offer([slot("big"), slot("small")])
    assert await taken(board) == "big"
    for _ in range(10):
        board.offer([slot("big")])
    assert await taken(board) == "small"


async def test_an_offer_during_a_take_ends_it(board: DueBoard) -> None:
    taking = asyncio.create_task(taken(board))
    await settle()
    assert not taking.done()
    board.offer([slot("course", "other"), slot("course", lane=Lane.IMMEDIATE)])
    await settle()
    assert not taking.done()
    board.offer([slot("course")])
    assert await taking == "course"


async def test_two_takers_get_different_slots(board: DueBoard) -> None:
    takers = [asyncio.create_task(taken(board)) for _ in range(2)]
    await settle()
    board.offer([slot("one"), slot("two")])
    assert sorted(await asyncio.gather(*takers)) == ["one", "two"]


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancelled_take_loses_no_slot(board: DueBoard, turns: int) -> None:
    taking = asyncio.create_task(board.take("m", Lane.BULK))
    await settle()
    board.offer([slot("course")])
    for _ in range(turns):
        await asyncio.sleep(0)
    if not taking.cancel():
        assert await taking == slot("course")
        return
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert await taken(board) == "course"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["offer", "take", "cancel", "turn"]), st.integers(0, 5)), max_size=50))
def test_every_offer_is_taken_whatever_is_cancelled(  # noqa: C901 - a small state machine
    history: Sequence[tuple[str, int]],
) -> None:
    async def play() -> None:
        board = DueBoard(Clock())
        offered: set[str] = set()
        received: set[str] = set()
        tasks: list[asyncio.Task[Slot]] = []

        def collect() -> None:
            for task in [one for one in tasks if one.done()]:
                tasks.remove(task)
                if not task.cancelled():
                    received.add(task.result().content_type)

        for step, (what, which) in enumerate(history):
            if what == "offer":
                offered.add(str(step))
                board.offer([slot(str(step))])
            elif what == "take":
                tasks.append(asyncio.create_task(board.take("m", Lane.BULK)))
            elif what == "cancel" and tasks:
                tasks[which % len(tasks)].cancel()
            else:
                await asyncio.sleep(0)
            collect()
        await settle()
        collect()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        collect()
        while offered - received:
            received.add(await taken(board))
        assert received == offered

    asyncio.run(play())


async def test_a_resting_source_is_passed_over_until_its_rest_is_over(board: DueBoard, clock: Clock) -> None:
    board.rest_source("big", 10.0, "It is broken.")
    board.offer([slot("big"), slot("small")])
    assert await taken(board) == "small"
    clock.now += 9.9
    assert await has_nothing(board)
    clock.now += 0.1
    assert await taken(board) == "big"


async def test_a_resting_source_rests_in_every_lane_and_for_every_model(board: DueBoard) -> None:
    board.rest_source("big", 10.0, "It is broken.")
    board.offer([slot("big", model, lane) for model in ("m", "n") for lane in Lane])
    assert all([await has_nothing(board, model, lane) for model in ("m", "n") for lane in Lane])


async def test_a_resting_model_rests_alone_and_until_it_is_woken(board: DueBoard, clock: Clock) -> None:
    board.rest_model("m", "It is broken.")
    board.offer([slot("course", model, lane) for model in ("m", "n") for lane in Lane])
    clock.now += 1e9
    assert all([await has_nothing(board, "m", lane) for lane in Lane])
    assert await taken(board, "n") == "course"
    board.wake_model("m")
    assert await taken(board, "m") == "course"


async def test_a_source_that_rests_while_its_model_does_rests_on(board: DueBoard, clock: Clock) -> None:
    board.rest_model("m", "It is broken.")
    board.rest_source("course", 10.0, "It is broken.")
    board.offer([slot("course")])
    board.wake_model("m")
    assert await has_nothing(board)
    clock.now += 10.0
    assert await taken(board) == "course"


async def test_a_rest_that_begins_during_a_take_holds_it_back(board: DueBoard) -> None:
    taking = asyncio.create_task(taken(board))
    await settle()
    board.rest_model("m", "It is broken.")
    board.offer([slot("course")])
    await settle()
    assert not taking.done()
    board.wake_model("m")
    assert await taking == "course"


def test_a_model_that_does_not_rest_may_be_woken(board: DueBoard) -> None:
    board.wake_model("m")
    assert board.resting() == []


async def test_a_take_ends_by_itself_when_the_rest_is_over() -> None:
    board = DueBoard(time.monotonic)
    board.rest_source("soon", 0.03, "It is broken.")
    board.rest_source("late", 1000.0, "It is broken.")
    board.offer([slot("late"), slot("soon")])
    assert await taken(board) == "soon"


def test_a_slot_has_no_floor_at_first(board: DueBoard) -> None:
    assert board.floor(slot("course")) == EVER
    assert board.lowest_floor() == EVER


def test_the_floor_lies_behind_the_last_due_time_seen(board: DueBoard) -> None:
    board.saw(claim("course", NOON, NOON + timedelta(hours=1), NOON), limit=64)
    assert board.floor(slot("course")) == NOON + timedelta(hours=1) - STRAGGLERS
    assert board.floor(slot("lesson")) == EVER


def test_the_floor_never_falls_by_a_claim(board: DueBoard) -> None:
    board.saw(claim("course", NOON), limit=64)
    board.saw(claim("course", NOON - timedelta(hours=1)), limit=64)
    board.saw(claim("course"), limit=64)
    assert board.floor(slot("course")) == NOON - STRAGGLERS


def test_a_sweep_lowers_the_floor_to_the_oldest_item_it_found(board: DueBoard) -> None:
    board.saw(claim("course", NOON), limit=64)
    board.saw(claim("lesson", NOON), limit=64)
    long_ago = NOON - timedelta(days=1)
    board.lower_floors({slot("course"): long_ago, slot("lesson"): NOON + timedelta(days=1), slot("new"): NOON})
    assert board.floor(slot("course")) == long_ago
    assert board.floor(slot("lesson")) == NOON - STRAGGLERS
    assert board.floor(slot("new")) == NOON


def test_the_lowest_floor_is_that_of_the_slot_furthest_behind(board: DueBoard) -> None:
    board.saw(claim("course", NOON), limit=64)
    board.saw(claim("lesson", NOON - timedelta(days=1)), limit=64)
    assert board.lowest_floor() == NOON - timedelta(days=1) - STRAGGLERS


async def test_a_full_claim_is_offered_again(board: DueBoard) -> None:
    board.saw(claim("course", NOON, NOON), limit=2)
    assert await taken(board) == "course"


async def test_a_claim_that_was_not_full_is_not(board: DueBoard) -> None:
    board.saw(claim("course", NOON), limit=2)
    board.saw(claim("lesson"), limit=2)
    assert await has_nothing(board)


async def test_who_rests_and_why_is_told_as_long_as_it_lasts(board: DueBoard, clock: Clock) -> None:
    board.rest_model("m", "It is broken.")
    board.rest_source("course", 10.0, "Its table is gone.")
    assert board.resting() == ["model m: It is broken.", "source course: Its table is gone."]
    clock.now += 11.0
    assert board.resting() == ["model m: It is broken."]
    board.wake_model("m")
    assert board.resting() == []


async def test_a_held_lane_gives_nothing_out_until_it_is_released(board: DueBoard) -> None:
    board.offer([slot("course"), slot("lesson", lane=Lane.STANDARD)])
    board.hold_lane(Lane.BULK)
    assert await has_nothing(board)
    assert await taken(board, lane=Lane.STANDARD) == "lesson"
    waiting = asyncio.create_task(taken(board))
    await settle()
    board.release_lane(Lane.BULK)
    assert await waiting == "course"


async def test_a_forgotten_model_leaves_nothing_behind(board: DueBoard) -> None:
    gone, other = Slot("gone", Lane.BULK, "post"), Slot("m", Lane.BULK, "post")
    late = EVER + STRAGGLERS
    board.offer([gone, other])
    board.lower_floors({gone: EVER, other: late})
    board.rest_model("gone", "It is slow.")
    board.forget_model("gone")
    assert await has_nothing(board, "gone")
    assert (board.floor(gone), board.lowest_floor()) == (EVER, late)
    assert board.resting() == []
    assert await taken(board) == "post"
