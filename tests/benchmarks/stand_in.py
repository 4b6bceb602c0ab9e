"""A model server that costs next to nothing and takes its time. Prints its port, serves until killed.

It is a process of its own and speaks as much of HTTP and OpenAI's protocol as rowvec's client needs. A thread a
connection, and answers that are made once for each number of texts: its own work is not what is measured, and the
timers of event loops are late by a millisecond and more.
"""

from __future__ import annotations

import argparse
import base64
import functools
import sys
import time
from io import BufferedIOBase
from socketserver import StreamRequestHandler, ThreadingTCPServer

import orjson

from rowvec.models.deterministic import deterministic_embedding


@functools.cache
def answer(texts: int, dimensions: int) -> bytes:
    vectors = [base64.b64encode(deterministic_embedding(str(n), dimensions).tobytes()).decode() for n in range(texts)]
    content = orjson.dumps({"data": [{"index": n, "embedding": vector} for n, vector in enumerate(vectors)]})
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content) + content


def read_body(stream: BufferedIOBase) -> bytes:
    """Return the body of a request whose first line has been read."""
    length = 0
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    return stream.read(length)


def handler(delay_seconds: float, dimensions: int) -> type[StreamRequestHandler]:
    class Handler(StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self) -> None:
            while self.rfile.readline():
                due = time.perf_counter() + delay_seconds
                content = answer(len(orjson.loads(read_body(self.rfile))["input"]), dimensions)
                time.sleep(max(0.0, due - time.perf_counter()))
                self.wfile.write(content)

    return Handler


class Server(ThreadingTCPServer):
    daemon_threads = True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("delay_seconds", type=float)
    parser.add_argument("dimensions", type=int)
    given = parser.parse_args()
    with Server(("127.0.0.1", 0), handler(given.delay_seconds, given.dimensions)) as server:
        sys.stdout.write(f"{server.server_address[1]}\n")
        sys.stdout.flush()
        server.serve_forever()
