"""The whole road through QStash: rows, messages, signed deliveries, vectors, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Final

import asyncpg
import pytest

from benchmarks.scratch import free_port
from daemons import GatedEmbedder, eventually, finished
from local_qstash import Faults, local_qstash
from qstash_road import road
from rowvec.app.daemon import Daemon
from rowvec.domain.errors import ModelUnavailableError, StoppingError
from rowvec.domain.messages import PROCESS
from rowvec.domain.row_states import Delivered
from rowvec.pipeline.deliver import Deliveries

pytestmark = pytest.mark.one_postgres

REFUSALS: Final = ("configuration", "quota", "passing", "permanent")
ITEMS: Final = 1000
PATIENCE_SECONDS: Final = 60
FAULTS: Final = {
    "none": Faults(),
    "refuses": Faults(publish="refuse"),
    "hangs": Faults(publish="hang"),
    "cut after it was accepted": Faults(publish="cut"),
    "breaks": Faults(publish=503),
    "too many in a second": Faults(publish="burst"),
    "too many in a day": Faults(publish="daily"),
    "wrong token": Faults(publish=401),
    "a quota": Faults(publish=412),
    "an error in a batch": Faults(batch_item=0),
    "lost": Faults(drop=0.5),
    "lost all": Faults(drop=1.0),
    "twice": Faults(duplicate=1.0),
    "out of order": Faults(reorder=True),
    "late": Faults(delay=30.0),
    "a clock ahead": Faults(skew=20.0),
    "a clock far ahead": Faults(skew=600.0),
    "forged": Faults(forge=0.5),
    "another address": Faults(wrong_subject=True),
}


@pytest.fixture
async def note(app: asyncpg.Connection) -> asyncpg.Connection:
    """A session beside a watched, empty table `note` (standard lane)."""
    await app.execute("""
        CREATE TABLE note (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text);
        SELECT rowvec.watch('note', 'note', ARRAY['body'], 3, template => '{body}');
    """)
    return app


def refusals(daemon: Daemon) -> set[str]:
    """Return how QStash has refused messages."""
    counts = {outcome: daemon.metrics.messages.labels(outcome) for outcome in REFUSALS}
    return {outcome for outcome, count in counts.items() if next(iter(count.collect())).samples[0].value}


async def told(session: asyncpg.Connection, what: str) -> bool:
    """Whether the daemon's heartbeat tells which way the work goes, by an expression."""
    return bool(await session.fetchval(f"SELECT {what} FROM rowvec.daemon"))


async def write(session: asyncpg.Connection, first: int, last: int) -> None:
    await session.execute(
        "INSERT INTO note (body) SELECT 'Note ' || n FROM generate_series($1::int, $2) n", first, last
    )


async def differences(session: asyncpg.Connection, model: str = "first") -> list[Any]:
    """Return the rows whose vector is not that of their text, and the vectors without a row."""
    return await session.fetch(f"""
        SELECT coalesce(n.id::text, v.content_id) AS id, n.body, v.chunk_text
        FROM note n FULL JOIN rowvec.vector_{model} v ON v.content_type = 'note' AND v.content_id = n.id::text
        WHERE n.body IS DISTINCT FROM v.chunk_text
    """)


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_text_is_embedded_once_whatever_goes_wrong(note: asyncpg.Connection, dsn: str, fault: str) -> None:
    first, second = GatedEmbedder("first", 8), GatedEmbedder("second", 4)
    async with local_qstash(speed=20) as qstash, road(dsn, qstash, first, second) as daemon:
        await write(note, 1, 20)
        await eventually(lambda: finished(note), PATIENCE_SECONDS)
        await asyncio.wait_for(qstash.until(lambda: qstash.counts["delivered"] > 0), PATIENCE_SECONDS)
        qstash.faults = FAULTS[fault]
        for start in range(21, ITEMS, 20):
            await write(note, start, min(start + 19, ITEMS))
            await note.execute("UPDATE note SET body = 'Changed ' || id WHERE id % 20 = 7 AND id > $1", start - 20)
            await note.execute("DELETE FROM note WHERE id % 20 = 9 AND id > $1", start - 20)
        await eventually(lambda: finished(note, "first"), PATIENCE_SECONDS)
        await eventually(lambda: finished(note, "second"), PATIENCE_SECONDS)
        assert [await differences(note, model) for model in ("first", "second")] == [[], []]
        twice = [[text for text, times in Counter(model.texts).items() if times > 1] for model in (first, second)]
        assert twice == [[], []]
        refuses = FAULTS[fault].publish != "none"
        if refuses:
            # A call that hangs is given up after the deadline here: then it is told.
            await eventually(lambda: told(note, "carrier ->> 'state' <> 'closed'"), PATIENCE_SECONDS)
        assert bool(refusals(daemon)) is (refuses or FAULTS[fault].batch_item is not None)
        if refuses or FAULTS[fault].drop == 1.0:
            await eventually(lambda: told(note, "carrier ->> 'why' <> ''"), PATIENCE_SECONDS)


