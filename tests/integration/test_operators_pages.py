"""What waits and why, asked of a running daemon over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
import pytest
from structlog.testing import capture_logs

from daemons import GatedEmbedder, eventually, is_ready, running
from database import Connect, as_user
from rowvec.domain.errors import DatabaseUnavailableError, ModelUnavailableError, StatementTimeoutError
from rowvec.postgres import overview
from rowvec.postgres.overview import PostgresOverview
from rowvec.postgres.roles import DAEMON_ROLE

pytestmark = pytest.mark.one_postgres

TOKEN = "of-the-operators"  # noqa: S105 - the test's own


@asynccontextmanager
async def serving(dsn: str, embedder: GatedEmbedder) -> AsyncIterator[str]:
    """Run a daemon with its own role and a token; yield its address."""
    with capture_logs() as logs:
        async with running(as_user(dsn, DAEMON_ROLE), embedder, ROWVEC_API_TOKEN=TOKEN) as daemon:
            await eventually(lambda: is_ready(daemon))
            yield next(log["address"] for log in logs if log["event"] == "http.ready")


async def ask(url: str) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as answer:
        return answer.status, await answer.json()


async def test_why_items_wait(post: asyncpg.Connection, dsn: str) -> None:
    embedder = GatedEmbedder()
    embedder.broken = ModelUnavailableError("The model server is down.", "It says so.", 60.0)
    async with serving(dsn, embedder) as address:
        await post.execute("INSERT INTO post (body) VALUES ('One')")

        async def told() -> bool:
            status, body = await ask(f"{address}/api/embeddings/queue")
            assert status == 200
            # The backfill, which the watch has begun, may bring the row a second time for a moment: in the bulk lane.
            place = {"model": "first", "lane": "immediate", "content_type": "post"}
            whys = [item["why"] for item in body["items"] if place.items() <= item.items()]
            return whys == [["Let alone for a while: model first: The model server is down. It says so."]]

        await eventually(told)
        status, body = await ask(f"{address}/api/embeddings/processor")
        assert (status, [daemon["models"] for daemon in body["daemons"]]) == (200, [["first"]])
        [first, second] = body["models"]
        assert (first["daemons"], first["resting"]) == (1, ["model first: The model server is down. It says so."])
        assert (second["daemons"], second["resting"]) == (0, [])


async def test_a_look_that_takes_too_long_is_given_up(
    dsn: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "STATEMENT_SECONDS", 0.1)
    other = await connect()
    async with serving(dsn, GatedEmbedder()) as address, other.transaction():
        await other.execute("LOCK TABLE rowvec.embedding_queue IN ACCESS EXCLUSIVE MODE")
        status, body = await ask(f"{address}/api/embeddings/queue")
        assert status == 503
        assert body["error"].startswith("A statement took too long")


async def test_looks_that_queue_up_are_given_up_too(
    post: asyncpg.Connection, dsn: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "LOOK_SECONDS", 0.2)
    other, looker = await connect(), PostgresOverview(dsn)
    async with other.transaction():
        await other.execute("LOCK TABLE rowvec.embedding_queue IN ACCESS EXCLUSIVE MODE")
        looks = await asyncio.gather(*(looker.look() for _ in range(20)), return_exceptions=True)
        at_once = await post.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    assert {type(look) for look in looks} <= {StatementTimeoutError}
    assert at_once <= 1


async def test_a_database_that_is_away_is_told_as_such() -> None:
    with pytest.raises(DatabaseUnavailableError):
        await PostgresOverview("postgresql://nobody@127.0.0.1:1/nowhere").look()
