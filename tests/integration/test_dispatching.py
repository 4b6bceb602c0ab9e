"""A daemon that hands work to messages, over a real database; the carrier takes them, refuses them or is silent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from daemons import GatedEmbedder, eventually, finished, running
from database import FILL, Connect
from qstash_service import Service, serving
from rowvec.app import qstash as composition
from rowvec.app.daemon import Daemon
from rowvec.domain.items import Key
from rowvec.domain.lanes import AIM_SECONDS, Lane
from rowvec.postgres.dispatches import PostgresDispatches
from worker import Worker

pytestmark = pytest.mark.one_postgres

ROWS = 200


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """Takes every message; who delivers it is up to the test."""
    async with serving() as found:
        found.answer = lambda batch: [{"messageId": f"msg_{uuid.uuid4().hex}"} for _ in batch]
        yield found


@pytest.fixture
async def post(app: asyncpg.Connection) -> asyncpg.Connection:
    await app.execute("CREATE TABLE post (id bigint PRIMARY KEY, body text)")
    await app.execute("SELECT rowvec.watch('post', 'post', ARRAY['body'], 4, template => '{body}')")
    # A backfill would bring rows again that are on their way.
    await app.execute(FILL)
    await app.execute("UPDATE rowvec.source SET swept = true")
    return app


@pytest.fixture
async def worker(dsn: str) -> AsyncIterator[Worker]:
    async with Worker.open(dsn) as found:
        yield found


def settings(service: Service, **given: object) -> dict[str, object]:
    return {
        "QSTASH_URL": service.url,
        "QSTASH_TOKEN": "token",
        "QSTASH_CURRENT_SIGNING_KEY": "sig_one",
        "QSTASH_NEXT_SIGNING_KEY": "sig_two",
        "SITE_URL": "https://app.example",
        "ROWVEC_DISPATCH_DEADLINE_SECONDS": 60,
        **given,
    }


async def write(post: asyncpg.Connection, rows: int = ROWS) -> None:
    await post.execute("INSERT INTO post SELECT n, 'text ' || n FROM generate_series(1, $1) n", rows)


def sent(service: Service) -> list[dict[str, Any]]:
    """What the messages say."""
    return [json.loads(message["body"]) for _, _, batch in service.asked for message in batch]


async def carrier_of(session: asyncpg.Connection) -> dict[str, Any]:
    found = await session.fetchval("SELECT carrier FROM rowvec.daemon")
    return dict(json.loads(found)) if found else {}


def value(daemon: Daemon, name: str, **labels: str) -> float:
    return daemon.metrics.registry.get_sample_value(name, labels) or 0.0


@contextlib.asynccontextmanager
async def delivering(service: Service, worker: Worker) -> AsyncIterator[list[Key]]:
    """Another host, that does what messages ask for; yields the rows that it was asked for and had to do."""
    waiting: asyncio.Queue[list[Key]] = asyncio.Queue()
    dispatches, done = PostgresDispatches(worker.database, uuid.uuid4()), list[Key]()

    def take(batch: list[dict[str, Any]]) -> list[dict[str, str]]:
        for message in batch:
            items = json.loads(message["body"])["items"]
            waiting.put_nowait([Key(item["contentType"], item["contentId"]) for item in items])
        return [{"messageId": "msg_1"} for _ in batch]

    async def deliver() -> None:
        while True:
            for claim in await dispatches.claim_rows(["first"], await waiting.get(), uuid.uuid4()):
                await worker.store(claim, await worker.read(claim))
                done.extend(Key(claim.slot.content_type, item.content_id) for item in claim.items)

    service.answer = take
    task = asyncio.create_task(deliver())
    try:
        yield done
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_what_is_handed_over_is_done_elsewhere_and_nothing_twice(
    post: asyncpg.Connection, service: Service, worker: Worker, dsn: str
) -> None:
    model = GatedEmbedder()
    async with running(dsn, model, **settings(service)), delivering(service, worker) as done:
        for row in range(1, 41):
            await post.execute("INSERT INTO post VALUES ($1, 'text')", row)
        await eventually(lambda: finished(post))
        assert sorted(done) == sorted(Key("post", str(row)) for row in range(1, 41))
        assert model.texts == []
        assert await post.fetchval("SELECT count(*) FROM rowvec.vector_first") == 40
        (carried,) = await post.fetch("SELECT messages, items FROM rowvec.sent")
        # What the second model has to do for the rows has not gone along: nobody has it here.
        assert (carried["messages"], carried["items"]) == (len(sent(service)), 40)


async def test_what_is_taken_and_never_delivered_is_done_here_at_its_deadline_and_once(
    post: asyncpg.Connection, service: Service, dsn: str
) -> None:
    model = GatedEmbedder()
    async with running(dsn, model, **settings(service, ROWVEC_DISPATCH_DEADLINE_SECONDS=1)) as daemon:
        await write(post)
        await eventually(lambda: finished(post))
        assert sorted(model.texts) == sorted(f"text {row}" for row in range(1, ROWS + 1))
        assert value(daemon, "rowvec_dispatched_items_total") > 0
        state = await carrier_of(post)
        assert (state["strategy"], state["state"]) == ("qstash", "closed")
        await eventually(lambda: has_why(post, "were not brought in time"))


@pytest.mark.parametrize("fault", ["refuses", "is away", "hangs"])
async def test_when_nothing_can_be_sent_the_work_is_done_here_and_later_messages_go_out_again(
    post: asyncpg.Connection, service: Service, dsn: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composition, "SEND_SECONDS", 1.0)
    # Nothing is done because its message's time is up.
    monkeypatch.setitem(AIM_SECONDS, Lane.STANDARD, 7200.0)
    url, model = service.url, GatedEmbedder()
    service.status, service.body = (500 if fault == "refuses" else 200), {"error": "internal"}
    service.hangs = fault == "hangs"
    given = {"QSTASH_URL": "http://127.0.0.1:9"} if fault == "is away" else {"QSTASH_URL": url}
    async with running(dsn, model, **settings(service, ROWVEC_DISPATCH_DEADLINE_SECONDS=3600, **given)) as daemon:
        await write(post)
        await eventually(lambda: finished(post))
        assert sorted(model.texts) == sorted(f"text {row}" for row in range(1, ROWS + 1))
        assert value(daemon, "rowvec_messages_total", outcome="passing") > 0
        await eventually(lambda: has_state(post, "open"))
        assert (await carrier_of(post))["why"].startswith("QStash ")
        if fault == "is away":
            return
        service.status, service.hangs = 200, False
        before = len(model.texts)

        async def closed() -> bool:
            await post.execute("INSERT INTO post SELECT max(id) + 1, 'later' FROM post")
            return value(daemon, "rowvec_carrier_state", state="closed") == 1

        await eventually(closed)
        assert len(model.texts) >= before
        assert value(daemon, "rowvec_messages_total", outcome="sent") >= 1


async def has_why(session: asyncpg.Connection, words: str) -> bool:
    return words in (await carrier_of(session)).get("why", "")


async def has_state(session: asyncpg.Connection, state: str) -> bool:
    return (await carrier_of(session)).get("state") == state


async def test_an_immediate_row_is_announced_and_done_here_at_once(
    app: asyncpg.Connection, service: Service, dsn: str
) -> None:
    await app.execute("CREATE TABLE profile (id bigint PRIMARY KEY, bio text)")
    await app.execute("SELECT rowvec.watch('profile', 'profile', ARRAY['bio'], 2, template => '{bio}')")
    first, second = GatedEmbedder(), GatedEmbedder("second", 4)
    lanes = {"ROWVEC_QSTASH_LANES": "immediate,standard,bulk"}
    async with running(dsn, first, second, **settings(service, **lanes)):
        await app.execute("INSERT INTO profile VALUES (1, 'Hello')")
        await eventually(lambda: finished(app))
        await eventually(lambda: finished(app, "second"))

        async def announced() -> bool:
            return bool(service.asked)

        await eventually(announced)
        assert (first.texts, second.texts) == (["Hello"], ["Hello"])
    (message,) = sent(service)
    assert {**message, "dispatch": ""} == {
        "contentType": "profile",
        "contentId": "1",
        "priority": 2,
        "dispatch": "",
    }


async def test_bulk_items_wait_until_they_are_old_enough_to_go_together(
    app: asyncpg.Connection, service: Service, dsn: str, connect: Connect
) -> None:
    await app.execute("CREATE TABLE comment (id bigint PRIMARY KEY, body text)")
    await app.execute("SELECT rowvec.watch('comment', 'comment', ARRAY['body'], 5, template => '{body}')")
    watcher, model = await connect(), GatedEmbedder()

    async def queued() -> bool:
        return bool(await watcher.fetchval("SELECT count(*) = 3 FROM rowvec.embedding_queue WHERE model = 'first'"))

    async with running(dsn, model, **settings(service, ROWVEC_DISPATCH_DEADLINE_SECONDS=1)):
        await app.execute("INSERT INTO comment SELECT n, 'c' || n FROM generate_series(1, 3) n")
        await eventually(queued)
        assert sent(service) == []
        await app.execute("UPDATE rowvec.embedding_queue SET scheduled_at = now() - interval '150 s'")
        await eventually(lambda: finished(app))
    (message,) = sent(service)
    assert sorted(item["contentId"] for item in message["items"]) == ["1", "2", "3"]
    assert len(model.texts) == 3
