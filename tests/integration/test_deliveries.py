"""Messages of QStash to a running daemon: signed, delivered over HTTP, and what becomes of their rows in Postgres."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import pytest
from structlog.testing import capture_logs

from daemons import HOUR, GatedEmbedder, Process, eventually, finished, is_ready, process, running
from database import Connect, as_user
from qstash_signing import signature
from rowvec.app import qstash as composition
from rowvec.domain.errors import ModelUnavailableError
from rowvec.postgres.roles import DAEMON_ROLE

DOCUMENTATION: Final = Path(__file__).parents[2] / "docs" / "qstash.md"
SITE: Final = "https://app.example.com"
CURRENT: Final = "sig_the_current_key_of_the_tests_"
NEXT: Final = "sig_the_next_key_of_the_tests____"
TOKEN: Final = "of-the-operators"  # noqa: S105 - the test's own
PROCESS: Final = "/api/embeddings/process"
WEBHOOK: Final = "/api/embeddings/process-webhook"
SETTINGS: Final = {
    "QSTASH_CURRENT_SIGNING_KEY": CURRENT,
    "QSTASH_NEXT_SIGNING_KEY": NEXT,
    "SITE_URL": SITE,
    "ROWVEC_API_TOKEN": TOKEN,
}
DISPATCH: Final = """
    UPDATE rowvec.embedding_queue SET message_id = $1, scheduled_at = now() + interval '1 hour'
    WHERE status = 'queued'
"""


class Address:
    """A daemon's, and QStash before it."""

    def __init__(self, base: str, stop: Callable[[], None] = lambda: None) -> None:
        self.base = base
        self.stop = stop

    async def send(self, path: str, message: object) -> tuple[int, Any]:
        body = json.dumps(message).encode()
        url, headers = self.base + path, {"Upstash-Signature": signature(SITE + path, body, CURRENT)}
        async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def states(self, path: str, message: object) -> dict[str, str]:
        """The states by content id, of an answer that says that all is well."""
        status, body = await self.send(path, message)
        assert status == 200, body
        return {item["contentId"]: item["state"] for item in body["items"]}


def message_of(message: UUID, *ids: int, content_type: str = "post") -> Mapping[str, object]:
    rows = [{"contentType": content_type, "contentId": str(id_), "priority": 3} for id_ in ids]
    return {"dispatch": str(message), "items": rows}


@asynccontextmanager
async def serving(dsn: str, *embedders: GatedEmbedder, **settings: object) -> AsyncIterator[Address]:
    """Run a daemon with its own role, which is ready for its messages."""
    with capture_logs() as logs:
        async with running(as_user(dsn, DAEMON_ROLE), *embedders, **{**SETTINGS, **settings}) as daemon:
            await eventually(lambda: is_ready(daemon))

            async def begun() -> bool:
                return {log["model"] for log in logs if log["event"] == "model.begun"} >= {e.name for e in embedders}

            await eventually(begun)
            yield Address(next(log["address"] for log in logs if log["event"] == "http.ready"), daemon.stop.set)


async def dispatch(session: asyncpg.Connection, rows: int) -> UUID:
    """Queue rows for every model, all handed to one message: nobody here touches them for an hour."""
    message = uuid4()
    async with session.transaction():
        before = await session.fetchval("SELECT count(*) FROM post")
        await session.execute(
            "INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series($1::int + 1, $1::int + $2::int) n",
            before,
            rows,
        )
        await session.execute("DELETE FROM rowvec.change")
        await session.execute("""
            INSERT INTO rowvec.embedding_queue (content_type, content_id, model, priority, generation, scheduled_at,
                                                message_id)
            SELECT 'post', p.id::text, m.name, 3, nextval('rowvec.generation'), now() + interval '1 hour', $1
            FROM post p CROSS JOIN rowvec.model m WHERE m.active AND p.id > $2
        """, message, before)  # fmt: skip
    return message


@pytest.fixture
async def one_model(post: asyncpg.Connection) -> asyncpg.Connection:
    """The table of posts, filled, and `first` alone to embed it."""
    await post.execute("UPDATE rowvec.model SET active = name = 'first'")
    await fill(post)
    return post


async def stored(session: asyncpg.Connection, model: str = "first") -> list[str]:
    rows = await session.fetch(f"SELECT chunk_text FROM rowvec.vector_{model} ORDER BY content_id::bigint")
    return [row["chunk_text"] for row in rows]


