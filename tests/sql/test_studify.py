"""The preset `studify`: flows, names, the operator's guide word for word, and both views in every state of an item."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import studify
from daemons import eventually, running
from database import Connect, Server, as_user, drop_database, empty_database
from rowvec.domain.errors import UsageError
from rowvec.domain.items import Slot
from rowvec.domain.lanes import Lane
from rowvec.models.deterministic import deterministic_embedding
from rowvec.pipeline.gate import HARMLESS
from rowvec.postgres.administration import migrate_database
from rowvec.postgres.presets import Installed
from studify import activate_bge, bare_database, embedders, install, settled
from worker import EVER, TRAITS, Worker

USER = uuid.UUID(int=1)
MODELS = ["e5_small", "bge_m3"]
STATES = ["queued", "processing", "failed"]


@pytest.fixture(scope="module")
def template(server: Server) -> Iterator[str]:
    """In place of the database that other tests copy: one with the preset."""
    name = asyncio.run(studify.create_studify(server))
    yield name
    asyncio.run(drop_database(server, name))


@pytest.fixture
async def user(app: asyncpg.Connection) -> asyncpg.Connection:
    """A session beside one registered user, whose changes are forgotten."""
    await register(app, USER, full_name="Ada Lovelace")
    await app.execute("DELETE FROM rowvec.change")
    return app


async def register(session: asyncpg.Connection, user: uuid.UUID, **metadata: object) -> None:
    await session.execute(
        "INSERT INTO auth.users (id, email, raw_user_meta_data) VALUES ($1, $2, $3)",
        *(user, f"{user.hex}@example.org", json.dumps(metadata)),
    )


async def changes(session: asyncpg.Connection) -> list[tuple[Any, ...]]:
    rows = await session.fetch("SELECT content_type, content_id, priority, kind FROM rowvec.change ORDER BY id")
    return [tuple(row) for row in rows]


async def view(session: asyncpg.Connection, where: str = "true") -> list[dict[str, Any]]:
    rows = await session.fetch(f"SELECT * FROM embedding_queue WHERE {where} ORDER BY content_type, content_id")
    return [dict(row) for row in rows]


async def queue(session: asyncpg.Connection) -> dict[tuple[str, str], dict[str, Any]]:
    """The engine's own rows, by id and model."""
    rows = await session.fetch("SELECT * FROM rowvec.embedding_queue")
    return {(row["content_id"], row["model"]): dict(row) for row in rows}


async def refusal(session: asyncpg.Connection, sql: str) -> asyncpg.PostgresError:
    with pytest.raises(asyncpg.PostgresError) as caught:
        await session.execute(sql)
    assert caught.value.sqlstate == "RV001", caught.value
    return caught.value


async def fold(worker: Worker) -> None:
    while (await worker.fold()).folded:
        pass


async def put_in_state(session: asyncpg.Connection, content_id: str, model: str, state: str) -> None:
    """Bring an item that is queued into another state, as a daemon somewhere would."""
    await session.execute(
        """
        UPDATE rowvec.embedding_queue
        SET status = $3, retry_count = CASE $3 WHEN 'queued' THEN 2 WHEN 'failed' THEN 5 ELSE 1 END,
            error_message = CASE $3 WHEN 'processing' THEN NULL ELSE 'The model refuses this text.' END,
            error_detail = CASE $3 WHEN 'processing' THEN NULL ELSE 'It is poison.' END,
            scheduled_at = CASE $3 WHEN 'queued' THEN now() + interval '0.5 s' ELSE now() - interval '1 minute' END,
            token = CASE $3 WHEN 'processing' THEN gen_random_uuid() END,
            daemon = CASE $3 WHEN 'processing' THEN gen_random_uuid() END,
            lease_expires_at = CASE $3 WHEN 'processing' THEN now() + interval '1 hour' END
        WHERE content_id = $1 AND model = $2
        """,
        *(content_id, model, state),
    )


async def add_courses(session: asyncpg.Connection, count: int, first: int = 1) -> None:
    await session.execute(
        "INSERT INTO course (id, title) SELECT n, 'Course ' || n FROM generate_series($1::int, $2::int) n",
        *(first, first + count - 1),
    )


async def all_stored(session: asyncpg.Connection, model: str) -> dict[tuple[str, str], int]:
    """How many vectors each row has."""
    rows = await session.fetch(
        f"SELECT content_type, content_id, count(*) FROM rowvec.vector_{model} GROUP BY 1, 2 ORDER BY 1, 2"
    )
    return {(row[0], row[1]): row[2] for row in rows}


# --- What is installed -----------------------------------------------------------------------------------


async def test_triggers_and_functions_have_their_original_names(app: asyncpg.Connection) -> None:
    rows = await app.fetch("""
        SELECT t.tgrelid::regclass::text, t.tgname::text, p.oid::regprocedure::text
        FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE NOT t.tgisinternal AND t.tgname !~ '_(update|move|delete|truncate)$'
          AND p.pronamespace = 'public'::regnamespace
        ORDER BY 1, 2
    """)
    assert [tuple(row) for row in rows] == [
        ("auth.users", "auth_user_embedding_trigger", "trigger_auth_user_embedding()"),
        ("auth.users", "on_auth_user_created", "create_public_profile_for_user()"),
        ("comments", "comment_embedding_trigger", "trigger_comment_embedding()"),
        ("community_post", "post_embedding_trigger", "trigger_post_embedding()"),
        ("course", "course_embedding_trigger", "trigger_course_embedding()"),
        ("lesson", "lesson_embedding_trigger", "trigger_lesson_embedding()"),
        ("profiles", "profile_embedding_trigger", "trigger_profile_embedding()"),
    ]
    watched = await app.fetch("SELECT content_type, priority FROM rowvec.source ORDER BY content_type")
    expected = {"auth_user": 2, "comment": 5, "course": 2, "document": 100, "lesson": 3, "post": 4, "profile": 2}
    assert {row["content_type"]: row["priority"] for row in watched} == expected
    called = await app.fetchval("SELECT count(*) FROM pg_proc WHERE proname ~ '^queue_for_embedding(_qstash)?$'")
    assert called == 6


async def test_both_models_are_known_and_the_one_without_a_provider_sleeps(app: asyncpg.Connection) -> None:
    rows = await app.fetch("SELECT name, dimensions, active, is_default FROM rowvec.model ORDER BY name")
    assert [tuple(row) for row in rows] == [("bge_m3", 1024, False, False), ("e5_small", 384, True, True)]


