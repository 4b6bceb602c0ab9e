"""A server that others made, with two models at once: vectors, searches, its 429 and 422, its death. `make interop`."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import pytest

from daemons import Process, eventually, process
from interop.infinity import MODELS, MOST_CHARACTERS, Infinity, cosine

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

TOPICS = {
    "Knead the dough, let it rise overnight and bake it in a hot oven.": "how do I make bread",
    "The striker scored twice in the last minutes of the final.": "who won the football match",
    "Interest rates rose, so the price of mortgages went up.": "cost of borrowing money for a house",
    "Photosynthesis turns sunlight, water and carbon dioxide into sugar.": "how plants get their energy",
    "The orchestra tuned its violins before the symphony began.": "a concert of classical music",
}
ALIKE = 0.999
OVERLOADED = "The model server answers with an error (429)."


def models(infinity: Infinity, **changed: str) -> dict[str, str]:
    """Return the settings of a daemon that has both models from the server."""
    settings = {"ROWVEC_MODEL_FIRST_PROVIDER": "off", "ROWVEC_MODEL_SECOND_PROVIDER": "off"}
    for name, dimensions in MODELS.items():
        of_model = {
            "PROVIDER": "openai",
            "URL": infinity.url,
            "REMOTE_NAME": name,
            "DIMENSIONS": str(dimensions),
            "CONCURRENCY": "2",
        }
        settings |= {f"ROWVEC_MODEL_{name.upper()}_{what}": value for what, value in of_model.items()}
    return settings | changed


async def write(post: asyncpg.Connection, rows: int) -> None:
    text = "'Post ' || n || ' is about ' || md5(n::text)"
    await post.execute(f"INSERT INTO post (body) SELECT {text} FROM generate_series(1, $1::int) n", rows)


async def stored(post: asyncpg.Connection, model: str) -> int:
    return int(await post.fetchval(f"SELECT count(*) FROM rowvec.vector_{model}"))


async def waiting(post: asyncpg.Connection) -> int:
    return int(
        await post.fetchval(
            """
            SELECT (SELECT count(*) FROM rowvec.change)
                 + (SELECT count(*) FROM rowvec.embedding_queue WHERE status <> 'failed')
            """
        )
    )


async def embedded(post: asyncpg.Connection) -> None:
    """Wait until nothing is left to be done."""

    async def done() -> bool:
        return await waiting(post) == 0

    await eventually(done, 300)


async def resting(post: asyncpg.Connection) -> str:
    return str(await post.fetchval("SELECT string_agg(resting::text, ' ') FROM rowvec.daemon"))


def told(daemon: Process, event: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in daemon.log.read_text().splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


async def check_vectors(post: asyncpg.Connection, infinity: Infinity, rows: int) -> None:
    """See that each row has both vectors, each the one that the server gives when it is asked for that text alone."""
    for model, dimensions in MODELS.items():
        found = await post.fetch(
            f"""
            SELECT p.body, v.chunk_text, v.embedding::real[] AS embedding FROM post p
            LEFT JOIN rowvec.vector_{model} v ON v.content_id = p.id::text
            WHERE length(p.body) <= $1
            """,
            MOST_CHARACTERS,
        )
        assert len(found) == rows
        assert all(row["body"] == row["chunk_text"] for row in found)
        direct = await infinity.embed(model, [row["body"] for row in found])
        for row, vector in zip(found, direct, strict=True):
            assert len(row["embedding"]) == dimensions
            assert cosine(row["embedding"], vector) > ALIKE
        # A server that answered everything alike would pass the above.
        assert cosine(direct[0], direct[1]) < ALIKE


async def check_nothing_counted(post: asyncpg.Connection) -> None:
    assert await post.fetch("SELECT * FROM counted") == []


async def search(dsn: str, infinity: Infinity, text: str) -> str:
    """Return the text of the row that the real command finds first."""
    program = ("-m", "rowvec", "search", text, "--model", "minilm", "--limit", "1", "--json")
    async with process(dsn, program, **models(infinity)) as command:
        assert await command.wait() == 0, command.log.read_text()
        return str(json.loads(command.log.read_text())[0]["chunk_text"])


async def test_rows_get_the_vectors_of_both_models_and_are_found_by_meaning(
    post: asyncpg.Connection, empty_dsn: str, infinity: Infinity
) -> None:
    await post.executemany("INSERT INTO post (body) VALUES ($1)", [[topic] for topic in TOPICS])
    await write(post, 300)
    async with process(empty_dsn, **models(infinity)):
        await embedded(post)
    await check_vectors(post, infinity, 300 + len(TOPICS))
    await check_nothing_counted(post)
    for topic, question in TOPICS.items():
        assert await search(empty_dsn, infinity, question) == topic


@contextlib.asynccontextmanager
async def crowd(infinity: Infinity) -> AsyncIterator[Counter[int]]:
    """Keep the server's queues full by requests of our own; yields how many had which status."""
    statuses: Counter[int] = Counter()

    async def press(session: aiohttp.ClientSession, model: str, number: int) -> None:
        while True:
            status, _ = await infinity.post(session, model, [f"Somebody else's text {number} {n}" for n in range(64)])
            statuses[status] += 1

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        tasks = [group.create_task(press(session, model, n)) for model in MODELS for n in range(6)]
        yield statuses
        for task in tasks:
            task.cancel()


