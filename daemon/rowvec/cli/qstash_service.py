"""QStash for commands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rowvec.domain.errors import CarrierError, CarrierTrouble, ConfigurationError
from rowvec.qstash.service import Service
from rowvec.settings import Settings


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Service]:
    """Yield QStash as it is set.

    Raises:
        ConfigurationError: no token is set, or the service does not take us as we are set.
    """
    # The client of the official package takes half a second to import: `--help` does without it.
    from rowvec.qstash.client import connected  # noqa: PLC0415

    token = settings.qstash_token.get_secret_value() if settings.qstash_token else ""
    if not token:
        raise ConfigurationError(
            "No token for QStash is set.",
            "Set QSTASH_TOKEN, from QStash's console; and QSTASH_URL where the account is of another region.",
        )
    try:
        async with connected(token, str(settings.qstash_url).rstrip("/")) as client:
            yield client
    except CarrierError as error:
        if error.kind is CarrierTrouble.CONFIGURATION:
            raise ConfigurationError(error.message, error.hint) from None
        raise