async def snapshot(session: asyncpg.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All that an installation could change."""
    looks = {
        "sources": "SELECT * FROM rowvec.source ORDER BY 1",
        "backfills": "SELECT * FROM rowvec.backfill ORDER BY 1, 2",
        "models": "SELECT * FROM rowvec.model ORDER BY 1",
        "changes": "SELECT * FROM rowvec.change ORDER BY 1, 2",
        "triggers": "SELECT oid, tgrelid, tgfoid FROM pg_trigger WHERE NOT tgisinternal ORDER BY oid",
        "functions": "SELECT oid, proacl::text, prosrc FROM pg_proc WHERE oid >= 16384 ORDER BY oid",
        "relations": "SELECT oid, relname, relacl::text FROM pg_class WHERE oid >= 16384 ORDER BY oid",
    }
    return {name: [tuple(row) for row in await session.fetch(sql)] for name, sql in looks.items()}


async def test_its_models_can_t_be_dropped_while_its_view_shows_them(app: asyncpg.Connection, dsn: str) -> None:
    await app.execute("SELECT rowvec.add_model('other', 4)")
    with pytest.raises(asyncpg.PostgresError) as caught:
        await app.execute("SELECT rowvec.drop_model('bge_m3')")
    assert (
        caught.value.args[0]
        == 'The vectors of the model "bge_m3" are shown by public.embeddings, rowvec.studify_bge_m3.'
    )
    drop = "DROP VIEW public.embeddings, rowvec.studify_bge_m3"
    assert caught.value.hint == f"If nobody needs that any more, drop it first: {drop}."
    await app.execute(f"{drop}; SELECT rowvec.drop_model('bge_m3')")
    await install(dsn)
    assert await app.fetchval("SELECT count(*) FROM public.embeddings") == 0


async def test_its_models_take_texts_of_known_length(app: asyncpg.Connection, dsn: str) -> None:
    windows = "SELECT name, window_tokens FROM rowvec.model ORDER BY name"
    assert [tuple(row) for row in await app.fetch(windows)] == [("bge_m3", 8192), ("e5_small", 512)]
    await app.execute("UPDATE rowvec.model SET window_tokens = 400 WHERE name = 'e5_small'")
    await install(dsn)
    assert [tuple(row) for row in await app.fetch(windows)] == [("bge_m3", 8192), ("e5_small", 400)]


async def test_installing_it_again_changes_nothing(user: asyncpg.Connection, dsn: str) -> None:
    await add_courses(user, 3)
    await user.execute("GRANT SELECT, UPDATE ON embedding_queue TO pg_monitor")
    await user.execute("GRANT EXECUTE ON FUNCTION queue_for_embedding(text, bigint, integer) TO PUBLIC")
    before = await snapshot(user)
    assert await install(dsn) == Installed([], [])
    assert await snapshot(user) == before


async def test_what_was_dropped_is_made_again(user: asyncpg.Connection, dsn: str) -> None:
    await user.execute(
        "DROP TRIGGER course_embedding_trigger ON course; DROP TRIGGER on_auth_user_created ON auth.users"
    )
    await user.execute("DROP VIEW embeddings; DROP TRIGGER rowvec_insert ON embedding_queue")
    assert (await install(dsn)).sources == ["course"]
    await user.execute("DROP TRIGGER rowvec_write ON embeddings")
    assert await install(dsn) == Installed([], [])
    assert await user.fetch("SELECT FROM pg_trigger WHERE tgname = 'rowvec_write'")
    await register(user, uuid.uuid4(), name="Grace")
    await add_courses(user, 1)
    assert [change[0] for change in await changes(user)] == ["profile", "auth_user", "course"]
    assert await user.fetch("SELECT FROM embeddings") == []


async def test_what_somebody_has_paused_stays_paused(user: asyncpg.Connection, dsn: str) -> None:
    await user.execute("SELECT rowvec.pause('course')")
    assert await install(dsn) == Installed([], [])
    assert await user.fetchval("SELECT paused_at FROM rowvec.source WHERE content_type = 'course'")


async def test_several_at_once_install_it_once(server: Server) -> None:
    async with bare_database(server) as (dsn, session):
        done = await asyncio.gather(*(install(dsn) for _ in range(3)))
        assert sorted(len(installed.sources) for installed in done) == [0, 0, 6]
        assert sorted(list(installed.models) for installed in done) == [[], [], ["bge_m3"]]
        assert await session.fetchval("SELECT count(*) FROM rowvec.source") == 7


@pytest.mark.parametrize("schema", ["extensions", 'Odd "one"'])
async def test_pgvector_may_live_in_another_schema(server: Server, schema: str) -> None:
    async with empty_database(server) as dsn:
        session = await asyncpg.connect(dsn)
        quoted = '"' + schema.replace('"', '""') + '"'
        await session.execute(f"CREATE SCHEMA {quoted}; CREATE EXTENSION vector SCHEMA {quoted}")
        await migrate_database(dsn, {"e5_small": 384})
        await install(dsn)
        async with running(dsn, *embedders(1)):
            await session.execute(studify.PUT)
            await settled(session)
        assert await session.fetchval("SELECT has_e5_embedding FROM embeddings")
        await session.execute("UPDATE embeddings SET embedding_e5_small = NULL, updated_at = now()")
        assert await session.fetch("SELECT FROM embeddings") == []
        await session.close()


async def test_an_owner_without_other_rights_is_enough(server: Server) -> None:
    name = f"rowvec_test_{uuid.uuid4().hex[:12]}"
    async with empty_database(server) as dsn:
        admin = await asyncpg.connect(dsn)
        database = await admin.fetchval("SELECT current_database()")
        await admin.execute(f"""
            CREATE EXTENSION vector;
            CREATE ROLE {name} LOGIN PASSWORD 'secret';
            ALTER DATABASE {database} OWNER TO {name};
        """)
        try:
            mine = as_user(dsn, name)
            await migrate_database(mine, {"e5_small": 384})
            assert len((await install(mine)).sources) == 6
            assert (await install(mine)).sources == []
            owner = await asyncpg.connect(mine)
            async with running(mine, *embedders(1)):
                await register(owner, USER, name="Ada")
                await owner.execute(studify.PUT)
                await settled(owner)
                assert await owner.fetchval("SELECT count(*) FROM embeddings") == 3
                await owner.execute("DELETE FROM embeddings")
                await settled(owner)
                assert await owner.fetchval("SELECT count(*) FROM embeddings") == 2
            await owner.close()
        finally:
            await admin.execute(f"REASSIGN OWNED BY {name} TO CURRENT_USER; DROP OWNED BY {name}; DROP ROLE {name}")
            await admin.close()


async def test_users_may_be_the_host_s(server: Server) -> None:
    """As on hosts that register users themselves: a role of theirs owns auth.users, and lends some rights."""
    mine, host = (f"rowvec_test_{uuid.uuid4().hex[:12]}" for _ in range(2))
    async with empty_database(server) as dsn:
        admin = await asyncpg.connect(dsn)
        database = await admin.fetchval("SELECT current_database()")
        await admin.execute(f"""
            CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions;
            CREATE ROLE {host}; CREATE ROLE {mine} LOGIN PASSWORD 'secret' BYPASSRLS;
            GRANT USAGE ON SCHEMA extensions TO {mine};
            ALTER DATABASE {database} OWNER TO {mine};
            CREATE SCHEMA auth AUTHORIZATION {host};
            CREATE TABLE auth.users (id uuid PRIMARY KEY, email text, raw_user_meta_data jsonb);
            ALTER TABLE auth.users OWNER TO {host};
            ALTER TABLE auth.users ENABLE ROW LEVEL SECURITY;
            GRANT USAGE ON SCHEMA auth TO {mine};
            GRANT SELECT, TRIGGER, REFERENCES ON auth.users TO {mine};
        """)
        try:
            await migrate_database(as_user(dsn, mine), {"e5_small": 384})
            assert len((await install(as_user(dsn, mine))).sources) == 6
            async with running(as_user(dsn, mine), *embedders(1)):
                await admin.execute(f"SET ROLE {host}")
                await register(admin, USER, name="Ada")
                await admin.execute("RESET ROLE")
                await settled(admin)
                assert await admin.fetchval("SELECT count(*) FROM embeddings") == 2
        finally:
            await admin.execute("RESET ROLE")
            for name in (mine, host):
                await admin.execute(f"REASSIGN OWNED BY {name} TO CURRENT_USER; DROP OWNED BY {name}; DROP ROLE {name}")
            await admin.close()


async def test_an_application_with_rows_is_filled(server: Server) -> None:
    async with bare_database(server) as (dsn, session):
        await session.execute("""
            CREATE TABLE public.course (
                id bigint PRIMARY KEY, owner_id uuid, title text, description text, category text, tags text[],
                requirements text[], learning_objectives text[]);
            INSERT INTO course (id, title) VALUES (1, 'From before')
        """)
        await install(dsn)
        async with running(dsn, *embedders(1)):
            await eventually(lambda: session.fetchval("SELECT EXISTS (SELECT FROM embeddings)"))
        assert await session.fetchval("SELECT content_text FROM embeddings") == "title: From before"


OBSTACLES = """
    CREATE TABLE public.embedding_queue (id bigint PRIMARY KEY, status text);
    CREATE VIEW public.embeddings AS SELECT 1 AS id;
    CREATE FUNCTION public.queue_for_embedding(text, bigint) RETURNS void LANGUAGE sql AS '';
    CREATE FUNCTION public.trigger_course_embedding() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TABLE public.course (id bigint PRIMARY KEY);
    CREATE TRIGGER course_embedding_trigger AFTER INSERT ON public.course
        FOR EACH ROW EXECUTE FUNCTION public.trigger_course_embedding();
"""


async def test_the_original_application_s_own_things_are_named_and_left_alone(server: Server) -> None:
    async with bare_database(server) as (dsn, session):
        await session.execute(OBSTACLES)
        before = await snapshot(session)
        with pytest.raises(UsageError) as caught:
            await install(dsn)
        for name in (
            "the table public.embedding_queue",
            "the view public.embeddings",
            "the function queue_for_embedding(text,bigint)",
            "the function trigger_course_embedding()",
            "the trigger course_embedding_trigger on course",
        ):
            assert name in caught.value.message
        assert "docs/studify.md" in caught.value.hint
        assert await snapshot(session) == before


ORIGINAL = """
    CREATE SCHEMA auth;
    CREATE TABLE auth.users (id uuid PRIMARY KEY, raw_user_meta_data jsonb);
    CREATE TABLE profiles (id bigserial PRIMARY KEY, user_id uuid UNIQUE, display_name text, bio text,
                           interests text[]);
    CREATE TABLE course (id bigserial PRIMARY KEY, owner_id uuid, title text, description text, category text,
                         tags text[], requirements text[], learning_objectives text[]);
    CREATE TABLE lesson (id bigserial PRIMARY KEY, title text, description text, content text);
    CREATE TABLE community_post (id bigserial PRIMARY KEY, author_id uuid, title text, body text);
    CREATE TABLE comments (id bigserial PRIMARY KEY, author_id uuid, body text);
    CREATE TABLE embedding_queue (id bigserial PRIMARY KEY, content_type text, content_id text, content_text text,
                                  content_hash text, status text, UNIQUE (content_type, content_id));
    CREATE TABLE embeddings (id bigserial PRIMARY KEY, content_type text, content_id text, content_text text,
                             content_hash text);
    CREATE FUNCTION create_public_profile_for_user() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO profiles (user_id) VALUES (NEW.id); RETURN NEW; END';
    CREATE TRIGGER on_auth_user_created AFTER INSERT ON auth.users
        FOR EACH ROW EXECUTE FUNCTION create_public_profile_for_user();
    CREATE FUNCTION trigger_course_embedding() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO embedding_queue (content_type, content_id) VALUES (''course'', NEW.id); RETURN NEW; END';
    CREATE TRIGGER course_embedding_trigger AFTER INSERT OR UPDATE ON course
        FOR EACH ROW EXECUTE FUNCTION trigger_course_embedding();
    INSERT INTO course (title) VALUES ('Algebra'), ('Geometry');
    INSERT INTO embeddings (content_type, content_id, content_text, content_hash)
    VALUES ('course', 1, 'Algebra', 'a'), ('faq', 'refunds', 'Within a month.', 'b');
"""


async def test_an_original_installation_moves_as_the_page_says(server: Server) -> None:
    page = (Path(__file__).parents[2] / "docs" / "studify.md").read_text().split("## Moving")[1]
    drops, renames, texts = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    async with bare_database(server) as (dsn, session):
        await session.execute(ORIGINAL)
        with pytest.raises(UsageError):
            await install(dsn)
        await session.execute(drops)
        await session.execute(renames)
        assert len((await install(dsn)).sources) == 6
        await session.execute(texts)
        async with running(dsn, *embedders(1)):
            await eventually(lambda: session.fetchval("SELECT count(*) = 3 FROM embeddings"))
        (text,) = await session.fetch("SELECT content_text, content_hash FROM embeddings WHERE content_type = 'faq'")
        assert tuple(text) == ("Within a month.", "b")


async def test_a_model_of_another_length_is_refused(server: Server) -> None:
    async with empty_database(server) as dsn:
        await migrate_database(dsn, {"e5_small": 8})
        with pytest.raises(UsageError, match=r'The model "e5_small" has 8 dimensions.*384'):
            await install(dsn)


async def test_what_is_new_is_nobody_s_but_its_owner_s(server: Server) -> None:
    async with bare_database(server) as (dsn, session):
        name = f"rowvec_test_{uuid.uuid4().hex[:12]}"
        await session.execute(f"""
            CREATE ROLE {name};
            GRANT USAGE ON SCHEMA public TO {name};
            ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO {name};
            ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO {name};
        """)
        try:
            await install(dsn)
            open_ = await session.fetch(
                """
                SELECT c.oid::regclass::text FROM pg_class c
                WHERE c.relname IN ('embedding_queue', 'embeddings') AND has_table_privilege($1, c.oid, 'SELECT')
                UNION ALL
                SELECT p.oid::regprocedure::text FROM pg_proc p
                WHERE has_function_privilege($1, p.oid, 'EXECUTE') AND p.oid >= 16384
                  AND p.prosrc LIKE '%rowvec%' AND p.prolang <> 13
                """,
                name,
            )
            assert open_ == []
            # What an operator grants since then stays, and is enough.
            await session.execute(f"""
                GRANT SELECT, INSERT, UPDATE, DELETE ON embedding_queue, embeddings TO {name};
                GRANT EXECUTE ON FUNCTION queue_for_embedding(text, text, integer) TO {name};
            """)
            await install(dsn)
            await session.execute(f"SET ROLE {name}")
            for statement in studify.GUIDE:
                await session.execute(statement)
            await session.execute("SELECT queue_for_embedding('test', '1'::text)")
            assert await session.fetch("SELECT * FROM embeddings") == []
            await session.execute("DELETE FROM embedding_queue WHERE content_type = 'test'")
            await session.execute("RESET ROLE")
        finally:
            await session.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


# --- Flows -----------------------------------------------------------------------------------------------


async def test_registering_a_user_makes_the_profile_and_queues_both(app: asyncpg.Connection) -> None:
    await register(app, USER, full_name="Ada Lovelace", email="ada@example.org")
    profile = await app.fetchrow("SELECT id, user_id, display_name FROM profiles")
    assert profile is not None
    assert tuple(profile)[1:] == (USER, "Ada Lovelace")
    assert sorted(await changes(app)) == [
        ("auth_user", str(USER), 2, "write"),
        ("profile", str(profile["id"]), 2, "write"),
    ]


async def test_whoever_registers_users_needs_no_other_right(app: asyncpg.Connection, connect: Connect) -> None:
    name = f"rowvec_test_{uuid.uuid4().hex[:12]}"
    await app.execute(f"CREATE ROLE {name}; GRANT USAGE ON SCHEMA auth TO {name}; GRANT INSERT ON auth.users TO {name}")
    try:
        registrar = await connect()
        await registrar.execute(f"SET ROLE {name}")
        await register(registrar, USER, name="Ada")
        await registrar.close()
        assert len(await changes(app)) == 2
    finally:
        await app.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({"full_name": "Ada", "name": "Other"}, "Ada"),
        ({"full_name": "  ", "name": " Ada "}, "Ada"),
        ({"full_name": "ada@example.org", "display_name": "Ada"}, "Ada"),
        ({"user_name": "ada", "preferred_username": "a"}, "ada"),
        ({"preferred_username": "张伟"}, "张伟"),
        ({"name": {"first": "Ada"}, "email": "ada@example.org"}, None),
        ({"name": None}, None),
        ({}, None),
    ],
)
async def test_a_user_is_called_by_the_first_name_that_is_no_address(
    app: asyncpg.Connection, metadata: dict[str, Any], name: str | None
) -> None:
    await register(app, USER, **metadata)
    assert await app.fetchval("SELECT display_name FROM profiles") == name
    assert await app.fetchval("SELECT auth_user_text(u) FROM auth.users u") == name


@pytest.mark.parametrize("metadata", ["[]", '"Ada"', "1", "null", '[{"name": "Ada"}]'])
async def test_a_registration_is_never_refused_for_its_metadata(app: asyncpg.Connection, metadata: str) -> None:
    await app.execute("INSERT INTO auth.users (id, raw_user_meta_data) VALUES ($1, $2::text::jsonb)", USER, metadata)
    assert await app.fetchval("SELECT count(*) FROM profiles WHERE display_name IS NULL") == 1


async def test_a_profile_that_is_there_already_is_left_alone(app: asyncpg.Connection) -> None:
    async with app.transaction():
        await app.execute("ALTER TABLE profiles DROP CONSTRAINT profiles_user_id_fkey")
        await app.execute("INSERT INTO profiles (user_id, display_name) VALUES ($1, 'Mine')", USER)
    await register(app, USER, name="Ada")
    assert await app.fetchval("SELECT array_agg(display_name) FROM profiles") == ["Mine"]


INSERTS = {
    "course": ("INSERT INTO course (id, title) VALUES (7, 'Algebra')", 2),
    "lesson": (
        "INSERT INTO course (id, title) VALUES (7, 'A'); INSERT INTO lesson (id, course_id, title) VALUES (7, 7, 'B')",
        3,
    ),
    "post": (f"INSERT INTO community_post (id, author_id, title) VALUES (7, '{USER}', 'Hello')", 4),
    "comment": (
        f"""INSERT INTO community_post (id, author_id, title) VALUES (7, '{USER}', 'Hello');
            INSERT INTO comments (id, post_id, author_id, body) VALUES (7, 7, '{USER}', 'Me too')""",
        5,
    ),
}


@pytest.mark.parametrize("content_type", INSERTS)
async def test_new_rows_are_queued_at_their_priority(user: asyncpg.Connection, content_type: str) -> None:
    sql, priority = INSERTS[content_type]
    await user.execute(sql)
    assert (content_type, "7", priority, "write") in await changes(user)


@pytest.mark.parametrize(
    ("update", "queued"),
    [
        ("UPDATE course SET title = 'New'", ("course", 2)),
        ("UPDATE course SET description = 'New'", ("course", 2)),
        ("UPDATE course SET category = 'New'", ("course", 2)),
        ("UPDATE course SET tags = '{New}'", ("course", 2)),
        ("UPDATE course SET requirements = '{New}'", ("course", 2)),
        ("UPDATE course SET learning_objectives = '{New}'", ("course", 2)),
        ("UPDATE lesson SET content = 'New'", ("lesson", 3)),
        ("UPDATE community_post SET body = 'New'", ("post", 4)),
        ("UPDATE comments SET body = 'New'", ("comment", 5)),
        ("UPDATE profiles SET bio = 'New'", ("profile", 2)),
        ("UPDATE profiles SET interests = '{New}'", ("profile", 2)),
        ("""UPDATE auth.users SET raw_user_meta_data = '{"name": "New"}'""", ("auth_user", 2)),
        ("UPDATE course SET view_count = 9, price = 3, is_published = false, updated_at = now(), title = title", None),
        ("UPDATE lesson SET position = 2, video_url = 'x', updated_at = now()", None),
        ("UPDATE community_post SET like_count = 1, updated_at = now()", None),
        ("UPDATE comments SET like_count = 1, updated_at = now()", None),
        ("UPDATE profiles SET avatar_url = 'x', updated_at = now()", None),
        ("UPDATE auth.users SET last_sign_in_at = now(), email = 'new@example.org'", None),
    ],
)
async def test_updates_queue_what_they_concern_and_nothing_else(
    user: asyncpg.Connection, update: str, queued: tuple[str, int] | None
) -> None:
    await user.execute(INSERTS["lesson"][0])
    await user.execute(INSERTS["comment"][0])
    await user.execute("DELETE FROM rowvec.change")
    await user.execute(update)
    assert [(change[0], change[2]) for change in await changes(user)] == ([] if queued is None else [queued])


async def test_a_deleted_user_takes_all_that_was_theirs_along(user: asyncpg.Connection, dsn: str) -> None:
    await user.execute(INSERTS["comment"][0])
    await user.execute(
        "SELECT queue_for_embedding('profile', id), queue_for_embedding('auth_user', user_id) FROM profiles"
    )
    async with running(dsn, *embedders(1)):
        await settled(user)
        assert await user.fetchval("SELECT count(DISTINCT content_type) FROM embeddings") == 4
        owners = await user.fetchval("SELECT array_agg(DISTINCT owner) FROM embeddings")
        assert owners == [str(USER)]
        await user.execute("DELETE FROM auth.users")
        assert await user.fetch("SELECT FROM embeddings") == []
        await settled(user)
        assert await user.fetch("SELECT FROM embeddings") == []


@pytest.mark.parametrize("function", ["queue_for_embedding", "queue_for_embedding_qstash"])
async def test_rows_are_queued_by_ids_of_every_kind(user: asyncpg.Connection, function: str) -> None:
    await user.execute(f"""
        SELECT {function}('course', 42), {function}('course', 43::smallint, 1), {function}('course', '044'),
               {function}('course', 45::bigint, 5), {function}('auth_user', '{USER}'::uuid, 9),
               {function}('auth_user', upper('{USER}')), {function}('post', 46::text, priority => 3)
    """)
    assert await changes(user) == [
        ("course", "42", 2, "write"),
        ("course", "43", 1, "write"),
        ("course", "44", 2, "write"),
        ("course", "45", 5, "write"),
        ("auth_user", str(USER), 9, "write"),
        ("auth_user", str(USER), 2, "write"),
        ("post", "46", 3, "write"),
    ]


async def test_a_text_by_hand_is_asked_for_again(user: asyncpg.Connection) -> None:
    await user.execute(studify.PUT)
    await user.execute("DELETE FROM rowvec.change")
    await user.execute("SELECT queue_for_embedding('test', 1, 3)")
    assert await changes(user) == [("document", '["test", "1"]', 3, "write")]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("'course', 'seven'", '"seven" is no key of "course": it is a bigint'),
        ("'course', gen_random_uuid()", "is no key of"),
        ("'course', NULL::bigint", "The content id must not be NULL, and have at most 1,000 bytes"),
        ("'course', 7, 0", "The priority must be 1 to 100, not 0"),
        ("'test', 1", 'No source is watched as "test", and there is no text of that type with the id "1"'),
        ("NULL, 1", "No source is watched as"),
    ],
)
async def test_what_can_t_be_queued_is_refused(user: asyncpg.Connection, call: str, message: str) -> None:
    assert message in str(await refusal(user, f"SELECT queue_for_embedding({call})"))
    assert await changes(user) == []


# --- The guide -------------------------------------------------------------------------------------------


async def test_each_statement_of_the_guide_as_it_stands(user: asyncpg.Connection) -> None:
    assert await user.execute(studify.PUT) == "INSERT 0 1"
    (row,) = await user.fetch(studify.LOOK)
    assert list(row.keys()) == [
        *("id", "content_type", "content_id", "content_text", "content_hash", "priority", "status", "retry_count"),
        *("error_message", "error_detail", "scheduled_at", "created_at", "updated_at"),
    ]
    assert tuple(row)[1:10] == (
        *("test", "1", "This is a test embedding", "098f6bcd4621d373cade4e832627b4f6", 5, "queued", 0),
        *(None, None),
    )
    assert [tuple(row) for row in await user.fetch(studify.COUNT)] == [("queued", 1)]
    assert len(await user.fetch(studify.NEWEST)) == 1
    assert await user.fetch(studify.FAILED) == []
    assert await user.fetch(studify.ERRORS) == []
    assert await user.execute(studify.RESET) == "UPDATE 0"
    assert sorted(row[0] for row in await user.fetch(studify.COLUMNS)) == [
        *("embedding_bge_m3", "embedding_e5_small", "has_bge_embedding", "has_e5_embedding")
    ]
    types = await user.fetch("""
        SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
        WHERE a.attrelid = 'embeddings'::regclass AND a.attname LIKE 'embedding%'
    """)
    assert {row[0]: row[1] for row in types} == {
        "embedding_e5_small": "vector(384)",
        "embedding_bge_m3": "vector(1024)",
    }


@pytest.mark.parametrize("models", [1, 2])
async def test_a_reset_in_every_order_of_states(
    user: asyncpg.Connection, dsn: str, worker: Worker, models: int
) -> None:
    if models == 2:
        await activate_bge(user)
    orders = list(itertools.product(STATES, repeat=models))
    await add_courses(user, len(orders))
    await fold(worker)
    for number, order in enumerate(orders, 1):
        for model, state in zip(MODELS, order, strict=False):
            await put_in_state(user, str(number), model, state)
    await add_courses(user, 1, first=100)  # one that is not folded yet
    before = await queue(user)

    shown = {row["content_id"]: row for row in await view(user)}
    assert len(shown) == len(orders) + 1
    for number, order in enumerate(orders, 1):
        first = min(order, key=["failed", "processing", "queued"].index)
        row = shown[str(number)]
        assert row["status"] == first
        assert row["retry_count"] == max(
            {"failed": 5, "processing": 1, "queued": 2}[s] for s in order if s == first or s != "queued"
        )
        assert row["error_message"] == (None if first == "processing" else "The model refuses this text.")
        assert row["id"] == min(item["id"] for key, item in before.items() if key[0] == str(number))
    assert shown["100"]["status"] == "queued"
    assert shown["100"]["id"] < 0
    statuses = Counter(row["status"] for row in shown.values())
    assert {row["status"]: row["count"] for row in await user.fetch(studify.COUNT)} == statuses
    assert len(await user.fetch(studify.FAILED)) == statuses["failed"]
    assert [tuple(row) for row in await user.fetch(studify.ERRORS)] == [
        ("The model refuses this text.", statuses["failed"])
    ]

    assert await user.execute(studify.RESET) == f"UPDATE {statuses['failed'] + statuses['processing']}"
    after = await queue(user)
    assert after.keys() == before.keys()
    for key, item in before.items():
        if item["status"] == "queued":
            assert after[key] == item
        else:
            assert after[key]["status"] == "queued"
            assert after[key]["retry_count"] == 0
            for column in ("token", "daemon", "lease_expires_at", "error_message", "error_detail"):
                assert after[key][column] is None
            assert after[key]["scheduled_at"] > item["scheduled_at"]
            assert {after[key][c] == item[c] for c in ("id", "priority", "generation", "created_at")} == {True}
    assert await user.fetch(studify.FAILED) == []

    models_used = embedders(models)
    async with running(dsn, *models_used):
        await settled(user)
    expected = {("course", str(n)): 1 for n in [*range(1, len(orders) + 1), 100]}
    for embedder in models_used:
        assert await all_stored(user, embedder.name) == expected
        assert max(Counter(embedder.texts).values()) == 1


@pytest.mark.parametrize("models", [1, 2])
async def test_the_guide_beside_a_daemon_at_work(user: asyncpg.Connection, dsn: str, models: int) -> None:
    if models == 2:
        await activate_bge(user)
    used = embedders(models)
    async with running(dsn, *used, ROWVEC_BATCH_ITEMS=2):
        await user.execute("INSERT INTO course (id, title) SELECT n, 'POISON ' || n FROM generate_series(1, 4) n")
        await eventually(lambda: user.fetchval("SELECT count(*) = 4 FROM embedding_queue WHERE status = 'failed'"))
        for embedder in used:
            embedder.poison = "no longer"
            embedder.gate.clear()
        await add_courses(user, 20, first=5)

        async def all_states() -> bool:
            found = {row["status"] for row in await user.fetch("SELECT status FROM rowvec.embedding_queue")}
            return found == set(STATES)

        await eventually(all_states)
        for statement in studify.GUIDE:
            await user.execute(statement)
        assert await user.fetch(studify.FAILED) == []
        for statement in studify.GUIDE:  # and once more, on what was claimed meanwhile
            await user.execute(statement)
        for embedder in used:
            embedder.gate.set()
        await settled(user)
        assert await view(user) == []
    expected = {("course", str(n)): 1 for n in range(1, 25)} | {("document", '["test", "1"]'): 1}
    for embedder in used:
        assert await all_stored(user, embedder.name) == expected
        # A text whose worker was sent away by a reset is sent once more, and no text else.
        sent = Counter(text for text in embedder.texts if text != HARMLESS and "POISON" not in text)
        assert set(sent.values()) <= {1, 2, 3}
    assert await user.fetchval("SELECT count(*) FROM embeddings") == 25


async def test_after_a_reset_the_worker_is_refused(user: asyncpg.Connection, worker: Worker) -> None:
    await add_courses(user, 1)
    await fold(worker)
    slot = Slot("e5_small", Lane.IMMEDIATE, "course")
    claim = await worker.queue.claim(slot, uuid.uuid4(), 10, EVER)
    documents = await worker.read(claim)
    embeddings = {
        chunk.hash: deterministic_embedding(chunk.text, 384) for document in documents for chunk in document.chunks
    }
    assert await user.execute(studify.RESET) == "UPDATE 1"
    outcome = await worker.store_.store(claim, TRAITS, documents, embeddings)
    assert (outcome.current, outcome.refused) == ([], [claim.items[0].id])
    assert await user.fetch("SELECT FROM embeddings") == []
    # Whoever claims it next stores it.
    claim = await worker.queue.claim(slot, uuid.uuid4(), 10, EVER)
    outcome = await worker.store_.store(claim, TRAITS, await worker.read(claim), embeddings)
    assert outcome.current == [claim.items[0].id]
    assert await all_stored(user, "e5_small") == {("course", "1"): 1}
    assert await view(user) == []


async def test_a_reset_is_neither_ended_by_a_deleting_writer_nor_waits_for_it(
    user: asyncpg.Connection, connect: Connect, worker: Worker
) -> None:
    await add_courses(user, 3)
    await fold(worker)
    for number in "123":
        await put_in_state(user, number, "e5_small", "failed")
    writer = await connect()
    deleting = writer.transaction()
    await deleting.start()
    await writer.execute("DELETE FROM course WHERE id = 3")
    resetting = user.transaction()
    await resetting.start()
    # Rows 1 and 2 are had, the third one is the writer's.
    assert await asyncio.wait_for(user.execute(studify.RESET), 5) == "UPDATE 2"
    waiting = asyncio.create_task(writer.execute("DELETE FROM course WHERE id IN (1, 2)"))
    await asyncio.sleep(0.1)
    assert await asyncio.wait_for(user.execute(studify.RESET), 5) == "UPDATE 0"
    await resetting.commit()
    await asyncio.wait_for(waiting, 5)
    await deleting.commit()
    await fold(worker)
    assert {row["status"] for row in await view(user)} == {"queued"}


async def test_resets_and_deletions_at_random_lose_and_double_nothing(
    user: asyncpg.Connection, connect: Connect, dsn: str
) -> None:
    """Operators, a writer that changes and deletes rows in its own order, and two daemons, all at once."""
    await activate_bge(user)
    used = [embedders(2), embedders(2)]
    dice = random.Random(7)  # noqa: S311 - a test's
    stopped = asyncio.Event()

    async def operate(session: asyncpg.Connection) -> None:
        while not stopped.is_set():
            await session.execute(studify.RESET)
            await session.execute("UPDATE embedding_queue SET priority = 1 WHERE id > 0 AND priority > 1")
            await session.execute("UPDATE embeddings SET embedding_bge_m3 = NULL WHERE content_id LIKE '%3'")
            await session.execute("DELETE FROM embeddings WHERE content_id LIKE '%7'")

    async def write(session: asyncpg.Connection) -> None:
        for _ in range(60):
            ids = dice.sample(range(1, 61), 20)
            async with session.transaction():
                await session.execute("DELETE FROM course WHERE id = ANY ($1::bigint[])", ids)
            await session.execute(
                "INSERT INTO course (id, title) SELECT i, 'Course ' || i FROM unnest($1::bigint[]) i", ids[:18]
            )

    await add_courses(user, 60)
    async with running(dsn, *used[0], ROWVEC_BATCH_ITEMS=8), running(dsn, *used[1], ROWVEC_BATCH_ITEMS=8):
        operators = [asyncio.create_task(operate(await connect())) for _ in range(2)]
        try:
            await write(await connect())
        finally:
            stopped.set()
            await asyncio.gather(*operators)
        await settled(user)
    left = await user.fetchval("SELECT array_agg(id::text ORDER BY id) FROM course")
    for model in MODELS:
        stored = await user.fetch(f"SELECT content_id, chunk_text FROM rowvec.vector_{model} ORDER BY content_id::int")
        assert [row["content_id"] for row in stored] == left
        assert {row["chunk_text"] for row in stored} == {f"title: Course {i}" for i in left}
    assert await view(user) == []


async def test_one_model_s_queued_item_is_not_touched_by_the_other_s_reset(
    user: asyncpg.Connection, worker: Worker
) -> None:
    await activate_bge(user)
    await add_courses(user, 1)
    await fold(worker)
    await put_in_state(user, "1", "e5_small", "failed")
    await put_in_state(user, "1", "bge_m3", "queued")
    before = await queue(user)
    assert await user.execute("UPDATE embedding_queue SET status = 'queued' WHERE status = 'failed'") == "UPDATE 1"
    after = await queue(user)
    assert after["1", "bge_m3"] == before["1", "bge_m3"]
    # Written are the columns that the statement changes, and what the state itself means.
    assert after["1", "e5_small"]["retry_count"] == 5
    assert after["1", "e5_small"]["error_message"] == "The model refuses this text."
    assert after["1", "e5_small"]["scheduled_at"] > before["1", "e5_small"]["scheduled_at"]


async def test_an_update_writes_the_columns_that_it_changes(user: asyncpg.Connection, worker: Worker) -> None:
    await activate_bge(user)
    await add_courses(user, 1)
    await fold(worker)
    await put_in_state(user, "1", "e5_small", "failed")
    before = await queue(user)

    async def written(assignments: str) -> dict[str, set[str]]:
        """Which columns of which model's row an UPDATE changes."""
        transaction = user.transaction()
        await transaction.start()
        assert await user.execute(f"UPDATE embedding_queue SET {assignments}") == "UPDATE 1"
        after = await queue(user)
        await transaction.rollback()
        found = {model: {c for c in item if item[c] != before["1", model][c]} for (_, model), item in after.items()}
        return {model: columns - {"updated_at"} for model, columns in found.items() if columns}

    assert await written("retry_count = 1") == {"e5_small": {"retry_count"}}
    assert await written("error_message = NULL") == {"e5_small": {"error_message", "error_detail"}}
    assert await written("error_message = 'Seen'") == {"e5_small": {"error_message"}}
    assert await written("error_detail = NULL") == {"e5_small": {"error_detail"}}
    assert await written("scheduled_at = now() + interval '1 hour'") == {"e5_small": {"scheduled_at"}}
    assert await written("priority = 1") == {"e5_small": {"priority"}, "bge_m3": {"priority"}}
    assert await written("priority = 7, updated_at = now()") == {
        "e5_small": {"priority", "lane"},
        "bge_m3": {"priority", "lane"},
    }
    assert await written("status = 'queued', scheduled_at = now() + interval '1 hour', retry_count = 0") == {
        "e5_small": {"status", "scheduled_at", "retry_count"}
    }


@pytest.mark.parametrize(
    ("assignments", "carried", "due_in"),
    [
        ("priority = 1", False, 0),
        ("priority = 3", True, 30),
        ("scheduled_at = now() - interval '1 hour'", False, 0),
        ("scheduled_at = now() + interval '1 hour', priority = 1", False, 3600),
        ("error_message = 'Seen'", True, 30),
    ],
)
async def test_what_is_made_immediate_or_due_at_another_time_waits_for_no_message(
    user: asyncpg.Connection, worker: Worker, assignments: str, due_in: int, *, carried: bool
) -> None:
    await add_courses(user, 1)
    await fold(worker)
    await user.execute("UPDATE rowvec.embedding_queue SET priority = 4")
    await user.execute("""
        UPDATE rowvec.embedding_queue SET message_id = gen_random_uuid(), scheduled_at = now() + interval '30 s'
    """)
    assert await user.execute(f"UPDATE embedding_queue SET {assignments}") == "UPDATE 1"
    item = (await queue(user))["1", "e5_small"]
    left = (item["scheduled_at"] - await user.fetchval("SELECT now()")).total_seconds()
    assert (item["message_id"] is not None, left) == (carried, pytest.approx(due_in, abs=5))


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        ("status = 'processing'", "The status can be set to queued only, not processing."),
        ("status = 'completed'", "The status can be set to queued only, not completed."),
        ("status = NULL", "The status can be set to queued only"),
        ("retry_count = -1", "The retry_count must be 0 or more, not -1."),
        ("retry_count = NULL", "The retry_count must be 0 or more"),
        ("priority = 0", "The priority must be 1 to 100, not 0."),
        ("priority = NULL", "The priority must be 1 to 100"),
        ("scheduled_at = NULL", "An item must have a time at which it is due."),
        ("content_id = '2', content_type = 'post'", "These columns of the queue can't be set: content_"),
        ("content_text = 'Other'", "These columns of the queue can't be set: content_text."),
        ("created_at = now() + interval '1 day'", "These columns of the queue can't be set: created_at."),
        ("error_detail = 'New'", "The error_detail can be set to NULL only."),
    ],
)
async def test_an_update_that_can_t_be_is_refused(
    user: asyncpg.Connection, worker: Worker, assignments: str, message: str
) -> None:
    await add_courses(user, 1)
    await fold(worker)
    before = await queue(user)
    assert message in str(await refusal(user, f"UPDATE embedding_queue SET {assignments}"))
    assert await queue(user) == before


