from __future__ import annotations

from rowvec.domain.items import Slot
from rowvec.domain.lanes import Lane
from rowvec.domain.owner_shares import OwnerShares

IMMEDIATE = Slot("m", Lane.IMMEDIATE, "post")


def test_each_owner_is_counted_in_each_slot() -> None:
    shares = OwnerShares(lambda: 0.0)
    shares.count(IMMEDIATE, ["ada", "bob", "ada"])
    assert [shares.had(IMMEDIATE, owner) for owner in ("ada", "bob", "cyd")] == [2, 1, 0]
    others = [IMMEDIATE._replace(model="n"), IMMEDIATE._replace(content_type="note")]
    assert not any(shares.had(slot, "ada") for slot in others)


def test_the_count_begins_anew_when_the_time_of_the_lane_is_over() -> None:
    now = 0.0
    shares = OwnerShares(lambda: now)
    shares.count(IMMEDIATE, ["ada"])
    now = 9.0
    shares.count(IMMEDIATE, ["ada"])
    assert shares.had(IMMEDIATE, "ada") == 2
    now = 10.0
    assert shares.had(IMMEDIATE, "ada") == 0


def test_nobodys_rows_and_bulk_are_not_counted() -> None:
    shares = OwnerShares(lambda: 0.0)
    shares.count(IMMEDIATE, [None, None])
    bulk = IMMEDIATE._replace(lane=Lane.BULK)
    shares.count(bulk, ["ada"])
    assert (shares.had(IMMEDIATE, None), shares.had(bulk, "ada")) == (0, 0)
