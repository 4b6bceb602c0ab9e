from __future__ import annotations

import pytest

from rowvec.health import Check, Health, Part


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


def all_well(health: Health) -> None:
    for part in Part:
        health.set(part, well=True)


def test_without_rooms_it_is_live_but_not_ready(health: Health) -> None:
    assert health.is_live
    assert health.live() == []
    assert not health.is_ready


def test_what_was_not_tried_yet_is_not_well(health: Health) -> None:
    assert [(check.name, check.well, check.note) for check in health.ready()] == [
        ("database", False, "not tried yet"),
        ("schema", False, "not tried yet"),
        ("listener", False, "not tried yet"),
        ("models", False, "not tried yet"),
        ("accepting", True, ""),
    ]
    assert not any(health.is_well(part) for part in Part)


def test_with_all_parts_well_it_is_ready(health: Health) -> None:
    all_well(health)
    assert health.is_ready
    assert all(health.is_well(part) for part in Part)


@pytest.mark.parametrize("part", list(Part))
def test_each_part_alone_keeps_it_from_being_ready(health: Health, part: Part) -> None:
    all_well(health)
    health.set(part, well=False, note="It is away.")
    assert not health.is_ready
    assert Check(part.value, well=False, note="It is away.") in health.ready()
    health.set(part, well=True)
    assert health.is_ready


def test_draining_it_is_live_but_not_ready(health: Health) -> None:
    all_well(health)
    health.pulse("fold", 30.0)
    health.draining = True
    assert not health.is_ready
    assert health.is_live
    assert health.ready()[-1] == Check("accepting", well=False, note="draining")


def test_readiness_does_not_depend_on_the_rooms(health: Health, clock: Clock) -> None:
    all_well(health)
    health.pulse("fold", 30.0)
    clock.now += 1000
    assert health.is_ready
    assert not health.is_live


def test_a_room_counts_from_its_beginning_and_has_its_own_bound(health: Health, clock: Clock) -> None:
    short, long = health.pulse("short", 5.0), health.pulse("long", 50.0)
    clock.now += 5.0
    assert health.is_live
    clock.now += 0.1
    assert [(check.name, check.well) for check in health.live()] == [("short", False), ("long", True)]
    assert not health.is_live
    short.beat()
    assert health.is_live
    assert short.silent_seconds == 0.0
    assert long.silent_seconds == pytest.approx(5.1)


def test_a_check_says_how_long_a_room_was_silent(health: Health, clock: Clock) -> None:
    health.pulse("fold", 30.0)
    clock.now += 12.34
    assert health.live() == [Check("fold", well=True, note="12.3 s since progress")]


def test_rooms_that_end_in_good_order_are_no_longer_watched(health: Health, clock: Clock) -> None:
    health.pulse("fold", 30.0)
    clock.now += 1000
    health.stop_watching()
    assert health.is_live


def test_a_forgotten_room_is_not_watched_and_its_namesake_is(health: Health, clock: Clock) -> None:
    old, new = health.pulse("claim", 30.0), health.pulse("claim", 30.0)
    clock.now += 31
    new.beat()
    assert not health.is_live
    health.forget(old)
    assert health.is_live
    assert [check.name for check in health.live()] == ["claim"]
