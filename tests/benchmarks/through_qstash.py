"""Work that QStash carries, from a local one: when it delivers nothing or refuses, and how much goes through it.

The local QStash runs in this process, the daemon and the client in processes of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import multiprocessing
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Final

import asyncpg
import orjson
import uvloop

from benchmarks.clients import Drive
from benchmarks.figures import Figure, Ratio, latency, middle_and_worst
from benchmarks.linux import Usage
from benchmarks.scratch import INSTANT, database, drained, free_port, ready, session_of, until
from daemons import Process, process
from database import FILL
from local_qstash import FREE, PAYG, Faults, LocalQStash, Plan, local_qstash
from rowvec.domain.items import Key
from rowvec.domain.messages import Message, ask_for_batch
from rowvec.domain.parts import in_parts
from rowvec.embedded import EmbeddedPostgres
from rowvec.qstash.carrier import Delivery, QStashCarrier
from rowvec.qstash.client import connected

QUEUE: Final = "embedding-processor"
MESSAGE_ITEMS: Final = 32
"""As by default."""
FREE_PLAN_PER_SECOND: Final = 40.0
ONE_BY_ONE: Final = "one by one"
AIMS: Final = {"immediate": 10, "standard": 60, "bulk": 300}
FALL_BACK_AIM: Final = "at most 5 s"


@dataclass(frozen=True)
class Flow:
    """A watched table, and how many rows a second are written to it while QStash delivers nothing."""

    lane: str
    priority: int
    per_second: float


# So few bulk rows that they wait for each other until half of the lane's time is over.
FLOWS: Final = (Flow("immediate", 2, 2.0), Flow("standard", 3, 5.0), Flow("bulk", 5, 0.5))


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        lanes: those that are written to while nothing is delivered.
        silent_seconds: how long they are.
        fall_backs: samples of each fault.
        rounds: of the client's ways to publish.
        singles: messages of a round that are published one by one.
        items: published in a round in batches, and written at once to the daemon.
        free_seconds: how long rows are written within the limits of the free plan.
    """

    lanes: tuple[Flow, ...]
    silent_seconds: float
    fall_backs: int
    rounds: int
    singles: int
    items: int
    free_seconds: float


FULL = Sizes(FLOWS, silent_seconds=60, fall_backs=5, rounds=3, singles=1_000, items=10_000, free_seconds=15)
QUICK = Sizes(FLOWS[:2], silent_seconds=20, fall_backs=2, rounds=1, singles=500, items=10_000, free_seconds=8)
"""Without the bulk lane: its items wait three minutes."""


async def measure_qstash(postgres: EmbeddedPostgres, sizes: Sizes) -> list[Figure]:
    return [
        *await measure_silence(postgres, sizes),
        *await measure_fall_back(postgres, sizes.fall_backs),
        *await measure_client(sizes),
        *await measure_dispatch(postgres, sizes.items),
        *await measure_free_plan(postgres, sizes.free_seconds),
    ]


@dataclass(frozen=True)
class Road:
    """A daemon whose work a local QStash carries, and a session beside it."""

    qstash: LocalQStash
    daemon: Process
    session: asyncpg.Connection

    async def write(self, lane: str, rows: int) -> None:
        """Insert rows in one transaction."""
        await self.session.execute(
            f"INSERT INTO {lane} (body) SELECT '{lane} ' || gen_random_uuid() FROM generate_series(1, $1)", rows
        )

    async def sent_items(self) -> int:
        """How many items were dispatched with messages that were taken."""
        return int(await self.session.fetchval("SELECT coalesce(sum(items), 0) FROM rowvec.sent"))

    def carried_items(self) -> int:
        """How many items were embedded for a delivery, by the answers to them."""
        bodies = [orjson.loads(one.answer.body) for one in self.qstash.deliveries if one.answer.status == 200]
        return sum(item["state"] == "embedded" for body in bodies for item in body["items"])


@contextlib.asynccontextmanager
async def road(postgres: EmbeddedPostgres, name: str, plan: Plan = PAYG) -> AsyncIterator[Road]:
    """Run a daemon with the settings by default, and a QStash for it with the parallelism of the free plan."""
    statements = [text for flow in FLOWS for text in table_of(flow)]
    async with (
        database(postgres, f"qstash_{name}", *statements, FILL) as dsn,
        session_of(dsn) as session,
        local_qstash(plan=plan) as qstash,
    ):
        await put_queue(qstash)
        async with process(dsn, **carried_by(qstash)) as daemon:
            await ready(dsn)
            yield Road(qstash, daemon, session)


