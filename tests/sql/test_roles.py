"""The role of daemons: what it may do and what not, who makes it, and how its settings come through a pooler."""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
import tempfile
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from daemons import GatedEmbedder, eventually, finished, is_ready, running
from database import Connect, as_user
from rowvec.cli.migrate import tell_of_role
from rowvec.domain.errors import ConfigurationError, SourceUnreadableError
from rowvec.pipeline import line
from rowvec.postgres.administration import administration, migrate_database
from rowvec.postgres.connections import SETTINGS, Database
from rowvec.postgres.dispatches import PostgresDispatches
from rowvec.postgres.roles import DAEMON_ROLE, PreparedRole, prepare_role
from rowvec.postgres.wake_source import PostgresWakeSource
from worker import EVER, TRAITS, Worker

RIGHTS: Final = [
    ("USAGE", "SCHEMA rowvec"),
    ("SELECT", "TABLE rowvec.schema_migration"),
    ("SELECT", "TABLE rowvec.model"),
    ("SELECT", "TABLE rowvec.source"),
    ("UPDATE (updated_at)", "TABLE rowvec.source"),
    ("SELECT", "TABLE rowvec.unfilled"),
    ("SELECT", "TABLE rowvec.change"),
    ("DELETE", "TABLE rowvec.change"),
    ("SELECT", "TABLE rowvec.embedding_queue"),
    ("INSERT", "TABLE rowvec.embedding_queue"),
    ("UPDATE", "TABLE rowvec.embedding_queue"),
    ("DELETE", "TABLE rowvec.embedding_queue"),
    ("SELECT", "TABLE rowvec.daemon"),
    ("INSERT", "TABLE rowvec.daemon"),
    ("UPDATE (beat_at)", "TABLE rowvec.daemon"),
    ("UPDATE (models)", "TABLE rowvec.daemon"),
    ("UPDATE (resting)", "TABLE rowvec.daemon"),
    ("UPDATE (load)", "TABLE rowvec.daemon"),
    ("UPDATE (carrier)", "TABLE rowvec.daemon"),
    ("DELETE", "TABLE rowvec.daemon"),
    ("SELECT", "TABLE rowvec.vector"),
    ("UPDATE (updated_at)", "TABLE rowvec.vector"),
    ("DELETE", "TABLE rowvec.vector"),
    ("SELECT", "TABLE rowvec.vector_first"),
    ("INSERT", "TABLE rowvec.vector_first"),
    ("UPDATE (chunk_index)", "TABLE rowvec.vector_first"),
    ("UPDATE (chunk_step)", "TABLE rowvec.vector_first"),
    ("UPDATE (owner)", "TABLE rowvec.vector_first"),
    ("DELETE", "TABLE rowvec.vector_first"),
    ("SELECT", "TABLE rowvec.sent"),
    ("INSERT", "TABLE rowvec.sent"),
    ("UPDATE (messages)", "TABLE rowvec.sent"),
    ("UPDATE (items)", "TABLE rowvec.sent"),
    ("USAGE", "SEQUENCE rowvec.generation"),
    ("UPDATE", "SEQUENCE rowvec.awake_until"),
    ("EXECUTE", "FUNCTION rowvec.activate_model(text)"),
    ("EXECUTE", "FUNCTION rowvec.append_backfill(text,text)"),
    ("EXECUTE", "FUNCTION rowvec.missing_rights(name)"),
    ("EXECUTE", "FUNCTION rowvec.read_rows(text,text[])"),
    ("EXECUTE", "FUNCTION rowvec.reopen_sources(text[],text[])"),
]
"""All that a daemon of the model `first` needs for the way of the data."""
BESIDES: Final = [
    ("DELETE", "TABLE rowvec.sent"),
    ("SELECT", "TABLE rowvec.task"),
    ("INSERT", "TABLE rowvec.task"),
    ("UPDATE (ran_at)", "TABLE rowvec.task"),
    ("UPDATE (daemon)", "TABLE rowvec.task"),
    ("EXECUTE", "FUNCTION rowvec.enqueue(text,text,integer,timestamp with time zone)"),
]
"""What it needs for its tasks, and for messages about rows that nothing is queued of."""

