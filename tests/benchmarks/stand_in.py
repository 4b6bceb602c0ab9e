"""A model server that costs next to nothing and takes its time. Prints its port, serves until killed.

It is a process of its own and speaks OpenAI's protocol. Its answers are made once for each number of texts: its work is
not what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import functools
import sys
import time

import orjson
import uvloop
from aiohttp import web

from rowvec.models.deterministic import deterministic_embedding


@functools.cache
def answer(texts: int, dimensions: int) -> bytes:
    vectors = [base64.b64encode(deterministic_embedding(str(n), dimensions).tobytes()).decode() for n in range(texts)]
    return orjson.dumps({"data": [{"index": n, "embedding": vector} for n, vector in enumerate(vectors)]})


def sleep_until(due: float) -> None:
    time.sleep(max(0.0, due - time.perf_counter()))


async def serve(delay_seconds: float, dimensions: int) -> None:
    async def embeddings(request: web.Request) -> web.Response:
        due = time.perf_counter() + delay_seconds
        texts = len(orjson.loads(await request.read())["input"])
        content = answer(texts, dimensions)
        if delay_seconds:
            # In a thread: the timers of event loops are late by up to a millisecond and more.
            await asyncio.to_thread(sleep_until, due)
        return web.Response(body=content, content_type="application/json")

    app = web.Application(client_max_size=16 * 1024**2)
    app.router.add_post("/v1/embeddings", embeddings)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("delay_seconds", type=float)
    parser.add_argument("dimensions", type=int)
    given = parser.parse_args()
    uvloop.run(serve(given.delay_seconds, given.dimensions))
