"""Eight writers whose statements take shared rows in no order, and two daemons: nobody deadlocks, no writer fails.

An application that locks rows in no order deadlocks by itself. This one does not: a transaction visits blocks of keys
in ascending order, `note` before `post`, and before it writes to a block it locks the keys that it will write there,
also in ascending order, whether they have a row or not. What it then does to these keys it does in no order, and no
other writer can hold one of them. But it still holds whatever rowvec's triggers locked for the blocks before, while it
waits for the next one. So if two transactions wait for each other, at least one waits for something of rowvec's.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

import asyncpg
import pytest

from chaos.account import check
from chaos.dice import SECONDS, SEED, drawn
from chaos.faults import blamed
from chaos.journal import Journal, Step
from chaos.writers import watch
from daemons import process
from database import Connect

LASTS: Final = min(60.0, SECONDS / 2)
WRITERS: Final = 8
TABLES: Final = ["note", "post"]
BLOCKS: Final = 6
BLOCK_KEYS: Final = 12
LOCK_KEYS: Final = "SELECT pg_advisory_xact_lock($1, key) FROM unnest($2::integer[]) AS key"
IN_THE_GIVEN_ORDER: Final = """
    SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off
"""
STATEMENTS: Final = {
    "update": "UPDATE {table} SET body = $2 || key FROM unnest($1::bigint[]) AS key WHERE id = key",
    "own": "UPDATE {table} SET author = $2 FROM unnest($1::bigint[]) AS key WHERE id = key",
    "move": "UPDATE {table} SET id = 1000000 + key FROM unnest($1::bigint[]) AS key WHERE id = key AND $2 <> ''",
    "and back": "UPDATE {table} SET id = key FROM unnest($1::bigint[]) AS key WHERE id = 1000000 + key AND $2 <> ''",
    "delete": "DELETE FROM {table} USING unnest($1::bigint[]) AS key WHERE id = key AND $2 <> ''",
    "insert": "INSERT INTO {table} (id, body) SELECT key, $2 || key FROM unnest($1::bigint[]) AS key "
    "ON CONFLICT (id) DO NOTHING",
    "upsert": "INSERT INTO {table} (id, body) SELECT key, $2 || key FROM unnest($1::bigint[]) AS key "
    "ON CONFLICT (id) DO UPDATE SET body = excluded.body",
    "enqueue": "SELECT rowvec.enqueue('{table}', key::text) FROM unnest($1::bigint[]) AS key WHERE $2 <> ''",
}

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(LASTS + 240)]


async def write_until(
    over: Callable[[], bool], session: asyncpg.Connection, who: str, chance: random.Random, journal: Journal
) -> None:
    await session.execute(IN_THE_GIVEN_ORDER)
    blocks = [(table, block) for table in TABLES for block in range(BLOCKS)]
    while not over():
        steps: list[Step] = []
        transaction = session.transaction()
        await transaction.start()
        for table, block in sorted(chance.sample(blocks, k=chance.randint(1, 4))):
            keys = chance.sample(range(block * BLOCK_KEYS, (block + 1) * BLOCK_KEYS), k=BLOCK_KEYS // 2)
            await session.execute(LOCK_KEYS, TABLES.index(table), sorted(keys))
            for what in chance.choices(list(STATEMENTS), k=2):
                steps += await _write(session, table, what, chance.sample(keys, k=len(keys)), chance)
        commits = chance.random() < 0.9
        await (transaction.commit if commits else transaction.rollback)()
        journal.close(who, steps, "committed" if commits else "rolled back")


async def _write(
    session: asyncpg.Connection, table: str, what: str, keys: Sequence[int], chance: random.Random
) -> list[Step]:
    """Run a statement; what it moves away it moves back, so that no key is lost."""
    parts = ["move", "and back"] if what in {"move", "and back"} else [what]
    for part in parts:
        await session.execute(STATEMENTS[part].format(table=table), keys, f"Text {chance.randrange(1000)} of ")
    return [Step(table, keys, part) for part in parts]


async def test_writers_and_daemons_never_deadlock(connect: Connect, dsn: str) -> None:
    print(f"ROWVEC_CHAOS_SEED={SEED}")  # noqa: T201 - to be repeated
    app, journal = await connect(), Journal()
    for table in TABLES:
        await app.execute(f"CREATE TABLE {table} (id bigint PRIMARY KEY, body text, author text)")
        await watch(app, table, 2, 80)
    sessions = [await connect() for _ in range(WRITERS)]
    async with process(dsn) as one, process(dsn) as other, blamed(one), blamed(other):
        end = time.monotonic() + LASTS

        def over() -> bool:
            return time.monotonic() > end

        async with asyncio.TaskGroup() as group:
            for n, session in enumerate(sessions):
                group.create_task(write_until(over, session, f"writer {n}", drawn(f"writer {n}"), journal))
        print(f"{journal.transactions} transactions")  # noqa: T201
        await check(app, TABLES, [one, other], journal)
        logs = one.log.read_text() + other.log.read_text()
    assert "deadlock" not in logs
