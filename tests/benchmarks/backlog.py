"""What one claim and one fold cost, by how much waits, and what lies in the way.

Each is done by the daemon's own parts on a session of their pool, in each plan cache mode, opened and used while the
queue was empty: plans made then must serve a million items. Every case is compared with the empty queue in the same
session and mode.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import asyncpg

from benchmarks.figures import Figure, Ratio
from benchmarks.scratch import database, empty_out, session_of
from rowvec.domain.items import Floors, Slot
from rowvec.domain.lanes import Lane
from rowvec.embedded import EmbeddedPostgres
from rowvec.pipeline.due_board import EVER, DueBoard
from rowvec.pipeline.fold import BATCH_CHANGES, STRAGGLER_CHANGES
from rowvec.postgres.change_log import PostgresChangeLog
from rowvec.postgres.connections import Database
from rowvec.postgres.item_queue import PostgresItemQueue

PLAN_CACHE_MODES = ("force_generic_plan", "force_custom_plan", "auto")
"""The first is what the daemon sets."""

SOURCES = ("post", "course", "note", "page", "paused")
MANY = 4
"""Sources that share the backlog; the last one only lies in the way."""

SLOT = Slot("first", Lane.IMMEDIATE, "post")
CLAIMS = (64, 256)
BIG_BATCH = 5_000


@dataclass
class Part:
    """The queue's and the log's ends of a daemon, on one session."""

    mode: str
    queue: PostgresItemQueue
    log: PostgresChangeLog
    board: DueBoard = field(default_factory=lambda: DueBoard(time.monotonic))
    floors: Floors = Floors()  # noqa: RUF009 - immutable


@dataclass(frozen=True)
class Bench:
    """The database under load, and the parts that are measured in it."""

    dsn: str
    session: asyncpg.Connection
    parts: tuple[Part, ...]
    runs: int
    keys: itertools.count[int]


Cost = dict[tuple[str, str], float]
"""Milliseconds by operation and plan cache mode."""


async def measure_backlog(postgres: EmbeddedPostgres, items: int, runs: int) -> list[Figure]:
    tables = [f"CREATE TABLE {name} (id bigint PRIMARY KEY, body text)" for name in SOURCES]
    watches = [f"SELECT rowvec.watch('{name}', '{name}', ARRAY['body'], 2)" for name in SOURCES]
    async with (
        database(postgres, "backlog", *tables, *watches) as dsn,
        session_of(dsn) as session,
        contextlib.AsyncExitStack() as stack,
    ):
        parts = [await stack.enter_async_context(open_part(dsn, mode)) for mode in PLAN_CACHE_MODES]
        return await compare(Bench(dsn, session, tuple(parts), runs, itertools.count(10_000_000)), items)


@contextlib.asynccontextmanager
async def open_part(dsn: str, mode: str) -> AsyncIterator[Part]:
    """A daemon's pool of one session, in another plan cache mode than its own."""
    pool = Database(dsn, size=1)
    await pool.open()
    async with pool.connection() as session:
        await session.execute(f"SET plan_cache_mode = {mode}")
    yield Part(mode, PostgresItemQueue(pool, uuid.uuid4()), PostgresChangeLog(pool))
    await pool.close()


async def compare(bench: Bench, items: int) -> list[Figure]:
    empty = await both(bench)
    figures = [figure for key, cost in empty.items() for figure in as_figures("empty queue", {key: cost}, {})]
    for name, measure in cases(bench, items).items():
        await clear(bench)
        figures += as_figures(name, await measure(), empty)
    await clear(bench)
    return figures