# --- What is not folded yet ------------------------------------------------------------------------------


async def test_a_change_counts_as_queued_and_is_one_row(user: asyncpg.Connection, worker: Worker) -> None:
    await add_courses(user, 1)
    await user.execute("UPDATE course SET title = 'New'")
    await user.execute("SELECT queue_for_embedding('course', 1, 1)")
    (row,) = await view(user)
    assert (row["status"], row["priority"], row["created_at"]) == ("queued", 1, None)
    await fold(worker)
    await put_in_state(user, "1", "e5_small", "failed")
    await user.execute("UPDATE course SET title = 'Newer'")
    (row,) = await view(user)
    assert (row["status"], row["id"] > 0) == ("failed", True)


async def test_a_change_can_be_made_more_urgent(user: asyncpg.Connection, worker: Worker) -> None:
    await user.execute("SELECT rowvec.enqueue('course', '1', 5, now() + interval '1 day')")
    update = "UPDATE embedding_queue SET priority = 1, scheduled_at = now() WHERE content_id = '1'"
    assert await user.execute(update) == "UPDATE 1"
    await fold(worker)
    (item,) = (await queue(user)).values()
    assert (item["priority"], item["scheduled_at"] <= await user.fetchval("SELECT now()")) == (1, True)


async def test_an_update_that_leaves_a_change_as_it_is_is_taken(user: asyncpg.Connection) -> None:
    await add_courses(user, 1)
    update = "UPDATE embedding_queue SET status = 'queued', retry_count = 0, error_message = NULL, scheduled_at = now()"
    assert await user.execute(update) == "UPDATE 1"
    assert len(await changes(user)) == 1


