"""A daemon whose work a local QStash carries."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from benchmarks.scratch import free_port
from daemons import eventually, is_ready, running
from local_qstash import LocalQStash
from rowvec.app.daemon import Daemon
from rowvec.ports import Embedder


@contextlib.asynccontextmanager
async def road(dsn: str, qstash: LocalQStash, *embedders: Embedder, **given: object) -> AsyncIterator[Daemon]:
    """Run a daemon whose work QStash carries."""
    port = free_port()
    settings: dict[str, object] = {
        "EMBEDDING_QUEUE_STRATEGY": "qstash",
        "QSTASH_URL": qstash.url,
        "QSTASH_TOKEN": qstash.token,
        "QSTASH_CURRENT_SIGNING_KEY": qstash.keys.current,
        "QSTASH_NEXT_SIGNING_KEY": qstash.keys.next,
        "SITE_URL": f"http://127.0.0.1:{port}",
        "ROWVEC_HTTP_PORT": port,
        "ROWVEC_DEVELOPMENT": True,
        "ROWVEC_DISPATCH_DEADLINE_SECONDS": 2,
        **given,
    }
    async with running(dsn, *embedders, **settings) as daemon:
        await eventually(lambda: is_ready(daemon))
        yield daemon
