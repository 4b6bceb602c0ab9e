"""The daemon: its rooms made and joined."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog
from aiohttp import web

from rowvec.api.answers import Bearer
from rowvec.api.embeddings import Operators
from rowvec.api.server import make_app, serving
from rowvec.app.embedders import make_embedder
from rowvec.app.qstash import (
    deliveries_at_once,
    make_deliveries,
    make_dispatching,
    make_drains,
    make_pages,
    make_settlers,
    make_tasks,
    make_undelivered,
    open_qstash,
)
from rowvec.clock import SystemClock
from rowvec.domain.errors import ConfigurationError, DatabaseUnavailableError
from rowvec.domain.lanes import Lane
from rowvec.domain.load import CarrierLoad
from rowvec.domain.owner_shares import OwnerShares
from rowvec.domain.registered import check_dimensions
from rowvec.domain.retry import Attempts
from rowvec.health import Health, Part
from rowvec.lifecycle import Rooms, run_until_stopped, watchdog_fed
from rowvec.pipeline.backfill import Backfiller
from rowvec.pipeline.bell import Bell, Cause
from rowvec.pipeline.claim import Claimer
from rowvec.pipeline.claim_rows import RowClaimer
from rowvec.pipeline.dispatch_rooms import DispatchRooms
from rowvec.pipeline.due_board import DueBoard
from rowvec.pipeline.embed import EmbedRoom
from rowvec.pipeline.fold import Folder
from rowvec.pipeline.gate import Gate
from rowvec.pipeline.heartbeat import Heartbeat
from rowvec.pipeline.line import Line
from rowvec.pipeline.listen import Listener
from rowvec.pipeline.model_rooms import ModelRooms
from rowvec.pipeline.prepare import Preparer
from rowvec.pipeline.roster import Roster
from rowvec.pipeline.tasks import TaskClock, Tasks
from rowvec.ports import Embedder
from rowvec.postgres.administration import administration
from rowvec.postgres.change_log import PostgresChangeLog
from rowvec.postgres.connections import Database
from rowvec.postgres.dispatches import PostgresDispatches
from rowvec.postgres.item_queue import PostgresItemQueue
from rowvec.postgres.model_registry import PostgresModelRegistry
from rowvec.postgres.overview import PostgresOverview
from rowvec.postgres.presence import PostgresPresence
from rowvec.postgres.row_reader import PostgresRowReader
from rowvec.postgres.vector_store import PostgresVectorStore
from rowvec.postgres.wake_source import PostgresWakeSource
from rowvec.qstash.client import QStashClient
from rowvec.settings import ModelSettings, Settings
from rowvec.systemd import Notifier
from rowvec.telemetry import Metrics
from rowvec.version import VERSION

CONNECT_PAUSE_SECONDS: Final = 0.5
ROOM_BOUND_SECONDS: Final = 120.0
"""Longer than a statement and the wait for a connection together: a hanging Postgres is no reason to die."""
CLAIMS_AHEAD: Final = 4
"""Of a lane, beyond the model's requests at once: being leased, read, looked up and stored while the model works."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Shared:
    """What the rooms of all models have in common, and the one place where a model's own are made."""

    settings: Settings
    queue: PostgresItemQueue
    dispatches: PostgresDispatches
    takers: dict[str, RowClaimer]
    store: PostgresVectorStore
    preparer: Preparer
    board: DueBoard
    tokens: set[uuid.UUID]
    chance: random.Random
    metrics: Metrics
    health: Health
    dispatching: DispatchRooms | None

    def make_rooms(self, embedder: Embedder) -> ModelRooms:
        """Return everything that a model has."""
        gate = Gate(embedder, self.board, SystemClock(), self.chance, self.metrics)
        room = EmbedRoom(gate, self.store, self.metrics)
        attempts = Attempts(self.settings.max_attempts)
        line = Line(self.preparer, room, self.store, self.queue, self.board, attempts, self.chance, self.metrics)
        way = self.dispatching.before(line) if self.dispatching else line
        pulses = {lane: self.health.pulse(f"claim {embedder.name} {lane}", ROOM_BOUND_SECONDS) for lane in Lane}
        claimers = [
            Claimer(
                self.queue,
                self.board,
                way,
                lane,
                self.tokens,
                uuid.uuid4,
                self.settings.batch_items,
                embedder.concurrency + CLAIMS_AHEAD,
                pulse,
            )
            for lane, pulse in pulses.items()
        ]
        at_once = deliveries_at_once(self.settings)
        most = self.settings.batch_items
        by_key = RowClaimer(self.dispatches, line, self.tokens, uuid.uuid4, at_once, most, self.takers)
        return ModelRooms(room, [*claimers, by_key], list(pulses.values()), self.health)


