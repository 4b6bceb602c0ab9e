from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from rowvec.api.server import make_app, serving
from rowvec.domain.errors import ConfigurationError
from rowvec.health import Health, Part
from rowvec.telemetry import Metrics

Client = TestClient[web.Request, web.Application]
PROBES = ["/startupz", "/livez", "/readyz", "/healthz"]


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.health, self.metrics = Health(lambda: self.now), Metrics()
        self.app = make_app(self.health, self.metrics, "1.2.3")

    def work(self) -> None:
        for part in Part:
            self.health.set(part, well=True)
        self.health.pulse("fold", 30.0)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def client(world: World) -> AsyncIterator[Client]:
    async with TestClient(TestServer(world.app)) as found:
        yield found


async def probed(client: Client, path: str) -> tuple[int, Any]:
    async with client.get(path) as answer:
        assert answer.content_type == "application/health+json"
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.status, await answer.json(content_type=None)


async def test_while_it_works_all_probes_pass(world: World, client: Client) -> None:
    world.work()
    for path in PROBES:
        status, body = await probed(client, path)
        assert (path, status, body["status"]) == (path, 200, "pass")


async def test_before_the_database_it_has_started_and_lives_but_is_not_ready(client: Client) -> None:
    assert [(await probed(client, path))[0] for path in PROBES] == [200, 200, 503, 503]


async def test_a_silent_room_fails_livez_alone(world: World, client: Client) -> None:
    world.work()
    world.now += 31
    assert [(await probed(client, path))[0] for path in PROBES] == [200, 503, 200, 200]
    _, body = await probed(client, "/livez")
    assert body == {"status": "fail", "checks": {"fold": [{"status": "fail", "output": "31.0 s since progress"}]}}


@pytest.mark.parametrize("part", list(Part))
async def test_a_part_that_is_away_fails_readyz_and_healthz(world: World, client: Client, part: Part) -> None:
    world.work()
    world.health.set(part, well=False, note="It is away.")
    assert [(await probed(client, path))[0] for path in PROBES] == [200, 200, 503, 503]
    _, body = await probed(client, "/readyz")
    assert body["status"] == "fail"
    assert body["checks"][part.value] == [{"status": "fail", "output": "It is away."}]


async def test_draining_it_wants_no_more_but_lives(world: World, client: Client) -> None:
    world.work()
    world.health.draining = True
    assert [(await probed(client, path))[0] for path in PROBES] == [200, 200, 503, 503]
    _, body = await probed(client, "/readyz")
    assert body["checks"]["accepting"] == [{"status": "fail", "output": "draining"}]


async def test_the_shapes(world: World, client: Client) -> None:
    world.work()
    passed = [{"status": "pass"}]
    parts = {"database": passed, "schema": passed, "listener": passed, "models": passed, "accepting": passed}
    rooms = {"fold": [{"status": "pass", "output": "0.0 s since progress"}]}
    assert (await probed(client, "/startupz"))[1] == {"status": "pass", "checks": {}}
    assert (await probed(client, "/livez"))[1] == {"status": "pass", "checks": rooms}
    assert (await probed(client, "/readyz"))[1] == {"status": "pass", "checks": parts}
    assert (await probed(client, "/healthz"))[1] == {"status": "pass", "version": "1.2.3", "checks": {**parts, **rooms}}


async def test_metrics(world: World, client: Client) -> None:
    world.metrics.items.labels("e5_small", "immediate", "current").inc(3)
    async with client.get("/metrics") as answer:
        text = await answer.text()
        assert (answer.status, answer.content_type) == (200, "text/plain")
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'rowvec_items_total{lane="immediate",model="e5_small",outcome="current"} 3.0' in text


def test_two_daemons_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.changes_folded.inc(5)
    assert b"rowvec_changes_folded_total 5.0" in first.render()
    assert b"rowvec_changes_folded_total 0.0" in second.render()


@pytest.mark.parametrize("path", ["/", "/nothing", "/livez/", "/LIVEZ", "/metrics/x"])
async def test_an_unknown_path_is_not_found(client: Client, path: str) -> None:
    async with client.get(path) as answer:
        assert answer.status == 404


@pytest.mark.parametrize("path", [*PROBES, "/metrics"])
async def test_only_get_and_head_are_allowed(world: World, client: Client, path: str) -> None:
    world.work()
    async with client.head(path) as answer:
        assert answer.status == 200
    async with client.post(path) as answer:
        assert answer.status == 405


async def test_serving_tells_the_address_that_was_bound(world: World) -> None:
    async with serving(world.app, "127.0.0.1", 0) as address:
        assert address.startswith("http://127.0.0.1:")
        assert not address.endswith(":0")
        async with aiohttp.ClientSession() as session, session.get(f"{address}/startupz") as answer:
            assert answer.status == 200


async def test_an_address_in_use_is_a_wrong_configuration(world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"Can't listen on 127.0.0.1:{port}"):
            async with serving(world.app, "127.0.0.1", port):
                pass


async def test_after_serving_the_port_is_free(world: World) -> None:
    async with serving(world.app, "127.0.0.1", 0) as address:
        port = int(address.rsplit(":", 1)[1])
    async with serving(World().app, "127.0.0.1", port) as again:
        assert again == address
