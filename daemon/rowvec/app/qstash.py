"""Who stands behind the ports when messages carry the work."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

import structlog
from aiohttp import web

from rowvec.api.answers import Bearer
from rowvec.api.messages import read_asked
from rowvec.api.operations import Operations
from rowvec.api.qstash import Receiver
from rowvec.api.signed import SignedRequests
from rowvec.clock import SystemClock
from rowvec.domain.messages import DELIVERY_TIMEOUT_SECONDS
from rowvec.domain.tasks import Task
from rowvec.health import Health
from rowvec.pipeline.bell import Bell
from rowvec.pipeline.claim_rows import RowClaimer
from rowvec.pipeline.deliver import Deliveries
from rowvec.pipeline.dispatch import Terms
from rowvec.pipeline.dispatch_rooms import DispatchRooms
from rowvec.pipeline.due_board import DueBoard
from rowvec.pipeline.staleness import Staleness
from rowvec.pipeline.tasks import Duty, Step, Tasks
from rowvec.pipeline.undelivered import UndeliveredRows
from rowvec.postgres.connections import Database
from rowvec.postgres.dispatches import PostgresDispatches
from rowvec.postgres.row_reader import PostgresRowReader
from rowvec.postgres.row_states import PostgresRowStates
from rowvec.postgres.tasks import PostgresTaskBook, PostgresUpkeep
from rowvec.qstash.carrier import Delivery, QStashCarrier
from rowvec.qstash.client import QStashClient, connected
from rowvec.qstash.dead_letters import DeadLetters
from rowvec.qstash.keys import KeyRing
from rowvec.qstash.schedules import Settler, wanted_by
from rowvec.settings import Settings
from rowvec.settings_qstash import PUBLIC_KEYS
from rowvec.telemetry import Metrics

SEND_SECONDS: Final = 3.5
"""Of a carrier that does not answer: with what follows, its items are worked on here within 5 s."""
DELIVERIES_AT_ONCE: Final = 4
"""For each message that QStash delivers at once: several daemons' queues may lead here, and repeats come early."""
ANSWER_SECONDS: Final = 10.0
"""Within this a message is answered; it is sent with a longer timeout."""

log = structlog.get_logger(__name__)


async def open_qstash(settings: Settings, stack: AsyncExitStack) -> QStashClient | None:
    """Return the way to QStash, closed with the stack; None when all work is done here."""
    if not settings.uses_qstash or settings.qstash_token is None:
        log.info("strategy.chosen", strategy="database", why=settings.why_not_qstash)
        return None
    lanes = sorted(lane.value for lane in settings.qstash_lanes)
    log.info("strategy.chosen", strategy="qstash", lanes=lanes, queue=settings.qstash_queue_name)
    token, url = settings.qstash_token.get_secret_value(), str(settings.qstash_url)
    return await stack.enter_async_context(connected(token, url, SEND_SECONDS))


def make_tasks(settings: Settings, database: Database, daemon: uuid.UUID, monitor: Sequence[Step]) -> Tasks:
    """Return what the daemons do by the clock.

    Args:
        settings: when, and for how long things are kept.
        database: a pool, open when a task is done.
        daemon: this one's id.
        monitor: what the monitor does.
    """
    upkeep = PostgresUpkeep(database, settings.keep_sent_days)
    steps = {Task.MONITOR: monitor, Task.CLEANUP: [upkeep.clean_up], Task.RETRY_FAILED: [upkeep.requeue_failed]}
    duties = {task: Duty(cron, steps[task]) for task, cron in settings.crons.items()}
    return Tasks(PostgresTaskBook(database, daemon), duties, SystemClock())


