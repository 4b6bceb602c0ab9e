"""Staleness: whether what is stored of a row is what its text says now."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from rowvec.domain.errors import TextRejectedError
from rowvec.domain.items import Key, Row, Source
from rowvec.domain.parts import in_parts
from rowvec.domain.row_states import Fingerprint
from rowvec.domain.text import render_text, split_text
from rowvec.ports import RowReader, RowStates

NOTHING: Fingerprint = frozenset()


class Staleness:
    """Compares rows with what models hold of them.

    Args:
        reader: of the application's rows.
        states: of what is stored.
        batch_items: how many rows are looked at at once: their texts are held in memory.
    """

    def __init__(self, reader: RowReader, states: RowStates, batch_items: int) -> None:
        self._reader = reader
        self._states = states
        self._batch_items = batch_items

    async def find(self, rows: Sequence[Key], models: Collection[str]) -> frozenset[Key]:
        """Return the rows of which some model holds something else than their text; a row that is gone has none.

        Raises:
            RowvecError: a table can't be read.
        """
        stale: set[Key] = set()
        for part in in_parts(rows, self._batch_items):
            stale |= await self._compare(part, models)
        return frozenset(stale)

    async def _compare(self, rows: Sequence[Key], models: Collection[str]) -> set[Key]:
        now = await self._read(rows)
        stale: set[Key] = set()
        for model in models:
            held = await self._states.fingerprints(model, rows)
            stale |= {row for row in rows if held.get(row, NOTHING) != now.get(row, NOTHING)}
        return stale

    async def _read(self, rows: Sequence[Key]) -> dict[Key, Fingerprint]:
        """Return the fingerprints of the rows that exist."""
        by_type: defaultdict[str, list[str]] = defaultdict(list)
        for row in rows:
            by_type[row.content_type].append(row.content_id)
        found: dict[Key, Fingerprint] = {}
        for content_type, ids in by_type.items():
            found |= await self._read_source(content_type, ids)
        return found

    async def _read_source(self, content_type: str, ids: Sequence[str]) -> Mapping[Key, Fingerprint]:
        """Read rows of one source; of several, those that fail do so alone: what is no key is no row either."""
        try:
            read = await self._reader.read(content_type, ids)
        except TextRejectedError:
            if len(ids) == 1:
                return {}
            half = len(ids) // 2
            first = await self._read_source(content_type, ids[:half])
            return {**first, **await self._read_source(content_type, ids[half:])}
        return {} if read is None else await asyncio.to_thread(_fingerprints, *read)


def _fingerprints(source: Source, rows: Sequence[Row]) -> dict[Key, Fingerprint]:
    texts = {row.content_id: split_text(source, *render_text(source, row.fields)) for row in rows}
    return {
        Key(source.content_type, content_id): frozenset((chunk.hash, chunk.repeat) for chunk in chunks)
        for content_id, chunks in texts.items()
    }
