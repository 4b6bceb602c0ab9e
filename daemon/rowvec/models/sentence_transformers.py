"""A model behind the HTTP of the sentence-transformers services: `/embed/batch` for rows, `/embed` for searches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rowvec.domain.errors import ModelUnavailableError
from rowvec.domain.items import EmbedderTraits
from rowvec.models.server_embedder import ServedModel, ServerEmbedder, list_in
from rowvec.ports import Answered, untold

REQUEST_TEXTS: Final = 32
"""What the smaller of the services takes at once; 413 beyond."""
REQUEST_TOKENS: Final = 16_384
"""On a processor without an accelerator some ten seconds' work."""
WELL: Final = "ok"
TRAITS: Final = EmbedderTraits("sentence_transformers-1", "passage")


class SentenceTransformersEmbedder(ServerEmbedder):
    """Vectors from a service that adds the model's prefixes itself, told by `task` what a text is for.

    Rows are sent as `POST /embed/batch {inputs, task: passage}` -> `{embeddings, count, dim}`, a search as
    `POST /embed {input, task: query}` -> `{embedding, dim}`. The service cuts texts that are too long for its model.

    Args:
        model: as it is set.
    """

    def __init__(self, model: ServedModel) -> None:
        super().__init__(model, TRAITS, REQUEST_TEXTS, REQUEST_TOKENS)

    async def probe(self) -> None:
        """See `ports.Embedder.probe`."""
        health = await self._client.health("/healthz")
        if not isinstance(health, dict) or health.get("status") != WELL:
            raise ModelUnavailableError("The model server is not well.", 'Its /healthz has no "status": "ok".')

    async def _ask_passages(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[object]:
        answer = await self._post("/embed/batch", {"inputs": list(texts), "task": "passage"}, texts, answered)
        return list_in(answer, "embeddings")

    async def _ask_query(self, text: str) -> Sequence[object]:
        return [list_in(await self._post("/embed", {"input": text, "task": "query"}, [text]), "embedding")]
