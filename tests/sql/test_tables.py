"""Every kind of table: keys, partitions, inheritance, conditions, text functions, TRUNCATE, pause and resume."""

from __future__ import annotations

import asyncio
from typing import Literal

import asyncpg
import pytest

from database import MAJOR, Connect
from rowvec.domain.errors import SourceUnreadableError, TextRejectedError
from rowvec.domain.items import Floors
from worker import EVER, Worker

Isolation = Literal["read_committed", "repeatable_read", "serializable"]


async def changes(session: asyncpg.Connection) -> list[tuple[str | None, str]]:
    """What was appended, by a backfill for each model alike, which counts as one; forgotten at once."""
    rows = await session.fetch("DELETE FROM rowvec.change RETURNING id, content_id, kind, model")
    kept = sorted((row for row in rows if row["model"] != "second"), key=lambda row: row["id"])
    return [(row["content_id"], row["kind"]) for row in kept]


async def texts(session: asyncpg.Connection) -> dict[str, str]:
    """What search would find: the one chunk of each row."""
    rows = await session.fetch("SELECT content_id, chunk_text FROM rowvec.vector_first")
    assert len({row["content_id"] for row in rows}) == len(rows)
    return {row["content_id"]: row["chunk_text"] for row in rows}


async def fill(worker: Worker) -> None:
    """Do all the work there is, in the background too, as daemons would."""
    while True:
        await worker.settle()
        unfilled = await worker.unfilled()
        if not unfilled:
            return
        for content_type in unfilled:
            await worker.append_page(content_type)


async def watch(session: asyncpg.Connection, call: str) -> None:
    assert await session.fetchval(f"SELECT rowvec.watch({call})")


# --- Keys ------------------------------------------------------------------------------------------------

PAIRS = """
    CREATE TYPE kind AS ENUM ('a "quoted" kind', 'b');
    CREATE DOMAIN number AS integer;
    CREATE TABLE pair (tenant number, name text, kind kind, body text, PRIMARY KEY (kind, tenant, name));
    INSERT INTO pair VALUES (1, 'first, of [all]', 'b', 'One'), (10, '', 'b', 'Two'),
                            (2, '"{\\', 'a "quoted" kind', 'Three');
"""
ONE, TWO, THREE = '["b", 1, "first, of [all]"]', '["b", 10, ""]', '["a \\"quoted\\" kind", 2, "\\"{\\\\"]'


