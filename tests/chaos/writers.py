"""The application: sessions that write two watched tables in every way there is.

Each writer has keys of its own and writes other keys too. The application is one that has no deadlocks by itself:
before a transaction writes several rows it locks the ranges of keys that they are from, in order; it writes `post`
before `note`; a statement on a single row of somebody else, and TRUNCATE, are transactions of their own. So a deadlock
is rowvec's doing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import asyncpg

from chaos.journal import Journal
from chaos.statements import KEYS, Statements, is_their_own

LOCK_RANGES = "SELECT pg_advisory_xact_lock(1, range) FROM unnest($1::integer[]) AS range"
Isolation = Literal["read_committed", "repeatable_read", "serializable"]
ISOLATIONS: Final[dict[Isolation, int]] = {"read_committed": 4, "repeatable_read": 1, "serializable": 1}
"""And how often each is chosen."""


class Writer:
    """A session of the application.

    Args:
        session: its connection.
        number: from 0; says which keys are its own.
        writers: how many there are.
        chance: its dice.
        journal: where it writes down what it did.
        truncates: whether it may truncate `note`.
    """

    def __init__(
        self,
        session: asyncpg.Connection,
        number: int,
        writers: int,
        chance: random.Random,
        journal: Journal,
        *,
        truncates: bool,
    ) -> None:
        self._session = session
        self._number = number
        self._writers = writers
        self._chance = chance
        self._journal = journal
        self._truncates = truncates
        self._statements = Statements(session, number, chance)

    async def write_until(self, over: Callable[[], bool]) -> None:
        while not over():
            await self._transact(self._chance.choice([*[self._write_own] * 8, self._write_all, self._write_other]))
            if self._truncates and self._chance.random() < 0.005:
                await self._transact(self._truncate)

    async def _transact(self, write: Callable[[], Awaitable[None]]) -> None:
        """Do something in one transaction, which may be rolled back or fail by what another writer does."""
        [isolation] = self._chance.choices(list(ISOLATIONS), list(ISOLATIONS.values()))
        commits = self._chance.random() < 0.9
        transaction = self._session.transaction(isolation=isolation)
        await transaction.start()
        try:
            await write()
            await (transaction.commit if commits else transaction.rollback)()
            outcome = "committed" if commits else "rolled back"
        except asyncpg.PostgresError as error:
            if not is_their_own(error):
                what = f"{error!r}, {error.context or ''}, {isolation}, {self._statements.steps}"
                raise AssertionError(what) from error
            if self._session.is_in_transaction():
                await transaction.rollback()
            outcome = f"refused: {error}"
        self._journal.close(f"writer {self._number}, {isolation}:", self._statements.taken(), outcome)

    async def _write_own(self) -> None:
        """Some statements over its own keys; a few of them in a savepoint that is rolled back."""
        await self._session.execute(LOCK_RANGES, [self._number])
        for table in self._chance.choice([["post"], ["post"], ["post", "note"], ["note"]]):
            for _ in range(self._chance.choice([1, 1, 1, 4])):
                if self._chance.random() < 0.15:
                    await self._write_in_savepoint(table)
                else:
                    await self._statements.any(table)
                await asyncio.sleep(self._chance.choice([0, 0, 0.02]))

    async def _write_in_savepoint(self, table: str) -> None:
        savepoint, began = self._session.transaction(), len(self._statements.steps)
        await savepoint.start()
        for _ in range(self._chance.choice([1, 3])):
            await self._statements.any(table)
        if self._chance.random() < 0.7:
            await savepoint.rollback()
            self._statements.undo(began)
        else:
            await savepoint.commit()

    async def _write_all(self) -> None:
        """Statements over several rows of everybody, in no order."""
        await self._session.execute(LOCK_RANGES, list(range(self._writers)))
        for _ in range(self._chance.choice([1, 3])):
            keys = self._chance.sample(
                [key for n in range(self._writers) for key in self._statements.window("post", n)], k=12
            )
            await self._chance.choice([self._statements.update, self._statements.touch, self._statements.own])(
                "post", keys
            )
            if self._chance.random() < 0.3:
                await self._statements.delete("post", keys[:4])

    async def _write_other(self) -> None:
        """One statement on one row of anybody, which that writer may be writing at this moment."""
        table = self._chance.choice(["post", "note"])
        key = self._chance.choice(self._statements.window(table, self._chance.randrange(self._writers)))
        await self._chance.choice([self._statements.update, self._statements.delete])(table, [key])

    async def _truncate(self) -> None:
        await self._statements.truncate("note")
        for _ in range(self._chance.choice([0, 1, 2])):
            await self._chance.choice([self._statements.insert, self._statements.copy, self._statements.merge])("note")


async def rewatch(session: asyncpg.Connection, chance: random.Random, over: Callable[[], bool]) -> None:
    """Change how rows are cut and how urgent they are, or watch nothing for a while, in the middle of everything."""
    while not over():
        await asyncio.sleep(chance.uniform(1.0, 4.0))
        table = chance.choice(list(KEYS))
        if chance.random() < 0.3:
            await session.execute("SELECT rowvec.pause($1)", table)
            await asyncio.sleep(chance.uniform(0.2, 2.0))
            await session.execute("SELECT rowvec.resume($1)", table)
        else:
            await watch(session, table, chance.choice([2, 4, 9]), chance.choice([50, 80, 1000]))


async def watch(session: asyncpg.Connection, table: str, priority: int, size: int) -> None:
    await session.execute(
        "SELECT rowvec.watch($1::text::regclass, $1::text, ARRAY['body'], $2, template => $3, "
        "owner_column => 'author', chunking => 'characters', chunk_characters => $4, chunk_overlap => $5)",
        *(table, priority, "{body}" if table == "post" else None, size, size // 5),
    )


async def has_truncate_trigger(session: asyncpg.Connection, table: str) -> bool:
    return bool(
        await session.fetchval(
            "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $1::text::regclass AND tgtype & 32 <> 0)", table
        )
    )
