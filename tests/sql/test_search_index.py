"""Search through an HNSW index: the same answers as without one, for less."""

from __future__ import annotations

import random

import asyncpg
import pytest

from database import Connect

DIMENSIONS = 16
ROWS = 3000
OPERATORS = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}
Rows = list[tuple[str, str, int, float]]

FILTERS = [
    ("'ada'", 10, 10),
    ("'ada'", 50, ROWS // 100),
    ("'bob'", 10, 3),
    ("'nobody'", 10, 0),
    ("NULL, content_types => '{course}'", 10, 10),
    ("NULL, content_types => '{post}'", 10, 0),
    ("NULL, content_types => '{}'", 10, 0),
    ("'ada', content_types => '{course, post}'", 10, 10),
    ("NULL", 0, 0),
    ("NULL", 1000, 1000),
    ("NULL", ROWS - 1, ROWS - 1),
    ("NULL", None, ROWS),
]
"""Arguments of a search, how many rows it is to answer, and how many there are."""


def direction(seed: int) -> str:
    chance = random.Random(seed)  # noqa: S311 - the same in every run
    return "[" + ",".join(f"{chance.uniform(-1, 1):.4f}" for _ in range(DIMENSIONS)) + "]"


async def fill(session: asyncpg.Connection, rows: int = ROWS) -> None:
    """Store rows with random vectors of any length; every hundredth belongs to ada, the first three to bob."""
    await session.execute(
        f"""
        INSERT INTO rowvec.vector_big (content_type, content_id, chunk_index, chunk_text, chunk_hash, repeat, owner,
                                       provider_revision, prefix, embedding)
        SELECT 'course', n::text, 0, 'chunk', sha256(n::text::bytea), 0,
               CASE WHEN n <= 3 THEN 'bob' WHEN n % 100 = 0 THEN 'ada' END, 'r', '',
               (SELECT array_agg(random() - 0.5) FROM generate_series(1, {DIMENSIONS}) d WHERE n > 0)::vector
        FROM setseed(0.5), generate_series(1, {rows}) n
        """
    )
    await session.execute("ANALYZE rowvec.vector_big")


async def add_model(session: asyncpg.Connection, distance: str = "cosine", storage: str = "vector") -> None:
    await session.execute(
        f"SELECT rowvec.add_model('big', {DIMENSIONS}, distance => '{distance}', storage => '{storage}')"
    )


async def create_index(session: asyncpg.Connection, opclass: str = "vector_cosine_ops") -> None:
    await session.execute(f"CREATE INDEX big_embedding ON rowvec.vector_big USING hnsw (embedding {opclass})")


async def find(session: asyncpg.Connection, query: str, arguments: str = "NULL", limit: int | None = 10) -> Rows:
    rows = await session.fetch(
        f"""
        SELECT * FROM rowvec.search('', $1::text::vector, owner => {arguments}, model => 'big', max_results => $2)
        """,
        *(query, limit),
    )
    return [(row["content_type"], row["content_id"], row["chunk_index"], round(row["score"], 5)) for row in rows]


def score(distance: str, value: float) -> float:
    return {"cosine": 1 - value, "l2": 1 / (1 + value), "ip": -value}[distance]


async def has_index(session: asyncpg.Connection) -> bool:
    return bool(await session.fetchval("SELECT rowvec.has_search_index(m) FROM rowvec.model m WHERE name = 'big'"))


async def scans(session: asyncpg.Connection) -> int:
    """How often the index was gone through."""
    return (await read(session))["index_scans"]


async def read(session: asyncpg.Connection) -> dict[str, int]:
    """What was read of the model's table: through its index for searches, through its others, and as a whole."""
    await session.execute("SELECT pg_stat_force_next_flush()")
    row = await session.fetchrow("""
        SELECT coalesce(sum(i.idx_scan) FILTER (WHERE i.indexrelname = 'big_embedding'), 0)::integer AS index_scans,
               coalesce(sum(i.idx_tup_read) FILTER (WHERE i.indexrelname = 'big_embedding'), 0)::integer AS index_rows,
               coalesce(sum(i.idx_scan) FILTER (WHERE i.indexrelname <> 'big_embedding'), 0)::integer AS other_scans,
               (SELECT t.seq_scan FROM pg_stat_user_tables t WHERE t.relname = 'vector_big')::integer AS table_scans
        FROM pg_stat_user_indexes i WHERE i.relname = 'vector_big'
    """)
    assert row is not None
    return dict(row)


async def read_by(session: asyncpg.Connection, arguments: str = "NULL", limit: int = 10) -> dict[str, int]:
    """What one search reads."""
    before = await read(session)
    assert len(await find(session, direction(1), arguments, limit)) == limit
    return {name: count - before[name] for name, count in (await read(session)).items()}


@pytest.fixture
async def big(app: asyncpg.Connection) -> asyncpg.Connection:
    """A session beside a model `big` of thousands of rows, without an index."""
    await add_model(app)
    await fill(app)
    return app


@pytest.mark.parametrize("storage", ["vector", "halfvec"])
@pytest.mark.parametrize("distance", ["cosine", "l2", "ip"])
async def test_every_distance_and_storage_is_ordered_and_scored_alike_with_and_without_an_index(
    app: asyncpg.Connection, distance: str, storage: str
) -> None:
    await add_model(app, distance, storage)
    await fill(app)
    exact = [await find(app, direction(seed)) for seed in range(5)]
    for seed, rows in enumerate(exact):
        assert [row[3] for row in rows] == sorted((row[3] for row in rows), reverse=True)
        nearest = await app.fetch(
            f"""
            SELECT content_id, embedding {OPERATORS[distance]} $1::text::{storage} AS distance FROM rowvec.vector_big
            ORDER BY 2 LIMIT 10
            """,
            direction(seed),
        )
        assert [row[1] for row in rows] == [row["content_id"] for row in nearest]
        assert [row[3] for row in rows] == [round(score(distance, row["distance"]), 5) for row in nearest]
    await create_index(app, f"{storage}_{distance}_ops")
    assert await has_index(app)
    before = await scans(app)
    found = [await find(app, direction(seed)) for seed in range(5)]
    assert await scans(app) == before + 5
    same = sum(len({*one} & {*other}) for one, other in zip(exact, found, strict=True))
    assert same >= 45, "nearly all of 50"


async def test_it_goes_through_the_index_alone(big: asyncpg.Connection) -> None:
    await create_index(big)
    alone = {"index_scans": 1, "index_rows": 40, "other_scans": 0, "table_scans": 0}
    assert await read_by(big) == alone
    assert await read_by(big, "NULL, content_types => '{course}'") == alone


async def test_vectors_outside_of_their_table_do_not_tempt_the_planner(app: asyncpg.Connection) -> None:
    # The table itself is small then, and reading it all seems cheap, though its vectors are elsewhere.
    await add_model(app)
    await app.execute("ALTER TABLE rowvec.vector_big ALTER embedding SET STORAGE EXTERNAL")
    await app.execute("ALTER TABLE rowvec.vector_big SET (toast_tuple_target = 128)")
    await fill(app)
    await create_index(app)
    assert await read_by(app, limit=300) == {"index_scans": 1, "index_rows": 1200, "other_scans": 0, "table_scans": 0}


async def test_an_index_that_comes_or_goes_is_seen_by_open_sessions(big: asyncpg.Connection, connect: Connect) -> None:
    session = await connect()
    prepared = await session.prepare("SELECT content_id FROM rowvec.search('', $1::text::vector, NULL, model => 'big')")
    without = [row["content_id"] for row in await prepared.fetch(direction(1))]
    await create_index(big)
    assert [row["content_id"] for row in await prepared.fetch(direction(1))] == without
    assert await scans(session) == 1
    await big.execute("DROP INDEX rowvec.big_embedding")
    assert [row["content_id"] for row in await prepared.fetch(direction(1))] == without


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX big_embedding ON rowvec.vector_big USING hnsw (embedding vector_l2_ops)",
        "CREATE INDEX big_embedding ON rowvec.vector_big USING hnsw (embedding vector_cosine_ops) WHERE owner = 'ada'",
        "CREATE INDEX big_embedding ON rowvec.vector_big USING hnsw ((embedding::halfvec(16)) halfvec_cosine_ops)",
        "CREATE INDEX big_embedding ON rowvec.vector_big USING ivfflat (embedding vector_cosine_ops) WITH (lists = 10)",
        """
        CREATE INDEX big_embedding ON rowvec.vector_big USING hnsw (embedding vector_cosine_ops);
        UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'rowvec.big_embedding'::regclass
        """,
    ],
)
async def test_an_index_that_does_not_fit_is_not_counted(big: asyncpg.Connection, statement: str) -> None:
    exact = await find(big, direction(1))
    await big.execute(f"SET client_min_messages = error; {statement}")
    assert not await has_index(big)
    assert await find(big, direction(1)) == exact
    assert await scans(big) == 0


