"""What a watch costs the writers of its table.

Variants of the same table in databases of their own, taken in turns within each round, so that a slow moment of the
machine meets all of them; the medians are compared. Every phase begins with planted rows that no trigger saw, and
with nothing to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from benchmarks.clients import delete_rows, insert_rows
from benchmarks.figures import Figure, Ratio
from benchmarks.linux import Usage
from benchmarks.scratch import INSTANT, POST, database, drained, empty_out, plant, plant_vectors, ready, session_of
from daemons import process
from rowvec.embedded import EmbeddedPostgres

NONE = "no watch"
QUIET = "watch without notify"
DAEMON = "watch and a daemon"
AWAKE = "watch, awake mark set, no daemon"
ALONE = "watch, every writer notifies"
MAIN = (NONE, QUIET, DAEMON)
EMPTY = "a trigger that does nothing"
ALL = (*MAIN, AWAKE, ALONE, EMPTY)
"""The others explain the third: the trigger's own cost while somebody is awake, with no daemon on the cores; what each
commit would pay if nobody ever were; and what any trigger of the kind costs."""
DO_NOTHING = """
    CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
    CREATE TRIGGER a AFTER INSERT ON post REFERENCING NEW TABLE AS rows FOR EACH STATEMENT EXECUTE FUNCTION nothing();
    CREATE TRIGGER b AFTER DELETE ON post REFERENCING OLD TABLE AS rows FOR EACH STATEMENT EXECUTE FUNCTION nothing();