async def test_a_message_brings_its_rows_up_to_date_before_it_is_answered(
    one_model: asyncpg.Connection, dsn: str
) -> None:
    message = await dispatch(one_model, 40)
    embedder = GatedEmbedder()
    async with serving(dsn, embedder) as address:
        states = await address.states(PROCESS, message_of(message, *range(1, 33)))
        assert states == {str(n): "embedded" for n in range(1, 33)}
        assert len(await stored(one_model)) == 32
        assert set(await address.states(PROCESS, message_of(message, *range(1, 33)))) == set(states)
        again = await address.states(PROCESS, message_of(message, *range(1, 41)))
        assert again == {str(n): "current" if n <= 32 else "embedded" for n in range(1, 41)}
    assert sorted(embedder.texts) == sorted(f"Post {n}" for n in range(1, 41))


async def test_messages_that_come_twice_at_once_embed_once(one_model: asyncpg.Connection, dsn: str) -> None:
    message = await dispatch(one_model, 5)
    embedder = GatedEmbedder()
    async with serving(dsn, embedder) as address:
        found = await asyncio.gather(*(address.states(PROCESS, message_of(message, *range(1, 6))) for _ in range(6)))
    assert {state for states in found for state in states.values()} <= {"embedded", "processing", "current"}
    assert sorted(embedder.texts) == [f"Post {n}" for n in range(1, 6)]


async def test_a_late_message_finds_the_text_of_now_and_a_deleted_row_gone(
    one_model: asyncpg.Connection, dsn: str
) -> None:
    message = await dispatch(one_model, 2)
    embedder = GatedEmbedder()
    async with serving(dsn, embedder) as address:
        await one_model.execute("UPDATE post SET body = 'New' WHERE id = 1")
        await one_model.execute("DELETE FROM post WHERE id = 2")

        async def folded() -> bool:
            return not await one_model.fetchval("SELECT EXISTS (SELECT FROM rowvec.change)")

        await eventually(folded)
        await eventually(lambda: finished(one_model))
        assert await address.states(PROCESS, message_of(message, 1, 2)) == {"1": "current", "2": "gone"}
        assert await stored(one_model) == ["New"]
    assert embedder.texts == ["New"]


async def test_a_model_that_is_dead_holds_up_no_message_of_the_other(post: asyncpg.Connection, dsn: str) -> None:
    first, second = GatedEmbedder("first", 8), GatedEmbedder("second", 4)
    second.broken = ModelUnavailableError("The model server is down.", "", HOUR)
    await fill(post)
    async with serving(dsn, first, second) as address:
        for _ in range(3):
            message = await dispatch(post, 1)
            last = await post.fetchval("SELECT max(id) FROM post")
            states = await address.states(PROCESS, message_of(message, last))
            assert states == {str(last): "waiting"}
        assert await stored(post) == ["Post 1", "Post 2", "Post 3"]
        assert await stored(post, "second") == []
    assert await post.fetchval("SELECT max(retry_count) FROM rowvec.embedding_queue") == 0


async def fill(session: asyncpg.Connection) -> None:
    """Let no backfill begin."""
    await session.execute("UPDATE rowvec.source SET swept = true")
    await session.execute(
        "INSERT INTO rowvec.backfill (content_type, model, done) SELECT content_type, model, true FROM rowvec.unfilled"
    )


async def test_a_model_that_hangs_takes_the_time_of_one_message_and_not_of_all(
    post: asyncpg.Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composition, "ANSWER_SECONDS", 8.0)
    first, second = GatedEmbedder("first", 8), GatedEmbedder("second", 4)
    second.gate.clear()
    await fill(post)
    loop = asyncio.get_running_loop()
    async with serving(dsn, first, second) as address:
        took = []
        for n in range(1, 4):
            message = await dispatch(post, 1)
            began = loop.time()
            states = await address.states(PROCESS, message_of(message, n))
            took.append(loop.time() - began)
            assert states[str(n)] in {"processing", "waiting"}
            assert len(await stored(post)) == n
        # Within one run, whatever else the machine does: the first waits for three quarters of the time, no other does.
        assert max(took[1:]) < took[0] / 2
        second.gate.set()
        await eventually(lambda: finished(post, "second"))
    assert len(await stored(post, "second")) == 3


