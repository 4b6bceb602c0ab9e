"""The ledger: four writers, two daemons and two models that fail in every way; then every row is accounted for.

In rounds: whatever is wrong with a row is seen at the end of a round, before it is written again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import asyncpg
import pytest

from chaos.account import check
from chaos.dice import SECONDS, SEED, drawn
from chaos.faults import Times, daemon, storm, suffer
from chaos.journal import Journal
from chaos.model_server import ModelServer
from chaos.statements import KEYS, TABLES
from chaos.writers import Writer, has_truncate_trigger, rewatch, watch
from daemons import Process
from database import MODELS, Connect

WRITERS = 4
ROUND_SECONDS = 20.0

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(SECONDS + 240)]


@dataclass
class Stage:
    """Everything that takes part."""

    dsn: str
    app: asyncpg.Connection
    writers: Sequence[Writer]
    servers: Mapping[str, ModelServer]
    journal: Journal
    daemons: list[Process] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def start(self) -> AsyncIterator[Process]:
        """Run a daemon and count it among those that are there."""
        async with daemon(self.dsn, self.servers) as started:
            self.daemons.append(started)
            yield started
        self.daemons.remove(started)


async def test_after_all_faults_each_row_has_its_vectors_and_nothing_else(connect: Connect, dsn: str) -> None:
    print(f"ROWVEC_CHAOS_SEED={SEED}")  # noqa: T201 - to be repeated
    end, app, journal = time.monotonic() + SECONDS, await connect(), Journal()
    await app.execute(TABLES)
    for table in KEYS:
        await watch(app, table, 2, 80)
    truncates = await has_truncate_trigger(app, "note")
    writers = [Writer(await connect(), n, WRITERS, drawn(n), journal, truncates=truncates) for n in range(WRITERS)]
    async with AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(ModelServer(dimensions, drawn(f"answers {name}")).serving())
            for name, dimensions in MODELS.items()
        }
        stage, rounds = Stage(dsn, app, writers, servers, journal), 0
        while time.monotonic() < end:
            rounds += 1
            await run_round(stage, rounds, Times(min(ROUND_SECONDS, end - time.monotonic())))
    written = f"{journal.transactions} transactions, {journal.rolled_back} of them undone"
    print(f"{rounds} rounds, {written}; {Counter(stage.faults)}")  # noqa: T201 - what the time was enough for


async def run_round(stage: Stage, number: int, times: Times) -> None:
    """Let everything go wrong for a while, then see that it was put right by the daemons that are left."""
    async with asyncio.TaskGroup() as daemons:
        for name in ("one daemon", "the other daemon"):
            chance = drawn(f"{name} {number}")
            daemons.create_task(suffer(stage.start, stage.dsn, chance, times, stage.faults))
        async with asyncio.TaskGroup() as others:
            for writer in stage.writers:
                others.create_task(writer.write_until(times.over))
            for name, server in stage.servers.items():
                others.create_task(storm(server, drawn(f"{name} {number}"), times.over, stage.faults))
            # Not to the end: whoever watches again has all rows looked at, and that heals what went wrong before.
            others.create_task(rewatch(stage.app, drawn(f"rewatch {number}"), times.half_over))
        await check(stage.app, list(KEYS), stage.daemons, stage.journal)
        times.settled.set()
