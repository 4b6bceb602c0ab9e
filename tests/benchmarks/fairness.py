"""How long a fresh immediate row waits behind others: in requests that reached the model before its own.

The daemon runs in this process, so that its model can be looked at; the model answers one request in 20 ms.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from benchmarks.figures import Figure, middle_and_worst
from benchmarks.scratch import DIMENSIONS, POST, database, drained, empty_out, session_of, until
from daemons import GatedEmbedder, running
from database import FILL
from rowvec.embedded import EmbeddedPostgres
from rowvec.ports import Answered, Embedding, untold

DELAY_SECONDS = 0.02
LONGEST_SECONDS = 240.0
TABLES = {"pile": 5, "urgent": 2, "post": 2}
"""The watched tables and their priorities."""


class RecordingEmbedder(GatedEmbedder):
    """A model that takes its time and remembers which request brought a text."""

    def __init__(self) -> None:
        super().__init__(dimensions=DIMENSIONS)
        self.came: dict[str, tuple[int, float]] = {}
        self._news = asyncio.Event()

    async def embed(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:
        self.came.update(dict.fromkeys(texts, (self.requests, time.perf_counter())))
        self._news.set()
        vectors = await super().embed(texts, answered)
        await asyncio.sleep(DELAY_SECONDS)
        self.texts.clear()
        return vectors

    async def arrival(self, text: str) -> tuple[int, float]:
        """Wait for a text; return how many requests came before it, and when it came."""
        async with asyncio.timeout(LONGEST_SECONDS):
            while text not in self.came:
                self._news.clear()
                await self._news.wait()
        return self.came[text]


@dataclass(frozen=True)
class Wait:
    """What came between the commit of a row and the request with its text."""

    requests: int
    seconds: float


async def measure_fairness(postgres: EmbeddedPostgres, rows: int, samples: int) -> list[Figure]:
    tables = [POST.replace("TABLE post", f"TABLE {name}") for name in TABLES]
    watches = [
        f"SELECT rowvec.watch('{name}', '{name}', ARRAY['body'], {priority}, template => '{{body}}')"
        for name, priority in TABLES.items()
    ]
    async with database(postgres, "fairness", *tables, *watches) as dsn, session_of(dsn) as session:
        await session.execute(FILL)
        embedder = RecordingEmbedder()
        async with running(dsn, embedder):
            bulk = await behind_bulk(session, embedder, rows, samples)
            await start_over(session, embedder)
            others, same = await behind_an_update(session, embedder, rows, samples)
    return [
        *report(f"behind {rows:,} bulk rows", bulk),
        *report(f"a row of another table, behind one transaction of {rows:,} urgent rows", others),
        *report(f"a row of the same table, behind one transaction of {rows:,} urgent rows", same),
    ]


async def behind_bulk(session: asyncpg.Connection, embedder: RecordingEmbedder, rows: int, samples: int) -> list[Wait]:
    await session.execute("INSERT INTO pile (body) SELECT 'Pile ' || n FROM generate_series(1, $1::int) n", rows)
    await embedder.arrival("Pile 1")
    waits = []
    for n in range(samples):
        waits.append(await (await begin(session, embedder, "post", f"Fresh {n}")))
        await asyncio.sleep(0.2)
    left = await session.fetchval("SELECT count(*) FROM rowvec.embedding_queue WHERE content_type = 'pile'")
    if not left:
        raise RuntimeError("The pile was gone before the last sample.")
    return waits


async def behind_an_update(
    session: asyncpg.Connection, embedder: RecordingEmbedder, rows: int, samples: int, together: int = 10
) -> tuple[list[Wait], list[Wait]]:
    """Rows of another table and of the same one, a few of each right after every large transaction."""
    others: list[Wait] = []
    same: list[Wait] = []
    for start in range(0, samples, together):
        numbers = range(start, min(start + together, samples))
        await fill_urgent(session, rows)
        await session.execute("UPDATE urgent SET body = body || '!'")
        waits = []
        for n in numbers:
            waits += [await begin(session, embedder, table, f"{table} {n}") for table in ("post", "urgent")]
            await asyncio.sleep(0.05)
        found = await asyncio.gather(*waits)
        others += found[::2]
        same += found[1::2]
        await start_over(session, embedder)
    return others, same


async def fill_urgent(session: asyncpg.Connection, rows: int) -> None:
    await session.execute("SET session_replication_role = replica")
    await session.execute("INSERT INTO urgent (body) SELECT 'Urgent ' || n FROM generate_series(1, $1::int) n", rows)
    await session.execute("RESET session_replication_role")


async def begin(session: asyncpg.Connection, embedder: RecordingEmbedder, table: str, text: str) -> asyncio.Task[Wait]:
    """Commit a row; return who waits for it."""
    await session.execute(f"INSERT INTO {table} (body) VALUES ($1)", text)
    before, committed = embedder.requests, time.perf_counter()

    async def wait() -> Wait:
        requests, came = await embedder.arrival(text)
        return Wait(max(0, requests - before), max(0.0, came - committed))

    return asyncio.create_task(wait())


async def start_over(session: asyncpg.Connection, embedder: RecordingEmbedder) -> None:
    """Forget what still waits."""

    async def quiet() -> bool:
        return not embedder.working

    await empty_out(session, tuple(TABLES))
    await until(quiet)
    await drained(session)
    embedder.came.clear()


def report(what: str, waits: Sequence[Wait]) -> list[Figure]:
    return [
        *middle_and_worst(f"{what}: requests before it", [wait.requests for wait in waits], "requests"),
        *middle_and_worst(f"{what}: from its commit to the model", [wait.seconds for wait in waits], "s"),
    ]
