"""Migrating: from nothing, twice, at once, interrupted, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from daemons import eventually
from database import as_user
from rowvec.domain.errors import ConfigurationError, SchemaNewerError, SchemaOutdatedError
from rowvec.domain.items import Watch
from rowvec.postgres import migrations
from rowvec.postgres.administration import Migrated, administration, migrate_database
from rowvec.postgres.migrations import Migration, check_schema, load_migrations, migrate
from worker import TRAITS, Worker

SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname = 'rowvec'"
BOOK = "SELECT version, name FROM rowvec.schema_migration ORDER BY version"


@contextlib.asynccontextmanager
async def session(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        connection.terminate()


@contextlib.asynccontextmanager
async def role(dsn: str, name: str) -> AsyncIterator[str]:
    """A role without any right of its own; yields the DSN to connect as it."""
    async with session(dsn) as admin:
        await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    try:
        yield as_user(dsn, name)
    finally:
        async with session(dsn) as admin:
            await admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def booked(dsn: str) -> list[tuple[int, str]]:
    async with session(dsn) as connection:
        return [tuple(row) for row in await connection.fetch(BOOK)]


def all_of_them() -> list[tuple[int, str]]:
    return [(migration.version, migration.name) for migration in load_migrations()]


async def check(dsn: str) -> None:
    async with session(dsn) as connection:
        await check_schema(connection)


# --- The way up ------------------------------------------------------------------------------------------


def test_the_files_are_numbered_without_gaps() -> None:
    assert [version for version, _ in all_of_them()] == list(range(1, len(all_of_them()) + 1))


async def test_an_empty_database_gets_everything_in_order(empty_dsn: str) -> None:
    done = await migrate_database(empty_dsn, {"first": 8, "second": 4})
    assert [(migration.version, migration.name) for migration in done.migrations] == all_of_them()
    assert done.added == ["first", "second"]
    assert await booked(empty_dsn) == all_of_them()
    await check(empty_dsn)


async def test_a_second_time_does_nothing(empty_dsn: str) -> None:
    await migrate_database(empty_dsn, {"first": 8})
    async with session(empty_dsn) as connection:
        before = await connection.fetch("SELECT * FROM rowvec.schema_migration")
        assert await migrate_database(empty_dsn, {"first": 8}) == Migrated([], [], [], [])
        assert await connection.fetch("SELECT * FROM rowvec.schema_migration") == before


async def test_four_runners_at_once_apply_each_migration_once(empty_dsn: str) -> None:
    results = await asyncio.gather(*(migrate_database(empty_dsn, {}) for _ in range(4)))
    applied = [migration.version for done in results for migration in done.migrations]
    assert sorted(applied) == [version for version, _ in all_of_them()]
    assert await booked(empty_dsn) == all_of_them()


async def test_four_runners_at_once_register_each_model_once(empty_dsn: str) -> None:
    results = await asyncio.gather(*(migrate_database(empty_dsn, {"first": 8, "second": 4}) for _ in range(4)))
    assert sorted(name for done in results for name in done.added) == ["first", "second"]


async def test_a_database_of_its_own_keeps_the_models_that_were_added_to_it(empty_dsn: str) -> None:
    await migrate_database(empty_dsn, {"first": 8, "second": 4})
    async with session(empty_dsn) as connection:
        await connection.execute("""SELECT rowvec.add_model('third', 8, served => '{"provider": "deterministic"}')""")
    assert (await migrate_database(empty_dsn, {"first": 8}, sole=True)).deactivated == ["second"]
    assert (await migrate_database(empty_dsn, {"first": 8}, ["third"], sole=True)).deactivated == ["third"]


async def test_a_database_that_is_strict_by_default_is_migrated_by_several_at_once(empty_dsn: str) -> None:
    async with session(empty_dsn) as connection:
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    await asyncio.gather(*(migrate_database(empty_dsn, {"first": 8}) for _ in range(4)))
    assert await booked(empty_dsn) == all_of_them()
    async with Worker.open(empty_dsn) as worker, worker.database.connection() as lent:
        assert await lent.fetchval("SHOW transaction_isolation") == "read committed"


# --- Interrupted -----------------------------------------------------------------------------------------


async def test_a_migration_that_fails_leaves_nothing_of_itself(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = load_migrations()
    broken = Migration(len(known) + 1, "broken", "0" * 64, False, "CREATE TABLE rowvec.half (); SELECT 1 / 0")  # noqa: FBT003
    monkeypatch.setattr(migrations, "load_migrations", lambda: [*known, broken])
    async with session(empty_dsn) as connection:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await migrate(connection)
        assert await booked(empty_dsn) == all_of_them()
        assert await connection.fetchval("SELECT to_regclass('rowvec.half')") is None
        cured = dataclasses.replace(broken, sql="CREATE TABLE rowvec.half ()")
        monkeypatch.setattr(migrations, "load_migrations", lambda: [*known, cured])
        assert await migrate(connection) == [cured]


async def test_a_runner_killed_in_the_middle_leaves_whole_migrations_only(empty_dsn: str) -> None:
    async with session(empty_dsn) as admin:
        # Stops the runner inside the fifth migration, when most of its functions are there.
        await admin.execute("""
            CREATE FUNCTION hold() RETURNS event_trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity LIKE 'rowvec.watch(%') THEN
                    PERFORM pg_advisory_xact_lock_shared(42);
                END IF;
            END $$;
            CREATE EVENT TRIGGER hold ON ddl_command_end WHEN TAG IN ('CREATE FUNCTION') EXECUTE FUNCTION hold();
            SELECT pg_advisory_lock(42);
        """)
        environment = {"PATH": os.environ["PATH"], "DATABASE_URL": empty_dsn}
        runner = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "rowvec", "migrate", env=environment, stdout=asyncio.subprocess.PIPE
        )
        held = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted)"
        await eventually(lambda: admin.fetchval(held), what="the runner did not come to the fifth migration")
        runner.send_signal(signal.SIGKILL)
        assert await runner.wait() == -signal.SIGKILL
        assert await booked(empty_dsn) == all_of_them()[:4]
        await admin.execute("SELECT pg_advisory_unlock(42); DROP EVENT TRIGGER hold")
        mine = "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND backend_type = $1"
        await eventually(lambda: admin.fetchval(mine, "client backend"), what="the killed runner's backend stays")
        assert await booked(empty_dsn) == all_of_them()[:4]
        assert await admin.fetchval("SELECT to_regprocedure('rowvec.check_settings(rowvec.source)')") is None
    with pytest.raises(SchemaOutdatedError, match="lacks migration 5"):
        await check(empty_dsn)
    done = await migrate_database(empty_dsn, {})
    assert [migration.version for migration in done.migrations] == [version for version, _ in all_of_them()[4:]]


async def test_a_database_from_before_the_life_of_models_goes_on(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With vectors, items and changes, while a writer's session keeps its plans and a role its right to search."""
    known = load_migrations()
    before = [migration.name for migration in known].index("model_life")

    async def keys(searching: asyncpg.Connection[asyncpg.Record]) -> list[str]:
        rows = await searching.fetch("SELECT * FROM rowvec.search('', '[1,1,1,1,1,1,1,1]'::vector, NULL)")
        return [row["content_id"] for row in rows]

    monkeypatch.setattr(migrations, "load_migrations", lambda: known[:before])
    async with session(empty_dsn) as owner, session(empty_dsn) as writer, role(empty_dsn, "rowvec_test_guest") as guest:
        await migrate(owner)
        await owner.execute("""
            SELECT rowvec.add_model('first', 8);
            SELECT rowvec.add_model('second', 4, false);
            CREATE TABLE course (id bigint PRIMARY KEY, title text);
            SELECT rowvec.watch('course', 'course', ARRAY['title'], 2, chunking => 'characters');
            INSERT INTO course SELECT n, 'Course ' || n FROM generate_series(1, 4) n;
            INSERT INTO rowvec.vector_first (content_type, content_id, chunk_index, chunk_text, chunk_hash, repeat,
                                             provider_revision, prefix, embedding)
            SELECT 'course', n::text, 0, '', sha256(n::text::bytea), 0, 'old', '', '[1,2,3,4,5,6,7,8]'
            FROM generate_series(1, 4) n;
            INSERT INTO rowvec.embedding_queue (content_type, content_id, model, priority, generation)
            VALUES ('course', '2', 'first', 2, 1);
            GRANT USAGE ON SCHEMA rowvec TO rowvec_test_guest;
            GRANT EXECUTE ON FUNCTION rowvec.search TO rowvec_test_guest;
        """)
        found = await keys(owner)
        assert found == ["1", "2", "3", "4"]
        delete = await writer.prepare("DELETE FROM course WHERE id = $1")
        await delete.fetch(1)
        monkeypatch.undo()
        assert [migration.name for migration in await migrate(owner)] == [m.name for m in known[before:]]
        await check(empty_dsn)
        assert await keys(owner) == found[1:]
        await delete.fetch(2)
        assert await keys(owner) == found[2:]
        async with session(guest) as searching:
            assert await keys(searching) == found[2:]
        assert await migrate_database(empty_dsn, {"first": 8}) == Migrated([], [], [], [])
        rows = await owner.fetch("SELECT name, active, is_default, distance, storage FROM rowvec.model ORDER BY name")
        assert [tuple(row) for row in rows] == [
            ("first", True, True, "cosine", "vector"),
            ("second", False, False, "cosine", "vector"),
        ]
        async with Worker.open(empty_dsn) as worker:
            await worker.settle()
        assert await owner.fetchval("SELECT count(*) FROM rowvec.embedding_queue") == 0
        await owner.execute("SELECT rowvec.drop_model('second')")


