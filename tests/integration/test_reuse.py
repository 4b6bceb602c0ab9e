"""What is sent to a model again: of an edited document the chunks that changed, of what did not change nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import asyncpg
import pytest

from daemons import GatedEmbedder, eventually, finished, running
from rowvec.postgres.administration import administration

pytestmark = pytest.mark.one_postgres

SIZE: Final = 400
PARAGRAPHS: Final = [
    ("" if n % 20 else f"{'#' * (1 + n // 20 % 2)} Section {n}\n\n")
    + f"Paragraph {n} of the document. "
    + " ".join(f"Its word {n * 7919 + k * 104729}." for k in range(12 + n * 7 % 5))
    for n in range(200)
]
DOCUMENT: Final = "\n\n".join(PARAGRAPHS)
CUTS: Final = [("characters", 0), ("characters", 80), ("markdown", 0), ("markdown", 80)]

Edit = Callable[[list[str]], object]
EDITS: Final[dict[str, Edit]] = {
    "the first paragraph": lambda parts: parts.__setitem__(0, parts[0] + " And more."),
    "one in the middle": lambda parts: parts.__setitem__(100, parts[100].replace("Its word", "Another word", 1)),
    "the last one": lambda parts: parts.__setitem__(-1, parts[-1].replace("Its word", "Another word", 1)),
    "one more": lambda parts: parts.insert(50, "A new paragraph. " + "It has words of its own. " * 10),
    "one less": lambda parts: parts.pop(150),
}


@contextlib.asynccontextmanager
async def one_document(
    session: asyncpg.Connection, dsn: str, chunking: str, overlap: int
) -> AsyncIterator[GatedEmbedder]:
    """Run a daemon that has embedded one document of at least 200 chunks."""
    await session.execute(f"""
        CREATE TABLE doc (id bigint PRIMARY KEY, title text, body text, views integer NOT NULL DEFAULT 0);
        SELECT rowvec.watch('doc', 'doc', ARRAY['title', 'body'], 2, chunking => '{chunking}',
                            chunk_characters => {SIZE}, chunk_overlap => {overlap});
    """)
    embedder = GatedEmbedder()
    async with running(dsn, embedder):
        await session.execute("INSERT INTO doc VALUES (1, 'Pods', $1)", DOCUMENT)
        await eventually(lambda: finished(session))
        chunks = await session.fetchval("SELECT count(*) FROM rowvec.vector_first")
        assert len(embedder.texts) == len(set(embedder.texts)) == chunks >= 200
        yield embedder


async def sent_after(session: asyncpg.Connection, embedder: GatedEmbedder, act: Awaitable[object]) -> list[str]:
    """Do something, and return what the model was sent by then when all is embedded."""
    known = len(embedder.texts)
    await act
    await eventually(lambda: finished(session))
    return embedder.texts[known:]


def save(session: asyncpg.Connection, body: str) -> Awaitable[object]:
    return session.execute("UPDATE doc SET body = $1", body)


async def held_as(session: asyncpg.Connection, text: str) -> bool:
    """Whether the stored chunks are slices of the text at their places, and leave out nothing but white space."""
    rows = await session.fetch("SELECT chunk_start, chunk_text FROM rowvec.chunk ORDER BY chunk_index")
    covered = 0
    for start, body in rows:
        if text[start : start + len(body)] != body or text[covered:start].strip():
            return False
        covered = start + len(body)
    return covered == len(text)


def rendered(chunking: str, body: str) -> str:
    return f"title: Pods\n\nbody:\n\n{body}" if chunking == "markdown" else f"title: Pods\nbody: {body}"


@pytest.mark.parametrize(("chunking", "overlap"), CUTS)
async def test_an_edit_sends_the_chunk_that_it_changes_or_those_that_the_overlap_touches(
    app: asyncpg.Connection, dsn: str, chunking: str, overlap: int
) -> None:
    most = 3 if overlap else 1
    async with one_document(app, dsn, chunking, overlap) as embedder:
        for name, edit in EDITS.items():
            paragraphs = list(PARAGRAPHS)
            edit(paragraphs)
            edited = "\n\n".join(paragraphs)
            sent = await sent_after(app, embedder, save(app, edited))
            assert (name != "one less") <= len(sent) <= most, name
            assert await held_as(app, rendered(chunking, edited)), name
            assert len(await sent_after(app, embedder, save(app, DOCUMENT))) <= most, name
            assert await held_as(app, rendered(chunking, DOCUMENT)), name


async def test_a_changed_heading_sends_the_chunks_under_it_and_a_changed_title_all(
    app: asyncpg.Connection, dsn: str
) -> None:
    async with one_document(app, dsn, "markdown", 0) as embedder:
        sent = await sent_after(app, embedder, save(app, DOCUMENT.replace("# Section 100\n", "# Part 100\n")))
        assert 20 <= len(sent) <= 22
        assert [text for text in sent if "Part 100" not in text] == []
        sent = await sent_after(app, embedder, app.execute("UPDATE doc SET title = 'Services'"))
        assert len(sent) >= 200
        assert [text for text in sent if "Services" not in text] == []


async def test_what_did_not_change_is_not_sent_again(app: asyncpg.Connection, dsn: str) -> None:
    async with one_document(app, dsn, "markdown", 80) as embedder:
        for statement in (
            "UPDATE doc SET body = body",
            "UPDATE doc SET views = views + 1",
            "UPDATE doc SET body = body || E'\\n'",
            "SELECT rowvec.enqueue('doc', id::text) FROM doc",
        ):
            assert await sent_after(app, embedder, app.execute(statement)) == [], statement


@pytest.fixture
async def note(app: asyncpg.Connection) -> asyncpg.Connection:
    """A session beside a watched table of 300 rows that share 100 texts, of three chunks each."""
    await app.execute("""
        CREATE TABLE note (id bigint PRIMARY KEY, body text, views integer NOT NULL DEFAULT 0);
        INSERT INTO note SELECT n, repeat('Text ' || n % 100 || ' says this. ', 9) FROM generate_series(1, 300) n;
        SELECT rowvec.watch('note', 'note', ARRAY['body'], 2, '{body}', chunking => 'characters',
                            chunk_characters => 80);
    """)
    return app


def sent_by(embedders: Sequence[GatedEmbedder]) -> list[str]:
    return [text for embedder in embedders for text in embedder.texts]


async def fill_again(dsn: str) -> None:
    """Do what `rowvec backfill note --again` does."""
    async with administration(dsn) as database:
        await database.begin_backfill("note", None, again=True)


@pytest.mark.parametrize("daemons", [1, 2])
async def test_saving_all_rows_again_sends_nothing_whoever_looks_at_them(
    note: asyncpg.Connection, dsn: str, daemons: int
) -> None:
    embedders = [GatedEmbedder() for _ in range(daemons)]

    async def filled() -> bool:
        begun = await note.fetchval("SELECT NOT EXISTS (SELECT FROM rowvec.unfilled WHERE model = 'first')")
        return bool(begun) and await finished(note)

    async with contextlib.AsyncExitStack() as stack:
        for embedder in embedders:
            await stack.enter_async_context(running(dsn, embedder))
        await eventually(filled)
        sent = sent_by(embedders)
        assert set(sent) == {row[0] for row in await note.fetch("SELECT DISTINCT chunk_text FROM rowvec.vector_first")}
        await note.execute("UPDATE note SET body = body")
        await note.execute("UPDATE note SET views = views + 1")
        await note.execute("UPDATE note SET body = body || ' '")
        await eventually(filled)
        await fill_again(dsn)
        await eventually(filled)
        # The texts of rows that are there, in new rows.
        await note.execute("INSERT INTO note (id, body) SELECT id + 1000, body FROM note")
        await eventually(filled)
        assert sent_by(embedders) == sent
    assert await note.fetchval("SELECT count(DISTINCT content_id) FROM rowvec.vector_first") == 600


async def test_a_text_of_many_rows_is_sent_once(post: asyncpg.Connection, dsn: str) -> None:
    first, second = GatedEmbedder(), GatedEmbedder()
    async with running(dsn, first):
        await post.execute("INSERT INTO post (body) SELECT 'The same.' FROM generate_series(1, 40)")
        await eventually(lambda: finished(post))
        assert first.texts == ["The same."]
        async with running(dsn, second):
            await post.execute("INSERT INTO post (body) SELECT 'The same.' FROM generate_series(1, 400)")
            await eventually(lambda: finished(post))
    assert (first.texts, second.texts) == (["The same."], [])
    assert await post.fetchval("SELECT count(*) FROM rowvec.vector_first") == 440