@pytest.mark.parametrize(
    "assignments", ["priority = 9", "scheduled_at = now() + interval '1 h'", "retry_count = 3", "error_message = 'No'"]
)
async def test_what_a_change_can_t_be_is_refused(user: asyncpg.Connection, assignments: str) -> None:
    await add_courses(user, 1)
    error = await refusal(user, f"UPDATE embedding_queue SET {assignments}")
    assert 'The change of "course" 1 is not in the queue yet' in str(error)


# --- Texts by hand ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("models", [1, 2])
async def test_a_text_is_embedded_once_a_model_and_found(user: asyncpg.Connection, dsn: str, models: int) -> None:
    if models == 2:
        await activate_bge(user)
    used = embedders(models)
    async with running(dsn, *used):
        await user.execute(studify.PUT)
        await user.execute(studify.PUT)
        await settled(user)
        assert [embedder.texts for embedder in used] == [["This is a test embedding"]] * models
        (row,) = await user.fetch("SELECT * FROM embeddings")
        assert tuple(row)[:6] == (
            *("test", "1", 0, "This is a test embedding", "098f6bcd4621d373cade4e832627b4f6", None),
        )
        assert (row["has_e5_embedding"], row["has_bge_embedding"]) == (True, models == 2)
        assert (row["embedding_e5_small"] is not None, row["embedding_bge_m3"] is not None) == (True, models == 2)
        # Another text with the same hash is another text all the same.
        await user.execute(studify.PUT.replace("This is a test embedding", "Another"))
        await settled(user)
        assert [embedder.texts[1:] for embedder in used] == [["Another"]] * models
        assert await user.fetchval("SELECT content_text FROM embeddings") == "Another"
        assert await user.execute("DELETE FROM embeddings WHERE content_type = 'test'") == "DELETE 1"
        assert await user.fetch("SELECT FROM rowvec.vector") == []
        await settled(user)
        assert await user.fetch("SELECT FROM rowvec.vector") == []
        assert await user.fetch("SELECT FROM rowvec.document") == []


