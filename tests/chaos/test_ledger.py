"""The ledger: several writers, two daemons that are killed, frozen and cut off; then every row is accounted for.

ROWVEC_CHAOS_SECONDS says how long (20), ROWVEC_CHAOS_SEED repeats the draws of a run; its seed is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import asyncpg
import pytest

from daemons import Process, eventually, process
from database import MODELS, Connect
from rowvec.domain.items import Source
from rowvec.domain.text import split_text
from rowvec.models.deterministic import deterministic_embedding

SECONDS = float(os.environ.get("ROWVEC_CHAOS_SECONDS", "20"))
SEED = int(os.environ.get("ROWVEC_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
WRITERS = 3
KEYS = 60
"""Of each writer: few, so that a row is written again while it is worked on."""
SLOW = {"ROWVEC_MODEL_FIRST_DELAY_SECONDS": "0.05", "ROWVEC_MODEL_SECOND_DELAY_SECONDS": "0.2"}
WATCH = """
    SELECT rowvec.watch('post', 'post', ARRAY['body'], $1, template => '{body}', owner_column => 'author',
                        chunking => 'characters', chunk_characters => $2, chunk_overlap => $3)
"""
IDLE = "SELECT NOT EXISTS (SELECT FROM rowvec.change) AND NOT EXISTS (SELECT FROM rowvec.embedding_queue)"
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rowvec' AND random() < 0.5"

Vector = tuple[str, int, str, str | None, tuple[float, ...]]
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(SECONDS + 180)]


def drawn(name: object) -> random.Random:
    """The dice of one part of the test."""
    return random.Random(f"{SEED} {name}")  # noqa: S311 - not a secret


@dataclass
class Writer:
    """A session of the application that writes keys of its own, in every way there is."""

    session: asyncpg.Connection
    keys: range
    chance: random.Random
    done: int = 0
    _fresh: int = field(default=0)

    async def write_until(self, over: Callable[[], bool]) -> None:
        while not over():
            strict = self.chance.random() < 0.3
            transaction = self.session.transaction(isolation="repeatable_read" if strict else "read_committed")
            await transaction.start()
            for _ in range(self.chance.choice([1, 1, 1, 4])):
                await self._write()
                await asyncio.sleep(self.chance.choice([0, 0, 0.02]))
            await (transaction.rollback if self.chance.random() < 0.1 else transaction.commit)()
            self.done += 1

    async def _write(self) -> None:
        key, other = self.chance.choice(self.keys), self.chance.choice(self.keys)
        low, high = sorted((key, other))
        match self.chance.choice(["upsert", "upsert", "upsert", "delete", "sweep", "owner", "move", "touch", "ask"]):
            case "upsert":
                await self.session.execute(
                    "INSERT INTO post (id, body, author) VALUES ($1, $2, 'a') "
                    "ON CONFLICT (id) DO UPDATE SET body = excluded.body",
                    *(key, self._text()),
                )
            case "delete":
                await self.session.execute("DELETE FROM post WHERE id = $1", key)
            case "sweep":
                await self.session.execute("DELETE FROM post WHERE id BETWEEN $1 AND $2", low, min(high, low + 5))
            case "owner":
                author = self.chance.choice(["a", "b", None])
                await self.session.execute("UPDATE post SET author = $2 WHERE id = $1", key, author)
            case "move":
                await self.session.execute(
                    "UPDATE post SET id = $2 WHERE id = $1 AND NOT EXISTS (SELECT FROM post WHERE id = $2)", key, other
                )
            case "touch":
                await self.session.execute(
                    "UPDATE post SET body = body || $3 WHERE id BETWEEN $1 AND $2", *(low, high, self._text())
                )
            case "ask":
                later = self.chance.choice([None, 1.0])
                await self.session.execute(
                    "SELECT rowvec.enqueue('post', $1, $2, now() + make_interval(secs => $3))",
                    *(str(key), self.chance.choice([1, 3, 9]), later),
                )

    def _text(self) -> str:
        """Now and then nothing, or a text that another row has too."""
        self._fresh += 1
        words = [f"{self.keys.start}-{self._fresh}", *self.chance.choices(["moss", "brook", "ember", "gale"], k=30)]
        return " ".join(self.chance.choice([[], ["shared"], words[:3], words, words]))[-400:]


async def suffer(dsn: str, chance: random.Random, over: Callable[[], bool], done: list[str]) -> None:
    """Run daemons one after another; each is frozen, cut off, stopped or killed, and none may end by itself."""
    while not over():
        async with process(dsn, **SLOW) as daemon:
            for fault in [*chance.choices(["freeze", "cut"], k=2), chance.choice(["kill", "stop"])]:
                await live(daemon, chance.uniform(0.5, 3.0))
                done.append(fault)
                await _strike(fault, daemon, dsn, chance)


async def live(daemon: Process, seconds: float) -> None:
    """Let a daemon work, and see that it does not end."""
    with contextlib.suppress(TimeoutError):
        code = await asyncio.wait_for(daemon.wait(), seconds)
        raise AssertionError(f"a daemon ended by itself with {code}:\n{daemon.log.read_text()[-3000:]}")


async def _strike(fault: str, daemon: Process, dsn: str, chance: random.Random) -> None:
    match fault:
        case "freeze":
            daemon.send(signal.SIGSTOP)
            await asyncio.sleep(chance.uniform(0.2, 5.0))
            daemon.send(signal.SIGCONT)
        case "cut":
            session = await asyncpg.connect(dsn)
            await session.execute(CUT)
            await session.close()
        case "stop":
            daemon.send(signal.SIGTERM)
            assert await daemon.wait() == 0, daemon.log.read_text()[-3000:]
        case "kill":
            daemon.send(signal.SIGKILL)
            await daemon.wait()


async def rewatch(app: asyncpg.Connection, chance: random.Random, over: Callable[[], bool]) -> None:
    """Change how rows are cut and how urgent they are, in the middle of everything."""
    while not over():
        await asyncio.sleep(chance.uniform(1.0, 4.0))
        size = chance.choice([50, 80, 1000])
        await app.execute(WATCH, chance.choice([2, 4, 9]), size, chance.choice([0, size // 5]))


async def missing_and_wrong(app: asyncpg.Connection, model: str) -> tuple[set[Vector], set[Vector]]:
    """Compare a model's table with what the rows say now: what it lacks, and what it must not hold."""
    found = await app.fetchrow("""
        SELECT content_type, labels, template, chunking, chunk_characters, chunk_overlap FROM rowvec.source
    """)
    assert found is not None
    source = Source(*found)
    wanted = {
        (
            str(row["id"]),
            chunk.index,
            chunk.text,
            row["author"],
            tuple(deterministic_embedding(chunk.text, MODELS[model])),
        )
        for row in await app.fetch("SELECT id, body, author FROM post")
        for chunk in split_text(source, row["body"].strip())
    }
    rows = await app.fetch(f"""
        SELECT content_id, chunk_index, chunk_text, owner, embedding::real[] FROM rowvec.vector_{model}
    """)
    held = [(*tuple(row)[:4], tuple(row["embedding"])) for row in rows]
    assert len(held) == len(set(held)), "double vectors"
    return wanted - set(held), set(held) - wanted