# --- Versions that don't fit -----------------------------------------------------------------------------


async def test_a_database_that_was_migrated_by_a_text_that_stood_there_for_a_while_is_taken(dsn: str) -> None:
    stood = "111cc90ceabe58b6d17c0fdc6305a4ca53a6ba9451e1d910af3f4c31f91d21cf"
    async with session(dsn) as connection:
        await connection.execute("UPDATE rowvec.schema_migration SET checksum = $1 WHERE version = 10", stood)
        assert await migrate(connection) == []


async def test_an_applied_migration_that_changed_is_refused(dsn: str) -> None:
    async with session(dsn) as connection:
        await connection.execute("UPDATE rowvec.schema_migration SET checksum = 'other' WHERE version = 2")
        with pytest.raises(ConfigurationError, match=r"Migration 2 was applied from another text.*never change"):
            await migrate(connection)
        with pytest.raises(ConfigurationError, match="Migration 2"):
            await check_schema(connection)


@pytest.mark.parametrize("breaking", [False, True])
async def test_a_newer_schema_is_refused_only_when_it_says_so(dsn: str, breaking: bool) -> None:  # noqa: FBT001
    async with session(dsn) as connection:
        await connection.execute("INSERT INTO rowvec.schema_migration VALUES (9999, 'later', 'x', $1)", breaking)
        if not breaking:
            await check_schema(connection)
            assert await migrate(connection) == []
            return
        for step in (check_schema, migrate):
            with pytest.raises(SchemaNewerError, match=r"migration 9999 \(later\).*Update the program") as caught:
                await step(connection)
            assert caught.value.exit_code == 65


