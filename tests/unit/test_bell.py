from __future__ import annotations

import asyncio

import pytest

from rowvec.pipeline.bell import Bell, Cause

FOR_EVER = 3600.0


async def test_nobody_rings() -> None:
    assert await Bell().wait(0.0) is Cause.POLL
    assert await Bell().wait(0.01) is Cause.POLL


@pytest.mark.parametrize("cause", list(Cause))
async def test_a_ring_before_the_wait_is_heard(cause: Cause) -> None:
    bell = Bell()
    bell.ring(cause)
    assert await bell.wait(FOR_EVER) is cause


async def test_a_ring_is_heard_even_without_time_to_wait() -> None:
    bell = Bell()
    bell.ring(Cause.NOTIFY)
    assert await bell.wait(0.0) is Cause.NOTIFY


async def test_a_ring_ends_the_wait() -> None:
    bell = Bell()
    waiting = asyncio.create_task(bell.wait(FOR_EVER))
    await asyncio.sleep(0)
    assert not waiting.done()
    bell.ring(Cause.NOTIFY)
    assert await waiting is Cause.NOTIFY


async def test_of_several_causes_the_furthest_looking_counts_once() -> None:
    bell = Bell()
    for cause in (Cause.NOTIFY, Cause.SWEEP, Cause.POLL, Cause.NOTIFY):
        bell.ring(cause)
    assert await bell.wait(FOR_EVER) is Cause.SWEEP
    assert await bell.wait(0.0) is Cause.POLL
    bell.ring(Cause.POLL)
    assert await bell.wait(FOR_EVER) is Cause.POLL


async def test_a_cancelled_wait_loses_no_ring() -> None:
    bell = Bell()
    waiting = asyncio.create_task(bell.wait(FOR_EVER))
    await asyncio.sleep(0)
    bell.ring(Cause.SWEEP)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await bell.wait(0.0) is Cause.SWEEP


async def test_a_ring_at_the_moment_the_time_is_up_is_not_lost() -> None:
    bell = Bell()
    heard = []
    waiting = asyncio.create_task(bell.wait(0.005))
    # The clock of the loop stands still inside one turn: the ring and the timeout meet in it.
    asyncio.get_running_loop().call_later(0.005, bell.ring, Cause.SWEEP)
    heard.append(await waiting)
    heard.append(await bell.wait(0.05))
    assert sorted(heard) == [Cause.POLL, Cause.SWEEP]


async def test_a_ring_is_heard_once() -> None:
    bell = Bell()
    bell.ring(Cause.NOTIFY)
    await bell.wait(FOR_EVER)
    waiting = asyncio.create_task(bell.wait(FOR_EVER))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    bell.ring(Cause.NOTIFY)
    assert await waiting is Cause.NOTIFY