FORBIDDEN: Final = [
    "CREATE TABLE rowvec.own ()",
    "CREATE FUNCTION rowvec.own() RETURNS void LANGUAGE sql AS ''",
    "CREATE TABLE public.own ()",
    "CREATE SCHEMA own",
    "CREATE ROLE rowvec_test_own",
    "DROP TABLE rowvec.vector_first",
    "DROP FUNCTION rowvec.read_rows",
    "ALTER TABLE rowvec.source ADD COLUMN own text",
    "ALTER TABLE course DISABLE TRIGGER ALL",
    "TRUNCATE rowvec.change",
    "TRUNCATE rowvec.embedding_queue",
    "TRUNCATE rowvec.vector_first",
    "SELECT FROM course",
    "INSERT INTO course (id) VALUES (1)",
    "SELECT FROM rowvec.rows_course",
    "INSERT INTO rowvec.change (content_type, priority, kind) VALUES ('course', 1, 'write')",
    # What the backfill runs as the owner must not be the daemon's to write.
    "UPDATE rowvec.source SET condition = 'true'",
    "UPDATE rowvec.source SET relation = 'pg_authid'",
    "UPDATE rowvec.model SET is_default = true",
    "UPDATE rowvec.vector_first SET content_id = ''",
    "UPDATE rowvec.vector SET owner = 'me'",
    "INSERT INTO rowvec.schema_migration VALUES (99, 'own', '', true)",
    "SELECT setval('rowvec.generation', 1)",
    "SELECT rowvec.watch('course', 'other', ARRAY['title'])",
    "SELECT rowvec.unwatch('course')",
    "SELECT rowvec.pause('course')",
    "SELECT rowvec.resume('course')",
    "SELECT rowvec.add_model('third', 8)",
    "SELECT rowvec.search('', NULL, NULL)",
    "SELECT rowvec.grant_daemon_rights('rowvec_daemon')",
]


@pytest.fixture
def daemon_dsn(dsn: str) -> str:
    return as_user(dsn, DAEMON_ROLE)


