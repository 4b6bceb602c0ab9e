"""Two sessions in a fixed order: each test is one interleaving that a simpler design gets wrong."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import asyncpg
import pytest

from database import Connect
from rowvec.domain.items import Floors
from worker import Worker

Isolation = Literal["read_committed", "repeatable_read", "serializable"]


async def texts(session: asyncpg.Connection, model: str = "first") -> dict[str, str]:
    """What search would find: the one chunk of each row."""
    rows = await session.fetch(f"SELECT content_id, chunk_text FROM rowvec.vector_{model}")
    assert len({row["content_id"] for row in rows}) == len(rows)
    return {row["content_id"]: row["chunk_text"] for row in rows}


async def queue(session: asyncpg.Connection, model: str = "first") -> list[Any]:
    return await session.fetch("SELECT * FROM rowvec.embedding_queue WHERE model = $1 ORDER BY content_id", model)


async def changes(session: asyncpg.Connection) -> list[tuple[str, str]]:
    rows = await session.fetch("SELECT content_id, kind FROM rowvec.change ORDER BY id")
    return [tuple(row) for row in rows]


async def waits_for_lock(session: asyncpg.Connection, pid: int) -> None:
    """Return when the backend is blocked by another."""
    blocked = "SELECT cardinality(pg_blocking_pids($1)) > 0 FROM pg_sleep(0.001)"
    while not await session.fetchval(blocked, pid):
        pass


# --- A change commits with its row, or neither does ------------------------------------------------------


async def test_a_change_is_there_when_its_row_is(course: asyncpg.Connection) -> None:
    async with course.transaction():
        await course.execute("INSERT INTO course (id, title) VALUES (1, 'Algebra'), (2, 'Geometry')")
    assert await changes(course) == [("1", "write"), ("2", "write")]


async def test_a_rolled_back_row_leaves_no_change(course: asyncpg.Connection) -> None:
    transaction = course.transaction()
    await transaction.start()
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'Algebra')")
    await transaction.rollback()
    assert await changes(course) == []


async def test_writers_touch_no_queue_row(course: asyncpg.Connection) -> None:
    await course.execute("INSERT INTO course (id, title) SELECT n, 'Course ' || n FROM generate_series(1, 500) n")
    await course.execute("UPDATE course SET title = title || '!'")
    assert len(await changes(course)) == 1000
    assert await queue(course) == []


async def test_a_change_that_commits_late_is_found_without_the_floor(
    course: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    early = await connect()
    transaction = early.transaction()
    await transaction.start()
    await early.execute("INSERT INTO course (id, title) VALUES (1, 'Open for long')")
    await course.execute("INSERT INTO course (id, title) VALUES (2, 'Committed first')")
    first = await worker.fold()
    assert first.folded == 1
    assert first.floors is not None
    await transaction.commit()
    assert (await worker.fold(first.floors)).folded == 0
    assert (await worker.fold()).folded == 1


# --- What fires and what does not ------------------------------------------------------------------------


async def test_an_update_of_other_columns_appends_nothing(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'Algebra')")
    await worker.settle()
    await course.execute("UPDATE course SET views = views + 1, title = title")
    assert await changes(course) == []


async def test_a_before_trigger_that_changes_a_watched_column_is_seen(course: asyncpg.Connection) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'Algebra')")
    await course.execute("DELETE FROM rowvec.change")
    await course.execute("""
        CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.title := upper(NEW.title); RETURN NEW; END $$;
        CREATE TRIGGER shout BEFORE UPDATE ON course FOR EACH ROW EXECUTE FUNCTION shout();
        UPDATE course SET views = 1;
    """)
    assert await changes(course) == [("1", "write")]


async def test_json_without_equality_is_compared(course: asyncpg.Connection) -> None:
    await course.execute("""INSERT INTO course (id, facts) VALUES (1, '{"a": 1}')""")
    await course.execute("DELETE FROM rowvec.change")
    await course.execute("""UPDATE course SET facts = '{"a": 2}'""")
    assert await changes(course) == [("1", "write")]


async def test_a_collation_that_calls_different_texts_equal_hides_nothing(course: asyncpg.Connection) -> None:
    try:
        await course.execute(
            "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level1', deterministic = false)"
        )
    except asyncpg.FeatureNotSupportedError:
        pytest.skip("this Postgres was built without ICU")
    await course.execute("""
        ALTER TABLE course ADD COLUMN motto text COLLATE loose;
        SELECT rowvec.watch('course', 'course', ARRAY['motto'], 2);
        INSERT INTO course (id, motto) VALUES (1, 'resume');
        DELETE FROM rowvec.change;
        UPDATE course SET motto = 'Résumé';
    """)
    assert await changes(course) == [("1", "write")]


# --- The fold never waits, and never lets a generation fall ----------------------------------------------


async def test_the_fold_leaves_the_key_that_a_deleting_writer_holds(
    course: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One'), (2, 'Two')")
    await worker.fold()
    await course.execute("UPDATE course SET title = title || '!'")
    deleting = await connect()
    transaction = deleting.transaction()
    await transaction.start()
    await deleting.execute("DELETE FROM course WHERE id = 1")
    assert (await worker.fold()).folded == 1
    assert await changes(course) == [("1", "write")]
    await transaction.commit()
    assert (await worker.fold()).folded == 2
    await worker.settle()
    assert await texts(course) == {"2": "title: Two!"}


async def test_a_blocked_key_does_not_hold_back_what_comes_behind_it(
    course: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await worker.fold()
    await course.execute("UPDATE course SET title = 'Two'")
    await course.execute("INSERT INTO course (id, title) VALUES (2, 'Two')")
    deleting = await connect()
    await deleting.transaction().start()
    await deleting.execute("DELETE FROM course WHERE id = 1")
    first = await worker.log.fold(Floors(), 1)
    assert first.folded == 0
    assert first.floors is not None
    assert (await worker.log.fold(first.floors, 1)).folded == 1


async def test_two_folds_at_once_do_the_work_once(course: asyncpg.Connection, connect: Connect, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    folding = await connect()
    transaction = folding.transaction()
    await transaction.start()
    assert await folding.fetchval("SELECT pg_try_advisory_xact_lock(1919907702, 1)")
    assert not (await worker.fold()).locked
    await transaction.rollback()
    assert (await worker.fold()).folded == 1


async def test_a_key_many_times_in_one_fold_is_one_item_a_model(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    for n in range(50):
        await course.execute("UPDATE course SET title = $1", f"Title {n}")
    assert (await worker.fold()).folded == 51
    assert len(await queue(course)) == len(await queue(course, "second")) == 1


async def test_a_generation_only_goes_up(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    before = 0
    for n in range(5):
        await course.execute("UPDATE course SET title = $1", f"Title {n}")
        await worker.fold()
        (item,) = await queue(course)
        assert item["generation"] > before
        before = item["generation"]
    assert before <= await course.fetchval("SELECT last_value FROM rowvec.generation")


async def test_a_new_change_resets_a_failed_item_and_one_that_waits_to_be_retried(
    course: asyncpg.Connection, worker: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One'), (2, 'Two')")
    await worker.fold()
    claim = await worker.claim()
    first, second = sorted(claim.items, key=lambda item: item.content_id)
    await worker.queue.fail(claim, {first.id: None, second.id: 3600.0}, "It went wrong.", "badly")
    assert [(i["status"], i["retry_count"]) for i in await queue(course)] == [("failed", 1), ("queued", 1)]
    assert not (await worker.claim()).items
    await course.execute("UPDATE course SET title = title || '!'")
    await worker.fold()
    assert [(i["status"], i["retry_count"], i["error_message"]) for i in await queue(course)] == [
        ("queued", 0, None),
        ("queued", 0, None),
    ]
    assert len((await worker.claim()).items) == 2


async def test_a_change_takes_the_more_urgent_priority(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await course.execute("SELECT rowvec.enqueue('course', '1', 9)")
    await worker.fold()
    assert [(i["priority"], i["lane"]) for i in await queue(course)] == [(2, "immediate")]


async def test_an_item_for_later_waits_and_a_change_makes_it_due(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await worker.settle()
    await course.execute("SELECT rowvec.enqueue('course', '1', at => now() + interval '1 hour')")
    await worker.fold()
    assert not (await worker.claim()).items
    await course.execute("UPDATE course SET title = 'Two'")
    await worker.fold()
    assert len((await worker.claim()).items) == 1


async def test_a_request_for_later_does_not_put_off_a_change(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'Old')")
    await worker.fold()
    claim = await worker.claim()
    documents = await worker.read(claim)
    await course.execute("UPDATE course SET title = 'New'")
    await worker.fold()
    await course.execute("SELECT rowvec.enqueue('course', '1', at => now() + interval '1 hour')")
    await worker.fold()
    assert (await worker.store(claim, documents)).superseded
    assert len((await worker.claim()).items) == 1


# --- Late workers, tokens and generations ----------------------------------------------------------------


async def test_a_change_during_the_work_is_stored_and_done_again(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'Old')")
    await worker.fold()
    claim = await worker.claim()
    documents = await worker.read(claim)
    await course.execute("UPDATE course SET title = 'New'")
    await worker.fold()
    (item,) = await queue(course)
    assert (item["status"], item["token"]) == ("processing", claim.token)
    outcome = await worker.store(claim, documents)
    assert outcome.superseded == [claim.items[0].id]
    # Searchable by its last embedded text, and still in the queue with no attempt counted.
    assert await texts(course) == {"1": "title: Old"}
    (item,) = await queue(course)
    assert (item["status"], item["retry_count"], item["token"]) == ("queued", 0, None)
    await worker.settle()
    assert await texts(course) == {"1": "title: New"}


async def test_a_failure_with_a_text_that_changed_meanwhile_counts_no_attempt(
    course: asyncpg.Connection, worker: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'Poison')")
    await worker.fold()
    claim = await worker.claim()
    await course.execute("UPDATE course SET title = 'Cured'")
    await worker.fold()
    await worker.queue.fail(claim, {claim.items[0].id: None}, "It went wrong.", "")
    (item,) = await queue(course)
    assert (item["status"], item["retry_count"], item["error_message"]) == ("queued", 0, None)
    assert len((await worker.claim()).items) == 1


async def test_a_late_worker_is_refused_after_its_lease_went_to_another(
    course: asyncpg.Connection, worker: Worker, other: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'Old')")
    await worker.fold()
    late = await worker.claim()
    old = await worker.read(late)
    await course.execute("UPDATE rowvec.daemon SET beat_at = now() - interval '4 s'")
    await other.presence.beat([], {})
    assert await other.presence.release_lost() == 1
    await course.execute("UPDATE course SET title = 'New'")
    await other.settle()
    assert await texts(course) == {"1": "title: New"}
    assert (await worker.store(late, old)).refused == [late.items[0].id]
    assert await texts(course) == {"1": "title: New"}


async def test_a_late_worker_can_not_fail_or_release_what_another_holds(
    course: asyncpg.Connection, worker: Worker, other: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await worker.fold()
    late = await worker.claim()
    await course.execute("UPDATE rowvec.embedding_queue SET lease_expires_at = now() - interval '1 s'")
    assert await other.presence.release_lost() == 1
    claim = await other.claim()
    await worker.queue.fail(late, {late.items[0].id: None}, "It went wrong.", "")
    await worker.queue.release(late, [late.items[0].id], 60.0)
    (item,) = await queue(course)
    assert (item["status"], item["token"]) == ("processing", claim.token)


async def test_an_item_set_back_by_hand_is_refused(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await worker.fold()
    claim = await worker.claim()
    documents = await worker.read(claim)
    await course.execute("UPDATE rowvec.embedding_queue SET status = 'queued', token = NULL, daemon = NULL")
    assert (await worker.store(claim, documents)).refused
    assert await texts(course) == {}
    await worker.settle()
    assert await texts(course) == {"1": "title: One"}


async def test_a_lease_that_no_claim_knows_of_is_given_back(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await worker.fold()
    known = await worker.claim()
    await worker.presence.renew([known.token])
    assert (await queue(course))[0]["status"] == "processing"
    # A claim may be younger than the list of tokens: only after a while is it a stray.
    await worker.presence.renew([])
    assert (await queue(course))[0]["status"] == "processing"
    await course.execute("UPDATE rowvec.embedding_queue SET updated_at = now() - interval '4 s'")
    await worker.presence.renew([])
    assert (await queue(course))[0]["status"] == "queued"


async def test_a_stray_lease_of_a_row_that_changes_all_the_time_is_given_back(
    course: asyncpg.Connection, worker: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await worker.fold()
    await worker.claim()
    await course.execute("UPDATE rowvec.embedding_queue SET updated_at = now() - interval '4 s'")
    await course.execute("UPDATE course SET title = 'Two'")
    await worker.fold()
    await worker.presence.renew([])
    assert (await queue(course))[0]["status"] == "queued"


# --- Delete against a store, in every order --------------------------------------------------------------


async def test_delete_commits_before_the_store(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await worker.fold()
    claim = await worker.claim()
    documents = await worker.read(claim)
    await course.execute("DELETE FROM course")
    assert (await worker.store(claim, documents)).refused
    await worker.settle()
    assert await texts(course) == {}
    assert await queue(course) == []


async def test_delete_is_open_while_the_store_comes_and_commits(
    course: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One'), (2, 'Two')")
    await worker.fold()
    claim = await worker.claim()
    documents = await worker.read(claim)
    deleting = await connect()
    transaction = deleting.transaction()
    await transaction.start()
    await deleting.execute("DELETE FROM course WHERE id = 1")
    outcome = await worker.store(claim, documents)
    assert len(outcome.current) == len(outcome.refused) == 1
    await transaction.commit()
    assert await texts(course) == {"2": "title: Two"}
    await worker.settle()
    assert await texts(course) == {"2": "title: Two"}
    assert await queue(course) == []


async def test_delete_is_open_while_the_store_comes_and_rolls_back(
    course: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await worker.fold()
    claim = await worker.claim()
    documents = await worker.read(claim)
    deleting = await connect()
    transaction = deleting.transaction()
    await transaction.start()
    await deleting.execute("DELETE FROM course")
    assert (await worker.store(claim, documents)).refused
    await transaction.rollback()
    assert (await worker.store(claim, documents)).current
    assert await texts(course) == {"1": "title: One"}


async def test_delete_waits_for_a_store_and_removes_what_it_stored(
    course: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await worker.fold()
    claim = await worker.claim()
    documents = await worker.read(claim)
    # A store that holds its queue row: the delete must come after it and see its vectors.
    storing, deleting = await connect(), await connect()
    transaction = storing.transaction()
    await transaction.start()
    await storing.execute("SELECT FROM rowvec.embedding_queue FOR UPDATE")
    delete = asyncio.create_task(deleting.execute("DELETE FROM course"))
    await waits_for_lock(course, deleting.get_server_pid())
    digest = documents[0].chunks[0].hash
    await storing.execute(
        """
        INSERT INTO rowvec.vector_first (content_type, content_id, chunk_index, chunk_text, chunk_hash, repeat,
                                         provider_revision, prefix, embedding)
        VALUES ('course', '1', 0, 'title: One', $1, 0, 'test-1', '', '[1,2,3,4,5,6,7,8]')
        """,
        digest,
    )
    await storing.execute("DELETE FROM rowvec.embedding_queue")
    await transaction.commit()
    await delete
    assert await texts(course) == {}


async def test_a_finished_row_that_a_writer_is_removing_is_left_by_the_store(
    course: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await worker.settle()
    # The item is finished, so the delete finds no queue row to void; a second item is folded meanwhile.
    await course.execute("SELECT rowvec.enqueue('course', '1')")
    deleting = await connect()
    transaction = deleting.transaction()
    await transaction.start()
    await deleting.execute("DELETE FROM course")
    await worker.fold()
    claim = await worker.claim()
    documents = await worker.read(claim)
    assert documents[0].chunks
    assert (await worker.store(claim, documents)).refused
    await transaction.commit()
    assert await texts(course) == {}
    await worker.presence.leave()
    await worker.settle()
    assert await texts(course) == {}
    assert await queue(course) == []


async def test_a_first_item_folded_while_the_removal_is_open_ends_when_the_removal_is_folded(
    course: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    deleting = await connect()
    transaction = deleting.transaction()
    await transaction.start()
    await deleting.execute("DELETE FROM course")
    await worker.fold()
    claim = await worker.claim()
    documents = await worker.read(claim)
    await transaction.commit()
    await worker.store(claim, documents)
    await worker.settle()
    assert await texts(course) == {}
    assert await queue(course) == []


async def test_a_removal_voids_a_store_even_when_only_its_change_came_through(
    course: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await worker.fold()
    claim = await worker.claim()
    documents = await worker.read(claim)
    strict = await connect()
    async with strict.transaction(isolation="serializable"):
        await strict.execute("DELETE FROM course")
    await worker.fold()
    assert (await worker.store(claim, documents)).refused
    await worker.settle()
    assert await texts(course) == {}


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_writer_above_read_committed_gets_no_error_and_its_row_leaves_at_the_fold(
    course: asyncpg.Connection, connect: Connect, worker: Worker, isolation: Isolation
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One'), (2, 'Two')")
    await worker.settle()
    await course.execute("UPDATE course SET title = title || '!'")
    await worker.fold()
    strict = await connect()
    async with strict.transaction(isolation=isolation):
        assert await strict.fetchval("SELECT count(*) FROM course") == 2
        # The queue rows change after the writer's snapshot was taken: locking them would raise 40001.
        claim = await worker.claim()
        await strict.execute("DELETE FROM course WHERE id = 1")
    await worker.queue.release(claim, [item.id for item in claim.items], 0.0)
    await worker.fold()
    assert set(await texts(course)) == {"2"}


async def test_writers_and_stores_that_lock_in_opposite_orders_do_not_deadlock(
    course: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One'), (2, 'Two')")
    await worker.fold()
    claim = await worker.claim()
    documents = await worker.read(claim)
    deleting = await connect()
    transaction = deleting.transaction()
    await transaction.start()
    await deleting.execute("DELETE FROM course WHERE id = 2")
    outcome = await worker.store(claim, documents)
    await deleting.execute("DELETE FROM course WHERE id = 1")
    await transaction.commit()
    assert len(outcome.current) == 1
    await worker.settle()
    assert await texts(course) == {}


# --- Keys and owners -------------------------------------------------------------------------------------


async def test_shifting_keys_lose_no_row_and_keep_no_old_text(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) SELECT n, 'Course ' || n FROM generate_series(1, 5) n")
    await worker.settle()
    await course.execute("ALTER TABLE course DROP CONSTRAINT course_pkey")
    await course.execute("UPDATE course SET id = id + 1")
    await worker.settle()
    assert await texts(course) == {str(n + 1): f"title: Course {n}" for n in range(1, 6)}


async def test_a_changed_owner_takes_the_row_out_of_search_at_once(
    course: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title, teacher) VALUES (1, 'One', 'ada')")
    await worker.settle()
    giving = await connect()
    async with giving.transaction():
        await giving.execute("UPDATE course SET teacher = 'bob'")
        assert await texts(giving) == {}
        assert await texts(course) == {"1": "title: One"}
    assert await texts(course) == {}
    await worker.settle()
    assert await course.fetchval("SELECT owner FROM rowvec.vector_first") == "bob"


# --- The awake mark --------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_the_awake_mark_is_seen_at_once_by_every_isolation_level(
    course: asyncpg.Connection,  # noqa: ARG001 - the watched table
    connect: Connect,
    worker: Worker,
    isolation: Isolation,
) -> None:
    heard = asyncio.Event()
    listening, writing = await connect(), await connect()
    await listening.add_listener("rowvec", lambda *_: heard.set())
    async with writing.transaction(isolation=isolation):
        await writing.fetch("SELECT * FROM course")
        await worker.database.fetch("mark_awake", 60.0)
        await writing.execute("INSERT INTO course (id, title) VALUES (1, 'Awake')")
    await listening.fetchval("SELECT 1")
    assert not heard.is_set()
    async with writing.transaction(isolation=isolation):
        await writing.fetch("SELECT * FROM course")
        await worker.database.fetch("clear_awake")
        await writing.execute("INSERT INTO course (id, title) VALUES (2, 'Asleep')")
    await asyncio.wait_for(heard.wait(), 5)


async def test_a_mark_that_has_run_out_mutes_nobody(
    course: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    heard = asyncio.Event()
    listening = await connect()
    await listening.add_listener("rowvec", lambda *_: heard.set())
    await worker.database.fetch("mark_awake", -0.001)
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'Nobody is awake')")
    await asyncio.wait_for(heard.wait(), 5)


async def test_a_source_without_notify_never_notifies(app: asyncpg.Connection, connect: Connect) -> None:
    await app.execute("CREATE TABLE note (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), body text)")
    await app.execute("SELECT rowvec.watch('note', 'note', ARRAY['body'], 3, notify => false)")
    heard = asyncio.Event()
    listening = await connect()
    await listening.add_listener("rowvec", lambda *_: heard.set())
    await app.execute("INSERT INTO note (body) VALUES ('Quiet')")
    await listening.fetchval("SELECT 1")
    assert not heard.is_set()
    assert len(await changes(app)) == 1
