"""Items on their way into messages and out of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import asyncpg
import pytest

from database import Connect
from rowvec.domain.items import BROUGHT, Claim, Dispatch, Dispatched, Key, Slot
from rowvec.domain.lanes import Lane
from rowvec.postgres.dispatches import PostgresDispatches
from rowvec.postgres.presence import PostgresPresence
from worker import Worker

DEADLINE = 30.0
MODELS = ("first", "second")
WATCH = """
    CREATE TABLE post (id bigint PRIMARY KEY, body text);
    SELECT rowvec.watch('post', 'post', ARRAY['body'], 4);
"""


@pytest.fixture
async def post(app: asyncpg.Connection) -> asyncpg.Connection:
    """A session beside a watched table whose rows are standard ones."""
    await app.execute(WATCH)
    return app


@pytest.fixture
def dispatches(worker: Worker) -> PostgresDispatches:
    return PostgresDispatches(worker.database, uuid.uuid4())


async def claimed(post: asyncpg.Connection, worker: Worker, rows: int = 1) -> Claim:
    """Write rows, and lease those of the first model."""
    await post.execute("INSERT INTO post SELECT n, 'text ' || n FROM generate_series(1, $1) n", rows)
    await worker.fold()
    return await worker.claim(Lane.STANDARD, "post")


async def dispatched(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches, rows: int = 1
) -> Dispatch:
    claim = await claimed(post, worker, rows)
    return await dispatches.dispatch(claim, ids_of(claim), uuid.uuid4(), DEADLINE, MODELS)


def ids_of(claim: Claim) -> list[int]:
    return [item.id for item in claim.items]


async def items(post: asyncpg.Connection) -> Sequence[asyncpg.Record]:
    return await post.fetch("""
        SELECT *, extract(epoch FROM scheduled_at - now())::double precision AS due_in
        FROM rowvec.embedding_queue ORDER BY content_id, model
    """)


async def pass_the_deadline(post: asyncpg.Connection) -> None:
    await post.execute("""
        UPDATE rowvec.embedding_queue SET scheduled_at = now() - interval '1 ms' WHERE message_id IS NOT NULL
    """)


async def test_a_dispatched_item_waits_for_its_message_until_the_deadline(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches
) -> None:
    dispatch = await dispatched(post, worker, dispatches)
    assert dispatch.rows == {Key("post", "1"): 4}
    for item in await items(post):
        assert item["id"] in dispatch.ids
        assert (item["status"], item["message_id"], item["token"]) == ("queued", dispatch.message, None)
        assert (item["daemon"], item["lease_expires_at"]) == (None, None)
        assert DEADLINE - 5 < item["due_in"] <= DEADLINE
    assert not (await worker.claim(Lane.STANDARD, "post")).items
    await pass_the_deadline(post)
    (overdue,) = (await worker.claim(Lane.STANDARD, "post")).items
    assert (overdue.message_id, overdue.fresh, overdue.overdue) == (dispatch.message, False, True)


async def test_what_other_models_have_to_do_for_the_rows_goes_along_unless_it_waits(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches
) -> None:
    claim = await claimed(post, worker, rows=3)
    # The second model holds the first row, and is to try the second one again later.
    await post.execute(
        "UPDATE rowvec.embedding_queue SET status = 'processing', token = gen_random_uuid(), "
        "daemon = gen_random_uuid(), lease_expires_at = now() WHERE model = 'second' AND content_id = '1'"
    )
    await post.execute(
        "UPDATE rowvec.embedding_queue SET scheduled_at = now() + interval '1 min' "
        "WHERE model = 'second' AND content_id = '2'"
    )
    dispatch = await dispatches.dispatch(claim, ids_of(claim), uuid.uuid4(), DEADLINE, MODELS)
    carried = [(item["content_id"], item["model"]) for item in await items(post) if item["message_id"]]
    assert carried == [("1", "first"), ("2", "first"), ("3", "first"), ("3", "second")]
    assert len(dispatch.ids) == 4


async def test_what_a_model_of_others_has_to_do_is_no_message_s(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches
) -> None:
    claim = await claimed(post, worker, rows=1)
    await dispatches.dispatch(claim, ids_of(claim), uuid.uuid4(), DEADLINE, ["first"])
    assert [item["model"] for item in await items(post) if item["message_id"]] == ["first"]


async def test_what_has_become_immediate_waits_for_no_message(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches
) -> None:
    claim = await claimed(post, worker, rows=1)
    await post.execute("UPDATE rowvec.embedding_queue SET priority = 1")
    dispatch = await dispatches.dispatch(claim, ids_of(claim), uuid.uuid4(), DEADLINE, MODELS)
    assert dispatch.ids == []
    assert {item["message_id"] for item in await items(post)} == {None}


async def test_what_would_be_late_if_its_message_never_came_waits_for_none(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches
) -> None:
    claim = await claimed(post, worker, rows=3)
    # A standard row is done within a minute, and its message has half of it.
    await post.execute(
        "UPDATE rowvec.embedding_queue SET scheduled_at = now() - interval '31 s' "
        "WHERE content_id = '1' OR content_id = '2' AND model = 'second'"
    )
    dispatch = await dispatches.dispatch(claim, ids_of(claim), uuid.uuid4(), DEADLINE, MODELS)
    carried = [(item["content_id"], item["model"]) for item in await items(post) if item["message_id"]]
    assert carried == [("2", "first"), ("3", "first"), ("3", "second")]
    assert len(dispatch.ids) == 3


async def test_what_has_another_token_or_is_held_by_a_writer_is_left_out(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches, connect: Connect
) -> None:
    claim = await claimed(post, worker, rows=3)
    await post.execute(
        "UPDATE rowvec.embedding_queue SET token = gen_random_uuid() WHERE content_id = '1' AND model = 'first'"
    )
    writer = await connect()
    async with writer.transaction():
        await writer.execute("DELETE FROM post WHERE id = 2")
        async with asyncio.timeout(5):
            dispatch = await dispatches.dispatch(claim, ids_of(claim), uuid.uuid4(), DEADLINE, MODELS)
    assert list(dispatch.rows) == [Key("post", "3")]
    stale = Claim(claim.slot, uuid.uuid4(), claim.items)
    nothing = await dispatches.dispatch(stale, ids_of(claim), uuid.uuid4(), DEADLINE, MODELS)
    assert (nothing.ids, nothing.rows) == ([], {})


async def test_a_change_of_a_dispatched_row_keeps_its_message_and_deadline(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches
) -> None:
    dispatch = await dispatched(post, worker, dispatches)
    before = await items(post)
    await post.execute("UPDATE post SET body = 'new'")
    await worker.fold()
    for old, new in zip(before, await items(post), strict=True):
        assert new["generation"] > old["generation"]
        assert (new["message_id"], new["scheduled_at"]) == (dispatch.message, old["scheduled_at"])


async def test_a_dispatched_row_that_becomes_immediate_does_not_wait_for_its_message(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches
) -> None:
    dispatch = await dispatched(post, worker, dispatches)
    await post.execute("SELECT rowvec.enqueue('post', '1', 1)")
    await worker.fold()
    for item in await items(post):
        assert (item["lane"], item["message_id"]) == ("immediate", None)
        assert item["due_in"] <= 0
    assert await dispatches.recall(dispatch) == ([], 0)


@pytest.mark.parametrize("end", ["fail", "demote"])
async def test_what_comes_back_from_a_claim_is_in_no_message_any_more(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches, end: str
) -> None:
    await dispatched(post, worker, dispatches)
    await pass_the_deadline(post)
    claim = await worker.claim(Lane.STANDARD, "post")
    match end:
        case "demote":
            await worker.queue.demote(claim, ids_of(claim))
        case "fail":
            await worker.queue.fail(claim, dict.fromkeys(ids_of(claim), 1.0), "It went wrong.", "")
    first, second = await items(post)
    assert (first["status"], first["message_id"]) == ("queued", None)
    assert second["message_id"] is not None


async def test_what_a_message_has_brought_in_vain_is_not_sent_again(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches
) -> None:
    """A source that can't be read would cost a message every two seconds."""
    dispatch = await dispatched(post, worker, dispatches)
    (claim,) = await dispatches.claim_rows(["first"], list(dispatch.rows), uuid.uuid4())
    await worker.queue.release(claim, ids_of(claim), 0.0)
    (item,) = (await worker.claim(Lane.STANDARD, "post")).items
    assert (item.message_id, item.fresh, item.overdue) == (BROUGHT, False, False)


