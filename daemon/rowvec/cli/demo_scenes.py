"""What the demo does and measures, scene by scene."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, TypeAlias

from rowvec.cli.demo_rows import (
    AFTER,
    AFTERTHOUGHTS,
    BEFORE,
    LIST_TITLES,
    MARK,
    NEW_ANSWER,
    POST,
    QUESTIONS,
    TABLES,
    DemoTable,
    Question,
    Row,
)
from rowvec.cli.demo_screen import LaneState, Screen
from rowvec.domain.errors import ConfigurationError, RowvecError
from rowvec.domain.items import Watch
from rowvec.domain.lanes import Lane
from rowvec.ports import Embedder
from rowvec.postgres.administration import Administration
from rowvec.telemetry import Metrics

ROWS: Final = sum(len(table.rows) for table in TABLES)
CONTENT_TYPES: Final = [table.name for table in TABLES]
ANSWERS: Final = 3
UPDATES: Final = 20
LOOK_SECONDS: Final = 0.1
POLL_SECONDS: Final = 0.001
BETWEEN_UPDATES_SECONDS: Final = 0.1
LONGEST_FILL_SECONDS: Final = 300.0
LONGEST_UPDATE_SECONDS: Final = 60.0

# A table of the same name that somebody else has made.
_FIND_STRANGER: Final = """
SELECT c.oid::regclass::text AS name FROM pg_class c
WHERE c.oid = to_regclass($1) AND obj_description(c.oid, 'pg_class') IS DISTINCT FROM $2
"""
# The vector of one model for the text as it stands now.
_FIND_VECTOR: Final = """
SELECT FROM rowvec.vector v
WHERE v.tableoid = ('rowvec.vector_' || $1)::regclass AND v.content_type = $2 AND v.content_id = $3
  AND strpos(v.chunk_text, $4) > 0
