from __future__ import annotations

import pytest

from rowvec.domain.backlog import NO_DAEMON, Backlog, Workers, add_unfolded
from rowvec.domain.items import Slot
from rowvec.domain.lanes import Lane

COURSE = Slot("first", Lane.IMMEDIATE, "course")


@pytest.mark.parametrize(("lane", "seconds"), [(Lane.IMMEDIATE, 10), (Lane.STANDARD, 60), (Lane.BULK, 300)])
def test_an_item_is_late_after_its_lanes_time(lane: Lane, seconds: int) -> None:
    slot = Slot("first", lane, "course")
    assert not Backlog(slot, queued=1, oldest_seconds=seconds).late
    assert Backlog(slot, queued=1, oldest_seconds=seconds + 0.1).late
    assert Backlog(slot).within_seconds == seconds


def test_changes_stand_before_every_active_model_and_bear_no_age() -> None:
    found = add_unfolded([Backlog(COURSE, queued=2)], [("course", Lane.IMMEDIATE, 3)], ["first", "second"])
    assert found == [
        Backlog(COURSE, queued=2, unfolded=3),
        Backlog(Slot("second", Lane.IMMEDIATE, "course"), unfolded=3),
    ]
    assert [backlog.waiting for backlog in found] == [5, 3]


def test_the_urgent_lanes_come_first() -> None:
    changes = [("course", lane, 1) for lane in (Lane.BULK, Lane.STANDARD, Lane.IMMEDIATE)]
    assert [backlog.slot.lane for backlog in add_unfolded([], changes, ["first"])] == list(Lane)


def test_reasons_are_those_of_the_slots_own_model_and_source() -> None:
    rests = ["model first: away", "model second: away", "source course: locked", "source post: locked"]
    workers = Workers(1, ["first"], rests)
    assert workers.reasons(Backlog(COURSE, queued=1)) == [
        "Let alone for a while: model first: away",
        "Let alone for a while: source course: locked",
    ]
    assert Workers(1, ["first"]).reasons(Backlog(COURSE, queued=1)) == []


def test_a_model_that_no_daemon_has_is_told() -> None:
    (told,) = Workers(1, ["second"]).reasons(Backlog(COURSE, queued=1))
    assert told.startswith("No daemon has the model first: is ROWVEC_MODEL_FIRST_URL")


def test_nobody_there_and_a_pause_are_reasons_of_what_waits_only() -> None:
    workers = Workers(0, paused=["course"])
    paused = "The source course is paused: see `rowvec resume course`."
    assert workers.reasons(Backlog(COURSE, processing=1)) == [paused, NO_DAEMON]
    assert workers.reasons(Backlog(COURSE, failed=1)) == ["Some were given up: see `rowvec failed list`."]