@pytest.mark.parametrize("end", ["release", "leave", "release_lost"])
async def test_what_a_message_has_left_undone_is_told_from_what_came_back(
    post: asyncpg.Connection, worker: Worker, end: str
) -> None:
    daemon = uuid.uuid4()
    dispatches, presence = (
        PostgresDispatches(worker.database, daemon),
        PostgresPresence(worker.database, daemon, "", []),
    )
    dispatch = await dispatched(post, worker, dispatches)
    await pass_the_deadline(post)
    assert (await dispatches.look_held(Lane.STANDARD, MODELS, 9)).overdue
    claims = await dispatches.claim_rows(MODELS, list(dispatch.rows), uuid.uuid4())
    match end:
        case "release":
            for claim in claims:
                await worker.queue.release(claim, ids_of(claim), 0.0)
        case "leave":
            await presence.leave()
        case "release_lost":
            await presence.release_lost()
    assert {(item["status"], item["message_id"]) for item in await items(post)} == {("queued", BROUGHT)}
    assert not (await dispatches.look_held(Lane.STANDARD, MODELS, 9)).overdue


async def test_a_message_claims_its_rows_for_all_models_before_the_deadline(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches
) -> None:
    dispatch = await dispatched(post, worker, dispatches, rows=2)
    token = uuid.uuid4()
    claims = await dispatches.claim_rows(["first", "second"], list(dispatch.rows), token)
    assert {claim.slot for claim in claims} == {Slot(model, Lane.STANDARD, "post") for model in ("first", "second")}
    assert sorted(id_ for claim in claims for id_ in ids_of(claim)) == sorted(dispatch.ids)
    assert {item.message_id for claim in claims for item in claim.items} == {dispatch.message}
    assert {item["token"] for item in await items(post)} == {token}
    assert await dispatches.claim_rows(["first", "second"], list(dispatch.rows), uuid.uuid4()) == []


