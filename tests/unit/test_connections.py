from __future__ import annotations

import asyncio

import asyncpg
import pytest

from rowvec.domain.errors import DatabaseUnavailableError
from rowvec.postgres.connections import translated


async def test_a_cancellation_that_ends_in_an_error_of_the_driver_is_heeded() -> None:
    inside = asyncio.Event()

    async def roll_back_on_a_dead_connection() -> None:
        with translated():
            try:
                inside.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise asyncpg.InterfaceError("connection is closed") from None

    task = asyncio.create_task(roll_back_on_a_dead_connection())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_driver_alone_is_an_outage() -> None:
    with pytest.raises(DatabaseUnavailableError), translated():
        raise asyncpg.InterfaceError("connection is closed")
