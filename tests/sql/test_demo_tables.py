"""The demo drops what it made, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from rowvec.cli.demo_rows import COURSES, LESSONS, TABLES, USERS
from rowvec.cli.demo_tables import PRESET, make_tables, write_late_rows
from rowvec.domain.errors import ConfigurationError, UsageError
from rowvec.postgres.administration import Administration, administration
from rowvec.postgres.presets import install_preset, load_preset


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Administration]:
    async with administration(dsn) as found:
        yield found


async def counts(app: asyncpg.Connection) -> list[int]:
    return [await app.fetchval(f"SELECT count(*) FROM {table.name}") for table in TABLES]


async def sources(app: asyncpg.Connection) -> list[str]:
    return [
        row[0] for row in await app.fetch("SELECT content_type FROM rowvec.source WHERE content_type <> 'document'")
    ]


async def test_each_start_begins_anew(dsn: str, database: Administration, app: asyncpg.Connection) -> None:
    for _ in range(2):
        await make_tables(database)
        assert await sources(app) == []
        assert await counts(app) == [len(table.early) for table in TABLES]
        await install_preset(dsn, load_preset(PRESET))
        await write_late_rows(database)
        assert await counts(app) == [len(table.rows) for table in TABLES]
        assert sorted(await sources(app)) == sorted(table.content_type for table in TABLES)
        await app.execute('INSERT INTO auth.users (raw_user_meta_data) VALUES (\'{"full_name": "Somebody"}\')')
        assert await app.fetchval("SELECT max(id) FROM profiles") == len(USERS.rows) + 1


async def test_keys_count_from_1_in_the_order_of_the_rows(database: Administration, app: asyncpg.Connection) -> None:
    await make_tables(database)
    await write_late_rows(database)
    rows = await app.fetch("SELECT id, title FROM course ORDER BY id")
    assert [tuple(row) for row in rows] == list(enumerate((row["title"] for row in COURSES.rows), 1))
    courses = await app.fetch("SELECT c.title FROM lesson l JOIN course c ON c.id = l.course_id ORDER BY l.id")
    assert [row["title"] for row in courses] == [row["course"] for row in LESSONS.rows]


@pytest.mark.parametrize("table", [table.name for table in TABLES])
async def test_a_table_that_somebody_else_made_stops_it(
    database: Administration, app: asyncpg.Connection, table: str
) -> None:
    await app.execute(f"CREATE SCHEMA auth; CREATE TABLE {table} AS SELECT 42 AS id")
    with pytest.raises(ConfigurationError, match="that the demo did not make"):
        await make_tables(database)
    assert await app.fetchval(f"SELECT id FROM {table}") == 42
    assert await app.fetchval("SELECT count(*) FROM pg_class c WHERE obj_description(c.oid) LIKE '%demo%'") == 0


async def test_a_table_that_was_given_another_name_is_kept(database: Administration, app: asyncpg.Connection) -> None:
    await make_tables(database)
    await app.execute("ALTER TABLE comments RENAME TO kept; ALTER TABLE kept DROP CONSTRAINT comments_post_id_fkey")
    await app.execute("ALTER TABLE kept DROP CONSTRAINT comments_author_id_fkey")
    await make_tables(database)
    assert await app.fetchval("SELECT count(*) FROM kept") > 0


async def test_a_table_of_somebody_else_that_refers_to_one_of_ours_stops_it(
    database: Administration, app: asyncpg.Connection
) -> None:
    await make_tables(database)
    await app.execute(
        "CREATE TABLE certificate (course_id bigint REFERENCES course); INSERT INTO certificate VALUES (1)"
    )
    with pytest.raises(UsageError, match="on table certificate depends on table course"):
        await make_tables(database)
    assert await app.fetchval("SELECT course_id FROM certificate JOIN course ON course.id = course_id") == 1
