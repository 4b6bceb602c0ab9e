"""A model behind Ollama."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rowvec.domain.items import EmbedderTraits
from rowvec.models.server_embedder import ServedModel, ServerEmbedder, list_in
from rowvec.ports import Answered, untold

REQUEST_TEXTS: Final = 32
"""It embeds them one by one."""
REQUEST_TOKENS: Final = 16_384


class OllamaEmbedder(ServerEmbedder):
    """Vectors from `POST /api/embed {model, input, truncate: false}` -> `{embeddings}`.

    Without `truncate: false` it cuts texts that are too long for the model, and says nothing.

    Args:
        model: as it is set.
    """

    def __init__(self, model: ServedModel) -> None:
        traits = EmbedderTraits(f"ollama-1 {model.remote_name}", model.passage_prefix)
        super().__init__(model, traits, REQUEST_TEXTS, REQUEST_TOKENS)

    async def probe(self) -> None:
        """See `ports.Embedder.probe`."""
        await self._client.health("/api/version")

    async def _ask_passages(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[object]:
        body = {"model": self._model.remote_name, "input": list(texts), "truncate": False}
        return list_in(await self._post("/api/embed", body, texts, answered), "embeddings")