async def test_an_item_that_failed_says_so(one_model: asyncpg.Connection, dsn: str) -> None:
    message = await dispatch(one_model, 1)
    await one_model.execute("ALTER TABLE post DISABLE TRIGGER ALL")
    await one_model.execute("UPDATE post SET body = 'POISON'")
    async with serving(dsn, GatedEmbedder()) as address:
        assert await address.states(PROCESS, message_of(message, 1)) == {"1": "failed"}


async def test_rows_of_a_paused_source_wait(one_model: asyncpg.Connection, dsn: str) -> None:
    message = await dispatch(one_model, 1)
    await one_model.execute("SELECT rowvec.pause('post')")
    embedder = GatedEmbedder()
    async with serving(dsn, embedder) as address:
        assert await address.states(PROCESS, message_of(message, 1)) == {"1": "waiting"}
    assert embedder.texts == []


async def test_an_unknown_type_is_never_sent_again(one_model: asyncpg.Connection, dsn: str) -> None:
    async with serving(dsn, GatedEmbedder()) as address:
        status, body = await address.send(PROCESS, message_of(uuid4(), 1, content_type="pets"))
    assert (status, body) == (489, {"error": "Not watched: pets.", "items": []})
    del one_model


async def test_a_stale_row_that_nobody_queued_is_found_and_embedded(one_model: asyncpg.Connection, dsn: str) -> None:
    embedder = GatedEmbedder()
    async with serving(dsn, embedder) as address:
        await one_model.execute("INSERT INTO post (body) VALUES ('One'), ('Two')")
        await eventually(lambda: finished(one_model))
        row = {"contentType": "post", "contentId": "1"}
        assert await address.states(WEBHOOK, row) == {"1": "current"}
        # As a restore or replication does: no trigger sees it.
        await one_model.execute("ALTER TABLE post DISABLE TRIGGER ALL")
        await one_model.execute("UPDATE post SET body = 'Uno' WHERE id = 1")
        await one_model.execute("INSERT INTO post (body) VALUES ('Three')")
        rows = [{"contentType": "post", "contentId": id_} for id_ in (1, 2, 3, 4, "no key")]
        states = await address.states(WEBHOOK, rows)
        assert states == {"1": "embedded", "2": "current", "3": "embedded", "4": "gone", "no key": "gone"}
        assert await stored(one_model) == ["Uno", "Two", "Three"]
        # Of a message of ours it is known that its rows were queued once.
        await one_model.execute("UPDATE post SET body = 'Eins' WHERE id = 1")
        assert await address.states(PROCESS, message_of(uuid4(), 1)) == {"1": "current"}
    assert embedder.texts.count("Uno") == 1


async def test_the_webhook_of_the_original_application_embeds_before_it_answers(
    one_model: asyncpg.Connection, dsn: str
) -> None:
    embedder = GatedEmbedder()
    async with serving(dsn, embedder) as address:
        for n in range(1, 6):
            await one_model.execute("INSERT INTO post (body) VALUES ($1)", f"Post {n}")
            row = {"contentType": "post", "contentId": n, "priority": 2}
            assert (await address.states(WEBHOOK, row))[str(n)] in {"embedded", "current"}
            assert len(await stored(one_model)) == n
    assert sorted(embedder.texts) == [f"Post {n}" for n in range(1, 6)]


async def test_when_the_time_is_up_the_work_goes_on(
    one_model: asyncpg.Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composition, "ANSWER_SECONDS", 4.0)
    message = await dispatch(one_model, 2)
    embedder = GatedEmbedder()
    embedder.gate.clear()
    async with serving(dsn, embedder) as address:
        assert await address.states(PROCESS, message_of(message, 1, 2)) == {"1": "processing", "2": "processing"}
        embedder.gate.set()
        await eventually(lambda: finished(one_model))
    assert await stored(one_model) == ["Post 1", "Post 2"]


async def test_postgres_that_hangs_is_answered_in_time(
    one_model: asyncpg.Connection, dsn: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composition, "ANSWER_SECONDS", 0.5)
    message = await dispatch(one_model, 1)
    other = await connect()
    async with serving(dsn, GatedEmbedder()) as address:
        async with other.transaction():
            await other.execute("LOCK TABLE rowvec.embedding_queue IN ACCESS EXCLUSIVE MODE")
            status, body = await address.send(PROCESS, message_of(message, 1))
        assert (status, body["error"]) == (503, "Postgres takes too long to answer.")
        await eventually(lambda: finished(one_model))


