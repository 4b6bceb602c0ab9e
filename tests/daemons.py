"""Daemons for the tests: in this process with models of the test's own, or as real processes to be killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import asyncpg

from rowvec.app.daemon import Daemon
from rowvec.app.embedders import make_embedder
from rowvec.domain.errors import TextRejectedError
from rowvec.domain.items import EmbedderTraits
from rowvec.models.deterministic import deterministic_embedding
from rowvec.ports import Answered, Embedder, Embedding, untold
from rowvec.settings import load_settings
from rowvec.systemd import Notifier

HOUR = 3600.0


async def eventually(check: Callable[[], Awaitable[bool]], within: float = 60.0, what: str = "") -> None:
    """Ask again and again until the answer is yes; fail when the time is over.

    The time is no claim of speed (benchmarks make those): it only ends a test that can't succeed any more.
    """
    try:
        async with asyncio.timeout(within):
            while not await check():  # noqa: ASYNC110 - the condition is in another process
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(what or f"not true within {within} s") from None


async def waiting(session: asyncpg.Connection, model: str = "first") -> int:
    return int(
        await session.fetchval(
            """
            SELECT (SELECT count(*) FROM rowvec.embedding_queue WHERE model = $1)
                 + (SELECT count(*) FROM rowvec.change)
            """,
            model,
        )
    )


async def finished(session: asyncpg.Connection, model: str = "first") -> bool:
    return await waiting(session, model) == 0


class GatedEmbedder:
    """A model that counts its texts, works only while its gate is open, and fails on demand.

    Attributes:
        gate: closed, requests wait inside the model.
        working: how many requests are inside.
        texts: every text that was sent, in order.
        poison: texts with this word are refused.
        broken: raised by every request while set.
    """

    def __init__(self, name: str = "first", dimensions: int = 8) -> None:
        self.name = name
        self.dimensions = dimensions
        self.concurrency = 2
        self.request_texts = 64
        self.request_tokens = 1_000_000
        self.requests_per_minute: float | None = None
        self.traits = EmbedderTraits("test-1", "")
        self.gate = asyncio.Event()
        self.gate.set()
        self.working = 0
        self.texts: list[str] = []
        self.requests = 0
        self.poison = "POISON"
        self.broken: Exception | None = None

    async def ready(self) -> None:
        pass

    async def probe(self) -> None:
        pass

    async def embed(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:  # noqa: ARG002
        self.working += 1
        self.requests += 1
        try:
            await self.gate.wait()
            if self.broken is not None:
                raise self.broken
            if any(self.poison in text for text in texts):
                raise TextRejectedError("The model refuses this text.", "It is poison.")
            self.texts.extend(texts)
            return [deterministic_embedding(text, self.dimensions) for text in texts]
        finally:
            self.working -= 1

    async def embed_query(self, text: str) -> Embedding:
        return (await self.embed([text]))[0]

    async def close(self) -> None:
        pass


@contextlib.asynccontextmanager
async def running(dsn: str, *embedders: Embedder, **given: object) -> AsyncIterator[Daemon]:
    """Run a daemon in this process, with the given models or those that are set, and those that the database serves.

    It is stopped in good order at the end, and what it raised is raised.
    """
    own: dict[str, Embedder] = {embedder.name: embedder for embedder in embedders}
    if own:
        models = {name: {"provider": "deterministic", "dimensions": model.dimensions} for name, model in own.items()}
        given = {"models": {"e5_small": {"provider": "off"}, **models}, **given}
    settings = load_settings(**{"DATABASE_URL": dsn, "ROWVEC_LISTEN_DATABASE_URL": dsn, "ROWVEC_HTTP_PORT": 0, **given})
    ready = asyncio.Event()
    daemon = Daemon(
        settings, Notifier(), lambda name, way: own.get(name) or make_embedder(name, way), lambda _: ready.set()
    )
    task = asyncio.create_task(daemon.run())
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    try:
        yield daemon
    finally:
        daemon.stop.set()
        await asyncio.wait_for(task, 30)


async def is_ready(daemon: Daemon) -> bool:
    """Whether the daemon has its database and its listener."""
    return daemon.health.is_ready


class Process:
    """A daemon as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self.log = log

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def wait(self, within: float = 30) -> int:
        return await asyncio.wait_for(self._process.wait(), within)

    @property
    def pid(self) -> int:
        return self._process.pid


@contextlib.asynccontextmanager
async def process(
    dsn: str, program: Sequence[str] = ("-m", "rowvec", "run"), **settings: str
) -> AsyncIterator[Process]:
    """Start `rowvec run`, or another program of Python's; killed at the end if it still runs."""
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": dsn,
        "ROWVEC_HTTP_PORT": "0",
        "ROWVEC_MODEL_E5_SMALL_PROVIDER": "off",
        "ROWVEC_MODEL_FIRST_PROVIDER": "deterministic",
        "ROWVEC_MODEL_FIRST_DIMENSIONS": "8",
        "ROWVEC_MODEL_SECOND_PROVIDER": "deterministic",
        "ROWVEC_MODEL_SECOND_DIMENSIONS": "4",
        **settings,
    }
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            started = await asyncio.create_subprocess_exec(
                sys.executable, *program, env=environment, stdout=output, stderr=output
            )
        try:
            yield Process(started, log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                started.send_signal(signal.SIGCONT)
                started.kill()
            await started.wait()
