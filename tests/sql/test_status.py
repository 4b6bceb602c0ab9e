"""What `rowvec status` tells of the queue: counts, ages against the lanes' times, and why items wait."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from clocks import NOON
from rowvec.cli import status as status_command
from rowvec.domain.backlog import NO_DAEMON
from rowvec.domain.load import BreakerState, CarrierLoad, ModelLoad
from rowvec.postgres.administration import administration
from worker import Worker

Line = dict[str, Any]


async def status(dsn: str) -> dict[str, Any]:
    async with administration(dsn) as database:
        return await database.status()


async def line(dsn: str, model: str = "first", lane: str = "immediate") -> Line:
    """The only line of a model and lane."""
    (found,) = [row for row in (await status(dsn))["items"] if (row["model"], row["lane"]) == (model, lane)]
    return dict(found)


async def test_nothing_waits_in_the_beginning(course: asyncpg.Connection, dsn: str) -> None:
    assert not course.is_closed()
    found = await status(dsn)
    assert (found["items"], found["changes"]) == ([], 0)
    assert [(row["content_type"], row["paused_at"]) for row in found["sources"]] == [("course", None)]


async def test_changes_count_for_every_active_model_before_they_are_folded(
    course: asyncpg.Connection, dsn: str
) -> None:
    await course.execute("INSERT INTO course SELECT n, 'x' FROM generate_series(1, 3) n")
    for model in ("first", "second"):
        found = await line(dsn, model)
        assert (found["queued"], found["unfolded"], found["oldest_seconds"], found["late"]) == (0, 3, 0, False)
    await course.execute("UPDATE rowvec.model SET active = false WHERE name = 'second'")
    found = await status(dsn)
    assert [row["model"] for row in found["items"]] == ["first"]
    assert found["changes"] == 3


async def test_an_item_ages_from_when_it_is_due_until_it_is_done(
    course: asyncpg.Connection, dsn: str, worker: Worker
) -> None:
    await course.execute("INSERT INTO course VALUES (1, 'x')")
    await worker.fold()
    assert not (await line(dsn))["late"]
    await course.execute("UPDATE rowvec.embedding_queue SET scheduled_at = now() - interval '11 s'")
    await course.execute("UPDATE rowvec.embedding_queue SET created_at = now() - interval '1 hour'")
    found = await line(dsn)
    assert (found["queued"], found["late"], found["within_seconds"]) == (1, True, 10)
    assert 11 <= found["oldest_seconds"] < 60

    await worker.claim()
    found = await line(dsn)
    assert (found["queued"], found["processing"], found["late"]) == (0, 1, True)


async def test_what_is_due_later_and_what_was_given_up_has_no_age(
    course: asyncpg.Connection, dsn: str, worker: Worker
) -> None:
    await course.execute("INSERT INTO course VALUES (1, 'x'), (2, 'y')")
    await worker.fold()
    await course.execute("""
        UPDATE rowvec.embedding_queue SET scheduled_at = now() + interval '1 hour' WHERE content_id = '1';
        UPDATE rowvec.embedding_queue SET scheduled_at = now() - interval '1 hour', status = 'failed'
        WHERE content_id = '2';
    """)
    found = await line(dsn)
    assert (found["queued"], found["delayed"], found["failed"]) == (0, 1, 1)
    assert (found["oldest_seconds"], found["late"]) == (0, False)
    assert found["why"] == ["Some were given up: see `rowvec failed list`."]


async def test_it_says_why_items_wait(course: asyncpg.Connection, dsn: str) -> None:
    await course.execute("INSERT INTO course VALUES (1, 'x')")
    assert (await line(dsn))["why"] == [NO_DAEMON]
    await course.execute(
        "INSERT INTO rowvec.daemon (id, host, pid, version, models, resting) "
        "VALUES ($1, 'web1', 1, '1', '{first,second}', $2)",
        *(uuid.uuid4(), ["model second: The model does not answer."]),
    )
    assert (await line(dsn))["why"] == []
    assert (await line(dsn, "second"))["why"] == ["Let alone for a while: model second: The model does not answer."]
    await course.execute("SELECT rowvec.pause('course')")
    assert (await line(dsn))["why"] == ["The source course is paused: see `rowvec resume course`."]


CLOSED = ModelLoad(BreakerState.CLOSED, "", NOON, 12.5, 2)
OPEN = ModelLoad(BreakerState.OPEN, "The model server can't be reached.", NOON + timedelta(seconds=90), 0.0, 0)


async def test_what_models_stand_at_comes_from_the_heartbeat(dsn: str, worker: Worker) -> None:
    await worker.presence.beat([], {"first": CLOSED, "second": OPEN})
    [daemon] = (await status(dsn))["daemons"]
    assert daemon["load"] == {
        "first": {
            "breaker": "closed",
            "why": "",
            "since": "2026-01-01T12:00:00+00:00",
            "texts_per_second": 12.5,
            "requests_in_hand": 2,
        },
        "second": {
            "breaker": "open",
            "why": "The model server can't be reached.",
            "since": "2026-01-01T12:01:30+00:00",
            "texts_per_second": 0.0,
            "requests_in_hand": 0,
        },
    }
    await worker.presence.beat([], {"first": CLOSED})
    [daemon] = (await status(dsn))["daemons"]
    assert list(daemon["load"]) == ["first"]


async def test_an_open_breaker_is_told_once_with_its_reason_and_time(
    course: asyncpg.Connection, dsn: str, worker: Worker, capsys: pytest.CaptureFixture[str]
) -> None:
    await course.execute("INSERT INTO course VALUES (1, 'x')")
    resting = [f"model second: {OPEN.why}", "source course: Its table is locked."]
    await worker.presence.beat(resting, {"first": CLOSED, "second": OPEN})
    status_command.show(await status(dsn))
    told = " ".join(capsys.readouterr().out.split())
    expected = (
        "The breaker of the model second is open, after an outage at 2026-01-01 12:01:30 UTC: "
        "The model server can't be reached. Its items wait, and none has an attempt counted."
    )
    assert expected in told
    assert told.count("can't be reached") == 1
    assert "Let alone for a while: source course: Its table is locked." in told
    assert "model first is" not in told


async def test_it_says_which_way_the_work_goes(dsn: str, worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    async def told(carrier: CarrierLoad) -> str:
        await worker.presence.beat([], {}, carrier)
        found = await status(dsn)
        status_command.show(found)
        assert found["daemons"][0]["carrier"]["strategy"] == carrier.strategy
        return " ".join(capsys.readouterr().out.split())

    lanes = ("standard", "bulk")
    assert "QStash" not in await told(CarrierLoad("database", why="For QStash to carry the work, set QSTASH_TOKEN."))
    assert "hands work to QStash: standard, bulk." in await told(
        CarrierLoad("qstash", lanes, BreakerState.CLOSED, "", NOON)
    )
    assert "hands work to QStash: standard, bulk. Of late" in await told(
        CarrierLoad("qstash", lanes, BreakerState.CLOSED, "Of late 3 items were not brought in time.", NOON)
    )
    assert (
        "does all work itself since 2026-01-01 12:00:00 UTC, the circuit to QStash is open: QStash can't be reached."
    ) in await told(CarrierLoad("qstash", lanes, BreakerState.OPEN, "QStash can't be reached.", NOON))
