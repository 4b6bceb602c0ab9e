"""The flows of the preset from end to end through QStash, each within the time of its lane."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from functools import partial
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from benchmarks.scratch import free_port
from daemons import eventually
from database import Server, drop_database
from local_qstash import LocalQStash, local_qstash, within
from qstash_road import road
from rowvec.domain.lanes import AIM_SECONDS, Lane
from rowvec.domain.messages import PROCESS, PROCESS_ONE
from studify import activate_bge, create_studify, embedders, settled
from studify_flows import FLOWS, LANES, Flow, found

pytestmark = pytest.mark.one_postgres

TOKEN: Final = "of-the-operators"  # noqa: S105 - the test's own
PATIENT: Final = 60
"""Seconds that a message has: what it carries is not done without it before the test is over."""

Named: TypeAlias = Counter[tuple[str, str]]
"""Messages by the path that they went to and the content type of a row that they named."""


@pytest.fixture
async def studify(server: Server) -> AsyncIterator[str]:
    name = await create_studify(server)
    yield server.dsn_for(name)
    await drop_database(server, name)


def named(qstash: LocalQStash) -> Named:
    """Return which rows were asked for; every attempt was answered well."""
    assert {delivery.answer.status for delivery in qstash.deliveries} <= {200}
    counts: Named = Counter()
    for delivery in qstash.deliveries:
        path = urlsplit(delivery.url).path
        if path in {PROCESS, PROCESS_ONE}:  # no tick of a schedule
            body = json.loads(delivery.body)
            counts.update((path, row["contentType"]) for row in body.get("items", [body]))
    return counts


async def let_go(session: asyncpg.Connection, address: str) -> None:
    """Do what the monitor's schedule does, until all that was collected has gone out."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(address, headers=headers) as operator:

        async def gone() -> bool:
            async with operator.post("/api/embeddings/queue-monitor") as answer:
                assert answer.status == 200
            return not await session.fetchval("""
                SELECT EXISTS (SELECT FROM rowvec.change)
                    OR EXISTS (SELECT FROM rowvec.embedding_queue WHERE status = 'queued' AND message_id IS NULL)
            """)

        await eventually(gone)


async def play(name: str, flow: Flow, session: asyncpg.Connection, address: str) -> None:
    """Write what a flow writes, and wait until it is found, no longer than its lanes have time."""
    await session.execute(flow.sql)
    began = time.monotonic()
    if Lane.BULK in {LANES[priority] for priority in flow.queued.values()}:
        await let_go(session, address)
    for content_type, word in flow.found.items():
        await found(session, content_type, word)
        aim = AIM_SECONDS[LANES[flow.queued[content_type]]]
        assert time.monotonic() - began < aim, f"{name}: {content_type}"


def expected(flow: Flow, lanes: Collection[Lane]) -> set[tuple[str, str]]:
    """Return which messages a flow makes: one row alone goes as in the original application only if it is immediate."""
    carried = {kind: LANES[priority] for kind, priority in flow.queued.items() if LANES[priority] in lanes}
    return {(PROCESS_ONE if lane is Lane.IMMEDIATE else PROCESS, kind) for kind, lane in carried.items()}


def all_came(qstash: LocalQStash, before: Named, awaited: Collection[tuple[str, str]]) -> bool:
    """Whether nothing is on its way, and what is awaited has come."""
    nothing_left = qstash.counts["published"] == qstash.counts["delivered"]
    return nothing_left and (named(qstash) - before).keys() >= set(awaited)


@pytest.mark.parametrize("lanes", ["standard,bulk", "immediate,standard,bulk"])
async def test_every_flow_is_carried_and_its_work_done_once(studify: str, lanes: str) -> None:
    session, port = await asyncpg.connect(studify), free_port()
    await activate_bge(session)  # with nothing left to fill: a backfill would ask for a row once more
    models, address = embedders(2), f"http://127.0.0.1:{port}"
    given = {"ROWVEC_HTTP_PORT": port, "SITE_URL": address, "ROWVEC_API_TOKEN": TOKEN}
    terms = {"ROWVEC_QSTASH_LANES": lanes, "ROWVEC_DISPATCH_DEADLINE_SECONDS": PATIENT}
    async with local_qstash() as qstash, road(studify, qstash, *models, **given, **terms):
        for name, flow in FLOWS.items():
            before = named(qstash)
            awaited = expected(flow, [Lane(lane) for lane in lanes.split(",")])
            await play(name, flow, session, address)
            await settled(session)
            await within(qstash.until(partial(all_came, qstash, before, awaited)))
            new = named(qstash) - before
            assert new.keys() == awaited, name
            if name == "a user registers" and awaited:
                assert list(new.values()) == [1, 1]
    texts = {row["chunk_text"] for row in await session.fetch("SELECT chunk_text FROM rowvec.vector")}
    for model in models:
        assert [text for text, times in Counter(model.texts).items() if times > 1] == []
        assert texts <= set(model.texts)
        assert not any("ada@example.org" in text for text in model.texts)
    await session.close()
