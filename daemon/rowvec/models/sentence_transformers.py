"""A model behind the HTTP of the sentence-transformers services: `/embed/batch` for rows, `/embed` for searches."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from rowvec.domain.errors import ModelMisbehavedError, ModelUnavailableError, RowvecError, TextRejectedError
from rowvec.domain.items import EmbedderTraits
from rowvec.models.server_client import Refusal, ServerAddress, ServerClient
from rowvec.ports import Embedding

REQUEST_TEXTS: Final = 32
"""What the smaller of the services takes at once; 413 beyond."""
REVISION: Final = "sentence_transformers-1"
"""Without the address: a server that moves is still the same model, and its vectors are still good."""
NUMBER_BYTES: Final = 64
"""More than a number of an answer takes, however generously it is written."""
ENVELOPE_BYTES: Final = 65536
TOO_LARGE: Final = 413
BROKEN: Final = 500
HARMLESS: Final = "hello"


class SentenceTransformersEmbedder:
    """Vectors from a service that adds the model's prefixes itself, told by `task` what a text is for.

    Rows are sent as `POST /embed/batch {inputs, task: passage}` -> `{embeddings, count, dim}`, a search as
    `POST /embed {input, task: query}` -> `{embedding, dim}`. The service cuts texts that are too long for its model.

    Args:
        name: the model's name.
        dimensions: the length of its vectors.
        address: where its server is.
        concurrency: how many requests it takes at once.
    """

    request_texts = REQUEST_TEXTS

    def __init__(self, name: str, dimensions: int, address: ServerAddress, concurrency: int = 1) -> None:
        self.name = name
        self.dimensions = dimensions
        self.concurrency = concurrency
        self.traits = EmbedderTraits(REVISION, "passage")
        self._client = ServerClient(name, address)

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        """See `ports.Embedder.embed`; texts that are too many or too large for one request go in several."""
        try:
            answer = await self._ask(texts)
            if not isinstance(answer, Refusal):
                return self._vectors(answer, len(texts))
        except ModelMisbehavedError:
            await self._blame_the_server(texts)
            raise
        if answer.status == TOO_LARGE and len(texts) > 1:
            half = len(texts) // 2
            return [*await self.embed(texts[:half]), *await self.embed(texts[half:])]
        await self._blame_the_server(texts)
        raise _rejected(answer)

    async def embed_query(self, text: str) -> Embedding:
        """See `ports.Embedder.embed_query`."""
        answer = await self._client.post("/embed", {"input": text, "task": "query"}, self._max_bytes(1), [text])
        if isinstance(answer, Refusal):
            raise _broken(answer) if answer.status == BROKEN else _rejected(answer)
        return self._vector(_part(answer, "embedding"))

    async def close(self) -> None:
        """See `ports.Embedder.close`."""
        await self._client.close()

    async def _ask(self, texts: Sequence[str], unsaid: Sequence[str] = ()) -> object:
        body = {"inputs": list(texts), "task": "passage"}
        return await self._client.post("/embed/batch", body, self._max_bytes(len(texts)), [*texts, *unsaid])

    async def _blame_the_server(self, asked: Sequence[str]) -> None:
        """See that it embeds another text: one that is broken or of another model or protocol fails at all of them.

        Args:
            asked: the texts in doubt, which no error may repeat.

        Raises:
            ModelUnavailableError: it does not, so no row is at fault.
        """
        try:
            answer = await self._ask([HARMLESS], asked)
            if not isinstance(answer, Refusal):
                self._vectors(answer, 1)
        except ModelMisbehavedError as error:
            raise ModelUnavailableError(error.message, error.hint) from None
        if isinstance(answer, Refusal):
            if answer.status == BROKEN:
                raise _broken(answer)
            hint = f"Does {self._client.variable}_URL lead to a server of this protocol?"
            raise ModelUnavailableError(f"The model server refuses every text ({answer.status}).", hint)

    def _vectors(self, answer: object, texts: int) -> list[Embedding]:
        rows = _part(answer, "embeddings")
        if len(rows) != texts:
            raise ModelMisbehavedError(
                "The model answered with the wrong number of vectors.", f"{len(rows)} for {texts} texts"
            )
        return [self._vector(row) for row in rows]

    def _vector(self, numbers: object) -> Embedding:
        vector = _floats(numbers)
        if len(vector) != self.dimensions:
            raise ModelMisbehavedError(
                "The model answered with vectors of the wrong length.",
                f"{len(vector)} dimensions instead of {self.dimensions}. "
                f"Does {self._client.variable}_URL lead to this model?",
            )
        # The sum of finite 32-bit floats is finite, that of others is not.
        if not math.isfinite(sum(vector)) or not any(vector):
            raise ModelMisbehavedError("The model answered with vectors without direction.", "NaN, infinite or zero")
        return vector

    def _max_bytes(self, texts: int) -> int:
        return ENVELOPE_BYTES + NUMBER_BYTES * self.dimensions * texts


def _rejected(refusal: Refusal) -> RowvecError:
    if refusal.status == BROKEN:
        # Not for good: it may have been broken for the moment only.
        return ModelMisbehavedError("The model server fails at the text (500).", refusal.words)
    return TextRejectedError(f"The model server refuses the text ({refusal.status}).", refusal.words)


def _broken(refusal: Refusal) -> ModelUnavailableError:
    return ModelUnavailableError("The model server answers with an error (500).", refusal.words)


def _part(answer: object, name: str) -> list[Any]:
    part = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(part, list):
        raise ModelMisbehavedError("The model server's answer has another form.", f'It has no list "{name}".')
    return part


def _floats(numbers: object) -> Embedding:
    with suppress(TypeError, OverflowError):
        if isinstance(numbers, list):
            return array("f", numbers)
    raise ModelMisbehavedError("The model server's answer has another form.", "A vector is no list of numbers.")