"""

MARK_AWAKE = "SELECT setval('rowvec.awake_until', ((extract(epoch FROM clock_timestamp()) + 3600) * 1000000)::bigint)"


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rounds: int
    seconds: float
    inserted: int
    changed: int
    deleted_singly: int


FULL = Sizes(rounds=5, seconds=2.0, inserted=50_000, changed=10_000, deleted_singly=1_000)
QUICK = Sizes(rounds=1, seconds=0.7, inserted=50_000, changed=10_000, deleted_singly=500)


@dataclass(frozen=True)
class Place:
    """A database of one variant, and who works in it."""

    variant: str
    dsn: str
    session: asyncpg.Connection
    clients: ProcessPoolExecutor
    usage: Usage | None

    async def drive(self, work: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - what the work returns
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.clients, work, self.dsn, *arguments)

    async def clean(self) -> None:
        """Wait for the daemon, then empty everything."""
        if self.usage is not None:
            await drained(self.session)
        await empty_out(self.session)
        if self.variant == AWAKE:
            await self.session.execute(MARK_AWAKE)


@dataclass(frozen=True)
class Kind:
    """One kind of write: `run` prepares, measures and returns a value in the unit."""

    name: str
    unit: str
    run: Callable[[Place, Sizes], Awaitable[float]]
    variants: Sequence[str] = MAIN
    aims: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """A value, and the seconds of the cores that the daemon and its sessions took during its phase."""

    value: float
    seconds: float
    daemon_seconds: float
    backend_seconds: float


def single_inserts(clients: int) -> Callable[[Place, Sizes], Awaitable[float]]:
    async def run(place: Place, sizes: Sizes) -> float:
        drive = await place.drive(insert_rows, clients, sizes.seconds)
        return float(drive.per_second)

    return run


def statement(text: str) -> Callable[[Place, Sizes], Awaitable[float]]:
    """Measure one statement, over planted rows when it is not an insert."""

    async def run(place: Place, sizes: Sizes) -> float:
        if not text.startswith("INSERT"):
            await plant(place.session, 1, sizes.changed)
            if place.variant != NONE:
                await plant_vectors(place.session, 1, sizes.changed)
        began = time.perf_counter()
        await place.session.execute(text.format(inserted=sizes.inserted, changed=sizes.changed))
        return (time.perf_counter() - began) * 1000

    return run


def single_deletes(*, stored: bool) -> Callable[[Place, Sizes], Awaitable[float]]:
    async def run(place: Place, sizes: Sizes) -> float:
        await plant(place.session, 1, sizes.deleted_singly)
        if stored and place.variant not in {NONE, EMPTY}:
            await plant_vectors(place.session, 1, sizes.deleted_singly)
        drive = await place.drive(delete_rows, 1, sizes.deleted_singly)
        return float(1000 / drive.per_second)

    return run


INSERT = "INSERT INTO post (body) SELECT 'Post ' || n FROM generate_series(1, {inserted}) n"
WATCHED = "UPDATE post SET body = body || '!' WHERE id <= {changed}"
UNWATCHED = "UPDATE post SET views = views + 1 WHERE id <= {changed}"
DELETE = "DELETE FROM post WHERE id <= {changed}"
KINDS = (
    Kind("single inserts, 1 client", "rows/s", single_inserts(1), ALL),
    Kind("single inserts, 4 clients", "rows/s", single_inserts(4), ALL),
    Kind(
        "single inserts, 16 clients",
        "rows/s",
        single_inserts(16),
        ALL,
        {(DAEMON, QUIET): "at least 0.90", (DAEMON, NONE): "at least 0.80"},
    ),
    Kind(
        "insert of 50,000 rows",
        "ms",
        statement(INSERT),
        aims={(QUIET, NONE): "at most 2.3", (DAEMON, NONE): "at most 2.3"},
    ),
    Kind("update of 10,000 rows, watched column", "ms", statement(WATCHED)),
    Kind(
        "update of 10,000 rows, another column",
        "ms",
        statement(UNWATCHED),
        aims={(QUIET, NONE): "at most 1.2", (DAEMON, NONE): "at most 1.2"},
    ),
    Kind(
        "single delete, vectors stored",
        "ms",
        single_deletes(stored=True),
        aims={(QUIET, NONE): "at most 1.5", (DAEMON, NONE): "at most 1.5"},
    ),
    Kind("single delete, none stored", "ms", single_deletes(stored=False), (*MAIN, EMPTY)),
    Kind("delete of 10,000 rows", "ms", statement(DELETE)),
)


async def measure_writers(postgres: EmbeddedPostgres, sizes: Sizes) -> list[Figure]:
    async with contextlib.AsyncExitStack() as stack:
        clients = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        stack.callback(clients.shutdown)
        places = {name: await stack.enter_async_context(open_place(postgres, name, clients)) for name in ALL}
        return [figure for kind in KINDS for figure in await compare(kind, places, sizes)]


@contextlib.asynccontextmanager
async def open_place(postgres: EmbeddedPostgres, variant: str, clients: ProcessPoolExecutor) -> AsyncIterator[Place]:
    notify = "false" if variant == QUIET else "true"
    watch = f"SELECT rowvec.watch('post', 'post', ARRAY['body'], 2, template => '{{body}}', notify => {notify})"
    statements = {NONE: (POST,), EMPTY: (POST, DO_NOTHING)}.get(variant, (POST, watch))
    async with contextlib.AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(database(postgres, f"writers_{ALL.index(variant)}", *statements))
        session = await stack.enter_async_context(session_of(dsn))
        usage = None
        if variant == DAEMON:
            daemon = await stack.enter_async_context(process(dsn, **INSTANT))
            await ready(dsn)
            usage = Usage(daemon.pid, session)
        yield Place(variant, dsn, session, clients, usage)


async def compare(kind: Kind, places: dict[str, Place], sizes: Sizes) -> list[Figure]:
    samples: dict[str, list[Sample]] = {name: [] for name in kind.variants}
    for _ in range(sizes.rounds):
        for name in kind.variants:
            await places[name].clean()
            samples[name].append(await take(kind, places[name], sizes))
    medians = {name: statistics.median(sample.value for sample in samples[name]) for name in kind.variants}
    return [as_figure(kind, name, medians, samples[name]) for name in kind.variants]


async def take(kind: Kind, place: Place, sizes: Sizes) -> Sample:
    began = time.perf_counter()
    if place.usage is None:
        return Sample(await kind.run(place, sizes), time.perf_counter() - began, 0.0, 0.0)
    await place.usage.begin()
    value = await kind.run(place, sizes)
    return Sample(value, time.perf_counter() - began, *await place.usage.end())


def as_figure(kind: Kind, name: str, medians: dict[str, float], samples: Sequence[Sample]) -> Figure:
    others = [other for other in (NONE, QUIET) if list(kind.variants).index(other) < list(kind.variants).index(name)]
    ratios = tuple(
        Ratio(round(medians[name] / medians[other], 3), other, kind.aims.get((name, other), "")) for other in others
    )
    return Figure(f"{kind.name}, {name}", round(medians[name], 3), kind.unit, ratios, shares(name, samples))


def shares(name: str, samples: Sequence[Sample]) -> str:
    """Say how much of one core the daemon and its sessions took meanwhile."""
    if name != DAEMON:
        return ""
    seconds = sum(sample.seconds for sample in samples)
    daemon = sum(sample.daemon_seconds for sample in samples) / seconds
    backends = sum(sample.backend_seconds for sample in samples) / seconds
    return f"the daemon took {daemon:.0%} of a core meanwhile, its sessions {backends:.0%}"
