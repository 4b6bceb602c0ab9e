"""The account: the vectors that the rows call for, beside those that are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import asyncpg

from chaos.faults import tails
from chaos.journal import Journal
from daemons import Process, eventually
from database import MODELS
from rowvec.domain.items import Source
from rowvec.domain.text import render_text, split_text
from rowvec.models.deterministic import deterministic_embedding

IDLE = """
    SELECT NOT EXISTS (SELECT FROM rowvec.change) AND NOT EXISTS (SELECT FROM rowvec.embedding_queue)
       AND NOT EXISTS (SELECT FROM rowvec.source WHERE NOT swept) AND NOT EXISTS (SELECT FROM rowvec.unfilled)
"""
SHOWN = 10

Vector = tuple[str, int, str, str | None, tuple[float, ...]]
"""Content id, chunk index, chunk text, owner, embedding."""


async def check(
    session: asyncpg.Connection, tables: Sequence[str], daemons: Sequence[Process], journal: Journal
) -> None:
    """Wait until all work is done; then no vector may be missing, stale, orphaned or double.

    Raises:
        AssertionError: it is not so; says everything that helps to find out why.
    """
    try:
        await eventually(lambda: session.fetchval(IDLE), within=120)
    except AssertionError:
        raise AssertionError(f"It does not come to rest.\n{await _surroundings(session, daemons)}") from None
    wrong = [line for table in tables for model in MODELS for line in await _compare(session, table, model, journal)]
    if wrong:
        raise AssertionError("\n".join([*wrong[:SHOWN], await _surroundings(session, daemons)]))


async def _compare(session: asyncpg.Connection, table: str, model: str, journal: Journal) -> list[str]:
    wanted = await _wanted(session, table, MODELS[model])
    rows = await session.fetch(
        f"SELECT content_id, chunk_index, chunk_text, owner, embedding::real[] FROM rowvec.vector_{model} "
        "WHERE content_type = $1",
        table,
    )
    held: Counter[Vector] = Counter((*tuple(row)[:4], tuple(row["embedding"])) for row in rows)
    differing = {vector[0] for vector in (wanted - held) + (held - wanted)}
    return [
        f"{table} {key}, model {model}: lacks {_of(key, wanted - held)}, must not have {_of(key, held - wanted)}; "
        f"it was written by\n{journal.of(table, int(key))}"
        for key in sorted(differing)
    ]


def _of(key: str, vectors: Counter[Vector]) -> list[Vector]:
    return [vector for vector in vectors.elements() if vector[0] == key]


async def _wanted(session: asyncpg.Connection, table: str, dimensions: int) -> Counter[Vector]:
    found = await session.fetchrow(
        "SELECT content_type, labels, template, chunking, chunk_characters, chunk_overlap FROM rowvec.source "
        "WHERE content_type = $1",
        table,
    )
    assert found is not None
    source = Source(*found)
    rows = await session.fetch(f"SELECT id::text, author, json_build_array(body)::text AS fields FROM {table}")
    return Counter(
        (row["id"], chunk.index, chunk.body, row["author"], tuple(deterministic_embedding(chunk.text, dimensions)))
        for row in rows
        for chunk in split_text(source, *render_text(source, row["fields"]))
    )


async def _surroundings(session: asyncpg.Connection, daemons: Sequence[Process]) -> str:
    queue = await session.fetch("SELECT * FROM rowvec.embedding_queue ORDER BY updated_at LIMIT 10")
    changes = await session.fetch("SELECT * FROM rowvec.change ORDER BY id LIMIT 10")
    known = await session.fetch("SELECT pid, now() - beat_at AS silent, resting FROM rowvec.daemon")
    lines = ["queue:", *map(str, queue), "changes:", *map(str, changes), "daemons:", *map(str, known)]
    return "\n".join([*lines, tails(daemons)])
