from __future__ import annotations

from typing import Any

import pytest

from rowvec.cli.demo_rows import COMMENTS, COURSES, LESSONS, POSTS, PROFILES, USERS, DemoTable
from rowvec.cli.demo_scenes import complaints


def figures(**changed: Any) -> dict[str, Any]:  # noqa: ANN401 - any figure
    good = {"question": "Which?", "as_expected": True}
    flow = {"flow": "a user registers", "within": True}
    return {"searches": [good], "flow_search": good, "rewrite": {"after": good}, "flows": [flow], **changed}


@pytest.mark.parametrize(
    ("table", "column", "of", "named"),
    [
        (COURSES, "owner", USERS, "name"),
        (LESSONS, "course", COURSES, "title"),
        (POSTS, "author", USERS, "name"),
        (COMMENTS, "post", POSTS, "title"),
        (COMMENTS, "author", USERS, "name"),
    ],
)
def test_rows_refer_to_rows_that_are_there_before_them(
    table: DemoTable, column: str, of: DemoTable, named: str
) -> None:
    assert {row[column] for row in table.early} <= {row[named] for row in of.early}
    assert {row[column] for row in table.late} <= {row[named] for row in of.rows}


@pytest.mark.parametrize("table", [COURSES, LESSONS, POSTS, COMMENTS])
def test_every_table_has_rows_for_the_backfill_and_rows_for_later(table: DemoTable) -> None:
    assert [*table.early, *table.late] == list(table.rows)
    assert len(table.early) > len(table.late) > 0


def test_everybody_has_a_profile_from_the_beginning() -> None:
    assert list(USERS.early) == list(PROFILES.early) == list(USERS.rows)


def test_nothing_is_said_when_all_went_as_it_should() -> None:
    assert complaints(figures()) == []


@pytest.mark.parametrize("scene", ["searches", "flow_search", "rewrite"])
def test_a_missed_answer_is_said(scene: str) -> None:
    missed = {"question": "What then?", "as_expected": False}
    shape = {"searches": [missed], "flow_search": missed, "rewrite": {"after": missed}}[scene]
    assert complaints(figures(**{scene: shape})) == ["The expected row did not come first for: What then?."]


def test_a_late_flow_is_said() -> None:
    late = {"flow": "a user registers", "within": False}
    assert complaints(figures(flows=[late])) == ["Later than the lane's time: a user registers."]