def make_dispatching(  # noqa: PLR0913 - wired once
    settings: Settings,
    client: QStashClient,
    dispatches: PostgresDispatches,
    board: DueBoard,
    models: Callable[[], Collection[str]],
    metrics: Metrics,
    health: Health,
) -> DispatchRooms:
    """Return what stands before the lines of all models."""
    delivery = Delivery(str(settings.site_url), settings.qstash_queue_name, settings.qstash_max_retries)
    terms = Terms(
        settings.qstash_lanes,
        settings.dispatch_deadline_seconds,
        settings.qstash_message_items,
        DELIVERY_TIMEOUT_SECONDS,
    )
    carrier, concurrency = QStashCarrier(client, delivery), settings.qstash_concurrency
    return DispatchRooms(carrier, dispatches, board, terms, concurrency, models, SystemClock(), metrics, health)


def make_deliveries(
    settings: Settings, database: Database, takers: Mapping[str, RowClaimer], board: DueBoard, bell: Bell
) -> Deliveries:
    """Return what becomes of the rows that messages name.

    Args:
        settings: how many messages come at once.
        database: a pool.
        takers: what claims by key, by the names of the models that are here.
        board: is told of rows that a dead message leaves behind.
        bell: is rung for rows that were not queued.
    """
    states = PostgresRowStates(database)
    staleness = Staleness(PostgresRowReader(database), states, settings.batch_items)
    return Deliveries(takers, states, staleness, board, bell, deliveries_at_once(settings), ANSWER_SECONDS)


def make_undelivered(database: Database, deliveries: Deliveries, bell: Bell) -> UndeliveredRows:
    """Return the way back from messages that have died."""
    return UndeliveredRows(deliveries, PostgresRowStates(database), bell)


def make_drains(settings: Settings, client: QStashClient | None, undelivered: UndeliveredRows) -> Sequence[Step]:
    """Return what leads dead letters back to their rows; nothing where QStash does not carry the work."""
    return [DeadLetters(client, undelivered, read_asked, str(settings.site_url)).drain] if client else []


def make_settlers(settings: Settings, client: QStashClient | None) -> Sequence[Settler]:
    """Return what sees to the queue and the schedules; nothing where QStash does not carry the work."""
    again = settings.crons[Task.MONITOR]
    return [Settler(client, wanted_by(settings), again, SystemClock())] if client else []


def make_pages(  # noqa: PLR0913 - as above
    settings: Settings,
    database: Database,
    client: QStashClient | None,
    deliveries: Deliveries,
    undelivered: UndeliveredRows,
    tasks: Tasks,
    bearer: Bearer,
    look: Callable[[], None],
    metrics: Metrics,
) -> list[web.RouteDef]:
    """Return the pages that QStash calls and those that operators call in its place.

    Args:
        settings: the keys, the public address, the sizes.
        database: a pool; until it is open, and whenever it is away, the pages say so.
        client: is asked for new keys; None when QStash does not carry the work.
        deliveries: bring rows up to date.
        undelivered: leads rows of dead messages back.
        tasks: what can be asked for.
        bearer: lets operators through.
        look: has everything looked at that is due.
        metrics: counts requests of QStash.
    """
    address = str(settings.site_url or "").rstrip("/")
    signed = SignedRequests(address, _make_key_ring(settings, client), settings.missing_for_messages, metrics)
    operations = Operations(bearer, signed, PostgresRowStates(database), look, tasks, settings.batch_items)
    return [*Receiver(signed, deliveries, undelivered, operations.released).routes(), *operations.routes()]


def deliveries_at_once(settings: Settings) -> int:
    """Return how many messages are worked on at once."""
    return DELIVERIES_AT_ONCE * settings.qstash_concurrency


def _make_key_ring(settings: Settings, client: QStashClient | None) -> KeyRing | None:
    current, following = settings.qstash_current_signing_key, settings.qstash_next_signing_key
    if settings.missing_for_messages or current is None or following is None:
        return None
    untrusted = () if settings.development else PUBLIC_KEYS
    return KeyRing(current.get_secret_value(), following.get_secret_value(), client, SystemClock(), untrusted)
