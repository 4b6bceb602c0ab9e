"""The local QStash put together: everything is in memory, and gone when it ends."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from aiohttp import web

from rowvec.qstash_dev.api.control import Control
from rowvec.qstash_dev.api.dead_letters import DeadLetters
from rowvec.qstash_dev.api.events import Events
from rowvec.qstash_dev.api.flow import FlowControls
from rowvec.qstash_dev.api.groups import UrlGroups
from rowvec.qstash_dev.api.keys import SigningKeys
from rowvec.qstash_dev.api.messages import Messages
from rowvec.qstash_dev.api.publishing import Publishing
from rowvec.qstash_dev.api.queues import Queues
from rowvec.qstash_dev.api.schedules import Schedules
from rowvec.qstash_dev.carry import Carrier
from rowvec.qstash_dev.clock import Clock
from rowvec.qstash_dev.deliver import Deliverer
from rowvec.qstash_dev.door import Door
from rowvec.qstash_dev.faults import Faults
from rowvec.qstash_dev.flow import FlowKeys
from rowvec.qstash_dev.groups import Groups
from rowvec.qstash_dev.intake import Intake
from rowvec.qstash_dev.messages import Delivery, Event
from rowvec.qstash_dev.plans import PAYG, Plan
from rowvec.qstash_dev.schedules import Timetable
from rowvec.qstash_dev.signing import TOKEN, Keys
from rowvec.qstash_dev.tasks import Tasks, running_tasks
from rowvec.qstash_dev.world import World

MAX_REQUEST_BYTES: Final = 100 << 20
SHUTDOWN_SECONDS: Final = 1.0


class LocalQStash:
    """A QStash in this process. Made by `local_qstash`.

    Attributes:
        token: that its API asks for.
        keys: that it signs with.
        carrier: what is on its way, queues, and dead letters.
    """

    def __init__(self, session: aiohttp.ClientSession, tasks: Tasks, world: World) -> None:
        self.token = TOKEN
        self.keys = Keys()
        self._world = world
        self._flow = FlowKeys(world.clock, world.plan.parallelism)
        self.carrier = Carrier(Deliverer(session, self.keys, self._flow, world), tasks, world)
        self._door = Door(self.token, world)
        app = web.Application(middlewares=[self._door.pass_through], client_max_size=MAX_REQUEST_BYTES)
        app.add_routes(self._routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        self._site: web.TCPSite | None = None
        self._host, self._port = "", 0

    def _routes(self) -> list[web.RouteDef]:
        world, groups = self._world, Groups(self._world.clock)
        intake = Intake(self.carrier, groups, self._flow, world)
        parts = (
            Publishing(intake, world.mishaps),
            Messages(self.carrier),
            Queues(self.carrier, intake, world.plan),
            Schedules(Timetable(intake, world)),
            UrlGroups(groups),
            DeadLetters(self.carrier, intake),
            Events(world.record),
            SigningKeys(self.keys),
            FlowControls(self._flow),
            Control(world),
        )
        return [route for part in parts for route in part.routes()]

    @property
    def clock(self) -> Clock:
        """What it lives by."""
        return self._world.clock

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    @property
    def faults(self) -> Faults:
        """What goes wrong now; set it, and that does."""
        return self._world.mishaps.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._world.mishaps.faults = faults

    @property
    def deliveries(self) -> deque[Delivery]:
        """The attempts that were made, in the order of their ends."""
        return self._world.record.deliveries

    @property
    def events(self) -> deque[Event]:
        """The lines of the log, in order."""
        return self._world.record.events

    @property
    def counts(self) -> Counter[str]:
        """How often what happened."""
        return self._world.record.counts

    def noted(self, step: str) -> int:
        """Return how many lines of the log are about a step, such as `RETRY`."""
        return sum(event.step == step for event in self.events)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds; it is looked at after everything that happens."""
        await self._world.record.until(holds)

    @asynccontextmanager
    async def serving(self, host: str, port: int) -> AsyncIterator[None]:
        """Serve inside the block.

        Args:
            host: the address to bind.
            port: 0 lets the system choose.

        Raises:
            OSError: the address can't be bound.
        """
        await self._runner.setup()
        self._host, self._port = host, port
        try:
            await self.listen()
            yield
        finally:
            self._door.closing.set()
            self.clock.stop()
            await self._runner.cleanup()

    async def listen(self) -> None:
        """Take connections, again after `refuse_connections` at the address that its clients know."""
        if self._site is None:
            self._site = web.TCPSite(self._runner, self._host, self._port)
            await self._site.start()
            self._port = self._runner.addresses[0][1]

    async def refuse_connections(self) -> None:
        """Take no more connections; deliveries go on."""
        if self._site is not None:
            site, self._site = self._site, None
            await site.stop()


@asynccontextmanager
async def local_qstash(
    host: str = "127.0.0.1", port: int = 0, *, speed: float = 1.0, plan: Plan = PAYG
) -> AsyncIterator[LocalQStash]:
    """Serve a QStash inside the block.

    Args:
        host: the address to bind.
        port: 0 lets the system choose.
        speed: seconds of its clock in a second of the machine.
        plan: whose limits hold.

    Raises:
        OSError: the address can't be bound.
        ExceptionGroup: it has crashed.
    """
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
    )
    async with session, running_tasks() as tasks:
        qstash = LocalQStash(session, tasks, World.new(Clock(speed), plan))
        async with qstash.serving(host, port):
            yield qstash