async def test_a_text_that_is_deleted_leaves_the_queue_at_once(user: asyncpg.Connection, worker: Worker) -> None:
    await user.execute(studify.PUT)
    await fold(worker)
    assert await user.execute("DELETE FROM embedding_queue WHERE content_type = 'test'") == "DELETE 1"
    assert await view(user) == []
    assert await user.fetchval("SELECT count(*) FROM rowvec.embedding_queue") == 1  # about to end by itself


async def test_a_hash_that_nobody_supplied_is_that_of_the_text(user: asyncpg.Connection) -> None:
    await user.execute(
        "INSERT INTO embedding_queue (content_type, content_id, content_text) VALUES ('faq', 'a', 'abc')"
    )
    (row,) = await view(user)
    assert row["content_hash"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert row["priority"] == 5


async def test_a_text_can_be_due_later(user: asyncpg.Connection, worker: Worker) -> None:
    await user.execute("""
        INSERT INTO embedding_queue (content_type, content_id, content_text, scheduled_at)
        VALUES ('faq', 'a', 'abc', now() + interval '1 day'), ('faq', 'b', 'abc', now() - interval '1 day')
    """)
    await fold(worker)
    late, soon = await view(user)
    assert late["scheduled_at"] > soon["scheduled_at"]
    slots = await worker.queue.probe(["e5_small"], EVER)
    assert len(slots) == 1
    claim = await worker.queue.claim(next(iter(slots)), uuid.uuid4(), 10, EVER)
    assert [item.content_id for item in claim.items] == ['["faq", "b"]']


async def test_a_row_of_a_watched_table_is_put_in_by_its_id(user: asyncpg.Connection) -> None:
    await user.execute(
        "INSERT INTO embedding_queue (content_type, content_id, priority, status) VALUES ('course', 7, 4, 'queued')"
    )
    assert await changes(user) == [("course", "7", 4, "write")]
    (row,) = await view(user)
    assert (row["content_text"], row["content_hash"]) == (None, None)


@pytest.mark.parametrize(
    ("columns", "values", "message", "hint"),
    [
        ("content_text", "'Text'", 'The text of "course" comes from its table.', "Change the row"),
        ("content_hash", "'abc'", "There is a content_hash but no content_text.", "the row is the text"),
        ("status", "'failed'", "What is put into the queue is queued", "Leave out status"),
        ("retry_count", "3", "What is put into the queue is queued", "Leave out status"),
        ("error_message", "'No'", "What is put into the queue is queued", "Leave out status"),
        ("id", "5", "The queue itself numbers", "Leave out the id."),
        ("priority", "0", "The priority must be 1 to 100, not 0.", None),
    ],
)
async def test_what_can_t_be_put_in_is_refused(
    user: asyncpg.Connection, columns: str, values: str, message: str, hint: str | None
) -> None:
    error = await refusal(
        user, f"INSERT INTO embedding_queue (content_type, content_id, {columns}) VALUES ('course', 7, {values})"
    )
    assert message in str(error)
    assert hint is None or hint in str(error.hint)
    assert await changes(user) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("'test', NULL, 'Text'", "a content id 1 to 500"),
        ("NULL, 1, 'Text'", "a content id 1 to 500"),
        ("'test', 1, '  '", "There is no text to embed."),
        ("'test', 1, NULL", 'No source is watched as "test"'),
        ("'document', 'x', 'Text'", 'The text of "document" comes from its table.'),
    ],
)
async def test_texts_that_make_no_sense_are_refused(user: asyncpg.Connection, values: str, message: str) -> None:
    error = await refusal(
        user, f"INSERT INTO embedding_queue (content_type, content_id, content_text) VALUES ({values})"
    )
    assert message in str(error)
    assert await user.fetch("SELECT FROM rowvec.document") == []


