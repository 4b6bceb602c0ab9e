"""A model behind Hugging Face's text-embeddings-inference, 1.9: it says itself what it is and takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from rowvec.domain.errors import ModelMisbehavedError, ModelUnavailableError, RowvecError, TextRejectedError
from rowvec.domain.items import EmbedderTraits
from rowvec.models.server_embedder import ENVELOPE_BYTES, ServedModel, ServerEmbedder
from rowvec.ports import Answered, untold

MOST_TEXTS: Final = 64
"""Even if the server takes more: an urgent text never waits for more than a request."""
USUAL_TEXTS: Final = 32
USUAL_TOKENS: Final = 16_384
"""What it computes at once unless told otherwise."""
MOST_TOKENS: Final = 250_000
"""A body has 2 MB at most: at 4 bytes an estimated token, and twice as many where all is quotes and line breaks."""
REVISION: Final = "tei-1"


class TeiEmbedder(ServerEmbedder):
    """Vectors from `POST /embed {inputs, truncate: false}` -> `[[...]]`.

    `GET /info` tells the model with its revision, which its vectors are marked with, and how many texts and tokens the
    server takes at once. It is read before the first request, and again after an outage: behind the same address there
    may be another model then.

    Args:
        model: as it is set.
    """

    def __init__(self, model: ServedModel) -> None:
        super().__init__(model, EmbedderTraits(REVISION, model.passage_prefix), USUAL_TEXTS, USUAL_TOKENS)
        self._reading = asyncio.Lock()
        self._introduced = False

    async def ready(self) -> None:
        """See `ports.Embedder.ready`."""
        async with self._reading:
            if not self._introduced:
                await self._read_info()
                self._introduced = True

    async def _read_info(self) -> None:
        try:
            info = await self._client.get("/info", ENVELOPE_BYTES)
        except (ModelMisbehavedError, TextRejectedError) as error:
            raise self._no_info(error) from None
        if not isinstance(info, dict) or not isinstance(info.get("model_id"), str):
            raise self._no_info(ModelMisbehavedError("It names no model."))
        sha = info.get("model_sha")
        revision = f"{REVISION} {info['model_id']}{f'@{sha}' if isinstance(sha, str) else ''}"
        known = self.traits.provider_revision
        if known not in {REVISION, revision}:
            raise ModelUnavailableError(
                "The model server has another model than before.",
                f"{revision} instead of {known}. Start rowvec anew to use it, then pause and resume each source.",
            )
        self.traits = EmbedderTraits(revision, self.traits.prefix)
        texts, tokens = self._model.request_texts or MOST_TEXTS, self._model.request_tokens or MOST_TOKENS
        self.request_texts = _limit(texts, info.get("max_client_batch_size"), USUAL_TEXTS)
        self.request_tokens = _limit(tokens, info.get("max_batch_tokens"), USUAL_TOKENS)

    async def probe(self) -> None:
        """See `ports.Embedder.probe`."""
        await self._client.health("/health")

    async def _ask_passages(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[object]:
        try:
            answer = await self._post("/embed", {"inputs": list(texts), "truncate": False}, texts, answered)
        except ModelUnavailableError:
            self._introduced = False
            raise
        if not isinstance(answer, list):
            raise ModelMisbehavedError("The model server's answer has another form.", "It is no list of vectors.")
        return answer

    def _no_info(self, error: RowvecError) -> ModelUnavailableError:
        hint = f"{error} Does {self._client.variable}_URL lead to text-embeddings-inference?"
        return ModelUnavailableError("The model server's /info says nothing of a model.", hint)


def _limit(most: int, told: object, usual: int) -> int:
    """Return what goes into a request: what the server says that it takes, but no more than `most`."""
    return min(most, told if isinstance(told, int) and told > 0 else usual)
