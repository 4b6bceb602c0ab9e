"""A QStash in the process of the test, and a receiver of what it delivers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import ClientSession, web
from multidict import CIMultiDictProxy
from yarl import URL

from rowvec.qstash_dev.faults import Faults
from rowvec.qstash_dev.plans import FREE, PAYG, Plan
from rowvec.qstash_dev.server import LocalQStash, local_qstash

__all__ = [
    "FREE",
    "PAYG",
    "Caller",
    "Faults",
    "LocalQStash",
    "Plan",
    "Received",
    "Receiver",
    "calling",
    "local_qstash",
    "receiving",
    "within",
]

EXPECTED_SECONDS: Final = 20


@dataclass(frozen=True)
class Received:
    """A request that came.

    Attributes:
        method: of it.
        target: path and query as they were sent.
        headers: with their names in small letters.
        body: raw.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Takes what is delivered.

    Attributes:
        requests: what came, in order.
        came: is set when something has come.
        answer: is called with each; what it returns is the answer.
    """

    def __init__(self, answer: Callable[[Received], Awaitable[web.Response]]) -> None:
        self.requests: list[Received] = []
        self.came = asyncio.Event()
        self.answer = answer
        self.root = ""

    @property
    def url(self) -> str:
        return f"{self.root}/hook"

    @property
    def bodies(self) -> list[str]:
        return [request.body.decode() for request in self.requests]

    async def handle(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Received(request.method, request.raw_path, headers, await request.read()))
        self.came.set()
        return await self.answer(self.requests[-1])


async def _well(_: Received) -> web.Response:
    return web.Response(text="thank you")


@contextlib.asynccontextmanager
async def receiving(answer: Callable[[Received], Awaitable[web.Response]] = _well) -> AsyncIterator[Receiver]:
    """Serve a receiver inside the block, at every path."""
    receiver = Receiver(answer)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.root = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield receiver
    finally:
        await runner.cleanup()


async def within(waiting: Awaitable[object], seconds: float = EXPECTED_SECONDS) -> None:
    """Wait for what will come: a test that waits in vain fails."""
    async with asyncio.timeout(seconds):
        await waiting


@dataclass(frozen=True)
class Told:
    """What a call was answered."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - of any shape
        return json.loads(self.body)


@dataclass(frozen=True)
class Caller:
    """Calls the API by hand, for what no SDK would send."""

    session: ClientSession
    qstash: LocalQStash

    async def call(self, method: str, path: str, body: bytes | str = b"", **headers: str) -> Told:
        """Call; `upstash_retries` is the header Upstash-Retries."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Authorization": f"Bearer {self.qstash.token}", **named}
        url = URL(self.qstash.url + path, encoded=True)
        async with self.session.request(method, url, data=body, headers=sent) as response:
            return Told(response.status, response.headers, await response.read())

    async def publish(self, url: str, body: bytes | str = b"", **headers: str) -> str:
        """Publish; return the id of the message."""
        told = await self.call("POST", f"/v2/publish/{url}", body, **headers)
        assert told.status == 200, told.body
        return str(told.json["messageId"])

    async def enqueue(self, queue: str, url: str, *bodies: str, **headers: str) -> list[str]:
        """Send messages through a queue; return their ids."""
        told = [await self.call("POST", f"/v2/enqueue/{queue}/{url}", body, **headers) for body in bodies]
        assert {one.status for one in told} == {200}, told
        return [one.json["messageId"] for one in told]


@contextlib.asynccontextmanager
async def calling(qstash: LocalQStash) -> AsyncIterator[Caller]:
    """Call inside the block."""
    async with ClientSession() as session:
        yield Caller(session, qstash)
