"""A model is replaced by another while people write and search: no search is without results or of mixed models."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import asyncpg
import pytest
from aiohttp import web
from pgvector import Vector
from pgvector.asyncpg import register_vector

from chaos.dice import SECONDS
from chaos.faults import has_begun
from daemons import eventually, process, waiting
from database import Connect
from embedding_servers import REMOTE_NAME, Handler, OllamaServer, Vectors
from rowvec.models.deterministic import deterministic_embedding

ROWS: Final = int(os.environ.get("ROWVEC_MODEL_CHANGE_ROWS", "1000"))
ANCHORS: Final = 100
"""Rows that nobody writes: each must be found by its own text, first and exactly."""
DIMENSIONS: Final = 32
EXACT: Final = 0.999
OFF: Final = {"ROWVEC_MODEL_FIRST_PROVIDER": "off", "ROWVEC_MODEL_SECOND_PROVIDER": "off"}
"""The daemon has no settings for models: it learns of them from the database."""

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(SECONDS + 600)]


SIGNS: Final = {"old": 1.0, "new": -1.0}
"""Of two models of one length each is the other's contrary: a search that mixes them finds the farthest row."""


class OpenServer(OllamaServer):
    """A server that asks for no key, with one of the two models."""

    def __init__(self, model: str) -> None:
        super().__init__(DIMENSIONS)
        self._sign = SIGNS[model]

    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        return await handler(request)

    def vectors(self, texts: list[str]) -> Vectors:
        return [[self._sign * number for number in vector] for vector in super().vectors(texts)]


def embedding(model: str, text: str) -> list[float]:
    """Return what a model's server makes of a text."""
    return [SIGNS[model] * number for number in deterministic_embedding(text, DIMENSIONS)]


@dataclass
class Searches:
    """What people found.

    Attributes:
        by_model: how many searches each model has answered.
        longest_seconds: the longest that one took, with what it was asked again for.
    """

    by_model: Counter[str] = field(default_factory=Counter)
    longest_seconds: float = 0.0


async def search_for_ever(session: asyncpg.Connection, searches: Searches) -> None:
    """Search as an application does: ask which model is searched, embed with that one, and name it."""
    await register_vector(session)
    for anchor in count():
        key = anchor % ANCHORS + 1
        began = time.monotonic()
        model, rows = await search_once(session, f"Anchor {key}")
        assert len(rows) == 10, f"{model} answered with {len(rows)} rows"
        assert (rows[0]["content_id"], rows[0]["score"] > EXACT) == (str(key), True), f"{model} answered {rows[0]}"
        searches.by_model[model] += 1
        searches.longest_seconds = max(searches.longest_seconds, time.monotonic() - began)
        await asyncio.sleep(0.02)


async def search_once(session: asyncpg.Connection, text: str) -> tuple[str, list[asyncpg.Record]]:
    """Search with the default model; with the next one when it was dropped after we had asked for its name."""
    while True:
        model = await session.fetchval("SELECT name FROM rowvec.model WHERE is_default")
        with contextlib.suppress(asyncpg.PostgresError):
            vector = Vector(embedding(model, text))
            return model, await session.fetch("SELECT * FROM rowvec.search('', $1, NULL, model => $2)", vector, model)
        known = await session.fetchval("SELECT is_default FROM rowvec.model WHERE name = $1", model)
        assert not known, f"the search with {model} failed, which is the one to be searched"


async def write_for_ever(session: asyncpg.Connection, dice: random.Random) -> None:
    """Insert, change and delete rows behind the anchors."""
    for key in count(ROWS + 1):
        await session.execute("INSERT INTO note VALUES ($1, $2)", key, f"Fresh {key}")
        changed = dice.randint(ANCHORS + 1, key)
        await session.execute("UPDATE note SET body = $2 WHERE id = $1", changed, f"Changed {key}")
        await session.execute("DELETE FROM note WHERE id = $1", dice.randint(ANCHORS + 1, key))
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def at_work(*work: Awaitable[None]) -> AsyncIterator[None]:
    """Do it in the background; what it raises is raised at the end."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if not isinstance(result, asyncio.CancelledError):
                assert isinstance(result, BaseException)
                raise result


async def rowvec(dsn: str, *arguments: str) -> float:
    """Give a command; return how many seconds it took."""
    began = time.monotonic()
    async with process(dsn, ("-m", "rowvec", *arguments), **OFF) as command:
        code = await command.wait(SECONDS + 300)
        assert code == 0, command.log.read_text()
    return time.monotonic() - began


async def add(dsn: str, name: str, server: OpenServer) -> float:
    where = ("--provider", "ollama", "--url", server.url, "--remote-name", REMOTE_NAME, "--concurrency", "2")
    return await rowvec(dsn, "model", "add", name, *where)


async def test_a_model_is_changed_under_writes_and_searches(connect: Connect, dsn: str) -> None:
    app, writer, searcher = await connect(), await connect(), await connect()
    await app.execute(f"""
        CREATE TABLE note (id bigint PRIMARY KEY, body text);
        INSERT INTO note SELECT n, CASE WHEN n <= {ANCHORS} THEN 'Anchor ' ELSE 'Note ' END || n
        FROM generate_series(1, {ROWS}) n;
        SELECT rowvec.watch('note', 'note', ARRAY['body'], template => '{{body}}');
    """)
    took: dict[str, float] = {}
    searches = Searches()
    async with OpenServer("old").serving() as old, OpenServer("new").serving() as new, process(dsn, **OFF) as daemon:
        await eventually(lambda: has_begun(daemon), what="the daemon does not begin")
        await add(dsn, "old", old)
        for former in ("second", "first"):
            await rowvec(dsn, "model", "promote", "old")
            await rowvec(dsn, "model", "drop", former, "--yes")
        await rowvec(dsn, "model", "index", "old")
        async with at_work(search_for_ever(searcher, searches), write_for_ever(writer, random.Random(1))):  # noqa: S311
            took["add, with the backfill"] = await add(dsn, "new", new)
            for step in (("index", "new"), ("promote", "new"), ("drop", "old", "--yes")):
                took[step[0]] = await rowvec(dsn, "model", *step)
            told = searches.by_model["new"]
            await eventually(lambda: answered(searches, told + ANCHORS), what="the new model answers no search")
        await eventually(lambda: settled(app), what="what was written last has no vectors")
    assert searches.by_model["old"] > 0
    stored = await app.fetch("SELECT content_id::bigint, chunk_text FROM rowvec.vector ORDER BY 1")
    rows = await app.fetch("SELECT id, body FROM note ORDER BY 1")
    assert list(map(tuple, stored)) == list(map(tuple, rows))
    assert await app.fetchval("SELECT count(DISTINCT tableoid) FROM rowvec.vector") == 1
    assert await app.fetchval("SELECT count(*) FROM rowvec.embedding_queue") == 0
    steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in took.items())
    counted = ", ".join(f"{number} by {model}" for model, number in searches.by_model.items())
    print(f"{ROWS} rows: {steps}; searches: {counted}; the longest took {searches.longest_seconds:.2f} s")  # noqa: T201


async def answered(searches: Searches, number: int) -> bool:
    return searches.by_model["new"] >= number


async def settled(session: asyncpg.Connection) -> bool:
    return await waiting(session, "new") == 0