# --- As many rows as there are --------------------------------------------------------------------------


@pytest.mark.parametrize("tuples", [1, 20000])
async def test_a_filter_never_makes_it_answer_less(big: asyncpg.Connection, tuples: int) -> None:
    """Also where the index gives up early, and the planner has no other choice."""
    await big.execute(f"SET hnsw.max_scan_tuples = {tuples}; SET enable_seqscan = off")
    exact = [await find(big, direction(1), arguments, limit) for arguments, limit, _ in FILTERS]
    assert [len(rows) for rows in exact] == [rows for _, _, rows in FILTERS]
    await create_index(big)
    for (arguments, limit, rows), nearest in zip(FILTERS, exact, strict=True):
        found = await find(big, direction(1), arguments, limit)
        assert len({row[:2] for row in found}) == len(found) == rows
        assert len({*found} & {*nearest}) >= 0.8 * rows


async def test_the_chunks_of_one_long_row_hide_no_other(big: asyncpg.Connection) -> None:
    await big.execute(
        """
        INSERT INTO rowvec.vector_big (content_type, content_id, chunk_index, chunk_text, chunk_hash, repeat,
                                       provider_revision, prefix, embedding)
        SELECT 'course', 'long', c, 'near', sha256(c::text::bytea), 1, 'r', '',
               $1::text::vector + array_fill(c / 100000.0, ARRAY[16])::vector
        FROM generate_series(0, 499) c
        """,
        direction(1),
    )
    exact = await find(big, direction(1))
    assert exact[0][1:3] == ("long", 0)
    await create_index(big)
    before = await read(big)
    found = await find(big, direction(1))
    assert [row[1] for row in found] == [row[1] for row in exact]
    after = await read(big)
    assert after["index_scans"] > before["index_scans"] + 1, "once more, for more chunks"
    assert after["table_scans"] == before["table_scans"], "and not through all of them"


async def test_rows_alike_come_in_a_fixed_order(app: asyncpg.Connection) -> None:
    await add_model(app)
    await fill(app, 30)
    await app.execute("UPDATE rowvec.vector_big SET embedding = $1::text::vector", direction(1))
    exact = await find(app, direction(1))
    await create_index(app)
    assert await find(app, direction(1)) == exact


async def test_the_settings_of_the_session_stay_as_they_were(big: asyncpg.Connection) -> None:
    await create_index(big)
    names = ("hnsw.iterative_scan", "hnsw.ef_search", "enable_sort")
    await big.execute("SET hnsw.ef_search = 77")
    async with big.transaction():
        before = [await big.fetchval(f"SHOW {name}") for name in names]
        await find(big, direction(1))
        assert [await big.fetchval(f"SHOW {name}") for name in names] == before == ["off", "77", "on"]
    assert [await big.fetchval(f"SHOW {name}") for name in names] == before


async def test_searches_go_on_where_nothing_can_be_written(big: asyncpg.Connection) -> None:
    await create_index(big)
    found = await find(big, direction(1))
    async with big.transaction(readonly=True, isolation="repeatable_read"):
        assert await find(big, direction(1)) == found