@contextlib.asynccontextmanager
async def session(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


def new_name() -> str:
    """A name for a role: roles are those of all databases of the server."""
    return f"rowvec_test_{uuid.uuid4().hex[:12]}"


@contextlib.asynccontextmanager
async def dropped(admin: asyncpg.Connection, *names: str) -> AsyncIterator[None]:
    """Drop roles at the end, and what they own and may do in this database."""
    try:
        yield
    finally:
        for name in names:
            if await exists(admin, name):
                await admin.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


async def exists(admin: asyncpg.Connection, name: str) -> bool:
    return bool(await admin.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", name))


async def carried(admin: asyncpg.Connection, name: str) -> set[str]:
    found = await admin.fetchval("SELECT rolconfig FROM pg_roles WHERE rolname = $1", name)
    return set(found or ())


ALL_SETTINGS: Final = {f"{name}={value}" for name, value in SETTINGS.items()}


async def missing(admin: asyncpg.Connection, name: str) -> set[tuple[str, str]]:
    return {tuple(row) for row in await admin.fetch("SELECT * FROM rowvec.missing_rights($1)", name)}


async def settled(admin: asyncpg.Connection, failed: int = 0) -> bool:
    """Whether nothing is left to do for the model `first` but what has failed, looked at in one snapshot."""
    return bool(
        await admin.fetchval(
            """
            SELECT bool_and(s.swept) AND NOT EXISTS (SELECT FROM rowvec.unfilled)
               AND NOT EXISTS (SELECT FROM rowvec.change)
               AND (SELECT count(*) FILTER (WHERE status = 'failed') = $1 AND count(*) = $1
                    FROM rowvec.embedding_queue WHERE model = 'first')
            FROM rowvec.source s
            """,
            failed,
        )
    )


# --- The rights ------------------------------------------------------------------------------------------


async def work(app: asyncpg.Connection, dsn: str) -> None:
    """Everything that a daemon does, step by step, beside a watched and empty table `course`."""
    async with administration(dsn) as database:
        assert await database.models()
        await database.missing_rights()
        await database.activate_models(["first"])
    async with Worker.open(dsn) as worker:
        wake = PostgresWakeSource(worker.database, dsn)
        async with wake.listen():
            await wake.mark_awake(2)
            await wake.clear_awake()
            await wake.notify()

        await app.execute("INSERT INTO course (id, title) VALUES (1, 'One'), (2, 'Two'), (3, 'Three')")
        await worker.settle()
        held = await app.fetchval("SELECT chunk_hash FROM rowvec.vector_first LIMIT 1")
        assert await worker.store_.find("first", TRAITS, [held])

        # New chunks in the place of old ones, and a chunk that stays.
        await app.execute("UPDATE rowvec.vector_first SET owner = 'nobody' WHERE content_id = '2'")
        await app.execute("UPDATE course SET title = 'Once more' WHERE id = 1; SELECT rowvec.enqueue('course', '2')")
        await worker.settle()
        assert await app.fetchval("SELECT count(*) FROM rowvec.vector_first WHERE owner = 'nobody'") == 0

        # A removal that its trigger leaves to the fold, and one of the whole table.
        async with app.transaction(isolation="repeatable_read"):
            await app.execute("DELETE FROM course WHERE id = 3")
        await worker.fold()
        assert await app.fetchval("SELECT count(*) FROM rowvec.vector_first WHERE content_id = '3'") == 0
        async with app.transaction(isolation="repeatable_read"):
            await app.execute("TRUNCATE course")
        await worker.settle()
        while "course" in await worker.unfilled():
            await worker.append_page("course")
        await worker.settle()
        assert await app.fetchval("SELECT count(*) FROM rowvec.vector_first") == 0

        await app.execute("INSERT INTO course (id, title) VALUES (4, 'Four'), (5, 'Five')")
        await worker.fold()
        claim = await worker.claim()
        first, second = (item.id for item in claim.items)
        await worker.queue.release(claim, [first], 0)
        await worker.queue.fail(claim, {second: None}, "It went wrong.", "")
        assert await app.fetchval("SELECT count(*) FROM rowvec.embedding_queue WHERE status = 'failed'") == 1
        dispatches = PostgresDispatches(worker.database, uuid.uuid4())
        await dispatches.count_sent(1, 2)
        await dispatches.count_dispatched()
        await worker.presence.renew([claim.token])
        await worker.presence.release_lost()
        await worker.presence.leave()


async def test_a_role_needs_these_rights_and_the_role_made_by_migrate_has_them(app: asyncpg.Connection) -> None:
    name = new_name()
    async with dropped(app, name):
        await app.execute(f"CREATE ROLE {name} LOGIN")
        of_second = {(privilege, table.replace("first", "second")) for privilege, table in RIGHTS if "first" in table}
        assert await missing(app, name) == {*RIGHTS, *BESIDES, *of_second}
        assert await app.fetch("SELECT * FROM rowvec.grant_daemon_rights($1)", name) == []
        assert await missing(app, name) == set()
        assert await missing(app, DAEMON_ROLE) == set()
        assert [row[0] for row in await app.fetch("SELECT rowvec.daemon_roles()")] == sorted([DAEMON_ROLE, name])


async def test_with_its_rights_it_does_all_its_work(course: asyncpg.Connection, daemon_dsn: str) -> None:
    await work(course, daemon_dsn)


@pytest.mark.parametrize(("privilege", "on"), RIGHTS, ids=[" ".join(right) for right in RIGHTS])
async def test_without_any_one_of_them_it_does_not(
    course: asyncpg.Connection, daemon_dsn: str, privilege: str, on: str
) -> None:
    await course.execute(f"REVOKE {privilege} ON {on} FROM {DAEMON_ROLE}")
    with pytest.raises((ConfigurationError, SourceUnreadableError), match="permission denied"):
        await work(course, daemon_dsn)
    assert (privilege, on) in await missing(course, DAEMON_ROLE)


async def test_it_may_do_nothing_else(course: asyncpg.Connection, daemon_dsn: str) -> None:
    assert course.is_closed() is False
    async with session(daemon_dsn) as daemon:
        for statement in FORBIDDEN:
            try:
                await daemon.execute(statement)
            except asyncpg.InsufficientPrivilegeError:
                continue
            pytest.fail(f"It may do this: {statement}")


async def test_a_daemon_of_that_role_keeps_vectors_true(app: asyncpg.Connection, daemon_dsn: str) -> None:
    await app.execute("CREATE TABLE post (id bigint PRIMARY KEY, body text)")
    await app.execute("INSERT INTO post SELECT n, 'Post ' || n FROM generate_series(1, 1500) n")
    await app.execute("INSERT INTO post VALUES (0, 'POISON')")
    await app.execute("SELECT rowvec.watch('post', 'post', ARRAY['body'], 2, template => '{body}')")

    async def texts() -> list[str]:
        rows = await app.fetch("SELECT chunk_text FROM rowvec.vector_first ORDER BY content_id::bigint")
        return [row["chunk_text"] for row in rows]

    async with running(daemon_dsn, GatedEmbedder()) as daemon:
        await eventually(lambda: settled(app, 1))
        assert await texts() == [f"Post {n}" for n in range(1, 1501)]
        failed = await app.fetchval("SELECT error_message FROM rowvec.embedding_queue WHERE model = 'first'")
        assert failed == "The model refuses this text."
        await app.execute("DELETE FROM post WHERE id > 2 OR id = 0; UPDATE post SET body = 'Zwei' WHERE id = 2")
        await eventually(lambda: finished(app))
        assert await texts() == ["Post 1", "Zwei"]
        # Paused and resumed, it is filled and swept once more: a row went while nobody looked.
        await app.execute("SELECT rowvec.pause('post'); DELETE FROM post WHERE id = 1; SELECT rowvec.resume('post')")
        await eventually(lambda: settled(app))
        assert await texts() == ["Zwei"]
        async with app.transaction(isolation="repeatable_read"):
            await app.execute("TRUNCATE post")
        await eventually(lambda: settled(app))
        assert await texts() == []
        assert await is_ready(daemon)
        roles = "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name = 'rowvec' AND datname = $1"
        assert [row[0] for row in await app.fetch(roles, urlsplit(daemon_dsn).path[1:])] == [DAEMON_ROLE]
    assert await app.fetchval("SELECT count(*) FROM rowvec.daemon") == 0


async def test_functions_with_the_owners_rights_pin_their_search_path(course: asyncpg.Connection) -> None:
    rows = await course.fetch("""
        SELECT p.oid::regprocedure::text AS name, array_to_string(p.proconfig, ' ') AS settings
        FROM pg_proc p WHERE p.pronamespace = 'rowvec'::regnamespace AND p.prosecdef
    """)
    assert {"rowvec.reopen_sources(text[],text[])", "rowvec.on_insert_course()"} <= {row["name"] for row in rows}
    assert [row["name"] for row in rows if not re.search(r"search_path=pg_catalog,.*pg_temp\b", row["settings"])] == []


async def test_a_model_added_later_is_open_to_it(app: asyncpg.Connection) -> None:
    await app.execute("SELECT rowvec.add_model('third', 4)")
    assert await missing(app, DAEMON_ROLE) == set()


@pytest.mark.parametrize("name", [DAEMON_ROLE, "postgres"])
async def test_a_daemon_without_a_models_table_sends_the_owner_to_migrate(dsn: str, name: str) -> None:
    if name == DAEMON_ROLE:
        dsn = as_user(dsn, name)
    with pytest.raises(
        ConfigurationError, match=r"not know the model new\. Run `rowvec migrate` as the owner"
    ) as caught:
        async with running(dsn, GatedEmbedder("new")):
            pass
    assert caught.value.exit_code == 78


async def test_a_daemon_that_lacks_a_right_is_told_before_it_begins(app: asyncpg.Connection, daemon_dsn: str) -> None:
    await app.execute(f"REVOKE INSERT, UPDATE (owner) ON rowvec.vector_first FROM {DAEMON_ROLE}")
    words = (
        r"lacks .*: INSERT on TABLE rowvec\.vector_first, UPDATE \(owner\) on TABLE rowvec\.vector_first\. .*migrate"
    )
    with pytest.raises(ConfigurationError, match=words) as caught:
        async with running(daemon_dsn, GatedEmbedder()):
            pass
    assert caught.value.exit_code == 78


# --- Who makes it ----------------------------------------------------------------------------------------


async def test_the_role_is_made_once_with_its_settings_and_rights(app: asyncpg.Connection, dsn: str) -> None:
    name = new_name()
    others = "SELECT rolname, rolconfig FROM pg_roles WHERE rolname <> $1"
    before = await app.fetch(others, name)
    async with dropped(app, name):
        assert await prepare_role(dsn, name) == PreparedRole(name, created=True, left=[])
        assert await carried(app, name) == ALL_SETTINGS
        assert await missing(app, name) == set()
        role = await app.fetchrow("SELECT * FROM pg_roles WHERE rolname = $1", name)
        assert role is not None
        assert role["rolcanlogin"]
        assert not [key for key in ("rolsuper", "rolcreaterole", "rolcreatedb", "rolbypassrls") if role[key]]
        # What somebody added stays; what somebody changed is put right.
        await app.execute(f"ALTER ROLE {name} SET work_mem = '8MB'; ALTER ROLE {name} SET statement_timeout = '1s'")
        assert await prepare_role(dsn, name) == PreparedRole(name, created=False, left=[])
        assert await carried(app, name) == {*ALL_SETTINGS, "work_mem=8MB"}
        written = "SELECT xmin::text FROM pg_db_role_setting WHERE setrole = $1::regrole::oid"
        last = await app.fetchval(written, name)
        assert await prepare_role(dsn, name) == PreparedRole(name, created=False, left=[])
        assert await app.fetchval(written, name) == last
    assert await app.fetch(others, name) == before


async def test_two_databases_are_migrated_at_once(app: asyncpg.Connection, dsn: str, empty_dsn: str) -> None:
    name = new_name()
    await migrate_database(empty_dsn, {})
    async with session(empty_dsn) as elsewhere, dropped(app, name):
        try:
            made = await asyncio.gather(*(prepare_role(place, name) for place in (dsn, empty_dsn) * 3))
            assert sorted(role.created for role in made) == [False] * 5 + [True]
            assert [role.left for role in made] == [[]] * 6
            assert await carried(app, name) == ALL_SETTINGS
            assert await missing(app, name) == await missing(elsewhere, name) == set()
        finally:
            await elsewhere.execute(f"DROP OWNED BY {name}")


@pytest.mark.parametrize("change", ["CREATE ROLE {name}", "ALTER ROLE {name} SET jit = off"])
async def test_another_session_that_changes_the_role_meanwhile_is_waited_for(
    app: asyncpg.Connection, connect: Connect, dsn: str, change: str
) -> None:
    name = new_name()
    async with dropped(app, name):
        if "CREATE" not in change:
            # Settings as an older program's.
            await app.execute(f"CREATE ROLE {name}; ALTER ROLE {name} SET jit = on")
        change_under_way = await connect()
        transaction = change_under_way.transaction()
        await transaction.start()
        await change_under_way.execute(change.format(name=name))
        runner = asyncio.create_task(prepare_role(dsn, name))
        waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock')"

        async def is_met() -> bool:
            return runner.done() or bool(await app.fetchval(waits, urlsplit(dsn).path[1:]))

        await eventually(is_met)
        await transaction.commit()
        assert (await runner).left == []
        assert await carried(app, name) == ALL_SETTINGS
        assert await missing(app, name) == set()


@contextlib.asynccontextmanager
async def owner_of(dsn: str, options: str = "") -> AsyncIterator[tuple[asyncpg.Connection, str]]:
    """An ordinary role that may create schemas and has migrated; yields a superuser's session and its DSN."""
    name = new_name()
    async with session(dsn) as admin, dropped(admin, name):
        await admin.execute(f"""
            CREATE ROLE {name} LOGIN PASSWORD 'secret' {options};
            CREATE EXTENSION IF NOT EXISTS vector;
            GRANT CREATE ON SCHEMA public TO {name};
        """)
        database = await admin.fetchval("SELECT quote_ident(current_database())")
        await admin.execute(f"GRANT CREATE ON DATABASE {database} TO {name}")
        await migrate_database(as_user(dsn, name), {"first": 8})
        yield admin, name


async def test_a_role_that_may_not_create_roles_says_what_an_administrator_does(empty_dsn: str) -> None:
    name = new_name()
    async with owner_of(empty_dsn) as (admin, owner), dropped(admin, name):
        dsn = as_user(empty_dsn, owner)
        left = [f"CREATE ROLE {name} LOGIN;", f"GRANT {name} TO {owner};"]
        assert await prepare_role(dsn, name) == PreparedRole(name, created=False, left=left)
        assert not await exists(admin, name)
        # The first alone: the rights are the owner's to give, the settings are not.
        await admin.execute(left[0])
        assert await prepare_role(dsn, name) == PreparedRole(name, created=False, left=left[1:])
        assert (await missing(admin, name), await carried(admin, name)) == (set(), set())
        await admin.execute(left[1])
        assert await prepare_role(dsn, name) == PreparedRole(name, created=False, left=[])
        assert await carried(admin, name) == ALL_SETTINGS


async def test_a_role_that_may_create_roles_needs_nobody(empty_dsn: str) -> None:
    name = new_name()
    async with owner_of(empty_dsn, "CREATEROLE") as (admin, owner), dropped(admin, name):
        assert await prepare_role(as_user(empty_dsn, owner), name) == PreparedRole(name, created=True, left=[])
        assert await carried(admin, name) == ALL_SETTINGS
        assert await missing(admin, name) == set()


async def test_in_a_closed_database_what_others_own_is_left_to_them(empty_dsn: str) -> None:
    name = new_name()
    async with session(empty_dsn) as first:
        await first.execute("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
        await first.execute("GRANT USAGE ON SCHEMA extensions TO PUBLIC")
        database = await first.fetchval("SELECT quote_ident(current_database())")
    async with owner_of(empty_dsn, "CREATEROLE") as (admin, owner), dropped(admin, name):
        await admin.execute(f"""
            REVOKE USAGE ON SCHEMA extensions FROM PUBLIC;
            GRANT USAGE ON SCHEMA extensions TO {owner};
            REVOKE ALL ON DATABASE {database} FROM PUBLIC;
            GRANT CONNECT ON DATABASE {database} TO {owner};
        """)
        left = [f"GRANT CONNECT ON DATABASE {database} TO {name};", f"GRANT USAGE ON SCHEMA extensions TO {name};"]
        assert await prepare_role(as_user(empty_dsn, owner), name) == PreparedRole(name, created=True, left=left)
        # A superuser needs nobody, and gives in the owner's name.
        assert (await prepare_role(empty_dsn, name)).left == []
        assert await missing(admin, name) == set()


def test_a_person_is_told_what_became_of_the_role(capsys: pytest.CaptureFixture[str]) -> None:
    tell_of_role(PreparedRole("rowvec_daemon", created=True, left=[]))
    assert "created role rowvec_daemon" in capsys.readouterr().out
    tell_of_role(PreparedRole("rowvec_daemon", created=False, left=[]))
    assert capsys.readouterr() == ("", "")
    tell_of_role(PreparedRole("rowvec_daemon", created=False, left=["CREATE ROLE rowvec_daemon LOGIN;"]))
    out, err = capsys.readouterr()
    assert out == ""
    assert "administrator run\n\n  CREATE ROLE rowvec_daemon LOGIN;\n\n" in err
    assert "`rowvec migrate` once more" in err


# --- Its settings, and poolers ---------------------------------------------------------------------------

SOURCES: Final = "SELECT name, setting, source FROM pg_settings WHERE name = ANY ($1)"


async def test_settings_that_the_role_carries_are_not_given_at_the_start(dsn: str, daemon_dsn: str) -> None:
    for address, source in ((daemon_dsn, "user"), (dsn, "client")):
        async with Worker.open(address) as worker, worker.database.connection() as lent:
            rows = await lent.fetch(SOURCES, list(SETTINGS))
            assert {row["source"] for row in rows} == {source}
            assert {name: await lent.fetchval(f"SHOW {name}") for name in SETTINGS} == SETTINGS


@pytest.mark.parametrize("name", ["statement_timeout", "plan_cache_mode"])
async def test_one_that_it_does_not_carry_brings_them_all(app: asyncpg.Connection, dsn: str, name: str) -> None:
    role = new_name()
    async with dropped(app, role):
        await prepare_role(dsn, role)
        await app.execute(f"ALTER ROLE {role} PASSWORD 'secret'; ALTER ROLE {role} RESET {name}")
        async with Worker.open(as_user(dsn, role)) as worker, worker.database.connection() as lent:
            assert {row["source"] for row in await lent.fetch(SOURCES, list(SETTINGS))} == {"client"}
            assert await lent.fetchval(f"SHOW {name}") == SETTINGS[name]


SESSION: Final = struct.pack("!i", 3 << 16)  # version 3.0 of the protocol
PASSED: Final = {b"user", b"database", b"client_encoding", b"application_name"}


@contextlib.asynccontextmanager
async def pooler(dsn: str) -> AsyncIterator[tuple[str, list[set[str]]]]:
    """What PgBouncer does at the start: settings that it does not know are refused.

    Yields its address, and fills a list with the names of what each session gave at its start.
    """
    query = parse_qs(urlsplit(dsn).query)
    upstream = f"{query['host'][-1]}/.s.PGSQL.{query['port'][-1]}"
    given: list[set[str]] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            (length,) = struct.unpack("!i", head := await reader.readexactly(4))
            packet = await reader.readexactly(length - 4)
            begins = packet[:4] == SESSION  # and does not cancel a statement of another one
            names = set(packet[4:].split(b"\0")[:-2:2]) if begins else set()
            given.append({name.decode() for name in names})
            if unknown := names - PASSED:
                words = b"unsupported startup parameter: " + min(unknown)
                fields = b"SFATAL\0C08P01\0M" + words + b"\0\0"
                writer.write(b"E" + struct.pack("!i", len(fields) + 4) + fields)
                writer.close()
                return
            from_server, to_server = await asyncio.open_unix_connection(upstream)
            to_server.write(head + packet)
            await asyncio.gather(pipe(reader, to_server), pipe(from_server, writer))

    with tempfile.TemporaryDirectory() as folder:
        server = await asyncio.start_unix_server(serve, Path(folder) / ".s.PGSQL.6432")
        async with server:
            yield f"{dsn}&host={folder}&port=6432", given


@pytest.fixture
def by_socket(dsn: str) -> str:
    if not parse_qs(urlsplit(dsn).query).get("host"):
        pytest.skip("needs a server that is reached through a socket in a folder")
    return dsn


async def test_the_role_works_through_a_pooler_that_refuses_settings(
    app: asyncpg.Connection, by_socket: str, daemon_dsn: str
) -> None:
    await app.execute("CREATE TABLE post (id bigint PRIMARY KEY, body text)")
    await app.execute("SELECT rowvec.watch('post', 'post', ARRAY['body'], 2)")
    async with pooler(by_socket) as (address, given):
        through = as_user(address, DAEMON_ROLE)
        async with running(through, GatedEmbedder(), ROWVEC_LISTEN_DATABASE_URL=daemon_dsn):
            await app.execute("INSERT INTO post VALUES (1, 'One')")
            await eventually(lambda: finished(app))
        assert await app.fetchval("SELECT count(*) FROM rowvec.vector_first") == 1
        assert set().union(*given) == {name.decode() for name in PASSED}


async def test_another_role_is_told_why_it_does_not(by_socket: str) -> None:
    async with pooler(by_socket) as (address, given):
        database = Database(address)
        with pytest.raises(ConfigurationError, match=r"pooler refuses .*startup parameter.*Connect as rowvec_daemon"):
            await database.open()
        await database.close()
        assert set(SETTINGS) <= given[-1]


# --- Row-level security ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def guarded(dsn: str, *, forced: bool) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Connection, str]]:
    """A watched table `course` with three rows, of another role or of the schema's owner itself.

    Yields a superuser's session, one of the schema's owner, and the statement that sets the policy in force.
    """
    async with owner_of(dsn) as (admin, name), session(as_user(dsn, name)) as owner:
        assert (await prepare_role(dsn)).left == []
        await (owner if forced else admin).execute("""
            CREATE TABLE course (id bigint PRIMARY KEY, title text);
            INSERT INTO course VALUES (1, 'One'), (2, 'Two'), (3, 'Three');
            CREATE POLICY few ON course USING (id = 1);
        """)
        await admin.execute(f"GRANT ALL ON course TO {name}")
        await owner.execute("SELECT rowvec.watch('course', 'course', ARRAY['title'], 2, template => '{title}')")
        force = ", FORCE ROW LEVEL SECURITY" if forced else ""
        yield admin, owner, f"ALTER TABLE course ENABLE ROW LEVEL SECURITY{force}"


def lifted() -> str:
    return "ALTER TABLE course DISABLE ROW LEVEL SECURITY"


async def held(admin: asyncpg.Connection) -> Sequence[str]:
    rows = await admin.fetch("SELECT content_id FROM rowvec.vector_first ORDER BY content_id")
    return [row["content_id"] for row in rows]


@pytest.mark.parametrize("forced", [False, True])
async def test_row_level_security_is_never_taken_for_deletion(empty_dsn: str, forced: bool) -> None:  # noqa: FBT001
    async with (
        guarded(empty_dsn, forced=forced) as (admin, owner, set_in_force),
        Worker.open(as_user(empty_dsn, DAEMON_ROLE)) as worker,
    ):
        while "course" in await worker.unfilled():
            await worker.append_page("course")
        await worker.settle()
        assert await held(admin) == ["1", "2", "3"]

        await admin.execute(set_in_force)
        assert await owner.fetchval("SELECT count(*) FROM course") == 1, "the policy hides rows from the owner"
        await admin.execute("UPDATE course SET title = title || '!'")
        await worker.fold()
        claim = await worker.claim()
        assert len(claim.items) == 3
        with pytest.raises(SourceUnreadableError, match="row-level security"):
            await worker.read(claim)
        await worker.queue.release(claim, [item.id for item in claim.items], 0)
        for background in ("DELETE FROM rowvec.backfill", "UPDATE rowvec.source SET swept = false"):
            await admin.execute(background)
            with pytest.raises(ConfigurationError, match="row-level security"):
                await worker.append_page("course")
            await worker.fold()
            assert await held(admin) == ["1", "2", "3"]

        await admin.execute(lifted())
        while "course" in await worker.unfilled():
            await worker.append_page("course")
        await worker.fold()
        while found := await worker.queue.probe(["first"], EVER):
            claim = await worker.queue.claim(next(iter(found)), uuid.uuid4(), 1000, EVER)
            await worker.store(claim, await worker.read(claim))
        texts = await admin.fetch("SELECT chunk_text FROM rowvec.vector_first ORDER BY content_id")
        assert [row[0] for row in texts] == ["One!", "Two!", "Three!"]


async def test_a_source_under_row_level_security_rests_until_it_may_be_read(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "SOURCE_REST_SECONDS", 0.5)
    async with guarded(empty_dsn, forced=True) as (admin, _, set_in_force):
        async with running(as_user(empty_dsn, DAEMON_ROLE), GatedEmbedder()):

            async def rests() -> bool:
                return "row-level security" in str(await admin.fetchval("SELECT resting FROM rowvec.daemon"))

            await eventually(lambda: settled(admin))
            await admin.execute(set_in_force)
            await admin.execute("UPDATE course SET title = 'Two!' WHERE id = 2")
            await admin.execute("DELETE FROM rowvec.backfill; UPDATE rowvec.source SET swept = false")
            await eventually(rests)
            assert await held(admin) == ["1", "2", "3"]
            assert await admin.fetchval("SELECT count(*) FROM rowvec.embedding_queue WHERE retry_count > 0") == 0
            # A removal is not held up.
            await admin.execute("DELETE FROM course WHERE id = 3")
            assert await held(admin) == ["1", "2"]
            await admin.execute(lifted())
            await eventually(lambda: settled(admin))
        assert await held(admin) == ["1", "2"]
        assert await admin.fetchval("SELECT chunk_text FROM rowvec.vector_first WHERE content_id = '2'") == "Two!"


async def test_writers_under_row_level_security_need_no_right_of_ours(
    course: asyncpg.Connection, connect: Connect
) -> None:
    name = new_name()
    async with dropped(course, name):
        await course.execute(f"""
            CREATE ROLE {name};
            GRANT SELECT, INSERT, UPDATE, DELETE ON course TO {name};
            INSERT INTO course (id, title, teacher) VALUES (1, 'One', 'somebody');
            DELETE FROM rowvec.change;
            ALTER TABLE course ENABLE ROW LEVEL SECURITY;
            CREATE POLICY own ON course USING (teacher = current_user);
        """)
        writer = await connect()
        await writer.execute(f"SET ROLE {name}")
        await writer.execute(f"INSERT INTO course (id, title, teacher) VALUES (2, 'Two', '{name}')")
        await writer.execute("UPDATE course SET title = 'Zwei'")
        await writer.execute("DELETE FROM course")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="schema rowvec"):
            await writer.execute("SELECT FROM rowvec.change")
        changes = await course.fetch("SELECT content_id, kind FROM rowvec.change ORDER BY id")
        assert [tuple(row) for row in changes] == [("2", "write"), ("2", "write"), ("2", "remove")]