async def test_an_older_schema_is_refused_until_it_is_migrated(dsn: str) -> None:
    async with session(dsn) as connection:
        await connection.execute("DELETE FROM rowvec.schema_migration WHERE version = 4")
        with pytest.raises(SchemaOutdatedError, match=r"lacks migration 4.*rowvec migrate"):
            await check_schema(connection)


async def test_no_schema_is_told(empty_dsn: str) -> None:
    with pytest.raises(SchemaOutdatedError, match=r"no rowvec schema.*rowvec migrate") as caught:
        await check(empty_dsn)
    assert caught.value.exit_code == 78


async def test_a_schema_of_the_same_name_that_is_not_ours_is_told_or_used(empty_dsn: str) -> None:
    async with session(empty_dsn) as connection:
        await connection.execute("CREATE SCHEMA rowvec")
        with pytest.raises(SchemaOutdatedError, match="rowvec migrate"):
            await check_schema(connection)
        assert len(await migrate(connection)) == len(all_of_them())


# --- The server and its extension ------------------------------------------------------------------------


class Pretending:
    """A connection whose server answers `show_server` with other facts: what can't be brought about here."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record], **facts: object) -> None:
        self._connection = connection
        self._facts = facts

    async def fetchrow(self, sql: str) -> dict[str, object]:
        row = await self._connection.fetchrow(sql)
        assert row is not None
        return {**dict(row), **self._facts}

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the connection has
        return getattr(self._connection, name)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"server_version": 140011}, "Postgres is too old.*15 or newer"),
        ({"in_recovery": True}, "read replica.*primary"),
        ({"vector_version": None, "vector_available": False}, "pgvector is not installed.*postgresql-NN-pgvector"),
        ({"vector_version": "0.7.4"}, r"pgvector 0\.7\.4 is too old.*0\.8 or newer.*ALTER EXTENSION vector UPDATE"),
    ],
)
async def test_a_server_that_does_not_fit_is_told(dsn: str, facts: dict[str, object], message: str) -> None:
    async with session(dsn) as connection:
        pretending: Any = Pretending(connection, **facts)
        for step in (migrate, check_schema):
            with pytest.raises(ConfigurationError, match=message):
                await step(pretending)


@pytest.mark.parametrize("version", ["0.8.0", "0.10.1", "1.0"])
async def test_newer_versions_of_pgvector_are_taken(dsn: str, version: str) -> None:
    async with session(dsn) as connection:
        pretending: Any = Pretending(connection, vector_version=version)
        await check_schema(pretending)


async def test_an_extension_that_was_dropped_is_told(dsn: str) -> None:
    async with session(dsn) as connection:
        await connection.execute("DROP EXTENSION vector CASCADE")
    with pytest.raises(ConfigurationError, match="extension vector is not installed"):
        async with administration(dsn):
            pass


async def test_a_role_that_may_not_create_the_extension_is_told(empty_dsn: str) -> None:
    async with role(empty_dsn, "rowvec_test_guest") as guest:
        with pytest.raises(ConfigurationError, match=r"may not create the extension.*superuser") as caught:
            await migrate_database(guest, {})
        assert caught.value.exit_code == 78


async def test_a_role_that_may_not_create_schemas_is_told(empty_dsn: str) -> None:
    async with session(empty_dsn) as connection:
        await connection.execute("CREATE EXTENSION vector")
        async with role(empty_dsn, "rowvec_test_guest") as guest:
            with pytest.raises(ConfigurationError, match=r"lacks a right: permission denied for database.*Connect as"):
                await migrate_database(guest, {})
        assert await connection.fetch(SCHEMAS) == []


async def test_a_role_without_rights_on_the_schema_is_told(dsn: str) -> None:
    async with role(dsn, "rowvec_test_guest") as guest:
        with pytest.raises(ConfigurationError, match=r"permission denied for schema rowvec.*rowvec migrate"):
            await check(guest)


async def test_an_ordinary_role_that_may_create_schemas_can_migrate(empty_dsn: str) -> None:
    async with session(empty_dsn) as admin, role(empty_dsn, "rowvec_test_owner") as owner:
        name = await admin.fetchval("SELECT current_database()")
        await admin.execute(f"CREATE EXTENSION vector; GRANT CREATE ON DATABASE {name} TO rowvec_test_owner")
        await migrate_database(owner, {"first": 8})
        await check(owner)
        async with Worker.open(owner) as worker:
            assert (await worker.fold()).locked


async def test_another_length_of_a_model_is_told_with_both_numbers(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match=r"to 16 dimensions.*holds 8.*ROWVEC_MODEL_FIRST_DIMENSIONS"):
        await migrate_database(dsn, {"first": 16})


@pytest.mark.parametrize("schema", ["extensions", 'Odd "one"'])
async def test_pgvector_in_a_schema_of_its_own_works_from_watch_to_search(empty_dsn: str, schema: str) -> None:
    async with session(empty_dsn) as connection:
        quoted = '"' + schema.replace('"', '""') + '"'
        await connection.execute(f"CREATE SCHEMA {quoted}; CREATE EXTENSION vector SCHEMA {quoted}")
        await migrate_database(empty_dsn, {"first": 8, "second": 4})
        await connection.execute("CREATE TABLE course (id bigint PRIMARY KEY, title text)")
        async with administration(empty_dsn) as database, Worker.open(empty_dsn) as worker:
            assert await database.watch(Watch("course", "course", ["title"], 2))
            await connection.execute("INSERT INTO course VALUES (1, 'One'), (2, 'Two')")
            await worker.settle()
            await connection.execute("UPDATE course SET title = 'Once more' WHERE id = 2")
            await worker.settle()
            held = await connection.fetch("SELECT chunk_hash FROM rowvec.vector_first ORDER BY content_id")
            vectors = await worker.store_.find("first", TRAITS, [row["chunk_hash"] for row in held])
            assert len(vectors) == 2
            found = await database.search("", vectors[held[1]["chunk_hash"]], None, None, None, 10)
            assert (found[0]["content_id"], found[0]["chunk_text"]) == ("2", "title: Once more")
            await connection.execute("DELETE FROM course WHERE id = 2")
            found = await database.search("", vectors[held[1]["chunk_hash"]], None, ["course"], "first", 10)
            assert [row["content_id"] for row in found] == ["1"]
