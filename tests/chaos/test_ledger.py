"""The ledger: four writers, two daemons and two models that fail in every way; then every row is accounted for."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from chaos.account import check
from chaos.dice import SECONDS, SEED, drawn
from chaos.faults import blamed, daemon, storm, suffer
from chaos.journal import Journal
from chaos.model_server import ModelServer
from chaos.statements import KEYS, TABLES
from chaos.writers import Writer, has_truncate_trigger, rewatch, watch
from database import MODELS, Connect

WRITERS = 4

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(SECONDS + 240)]


async def test_after_all_faults_each_row_has_its_vectors_and_nothing_else(connect: Connect, dsn: str) -> None:
    print(f"ROWVEC_CHAOS_SEED={SEED}")  # noqa: T201 - to be repeated
    app, journal, faults = await connect(), Journal(), list[str]()
    await app.execute(TABLES)
    for table in KEYS:
        await watch(app, table, 2, 80)
    truncates = await has_truncate_trigger(app, "note")
    writers = [Writer(await connect(), n, WRITERS, drawn(n), journal, truncates=truncates) for n in range(WRITERS)]
    end = time.monotonic() + SECONDS

    def over() -> bool:
        return time.monotonic() > end

    async with AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(ModelServer(dimensions, drawn(f"answers {name}")).serving())
            for name, dimensions in MODELS.items()
        }
        async with asyncio.TaskGroup() as group:
            for writer in writers:
                group.create_task(writer.write_until(over))
            for name in ("one daemon", "the other daemon"):
                group.create_task(suffer(dsn, servers, drawn(name), over, faults))
            for name, server in servers.items():
                group.create_task(storm(server, drawn(name), over, faults))
            group.create_task(rewatch(app, drawn("rewatch"), over))
        print(f"{journal.transactions} transactions, {journal.rolled_back} of them undone; {Counter(faults)}")  # noqa: T201
        survivor = await stack.enter_async_context(daemon(dsn, servers))
        await stack.enter_async_context(blamed(survivor))
        await check(app, list(KEYS), survivor, journal)
