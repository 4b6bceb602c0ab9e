"""Migrations: numbered SQL files, each applied once, in its own transaction, by one runner at a time.

The files have the form of dbmate: a line `-- migrate:up` with options, then SQL. The option `breaking:true` says
that programs that do not know the migration must not run on the migrated database.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from rowvec.domain.errors import ConfigurationError, SchemaNewerError, SchemaOutdatedError
from rowvec.postgres.connections import translated
from rowvec.postgres.statements import quote_identifier, sql_folder, statement

OLDEST_POSTGRES: Final = 150000
OLDEST_VECTOR: Final = (0, 8)

_HEAD: Final = re.compile(r"^-- migrate:up breaking:(true|false)\n")
_NAME: Final = re.compile(r"^(\d{4})_(\w+)\.sql$")

_AS_WELL: Final = {10: "111cc90ceabe58b6d17c0fdc6305a4ca53a6ba9451e1d910af3f4c31f91d21cf"}
"""Checksums of texts that stood there for a while: what they had more is in a later one, and does no harm twice."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file.

    Attributes:
        version: from 1, without gaps.
        name: the file's stem after the number.
        checksum: SHA-256 of the file, in hexadecimal.
        breaking: older programs must not run on the migrated database.
        sql: what is run.
    """

    version: int
    name: str
    checksum: str
    breaking: bool
    sql: str


def load_migrations() -> list[Migration]:
    """Return all migrations of this program, in order."""
    found = []
    for file in sql_folder().joinpath("migrations").iterdir():
        name, head = _NAME.match(file.name), _HEAD.match(text := file.read_text())
        if name is None or head is None:
            raise ConfigurationError(f"{file.name} is no migration.", "Its name or its first line has another form.")
        digest = hashlib.sha256(text.encode()).hexdigest()
        found.append(Migration(int(name[1]), name[2], digest, head[1] == "true", text))
    return sorted(found, key=lambda migration: migration.version)


async def migrate(connection: asyncpg.Connection[asyncpg.Record]) -> list[Migration]:
    """Apply what is missing; return what was applied. Safe when several run at once.

    Args:
        connection: of a role that may create schemas (and the extension vector, if it is not there).

    Raises:
        ConfigurationError: pgvector is missing or too old, Postgres is too old, a right is missing, or an applied
            migration was changed afterwards.
        SchemaNewerError: a newer program has migrated this database in a way that breaks this one.
    """
    applied = []
    with translated():
        await check_server(connection, may_create=True)
        while (migration := await _apply_next(connection)) is not None:
            applied.append(migration)
    return applied


async def check_schema(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Make sure that this program and the database's schema fit.

    Raises:
        SchemaOutdatedError: the schema is missing or older than the program.
        SchemaNewerError: it is newer, and says so of itself that older programs must not use it.
        ConfigurationError: as `migrate`.
    """
    with translated():
        await check_server(connection, may_create=False)
        server = await connection.fetchrow(statement("show_server"))
        assert server is not None  # noqa: S101 - a SELECT without FROM has one row
        if not server["migrated"]:
            raise SchemaOutdatedError("This database has no rowvec schema.", "Run `rowvec migrate` first.")
        pending = _pending(await connection.fetch(statement("list_migrations")))
    if pending:
        raise SchemaOutdatedError(
            f"The database's schema lacks migration {pending[0].version} ({pending[0].name}).",
            "Run `rowvec migrate` with this version of the program.",
        )


async def check_server(connection: asyncpg.Connection[asyncpg.Record], *, may_create: bool) -> None:
    """Make sure that Postgres and pgvector are new enough; create the extension if allowed."""
    server = await connection.fetchrow(statement("show_server"))
    assert server is not None  # noqa: S101 - as above
    if server["server_version"] < OLDEST_POSTGRES:
        raise ConfigurationError("This Postgres is too old.", "rowvec needs Postgres 15 or newer.")
    if server["in_recovery"]:
        raise ConfigurationError("This Postgres is a read replica.", "Connect to the primary.")
    if server["vector_version"] is None and not server["vector_available"]:
        raise ConfigurationError(
            "pgvector is not installed on this Postgres server.",
            "Install the package (on Debian: postgresql-NN-pgvector), then run `rowvec migrate`.",
        )
    if server["vector_version"] is None and may_create:
        await _create_vector(connection)
    elif server["vector_version"] is not None:
        version = tuple(int(part) for part in server["vector_version"].split(".")[:2])
        if version < OLDEST_VECTOR:
            raise ConfigurationError(
                f"pgvector {server['vector_version']} is too old: rowvec needs 0.8 or newer.",
                "Update the package, then run ALTER EXTENSION vector UPDATE.",
            )


async def _create_vector(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    try:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except asyncpg.UniqueViolationError:
        # Two runners at once: IF NOT EXISTS looks before it leaps.
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigurationError(
            "The role may not create the extension vector.",
            "Let a superuser run CREATE EXTENSION vector; here.",
        ) from error


async def _apply_next(connection: asyncpg.Connection[asyncpg.Record]) -> Migration | None:
    # Whatever the role's or database's default: a snapshot from before the lock would not see what others applied.
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(statement("lock_migrations"))
        server = await connection.fetchrow(statement("show_server"))
        assert server is not None  # noqa: S101 - as above
        if not server["migrated"]:
            await connection.execute(statement("create_schema"))
        pending = _pending(await connection.fetch(statement("list_migrations")))
        if not pending:
            return None
        migration = pending[0]
        # Functions keep this search_path: pgvector may live in a schema of its own.
        path = f"pg_catalog, {quote_identifier(server['vector_schema'])}, pg_temp"
        await connection.execute(f"SET LOCAL search_path = {path}")
        await connection.execute(migration.sql)
        await connection.execute(
            statement("record_migration"),
            migration.version,
            migration.name,
            migration.checksum,
            migration.breaking,
        )
        return migration


def _pending(applied: Sequence[asyncpg.Record]) -> list[Migration]:
    known = {migration.version: migration for migration in load_migrations()}
    for row in applied:
        migration = known.get(row["version"])
        if migration is None and row["breaking"]:
            raise SchemaNewerError(
                f"The database's schema is newer than this program: it has migration {row['version']} ({row['name']}).",
                "Update the program.",
            )
        if migration is not None and row["checksum"] not in {migration.checksum, _AS_WELL.get(row["version"])}:
            raise ConfigurationError(
                f"Migration {row['version']} was applied from another text than this program's.",
                "Applied migrations never change: use an official build of the program.",
            )
    done = {row["version"] for row in applied}
    return [migration for version, migration in known.items() if version not in done]