class Daemon:
    """One daemon: serves, waits for its database, and keeps vectors true until it is told to stop.

    Args:
        settings: all of them.
        notifier: tells systemd.
        make: makes the embedder of a model, given its name and how it is reached.
        on_ready: is called with the HTTP address once rows are worked on.

    Raises:
        ConfigurationError: what a model of the settings needs is not installed, or what QStash needs is not set.
    """

    def __init__(
        self,
        settings: Settings,
        notifier: Notifier,
        make: Callable[[str, ModelSettings], Embedder] = make_embedder,
        on_ready: Callable[[str], None] = lambda _: None,
    ) -> None:
        for name, model in settings.active_models.items():
            make(name, model)  # to see that it can be: nothing is opened before the first request
        settings.uses_qstash  # noqa: B018 - refused before anything is served
        self._settings = settings
        self._notifier = notifier
        self._make = make
        self._on_ready = on_ready
        self.metrics = Metrics()
        self.health = Health(time.monotonic)
        self.stop = asyncio.Event()
        self._bell = Bell()
        self._board = DueBoard(time.monotonic)
        self._takers: dict[str, RowClaimer] = {}
        self._releases: list[Callable[[], None]] = []
        self._id = uuid.uuid4()

    async def run(self) -> None:
        """Run until `stop` is set.

        Raises:
            RowvecError: the settings, the schema or the models don't fit; nothing was begun.
            ExceptionGroup: a room crashed.
        """
        # A connection of its own for the heartbeat: work that waits for the pool must not look like death.
        database, beats = Database(self._settings.dsn), Database(self._settings.dsn, size=1)
        async with AsyncExitStack() as stack:
            qstash = await open_qstash(self._settings, stack)
            tasks, routes = self._pages(database, qstash)
            app = make_app(self.health, self.metrics, VERSION, routes)
            host, port = self._settings.http_host, self._settings.http_port
            address = await stack.enter_async_context(serving(app, host, port))
            log.info("http.ready", address=address)
            self._notifier.ready("waiting for Postgres")
            await stack.enter_async_context(watchdog_fed(self.health, self._notifier))
            stack.push_async_callback(database.close)
            stack.push_async_callback(beats.close)
            if not await self._unless_stopped(self._open(database, beats)):
                return
            self._notifier.status(f"working, {address}")
            rooms = self._wire(database, beats, qstash, tasks)
            self._on_ready(address)
            await run_until_stopped(rooms, self.stop, self.health, self._notifier, self._settings.drain_seconds)

    def _pages(self, database: Database, qstash: QStashClient | None) -> tuple[Tasks, list[web.RouteDef]]:
        """Return what is done by the clock, and the pages; while the database is away they say so."""
        deliveries = make_deliveries(self._settings, database, self._takers, self._board, self._bell)
        undelivered = make_undelivered(database, deliveries, self._bell)
        monitor = [self._monitor, *make_drains(self._settings, qstash, undelivered)]
        tasks = make_tasks(self._settings, database, self._id, monitor)
        pages = make_pages(
            self._settings,
            database,
            qstash,
            deliveries,
            undelivered,
            tasks,
            self._bearer,
            self._look_at_all,
            self.metrics,
        )
        return tasks, [*self._operators().routes(), *pages]

    def _operators(self) -> Operators:
        return Operators(self._bearer, PostgresOverview(self._settings.dsn))

    @property
    def _bearer(self) -> Bearer:
        token = self._settings.api_token
        return Bearer(token.get_secret_value() if token else "")

    async def _monitor(self) -> Mapping[str, int]:
        self._look_at_all()
        return {}

    def _look_at_all(self) -> None:
        """Let go what was collected for messages, and look at everything."""
        for release in self._releases:
            release()
        self._bell.ring(Cause.SWEEP)

    def look_again(self) -> None:
        """Look at everything once more (SIGHUP)."""
        self._notifier.reloading()
        self._bell.ring(Cause.SWEEP)
        self._notifier.ready("working")

    async def _unless_stopped(self, waiting: Coroutine[Any, Any, T]) -> T | None:
        """Return what a coroutine returns, or None when the daemon is stopped before."""
        task, stopped = asyncio.create_task(waiting), asyncio.create_task(self.stop.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            task.cancel()
            return None
        return task.result()

    async def _open(self, *databases: Database) -> bool:
        """Wait for a database that is not there yet; refuse one that does not fit."""
        told = ""
        while True:
            try:
                await self._check()
                for database in databases:
                    await database.open()
            except DatabaseUnavailableError as error:
                self.health.set(Part.DATABASE, well=False, note=error.message)
                if told != error.message:
                    log.info("database.awaited", error=str(error))
                    told = error.message
                await asyncio.sleep(CONNECT_PAUSE_SECONDS)
            else:
                self.health.set(Part.SCHEMA, well=True)
                return True

    async def _check(self) -> None:
        async with administration(self._settings.dsn) as database:
            known = {row["name"]: row["dimensions"] for row in await database.models()}
            self._refuse(known, await database.missing_rights())
            for name in await database.activate_models(self._settings.active_models):
                log.info("model.activated", model=name)

    def _refuse(self, known: dict[str, int], missing_rights: list[str]) -> None:
        """Raise when models, name to dimensions, or rights don't fit."""
        wanted = self._settings.active_models
        for name in sorted(wanted.keys() & known.keys()):
            check_dimensions(name, wanted[name].dimensions, known[name])
        if missing := sorted(wanted.keys() - known.keys()):
            raise ConfigurationError(
                f"The database does not know the model {', '.join(missing)}.",
                "Run `rowvec migrate` as the owner of its schema, with the same settings. Or switch it off here: "
                f"ROWVEC_MODEL_{missing[0].upper()}_PROVIDER=off.",
            )
        if missing_rights:
            raise ConfigurationError(
                f"The database role lacks the rights of a daemon: {', '.join(missing_rights)}.",
                "Its schema's owner gives them: to rowvec_daemon by `rowvec migrate`, to others by "
                "SELECT rowvec.grant_daemon_rights('ROLE').",
            )

    def _wire(self, database: Database, beats: Database, qstash: QStashClient | None, tasks: Tasks) -> Rooms:
        """Join the rooms."""
        settings, daemon, bell, calls, tokens = self._settings, self._id, self._bell, Bell(), set[uuid.UUID]()
        board = self._board
        changes, queue = PostgresChangeLog(database), PostgresItemQueue(database, daemon)
        preparer = Preparer(PostgresRowReader(database), OwnerShares(time.monotonic))
        wake = PostgresWakeSource(database, self._settings.listen_dsn)
        store, chance = PostgresVectorStore(database), random.Random()  # noqa: S311 - jitter
        dispatches = PostgresDispatches(database, daemon)
        dispatching = (
            make_dispatching(settings, qstash, dispatches, board, lambda: roster.models, self.metrics, self.health)
            if qstash
            else None
        )
        if dispatching:
            self._releases.append(dispatching.release)
        shared = Shared(
            settings,
            queue,
            dispatches,
            self._takers,
            store,
            preparer,
            board,
            tokens,
            chance,
            self.metrics,
            self.health,
            dispatching,
        )
        roster = Roster[ModelSettings](
            PostgresModelRegistry(database),
            self._settings.reach,
            lambda name, model: shared.make_rooms(self._make(name, model)),
            self._settings.active_models,
            board,
            calls,
            bell,
            self.health,
            self.health.pulse("roster", ROOM_BOUND_SECONDS),
        )
        longest = max(self._settings.poll_seconds, self._settings.sweep_seconds)
        folder = Folder(
            changes,
            queue,
            wake,
            bell,
            board,
            roster.models,
            lambda: roster.has_room,
            self.health.pulse("fold", ROOM_BOUND_SECONDS + longest),
            self.metrics,
            time.monotonic,
            self._settings.poll_seconds,
            self._settings.sweep_seconds,
        )
        presence = PostgresPresence(beats, daemon, VERSION, roster.models)
        heartbeat = Heartbeat(
            presence,
            lambda: [*board.resting(), *roster.complaints],
            roster.load,
            dispatching.load if dispatching else lambda: CarrierLoad("database", why=self._settings.why_not_qstash),
            tokens,
            bell,
            self.health,
            self.health.pulse("heartbeat", ROOM_BOUND_SECONDS),
        )
        return Rooms(
            upstream=[
                Listener(wake, [bell, calls], self.health),
                Backfiller(changes, bell),
                folder,
                *(dispatching.rooms if dispatching else []),
                TaskClock(tasks, SystemClock()),
                *make_settlers(settings, qstash),
            ],
            models=roster,
            heartbeat=heartbeat,
            presence=presence,
            abandon=[database.abandon, beats.abandon],
        )