def cases(bench: Bench, items: int) -> dict[str, Callable[[], Awaitable[Cost]]]:
    async def waiting(count: int) -> Cost:
        await load_items(bench, count)
        return await both(bench)

    async def paused() -> Cost:
        await load_items(bench, items, SOURCES[MANY:])
        return await both(bench)

    async def unfolded() -> Cost:
        await load_changes(bench, items)
        return await folds(bench)

    return {
        f"{items // 10:,} items wait": lambda: waiting(items // 10),
        f"{items:,} items wait": lambda: waiting(items),
        f"{items:,} items of a paused source in front": paused,
        f"{items:,} changes wait": unfolded,
        f"old snapshot, {items // 5:,} done in the last hour": lambda: old_snapshot(bench, items // 5, 3600),
        f"old snapshot, {items // 5:,} done in the last minute": lambda: old_snapshot(bench, items // 5, 30),
    }


def as_figures(name: str, costs: Cost, empty: Cost) -> list[Figure]:
    return [
        Figure(
            f"{operation}, {name}, {mode}",
            round(cost, 2),
            "ms",
            (Ratio(round(cost / empty[known], 2), "the empty queue"),)
            if (known := base(operation, mode)) in empty
            else (),
        )
        for (operation, mode), cost in costs.items()
    ]


def base(operation: str, mode: str) -> tuple[str, str]:
    """What an operation is compared with."""
    return operation.removesuffix(" after a sweep"), mode


async def both(bench: Bench) -> Cost:
    return {**await claims(bench), **await folds(bench)}


async def claims(bench: Bench, *, swept: bool = False) -> Cost:
    """The cost of a claim with the floor that a daemon would use, or with the one that a sweep has just found."""
    costs = {}
    for part, batch in itertools.product(bench.parts, CLAIMS):
        name = f"claim of {batch}" + (" after a sweep" if swept else "")
        seconds = [await one_claim(bench, part, batch, swept=swept) for _ in range(bench.runs)]
        costs[name, part.mode] = statistics.median(seconds) * 1000
    return costs


async def one_claim(bench: Bench, part: Part, batch: int, *, swept: bool) -> float:
    await bench.session.execute(ITEMS, ["post"], next_keys(bench, batch), 0.0)
    if swept:
        part.board.lower_floors(await part.queue.probe(["first"], EVER))
    began = time.perf_counter()
    claim = await part.queue.claim(SLOT, uuid.uuid4(), batch, part.board.floor(SLOT))
    seconds = time.perf_counter() - began
    if len(claim.items) != batch:
        raise RuntimeError(f"A claim of {batch} found {len(claim.items)}.")
    part.board.saw(claim, batch)
    await complete(bench, [item.id for item in claim.items])
    return seconds


async def sweeps(bench: Bench) -> Cost:
    """The cost of a sweep's probe, every two seconds, which looks from ever on."""
    costs = {}
    for part in bench.parts:
        seconds = [await one_sweep(part) for _ in range(bench.runs)]
        costs["probe of a sweep", part.mode] = statistics.median(seconds) * 1000
    return costs


async def one_sweep(part: Part) -> float:
    began = time.perf_counter()
    await part.queue.probe(["first"], EVER)
    return time.perf_counter() - began


async def complete(bench: Bench, ids: list[int]) -> None:
    await bench.session.execute("DELETE FROM rowvec.embedding_queue WHERE id = ANY ($1)", ids)


async def folds(bench: Bench) -> Cost:
    """The cost of a fold of one batch of changes of rows that have no items yet."""
    costs = {}
    for part in bench.parts:
        seconds = [await one_fold(bench, part) for _ in range(bench.runs)]
        costs[f"fold of {BATCH_CHANGES}", part.mode] = statistics.median(seconds) * 1000
    return costs


async def one_fold(bench: Bench, part: Part) -> float:
    keys = next_keys(bench, BATCH_CHANGES)
    await bench.session.execute(CHANGES, "page", keys)
    began = time.perf_counter()
    fold = await part.log.fold(part.floors, BATCH_CHANGES)
    seconds = time.perf_counter() - began
    if fold.floors is None:
        raise RuntimeError("A fold found nothing.")
    part.floors = behind(fold.floors)
    await bench.session.execute(FOLDED_AWAY, keys)
    return seconds


def behind(floors: Floors) -> Floors:
    """The floors of the next fold, as the daemon sets them."""
    return Floors(*(max(0, floor - STRAGGLER_CHANGES) for floor in floors))


def next_keys(bench: Bench, count: int) -> list[str]:
    return [str(next(bench.keys)) for _ in range(count)]


async def old_snapshot(bench: Bench, items: int, over_seconds: float) -> Cost:
    """Work off items and changes while another session keeps their dead versions; then measure behind them."""
    async with session_of(bench.dsn) as other, other.transaction(isolation="repeatable_read"):
        await other.fetchval("SELECT count(*) FROM rowvec.source")
        await bench.session.execute(ITEMS, ["post"], next_keys(bench, items), over_seconds)
        await load_changes(bench, items)
        await work_off(bench)
        return {**await both(bench), **await claims(bench, swept=True), **await sweeps(bench)}


async def work_off(bench: Bench) -> None:
    """Claim, complete and fold all there is, and let every part know how far that was."""
    first = bench.parts[0]
    while (claim := await first.queue.claim(SLOT, uuid.uuid4(), BIG_BATCH, first.board.floor(SLOT))).items:
        for part in bench.parts:
            part.board.saw(claim, BIG_BATCH)
        await complete(bench, [item.id for item in claim.items])
    while (fold := await first.log.fold(first.floors, BIG_BATCH)).floors is not None:
        first.floors = behind(fold.floors)
        if not fold.folded:
            break
    for part in bench.parts:
        part.floors = first.floors
    await bench.session.execute("DELETE FROM rowvec.embedding_queue")


async def load_items(bench: Bench, count: int, sources: tuple[str, ...] = SOURCES[:MANY]) -> None:
    """Put items of several sources, due over the last hour: in front of all that come later."""
    each = count // len(sources)
    await bench.session.execute(LOAD_ITEMS, list(sources), each)


async def load_changes(bench: Bench, count: int) -> None:
    await bench.session.execute(LOAD_CHANGES, count)


async def clear(bench: Bench) -> None:
    await empty_out(bench.session, ())
    for part in bench.parts:
        part.board, part.floors = DueBoard(time.monotonic), Floors()


ITEMS = """
    INSERT INTO rowvec.embedding_queue (content_type, content_id, model, priority, generation, scheduled_at)
    SELECT type, key, 'first', 2, position,
           now() - make_interval(secs => $3::float8 * (1 - position / cardinality($2::text[])::float8))
    FROM unnest($1::text[]) type, unnest($2::text[]) WITH ORDINALITY AS given (key, position)
"""
LOAD_ITEMS = """
    INSERT INTO rowvec.embedding_queue (content_type, content_id, model, priority, generation, scheduled_at)
    SELECT type, n::text, 'first', 2, n, now() - interval '1 hour' * (1 - n / $2::float8)
    FROM generate_series(1, $2::int) n, unnest($1::text[]) type
"""
CHANGES = """
    INSERT INTO rowvec.change (urgency, content_type, content_id, priority, kind) SELECT 2, $1, key, 2, 'write'
    FROM unnest($2::text[]) key
"""
LOAD_CHANGES = """
    INSERT INTO rowvec.change (urgency, content_type, content_id, priority, kind)
    SELECT 3, 'note', n::text, 5, 'write' FROM generate_series(1, $1::int) n
"""
FOLDED_AWAY = "DELETE FROM rowvec.embedding_queue WHERE content_type = 'page' AND content_id = ANY ($1)"
