"""The signing keys: those that are set, and those that the service rolls to."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

import structlog

from rowvec.domain.errors import ConfigurationError, RowvecError
from rowvec.ports import Clock, KeySource
from rowvec.qstash.signature import LEEWAY_SECONDS, UnknownKeyError, verify

ASK_PAUSE_SECONDS: Final = 10.0
"""Whoever sends forged signatures makes the service be asked no more often."""
ASK_SECONDS: Final = 5.0
KEEP_SECONDS: Final = 2400.0
"""For how long a key that was replaced is taken: a signature is valid for 5 minutes, three retries take 33."""

log = structlog.get_logger(__name__)


class KeyRing:
    """Verifies signatures by the keys that are known, and learns of new ones.

    The service signs with the current key, and after a rotation with what was the next one. A signature by another
    key than the current one therefore tells of a rotation: the service is asked which keys it has now. What is signed
    by an unknown key waits for the answer, everything else does not.

    Args:
        current: the first key to try, as it is set.
        following: the next one.
        source: the service; None when it can't be asked.
        clock: the time.
        untrusted: keys that are never taken, wherever they come from.
        leeway_seconds: how far the clocks may differ.

    Raises:
        ConfigurationError: a key is empty or not to be trusted.
    """

    def __init__(  # noqa: PLR0913 - each wired once
        self,
        current: str,
        following: str,
        source: KeySource | None,
        clock: Clock,
        untrusted: Collection[str] = (),
        leeway_seconds: float = LEEWAY_SECONDS,
    ) -> None:
        if not current or not following or {current, following} & set(untrusted):
            raise ConfigurationError(
                "A signing key is empty or a public one.", "Set QSTASH_CURRENT_SIGNING_KEY, QSTASH_NEXT_SIGNING_KEY."
            )
        self._keys = (current, following)
        self._source = source
        self._clock = clock
        self._untrusted = frozenset(untrusted)
        self._leeway_seconds = leeway_seconds
        self._replaced: dict[str, float] = {}
        self._asked_at = -ASK_PAUSE_SECONDS
        self._asking: asyncio.Task[None] | None = None

    async def verify(self, signature: str, url: str, body: bytes) -> str:
        """See `ports.Signatures.verify`."""
        try:
            return self._verify(signature, url, body)
        except UnknownKeyError:
            if (asking := self._ask()) is None:
                raise
        await asyncio.shield(asking)
        return self._verify(signature, url, body)

    def _verify(self, signature: str, url: str, body: bytes) -> str:
        now = self._clock.now().timestamp()
        found = verify(signature, self._taken(), url, body, now, self._leeway_seconds)
        if found.key != self._keys[0]:
            self._ask()
        return found.id

    def _taken(self) -> Sequence[str]:
        """Return the keys that are taken now, the likeliest first."""
        now = self._clock.seconds()
        self._replaced = {key: until for key, until in self._replaced.items() if until > now}
        return [*self._keys, *self._replaced]

    def _ask(self) -> asyncio.Task[None] | None:
        """Have the service asked, unless it was asked just now; return the question that is under way, if any."""
        if self._source is None or (self._asking is not None and not self._asking.done()):
            return self._asking
        if self._clock.seconds() - self._asked_at < ASK_PAUSE_SECONDS:
            return None
        self._asked_at = self._clock.seconds()
        self._asking = asyncio.create_task(self._learn(self._source))
        return self._asking

    async def _learn(self, source: KeySource) -> None:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                keys = await source.signing_keys()
        except (RowvecError, TimeoutError) as error:
            log.warning("keys.unlearned", why=str(error) or "The service does not answer.")
            return
        if not all(keys) or self._untrusted & set(keys):
            log.error("keys.refused", why="The service gives keys that are empty or public.")
        elif keys != self._keys:
            self._replace(keys)

    def _replace(self, keys: tuple[str, str]) -> None:
        until = self._clock.seconds() + KEEP_SECONDS
        self._replaced |= dict.fromkeys(self._keys, until)
        self._replaced = {key: kept for key, kept in self._replaced.items() if key not in keys}
        self._keys = keys
        log.info("keys.replaced")