# --- Taken out -------------------------------------------------------------------------------------------


async def test_only_what_has_failed_can_be_taken_out(user: asyncpg.Connection, worker: Worker) -> None:
    await activate_bge(user)
    await add_courses(user, 2)
    await fold(worker)
    await put_in_state(user, "1", "e5_small", "failed")
    assert await user.execute("DELETE FROM embedding_queue WHERE status = 'failed'") == "DELETE 1"
    assert sorted(await queue(user)) == [("1", "bge_m3"), ("2", "bge_m3"), ("2", "e5_small")]
    error = await refusal(user, "DELETE FROM embedding_queue WHERE content_id = '2'")
    assert 'Out of the queue, the row "course" 2 would be left without its vectors.' in str(error)


# --- The vectors -----------------------------------------------------------------------------------------


async def test_vectors_show_one_row_a_chunk_of_both_models(user: asyncpg.Connection, dsn: str) -> None:
    await activate_bge(user)
    body = "\n\n".join(f"Paragraph {n}. " + "word " * 200 for n in range(6))
    used = embedders(2)
    async with running(dsn, *used):
        await user.execute("INSERT INTO course (id, title, description) VALUES (1, 'Long', $1)", body)
        await settled(user)
        rows = await user.fetch("SELECT * FROM embeddings ORDER BY chunk_index")
        assert [row["chunk_index"] for row in rows] == list(range(len(rows)))
        assert len(rows) > 2
        assert {(row["has_e5_embedding"], row["has_bge_embedding"]) for row in rows} == {(True, True)}
        assert len({row["content_hash"] for row in rows}) == len(rows)
        # One model's vectors go, and are made anew; the other's stay.
        kept = [row["embedding_bge_m3"] for row in rows]
        sent = [len(embedder.texts) for embedder in used]
        for embedder in used:
            embedder.gate.clear()
        update = "UPDATE embeddings SET embedding_e5_small = NULL WHERE content_type = 'course' AND content_id = '1'"
        assert await user.execute(update) == f"UPDATE {len(rows)}"
        bare = await user.fetch("SELECT * FROM embeddings ORDER BY chunk_index")
        assert {(row["has_e5_embedding"], row["has_bge_embedding"]) for row in bare} == {(False, True)}
        for embedder in used:
            embedder.gate.set()
        await settled(user)
        again = await user.fetch("SELECT * FROM embeddings ORDER BY chunk_index")
        assert [row["has_e5_embedding"] for row in again] == [True] * len(rows)
        assert [row["embedding_bge_m3"] for row in again] == kept
        assert [len(embedder.texts) for embedder in used] == [sent[0] + len(rows), sent[1]]


