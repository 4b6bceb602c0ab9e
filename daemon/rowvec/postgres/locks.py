"""Waiting for locks without standing in the way: whoever writes queues up behind a lock that somebody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import asyncpg

from rowvec.domain.errors import LockedError

LOCK_MILLISECONDS: Final = 400
"""Below `deadlock_timeout` (1 s): where two wait for each other, it is not the writer who is ended."""
LOCK_TRIES: Final = 20
LOCK_PAUSE_SECONDS: Final = 0.2

T = TypeVar("T")


async def run_patiently(connection: asyncpg.Connection[asyncpg.Record], work: Callable[[], Awaitable[T]]) -> T:
    """Run DDL in one transaction, again and again until its locks are free; return what it returns.

    Args:
        connection: outside of any transaction.
        work: what to do on it; raises our own errors.

    Raises:
        LockedError: they were never free.
    """
    for attempt in range(LOCK_TRIES):
        try:
            async with connection.transaction(isolation="read_committed"):
                await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_MILLISECONDS}ms'")
                return await work()
        except LockedError:
            if attempt + 1 == LOCK_TRIES:
                raise
            await asyncio.sleep(LOCK_PAUSE_SECONDS)
    raise AssertionError("the last attempt returns or raises")
