"""What can be watched, what is refused with which words, and what may happen to a table afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from database import Connect, Server, copied_database
from rowvec.domain.errors import SourceUnreadableError
from rowvec.domain.lanes import Lane
from rowvec.postgres.statements import quote_identifier
from worker import EVER, Worker


async def changes(session: asyncpg.Connection) -> list[tuple[str, str]]:
    """What was appended; a backfill does it for each model alike, which counts as one here."""
    rows = await session.fetch("""
        SELECT content_id, kind FROM rowvec.change WHERE model IS DISTINCT FROM 'second' ORDER BY id
    """)
    return [tuple(row) for row in rows]


async def forget_changes(session: asyncpg.Connection) -> None:
    await session.execute("DELETE FROM rowvec.change")


async def texts(session: asyncpg.Connection) -> dict[str, str]:
    rows = await session.fetch("SELECT content_id, chunk_text FROM rowvec.vector_first")
    return {row["content_id"]: row["chunk_text"] for row in rows}


async def triggers(session: asyncpg.Connection) -> dict[str, int]:
    """Those of the test's own sources."""
    rows = await session.fetch("""
        SELECT tgname, oid FROM pg_trigger
        WHERE tgname LIKE 'rowvec%' AND tgrelid <> 'rowvec.document'::regclass ORDER BY tgname
    """)
    return {row["tgname"]: row["oid"] for row in rows}


async def trigger_functions(session: asyncpg.Connection) -> list[str]:
    rows = await session.fetch("""
        SELECT proname FROM pg_proc
        WHERE pronamespace = 'rowvec'::regnamespace AND prorettype = 'trigger'::regtype AND proname !~ '_document$'
    """)
    return [row["proname"] for row in rows]


async def backfill(worker: Worker, content_type: str) -> list[int]:
    """Append pages until nothing is left; return how many rows each had."""
    pages = []
    while content_type in await worker.unfilled():
        pages.append(await worker.append_page(content_type))
    return pages


@contextlib.asynccontextmanager
async def guest(app: asyncpg.Connection, connect: Connect) -> AsyncIterator[asyncpg.Connection]:
    """A session of a role that may write to tables of `public` and nothing else."""
    await app.execute("""
        CREATE ROLE rowvec_test_writer;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO rowvec_test_writer;
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO rowvec_test_writer;
    """)
    writer = await connect()
    await writer.execute("SET ROLE rowvec_test_writer")
    try:
        yield writer
    finally:
        await writer.close()
        await app.execute("DROP OWNED BY rowvec_test_writer; DROP ROLE rowvec_test_writer")


# --- Refused ---------------------------------------------------------------------------------------------

TABLES = """
    CREATE TABLE good (id bigint PRIMARY KEY, title text, body text, photo bytea, born date, sure boolean);
    CREATE VIEW a_view AS SELECT * FROM good;
    CREATE MATERIALIZED VIEW a_matview AS SELECT * FROM good;
    CREATE TABLE keyless (id bigint UNIQUE, title text);
    CREATE TABLE late (id bigint NOT NULL UNIQUE DEFERRABLE, title text);
    CREATE TABLE partly (id bigint NOT NULL, title text);
    CREATE UNIQUE INDEX ON partly (id) WHERE id > 0;
    CREATE TABLE several (a bigint NOT NULL UNIQUE, b bigint NOT NULL UNIQUE, title text);
    CREATE TABLE numbered (id numeric PRIMARY KEY, title text);
    CREATE TABLE dated (id timestamptz PRIMARY KEY, title text);
    CREATE FUNCTION secret(bigint) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true';
    REVOKE ALL ON FUNCTION secret FROM PUBLIC;
    CREATE FUNCTION plain(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
    CREATE FUNCTION text_of(good) RETURNS text LANGUAGE sql AS 'SELECT $1.title';
    CREATE FUNCTION lost(good) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT min(title) FROM good); END';
    INSERT INTO good VALUES (1, 'One');
    SELECT rowvec.watch('good', 'taken', ARRAY['title']);
"""


@pytest.fixture(scope="module")
def refusing(server: Server, template: str) -> Iterator[str]:
    """A database that the refused watches share: they leave nothing behind."""

    async def prepare(dsn: str) -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute(TABLES)
        await connection.close()

    with asyncio.Runner() as runner:
        database = copied_database(server, template)
        dsn = runner.run(database.__aenter__())
        runner.run(prepare(dsn))
        yield dsn
        runner.run(database.__aexit__(None, None, None))


