"""What a model has embedded lately, and what it embeds just now: neither is sent once more."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeAlias

from rowvec.domain.items import EmbedderTraits
from rowvec.ports import Embedding

MOST_BYTES: Final = 8 * 1024**2
ENTRY_BYTES: Final = 400
"""What an entry takes beside the numbers of its vector: its hash, its key and its place."""

Key: TypeAlias = tuple[EmbedderTraits, bytes]


class RecentEmbeddings:
    """One model's embeddings that may not be stored yet: their claim waits, failed in another part or is under way.

    Args:
        most_bytes: the memory that they may take; those that were used last stay.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[Key, Embedding] = OrderedDict()
        self._under_way: dict[Key, asyncio.Event] = {}

    def find(self, traits: EmbedderTraits, hashes: Collection[bytes]) -> dict[bytes, Embedding]:
        """Return those that are kept, by chunk hash."""
        found = {digest: self._kept[traits, digest] for digest in hashes if (traits, digest) in self._kept}
        for digest in found:
            self._kept.move_to_end((traits, digest))
        return found

    def keep(self, traits: EmbedderTraits, embeddings: Mapping[bytes, Embedding]) -> None:
        """Keep embeddings; the oldest make room for them."""
        for digest, embedding in embeddings.items():
            self._drop((traits, digest))
            self._kept[traits, digest] = embedding
            self._bytes += _size(embedding)
        while self._bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    def forget(self, traits: EmbedderTraits, hashes: Collection[bytes]) -> None:
        """Keep these no longer."""
        for digest in hashes:
            self._drop((traits, digest))

    @contextmanager
    def sending(self, traits: EmbedderTraits, hashes: Collection[bytes]) -> Iterator[list[bytes]]:
        """Yield those that nobody else sends; until the block ends they are under way. What came of them is kept."""
        mine = [digest for digest in hashes if (traits, digest) not in self._under_way]
        answered = asyncio.Event()
        self._under_way.update(((traits, digest), answered) for digest in mine)
        try:
            yield mine
        finally:
            for digest in mine:
                del self._under_way[traits, digest]
            answered.set()

    async def settled(self, traits: EmbedderTraits, hashes: Collection[bytes]) -> None:
        """Wait until the requests that have these now have ended, well or not."""
        under_way = (self._under_way.get((traits, digest)) for digest in hashes)
        for answered in {event for event in under_way if event is not None}:
            await answered.wait()

    def _drop(self, key: Key) -> None:
        if (embedding := self._kept.pop(key, None)) is not None:
            self._bytes -= _size(embedding)


def _size(embedding: Embedding) -> int:
    return len(embedding) * embedding.itemsize + ENTRY_BYTES