async def test_while_others_overload_the_server_its_429_cost_no_attempt_and_all_ends_embedded(
    post: asyncpg.Connection, empty_dsn: str, infinity: Infinity
) -> None:
    rows, times = 1000, 3
    async with process(empty_dsn, **models(infinity)) as daemon:

        async def turned_away() -> bool:
            refused = Counter(line["model"] for line in told(daemon, "items.waiting") if line["why"] == OVERLOADED)
            return all(refused[model] >= times for model in MODELS)

        async with crowd(infinity) as statuses:
            await write(post, rows)
            await eventually(turned_away, 240)
        await embedded(post)
        answers = Counter((line["model"], line["why"]) for line in told(daemon, "items.waiting"))
    await check_vectors(post, infinity, rows)
    await check_nothing_counted(post)
    print(f"\nothers' requests by status: {dict(statuses)}; claims given back: {dict(answers)}")  # noqa: T201 - figures


async def test_a_text_that_the_server_refuses_fails_alone(
    post: asyncpg.Connection, empty_dsn: str, infinity: Infinity
) -> None:
    await write(post, 100)
    await post.execute("UPDATE post SET body = repeat('a ', $1) WHERE id = 37", MOST_CHARACTERS)
    async with process(empty_dsn, **models(infinity)):
        await embedded(post)
    await check_vectors(post, infinity, 99)
    failed = await post.fetch(
        "SELECT content_id, model, error_message FROM rowvec.embedding_queue WHERE status = 'failed' ORDER BY model"
    )
    why = "The model server refuses the text (422)."
    assert [tuple(row) for row in failed] == [("37", "bert", why), ("37", "minilm", why)]


async def test_a_server_killed_in_the_middle_and_started_again_loses_nothing(
    post: asyncpg.Connection, empty_dsn: str, infinity: Infinity
) -> None:
    rows = 2000
    async with process(empty_dsn, **models(infinity)) as daemon:
        await write(post, rows)

        async def in_the_middle() -> bool:
            return all([0 < await stored(post, model) < rows for model in MODELS])

        async def noticed() -> bool:
            rests = await resting(post)
            return all(f"{model}:" in rests for model in MODELS)

        await eventually(in_the_middle)
        infinity.kill()
        before = {model: await stored(post, model) for model in MODELS}
        try:
            await eventually(noticed)
        finally:
            await asyncio.to_thread(infinity.start)
        await embedded(post)
        given_back = Counter((line["model"], line["why"]) for line in told(daemon, "items.waiting"))
    await check_vectors(post, infinity, rows)
    await check_nothing_counted(post)
    print(f"\nstored when it was killed: {before}; claims given back: {dict(given_back)}")  # noqa: T201 - figures


async def test_a_model_that_the_server_does_not_have_is_waited_for(
    post: asyncpg.Connection, empty_dsn: str, infinity: Infinity
) -> None:
    rows = 100
    await write(post, rows)
    async with process(empty_dsn, **models(infinity, ROWVEC_MODEL_BERT_REMOTE_NAME="another")):

        async def said() -> bool:
            return "The model fails at every text." in await resting(post) and await stored(post, "minilm") == rows

        await eventually(said)
        assert "Engine for model name" in await resting(post)
    async with process(empty_dsn, **models(infinity)):
        await embedded(post)
    await check_vectors(post, infinity, rows)
    await check_nothing_counted(post)