@pytest.mark.parametrize(
    ("call", "message", "hint"),
    [
        ("'a_view', 'x', ARRAY['title']", "a_view is no table that can be watched", "Views"),
        ("'a_matview', 'x', ARRAY['title']", "a_matview is no table that can be watched", "Views"),
        ("'fleeting', 'x', ARRAY['title']", "fleeting is no table that can be watched", "temporary"),
        ("'rowvec.source', 'x', ARRAY['template']", "source is one of rowvec's own tables", ""),
        ("NULL, 'x', ARRAY['title']", "NULL is no table", ""),
        ("'keyless', 'x', ARRAY['title']", "keyless has no key", "Give it a primary key"),
        ("'late', 'x', ARRAY['title']", "late has no key", "Give it a primary key"),
        ("'partly', 'x', ARRAY['title']", "partly has no key", "Give it a primary key"),
        ("'several', 'x', ARRAY['title']", "no primary key but several others", "Name the columns"),
        ("'good', 'x', ARRAY['title'], key => ARRAY['title']", "(title) are no key of public.good", "unique index"),
        ("'good', 'x', ARRAY['title'], key => ARRAY['boss']", 'good has no column "boss"', ""),
        ("'numbered', 'x', ARRAY['title']", "of public.numbered is a numeric", "integers, uuid, text"),
        ("'dated', 'x', ARRAY['title']", "of public.dated is a timestamp", "integers, uuid, text"),
        ("'good', 'x', ARRAY['titel']", 'good has no column "titel"', ""),
        ("'good', 'x', ARRAY['title', NULL]", "good has no column", ""),
        ("'good', 'x', ARRAY['title'], owner_column => 'boss'", 'good has no column "boss"', ""),
        ("'good', 'x', ARRAY['xmin']", 'good has no column "xmin"', ""),
        ("'good', 'x', ARRAY['photo']", 'column "photo" of public.good is a bytea', "Columns can be text"),
        ("'good', 'x', ARRAY['born']", 'column "born" of public.good is a date', "Columns can be text"),
        ("'good', 'x', ARRAY['sure']", 'column "sure" of public.good is a boolean', "Columns can be text"),
        ("'good', 'x', ARRAY[]::text[]", "No columns to embed", ""),
        ("'good', 'x', NULL", "No columns to embed", ""),
        ("'good', 'x', ARRAY['title'], template => '{title} {body}'", "template names {body}", "Watched are: title."),
        ("'good', 'x', ARRAY['title'], template => '{}'", "template names {}", "Watched are: title."),
        ("'good', 'x', ARRAY['title'], 0", "priority must be 1 to 100, not 0", ""),
        ("'good', 'x', ARRAY['title'], 101", "priority must be 1 to 100, not 101", ""),
        ("'good', 'x', ARRAY['title'], 100000", "priority must be 1 to 100, not 100000", ""),
        ("'good', 'x', ARRAY['title'], NULL", "priority must be 1 to 100", ""),
        ("'good', 'Upper', ARRAY['title']", 'content type "Upper" can\'t be used', "at most 40"),
        ("'good', 'with space', ARRAY['title']", 'content type "with space" can\'t be used', "at most 40"),
        ("'good', 'kurs_ü', ARRAY['title']", 'content type "kurs_ü" can\'t be used', "at most 40"),
        ("'good', '1st', ARRAY['title']", 'content type "1st" can\'t be used', "at most 40"),
        ("'good', E'x\\n', ARRAY['title']", "can't be used", "at most 40"),
        ("'good', repeat('x', 41), ARRAY['title']", "can't be used", "at most 40"),
        ("'good', '', ARRAY['title']", 'content type "" can\'t be used', "at most 40"),
        ("'good', NULL, ARRAY['title']", "can't be used", "at most 40"),
        ("'good', 'x', ARRAY['title'], function_name => ''", "No function can be named", "a schema that exists"),
        ("'good', 'x', ARRAY['title'], function_name => '1st'", "No function can be named 1st", "a schema that exists"),
        ("'good', 'x', ARRAY['title'], chunking => 'pages'", 'no chunking "pages"', "none, characters or markdown"),
        ("'good', 'x', ARRAY['title'], chunk_characters => 49", "50 to 100,000 characters, not 49", ""),
        ("'good', 'x', ARRAY['title'], chunk_characters => 100, chunk_overlap => 100", "can't share 100", "half"),
        ("'good', 'x', ARRAY['title'], chunk_overlap => -1", "can't share -1", "negative"),
        ("'good', 'x', ARRAY['title'], notify => NULL", "true or false", ""),
        ("'good', 'x', ARRAY['title'], urgent_rows => 0", "1 urgent row at least, not 0", ""),
        ("'good', 'x', ARRAY['title'], condition => 'born < now()'", "condition can't be used: functions in", "time"),
        ("'good', 'x', ARRAY['title'], condition => 'nothing > 1'", 'column "nothing" does not exist', "its own row"),
        ("'good', 'x', ARRAY['title'], condition => 'title'", "must be type boolean", ""),
        ("'good', 'x', ARRAY['title'], condition => '('", "syntax error", ""),
        ("'good', 'x', ARRAY['title'], condition => 'EXISTS (SELECT)'", "cannot use subquery", "its own row"),
        ("'good', 'x', ARRAY['title'], condition => 'count(*) > 1'", "aggregate functions", ""),
        (
            "'good', 'x', ARRAY['title'], condition => 'public.secret(id)'",
            "calls public.secret(bigint)",
            "GRANT EXECUTE",
        ),
        (
            "'good', 'x', ARRAY['title'], text_function => 'public.plain'",
            "does not make a text of a row",
            "RETURNS text",
        ),
        ("'good', 'x', text_function => 'public.lost'", 'relation "good" does not exist', "search_path"),
        ("'good', 'x', text_function => 'public.text_of', template => '{title}'", "no template beside it", ""),
        ("'good', 'x', ARRAY['title'], depends_on => '{}'", "no JSON array", ""),
        ("'good', 'x', ARRAY['title'], depends_on => '[{}]'", "dependency can't be read", "Its form is"),
        (
            """'good', 'x', text_function => 'public.text_of',
            depends_on => '[{"table": "public.good", "columns": ["no"], "content_id": "id"}]'""",
            'no column "no"',
            "",
        ),
        (
            """'good', 'x', text_function => 'public.text_of',
            depends_on => '[{"table": "public.good", "columns": ["title"], "content_id": "now()"}]'""",
            "expression for the content id can't be used",
            "",
        ),
        (
            """'good', 'x', ARRAY['title'],
            depends_on => '[{"table": "public.good", "columns": ["title"], "content_id": "id"}]'""",
            "Only the text of a text function",
            "",
        ),
    ],
)
async def test_a_watch_that_makes_no_sense_is_refused(refusing: str, call: str, message: str, hint: str) -> None:
    session = await asyncpg.connect(refusing)
    try:
        await session.execute("CREATE TEMPORARY TABLE fleeting (id bigint PRIMARY KEY, title text)")
        before = await triggers(session), await trigger_functions(session)
        with pytest.raises(asyncpg.PostgresError) as caught:
            await session.execute(f"SELECT rowvec.watch({call})")
        assert (caught.value.sqlstate, message in str(caught.value)) == ("RV001", True), caught.value
        assert hint in (caught.value.hint or "")
        assert (await triggers(session), await trigger_functions(session)) == before
    finally:
        await session.close()


