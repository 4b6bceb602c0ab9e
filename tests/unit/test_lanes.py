from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowvec.domain.lanes import SHARES, Lane, LaneTurns

ALL = list(Lane)
waiting_lanes = st.sets(st.sampled_from(ALL), min_size=1)
LONGEST_WAIT = 30
"""Turns: the bulk lane's share is a tenth, and others may come and go in the worst order."""


def test_shares_are_seven_two_one() -> None:
    assert SHARES == {Lane.IMMEDIATE: 7, Lane.STANDARD: 2, Lane.BULK: 1}


@pytest.mark.parametrize("rounds", [1, 7, 100])
def test_lanes_that_all_wait_get_their_shares(rounds: int) -> None:
    turns = LaneTurns()
    counted = Counter(turns.next(ALL) for _ in range(10 * rounds))
    assert counted == {Lane.IMMEDIATE: 7 * rounds, Lane.STANDARD: 2 * rounds, Lane.BULK: rounds}


def test_turns_are_spread_evenly() -> None:
    turns = LaneTurns()
    order = [turns.next(ALL) for _ in range(100)]
    others = [place for place, lane in enumerate(order) if lane is not Lane.IMMEDIATE]
    assert max(after - before for before, after in itertools.pairwise(others)) <= 5


def test_the_most_urgent_lane_goes_first() -> None:
    assert LaneTurns().next(ALL) is Lane.IMMEDIATE


@pytest.mark.parametrize("lane", ALL)
def test_a_lane_that_waits_alone_gets_every_turn(lane: Lane) -> None:
    turns = LaneTurns()
    assert {turns.next([lane]) for _ in range(50)} == {lane}


def test_the_turns_of_an_idle_lane_are_lent_by_the_shares_of_the_others() -> None:
    turns = LaneTurns()
    counted = Counter(turns.next([Lane.STANDARD, Lane.BULK]) for _ in range(300))
    assert counted == {Lane.STANDARD: 200, Lane.BULK: 100}


@pytest.mark.parametrize("lane", ALL)
def test_what_was_lent_is_not_demanded_back(lane: Lane) -> None:
    turns = LaneTurns()
    for _ in range(1000):
        turns.next([lane])
    counted = Counter(turns.next(ALL) for _ in range(10))
    assert counted == {Lane.IMMEDIATE: 7, Lane.STANDARD: 2, Lane.BULK: 1}


@settings(max_examples=40, deadline=None)
@given(st.lists(waiting_lanes, max_size=150))
def test_only_a_waiting_lane_is_chosen(history: list[set[Lane]]) -> None:
    turns = LaneTurns()
    assert all(turns.next(waiting) in waiting for waiting in history)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(ALL), st.lists(st.tuples(st.booleans(), waiting_lanes), min_size=LONGEST_WAIT, max_size=150))
def test_a_lane_that_keeps_waiting_is_never_starved(patient: Lane, history: list[tuple[bool, set[Lane]]]) -> None:
    turns = LaneTurns()
    waited = 0
    for present, others in history:
        waiting = others | {patient} if present or waited else others
        chosen = turns.next(waiting)
        waited = 0 if chosen is patient or patient not in waiting else waited + 1
        assert waited < LONGEST_WAIT


@settings(max_examples=40, deadline=None)
@given(st.lists(waiting_lanes, max_size=150))
def test_after_any_history_the_shares_hold_again(history: list[set[Lane]]) -> None:
    turns = LaneTurns()
    for waiting in history:
        turns.next(waiting)
    counted = Counter(turns.next(ALL) for _ in range(1000))
    assert all(abs(counted[lane] - 100 * SHARES[lane]) <= 10 for lane in ALL)
