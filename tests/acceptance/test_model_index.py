"""`rowvec model index`: built beside all that goes on, and nothing is left of what was not built."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import uuid
from collections.abc import AsyncIterator
from typing import Final

import asyncpg

from commands import begun, ended, fill, rowvec
from daemons import GatedEmbedder, eventually, running
from database import Connect, as_user
from rowvec.domain.hnsw import FEW_VECTORS

INDEX: Final = "vector_first_hnsw"
WAITS: Final = "waiting for old transactions: that of session"


async def valid(session: asyncpg.Connection) -> bool | None:
    """Whether the index can be used; None when there is none."""
    found: bool | None = await session.fetchval(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('rowvec.vector_first_hnsw')"
    )
    return found


async def building(session: asyncpg.Connection) -> str:
    """What a build does, as Postgres calls it; nothing when there is none."""
    phase = await session.fetchval(
        "SELECT phase FROM pg_stat_progress_create_index WHERE relid = 'rowvec.vector_first'::regclass"
    )
    return str(phase or "")


@contextlib.asynccontextmanager
async def held(connect: Connect, dsn: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A build that waits for a transaction that has written to the table, and that one's session."""
    writer, watcher = await connect(), await connect()
    await writer.execute("BEGIN")
    await writer.execute("DELETE FROM rowvec.vector_first WHERE content_id = '1'")
    async with begun(dsn, "model", "index", "first", "--now") as command:

        async def waits() -> bool:
            return (await building(watcher)).startswith("waiting for writers")

        await eventually(waits)
        yield command, writer.get_server_pid()
    writer.terminate()


async def test_an_index_is_built_as_the_model_wants_it(app: asyncpg.Connection, dsn: str) -> None:
    await app.execute("SELECT rowvec.add_model('close', 8, distance => 'l2', storage => 'halfvec')")
    await fill(app, "close", 50)
    answer = await rowvec(dsn, "model", "index", "close", "--now", "--m", "8", "--ef-construction", "32", "--json")
    assert answer.code == 0, answer
    told = answer.json
    assert (told["index"], told["built"], told["vectors"]) == ("rowvec.vector_close_hnsw", True, 50)
    assert (told["m"], told["ef_construction"], told["workers"]) == (8, 32, 0)
    definition = await app.fetchval("SELECT pg_get_indexdef('rowvec.vector_close_hnsw'::regclass)")
    assert definition.endswith("USING hnsw (embedding halfvec_l2_ops) WITH (m='8', ef_construction='32')")


async def test_what_is_there_already_is_told(app: asyncpg.Connection, dsn: str) -> None:
    assert (await rowvec(dsn, "model", "index", "first", "--now")).code == 0
    again = await rowvec(dsn, "model", "index", "first", "--now")
    assert (again.code, "is there already" in again.out) == (0, True)
    assert (await rowvec(dsn, "model", "index", "first", "--now", "--json")).json["built"] is False
    other = await rowvec(dsn, "model", "index", "first", "--now", "--m", "8")
    assert (other.code, other.out) == (2, "")
    assert "other parameters: m 16, ef_construction 64" in other.err
    assert f"DROP INDEX CONCURRENTLY rowvec.{INDEX}" in other.err
    assert await valid(app)


async def test_it_waits_until_the_backfill_is_through(app: asyncpg.Connection, dsn: str) -> None:
    await app.execute("CREATE TABLE course (id bigint PRIMARY KEY, title text)")
    await app.execute("INSERT INTO course SELECT n, 'Course ' || n FROM generate_series(1, 20) n")
    await app.execute("SELECT rowvec.watch('course', 'course', ARRAY['title'])")
    model = GatedEmbedder()
    model.gate.clear()
    async with running(dsn, model), begun(dsn, "model", "index", "first") as command:
        assert command.stderr is not None
        assert b"Waiting for the backfill" in await command.stderr.readline()
        assert await valid(app) is None
        model.gate.set()
        answer = await ended(command)
    assert (answer.code, "20 vectors" in answer.out) == (0, True), answer