@pytest.mark.parametrize(
    "name",
    ["nowhere", "no.where", "rowvec.nowhere", "a.b.c.d", 'half"quoted', "", "two words", "good; DROP TABLE good"],
)
async def test_a_table_that_is_not_there_is_named(refusing: str, name: str) -> None:
    session = await asyncpg.connect(refusing)
    try:
        with pytest.raises(asyncpg.PostgresError) as caught:
            await session.fetch("SELECT rowvec.find_table($1)", name)
        assert (caught.value.sqlstate, caught.value.args[0]) == ("RV001", f"There is no table {name}.")
        assert await session.fetchval("SELECT rowvec.find_table('public.good')::text") == "good"
    finally:
        await session.close()


async def test_a_content_type_of_another_table_is_refused(app: asyncpg.Connection) -> None:
    await app.execute(TABLES)
    await app.execute("CREATE TABLE fine (id bigint PRIMARY KEY, title text)")
    with pytest.raises(asyncpg.PostgresError, match=r'"taken" is already the content type of public\.good') as caught:
        await app.execute("SELECT rowvec.watch('fine', 'taken', ARRAY['title'])")
    assert caught.value.sqlstate == "RV001"
    assert "unwatch" in (caught.value.hint or "")


# --- Accepted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "key", "other"),
    [
        ("smallint", "1", "2"),
        ("integer", "-1", "2147483647"),
        ("bigint", "1", "9223372036854775807"),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000"),
        ("text", "a key, 'quoted' \"twice\" {in} \\ braces", "ключ 鍵"),
        ("varchar(40)", "a", "A"),
    ],
)
async def test_keys_of_each_type_go_all_the_way(
    app: asyncpg.Connection, worker: Worker, type_: str, key: str, other: str
) -> None:
    await app.execute(f"CREATE TABLE doc (id {type_} PRIMARY KEY, body text)")
    insert = f"INSERT INTO doc SELECT $1::text::{type_}, 'Old'"
    await app.execute(insert, key)
    assert await app.fetchval("SELECT rowvec.watch('doc', 'doc', ARRAY['body'])")
    await app.execute(insert, other)
    assert await backfill(worker, "doc") == [2, 0]
    await worker.settle()
    assert await texts(app) == {key: "body: Old", other: "body: Old"}
    await app.execute("UPDATE doc SET body = 'New' WHERE id::text = $1", key)
    await app.execute("DELETE FROM doc WHERE id::text = $1", other)
    await worker.settle()
    assert await texts(app) == {key: "body: New"}


NAMES = [
    "select",
    'Quo"ted',
    "with space",
    "CamelCase",
    "übung_鍵",
    "it's",
    "100%",
    "a.b",
    "{x}",
    "$1",
    "n",
    "key",
    "old",
]


@pytest.mark.parametrize("name", NAMES)
async def test_odd_names_go_all_the_way(app: asyncpg.Connection, worker: Worker, name: str) -> None:
    watched, owned = f"text of {name}", f"owner of {name}"
    quoted, column, owner = (quote_identifier(part) for part in (name, watched, owned))
    await app.execute(f"""
        CREATE SCHEMA {quoted};
        CREATE TABLE {quoted}.{quoted} ({quoted} bigint PRIMARY KEY, {column} text, {owner} text);
        INSERT INTO {quoted}.{quoted} VALUES (1, 'Before', 'ada');
    """)
    table = f"{quoted}.{quoted}"
    watch = "SELECT rowvec.watch($1::text::regclass, 'odd', ARRAY[$2], 3, owner_column => $3)"
    assert await app.fetchval(watch, table, watched, owned)
    assert not await app.fetchval(watch, table, watched, owned)
    await app.execute(f"INSERT INTO {table} VALUES (2, 'After', 'bob')")
    assert await backfill(worker, "odd") == [2, 0]
    await worker.settle()
    assert await texts(app) == {"1": f"{watched}: Before", "2": f"{watched}: After"}
    await app.execute(f"UPDATE {table} SET {column} = 'Changed' WHERE {quoted} = 1")
    await app.execute(f"UPDATE {table} SET {quoted} = 3 WHERE {quoted} = 2")
    await worker.settle()
    assert await texts(app) == {"1": f"{watched}: Changed", "3": f"{watched}: After"}
    await app.execute(f"DELETE FROM {table}; SELECT rowvec.unwatch('odd')")


async def test_the_longest_names_fit_into_what_is_made_of_them(app: asyncpg.Connection, worker: Worker) -> None:
    # 63 bytes are the most that a name of Postgres has; a longer one would be cut, and two could become one.
    first, second, table, column = "x" * 39 + "1", "x" * 39 + "2", "ü" * 31, "鍵" * 21
    await app.execute(f'CREATE TABLE "{table}" (id bigint PRIMARY KEY, "{column}" text)')
    for content_type in (first, second):
        assert await app.fetchval("SELECT rowvec.watch($1::text::regclass, $2, ARRAY[$3])", table, content_type, column)
    names = [*await triggers(app), *await trigger_functions(app)]
    assert max(map(len, names)) < 63
    assert len(set(names)) == 20
    await app.execute(f"""INSERT INTO "{table}" VALUES (1, 'One')""")
    await worker.settle()
    assert await app.fetchval("SELECT count(DISTINCT content_type) FROM rowvec.vector_first") == 2
    await app.execute("SELECT rowvec.unwatch($1)", first)
    assert {name[-1] for name in await triggers(app)} == {"2"}


