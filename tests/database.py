"""A Postgres for the tests: ROWVEC_TEST_DATABASE_URL, a container on request, or the embedded one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg

from rowvec.embedded import EmbeddedPostgres
from rowvec.postgres.administration import migrate_database
from rowvec.postgres.roles import DAEMON_ROLE, prepare_role

Connect = Callable[[], Coroutine[Any, Any, asyncpg.Connection]]
MODELS = {"first": 8, "second": 4}
SETTINGS = {"max_prepared_transactions": "10"}
FILL = """
    INSERT INTO rowvec.backfill (content_type, model, done) SELECT content_type, model, true FROM rowvec.unfilled
    ON CONFLICT (content_type, model) DO UPDATE SET done = true
"""
"""Makes all sources as if their backfills had come to their end."""
MEMORY = Path("/dev/shm")  # noqa: S108 - of its folders only we know the names
ENOUGH_BYTES = 4 * 1024**3
MAJOR = int(os.environ.get("ROWVEC_TEST_POSTGRES", "18"))


@dataclass(frozen=True)
class Server:
    """A running Postgres and how to name its databases."""

    dsn: str

    def dsn_for(self, database: str) -> str:
        parts = urlsplit(self.dsn)
        # Not urlunsplit: it drops the two slashes before an empty host, and libpq wants them.
        return f"{parts.scheme}://{parts.netloc}/{database}?{parts.query}"


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """Yield the Postgres that the environment asks for."""
    if url := os.environ.get("ROWVEC_TEST_DATABASE_URL"):
        yield Server(url)
    elif os.environ.get("ROWVEC_TEST_CONTAINERS"):
        from testcontainers.postgres import PostgresContainer  # noqa: PLC0415 - slow, and rarely asked for

        with PostgresContainer(f"pgvector/pgvector:pg{MAJOR}", driver=None) as container:
            yield Server(container.get_connection_url())
    else:
        with (
            open_folder() as folder,
            EmbeddedPostgres(folder, major=MAJOR, durable=False, settings=SETTINGS) as postgres,
        ):
            yield Server(postgres.dsn_for("postgres"))


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """Yield a folder that an unprivileged user can reach, which pytest's own are not for root."""
    with tempfile.TemporaryDirectory(prefix="rowvec-", dir=_memory(), ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name) / "postgres"


def _memory() -> Path | None:
    """Where there is room in memory: most tests copy a database, slowly on a disk that is busy."""
    usable = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ENOUGH_BYTES
    return MEMORY if usable else None


async def create_template(server: Server) -> str:
    """Make a migrated database to copy from; return its name."""
    name = f"rowvec_template_{uuid.uuid4().hex[:12]}"
    await _run(server.dsn, f"CREATE DATABASE {name}")
    await migrate_database(server.dsn_for(name), MODELS)
    await prepare_role(server.dsn_for(name))
    await _run(server.dsn_for(name), FILL)
    with contextlib.suppress(asyncpg.InternalServerError):  # another worker, on a server that they share, does the same
        await _run(server.dsn, f"ALTER ROLE {DAEMON_ROLE} PASSWORD 'secret'")
    return name


def as_user(dsn: str, name: str) -> str:
    """The same database as another user; of two parameters in the query the last one counts."""
    return f"{dsn}{'&' if '?' in dsn else '?'}user={quote(name)}&password=secret"


@contextlib.asynccontextmanager
async def copied_database(server: Server, template: str) -> AsyncIterator[str]:
    """Yield the DSN of a fresh copy."""
    name = f"rowvec_test_{uuid.uuid4().hex[:12]}"
    await _run(server.dsn, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    try:
        yield server.dsn_for(name)
    finally:
        await _run(server.dsn, f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.asynccontextmanager
async def empty_database(server: Server) -> AsyncIterator[str]:
    """Yield the DSN of a fresh database with nothing in it."""
    name = f"rowvec_empty_{uuid.uuid4().hex[:12]}"
    await _run(server.dsn, f"CREATE DATABASE {name} STRATEGY file_copy")
    try:
        yield server.dsn_for(name)
    finally:
        await _run(server.dsn, f"DROP DATABASE {name} WITH (FORCE)")


async def drop_database(server: Server, name: str) -> None:
    await _run(server.dsn, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def _run(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
