"""Many changes of one row, and changes that change nothing: the model is asked for what is needed, once."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import pytest

from daemons import GatedEmbedder, eventually, finished, is_ready, running
from rowvec.ports import Answered, Embedding, untold


class WatchedEmbedder(GatedEmbedder):
    """A model that knows which texts are inside it.

    Attributes:
        inside: the texts of all requests inside.
        most_bursts: how many requests with the word "burst" were inside at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.most_bursts = 0
        self._bursts = 0

    async def embed(self, texts: Sequence[str], answered: Answered = untold) -> Sequence[Embedding]:
        burst = any("burst" in text for text in texts)
        self._bursts += burst
        self.most_bursts = max(self.most_bursts, self._bursts)
        self.inside += texts
        try:
            return await super().embed(texts, answered)
        finally:
            self._bursts -= burst
            for text in texts:
                self.inside.remove(text)

    async def has_inside(self, word: str) -> bool:
        return any(word in text for text in self.inside)


@pytest.fixture
async def row(post: asyncpg.Connection) -> asyncpg.Connection:
    """A session beside a watched table with one row, and a column that is not watched."""
    await post.execute("ALTER TABLE post ADD views integer NOT NULL DEFAULT 0")
    await post.execute("INSERT INTO post (id, body) OVERRIDING SYSTEM VALUE VALUES (0, 'Before')")
    return post


async def body_held(session: asyncpg.Connection) -> list[str]:
    rows = await session.fetch("SELECT chunk_text FROM rowvec.vector_first WHERE content_id = '0'")
    return [row["chunk_text"] for row in rows]


async def test_an_update_of_other_columns_appends_nothing_and_sends_nothing(row: asyncpg.Connection, dsn: str) -> None:
    embedder = GatedEmbedder()
    async with running(dsn, embedder):
        await eventually(lambda: finished(row))
        async with row.transaction():
            await row.execute("UPDATE post SET views = views + 1, body = body, author = author")
            assert not await row.fetchval("SELECT count(*) FROM rowvec.change")
        await row.execute("INSERT INTO post (body) VALUES ('Witness')")
        await eventually(lambda: finished(row))
    assert embedder.texts == ["Before", "Witness"]


async def test_a_change_and_its_reversal_in_one_transaction_send_nothing(row: asyncpg.Connection, dsn: str) -> None:
    embedder = GatedEmbedder()
    async with running(dsn, embedder):
        await eventually(lambda: finished(row))
        async with row.transaction():
            await row.execute("UPDATE post SET body = 'Between'")
            await row.execute("UPDATE post SET body = 'Before'")
            assert await row.fetchval("SELECT count(*) FROM rowvec.change") == 2
        await eventually(lambda: finished(row))
        assert await body_held(row) == ["Before"]
    assert embedder.texts == ["Before"]


async def test_fifty_updates_in_one_transaction_send_one_text(row: asyncpg.Connection, dsn: str) -> None:
    embedder = GatedEmbedder()
    async with running(dsn, embedder):
        await eventually(lambda: finished(row))
        async with row.transaction():
            for n in range(50):
                await row.execute("UPDATE post SET body = $1", f"Version {n}")
        await eventually(lambda: finished(row))
        assert await body_held(row) == ["Version 49"]
    assert embedder.texts == ["Before", "Version 49"]


async def test_fifty_commits_in_a_burst_are_never_in_the_model_twice_at_once_and_the_last_wins(
    row: asyncpg.Connection, dsn: str
) -> None:
    embedder = WatchedEmbedder()
    async with running(dsn, embedder) as one, running(dsn, embedder) as other:
        await eventually(lambda: is_ready(one))
        await eventually(lambda: is_ready(other))
        await eventually(lambda: finished(row))
        for turn in range(5):
            embedder.gate.clear()
            await _commit(row, turn, range(5))
            await eventually(lambda: embedder.has_inside("burst"))
            await _commit(row, turn, range(5, 10))
            # Once a later row is inside too, the changes before it have been folded and offered.
            await row.execute("INSERT INTO post (body) VALUES ($1)", f"Witness {turn}")
            await eventually(lambda: embedder.has_inside("Witness"))
            embedder.gate.set()
            await eventually(lambda: finished(row))
            assert await body_held(row) == [f"burst {turn}.9"]
    assert embedder.most_bursts == 1
    # Of each turn: what was read when the first commits were seen, and the last.
    bursts = [text for text in embedder.texts if "burst" in text]
    assert len(bursts) == 10
    assert bursts[1::2] == [f"burst {turn}.9" for turn in range(5)]


async def _commit(session: asyncpg.Connection, turn: int, numbers: range) -> None:
    for n in numbers:
        await session.execute("UPDATE post SET body = $1 WHERE id = 0", f"burst {turn}.{n}")