def table_of(flow: Flow) -> tuple[str, str]:
    columns = "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text, written timestamptz"
    watched = f"'{flow.lane}', '{flow.lane}', ARRAY['body'], {flow.priority}, template => '{{body}}'"
    return (
        f"CREATE TABLE {flow.lane} ({columns} DEFAULT clock_timestamp())",
        f"SELECT rowvec.watch({watched}, urgent_rows => 1000000)",
    )


async def put_queue(qstash: LocalQStash, *, paused: bool = False) -> None:
    async with connected(qstash.token, qstash.url) as client:
        await client.put_queue(QUEUE, FREE.queue_parallelism, paused=paused)


def carried_by(qstash: LocalQStash) -> dict[str, str]:
    port = free_port()
    return {
        **INSTANT,
        "EMBEDDING_QUEUE_STRATEGY": "qstash",
        "QSTASH_URL": qstash.url,
        "QSTASH_TOKEN": qstash.token,
        "QSTASH_CURRENT_SIGNING_KEY": qstash.keys.current,
        "QSTASH_NEXT_SIGNING_KEY": qstash.keys.next,
        "SITE_URL": f"http://127.0.0.1:{port}",
        "ROWVEC_HTTP_PORT": str(port),
        "ROWVEC_DEVELOPMENT": "true",
    }


# It takes everything and delivers nothing


async def measure_silence(postgres: EmbeddedPostgres, sizes: Sizes) -> list[Figure]:
    """Write at a steady rate while messages vanish; look at how old each row was when its vector was stored."""
    async with road(postgres, "silence") as on:
        on.qstash.faults = Faults(drop=1.0)
        await write_steadily(on, sizes.lanes, sizes.silent_seconds)
        await drained(on.session)
        sent = await on.sent_items()
        ages = {flow.lane: await ages_of(on.session, flow.lane) for flow in sizes.lanes}
    rows = sum(map(len, ages.values()))
    return [
        Figure("nothing is delivered: items sent in vain", sent, "items", note=f"of {rows:,} rows"),
        *(figure for lane, found in ages.items() for figure in age_figures(lane, found)),
    ]


async def write_steadily(on: Road, flows: Sequence[Flow], seconds: float) -> None:
    began = time.perf_counter()
    due = sorted((n / flow.per_second, flow.lane) for flow in flows for n in range(int(seconds * flow.per_second)))
    for at, lane in due:
        await asyncio.sleep(max(0.0, began + at - time.perf_counter()))
        await on.write(lane, 1)


async def ages_of(session: asyncpg.Connection, lane: str) -> list[float]:
    """Seconds from the writing of each row to the transaction that stored its vector."""
    rows = await session.fetch(f"""
        SELECT extract(epoch FROM v.updated_at - t.written)::float8 AS age
        FROM {lane} t LEFT JOIN rowvec.vector_first v ON v.content_type = '{lane}' AND v.content_id = t.id::text
    """)
    return [row["age"] for row in rows]


def age_figures(lane: str, ages: Sequence[float]) -> list[Figure]:
    found = latency(ages)
    what = f"nothing is delivered: age of {len(ages)} {lane} rows when their vectors are stored"
    return [
        Figure(f"{what}, p50", round(found.p50 / 1000, 2), "s"),
        Figure(f"{what}, p99", round(found.p99 / 1000, 2), "s", note=f"aim under {AIMS[lane]} s"),
    ]


# It refuses


async def measure_fall_back(postgres: EmbeddedPostgres, samples: int) -> list[Figure]:
    """Break publishing while all goes well, and write a row: its message is the first that fails."""
    figures = []
    async with road(postgres, "fall_back") as on:
        for fault, words in ((Faults(publish="refuse"), "connections are cut"), (Faults(publish="hang"), "no answer")):
            seconds = [await one_fall_back(on, fault) for _ in range(samples)]
            what = f"publishing fails ({words}): from the commit of the row until it is embedded here"
            figures += middle_and_worst(what, seconds, "s", FALL_BACK_AIM)
    return figures


async def one_fall_back(on: Road, fault: Faults) -> float:
    await until(functools.partial(one_is_delivered, on, on.qstash.counts["delivered"]), 0.2)
    await drained(on.session)
    on.qstash.faults = fault
    await on.write("standard", 1)
    began = time.perf_counter()
    await drained(on.session)
    seconds = time.perf_counter() - began
    on.qstash.faults = Faults()
    return seconds


async def one_is_delivered(on: Road, before: int) -> bool:
    """Write until QStash carries again: it is tried once in a while."""
    await on.write("standard", 1)
    await drained(on.session)
    return on.qstash.counts["delivered"] > before


