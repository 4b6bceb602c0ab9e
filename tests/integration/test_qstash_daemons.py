"""Two daemons behind one address, and QStash before them: work spreads, and the death of one loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from yarl import URL

from benchmarks.scratch import free_port
from daemons import Process, eventually, finished, process
from embedding_servers import API_KEY, REMOTE_NAME, OpenAIServer
from local_qstash import FREE, LocalQStash, local_qstash
from rowvec.qstash.client import connected

pytestmark = pytest.mark.one_postgres

DIMENSIONS: Final = 8
QUEUE: Final = "embedding-processor"
GONE: Final = 502
PAUSE_SECONDS: Final = 0.05


class RoundRobin:
    """One public address for several daemons, which take turns; 502 for one that is not there.

    Args:
        ports: of the daemons.
        session: to the daemons.

    Attributes:
        done: how many requests each port answered with 200.
    """

    def __init__(self, ports: Sequence[int], session: aiohttp.ClientSession) -> None:
        self.done: Counter[int] = Counter()
        self._turns = cycle(ports)
        self._session = session

    async def handle(self, request: web.Request) -> web.Response:
        port = next(self._turns)
        url = URL(f"http://127.0.0.1:{port}{request.raw_path}", encoded=True)
        try:
            async with self._session.request(
                request.method, url, headers=request.headers, data=await request.read()
            ) as answer:
                self.done[port] += answer.status == web.HTTPOk.status_code
                return web.Response(status=answer.status, headers=_end_to_end(answer), body=await answer.read())
        except aiohttp.ClientError:
            return web.Response(status=GONE)


def _end_to_end(answer: aiohttp.ClientResponse) -> list[tuple[str, str]]:
    """Return the headers of an answer, without those of the connection that it came by."""
    ours = {"content-length", "transfer-encoding", "connection"}
    return [(name, value) for name, value in answer.headers.items() if name.lower() not in ours]


@contextlib.asynccontextmanager
async def round_robin(port: int, ports: Sequence[int]) -> AsyncIterator[RoundRobin]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        proxy = RoundRobin(ports, session)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            yield proxy
        finally:
            await runner.cleanup()


class CountedModel(OpenAIServer):
    """The model of one daemon. Its gate closed, it answers nothing."""

    def __init__(self) -> None:
        super().__init__(DIMENSIONS)
        self.gate = asyncio.Event()
        self.gate.set()
        self.held: list[str] = []
        self.spoil = self._wait

    @property
    def texts(self) -> list[str]:
        """What it was sent, in order."""
        return [text for request in self.requests for text in request.texts]

    async def _wait(self, _: web.Request, texts: list[str]) -> None:
        if not self.gate.is_set():
            self.held += texts
        await self.gate.wait()


@dataclass(frozen=True)
class Pair:
    """Two daemons, each with a model of its own, so that it shows who embedded what."""

    daemons: tuple[Process, Process]
    models: tuple[CountedModel, CountedModel]
    ports: tuple[int, int]
    proxy: RoundRobin

    def both_work(self) -> bool:
        """Whether each has taken messages and embedded something."""
        return all(self.proxy.done[port] for port in self.ports) and all(model.texts for model in self.models)


@contextlib.asynccontextmanager
async def pair(dsn: str, qstash: LocalQStash) -> AsyncIterator[Pair]:
    """Run two daemons behind one address; QStash delivers two messages at once, as the free plan allows."""
    ports, address = (free_port(), free_port()), free_port()
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(connected(qstash.token, qstash.url))
        await client.put_queue(QUEUE, FREE.queue_parallelism)
        proxy = await stack.enter_async_context(round_robin(address, ports))
        models = CountedModel(), CountedModel()
        for model in models:
            await stack.enter_async_context(model.serving())
            stack.callback(model.gate.set)
        first, second = [
            await stack.enter_async_context(process(dsn, **settings(qstash, address, port, model)))
            for port, model in zip(ports, models, strict=True)
        ]
        yield Pair((first, second), models, ports, proxy)


def settings(qstash: LocalQStash, address: int, port: int, model: CountedModel) -> dict[str, str]:
    return {
        "EMBEDDING_QUEUE_STRATEGY": "qstash",
        "QSTASH_URL": qstash.url,
        "QSTASH_TOKEN": qstash.token,
        "QSTASH_CURRENT_SIGNING_KEY": qstash.keys.current,
        "QSTASH_NEXT_SIGNING_KEY": qstash.keys.next,
        "SITE_URL": f"http://127.0.0.1:{address}",
        "ROWVEC_HTTP_PORT": str(port),
        "ROWVEC_DEVELOPMENT": "true",
        "ROWVEC_DISPATCH_DEADLINE_SECONDS": "5",
        "ROWVEC_MODEL_FIRST_PROVIDER": "openai",
        "ROWVEC_MODEL_FIRST_URL": model.url,
        "ROWVEC_MODEL_FIRST_API_KEY": API_KEY,
        "ROWVEC_MODEL_FIRST_REMOTE_NAME": REMOTE_NAME,
        "ROWVEC_MODEL_SECOND_PROVIDER": "off",
    }


class Notes:
    """A watched table (standard lane) that an application writes to."""

    def __init__(self, session: asyncpg.Connection) -> None:
        self.session = session
        self._written = 0

    async def create(self) -> None:
        await self.session.execute("""
            CREATE TABLE note (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text);
            SELECT rowvec.watch('note', 'note', ARRAY['body'], 3, template => '{body}');
        """)

    async def write(self, rows: int) -> None:
        last = self._written + rows
        await self.session.execute(
            "INSERT INTO note (body) SELECT 'Note ' || n FROM generate_series($1::int, $2) n", self._written + 1, last
        )
        self._written = last

    async def embedded(self) -> set[str]:
        return {row["chunk_text"] for row in await self.session.fetch("SELECT chunk_text FROM rowvec.vector_first")}

    async def wrong(self) -> list[Any]:
        """Return the rows whose vector is not that of their text, and the vectors without a row."""
        return await self.session.fetch("""
            SELECT coalesce(n.id::text, v.content_id) AS id, n.body, v.chunk_text
            FROM note n FULL JOIN rowvec.vector_first v ON v.content_type = 'note' AND v.content_id = n.id::text
            WHERE n.body IS DISTINCT FROM v.chunk_text
        """)


async def living(session: asyncpg.Connection) -> int:
    return int(await session.fetchval("SELECT count(*) FROM rowvec.daemon WHERE beat_at > now() - interval '3 s'"))


async def write_until(notes: Notes, enough: Callable[[], bool]) -> None:
    """Write a few rows at a time, as an application does, until something is true of what becomes of them."""

    async def is_enough() -> bool:
        await notes.write(20)
        await asyncio.sleep(PAUSE_SECONDS)
        return enough()

    await eventually(is_enough)


async def test_when_one_of_two_daemons_behind_one_address_is_killed_nothing_is_lost(
    app: asyncpg.Connection, dsn: str
) -> None:
    notes = Notes(app)
    await notes.create()
    async with local_qstash(speed=20, plan=FREE) as qstash, pair(dsn, qstash) as two:
        (doomed, _), (model, other) = two.daemons, two.models

        async def both_live() -> bool:
            return await living(app) == 2

        async def other_takes_messages() -> bool:
            return two.proxy.done[two.ports[1]] > taken

        async def all_answered_is_stored() -> bool:
            return set(model.texts) - set(model.held) <= await notes.embedded()

        await eventually(both_live)
        await write_until(notes, two.both_work)
        model.gate.clear()
        await write_until(notes, lambda: bool(model.held))
        await eventually(all_answered_is_stored)
        doomed.send(signal.SIGKILL)
        await doomed.wait()
        taken = two.proxy.done[two.ports[1]]
        await notes.write(200)
        await app.execute("UPDATE note SET body = 'Changed ' || id WHERE id % 10 = 7")
        await app.execute("DELETE FROM note WHERE id % 10 = 9")
        await eventually(lambda: finished(app))
        await eventually(other_takes_messages)
        assert await notes.wrong() == []
        twice = {text for text, times in Counter(model.texts + other.texts).items() if times > 1}
        assert twice <= set(model.held)
