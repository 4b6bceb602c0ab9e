"""Presets: `sql/presets/NAME.sql`, an application's tables, watches and views. Each may run any number of times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from rowvec.domain.errors import SchemaOutdatedError, UsageError
from rowvec.postgres.connections import close, connect, translated
from rowvec.postgres.locks import run_patiently
from rowvec.postgres.migrations import check_schema
from rowvec.postgres.statements import quote_identifier, sql_folder, statement


@dataclass(frozen=True, slots=True)
class Preset:
    """One file.

    Attributes:
        name: its stem.
        sql: what is run, in one transaction, with pgvector's schema in the search_path.
    """

    name: str
    sql: str


@dataclass(frozen=True, slots=True)
class Installed:
    """What a preset has changed; nothing where it was installed before.

    Attributes:
        sources: what is watched otherwise from now on, by content type.
        models: names of new models.
    """

    sources: Sequence[str]
    models: Sequence[str]


def load_preset(name: str) -> Preset:
    """Return a preset of this program.

    Raises:
        UsageError: there is none of this name; says which there are.
    """
    folder = sql_folder() / "presets"
    names = sorted(file.name.removesuffix(".sql") for file in folder.iterdir() if file.name.endswith(".sql"))
    if name not in names:
        raise UsageError(f'There is no preset "{name}".', f"There is: {', '.join(names)}.")
    return Preset(name, (folder / f"{name}.sql").read_text())


async def install_preset(dsn: str, preset: Preset) -> Installed:
    """Run a preset on a migrated database, all of it or nothing. Safe when several run at once.

    Raises:
        UsageError: something in the database is in its way; says what.
        LockedError: a table was in use all the time.
        RowvecError: as `connect` and `check_schema`.
    """
    connection = await connect(dsn, None)
    try:
        await check_schema(connection)
        return await run_patiently(connection, lambda: _install(connection, preset))
    finally:
        await close(connection)


async def _install(connection: asyncpg.Connection[asyncpg.Record], preset: Preset) -> Installed:
    with translated():
        await connection.execute(statement("lock_migrations"))
        server = await connection.fetchrow(statement("show_server"))
        assert server is not None  # noqa: S101 - a SELECT without FROM has one row
        if server["vector_schema"] is None:
            raise SchemaOutdatedError("The extension vector is not installed here.", "Run `rowvec migrate` first.")
        path = f"pg_catalog, {quote_identifier(server['vector_schema'])}, pg_temp"
        await connection.execute(f"SET LOCAL search_path = {path}")
        await connection.execute(preset.sql)
        written = await connection.fetchrow(statement("list_written"))
        assert written is not None  # noqa: S101 - as above
    return Installed(written["sources"], written["models"])