async def test_a_backfill_that_was_stopped_is_not_waited_for(app: asyncpg.Connection, dsn: str) -> None:
    await app.execute("CREATE TABLE course (id bigint PRIMARY KEY, title text)")
    await app.execute("SELECT rowvec.watch('course', 'course', ARRAY['title'])")
    await app.execute("SELECT rowvec.stop_backfill('course', 'first')")
    answer = await rowvec(dsn, "model", "index", "first")
    assert (answer.code, "`rowvec backfill --model first` goes on" in answer.err) == (75, True), answer


async def test_writers_go_on_while_it_is_built(app: asyncpg.Connection, dsn: str) -> None:
    await fill(app, "first", 30_000)
    await app.execute("SET lock_timeout = '1s'")
    async with begun(dsn, "model", "index", "first", "--now", "--ef-construction", "200") as command:

        async def loading() -> bool:
            return (await building(app)).startswith("building index: loading")

        await eventually(loading)
        await app.execute("""
            INSERT INTO rowvec.vector_first (content_type, content_id, chunk_index, chunk_text, chunk_hash, repeat,
                                             provider_revision, prefix, embedding)
            VALUES ('course', 'late', 0, 'x', 'x', 0, 'test-1', '', '[9,-9,9,-9,9,-9,9,-9]')
        """)
        await app.execute("DELETE FROM rowvec.vector_first WHERE content_id = '7'")
        assert await building(app), "the build was over before it was written beside it"
        answer = await ended(command)
    assert answer.code == 0, answer
    await app.execute("SET enable_seqscan = off")
    nearest = "FROM rowvec.vector_first ORDER BY embedding <=> '[9,-9,9,-9,9,-9,9,-9]' LIMIT 1"
    assert INDEX in str(await app.fetchval(f"EXPLAIN (FORMAT JSON) SELECT content_id {nearest}"))
    assert await app.fetchval(f"SELECT content_id {nearest}") == "late"


async def test_it_says_whom_it_waits_for_and_is_the_only_one(
    app: asyncpg.Connection, connect: Connect, dsn: str
) -> None:
    await fill(app, "first", 5)
    async with held(connect, dsn) as (command, holder):
        assert command.stderr is not None
        assert f"{WAITS} {holder} (" in (await command.stderr.readline()).decode()
        second = await rowvec(dsn, "model", "index", "first", "--now")
        assert (second.code, 'Somebody else is building the index of "first"' in second.err) == (75, True), second
        assert (await rowvec(dsn, "model", "list", "--json")).json[0]["index"] == "building"
        dropped = await rowvec(dsn, "model", "drop", "first", "--yes")
        assert (dropped.code, "is being built" in dropped.err) == (75, True), dropped


async def test_ctrl_c_leaves_nothing_behind(app: asyncpg.Connection, connect: Connect, dsn: str) -> None:
    await fill(app, "first", 5)
    async with held(connect, dsn) as (command, holder):
        # The removal waits for the transaction too.
        command.send_signal(signal.SIGINT)

        async def cancelled() -> bool:
            return not await building(app)

        await eventually(cancelled)
        await app.execute("SELECT pg_terminate_backend($1)", holder)
        answer = await ended(command)
        assert (answer.code, "nothing of it is left" in answer.err) == (130, True), answer
        assert await valid(app) is None


async def test_what_a_killed_build_left_is_told_and_removed_by_the_next(
    app: asyncpg.Connection, connect: Connect, dsn: str
) -> None:
    await fill(app, "first", 5)
    async with held(connect, dsn) as (command, _):
        command.kill()

        async def gone() -> bool:
            return not await building(app)

        await eventually(gone, what="the server builds on without its client")
    assert await valid(app) is False
    assert (await rowvec(dsn, "model", "list", "--json")).json[0]["index"] == "invalid"
    answer = await rowvec(dsn, "model", "index", "first", "--now")
    assert (answer.code, "Removing what an interrupted build has left" in answer.err) == (0, True), answer
    assert await valid(app)


