"""Prepare: the current text of each item's row, cut into chunks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from rowvec.domain.items import Document, Item, Row, Slot, Source
from rowvec.domain.lanes import Lane
from rowvec.domain.owner_shares import OwnerShares
from rowvec.domain.text import render_text, split_text
from rowvec.ports import RowReader
from rowvec.turns import in_turns

LONG_CHARACTERS: Final = 50_000
"""Rows with more text than this together are cut in a thread, off the event loop."""


class Preparer:
    """Reads rows and makes documents of them.

    Args:
        reader: of the application's rows.
        shares: of their owners in the urgent lanes.
    """

    def __init__(self, reader: RowReader, shares: OwnerShares) -> None:
        self._reader = reader
        self._shares = shares

    async def prepare(self, slot: Slot, items: Sequence[Item]) -> list[Document]:
        """Return a document an item; one without chunks where the row is gone or empty.

        Whoever changes the source queues its rows once more afterwards.

        Raises:
            SourceUnreadableError: the table can't be read.
            TextRejectedError: a row can't be read as text, or an id is no key.
        """
        found = await self._reader.read(slot.content_type, [item.content_id for item in items])
        if found is None:
            return [Document(item) for item in items]
        source, rows = found
        if sum(len(row.fields) for row in rows) > LONG_CHARACTERS:
            documents = await asyncio.to_thread(_documents, source, items, rows)
        else:
            documents = await in_turns(_reader_of(source, rows), items)
        return documents if slot.lane is Lane.BULK else self._judged(slot, source, documents)

    def note_done(self, slot: Slot, documents: Sequence[Document]) -> None:
        """Count what was done against its owners' shares."""
        self._shares.count(slot, [document.owner for document in documents])

    def _judged(self, slot: Slot, source: Source, documents: Sequence[Document]) -> list[Document]:
        """Mark the documents of owners who have had their share."""
        ahead: Counter[str | None] = Counter()
        judged = []
        for document in documents:
            ahead[document.owner] += document.owner is not None
            floods = self._shares.had(slot, document.owner) + ahead[document.owner] > source.urgent_rows
            judged.append(replace(document, floods=True) if floods else document)
        return judged


def _documents(source: Source, items: Sequence[Item], rows: Sequence[Row]) -> list[Document]:
    return list(map(_reader_of(source, rows), items))


def _reader_of(source: Source, rows: Sequence[Row]) -> Callable[[Item], Document]:
    """Return what makes a document of an item."""
    found = {row.content_id: row for row in rows}

    def document(item: Item) -> Document:
        row = found.get(item.content_id)
        if row is None:
            return Document(item)
        return Document(item, row.owner, split_text(source, *render_text(source, row.fields)))

    return document