async def test_what_a_sleeping_model_holds_does_not_show(user: asyncpg.Connection, dsn: str) -> None:
    await activate_bge(user)
    await add_courses(user, 1)
    async with running(dsn, *embedders(2)):
        await settled(user)
    await user.execute("SELECT rowvec.deactivate_model('bge_m3')")
    async with running(dsn, *embedders(1)):
        await user.execute("UPDATE course SET title = 'New'")
        await settled(user)
    (row,) = await user.fetch("SELECT * FROM embeddings")
    assert (row["content_text"], row["has_bge_embedding"]) == ("title: New", False)


@pytest.mark.parametrize(
    "assignment", ["has_e5_embedding = false", "embedding_e5_small = NULL, has_e5_embedding = false"]
)
async def test_a_mark_set_to_false_means_the_same(user: asyncpg.Connection, dsn: str, assignment: str) -> None:
    await add_courses(user, 2)
    embedder = embedders(1)[0]
    async with running(dsn, embedder):
        await settled(user)
        assert await user.execute(f"UPDATE embeddings SET {assignment} WHERE content_id = '1'") == "UPDATE 1"
        await settled(user)
    assert Counter(embedder.texts) == {"title: Course 1": 2, "title: Course 2": 1}
    assert await user.fetchval("SELECT count(*) FROM embeddings") == 2


