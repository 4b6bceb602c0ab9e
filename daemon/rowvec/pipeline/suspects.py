"""Suspects: the texts that a model may hang or break down at. Such an outage looks like any other."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

from rowvec.domain.budget import fill_requests
from rowvec.domain.errors import ModelMisbehavedError
from rowvec.domain.items import EmbedderTraits
from rowvec.domain.retry import describe

MOST_KEPT: Final = 10_000
PART: Final = 8
"""With each outage the requests of suspects get smaller by this: one of 64 texts takes two until each goes alone."""
SMALLEST: Final = 4
"""Whatever a server takes in a request, after so many outages it is a single text."""
ENOUGH: Final = 3
"""Outages of a text alone. Each time the model had proven itself again before."""

Key: TypeAlias = tuple[EmbedderTraits, bytes]


@dataclass(slots=True)
class _Suspect:
    """What is known of a text.

    Attributes:
        since: how many requests the model had answered when the text came under suspicion.
        outages: how many of its requests in a row had no answer.
        alone: in how many of these it was sent alone, after the model had answered others.
        why: what the last one ended with.
    """

    since: int
    outages: int = 0
    alone: int = 0
    why: str = ""


class Suspects:
    """One model's suspects: those of requests that ended without an answer.

    They are sent apart until they are answered, which clears them. One that had no answer several times alone, while
    the model had some for others, is convicted. As long as a server answers nobody, nobody is.

    Args:
        most_kept: how many there may be; the oldest make room.
    """

    def __init__(self, most_kept: int = MOST_KEPT) -> None:
        self._most_kept = most_kept
        self._suspects: OrderedDict[Key, _Suspect] = OrderedDict()
        self._answers = 0
        self._turn = asyncio.Lock()

    def fill(
        self, traits: EmbedderTraits, tokens: Mapping[bytes, int], most_texts: int, most_tokens: int
    ) -> list[list[bytes]]:
        """Return texts as requests, as `fill_requests` does: those beyond suspicion first, the worst at the end."""
        levels: dict[int, dict[bytes, int]] = {}
        for digest, count in tokens.items():
            levels.setdefault(self._outages(traits, digest), {})[digest] = count
        return [
            request
            for outages in sorted(levels)
            for request in fill_requests(levels[outages], _part(most_texts, outages), most_tokens)
        ]

    @asynccontextmanager
    async def apart(self, traits: EmbedderTraits, hashes: Collection[bytes]) -> AsyncIterator[bool]:
        """Hold back other suspects for the time of the block, if the request is a single one; yield whether it is.

        Two at once could not be told apart: a server that hangs at one answers neither.
        """
        if len(hashes) == 1 and all((traits, digest) in self._suspects for digest in hashes):
            async with self._turn:
                yield True
        else:
            yield False

    def accuse(self, traits: EmbedderTraits, hashes: Collection[bytes], error: Exception, *, alone: bool) -> None:
        """Take note of a request that ended without an answer."""
        for digest in hashes:
            suspect = self._suspects.setdefault((traits, digest), _Suspect(self._answers))
            self._suspects.move_to_end((traits, digest))
            suspect.outages += 1
            suspect.alone += alone and suspect.since < self._answers
            suspect.why = " ".join(describe(error)).strip()
        while len(self._suspects) > self._most_kept:
            self._suspects.popitem(last=False)

    def clear(self, traits: EmbedderTraits, hashes: Collection[bytes]) -> None:
        """Take note of a request that was answered."""
        self._answers += 1
        for digest in hashes:
            self._suspects.pop((traits, digest), None)

    def convict(self, traits: EmbedderTraits, hashes: Collection[bytes]) -> dict[bytes, Exception]:
        """Return those that are at fault, each with its error; the next time it is tried alone once more."""
        convicted: dict[bytes, Exception] = {}
        for digest in hashes:
            suspect = self._suspects.get((traits, digest))
            if suspect and suspect.alone >= ENOUGH:
                suspect.alone = ENOUGH - 1
                convicted[digest] = ModelMisbehavedError(
                    "The model hangs or breaks down at the text.",
                    f"Sent alone it had no answer {ENOUGH} times in a row, while others had theirs. {suspect.why}",
                )
        return convicted

    def _outages(self, traits: EmbedderTraits, digest: bytes) -> int:
        suspect = self._suspects.get((traits, digest))
        return suspect.outages if suspect else 0


def _part(most_texts: int, outages: int) -> int:
    return max(1, most_texts // int(PART ** min(outages, SMALLEST)))
