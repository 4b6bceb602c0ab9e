"""The statements of an application, each over keys drawn at random, in no order."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import asyncpg

from chaos.journal import Step

TABLES = """
    CREATE TABLE post (id bigint PRIMARY KEY, body text NOT NULL, author text, views integer NOT NULL DEFAULT 0);
    CREATE TABLE note (id integer PRIMARY KEY, body text NOT NULL, author text, views integer NOT NULL DEFAULT 0);
"""
KEYS = {"post": 400, "note": 100}
"""Of each writer."""
WINDOW = 20
"""So many of them it writes at a time: few, so that a row is written again while it is worked on."""
WINDOW_SECONDS = 3.0
"""Then it goes on to others: a row left alone shows what went wrong with it, one written again is healed."""


def is_their_own(error: asyncpg.PostgresError) -> bool:
    """Whether an error is the writers' own affair: a key that is taken, two strict transactions at odds.

    Postgres may tell a SERIALIZABLE transaction so in the middle of any statement, rowvec's too. But a row of
    rowvec's that was changed by another transaction is none of the writers' affair.
    """
    match error:
        case asyncpg.SerializationError():
            return "concurrent" not in str(error) or "rowvec" not in (error.context or "")
        case asyncpg.UniqueViolationError():
            return error.schema_name == "public"
        case _:
            return False


class Statements:
    """What a writer can do to its own keys; some of it to any keys.

    Args:
        session: its connection.
        number: the writer's, from 0; says which keys are its own.
        chance: its dice.

    Attributes:
        steps: what was done since they were `taken`.
    """

    def __init__(self, session: asyncpg.Connection, number: int, chance: random.Random) -> None:
        self.steps: list[Step] = []
        self._session = session
        self._number = number
        self._chance = chance
        self._fresh = 0
        self._began = time.monotonic()
        self._all: list[Callable[[str], Awaitable[None]]] = [
            *[self.insert, self.upsert, self.update, self.touch, self.change_and_back, self.delete, self.move],
            *[self.swap, self.shift, self.own, self.copy, self.merge, self.enqueue],
        ]

    async def any(self, table: str) -> None:
        await self._chance.choice(self._all)(table)

    def taken(self) -> list[Step]:
        steps, self.steps = self.steps, []
        return steps

    def undo(self, began: int) -> None:
        """Say of the steps from a number on that their savepoint was rolled back."""
        self.steps[began:] = [step._replace(what=f"{step.what} (undone)") for step in self.steps[began:]]

    async def insert(self, table: str) -> None:
        """Into a key that may be taken."""
        keys = [self._chance.choice(self._range(table))]
        async with self._may_be_refused():
            sql = f"INSERT INTO {table} (id, body, author) VALUES ($1, $2, 'a')"
            await self._run(table, keys, "insert", sql, *keys, self._text())

    async def upsert(self, table: str) -> None:
        keys = self._keys(table, 3)
        sql = f"""
            INSERT INTO {table} (id, body, author)
            SELECT id, body, 'a' FROM unnest($1::integer[], $2::text[]) AS n (id, body)
            ON CONFLICT (id) DO UPDATE SET body = excluded.body
        """
        await self._run(table, keys, "upsert", sql, keys, [self._text() for _ in keys])

    async def update(self, table: str, keys: Sequence[int] = ()) -> None:
        keys = keys or self._keys(table, 5)
        sql = f"UPDATE {table} SET body = right(body || $2, 400) WHERE id = ANY ($1)"
        await self._run(table, keys, "update", sql, keys, self._text())

    async def touch(self, table: str, keys: Sequence[int] = ()) -> None:
        """A column that nobody watches."""
        keys = keys or self._keys(table, 5)
        await self._run(table, keys, "touch", f"UPDATE {table} SET views = views + 1 WHERE id = ANY ($1)", keys)

    async def change_and_back(self, table: str) -> None:
        keys = self._keys(table, 3)
        await self._run(table, keys, "change", f"UPDATE {table} SET body = body || '!' WHERE id = ANY ($1)", keys)
        await self._run(table, keys, "and back", f"UPDATE {table} SET body = left(body, -1) WHERE id = ANY ($1)", keys)

    async def own(self, table: str, keys: Sequence[int] = ()) -> None:
        """Another owner, and now and then another text with it."""
        keys, author = keys or self._keys(table, 2), self._chance.choice(["a", "b", None])
        text = self._chance.choice([None, self._text()])
        sql = f"UPDATE {table} SET author = $2, body = coalesce($3, body) WHERE id = ANY ($1)"
        await self._run(table, keys, f"owner {author}", sql, keys, author, text)

    async def delete(self, table: str, keys: Sequence[int] = ()) -> None:
        keys = keys or self._keys(table, 5)[self._chance.choice([0, 1]) :]
        await self._run(table, keys, "delete", f"DELETE FROM {table} WHERE id = ANY ($1)", keys)

    async def move(self, table: str) -> None:
        """A changed key."""
        old, new = self._keys(table, 2)
        sql = f"UPDATE {table} SET id = $2 WHERE id = $1 AND NOT EXISTS (SELECT FROM {table} WHERE id = $2)"
        await self._run(table, [old, new], f"move {old} to {new}", sql, old, new)

    async def swap(self, table: str) -> None:
        """Two rows change keys with each other."""
        (one, other), spare = self._keys(table, 2), -1 - self._number
        for old, new in ((one, spare), (other, one), (spare, other)):
            sql = f"UPDATE {table} SET id = $2 WHERE id = $1"
            await self._run(table, [old, new], f"swap, {old} to {new}", sql, old, new)

    async def shift(self, table: str) -> None:
        """Each row takes the next key, which another one leaves in the same statement; Postgres may refuse that."""
        first = self._chance.choice(self._range(table)[:-3])
        async with self._may_be_refused():
            await self.delete(table, [first + 3])
            keys = range(first, first + 4)
            await self._run(
                table, keys, "shift", f"UPDATE {table} SET id = id + 1 WHERE id BETWEEN $1 AND $1 + 2", first
            )

    async def copy(self, table: str) -> None:
        """COPY into those keys that are free."""
        found = await self._session.fetch(f"SELECT id FROM {table} WHERE id = ANY ($1)", self._range(table))
        keys = sorted(set(self._keys(table, 4)) - {row["id"] for row in found})
        self.steps.append(Step(table, keys, "copy"))
        records = [(key, self._text(), "a") for key in keys]
        await self._session.copy_records_to_table(table, records=records, columns=["id", "body", "author"])

    async def merge(self, table: str) -> None:
        """Inserts, updates and deletes in one statement."""
        keys = self._keys(table, 4)
        sql = f"""
            MERGE INTO {table} o USING unnest($1::integer[], $2::text[]) n (id, body) ON o.id = n.id
            WHEN MATCHED AND n.id % 3 = 0 THEN DELETE
            WHEN MATCHED THEN UPDATE SET body = n.body
            WHEN NOT MATCHED THEN INSERT (id, body, author) VALUES (n.id, n.body, 'b')
        """
        await self._run(table, keys, "merge", sql, keys, [self._text() for _ in keys])

    async def truncate(self, table: str) -> None:
        await self._run(table, None, "truncate", f"TRUNCATE {table}")

    async def enqueue(self, table: str) -> None:
        """Now or later; the row need not exist."""
        keys, later = [self._chance.choice(self._range(table))], self._chance.choice([None, 1.0])
        sql = "SELECT rowvec.enqueue($1, $2, $3, now() + make_interval(secs => $4))"
        priority = self._chance.choice([1, 3, 9])
        await self._run(table, keys, f"enqueue, {later or 0} s", sql, table, str(keys[0]), priority, later)

    @contextlib.asynccontextmanager
    async def _may_be_refused(self) -> AsyncIterator[None]:
        """A savepoint that is rolled back when a key is taken."""
        began = len(self.steps)
        try:
            async with self._session.transaction():
                yield
        except asyncpg.UniqueViolationError as error:
            if not is_their_own(error):
                raise
            self.undo(began)

    async def _run(self, table: str, keys: Sequence[int] | None, what: str, sql: str, *arguments: object) -> None:
        self.steps.append(Step(table, keys, what))
        await self._session.execute(sql, *arguments)

    def window(self, table: str, number: int) -> range:
        """Return the keys of a writer that are written at the moment; the next window has some of them too."""
        moves = int((time.monotonic() - self._began) / WINDOW_SECONDS)
        first = number * KEYS[table] + moves * WINDOW // 2 % (KEYS[table] - WINDOW)
        return range(first, first + WINDOW)

    def _range(self, table: str) -> range:
        return self.window(table, self._number)

    def _keys(self, table: str, most: int) -> list[int]:
        """Return two keys of its own or more, in no order."""
        return self._chance.sample(self._range(table), k=self._chance.randint(2, most))

    def _text(self) -> str:
        """Now and then nothing, or a text that another row has too."""
        self._fresh += 1
        words = [f"{self._number}-{self._fresh}", *self._chance.choices(["moss", "brook", "ember", "gale"], k=30)]
        return " ".join(self._chance.choice([[], ["shared"], words[:3], words, words]))
