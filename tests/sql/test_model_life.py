"""The life of a model beside everything that goes on: what is refused, what waits for whom, what is found meanwhile."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from database import Connect
from rowvec.domain.errors import LockedError
from rowvec.domain.lanes import Lane
from rowvec.postgres.connections import translated
from rowvec.postgres.locks import run_patiently
from worker import TRAITS, Worker

GAPS = "SELECT * FROM rowvec.model_gaps('second') WHERE content_type <> 'document'"
OLD = "SELECT rowvec.watch('old', 'old', ARRAY['body'], {priority}{more})"
SEARCH = "SELECT content_id FROM rowvec.search('', '[1,1,1,1,1,1,1,1]'::vector, NULL, max_results => 100)"


async def default(session: asyncpg.Connection) -> str | None:
    found: str | None = await session.fetchval("SELECT name FROM rowvec.model WHERE is_default AND active")
    return found


async def gaps(session: asyncpg.Connection) -> tuple[bool, int, int]:
    row = await session.fetchrow(GAPS)
    assert row is not None
    return row["backfilled"], row["missing"], row["failed"]


async def refused(session: asyncpg.Connection, statement: str) -> tuple[str, str]:
    """What a person is told."""
    with pytest.raises(asyncpg.PostgresError) as caught:
        await session.execute(statement)
    assert caught.value.sqlstate == "RV001", caught.value
    return caught.value.args[0], caught.value.hint or ""


async def waits(session: asyncpg.Connection, other: asyncpg.Connection) -> None:
    """Return when another session is blocked."""
    blocked = "SELECT cardinality(pg_blocking_pids($1)) > 0 FROM pg_sleep(0.001)"
    while not await session.fetchval(blocked, other.get_server_pid()):
        pass


async def work(worker: Worker, model: str, lane: Lane = Lane.IMMEDIATE, content_type: str = "old") -> None:
    claim = await worker.claim(lane, content_type, model)
    await worker.store(claim, await worker.read(claim))


async def settle(worker: Worker) -> None:
    while await worker.unfilled():
        await worker.append_page("old")
        await worker.settle()
    await worker.settle()


async def watch_old(app: asyncpg.Connection, priority: int = 2, more: str = "") -> None:
    await app.execute(f"""
        CREATE TABLE old (id bigint PRIMARY KEY, body text);
        INSERT INTO old SELECT n, 'Text ' || n FROM generate_series(1, 5) n;
        {OLD.format(priority=priority, more=more)};
    """)


@pytest.fixture
async def old(app: asyncpg.Connection, worker: Worker) -> asyncpg.Connection:
    """Five rows that the model `first` holds; `second` has slept, and wakes."""
    await app.execute("SELECT rowvec.deactivate_model('second')")
    await watch_old(app)
    await settle(worker)
    await app.execute("SELECT rowvec.activate_model('second')")
    return app


async def fill_documents(app: asyncpg.Connection) -> None:
    await app.execute("SELECT rowvec.append_backfill('document', 'second')")


# --- Adding ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'Big', 8", '"Big" is no name for a model.'),
        ("NULL, 8", '"<NULL>" is no name for a model.'),
        ("'first', 8", 'There is a model "first" already.'),
        ("'big', 0", "A model has 1 to 16,000 dimensions, not 0."),
        ("'big', NULL", "A model has 1 to 16,000 dimensions, not <NULL>."),
        ("'big', 8, distance => 'l1'", 'There is no distance "l1".'),
        ("'big', 8, storage => 'bit'", 'Vectors can\'t be stored as "bit".'),
        ("'big', 8, window_tokens => 0", "A model takes texts of 1 token at least, not 0."),
        ("'lost', 8", "There is a table rowvec.vector_lost already, of no model."),
    ],
)
async def test_what_can_be_no_model_is_refused_and_leaves_nothing(
    app: asyncpg.Connection, arguments: str, message: str
) -> None:
    await app.execute("CREATE TABLE rowvec.vector_lost ()")
    assert (await refused(app, f"SELECT rowvec.add_model({arguments})"))[0] == message
    assert await app.fetchval("SELECT count(*) FROM rowvec.model") == 2
    assert await app.fetchval("SELECT to_regclass('rowvec.vector_big')") is None


async def test_a_model_is_kept_as_it_was_described(app: asyncpg.Connection) -> None:
    await app.execute("""
        SELECT rowvec.add_model('big', 8, false, 'l2', 'halfvec', 512, '{"provider": "tei", "url": "http://tei"}')
    """)
    row = await app.fetchrow("SELECT * FROM rowvec.model WHERE name = 'big'")
    assert row is not None
    assert (row["active"], row["is_default"], row["distance"], row["storage"]) == (False, False, "l2", "halfvec")
    assert (row["window_tokens"], row["served"]) == (512, '{"url": "http://tei", "provider": "tei"}')
    with pytest.raises(asyncpg.CheckViolationError):
        await app.execute("""SELECT rowvec.add_model('other', 8, served => '{"api_key": "secret"}')""")
    column = """
        SELECT format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = $1::regclass AND attname = 'embedding'
    """
    assert await app.fetchval(column, "rowvec.vector_big") == "halfvec(8)"


async def test_of_two_that_add_the_same_model_one_is_told(app: asyncpg.Connection, connect: Connect) -> None:
    other = await connect()
    async with app.transaction():
        await app.execute("SELECT rowvec.add_model('big', 8)")
        adding = asyncio.create_task(refused(other, "SELECT rowvec.add_model('big', 8)"))
        await waits(app, other)
    assert (await adding)[0] == 'There is a model "big" already.'


async def test_an_added_model_needs_no_more_rights_than_any_other(app: asyncpg.Connection) -> None:
    await app.execute("SELECT rowvec.add_model('big', 8, storage => 'halfvec')")
    assert await app.fetch("SELECT * FROM rowvec.missing_rights('rowvec_daemon')") == []
    may = "SELECT has_table_privilege($1, 'rowvec.vector_big', $2)"
    for right in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"):
        assert not await app.fetchval(may, "public", right)
        assert await app.fetchval(may, "rowvec_daemon", right) == (right not in {"UPDATE", "TRUNCATE"})


# --- Windows ---------------------------------------------------------------------------------------------


LONG = ", chunking => 'characters', chunk_characters => 4000"
TOLD = ('Chunks of 4,000 characters are about 1,000 tokens; the model "small" takes 512.',
        'Watch "old" with chunk_characters => 2048 or fewer.')  # fmt: skip


async def test_a_source_with_longer_chunks_than_an_active_model_takes_is_refused(app: asyncpg.Connection) -> None:
    await app.execute("CREATE TABLE old (id bigint PRIMARY KEY, body text)")
    await app.execute("SELECT rowvec.add_model('large', 4, window_tokens => 8192)")
    await app.execute("SELECT rowvec.add_model('small', 4, window_tokens => 512)")
    assert await refused(app, OLD.format(priority=2, more=LONG)) == TOLD
    await app.execute("SELECT rowvec.deactivate_model('small')")
    assert await app.fetchval(OLD.format(priority=2, more=LONG))
    await app.execute("SELECT rowvec.activate_model('small')")
    assert await refused(app, OLD.format(priority=2, more=LONG.replace("4000", "4001"))) != TOLD
    assert await app.fetchval(OLD.format(priority=2, more=LONG.replace("4000", "2048")))
    assert await app.fetchval(OLD.format(priority=2, more=LONG.replace("4000", "2052").replace("characters'", "none'")))
    assert await app.fetchval("SELECT chunking FROM rowvec.source WHERE content_type = 'old'") == "none"


async def test_a_model_that_takes_less_than_the_chunks_of_a_source_is_refused(app: asyncpg.Connection) -> None:
    await watch_old(app, more=LONG)
    assert await refused(app, "SELECT rowvec.add_model('small', 4, window_tokens => 512)") == TOLD
    await app.execute("SELECT rowvec.add_model('fits', 4, window_tokens => 1000)")
    await app.execute("SELECT rowvec.add_model('unknown', 4)")


async def test_a_source_that_was_there_before_the_model_can_be_watched_and_a_daemon_can_start(
    app: asyncpg.Connection,
) -> None:
    await watch_old(app, more=LONG)
    await app.execute("SELECT rowvec.add_model('small', 4, false, window_tokens => 512)")
    assert await app.fetchval("SELECT rowvec.activate_model('small')"), "which a daemon does at its start"
    assert not await app.fetchval(OLD.format(priority=2, more=LONG))
    assert await app.fetchval(OLD.format(priority=3, more=LONG)), "another priority affects no text"
    await app.execute("DROP TRIGGER rowvec_insert_old ON old")
    assert await app.fetchval(OLD.format(priority=3, more=LONG)), "a lost trigger comes back"
    assert await app.fetchval("SELECT rowvec.pause('old')")
    assert await app.fetchval("SELECT rowvec.resume('old')")


# --- Promoting -------------------------------------------------------------------------------------------


async def test_a_model_is_promoted_when_it_has_all_rows_and_not_before(old: asyncpg.Connection, worker: Worker) -> None:
    promote = "SELECT rowvec.promote_model('second')"
    assert (await refused(old, promote))[0] == (
        'The model "second" is not complete, it lacks the rows of "document" that are still to be queued, '
        'the rows of "old" that are still to be queued.'
    )
    await fill_documents(old)
    assert await worker.append_page("old") == 5
    assert await gaps(old) == (False, 5, 0)
    assert (await refused(old, promote))[0] == (
        'The model "second" is not complete, it lacks 5 rows of "old" and those that are still to be queued.'
    )
    assert await worker.append_page("old") == 0
    await worker.fold()
    # Folded after the last page: the items are younger than the backfill's end.
    assert await gaps(old) == (True, 5, 0)
    claim = await worker.claim(Lane.BULK, "old", "second")
    assert await gaps(old) == (True, 5, 0), "being worked on"
    message, hint = await refused(old, promote)
    assert message == 'The model "second" is not complete, it lacks 5 rows of "old".'
    assert "rowvec backfill" in hint
    assert await default(old) == "first"
    await worker.store(claim, await worker.read(claim))
    assert await old.fetchval(promote)
    assert await default(old) == "second"
    assert not await old.fetchval(promote), "it is already"
    assert await old.fetchval("SELECT count(*) FROM rowvec.model WHERE is_default") == 1


@pytest.mark.parametrize("priority", [2, 4, 7])
async def test_a_table_that_is_written_all_the_time_holds_up_no_promotion(
    app: asyncpg.Connection, worker: Worker, priority: int
) -> None:
    await app.execute("SELECT rowvec.deactivate_model('second')")
    await watch_old(app, priority)
    await settle(worker)
    await app.execute("SELECT rowvec.activate_model('second')")
    await fill_documents(app)
    await settle(worker)
    lane = {2: Lane.IMMEDIATE, 4: Lane.STANDARD, 7: Lane.BULK}[priority]
    # New rows that only the default model has come to; updates that only it has; one that nobody has.
    await app.execute("INSERT INTO old VALUES (6, 'New'), (7, 'New'); UPDATE old SET body = 'Other' WHERE id < 4")
    await worker.fold()
    await work(worker, "first", lane)
    await app.execute("INSERT INTO old VALUES (8, 'Newest'); UPDATE old SET body = 'Third' WHERE id < 3")
    await worker.fold()
    assert await app.fetchval("SELECT count(*) FROM rowvec.embedding_queue WHERE model = 'second'") == 6
    assert await gaps(app) == (True, 0, 0)
    # What has waited for too long is no longer on its way.
    async with app.transaction():
        await app.execute("""
            UPDATE rowvec.vector_first SET updated_at = updated_at - interval '6 minutes';
            UPDATE rowvec.embedding_queue SET created_at = created_at - interval '6 minutes';
            UPDATE rowvec.backfill
            SET began_at = began_at - interval '10 minutes', updated_at = updated_at - interval '10 minutes';
        """)
        assert await gaps(app) == (True, 2, 0)
        await app.execute("UPDATE rowvec.vector_first SET updated_at = now()")
        assert await gaps(app) == (True, 0, 0)
    assert await app.fetchval("SELECT rowvec.promote_model('second')")


async def test_rows_that_changed_while_a_model_slept_are_missing_until_they_are_looked_at(
    app: asyncpg.Connection, worker: Worker
) -> None:
    await watch_old(app)
    await settle(worker)
    await app.execute("SELECT rowvec.deactivate_model('second'); UPDATE old SET body = 'Unseen'")
    await worker.settle()
    await app.execute("SELECT rowvec.activate_model('second')")
    for _ in range(2):
        await worker.append_page("old")
    assert await gaps(app) == (True, 5, 0)
    await worker.fold()
    await app.execute("UPDATE rowvec.backfill SET updated_at = now() + interval '1 second'")
    assert await gaps(app) == (True, 5, 0)
    await worker.settle()
    assert await gaps(app) == (True, 0, 0)


async def test_failed_items_are_told_and_hold_up_nothing(old: asyncpg.Connection, worker: Worker) -> None:
    await fill_documents(old)
    for _ in range(2):
        await worker.append_page("old")
    await worker.fold()
    await old.execute("UPDATE rowvec.embedding_queue SET status = 'failed' WHERE content_id <= '2'")
    assert await gaps(old) == (True, 3, 2)
    await worker.settle()
    assert await gaps(old) == (True, 0, 2)
    assert await old.fetchval("SELECT rowvec.promote_model('second')")


async def test_a_paused_source_that_nobody_fills_is_named(old: asyncpg.Connection, worker: Worker) -> None:
    await fill_documents(old)
    await old.execute("SELECT rowvec.pause('old')")
    assert await gaps(old) == (False, 5, 0)
    message, hint = await refused(old, "SELECT rowvec.promote_model('second')")
    assert message == 'The model "second" is not complete, it lacks 5 rows of "old".'
    assert hint == "Paused sources are not filled (old): resume or unwatch them."
    await old.execute("SELECT rowvec.resume('old')")
    await settle(worker)
    await old.execute("SELECT rowvec.pause('old')")
    assert await old.fetchval("SELECT rowvec.promote_model('second')")


async def test_a_source_that_was_paused_before_anything_was_embedded_is_no_gap(app: asyncpg.Connection) -> None:
    await watch_old(app)
    await app.execute("SELECT rowvec.pause('old')")
    assert await gaps(app) == (True, 0, 0)
    assert await app.fetchval("SELECT rowvec.promote_model('second')")


async def test_a_backfill_that_somebody_has_stopped_is_told(old: asyncpg.Connection) -> None:
    await old.execute("SELECT rowvec.stop_backfill('old', 'second')")
    _, hint = await refused(old, "SELECT rowvec.promote_model('second')")
    assert hint == "Its backfill was stopped: `rowvec backfill` goes on with it."


async def test_neither_a_sleeping_nor_an_unknown_nor_a_lost_model_is_promoted(app: asyncpg.Connection) -> None:
    await app.execute("SELECT rowvec.deactivate_model('second')")
    message, _ = await refused(app, "SELECT rowvec.promote_model('second')")
    assert message == 'The model "second" is inactive: its vectors are not kept up to date.'
    await app.execute("SELECT rowvec.activate_model('second'); DROP TABLE rowvec.vector_second")
    message, _ = await refused(app, "SELECT rowvec.promote_model('second')")
    assert message == 'The table of the model "second" is gone.'
    assert (await refused(app, "SELECT rowvec.promote_model('third')"))[0] == 'There is no model "third".'
    assert await default(app) == "first"


async def test_in_the_place_of_a_model_that_is_put_to_sleep_comes_a_complete_one(old: asyncpg.Connection) -> None:
    await old.execute("SELECT rowvec.add_model('third', 4)")
    await old.execute("UPDATE rowvec.backfill SET done = true")
    await old.execute("""
        INSERT INTO rowvec.backfill (content_type, model, done) SELECT content_type, 'third', true FROM rowvec.source
    """)
    await old.execute("SELECT rowvec.deactivate_model('first')")
    assert await default(old) == "third", "the older one lacks rows"


async def test_of_two_promotions_at_once_the_later_stays(app: asyncpg.Connection, connect: Connect) -> None:
    await app.execute("SELECT rowvec.add_model('third', 4)")
    await app.execute("INSERT INTO rowvec.backfill (content_type, model, done) VALUES ('document', 'third', true)")
    other = await connect()
    async with app.transaction():
        await app.execute("SELECT rowvec.promote_model('second')")
        promoting = asyncio.create_task(other.fetchval("SELECT rowvec.promote_model('third')"))
        await waits(app, other)
        assert await default(other if promoting.done() else app) == "second"
    assert await promoting
    assert await default(app) == "third"


async def test_a_model_put_to_sleep_meanwhile_is_not_promoted(app: asyncpg.Connection, connect: Connect) -> None:
    other = await connect()
    async with app.transaction():
        await app.execute("SELECT rowvec.deactivate_model('second')")
        promoting = asyncio.create_task(refused(other, "SELECT rowvec.promote_model('second')"))
        await waits(app, other)
    assert "is inactive" in (await promoting)[0]
    assert await default(app) == "first"


# --- Dropping --------------------------------------------------------------------------------------------


async def test_a_dropped_model_leaves_nothing(old: asyncpg.Connection, worker: Worker) -> None:
    await worker.append_page("old")
    await worker.fold()
    await old.execute("SELECT rowvec.append_backfill('old', 'second')")
    await old.execute("UPDATE old SET body = 'Other'")
    await old.execute("SELECT rowvec.drop_model('second')")
    assert await old.fetchval("SELECT to_regclass('rowvec.vector_second')") is None
    for table, column in (("embedding_queue", "model"), ("change", "model"), ("backfill", "model"), ("model", "name")):
        assert await old.fetchval(f"SELECT count(*) FROM rowvec.{table} WHERE {column} = 'second'") == 0
    assert await old.fetchval("SELECT count(*) FROM rowvec.change") == 5, "those of the others stay"
    await old.execute("SELECT rowvec.add_model('second', 16)")
    assert await old.fetchval("SELECT count(*) FROM rowvec.unfilled WHERE model = 'second'") == 2


async def test_the_model_that_is_searched_gives_way_to_another_first(app: asyncpg.Connection) -> None:
    drop = "SELECT rowvec.drop_model('first')"
    await app.execute("SELECT rowvec.add_model('asleep', 4, false)")
    told = 'The model "first" is the one that is searched.'
    assert await refused(app, drop) == (told, "Promote another first: second.")
    await app.execute("SELECT rowvec.deactivate_model('second')")
    assert await refused(app, drop) == (told, "Promote another first: asleep, second.")
    await app.execute("SELECT rowvec.activate_model('second'); UPDATE rowvec.backfill SET done = true")
    await app.execute("INSERT INTO rowvec.backfill (content_type, model, done) VALUES ('document', 'second', true)")
    await app.execute("SELECT rowvec.promote_model('second')")
    await app.execute(drop)
    assert await default(app) == "second"


async def test_the_only_model_of_all_can_be_dropped(app: asyncpg.Connection) -> None:
    await app.execute("SELECT rowvec.drop_model('second')")
    await app.execute("SELECT rowvec.drop_model('first')")
    assert await app.fetchval("SELECT count(*) FROM rowvec.model") == 0
    await app.execute("SELECT rowvec.add_model('first', 4)")
    assert await default(app) == "first"


async def test_an_unknown_model_is_told_and_a_lost_one_can_be_dropped(app: asyncpg.Connection) -> None:
    assert (await refused(app, "SELECT rowvec.drop_model('third')"))[0] == 'There is no model "third".'
    await app.execute("DROP TABLE rowvec.vector_second")
    await app.execute("SELECT rowvec.drop_model('second')")
    assert await app.fetchval("SELECT count(*) FROM rowvec.model") == 1


async def test_what_shows_its_vectors_is_named_and_stays(app: asyncpg.Connection) -> None:
    await app.execute("""
        CREATE VIEW public.one AS SELECT embedding FROM rowvec.vector_second;
        CREATE VIEW public."Two" AS
        SELECT a.chunk_text FROM rowvec.vector_second a JOIN rowvec.vector_second b USING (chunk_hash);
        CREATE VIEW public.three AS SELECT * FROM public.one;
    """)
    message, hint = await refused(app, "SELECT rowvec.drop_model('second')")
    assert message == 'The vectors of the model "second" are shown by public."Two", public.one, public.three.'
    assert hint.endswith('drop it first: DROP VIEW public."Two", public.one, public.three.')
    await app.execute('DROP VIEW public."Two", public.one, public.three')
    await app.execute(
        "CREATE FUNCTION public.of(rowvec.vector_second) RETURNS text LANGUAGE sql AS 'SELECT $1.chunk_text'"
    )
    message, _ = await refused(app, "SELECT rowvec.drop_model('second')")
    assert message.startswith('Something still needs the table of the model "second"')
    assert await app.fetchval("SELECT count(*) FROM rowvec.model") == 2


# --- Beside those who work -------------------------------------------------------------------------------


WRITES = (
    "DELETE FROM old WHERE id = 1",
    "UPDATE old SET id = 11 WHERE id = 1",
    "WITH gone AS (DELETE FROM old WHERE id = 1 RETURNING id) SELECT * FROM gone",
    "TRUNCATE old",
)


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("ending", ["drop_model", "deactivate_model"])
async def test_a_writer_that_was_there_first_is_waited_for_and_goes_on(
    old: asyncpg.Connection, connect: Connect, worker: Worker, ending: str, write: str
) -> None:
    """It holds an item, and wants another one while its end is waited for."""
    await settle(worker)
    await old.execute("UPDATE old SET body = 'Queued'")
    await worker.fold()
    other, writer = await connect(), await connect()
    async with writer.transaction():
        await writer.execute(write)
        running = asyncio.create_task(other.execute(f"SELECT rowvec.{ending}('second')"))
        await waits(old, other)
        await asyncio.wait_for(writer.execute("DELETE FROM old WHERE id = 2"), 5)
    await running
    assert await old.fetchval("SELECT count(*) FROM rowvec.embedding_queue WHERE model = 'second'") == 0


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("ending", ["drop_model", "deactivate_model"])
async def test_a_writer_that_comes_later_waits_and_goes_on(
    old: asyncpg.Connection, connect: Connect, worker: Worker, ending: str, write: str
) -> None:
    """Its session has run all of its statements before, so that their plans know the table."""
    await settle(worker)
    await old.execute("INSERT INTO old VALUES (21, 'More'), (22, 'More')")
    await worker.settle()
    await old.execute("UPDATE old SET body = 'Queued'")
    await worker.fold()
    writer = await connect()
    planned = await writer.prepare("DELETE FROM old WHERE id = 21")
    for _ in range(7):
        await planned.fetch()
        await writer.execute("INSERT INTO old VALUES (21, 'More')")
    async with old.transaction():
        await old.execute(f"SELECT rowvec.{ending}('second')")
        writing = asyncio.create_task(planned.fetch())
        await waits(old, writer)
    await asyncio.wait_for(writing, 5)
    await writer.execute(write)
    assert await old.fetchval("SELECT count(*) FROM rowvec.vector WHERE content_id IN ('1', '21')") == 0


async def test_whoever_waits_too_long_behind_a_writer_gives_up(
    old: asyncpg.Connection, connect: Connect, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rowvec.postgres.locks.LOCK_TRIES", 2)
    monkeypatch.setattr("rowvec.postgres.locks.LOCK_MILLISECONDS", 50)
    await settle(worker)
    other, writer = await connect(), await connect()

    async def drop() -> None:
        with translated():
            await other.execute("SELECT rowvec.drop_model('second')")

    async with writer.transaction():
        await writer.execute("DELETE FROM old WHERE id = 1")
        with pytest.raises(LockedError):
            await run_patiently(other, drop)
        await writer.execute("DELETE FROM old WHERE id = 2")
    await run_patiently(other, drop)
    assert await old.fetchval("SELECT count(*) FROM rowvec.model") == 1


async def test_a_store_under_way_is_waited_for_and_the_next_finds_no_item(
    old: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await worker.append_page("old")
    await worker.fold()
    claim = await worker.claim(Lane.BULK, "old", "second")
    documents = await worker.read(claim)
    storing, dropping = await connect(), await connect()
    async with storing.transaction():
        # As a store begins: its items, then their vectors.
        await storing.execute("SELECT FROM rowvec.embedding_queue WHERE model = 'second' FOR UPDATE")
        task = asyncio.create_task(dropping.execute("SELECT rowvec.drop_model('second')"))
        await waits(old, dropping)
        await storing.execute("SELECT FROM rowvec.vector_second FOR UPDATE")
        await storing.execute("DELETE FROM rowvec.embedding_queue WHERE content_id = '1'")
    await task
    with pytest.raises(Exception, match="vector_second"):
        await worker.store(claim, documents)
    assert await old.fetchval("SELECT count(*) FROM rowvec.embedding_queue") == 0


async def test_a_page_under_way_is_waited_for_and_the_next_has_nothing_to_do(
    old: asyncpg.Connection, connect: Connect
) -> None:
    paging, dropping = await connect(), await connect()
    async with paging.transaction():
        await paging.execute("SELECT FROM rowvec.backfill FOR UPDATE")
        task = asyncio.create_task(dropping.execute("SELECT rowvec.drop_model('second')"))
        await waits(old, dropping)
        assert await paging.fetchval("SELECT rowvec.append_backfill('old', 'second')") == 5
    await task
    assert await old.fetchval("SELECT count(*) FROM rowvec.change WHERE model = 'second'") == 0
    assert await old.fetchval("SELECT rowvec.append_backfill('old', 'second')") is None


async def test_a_page_that_waited_for_a_drop_has_nothing_to_do(old: asyncpg.Connection, connect: Connect) -> None:
    paging = await connect()
    async with old.transaction():
        await old.execute("SELECT rowvec.drop_model('second')")
        task = asyncio.create_task(paging.fetchval("SELECT rowvec.append_backfill('old', 'second')"))
        await waits(old, paging)
    assert await task is None
    assert await old.fetchval("SELECT count(*) FROM rowvec.change") == 0


async def test_a_fold_under_way_is_waited_for_and_makes_no_item_later(
    old: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await old.execute("UPDATE old SET body = 'Queued'")
    folding, dropping = await connect(), await connect()
    async with folding.transaction():
        assert await folding.fetchval("SELECT pg_try_advisory_xact_lock(1919907702, 1)")
        task = asyncio.create_task(dropping.execute("SELECT rowvec.drop_model('second')"))
        await waits(old, dropping)
        assert await folding.fetchval("SELECT count(*) FROM rowvec.model WHERE active") == 2
    await task
    await worker.fold()
    rows = await old.fetch("SELECT DISTINCT model FROM rowvec.embedding_queue")
    assert [row["model"] for row in rows] == ["first"]


async def test_a_search_that_meets_the_drop_of_its_model_goes_on_with_the_new_default(
    old: asyncpg.Connection, connect: Connect
) -> None:
    """It has chosen the model, and waits for its table."""
    await old.execute("SELECT rowvec.add_model('next', 8)")
    await old.execute(
        "INSERT INTO rowvec.backfill (content_type, model, done) SELECT content_type, 'next', true FROM rowvec.source"
    )
    await old.execute("INSERT INTO rowvec.vector_next SELECT * FROM rowvec.vector_first WHERE content_id <= '4'")
    searching, named = await connect(), await connect()
    assert len(await searching.fetch(SEARCH)) == 5
    async with old.transaction():
        await old.execute("SELECT rowvec.promote_model('next')")
        assert len(await searching.fetch(SEARCH)) == 5, "nobody waits for a promotion"
        await old.execute("SELECT rowvec.drop_model('first')")
        task = asyncio.create_task(searching.fetch(SEARCH))
        other = asyncio.create_task(refused(named, SEARCH.replace("NULL", "NULL, model => 'first'")))
        await waits(old, searching)
        await waits(old, named)
    assert len(await task) == 4
    assert (await other)[0] == 'There is no model "first".'


async def test_a_search_whose_table_is_gone_is_told(app: asyncpg.Connection) -> None:
    await app.execute("DROP TABLE rowvec.vector_first")
    assert (await refused(app, SEARCH))[0] == 'The table of the model "first" is gone.'


async def test_a_long_search_is_waited_for(old: asyncpg.Connection, connect: Connect) -> None:
    searching, dropping = await connect(), await connect()
    async with searching.transaction():
        await searching.fetch(SEARCH.replace("NULL", "NULL, model => 'second'").replace("1,1,1,1,1", "1"))
        task = asyncio.create_task(dropping.execute("SELECT rowvec.drop_model('second')"))
        await waits(old, dropping)
        assert len(await searching.fetch(SEARCH)) == 5
    await task


async def test_an_unwatch_and_a_drop_at_once_both_come_to_their_end(
    old: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await settle(worker)
    other = await connect()
    async with old.transaction():
        await old.execute("DELETE FROM rowvec.source WHERE content_type = 'old'")
        task = asyncio.create_task(other.execute("SELECT rowvec.drop_model('second')"))
        await waits(old, other)
        await old.execute("SELECT rowvec.forget_rows('old')")
    await task
    assert await old.fetchval("SELECT count(*) FROM rowvec.vector") == 0


async def test_vectors_of_half_the_size_are_stored_found_and_searched(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("SELECT rowvec.drop_model('second'); SELECT rowvec.add_model('second', 4, storage => 'halfvec')")
    await watch_old(app)
    await settle(worker)
    rows = await app.fetch("SELECT chunk_hash, embedding::vector::text AS written FROM rowvec.vector_second")
    held = await worker.store_.find("second", TRAITS, [row["chunk_hash"] for row in rows])
    assert {key: [round(number, 2) for number in value] for key, value in held.items()} == {
        row["chunk_hash"]: [round(byte / 255, 2) for byte in row["chunk_hash"][:4]] for row in rows
    }
    assert len(held) == 5
    nearest = await app.fetch(
        "SELECT * FROM rowvec.search('', $1::text::vector, NULL, model => 'second')", rows[2]["written"]
    )
    assert (len(nearest), round(nearest[0]["score"], 5)) == (5, 1.0)