async def test_columns_of_each_kind_become_text(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("""
        CREATE DOMAIN headline AS text;
        CREATE TABLE kinds (
            id bigint PRIMARY KEY, title varchar(20), code char(3), line headline, tags text[], counts integer[],
            plain json, binary_ jsonb, price numeric(8, 2), size double precision, shout text GENERATED ALWAYS AS
            (upper(title)) STORED);
        SELECT rowvec.watch('kinds', 'kinds', ARRAY['title', 'code', 'line', 'tags', 'counts', 'plain', 'binary_',
                            'price', 'size', 'shout'], template =>
                            '{title}|{code}|{line}|{tags}|{counts}|{plain}|{binary_}|{price}|{size}|{shout}');
        INSERT INTO kinds VALUES (1, 'Algebra', 'ab', 'Line', ARRAY['x', NULL, 'y z'], ARRAY[1, 2],
                                  '{"a": 1, "a": [true, null]}', '{"b": "c"}', 9.50, 1.5),
                                 (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
    """)
    await worker.settle()
    assert await texts(app) == {"1": "Algebra|ab|Line|x, y z|1, 2|a: true|b: c|9.50|1.5|ALGEBRA"}
    for change in ("title = 'Geometry'", "tags = ARRAY['z']", "plain = '{}'", "binary_ = '[]'", "price = 9.51"):
        await forget_changes(app)
        await app.execute(f"UPDATE kinds SET {change} WHERE id = 1")
        assert await changes(app) == [("1", "write")], change
    assert (await worker.fold()).folded == 1


# --- Watching again --------------------------------------------------------------------------------------


async def test_watching_twice_the_same_is_nothing(course: asyncpg.Connection, worker: Worker) -> None:
    await backfill(worker, "course")
    before = await triggers(course), await course.fetch("SELECT * FROM rowvec.source")
    again = """SELECT rowvec.watch('course', 'course', ARRAY['title', 'description', 'tags', 'facts'], 2,
                                   owner_column => 'teacher')"""
    assert await course.fetchval(again) is False
    assert (await triggers(course), await course.fetch("SELECT * FROM rowvec.source")) == before


AS_BEFORE = "ARRAY['title', 'description', 'tags', 'facts'], 2, owner_column => 'teacher'"


@pytest.mark.parametrize(
    ("settings", "pages"),
    [
        ("ARRAY['title'], 2, owner_column => 'teacher'", [2, 0]),
        ("ARRAY['title', 'description', 'tags', 'facts'], 2", [2, 0]),
        (f"{AS_BEFORE}, template => '{{title}}'", [2, 0]),
        (f"{AS_BEFORE}, chunking => 'characters'", [2, 0]),
        (f"{AS_BEFORE}, condition => 'id > 1'", [1, 0]),
        (AS_BEFORE.replace("2,", "3,"), []),
        (f"{AS_BEFORE}, notify => false", []),
        (f"{AS_BEFORE}, urgent_rows => 10", []),
    ],
)
async def test_watching_otherwise_replaces_the_triggers_and_queues_what_it_affects(
    course: asyncpg.Connection, worker: Worker, settings: str, pages: list[int]
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One'), (2, 'Two')")
    await worker.settle()
    await backfill(worker, "course")
    await worker.settle()
    of_course = "FROM rowvec.source WHERE content_type = 'course'"
    before, since = await triggers(course), await course.fetchval(f"SELECT created_at {of_course}")
    assert await course.fetchval(f"SELECT rowvec.watch('course', 'course', {settings})")
    after = await triggers(course)
    assert after.keys() - before.keys() <= {"rowvec_lose_course"}
    assert not set(after.values()) & set(before.values())
    assert await course.fetchval(f"SELECT created_at {of_course}") == since
    swept = await course.fetchval(f"SELECT swept {of_course}")
    assert await backfill(worker, "course") == ([] if swept else [2, 0]) + pages
    queued = [(str(key), "write") for key in range(1, sum(pages) + 1)]
    assert await changes(course) == ([("1", "remove")] if "condition" in settings else queued)


async def test_a_column_given_up_is_watched_no_more(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title, description) VALUES (1, 'One', 'Long')")
    await worker.settle()
    await course.execute("SELECT rowvec.watch('course', 'course', ARRAY['title'], 2)")
    await course.execute("UPDATE course SET description = 'Longer'")
    assert await changes(course) == []
    await backfill(worker, "course")
    await worker.settle()
    assert await texts(course) == {"1": "title: One"}


async def test_one_table_can_have_two_content_types(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("SELECT rowvec.watch('course', 'teacher', ARRAY['teacher'], 2)")
    await course.execute("INSERT INTO course (id, title, teacher) VALUES (1, 'One', 'Ada')")
    await worker.settle()
    rows = await course.fetch("SELECT content_type, chunk_text FROM rowvec.vector_first ORDER BY content_type")
    assert [tuple(row) for row in rows] == [("course", "title: One"), ("teacher", "teacher: Ada")]


# --- The life of a watched table -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rename",
    [
        "ALTER TABLE course RENAME TO lesson",
        "CREATE SCHEMA school; ALTER TABLE course SET SCHEMA school; SET search_path = school, public",
        "CREATE SCHEMA a; ALTER TABLE course SET SCHEMA a; ALTER SCHEMA a RENAME TO b; SET search_path = b, public",
        'ALTER TABLE course RENAME COLUMN title TO "The Title"',
        "ALTER TABLE course RENAME COLUMN teacher TO boss",
        "ALTER TABLE course RENAME CONSTRAINT course_pkey TO other",
        "ALTER TABLE course ADD COLUMN first text, DROP COLUMN views",
    ],
)
async def test_renaming_breaks_no_writer_and_reading_goes_on(
    course: asyncpg.Connection, worker: Worker, rename: str
) -> None:
    await course.execute("INSERT INTO course (id, title, teacher) VALUES (1, 'One', 'ada')")
    await worker.settle()
    await course.execute(rename)
    table = "lesson" if "lesson" in rename else "course"
    title = '"The Title"' if "The Title" in rename else "title"
    teacher = "boss" if "boss" in rename else "teacher"
    await course.execute(f"INSERT INTO {table} (id, {title}, {teacher}) VALUES (2, 'Two', 'bob'), (3, 'Three', 'cyd')")
    await course.execute(f"UPDATE {table} SET {title} = 'Uno' WHERE id = 1")
    await course.execute(f"UPDATE {table} SET {teacher} = 'dan' WHERE id = 2")
    await course.execute(f"DELETE FROM {table} WHERE id = 3")
    await worker.settle()
    assert await texts(course) == {"1": "title: Uno", "2": "title: Two"}
    owners = await course.fetch("SELECT owner FROM rowvec.vector_first ORDER BY content_id")
    assert [row["owner"] for row in owners] == ["ada", "dan"]
    assert await backfill(worker, "course") == [2, 0]


async def test_writers_need_no_right_on_our_schema(
    course: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    async with guest(course, connect) as writer:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await writer.execute("SELECT * FROM rowvec.change")
        await writer.execute("INSERT INTO course (id, title) VALUES (1, 'One'), (2, 'Two'), (3, 'Three')")
        await worker.settle()
        await writer.execute("UPDATE course SET title = 'Uno', teacher = 'ada' WHERE id = 1")
        await writer.execute("UPDATE course SET id = 4 WHERE id = 2")
        await writer.execute("DELETE FROM course WHERE id = 3")
        for call in ("rowvec.enqueue('course', '1')", "rowvec.unwatch('course')", "rowvec.on_delete_course()"):
            with pytest.raises(asyncpg.PostgresError, match="permission denied"):
                await writer.execute(f"SELECT {call}")
    await worker.settle()
    assert await texts(course) == {"1": "title: Uno", "4": "title: Two"}


async def test_unwatch_leaves_nothing(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("CREATE TABLE note (id bigint PRIMARY KEY, body text)")
    await course.execute("SELECT rowvec.watch('note', 'note', ARRAY['body'])")
    write = "INSERT INTO course (id, title) VALUES ($1, 'One')", "INSERT INTO note VALUES ($1, 'One')"
    for key in (1, 2, 3):
        for statement in write:
            await course.execute(statement, key)
        if key == 1:
            await worker.settle()
        elif key == 2:
            await worker.fold()
    await course.execute("SELECT rowvec.unwatch('course')")
    for table in ("source", "change", "embedding_queue", "vector", "vector_first", "vector_second"):
        types = await course.fetch(f"SELECT DISTINCT content_type FROM rowvec.{table}")
        assert {row["content_type"] for row in types} - {"document"} == {"note"}, table
    assert {name.rsplit("_", 1)[-1] for name in await triggers(course)} == {"note"}
    assert {name.rsplit("_", 1)[-1] for name in await trigger_functions(course)} == {"note"}
    await course.execute("UPDATE course SET title = 'Nobody looks'")
    with pytest.raises(asyncpg.PostgresError, match='No source is watched as "course"') as caught:
        await course.execute("SELECT rowvec.unwatch('course')")
    assert caught.value.sqlstate == "RV001"


async def test_functions_are_known_whatever_they_are_called_meanwhile(
    course: asyncpg.Connection,
) -> None:
    watch = (
        "SELECT rowvec.watch('course', 'course', ARRAY['title'], trigger_name => 'rowvec_mine', function_name => $1)"
    )
    await course.execute("CREATE SCHEMA own")
    await course.execute(watch, "own.queue_course")
    await course.execute("ALTER SCHEMA own RENAME TO theirs; ALTER FUNCTION theirs.queue_course() RENAME TO other")
    assert await course.fetchval(watch, "theirs.queue_course")
    assert not await course.fetchval(watch, "theirs.queue_course")
    await course.execute("ALTER SCHEMA theirs RENAME TO own")
    assert await course.fetchval("SELECT rowvec.pause('course')")
    assert await triggers(course) == {}
    with pytest.raises(asyncpg.PostgresError, match=r"No function can be named theirs\.queue_course") as caught:
        await course.execute("SELECT rowvec.resume('course')")
    assert caught.value.sqlstate == "RV001"
    await course.execute(watch, "own.queue_course")
    await course.execute("ALTER SCHEMA own RENAME TO theirs; SELECT rowvec.unwatch('course')")
    assert await triggers(course) == {}
    assert await course.fetch("SELECT FROM pg_proc WHERE pronamespace = 'theirs'::regnamespace") == []


async def test_functions_that_begin_with_the_name_of_another_source_s_are_left_alone(
    course: asyncpg.Connection,
) -> None:
    await course.execute("CREATE TABLE note (id bigint PRIMARY KEY, body text)")
    watch = "SELECT rowvec.watch('{0}', '{0}', ARRAY['{1}'], function_name => '{2}', trigger_name => 'mine')"
    await course.execute(watch.format("course", "title", "queue_row"))
    await course.execute(watch.format("note", "body", "queue_row_lose"))
    await course.execute("SELECT rowvec.unwatch('course')")
    assert not await course.fetchval(watch.format("note", "body", "queue_row_lose"))


async def test_trigger_functions_are_nobody_s_but_their_owner_s(course: asyncpg.Connection) -> None:
    name = f"rowvec_test_{uuid.uuid4().hex[:12]}"
    await course.execute(f"CREATE ROLE {name}; ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO {name}")
    try:
        await course.execute("SELECT rowvec.pause('course'), rowvec.resume('course')")
        for function in await trigger_functions(course):
            assert not await course.fetchval(
                "SELECT has_function_privilege($1, format('rowvec.%I()', $2::text), 'EXECUTE')", name, function
            )
    finally:
        await course.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_a_claim_of_an_unwatched_source_stores_nothing(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await worker.fold()
    claim = await worker.claim()
    documents = await worker.read(claim)
    await course.execute("SELECT rowvec.unwatch('course')")
    assert (await worker.store(claim, documents)).refused
    assert await texts(course) == {}


async def test_a_dropped_table_is_told_and_its_watch_can_be_ended(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await worker.fold()
    claim = await worker.claim()
    await course.execute("DROP TABLE course CASCADE")
    with pytest.raises(SourceUnreadableError, match=r'table of the source "course" is gone.*rowvec unwatch'):
        await worker.read(claim)
    with pytest.raises(SourceUnreadableError, match='table of the source "course" is gone'):
        await worker.append_page("course")
    sources = await worker.database.fetch("list_sources")
    assert [(row["content_type"], row["key"]) for row in sources] == [("course", [None])]
    await course.execute("SELECT rowvec.unwatch('course')")
    assert await trigger_functions(course) == []


@pytest.mark.parametrize("column", ["title", "id", "teacher"])
async def test_a_dropped_column_is_told_until_the_table_is_watched_again(
    course: asyncpg.Connection, worker: Worker, column: str
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await worker.fold()
    claim = await worker.claim()
    with pytest.raises(asyncpg.DependentObjectsStillExistError):
        await course.execute(f"ALTER TABLE course DROP COLUMN {column}")
    await course.execute(f"ALTER TABLE course DROP COLUMN {column} CASCADE")
    with pytest.raises(SourceUnreadableError, match=r'column of the source "course" is gone.*Watch .* again'):
        await worker.read(claim)
    with pytest.raises(SourceUnreadableError, match='column of the source "course" is gone'):
        await worker.append_page("course")
    if column == "id":
        await course.execute("ALTER TABLE course ADD COLUMN id bigint PRIMARY KEY DEFAULT 1")
    await course.execute("SELECT rowvec.watch('course', 'course', ARRAY['description'], 2)")
    await course.execute("UPDATE course SET description = 'Two'")
    await worker.queue.release(claim, [item.id for item in claim.items], 0.0)
    await worker.settle()
    assert await texts(course) == {"1": "description: Two"}


async def test_a_table_that_may_not_be_read_is_told(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await worker.fold()
    claim = await worker.claim()
    await course.execute("CREATE ROLE rowvec_test_definer")
    try:
        await course.execute("ALTER FUNCTION rowvec.read_rows OWNER TO rowvec_test_definer")
        await course.execute("GRANT CREATE ON SCHEMA rowvec TO rowvec_test_definer")
        await course.execute("ALTER VIEW rowvec.rows_course OWNER TO rowvec_test_definer")
        await course.execute("GRANT USAGE ON SCHEMA rowvec TO rowvec_test_definer")
        await course.execute("GRANT SELECT ON ALL TABLES IN SCHEMA rowvec TO rowvec_test_definer")
        await course.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA rowvec TO rowvec_test_definer")
        with pytest.raises(SourceUnreadableError, match="permission denied for table course"):
            await worker.read(claim)
        # Row security must not hide rows: they would be taken for deleted.
        await course.execute("GRANT SELECT ON course TO rowvec_test_definer")
        assert len(await worker.read(claim)) == 1
        await course.execute("ALTER TABLE course ENABLE ROW LEVEL SECURITY")
        with pytest.raises(SourceUnreadableError, match="row-level security"):
            await worker.read(claim)
    finally:
        await course.execute("ALTER FUNCTION rowvec.read_rows OWNER TO CURRENT_USER")
        await course.execute("ALTER VIEW rowvec.rows_course OWNER TO CURRENT_USER")
        await course.execute("DROP OWNED BY rowvec_test_definer; DROP ROLE rowvec_test_definer")


# --- Ways of writing -------------------------------------------------------------------------------------


async def test_copy_is_seen(course: asyncpg.Connection) -> None:
    records = [(key, f"Course {key}") for key in range(1, 1001)]
    await course.copy_records_to_table("course", records=records, columns=["id", "title"])
    assert await changes(course) == [(str(key), "write") for key in range(1, 1001)]


async def test_insert_on_conflict_is_seen_whichever_way_it_goes(course: asyncpg.Connection) -> None:
    upsert = """
        INSERT INTO course (id, title) VALUES (1, $1), (2, 'Two')
        ON CONFLICT (id) DO UPDATE SET title = excluded.title
    """
    await course.execute(upsert, "One")
    assert await changes(course) == [("1", "write"), ("2", "write")]
    await forget_changes(course)
    await course.execute(upsert, "Uno")
    assert await changes(course) == [("1", "write")]
    await forget_changes(course)
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'x') ON CONFLICT DO NOTHING")
    assert await changes(course) == []


async def test_merge_is_seen_whichever_way_it_goes(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One'), (2, 'Two'), (3, 'Three')")
    await worker.settle()
    await course.execute("""
        MERGE INTO course c USING (VALUES (1, 'Uno'), (2, NULL), (4, 'Four')) AS s (id, title) ON c.id = s.id
        WHEN MATCHED AND s.title IS NULL THEN DELETE
        WHEN MATCHED THEN UPDATE SET title = s.title
        WHEN NOT MATCHED THEN INSERT (id, title) VALUES (s.id, s.title)
    """)
    assert sorted(await changes(course)) == [("1", "write"), ("2", "remove"), ("4", "write")]
    assert set(await texts(course)) == {"1", "3"}
    await worker.settle()
    assert await texts(course) == {"1": "title: Uno", "3": "title: Three", "4": "title: Four"}


async def test_a_savepoint_that_is_rolled_back_takes_its_changes_along(
    course: asyncpg.Connection, worker: Worker
) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (9, 'Nine')")
    await worker.settle()
    async with course.transaction():
        await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
        inner = course.transaction()
        await inner.start()
        await course.execute("INSERT INTO course (id, title) VALUES (2, 'Two')")
        await course.execute("DELETE FROM course WHERE id = 9")
        await inner.rollback()
        await course.execute("INSERT INTO course (id, title) VALUES (3, 'Three')")
    assert await changes(course) == [("1", "write"), ("3", "write")]
    assert set(await texts(course)) == {"9"}


async def test_statements_that_touch_no_row_append_nothing(course: asyncpg.Connection) -> None:
    await course.execute("""
        INSERT INTO course (id) SELECT 1 WHERE false;
        UPDATE course SET title = 'x';
        DELETE FROM course;
    """)
    assert await changes(course) == []


async def test_a_key_and_text_that_change_together_are_one_removal_and_one_write(course: asyncpg.Connection) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await forget_changes(course)
    await course.execute("UPDATE course SET id = 2, title = 'Two', teacher = 'ada'")
    assert await changes(course) == [("1", "remove"), ("2", "write")]


# --- Backfill --------------------------------------------------------------------------------------------

KEYS = {
    "bigint": "n",
    "uuid": "md5(n::text)::uuid",
    "text": "'Key ' || (n * 7919 % 2500)::text || CASE WHEN n % 2 = 0 THEN ' ä' ELSE ' Z' END",
}


@pytest.mark.parametrize("type_", KEYS)
async def test_pages_come_in_the_order_of_the_key_and_each_row_once(
    app: asyncpg.Connection, worker: Worker, type_: str
) -> None:
    await app.execute(f"""
        CREATE TABLE old (id {type_} PRIMARY KEY, body text);
        INSERT INTO old SELECT {KEYS[type_]}, 'Text' FROM generate_series(1, 2500) n ORDER BY random();
        SELECT rowvec.watch('old', 'old', ARRAY['body'], 1);
    """)
    assert await backfill(worker, "old") == [1000, 1000, 500, 0]
    wanted = [row["id"] for row in await app.fetch("SELECT id::text FROM old ORDER BY old.id")]
    assert await changes(app) == [(key, "write") for key in wanted]
    # However urgent the source: what was there before waits behind what is written now.
    assert await app.fetchval("SELECT array_agg(DISTINCT priority) FROM rowvec.change") == [5]
    assert await worker.append_page("old") == 0


async def test_a_backfill_is_taken_up_where_it_was_left(app: asyncpg.Connection, worker: Worker, other: Worker) -> None:
    await app.execute("""
        CREATE TABLE old (id bigint PRIMARY KEY, body text);
        INSERT INTO old SELECT n, 'Text' FROM generate_series(1, 2500) n;
        SELECT rowvec.watch('old', 'old', ARRAY['body'], 7);
    """)
    assert await worker.append_page("old") == 1000
    await worker.database.close()
    # What goes meanwhile is not asked for, even when it is the row where the last page ended; what comes before
    # that row is told by its trigger.
    await app.execute("DELETE FROM old WHERE id BETWEEN 990 AND 1500 OR id > 2400")
    await app.execute("INSERT INTO old VALUES (-1, 'New')")
    await forget_changes(app)
    assert await backfill(other, "old") == [900, 0]
    assert await changes(app) == [(str(key), "write") for key in range(1501, 2401)]
    assert await app.fetchval("SELECT array_agg(DISTINCT priority) FROM rowvec.change") == [7]


async def test_a_page_that_is_rolled_back_is_appended_again(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("""
        CREATE TABLE old (id bigint PRIMARY KEY, body text);
        INSERT INTO old SELECT n, 'Text' FROM generate_series(1, 10) n;
        SELECT rowvec.watch('old', 'old', ARRAY['body']);
    """)
    killed = app.transaction()
    await killed.start()
    assert await app.fetchval("SELECT rowvec.append_backfill('old', 'first')") == 10
    await killed.rollback()
    assert await backfill(worker, "old") == [10, 0]
    assert len(await changes(app)) == 10


async def test_two_daemons_at_once_append_each_row_once(
    app: asyncpg.Connection, connect: Connect, worker: Worker, other: Worker
) -> None:
    await app.execute("""
        CREATE TABLE old (id bigint PRIMARY KEY, body text);
        INSERT INTO old SELECT n, 'Text' FROM generate_series(1, 3500) n;
        SELECT rowvec.watch('old', 'old', ARRAY['body']);
    """)
    busy = await connect()
    transaction = busy.transaction()
    await transaction.start()
    assert await busy.fetchval("SELECT rowvec.append_backfill('old', 'first')") == 1000
    # The second one neither waits nor does the same page.
    assert await asyncio.wait_for(worker.append_page("old"), 5) == 0
    await transaction.commit()
    await asyncio.gather(backfill(worker, "old"), backfill(other, "old"))
    for model in ("first", "second"):
        rows = await app.fetch("SELECT content_id FROM rowvec.change WHERE model = $1", model)
        assert sorted(int(row["content_id"]) for row in rows) == list(range(1, 3501))


async def test_a_backfill_waits_while_enough_is_waiting(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("""
        CREATE TABLE old (id bigint PRIMARY KEY, body text);
        INSERT INTO old SELECT n, 'Text' FROM generate_series(1, 2000) n;
        SELECT rowvec.watch('old', 'old', ARRAY['body'], 2, urgent_rows => 2000);
    """)
    assert await worker.unfilled(500) == ["old"]
    assert await worker.append_page("old") == 1000
    assert await worker.unfilled(500) == []  # unfolded changes wait
    while (await worker.fold()).folded:
        pass
    assert await worker.unfilled(500) == []  # items wait
    claim = await worker.claim(Lane.BULK, "old")
    assert len(claim.items) == 1000
    await worker.store(claim, await worker.read(claim))
    await app.execute("DELETE FROM rowvec.embedding_queue WHERE model = 'second'")
    assert await worker.unfilled(500) == ["old"]
    # Items of the urgent lanes are the application's own: they hold no backfill up.
    await app.execute("UPDATE old SET body = 'Changed'")
    while (await worker.fold()).folded:
        pass
    assert await worker.unfilled(500) == ["old"]


async def test_a_full_source_holds_up_no_other(app: asyncpg.Connection, worker: Worker) -> None:
    await app.execute("""
        CREATE TABLE a (id bigint PRIMARY KEY, body text);
        CREATE TABLE b (id bigint PRIMARY KEY, body text);
        INSERT INTO a SELECT n, 'Text' FROM generate_series(1, 1500) n;
        INSERT INTO b VALUES (1, 'Text');
        SELECT rowvec.watch('a', 'a', ARRAY['body']);
        SELECT rowvec.watch('b', 'b', ARRAY['body']);
    """)
    assert await worker.append_page("a") == 1000
    while (await worker.fold()).folded:
        pass
    assert await worker.unfilled(500) == ["b"]


async def test_an_empty_table_is_filled_at_once(course: asyncpg.Connection, worker: Worker) -> None:
    assert await worker.unfilled(1) == ["course"]
    assert await worker.append_page("course") == 0
    assert await worker.unfilled(1) == []
    assert await course.fetchval("SELECT NOT EXISTS (SELECT FROM rowvec.unfilled WHERE content_type = 'course')")


async def test_a_new_model_fills_all_sources_again(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("INSERT INTO course (id, title) VALUES (1, 'One')")
    await backfill(worker, "course")
    await worker.settle()
    await course.execute("SELECT rowvec.add_model('third', 2)")
    assert await backfill(worker, "course") == [1, 0]
    await worker.fold()
    assert await course.fetchval("SELECT count(*) FROM rowvec.embedding_queue WHERE model = 'third'") == 1


async def test_a_backfill_of_nothing_watched_is_nothing(worker: Worker) -> None:
    assert await worker.append_page("nobody") == 0


# --- By hand ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("'nobody', '1'", 'No source is watched as "nobody".'),
        ("NULL, '1'", "No source is watched as"),
        ("'course', NULL", "The content id must not be NULL, and have at most 1,000 bytes."),
        ("'course', ''", '"" is no key of "course": it is a bigint.'),
        ("'course', repeat('ü', 501)", "The content id must not be NULL, and have at most 1,000 bytes."),
        ("'course', '1', 0", "The priority must be 1 to 100, not 0."),
        ("'course', '1', 101", "The priority must be 1 to 100, not 101."),
        ("'course', '1', 100000", "The priority must be 1 to 100, not 100000."),
    ],
)
async def test_enqueue_refuses_what_makes_no_sense(course: asyncpg.Connection, call: str, message: str) -> None:
    with pytest.raises(asyncpg.PostgresError) as caught:
        await course.execute(f"SELECT rowvec.enqueue({call})")
    assert caught.value.sqlstate == "RV001"
    assert message in str(caught.value)
    assert await changes(course) == []


async def test_enqueue_takes_the_priority_of_the_source_or_its_own(course: asyncpg.Connection) -> None:
    await course.execute("SELECT rowvec.enqueue('course', '1'), rowvec.enqueue('course', '2', 9)")
    rows: list[Any] = await course.fetch("SELECT content_id, priority FROM rowvec.change ORDER BY id")
    assert [tuple(row) for row in rows] == [("1", 2), ("2", 9)]


async def test_an_empty_text_is_a_key_like_any_other(app: asyncpg.Connection) -> None:
    await app.execute("CREATE TABLE word (id text PRIMARY KEY, body text)")
    await app.execute("SELECT rowvec.watch('word', 'word', ARRAY['body'], 4); SELECT rowvec.enqueue('word', '')")
    assert await changes(app) == [("", "write")]


async def test_an_enqueued_key_without_a_row_ends_quietly(course: asyncpg.Connection, worker: Worker) -> None:
    await course.execute("SELECT rowvec.enqueue('course', '404')")
    await worker.settle()
    assert await worker.queue.probe(["first", "second"], EVER) == {}
    assert await texts(course) == {}


async def test_a_stranger_s_function_that_looks_like_ours_stands_in_nobody_s_way(course: asyncpg.Connection) -> None:
    async with course.transaction():
        await course.execute("""
            CREATE ROLE rowvec_test_stranger;
            CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS
            E'DECLARE\nappended integer;\nBEGIN\nappended := rowvec.append_changes_v1(''course'', NULL);\nEND';
            ALTER FUNCTION mine OWNER TO rowvec_test_stranger;
            SELECT rowvec.pause('course');
            SELECT rowvec.resume('course');
        """)
        assert await course.fetchval("SELECT to_regprocedure('mine()') IS NOT NULL")
        assert len(await triggers(course)) == 5
        await course.execute("DROP OWNED BY rowvec_test_stranger; DROP ROLE rowvec_test_stranger")
