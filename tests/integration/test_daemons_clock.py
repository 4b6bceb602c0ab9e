"""What daemons do by the clock, in whole daemons."""

from __future__ import annotations

from typing import Any

import asyncpg
import structlog

from daemons import GatedEmbedder, eventually, finished, running


async def fail_once(post: asyncpg.Connection) -> None:
    """Leave a row that was given up for good, and whose week is over."""
    await post.execute("""
        INSERT INTO post (body) VALUES ('It once was poison');
        DELETE FROM rowvec.change;
        INSERT INTO rowvec.embedding_queue (content_type, content_id, model, priority, generation, status)
        VALUES ('post', '1', 'first', 2, nextval('rowvec.generation'), 'failed');
        INSERT INTO rowvec.task (name, ran_at) VALUES ('retry_failed', now() - interval '8 days');
    """)


async def test_a_retry_that_was_missed_while_no_daemon_ran_is_made_up_for_once_among_three(
    post: asyncpg.Connection, dsn: str
) -> None:
    await fail_once(post)
    models = [GatedEmbedder(), GatedEmbedder(), GatedEmbedder()]

    async def embedded() -> bool:
        return bool(await post.fetchval("SELECT count(*) FROM rowvec.vector_first")) and await finished(post)

    with structlog.testing.capture_logs() as logs:
        async with running(dsn, models[0]), running(dsn, models[1]), running(dsn, models[2]):
            await eventually(embedded)
            await eventually(lambda: is_over(post))
    assert sum(len(model.texts) for model in models) == 1
    assert retried(logs) == [1]


async def is_over(post: asyncpg.Connection) -> bool:
    """Whether the retry was done and has ended."""
    return bool(await post.fetchval("SELECT count(*) FROM rowvec.task WHERE name = 'retry_failed' AND daemon IS NULL"))


def retried(logs: list[Any]) -> list[int]:
    """How many items each retry that was done has queued."""
    return [line["items"] for line in logs if line["event"] == "task.done" and line["task"] == "retry_failed"]


async def test_a_daemon_takes_down_what_it_will_do(post: asyncpg.Connection, dsn: str) -> None:
    async def known() -> bool:
        return [row["name"] for row in await post.fetch("SELECT name FROM rowvec.task ORDER BY name")] == [
            "cleanup",
            "monitor",
            "retry_failed",
        ]

    async with running(dsn, GatedEmbedder()):
        await eventually(known)