async def test_a_daemon_that_is_full_says_so(
    one_model: asyncpg.Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composition, "DELIVERIES_AT_ONCE", 2)
    message = await dispatch(one_model, 3)
    embedder = GatedEmbedder()
    embedder.gate.clear()
    async with serving(dsn, embedder, QSTASH_CONCURRENCY=1) as address:
        under_way = [asyncio.create_task(address.send(PROCESS, message_of(message, n))) for n in (1, 2)]

        async def claimed() -> bool:
            count = "SELECT count(*) FROM rowvec.embedding_queue WHERE status = 'processing'"
            return bool(await one_model.fetchval(count) == 2)

        await eventually(claimed)
        status, body = await address.send(PROCESS, message_of(message, 3))
        assert (status, body["error"]) == (429, "As many messages as there may be are worked on.")
        embedder.gate.set()
        assert [status for status, _ in await asyncio.gather(*under_way)] == [200, 200]
        assert await address.states(PROCESS, message_of(message, 3)) == {"3": "embedded"}


async def test_a_daemon_that_stops_ends_what_it_has_begun_and_sends_the_rest_elsewhere(
    one_model: asyncpg.Connection, dsn: str
) -> None:
    message = await dispatch(one_model, 2)
    embedder = GatedEmbedder()
    embedder.gate.clear()
    async with serving(dsn, embedder) as address:
        begun = asyncio.create_task(address.send(PROCESS, message_of(message, 1)))

        async def working() -> bool:
            return embedder.working == 1

        await eventually(working)
        address.stop()

        async def refuses() -> bool:
            status, body = await address.send(PROCESS, message_of(message, 2))
            return status == 503 and str(body["error"]).startswith("No model takes anything here")

        await eventually(refuses)
        embedder.gate.set()
        status, body = await begun
        assert (status, body["items"][0]["state"]) == (200, "embedded")


async def test_a_dead_message_gives_its_rows_back_to_the_daemons(one_model: asyncpg.Connection, dsn: str) -> None:
    message = await dispatch(one_model, 2)
    async with serving(dsn, GatedEmbedder()) as address:
        source = base64.b64encode(json.dumps(message_of(message, 1)).encode()).decode()
        status, _ = await address.send("/api/qstash/failure", {"url": SITE + PROCESS, "sourceBody": source})
        assert status == 200

        async def taken() -> bool:
            return await stored(one_model) == ["Post 1"]

        await eventually(taken)
    assert await one_model.fetchval("SELECT message_id FROM rowvec.embedding_queue") == message


async def test_a_dead_message_of_the_application_s_own_leads_back_to_its_row(
    one_model: asyncpg.Connection, dsn: str
) -> None:
    await one_model.execute("INSERT INTO post (body) VALUES ('unseen')")
    row = await one_model.fetchval("DELETE FROM rowvec.change RETURNING content_id")
    async with serving(dsn, GatedEmbedder()) as address:
        rows = [{"contentType": "post", "contentId": row}, {"contentType": "pets", "contentId": "1"}]
        source = base64.b64encode(json.dumps(rows).encode()).decode()
        assert (await address.send("/api/qstash/failure", {"url": SITE + WEBHOOK, "sourceBody": source}))[0] == 200

        async def taken() -> bool:
            return "unseen" in await stored(one_model)

        await eventually(taken)


async def test_an_empty_text_is_a_key_like_any_other(one_model: asyncpg.Connection, dsn: str) -> None:
    await one_model.execute("""
        CREATE TABLE word (id text PRIMARY KEY, body text);
        SELECT rowvec.watch('word', 'word', ARRAY['body'], 4);
        ALTER TABLE word DISABLE TRIGGER USER;
        INSERT INTO word VALUES ('', 'none');
    """)
    await fill(one_model)
    async with serving(dsn, GatedEmbedder()) as address:
        item = {"contentType": "word", "contentId": "", "priority": 4}
        assert await address.states(WEBHOOK, item) == {"": "embedded"}
        assert await address.states(PROCESS, {"dispatch": str(uuid4()), "items": [item]}) == {"": "current"}


