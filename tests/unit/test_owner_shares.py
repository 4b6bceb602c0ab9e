from __future__ import annotations

from rowvec.domain.items import Slot
from rowvec.domain.lanes import Lane
from rowvec.domain.owner_shares import OwnerShares

IMMEDIATE = Slot("m", Lane.IMMEDIATE, "post")


def test_an_owner_is_beyond_after_its_share_and_others_are_not() -> None:
    shares = OwnerShares(lambda: 0.0)
    assert [shares.is_beyond(IMMEDIATE, "ada", 2) for _ in range(4)] == [False, False, True, True]
    assert not shares.is_beyond(IMMEDIATE, "bob", 2)


def test_each_slot_counts_for_itself() -> None:
    shares = OwnerShares(lambda: 0.0)
    slots = [IMMEDIATE, IMMEDIATE._replace(model="n"), IMMEDIATE._replace(content_type="note")]
    assert not any(shares.is_beyond(slot, "ada", 1) for slot in slots)


def test_the_count_begins_anew_when_the_time_of_the_lane_is_over() -> None:
    times = iter([0.0, 0.0, 9.0, 10.0, 10.0, 11.0])
    shares = OwnerShares(lambda: next(times))
    assert [shares.is_beyond(IMMEDIATE, "ada", 1) for _ in range(4)] == [False, True, False, True]


def test_nobody_floods_with_rows_of_nobody_or_in_bulk() -> None:
    shares = OwnerShares(lambda: 0.0)
    assert not any(shares.is_beyond(IMMEDIATE, None, 1) for _ in range(3))
    assert not any(shares.is_beyond(IMMEDIATE._replace(lane=Lane.BULK), "ada", 1) for _ in range(3))