# The client alone


async def measure_client(sizes: Sizes) -> list[Figure]:
    """Publish messages one by one, a hundred a request, and so with as many items in each as the daemon does; in turns.

    The queue is paused: nothing is delivered meanwhile.
    """
    ways = {
        ONE_BY_ONE: (sizes.singles, 1, 1),
        "in batches": (sizes.items, 1, sizes.items),
        "in batches, 32 items a message": (sizes.items, MESSAGE_ITEMS, sizes.items),
    }
    drives: dict[str, list[Drive]] = {way: [] for way in ways}
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as client:
        async with local_qstash() as qstash:
            await put_queue(qstash, paused=True)
            for _ in range(sizes.rounds):
                for way, numbers in ways.items():
                    work = functools.partial(publish, qstash.url, qstash.token, *numbers)
                    drives[way].append(await asyncio.get_running_loop().run_in_executor(client, work))
    return client_figures(drives)


def publish(url: str, token: str, items: int, items_each: int, together: int) -> Drive:
    """Publish messages for so many items, so many items in each and so many messages in each call."""
    return uvloop.run(_publish(url, token, items, items_each, together))


async def _publish(url: str, token: str, items: int, items_each: int, together: int) -> Drive:
    async with connected(token, url) as client:
        carrier = QStashCarrier(client, Delivery("https://app.example.com", QUEUE, 3))
        messages = [message(numbers) for numbers in in_parts(range(items), items_each)]
        began, used = time.perf_counter(), time.process_time()
        for start in range(0, len(messages), together):
            if any(await carrier.send(messages[start : start + together])):
                raise RuntimeError("A message was refused.")
        return Drive(len(messages), time.perf_counter() - began, time.process_time() - used)


def message(numbers: Sequence[int]) -> Message:
    return ask_for_batch(uuid.uuid4(), {Key("standard", str(number)): 3 for number in numbers}, 30)


def client_figures(drives: dict[str, list[Drive]]) -> list[Figure]:
    rates = {way: statistics.median(one.per_second for one in found) for way, found in drives.items()}
    cpu = {way: statistics.median(cpu_of_a_message(one) for one in found) for way, found in drives.items()}
    return [
        figure
        for way in drives
        for figure in (
            Figure(f"publishes {way}", round(rates[way]), "messages/s", compared(rates, way)),
            Figure(f"processor time of the client {way}", round(cpu[way], 3), "ms a message", compared(cpu, way)),
        )
    ]


def cpu_of_a_message(drive: Drive) -> float:
    """In milliseconds."""
    return drive.cpu_seconds / drive.transactions * 1000


def compared(values: dict[str, float], way: str) -> tuple[Ratio, ...]:
    return () if way == ONE_BY_ONE else (Ratio(round(values[way] / values[ONE_BY_ONE], 3), ONE_BY_ONE),)


# Through the daemon


async def measure_dispatch(postgres: EmbeddedPostgres, items: int) -> list[Figure]:
    """Write standard rows in one transaction; what is more than messages may carry is worked on here."""
    async with road(postgres, "dispatch") as on:
        usage = Usage(on.daemon.pid, on.session)
        await usage.begin()
        await on.write("standard", items)
        began = time.perf_counter()
        await drained(on.session)
        seconds = time.perf_counter() - began
        own, theirs = await usage.end()
        sent, carried, messages = await on.sent_items(), on.carried_items(), on.qstash.counts["published"]
    note = f"daemon {own / seconds:.0%} of a core, its sessions {theirs / seconds:.0%}"
    return [
        Figure(f"{items:,} standard rows at once, through the daemon", round(items / seconds), "items/s", note=note),
        Figure("of them dispatched", sent, "items", note=f"in {messages} messages"),
        Figure("of them embedded for a delivery", carried, "items"),
    ]


async def measure_free_plan(postgres: EmbeddedPostgres, seconds: float) -> list[Figure]:
    """Write standard rows one by one at a steady rate."""
    flow = Flow("standard", 3, FREE_PLAN_PER_SECOND)
    async with road(postgres, "free", FREE) as on:
        began = time.perf_counter()
        await write_steadily(on, [flow], seconds)
        await drained(on.session)
        taken = time.perf_counter() - began
        carried, messages = on.carried_items(), on.qstash.counts["published"]
    note = f"{carried} in {messages} messages; aim at least 100 items/min"
    what = f"free plan, {flow.per_second:g} standard rows a second: embedded for a delivery"
    return [Figure(what, round(carried / taken * 60), "items/min", note=note)]
