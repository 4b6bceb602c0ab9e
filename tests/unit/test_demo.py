from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from aiohttp import web

from local_qstash import Received, local_qstash, receiving, within
from rowvec.cli.demo_qstash import LANES, Carried, through_qstash, without_qstash
from rowvec.cli.demo_rows import COMMENTS, COURSES, LESSONS, POSTS, PROFILES, USERS, DemoTable
from rowvec.cli.demo_scenes import complaints
from rowvec.domain.lanes import Lane
from rowvec.settings import load_settings

QSTASH = {
    "QSTASH_URL": "https://qstash.example.org",
    "QSTASH_TOKEN": "of-somebody",
    "QSTASH_CURRENT_SIGNING_KEY": "sig_1",
    "QSTASH_NEXT_SIGNING_KEY": "sig_2",
    "SITE_URL": "https://example.org",
}
"""An account that is set."""


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


def test_a_qstash_that_brings_nothing_is_said() -> None:
    brought = {"sent": 3, "delivered": 3}
    assert complaints(figures(qstash=brought)) == []
    assert complaints(figures(qstash={**brought, "delivered": 0})) == ["QStash has delivered nothing."]


def test_the_account_that_is_set_gets_nothing_of_the_demo() -> None:
    settings = load_settings(**QSTASH)
    assert settings.uses_qstash
    assert not without_qstash(settings).uses_qstash


async def test_a_local_qstash_takes_the_place_of_the_account_that_is_set() -> None:
    async with local_qstash() as qstash:
        settings = through_qstash(load_settings(**QSTASH, ROWVEC_HTTP_HOST="::1", ROWVEC_HTTP_PORT=8481), qstash)
        assert settings.uses_qstash
        assert (str(settings.qstash_url), str(settings.site_url)) == (f"{qstash.url}/", "http://[::1]:8481/")
        assert settings.qstash_token is not None
        assert settings.qstash_token.get_secret_value() == qstash.token
        assert settings.qstash_lanes == LANES
        chosen = through_qstash(load_settings(ROWVEC_QSTASH_LANES="bulk"), qstash)
        assert chosen.qstash_lanes == {Lane.BULK}


async def test_the_ticks_of_a_schedule_are_not_told_as_rows() -> None:
    async def answer(request: Received) -> web.Response:
        row = {"contentType": "post", "contentId": "1", "state": "embedded"}
        return web.json_response({"items": 3 if request.target.endswith("monitor") else [row]})

    async with local_qstash() as qstash, receiving(answer) as daemon, aiohttp.ClientSession() as session:
        carried = Carried(qstash, LANES)
        bearer = {"Authorization": f"Bearer {qstash.token}"}
        for page in ("queue-monitor", "process"):
            await session.post(f"{qstash.url}/v2/publish/{daemon.root}/api/embeddings/{page}", headers=bearer)
        await within(qstash.until(lambda: len(qstash.deliveries) == 2))
        [message] = await carried.since(0, [("post", "1")])
        assert (message["path"], message["status"]) == ("/api/embeddings/process", 200)
        assert await carried.total() == {"sent": 2, "delivered": 2, "rows": {"embedded": 1}}
