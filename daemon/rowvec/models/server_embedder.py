"""What all models behind a server have in common: prefixes, and a look at every answer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from rowvec.domain.errors import ModelMisbehavedError
from rowvec.domain.items import EmbedderTraits
from rowvec.models.server_client import ServerAddress, ServerClient
from rowvec.ports import Answered, Embedding, untold
from rowvec.turns import in_turns

NUMBER_BYTES: Final = 64
"""More than a number of an answer takes, however generously it is written."""
ENVELOPE_BYTES: Final = 65536


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that a server has, as it is set.

    Attributes:
        name: the model's name here.
        dimensions: the length of its vectors.
        address: where its server is.
        concurrency: how many requests the server takes at once.
        remote_name: the model's name there.
        query_prefix: what goes before the text of a search.
        passage_prefix: what goes before the text of a row.
        request_texts: the most texts of one request; None for what the server takes.
        request_tokens: the most tokens of one request; None for what the server takes.
        requests_per_minute: how many requests may begin in a minute; None for any number.
    """

    name: str
    dimensions: int
    address: ServerAddress
    concurrency: int = 1
    remote_name: str = ""
    query_prefix: str = ""
    passage_prefix: str = ""
    request_texts: int | None = None
    request_tokens: int | None = None
    requests_per_minute: float | None = None


class ServerEmbedder(ABC):
    """A model behind a server; each protocol says how it is asked.

    Args:
        model: as it is set.
        traits: what its vectors are marked with. Without the address: a server that moves has the same model.
        request_texts: the most texts of one request, unless another number is set.
        request_tokens: the most tokens of one request, unless another number is set.
    """

    def __init__(self, model: ServedModel, traits: EmbedderTraits, request_texts: int, request_tokens: int) -> None:
        self.name = model.name
        self.dimensions = model.dimensions
        self.concurrency = model.concurrency
        self.traits = traits
        self.request_texts = model.request_texts or request_texts
        self.request_tokens = model.request_tokens or request_tokens
        self.requests_per_minute = model.requests_per_minute
        self._model = model
        self._client = ServerClient(model.name, model.address)

    async def ready(self) -> None:  # noqa: B027 - most know all from their settings
        """See `ports.Embedder.ready`."""

    async def embed(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:
        """See `ports.Embedder.embed`."""
        passages = [self._model.passage_prefix + text for text in texts]
        return await self._vectors(await self._ask_passages(passages, answered), len(texts))

    async def embed_query(self, text: str) -> Embedding:
        """See `ports.Embedder.embed_query`."""
        [vector] = await self._vectors(await self._ask_query(self._model.query_prefix + text), 1)
        return vector

    async def close(self) -> None:
        """See `ports.Embedder.close`."""
        await self._client.close()

    @abstractmethod
    async def probe(self) -> None:
        """See `ports.Embedder.probe`."""

    @abstractmethod
    async def _ask_passages(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[object]:
        """Return what the answer has for vectors, in the order of the texts."""

    async def _ask_query(self, text: str) -> Sequence[object]:
        """Return what the answer has for a vector: one."""
        return await self._ask_passages([text])

    async def _post(
        self, path: str, body: Mapping[str, object], texts: Sequence[str], answered: Answered = untold
    ) -> object:
        """Return the answer's JSON, which may have a vector for each text; raises as `ServerClient.post`."""
        prefixes = (self._model.passage_prefix, self._model.query_prefix)
        bare = {text.removeprefix(prefix) for text in texts for prefix in prefixes}
        max_bytes = ENVELOPE_BYTES + NUMBER_BYTES * self.dimensions * len(texts)
        return await self._client.post(path, body, max_bytes, [*texts, *(bare - set(texts))], answered)

    def _numbers(self, row: object) -> object:
        """Return the numbers of what an answer has for a vector, however it is written."""
        return row

    async def _vectors(self, rows: Sequence[object], texts: int) -> list[Embedding]:
        """Read an answer, a few of its vectors at a time: the next request is on its way while we do."""
        if len(rows) != texts:
            raise ModelMisbehavedError(
                "The model answered with the wrong number of vectors.", f"{len(rows)} for {texts} texts"
            )
        return await in_turns(self._vector, rows)

    def _vector(self, row: object) -> Embedding:
        vector = _floats(self._numbers(row))
        if len(vector) != self.dimensions:
            raise ModelMisbehavedError(
                "The model answered with vectors of the wrong length.",
                f"{len(vector)} dimensions instead of {self.dimensions}. "
                f"Does {self._client.variable}_URL lead to this model?",
                len(vector),
            )
        # The sum of finite 32-bit floats is finite, that of others is not.
        if not math.isfinite(sum(vector)) or not any(vector):
            raise ModelMisbehavedError("The model answered with vectors without direction.", "NaN, infinite or zero")
        return vector


def list_in(answer: object, name: str) -> list[Any]:
    """Return the list that an answer has by a name.

    Raises:
        ModelMisbehavedError: it has none.
    """
    part = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(part, list):
        raise ModelMisbehavedError("The model server's answer has another form.", f'It has no list "{name}".')
    return part


def _floats(numbers: object) -> Embedding:
    with suppress(TypeError, OverflowError):
        if isinstance(numbers, list | array):
            return array("f", numbers)
    raise ModelMisbehavedError("The model server's answer has another form.", "A vector is no list of numbers.")
