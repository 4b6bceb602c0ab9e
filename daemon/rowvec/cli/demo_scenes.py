"""What the demo does and measures, scene by scene."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from rowvec.cli.demo_flows import show_flows
from rowvec.cli.demo_qstash import Carried
from rowvec.cli.demo_rows import (
    AFTER,
    AFTERTHOUGHTS,
    BEFORE,
    NEW_ANSWER,
    POSTS,
    QUESTIONS,
    TABLES,
    UPDATE_POST,
    Row,
)
from rowvec.cli.demo_screen import LaneState, Screen
from rowvec.cli.demo_stage import CONTENT_TYPES, Figures, Stage
from rowvec.cli.demo_tables import PRESET, write_late_rows
from rowvec.domain.errors import RowvecError
from rowvec.domain.lanes import Lane
from rowvec.postgres.administration import Administration
from rowvec.postgres.presets import install_preset, load_preset
from rowvec.telemetry import Metrics

ROWS: Final = sum(len(table.rows) for table in TABLES)
UPDATES: Final = 20
LOOK_SECONDS: Final = 0.1
BETWEEN_UPDATES_SECONDS: Final = 0.1
LONGEST_FILL_SECONDS: Final = 300.0


async def play(stage: Stage) -> Figures:
    """Play all scenes; return what was measured."""
    return {
        "rows": ROWS,
        **await _fill(stage),
        "searches": await _search_all(stage),
        **await show_flows(stage),
        "rewrite": await _rewrite(stage),
        "commit_to_vector_ms": await _measure_updates(stage),
        **(await _tell_carried(stage.carried, stage.screen) if stage.carried else {}),
    }


def complaints(figures: Figures) -> list[str]:
    """Return what did not go as it should: questions without their expected answer, flows later than their lane."""
    asked = [*figures["searches"], figures["flow_search"], figures["rewrite"]["after"]]
    missed = [search["question"] for search in asked if not search["as_expected"]]
    late = [flow["flow"] for flow in figures["flows"] if not flow["within"]]
    told = [f"The expected row did not come first for: {'; '.join(missed)}."] if missed else []
    told += [f"Later than the lane's time: {'; '.join(late)}."] if late else []
    return told + (["QStash has delivered nothing."] if not figures.get("qstash", {}).get("delivered", 1) else [])


async def _fill(stage: Stage) -> Figures:
    """Install the preset, write the other rows while the backfill is under way, and wait until nothing waits."""
    early, late = (sum(map(len, rows)) for rows in zip(*((t.early, t.late) for t in TABLES), strict=True))
    stage.screen.head(
        f"The preset {PRESET} is installed: it watches users, profiles, courses, lessons, posts, comments"
    )
    stage.screen.say(f"{early} rows stood there before: the backfill brings them in the lane bulk.")
    stage.screen.say(f"{late} more are written meanwhile: courses are immediate, lessons and posts standard,")
    stage.screen.say("comments bulk.\n")
    began = time.perf_counter()
    await install_preset(stage.dsn, load_preset(PRESET))
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
                await write_late_rows(stage.database)
                written = True
            elif written and not status["changes"] and not any(lane.queued + lane.processing for lane in lanes):
                return lanes
            await asyncio.sleep(LOOK_SECONDS)


async def _is_backfilled(database: Administration) -> bool:
    return all(source["backfilled"] for source in await database.sources() if source["content_type"] in CONTENT_TYPES)


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
    stage.screen.head("Searches by meaning, across languages and all kinds of rows")
    return [await stage.ask(question) for question in QUESTIONS]


async def _rewrite(stage: Stage) -> Figures:
    """Ask, rewrite a row to another topic, and ask the same again."""
    stage.screen.head("A row changes its topic")
    before = await stage.search(NEW_ANSWER.text)
    key = next(key for key, row in enumerate(POSTS.rows, 1) if row["title"] == BEFORE)
    milliseconds = await _update(stage, key, AFTER)
    stage.screen.say(f'The post "{BEFORE}" becomes\n"{AFTER["title"]}".')
    stage.screen.say(f"Its new vector is there {milliseconds:.0f} ms after the commit.")
    return {"before": before, "after": await stage.ask(NEW_ANSWER), "commit_to_vector_ms": milliseconds}


async def _measure_updates(stage: Stage) -> Figures:
    """Change posts one by one, each when the one before has its vector."""
    stage.screen.head(f"{UPDATES} posts are changed one by one, and the clock runs")
    samples, model_before = [], _model_milliseconds(stage)
    for key, row in islice(_kept_posts(), UPDATES):
        await asyncio.sleep(BETWEEN_UPDATES_SECONDS)
        body = f"{row['body']} {AFTERTHOUGHTS[key % len(AFTERTHOUGHTS)]}"
        samples.append(await _update(stage, key, {**row, "body": body}))
    p50, worst = round(statistics.median(samples), 1), max(samples)
    model = round((_model_milliseconds(stage) - model_before) / UPDATES, 1)
    stage.screen.say(f"From commit to vector, as another session sees it: p50 {p50:.0f} ms, worst {worst:.0f} ms.")
    rest = max(statistics.mean(samples) - model, 0)
    stage.screen.say(
        f"On average the model computes for {model:.0f} ms of it; trigger, queue and store take {rest:.0f} ms."
    )
    return {"p50": p50, "worst": worst, "model_mean": model, "samples": samples}


async def _tell_carried(carried: Carried, screen: Screen) -> Figures:
    total = await carried.total()
    screen.head("What QStash carried")
    screen.say(f"{total['sent']} messages were sent, {total['delivered']} delivered.")
    states = ", ".join(f"{count} {state}" for state, count in sorted(total["rows"].items()))
    screen.say(f"So stood the rows that they named when they were answered: {states}.")
    return {"qstash": total}


def _model_milliseconds(stage: Stage) -> float:
    """Return how long the daemon has waited for the model since it began."""
    labels = {"model": stage.embedders[0].name}
    return (stage.metrics.registry.get_sample_value("rowvec_request_seconds_sum", labels) or 0) * 1000


def _kept_posts() -> Iterator[tuple[int, Row]]:
    return ((key, row) for key, row in enumerate(POSTS.rows, 1) if row["title"] != BEFORE)


async def _update(stage: Stage, key: int, row: Mapping[str, Any]) -> float:
    """Update a post; return the milliseconds from the commit's return until another session sees the new vector."""
    await stage.database.execute(UPDATE_POST, key, row["title"], row["body"])
    return await stage.wait_for_vectors([(POSTS.content_type, str(key), row["body"])])
