"""The models as the database knows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rowvec.domain.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A row of `rowvec.model`, as far as a daemon needs it.

    Attributes:
        name: the model's.
        dimensions: the length of the vectors in its table.
        served: how a daemon reaches it that has no settings of its own for it; None: it must have them.
    """

    name: str
    dimensions: int
    served: Mapping[str, Any] | None = None


def check_dimensions(name: str, wanted: int, held: int) -> None:
    """Refuse a model whose table holds vectors of another length than is set.

    Raises:
        ConfigurationError: with both numbers.
    """
    if wanted != held:
        raise ConfigurationError(
            f'The model "{name}" is set to {wanted} dimensions, but its table holds {held}.',
            f"Correct ROWVEC_MODEL_{name.upper()}_DIMENSIONS, or give the new model another name.",
        )