async def test_a_message_leaves_what_waits_for_its_next_attempt_and_paused_sources_alone(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches
) -> None:
    claim = await claimed(post, worker)
    await worker.queue.fail(claim, dict.fromkeys(ids_of(claim), 60.0), "It went wrong.", "")
    rows = [Key("post", "1"), Key("post", "1"), Key("nothing", "1")]
    (second,) = await dispatches.claim_rows(["first", "second"], rows, uuid.uuid4())
    assert second.slot.model == "second"
    await worker.queue.release(second, ids_of(second), 0.0)
    await post.execute("SELECT rowvec.pause('post')")
    assert await dispatches.claim_rows(["first", "second"], rows, uuid.uuid4()) == []


async def test_a_recalled_item_is_due_at_once(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches
) -> None:
    dispatch = await dispatched(post, worker, dispatches)
    slots, held = await dispatches.recall(dispatch)
    assert held == 0
    assert slots == [Slot("first", Lane.STANDARD, "post"), Slot("second", Lane.STANDARD, "post")]
    (item,) = (await worker.claim(Lane.STANDARD, "post")).items
    assert item.message_id is None
    assert await dispatches.recall(dispatch) == ([], 0)


async def test_a_recall_leaves_alone_what_was_claimed_or_is_in_another_message_or_held(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches, connect: Connect
) -> None:
    dispatch = await dispatched(post, worker, dispatches, rows=3)
    (mine, _) = await dispatches.claim_rows(["first", "second"], [Key("post", "1")], uuid.uuid4())
    another = uuid.uuid4()
    await post.execute("UPDATE rowvec.embedding_queue SET message_id = $1 WHERE content_id = '2'", another)
    writer = await connect()
    async with writer.transaction():
        await writer.execute("DELETE FROM post WHERE id = 3")
        async with asyncio.timeout(5):
            assert await dispatches.recall(dispatch) == ([], 2)
    one, _, two, *_ = await items(post)
    assert (one["status"], one["token"]) == ("processing", mine.token)
    assert (two["message_id"], two["due_in"] > 0) == (another, True)


async def test_a_row_deleted_while_its_message_is_on_its_way_ends_well(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches
) -> None:
    dispatch = await dispatched(post, worker, dispatches)
    await post.execute("DELETE FROM post")
    for claim in await dispatches.claim_rows(["first", "second"], list(dispatch.rows), uuid.uuid4()):
        await worker.store(claim, await worker.read(claim))
    await worker.settle()
    assert await items(post) == []
    assert await post.fetchval("SELECT count(*) FROM rowvec.vector") == 0


async def test_what_is_on_its_way_and_what_was_sent_is_counted(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches
) -> None:
    assert await dispatches.count_dispatched() == Dispatched(0, 0)
    dispatch = await dispatched(post, worker, dispatches, rows=2)
    await dispatches.count_sent(1, 4)
    await dispatches.count_sent(2, 3)
    assert await dispatches.count_dispatched() == Dispatched(4, 7)
    (sent,) = await post.fetch("SELECT day = (now() AT TIME ZONE 'UTC')::date AS today, messages FROM rowvec.sent")
    assert tuple(sent) == (True, 3)
    await dispatches.claim_rows(["first"], list(dispatch.rows), uuid.uuid4())
    assert (await dispatches.count_dispatched()).outstanding == 2
    await pass_the_deadline(post)
    assert (await dispatches.count_dispatched()).outstanding == 0


async def test_what_has_been_collected_of_a_lane_is_told(
    post: asyncpg.Connection, worker: Worker, dispatches: PostgresDispatches
) -> None:
    models = ["first", "second"]
    assert await dispatches.look_held(Lane.STANDARD, models, 3) == (0.0, False, False)
    claim = await claimed(post, worker, rows=3)
    await post.execute(
        "UPDATE rowvec.embedding_queue SET scheduled_at = now() - interval '20 s' WHERE content_id = '2'"
    )
    held = await dispatches.look_held(Lane.STANDARD, models, 3)
    assert 20 <= held.oldest_seconds < 25
    assert (held.full, held.overdue) == (True, False)
    assert not (await dispatches.look_held(Lane.STANDARD, models, 4)).full
    assert not (await dispatches.look_held(Lane.STANDARD, ["first"], 1)).full
    assert await dispatches.look_held(Lane.BULK, models, 1) == (0.0, False, False)
    await dispatches.dispatch(claim, ids_of(claim), uuid.uuid4(), DEADLINE, MODELS)
    assert not (await dispatches.look_held(Lane.STANDARD, models, 4)).overdue
    await pass_the_deadline(post)
    assert (await dispatches.look_held(Lane.STANDARD, models, 4)).overdue
    assert not (await dispatches.look_held(Lane.BULK, models, 4)).overdue
    await post.execute("SELECT rowvec.pause('post')")
    assert (await dispatches.look_held(Lane.STANDARD, models, 1)).oldest_seconds == 0.0