async def test_the_monitor_counts_rows_and_not_items(post: asyncpg.Connection, dsn: str) -> None:
    await fill(post)
    await dispatch(post, 3)
    await post.execute("INSERT INTO post (body) VALUES ('Unfolded')")
    embedder = GatedEmbedder()
    embedder.broken = ModelUnavailableError("The model server is down.", "", HOUR)
    async with serving(dsn, embedder) as address:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            async with session.get(f"{address.base}/api/embeddings/queue-monitor") as answer:
                assert await answer.json() == {"queuedCount": 4, "triggered": False, "batches": 0, "items": 0}
            async with session.post(f"{address.base}/api/embeddings/trigger") as answer:
                assert await answer.json() == {"triggered": {"immediate": 1, "standard": 0, "bulk": 0}}


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
async def test_the_lines_of_the_documentation(one_model: asyncpg.Connection, dsn: str) -> None:
    embedder = GatedEmbedder()
    embedder.broken = ModelUnavailableError("The model server is down.", "", HOUR)
    await one_model.execute("INSERT INTO post (body) VALUES ('One')")
    lines = re.findall(r"^\$ (curl .*)\n(.*)$", DOCUMENTATION.read_text(), re.MULTILINE)
    assert len(lines) == 3
    environment = {"PATH": os.environ["PATH"], "ROWVEC_API_TOKEN": TOKEN}
    async with serving(dsn, embedder) as address:

        async def waits() -> bool:
            held = "SELECT count(*) FROM rowvec.embedding_queue WHERE status = 'queued' AND scheduled_at <= now()"
            return bool(await one_model.fetchval(held) == 1 and embedder.requests)

        await eventually(waits)
        for line, expected in lines:
            asked = line.replace("http://127.0.0.1:8480", address.base)
            curl = await asyncio.create_subprocess_shell(asked, stdout=asyncio.subprocess.PIPE, env=environment)
            answer, _ = await curl.communicate()
            assert answer.decode() == expected


async def test_without_keys_the_pages_say_what_to_set(one_model: asyncpg.Connection, dsn: str) -> None:
    async with serving(dsn, GatedEmbedder(), QSTASH_NEXT_SIGNING_KEY="", SITE_URL=None) as address:
        status, body = await address.send(PROCESS, message_of(uuid4(), 1))
    assert status == 403
    assert body["error"].endswith("Missing: QSTASH_NEXT_SIGNING_KEY, SITE_URL.")
    del one_model


async def ready_address(daemon: Process) -> Address:
    """Where a daemon of its own process listens, once it has its models."""
    found: list[str] = []

    async def told() -> bool:
        text = daemon.log.read_text()
        found[:] = re.findall(r'"address": ?"(http://[^"]+)"', text)
        return bool(found) and text.count("model.begun") == 2

    await eventually(told, 20, daemon.log.read_text())
    return Address(found[0])


async def test_a_daemon_that_is_killed_in_the_middle_of_a_delivery_is_stood_in_for(
    post: asyncpg.Connection, dsn: str
) -> None:
    await fill(post)
    message = await dispatch(post, 20)
    slow = {"ROWVEC_MODEL_FIRST_DELAY_SECONDS": "5", **SETTINGS}
    async with process(dsn, **slow) as first:
        address = await ready_address(first)
        cut = asyncio.create_task(address.send(PROCESS, message_of(message, *range(1, 21))))

        async def under_way() -> bool:
            count = "SELECT count(*) FROM rowvec.embedding_queue WHERE model = 'first' AND status = 'processing'"
            return bool(await post.fetchval(count) == 20)

        await eventually(under_way)
        first.send(signal.SIGKILL)
        await first.wait()
        with pytest.raises(aiohttp.ClientError):
            await cut
        async with serving(dsn, GatedEmbedder("first", 8), GatedEmbedder("second", 4)) as other:
            states = await other.states(PROCESS, message_of(message, *range(1, 21)))
            assert set(states.values()) <= {"processing", "waiting", "embedded", "current"}
            await eventually(lambda: nothing_left(post))
    assert await stored(post) == await stored(post, "second") == [f"Post {n}" for n in range(1, 21)]


async def nothing_left(session: asyncpg.Connection) -> bool:
    return not await session.fetchval("SELECT EXISTS (SELECT FROM rowvec.embedding_queue)")
