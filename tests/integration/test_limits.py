"""What holds for a model as a whole, over HTTP: outages, pauses that it asks for, and the rate of requests."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from daemons import eventually, finished, running
from embedding_servers import (
    API_KEY,
    REMOTE_NAME,
    EmbeddingServer,
    OllamaServer,
    OpenAIServer,
    SentenceTransformersServer,
    TeiServer,
)
from rowvec.pipeline.gate import HARMLESS

pytestmark = pytest.mark.one_postgres

DIMENSIONS = 8
KINDS: dict[str, type[EmbeddingServer]] = {
    "sentence_transformers": SentenceTransformersServer,
    "openai": OpenAIServer,
    "tei": TeiServer,
    "ollama": OllamaServer,
}
THREE_LANES = """
    INSERT INTO post (body) SELECT 'immediate ' || g FROM generate_series(1, 40) g;
    INSERT INTO note SELECT g, 'standard ' || g FROM generate_series(1, 40) g;
    INSERT INTO log SELECT g, 'bulk ' || g FROM generate_series(1, 40) g;
"""


@pytest.fixture
async def lanes(post: asyncpg.Connection) -> asyncpg.Connection:
    """A session beside a watched table for each lane: post, note, log."""
    await post.execute("""
        CREATE TABLE note (id bigint PRIMARY KEY, body text);
        CREATE TABLE log (id bigint PRIMARY KEY, body text);
        SELECT rowvec.watch('note', 'note', ARRAY['body'], 3, template => '{body}');
        SELECT rowvec.watch('log', 'log', ARRAY['body'], 9, template => '{body}');
    """)
    return post


def models(server: EmbeddingServer, **given: object) -> dict[str, Any]:
    provider = next(name for name, kind in KINDS.items() if type(server) is kind)
    named = {"remote_name": REMOTE_NAME} if provider in {"openai", "ollama"} else {}
    first = {"provider": provider, "url": server.url, "api_key": API_KEY, "dimensions": DIMENSIONS}
    return {"e5_small": {"provider": "off"}, "first": {**first, **named, "timeout_seconds": 10, **given}}


@contextlib.asynccontextmanager
async def serving(provider: str = "sentence_transformers") -> AsyncIterator[EmbeddingServer]:
    async with KINDS[provider](DIMENSIONS).serving() as server:
        yield server


def noted(server: EmbeddingServer, answer: Callable[[], web.Response]) -> list[tuple[float, str]]:
    """Have a server answer everything so; return the list of what it is asked from now on, with the times."""
    asked: list[tuple[float, str]] = []

    async def note(request: web.Request) -> web.StreamResponse:
        asked.append((time.monotonic(), request.path))
        return answer()

    server.instead = note
    return asked


def answering(check: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def answer() -> bool:
        return check()

    return answer


async def counted(session: asyncpg.Connection) -> int:
    """How many items have a retry counted or failed."""
    return int(
        await session.fetchval("SELECT count(*) FROM rowvec.embedding_queue WHERE retry_count > 0 OR status = 'failed'")
    )


async def breaker(session: asyncpg.Connection) -> dict[str, Any]:
    told = await session.fetchval("SELECT load -> 'first' FROM rowvec.daemon")
    return dict(json.loads(told)) if told else {"breaker": ""}


@pytest.mark.parametrize("provider", KINDS)
async def test_after_an_outage_one_look_and_one_text_go_before_the_flood(
    lanes: asyncpg.Connection, dsn: str, provider: str
) -> None:
    async with serving(provider) as server:
        async with running(dsn, models=models(server, concurrency=4)) as daemon:
            asked = noted(server, lambda: web.Response(status=503))
            await lanes.execute(THREE_LANES)

            async def looked_at_twice() -> bool:
                return len(server.looks) >= 2 and (await breaker(lanes))["breaker"] == "open"

            await eventually(looked_at_twice)
            paths = [path for _, path in asked]
            assert set(paths[paths.index(server.looks[0]) :]) == {server.looks[0]}, "each rest ends with a look alone"
            assert "(503)" in (await breaker(lanes))["why"]
            assert await counted(lanes) == 0
            closed = {"model": "first", "state": "closed"}
            assert daemon.metrics.registry.get_sample_value("rowvec_breaker_state", closed) == 0
            server.looks.clear()
            server.requests.clear()
            server.instead = None
            await eventually(lambda: finished(lanes))
            assert len(server.looks) == 1
            assert server.requests[0].texts == [HARMLESS]
            sent = Counter(text for request in server.requests for text in request.texts)
            assert sent[HARMLESS] == 1
            assert set(sent.values()) == {1}
            assert len(sent) == 121
        assert await lanes.fetchval("SELECT count(*) FROM rowvec.vector_first") == 120


async def test_a_pause_that_is_asked_for_is_kept_by_all_lanes_and_claims(lanes: asyncpg.Connection, dsn: str) -> None:
    async with serving() as server, running(dsn, models=models(server, concurrency=4)):
        asked = noted(server, lambda: web.Response(status=429, headers={"Retry-After": "2"}))
        await lanes.execute(THREE_LANES)
        await eventually(answering(lambda: len(asked) >= 1))
        told = await eventually_told(lanes)
        assert "It asks for a pause of 2 s." in told["why"]
        await lanes.execute("INSERT INTO post (body) VALUES ('urgent')")
        await eventually(answering(lambda: any(path == "/healthz" for _, path in asked)))
        embeds = [when for when, path in asked if path != "/healthz"]
        first_look = next(when for when, path in asked if path == "/healthz")
        # Those that were under way together; then silence, whatever came.
        assert len(embeds) <= 4
        assert first_look - max(embeds) >= 2.0
        server.instead = None
        await eventually(lambda: finished(lanes))
        assert await counted(lanes) == 0
        assert await lanes.fetchval("SELECT count(*) FROM rowvec.vector_first") == 121


async def eventually_told(session: asyncpg.Connection) -> dict[str, Any]:
    async def told() -> bool:
        return bool((await breaker(session))["breaker"] == "open")

    await eventually(told)
    return await breaker(session)


async def test_a_rate_holds_over_a_burst_and_what_is_immediate_goes_first(lanes: asyncpg.Connection, dsn: str) -> None:
    started: list[tuple[float, str]] = []

    async def note(_: web.Request, texts: list[str]) -> None:
        started.append((time.monotonic(), texts[0]))

    async with serving() as server:
        server.spoil = note
        settings = models(server, concurrency=4, request_texts=1, requests_per_minute=600)
        async with running(dsn, models=settings) as daemon:
            await lanes.execute("INSERT INTO log SELECT g, 'bulk ' || g FROM generate_series(1, 30) g")
            await eventually(answering(lambda: len(started) >= 5))
            await lanes.execute("INSERT INTO post (body) VALUES ('urgent')")
            await eventually(lambda: finished(lanes))
            waits = daemon.metrics.registry.get_sample_value("rowvec_rate_limit_waits_total", {"model": "first"})
    assert len(started) == 31
    times = [when for when, _ in started]
    # The server's times are those of arrival: the first may have come a little late. Even spacing is test_pace.py's.
    assert times[-1] - times[0] >= 30 * 0.1 * 0.95
    place = [text for _, text in started].index("urgent")
    assert place < 20, "it did not wait for the bulk before it"
    assert waits is not None
    assert waits > 0


async def test_an_open_breaker_of_one_model_delays_nothing_of_another(lanes: asyncpg.Connection, dsn: str) -> None:
    async with serving() as dead, serving("ollama") as server:
        await dead.refuse_connections()
        settings = models(dead)
        settings["second"] = {**models(server)["first"], "dimensions": 4}
        server.dimensions = 4
        async with running(dsn, models=settings):
            await lanes.execute("INSERT INTO post (body) VALUES ('one')")
            assert (await eventually_told(lanes))["breaker"] == "open"
            for number in range(20):
                await lanes.execute("INSERT INTO post (body) VALUES ($1)", f"post {number}")
                began = time.monotonic()
                await eventually(lambda: finished(lanes, "second"))
                assert time.monotonic() - began < 5
            assert await counted(lanes) == 0
            assert await lanes.fetchval("SELECT count(*) FROM rowvec.embedding_queue WHERE model = 'first'") == 21
            await dead.listen()
            await eventually(lambda: finished(lanes))


async def test_after_a_poison_a_retry_sends_the_poison_alone(post: asyncpg.Connection, dsn: str) -> None:
    """A document of 200 chunks, of which the model fails at one: the others wait in memory for its cure."""
    await post.execute("""
        CREATE TABLE book (id bigint PRIMARY KEY, body text);
        SELECT rowvec.watch('book', 'book', ARRAY['body'], 2, template => '{body}', chunking => 'characters',
                            chunk_characters => 100);
    """)

    async def spoil(_: web.Request, texts: list[str]) -> web.Response | None:
        return web.Response(status=500, text="CUDA error") if any("POISON" in text for text in texts) else None

    async with serving() as server, running(dsn, models=models(server)):
        server.spoil = spoil
        paragraphs = [f"Paragraph {number} " + "x" * 70 for number in range(200)]
        paragraphs[77] = "POISON " + "x" * 80
        await post.execute("INSERT INTO book VALUES (1, $1)", "\n\n".join(paragraphs))

        async def tried(times: int) -> bool:
            return bool(await post.fetchval("SELECT max(retry_count) >= $1 FROM rowvec.embedding_queue", times))

        await eventually(functools.partial(tried, 1))
        server.requests.clear()
        await eventually(functools.partial(tried, 2))
        server.spoil = None
        await post.execute("UPDATE rowvec.embedding_queue SET scheduled_at = now()")
        await eventually(lambda: finished(post))
        sent = {text for request in server.requests for text in request.texts}
        assert {text for text in sent if "POISON" not in text} == {HARMLESS}
    assert await post.fetchval("SELECT count(*) FROM rowvec.vector_first WHERE content_type = 'book'") >= 200


async def test_two_claims_at_once_send_the_same_text_once(lanes: asyncpg.Connection, dsn: str) -> None:
    gate = asyncio.Event()

    async def hold(_: web.Request, texts: list[str]) -> None:
        del texts
        await gate.wait()

    async with serving() as server, running(dsn, models=models(server, concurrency=4)):
        server.spoil = hold
        await lanes.execute("INSERT INTO log VALUES (1, 'the same')")
        await eventually(answering(lambda: len(server.requests) == 1))
        await lanes.execute("INSERT INTO post (body) VALUES ('the same'); INSERT INTO note VALUES (1, 'the same')")

        async def all_claimed() -> bool:
            query = "SELECT count(*) = 3 FROM rowvec.embedding_queue WHERE model = 'first' AND status = 'processing'"
            return bool(await lanes.fetchval(query))

        await eventually(all_claimed)
        gate.set()
        await eventually(lambda: finished(lanes))
        assert [request.texts for request in server.requests] == [["the same"]]
    assert await lanes.fetchval("SELECT count(*) FROM rowvec.vector_first") == 3
