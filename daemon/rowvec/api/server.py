"""The embedded HTTP server: probes, metrics, and whatever other pages it is given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import orjson
from aiohttp import web

from rowvec.domain.errors import ConfigurationError
from rowvec.health import Check, Health
from rowvec.telemetry import Metrics

MAX_BODY_BYTES: Final = 1 << 20
SHUTDOWN_SECONDS: Final = 5.0

HEALTH: Final = web.AppKey("health", Health)
METRICS: Final = web.AppKey("metrics", Metrics)
VERSION: Final = web.AppKey("version", str)


def make_app(health: Health, metrics: Metrics, version: str, others: Sequence[web.RouteDef] = ()) -> web.Application:
    """Return the application with all its routes.

    Args:
        health: the verdicts.
        metrics: what `/metrics` shows.
        version: of this program.
        others: more routes.
    """
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[HEALTH], app[METRICS], app[VERSION] = health, metrics, version
    app.add_routes(
        [
            web.get("/startupz", startupz),
            web.get("/livez", livez),
            web.get("/readyz", readyz),
            web.get("/healthz", healthz),
            web.get("/metrics", show_metrics),
            *others,
        ]
    )
    return app


@asynccontextmanager
async def serving(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    """Serve inside the block; yields the address, with the port that was really bound.

    Args:
        app: what is served.
        host: the address to bind.
        port: 0 lets the system choose.

    Raises:
        ConfigurationError: the address can't be bound.
    """
    # Bodies as they came: what is signed is what was sent, and nobody has us unpack a bomb.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS, auto_decompress=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigurationError(
                f"Can't listen on {host}:{port}: {error.strerror or error}.",
                "Is another rowvec running? Set ROWVEC_HTTP_HOST and ROWVEC_HTTP_PORT.",
            ) from error
        bound = runner.addresses[0]
        yield f"http://{f'[{bound[0]}]' if ':' in bound[0] else bound[0]}:{bound[1]}"
    finally:
        await runner.cleanup()


async def startupz(_: web.Request) -> web.Response:
    """The configuration is valid and HTTP is bound, or nobody would answer."""
    return _answer("pass", [])


async def livez(request: web.Request) -> web.Response:
    """Every room made progress within its own bound; asks neither Postgres nor a model."""
    return _verdict(request.app[HEALTH].live)


async def readyz(request: web.Request) -> web.Response:
    """Postgres, schema and wake path work, and the daemon is not draining."""
    return _verdict(request.app[HEALTH].ready)


async def healthz(request: web.Request) -> web.Response:
    """All of it, for people; the status is that of `/readyz`."""
    health = request.app[HEALTH]
    checks = [*health.ready(), *health.live()]
    return _answer("pass" if health.is_ready else "fail", checks, version=request.app[VERSION])


async def show_metrics(request: web.Request) -> web.Response:
    """All metrics as Prometheus text."""
    return web.Response(
        body=request.app[METRICS].render(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


def _verdict(checks: Callable[[], list[Check]]) -> web.Response:
    found = checks()
    return _answer("pass" if all(check.well for check in found) else "fail", found)


def _answer(status: str, checks: list[Check], **more: str) -> web.Response:
    """Answer in the shape of health+json (draft-inadarei-api-health-check-06)."""
    body = {
        "status": status,
        **more,
        "checks": {
            check.name: [{"status": "pass" if check.well else "fail", **({"output": check.note} if check.note else {})}]
            for check in checks
        },
    }
    return web.Response(
        body=orjson.dumps(body),
        status=200 if status == "pass" else 503,
        headers={"Content-Type": "application/health+json", "Cache-Control": "no-store"},
    )
