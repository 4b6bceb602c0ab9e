"""When tasks are due."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest

from rowvec.domain.errors import ConfigurationError
from rowvec.domain.tasks import Cron, Task
from rowvec.settings import load_settings

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.upper().startswith("ROWVEC_")]:
        monkeypatch.delenv(variable)


def test_a_time_belongs_to_the_past_from_its_very_moment() -> None:
    every = Cron("*/5 * * * *")
    assert every.last_at(NOON) == NOON
    assert every.last_at(NOON + timedelta(microseconds=1)) == NOON
    assert every.last_at(NOON - timedelta(microseconds=1)) == NOON - timedelta(minutes=5)
    assert every.next_at(NOON) == NOON + timedelta(minutes=5)
    assert every.next_at(NOON - timedelta(microseconds=1)) == NOON


@pytest.mark.parametrize(
    ("zone", "line", "day"),
    [
        ("Europe/Berlin", "30 2 * * *", datetime(2026, 10, 25, tzinfo=UTC)),
        ("America/New_York", "15 1 * * *", datetime(2026, 11, 1, 4, tzinfo=UTC)),
    ],
)
def test_the_next_time_is_never_in_the_past_of_an_hour_that_comes_twice(zone: str, line: str, day: datetime) -> None:
    cron = Cron(line, zone)
    for minutes in range(180):
        now = day + timedelta(minutes=minutes)
        assert cron.next_at(now) > now


def test_times_are_of_a_zone() -> None:
    assert Cron("0 2 * * *", "Europe/Berlin").next_at(NOON) == datetime(2026, 1, 2, 1, tzinfo=UTC)
    assert Cron("0 2 * * *").next_at(NOON) == datetime(2026, 1, 2, 2, tzinfo=UTC)


@pytest.mark.parametrize("line", ["30 2 * * *", "0 2 * * *", "*/5 * * * *", "30 */2 * * *", "0 3 * * 0"])
@pytest.mark.parametrize("day", [datetime(2026, 3, 27, tzinfo=UTC), datetime(2026, 10, 23, tzinfo=UTC)])
def test_when_clocks_are_changed_looking_ahead_and_looking_back_agree(line: str, day: datetime) -> None:
    cron, before = Cron(line, "Europe/Berlin"), day
    while before < day + timedelta(days=4):
        tick = cron.next_at(before)
        assert cron.last_at(tick) == tick
        assert cron.last_at(tick - SECOND) <= before
        before = tick


def test_the_tasks_have_times_by_default() -> None:
    assert load_settings().crons == {
        Task.MONITOR: Cron("*/5 * * * *", "UTC"),
        Task.CLEANUP: Cron("0 2 * * *", "UTC"),
        Task.RETRY_FAILED: Cron("0 3 * * 0", "UTC"),
    }


def test_the_times_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWVEC_MONITOR_CRON", "  */2 *  * * * ")
    monkeypatch.setenv("ROWVEC_CLEANUP_CRON", "30 4 * * *")
    monkeypatch.setenv("ROWVEC_RETRY_CRON", "0 0 1 * *")
    monkeypatch.setenv("ROWVEC_CRON_TIMEZONE", "Europe/Berlin")
    assert load_settings().crons == {
        Task.MONITOR: Cron("*/2 * * * *", "Europe/Berlin"),
        Task.CLEANUP: Cron("30 4 * * *", "Europe/Berlin"),
        Task.RETRY_FAILED: Cron("0 0 1 * *", "Europe/Berlin"),
    }


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("61 * * * *", "Bad minute"),
        ("* * * *", "4 are given"),
        ("0 0 0 * * *", "6 are given"),
        ("0 0 30 2 *", "Bad day-of-month"),
        ("often", "1 are given"),
        ("@daily", "1 are given"),
    ],
)
@pytest.mark.parametrize("variable", ["ROWVEC_MONITOR_CRON", "ROWVEC_CLEANUP_CRON", "ROWVEC_RETRY_CRON"])
def test_a_wrong_line_is_refused_by_name_with_its_form(
    monkeypatch: pytest.MonkeyPatch, variable: str, line: str, why: str
) -> None:
    monkeypatch.setenv(variable, line)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    said = str(caught.value)
    assert variable in said
    assert "five fields, minute, hour, day, month and weekday" in said
    assert why in said


@pytest.mark.parametrize("zone", ["Mars/Phobos", "../UTC", "/etc/passwd", "CET "])
def test_a_zone_that_is_not_known_is_refused_with_examples(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("ROWVEC_CRON_TIMEZONE", zone)
    with pytest.raises(ConfigurationError, match=r"ROWVEC_CRON_TIMEZONE: no time zone is known .* Europe/Berlin"):
        load_settings()
