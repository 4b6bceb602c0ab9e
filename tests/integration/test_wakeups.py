"""What wakes the daemon: NOTIFY drives it, and the sweep does the work where NOTIFY is lost."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from daemons import HOUR, GatedEmbedder, eventually, is_ready, running
from rowvec.app.daemon import Daemon
from rowvec.health import Part


def wakeups(daemon: Daemon, cause: str) -> float:
    counts = [daemon.metrics.registry.get_sample_value("rowvec_wakeups_total", {"cause": cause, "worked": worked})
              for worked in ("yes", "no")]  # fmt: skip
    return sum(count or 0 for count in counts)


async def embedded(session: asyncpg.Connection, body: str) -> bool:
    return bool(await session.fetchval("SELECT EXISTS (SELECT FROM rowvec.vector_first WHERE chunk_text = $1)", body))


async def asleep(session: asyncpg.Connection) -> bool:
    """Whether the daemon has cleared its mark and has nothing left to do of its own."""
    sleeping = "SELECT last_value = 1 AND NOT EXISTS (SELECT FROM rowvec.unfilled) FROM rowvec.awake_until"
    return bool(await session.fetchval(sleeping))


class Proxy:
    """A Unix socket before the server's own, which can fall silent without closing anything."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self.silent = False
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(self._upstream)
        self._writers += [writer, up_writer]
        with contextlib.suppress(OSError):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, up_writer))
                group.create_task(self._pump(up_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self.silent:
                writer.write(data)
                await writer.drain()
        writer.close()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def proxied(dsn: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Yield a proxy and the DSN that goes through it."""
    query = parse_qs(urlsplit(dsn).query)
    if "host" not in query:
        pytest.skip("the proxy stands before a Unix socket")
    with tempfile.TemporaryDirectory() as folder:
        name = ".s.PGSQL.5432"
        proxy = Proxy(str(Path(query["host"][0]) / name))
        server = await asyncio.start_unix_server(proxy.serve, Path(folder) / name)
        yield proxy, dsn.replace(query["host"][0], folder)
        proxy.cut()
        server.close()


async def test_notify_drives_it_while_polls_and_sweeps_are_an_hour_away(post: asyncpg.Connection, dsn: str) -> None:
    hourly = {"ROWVEC_POLL_SECONDS": HOUR, "ROWVEC_SWEEP_SECONDS": HOUR}
    async with running(dsn, GatedEmbedder(), **hourly) as daemon:
        await post.execute("INSERT INTO post (body) VALUES ('Found by the first look')")
        await eventually(lambda: embedded(post, "Found by the first look"))
        before = wakeups(daemon, "notify")
        for n in range(5):
            await eventually(lambda: asleep(post))
            await post.execute("INSERT INTO post (body) VALUES ($1)", f"Post {n}")
            await eventually(functools.partial(embedded, post, f"Post {n}"))

        async def all_heard() -> bool:
            # One that came while the fold was looking anyway is counted a moment later.
            return wakeups(daemon, "notify") - before >= 5

        await eventually(all_heard)


async def test_the_sweep_does_the_work_while_the_listener_is_deaf(post: asyncpg.Connection, dsn: str) -> None:
    async with proxied(dsn) as (proxy, listen_dsn):
        deaf = {
            "ROWVEC_LISTEN_DATABASE_URL": listen_dsn,
            "ROWVEC_POLL_SECONDS": HOUR,
            "ROWVEC_SWEEP_SECONDS": 0.2,
        }
        async with running(dsn, GatedEmbedder(), **deaf) as daemon:
            await eventually(lambda: is_ready(daemon))
            proxy.silent = True
            notified, swept = wakeups(daemon, "notify"), wakeups(daemon, "sweep")
            await post.execute("INSERT INTO post (body) VALUES ('Nobody heard')")
            await eventually(lambda: embedded(post, "Nobody heard"))
            assert wakeups(daemon, "notify") == notified
            assert wakeups(daemon, "sweep") > swept


async def test_a_cut_listener_comes_back_and_looks_at_once(post: asyncpg.Connection, dsn: str) -> None:
    hourly = {"ROWVEC_POLL_SECONDS": HOUR, "ROWVEC_SWEEP_SECONDS": HOUR}
    async with (
        proxied(dsn) as (proxy, listen_dsn),
        running(dsn, GatedEmbedder(), **hourly, ROWVEC_LISTEN_DATABASE_URL=listen_dsn) as daemon,
    ):
        await eventually(lambda: is_ready(daemon))
        proxy.cut()
        await eventually(lambda: _lost(daemon))
        await post.execute("INSERT INTO post (body) VALUES ('Written while deaf')")
        await eventually(lambda: embedded(post, "Written while deaf"))
        await eventually(lambda: is_ready(daemon))


async def _lost(daemon: Daemon) -> bool:
    return not daemon.health.is_well(Part.LISTENER)


async def test_a_burst_of_writers_is_not_asked_to_notify_once_the_daemon_is_awake(
    post: asyncpg.Connection, dsn: str
) -> None:
    heard = 0

    def hear(*_: object) -> None:
        nonlocal heard
        heard += 1

    listening = await asyncpg.connect(dsn)
    await listening.add_listener("rowvec", hear)
    async with running(dsn, GatedEmbedder()) as daemon:
        await eventually(lambda: is_ready(daemon))
        for n in range(500):
            await post.execute("INSERT INTO post (body) VALUES ($1)", f"Post {n}")
        await eventually(lambda: embedded(post, "Post 499"))
    await listening.close()
    assert heard < 500