async def test_keys_that_rotate_in_the_middle_refuse_no_message(note: asyncpg.Connection, dsn: str) -> None:
    first = GatedEmbedder("first", 8)
    async with local_qstash(speed=20) as qstash, road(dsn, qstash, first):
        for start in range(1, ITEMS, 20):
            await write(note, start, start + 19)
            await eventually(lambda: finished(note), PATIENCE_SECONDS)
            if start in {1 + ITEMS // 60 * 20, 1 + ITEMS // 30 * 20}:
                qstash.keys.rotate()
        assert await differences(note) == []
        assert {delivery.answer.status for delivery in qstash.deliveries} == {200}


async def test_a_dead_second_model_does_not_block_the_queue(note: asyncpg.Connection, dsn: str) -> None:
    first, second = GatedEmbedder("first", 8), GatedEmbedder("second", 4)
    second.broken = ModelUnavailableError("The model server is down.")
    async with local_qstash(speed=20) as qstash, road(dsn, qstash, first, second):
        await write(note, 1, ITEMS)
        await eventually(lambda: finished(note), PATIENCE_SECONDS)
        assert await differences(note) == []
        assert {delivery.answer.status for delivery in qstash.deliveries} == {200}
        assert qstash.counts["failed"] == 0
        second.broken = None
        await eventually(lambda: finished(note, "second"), PATIENCE_SECONDS)
        assert await differences(note, "second") == []


async def test_what_is_brought_to_a_daemon_whose_model_is_out_is_done_by_another(
    note: asyncpg.Connection, dsn: str
) -> None:
    """It is left in its message until the deadline, instead of going out in the next one for ever."""
    await note.execute("UPDATE rowvec.model SET active = name = 'first'")
    working, broken = GatedEmbedder(), GatedEmbedder()
    broken.broken, site = ModelUnavailableError("It is out."), f"http://127.0.0.1:{free_port()}"
    there = {"SITE_URL": site, "ROWVEC_HTTP_PORT": int(site.rsplit(":", 1)[1]), "EMBEDDING_QUEUE_STRATEGY": "database"}
    async with local_qstash() as qstash, road(dsn, qstash, broken, **there) as daemon:
        await note.execute("INSERT INTO note (body) VALUES ('x')")
        await eventually(lambda: is_out(daemon))
        async with road(dsn, qstash, working, SITE_URL=site):
            await note.execute("INSERT INTO note (body) VALUES ('y')")
            await eventually(lambda: finished(note), within=PATIENCE_SECONDS)
            assert sorted(working.texts) == ["x", "y"]
            assert sum(delivery.url.endswith(PROCESS) for delivery in qstash.deliveries) <= 2


async def is_out(daemon: Daemon) -> bool:
    return bool(daemon._board.resting())  # noqa: SLF001 - what a heartbeat tells later


async def test_what_nobody_takes_out_of_its_message_is_not_sent_again(
    note: asyncpg.Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address may lead to a daemon that has no model: each message dies there long before its deadline."""
    monkeypatch.setattr(Deliveries, "deliver", nobody_is_here)
    await note.execute("UPDATE rowvec.model SET active = name = 'first'")
    embedder = GatedEmbedder()
    settings = {"QSTASH_MAX_RETRIES": 0, "ROWVEC_DISPATCH_DEADLINE_SECONDS": 3600}
    async with local_qstash() as qstash, road(dsn, qstash, embedder, **settings):
        await note.execute("INSERT INTO note (body) VALUES ('x')")
        await eventually(lambda: finished(note), within=PATIENCE_SECONDS)
        assert (embedder.texts, qstash.counts["failed"]) == (["x"], 1)


async def nobody_is_here(*_: object, **__: object) -> Delivered:
    raise StoppingError("No model takes anything here just now.")
