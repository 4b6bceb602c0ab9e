from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import asyncpg
import pytest

from database import MAJOR
from rowvec.postgres.administration import migrate_database


def load_generator() -> tuple[Callable[[str], str], Path, int]:
    """Import the program beside this file: pytest's importlib mode has no folder of tests to import from."""
    spec = spec_from_file_location("dump_schema", Path(__file__).with_name("dump_schema.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.dump_schema, module.SNAPSHOT, module.MAJOR


dump_schema, SNAPSHOT, SNAPSHOT_MAJOR = load_generator()

pytestmark = pytest.mark.skipif(
    MAJOR != SNAPSHOT_MAJOR
    or any(os.environ.get(name) for name in ("ROWVEC_TEST_DATABASE_URL", "ROWVEC_TEST_CONTAINERS")),
    reason=f"the snapshot is of the embedded Postgres {SNAPSHOT_MAJOR}: others print the same schema differently",
)


async def test_the_snapshot_is_what_the_migrations_make(empty_dsn: str) -> None:
    await migrate_database(empty_dsn, {})
    assert dump_schema(empty_dsn) == SNAPSHOT.read_text(), "run `make schema` and look at the difference"


async def test_rows_and_settings_of_the_database_do_not_show(empty_dsn: str) -> None:
    await migrate_database(empty_dsn, {})
    connection = await asyncpg.connect(empty_dsn)
    await connection.execute("""
        INSERT INTO rowvec.model (name, dimensions) VALUES ('first', 8);
        SELECT nextval('rowvec.generation') FROM generate_series(1, 5);
        CREATE TABLE public.own (id bigint PRIMARY KEY);
    """)
    await connection.close()
    assert dump_schema(empty_dsn) == SNAPSHOT.read_text()


def test_the_snapshot_tells_of_the_schema_alone() -> None:
    text = SNAPSHOT.read_text()
    for noise in ("Dumped", " OWNER TO postgres", "\\restrict", "\nSET ", "-- Name:"):
        assert noise not in text
    for part in ("CREATE TABLE rowvec.embedding_queue", "CREATE FUNCTION rowvec.watch(", "CREATE INDEX", "REVOKE ALL"):
        assert part in text