"""

Figures: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """What the scenes are played on.

    Args:
        database: the session that writes and searches.
        watcher: another session, which sees only what is committed.
        embedders: the daemon's own models; the first one answers the searches.
        metrics: the daemon's.
        screen: where it is told.
    """

    database: Administration
    watcher: Administration
    embedders: Sequence[Embedder]
    metrics: Metrics
    screen: Screen


async def prepare(database: Administration) -> None:
    """Make the tables anew, with the rows that are there before the watch.

    Raises:
        ConfigurationError: a table of that name exists that is not the demo's.
    """
    for table in TABLES:
        if await database.execute(_FIND_STRANGER, table.name, MARK):
            raise ConfigurationError(
                f'This database has a table "{table.name}" that the demo did not make.',
                "Choose another folder with --folder.",
            )
    for source in await database.sources():
        if source["relation"] in CONTENT_TYPES:
            await database.unwatch(source["content_type"])
    for table in TABLES:
        await database.execute(table.drop)
        await database.execute(table.create)
        await database.execute(table.insert, *table.columns(table.early))


async def play(stage: Stage) -> Figures:
    """Play all scenes; return what was measured."""
    return {
        "rows": ROWS,
        **await _fill(stage),
        "searches": await _search_all(stage),
        "rewrite": await _rewrite(stage),
        "commit_to_vector_ms": await _measure_updates(stage),
    }


def missed_questions(figures: Figures) -> list[str]:
    """Return the questions whose expected answer was not the first."""
    asked = [*figures["searches"], figures["rewrite"]["after"]]
    return [search["question"] for search in asked if not search["as_expected"]]


async def _fill(stage: Stage) -> Figures:
    """Watch the tables, write the other rows while the backfill is under way, and wait until nothing waits."""
    early, late = (sum(map(len, keys)) for keys in zip(*((t.early, t.late) for t in TABLES), strict=True))
    stage.screen.head("Two tables are watched: course at priority 2, post at priority 4")
    stage.screen.say(f"{early} rows stood there before: the backfill brings them in the lane bulk.")
    stage.screen.say(f"{late} more are written meanwhile: immediate for courses, standard for posts.\n")
    began = time.perf_counter()
    for table in TABLES:
        columns = ["title", table.text_column]
        await stage.database.watch(Watch(table.name, table.name, columns, table.priority))
    try:
        async with asyncio.timeout(LONGEST_FILL_SECONDS):
            lanes = await _show_lanes(stage)
    except TimeoutError:
        raise RowvecError(f"Rows still wait after {LONGEST_FILL_SECONDS:g} s.", "Does the model answer?") from None
    seconds = round(time.perf_counter() - began, 3)
    stage.screen.say(f"\nAll {ROWS} rows have their vectors {seconds:.1f} s after the watch began.")
    return {"seconds_until_all_embedded": seconds, "items_done": {lane.lane: lane.done for lane in lanes}}


async def _show_lanes(stage: Stage) -> Sequence[LaneState]:
    written = False
    with stage.screen.lanes() as show:
        while True:
            status = await stage.database.status()
            show(lanes := _lane_states(stage, status))
            if not written and await _is_backfilled(stage.database):
                await _write_late_rows(stage.database)
                written = True
            elif written and not status["changes"] and not any(lane.queued + lane.processing for lane in lanes):
                return lanes
            await asyncio.sleep(LOOK_SECONDS)


async def _is_backfilled(database: Administration) -> bool:
    return all(source["backfilled"] for source in await database.sources() if source["content_type"] in CONTENT_TYPES)


async def _write_late_rows(database: Administration) -> None:
    for table in TABLES:
        await database.execute(table.insert, *table.columns(table.late))


def _lane_states(stage: Stage, status: dict[str, Any]) -> list[LaneState]:
    items = [row for row in status["items"] if row["content_type"] in CONTENT_TYPES]
    if any(row["failed"] for row in items):
        raise RowvecError("The model refuses rows of the demo.", "The log above says why.")
    return [_lane_state(stage, lane, [row for row in items if row["lane"] == lane]) for lane in Lane]


def _lane_state(stage: Stage, lane: Lane, items: Sequence[dict[str, Any]]) -> LaneState:
    return LaneState(
        lane.value,
        sum(row["queued"] + row["delayed"] for row in items),
        sum(row["processing"] for row in items),
        sum(_done(stage.metrics, embedder.name, lane) for embedder in stage.embedders),
        max((row["oldest_seconds"] for row in items), default=0.0),
    )


def _done(metrics: Metrics, model: str, lane: Lane) -> int:
    labels = {"model": model, "lane": lane.value, "outcome": "current"}
    return int(metrics.registry.get_sample_value("rowvec_items_total", labels) or 0)


async def _search_all(stage: Stage) -> list[Figures]:
    stage.screen.head("Searches by meaning, across languages")
    return [_judged(await _search(stage, question.text), question) for question in QUESTIONS]


async def _search(stage: Stage, text: str) -> Figures:
    """Ask, print and return the answers."""
    embedder = stage.embedders[0]
    embedding = await embedder.embed_query(text)
    rows = await stage.database.search(text, embedding, None, CONTENT_TYPES, embedder.name, ANSWERS)
    titles = {
        (row["content_type"], row["content_id"]): row["title"] for row in await stage.database.execute(LIST_TITLES)
    }
    answers = [_answer(row, titles.get((row["content_type"], row["content_id"]), "")) for row in rows]
    stage.screen.say(f"? {text}", style="cyan")
    stage.screen.answers(answers)
    return {"question": text, "answers": answers}


def _answer(row: dict[str, Any], title: str) -> Figures:
    kept = {name: row[name] for name in ("content_type", "content_id")}
    return {"score": round(row["score"], 4), **kept, "title": title}


def _judged(found: Figures, question: Question) -> Figures:
    first = found["answers"][0]["title"] if found["answers"] else None
    return {**found, "expected": question.answer, "as_expected": first == question.answer}


async def _rewrite(stage: Stage) -> Figures:
    """Ask, rewrite a row to another topic, and ask the same again."""
    stage.screen.head("A row changes its topic")
    before = await _search(stage, NEW_ANSWER.text)
    milliseconds = await _update(stage, POST, POST.key_of(BEFORE), AFTER)
    stage.screen.say(f'The post "{BEFORE}" becomes\n"{AFTER.title}".')
    stage.screen.say(f"Its new vector is there {milliseconds:.0f} ms after the commit.")
    after = _judged(await _search(stage, NEW_ANSWER.text), NEW_ANSWER)
    return {"before": before, "after": after, "commit_to_vector_ms": milliseconds}


async def _measure_updates(stage: Stage) -> Figures:
    """Change posts one by one, each when the one before has its vector."""
    stage.screen.head(f"{UPDATES} posts are changed one by one, and the clock runs")
    samples, model_before = [], _model_milliseconds(stage)
    for key, row in islice(_kept_posts(), UPDATES):
        await asyncio.sleep(BETWEEN_UPDATES_SECONDS)
        text = f"{row.text} {AFTERTHOUGHTS[key % len(AFTERTHOUGHTS)]}"
        samples.append(await _update(stage, POST, key, replace(row, text=text)))
    p50, worst = round(statistics.median(samples), 1), max(samples)
    model = round((_model_milliseconds(stage) - model_before) / UPDATES, 1)
    stage.screen.say(f"From commit to vector, as another session sees it: p50 {p50:.0f} ms, worst {worst:.0f} ms.")
    rest = max(statistics.mean(samples) - model, 0)
    stage.screen.say(
        f"On average the model computes for {model:.0f} ms of it; trigger, queue and store take {rest:.0f} ms."
    )
    return {"p50": p50, "worst": worst, "model_mean": model, "samples": samples}


def _model_milliseconds(stage: Stage) -> float:
    """Return how long the daemon has waited for the model since it began."""
    labels = {"model": stage.embedders[0].name}
    return (stage.metrics.registry.get_sample_value("rowvec_request_seconds_sum", labels) or 0) * 1000


def _kept_posts() -> Iterator[tuple[int, Row]]:
    return ((key, row) for key, row in enumerate(POST.rows, 1) if row.title != BEFORE)


async def _update(stage: Stage, table: DemoTable, key: int, row: Row) -> float:
    """Update a row; return the milliseconds from the commit's return until another session sees the new vector."""
    await stage.database.execute(table.update, key, row.title, row.text, row.person)
    committed = time.perf_counter()
    arguments = (stage.embedders[0].name, table.name, str(key), row.text)
    try:
        async with asyncio.timeout(LONGEST_UPDATE_SECONDS):
            while not await stage.watcher.execute(_FIND_VECTOR, *arguments):  # noqa: ASYNC110 - another process acts
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise RowvecError(f"A changed row has no vector after {LONGEST_UPDATE_SECONDS:g} s.") from None
    return round((time.perf_counter() - committed) * 1000, 1)
