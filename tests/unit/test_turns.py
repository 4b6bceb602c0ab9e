from __future__ import annotations

import asyncio

from rowvec.turns import HELPING, in_turns


async def test_others_have_turns_in_between() -> None:
    done: list[int] = []
    seen: list[int] = []

    async def look() -> None:
        while len(done) < 3 * HELPING:
            seen.append(len(done))
            await asyncio.sleep(0)

    def negated(value: int) -> int:
        done.append(value)
        return -value

    looking = asyncio.create_task(look())
    results = await in_turns(negated, range(3 * HELPING))
    await looking
    assert results == [-value for value in range(3 * HELPING)]
    assert {0, HELPING, 2 * HELPING} <= set(seen)


async def test_nothing_is_nothing() -> None:
    assert await in_turns(str, []) == []
