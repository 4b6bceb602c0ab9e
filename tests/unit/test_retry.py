from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowvec.domain import errors
from rowvec.domain.retry import (
    BASE_SECONDS,
    LEAST_REST,
    LONGEST_LATENESS,
    LONGEST_REST_SECONDS,
    LONGEST_SECONDS,
    LONGEST_WISH_SECONDS,
    SHORTEST_REST_SECONDS,
    Action,
    Attempts,
    decide,
    describe,
    let_alone_seconds,
    wished_rest_seconds,
)

OUTAGES: list[Exception] = [
    errors.ModelUnavailableError("down"),
    errors.DatabaseUnavailableError("down"),
    errors.SourceUnreadableError("dropped"),
    errors.StoppingError("on its way out"),
]
FAULTS: list[Exception] = [
    errors.ModelMisbehavedError("short answer"),
    errors.RowvecError("something"),
    errors.ConfigurationError("something"),
    errors.TryAgainError("busy"),
    ValueError("a bug"),
    RecursionError(),
    TimeoutError(),
    ExceptionGroup("several", [ValueError("a bug")]),
]


class Highest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


class Lowest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return min(a, b)


@pytest.mark.parametrize("items", [1, 2, 500])
@pytest.mark.parametrize("error", OUTAGES, ids=repr)
def test_an_outage_is_waited_for_whatever_the_number(error: Exception, items: int) -> None:
    assert decide(error, items) is Action.WAIT


@pytest.mark.parametrize("items", [2, 3, 500])
@pytest.mark.parametrize("error", [*FAULTS, errors.TextRejectedError("too long")], ids=repr)
def test_of_several_items_one_is_looked_for(error: Exception, items: int) -> None:
    assert decide(error, items) is Action.SPLIT


@pytest.mark.parametrize("error", FAULTS, ids=repr)
def test_a_single_item_is_tried_again(error: Exception) -> None:
    assert decide(error, 1) is Action.RETRY


def test_a_single_rejected_text_fails() -> None:
    assert decide(errors.TextRejectedError("too long"), 1) is Action.FAIL


def test_subclasses_are_decided_like_their_parent() -> None:
    class OutOfMemoryError(errors.ModelUnavailableError):
        pass

    assert decide(OutOfMemoryError("the model"), 7) is Action.WAIT


@given(st.integers(1, 100), st.integers(0, 200))
def test_there_is_no_delay_after_the_last_attempt(most: int, retry_count: int) -> None:
    delay = Attempts(most).delay_seconds(retry_count, random.Random(0))  # noqa: S311 - jitter
    assert (delay is None) == (retry_count + 1 >= most)


def test_a_single_attempt_is_never_repeated() -> None:
    assert Attempts(1).delay_seconds(0, random.Random(0)) is None  # noqa: S311 - jitter


@given(st.integers(0, 98), st.integers(0))
def test_delays_lie_between_half_a_step_and_a_step(retry_count: int, seed: int) -> None:
    delay = Attempts(100).delay_seconds(retry_count, random.Random(seed))  # noqa: S311 - jitter
    step = min(BASE_SECONDS * 2**retry_count, LONGEST_SECONDS)
    assert delay is not None
    assert step / 2 <= delay <= step


@pytest.mark.parametrize("chance", [Highest(), Lowest()])
def test_delays_grow_to_the_longest(chance: random.Random) -> None:
    delays = [Attempts(100).delay_seconds(count, chance) or 0.0 for count in range(99)]
    assert delays == sorted(delays)
    assert len(set(delays[:8])) == 8
    assert delays[-1] == LONGEST_SECONDS * chance.uniform(0.5, 1.0)


def test_delays_of_items_that_failed_together_differ() -> None:
    chance = random.Random(1)  # noqa: S311 - jitter
    delays = [Attempts(5).delay_seconds(3, chance) or 0.0 for _ in range(200)]
    assert len(set(delays)) > 190
    assert max(delays) - min(delays) > 0.4 * BASE_SECONDS * 8


def test_the_whole_retrying_of_five_attempts_takes_seconds_not_hours() -> None:
    delays = [Attempts(5).delay_seconds(count, Highest()) for count in range(6)]
    assert delays == [2, 4, 8, 16, None, None]


def test_our_errors_describe_themselves() -> None:
    assert describe(errors.ModelMisbehavedError("Wrong shape.", "3 for 2")) == ("Wrong shape.", "3 for 2")


@pytest.mark.parametrize("error", [errors.ModelUnavailableError("Away.", "a\0b\ud800c"), ValueError("a\0b\ud800c")])
def test_what_is_told_can_be_kept_whatever_a_server_said(error: Exception) -> None:
    assert describe(error)[1] == "abc"


def test_foreign_errors_are_grouped_by_their_class() -> None:
    assert describe(ValueError("row 17")) == ("Unexpected error: ValueError.", "row 17")
    assert describe(ValueError("row 18"))[0] == describe(ValueError("row 17"))[0]


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (errors.ModelUnavailableError("busy", "", 7.5), 7.5),
        (errors.ModelUnavailableError("busy", "", LONGEST_WISH_SECONDS * 100), LONGEST_WISH_SECONDS),
        (errors.ModelUnavailableError("busy", "", 0.0), None),
        (errors.ModelUnavailableError("busy", "", -1.0), None),
        (errors.ModelUnavailableError("busy"), None),
        (errors.ModelMisbehavedError("short answer"), None),
        (ValueError("a bug"), None),
    ],
    ids=repr,
)
def test_a_model_is_let_alone_as_it_asks_for_within_reason(error: Exception, seconds: float | None) -> None:
    assert wished_rest_seconds(error) == seconds


@given(st.integers(0, 100_000), st.integers(0))
def test_a_model_is_let_alone_the_longer_the_more_often_it_was_away(outages: int, seed: int) -> None:
    rest = let_alone_seconds(outages, random.Random(seed))  # noqa: S311 - jitter
    step = min(SHORTEST_REST_SECONDS * 2 ** min(outages, 100), LONGEST_REST_SECONDS)
    assert LEAST_REST * step <= rest <= step


@given(st.floats(0.001, 300), st.integers(0, 100), st.integers(0))
def test_a_wish_is_kept_to_and_never_shortened(wish: float, outages: int, seed: int) -> None:
    rest = let_alone_seconds(outages, random.Random(seed), wish)  # noqa: S311 - jitter
    assert wish <= rest <= wish * LONGEST_LATENESS
