"""Clients of the application, in a process of their own.

What limits the rates is the machine: clients, their Postgres sessions and, in one variant, the daemon with its own
sessions share the cores. A client costs the same in every variant, so it moves all ratios towards 1; its share is
reported beside them (`cpu_seconds`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import asyncpg
import uvloop

WARM_UP_ROWS = 20
"""More than the executions after which a session keeps the plans of a trigger."""


@dataclass(frozen=True)
class Drive:
    """How many transactions in how many seconds, and what of it was the clients' own computing."""

    transactions: int
    seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        return self.transactions / self.seconds


def insert_rows(dsn: str, clients: int, seconds: float) -> Drive:
    """Insert rows for a while, each its own transaction."""
    return uvloop.run(_insert_rows(dsn, clients, seconds))


def delete_rows(dsn: str, first: int, last: int) -> Drive:
    """Delete rows one by one, each its own transaction."""
    return uvloop.run(_delete_rows(dsn, first, last))


async def _insert_rows(dsn: str, clients: int, seconds: float) -> Drive:
    sessions = [await asyncpg.connect(dsn) for _ in range(clients)]
    text = "INSERT INTO post (body) VALUES ($1)"
    statements = [await session.prepare(text) for session in sessions]
    for statement in statements:
        for n in range(WARM_UP_ROWS):
            await statement.fetch(f"Warm {n}")
    finish = _drive()
    deadline = time.perf_counter() + seconds

    async def insert(statement: asyncpg.prepared_stmt.PreparedStatement[asyncpg.Record], number: int) -> int:
        n = 0
        while time.perf_counter() < deadline:
            await statement.fetch(f"Post {number} {n}")
            n += 1
        return n

    counts = await asyncio.gather(*(insert(statement, number) for number, statement in enumerate(statements)))
    drive = finish(sum(counts))
    for session in sessions:
        await session.close()
    return drive


async def _delete_rows(dsn: str, first: int, last: int) -> Drive:
    session = await asyncpg.connect(dsn)
    statement = await session.prepare("DELETE FROM post WHERE id = $1")
    for n in range(first, first + WARM_UP_ROWS):
        await statement.fetch(n)
    finish = _drive()
    for n in range(first + WARM_UP_ROWS, last + 1):
        await statement.fetch(n)
    drive = finish(last + 1 - first - WARM_UP_ROWS)
    await session.close()
    return drive


def _drive() -> Callable[[int], Drive]:
    began, used = time.perf_counter(), time.process_time()
    return lambda transactions: Drive(transactions, time.perf_counter() - began, time.process_time() - used)