async def test_a_row_s_vectors_that_are_deleted_are_made_anew(user: asyncpg.Connection, dsn: str) -> None:
    await add_courses(user, 3)
    embedder = embedders(1)[0]
    async with running(dsn, embedder):
        await settled(user)
        assert await user.execute("DELETE FROM embeddings WHERE content_id = '2'") == "DELETE 1"
        await settled(user)
    assert await all_stored(user, "e5_small") == {("course", str(n)): 1 for n in (1, 2, 3)}
    assert Counter(embedder.texts)["title: Course 2"] == 2


async def test_vectors_in_a_writer_s_hand_are_passed_over(user: asyncpg.Connection, connect: Connect, dsn: str) -> None:
    await add_courses(user, 2)
    async with running(dsn, *embedders(1)):
        await settled(user)
    writer = await connect()
    async with writer.transaction():
        await writer.execute("DELETE FROM course WHERE id = 1")
        assert await asyncio.wait_for(user.execute("DELETE FROM embeddings"), 5) == "DELETE 1"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("INSERT INTO embeddings (content_type, content_id) VALUES ('course', 1)", "Vectors are made by the daemon"),
        ("UPDATE embeddings SET content_text = 'New'", "Vectors can be taken away only"),
        ("UPDATE embeddings SET has_bge_embedding = true", "Vectors can be taken away only"),
        (
            "UPDATE embeddings SET embedding_e5_small = embedding_e5_small * embedding_e5_small",
            "Vectors can be taken away",
        ),
        ("UPDATE embeddings SET owner = 'me', embedding_e5_small = NULL", "Vectors can be taken away only"),
    ],
)
async def test_vectors_are_made_by_nobody_but_the_daemon(
    user: asyncpg.Connection, dsn: str, statement: str, message: str
) -> None:
    await add_courses(user, 1)
    async with running(dsn, *embedders(1)):
        await settled(user)
    before = await user.fetch("SELECT * FROM embeddings")
    assert message in str(await refusal(user, statement))
    assert await user.fetch("SELECT * FROM embeddings") == before
    assert await user.execute("UPDATE embeddings SET chunk_index = chunk_index, updated_at = now()") == "UPDATE 1"
    assert await user.fetch("SELECT * FROM embeddings") == before


# --- Plans -----------------------------------------------------------------------------------------------

MANY = """
    INSERT INTO rowvec.vector_e5_small (content_type, content_id, chunk_index, chunk_text, chunk_hash, repeat,
                                        provider_revision, prefix, embedding)
    SELECT type, CASE type WHEN 'document' THEN jsonb_build_array('faq', n::text)::text ELSE n::text END, 0, '',
           sha256(n::text::bytea), 0, 'r', '', array_fill(0, ARRAY[384])::vector(384)
    FROM generate_series(1, 5000) n, unnest(ARRAY['course', 'document']) type;
    INSERT INTO rowvec.vector_bge_m3 (content_type, content_id, chunk_index, chunk_text, chunk_hash, repeat,
                                      provider_revision, prefix, embedding)
    SELECT content_type, content_id, 0, '', chunk_hash, 0, 'r', '', array_fill(0, ARRAY[1024])::vector(1024)
    FROM rowvec.vector_e5_small;
    INSERT INTO rowvec.document (content_type, content_id, content_text)
    SELECT 'faq', n::text, 'Text' FROM generate_series(1, 5000) n;
    DELETE FROM rowvec.change;
    INSERT INTO rowvec.embedding_queue (content_type, content_id, model, priority, generation)
    SELECT content_type, content_id, 'e5_small', 5, 1 FROM rowvec.vector_e5_small;
    ANALYZE rowvec.vector_e5_small, rowvec.vector_bge_m3, rowvec.document, rowvec.embedding_queue, rowvec.change;
"""


@pytest.mark.parametrize("content_type", ["course", "faq"])
@pytest.mark.parametrize("relation", ["embeddings", "embedding_queue"])
@pytest.mark.parametrize("models", [1, 2])
async def test_a_row_is_looked_up_by_index(
    app: asyncpg.Connection, relation: str, content_type: str, models: int
) -> None:
    await app.execute("UPDATE rowvec.model SET active = true WHERE $1 = 2", models)
    await app.execute(MANY)
    look = f"SELECT * FROM {relation} WHERE content_type = '{content_type}' AND content_id = '7'"
    assert len(await app.fetch(look)) == 1
    plan = "\n".join(row[0] for row in await app.fetch(f"EXPLAIN {look}"))
    assert not re.search(r"Seq Scan on (vector_\w+|document|embedding_queue)", plan), plan


async def test_the_whole_queue_is_counted_without_reading_anything_twice(app: asyncpg.Connection) -> None:
    await app.execute(MANY)
    assert [tuple(row) for row in await app.fetch(studify.COUNT)] == [("queued", 10000)]
    for now in (
        "SELECT 'many items'",
        "DELETE FROM rowvec.embedding_queue WHERE id % 1000 > 0",
        "UPDATE rowvec.document SET content_text = 'New'",  # many changes, which nobody has told the planner of
    ):
        await app.execute(now)
        for statement in (studify.COUNT, studify.NEWEST, studify.FAILED, studify.ERRORS):
            plan = "\n".join(row[0] for row in await app.fetch(f"EXPLAIN (ANALYZE, TIMING OFF) {statement}"))
            assert not re.search(r"Seq Scan.* loops=([2-9]|\d\d)", plan), plan
