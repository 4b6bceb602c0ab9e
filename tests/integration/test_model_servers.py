"""The whole way with a model behind HTTP: a stand-in for the services of the original system."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import structlog
from aiohttp import web

from daemons import GatedEmbedder, eventually, finished, process, running
from embedding_servers import (
    API_KEY,
    REMOTE_NAME,
    EmbeddingServer,
    OllamaServer,
    OpenAIServer,
    SentenceTransformersServer,
    TeiServer,
    cut_off,
    invalid,
)
from rowvec.models.deterministic import deterministic_embedding

pytestmark = pytest.mark.one_postgres

DIMENSIONS = 8


@pytest.fixture
async def service() -> AsyncIterator[SentenceTransformersServer]:
    async with SentenceTransformersServer(DIMENSIONS).serving() as serving:
        yield serving


def models(service: SentenceTransformersServer, api_key: str = API_KEY) -> dict[str, Any]:
    return {
        "e5_small": {"provider": "off"},
        "first": {"url": service.url, "api_key": api_key, "dimensions": DIMENSIONS, "timeout_seconds": 10},
    }


async def resting(session: asyncpg.Connection) -> str:
    return str(await session.fetchval("SELECT string_agg(resting::text, ' ') FROM rowvec.daemon"))


async def test_rows_get_the_vectors_of_a_server_and_are_found_by_them(
    post: asyncpg.Connection, dsn: str, service: SentenceTransformersServer
) -> None:
    await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 100) n")
    async with running(dsn, models=models(service)):
        await eventually(lambda: finished(post))
    rows = await post.fetch("SELECT chunk_text, provider_revision, prefix, embedding::real[] FROM rowvec.vector_first")
    assert len(rows) == 100
    for text, revision, prefix, embedding in rows:
        assert (revision, prefix) == ("sentence_transformers-1", "passage")
        assert embedding == list(deterministic_embedding(text, DIMENSIONS))
    assert {request.task for request in service.requests} == {"passage"}

    settings = {
        "ROWVEC_MODEL_FIRST_PROVIDER": "sentence_transformers",
        "ROWVEC_MODEL_FIRST_URL": service.url,
        "ROWVEC_MODEL_FIRST_API_KEY": API_KEY,
    }
    async with process(dsn, ["-m", "rowvec", "search", "Post", "--model", "first", "--json"], **settings) as search:
        assert await search.wait() == 0
        assert len(json.loads(search.log.read_text())) == 10
    assert (service.requests[-1].task, service.requests[-1].texts) == ("query", ["Post"])


async def test_a_server_that_is_away_burns_no_retry_and_says_why(
    post: asyncpg.Connection, dsn: str, service: SentenceTransformersServer
) -> None:
    await service.refuse_connections()
    with structlog.testing.capture_logs() as logs:
        async with running(dsn, models=models(service)):
            await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 50) n")

            async def told() -> bool:
                return "The model server can't be reached." in await resting(post)

            await eventually(told)
            await service.listen()
            await eventually(lambda: finished(post))
    assert await post.fetchval("SELECT count(*) FROM rowvec.vector_first") == 50
    assert not [entry for entry in logs if entry["event"] in {"item.retried", "item.failed"}]


async def test_a_wrong_key_is_told_where_people_look_and_never_shown(
    post: asyncpg.Connection, dsn: str, service: SentenceTransformersServer
) -> None:
    wrong = "no-key-of-this-server"
    with structlog.testing.capture_logs() as logs:
        async with running(dsn, models=models(service, wrong)):
            await post.execute("INSERT INTO post (body) VALUES ('One')")

            async def told() -> bool:
                return "Correct ROWVEC_MODEL_FIRST_API_KEY." in await resting(post)

            await eventually(told)
            assert wrong not in await resting(post)
    assert "(401)" in str(logs)
    assert wrong not in str(logs)
    assert await post.fetchval("SELECT retry_count FROM rowvec.embedding_queue WHERE model = 'first'") == 0


async def test_a_text_that_a_server_refuses_fails_alone(
    post: asyncpg.Connection, dsn: str, service: SentenceTransformersServer
) -> None:
    async def picky(request: web.Request) -> web.Response:
        texts = (await request.json())["inputs"]
        if "POISON" in texts:
            return invalid("inputs", "Input should be healthy", texts)
        vectors = [list(deterministic_embedding(text, DIMENSIONS)) for text in texts]
        return web.json_response({"embeddings": vectors, "count": len(vectors), "dim": DIMENSIONS})

    service.instead = picky
    await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 100) n")
    await post.execute("UPDATE post SET body = 'POISON' WHERE id = 37")
    async with running(dsn, models=models(service)):

        async def settled() -> bool:
            # The backfill asks for every row once more, the failed one too.
            return bool(
                await post.fetchval(
                    """
                    SELECT NOT EXISTS (SELECT FROM rowvec.unfilled) AND NOT EXISTS (SELECT FROM rowvec.change)
                       AND NOT EXISTS (SELECT FROM rowvec.embedding_queue WHERE model = 'first' AND status <> 'failed')
                    """
                )
            )

        await eventually(settled)
    failed = await post.fetch(
        "SELECT content_id, error_message, error_detail FROM rowvec.embedding_queue WHERE model = 'first'"
    )
    assert [tuple(row) for row in failed] == [
        ("37", "The model server refuses the text (422).", "Input should be healthy")
    ]
    assert await post.fetchval("SELECT count(*) FROM rowvec.vector_first") == 99


async def test_a_server_of_another_model_burns_no_retry_and_says_so(post: asyncpg.Connection, dsn: str) -> None:
    async with SentenceTransformersServer(DIMENSIONS // 2).serving() as other:
        await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 50) n")
        async with running(dsn, models=models(other), ROWVEC_MAX_ATTEMPTS=1):

            async def told() -> bool:
                return "Does ROWVEC_MODEL_FIRST_URL lead to this model?" in await resting(post)

            await eventually(told)
    found = await post.fetch("SELECT DISTINCT status, retry_count FROM rowvec.embedding_queue WHERE model = 'first'")
    assert [tuple(row) for row in found] == [("queued", 0)]


async def test_a_text_that_breaks_a_server_holds_up_no_other(
    post: asyncpg.Connection, dsn: str, service: SentenceTransformersServer
) -> None:
    async def fragile(request: web.Request) -> web.Response:
        texts = (await request.json())["inputs"]
        if "POISON" in texts:
            return web.Response(status=500, text="Internal Server Error")
        vectors = [list(deterministic_embedding(text, DIMENSIONS)) for text in texts]
        return web.json_response({"embeddings": vectors})

    service.instead = fragile
    await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 100) n")
    await post.execute("UPDATE post SET body = 'POISON' WHERE id = 37")
    async with running(dsn, models=models(service)):

        async def alone() -> bool:
            return bool(await post.fetchval("SELECT count(*) = 99 FROM rowvec.vector_first"))

        await eventually(alone)
        assert await resting(post) == "{}"


@pytest.mark.parametrize("harm", ["hangs", "cuts"])
async def test_a_text_that_a_server_hangs_or_dies_at_fails_alone(
    post: asyncpg.Connection, dsn: str, service: SentenceTransformersServer, harm: str
) -> None:
    async def fragile(request: web.Request, texts: list[str]) -> web.StreamResponse | None:
        if "POISON" not in texts:
            return None
        if harm == "hangs":
            await asyncio.sleep(2)
        return await cut_off(request)

    service.spoil = fragile
    await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 100) n")
    await post.execute("UPDATE post SET body = 'POISON' WHERE id = 37")
    patience = {**models(service), "first": {**models(service)["first"], "timeout_seconds": 0.5}}
    async with running(dsn, models=patience, ROWVEC_MAX_ATTEMPTS=2):

        async def settled() -> bool:
            query = "SELECT count(*) = 1 FROM rowvec.embedding_queue WHERE model = 'first' AND status = 'failed'"
            return bool(await post.fetchval(query))

        await eventually(settled, 60)
        assert await post.fetchval("SELECT count(*) FROM rowvec.vector_first") == 99
    row = await post.fetchrow(
        "SELECT content_id, retry_count, error_message, error_detail FROM rowvec.embedding_queue WHERE model = 'first'"
    )
    assert row is not None
    assert tuple(row)[:3] == ("37", 2, "The model hangs or breaks down at the text.")
    assert "no answer 3 times in a row, while others had theirs. The model server" in row["error_detail"]


@pytest.mark.parametrize(
    ("kind", "provider", "revision"),
    [
        (OpenAIServer, "openai", f"openai-1 {REMOTE_NAME}"),
        (TeiServer, "tei", f"tei-1 {REMOTE_NAME}@0123abcd"),
        (OllamaServer, "ollama", f"ollama-1 {REMOTE_NAME}"),
    ],
)
async def test_rows_get_the_vectors_of_every_kind_of_server(
    post: asyncpg.Connection, dsn: str, kind: type[EmbeddingServer], provider: str, revision: str
) -> None:
    async with kind(DIMENSIONS).serving() as server:
        name = {} if provider == "tei" else {"remote_name": REMOTE_NAME}
        prefixes = {"query_prefix": "query: ", "passage_prefix": "passage: "}
        first = {"provider": provider, "url": server.url, "api_key": API_KEY, "dimensions": DIMENSIONS}
        await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 100) n")
        await post.execute("UPDATE post SET body = repeat('word ', 600) WHERE id = 37")
        async with running(dsn, models={"e5_small": {"provider": "off"}, "first": {**first, **name, **prefixes}}):

            async def done() -> bool:
                return bool(await post.fetchval("SELECT count(*) = 99 FROM rowvec.vector_first"))

            await eventually(done)

            async def failed() -> bool:
                return bool(
                    await post.fetchval("SELECT count(*) = 1 FROM rowvec.embedding_queue WHERE status = 'failed'")
                )

            await eventually(failed)
    rows = await post.fetch("SELECT chunk_text, provider_revision, prefix, embedding::real[] FROM rowvec.vector_first")
    for text, marked, prefix, embedding in rows:
        assert (marked, prefix) == (revision, "passage: ")
        assert embedding == list(deterministic_embedding(f"passage: {text}", DIMENSIONS))
    row = await post.fetchrow("SELECT content_id, error_message FROM rowvec.embedding_queue WHERE status = 'failed'")
    assert row is not None
    assert tuple(row) == ("37", "The text is too long for the model.")


async def test_a_server_that_asks_for_a_pause_gets_it(
    post: asyncpg.Connection, dsn: str, service: SentenceTransformersServer
) -> None:
    asked: list[float] = []

    async def busy(_: web.Request) -> web.Response:
        asked.append(time.monotonic())
        return web.Response(status=429, headers={"Retry-After": "2"})

    service.instead = busy
    async with running(dsn, models=models(service)):
        await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 50) n")

        async def twice() -> bool:
            return len(asked) >= 2

        await eventually(twice)
        assert "It asks for a pause of 2 s." in await resting(post)
        service.instead = None
        await eventually(lambda: finished(post))
    assert asked[1] - asked[0] >= 2.0
    assert await post.fetchval("SELECT count(*) FROM rowvec.vector_first") == 50


async def test_after_a_change_of_provider_pause_and_resume_embed_all_rows_anew(
    post: asyncpg.Connection, dsn: str, service: SentenceTransformersServer
) -> None:
    async def revisions() -> set[tuple[str, int]]:
        found = await post.fetch("SELECT provider_revision, count(*) FROM rowvec.vector_first GROUP BY 1")
        return {(row[0], row[1]) for row in found}

    await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 100) n")
    async with running(dsn, GatedEmbedder("first", DIMENSIONS)):
        await eventually(lambda: finished(post))
    assert await revisions() == {("test-1", 100)}
    async with running(dsn, models=models(service)):
        await post.execute("SELECT rowvec.pause('post'); SELECT rowvec.resume('post')")

        async def anew() -> bool:
            return await revisions() == {("sentence_transformers-1", 100)}

        await eventually(anew)


async def test_what_a_server_says_harms_nobody_whatever_it_is(
    post: asyncpg.Connection, dsn: str, service: SentenceTransformersServer
) -> None:
    """Postgres keeps no character 0: not as why a model rests, nor as what an item failed with."""
    status = 503

    async def odd(request: web.Request) -> web.Response:
        texts = (await request.json())["inputs"] if request.method == "POST" else []
        if status == 503 or "POISON" in texts:
            return web.Response(status=status, body=b"out\0 of order")
        return web.json_response({"status": "ok", "embeddings": [[1.0] * DIMENSIONS for _ in texts]})

    service.instead = odd
    async with running(dsn, models=models(service)):
        await post.execute("INSERT INTO post (body) VALUES ('POISON')")

        async def told() -> bool:
            return "out of order" in await resting(post)

        await eventually(told)
        status = 422

        async def failed() -> bool:
            query = "SELECT error_detail FROM rowvec.embedding_queue WHERE model = 'first'"
            return bool(await post.fetchval(query) == "out of order")

        await eventually(failed)
