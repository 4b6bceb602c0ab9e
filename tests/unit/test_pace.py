from __future__ import annotations

import pytest

from clocks import FakeClock
from rowvec.pipeline.pace import LastMinute, Pace


def test_without_a_rate_nothing_waits() -> None:
    pace = Pace(None, FakeClock())
    for _ in range(1000):
        assert pace.wait_seconds() == 0
        pace.start()


def test_starts_are_evenly_spaced() -> None:
    clock = FakeClock()
    pace = Pace(30, clock)
    pace.start()
    assert pace.wait_seconds() == 2.0
    clock.time += 1.5
    assert pace.wait_seconds() == 0.5
    clock.time += 0.5
    assert pace.wait_seconds() == 0


def test_a_long_silence_saves_nothing_up() -> None:
    clock = FakeClock()
    pace = Pace(60, clock)
    clock.time += 1000
    pace.start()
    assert pace.wait_seconds() == 1.0


def test_what_is_given_back_is_free_again() -> None:
    pace = Pace(60, FakeClock())
    pace.start()
    pace.start()
    pace.give_back()
    assert pace.wait_seconds() == 1.0
    pace.give_back()
    assert pace.wait_seconds() == 0


@pytest.mark.parametrize(("seconds", "mean"), [(0, 6.0), (2, 3.0), (29, 6 / 29), (59, 6 / 59), (60, 0.0), (1000, 0.0)])
def test_the_mean_is_that_of_the_last_minute_or_since_the_beginning(seconds: int, mean: float) -> None:
    clock = FakeClock()
    texts = LastMinute(clock)
    texts.add(2)
    texts.add(4)
    clock.time += seconds
    assert texts.per_second() == pytest.approx(mean)


def test_a_steady_rate_is_told_as_it_is_and_takes_little_memory() -> None:
    clock = FakeClock()
    texts = LastMinute(clock)
    for _ in range(5000):
        texts.add(10)
        clock.time += 0.1
    assert texts.per_second() == pytest.approx(100, rel=0.02)
    assert len(vars(texts)["_counts"]) <= 60