async def test_after_all_faults_each_row_has_its_vectors_and_nothing_else(connect: Connect, dsn: str) -> None:
    print(f"ROWVEC_CHAOS_SEED={SEED}")  # noqa: T201 - to be repeated
    app, end, faults = await connect(), time.monotonic() + SECONDS, list[str]()
    await app.execute("CREATE TABLE post (id bigint PRIMARY KEY, body text NOT NULL, author text)")
    await app.execute(WATCH, 2, 80, 10)

    def over() -> bool:
        return time.monotonic() > end

    writers = [Writer(await connect(), range(n * KEYS, (n + 1) * KEYS), drawn(n)) for n in range(WRITERS)]
    async with asyncio.TaskGroup() as group:
        for writer in writers:
            group.create_task(writer.write_until(over))
        for name in ("first", "second"):
            group.create_task(suffer(dsn, drawn(name), over, faults))
        group.create_task(rewatch(app, drawn("rewatch"), over))

    print(f"{sum(writer.done for writer in writers)} transactions; {', '.join(faults)}")  # noqa: T201
    async with process(dsn, **SLOW) as daemon:
        try:
            await eventually(lambda: app.fetchval(IDLE), what="not idle")
        except AssertionError:
            waiting = await app.fetch("SELECT * FROM rowvec.embedding_queue LIMIT 5")
            raise AssertionError(f"{waiting}\n{daemon.log.read_text()[-3000:]}") from None
    assert {model: await missing_and_wrong(app, model) for model in MODELS} == dict.fromkeys(MODELS, (set(), set()))