async def test_a_key_of_several_columns_is_a_json_array(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute(PAIRS)
    await watch(app, "'pair', 'pair', ARRAY['body'], template => '{body}'")
    await fill(worker)
    assert await texts(app) == {ONE: "One", TWO: "Two", THREE: "Three"}
    await app.execute("UPDATE pair SET body = 'Uno' WHERE tenant = 1")
    assert await changes(app) == [(ONE, "write")]
    await app.execute("UPDATE pair SET tenant = 11 WHERE tenant = 10")
    assert await changes(app) == [(TWO, "remove"), (TWO.replace("10", "11"), "write")]
    await app.execute("DELETE FROM pair WHERE tenant = 2")
    assert await changes(app) == [(THREE, "remove")]
    assert await texts(app) == {ONE: "One"}


@pytest.mark.parametrize(
    ("given", "canonical"),
    [(ONE, ONE), ('["b",1,"first, of [all]"]', ONE), ('["b", "01", "first, of [all]"]', ONE)],
)
async def test_an_asked_for_id_is_written_as_the_key_is(
    app: asyncpg.Connection, worker: Worker, given: str, canonical: str
) -> None:
    await app.execute(PAIRS)
    await watch(app, "'pair', 'pair', ARRAY['body'], template => '{body}'")
    await app.execute("SELECT rowvec.enqueue('pair', $1)", given)
    assert [tuple(row) for row in await app.fetch("SELECT content_id FROM rowvec.change")] == [(canonical,)]
    await worker.settle()
    assert await texts(app) == {ONE: "One"}


@pytest.mark.parametrize(
    "given", ["1", "[]", '["b", 1]', '["b", 1, "x", 2]', '["no", 1, "x"]', '["b", "x", "x"]', "[", "{}"]
)
async def test_an_asked_for_id_that_is_no_key_is_refused(app: asyncpg.Connection, given: str) -> None:
    await app.execute(PAIRS)
    await watch(app, "'pair', 'pair', ARRAY['body']")
    with pytest.raises(asyncpg.PostgresError, match="is no key of") as caught:
        await app.execute("SELECT rowvec.enqueue('pair', $1)", given)
    assert caught.value.sqlstate == "RV001"


@pytest.mark.parametrize("given", ["x", "[1]", '["b", 1, "x", 2]x'])
async def test_an_id_that_is_no_key_fails_alone(app: asyncpg.Connection, worker: Worker, given: str) -> None:
    # Nobody but an owner with his hands in our tables can write one.
    await app.execute(PAIRS)
    await app.execute("CREATE TABLE single (id bigint PRIMARY KEY, body text)")
    await watch(app, "'pair', 'pair', ARRAY['body']")
    await watch(app, "'single', 'single', ARRAY['body']")
    for content_type, bad in (("pair", given), ("single", "x")):
        with pytest.raises(TextRejectedError, match="The content id is no key of its table"):
            await worker.reader.read(content_type, [bad])


async def test_a_unique_key_serves_where_there_is_no_primary_one(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("""
        CREATE TABLE tag (slug text NOT NULL, region text NOT NULL, body text, code integer UNIQUE);
        CREATE UNIQUE INDEX ON tag (slug, region) INCLUDE (body);
        INSERT INTO tag VALUES ('s', 'r', 'One');
    """)
    await watch(app, "'tag', 'tag', ARRAY['body'], template => '{body}'")
    await fill(worker)
    assert await texts(app) == {'["s", "r"]': "One"}


async def test_of_several_keys_the_one_that_is_named_serves(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("CREATE TABLE post (id bigint PRIMARY KEY, slug text NOT NULL UNIQUE, body text)")
    await app.execute("INSERT INTO post VALUES (1, 'hello', 'One')")
    await watch(app, "'post', 'post', ARRAY['body'], template => '{body}'")
    await fill(worker)
    assert await texts(app) == {"1": "One"}
    # Other ids: nothing of the old ones stays.
    await watch(app, "'post', 'post', ARRAY['body'], template => '{body}', key => ARRAY['slug']")
    assert await texts(app) == {}
    await fill(worker)
    assert await texts(app) == {"hello": "One"}


@pytest.mark.parametrize("key", ["0", "-9223372036854775808"])
async def test_a_long_page_of_pairs_comes_in_order(app: asyncpg.Connection, worker: Worker, key: str) -> None:
    await app.execute(f"""
        CREATE TABLE pair (a bigint, b text, body text, PRIMARY KEY (a, b));
        INSERT INTO pair SELECT {key} + n % 7, 'b' || n, 'Body' FROM generate_series(1, 2500) n;
    """)
    await watch(app, "'pair', 'pair', ARRAY['body']")
    assert [await worker.append_page("pair") for _ in range(4)] == [1000, 1000, 500, 0]
    wanted = await app.fetch("SELECT jsonb_build_array(a, b)::text AS id FROM pair ORDER BY a, b")
    assert await changes(app) == [(row["id"], "write") for row in wanted]


# --- Columns ---------------------------------------------------------------------------------------------


async def test_enums_and_domains_of_other_schemas_are_text(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("""
        CREATE SCHEMA types;
        CREATE TYPE types.mood AS ENUM ('sad', 'happy');
        CREATE DOMAIN types.title AS varchar(20) CHECK (VALUE <> 'x');
        CREATE DOMAIN types.titles AS types.title[];
        CREATE DOMAIN types.facts AS jsonb;
        CREATE TABLE post (id bigint PRIMARY KEY, mood types.mood, moods types.mood[], title types.title,
                           titles types.titles, facts types.facts);
    """)
    await watch(
        app, "'post', 'post', ARRAY['mood', 'moods', 'title', 'titles', 'facts'], condition => $$mood = 'happy'$$"
    )
    await app.execute("""
        INSERT INTO post VALUES (1, 'happy', '{sad,happy}', 'T', '{a,b}', '{"k": [1]}');
        INSERT INTO post VALUES (2, 'sad', '{}', 'T', '{}', 'null');
    """)
    await worker.settle()
    assert await texts(app) == {"1": "mood: happy\nmoods: sad, happy\ntitle: T\ntitles: a, b\nfacts: k: 1"}


@pytest.mark.parametrize("kind", ["STORED", "VIRTUAL"])
async def test_generated_columns_are_watched(app: asyncpg.Connection, worker: Worker, kind: str) -> None:
    if kind == "VIRTUAL" and MAJOR < 18:
        pytest.skip("virtual columns came with Postgres 18")
    await app.execute(f"""
        CREATE TABLE post (id bigint PRIMARY KEY, first text, last text, other text,
                           name text GENERATED ALWAYS AS (first || ' ' || last) {kind})
    """)
    await watch(app, "'post', 'post', ARRAY['name'], template => '{name}', condition => $$name <> 'No One'$$")
    await app.execute("INSERT INTO post VALUES (1, 'Ada', 'Byron'), (2, 'No', 'One')")
    await worker.settle()
    assert await texts(app) == {"1": "Ada Byron"}
    await app.execute("UPDATE post SET other = 'x'")
    assert await changes(app) == []
    await app.execute("UPDATE post SET last = 'Lovelace' WHERE id = 1")
    assert await changes(app) == [("1", "write")]
    await app.execute("UPDATE post SET first = 'No', last = 'One' WHERE id = 1")
    assert await changes(app) == [("1", "remove")]


# --- Partitions and inheritance --------------------------------------------------------------------------

PARTED = """
    CREATE TABLE post (id bigint, region text, body text, author text, PRIMARY KEY (id, region))
        PARTITION BY LIST (region);
    CREATE TABLE post_north PARTITION OF post FOR VALUES IN ('north');
    CREATE TABLE post_rest PARTITION OF post DEFAULT PARTITION BY RANGE (id);
    CREATE TABLE post_rest_low PARTITION OF post_rest FOR VALUES FROM (0) TO (100);
"""


async def test_partitions_are_watched_whichever_way_they_are_written(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute(PARTED)
    await app.execute("INSERT INTO post VALUES (1, 'north', 'Old')")
    await watch(app, "'post', 'post', ARRAY['body'], template => '{body}', owner_column => 'author'")
    await app.execute("""
        INSERT INTO post VALUES (2, 'south', 'Through the root');
        INSERT INTO post_rest_low VALUES (3, 'west', 'Into the leaf');
        CREATE TABLE post_rest_high PARTITION OF post_rest FOR VALUES FROM (100) TO (1000);
        INSERT INTO post VALUES (100, 'east', 'Into a new one');
    """)
    await fill(worker)
    assert await texts(app) == {
        '[1, "north"]': "Old",
        '[2, "south"]': "Through the root",
        '[3, "west"]': "Into the leaf",
        '[100, "east"]': "Into a new one",
    }
    await app.execute("UPDATE post_rest_low SET body = 'In the leaf' WHERE id = 3")
    assert await changes(app) == [('[3, "west"]', "write")]
    # The row moves to another partition: no UPDATE trigger fires, but those of DELETE and INSERT.
    await app.execute("UPDATE post SET region = 'north' WHERE id = 2")
    assert await changes(app) == [('[2, "south"]', "remove"), ('[2, "north"]', "write")]
    await app.execute("DELETE FROM post WHERE id = 100; DELETE FROM post_north WHERE id = 1")
    assert await changes(app) == [('[100, "east"]', "remove"), ('[1, "north"]', "remove")]
    assert set(await texts(app)) == {'[3, "west"]'}
    await app.execute("TRUNCATE post")
    assert await texts(app) == {}


async def test_one_partition_can_be_watched_alone(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute(PARTED)
    await watch(app, "'post_north', 'north', ARRAY['body'], template => '{body}'")
    await app.execute("INSERT INTO post VALUES (1, 'north', 'One'), (1, 'south', 'Other')")
    await app.execute("INSERT INTO post_north VALUES (2, 'north', 'Two')")
    await worker.settle()
    assert await texts(app) == {'[1, "north"]': "One", '[2, "north"]': "Two"}
    await app.execute("UPDATE post SET region = 'south' WHERE id = 2")
    await app.execute("DELETE FROM post WHERE id = 1")
    assert await texts(app) == {}


async def test_inherited_tables_are_watched_as_one(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("""
        CREATE TABLE post (id bigint PRIMARY KEY, body text);
        CREATE TABLE news (PRIMARY KEY (id)) INHERITS (post);
        CREATE TABLE flash (PRIMARY KEY (id)) INHERITS (news);
        INSERT INTO flash VALUES (1, 'Old');
    """)
    await watch(app, "'post', 'post', ARRAY['body'], template => '{body}'")
    await app.execute("INSERT INTO post VALUES (2, 'Post'); INSERT INTO news VALUES (3, 'News')")
    await fill(worker)
    assert await texts(app) == {"1": "Old", "2": "Post", "3": "News"}
    await app.execute("UPDATE post SET body = body || '!'")
    assert sorted(await changes(app)) == [("1", "write"), ("2", "write"), ("3", "write")]
    await app.execute("UPDATE ONLY news SET id = 30; DELETE FROM post WHERE id < 3")
    assert sorted(await changes(app)) == [("1", "remove"), ("2", "remove"), ("3", "remove"), ("30", "write")]
    await worker.settle()
    # TRUNCATE of a child takes the rows of the others out too, for a moment: they are queued again.
    await app.execute("INSERT INTO post VALUES (4, 'Stays')")
    await worker.settle()
    await app.execute("TRUNCATE news")
    await fill(worker)
    assert await texts(app) == {"4": "Stays"}


async def test_a_table_that_joins_the_tree_later_is_noticed(app: asyncpg.Connection) -> None:
    await app.execute("CREATE TABLE post (id bigint PRIMARY KEY, body text); CREATE TABLE news () INHERITS (post)")
    await watch(app, "'post', 'post', ARRAY['body']")
    missing = "SELECT array_agg(m) FROM rowvec.source s, rowvec.missing_triggers(s) m"
    assert await app.fetchval(missing) is None
    await app.execute("CREATE TABLE late () INHERITS (news)")
    assert "rowvec_insert_post on public.late" in await app.fetchval(missing)
    await watch(app, "'post', 'post', ARRAY['body']")
    assert await app.fetchval(missing) is None


# --- Conditions ------------------------------------------------------------------------------------------


@pytest.fixture
async def article(app: asyncpg.Connection) -> asyncpg.Connection:
    await app.execute(
        "CREATE TABLE article (id bigint PRIMARY KEY, body text, published boolean, author text, views integer)"
    )
    await watch(app, "'article', 'article', ARRAY['body'], 2, '{body}', 'author', condition => 'published'")
    return app


async def test_only_rows_that_meet_the_condition_are_embedded(article: asyncpg.Connection, worker: Worker) -> None:
    await article.execute("INSERT INTO article VALUES (1, 'One', true), (2, 'Two', false), (3, 'Three', NULL)")
    await worker.settle()
    assert await texts(article) == {"1": "One"}
    await article.execute("UPDATE article SET body = body || '!' WHERE id > 1")
    await article.execute("UPDATE article SET id = id + 10, author = 'ada' WHERE id > 1")
    assert await changes(article) == []
    await article.execute("UPDATE article SET published = true WHERE id = 12")
    assert await changes(article) == [("12", "write")]


async def test_a_row_that_loses_its_condition_leaves_at_once(article: asyncpg.Connection, worker: Worker) -> None:
    await article.execute("INSERT INTO article VALUES (1, 'One', true), (2, 'Two', true)")
    await worker.fold()
    claim = await worker.claim(content_type="article")
    documents = await worker.read(claim)
    await article.execute("UPDATE article SET published = NULL, body = 'Draft' WHERE id = 1")
    assert (await worker.store(claim, documents)).refused  # a late store must not bring it back
    await worker.settle()
    assert await texts(article) == {"2": "Two"}
    await article.execute("UPDATE article SET published = false WHERE id = 2")
    assert await texts(article) == {}
    assert await changes(article) == [("2", "remove")]


async def test_a_removal_of_what_was_never_embedded_harms_nothing(article: asyncpg.Connection, worker: Worker) -> None:
    await article.execute("INSERT INTO article VALUES (1, 'One', false)")
    await worker.settle()
    await article.execute("DELETE FROM article")
    await worker.settle()
    assert await texts(article) == {}


async def test_renaming_a_column_of_the_condition_breaks_nothing(article: asyncpg.Connection, worker: Worker) -> None:
    await article.execute("INSERT INTO article VALUES (1, 'One', true)")
    await article.execute("ALTER TABLE article RENAME COLUMN published TO visible")
    await article.execute("INSERT INTO article VALUES (2, 'Two', true), (3, 'Three', false)")
    await fill(worker)
    assert await texts(article) == {"1": "One", "2": "Two"}
    await article.execute("UPDATE article SET visible = NOT visible")
    assert sorted(await changes(article)) == [("1", "remove"), ("2", "remove"), ("3", "write")]


async def test_a_new_condition_queues_what_it_lets_in(article: asyncpg.Connection, worker: Worker) -> None:
    await article.execute("""
        INSERT INTO article SELECT n, 'Body ' || n, n % 2 = 0, NULL, n FROM generate_series(1, 2500) n
    """)
    await fill(worker)
    held = await texts(article)
    assert len(held) == 1250
    await watch(
        article, "'article', 'article', ARRAY['body'], 2, '{body}', 'author', condition => 'views % 4 IN (0, 1)'"
    )
    while await worker.unfilled():
        await worker.append_page("article")
    asked = await changes(article)
    assert {key for key, kind in asked if kind == "write"} == {str(n) for n in range(1, 2501, 4)}
    assert {key for key, kind in asked if kind == "remove"} == {str(n) for n in range(2, 2501, 4)}
    assert len(asked) == 1250


async def test_a_condition_that_calls_a_function_is_checked_as_the_writer_will(
    app: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await app.execute("""
        CREATE TABLE post (id bigint PRIMARY KEY, body text);
        CREATE FUNCTION is_good(body text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
            'BEGIN RETURN body LIKE $$G%$$; END';
        CREATE ROLE rowvec_test_guest;
        GRANT SELECT, INSERT, UPDATE ON post TO rowvec_test_guest;
    """)
    try:
        await watch(app, "'post', 'post', ARRAY['body'], 2, '{body}', condition => 'public.is_good(body)'")
        guest = await connect()
        await guest.execute("SET ROLE rowvec_test_guest")
        await guest.execute("INSERT INTO post VALUES (1, 'Good'), (2, 'Bad')")
        await worker.settle()
        assert await texts(app) == {"1": "Good"}
        await guest.execute("UPDATE post SET body = 'Worse' WHERE id = 1")
        assert await texts(app) == {}
        await guest.close()
    finally:
        await app.execute("DROP OWNED BY rowvec_test_guest; DROP ROLE rowvec_test_guest")


# --- Text functions --------------------------------------------------------------------------------------

THREAD = """
    CREATE TABLE post (id bigint PRIMARY KEY, title text);
    CREATE TABLE comment (id bigint PRIMARY KEY, post_id bigint, body text, votes integer);
    CREATE FUNCTION post_text(post) RETURNS text STABLE LANGUAGE sql SET search_path = public AS $$
        SELECT concat_ws(E'\n', $1.title,
                         (SELECT string_agg(body, E'\n' ORDER BY id) FROM comment WHERE post_id = $1.id))
    $$;
    INSERT INTO post VALUES (1, 'One'), (2, 'Two');
"""
DEPENDS = """'[{"table": "comment", "columns": ["body"], "content_id": "post_id"}]'"""


@pytest.fixture
async def thread(app: asyncpg.Connection) -> asyncpg.Connection:
    await app.execute(THREAD)
    await app.execute(
        f"SELECT rowvec.watch('post', 'post', ARRAY['title'], 2, text_function => 'post_text', depends_on => {DEPENDS})"
        .replace('"comment"', '"public.comment"')
    )  # fmt: skip
    return app


async def test_a_text_function_makes_the_text_of_other_tables_too(thread: asyncpg.Connection, worker: Worker) -> None:
    await thread.execute("INSERT INTO comment VALUES (1, 1, 'Nice'), (2, 1, 'Great'), (3, 2, 'Hm'), (4, NULL, 'Lost')")
    assert sorted(await changes(thread)) == [("1", "write"), ("2", "write")]
    await fill(worker)
    assert await texts(thread) == {"1": "One\nNice\nGreat", "2": "Two\nHm"}
    await thread.execute("UPDATE comment SET votes = 1")
    assert await changes(thread) == []
    await thread.execute("UPDATE comment SET body = 'Bad' WHERE id = 2")
    assert await changes(thread) == [("1", "write")]
    await thread.execute("UPDATE comment SET post_id = 1 WHERE id = 3")
    assert sorted(await changes(thread)) == [("1", "write"), ("2", "write")]
    await thread.execute("DELETE FROM comment WHERE id = 1")
    await thread.execute("UPDATE post SET title = 'Uno' WHERE id = 1")
    assert await changes(thread) == [("1", "write"), ("1", "write")]


async def test_truncating_what_a_text_depends_on_queues_all_rows(thread: asyncpg.Connection, worker: Worker) -> None:
    await thread.execute("INSERT INTO comment VALUES (1, 1, 'Nice'), (3, 2, 'Hm')")
    await fill(worker)
    await thread.execute("TRUNCATE comment")
    await fill(worker)
    assert await texts(thread) == {"1": "One", "2": "Two"}


async def test_a_text_that_can_not_be_made_fails_alone(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("""
        CREATE TABLE post (id bigint PRIMARY KEY, size integer);
        CREATE FUNCTION post_text(post) RETURNS text STABLE LANGUAGE sql AS 'SELECT (1 / $1.size)::text';
        INSERT INTO post VALUES (1, 1), (2, 0);
    """)
    await watch(app, "'post', 'post', text_function => 'post_text'")
    with pytest.raises(TextRejectedError, match=r"The text of the row can't be made.*division by zero"):
        await worker.reader.read("post", ["1", "2"])
    found = await worker.reader.read("post", ["1"])
    assert found is not None
    assert found[1][0].fields == '["1"]'


async def test_a_key_of_several_columns_can_be_depended_on(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("""
        CREATE TABLE page (site bigint, path text, PRIMARY KEY (site, path));
        CREATE TABLE part (site bigint, path text, body text);
        CREATE FUNCTION page_text(page) RETURNS text STABLE LANGUAGE sql AS
            'SELECT string_agg(body, $$ $$) FROM public.part WHERE (site, path) = ($1.site, $1.path)';
    """)
    await app.execute("""
        SELECT rowvec.watch('page', 'page', text_function => 'page_text', depends_on => '[{"table": "public.part",
            "columns": ["body"], "content_id": ["site", "path"]}]')
    """)
    await app.execute("INSERT INTO page VALUES (1, '/a'); INSERT INTO part VALUES (1, '/a', 'Hello')")
    await worker.settle()
    await worker.append_page("page")
    await worker.settle()
    assert await texts(app) == {'[1, "/a"]': "Hello"}


# --- TRUNCATE --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_truncated_rows_leave_search(course: asyncpg.Connection, worker: Worker, isolation: Isolation) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One'), (2, 'Two')")
    await fill(worker)
    async with course.transaction(isolation=isolation):
        await course.execute("TRUNCATE course")
        await course.execute("INSERT INTO course (id, title) VALUES (2, 'Zwei'), (3, 'Drei')")
    if isolation == "read_committed":
        assert await texts(course) == {}
    await fill(worker)
    assert await texts(course) == {"2": "title: Zwei", "3": "title: Drei"}


async def test_a_truncation_that_is_rolled_back_changes_nothing(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await fill(worker)
    transaction = course.transaction()
    await transaction.start()
    await course.execute("TRUNCATE course")
    await transaction.rollback()
    assert await changes(course) == []
    assert await texts(course) == {"1": "title: One"}


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read"])
async def test_a_store_under_way_does_not_bring_truncated_rows_back(
    course: asyncpg.Connection, worker: Worker, isolation: Isolation
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One'), (2, 'Two')")
    await worker.fold()
    claim = await worker.claim()
    documents = await worker.read(claim)
    async with course.transaction(isolation=isolation):
        await course.execute("TRUNCATE course")
    await worker.fold()
    assert (await worker.store(claim, documents)).refused
    await fill(worker)
    assert await texts(course) == {}


async def test_a_store_that_came_before_the_fold_of_a_truncation_is_swept_away(
    course: asyncpg.Connection, worker: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One'), (2, 'Two')")
    await worker.fold()
    claim = await worker.claim()
    documents = await worker.read(claim)
    async with course.transaction(isolation="repeatable_read"):
        await course.execute("TRUNCATE course")
        await course.execute("INSERT INTO course (id, title) VALUES (2, 'Two')")
    await worker.store(claim, documents)
    assert set(await texts(course)) == {"1", "2"}
    await fill(worker)
    assert await texts(course) == {"2": "title: Two"}


async def test_the_fold_of_a_truncation_waits_for_no_store(
    course: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await worker.fold()
    await worker.claim()
    storing = await connect()
    async with storing.transaction():
        await storing.execute("SELECT FROM rowvec.embedding_queue FOR UPDATE")
        async with course.transaction(isolation="repeatable_read"):
            await course.execute("TRUNCATE course")
        await worker.fold()
        assert await course.fetchval("SELECT count(*) FROM rowvec.change WHERE content_id IS NULL") == 1
    await worker.fold()
    assert await course.fetchval("SELECT count(*) FROM rowvec.change WHERE content_id IS NULL") == 0
    assert await course.fetchval("SELECT count(*) FROM rowvec.embedding_queue WHERE token IS NOT NULL") == 0


async def test_truncating_stops_at_no_item_of_another_source(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("CREATE TABLE note (id bigint PRIMARY KEY, body text)")
    await watch(course, "'note', 'note', ARRAY['body'], 2")
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One'); INSERT INTO note VALUES (1, 'Note')")
    await worker.fold()
    claim = await worker.claim(content_type="note")
    await course.execute("TRUNCATE course")
    assert (await worker.store(claim, await worker.read(claim))).current
    await fill(worker)
    assert await texts(course) == {"1": "body: Note"}


# --- Isolation, savepoints, two-phase commit -------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_each_isolation_level_ends_with_the_current_texts(
    course: asyncpg.Connection, worker: Worker, isolation: Isolation
) -> None:
    await course.execute(
        "INSERT INTO course (id, title, teacher) VALUES (1, 'One', 'ada'), (2, 'Two', 'ada'), (3, 'X', 'a')"
    )
    await fill(worker)
    async with course.transaction(isolation=isolation):
        await course.execute("UPDATE course SET title = 'Uno' WHERE id = 1")
        await course.execute("UPDATE course SET id = 4 WHERE id = 2")
        await course.execute("DELETE FROM course WHERE id = 3")
        await course.execute("INSERT INTO course (id, title) VALUES (2, 'New')")
    await fill(worker)
    assert await texts(course) == {"1": "title: Uno", "2": "title: New", "4": "title: Two"}


async def test_two_phase_commit_works_without_notify(
    course: asyncpg.Connection, worker: Worker, connect: Connect
) -> None:
    if await course.fetchval("SELECT current_setting('max_prepared_transactions') = '0'"):
        pytest.skip("max_prepared_transactions is 0 here")
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One'), (2, 'Two')")
    await fill(worker)
    with pytest.raises(asyncpg.PostgresError, match="cannot PREPARE a transaction"):
        await course.execute("BEGIN; UPDATE course SET title = 'x'; PREPARE TRANSACTION 'a'")
    await course.execute("ROLLBACK")
    await course.execute("SELECT rowvec.watch('course', 'course', ARRAY['title'], 2, notify => false)")
    await fill(worker)
    await course.execute("""
        BEGIN;
        DELETE FROM course WHERE id = 1;
        UPDATE course SET title = 'Zwei' WHERE id = 2;
        INSERT INTO course (id, title) VALUES (3, 'Drei');
        PREPARE TRANSACTION 'rowvec_test';
    """)
    await fill(worker)
    assert await texts(course) == {"1": "title: One", "2": "title: Two"}
    other = await connect()
    await other.execute("COMMIT PREPARED 'rowvec_test'")
    await fill(worker)
    assert await texts(course) == {"2": "title: Zwei", "3": "title: Drei"}


# --- Many rows at once -----------------------------------------------------------------------------------


async def test_what_a_transaction_brings_beyond_its_urgent_rows_goes_in_as_bulk(course: asyncpg.Connection) -> None:
    counted = "SELECT array_agg(n ORDER BY priority) FROM (SELECT priority, count(*) n FROM rowvec.change GROUP BY 1) c"
    for write in (
        "INSERT INTO course (id, title) SELECT n, 'Course' FROM generate_series(1, 800) n",
        "UPDATE course SET title = 'Changed'",
        "DELETE FROM course",
    ):
        await course.execute(write)
        assert await course.fetchval(counted) == [500, 300], write
        assert await course.fetchval("SELECT max(priority) FROM rowvec.change") == 5
        await changes(course)


async def test_many_small_statements_of_a_transaction_count_together(course: asyncpg.Connection) -> None:
    await course.execute("SELECT rowvec.watch('course', 'course', ARRAY['title'], 3, urgent_rows => 10)")
    async with course.transaction():
        for n in range(8):
            await course.execute("INSERT INTO course (id, title) VALUES ($1, 'x')", n)
        savepoint = course.transaction()
        await savepoint.start()
        await course.execute("INSERT INTO course (id, title) SELECT n, 'x' FROM generate_series(100, 200) n")
        await savepoint.rollback()
        await course.execute("INSERT INTO course (id, title) SELECT n, 'x' FROM generate_series(300, 303) n")
    rows = await course.fetch("SELECT priority FROM rowvec.change ORDER BY id")
    assert [row["priority"] for row in rows] == [3] * 10 + [5] * 2
    await course.execute("INSERT INTO course (id, title) VALUES (999, 'the next transaction')")
    assert await course.fetchval("SELECT priority FROM rowvec.change ORDER BY id DESC LIMIT 1") == 3


async def test_urgent_changes_are_folded_before_a_flood_of_others(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) SELECT n, 'Course' FROM generate_series(1, 5000) n")
    await worker.log.fold(Floors(), 600)
    await course.execute("INSERT INTO course (id, title) VALUES (0, 'Fresh'); DELETE FROM course WHERE id = 4999")
    await worker.log.fold(Floors(), 10)
    rows = await course.fetch("SELECT content_id, lane FROM rowvec.embedding_queue WHERE content_id IN ('0', '4999')")
    assert {(row["content_id"], row["lane"]) for row in rows} == {("0", "immediate"), ("4999", "immediate")}


# --- Pause and resume ------------------------------------------------------------------------------------


async def test_a_paused_table_can_be_altered_and_nothing_is_missed(article: asyncpg.Connection, worker: Worker) -> None:
    await article.execute("""
        INSERT INTO article SELECT n, 'Body ' || n, n <> 3, 'ada' FROM generate_series(1, 6) n
    """)
    await fill(worker)
    before = {row["ctid"] for row in await article.fetch("SELECT ctid::text FROM rowvec.vector_first")}
    with pytest.raises(asyncpg.FeatureNotSupportedError):
        await article.execute("ALTER TABLE article ALTER COLUMN body TYPE varchar(100)")
    assert await article.fetchval("SELECT rowvec.pause('article')") is True
    assert await article.fetchval("SELECT rowvec.pause('article')") is False
    await article.execute("""
        ALTER TABLE article ALTER COLUMN body TYPE varchar(100), ALTER COLUMN id TYPE integer;
        ALTER TABLE article RENAME COLUMN body TO content;
        UPDATE article SET content = 'Changed' WHERE id = 1;
        DELETE FROM article WHERE id = 2;
        UPDATE article SET published = true WHERE id = 3;
        UPDATE article SET published = false WHERE id = 4;
        INSERT INTO article VALUES (7, 'New', true, 'bob');
    """)
    assert await changes(article) == []
    with pytest.raises(SourceUnreadableError, match=r"paused.*rowvec resume article"):
        await worker.reader.read("article", ["1"])
    assert set(await texts(article)) == {"1", "2", "4", "5", "6"}
    assert await article.fetchval("SELECT rowvec.resume('article')") is True
    assert await article.fetchval("SELECT rowvec.resume('article')") is False
    await fill(worker)
    assert await texts(article) == {"1": "Changed", "3": "Body 3", "5": "Body 5", "6": "Body 6", "7": "New"}
    # What did not change keeps its rows.
    after = {row["ctid"] for row in await article.fetch("SELECT ctid::text FROM rowvec.vector_first")}
    assert len(before & after) >= 2
    await article.execute("UPDATE article SET content = 'Seen again' WHERE id = 1")
    assert await changes(article) == [("1", "write")]


async def test_items_of_a_paused_source_are_offered_to_nobody(article: asyncpg.Connection, worker: Worker) -> None:
    await article.execute("INSERT INTO article VALUES (1, 'One', true)")
    await article.execute("SELECT rowvec.pause('article')")
    assert (await worker.fold()).slots == []
    assert await article.fetchval("SELECT count(*) FROM rowvec.embedding_queue") == 2
    assert await worker.queue.probe(["first", "second"], EVER) == {}
    await article.execute("SELECT rowvec.resume('article')")
    await fill(worker)
    assert await texts(article) == {"1": "One"}


async def test_a_condition_whose_column_was_renamed_before_the_pause_is_resumed(
    article: asyncpg.Connection, worker: Worker
) -> None:
    await article.execute("ALTER TABLE article RENAME COLUMN published TO visible")
    await article.execute("SELECT rowvec.pause('article')")
    await article.execute("INSERT INTO article VALUES (1, 'One', true), (2, 'Two', false)")
    await article.execute("SELECT rowvec.resume('article')")
    await fill(worker)
    assert await texts(article) == {"1": "One"}


async def test_a_column_dropped_during_a_pause_is_told_at_resume(article: asyncpg.Connection) -> None:
    await article.execute("SELECT rowvec.pause('article'); ALTER TABLE article DROP COLUMN body")
    with pytest.raises(asyncpg.PostgresError, match="A watched column") as caught:
        await article.execute("SELECT rowvec.resume('article')")
    assert caught.value.sqlstate == "RV002"
    await article.execute("ALTER TABLE article ADD COLUMN words text")
    await watch(article, "'article', 'article', ARRAY['words'], 2, condition => 'published'")
    assert await article.fetchval("SELECT rowvec.resume('article')") is False


async def test_a_key_of_another_kind_after_a_pause_leaves_nothing_old(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute(
        "CREATE TABLE post (id text PRIMARY KEY, body text); INSERT INTO post VALUES ('007', 'B'), ('x', 'X')"
    )
    await watch(app, "'post', 'post', ARRAY['body'], 2, '{body}'")
    await fill(worker)
    await app.execute("""
        SELECT rowvec.pause('post');
        DELETE FROM post WHERE id = 'x';
        ALTER TABLE post ALTER COLUMN id TYPE bigint USING id::bigint;
        SELECT rowvec.resume('post');
    """)
    await fill(worker)
    assert await texts(app) == {"7": "B"}


# --- Watching again --------------------------------------------------------------------------------------


async def test_triggers_that_somebody_removed_come_back(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One'), (2, 'Two')")
    await fill(worker)
    again = """SELECT rowvec.watch('course', 'course', ARRAY['title', 'description', 'tags', 'facts'], 2,
                                   owner_column => 'teacher')"""
    assert await course.fetchval(again) is False
    await course.execute(
        "DROP TRIGGER rowvec_delete_course ON course; ALTER TABLE course DISABLE TRIGGER rowvec_update_course"
    )
    missing = await course.fetchval("SELECT array_agg(m) FROM rowvec.source s, rowvec.missing_triggers(s) m")
    assert missing == ["rowvec_delete_course on public.course", "rowvec_update_course on public.course"]
    await course.execute("DELETE FROM course WHERE id = 1; UPDATE course SET title = 'Unseen'")
    assert await course.fetchval(again) is True
    await fill(worker)
    assert await texts(course) == {"2": "title: Unseen"}
    assert await course.fetchval(again) is False


async def test_another_owner_column_shows_nothing_to_former_owners(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title, description, teacher) VALUES (1, 'One', 'bob', 'ada')")
    await fill(worker)
    owners = "SELECT array_agg(owner) FROM rowvec.vector_first"
    assert await course.fetchval(owners) == ["ada"]
    await watch(
        course, "'course', 'course', ARRAY['title', 'description', 'tags', 'facts'], 2, owner_column => 'description'"
    )
    assert await course.fetchval(owners) == [None]
    await fill(worker)
    assert await course.fetchval(owners) == ["bob"]


async def test_an_unfinished_backfill_goes_on_after_another_priority(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("CREATE TABLE post (id bigint PRIMARY KEY, body text)")
    await app.execute("INSERT INTO post SELECT n, 'Body' FROM generate_series(1, 1500) n")
    await watch(app, "'post', 'post', ARRAY['body']")
    assert await worker.append_page("post") == 1000
    await watch(app, "'post', 'post', ARRAY['body'], 4")
    assert await worker.append_page("post") == 500


async def test_a_dump_restored_into_a_table_with_other_column_numbers_reads_the_right_ones(
    app: asyncpg.Connection, worker: Worker
) -> None:
    # pg_dump leaves out dropped columns, so the others get other numbers; views and triggers go by name.
    await app.execute("CREATE TABLE post (gone text, id bigint PRIMARY KEY, wrong text, body text)")
    await app.execute("ALTER TABLE post DROP COLUMN gone")
    await watch(app, "'post', 'post', ARRAY['body'], 2, '{body}'")
    definition = await app.fetchval("SELECT pg_get_viewdef('rowvec.rows_post'::regclass)")
    await app.execute("""
        DROP VIEW rowvec.rows_post;
        ALTER TABLE post RENAME TO dumped;
        CREATE TABLE post (id bigint PRIMARY KEY, wrong text, body text);
        INSERT INTO post VALUES (1, 'Wrong', 'Right');
    """)
    await app.execute(f"CREATE VIEW rowvec.rows_post AS {definition}")
    await app.execute("UPDATE rowvec.source SET relation = 'post'::regclass")
    found = await worker.reader.read("post", ["1"])
    assert found is not None
    assert found[1][0].fields == '["Right"]'


# --- What lies off the beaten track -----------------------------------------------------------------------


@pytest.mark.parametrize("condition", ["title NOT LIKE '%draft%'", "owner IS NULL", "value", "id % 2 < 2", "key_1 > 0"])
async def test_conditions_of_every_kind_can_be_changed(app: asyncpg.Connection, worker: Worker, condition: str) -> None:
    await app.execute("CREATE TABLE t (id bigint PRIMARY KEY, title text, owner text, value boolean, key_1 integer)")
    await app.execute("INSERT INTO t VALUES (1, 'One', NULL, true, 1), (2, 'a draft', 'x', false, 0)")
    await watch(app, f"'t', 't', ARRAY['title'], 2, '{{title}}', condition => $${condition}$$")
    await fill(worker)
    await watch(app, "'t', 't', ARRAY['title'], 2, '{title}', condition => 'id > 0'")
    await fill(worker)
    assert await texts(app) == {"1": "One", "2": "a draft"}
    await watch(app, f"'t', 't', ARRAY['title'], 2, '{{title}}', condition => $${condition}$$")
    await fill(worker)
    await app.execute("UPDATE t SET title = 'a draft', owner = 'x', value = false, key_1 = 0")
    assert set(await texts(app)) <= ({"1", "2"} if "id" in condition else set())


async def test_a_row_that_changes_before_the_backfill_of_a_new_condition_comes_is_not_lost(
    app: asyncpg.Connection, worker: Worker
) -> None:
    await app.execute("CREATE TABLE t (id bigint PRIMARY KEY, title text, published boolean)")
    await app.execute("INSERT INTO t VALUES (1, 'a', true), (4, 'd', false)")
    await watch(app, "'t', 't', ARRAY['title'], template => '{title}', condition => 'published'")
    await fill(worker)
    await watch(app, "'t', 't', ARRAY['title'], template => '{title}'")
    await app.execute("UPDATE t SET published = true WHERE id = 4")
    await fill(worker)
    assert await texts(app) == {"1": "a", "4": "d"}


async def test_a_source_that_can_not_be_listed_keeps_no_other_waiting(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("""
        CREATE TABLE t (id bigint PRIMARY KEY, title text, price integer);
        INSERT INTO t VALUES (1, 'a', 0);
        SELECT rowvec.watch('t', 't', ARRAY['title'], condition => '100 / price > 3');
    """)
    with pytest.raises(SourceUnreadableError, match=r"can't be listed.*division by zero"):
        await worker.append_page("t")


async def test_removed_ids_that_the_key_no_longer_takes_are_swept(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("CREATE TABLE t (id bigint PRIMARY KEY, title text)")
    await app.execute("INSERT INTO t VALUES (1, 'a'), (3000000000, 'b')")
    await watch(app, "'t', 't', ARRAY['title'], 2, '{title}'")
    await fill(worker)
    await app.execute("""
        SELECT rowvec.pause('t');
        DELETE FROM t WHERE id > 1;
        INSERT INTO t VALUES (2, 'new');
        ALTER TABLE t ALTER id TYPE integer;
        SELECT rowvec.resume('t');
    """)
    while await worker.unfilled():
        await worker.append_page("t")
    await app.execute("DELETE FROM rowvec.change WHERE kind = 'remove'")  # what the fold does with the removal
    assert await changes(app) == [("1", "write"), ("2", "write")]


async def test_an_empty_key_is_swept_too(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("CREATE TABLE t (id text PRIMARY KEY, title text); INSERT INTO t VALUES ('', 'a')")
    await watch(app, "'t', 't', ARRAY['title'], 2, '{title}'")
    await fill(worker)
    await app.execute("SELECT rowvec.pause('t'); DELETE FROM t; SELECT rowvec.resume('t')")
    await fill(worker)
    assert await texts(app) == {}


async def test_a_renamed_type_of_the_key_is_read_on(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("CREATE SCHEMA s; CREATE TYPE s.mood AS ENUM ('a', 'b')")
    await app.execute("CREATE TABLE t (id s.mood PRIMARY KEY, title text); INSERT INTO t VALUES ('a', 'A')")
    await watch(app, "'t', 't', ARRAY['title'], 2, '{title}'")
    await app.execute("ALTER TYPE s.mood RENAME TO feeling; ALTER SCHEMA s RENAME TO u")
    await fill(worker)
    await app.execute("SELECT rowvec.pause('t'); SELECT rowvec.resume('t')")
    await fill(worker)
    assert await texts(app) == {"a": "A"}


async def test_columns_that_a_dump_renumbered_are_not_resumed_by_number(app: asyncpg.Connection) -> None:
    await app.execute("CREATE TABLE t (gone text, id bigint PRIMARY KEY, title text, secret text)")
    await watch(app, "'t', 't', ARRAY['title']")
    await app.execute("UPDATE rowvec.source SET text_columns = ARRAY[4]")
    with pytest.raises(asyncpg.PostgresError, match="other numbers") as caught:
        await app.execute("SELECT rowvec.pause('t')")
    assert caught.value.sqlstate == "RV001"
    await app.execute("ALTER TABLE t RENAME COLUMN title TO heading")
    await watch(app, "'t', 't', ARRAY['heading']")
    assert await app.fetchval("SELECT rowvec.pause('t')")


async def test_a_condition_that_means_another_column_now_is_another_condition(article: asyncpg.Connection) -> None:
    as_before = "'article', 'article', ARRAY['body'], 2, '{body}', 'author', condition => 'published'"
    assert not await article.fetchval(f"SELECT rowvec.watch({as_before})")
    await article.execute("ALTER TABLE article RENAME published TO was_published")
    await article.execute("ALTER TABLE article ADD published boolean")
    assert await article.fetchval(f"SELECT rowvec.watch({as_before})")


@pytest.mark.parametrize("what", ["text_function => 'text_of'", "ARRAY['title'], condition => 'public.is_good(title)'"])
async def test_functions_that_somebody_else_could_change_are_refused(app: asyncpg.Connection, what: str) -> None:
    await app.execute("""
        CREATE ROLE rowvec_test_stranger;
        CREATE TABLE t (id bigint PRIMARY KEY, title text);
        CREATE FUNCTION text_of(t) RETURNS text STABLE LANGUAGE sql AS 'SELECT $1.title';
        CREATE FUNCTION is_good(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
        GRANT CREATE ON SCHEMA public TO rowvec_test_stranger;
        ALTER FUNCTION text_of OWNER TO rowvec_test_stranger;
        ALTER FUNCTION is_good OWNER TO rowvec_test_stranger;
    """)
    try:
        with pytest.raises(asyncpg.PostgresError, match="belongs to another role") as caught:
            await app.execute(f"SELECT rowvec.watch('t', 't', {what})")
        assert caught.value.sqlstate == "RV001"
    finally:
        await app.execute("DROP OWNED BY rowvec_test_stranger CASCADE; DROP ROLE rowvec_test_stranger")


async def test_the_longest_content_type_can_depend_on_other_tables(app: asyncpg.Connection) -> None:
    await app.execute(THREAD)
    names = ["x" * 39 + "1", "x" * 39 + "2"]
    call = f"text_function => 'post_text', depends_on => {DEPENDS}".replace('"comment"', '"public.comment"')
    for name in names:
        await watch(app, f"'post', '{name}', ARRAY['title'], {call}")
        assert not await app.fetchval(f"SELECT rowvec.watch('post', '{name}', ARRAY['title'], {call})")
    for name in names:
        await app.execute(
            f"SELECT rowvec.pause('{name}'); SELECT rowvec.resume('{name}'); SELECT rowvec.unwatch('{name}')"
        )
    assert await app.fetchval("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'rowvec%_x%'") == 0


async def test_an_id_made_of_a_virtual_column_or_another_type_is_refused(app: asyncpg.Connection) -> None:
    await app.execute(THREAD)
    await app.execute("ALTER TABLE comment ADD price numeric(10, 2)")
    expressions = ["price"]
    if MAJOR >= 18:
        await app.execute("ALTER TABLE comment ADD twice bigint GENERATED ALWAYS AS (post_id * 2) VIRTUAL")
        expressions.append("twice")
    for expression in expressions:
        depends = f'[{{"table": "public.comment", "columns": ["body"], "content_id": "{expression}"}}]'
        with pytest.raises(asyncpg.PostgresError, match="The content id of") as caught:
            await app.execute(
                "SELECT rowvec.watch('post', 'post', text_function => 'post_text', depends_on => $1)", depends
            )
        assert caught.value.sqlstate == "RV001"


async def test_a_model_added_while_a_table_is_watched_again_gets_its_rows(
    app: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await app.execute("CREATE TABLE t (id bigint PRIMARY KEY, title text); INSERT INTO t VALUES (1, 'a')")
    await watch(app, "'t', 't', ARRAY['title']")
    await fill(worker)
    adding = await connect()
    async with app.transaction():
        await app.execute("SELECT rowvec.watch('t', 't', ARRAY['title'], 2)")
        await app.execute("SELECT rowvec.watch('t', 'new', ARRAY['title'], 2)")
        # Neither waits for the other, nor sees it.
        await asyncio.wait_for(adding.execute("SELECT rowvec.add_model('third', 4)"), 10)
    found = await app.fetch("SELECT content_type, model FROM rowvec.unfilled WHERE model = 'third' ORDER BY 1")
    assert [tuple(row) for row in found] == [("document", "third"), ("new", "third"), ("t", "third")]