async def test_a_build_that_somebody_cancels_leaves_nothing(
    app: asyncpg.Connection, connect: Connect, dsn: str
) -> None:
    await fill(app, "first", 5)
    async with held(connect, dsn) as (command, holder):
        await app.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_progress_create_index")
        await app.execute("SELECT pg_terminate_backend($1)", holder)
        answer = await ended(command)
    assert (answer.code, "cancelled in the database" in answer.err) == (75, True), answer
    assert await valid(app) is None


async def test_too_little_shared_memory_means_one_process(app: asyncpg.Connection, dsn: str) -> None:
    await fill(app, "first", FEW_VECTORS)
    # Several processes share all the memory that the build may have, from the beginning.
    answer = await rowvec(dsn, "model", "index", "first", "--now", "--memory", "2000GB", "--workers", "2", "--json")
    assert answer.code == 0, answer
    assert "too little shared memory for several processes" in answer.err
    assert answer.json["workers"] == 0
    assert await valid(app)


async def test_several_processes_build_it_where_they_may(app: asyncpg.Connection, dsn: str) -> None:
    await fill(app, "first", FEW_VECTORS)
    answer = await rowvec(dsn, "model", "index", "first", "--now", "--memory", "128MB", "--workers", "1000")
    assert answer.code == 0, answer
    assert "processes for parallel work at most" in answer.err
    assert "processes beside it: 10,000 vectors" in answer.out


async def test_a_graph_that_does_not_fit_is_told_before_and_when_it_happens(app: asyncpg.Connection, dsn: str) -> None:
    await fill(app, "first", 3000)
    answer = await rowvec(dsn, "model", "index", "first", "--now", "--memory", "1MB", "--ef-construction", "32")
    assert answer.code == 0, answer
    assert "warning: the graph of 3,000 vectors takes about 2.2 MB, the build may have 1.0 MB." in answer.err
    assert "hnsw graph no longer fits into maintenance_work_mem" in answer.err


WRONG: Final = [
    (["nobody"], "See `rowvec model list`."),
    (["first", "--memory", "much"], "Such as --memory 800MB"),
    (["first", "--memory", "9000GB"], "Such as --memory 800MB"),
    (["first", "--m", "50"], "--ef-construction must be at least twice --m: 100"),
    (["first", "--m", "1"], "--m"),
]


async def test_what_makes_no_sense_is_refused(dsn: str) -> None:
    answers = await asyncio.gather(*(rowvec(dsn, "model", "index", *line) for line, _ in WRONG))
    for (line, words), answer in zip(WRONG, answers, strict=True):
        assert (answer.code, words in answer.err) == (2, True), (line, answer)


async def test_an_index_is_not_built_before_there_is_a_vector(app: asyncpg.Connection, dsn: str) -> None:
    await app.execute("SELECT rowvec.deactivate_model('second')")
    answer = await rowvec(dsn, "model", "index", "second")
    assert (answer.code, "There are no vectors" in answer.err, "--now" in answer.err) == (75, True, True), answer
    assert await app.fetchval("SELECT to_regclass('rowvec.vector_second_hnsw')") is None
    assert (await rowvec(dsn, "model", "index", "second", "--now")).code == 0


async def test_a_role_that_does_not_own_the_table_is_told(app: asyncpg.Connection, dsn: str) -> None:
    name = f"rowvec_test_{uuid.uuid4().hex[:8]}"
    await app.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'; SELECT rowvec.grant_daemon_rights('{name}')")
    try:
        answer = await rowvec(as_user(dsn, name), "model", "index", "first", "--now")
        assert (answer.code, "does not own the table" in answer.err) == (78, True), answer
    finally:
        await app.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
