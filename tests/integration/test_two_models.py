"""Two models at once: the second becomes 50 times slower, is dead for a while and comes back. The first never slows."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg
import pytest
from aiohttp import web

import studify
from daemons import eventually, finished, running
from database import Server, drop_database
from embedding_servers import API_KEY, EmbeddingServer, Handler, SentenceTransformersServer, cut_off
from rowvec.domain.lanes import AIM_SECONDS, Lane

pytestmark = pytest.mark.one_postgres

DEAD_SECONDS: Final = float(os.environ.get("ROWVEC_OUTAGE_SECONDS", "3"))
PHASE_SECONDS: Final = min(DEAD_SECONDS, 15.0)
FAST_SECONDS: Final = 0.02
TIMES_SLOWER: Final = 50
GENEROUS: Final = 3.0
"""So much longer the median may be without the first model being called slower: machines have other things to do."""
LEEWAY_SECONDS: Final = 0.1

TRUTH: Final = """
    SELECT count(*) FILTER (WHERE e.has_e5_embedding IS DISTINCT FROM f.found) AS wrong_e5,
           count(*) FILTER (WHERE e.has_bge_embedding IS DISTINCT FROM s.found) AS wrong_bge,
           count(*) FILTER (WHERE e.has_e5_embedding) - (SELECT count(*) FROM rowvec.vector_e5_small) AS unseen_e5,
           count(*) FILTER (WHERE e.has_bge_embedding) - (SELECT count(*) FROM rowvec.vector_bge_m3) AS unseen_bge,
           (SELECT count(*) FROM rowvec.embedding_queue WHERE retry_count > 0 OR status = 'failed') AS counted,
           count(*) FILTER (WHERE e.has_e5_embedding AND NOT e.has_bge_embedding) AS first_alone
    FROM public.embeddings e
    CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM rowvec.vector_e5_small v
        WHERE (v.content_type, v.content_id) = (e.content_type, e.content_id::text)
          AND encode(v.chunk_hash, 'hex') = e.content_hash) AS found) AS f
    CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM rowvec.vector_bge_m3 v
        WHERE (v.content_type, v.content_id) = (e.content_type, e.content_id::text)
          AND encode(v.chunk_hash, 'hex') = e.content_hash) AS found) AS s
"""
"""What the view says against what the models' tables hold, in one snapshot."""


class SlowServer(SentenceTransformersServer):
    """A server that takes its time, or is dead: connections are refused, and those that are open are cut.

    Attributes:
        seconds: for each request.
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__(dimensions)
        self.seconds = FAST_SECONDS
        self._dead = False

    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        await asyncio.sleep(self.seconds)
        return await (cut_off(request) if self._dead else super().handle(request, handler))

    async def die(self) -> None:
        self._dead = True
        await self.refuse_connections()

    async def revive(self) -> None:
        self._dead = False
        await self.listen()


@pytest.fixture
async def dsn(server: Server) -> AsyncIterator[str]:
    """A database with the preset."""
    name = await studify.create_studify(server)
    yield server.dsn_for(name)
    await drop_database(server, name)


def served(server: EmbeddingServer) -> dict[str, Any]:
    return {"url": server.url, "api_key": API_KEY, "concurrency": 2, "timeout_seconds": 30}


class Application:
    """Makes a course, waits until the first model has it, makes the next: the times from commit to vector are kept."""

    def __init__(self, session: asyncpg.Connection) -> None:
        self.session = session
        self.courses = 0

    async def work(self, seconds: float) -> list[float]:
        times = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.courses += 1
            await self.session.execute(
                "INSERT INTO course (id, title, description) VALUES ($1, $2, 'A course')",
                *(self.courses, f"Course {self.courses}"),
            )
            committed = time.monotonic()
            await eventually(functools.partial(self.is_found, self.courses))
            times.append(time.monotonic() - committed)
        return times

    async def is_found(self, course: int) -> bool:
        return bool(
            await self.session.fetchval(
                "SELECT EXISTS (SELECT FROM rowvec.vector_e5_small WHERE content_type = 'course' AND content_id = $1)",
                str(course),
            )
        )


class Witness:
    """Looks all the time whether the view tells the truth and nothing was counted against an item."""

    def __init__(self, session: asyncpg.Connection) -> None:
        self._session = session
        self.samples = 0
        self.first_alone = 0

    async def look(self) -> None:
        while True:
            found = await self._session.fetchrow(TRUTH)
            assert found is not None
            *wrong, first_alone = found.values()
            assert wrong == [0] * 5, dict(found)
            self.samples += 1
            self.first_alone = max(self.first_alone, first_alone)

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.look())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled(), task.exception()


async def breaker(session: asyncpg.Connection, model: str) -> str:
    return str(await session.fetchval("SELECT load -> $1 ->> 'breaker' FROM rowvec.daemon", model))


@pytest.mark.timeout(180 + 3 * DEAD_SECONDS)
async def test_a_slow_then_dead_second_model_delays_nothing_of_the_first_and_catches_up_alone(dsn: str) -> None:
    session, watcher = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    first, second = SlowServer(studify.DIMENSIONS["e5_small"]), SlowServer(studify.DIMENSIONS["bge_m3"])
    application, witness = Application(session), Witness(watcher)
    models = {"e5_small": first, "bge_m3": second}
    async with first.serving(), second.serving():
        settings = {name: served(server) for name, server in models.items()}
        async with running(dsn, models=settings), witness.looking():
            before = await application.work(PHASE_SECONDS)
            await eventually(lambda: finished(session, "bge_m3"))
            assert await breaker(session, "bge_m3") == "closed"

            second.seconds = FAST_SECONDS * TIMES_SLOWER
            slow = await application.work(PHASE_SECONDS)
            await second.die()
            dead = await application.work(DEAD_SECONDS)
            assert await breaker(session, "bge_m3") in {"open", "half-open"}
            assert await breaker(session, "e5_small") == "closed"
            assert not await finished(session, "bge_m3")

            second.seconds = FAST_SECONDS
            await second.revive()
            back = await application.work(PHASE_SECONDS)
            await eventually(lambda: finished(session, "bge_m3"), within=60 + DEAD_SECONDS)
            assert await session.fetchval("SELECT count(*) FROM rowvec.vector_bge_m3") == application.courses
            assert await session.fetchval(
                "SELECT bool_and(has_e5_embedding AND has_bge_embedding) FROM public.embeddings"
            )
    await session.close()
    await watcher.close()

    told = {"before": before, "slow": slow, "dead": dead, "back": back}
    for phase, times in told.items():
        median, worst = statistics.median(times), max(times)
        print(f"{phase}: {len(times)} courses, median {1000 * median:.0f} ms, worst {1000 * worst:.0f} ms")  # noqa: T201
        assert median <= GENEROUS * statistics.median(before) + LEEWAY_SECONDS, phase
        assert worst <= AIM_SECONDS[Lane.IMMEDIATE], phase
    print(f"{witness.samples} looks at the view, at most {witness.first_alone} rows with the first alone")  # noqa: T201
    assert witness.samples > 10
    assert witness.first_alone > 0
