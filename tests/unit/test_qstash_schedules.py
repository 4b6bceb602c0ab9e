"""What QStash is to have for us, and how it comes to have it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Final

import pytest
import structlog

from clocks import FakeClock
from qstash_account import Account
from rowvec.domain.errors import CarrierError, CarrierTrouble, ConfigurationError
from rowvec.domain.tasks import Cron, Task
from rowvec.qstash.answers import QueueState, Schedule
from rowvec.qstash.schedules import Settler, Verdict, Wanted, differences, make_schedules, settle, wanted_by
from rowvec.settings import load_settings

CRONS: Final = {
    Task.MONITOR: Cron("*/5 * * * *"),
    Task.CLEANUP: Cron("0 2 * * *"),
    Task.RETRY_FAILED: Cron("0 3 * * 0", "Europe/Berlin"),
}
QUEUE: Final = "queue embedding-processor"
ALL: Final = [QUEUE, "schedule rowvec-monitor", "schedule rowvec-cleanup", "schedule rowvec-retry"]


@pytest.fixture
def account() -> Account:
    return Account()


def wanted(**changes: Any) -> Wanted:  # noqa: ANN401 - of any field
    schedules = make_schedules("https://app.example/", "rowvec", CRONS, 3)
    return replace(Wanted("embedding-processor", 2, schedules), **changes)


def settler(account: Account, clock: FakeClock | None = None) -> Settler:
    return Settler(account, wanted(), CRONS[Task.MONITOR], clock or FakeClock())


async def verdicts(account: Account, wish: Wanted | None = None) -> dict[str, Verdict]:
    return {thing.about: thing.verdict for thing in await settle(account, wish or wanted())}


def test_the_schedules_wake_a_daemon_for_each_task_at_the_times_that_are_set() -> None:
    maintenance = "https://app.example/api/embeddings/maintenance"
    assert make_schedules("https://app.example/", "rowvec", CRONS, 3) == [
        Schedule(
            "rowvec-monitor",
            "CRON_TZ=UTC */5 * * * *",
            "https://app.example/api/embeddings/queue-monitor",
            "",
            retries=3,
        ),
        Schedule("rowvec-cleanup", "CRON_TZ=UTC 0 2 * * *", maintenance, '{"task": "cleanup"}', retries=3),
        Schedule("rowvec-retry", "CRON_TZ=Europe/Berlin 0 3 * * 0", maintenance, '{"task": "retry_failed"}', retries=3),
    ]


def test_what_is_wanted_follows_from_the_settings() -> None:
    found = wanted_by(
        load_settings(
            SITE_URL="https://app.example",
            QSTASH_QUEUE_NAME="mine",
            QSTASH_CONCURRENCY=7,
            QSTASH_MAX_RETRIES=1,
            ROWVEC_QSTASH_SCHEDULE_PREFIX="staging",
        )
    )
    assert (found.queue, found.parallelism) == ("mine", 7)
    assert [schedule.id for schedule in found.schedules] == ["staging-monitor", "staging-cleanup", "staging-retry"]
    assert {schedule.retries for schedule in found.schedules} == {1}
    assert found.schedules[0].destination == "https://app.example/api/embeddings/queue-monitor"


def test_without_an_address_to_call_nothing_can_be_wanted() -> None:
    with pytest.raises(ConfigurationError, match="Set SITE_URL"):
        wanted_by(load_settings(SITE_URL=None))


async def test_what_is_lacking_is_made_and_the_second_time_nothing_is_written(account: Account) -> None:
    assert await verdicts(account) == dict.fromkeys(ALL, Verdict.MADE)
    assert account.queues == {"embedding-processor": QueueState("embedding-processor", 2, paused=False, lag=0)}
    assert list(account.kept.values()) == list(wanted().schedules)
    account.written.clear()
    assert await verdicts(account) == dict.fromkeys(ALL, Verdict.LEFT)
    assert account.written == []


async def test_only_what_differs_is_written(account: Account) -> None:
    await settle(account, wanted())
    account.written.clear()
    cron = replace(account.kept["rowvec-cleanup"], cron="CRON_TZ=UTC 0 5 * * *")
    account.kept["rowvec-cleanup"] = cron
    settled = {thing.about: thing for thing in await settle(account, wanted())}
    assert [thing.verdict for thing in settled.values()] == [Verdict.LEFT, Verdict.LEFT, Verdict.MENDED, Verdict.LEFT]
    assert settled["schedule rowvec-cleanup"].note == (
        "cron 'CRON_TZ=UTC 0 5 * * *', should be 'CRON_TZ=UTC 0 2 * * *'"
    )
    assert account.written == ["put schedule rowvec-cleanup"]
    assert list(account.kept.values()) == list(wanted().schedules)


async def test_a_queue_of_another_parallelism_is_mended(account: Account) -> None:
    await settle(account, wanted(parallelism=1))
    assert (await verdicts(account))[QUEUE] == Verdict.MENDED
    assert account.queues["embedding-processor"].parallelism == 2


@pytest.mark.parametrize("differs", [False, True])
async def test_what_is_paused_is_never_written(account: Account, differs: bool) -> None:  # noqa: FBT001
    await settle(account, wanted())
    account.written.clear()
    account.queues["embedding-processor"] = QueueState("embedding-processor", 9 if differs else 2, paused=True, lag=0)
    for id_, schedule in account.kept.items():
        account.kept[id_] = replace(schedule, paused=True, retries=0 if differs else 3)
    settled = await settle(account, wanted())
    assert {thing.verdict for thing in settled} == {Verdict.PAUSED}
    assert [bool(thing.note) for thing in settled] == [differs] * 4
    assert account.written == []


async def test_schedules_of_others_are_none_of_our_concern(account: Account) -> None:
    theirs = Schedule("theirs", "0 0 * * *", "https://else.example/", "")
    account.kept["theirs"] = theirs
    await settle(account, wanted())
    assert account.kept["theirs"] == theirs


async def test_what_is_refused_is_said_and_the_others_are_settled(account: Account) -> None:
    await settle(account, wanted())
    del account.kept["rowvec-retry"]
    account.refusal = CarrierError("QStash's plan does not allow this (412).", "Too many.", CarrierTrouble.QUOTA)
    settled = await settle(account, wanted())
    assert [thing.verdict for thing in settled] == [Verdict.LEFT, Verdict.LEFT, Verdict.LEFT, Verdict.REFUSED]
    assert settled[-1].note == "QStash's plan does not allow this (412). Too many."


@pytest.mark.parametrize(
    "change",
    [
        {"cron": "CRON_TZ=UTC * * * * *"},
        {"destination": "https://else.example/"},
        {"body": "{}"},
        {"method": "GET"},
        {"retries": 0},
    ],
)
def test_every_difference_counts(change: dict[str, Any]) -> None:
    (schedule, *_) = wanted().schedules
    (name,) = change
    assert differences(schedule, replace(schedule, **change)).startswith(f"{name} ")
    assert differences(schedule, schedule) == ""


async def test_a_daemon_settles_when_it_starts_and_says_what_it_could_not(account: Account) -> None:
    await settle(account, wanted())
    account.queues["embedding-processor"] = replace(account.queues["embedding-processor"], paused=True)
    del account.kept["rowvec-retry"]
    with structlog.testing.capture_logs() as logs:
        await settler(account).run()
    said = {line["about"]: (line["verdict"], line["log_level"]) for line in logs if line["event"] == "qstash.settled"}
    assert said == {
        QUEUE: ("paused", "warning"),
        "schedule rowvec-monitor": ("left", "info"),
        "schedule rowvec-cleanup": ("left", "info"),
        "schedule rowvec-retry": ("made", "info"),
    }


@pytest.mark.parametrize(
    ("trouble", "said"), [("outage", ["qstash.unsettled"]), ("refusal", ["qstash.settled"] * len(ALL))]
)
async def test_a_daemon_starts_without_qstash_and_settles_when_it_is_back(
    account: Account, trouble: str, said: list[str]
) -> None:
    clock = FakeClock()
    setattr(account, trouble, CarrierError("QStash can't be reached."))
    with structlog.testing.capture_logs() as logs:
        settling = asyncio.create_task(settler(account, clock).run())
        await clock.pass_by(0)
        assert [line["event"] for line in logs if line["log_level"] == "warning"] == said
        await clock.pass_by(301)
        assert len(logs) == 2 * len(said)
        setattr(account, trouble, None)
        await clock.pass_by(290)
        assert not settling.done()
        await clock.pass_by(10)
    assert settling.done()
    assert len(account.kept) == 3
    await settling
