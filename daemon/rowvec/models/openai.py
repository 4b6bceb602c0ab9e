"""A model behind the HTTP of OpenAI's embeddings, as vLLM, infinity, llama.cpp and LM Studio speak it too."""

from __future__ import annotations

import binascii
import sys
from array import array
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import pybase64

from rowvec.domain.errors import ModelMisbehavedError, TextRejectedError
from rowvec.domain.items import EmbedderTraits
from rowvec.models.server_embedder import ServedModel, ServerEmbedder, list_in
from rowvec.ports import Answered, Embedding, untold

REQUEST_TEXTS: Final = 64
"""OpenAI takes 2,048. But an urgent text would wait long for such a request to a server on a laptop."""
REQUEST_TOKENS: Final = 300_000
"""What OpenAI takes at once."""
NO_SUCH_PAGE: Final = {
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.MOVED_PERMANENTLY,
    HTTPStatus.FOUND,
    HTTPStatus.TEMPORARY_REDIRECT,
    HTTPStatus.PERMANENT_REDIRECT,
}
"""There is none, or none for us: what stands at a server's root need not know our key, or is for people."""
SHORTENED: Final = "text-embedding-3-"
"""The models whose vectors have the length that is asked for; others refuse to be asked."""


class OpenAIEmbedder(ServerEmbedder):
    """Vectors from `POST /embeddings {model, input, encoding_format}` -> `{data: [{index, embedding}]}`.

    The address has the version in it, as OpenAI's clients have it: `https://api.openai.com/v1`. Vectors are asked for
    in base64, a fourth of their size as numbers; servers that take no notice answer with numbers, and one that
    refuses is not asked so again.

    Args:
        model: as it is set.
    """

    def __init__(self, model: ServedModel) -> None:
        traits = EmbedderTraits(f"openai-1 {model.remote_name}", model.passage_prefix)
        super().__init__(model, traits, REQUEST_TEXTS, REQUEST_TOKENS)
        self._takes_base64: bool | None = None

    async def probe(self) -> None:
        """See `ports.Embedder.probe`. vLLM, infinity and llama.cpp have `/health` at the server's root, OpenAI none."""
        await self._client.health("/health", at_root=True, lacking=NO_SUCH_PAGE)

    async def _ask_passages(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[object]:
        if self._takes_base64 is False:
            return await self._request(texts, {}, answered)
        try:
            rows = await self._request(texts, {"encoding_format": "base64"}, answered)
        except TextRejectedError:
            if self._takes_base64:
                raise
            # It has never answered: what it refuses may be the format.
            rows = await self._request(texts, {}, answered)
            self._takes_base64 = False
        else:
            self._takes_base64 = True
        return rows

    def _numbers(self, row: object) -> object:
        return _decoded(row) if isinstance(row, str) else row

    async def _request(self, texts: Sequence[str], encoding: dict[str, str], answered: Answered) -> list[object]:
        body: dict[str, object] = {"model": self._model.remote_name, "input": list(texts), **encoding}
        if self._model.remote_name.startswith(SHORTENED):
            body["dimensions"] = self.dimensions
        return _in_order(list_in(await self._post("/embeddings", body, texts, answered), "data"))


def _in_order(data: list[Any]) -> list[object]:
    """Return the vectors by their index; where none has one, as they come."""
    if not all(isinstance(one, dict) for one in data):
        raise ModelMisbehavedError("The model server's answer has another form.", 'Its "data" are no objects.')
    places = [one.get("index") for one in data]
    if any(place is not None for place in places):
        if not all(isinstance(place, int) for place in places) or sorted(places) != list(range(len(data))):
            raise ModelMisbehavedError(
                "The model answered with vectors that belong to no text.", 'Their "index" are not 0, 1, 2 and so on.'
            )
        data = sorted(data, key=lambda one: one["index"])
    return [one.get("embedding") for one in data]


def _decoded(embedding: str) -> Embedding:
    """Return 32-bit floats, little end first, out of base64."""
    try:
        vector: Embedding = array("f", pybase64.b64decode(embedding, validate=True))
    except (binascii.Error, ValueError):
        raise ModelMisbehavedError("The model server's answer has another form.", "A vector is no base64.") from None
    if sys.byteorder == "big":
        vector.byteswap()
    return vector
