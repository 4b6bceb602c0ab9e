"""Which chunks of a row are new, moved or gone: unchanged ones keep their rows and their index entries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rowvec.domain.items import Chunk, Document, EmbedderTraits, StoredChunk


@dataclass(slots=True)
class ChunkDiff:
    """What to write so that a model's table holds just the chunks of some rows."""

    new: list[tuple[Document, Chunk]] = field(default_factory=list)
    moved: list[tuple[Document, Chunk]] = field(default_factory=list)
    gone: list[StoredChunk] = field(default_factory=list)


def diff_chunks(documents: Sequence[Document], stored: Iterable[StoredChunk], traits: EmbedderTraits) -> ChunkDiff:
    """Compare what rows are made of now with what the table holds for them.

    A chunk whose vector was made by another revision or prefix counts as gone and is stored anew. So does one that
    gives the model the same text with another part of it as its heading.

    Args:
        documents: the rows as they are now, each key once.
        stored: all chunks that the table holds for these rows.
        traits: of the model that embeds now.
    """
    held = {(chunk.content_id, chunk.hash, chunk.repeat): chunk for chunk in stored}
    diff = ChunkDiff()
    for document in documents:
        for chunk in document.chunks:
            before = held.get((document.item.content_id, chunk.hash, chunk.repeat))
            if before is None or (before.provider_revision, before.prefix, before.heading) != (*traits, chunk.heading):
                diff.new.append((document, chunk))
                continue
            del held[before[:3]]
            if (before.position, before.step, before.owner) != (chunk.index, document.step(chunk), document.owner):
                diff.moved.append((document, chunk))
    diff.gone = list(held.values())
    return diff
