"""The pages for operators, without a database."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from rowvec.api.answers import Bearer
from rowvec.api.embeddings import Operators
from rowvec.api.server import make_app
from rowvec.domain.errors import DatabaseUnavailableError
from rowvec.health import Health
from rowvec.telemetry import Metrics

Client = TestClient[web.Request, web.Application]
TOKEN = "secret-of-the-operators"  # noqa: S105 - the test's own
PATHS = ["/api/embeddings/queue", "/api/embeddings/processor"]


class StubOverview:
    def __init__(self) -> None:
        self.error: Exception | None = None
        self.looks = 0

    async def look(self) -> Mapping[str, Any]:
        self.looks += 1
        if self.error:
            raise self.error
        return {
            "daemons": [
                {
                    "pid": 1,
                    "models": ["first", "second"],
                    "load": {"first": {"breaker": "closed"}, "second": {"breaker": "open", "why": "It is slow."}},
                    "resting": ["model second: It is slow.", "source post: No."],
                },
                {"pid": 2, "models": ["first"], "load": {}, "resting": ["model second: It is not installed."]},
            ],
            "models": [{"name": "first", "active": True}, {"name": "second", "active": True}],
            "sources": [],
            "changes": 3,
            "items": [{"model": "first", "lane": "bulk", "queued": 2, "why": ["It is late."]}],
        }


@asynccontextmanager
async def asking(overview: StubOverview, token: str = TOKEN) -> AsyncIterator[Client]:
    app = make_app(Health(lambda: 0.0), Metrics(), "1.2.3", Operators(Bearer(token), overview).routes())
    async with TestClient(TestServer(app)) as client:
        yield client


async def asked(client: Client, path: str, authorization: str | None = f"Bearer {TOKEN}") -> tuple[int, Any]:
    headers = {} if authorization is None else {"Authorization": authorization}
    async with client.get(path, headers=headers) as answer:
        assert answer.content_type == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"
        assert ("WWW-Authenticate" in answer.headers) == (answer.status == 401)
        return answer.status, await answer.json()


async def test_the_queue() -> None:
    async with asking(StubOverview()) as client:
        status, body = await asked(client, PATHS[0])
    assert status == 200
    assert sorted(body) == ["changes", "items", "models", "sources"]
    assert body["items"] == [{"model": "first", "lane": "bulk", "queued": 2, "why": ["It is late."]}]
    assert body["changes"] == 3


async def test_the_processor_and_what_the_daemons_say_of_each_model() -> None:
    async with asking(StubOverview()) as client:
        status, body = await asked(client, PATHS[1])
    assert status == 200
    assert sorted(body) == ["daemons", "models"]
    assert [daemon["pid"] for daemon in body["daemons"]] == [1, 2]
    assert body["models"] == [
        {"name": "first", "active": True, "daemons": 2, "load": [{"breaker": "closed"}], "resting": []},
        {
            "name": "second",
            "active": True,
            "daemons": 1,
            "load": [{"breaker": "open", "why": "It is slow."}],
            "resting": ["model second: It is not installed.", "model second: It is slow."],
        },
    ]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, f"Basic {TOKEN}", "Bearer ü"],
)
async def test_without_the_token_nothing_is_looked_at(path: str, authorization: str | None) -> None:
    overview = StubOverview()
    async with asking(overview) as client:
        status, body = await asked(client, path, authorization)
    assert (status, overview.looks) == (401, 0)
    assert "Authorization: Bearer" in body["error"]
    assert TOKEN not in body["error"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("authorization", [None, "Bearer ", "Bearer anything"])
async def test_where_no_token_is_set_nobody_is_answered(path: str, authorization: str | None) -> None:
    overview = StubOverview()
    async with asking(overview, token="") as client:
        status, body = await asked(client, path, authorization)
    assert (status, overview.looks) == (403, 0)
    assert "ROWVEC_API_TOKEN" in body["error"]


async def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, wanted: bytes) -> bool:
        compared.append((given, wanted))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)
    async with asking(StubOverview()) as client:
        assert (await asked(client, PATHS[0]))[0] == 401
    assert compared == [(f"Bearer {TOKEN}".encode(),) * 2]


@pytest.mark.parametrize("path", PATHS)
async def test_while_postgres_is_away_it_says_so(path: str) -> None:
    overview = StubOverview()
    overview.error = DatabaseUnavailableError("Postgres can't be reached.", "Does it run?")
    async with asking(overview) as client:
        assert await asked(client, path) == (503, {"error": "Postgres can't be reached. Does it run?"})
